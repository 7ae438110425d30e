//! The reference of every command, flag and key in Markdown: what `docs/reference.md` holds.
//!
//! Flags come from the definitions that parse them, keys from the table that reads them. Only what neither says is
//! written here: the form of a key's value, and what keys without a flag mean.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use crate::cli::Cli;

const INTRODUCTION: &str = "\
# Reference

Every command, flag and key. This page is made of their definitions in `src/cli` and `src/config`; `cargo lambda-image
COMMAND --help` says the same in a terminal.

A flag of `build`, `push` or `verify` can be set by the variable `CARGO_LAMBDA_IMAGE_<FLAG>`, in capitals and with `_` for
`-`: `CARGO_LAMBDA_IMAGE_COMPRESSION_LEVEL=9`. One that takes nothing is set by `true` or `false`, one that is repeatable
takes a value a line. A flag wins over a variable, a variable over the table of the binary, then of the package, then of the
workspace.
";

const KEYS: &str = "
## Keys

Of `[package.metadata.lambda-image]`, of `[package.metadata.lambda-image.bin.NAME]` for one binary, of
`[workspace.metadata.lambda-image]` for all packages, and of `lambda-image.toml` where there is no `Cargo.toml`. Numbers, texts
and lists of a narrower table replace those of a wider one; `env` is merged variable by variable.

| key | value | meaning |
|---|---|---|
";

const ASSET_KEYS: &str = "
### Keys of an asset

| key | value | meaning |
|---|---|---|
";

const VARIABLES: &str = "
## Variables that others made

| variable | effect |
|---|---|
| `CARGO` | the cargo that compiles and knows the project |
| `CARGO_TARGET_DIR`, `CARGO_BUILD_BUILD_DIR` and all others of Cargo | as Cargo has them |
| `CARGO_TERM_COLOR`, `CARGO_TERM_QUIET`, `CARGO_TERM_VERBOSE`, `CARGO_TERM_PROGRESS_WHEN`, `CARGO_TERM_PROGRESS_WIDTH` | as Cargo has them |
| `NO_COLOR`, `TERM=dumb` | no colour; the latter no bars either |
| `CI` | no bars |
| `GITHUB_ACTIONS=true` | groups, annotations and masks on stderr; the outputs of `build` and `push` go to the file `GITHUB_OUTPUT` too, and what became of images to `GITHUB_STEP_SUMMARY` |
| `RUNNER_DEBUG=1` | in GitHub Actions as `-v` |
| `SOURCE_DATE_EPOCH` | the time of `created` in the image's config, in seconds since 1970; layers never depend on it |
| `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` | the way to registries and to AWS |
| `SSL_CERT_FILE`, `SSL_CERT_DIR` | the certificate authorities that are trusted |
| `DOCKER_CONFIG` | where the logins of `docker login` are |
| `REGISTRY_AUTH_FILE`, `XDG_RUNTIME_DIR` | where the logins of `podman login` are, for a registry or for a part of it |
| `AWS_*` | credentials, profile, region and endpoints, as every AWS SDK takes them |
";

/// The form of a key's value, and what it means: what the flag of this name says of itself, or words of its own.
type Key = (&'static str, &'static str, Meaning);

