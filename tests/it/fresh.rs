//! A machine that never built: with the lock it sends only what a registry lacks, and needs not even the assets.

mod judging;
mod rebasing;

use std::fs;
use std::os::unix::fs::symlink;

use axum::http::Method;
use cargo_lambda_image::layer::gzip::FORMAT_VERSION;
use cargo_lambda_image::lock::{FILE_NAME, file};
use cargo_lambda_image::oci::Digest;
use serde_json::Value;

use crate::support::assets::unpack;
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::{Family, TestImage, gzip, noise, tar};
use crate::support::program::{Outcome, Program};
use crate::support::project::{AMD64, Project};
use crate::support::registry::{FaultRegistry, Ways};

/// A base in which nothing is below Lambda's own directories, with this in its first layer.
fn base(release: &str) -> TestImage {
    let tars = [tar(&[("etc/os-release", release.as_bytes())]), tar(&[("usr/share/data", &noise(100_000))])];
    TestImage::of(Family::Oci, "amd64", &tars, gzip)
}

/// A project with a binary and two assets, one of which compresses.
fn project(base: &str, repository: &str) -> Project {
    let config = format!(
        "base = \"{base}\"\nrepository = \"{repository}\"\nassets = [{{ path = \"models\" }}, {{ path = \"x.db\" }}]\n"
    );
    let project = Project::new(&[("lambda-image.toml", &config), ("x.db", &"rows ".repeat(10_000))]);
    project.write("models/a.bin", noise(300_000));
    project.write("models/b.bin", noise(1000));
    project.write_program("app", AMD64);
    project
}

/// The same project as another machine checks it out.
fn checkout(project: &Project) -> Project {
    let other = Project::new(&[]);
    for path in ["lambda-image.toml", FILE_NAME, "x.db", "models/a.bin", "models/b.bin"] {
        other.write(path, fs::read(project.path(path)).expect(path));
    }
    other.write_program("app", AMD64);
    other
}

fn push(project: &Project) -> Program {
    project.push().args(["--binary-path", "app", "--message-format", "json", "--tag", "v1"])
}

fn succeeded(outcome: Outcome) -> Outcome {
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome
}

fn pushed(outcome: &Outcome) -> Value {
    outcome.messages("image-pushed").remove(0)
}

fn steps(outcome: &Outcome) -> Vec<String> {
    let steps = pushed(outcome)["steps"].clone();
    steps.as_array().expect("steps").iter().map(|step| step.as_str().expect("a word").to_owned()).collect()
}

fn open(repository: &str) -> FaultRegistry {
    FaultRegistry::builder().repository(repository).ways(Ways::default()).start()
}

fn blob_of(project: &Project, destination: &str) -> Digest {
    let lock = file::read(&project.path(FILE_NAME)).expect("a lock");
    let found = lock.layers.iter().find(|(key, _)| key.destination == destination);
    found.expect("an entry").1.digest
}

#[test]
fn a_fresh_runner_sends_nothing_and_reads_nothing_of_the_base() {
    let base = base("ID=test");
    let bases = FaultRegistry::builder().image("base", "1", &base).start();
    let registry = open("app");
    let first = project(&format!("{}/base:1", bases.address), &format!("{}/app", registry.address));
    let there = succeeded(push(&first).run());
    let fresh = checkout(&first);
    let (asked, received) = (bases.requests().len(), registry.received());
    let again = succeeded(push(&fresh).arg("--locked").run());
    assert_eq!(pushed(&again)["digest"], pushed(&there)["digest"]);
    // Only assets are locked: the binary is what every runner compiles.
    assert_eq!(steps(&again), ["reuse", "reuse", "reuse", "reuse", "upload"]);
    let binary = pushed(&again)["layers"][4]["size"].as_u64().expect("a size");
    assert_eq!(registry.received() - received, binary, "not a byte of another blob");
    let of_base: Vec<_> = bases.log().drain(asked..).collect();
    let layers: Vec<_> = base.layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    assert!(of_base.iter().all(|line| !layers.iter().any(|layer| line.contains(layer))), "{of_base:?}");
    assert!(of_base.iter().all(|line| !line.contains("manifests/1")), "the tag is not asked for: {of_base:?}");
}

