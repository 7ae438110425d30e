//! The README's commands do what it says, as they are pasted.

use std::collections::BTreeSet;

use cargo_lambda_image::aws::ecr::host::RegistryHost;
use cargo_lambda_image::deploy::policy::{Wanted, policy};
use cargo_lambda_image::deploy::{Asked, Create, Release};
use serde_json::json;

use crate::support::cloud::{Cloud, REGION};
use crate::support::hello::{layout, testdata};
use crate::support::markdown::{commands, read, repository};
use crate::support::moto::ACCOUNT;
use crate::support::program::{blob, json};
use crate::support::shell::{Shell, pasted, turn_of_words};
use crate::support::tools::succeed;

const TRY: &str = "Try it";

#[test]
fn the_first_command_builds_the_image_of_hello() {
    let first = commands("README.md", TRY).first().expect("a first command").clone();
    let printed = succeed(&mut pasted(&first));
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
    let second = commands("README.md", TRY).get(1).expect("a second command").clone();
    let ci = read(".ci/run");
    let last = ci.lines().last().expect("a last line");
    assert_eq!(last.split_once(' ').map_or(last, |(command, _quiet)| command), second);
    assert!(repository().join(&second).is_file());
}

#[test]
fn the_way_from_cargo_new_to_a_live_function_is_as_it_is_pasted() {
    let [write, configure, push] =
        commands("README.md", "From `cargo new` to a live function").try_into().expect("three blocks of shell");
    let _turn = turn_of_words();
    let cloud = Cloud::start(&["words"]);
    let shell = Shell::in_cloud(&cloud);
    shell.run(&write);
    shell.run_in("words", &configure);
    let first = shell.run_in("words", &push);
    let function = cloud.lambda.functions(|functions| functions.get("words").clone());
    assert_eq!(first.trim_end(), function.image_uri);
    cloud.lambda.forget();
    assert_eq!(shell.run_in("words", &push), first);
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
    let (mut told, text) = (BTreeSet::new(), read("README.md"));
    let (_, rest) = text.split_once("\n## What AWS must allow\n").expect("the section");
    told.extend(words(rest.split("\n## ").next().unwrap_or_default(), '`'));
    assert_eq!(told, printed.into_iter().filter(|word| word != "iam:PassedToService").collect());
}
