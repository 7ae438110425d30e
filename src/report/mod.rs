//! Prints what happens: the only room that writes to the terminal.
//!
//! stdout carries data only, stderr is talk for people. It knows facts ([`Event`]), not the engines that tell them,
//! and it never reads configuration: whoever starts the program hands it [`Settings`].

mod actions;
mod compiler;
mod functions;
mod human;
mod json;
mod outputs;
mod progress;
mod sarif;
mod screen;
mod summary;
mod table;
mod text;
mod verdict;
mod words;

use std::env;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::{Event, Reporter};
use crate::problem::{Exit, Problem, Result};
use human::Talk;
pub use outputs::Files;
use outputs::Ledger;
use screen::{Columns, Screen};

/// How the user wants to be talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What goes to stdout.
    pub format: Format,
    /// Errors only, and data.
    pub quiet: bool,
    /// Details too.
    pub verbose: bool,
    /// Every request to a registry too; never a secret.
    pub requests: bool,
    /// Whether talk is coloured.
    pub color: When,
    /// Whether bars show progress.
    pub progress: When,
    /// The columns bars may take where no terminal tells (`CARGO_TERM_PROGRESS_WIDTH`).
    pub progress_columns: Option<u16>,
    /// Whether the runner of GitHub Actions reads stderr.
    pub actions: bool,
    /// Where results go besides stdout.
    pub files: Files,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            format: Format::Human,
            quiet: false,
            verbose: false,
            requests: false,
            color: When::Auto,
            progress: When::Auto,
            progress_columns: None,
            actions: false,
            files: Files::default(),
        }
    }
}

/// What goes to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The digest of each image.
    Human,
    /// An object a line, keyed `reason`, and cargo's messages as they are.
    Json,
    /// The report of a check in the form of code scanning.
    Sarif,
}

/// Whether to do something that suits some terminals only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// If it suits this one.
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

/// Prints events and how the program ended. Clones print to the same place.
#[derive(Clone)]
pub struct Report {
    shared: Arc<Shared>,
}

struct Shared {
    format: Format,
    tame: bool,
    data: Mutex<Data>,
    talk: Talk,
    files: Files,
    ledger: Mutex<Ledger>,
}

/// stdout, and why it takes no more.
struct Data {
    stdout: Box<dyn Write + Send>,
    failed: Option<io::Error>,
}

/// [`Settings`] with every question about the terminal answered.
#[derive(Debug, Clone, Copy)]
struct Look {
    format: Format,
    quiet: bool,
    verbose: bool,
    color: bool,
    bars: bool,
    columns: Columns,
    /// Whether nothing of others may be read as a command to a runner.
    tame: bool,
    /// Whether a runner is told what concerns it.
    commands: bool,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Report")
    }
}

impl Report {
    /// A report to this process's stdout and stderr; `Auto` in `settings` is answered by the terminal, `NO_COLOR`,
    /// `CLICOLOR_FORCE`, `CI` and `TERM`.
    #[must_use]
    pub fn stdio(settings: &Settings) -> Self {
        if settings.requests {
            // Our own lines only: those of HTTP libraries may show headers. A second start finds it set, which is well.
            let ours = tracing_subscriber::EnvFilter::new("cargo_lambda_image=debug");
            let tame = settings.actions;
            let log = tracing_subscriber::fmt().with_env_filter(ours).without_time();
            let log = log.with_writer(move || screen::Stderr { tame });
            let _ = log.with_target(false).with_ansi(false).try_init();
        }
        let terminal = io::stderr().is_terminal();
        let color = match settings.color {
            When::Auto => anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never,
            When::Always => true,
            When::Never => false,
        };
        let bars = match settings.progress {
            When::Auto => terminal && env::var_os("CI").is_none() && env::var_os("TERM").is_none_or(|it| it != "dumb"),
            When::Always => true,
            When::Never => false,
        };
        let columns = match (terminal, settings.progress_columns) {
            (true, _) => Columns::OfStderr,
            (false, Some(columns)) => Columns::Fixed(columns),
            (false, None) => Columns::Unlimited,
        };
        let look = Look {
            format: settings.format,
            quiet: settings.quiet,
            verbose: settings.verbose,
            color,
            // Commands are lines of their own, and bars are not.
            bars: bars && !settings.quiet && !settings.actions,
            columns,
            tame: settings.actions,
            // What goes to a file is not read by the runner, and secrets would stay there.
            commands: settings.actions && !screen::stderr_is_a_file(),
        };
        Self::new(look, settings.files.clone(), Box::new(io::stdout()), Box::new(io::stderr()))
    }

