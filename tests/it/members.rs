//! One lock for a whole workspace, while all of its images are pushed, or some: what is true of one member is not said
//! of another.

use std::fs;

use axum::http::Method;
use cargo_lambda_image::layer::plan::OWN_LAYER_BYTES;
use cargo_lambda_image::lock::{FILE_NAME, Lock, file};

use crate::support::docker_registry::DockerRegistry;
use crate::support::program::{Outcome, Program};
use crate::support::project::{Project, package};
use crate::support::registry::{Fault, FaultRegistry};

/// Two members, each with an asset of its own beside one that they share, and programs that cargo compiles.
fn workspace(registry: &DockerRegistry) -> Project {
    let root = format!(
        "[workspace]\nmembers = [\"api\", \"jobs\"]\nresolver = \"3\"\n[workspace.metadata.lambda-image]\n\
         base = \"scratch\"\nrepository = \"{}/{{bin}}\"\n",
        registry.address
    );
    let table =
        "[package.metadata.lambda-image]\nassets = [{ path = \"../shared\", to = \"shared\" }, { path = \"own\" }]\n";
    Project::new(&[
        ("Cargo.toml", &root),
        ("shared/config", "small"),
        ("api/Cargo.toml", &package("api", table)),
        ("api/src/main.rs", "fn main() {}"),
        ("api/own/a", "api's"),
        ("jobs/Cargo.toml", &package("jobs", table)),
        ("jobs/src/main.rs", "fn main() {}"),
        ("jobs/own/a", "jobs'"),
    ])
}

/// A push that does not ask whether the programs start.
fn push(project: &Project, arguments: &[&str]) -> Program {
    project.push().args(["--no-verify", "--message-format", "json"]).args(arguments)
}

fn succeeded(program: Program) -> Outcome {
    let outcome = program.run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome
}

fn lock(project: &Project) -> Lock {
    file::read(&project.path(FILE_NAME)).expect("a lock")
}

fn destinations(lock: &Lock) -> Vec<&str> {
    lock.layers.keys().map(|key| key.destination.as_str()).collect()
}

#[test]
fn a_locked_push_of_all_members_is_judged_by_all_of_them() {
    let registry = DockerRegistry::start();
    let project = workspace(&registry);
    let first = succeeded(push(&project, &["--workspace"]));
    let locked = lock(&project);
    assert_eq!(destinations(&locked), ["/var/task/own", "/var/task/own", "/var/task/shared"]);
    let uris = |outcome: &Outcome| {
        let pushed = outcome.messages("image-pushed");
        pushed.iter().map(|image| image["image_uri"].as_str().expect("a URI").to_owned()).collect::<Vec<_>>()
    };
    let again = succeeded(push(&project, &["--workspace", "--locked"]));
    assert_eq!(uris(&again), uris(&first));
    for member in ["api", "jobs"] {
        succeeded(push(&project, &["-p", member, "--locked"]));
    }
    assert_eq!(lock(&project), locked);
}

#[test]
fn a_push_of_one_member_takes_the_layers_of_files_that_are_gone_along() {
    let registry = DockerRegistry::start();
    let project = workspace(&registry);
    for name in ["old", "new"] {
        project.write(&format!("shared/{name}.bin"), vec![0; usize::try_from(OWN_LAYER_BYTES).expect("a size")]);
    }
    succeeded(push(&project, &["-p", "api"]));
    fs::remove_file(project.path("shared/old.bin")).expect("removed");
    let with_assets = succeeded(push(&project, &["-p", "jobs"]));
    let shared = ["/var/task/own", "/var/task/own", "/var/task/shared", "/var/task/shared/new.bin"];
    assert_eq!(destinations(&lock(&project)), shared);
    // Whoever has not even the assets pushes the same image.
    fs::remove_dir_all(project.path("shared")).expect("removed");
    let without = succeeded(push(&project, &["-p", "jobs", "--assets-from-lock", "--locked"]));
    assert_eq!(without.messages("image-pushed")[0]["digest"], with_assets.messages("image-pushed")[0]["digest"]);
}

#[test]
fn what_was_pushed_before_a_member_that_failed_is_in_the_lock() {
    let registry = DockerRegistry::start();
    let full = FaultRegistry::builder().fault(Method::POST, "/uploads/", 0..99, Fault::Status(403, &[], "")).start();
    let project = workspace(&registry);
    let table = format!(
        "[package.metadata.lambda-image]\nrepository = \"{}/jobs\"\nassets = [{{ path = \"own\" }}]\n",
        full.address
    );
    project.write("jobs/Cargo.toml", package("jobs", &table));
    let outcome = push(&project, &["--workspace"]).run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert_eq!(outcome.messages("image-pushed").len(), 1, "{}", outcome.stderr);
    assert_eq!(destinations(&lock(&project)), ["/var/task/own", "/var/task/shared"]);
}
