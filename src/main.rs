//! Parses, picks a reporter, starts the runtime and turns the outcome into an exit code.

use std::process::ExitCode;

use cargo_lambda_image::event::Session;
use cargo_lambda_image::problem::{Exit, IoContext as _, Problem, Result};
use cargo_lambda_image::report::{Format, Report, Settings, When};

fn main() -> ExitCode {
    let settings = Settings {
        format: Format::Human,
        quiet: false,
        verbose: false,
        color: When::Auto,
        progress: When::Auto,
        progress_columns: None,
    };
    let report = Report::stdio(&settings);
    let session = Session::new(Box::new(report.clone()));
    report.conclude(run(&session, &report))
}

/// Runs the command to its end, or to where a signal lets it end.
fn run(session: &Session, report: &Report) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().or_failed(|| "could not start the program's threads".into())?;
    runtime.spawn(stop_on_signals(session.clone(), report.clone()));
    let outcome = runtime.block_on(command(session));
    // What fails because of a signal, such as cargo that heard it too, is the signal's doing.
    let outcome = outcome.map_err(|problem| session.check().err().unwrap_or(problem));
    if outcome.is_err() {
        // Work beside the one that failed goes no further, and cleans up while the runtime waits for it.
        session.stop(Exit::Interrupted);
    }
    outcome
}

async fn command(_session: &Session) -> Result<()> {
    Err(Problem::usage("no command"))
}

/// The first signal asks the work to stop, the second ends the process where it is.
async fn stop_on_signals(session: Session, report: Report) {
    let Ok(exit) = signal().await else { return };
    session.stop(exit);
    report.stopping(exit);
    if let Ok(exit) = signal().await {
        report.clear();
        std::process::exit(i32::from(exit.code()));
    }
}

async fn signal() -> std::io::Result<Exit> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok(Exit::Interrupted),
        _ = terminate.recv() => Ok(Exit::Terminated),
    }
}
