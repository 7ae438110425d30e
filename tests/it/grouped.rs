//! Images of more assets than there may be layers: the smallest share one, and the lock says so.

use std::fmt::Write as _;
use std::fs;

use cargo_lambda_image::lock::{FILE_NAME, Lock, SHARED_DESTINATION, file};
use cargo_lambda_image::oci::Digest;
use serde_json::Value;

use crate::support::docker_registry::DockerRegistry;
use crate::support::program::{Outcome, Program};
use crate::support::project::Project;

/// So many assets, of which the smallest are `a000`, `a001` and so on.
const ASSETS: usize = 110;

/// The layers that others of them share: as many as are over the limit, and one more.
const SHARED: usize = ASSETS - 100 + 1;

fn name(number: usize) -> String {
    format!("a{number:03}.bin")
}

fn content(number: usize) -> String {
    "x".repeat(number + 1)
}

/// A project whose assets Git LFS keeps.
fn project(repository: &str) -> Project {
    let mut config = format!("base = \"scratch\"\nhandler = \"a.b\"\nrepository = \"{repository}\"\nassets = [\n");
    for number in 0..ASSETS {
        writeln!(config, "  {{ path = \"{}\" }},", name(number)).expect("a string");
    }
    config.push_str("]\n");
    let project = Project::new(&[
        ("lambda-image.toml", &config),
        (".gitattributes", "*.bin filter=lfs\n"),
        (".git/HEAD", "ref: refs/heads/main\n"),
    ]);
    (0..ASSETS).for_each(|number| project.write(&name(number), content(number)));
    project
}

/// The same project as another machine checks it out.
fn checkout(project: &Project) -> Project {
    let other = Project::new(&[(".git/HEAD", "ref: refs/heads/main\n")]);
    for path in ["lambda-image.toml", FILE_NAME, ".gitattributes"] {
        other.write(path, fs::read(project.path(path)).expect(path));
    }
    (0..ASSETS).for_each(|number| other.write(&name(number), content(number)));
    other
}

fn pointer(content: &str) -> String {
    let oid = Digest::of(content.as_bytes());
    format!("version https://git-lfs.github.com/spec/v1\noid {oid}\nsize {}\n", content.len())
}

fn push(project: &Project, arguments: &[&str]) -> Program {
    project.push().args(["--no-binary", "--message-format", "json"]).args(arguments)
}

fn pushed(outcome: &Outcome) -> Value {
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome.messages("image-pushed").remove(0)
}

fn lock(project: &Project) -> Lock {
    file::read(&project.path(FILE_NAME)).expect("a lock")
}

#[test]
fn a_lock_of_more_assets_than_layers_is_as_good_as_any() {
    let registry = DockerRegistry::start();
    let first = project(&format!("{}/app", registry.address));
    let image = pushed(&push(&first, &[]).run());
    assert_eq!(image["layers"].as_array().expect("layers").len(), 100);
    let locked = lock(&first);
    assert_eq!(locked.layers.len(), 100);
    let (shared, entry) = locked.layers.iter().find(|(key, _)| key.is_shared()).expect("a shared layer");
    let paths: Vec<_> = shared.assets.iter().map(|asset| asset.path.clone()).collect();
    assert_eq!(paths, (0..SHARED).map(name).collect::<Vec<_>>(), "the smallest");
    assert_eq!((entry.files, entry.lfs.len()), (SHARED as u64, SHARED));

    // Another machine, without records, sends nothing.
    let same = |project: &Project, arguments: &[&str]| {
        let again = pushed(&push(project, arguments).arg("--locked").run());
        assert_eq!((&again["digest"], &again["sent_bytes"]), (&image["digest"], &0.into()), "{arguments:?}");
    };
    let fresh = checkout(&first);
    same(&fresh, &[]);
    // Pointers in the shared layer and in others, and others that are not there at all.
    for number in [0, 3, SHARED - 1, SHARED, 90] {
        fresh.write(&name(number), pointer(&content(number)));
    }
    fs::remove_file(fresh.path(&name(ASSETS - 1))).expect("removed");
    same(&fresh, &["--assets-from-lock"]);
    let built = fresh.build().args(["--no-binary", "--assets-from-lock", "--locked"]).succeed();
    assert_eq!(image["digest"], built[0].to_string());
    crate::support::layout::verify(&fresh.layout());

    for (number, content, said) in [
        (3, Some(pointer("newer")), "by its pointer and sha256:"),
        (3, None, "it shares a layer with other assets"),
        (4, Some("OTHER".to_owned()), "`/var/task/a004.bin` is sha256:"),
    ] {
        let path = name(number);
        let before = fs::read(fresh.path(&path)).expect("read");
        match content {
            Some(content) => fresh.write(&path, content),
            None => fs::remove_file(fresh.path(&path)).expect("removed"),
        }
        let outcome = push(&fresh, &["--assets-from-lock"]).run();
        assert_eq!(outcome.code, 2, "{path}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(said), "{path}: {}", outcome.stderr);
        fresh.write(&path, before);
    }
    same(&fresh, &["--assets-from-lock"]);
}

#[test]
fn a_changed_asset_among_many_changes_its_own_lines_only() {
    let project = project("localhost:1/unused");
    let build = || project.build().arg("--no-binary").succeed();
    build();
    for (number, entry) in [(ASSETS - 2, "/var/task/a108.bin"), (0, SHARED_DESTINATION)] {
        let before = fs::read_to_string(project.path(FILE_NAME)).expect("a lock");
        project.write(&name(number), content(number).replace('x', "y"));
        build();
        let after = fs::read_to_string(project.path(FILE_NAME)).expect("a lock");
        assert_eq!(before.lines().count(), after.lines().count());
        let mut changed: Vec<_> = Vec::new();
        let mut place = "";
        for (old, new) in before.lines().zip(after.lines()) {
            place = new.strip_prefix("destination = ").unwrap_or(place);
            if old != new {
                assert_eq!(place, format!("\"{entry}\""));
                changed.push(new.split(" = ").next().expect("a key").trim());
            }
        }
        // The line in braces is the file's own in the list of what LFS keeps.
        let expected = ["diff-id", "digest", "{ path", "check"];
        assert_eq!(changed.iter().filter(|key| **key != "size").copied().collect::<Vec<_>>(), expected, "{entry}");
    }
}
