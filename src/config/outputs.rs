//! Where results go besides stdout: the files of a CI service that runs us, and one that the user names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::ImageRequest;
use super::environment::{Environment, talk_over_environment};
use crate::cli::{Command, TalkArgs};
use crate::event::run::variable;
use crate::problem::{Problem, Result};

/// Where results go besides stdout, and who reads stderr.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputsRequest {
    /// The runner of GitHub Actions reads stderr, and finds commands in it.
    pub actions: bool,
    /// The file for the step's outputs (`GITHUB_OUTPUT`).
    pub output: Option<PathBuf>,
    /// The file for the step's summary (`GITHUB_STEP_SUMMARY`).
    pub summary: Option<PathBuf>,
    /// The dotenv file of `--output-env`.
    pub dotenv: Option<PathBuf>,
}

/// Whether a step of GitHub Actions runs us.
#[must_use]
pub fn in_actions(environment: &Environment) -> bool {
    environment.get("GITHUB_ACTIONS").is_some_and(|value| value == "true")
}

/// Settles where the results of `command` go.
///
/// # Errors
/// When a command is told to write what it does not have.
pub fn outputs_request(command: &Command, environment: &Environment) -> Result<OutputsRequest> {
    let makes_images = matches!(command, Command::Build(_) | Command::Push(_));
    let reports = makes_images || matches!(command, Command::Verify(_));
    let typed = command.talk();
    if !makes_images && typed.is_some_and(|talk| talk.output_env.is_some()) {
        return Err(Problem::usage("`--output-env` is for `build` and `push`, which have an image to tell of")
            .help("leave it out here"));
    }
    let dotenv = match typed.filter(|_| makes_images) {
        Some(typed) => talk_over_environment(typed, environment)?.output_env,
        None => None,
    };
    let actions = in_actions(environment);
    let file = |name| environment.get(name).map(|path| environment.directory.join(path));
    Ok(OutputsRequest {
        actions,
        output: file("GITHUB_OUTPUT").filter(|_| actions && makes_images),
        summary: file("GITHUB_STEP_SUMMARY").filter(|_| actions && reports),
        dotenv: dotenv.map(|path| environment.directory.join(path)),
    })
}

/// Refuses images whose variables in the dotenv file would have the same names.
pub(super) fn refuse_alike(talk: &TalkArgs, images: &[ImageRequest]) -> Result<()> {
    if talk.output_env.is_none() {
        return Ok(());
    }
    let mut named: BTreeMap<String, &str> = BTreeMap::new();
    for ImageRequest { bin, .. } in images {
        let part = variable(bin);
        if let Some(other) = named.insert(part.clone(), bin) {
            return Err(Problem::usage(format!(
                "`--output-env` would call the digests of `{other}` and `{bin}` both `DIGEST_{part}`"
            ))
            .help("choose one with `--bin`, or rename one of them"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::tests::environment;
    use super::*;
    use crate::cli::Cli;

    fn asked(line: &[&str], variables: &[(&str, &str)]) -> Result<OutputsRequest> {
        let cli = Cli::try_parse_from(["cargo-lambda-image"].iter().chain(line)).expect("the flags are right");
        outputs_request(&cli.command, &environment(variables))
    }

    #[test]
    fn files_are_for_those_who_have_something_to_tell() {
        let (output, summary) = (("GITHUB_OUTPUT", "/o"), ("GITHUB_STEP_SUMMARY", "/s"));
        let actions = ("GITHUB_ACTIONS", "true");
        let ours = ("CARGO_LAMBDA_IMAGE_OUTPUT_ENV", "x.env");
        let some = |path: &str| Some(PathBuf::from(path));
        for (line, variables, expected) in [
            (&["build"][..], &[output, summary][..], (false, None, None, None)),
            (&["build"], &[actions, output, summary], (true, some("/o"), some("/s"), None)),
            (&["push"], &[actions, ("GITHUB_OUTPUT", ""), summary], (true, None, some("/s"), None)),
            (&["verify"], &[actions, output, summary, ours], (true, None, some("/s"), None)),
            (&["update"], &[actions, output, summary, ours], (true, None, None, None)),
            (&["init"], &[actions, output, summary, ours], (true, None, None, None)),
            (&["build"], &[("GITHUB_ACTIONS", "false"), output], (false, None, None, None)),
            (&["build"], &[ours], (false, None, None, some("/cwd/x.env"))),
            (&["push", "--output-env", "/tmp/y"], &[ours], (false, None, None, some("/tmp/y"))),
        ] {
            let OutputsRequest { actions, output, summary, dotenv } = asked(line, variables).expect("an answer");
            assert_eq!((actions, output, summary, dotenv), expected, "{line:?} {variables:?}");
        }
        let problem = asked(&["verify", "--output-env", "x"], &[]).expect_err("no image is made");
        assert_eq!(problem.message(), "`--output-env` is for `build` and `push`, which have an image to tell of");
    }
}
