//! The guides do what they say: their commands are run as they are pasted, and what cannot be run here is read by the
//! parsers of flags and keys.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use cargo_lambda_image::cli;
use cargo_lambda_image::cli::values::ColorArg;
use cargo_lambda_image::config;
use clap::CommandFactory as _;
use clap::error::ErrorKind;
use serde_json::{Value, json};

use crate::support::cloud::Cloud;
use crate::support::emulator::Podman;
use crate::support::markdown::{Block, blocks, pages, read, repository};
use crate::support::program::json;
use crate::support::project::{AMD64, Project, package};
use crate::support::shell::{Network, Shell, turn_of_words};

/// The pages whose commands are run by a test, and all by which.
const RUN: [&str; 8] = [
    "README.md",
    "docs/big-assets.md",
    "docs/first-deploy.md",
    "docs/from-dockerfile.md",
    "docs/glibc.md",
    "docs/infrastructure.md",
    "docs/proxies.md",
    "docs/workspace.md",
];

/// All commands of a page, one after the other, in a shell that stops at the first that fails.
fn script(page: &str) -> String {
    assert!(RUN.contains(&page));
    let lines: Vec<_> = blocks(page).into_iter().filter(|block| block.language == "sh").map(|it| it.text).collect();
    lines.join("\n")
}

/// The result files below a directory of the shell, by their binaries.
fn result(shell: &Shell, path: &str) -> Value {
    json(&shell.path("work").join(path))
}

#[test]
fn a_first_function_answers_here_and_arrives() {
    let _turn = turn_of_words();
    let cloud = Cloud::start(&["words"]);
    let (podman, network, shell) = (Podman::new(), Network::new(), Shell::in_cloud(&cloud));
    shell.provide("podman", &podman.script(&network.enter()));
    shell.provide("curl", &format!("exec {} /usr/bin/curl \"$@\"", network.enter()));
    let printed = shell.run(&script("docs/first-deploy.md"));
    assert!(printed.contains("{\"words\":3}"), "the emulator's answer: {printed}");
    let function = cloud.lambda.functions(|functions| functions.get("words").clone());
    assert_eq!(printed.lines().last(), Some(function.image_uri.as_str()), "the last push arrived");
    let (_, digest) = function.image_uri.split_once('@').expect("a digest");
    assert_eq!(cloud.invoke("words", &format!("@{digest}"), &json!({})), json!({ "words": 4 }));
}

#[test]
fn big_assets_are_sent_once_and_not_needed_again() {
    let cloud = Cloud::start(&["shop/search"]);
    let shell = Shell::in_cloud(&cloud);
    let printed = shell.run(&script("docs/big-assets.md"));
    let [first, second, pushed, again] = printed.lines().collect::<Vec<_>>().try_into().expect("a line an image");
    assert_eq!((first, again), (second, pushed), "the same image each time");
    assert!(pushed.ends_with(first), "{pushed}");
    let layers = result(&shell, "search/target/lambda-image/search.json")["layers"].clone();
    let layers = layers.as_array().expect("layers");
    let named: Vec<_> = layers[layers.len() - 3..].iter().map(|layer| layer["name"].as_str()).collect();
    assert_eq!(named, [Some("models/large.safetensors"), Some("models"), Some("search")]);
    assert!(!shell.path("work/search/models").exists(), "the last push had no assets");
}

#[test]
fn a_workspace_makes_an_image_of_each_binary() {
    let cloud = Cloud::start(&["shop/api", "shop/jobs"]);
    let shell = Shell::in_cloud(&cloud);
    let printed = shell.run(&script("docs/workspace.md"));
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines.len(), 6, "{printed}");
    for (built, pushed, repository) in
        [(lines[0], lines[3], "api"), (lines[1], lines[4], "jobs"), (lines[2], lines[5], "jobs")]
    {
        assert!(pushed.ends_with(&format!("/shop/{repository}@{built}")), "{pushed}");
    }
    let tags = |bin: &str| result(&shell, &format!("shop/target/lambda-image/{bin}.json"))["tags"].clone();
    assert!(tags("sweep").to_string().contains("\"sweep-v0.1.0\""), "{}", tags("sweep"));
    assert!(tags("api").to_string().contains("\"v0.1.0\""), "{}", tags("api"));
}

#[test]
fn the_way_out_of_glibc_is_there() {
    let shell = Shell::new();
    let printed = shell.run(&script("docs/glibc.md"));
    assert!(printed.starts_with("L058 (error)"), "{printed}");
    let layers = result(&shell, "tiny/target/lambda-image/tiny.json")["layers"].clone();
    assert_eq!(layers.as_array().map(Vec::len), Some(1), "nothing but the binary: {layers}");
}

#[test]
fn a_base_and_an_image_are_carried_where_there_is_no_network() {
    let _turn = turn_of_words();
    let cloud = Cloud::start(&["shop/words"]);
    let shell = Shell::in_cloud(&cloud);
    let printed = shell.run(&script("docs/proxies.md"));
    let built = printed.lines().next().expect("a digest");
    let pushed = printed.lines().last().expect("where it is");
    assert!(pushed.ends_with(&format!("/shop/words@{built}")), "{printed}");
}