#[test]
fn a_blob_the_registry_lost_is_made_again_with_the_locked_digest() {
    let registry = open("app");
    let first = project("scratch", &format!("{}/app", registry.address));
    let there = succeeded(push(&first).run());
    let fresh = checkout(&first);
    let digest = blob_of(&first, "/var/task/x.db");
    registry.forget_digest("app", &digest);
    let asked = registry.requests().len();
    let again = succeeded(push(&fresh).arg("--locked").run());
    assert_eq!(pushed(&again)["digest"], pushed(&there)["digest"]);
    assert_eq!(steps(&again), ["reuse", "upload", "upload"]);
    let log: Vec<_> = registry.log().drain(asked..).collect();
    let patches = log.iter().filter(|line| line.starts_with("PATCH ")).count();
    assert_eq!(patches, 1, "the binary's; a blob of known digest takes one PUT: {log:?}");
}

#[test]
fn bytes_of_another_compressor_replace_the_entry_or_are_refused() {
    let registry = open("app");
    let first = project("scratch", &format!("{}/app", registry.address));
    succeeded(push(&first).run());
    let good = file::read(&first.path(FILE_NAME)).expect("a lock");
    let tagged = registry.manifest("app", "v1");
    let mut other = good.clone();
    for (key, layer) in &mut other.layers {
        if key.destination == "/var/task/x.db" {
            layer.digest = Digest::of(b"what another compressor made");
            layer.size -= 1;
        }
    }
    let fresh = checkout(&first);
    file::write(&fresh.path(FILE_NAME), &other).expect("written");
    fresh.write("models/b.bin", noise(1000));
    let locked = push(&fresh).args(["--locked", "--tag", "v2"]).run();
    assert_eq!(locked.code, 1, "{}", locked.stderr);
    assert!(locked.stderr.contains("the same content compressed to other bytes"), "{}", locked.stderr);
    assert_eq!((registry.manifest("app", "v1"), registry.manifest("app", "v2")), (tagged, None));

    let fresh = checkout(&first);
    file::write(&fresh.path(FILE_NAME), &other).expect("written");
    let outcome = succeeded(push(&fresh).run());
    let warned = outcome.messages("warning");
    assert!(
        warned
            .iter()
            .any(|warning| warning["message"].as_str().is_some_and(|said| said.contains("not the locked ones")))
    );
    assert_eq!(file::read(&fresh.path(FILE_NAME)).expect("a lock"), good);
}

#[test]
fn bytes_of_another_version_are_used_as_long_as_the_registry_has_them() {
    let first = project("scratch", "localhost:1/unused");
    first.build().args(["--binary-path", "app"]).succeed();
    // Another version of the program makes other bytes of the same content.
    let ours = blob_of(&first, "/var/task/x.db");
    let ours = fs::read(first.layout().join("blobs/sha256").join(ours.hex())).expect("a blob");
    let other = gzip(&unpack(&ours));
    let mut lock = file::read(&first.path(FILE_NAME)).expect("a lock");
    let good = lock.clone();
    for (_, layer) in lock.layers.iter_mut().filter(|(key, _)| key.destination == "/var/task/x.db") {
        (layer.digest, layer.size, layer.format) = (Digest::of(&other), other.len() as u64, FORMAT_VERSION + 1);
    }
    let registry = FaultRegistry::builder().blob("app", &other).ways(Ways::default()).start();
    let there = |project: &Project, said: &[&str]| {
        push(project).args(["--repository", &format!("{}/app", registry.address)]).args(said).run()
    };
    let checkout = || {
        let fresh = checkout(&first);
        file::write(&fresh.path(FILE_NAME), &lock).expect("written");
        fresh
    };
    let fresh = checkout();
    let outcome = succeeded(there(&fresh, &["--locked"]));
    assert_eq!(steps(&outcome), ["upload", "reuse", "upload"]);
    assert_eq!(pushed(&outcome)["layers"][1]["digest"], Digest::of(&other).to_string());
    let warned = outcome.messages("warning");
    let said = format!("`/var/task/x.db` (format {})", FORMAT_VERSION + 1);
    assert!(warned.iter().any(|it| it["message"].as_str().is_some_and(|text| text.contains(&said))), "{warned:?}");
    assert_eq!(file::read(&fresh.path(FILE_NAME)).expect("a lock"), lock);

    registry.forget("app", &other);
    let tagged = registry.manifest("app", "v1");
    let locked = there(&checkout(), &["--locked"]);
    assert_eq!(locked.code, 1, "{}", locked.stderr);
    let change = "layer `/var/task/x.db`: the same content in format 1 instead of 2, sha256:";
    assert!(locked.stderr.contains(change), "{}", locked.stderr);
    assert_eq!(registry.manifest("app", "v1"), tagged, "nothing new is named");
    let fresh = checkout();
    succeeded(there(&fresh, &[]));
    assert_eq!(file::read(&fresh.path(FILE_NAME)).expect("a lock"), good);
}

