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

use crate::cli::{
    BuildArgs, CheckArgs, CompileArgs, DestinationArgs, FunctionArgs, ImageArgs, ManifestArgs, PushArgs, SelectionArgs,
    TalkArgs, VerifyArgs,
};
use crate::event::Session;
use crate::problem::{IoContext, Problem, Result};

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
    let mut build = asked::<BuildArgs>(environment)?;
    if typed.image.is_some() {
        build = without_making(build);
    }
    build.image.output = None;
    // Whoever asks for a report wants one.
    build.check.no_verify = false;
    Ok(VerifyArgs { build: merge(typed.build.clone(), build), ..typed.clone() })
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
        _ => problem,
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
        _ => Problem::usage(format!("the variables {PREFIX}* contradict each other")).because(error.to_string()),
    }
}

/// The variable of a flag as clap shows it: `--target <TRIPLE>`.
fn variable_named(shown: &str) -> Option<String> {
    let long = shown.split_whitespace().next()?.strip_prefix("--")?;
    command::<PushArgs>().get_arguments().find(|argument| argument.get_long() == Some(long)).and_then(variable_of)
}

fn warn_of_unknown(environment: &Environment, session: &Session) {
    let mut known: Vec<String> = command::<PushArgs>().get_arguments().filter_map(variable_of).collect();
    known.extend(LATER.iter().map(|name| format!("{PREFIX}{name}")));
    for name in environment.variables.keys().filter_map(|name| name.to_str()) {
        if name.starts_with(PREFIX) && !known.iter().any(|known| known == name) {
            let help = suggest(name, known.iter().map(String::as_str)).map(|near| format!("did you mean {near}?"));
            session.warn(&format!("unused environment variable {name}"), help.as_deref());
        }
    }
}

/// `typed` over `asked`. Where flags exclude each other, one that was typed also removes what the environment says of
/// the others. The patterns are exhaustive, so that no flag is forgotten.
fn merge(typed: BuildArgs, asked: BuildArgs) -> BuildArgs {
    let BuildArgs { selection, compile, image, check, manifest, talk } = asked;
    BuildArgs {
        selection: merge_selection(typed.selection, selection),
        compile: merge_compile(typed.compile, compile),
        image: merge_image(typed.image, image),
        check: merge_check(typed.check, check),
        manifest: merge_manifest(typed.manifest, manifest),
        talk: merge_talk(typed.talk, talk),
    }
}

fn merge_selection(typed: SelectionArgs, asked: SelectionArgs) -> SelectionArgs {
    let SelectionArgs { package, workspace, bin, binary_path, no_binary, name } = asked;
    let says_source = typed.no_binary || typed.binary_path.is_some();
    SelectionArgs {
        // `--workspace` outranks `-p` in cargo, so one that was typed must not be outranked by a variable.
        workspace: typed.workspace || (workspace && typed.package.is_empty()),
        package: first(typed.package, package),
        bin: if typed.no_binary { Vec::new() } else { first(typed.bin, bin) },
        binary_path: typed.binary_path.or(if says_source { None } else { binary_path }),
        no_binary: typed.no_binary || (no_binary && !says_source),
        name: typed.name.or(name),
    }
}

fn merge_compile(typed: CompileArgs, asked: CompileArgs) -> CompileArgs {
    let CompileArgs {
        features,
        all_features,
        no_default_features,
        release,
        dev,
        profile,
        arm64,
        x86_64,
        target,
        target_dir,
        cargo_build,
        jobs,
    } = asked;
    let says_profile = typed.release || typed.dev || typed.profile.is_some();
    let says_target = typed.arm64 || typed.x86_64 || typed.target.is_some();
    CompileArgs {
        features: first(typed.features, features),
        all_features: typed.all_features || all_features,
        no_default_features: typed.no_default_features || no_default_features,
        release: typed.release || (release && !says_profile),
        dev: typed.dev || (dev && !says_profile),
        profile: typed.profile.or(if says_profile { None } else { profile }),
        arm64: typed.arm64 || (arm64 && !says_target),
        x86_64: typed.x86_64 || (x86_64 && !says_target),
        target: typed.target.or(if says_target { None } else { target }),
        target_dir: typed.target_dir.or(target_dir),
        cargo_build: typed.cargo_build.or(cargo_build),
        jobs: typed.jobs.or(jobs),
    }
}

