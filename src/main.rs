//! Parses, picks a reporter, starts the runtime and turns the outcome into an exit code.

use std::process::ExitCode;
use std::time::Duration;

use cargo_lambda_image::cli::{self, Command};
use cargo_lambda_image::commands;
use cargo_lambda_image::config::{self, Color, Environment, OutputsRequest, Progress, Verbosity};
use cargo_lambda_image::event::Session;
use cargo_lambda_image::problem::{Exit, IoContext as _, Problem, Result};
use cargo_lambda_image::report::{Files, Format, Report, Settings, When};
use tokio::signal::unix::{Signal, SignalKind, signal};

fn main() -> ExitCode {
    let environment = match Environment::capture() {
        Ok(environment) => environment,
        Err(problem) => return Report::stdio(&Settings::default()).conclude(Err(problem)),
    };
    match prepare(&environment) {
        Ok((command, settings)) => {
            let report = Report::stdio(&settings);
            let session = Session::new(Box::new(report.clone()));
            let outcome = report.check_files().and_then(|()| run(command, &environment, &session, &report));
            report.conclude(outcome)
        }
        Err(Ending::Told(code)) => code,
        Err(Ending::Failed(problem)) => {
            let settings = Settings { actions: config::in_actions(&environment), ..Settings::default() };
            Report::stdio(&settings).conclude(Err(problem))
        }
    }
}

/// How long work that goes no further may take to clean up. What waits without an end, such as for a credential helper
/// that asks somebody who is not there, is left where it is; what it leaves is removed by the next run.
const CLEANUP: Duration = Duration::from_secs(5);

/// An end before there is a report.
enum Ending {
    /// clap printed help, the version or a usage error.
    Told(ExitCode),
    Failed(Problem),
}

/// What to do, and how to talk about it.
fn prepare(environment: &Environment) -> Result<(Command, Settings), Ending> {
    let cli = cli::parse(std::env::args_os(), config::help_color(environment)).map_err(|error| {
        if config::in_actions(environment)
            && let Some(message) = cli::refusal(&error)
        {
            return Ending::Failed(Problem::usage(message));
        }
        // With stderr gone there is nobody to tell; the exit code still does.
        let _ = error.print();
        Ending::Told(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)))
    })?;
    let talk = config::talk_request(cli.command.talk(), environment).map_err(Ending::Failed)?;
    let OutputsRequest { actions, output, summary, dotenv } =
        config::outputs_request(&cli.command, environment).map_err(Ending::Failed)?;
    if talk.sarif && !matches!(cli.command, Command::Verify(_)) {
        let problem = Problem::usage("`--message-format sarif` is the form of a report, which `verify` makes");
        return Err(Ending::Failed(problem.help("use `json`, or run `cargo lambda-image verify`")));
    }
    let settings = Settings {
        format: match (talk.json, talk.sarif) {
            (true, _) => Format::Json,
            (false, true) => Format::Sarif,
            (false, false) => Format::Human,
        },
        quiet: talk.verbosity == Verbosity::Quiet,
        verbose: talk.verbosity > Verbosity::Normal,
        requests: talk.verbosity > Verbosity::Verbose(1),
        color: match talk.color {
            Color::Auto => When::Auto,
            Color::Always => When::Always,
            Color::Never => When::Never,
        },
        progress: match talk.progress {
            Progress::Auto => When::Auto,
            Progress::Always => When::Always,
            Progress::Never => When::Never,
        },
        progress_columns: talk.progress_columns,
        actions,
        files: Files { output, summary, dotenv },
    };
    Ok((cli.command, settings))
}

/// Runs the command to its end, or to where a signal lets it end.
fn run(command: Command, environment: &Environment, session: &Session, report: &Report) -> Result<()> {
    let threads = || "could not start the program's threads".to_owned();
    let runtime = tokio::runtime::Runtime::new().or_failed(threads)?;
    let signals = tokio::runtime::Builder::new_current_thread().enable_all().build().or_failed(threads)?;
    let (stopped, stopping) = (session.clone(), report.clone());
    // On a thread of its own: the second signal must be heard while the other threads are waited for.
    let listen = move || signals.block_on(stop_on_signals(stopped, stopping));
    std::thread::Builder::new().spawn(listen).or_failed(threads)?;
    let outcome = runtime.block_on(execute(command, environment, session));
    // What fails because of a signal, such as cargo that heard it too, is the signal's doing.
    let outcome = outcome.map_err(|problem| session.check().err().unwrap_or(problem));
    if outcome.is_err() {
        // Work beside the one that failed goes no further, and cleans up while the runtime waits for it.
        session.stop(Exit::Interrupted);
        runtime.shutdown_timeout(CLEANUP);
    }
    outcome
}

async fn execute(command: Command, environment: &Environment, session: &Session) -> Result<()> {
    match command {
        Command::Build(typed) => {
            let request = config::build_request(&typed, environment, session)?;
            commands::build::run(request, session).await
        }
        Command::Push(typed) => {
            let request = config::push_request(&typed, environment, session)?;
            commands::push::run(request, session).await
        }
        Command::Verify(typed) => {
            let request = config::verify_request(&typed, environment, session)?;
            commands::verify::run(request, session).await
        }
        Command::IamPolicy(typed) => {
            let request = config::push_request(&typed, environment, session)?;
            commands::policy::run(request, session).await
        }
        Command::Update(typed) => {
            let request = config::update_request(&typed, environment, session)?;
            commands::update::run(request, session).await
        }
        Command::Outdated(typed) => {
            let request = config::outdated_request(&typed, environment, session)?;
            commands::outdated::run(request, session).await
        }
        Command::Init(typed) => commands::init::run(config::init_request(&typed, environment)?, session).await,
        Command::Completions(typed) => {
            commands::pages::completions(typed.shell, session);
            Ok(())
        }
        Command::Man(typed) => commands::pages::man(&typed, session),
    }
}

/// The first signal asks the work to stop, the second ends the process where it is.
async fn stop_on_signals(session: Session, report: Report) {
    /// How long a terminal may take to be cleared: one that is stopped, or a full pipe, takes for ever.
    const CLEARING: Duration = Duration::from_millis(200);
    // Made once: a signal between two listeners would be heard by neither.
    let Ok(mut signals) = Signals::listen() else { return };
    let exit = signals.next().await;
    session.stop(exit);
    let telling = report.clone();
    // Not here, where whoever holds up stderr would hold up the second signal as well.
    tokio::task::spawn_blocking(move || telling.stopping(exit));
    let exit = signals.next().await;
    let clearing = tokio::task::spawn_blocking(move || report.clear());
    let _ = tokio::time::timeout(CLEARING, clearing).await;
    std::process::exit(i32::from(exit.code()));
}

/// The two signals that ask to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
}
