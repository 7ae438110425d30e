//! Variables in a file that is whole or as it was.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::support::registry::{Fault, FaultRegistry, Ways};
use crate::support::site::{Site, names};
use axum::http::Method;

use super::{BASE, registry, two};

#[test]
fn names_that_become_the_same_are_refused_before_anything_is_compiled() {
    let project = two(["my-api", "my_api"]);
    project.write("src/main.rs", "fn main() { this does not compile }");
    for command in [project.build(), project.push().args(["--repository", "localhost:1/{bin}"])] {
        let outcome = command.args(["--base", BASE, "--output-env", "image.env"]).run();
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        let message = "`--output-env` would call the digests of `my-api` and `my_api` both `DIGEST_MY_API`";
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
        assert!(!project.path("target").exists() && !project.path("image.env").exists());
    }
    let one = project.build().args(["--base", BASE, "--bin", "my-api", "--output-env", "image.env"]).run();
    assert_eq!(one.code, 101, "one of them is no question of names: {}", one.stderr);
}

#[test]
fn a_push_that_fails_leaves_the_variables_as_they_were() {
    let site = Site::new();
    site.write("image.env", b"DIGEST=old\n");
    let broken = FaultRegistry::builder().ways(Ways::default()).repository("a");
    let broken = broken.fault(Method::PUT, "/manifests/", 0..99, Fault::Status(400, &[], "")).start();
    let push = |address: &dyn std::fmt::Display| {
        site.push(&format!("{address}/a"), &["notes.txt"]).args(["--output-env", "image.env"])
    };
    let outcome = push(&broken.address).run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    let read = || fs::read_to_string(site.project().join("image.env")).expect("variables");
    assert_eq!(read(), "DIGEST=old\n");

    let good = registry(&["a"]);
    let outcome = push(&good.address).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let uri = outcome.stdout.trim_end();
    assert!(read().starts_with(&format!("IMAGE_URI={uri}\nDIGEST=sha256:")), "{}", read());
    let left = names(&site.project());
    assert_eq!(left, ["image.env", "lambda-image.lock", "notes.txt", "target"], "nothing is left beside it");
}

#[test]
fn a_link_stays_a_link_and_who_may_read_stays_as_it_was() {
    let site = Site::new();
    site.write("real.env", b"");
    fs::set_permissions(site.project().join("real.env"), fs::Permissions::from_mode(0o600)).expect("set");
    symlink("real.env", site.project().join("image.env")).expect("linked");
    let digest = site.build(&["notes.txt"]).env("CARGO_LAMBDA_IMAGE_OUTPUT_ENV", "image.env").succeed()[0];
    let real = site.project().join("real.env");
    assert_eq!(fs::read_to_string(&real).expect("variables"), format!("DIGEST={digest}\n"));
    assert_eq!(fs::metadata(&real).expect("found").permissions().mode() & 0o777, 0o600);
    assert!(fs::symlink_metadata(site.project().join("image.env")).expect("found").is_symlink());
}

#[test]
fn a_file_in_no_directory_and_a_command_without_images_are_refused_before_any_work() {
    let site = Site::new();
    let outcome = site.build(&["notes.txt"]).args(["--output-env", "gone/image.env"]).run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""));
    assert!(outcome.stderr.contains("gone/image.env") && outcome.stderr.contains("help: "), "{}", outcome.stderr);
    assert!(!site.store().exists());
    for command in ["verify", "update", "outdated", "iam-policy"] {
        let outcome = crate::support::program::Program::of(command, &site.project()).args(["--output-env", "x"]).run();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{command}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("`--output-env` is for `build` and `push`"), "{}", outcome.stderr);
    }
}
