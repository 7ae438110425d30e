//! The life of `lambda-image.lock`: written, reused, kept, merged, damaged. Renewing and machines without records have
//! files of their own.

mod recipes;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use axum::http::Method;
use cargo_lambda_image::layer::plan::OWN_LAYER_BYTES;
use cargo_lambda_image::lock::{FILE_NAME, Lock, file};

use crate::support::images::{Family, TestImage, index_type, noise};
use crate::support::program::{Outcome, Program};
use crate::support::project::{Project, package};
use crate::support::read_only::ReadOnly;
use crate::support::registry::{FaultRegistry, Ways};
use crate::support::tools::{succeed, tool};

const CONFIG: &str = "base = \"scratch\"\nhandler = \"a.b\"\nassets = [{ path = \"models\" }, { path = \"x.db\" }]\n";

fn project() -> Project {
    Project::new(&[("lambda-image.toml", CONFIG), ("models/a", "a"), ("models/b", "b"), ("x.db", "rows")])
}

fn build(project: &Project) -> Program {
    project.build().arg("--no-binary")
}

fn lock(project: &Project) -> Lock {
    file::read(&project.path(FILE_NAME)).expect("a lock")
}

fn destinations(lock: &Lock) -> Vec<&str> {
    lock.layers.keys().map(|key| key.destination.as_str()).collect()
}