#[test]
fn every_block_of_shell_is_run_by_a_test() {
    let has_shell = |page: &&PathBuf| blocks(page).iter().any(|block| block.language == "sh");
    let found: Vec<_> = pages().iter().filter(has_shell).map(|page| page.display().to_string()).collect();
    assert_eq!(found, RUN, "a page's commands are run in a test, or marked as `text`");
}

/// Every command of the program in the examples of its help, and in the code of all pages, in blocks and between
/// backticks.
fn invocations() -> Vec<(PathBuf, String)> {
    let all = cli::Cli::command();
    let examples = all.get_subcommands().chain([&all]).filter_map(|it| it.get_after_help());
    let examples = examples.map(|text| text.to_string().replace("\\\n", " ")).collect::<Vec<_>>().join("\n");
    let typed = examples.lines().map(str::trim).filter(|line| line.starts_with("cargo lambda-image "));
    let mut found: Vec<_> = typed.map(|line| (PathBuf::from("--help"), line.to_owned())).collect();
    assert!(found.len() > 20, "{found:?}");
    for page in pages() {
        let blocks: Vec<Block> = blocks(&page);
        let joined = |text: &str| text.replace("\\\n", " ");
        let lines = blocks.iter().flat_map(|it| joined(&it.text).lines().map(str::to_owned).collect::<Vec<_>>());
        let text = read(&page);
        let prose = text.split("\n```").step_by(2).collect::<String>();
        let quoted = prose.split('`').skip(1).step_by(2).map(|it| it.split_whitespace().collect::<Vec<_>>().join(" "));
        for line in lines.chain(quoted) {
            let line = line.trim().trim_start_matches("$ ").trim_start_matches("run: ");
            if line.starts_with("cargo lambda-image ") {
                found.push((page.clone(), line.to_owned()));
            }
        }
    }
    found
}

/// A line's words as a shell parts them.
fn words(line: &str) -> Vec<OsString> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in line.chars() {
        match (quote, letter) {
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            (None, ' ') => words.extend((!word.is_empty()).then(|| OsString::from(std::mem::take(&mut word)))),
            _ => word.push(letter),
        }
    }
    words.extend((!word.is_empty()).then(|| OsString::from(word)));
    words
}

#[test]
fn every_command_that_is_shown_is_one() {
    let shown = invocations();
    assert!(shown.len() > 50, "{}", shown.len());
    for (page, line) in shown {
        // What stands for something else, and what the shell takes for itself.
        if line.contains("COMMAND") || line.contains("SHELL") || line.contains("...") {
            continue;
        }
        let typed = words(line.split([';', '|', '>', '#', '&']).next().expect("a command"));
        if let Err(error) = cli::parse(typed.into_iter().skip(1), ColorArg::Never) {
            // A command's bare name says which one is meant, and help is no error.
            let is_meant = error.exit_code() == 0 || error.kind() == ErrorKind::MissingRequiredArgument;
            assert!(is_meant, "{}: `{line}`: {error}", page.display());
        }
    }
}

#[test]
fn every_table_that_is_shown_is_understood() {
    let mut seen = 0;
    for page in pages() {
        for block in blocks(&page) {
            if block.language != "toml" || !block.text.contains("metadata.lambda-image") {
                continue;
            }
            seen += 1;
            let project = Project::new(&[("src/main.rs", "fn main() {}")]);
            let text = block.text.replace("[[bin]]", "");
            project.write("Cargo.toml", package("app", &text));
            project.write_program("app", AMD64);
            let arguments = ["--binary-path", "app", "--base", "scratch", "--no-assets"];
            let outcome = project.build().args(arguments).run();
            assert_eq!(outcome.code, 0, "{}: {text}: {}", page.display(), outcome.stderr);
            assert!(!outcome.stderr.contains("unused"), "{}: {text}: {}", page.display(), outcome.stderr);
        }
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn every_link_leads_to_a_page() {
    let every: BTreeSet<PathBuf> = pages().into_iter().chain([PathBuf::from("CHANGELOG.md")]).collect();
    for page in &every {
        let text = read(page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with('#') {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = within(&page.parent().expect("a folder").join(path));
            assert!(repository().join(&path).exists(), "{} links to `{target}`", page.display());
            if !anchor.is_empty() {
                let named = |line: &str| line.starts_with('#') && anchor_of(line) == anchor;
                assert!(read(&path).lines().any(named), "{} links to `{target}`", page.display());
            }
        }
    }
    let index = read("docs/README.md");
    for page in every.iter().filter(|page| page.starts_with("docs") && !page.ends_with("README.md")) {
        let name = page.file_name().expect("a name").to_string_lossy();
        assert!(index.contains(&format!("]({name})")), "docs/README.md does not list {name}");
    }
}

/// A path without `..`.
fn within(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            clean.pop();
        } else {
            clean.push(component);
        }
    }
    clean
}

/// What a heading is called by in links.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    text.chars().filter(|letter| letter.is_alphanumeric() || *letter == '-' || *letter == '_').collect()
}

#[test]
fn the_reference_in_the_documentation_is_that_of_the_code() {
    let path = repository().join("docs/reference.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, config::reference()).expect("written");
    }
    assert_eq!(read(&path), config::reference(), "`UPDATE_DOCS=1 cargo test the_reference_in` writes it anew");
}
