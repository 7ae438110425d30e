//! Files that Git LFS keeps: pointers are never packed, and stand for exactly the content that was locked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use cargo_lambda_image::layer::entries::Content;
use cargo_lambda_image::layer::lfs::kept_by_lfs;
use cargo_lambda_image::layer::plan::OWN_LAYER_BYTES;
use cargo_lambda_image::layer::walk::walk;
use cargo_lambda_image::lock::{FILE_NAME, file};
use cargo_lambda_image::oci::Digest;

use crate::support::assets::asset;
use crate::support::images::noise;
use crate::support::program::Program;
use crate::support::project::Project;
use crate::support::tools::{succeed, tool};

const CONFIG: &str = "base = \"scratch\"\nhandler = \"a.b\"\nassets = [{ path = \"models\" }]\n";

/// A repository that gives `*.bin` to LFS, with a large model, a small one and a file of its own.
fn project(large: &[u8], small: &[u8]) -> Project {
    let project = Project::new(&[
        ("lambda-image.toml", CONFIG),
        (".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n"),
        (".git/HEAD", "ref: refs/heads/main\n"),
        ("models/config.json", "{}"),
    ]);
    project.write("models/large.bin", large);
    project.write("models/small.bin", small);
    project
}

fn pointer(content: &[u8]) -> String {
    let oid = Digest::of(content);
    format!("version https://git-lfs.github.com/spec/v1\noid {oid}\nsize {}\n", content.len())
}

/// A pointer to another file as large as those that have layers of their own.
fn large_pointer() -> String {
    pointer(b"newer").replace("size 5", &format!("size {OWN_LAYER_BYTES}"))
}

fn build(project: &Project) -> Program {
    project.build().arg("--no-binary")
}

#[test]
fn a_pointer_is_refused_with_the_command_that_fetches_it() {
    let project = project(b"large", b"small");
    project.write("models/large.bin", pointer(b"large"));
    let outcome = build(&project).run();
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("large.bin` is only a pointer of Git LFS"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("`git lfs pull --include=\"models/large.bin\"`"), "{}", outcome.stderr);
    // Pointers of versions before the first release are valid still (git-lfs, docs/spec.md).
    project.write("models/large.bin", pointer(b"large").replace("git-lfs.", "hawser."));
    assert_eq!(build(&project).run().code, 2);
    // Files that git itself keeps may look like anything else.
    project.write("models/large.bin", pointer(b"large").replace("version", "# version"));
    build(&project).succeed();
}

#[test]
fn only_pointers_that_equal_the_lock_are_satisfied_from_it() {
    let large = noise(usize::try_from(OWN_LAYER_BYTES).expect("a size"));
    let project = project(&large, b"small");
    let first = build(&project).succeed();
    let lock = file::read(&project.path(FILE_NAME)).expect("a lock");
    let kept: Vec<_> = lock.layers.values().map(|layer| layer.lfs.clone()).collect();
    let small = [("/var/task/models/small.bin".to_owned(), Digest::of(b"small"))].into();
    let own = [("/var/task/models/large.bin".to_owned(), Digest::of(&large))].into();
    assert_eq!(kept, [small, own], "the content's digests, which are the pointers' oids");

    project.write("models/large.bin", pointer(&large));
    project.write("models/small.bin", pointer(b"small"));
    let outcome = build(&project).run();
    assert_eq!(outcome.code, 2, "not without being asked: {}", outcome.stderr);
    let help = "`; or take it from the lock and the repository with `--assets-from-lock`\n";
    assert!(outcome.stderr.contains(help), "{}", outcome.stderr);
    let from_lock = || build(&project).args(["--assets-from-lock", "--locked"]);
    assert_eq!(from_lock().succeed(), first);

    for (path, content, said) in [
        ("models/small.bin", pointer(b"newer"), "by its pointer"),
        ("models/large.bin", pointer(b"newer"), "and nothing by the lock"),
        ("models/large.bin", large_pointer(), "by its pointer and sha256:"),
        ("models/config.json", "[]".to_owned(), "other files or directories of layer `/var/task/models`"),
        ("models/more.bin", pointer(b"more"), "and nothing by the lock"),
    ] {
        let before = fs::read(project.path(path)).ok();
        project.write(path, content);
        let outcome = from_lock().run();
        assert_eq!(outcome.code, 2, "{path}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(said), "{path}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("git lfs pull --include="), "{path}: {}", outcome.stderr);
        match before {
            Some(before) => project.write(path, before),
            None => fs::remove_file(project.path(path)).expect("removed"),
        }
    }
    assert_eq!(from_lock().succeed(), first);
}

#[test]
fn content_beside_pointers_counts_by_what_it_is() {
    let project = project(b"large", b"small");
    let first = build(&project).succeed();
    project.write("models/large.bin", pointer(b"large"));
    // One was fetched, the other was not.
    assert_eq!(build(&project).arg("--assets-from-lock").succeed(), first);
    project.write("models/small.bin", "SMALL");
    let outcome = build(&project).arg("--assets-from-lock").run();
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("`/var/task/models/small.bin` is"), "{}", outcome.stderr);
}

/// What git itself says of these files of a repository, asked one by one.
fn given_by_git(project: &Project, files: &[String]) -> BTreeSet<String> {
    let mut git = Command::new(tool("git"));
    git.args(["check-attr", "-z", "filter", "--"]).args(files).current_dir(project.root());
    let said = succeed(git.env("HOME", project.root()).env("GIT_CONFIG_NOSYSTEM", "1"));
    let mut fields = said.split_terminator('\0');
    let mut given = BTreeSet::new();
    while let (Some(file), Some(_), Some(value)) = (fields.next(), fields.next(), fields.next()) {
        if value == "lfs" {
            given.insert(file.to_owned());
        }
    }
    given
}