fn refused(outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!(outcome.code, code, "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
    for word in words {
        assert!(outcome.stderr.contains(word), "`{word}` is missing of {}", outcome.stderr);
    }
}

#[test]
fn a_build_writes_what_it_found_out_and_the_next_one_nothing() {
    let project = project();
    let first = build(&project).succeed();
    let written = lock(&project);
    assert_eq!(destinations(&written), ["/var/task/models", "/var/task/x.db"]);
    let layers = project.result("app")["layers"].clone();
    for (layer, entry) in layers.as_array().expect("layers").iter().zip(written.layers.values()) {
        assert_eq!(layer["digest"], entry.digest.to_string());
        assert_eq!(layer["diff_id"], entry.diff_id.to_string());
        assert_eq!(layer["size"], entry.size);
        assert_eq!(layer["uncompressed_size"], entry.uncompressed_size);
    }
    let inode = || fs::metadata(project.path(FILE_NAME)).expect("there").ino();
    let before = inode();
    assert_eq!(build(&project).succeed(), first);
    assert_eq!(build(&project).args(["--locked", "--no-cache"]).succeed(), first);
    assert_eq!(inode(), before, "a lock that does not change is not written");
    project.write("x.db", "more rows");
    build(&project).succeed();
    let changed = lock(&project);
    let differ: Vec<_> =
        changed.layers.iter().filter(|(key, entry)| written.layers[*key] != **entry).map(|(key, _)| key).collect();
    assert_eq!(differ.iter().map(|key| key.destination.as_str()).collect::<Vec<_>>(), ["/var/task/x.db"]);
}

#[test]
fn a_locked_build_that_would_change_the_lock_says_what_and_changes_nothing() {
    let project = project();
    let missing = build(&project).arg("--locked").run();
    refused(&missing, 1, &["would change, and `--locked` forbids it", "layer `/var/task/models`: is added"]);
    assert!(!project.path(FILE_NAME).exists());
    build(&project).succeed();
    let (before, files) = (fs::read(project.path(FILE_NAME)).expect("a lock"), project.layout_files());
    project.write("models/b", "changed");
    for flag in ["--locked", "--frozen"] {
        let outcome = build(&project).arg(flag).run();
        refused(
            &outcome,
            1,
            &["layer `/var/task/models`: its content changed, sha256:", "help: run without `--locked`"],
        );
        assert!(!outcome.stderr.contains("x.db`:"), "{}", outcome.stderr);
    }
    assert_eq!(fs::read(project.path(FILE_NAME)).expect("a lock"), before);
    assert_eq!(project.layout_files().get(Path::new("index.json")), files.get(Path::new("index.json")));
    project.write("models/b", "b");
    build(&project).arg("--locked").succeed();
}

#[test]
fn a_layer_of_another_size_is_seen_before_it_is_packed() {
    let project = project();
    build(&project).succeed();
    let files = project.layout_files();
    project.write("x.db", noise(100_000));
    let outcome = build(&project).arg("--locked").run();
    refused(&outcome, 1, &["layer `/var/task/x.db`: its content changed", "help: run without `--locked`"]);
    assert!(!outcome.stderr.contains("Layering"), "{}", outcome.stderr);
    assert_eq!(project.layout_files(), files);
}

#[test]
fn only_a_build_of_all_there_is_drops_what_nobody_uses() {
    let project = project();
    build(&project).succeed();
    project.write("lambda-image.toml", CONFIG.replace(", { path = \"x.db\" }", ""));
    build(&project).args(["--no-assets", "--asset", "models"]).succeed();
    assert_eq!(destinations(&lock(&project)), ["/var/task/models", "/var/task/x.db"], "flags replaced the table");
    let locked = build(&project).arg("--locked").run();
    refused(&locked, 1, &["layer `/var/task/x.db`: is removed, since nothing uses it"]);
    build(&project).succeed();
    assert_eq!(destinations(&lock(&project)), ["/var/task/models"]);
}

#[test]
fn members_share_entries_and_never_fight_over_a_destination() {
    let workspace = "[workspace]\nmembers = [\"api\", \"jobs\"]\nresolver = \"3\"\n[workspace.metadata.lambda-image]\n\
                     base = \"scratch\"\nhandler = \"h\"\n";
    let table = |asset: &str| {
        let assets = format!("assets = [{{ path = \"../shared\", to = \"shared\" }}, {asset}]\n");
        format!("[package.metadata.lambda-image]\n{assets}")
    };
    let project = Project::new(&[
        ("Cargo.toml", workspace),
        ("shared/model", "model"),
        ("api/src/main.rs", "fn main() {}"),
        ("jobs/src/main.rs", "fn main() {}"),
        ("api/Cargo.toml", &package("api", &table("{ path = \"own\" }"))),
        ("jobs/Cargo.toml", &package("jobs", &table("{ path = \"own\", exclude = [\"x\"] }"))),
        ("api/own/a", "api's"),
        ("jobs/own/a", "jobs'"),
    ]);
    let build = |package: &str| project.build().args(["--no-binary", "-p", package]);
    let (api, jobs) = (build("api").succeed(), build("jobs").succeed());
    let both = lock(&project);
    assert_eq!(destinations(&both), ["/var/task/own", "/var/task/own", "/var/task/shared"]);
    let paths: Vec<_> = both.layers.keys().map(|key| key.assets[0].path.as_str()).collect();
    assert_eq!(paths, ["api/own", "jobs/own", "shared"], "relative to the lock, whoever names it");
    assert_eq!(build("api").arg("--locked").succeed(), api);
    assert_eq!(build("jobs").arg("--locked").succeed(), jobs);

    project.write("shared/model", "newer model");
    build("api").succeed();
    build("jobs").arg("--locked").succeed();
}

#[test]
fn the_digest_of_a_base_stays_until_it_is_renewed() {
    let (old, new) = (TestImage::new(Family::Oci, "amd64"), TestImage::new(Family::Docker, "amd64"));
    let registry = FaultRegistry::builder().image("base", "1", &old).start();
    let project = project();
    let reference = format!("{}/base:1", registry.address);
    project.write("lambda-image.toml", CONFIG.replace("scratch", &reference));
    let first = build(&project).succeed();
    let (key, base) = lock(&project).bases.pop_first().expect("a base");
    assert_eq!((key.reference, key.platform), (reference.clone(), "linux/amd64".to_owned()));
    assert_eq!((base.digest, base.glibc), (old.digest(), None));
    assert_eq!(base.uncompressed_sizes, old.tars.iter().map(|tar| tar.len() as u64).collect::<Vec<_>>());

    registry.move_tag("base", "1", new.manifest_type(), &new.manifest);
    let asked = registry.requests().len();
    assert_eq!(build(&project).succeed(), first);
    assert_eq!(registry.requests().len(), asked, "neither tag nor bytes are asked for");
    // Another machine, without records, has only the lock.
    fs::remove_dir_all(project.path("target")).expect("removed");
    assert_eq!(build(&project).arg("--locked").succeed(), first);
    assert_eq!(registry.count(Method::GET, "manifests/1") + registry.count(Method::HEAD, "manifests/1"), 1);
    build(&project).arg("--offline").succeed();

    let gone = FaultRegistry::builder().manifest("base", "1", index_type(Family::Oci), b"{}").start();
    let other = lock(&project);
    let (mut key, base) = other.bases.into_iter().next().expect("a base");
    key.reference = format!("{}/base:1", gone.address);
    project.write("lambda-image.toml", CONFIG.replace("scratch", &key.reference));
    let bases = [(key, base)].into();
    file::write(&project.path(FILE_NAME), &Lock { bases, layers: other.layers }).expect("written");
    fs::remove_dir_all(project.path("target")).expect("removed");
    refused(&build(&project).run(), 1, &["which is gone", "run `cargo lambda-image update base`"]);
}

#[test]
fn a_lock_that_cannot_be_trusted_stops_every_command() {
    let project = project();
    build(&project).succeed();
    let good = fs::read_to_string(project.path(FILE_NAME)).expect("a lock");
    let digest = lock(&project).layers.values().next().expect("a layer").digest.to_string();
    let other = format!("sha256:{}", "0".repeat(64));
    for (text, words) in [
        (good.replacen(&digest, &other, 1), &["the entry of layer `/var/task/models` in line 5 is damaged"][..]),
        (good.replacen("version = 1", "version = 99", 1), &["it has version 99", "install the version"]),
        (good[..good.len() - 20].to_owned(), &["is no TOML"]),
        (good.replacen("version = 1\n", "", 1), &["it has no `version` that ever was one"]),
        (String::new(), &["it is empty", "help: delete it and build again"]),
    ] {
        project.write(FILE_NAME, &text);
        for command in ["build", "push", "update", "outdated"] {
            let run = Program::of(command, project.root());
            let run = if command == "build" || command == "push" { run.arg("--no-binary") } else { run };
            let run = if command == "push" { run.args(["--repository", "localhost:1/x"]) } else { run };
            let outcome = run.run();
            refused(&outcome, 1, words);
            assert!(outcome.stderr.contains(FILE_NAME), "{}", outcome.stderr);
        }
        assert_eq!(fs::read_to_string(project.path(FILE_NAME)).expect("a lock"), text, "left as it is");
    }
}

#[test]
fn a_merge_conflict_is_told_as_one_and_its_fix_works() {
    let project = project();
    let git = |arguments: &[&str]| {
        let mut command = Command::new(tool("git"));
        command.args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).args(arguments);
        command.current_dir(project.root()).env("HOME", project.root()).env("GIT_CONFIG_NOSYSTEM", "1");
        command
    };
    let commit = |content: &str| {
        project.write("x.db", content);
        build(&project).succeed();
        succeed(&mut git(&["add", "lambda-image.lock", "x.db"]));
        succeed(&mut git(&["commit", "-qm", "x"]));
    };
    succeed(&mut git(&["init", "-q", "-b", "one"]));
    commit("rows");
    succeed(&mut git(&["checkout", "-qb", "two"]));
    commit("rows of two");
    succeed(&mut git(&["checkout", "-q", "one"]));
    commit("rows of one");
    assert!(!git(&["merge", "-q", "two"]).output().expect("git runs").status.success(), "both changed the lock");
    let text = fs::read_to_string(project.path(FILE_NAME)).expect("a lock");
    let line = text.lines().position(|line| line.starts_with("<<<<<<<")).expect("a mark") + 1;
    let outcome = build(&project).run();
    refused(
        &outcome,
        1,
        &[&format!("line {line} is a mark of a merge conflict"), "git checkout --ours -- lambda-image.lock"],
    );

    project.write("x.db", "rows of both");
    succeed(&mut git(&["checkout", "-q", "--ours", "--", FILE_NAME]));
    build(&project).succeed();
    build(&project).arg("--locked").succeed();
}

