//! `update` and `outdated`: what a lock says of bases and layers, renewed on request only.

use std::fs;

use cargo_lambda_image::layer::gzip::FORMAT_VERSION;
use cargo_lambda_image::layer::plan::OWN_LAYER_BYTES;
use cargo_lambda_image::lock::{FILE_NAME, Lock, file};
use cargo_lambda_image::oci::Digest;

use crate::support::docker_registry::DockerRegistry;
use crate::support::images::{Family, TestImage, gzip, tar};
use crate::support::program::{Outcome, Program};
use crate::support::project::Project;
use crate::support::registry::FaultRegistry;

fn project(base: &str) -> Project {
    let config =
        format!("base = \"{base}\"\nhandler = \"a.b\"\nassets = [{{ path = \"models\" }}, {{ path = \"x.db\" }}]\n");
    Project::new(&[("lambda-image.toml", &config), ("models/a", "a"), ("x.db", "rows")])
}

fn run(project: &Project, command: &str, arguments: &[&str]) -> Outcome {
    Program::of(command, project.root()).args(arguments).run()
}

fn succeeded(outcome: Outcome) -> Outcome {
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome
}

fn lock(project: &Project) -> Lock {
    file::read(&project.path(FILE_NAME)).expect("a lock")
}

#[test]
fn a_base_that_moved_is_told_of_and_renewed() {
    let old = TestImage::new(Family::Oci, "amd64");
    let new = TestImage::of(Family::Oci, "amd64", &[tar(&[("etc/os-release", b"ID=newer\n")])], gzip);
    let registry = FaultRegistry::builder().image("base", "1", &old).image("base", "2", &new).start();
    let reference = format!("{}/base:1", registry.address);
    let project = project(&reference);
    let first = project.build().arg("--no-binary").succeed();
    let current = succeeded(run(&project, "outdated", &[]));
    assert_eq!(current.stdout, "");
    assert!(current.stderr.contains(&format!("Current {reference} for linux/amd64")), "{}", current.stderr);

    registry.move_tag("base", "1", new.manifest_type(), &new.manifest);
    let before = fs::read(project.path(FILE_NAME)).expect("a lock");
    let outdated = succeeded(run(&project, "outdated", &[]));
    assert_eq!(outdated.stdout, format!("{reference} linux/amd64 {} -> {}\n", old.digest(), new.digest()));
    let message = &succeeded(run(&project, "outdated", &["--message-format", "json"])).messages("base-compared")[0];
    assert_eq!(message["reference"], reference);
    assert_eq!(
        (&message["locked"], &message["newest"]),
        (&old.digest().to_string().into(), &new.digest().to_string().into())
    );
    assert_eq!(message["outdated"], true);

    let change = format!("base `{reference}` for linux/amd64: {} -> {}", old.digest(), new.digest());
    let dry = succeeded(run(&project, "update", &["--dry-run"]));
    assert_eq!(dry.stdout, format!("{change}\n"));
    assert_eq!(fs::read(project.path(FILE_NAME)).expect("a lock"), before);
    assert_eq!(project.build().arg("--no-binary").succeed(), first, "nobody renewed it");

    let update = succeeded(run(&project, "update", &["base", "--message-format", "json"]));
    let message = &update.messages("locked")[0];
    assert_eq!((&message["changes"], &message["dry_run"]), (&serde_json::json!([change]), &false.into()));
    assert_eq!(lock(&project).bases.values().next().expect("a base").digest, new.digest());
    assert_ne!(project.build().args(["--no-binary", "--locked"]).succeed(), first);
    assert_eq!(succeeded(run(&project, "update", &[])).stdout, "", "there is nothing more");
}