    fn new(look: Look, files: Files, stdout: Box<dyn Write + Send>, stderr: Box<dyn Write + Send>) -> Self {
        let screen = Screen::new(stderr, look.columns);
        let data = Mutex::new(Data { stdout, failed: None });
        let Look { format, tame, .. } = look;
        let (talk, ledger) = (Talk::new(&look, screen), Mutex::default());
        Self { shared: Arc::new(Shared { format, tame, data, talk, files, ledger }) }
    }

    /// Finds out whether the files that results go to can be written, before any work is done for them.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check_files(&self) -> Result<()> {
        self.shared.files.check()
    }

    /// Says that a signal was heard and what becomes of the work.
    pub fn stopping(&self, exit: Exit) {
        self.shared.talk.stopping(exit);
    }

    /// Takes the bars off the screen, for an end without [`Report::conclude`].
    pub fn clear(&self) {
        self.shared.talk.clear();
    }

    /// Prints how it ended, and returns the process's exit code.
    ///
    /// A reader of stdout that went away is no failure; a full disk behind stdout is one.
    #[must_use]
    pub fn conclude(&self, outcome: Result<()>) -> ExitCode {
        let outcome = outcome.and_then(|()| match self.data().failed.take() {
            None => Ok(()),
            Some(error) => Err(Problem::failed("could not write to standard output").because(error).help(
                "the work is done, only what it prints is lost: send that where there is room, and run the command again",
            )),
        });
        let outcome = self.hand_on(outcome);
        self.shared.talk.clear();
        self.shared.talk.close();
        let code = match &outcome {
            Ok(()) => 0,
            Err(problem) => {
                match problem.is_told() {
                    true => self.shared.talk.told(problem),
                    false => self.shared.talk.problem(problem),
                }
                if self.shared.format == Format::Json {
                    self.json(&json::error(problem));
                }
                problem.exit().code()
            }
        };
        if self.shared.format == Format::Json {
            self.line(&json::finished(outcome.is_ok()));
        }
        ExitCode::from(code)
    }

    /// Writes the files that others read.
    fn hand_on(&self, outcome: Result<()>) -> Result<()> {
        let Shared { files, ledger, .. } = &*self.shared;
        let ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = outcome.and_then(|()| files.write(&ledger));
        let summarized = files.summarize(&ledger, outcome.as_ref().err());
        // The first failure is the one to tell.
        outcome.and(summarized)
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        // A panic elsewhere must not hide what the others still have to say.
        self.shared.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes text for people that is data, too: a runner reads it no less than stderr.
    fn text(&self, text: &str) {
        if self.shared.tame { self.line(&text::tame(text)) } else { self.line(text) }
    }

    /// Writes a line of JSON.
    fn json(&self, line: &str) {
        if self.shared.tame { self.line(&text::tame_json(line)) } else { self.line(line) }
    }

    /// Writes a line of data, at once and as a whole.
    fn line(&self, line: &str) {
        let mut data = self.data();
        if data.failed.is_some() {
            return;
        }
        let written = data.stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| data.stdout.flush());
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => data.stdout = Box::new(io::sink()),
            Err(error) => data.failed = Some(error),
        }
    }
}

impl Reporter for Report {
    fn event(&self, event: &Event<'_>) {
        self.shared.talk.event(event);
        if self.shared.files.are_any() {
            self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner).note(event);
        }
        match (self.shared.format, event) {
            (Format::Human, Event::ImageBuilt { image }) => self.line(&image.digest.to_string()),
            (_, Event::Document { text }) => self.line(text.trim_end()),
            (Format::Human, Event::ImagePushed { push, .. }) => self.line(&push.image_uri),
            (Format::Human, Event::PushPlanned { bin, plan, dry_run: true, .. }) => {
                self.text(table::planned(bin, plan).trim_end())
            }
            (Format::Human, Event::FunctionPlanned { plan, .. }) => self.text(functions::planned(plan).trim_end()),
            (Format::Human, Event::PolicyTold { policy }) => self.line(policy),
            (Format::Human, Event::Locked { changes, dry_run: true, .. }) => {
                changes.iter().for_each(|change| self.text(&text::one_line(change)));
            }
            (Format::Human, Event::BaseCompared { reference, platform, locked, newest }) if locked != newest => {
                self.text(&format!("{} {platform} {locked} -> {newest}", text::one_line(reference)));
            }
            (Format::Human, Event::Checked { verdicts }) => self.text(verdict::render(verdicts).trim_end()),
            (Format::Sarif, Event::Checked { verdicts }) => self.json(&sarif::render(verdicts)),
            (Format::Human | Format::Sarif, Event::Explained { page }) => self.line(page),
            (Format::Human | Format::Sarif, _) => {}
            (Format::Json, Event::Checked { verdicts }) => json::verdicts(verdicts, |line| self.json(line)),
            (Format::Json, Event::CargoMessage { line }) => self.json(line.trim_end()),
            (Format::Json, event) => {
                if let Some(message) = json::message(event) {
                    self.json(&message);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