enum Meaning {
    Flag(&'static str),
    Own(&'static str),
}

use Meaning::{Flag, Own};

const TABLE: [Key; 28] = [
    ("base", "text", Flag("base")),
    ("assets", "list of tables", Own("What to pack, in this order. The keys of each are below")),
    ("handler", "text", Flag("handler")),
    ("env", "table of texts", Own("Environment variables of the image")),
    ("entrypoint", "text or list", Own("ENTRYPOINT of the image")),
    ("working-directory", "text", Flag("working-directory")),
    ("compression-level", "number", Flag("compression-level")),
    ("format", "`oci` or `docker`", Flag("format")),
    ("allow-secrets", "list", Flag("allow-secrets")),
    ("deny", "text or list", Flag("deny")),
    ("allow", "text or list", Flag("allow")),
    ("max-size", "text", Flag("max-size")),
    ("cargo-build", "text", Flag("cargo-build")),
    ("repository", "text", Flag("repository")),
    ("create-repository", "true or false", Flag("create-repository")),
    ("tags", "list", Own("Tags of the image; {bin}, {package} and {version} are filled in")),
    ("function", "text or list", Flag("function")),
    ("create-function", "true or false", Flag("create-function")),
    ("role", "text", Flag("role")),
    ("memory", "number", Flag("memory")),
    ("timeout", "number", Flag("timeout")),
    ("publish", "true or false", Flag("publish")),
    ("alias", "text", Flag("alias")),
    ("region", "text", Flag("region")),
    ("aws-profile", "text", Flag("aws-profile")),
    ("endpoint-url", "text", Flag("endpoint-url")),
    ("insecure", "true or false", Flag("insecure")),
    ("bin", "table of tables", Own("Settings of single binaries, by their names: all keys but `bin`")),
];

const ASSET: [Key; 6] = [
    ("name", "text", Own("What reports call it [default: the last part of `path`]")),
    (
        "path",
        "text",
        Own("File, directory or glob, relative to the file that this stands in. Needed; all the others are not"),
    ),
    (
        "to",
        "text",
        Own(
            "Where it goes: relative to /var/task, or absolute. A file's is its path, or a directory if it ends in `/`; a \
             directory's is where its contents go [default: the same relative path]",
        ),
    ),
    ("exclude", "list", Own("Globs of what to leave out, relative to `path`")),
    (
        "follow-symlinks",
        "true or false",
        Own("Pack what links point to, as caches of Hugging Face and DVC need [default: false]"),
    ),
    ("allow-secrets", "list", Own("Globs of files to pack although they look like secrets")),
];

/// The whole page.
#[must_use]
pub fn reference() -> String {
    let mut cli = Cli::command();
    cli.build();
    let mut page = String::from(INTRODUCTION);
    page += "\n## Commands\n";
    let [build, push] = ["build", "push"].map(|name| cli.find_subcommand(name).cloned().unwrap_or_default());
    for command in cli.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help") {
        let told = match command.get_name() {
            "build" => None,
            "iam-policy" => Some(&push),
            _ => Some(&build),
        };
        describe(&mut page, command, told);
    }
    page += KEYS;
    TABLE.iter().for_each(|key| row(&mut page, key, &push));
    page += ASSET_KEYS;
    ASSET.iter().for_each(|key| row(&mut page, key, &push));
    page + VARIABLES
}

/// A command with its flags; those it shares with one that was told before are not told again.
fn describe(page: &mut String, command: &Command, before: Option<&Command>) {
    let name = command.get_name();
    let _ = write!(page, "\n### `cargo lambda-image {name}`\n");
    if let Some(about) = command.get_long_about().or(command.get_about()) {
        let _ = write!(page, "\n{}\n", sentences(&about.to_string()));
    }
    let is_told = |arg: &Arg| before.is_some_and(|before| before.get_arguments().any(|it| it.get_id() == arg.get_id()));
    let shown = |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
    let (shared, own): (Vec<&Arg>, Vec<&Arg>) = command.get_arguments().filter(shown).partition(|arg| is_told(arg));
    if let Some(before) = before.filter(|_| !shared.is_empty()) {
        let is_missing = |arg: &&Arg| !shared.iter().any(|it| it.get_id() == arg.get_id());
        let missing: Vec<String> = before.get_arguments().filter(shown).filter(is_missing).map(long).collect();
        let (name, list) = (before.get_name(), |flags: &[String]| flags.join(", "));
        let takes = if missing.len() > shared.len() {
            let shared: Vec<String> = shared.iter().map(|arg| long(arg)).collect();
            format!("Of the flags of `{name}` it takes {}", list(&shared))
        } else if missing.is_empty() {
            format!("It takes all flags of `{name}`")
        } else {
            format!("It takes all flags of `{name}` but {}", list(&missing))
        };
        let _ = write!(page, "\n{takes}{}\n", if own.is_empty() { "." } else { ", and these:" });
    }
    let mut headings: Vec<Option<&str>> = Vec::new();
    for arg in &own {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    for heading in headings {
        if let Some(heading) = heading.filter(|_| own.len() > 5) {
            let _ = write!(page, "\n**{heading}**\n");
        }
        page.push('\n');
        own.iter().filter(|arg| arg.get_help_heading() == heading).for_each(|arg| item(page, arg));
    }
}

/// A flag or an argument, as an item of a list.
fn item(page: &mut String, arg: &Arg) {
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let value = value.filter(|_| !matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::Count));
    let typed = match (arg.get_short(), arg.get_long(), value) {
        (short, Some(long), value) => {
            let short = short.map(|short| format!("`-{short}`, ")).unwrap_or_default();
            format!("{short}`--{long}{}`", value.map(|value| format!(" {value}")).unwrap_or_default())
        }
        (_, None, value) => format!("`{}`", value.unwrap_or_default()),
    };
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let help = sentences(&help).replace("\n\n", "\n\n  ");
    let takes_value = !matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::Count);
    let values = arg.get_possible_values().into_iter().filter(|_| takes_value);
    let values: Vec<_> = values.map(|value| format!("`{}`", value.get_name())).collect();
    let help =
        if values.is_empty() { help } else { format!("{} ({}).", help.trim_end_matches('.'), values.join(", ")) };
    let _ = writeln!(page, "- {typed}: {help}");
}

fn row(page: &mut String, (key, form, meaning): &Key, push: &Command) {
    let meaning = match meaning {
        Own(text) => (*text).to_owned(),
        Flag(flag) => {
            let arg = push.get_arguments().find(|arg| arg.get_long() == Some(flag));
            let help = arg.and_then(Arg::get_help).map(ToString::to_string).unwrap_or_default();
            help.replace(" [repeatable]", "").replace("[repeatable; ", "[")
        }
    };
    let _ = writeln!(page, "| `{key}` | {form} | {} |", sentences(&meaning).replace('|', "\\|"));
}

fn long(arg: &Arg) -> String {
    format!("`--{}`", arg.get_long().unwrap_or_default())
}

/// Help as sentences: a full stop behind each paragraph that does not end in brackets.
fn sentences(help: &str) -> String {
    let paragraphs = help.split("\n\n").map(|paragraph| paragraph.trim_end_matches('.'));
    let ended = paragraphs.map(|text| if text.ends_with(']') { text.to_owned() } else { format!("{text}.") });
    ended.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::metadata::keys_taken;
    use crate::config::table::{AssetTable, Table};

    #[test]
    fn every_key_there_is_has_its_row() {
        let named = |keys: &[Key]| keys.iter().map(|(key, ..)| *key).collect::<Vec<_>>();
        assert_eq!(named(&TABLE), keys_taken::<Table>());
        assert_eq!(named(&ASSET), keys_taken::<AssetTable>());
    }

    #[test]
    fn every_flag_of_every_command_is_on_the_page() {
        let page = reference();
        let mut cli = Cli::command();
        cli.build();
        for command in cli.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help") {
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let Some(flag) = arg.get_long().filter(|flag| *flag != "help") else { continue };
                let told = [format!("`--{flag}`"), format!("`--{flag} ")];
                assert!(told.iter().any(|text| page.contains(text)), "`{}` has --{flag}", command.get_name());
            }
        }
        assert!(!page.contains(": .\n") && !page.contains("|  |"), "everything has a meaning: {page}");
    }
}
