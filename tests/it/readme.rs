//! The README's commands do what it says, as they are pasted.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::hello::{layout, testdata};
use crate::support::program::{blob, json};
use crate::support::tools::succeed;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The commands to try, in order: one a block.
fn commands() -> Vec<String> {
    let text = fs::read_to_string(repository().join("README.md")).expect("a README");
    let (_, rest) = text.split_once("\n## Try it\n").expect("a section of commands to try");
    let section = rest.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```").skip(1).step_by(2);
    blocks.map(|block| block.strip_prefix("sh\n").expect("a block of shell").trim_end().to_owned()).collect()
}

/// A command as a user's shell runs it: without what cargo tells its tests.
fn shell(line: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-euc", line]).current_dir(repository());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let is_cargo_s = ["CARGO_PKG_", "CARGO_BIN_", "CARGO_MANIFEST_", "CARGO_LAMBDA_IMAGE_"];
        if is_cargo_s.iter().any(|prefix| text.starts_with(prefix)) || ["CARGO", "LD_LIBRARY_PATH"].contains(&&*text) {
            command.env_remove(&name);
        }
    }
    command
}

#[test]
fn the_first_command_builds_the_image_of_hello() {
    let first = commands().first().expect("a first command").clone();
    let printed = succeed(&mut shell(&first));
    let digest = printed.trim();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| testdata("hello/target"), Into::into);
    let layout = layout(&target);
    let manifest = blob(&layout, digest);
    let names: Vec<_> = manifest["layers"].as_array().expect("layers").iter().collect();
    assert_eq!(names.len(), 2, "the database and the binary");
    let result = json(&target.join("lambda-image/hello.json"));
    assert_eq!(result["digest"], digest);
    let assets: Vec<_> = result["layers"].as_array().expect("layers").iter().map(|layer| &layer["name"]).collect();
    assert_eq!(assets, ["words.sqlite3", "hello"]);
}

#[test]
fn the_second_command_is_what_ci_runs() {
    let second = commands().get(1).expect("a second command").clone();
    let ci = fs::read_to_string(repository().join(".ci/run")).expect("the CI script");
    assert_eq!(ci.lines().last(), Some(second.as_str()));
    assert!(repository().join(&second).is_file());
}