fn merge_image(typed: ImageArgs, asked: ImageArgs) -> ImageArgs {
    let ImageArgs {
        base,
        asset,
        no_assets,
        handler,
        mut env,
        entrypoint,
        working_directory,
        compression_level,
        format,
        allow_secrets,
        assets_from_lock,
        output,
        no_cache,
    } = asked;
    // The last of one key counts.
    env.extend(typed.env);
    ImageArgs {
        base: typed.base.or(base),
        asset: first(typed.asset, asset),
        no_assets: typed.no_assets || no_assets,
        handler: typed.handler.or(handler),
        env,
        entrypoint: typed.entrypoint.or(entrypoint),
        working_directory: typed.working_directory.or(working_directory),
        compression_level: typed.compression_level.or(compression_level),
        format: typed.format.or(format),
        allow_secrets: first(typed.allow_secrets, allow_secrets),
        assets_from_lock: typed.assets_from_lock || assets_from_lock,
        output: typed.output.or(output),
        no_cache: typed.no_cache || no_cache,
    }
}

fn merge_check(typed: CheckArgs, asked: CheckArgs) -> CheckArgs {
    let CheckArgs { deny, allow, max_size, no_verify } = asked;
    CheckArgs {
        deny: first(typed.deny, deny),
        allow: first(typed.allow, allow),
        max_size: typed.max_size.or(max_size),
        no_verify: typed.no_verify || no_verify,
    }
}

fn merge_manifest(typed: ManifestArgs, asked: ManifestArgs) -> ManifestArgs {
    let ManifestArgs { manifest_path, locked, offline, frozen, config } = asked;
    ManifestArgs {
        manifest_path: typed.manifest_path.or(manifest_path),
        locked: typed.locked || locked,
        offline: typed.offline || offline,
        frozen: typed.frozen || frozen,
        config: first(typed.config, config),
    }
}

fn merge_talk(typed: TalkArgs, asked: TalkArgs) -> TalkArgs {
    let TalkArgs { verbose, quiet, color, message_format } = asked;
    let says_loudness = typed.quiet || typed.verbose > 0;
    TalkArgs {
        verbose: if says_loudness { typed.verbose } else { verbose },
        quiet: if says_loudness { typed.quiet } else { quiet },
        color: typed.color.or(color),
        message_format: typed.message_format.or(message_format),
    }
}

fn merge_destination(typed: DestinationArgs, asked: DestinationArgs) -> DestinationArgs {
    let DestinationArgs {
        repository,
        create_repository,
        tag,
        no_digest_tag,
        image,
        dry_run,
        insecure,
        region,
        aws_profile,
        endpoint_url,
    } = asked;
    DestinationArgs {
        repository: typed.repository.or(repository),
        create_repository: typed.create_repository || create_repository,
        tag: first(typed.tag, tag),
        no_digest_tag: typed.no_digest_tag || no_digest_tag,
        image: typed.image.or(image),
        dry_run: typed.dry_run || dry_run,
        insecure: typed.insecure || insecure,
        region: typed.region.or(region),
        aws_profile: typed.aws_profile.or(aws_profile),
        endpoint_url: typed.endpoint_url.or(endpoint_url),
    }
}

fn merge_functions(typed: FunctionArgs, asked: FunctionArgs) -> FunctionArgs {
    let FunctionArgs { function, no_function, create_function, role, memory, timeout, publish, alias, wait } = asked;
    let names_some = !typed.function.is_empty() || typed.create_function || typed.publish || typed.alias.is_some();
    let unless_none = |set: bool| set && !typed.no_function;
    FunctionArgs {
        create_function: typed.create_function || unless_none(create_function),
        publish: typed.publish || unless_none(publish),
        alias: typed.alias.or(if typed.no_function { None } else { alias }),
        function: if typed.no_function { Vec::new() } else { first(typed.function, function) },
        no_function: typed.no_function || (no_function && !names_some),
        role: typed.role.or(role),
        memory: typed.memory.or(memory),
        timeout: typed.timeout.or(timeout),
        wait: typed.wait.or(wait),
    }
}

/// Lists replace each other.
fn first<T>(typed: Vec<T>, asked: Vec<T>) -> Vec<T> {
    if typed.is_empty() { asked } else { typed }
}

/// The talk flags, typed over those of the environment.
pub(super) fn talk_over_environment(typed: &TalkArgs, environment: &Environment) -> Result<TalkArgs> {
    Ok(merge_talk(typed.clone(), asked::<TalkArgs>(environment)?))
}