#[test]
fn a_fresh_runner_hashes_each_asset_once() {
    let registry = open("app");
    let first = project("scratch", &format!("{}/app", registry.address));
    succeeded(push(&first).run());
    for said in [&[][..], &["--locked"]] {
        // So fresh that no time stamp is believed.
        let fresh = checkout(&first);
        let run = fresh.push().args(["--binary-path", "app", "--tag", "v1", "-v"]).args(said).run();
        let outcome = succeeded(run);
        let mut hashed: Vec<_> =
            outcome.stderr.lines().filter_map(|line| line.trim().strip_prefix("Hashed ")?.split(',').next()).collect();
        hashed.sort_unstable();
        assert_eq!(hashed, ["models", "x.db"], "{said:?}: {}", outcome.stderr);
    }
}

#[test]
fn assets_by_a_glob_or_with_a_path_in_common_come_from_the_lock() {
    let registry = open("app");
    let first = project("scratch", &format!("{}/app", registry.address));
    let config = fs::read_to_string(first.path("lambda-image.toml")).expect("a configuration");
    let (before, _) = config.split_once("assets").expect("assets");
    let assets = "assets = [\n  { path = \"models/*.bin\", to = \"weights\" },\n  { path = \"x.db\", to = \"a/\" },\n  \
                  { path = \"x.db\", to = \"b.db\" },\n  { path = \"models\", to = \"c\", exclude = [\"a.bin\"] },\n  \
                  { path = \"models\", to = \"d\", exclude = [\"none\"] },\n]\n";
    first.write("lambda-image.toml", format!("{before}{assets}"));
    let there = pushed(&succeeded(push(&first).run()));
    let lock = file::read(&first.path(FILE_NAME)).expect("a lock");
    let paths: Vec<_> = lock.layers.keys().map(|key| (key.destination.as_str(), key.assets[0].path.as_str())).collect();
    let expected =
        [("a/x.db", "x.db"), ("b.db", "x.db"), ("c", "models"), ("d", "models"), ("weights", "models/*.bin")];
    assert_eq!(
        paths,
        expected.map(|(to, path)| (format!("/var/task/{to}"), path)).each_ref().map(|(to, path)| (to.as_str(), *path))
    );
    let fresh = checkout(&first);
    let same = |what: &str| {
        let again = succeeded(push(&fresh).args(["--assets-from-lock", "--locked"]).run());
        assert_eq!(pushed(&again)["digest"], there["digest"], "{what}");
    };
    fs::remove_file(fresh.path("x.db")).expect("removed");
    same("without a file of two places");
    fs::remove_file(fresh.path("models/a.bin")).expect("removed");
    let outcome = push(&fresh).arg("--assets-from-lock").run();
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("of `/var/task/weights` only 1 of 2 files are"), "{}", outcome.stderr);
    fs::remove_dir_all(fresh.path("models")).expect("removed");
    same("without any");
}

