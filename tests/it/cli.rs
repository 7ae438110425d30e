//! The real binary as a shell sees it: its two ways to be called, help, and how it ends when a project cannot be built.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_cargo-lambda-image");

/// Runs the binary in `directory`, with no variable of ours or of colour.
fn run(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_TERM_") || name.starts_with("CARGO_LAMBDA_IMAGE_"))
        {
            command.env_remove(name);
        }
    }
    let command = command.args(arguments).current_dir(directory).env("NO_COLOR", "1").envs(variables.iter().copied());
    command.output().expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A package whose `main.rs` is `main`.
fn package(main: &str) -> TempDir {
    let directory = TempDir::new().expect("a temporary directory");
    fs::create_dir(directory.path().join("src")).expect("a directory can be made");
    fs::write(directory.path().join("src/main.rs"), main).expect("a file can be written");
    let manifest = "[package]\nname = \"sample\"\nversion = \"1.2.3\"\nedition = \"2021\"\n[workspace]\n";
    fs::write(directory.path().join("Cargo.toml"), manifest).expect("a file can be written");
    directory
}

#[test]
fn cargo_and_a_shell_call_the_same_program() {
    let directory = TempDir::new().expect("a temporary directory");
    for arguments in [&["build", "--help"][..], &["lambda-image", "build", "--help"]] {
        let output = run(directory.path(), arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        let help = stdout(&output);
        assert!(help.contains("Usage: cargo lambda-image build [OPTIONS]"), "{help}");
        for heading in ["Package Selection:", "Compilation Options:", "Image Options:", "Output Options:", "Examples:"]
        {
            assert!(help.contains(heading), "{heading} is missing of {help}");
        }
    }
    let version = format!("cargo-lambda-image {}\n", env!("CARGO_PKG_VERSION"));
    for arguments in [&["--version"][..], &["lambda-image", "-V"]] {
        assert_eq!(stdout(&run(directory.path(), arguments, &[])), version, "{arguments:?}");
    }
}

#[test]
fn help_begins_with_what_only_this_command_knows() {
    let directory = TempDir::new().expect("a temporary directory");
    for (command, own, shared) in [
        ("push", "Push Options:", "Package Selection:"),
        ("push", "Function Options:", "Package Selection:"),
        ("push", "--color <WHEN>", "Push Options:"),
        ("verify", "[IMAGE]", "Options:"),
        ("update", "[WHAT]...", "Options:"),
        ("update", "--dry-run", "Output Options:"),
    ] {
        let output = run(directory.path(), &[command, "--help"], &[]);
        let help = stdout(&output);
        let (_, help) = help.split_once("Usage: ").expect("usage");
        let help = help.split_once('\n').expect("a line").1;
        let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("{command}: no `{text}` in {help}"));
        assert!(at(own) < at(shared), "{command}: `{own}` comes before `{shared}` in {help}");
    }
}