#[test]
fn files_are_given_to_lfs_where_git_says_so() {
    let names =
        ["a.bin", "b.BIN", "my model.bin", "tab\there", "a[1].bin", "aQ.bin", "a-c", "ü.dat", "{x,y}", "x", "#h", "!n"];
    let folders = ["", "models", "models/tiny", "models/tiny/deep", "docs", "a/models"];
    let files = folders.iter().flat_map(|folder| {
        names.map(|name| match *folder {
            "" => name.to_owned(),
            folder => format!("{folder}/{name}"),
        })
    });
    let files: Vec<String> = files.collect();
    let project = Project::new(&[]);
    succeed(Command::new(tool("git")).args(["init", "-q"]).current_dir(project.root()).env("HOME", project.root()));
    for file in &files {
        project.write(file, "content");
    }
    let (mut met, mut wrong) = (0, Vec::new());
    for (top, below, info) in [
        // As `git lfs track` writes them.
        ("*.bin filter=lfs diff=lfs merge=lfs -text\n", "", ""),
        ("my[[:space:]]model.bin filter=lfs\nmodels/**/*.dat filter=lfs\n", "", ""),
        ("\"my model.bin\" filter=lfs\n\"\\303\\274.dat\" filter=lfs\n\"tab\\there\" filter=lfs\n", "", ""),
        // Patterns.
        ("a[[]1].bin filter=lfs\na\\[1\\].bin filter=lfs\n", "", ""),
        ("[[:alpha:]].[[:alpha:]]* filter=lfs\n", "", ""),
        ("[!a].* filter=lfs\n", "", ""),
        ("[^[:lower:]]* filter=lfs\n", "", ""),
        ("a[-x]c filter=lfs\n", "", ""),
        ("{x,y} filter=lfs\n", "", ""),
        ("*.{bin,dat} filter=lfs\n", "", ""),
        ("/models/* filter=lfs\n", "", ""),
        ("models/** filter=lfs\n", "", ""),
        ("**/models/* filter=lfs\n", "", ""),
        ("**/tiny/**/x filter=lfs\n", "", ""),
        ("models/**x filter=lfs\n", "", ""),
        ("mo**/x filter=lfs\n", "", ""),
        ("** filter=lfs\n", "", ""),
        ("models filter=lfs\nmodels/ filter=lfs\n", "", ""),
        ("\\#h filter=lfs\n#h filter=lfs\n", "", ""),
        ("!n filter=lfs\n\\!n filter=lfs\n", "", ""),
        ("? filter=lfs\nmodels/?/x filter=lfs\n", "", ""),
        // What is said later, or nearer, counts more.
        ("*.bin filter=lfs\na* -filter\n", "", ""),
        ("*.bin filter=lfs\na* !filter\n", "a.bin filter=lfs\n", ""),
        ("*.bin filter=lfs\n", "a* filter\nmy* filter=crypt\n", ""),
        ("*.bin -filter\n", "*.bin filter=lfs\n/tiny/*.bin !filter\n", ""),
        ("* filter=lfs\n", "* -filter\n", "models/tiny/x filter=lfs\n"),
        ("*.bin filter=lfs -filter\n*.dat -filter filter=lfs\n", "", ""),
        // Macros.
        ("[attr]big filter=lfs -text\n*.bin big\n", "x big\n", ""),
        ("*.bin big\n[attr]big filter=lfs\na.bin -big\n", "my* !big\n", ""),
        ("[attr]big filter=lfs\n*.bin filter=lfs\na.bin -big\n*.dat big\n", "*.dat -big\n", ""),
        ("[attr]big filter=lfs\n[attr]huge big\n*.bin huge\na* huge -filter\n", "", ""),
        ("*.bin big\n", "[attr]big filter=lfs\n*.bin big\n", ""),
        ("*.bin big\n", "x big\n", "[attr]big filter=lfs\n"),
        ("[attr]big filter=lfs\n[attr]big -filter\n*.bin big\n", "", ""),
        ("[attr]binary filter=lfs\n*.bin binary\n", "", ""),
        // Odd lines.
        ("\u{feff}*.bin filter=lfs\r\n  x   filter=lfs\r\n", "", ""),
        ("*.bin\n*.dat filter=lfs=x\nx  FILTER=lfs\n*.BIN filter=LFS", "", ""),
        ("*.bin filter=lfs # not a comment\n", "", ""),
    ] {
        project.write(".gitattributes", top);
        project.write("models/.gitattributes", below);
        project.write(".git/info/attributes", info);
        let mut packed = asset(project.root(), ".");
        packed.exclude = vec![".git".into(), "**/.gitattributes".into()];
        let entries = walk(&packed).expect("readable");
        let kept = kept_by_lfs(&entries, &BTreeMap::new());
        let kept: BTreeSet<_> = entries
            .iter()
            .filter(|entry| kept.contains(entry.path.as_path()))
            .filter_map(|entry| match &entry.content {
                Content::File(source) => source.path.strip_prefix(project.root()).ok(),
                Content::Directory { .. } | Content::Symlink(_) => None,
            })
            .map(|path| path.to_str().expect("UTF-8").to_owned())
            .collect();
        let expected = given_by_git(&project, &files);
        met += expected.len();
        if kept != expected {
            let (more, fewer) = (kept.difference(&expected), expected.difference(&kept));
            wrong.push(format!(
                "{top:?} {below:?} {info:?}: {:?} too many, {:?} not",
                more.collect::<Vec<_>>(),
                fewer.collect::<Vec<_>>()
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(met > 200, "only {met} files are given");
}