#[test]
fn a_locked_push_that_would_change_the_lock_sends_nothing() {
    let registry = open("app");
    let first = project("scratch", &format!("{}/app", registry.address));
    succeeded(push(&first).run());
    for (path, content) in [("x.db", "ROWS ".repeat(10_000)), ("models/b.bin", "longer".repeat(500))] {
        let fresh = checkout(&first);
        fresh.write(path, content);
        let received = registry.received();
        let outcome = push(&fresh).arg("--locked").run();
        assert_eq!(outcome.code, 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("its content changed"), "{}", outcome.stderr);
        assert_eq!(registry.received(), received, "{path}");
    }
}

#[test]
fn a_dry_run_leaves_the_lock_alone() {
    let registry = open("app");
    let project = project("scratch", &format!("{}/app", registry.address));
    succeeded(push(&project).arg("--dry-run").run());
    assert!(!project.path(FILE_NAME).exists());
}

#[test]
fn assets_that_are_not_here_come_from_the_lock_and_the_registry() {
    let registry = DockerRegistry::start();
    let repository = format!("{}/app", registry.address);
    let first = project("scratch", &repository);
    let there = pushed(&succeeded(push(&first).run()));
    let fresh = checkout(&first);
    fs::remove_dir_all(fresh.path("models")).expect("removed");
    fs::remove_file(fresh.path("x.db")).expect("removed");
    let without = push(&fresh).run();
    assert_eq!(without.code, 2, "not without being asked: {}", without.stderr);
    let help = "; or take it from the lock and the repository with `--assets-from-lock`\n";
    assert!(without.stderr.contains(help), "{}", without.stderr);
    let again = succeeded(push(&fresh).args(["--assets-from-lock", "--locked"]).run());
    assert_eq!(
        (&pushed(&again)["digest"], steps(&again)),
        (&there["digest"], ["reuse", "reuse", "upload"].map(str::to_owned).to_vec())
    );
    assert_eq!(pushed(&again)["layers"], there["layers"], "under the same names");
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let notes = again.messages("finding").into_iter();
    let notes = notes.map(|it| ["code", "severity", "layer", "message"].map(|key| word(&it[key])).join(" "));
    let said = "not checked: its files are not here";
    assert_eq!(notes.collect::<Vec<_>>(), [format!("L017 note models {said}"), format!("L017 note x.db {said}")]);

    // A complete layout needs the bytes.
    let build = || fresh.build().args(["--binary-path", "app", "--assets-from-lock", "--locked"]);
    assert_eq!(build().succeed()[0].to_string(), there["digest"]);
    crate::support::layout::verify(&fresh.layout());
    assert_eq!(build().arg("--offline").succeed()[0].to_string(), there["digest"], "they are here now");
}

#[test]
fn a_followed_link_that_leads_nowhere_is_an_asset_that_is_not_here() {
    let registry = open("app");
    let first = Project::new(&[("cache/a.bin", &"rows ".repeat(10_000))]);
    let table = format!(
        "base = \"scratch\"\nrepository = \"{}/app\"\nassets = [{{ path = \"models\", follow-symlinks = true }}]\n",
        registry.address
    );
    first.write("lambda-image.toml", table);
    first.write_program("app", AMD64);
    symlink("cache", first.path("models")).expect("linked");
    let there = pushed(&succeeded(push(&first).run()));
    let fresh = Project::new(&[]);
    for path in ["lambda-image.toml", FILE_NAME] {
        fresh.write(path, fs::read(first.path(path)).expect(path));
    }
    fresh.write_program("app", AMD64);
    symlink("cache", fresh.path("models")).expect("linked");
    let again = succeeded(push(&fresh).args(["--assets-from-lock", "--locked"]).run());
    assert_eq!((&pushed(&again)["digest"], steps(&again).first()), (&there["digest"], Some(&"reuse".to_owned())));
}