#[test]
fn an_asset_that_holds_the_lock_is_packed_without_it() {
    let project = project();
    let config = CONFIG.replace("{ path = \"x.db\" }", "{ path = \".\", to = \"all\", exclude = [\"target\"] }");
    project.write("lambda-image.toml", config);
    let first = build(&project).succeed();
    assert!(project.path(FILE_NAME).exists());
    assert_eq!(build(&project).args(["--locked", "--no-cache"]).succeed(), first);
}

#[test]
fn a_file_that_is_gone_takes_its_layer_along_whoever_is_built() {
    let large = |name: &str| (format!("shared/{name}.bin"), vec![0; usize::try_from(OWN_LAYER_BYTES).expect("a size")]);
    let workspace = "[workspace]\nmembers = [\"api\", \"jobs\"]\nresolver = \"3\"\n[workspace.metadata.lambda-image]\n\
                     base = \"scratch\"\nhandler = \"h\"\ncompression-level = 0\n";
    let table = "[package.metadata.lambda-image]\nassets = [{ path = \"../shared\", to = \"shared\" }]\n";
    let project = Project::new(&[
        ("Cargo.toml", workspace),
        ("shared/config", "small"),
        ("api/src/main.rs", "fn main() {}"),
        ("jobs/src/main.rs", "fn main() {}"),
        ("api/Cargo.toml", &package("api", table)),
        ("jobs/Cargo.toml", &package("jobs", table)),
    ]);
    for (path, content) in ["old", "new"].map(large) {
        project.write(&path, content);
    }
    let build = |package: &str| project.build().args(["--no-binary", "-p", package]);
    build("api").succeed();
    assert_eq!(
        destinations(&lock(&project)),
        ["/var/task/shared", "/var/task/shared/new.bin", "/var/task/shared/old.bin"]
    );
    fs::remove_file(project.path("shared/old.bin")).expect("removed");
    let locked = build("jobs").arg("--locked").run();
    refused(&locked, 1, &["layer `/var/task/shared/old.bin`: is removed, since nothing uses it"]);
    let jobs = build("jobs").succeed();
    assert_eq!(destinations(&lock(&project)), ["/var/task/shared", "/var/task/shared/new.bin"]);
    // Whoever has not even the assets makes the same image.
    fs::remove_dir_all(project.path("shared")).expect("removed");
    assert_eq!(build("jobs").args(["--assets-from-lock", "--locked"]).succeed(), jobs);
}

