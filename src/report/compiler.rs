//! What cargo says of errors, kept to be said again: what was said first is folded away by then.

/// The most that is kept, in bytes: the first errors are those to mend.
const MAX_BYTES: usize = 64 << 10;

/// What cargo said, from the first error on.
#[derive(Debug, Default)]
pub(super) struct Errors {
    text: String,
    is_cut: bool,
}

impl Errors {
    /// Takes note of a line, which may be coloured.
    pub(super) fn note(&mut self, line: &str) {
        let is_first = || {
            let plain = anstream::adapter::strip_str(line).to_string();
            plain.starts_with("error:") || plain.starts_with("error[")
        };
        if self.is_cut || (self.text.is_empty() && !is_first()) {
            return;
        }
        self.is_cut = self.text.len() + line.len() >= MAX_BYTES;
        self.text += if self.is_cut { "(the rest is above)" } else { line };
        self.text.push('\n');
    }

    /// All of it, with an end to its last line.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The first error, without colours and the end of its last line.
    pub(super) fn first(&self) -> String {
        let plain = anstream::adapter::strip_str(&self.text).to_string();
        plain.split("\n\n").next().unwrap_or_default().trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> Errors {
        let mut errors = Errors::default();
        lines.iter().for_each(|line| errors.note(line));
        errors
    }

    #[test]
    fn all_is_kept_from_the_first_error_on() {
        for (lines, text, first) in [
            (&["   Compiling error: v1"][..], "", ""),
            (
                &["warning: x", "", "error[E0425]: a", " --> src/main.rs:1:2", "", "error: b"],
                "error[E0425]: a\n --> src/main.rs:1:2\n\nerror: b\n",
                "error[E0425]: a\n --> src/main.rs:1:2",
            ),
            (&["errors", "\x1b[1m\x1b[91merror\x1b[0m: a"], "\x1b[1m\x1b[91merror\x1b[0m: a\n", "error: a"),
        ] {
            let errors = of(lines);
            assert_eq!((errors.text(), errors.first().as_str()), (text, first));
        }
    }

    #[test]
    fn no_more_is_kept_than_somebody_reads() {
        let long = "x".repeat(30 << 10);
        let errors = of(&["error: a", &long, &long, &long, "short"]);
        assert_eq!(errors.text(), format!("error: a\n{long}\n{long}\n(the rest is above)\n"));
    }
}