#[test]
fn what_nobody_has_is_told_by_asset_digest_and_place() {
    let registry = open("app");
    let first = project("scratch", &format!("{}/app", registry.address));
    succeeded(push(&first).run());
    let digest = blob_of(&first, "/var/task/models");
    registry.forget_digest("app", &digest);
    let fresh = checkout(&first);
    fs::remove_dir_all(fresh.path("models")).expect("removed");
    let place = fresh.path("models").display().to_string();
    let words = ["models", &digest.to_string(), &place];
    for command in ["push", "build"] {
        let run = Program::of(command, fresh.root()).args(["--binary-path", "app", "--assets-from-lock"]).run();
        assert_eq!(run.code, 1, "{command}: {}", run.stderr);
        for word in words {
            assert!(run.stderr.contains(word), "{command}: `{word}` is missing of {}", run.stderr);
        }
    }
    for (arguments, said) in [
        (&["--offline"][..], "`--offline` forbids to fetch it"),
        (&["--base", "scratch", "--no-assets", "--asset", "unknown"], "the lock has no layer of it"),
    ] {
        let run = fresh.build().args(["--binary-path", "app", "--assets-from-lock"]).args(arguments).run();
        assert!(run.code == 1 || run.code == 2, "{}", run.stderr);
        assert!(run.stderr.contains(said), "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn of_layers_whose_files_are_not_here_the_one_that_is_lost_is_named() {
    let registry = open("app");
    let first = project("scratch", &format!("{}/app", registry.address));
    succeeded(push(&first).run());
    let fresh = checkout(&first);
    fs::remove_dir_all(fresh.path("models")).expect("removed");
    fs::remove_file(fresh.path("x.db")).expect("removed");
    let run = |command: &str| {
        let target = fresh.path(&format!("target-of-{command}"));
        let run = Program::of(command, fresh.root()).args(["--binary-path", "app", "--assets-from-lock"]);
        run.arg("--target-dir").arg(target).run()
    };
    succeeded(run("verify"));
    let [there, lost] = ["/var/task/models", "/var/task/x.db"].map(|destination| blob_of(&first, destination));
    registry.forget_digest("app", &lost);
    for command in ["push", "build"] {
        let outcome = run(command);
        assert_eq!(outcome.code, 1, "{command}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(&lost.to_string()), "{command}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains(&there.to_string()), "{command}: {}", outcome.stderr);
    }
}

#[test]
fn an_asset_of_which_a_part_is_missing_is_an_error() {
    let registry = open("app");
    let first = project("scratch", &format!("{}/app", registry.address));
    succeeded(push(&first).run());
    let fresh = checkout(&first);
    fs::remove_file(fresh.path("models/b.bin")).expect("removed");
    for command in ["push", "build"] {
        let run = Program::of(command, fresh.root()).args(["--binary-path", "app", "--assets-from-lock"]).run();
        assert_eq!(run.code, 2, "{command}: {}", run.stderr);
        let said = "of `/var/task/models` only 1 of 2 files are";
        assert!(run.stderr.contains(said), "{command}: {}", run.stderr);
    }
    // An empty directory, as git makes none but submodules do, is not an absent one.
    fs::remove_file(fresh.path("models/a.bin")).expect("removed");
    let run = fresh.build().args(["--binary-path", "app", "--assets-from-lock"]).run();
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("asset `models` has no files"), "{}", run.stderr);
    assert!(run.stderr.contains("`--assets-from-lock` wants it removed"), "{}", run.stderr);
}

#[test]
fn a_blob_is_asked_for_once_and_never_sent_again() {
    let registry = open("app");
    let first = project("scratch", &format!("{}/app", registry.address));
    succeeded(push(&first).run());
    let fresh = checkout(&first);
    let digest = blob_of(&first, "/var/task/models").to_string();
    let before = registry.count(Method::HEAD, &digest);
    succeeded(push(&fresh).arg("--locked").run());
    assert_eq!(registry.count(Method::HEAD, &digest) - before, 1);
}
