//! Files that Git LFS keeps: pointers are never packed, and stand for exactly the content that was locked.

use std::fs;

use cargo_lambda_image::layer::plan::OWN_LAYER_BYTES;
use cargo_lambda_image::lock::{FILE_NAME, file};
use cargo_lambda_image::oci::Digest;

use crate::support::images::noise;
use crate::support::program::Program;
use crate::support::project::Project;

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
    assert_eq!(build(&project).run().code, 2, "not without being asked");
    let from_lock = || build(&project).args(["--assets-from-lock", "--locked"]);
    assert_eq!(from_lock().succeed(), first);

    for (path, content, said) in [
        ("models/small.bin", pointer(b"newer"), "by its pointer"),
        ("models/large.bin", pointer(b"newer"), "and nothing by the lock"),
        ("models/large.bin", large_pointer(), "by its pointer and sha256:"),
        ("models/config.json", "[]".to_owned(), "other files of layer `/var/task/models`"),
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
