//! How much is said, in which form and colour: settled from flags and the variables that Cargo itself obeys.

use crate::cli::TalkArgs;
use crate::cli::values::{ColorArg, MessageFormatArg};
use crate::problem::{Problem, Result};

use super::environment::{Environment, talk_over_environment};
use super::outputs::in_actions;

/// How to talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TalkRequest {
    /// How much.
    pub verbosity: Verbosity,
    /// Whether to colour.
    pub color: Color,
    /// When to show bars that move.
    pub progress: Progress,
    /// The columns bars may take where no terminal tells.
    pub progress_columns: Option<u16>,
    /// Whether stdout carries a JSON object a line.
    pub json: bool,
    /// Whether stdout carries a document for code scanning.
    pub sarif: bool,
}

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// Status lines.
    Normal,
    /// Details besides; how often `-v` was given.
    Verbose(u8),
}

/// When to colour a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// If it is a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// When to show bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// If stderr is a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Settles how to talk; `typed` is absent for commands that cannot be told.
///
/// # Errors
/// A variable with a value that is none of its own.
pub fn talk_request(typed: Option<&TalkArgs>, environment: &Environment) -> Result<TalkRequest> {
    let talk = match typed {
        Some(typed) => talk_over_environment(typed, environment)?,
        None => TalkArgs::default(),
    };
    let verbosity = verbosity(&talk, environment)?;
    Ok(TalkRequest {
        verbosity,
        color: color(talk.color, environment)?,
        progress: progress(verbosity, environment)?,
        progress_columns: progress_columns(environment)?,
        json: talk.message_format == Some(MessageFormatArg::Json),
        sarif: talk.message_format == Some(MessageFormatArg::Sarif),
    })
}

/// The colour of help and usage errors, which come before flags are known.
#[must_use]
pub fn help_color(environment: &Environment) -> ColorArg {
    match color(None, environment) {
        Ok(Color::Always) => ColorArg::Always,
        Ok(Color::Never) => ColorArg::Never,
        // A malformed variable is complained of when its value is needed.
        Ok(Color::Auto) | Err(_) => ColorArg::Auto,
    }
}

fn verbosity(talk: &TalkArgs, environment: &Environment) -> Result<Verbosity> {
    if talk.quiet {
        return Ok(Verbosity::Quiet);
    }
    if talk.verbose > 0 {
        return Ok(Verbosity::Verbose(talk.verbose));
    }
    let set = |name| environment.truth(name).map(|value| value == Some(true));
    match (set("CARGO_TERM_VERBOSE")?, set("CARGO_TERM_QUIET")?) {
        (true, true) => Err(Problem::usage("CARGO_TERM_VERBOSE and CARGO_TERM_QUIET cannot both be true")
            .help("unset one of them, or say `-v` or `-q`, which outrank both")),
        (true, false) => Ok(Verbosity::Verbose(1)),
        (false, true) => Ok(Verbosity::Quiet),
        // Who starts a job anew with debug logging wants to know more.
        (false, false) if in_actions(environment) && environment.get("RUNNER_DEBUG").is_some_and(|it| it == "1") => {
            Ok(Verbosity::Verbose(1))
        }
        (false, false) => Ok(Verbosity::Normal),
    }
}

fn color(asked: Option<ColorArg>, environment: &Environment) -> Result<Color> {
    let asked = match (asked, environment.get("CARGO_TERM_COLOR")) {
        (Some(asked), _) => asked,
        (None, None) => ColorArg::Auto,
        (None, Some(value)) => value.to_string_lossy().parse().map_err(|why: String| {
            Problem::usage(format!("`{}` is no value of CARGO_TERM_COLOR", value.display()))
                .because(why)
                .help("unset it, or say `--color`, which outranks it")
        })?,
    };
    let unwanted = environment.get("NO_COLOR").is_some() || is_dumb(environment);
    Ok(match asked {
        ColorArg::Always => Color::Always,
        ColorArg::Never => Color::Never,
        ColorArg::Auto if unwanted => Color::Never,
        ColorArg::Auto => Color::Auto,
    })
}

fn progress(verbosity: Verbosity, environment: &Environment) -> Result<Progress> {
    let nobody_looks = environment.get("CI").is_some() || is_dumb(environment);
    let when = environment.get("CARGO_TERM_PROGRESS_WHEN").map(|value| value.to_string_lossy());
    let progress = match when.as_deref() {
        None | Some("auto") if nobody_looks || !environment.stderr_is_terminal => Progress::Never,
        None | Some("auto") => Progress::Auto,
        Some("always") => Progress::Always,
        Some("never") => Progress::Never,
        Some(other) => {
            return Err(Problem::usage(format!("`{other}` is no value of CARGO_TERM_PROGRESS_WHEN"))
                .because("must be auto, always, or never")
                .help("unset it: bars are for terminals that can show them"));
        }
    };
    Ok(if verbosity == Verbosity::Quiet { Progress::Never } else { progress })
}

fn progress_columns(environment: &Environment) -> Result<Option<u16>> {
    let Some(value) = environment.get("CARGO_TERM_PROGRESS_WIDTH") else { return Ok(None) };
    match value.to_str().and_then(|text| text.parse().ok()) {
        Some(columns) => Ok(Some(columns)),
        None => Err(Problem::usage(format!("`{}` is no value of CARGO_TERM_PROGRESS_WIDTH", value.display()))
            .because("must be a number of columns")
            .help("unset it: bars are as wide as the terminal")),
    }
}

