//! The only room that reads the environment: a snapshot of it, and `CARGO_LAMBDA_IMAGE_<FLAG>` as flags.
//!
//! Each variable is parsed by the very parser of its flag, so that both take the same values, and a new flag has its
//! variable without another list.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Args, Command, FromArgMatches};

use crate::cli::{BuildArgs, DestinationArgs, ImageArgs, OutdatedArgs, PushArgs, TalkArgs, UpdateArgs, VerifyArgs};
use crate::event::Session;
use crate::problem::{IoContext, Problem, Result};

use super::merge::{merge, merge_destination, merge_functions, merge_manifest, merge_talk};
use super::suggest;

/// What every variable that stands for a flag begins with.
const PREFIX: &str = "CARGO_LAMBDA_IMAGE_";

/// A variable that stands for no flag.
const LATER: [&str; 1] = ["LOG"];

/// Everything the process was started with besides its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The variables.
    pub variables: BTreeMap<OsString, OsString>,
    /// The working directory, absolute.
    pub directory: PathBuf,
    /// How many threads the machine runs at once.
    pub parallelism: usize,
    /// Whether stderr is a terminal.
    pub stderr_is_terminal: bool,
}

impl Environment {
    /// The environment of this process.
    ///
    /// # Errors
    /// When the working directory is gone.
    pub fn capture() -> Result<Self> {
        Ok(Self {
            variables: std::env::vars_os().collect(),
            directory: std::env::current_dir().or_failed(|| "could not find the working directory".into())?,
            parallelism: std::thread::available_parallelism().map_or(1, Into::into),
            stderr_is_terminal: std::io::stderr().is_terminal(),
        })
    }

    /// A variable, if it is set and not empty: scripts pass on what they were not given as an empty string.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// A variable that is `true` or `false`.
    ///
    /// # Errors
    /// Any other value.
    pub fn truth(&self, name: &str) -> Result<Option<bool>> {
        self.get(name).map(|value| truth(name, value)).transpose()
    }
}

fn truth(name: &str, value: &OsStr) -> Result<bool> {
    match value.to_str() {
        Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        _ => Err(Problem::usage(format!("`{}` is no value of {name}", value.display())).help("use `true` or `false`")),
    }
}

/// What the environment asks of `build`, and then what was typed over it.
pub(super) fn over_environment(typed: &BuildArgs, environment: &Environment, session: &Session) -> Result<BuildArgs> {
    warn_of_unknown(environment, session);
    Ok(merge(typed.clone(), asked::<BuildArgs>(environment)?))
}

/// What the environment asks of `push`, and then what was typed over it.
pub(super) fn push_over_environment(
    typed: &PushArgs,
    environment: &Environment,
    session: &Session,
) -> Result<PushArgs> {
    warn_of_unknown(environment, session);
    let asked = asked::<PushArgs>(environment)?;
    let mut build = asked.build;
    if typed.destination.image.is_some() || asked.destination.image.is_some() {
        build = without_making(build);
    }
    // Where images are written besides is `build`'s to heed.
    build.image.output = None;
    Ok(PushArgs {
        build: merge(typed.build.clone(), build),
        destination: merge_destination(typed.destination.clone(), asked.destination),
        functions: merge_functions(typed.functions.clone(), asked.functions),
    })
}

/// What the environment asks of `verify`, and then what was typed over it.
pub(super) fn verify_over_environment(
    typed: &VerifyArgs,
    environment: &Environment,
    session: &Session,
) -> Result<VerifyArgs> {
    warn_of_unknown(environment, session);
    let VerifyArgs { mut build, image: _, explain } = asked::<VerifyArgs>(environment)?;
    if typed.image.is_some() {
        build = without_making(build);
    }
    build.image.output = None;
    // Whoever asks for a report wants one.
    build.check.no_verify = false;
    // Who names an image wants that one judged.
    let explain = explain.filter(|_| typed.image.is_none());
    Ok(VerifyArgs {
        build: merge(typed.build.clone(), build),
        image: typed.image.clone(),
        explain: typed.explain.clone().or(explain),
    })
}

/// What the environment asks of `update`, and then what was typed over it.
pub(super) fn update_over_environment(
    typed: &UpdateArgs,
    environment: &Environment,
    session: &Session,
) -> Result<UpdateArgs> {
    warn_of_unknown(environment, session);
    let UpdateArgs { build, what: _, dry_run } = asked::<UpdateArgs>(environment)?;
    Ok(UpdateArgs {
        build: merge(typed.build.clone(), build),
        what: typed.what.clone(),
        dry_run: typed.dry_run || dry_run,
    })
}

/// What the environment asks of `outdated`, and then what was typed over it.
pub(super) fn outdated_over_environment(
    typed: &OutdatedArgs,
    environment: &Environment,
    session: &Session,
) -> Result<OutdatedArgs> {
    warn_of_unknown(environment, session);
    let OutdatedArgs { talk, target_dir, manifest } = asked::<OutdatedArgs>(environment)?;
    Ok(OutdatedArgs {
        talk: merge_talk(typed.talk.clone(), talk),
        target_dir: typed.target_dir.clone().or(target_dir),
        manifest: merge_manifest(typed.manifest.clone(), manifest),
    })
}

