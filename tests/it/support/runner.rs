//! What a runner of GitHub Actions gives a step, and how it reads what the step leaves: files by its own rules, what is
//! printed by its own search for commands, and Markdown by GitHub's own `cmark-gfm`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::program::Program;
use super::tools::{succeed, tool};

/// The files of a step.
pub struct Runner {
    directory: TempDir,
}

impl Runner {
    pub fn new() -> Self {
        let runner = Self { directory: TempDir::new().expect("a temporary directory") };
        runner.next_step();
        runner
    }

    /// Empties the files, as each step gets its own.
    pub fn next_step(&self) {
        for name in ["output", "summary"] {
            fs::write(self.path(name), "").expect("written");
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A program as a step runs it.
    pub fn step(&self, program: Program) -> Program {
        self.files(program).env("GITHUB_ACTIONS", "true").env("CI", "true")
    }

    /// A program that only knows the files.
    pub fn files(&self, program: Program) -> Program {
        program.env("GITHUB_OUTPUT", self.path("output")).env("GITHUB_STEP_SUMMARY", self.path("summary"))
    }

    /// The step's outputs, which are read as `FileCommandManager` of actions/runner does.
    pub fn outputs(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.path("output")).expect("outputs");
        let mut outputs = BTreeMap::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let (name, end) = line.split_once("<<").unwrap_or_else(|| panic!("`{line}` begins no output"));
            let value: Vec<_> = lines.by_ref().take_while(|line| *line != end).collect();
            assert_eq!(outputs.insert(name.to_owned(), value.join("\n")), None, "`{name}` is told twice");
        }
        outputs
    }

    /// The step's summary, as it is.
    pub fn summary(&self) -> String {
        fs::read_to_string(self.path("summary")).expect("a summary")
    }

    /// The step's summary as GitHub renders it.
    pub fn rendered(&self) -> String {
        let mut reader = Command::new(tool("cmark-gfm"));
        reader.args(["--unsafe", "-e", "table", "-e", "autolink", "-e", "strikethrough", "-e", "tagfilter"]);
        succeed(reader.arg(self.path("summary")))
    }

    /// The rows of all tables of the summary, in HTML.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let (mut rows, mut row) = (Vec::new(), Vec::new());
        for line in self.rendered().lines() {
            if let Some((_, cell)) = line.split_once("<td").and_then(|(_, rest)| rest.split_once('>')) {
                row.push(cell.strip_suffix("</td>").unwrap_or_else(|| panic!("`{line}` has no end")).to_owned());
            } else if line == "</tr>" && !row.is_empty() {
                rows.push(std::mem::take(&mut row));
            }
        }
        rows
    }
}

/// All that a runner takes for a command in what a step printed, a line each. It looks at the begin of a line without
/// blanks for the one form, and everywhere for the other (`ActionCommand` of actions/runner).
pub fn commands(printed: &str) -> Vec<&str> {
    let is_command = |line: &&str| line.trim_start().starts_with("::") || line.contains("##[");
    printed.split(['\n', '\r']).filter(is_command).collect()
}

/// What of a log is not folded away: the lines in no group.
pub fn unfolded(stderr: &str) -> Vec<&str> {
    let (mut lines, mut is_open) = (Vec::new(), false);
    for line in stderr.lines() {
        if line.starts_with("::group::") {
            assert!(!is_open, "groups do not nest: {stderr}");
            is_open = true;
        } else if line == "::endgroup::" {
            assert!(is_open, "an end without a begin: {stderr}");
            is_open = false;
        } else if !is_open {
            lines.push(line);
        }
    }
    assert!(!is_open, "a group stays open: {stderr}");
    lines
}

/// Text as it stands in HTML.
pub fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