#[test]
fn what_is_mistyped_ends_with_2_and_a_suggestion() {
    let directory = TempDir::new().expect("a temporary directory");
    for (arguments, expected) in [
        (&["biuld"][..], "a similar subcommand exists: 'build'"),
        (&["build", "--no-binry"], "a similar argument exists: '--no-binary'"),
        (&["build", "--arm64", "--x86-64"], "'--arm64' cannot be used with '--x86-64'"),
        (&["build", "--arm64", "--target", "aarch64-unknown-linux-gnu"], "cannot be used with"),
        (&["build", "--release", "--dev"], "'--release' cannot be used with '--dev'"),
        (&["build", "--no-binary", "--binary-path", "x"], "cannot be used with"),
        (&["build", "--binary-path", "x", "--features", "y"], "cannot be used with"),
        (&["build", "-q", "-v"], "cannot be used with"),
        (&["build", "--target", "aarch64-apple-darwin"], "use aarch64-unknown-linux-gnu"),
        (&["build", "--compression-level", "10"], "10 is not in 0..=9"),
        (&["build", "--asset", "a:b:c"], "more than one `:`"),
        (&["build", "--handler", "--env"], "a value is required for '--handler <HANDLER>'"),
        (&["build", "-j", "0"], "jobs may not be 0"),
    ] {
        let output = run(directory.path(), arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn an_argument_that_is_not_utf_8_is_refused_where_text_is_needed() {
    use std::os::unix::ffi::OsStrExt;
    let directory = TempDir::new().expect("a temporary directory");
    let name = std::ffi::OsStr::from_bytes(b"--name=\xff");
    let output = Command::new(BINARY).args(["build".as_ref(), name]).current_dir(directory.path()).output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("invalid UTF-8"), "{}", stderr(&output));
}

#[test]
fn a_malformed_variable_ends_with_2_and_its_name() {
    let directory = package("fn main() {}");
    for (name, value) in [
        ("CARGO_LAMBDA_IMAGE_COMPRESSION_LEVEL", "high"),
        ("CARGO_LAMBDA_IMAGE_NO_CACHE", "perhaps"),
        ("SOURCE_DATE_EPOCH", "yesterday"),
        ("CARGO_TERM_COLOR", "blue"),
    ] {
        let output = run(directory.path(), &["build"], &[(name, value)]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        let expected = format!("error: `{value}` is no value of {name}");
        assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    }
}

#[test]
fn what_does_not_compile_ends_with_101_and_rustcs_words_only() {
    let directory = package("fn main() { let x: u8 = \"text\"; }");
    let output = run(directory.path(), &["build", "--base", "scratch"], &[]);
    assert_eq!(output.status.code(), Some(101));
    let said = stderr(&output);
    assert!(said.contains("error[E0308]: mismatched types"), "{said}");
    let last = said.trim_end().lines().last().unwrap_or_default();
    assert!(last.starts_with("error: could not compile `sample`"), "nothing is added to what cargo said: {said}");
    assert_eq!(stdout(&output), "");
    assert!(!directory.path().join("target/lambda-image/layout/index.json").exists());
}

#[test]
fn in_json_every_line_is_an_object_with_a_reason() {
    let directory = package("fn main() { let x: u8 = \"text\"; }");
    let output = run(directory.path(), &["build", "--base", "scratch", "--message-format", "json"], &[]);
    assert_eq!(output.status.code(), Some(101));
    let lines = stdout(&output);
    let reasons: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"))
        .map(|message| message["reason"].as_str().expect("a reason").to_owned())
        .collect();
    assert!(reasons.contains(&"build-finished".to_owned()), "cargo's messages are passed on: {lines}");
}

#[test]
fn a_command_that_cargo_does_not_have_is_cargos_to_refuse() {
    let directory = package("fn main() {}");
    let output = run(directory.path(), &["build", "--base", "scratch", "--cargo-build", "no-such-command"], &[]);
    assert_eq!(output.status.code(), Some(101));
    assert!(stderr(&output).contains("no such command: `no-such-command`"), "{}", stderr(&output));
}

#[test]
fn a_missing_cargo_ends_with_101() {
    let directory = package("fn main() {}");
    let output = run(directory.path(), &["build"], &[("CARGO", "/nowhere/cargo")]);
    assert_eq!(output.status.code(), Some(101));
    assert!(stderr(&output).contains("could not run `/nowhere/cargo`"), "{}", stderr(&output));
}

#[test]
fn no_such_binary_or_package_ends_with_2_and_a_suggestion() {
    let directory = package("fn main() {}");
    for (flag, expected) in
        [("--bin", "no binary `smaple` in package `sample`"), ("--package", "no package `smaple` in workspace `")]
    {
        let output = run(directory.path(), &["build", flag, "smaple"], &[]);
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        assert!(said.contains(expected) && said.contains("\nhelp: did you mean `sample`?"), "{said}");
    }
}
