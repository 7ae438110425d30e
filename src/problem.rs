//! What went wrong, told to a person: what failed and on what, why, the next step, and the exit code it ends with.
//!
//! Every room returns a [`Problem`] unless its callers must branch on the cause. Nothing here prints, and no secret
//! may enter a message: whoever makes a problem of a URL or a header strips it first.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The class of a failure, which decides the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// I/O, network, a refusal by a service, something missing under `--offline`: 1.
    Failed,
    /// Flags, configuration, a missing or conflicting asset, no such package or binary: 2.
    Usage,
    /// A check refused the image: 3.
    Refused,
    /// Cargo's build or metadata failed: 101.
    Cargo,
    /// Stopped by SIGINT: 130.
    Interrupted,
    /// Stopped by SIGTERM: 143.
    Terminated,
}

impl Exit {
    /// The process exit code of this class.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Cargo => 101,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// A failure with its cause and its next step.
///
/// Messages are lower-case fragments without a full stop that name the path, URL or digest they are about.
#[derive(Debug)]
pub struct Problem {
    exit: Exit,
    message: Box<str>,
    help: Option<Box<str>>,
    /// The next step if nobody along the chain knows a better one.
    fallback: Option<&'static str>,
    cause: Option<Box<dyn Error + Send + Sync>>,
    file: Option<Box<Path>>,
    told: bool,
}

impl Problem {
    /// A failure of the given class.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into().into(), help: None, fallback: None, cause: None, file: None, told: false }
    }

    /// A failure of class [`Exit::Failed`].
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// A failure of class [`Exit::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A failure of class [`Exit::Refused`].
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, message)
    }

    /// Adds the next step, printed as a `help:` line.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into().into());
        self
    }

    /// Adds a next step where nothing along the chain of causes has one. A request to stop needs none, and cargo's own
    /// errors are cargo's to explain.
    #[must_use]
    pub fn or_help(self, help: impl Into<String>) -> Self {
        let is_ours = matches!(self.exit, Exit::Failed | Exit::Usage | Exit::Refused);
        let has_one = self.chain().any(|problem| problem.help.is_some());
        if is_ours && !has_one { self.help(help) } else { self }
    }

    /// Adds what caused this.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Says which of the user's own files is to be mended.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into().into());
        self
    }

    /// Marks what the user has read already, such as cargo's own errors: only the exit code is left to tell.
    #[must_use]
    pub fn already_told(mut self) -> Self {
        self.told = true;
        self
    }

    /// Whether nothing needs to be printed.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.told
    }

    /// Wraps this into a problem of the same class that says what was being done.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        let (exit, told) = (self.exit, self.told);
        Self {
            exit,
            message: message.into().into(),
            help: None,
            fallback: None,
            cause: Some(Box::new(self)),
            file: None,
            told,
        }
    }

    /// The class, which decides the exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What failed, without causes.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The messages of the causes, outermost first.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }

    /// The kind of the I/O error that this comes from.
    #[must_use]
    pub fn io_kind(&self) -> Option<ErrorKind> {
        let causes = std::iter::successors(self.source(), |&cause| cause.source());
        causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind).last()
    }

    /// Message and causes in one line, for where the work goes on.
    #[must_use]
    pub fn in_one_line(&self) -> String {
        let causes = self.causes();
        std::iter::once(self.message()).chain(causes.iter().map(String::as_str)).collect::<Vec<_>>().join(": ")
    }

    /// The next step: the outermost one along the chain of causes.
    #[must_use]
    pub fn next_step(&self) -> Option<&str> {
        let helps = self.chain().find_map(|problem| problem.help.as_deref());
        helps.or_else(|| self.chain().find_map(|problem| problem.fallback))
    }

    /// The file to be mended, if it is one of the user's own: the outermost one along the chain of causes.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.chain().find_map(|problem| problem.file.as_deref())
    }

    /// This, and the causes that are problems in their turn.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |problem| problem.cause.as_deref()?.downcast_ref::<Self>())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

/// A result whose failure is a [`Problem`].
pub type Result<T, E = Problem> = std::result::Result<T, E>;

/// Turns an I/O error into a [`Problem`] that names what was tried.
pub trait IoContext<T> {
    /// `message` says what was tried on which path, as in ``could not open `a/b` ``.
    fn or_failed(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn or_failed(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| match error.downcast::<Problem>() {
            Ok(problem) => problem,
            Err(error) => {
                let (is_certain, help) = advice(error.kind());
                let problem = Problem::failed(message()).because(error);
                if is_certain { problem.help(help) } else { Problem { fallback: Some(help), ..problem } }
            }
        })
    }
}

/// What to do about an I/O error, and whether that is so whatever was being done.
fn advice(kind: ErrorKind) -> (bool, &'static str) {
    let certain = match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free some space, or move the target directory with `--target-dir`"
        }
        ErrorKind::PermissionDenied => {
            "check who owns it, and its permissions and those of the directories above: `namei -l PATH`"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "work in a copy that can be written; what is generated goes elsewhere with `--target-dir`"
        }
        other => return (false, guess(other)),
    };
    (true, certain)
}