/// What an image is made of is not asked of one that is there; what it is judged by is.
fn without_making(build: BuildArgs) -> BuildArgs {
    let BuildArgs { talk, manifest, check, image, .. } = build;
    let image = ImageArgs { allow_secrets: image.allow_secrets, ..ImageArgs::default() };
    BuildArgs { talk, manifest, check, image, ..BuildArgs::default() }
}

/// What the environment asks of `push` about where images go.
pub(super) fn destination_of_environment(environment: &Environment) -> Result<DestinationArgs> {
    Ok(asked::<PushArgs>(environment)?.destination)
}

fn command<A: Args>() -> Command {
    A::augment_args(Command::new("command").disable_help_flag(true).no_binary_name(true))
}

fn variable_of(argument: &Arg) -> Option<String> {
    Some(format!("{PREFIX}{}", argument.get_long()?.to_uppercase().replace('-', "_")))
}

/// The variables alone, parsed as flags.
fn asked<A: Args + FromArgMatches>(environment: &Environment) -> Result<A> {
    let mut all = Vec::new();
    for argument in command::<A>().get_arguments() {
        let Some((variable, long)) = variable_of(argument).zip(argument.get_long()) else { continue };
        let Some(value) = environment.get(&variable) else { continue };
        let flags = flags_of(argument.get_action(), long, &variable, value)?;
        if let Err(error) = command::<A>().try_get_matches_from(&flags) {
            return Err(refused(&variable, value, &error));
        }
        all.extend(flags);
    }
    let matches = command::<A>().try_get_matches_from(all).map_err(|error| contradiction(&error))?;
    A::from_arg_matches(&matches).map_err(|error| contradiction(&error))
}

/// A variable as the flags it stands for; `=` keeps values that look like flags what they are.
fn flags_of(action: &ArgAction, long: &str, variable: &str, value: &OsStr) -> Result<Vec<OsString>> {
    let flag = || OsString::from(format!("--{long}"));
    let with = |value: &OsStr| {
        let mut flag = flag();
        flag.push("=");
        flag.push(value);
        flag
    };
    Ok(match action {
        ArgAction::SetTrue => truth(variable, value)?.then(flag).into_iter().collect(),
        ArgAction::Count => {
            let count = match value.to_str().and_then(|value| value.parse::<u8>().ok()) {
                Some(count) => count,
                None => u8::from(truth(variable, value)?),
            };
            vec![flag(); count.into()]
        }
        ArgAction::Append => match value.to_str() {
            Some(text) => {
                text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| with(line.as_ref())).collect()
            }
            None => vec![with(value)],
        },
        _ => vec![with(value)],
    })
}

fn refused(variable: &str, value: &OsStr, error: &clap::Error) -> Problem {
    let problem = Problem::usage(format!("`{}` is no value of {variable}", value.display()));
    let problem = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            problem.help(format!("possible values: {}", valid.join(", ")))
        }
        _ => {
            let flag = variable.trim_start_matches(PREFIX).to_lowercase().replace('_', "-");
            problem.help(format!("give it what the flag `--{flag}` takes, as `--help` tells, or unset it"))
        }
    };
    match std::error::Error::source(error) {
        Some(cause) => problem.because(cause.to_string()),
        None => problem,
    }
}

/// Two variables that contradict each other, told by their names and not by those of their flags.
fn contradiction(error: &clap::Error) -> Problem {
    let name = |kind| match error.get(kind) {
        Some(ContextValue::String(flag)) => variable_named(flag),
        Some(ContextValue::Strings(flags)) => flags.first().and_then(|flag| variable_named(flag)),
        _ => None,
    };
    match (name(ContextKind::InvalidArg), name(ContextKind::PriorArg)) {
        (Some(one), Some(other)) => {
            Problem::usage(format!("{one} cannot be set together with {other}")).help("unset one of them")
        }
        _ => Problem::usage(format!("the variables {PREFIX}* contradict each other"))
            .because(error.to_string())
            .help("unset one of them"),
    }
}

/// The variable of a flag as clap shows it: `--target <TRIPLE>`.
fn variable_named(shown: &str) -> Option<String> {
    let long = shown.split_whitespace().next()?.strip_prefix("--")?;
    command::<PushArgs>().get_arguments().find(|argument| argument.get_long() == Some(long)).and_then(variable_of)
}

fn warn_of_unknown(environment: &Environment, session: &Session) {
    let of_verify = command::<VerifyArgs>();
    // `push` knows all other flags, the few of `update` among them.
    let mut known: Vec<String> =
        command::<PushArgs>().get_arguments().chain(of_verify.get_arguments()).filter_map(variable_of).collect();
    known.extend(LATER.iter().map(|name| format!("{PREFIX}{name}")));
    for name in environment.variables.keys().filter_map(|name| name.to_str()) {
        if name.starts_with(PREFIX) && !known.iter().any(|known| known == name) {
            let help = suggest(name, known.iter().map(String::as_str)).map(|near| format!("did you mean {near}?"));
            session.warn(&format!("unused environment variable {name}"), help.as_deref());
        }
    }
}

/// The talk flags, typed over those of the environment.
pub(super) fn talk_over_environment(typed: &TalkArgs, environment: &Environment) -> Result<TalkArgs> {
    Ok(merge_talk(typed.clone(), asked::<TalkArgs>(environment)?))
}
