//! The README's commands do what it says, as they are pasted.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use cargo_lambda_image::aws::ecr::host::RegistryHost;
use cargo_lambda_image::deploy::policy::{Wanted, policy};
use cargo_lambda_image::deploy::{Asked, Create, Release};
use serde_json::json;
use tempfile::TempDir;

use crate::support::cloud::{Cloud, KEYS, REGION};
use crate::support::hello::{layout, testdata};
use crate::support::moto::ACCOUNT;
use crate::support::program::{blob, json};
use crate::support::tools::{succeed, target_directory};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The blocks of shell in a section, in order.
fn blocks(section: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join("README.md")).expect("a README");
    let (_, rest) = text.split_once(&format!("\n## {section}\n")).expect("a section of this name");
    let section = rest.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix("sh\n")).map(|block| block.trim_end().to_owned()).collect()
}

/// The commands to try, in order: one a block.
fn commands() -> Vec<String> {
    blocks("Try it")
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

#[test]
fn the_way_from_cargo_new_to_a_live_function_is_as_it_is_pasted() {
    let [write, configure, push] =
        blocks("From `cargo new` to a live function").try_into().expect("three blocks of shell");
    let directory = TempDir::new().expect("a temporary directory");
    let bin = directory.path().join("bin");
    fs::create_dir(&bin).expect("made");
    symlink(env!("CARGO_BIN_EXE_cargo-lambda-image"), bin.join("cargo-lambda-image")).expect("linked");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a path"));
    let in_shell = |line: &str, below: &str| {
        let mut command = shell(line);
        command.current_dir(directory.path().join(below)).env("PATH", &path);
        command.env("CARGO_BUILD_BUILD_DIR", target_directory().join("it/hello"));
        command
    };
    succeed(&mut in_shell(&write, ""));
    // Crates come from where they always do; behind the proxy below there is only AWS.
    succeed(&mut in_shell(&format!("{configure}\ncargo fetch --quiet"), "words"));

    let cloud = Cloud::start(&["words"]);
    let mut command = in_shell(&push, "words");
    command.env("HTTPS_PROXY", cloud.proxy.url()).env("SSL_CERT_FILE", cloud.proxy.authority());
    command.envs(KEYS).env("AWS_REGION", REGION);
    let first = succeed(&mut command);
    let function = cloud.lambda.functions(|functions| functions.get("words").clone());
    assert_eq!(first.trim_end(), function.image_uri);
    cloud.lambda.forget();
    assert_eq!(succeed(&mut command), first);
    assert_eq!(cloud.lambda.changes(), [] as [&str; 0], "there is nothing to do");
    let (_, digest) = first.trim_end().split_once('@').expect("a digest");
    assert_eq!(cloud.invoke("words", &format!("@{digest}"), &json!({})), json!({ "words": 3 }));
}

#[test]
fn every_action_of_a_policy_is_in_the_table_and_no_other() {
    let registry = RegistryHost::of(ACCOUNT, REGION).expect("a registry");
    let wanted = Wanted {
        registry: registry.clone(),
        repositories: vec!["a".to_owned()],
        create_repository: true,
        bases: vec![(registry, "base".to_owned())],
    };
    let create = Create {
        role: "arn".to_owned(),
        memory_mb: None,
        timeout_seconds: None,
        env: std::collections::BTreeMap::new(),
    };
    let asked = Asked {
        package: "a".to_owned(),
        bin: "a".to_owned(),
        function: "f".parse().expect("a name"),
        create: Some(create),
        release: Release::Alias("live".to_owned()),
    };
    let words = |text: &str, mark: char| -> BTreeSet<String> {
        let words = text.split(mark).filter(|word| ["ecr:", "lambda:", "iam:"].iter().any(|it| word.starts_with(it)));
        words.filter(|word| !word.contains(' ')).map(str::to_owned).collect()
    };
    let printed = words(&policy(&wanted, &[asked]), '"');
    let (mut told, text) = (BTreeSet::new(), fs::read_to_string(repository().join("README.md")).expect("a README"));
    let (_, rest) = text.split_once("\n## What AWS must allow\n").expect("the section");
    told.extend(words(rest.split("\n## ").next().unwrap_or_default(), '`'));
    assert_eq!(told, printed.into_iter().filter(|word| word != "iam:PassedToService").collect());
}