#[test]
fn every_locked_platform_of_a_base_is_renewed() {
    let images = [TestImage::new(Family::Oci, "amd64"), TestImage::new(Family::Oci, "arm64")];
    let newer = [TestImage::new(Family::Docker, "amd64"), TestImage::new(Family::Docker, "arm64")];
    let index = |images: &[TestImage; 2]| {
        let family = images[0].family;
        (crate::support::images::index_type(family), crate::support::images::index(family, &[&images[0], &images[1]]))
    };
    let mut registry = FaultRegistry::builder();
    for (tag, image) in ["a", "b", "c", "d"].iter().zip(images.iter().chain(&newer)) {
        registry = registry.image("base", tag, image);
    }
    let (kind, bytes) = index(&images);
    let registry = registry.manifest("base", "1", kind, &bytes).start();
    let project = project(&format!("{}/base:1", registry.address));
    for flag in ["--x86-64", "--arm64"] {
        project.build().args(["--no-binary", flag]).succeed();
    }
    assert_eq!(lock(&project).bases.len(), 2, "one platform's build keeps the other's entry");
    let (kind, bytes) = index(&newer);
    registry.move_tag("base", "1", kind, &bytes);
    succeeded(run(&project, "update", &[]));
    let digests: Vec<_> = lock(&project).bases.values().map(|base| base.digest).collect();
    assert_eq!(digests, newer.map(|image| image.digest()));
}

#[test]
fn layers_of_another_format_stay_valid_until_they_are_renewed() {
    let project = project("scratch");
    let first = project.build().arg("--no-binary").succeed();
    let good = lock(&project);
    let mut other = good.clone();
    for layer in other.layers.values_mut() {
        layer.format = FORMAT_VERSION + 1;
    }
    file::write(&project.path(FILE_NAME), &other).expect("written");
    let outcome = succeeded(project.build().args(["--no-binary", "--locked"]).run());
    assert_eq!(outcome.stdout, format!("{}\n", first[0]), "what is in the store has the locked digests");
    let said = format!("`/var/task/models` (format {0}), `/var/task/x.db` (format {0})", FORMAT_VERSION + 1);
    assert!(outcome.stderr.contains(&said), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("`cargo lambda-image update` makes them anew"), "{}", outcome.stderr);

    succeeded(run(&project, "update", &["models"]));
    let formats: Vec<_> = lock(&project).layers.values().map(|layer| layer.format).collect();
    assert_eq!(formats, [FORMAT_VERSION, FORMAT_VERSION + 1], "only what was named");
    let dry = succeeded(run(&project, "update", &["--dry-run"]));
    assert_eq!(dry.stdout, "layer `/var/task/x.db`: what is known of it is completed\n");
    succeeded(run(&project, "update", &[]));
    assert_eq!(lock(&project), good);
}

#[test]
fn bytes_of_another_compressor_are_replaced_with_a_warning_or_refused() {
    let project = project("scratch");
    project.build().arg("--no-binary").succeed();
    let good = lock(&project);
    let mut other = good.clone();
    let (key, layer) = other.layers.iter_mut().next().expect("a layer");
    layer.digest = Digest::of(b"other bytes of the same content");
    let destination = key.destination.clone();
    file::write(&project.path(FILE_NAME), &other).expect("written");
    fs::remove_dir_all(project.path("target")).expect("removed");
    let locked = project.build().args(["--no-binary", "--locked"]).run();
    assert_eq!(locked.code, 1, "{}", locked.stderr);
    let change = format!("layer `{destination}`: the same content compressed to other bytes, sha256:");
    assert!(locked.stderr.contains(&change), "{}", locked.stderr);
    let outcome = succeeded(project.build().arg("--no-binary").run());
    assert!(outcome.stderr.contains("its compressed bytes are not the locked ones"), "{}", outcome.stderr);
    assert_eq!(lock(&project), good);
}

