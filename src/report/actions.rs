//! Commands to the runner of GitHub Actions: lines that begin with `::`, which it takes out of what a step prints.
//!
//! - annotations, which it shows beside the code and above the log;
//! - groups, which it folds: one a phase, closed before anything that must be seen;
//! - masks, which keep secrets out of the log of the step and of all that follow.
//!
//! The room knows what is written and when, but not to where. See GitHub's "Workflow commands for GitHub Actions".

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::text::{one_line, tame};
use crate::event::run::{Hidden, Phase};
use crate::oci::Digest;

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
    /// Of secrets that are masked.
    masked: HashSet<Digest>,
}

/// An annotation, of a file if one is to blame. Its text is all that the log shows of it.
pub(super) fn annotation(level: Level, title: &str, file: Option<&Path>, text: &str) -> String {
    let command = match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Notice => "notice",
    };
    let title = property(&tame(&one_line(title)));
    // A name that is not UTF-8 is none that the service could show.
    let file = file.and_then(Path::to_str).map(|file| format!(",file={}", property(file))).unwrap_or_default();
    format!("::{command} title={title}{file}::{}\n", data(&tame(text)))
}

impl Actions {
    /// The begin of a phase, and the end of the one before.
    pub(super) fn begin(&self, phase: &Phase<'_>) -> String {
        let mut state = self.state();
        let ended = state.ended();
        state.has_group = true;
        format!("{ended}::group::{}\n", data(&tame(&one_line(&title(phase)))))
    }

    /// The end of what is open.
    pub(super) fn end(&self) -> String {
        self.state().ended().to_owned()
    }

    /// Keeps a secret out of logs; nothing if that is done already.
    pub(super) fn mask(&self, secret: &Hidden<'_>) -> String {
        let secret = secret.expose();
        if secret.trim().is_empty() || !self.state().masked.insert(Digest::of(secret.as_bytes())) {
            return String::new();
        }
        format!("::add-mask::{}\n", data(secret))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not hide what the others still have to say.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ended(&mut self) -> &'static str {
        if std::mem::take(&mut self.has_group) { "::endgroup::\n" } else { "" }
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

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn text_of_others_stays_the_text_of_a_command() {
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
            assert_eq!(annotation(level, title, None, text), expected);
        }
    }

    #[test]
    fn a_file_to_blame_is_named_and_cannot_name_anything_else() {
        for (file, expected) in [
            (&b"/w/Cargo.toml"[..], "::error title=a,file=/w/Cargo.toml::b\n"),
            (b"a,line=1::x\n%", "::error title=a,file=a%2Cline=1%3A%3Ax%0A%25::b\n"),
            (b"a\xff", "::error title=a::b\n"),
        ] {
            assert_eq!(annotation(Level::Error, "a", Some(Path::new(OsStr::from_bytes(file))), "b"), expected);
        }
    }

    #[test]
    fn groups_follow_each_other_and_never_hold_one_another() {
        let actions = Actions::default();
        assert_eq!(actions.end(), "");
        assert_eq!(actions.begin(&Phase::Base), "::group::Base image and checks\n");
        assert_eq!(actions.begin(&Phase::Push("a\n::b")), "::endgroup::\n::group::Push a\\n::b\n");
        assert_eq!(actions.end(), "::endgroup::\n");
        assert_eq!(actions.end(), "");
    }

    #[test]
    fn a_secret_is_masked_once_and_as_it_is() {
        let actions = Actions::default();
        for (secret, expected) in [
            ("a%\nb", "::add-mask::a%25%0Ab\n"),
            ("a%\nb", ""),
            ("::c", "::add-mask::::c\n"),
            // A log of nothing but stars helps nobody.
            (" ", ""),
            ("", ""),
        ] {
            assert_eq!(actions.mask(&Hidden::new(secret)), expected, "{secret:?}");
        }
    }
}