fn is_dumb(environment: &Environment) -> bool {
    environment.get("TERM").is_some_and(|term| term == "dumb")
}

#[cfg(test)]
mod tests {
    use super::super::tests::environment;
    use super::*;

    fn settle(typed: TalkArgs, variables: &[(&str, &str)]) -> TalkRequest {
        let environment = Environment { stderr_is_terminal: true, ..environment(variables) };
        talk_request(Some(&typed), &environment).expect("the variables are well formed")
    }

    #[test]
    fn loudness_is_the_flags_then_ours_then_cargos() {
        let typed = |verbose, quiet| TalkArgs { verbose, quiet, ..TalkArgs::default() };
        let ours = ("CARGO_LAMBDA_IMAGE_VERBOSE", "2");
        let actions = ("GITHUB_ACTIONS", "true");
        for (talk, variables, expected) in [
            (typed(0, false), &[][..], Verbosity::Normal),
            (typed(2, false), &[("CARGO_TERM_QUIET", "true")], Verbosity::Verbose(2)),
            (typed(0, true), &[ours], Verbosity::Quiet),
            (typed(0, false), &[ours, ("CARGO_TERM_QUIET", "true")], Verbosity::Verbose(2)),
            (typed(0, false), &[("CARGO_LAMBDA_IMAGE_VERBOSE", "true")], Verbosity::Verbose(1)),
            (typed(0, false), &[("CARGO_TERM_QUIET", "true")], Verbosity::Quiet),
            (typed(0, false), &[("CARGO_TERM_VERBOSE", "true")], Verbosity::Verbose(1)),
            (typed(0, false), &[("CARGO_TERM_VERBOSE", "false"), ("CARGO_TERM_QUIET", "")], Verbosity::Normal),
            (typed(0, false), &[("RUNNER_DEBUG", "1")], Verbosity::Normal),
            (typed(0, false), &[("RUNNER_DEBUG", "1"), actions], Verbosity::Verbose(1)),
            (typed(0, true), &[("RUNNER_DEBUG", "1"), actions], Verbosity::Quiet),
            (typed(0, false), &[actions], Verbosity::Normal),
        ] {
            assert_eq!(settle(talk, variables).verbosity, expected, "{variables:?}");
        }
    }

    #[test]
    fn colour_is_the_flags_then_ours_then_cargos_then_anybodys() {
        for (typed, variables, expected) in [
            (None, &[][..], Color::Auto),
            (None, &[("NO_COLOR", "1")], Color::Never),
            (None, &[("NO_COLOR", "")], Color::Auto),
            (None, &[("TERM", "dumb")], Color::Never),
            (None, &[("CARGO_TERM_COLOR", "always"), ("NO_COLOR", "1")], Color::Always),
            (None, &[("CARGO_LAMBDA_IMAGE_COLOR", "never"), ("CARGO_TERM_COLOR", "always")], Color::Never),
            (Some(ColorArg::Always), &[("CARGO_LAMBDA_IMAGE_COLOR", "never"), ("NO_COLOR", "1")], Color::Always),
        ] {
            let typed = TalkArgs { color: typed, ..TalkArgs::default() };
            assert_eq!(settle(typed, variables).color, expected, "{variables:?}");
        }
    }

    #[test]
    fn bars_need_a_terminal_a_person_and_somebody_who_wants_them() {
        for (variables, expected) in [
            (&[][..], Progress::Auto),
            (&[("CI", "true")], Progress::Never),
            (&[("CI", "")], Progress::Auto),
            (&[("TERM", "dumb")], Progress::Never),
            (&[("CARGO_TERM_PROGRESS_WHEN", "never")], Progress::Never),
            (&[("CARGO_TERM_PROGRESS_WHEN", "always"), ("CI", "true")], Progress::Always),
            (&[("CARGO_TERM_PROGRESS_WHEN", "always"), ("CARGO_TERM_QUIET", "true")], Progress::Never),
        ] {
            assert_eq!(settle(TalkArgs::default(), variables).progress, expected, "{variables:?}");
        }
        let piped = talk_request(Some(&TalkArgs::default()), &environment(&[])).expect("nothing is malformed");
        assert_eq!((piped.progress, piped.progress_columns), (Progress::Never, None));
        let wide = settle(TalkArgs::default(), &[("CARGO_TERM_PROGRESS_WIDTH", "90")]);
        assert_eq!(wide.progress_columns, Some(90));
    }

    #[test]
    fn malformed_variables_are_named() {
        for (name, value) in [
            ("CARGO_TERM_COLOR", "blue"),
            ("CARGO_TERM_VERBOSE", "loud"),
            ("CARGO_TERM_PROGRESS_WHEN", "sometimes"),
            ("CARGO_TERM_PROGRESS_WIDTH", "wide"),
            ("CARGO_LAMBDA_IMAGE_COLOR", "blue"),
            ("CARGO_LAMBDA_IMAGE_QUIET", "yes please"),
        ] {
            let problem =
                talk_request(Some(&TalkArgs::default()), &environment(&[(name, value)])).expect_err("it is malformed");
            assert_eq!(problem.message(), format!("`{value}` is no value of {name}"));
        }
    }
}
