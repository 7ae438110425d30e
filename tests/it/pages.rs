//! Completions in the shells they are for, and the pages of the manual.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::program::Program;
use crate::support::project::Project;
use crate::support::tools::{succeed, tool};

/// Completes each line in bash as a user's tab key does, and prints `line -> words`.
const BASH: &str = r#"
try() {
    local handler
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    handler=$(complete -p "$1" | sed -n 's/.* -F \([^ ]*\) .*/\1/p')
    "$handler" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "$* -> ${COMPREPLY[*]}"
}
_cargo_of_cargo() { COMPREPLY=("cargo's own"); }
complete -F _cargo_of_cargo cargo
source completions.bash
source completions.bash
try cargo-lambda-image compl
try cargo-lambda-image build --binary
try cargo-lambda-image build --format d
try cargo lambda-image bui
try cargo lambda-image push --no-dig
try cargo lambda-im
"#;

fn completions(directory: &Path, shell: &str) -> String {
    // What is asked for is printed as it is, whatever scripts asked of other commands.
    let program = Program::of("completions", directory).arg(shell).env("CARGO_LAMBDA_IMAGE_MESSAGE_FORMAT", "json");
    let outcome = program.run();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    fs::write(directory.join(format!("completions.{shell}")), &outcome.stdout).expect("written");
    outcome.stdout
}

#[test]
fn bash_completes_the_program_and_cargos_subcommand() {
    let project = Project::new(&[]);
    completions(project.root(), "bash");
    let completed = succeed(Command::new("bash").args(["--norc", "-c", BASH]).current_dir(project.root()));
    assert_eq!(
        completed.lines().collect::<Vec<_>>(),
        [
            "cargo-lambda-image compl -> completions",
            "cargo-lambda-image build --binary -> --binary-path",
            "cargo-lambda-image build --format d -> docker",
            "cargo lambda-image bui -> build",
            "cargo lambda-image push --no-dig -> --no-digest-tag",
            "cargo lambda-im -> cargo's own",
        ]
    );
}

#[test]
fn fish_completes_the_program_and_cargos_subcommand() {
    let project = Project::new(&[]);
    completions(project.root(), "fish");
    for (line, expected) in [
        ("cargo-lambda-image compl", "completions\t"),
        ("cargo-lambda-image build --binary", "--binary-path\t"),
        ("cargo lambda-im", "lambda-image\t"),
        ("cargo lambda-image bui", "build\t"),
        ("cargo lambda-image build --format d", "docker\t"),
    ] {
        let script = format!("source completions.fish; complete -C '{line}'");
        let mut fish = Command::new(tool("fish"));
        let completed = succeed(fish.args(["--no-config", "-c", &script]).current_dir(project.root()));
        assert!(completed.lines().any(|word| word.starts_with(expected)), "{line}: {completed}");
    }
}

#[test]
fn zsh_and_powershell_get_scripts_of_their_own() {
    let project = Project::new(&[]);
    assert!(completions(project.root(), "zsh").starts_with("#compdef cargo-lambda-image\n"));
    succeed(Command::new(tool("zsh")).args(["-f", "-n", "completions.zsh"]).current_dir(project.root()));
    let powershell = completions(project.root(), "powershell");
    assert!(powershell.contains("Register-ArgumentCompleter -Native -CommandName 'cargo-lambda-image'"));

    let outcome = Program::of("completions", project.root()).arg("zshh").run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""));
    assert!(outcome.stderr.contains("a similar value exists: 'zsh'"), "{}", outcome.stderr);
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let project = Project::new(&[]);
    let outcome = Program::of("man", project.root()).arg("man/man1").run();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    let help = Program::of("help", project.root()).run().stdout;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<_> =
        listed.filter_map(|line| line.split_whitespace().next()).filter(|it| *it != "help").collect();
    assert!(commands.contains(&"build") && !commands.contains(&"man"), "{help}");
    let mut expected = vec!["man/man1/cargo-lambda-image.1".to_owned()];
    expected.extend(commands.iter().map(|command| format!("man/man1/cargo-lambda-image-{command}.1")));
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), expected);
    let page = fs::read_to_string(project.path("man/man1/cargo-lambda-image-build.1")).expect("a page");
    for text in [".SH \"PACKAGE SELECTION\"", "\\-\\-binary\\-path", "Examples:", "cargo lambda\\-image build"] {
        assert!(page.contains(text), "no `{text}` in {page}");
    }

    project.write("file", "");
    let outcome = Program::of("man", project.root()).arg("file").run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""));
    assert!(outcome.stderr.contains("could not make `file`"), "{}", outcome.stderr);
}