#[test]
fn an_asset_that_goes_elsewhere_is_another() {
    let project = project();
    let first = build(&project).succeed();
    let moved = CONFIG.replace("{ path = \"x.db\" }", "{ path = \"x.db\", to = \"data/y.db\" }");
    project.write("lambda-image.toml", moved);
    let rows = fs::read(project.path("x.db")).expect("an asset");
    fs::remove_file(project.path("x.db")).expect("removed");
    let absent = build(&project).arg("--assets-from-lock").run();
    refused(&absent, 2, &["asset `x.db` is not at `", "the lock has no layer of it"]);
    project.write("x.db", rows);
    let locked = build(&project).arg("--locked").run();
    let [added, removed] = ["data/y.db`: is added", "x.db`: is removed, since nothing uses it"];
    refused(&locked, 1, &[&format!("layer `/var/task/{added}"), &format!("layer `/var/task/{removed}")]);
    assert_ne!(build(&project).succeed(), first);
    assert_eq!(destinations(&lock(&project)), ["/var/task/data/y.db", "/var/task/models"]);
}

#[test]
fn a_lock_with_the_digest_of_another_layer_harms_nothing_and_not_for_long() {
    let project = project();
    let first = build(&project).succeed();
    let good = lock(&project);
    // As no hand would do it: the checks are right.
    let mut wrong = good.clone();
    let other = good.layers.values().last().expect("a layer").clone();
    let entry = wrong.layers.values_mut().next().expect("a layer");
    (entry.digest, entry.size) = (other.digest, other.size);
    for records in ["kept", "gone"] {
        file::write(&project.path(FILE_NAME), &wrong).expect("written");
        if records == "gone" {
            fs::remove_dir_all(project.store().join("records")).expect("removed");
        }
        let locked = build(&project).arg("--locked").run();
        refused(&locked, 1, &["the same content compressed to other bytes"]);
        assert_eq!(build(&project).succeed(), first, "{records}");
        crate::support::layout::verify(&project.layout());
        assert_eq!(lock(&project), good, "{records}");
    }
    let registry = FaultRegistry::builder().repository("app").ways(Ways::default()).start();
    let to = format!("{}/app", registry.address);
    let push = || project.push().args(["--no-binary", "--repository", &to]);
    for records in ["kept", "gone"] {
        file::write(&project.path(FILE_NAME), &wrong).expect("written");
        if records == "gone" {
            fs::remove_dir_all(project.store().join("records")).expect("removed");
        }
        let locked = push().arg("--locked").run();
        refused(&locked, 1, &["layer `/var/task/models`: its content changed"]);
        let outcome = push().run();
        assert_eq!(outcome.stdout, format!("{to}@{}\n", first[0]), "{records}: {}", outcome.stderr);
        assert_eq!(lock(&project), good, "{records}");
    }
    file::write(&project.path(FILE_NAME), &wrong).expect("written");
    fs::remove_dir_all(project.path("models")).expect("removed");
    for program in [build(&project), push()] {
        let outcome = program.arg("--assets-from-lock").run();
        refused(&outcome, 1, &["is not the layer `models` that the lock says it is"]);
    }
}

