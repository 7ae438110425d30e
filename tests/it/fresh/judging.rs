//! What the rules say of images some of whose layers nobody here can read.

use std::fs;

use super::{open, succeeded};
use crate::support::project::Project;

#[test]
fn a_program_above_all_that_is_not_here_is_judged_and_one_below_is_not() {
    let registry = open("app");
    for (assets, code, findings) in [
        (["models", "start"], 3, &["L017 models", "L052 start"][..]),
        (["start", "models"], 0, &["L017 models", "L051 -"]),
    ] {
        let table = assets.map(|path| format!("{{ path = \"{path}\" }}")).join(", ");
        let config = format!("base = \"scratch\"\nentrypoint = \"/var/task/start\"\nassets = [{table}]\n");
        let project = Project::new(&[("lambda-image.toml", &config), ("models/a", "a"), ("start", "#!/bin/sh\n")]);
        let push = || project.push().args(["--no-binary", "--repository", &format!("{}/app", registry.address)]);
        succeeded(push().arg("--no-verify").run());
        fs::remove_dir_all(project.path("models")).expect("removed");
        fs::remove_dir_all(project.store()).expect("removed");
        let again =
            push().env("CARGO_LAMBDA_IMAGE_ALLOW", "L025").args(["--assets-from-lock", "--message-format", "json"]);
        let outcome = again.run();
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
        let found = outcome.messages("finding").into_iter();
        let found = found.map(|it| {
            let word = |key: &str| it[key].as_str().unwrap_or("-").to_owned();
            format!("{} {}", word("code"), word("layer"))
        });
        let mut found: Vec<_> = found.collect();
        found.sort();
        assert_eq!(found, findings, "{}", outcome.stdout);
    }
}