fn guess(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "check the path, and whether something removes files at the same time",
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            "a file stands where a directory is needed: move it away, or name another place"
        }
        ErrorKind::IsADirectory => "a directory stands where a file is needed: move it away, or name another place",
        ErrorKind::InvalidFilename => "the file system takes no such name: choose a shorter one",
        _ => "try again; if it stays so, the system's log may say more (`dmesg`)",
    }
}

impl From<Problem> for std::io::Error {
    fn from(problem: Problem) -> Self {
        std::io::Error::other(problem)
    }
}

/// All outcomes, or what to tell of those that failed: a single one as it is, several with all that is known of each.
///
/// # Errors
/// When one failed. A request to stop comes before all else.
pub fn together<T>(outcomes: Vec<Result<T>>, what: &str) -> Result<Vec<T>> {
    let total = outcomes.len();
    let mut done = Vec::new();
    let mut failed = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(value) => done.push(value),
            Err(problem) if matches!(problem.exit(), Exit::Interrupted | Exit::Terminated) => return Err(problem),
            Err(problem) => failed.push(problem),
        }
    }
    match failed.len() {
        0 => Ok(done),
        1 => Err(failed.remove(0)),
        several => {
            let told: Vec<_> = failed.iter().map(in_full).collect();
            let problem = Problem::new(failed[0].exit(), format!("{several} of {total} {what} failed"));
            Err(problem.because(told.join("\n")))
        }
    }
}

/// A problem with its causes on one line, and its next step on another.
fn in_full(problem: &Problem) -> String {
    let causes = problem.causes();
    let words: Vec<_> = std::iter::once(problem.message()).chain(causes.iter().map(String::as_str)).collect();
    let help = problem.next_step().map(|help| format!("\n  help: {help}")).unwrap_or_default();
    format!("{}{help}", words.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_help_and_file_along_the_chain_count() {
        let inner = Problem::usage("no such asset `a`").help("create it").in_file("Cargo.toml");
        let outer = inner.context("could not pack layer `a`");
        assert_eq!(outer.exit(), Exit::Usage);
        assert_eq!(outer.next_step(), Some("create it"));
        assert_eq!(outer.file(), Some(Path::new("Cargo.toml")));
        assert_eq!(outer.causes(), ["no such asset `a`"]);
    }

    #[test]
    fn a_next_step_that_is_there_is_kept_and_a_request_to_stop_gets_none() {
        let helped = |problem: Problem| problem.or_help("other").next_step().map(str::to_owned);
        assert_eq!(helped(Problem::failed("a")).as_deref(), Some("other"));
        assert_eq!(helped(Problem::failed("a").help("own").context("b")).as_deref(), Some("own"));
        assert_eq!(helped(Problem::new(Exit::Interrupted, "interrupted")), None);
        let failed = |kind: ErrorKind| Err::<(), _>(kind.into()).or_failed(|| "a".into()).expect_err("an error");
        assert_eq!(failed(ErrorKind::NotFound).next_step().map(|help| &help[..14]), Some("check the path"));
        assert_eq!(helped(failed(ErrorKind::NotFound)).as_deref(), Some("other"), "a guess yields");
        assert_eq!(
            helped(failed(ErrorKind::StorageFull)).map(|help| help[..9].to_owned()).as_deref(),
            Some("free some")
        );
    }

    #[test]
    fn a_problem_survives_a_trip_through_an_io_error() {
        let error: std::io::Error = Problem::refused("no").help("do").into();
        let back = Err::<(), _>(error).or_failed(|| "could not write".into()).expect_err("an error stays one");
        assert_eq!((back.message(), back.exit(), back.next_step()), ("no", Exit::Refused, Some("do")));
    }

    #[test]
    fn failures_are_told_one_by_one_and_none_hides_another() {
        let a = || Err(Problem::refused("a").because("why").help("do x"));
        let b = || Err(Problem::failed("b"));
        assert_eq!(together(vec![Ok(1), Ok(2)], "functions").expect("both"), [1, 2]);
        let one = together(vec![Ok(1), a()], "functions").expect_err("one failed");
        assert_eq!((one.message(), one.exit(), one.next_step()), ("a", Exit::Refused, Some("do x")));
        let both = together(vec![a(), Ok(1), b()], "functions").expect_err("two failed");
        assert_eq!((both.message(), both.exit()), ("2 of 3 functions failed", Exit::Refused));
        assert_eq!(both.causes(), ["a: why\n  help: do x\nb"]);
        let stop = Err(Problem::new(Exit::Interrupted, "interrupted"));
        assert_eq!(together::<u8>(vec![a(), stop], "functions").expect_err("stopped").exit(), Exit::Interrupted);
    }
}