#[test]
fn a_lock_that_cannot_be_written_is_told_of_before_anything_is_sent() {
    let project = project();
    let elsewhere = Project::new(&[]);
    let registry = FaultRegistry::builder().repository("app").ways(Ways::default()).start();
    let to = format!("{}/app", registry.address);
    let there = |program: Program| program.args(["--no-binary", "--target-dir"]).arg(elsewhere.root()).run();
    let push = || there(project.push().args(["--repository", &to, "--tag", "v1"]));
    let build = || there(project.build());
    let words = [
        "lambda-image.lock` would change, and it cannot be written",
        "layer `/var/task/x.db`: is added",
        "help: run once where lambda-image.lock can be written and commit it",
    ];
    let read_only = ReadOnly::new(project.root());
    for outcome in [push(), build()] {
        refused(&outcome, 1, &words);
    }
    assert_eq!((registry.received(), registry.manifest("app", "v1")), (0, None));
    let dry = there(project.push().args(["--repository", &to, "--dry-run"]));
    assert_eq!(dry.code, 0, "a dry run writes nothing: {}", dry.stderr);
    drop(read_only);
    assert_eq!(push().code, 0);

    let _read_only = ReadOnly::new(project.root());
    for outcome in [push(), build()] {
        assert_eq!(outcome.code, 0, "nothing is to be written: {}", outcome.stderr);
    }
}

#[test]
fn line_ends_of_other_systems_change_nothing() {
    let project = project();
    let first = build(&project).succeed();
    let text = fs::read_to_string(project.path(FILE_NAME)).expect("a lock").replace('\n', "\r\n");
    project.write(FILE_NAME, &text);
    assert_eq!(build(&project).arg("--locked").succeed(), first);
    assert_eq!(build(&project).succeed(), first);
    assert_eq!(fs::read_to_string(project.path(FILE_NAME)).expect("a lock"), text);
}
