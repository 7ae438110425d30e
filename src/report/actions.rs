//! Commands to the runner of GitHub Actions: lines that begin with `::`, which it takes out of what a step prints.
//!
//! - annotations, which it shows beside the code and above the log;
//! - groups, which it folds: one a phase, closed before anything that must be seen;
//! - masks, which keep secrets out of the log of the step and of all that follow;
//! - and a time without commands, while others write to the same stderr.
//!
//! The room knows what is written and when, but not to where. See GitHub's "Workflow commands for GitHub Actions".

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::text::{one_line, tame};
use crate::event::run::{Hidden, Phase};
use crate::oci::Digest;
use crate::problem::{Problem, Result};

/// What an annotation is headed by that is about no rule.
pub(super) const TITLE: &str = "cargo lambda-image";

/// How bad what an annotation says is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Error,
    Warning,
    Notice,
}

/// What was said to the runner so far.
#[derive(Debug, Default)]
pub(super) struct Actions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    has_group: bool,
    /// The word that the runner waits for before it takes commands again.
    stopped: Option<String>,
    /// Of secrets that are masked.
    masked: HashSet<Digest>,
}

impl Actions {
    /// An annotation. Its text is all that the log shows of it.
    pub(super) fn annotation(&self, level: Level, title: &str, text: &str) -> String {
        let command = match level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Notice => "notice",
        };
        let (title, text) = (property(&tame(&one_line(title))), data(&tame(text)));
        format!("{}::{command} title={title}::{text}\n", self.state().resumed())
    }

    /// The begin of a phase, and the end of the one before. While cargo runs, which says what others wrote, no line is
    /// a command.
    pub(super) fn begin(&self, phase: &Phase<'_>, quiet: bool) -> String {
        let mut state = self.state();
        let mut text = state.ended();
        if !quiet {
            state.has_group = true;
            text += &format!("::group::{}\n", data(&tame(&one_line(&title(phase)))));
        }
        // Without random numbers there is no word that nobody else knows, and a log is worth more than its tidiness.
        if let (Phase::Compile, Ok(word)) = (phase, random_word()) {
            text += &format!("::stop-commands::{word}\n");
            state.stopped = Some(word);
        }
        text
    }

    /// The end of what is open.
    pub(super) fn end(&self) -> String {
        self.state().ended()
    }

    /// Keeps a secret out of logs; nothing if that is done already.
    pub(super) fn mask(&self, secret: &Hidden<'_>) -> String {
        let secret = secret.expose();
        let mut state = self.state();
        if secret.trim().is_empty() || !state.masked.insert(Digest::of(secret.as_bytes())) {
            return String::new();
        }
        format!("{}::add-mask::{}\n", state.resumed(), data(secret))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not hide what the others still have to say.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn resumed(&mut self) -> String {
        self.stopped.take().map(|word| format!("::{word}::\n")).unwrap_or_default()
    }

    fn ended(&mut self) -> String {
        let resumed = self.resumed();
        if std::mem::take(&mut self.has_group) { resumed + "::endgroup::\n" } else { resumed }
    }
}

fn title(phase: &Phase<'_>) -> String {
    match phase {
        Phase::Compile => "Compile".to_owned(),
        Phase::Base => "Base image and checks".to_owned(),
        Phase::Layers => "Layers".to_owned(),
        Phase::Push(bin) => format!("Push {bin}"),
        Phase::Functions => "Functions".to_owned(),
    }
}

/// Text behind a command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of one of a command's properties.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// A word that nobody can have foreseen, and that no text holds.
pub(super) fn random_word() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::failed("the system gives no random bytes").because(error.to_string()))?;
    Ok(format!("lambda-image-{}", hex::encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_stays_the_text_of_a_command() {
        let actions = Actions::default();
        for (level, title, text, expected) in [
            (Level::Error, "a", "b", "::error title=a::b\n"),
            (
                Level::Warning,
                "L020: a, b",
                "50% of\r\n::x",
                "::warning title=L020%3A a%2C b::50%25 of%0D%0A\\u{3a}:x\n",
            ),
            (Level::Notice, "a\n::b", "%0A ##[add-mask]x", "::notice title=a\\n%3A%3Ab::%250A ##\\u{5b}add-mask]x\n"),
        ] {
            assert_eq!(actions.annotation(level, title, text), expected);
        }
    }

    #[test]
    fn groups_follow_each_other_and_never_hold_one_another() {
        let actions = Actions::default();
        assert_eq!(actions.end(), "");
        assert_eq!(actions.begin(&Phase::Base, false), "::group::Base image and checks\n");
        assert_eq!(actions.begin(&Phase::Push("a\n::b"), false), "::endgroup::\n::group::Push a\\n::b\n");
        assert_eq!(actions.end(), "::endgroup::\n");
        assert_eq!(actions.end(), "");
        assert_eq!(actions.begin(&Phase::Layers, true), "");
    }

    #[test]
    fn nobody_gives_commands_while_cargo_runs() {
        let actions = Actions::default();
        let begin = actions.begin(&Phase::Compile, false);
        let word = begin.strip_prefix("::group::Compile\n::stop-commands::").expect("a stop").trim_end().to_owned();
        assert_eq!(word.len(), "lambda-image-".len() + 32);
        let secret = Hidden::new("a%\nb");
        assert_eq!(actions.mask(&secret), format!("::{word}::\n::add-mask::a%25%0Ab\n"));
        assert_eq!(actions.mask(&secret), "", "once is enough");
        assert_eq!(actions.mask(&Hidden::new(" ")), "", "a log of nothing but stars");
        assert_eq!(actions.end(), "::endgroup::\n");
        let quiet = actions.begin(&Phase::Compile, true);
        assert!(quiet.starts_with("::stop-commands::") && !quiet.contains(&word), "{quiet}");
        assert!(actions.annotation(Level::Error, "a", "b").starts_with("::lambda-image-"));
        assert_eq!(actions.end(), "");
    }
}