#[test]
fn a_real_registry_has_nothing_newer_than_what_was_locked_from_it() {
    let registry = DockerRegistry::start();
    let seed = project("scratch");
    let repository = format!("{}/base", registry.address);
    let push = seed.push().args(["--no-binary", "--repository", &repository, "--tag", "1"]);
    succeeded(push.run());
    let project = project(&format!("{repository}:1"));
    project.write("models/a", "of the second");
    project.write(
        "lambda-image.toml",
        format!("base = \"{repository}:1\"\nhandler = \"a.b\"\nassets = [{{ path = \"models\", to = \"/opt/m\" }}]\n"),
    );
    project.build().arg("--no-binary").succeed();
    assert_eq!(succeeded(run(&project, "outdated", &[])).stdout, "");
    seed.write("x.db", "more rows");
    succeeded(seed.push().args(["--no-binary", "--repository", &repository, "--tag", "1"]).run());
    let outdated = succeeded(run(&project, "outdated", &[])).stdout;
    assert!(outdated.starts_with(&format!("{repository}:1 linux/amd64 sha256:")), "{outdated}");
    succeeded(run(&project, "update", &[]));
    assert_eq!(succeeded(run(&project, "outdated", &[])).stdout, "");
}

#[test]
fn what_cannot_be_renewed_is_refused() {
    let project = project("scratch");
    project.build().arg("--no-binary").succeed();
    for (command, arguments, code, words) in [
        ("update", &["nowhere"][..], 2, "no asset goes to `/var/task/nowhere`"),
        ("update", &["nowhere"], 2, "there are `/var/task/models`, `/var/task/x.db`"),
        ("update", &["modles"], 2, "did you mean `models`?"),
        ("update", &["/var/task/x.bd"], 2, "did you mean `x.db`?"),
        ("update", &["bases"], 2, "did you mean `base`?"),
        ("update", &["--locked"], 2, "`--locked` forbids what `update` is for"),
        ("update", &["--offline"], 2, "`--offline` forbids what `update` is for"),
        ("outdated", &["--frozen"], 2, "forbids what `outdated` is for"),
    ] {
        let outcome = run(&project, command, arguments);
        assert_eq!(outcome.code, code, "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(words), "{arguments:?}: {}", outcome.stderr);
    }
}

#[test]
fn an_asset_whose_files_are_not_here_is_not_said_to_be_renewed() {
    let project = project("scratch");
    project.build().arg("--no-binary").succeed();
    let before = lock(&project);
    fs::rename(project.path("models"), project.path("elsewhere")).expect("moved away");
    for arguments in [&["models"][..], &["models", "--dry-run"], &["base", "models"]] {
        let outcome = Program::of("update", project.root()).args(arguments).arg("--assets-from-lock").run();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{}", outcome.stderr);
        let expected = format!(
            "error: layer `/var/task/models` cannot be made anew without its files\n\nCaused by:\n  they are not at `{}`",
            project.path("models").display()
        );
        assert!(outcome.stderr.contains(&expected), "{}", outcome.stderr);
    }
    let update = |what: &[&str]| succeeded(run(&project, "update", &[what, &["--assets-from-lock"]].concat()));
    update(&["x.db"]);
    assert_eq!(lock(&project), before);

    // Where nothing is named, all that can be renewed is.
    let mut other = before.clone();
    for layer in other.layers.values_mut() {
        layer.format = FORMAT_VERSION + 1;
    }
    file::write(&project.path(FILE_NAME), &other).expect("written");
    let told = update(&[]).stderr;
    let warning = "warning: layer `/var/task/models` cannot be made anew without its files: they are not at";
    assert!(told.contains(warning), "{told}");
    let formats: Vec<_> = lock(&project).layers.values().map(|layer| layer.format).collect();
    assert_eq!(formats, [FORMAT_VERSION + 1, FORMAT_VERSION]);
}

#[test]
fn that_there_is_nothing_to_renew_is_said() {
    let project = project("scratch");
    let outdated = succeeded(run(&project, "outdated", &[]));
    let lock = project.path(FILE_NAME).display().to_string();
    assert!(outdated.stderr.contains(&format!("warning: there is no `{lock}`")), "{}", outdated.stderr);
    assert!(outdated.stderr.contains("help: `cargo lambda-image build` writes it"), "{}", outdated.stderr);
    project.build().arg("--no-binary").succeed();
    let outdated = succeeded(run(&project, "outdated", &[]));
    let said = format!("warning: `{lock}` has no base of a registry, so that none can be outdated");
    assert!(outdated.stderr.contains(&said), "{}", outdated.stderr);
    for arguments in [&[][..], &["base"], &["models"], &["--dry-run"]] {
        let update = succeeded(run(&project, "update", arguments));
        assert_eq!(update.stdout, "");
        assert!(update.stderr.ends_with(&format!("   Unchanged {lock}\n")), "{arguments:?}: {}", update.stderr);
    }
    let update = succeeded(run(&project, "update", &["--message-format", "json"]));
    let message = &update.messages("locked")[0];
    assert_eq!((&message["path"], &message["changes"]), (&serde_json::json!(lock), &serde_json::json!([])));
}

#[test]
fn an_asset_that_is_renewed_whole_loses_the_layers_of_files_that_are_gone() {
    let project = project("scratch");
    for name in ["old", "new"] {
        project.write(&format!("models/{name}.bin"), vec![0; usize::try_from(OWN_LAYER_BYTES).expect("a size")]);
    }
    let destinations = || -> Vec<_> { lock(&project).layers.into_keys().map(|key| key.destination).collect() };
    let [rest, new, old, other] =
        ["models", "models/new.bin", "models/old.bin", "x.db"].map(|place| format!("/var/task/{place}"));
    succeeded(run(&project, "update", &["models", "x.db"]));
    assert_eq!(destinations(), [&rest, &new, &old, &other].map(String::as_str));
    fs::remove_file(project.path("models/old.bin")).expect("removed");
    succeeded(run(&project, "update", &["models/new.bin"]));
    assert_eq!(destinations().len(), 4, "nothing was asked of the others");
    let dry = succeeded(run(&project, "update", &["models", "--dry-run"]));
    assert_eq!(dry.stdout, format!("layer `{old}`: is removed, since nothing uses it\n"));
    succeeded(run(&project, "update", &["models"]));
    assert_eq!(destinations(), [&rest, &new, &other].map(String::as_str));
}

#[test]
fn only_what_was_named_is_made_anew_and_a_dry_run_says_so() {
    let project = project("scratch");
    project.build().arg("--no-binary").succeed();
    let before = lock(&project);
    assert_eq!(succeeded(run(&project, "update", &["x.db", "--dry-run"])).stdout, "", "nothing changed");
    project.write("models/a", "changed");
    project.write("x.db", "ROWS");
    let dry = succeeded(run(&project, "update", &["x.db", "--dry-run"]));
    assert_eq!(dry.stdout, "layer `/var/task/x.db`: its content changed\n");
    let asked = Program::of("update", project.root()).arg("x.db").env("CARGO_LAMBDA_IMAGE_DRY_RUN", "true");
    assert_eq!(succeeded(asked.run()).stdout, dry.stdout);
    assert_eq!(lock(&project), before);
    succeeded(run(&project, "update", &["x.db"]));
    let after = lock(&project);
    let changed: Vec<_> = after.layers.iter().filter(|(key, layer)| before.layers[*key] != **layer).collect();
    assert_eq!(changed.iter().map(|(key, _)| key.destination.as_str()).collect::<Vec<_>>(), ["/var/task/x.db"]);

    let config = fs::read_to_string(project.path("lambda-image.toml")).expect("a configuration");
    project.write("lambda-image.toml", config.replace("x.db\" }]", "x.db\" }, { path = \"new\" }]"));
    project.write("new", "new");
    let dry = succeeded(run(&project, "update", &["new", "--dry-run"]));
    assert_eq!(dry.stdout, "layer `/var/task/new`: is added\n");
    succeeded(run(&project, "update", &["new"]));
    assert_eq!(lock(&project).layers.len(), 3);
}
