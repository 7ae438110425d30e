//! What the command line tells of itself to others than its readers: completions for shells, pages for `man`.
//!
//! Both are generated from the flags' own definitions, so that none can be forgotten.

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::values::ShellArg;

/// What `completions` can be told.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: ShellArg,
}

/// What `man` can be told.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ManArgs {
    /// Where the pages go; it is made if it is not there
    pub directory: PathBuf,
}

/// The name of the program's file, which Cargo finds it by.
const PROGRAM: &str = "cargo-lambda-image";

/// The completions of a shell, as a script of its own language.
#[must_use]
pub fn completions(shell: ShellArg) -> String {
    let mut script = Vec::new();
    let (generator, with_cargo) = match shell {
        ShellArg::Bash => (Shell::Bash, BASH_WITH_CARGO),
        ShellArg::Fish => (Shell::Fish, FISH_WITH_CARGO),
        ShellArg::Powershell => (Shell::PowerShell, ""),
        ShellArg::Zsh => (Shell::Zsh, ""),
    };
    clap_complete::generate(generator, &mut Cli::command(), PROGRAM, &mut script);
    let script = String::from_utf8_lossy(&script);
    // The generator for bash spells a program's name with hyphens in two ways, and completes nothing behind a command
    // (https://github.com/clap-rs/clap/issues/6421).
    script.replace("cargo__subcmd__lambda__subcmd__image", "cargo__lambda__image") + with_cargo
}

/// Cargo's own completions, which know nothing of others' subcommands, are asked about all but ours.
const BASH_WITH_CARGO: &str = r#"
if ! complete -p cargo >/dev/null 2>&1; then
    if declare -F _comp_load >/dev/null; then
        _comp_load cargo
    elif declare -F __load_completion >/dev/null; then
        __load_completion cargo
    fi
fi
if ! declare -F _cargo_with_lambda_image >/dev/null; then
    _cargo_without_lambda_image=$(complete -p cargo 2>/dev/null | sed -n 's/.* -F \([^ ]*\) .*/\1/p')
fi
_cargo_with_lambda_image() {
    if [[ ${COMP_WORDS[1]-} == lambda-image && $COMP_CWORD -gt 1 ]]; then
        COMP_WORDS=(cargo-lambda-image "${COMP_WORDS[@]:2}")
        COMP_CWORD=$((COMP_CWORD - 1))
        _cargo__lambda__image cargo-lambda-image "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    elif [[ -n $_cargo_without_lambda_image ]]; then
        "$_cargo_without_lambda_image" "$@"
    fi
}
complete -F _cargo_with_lambda_image -o bashdefault -o default cargo
"#;

const FISH_WITH_CARGO: &str = r#"
complete -c cargo -n "__fish_use_subcommand" -a lambda-image -d "Build AWS Lambda container images"
complete -c cargo -n "__fish_seen_subcommand_from lambda-image" -f -a '(complete -C (string replace -r "^cargo\s+lambda-image" "cargo-lambda-image" -- (commandline -cp)))'
"#;

/// The pages of the manual by their file names: one for the program and one for each command that is not hidden.
#[must_use]
pub fn man_pages() -> Vec<(String, Vec<u8>)> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![page(&command)];
    pages.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).map(page));
    pages
}

fn page(command: &Command) -> (String, Vec<u8>) {
    let name = command.get_display_name().unwrap_or(PROGRAM).to_owned();
    let mut bytes = Vec::new();
    let page = clap_mangen::Man::new(command.clone().name(name.clone())).manual("Cargo Manual");
    page.render(&mut bytes).expect("a vector takes every byte");
    // Examples are to be pasted, so their lines are not filled, nor words broken.
    let page = String::from_utf8_lossy(&bytes).replace(".SH EXTRA\n", ".SH EXTRA\n.nf\n");
    (format!("{name}.1"), page.replace("\n.SH VERSION\n", "\n.fi\n.SH VERSION\n").into_bytes())
}
