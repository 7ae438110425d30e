//! Which files a project gives to Git LFS, as its `.gitattributes` say (gitattributes(5)).
//!
//! Only the attribute `filter` is looked at. Git itself is not asked: a checkout in a container may have none.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::wildmatch::Pattern;

/// The files of attributes above and beside the files asked about, each read once.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    files: HashMap<PathBuf, Arc<Vec<Line>>>,
    /// The directory of the file asked about last, and what counts in it. Who asks goes through directory by directory.
    last: Option<(PathBuf, Said)>,
}

/// What counts in a directory.
#[derive(Debug, Default)]
struct Said {
    /// The highest precedence first; files without lines are left out.
    scopes: Vec<Scope>,
    /// What stands for several attributes.
    macros: HashMap<String, Vec<(String, State)>>,
}

/// The lines of one file of attributes.
#[derive(Debug)]
struct Scope {
    /// Where its patterns start from.
    directory: PathBuf,
    lines: Arc<Vec<Line>>,
}

/// A line: what it is about, and its attributes.
#[derive(Debug)]
struct Line {
    about: About,
    states: Vec<(String, State)>,
}

#[derive(Debug)]
enum About {
    /// Files.
    Pattern(Pattern),
    /// The macro of this name.
    Macro(String),
}

/// What a line makes of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is set, which is what macros are expanded for.
    Set,
    /// Its value is `lfs`.
    Lfs,
    /// It is unset, unspecified, or has another value.
    Other,
}

impl Attributes {
    /// Whether the file at this absolute path is given to LFS.
    pub(super) fn gives_to_lfs(&mut self, path: &Path) -> bool {
        let bytes = path.as_os_str().as_bytes();
        let Some(slash) = bytes.iter().rposition(|byte| *byte == b'/') else { return false };
        let directory = OsStr::from_bytes(&bytes[..slash.max(1)]);
        match &self.last {
            Some((last, _)) if last.as_os_str() == directory => {}
            _ => self.last = Some((directory.into(), self.said_in(Path::new(directory)))),
        }
        self.last.as_ref().is_some_and(|(_, said)| said.gives_to_lfs(path))
    }

    fn said_in(&mut self, directory: &Path) -> Said {
        let above: Vec<_> = directory.ancestors().collect();
        let root = above.iter().position(|directory| directory.join(".git").exists());
        let within = &above[..root.map_or(above.len(), |root| root + 1)];
        let root = root.map(|root| above[root]);
        let info = root.map(|root| (root, root.join(".git/info/attributes")));
        let beside = within.iter().map(|directory| (*directory, directory.join(".gitattributes")));
        let mut said = Said::default();
        for (directory, file) in info.into_iter().chain(beside) {
            let lines = self.lines_of(file);
            // Macros are defined at the top only; without a repository nobody knows where that is.
            if root.is_none_or(|root| root == directory) {
                for line in lines.iter().rev() {
                    if let About::Macro(name) = &line.about {
                        said.macros.entry(name.clone()).or_insert_with(|| line.states.clone());
                    }
                }
            }
            if !lines.is_empty() {
                said.scopes.push(Scope { directory: directory.to_owned(), lines });
            }
        }
        said
    }

    fn lines_of(&mut self, file: PathBuf) -> Arc<Vec<Line>> {
        if let Some(known) = self.files.get(&file) {
            return Arc::clone(known);
        }
        // Without the file, or without leave to read it, nothing is said.
        let text = fs::read(&file).unwrap_or_default();
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text);
        let lines = Arc::new(text.split(|byte| *byte == b'\n').filter_map(line).collect());
        self.files.insert(file, Arc::clone(&lines));
        lines
    }
}

impl Said {
    fn gives_to_lfs(&self, path: &Path) -> bool {
        let mut known = HashMap::new();
        for Scope { directory, lines } in &self.scopes {
            let Ok(below) = path.strip_prefix(directory) else { continue };
            let below = below.as_os_str().as_bytes();
            for Line { about, states } in lines.iter().rev() {
                if let About::Pattern(pattern) = about
                    && states.iter().any(|(name, _)| name == "filter" || self.macros.contains_key(name))
                    && pattern.is_match(below)
                {
                    self.fill(states, &mut known);
                }
                if let Some(state) = known.get("filter") {
                    return *state == State::Lfs;
                }
            }
        }
        false
    }

    /// What is said first of an attribute counts: that is the last on a line, and before what a macro says.
    fn fill<'a>(&'a self, states: &'a [(String, State)], known: &mut HashMap<&'a str, State>) {
        for (name, state) in states.iter().rev() {
            if known.contains_key(name.as_str()) {
                continue;
            }
            known.insert(name, *state);
            if let (State::Set, Some(stands_for)) = (state, self.macros.get(name)) {
                self.fill(stands_for, known);
            }
        }
    }
}

const BLANKS: [u8; 3] = [b' ', b'\t', b'\r'];

/// A line of a file of attributes, if it says anything.
fn line(text: &[u8]) -> Option<Line> {
    let text = &text[text.iter().position(|byte| !BLANKS.contains(byte))?..];
    if text.starts_with(b"#") {
        return None;
    }
    let (pattern, attributes) = unquoted(text).unwrap_or_else(|| {
        let end = text.iter().position(|byte| BLANKS.contains(byte)).unwrap_or(text.len());
        (text[..end].to_owned(), &text[end..])
    });
    let attributes = String::from_utf8_lossy(attributes);
    // One attribute that is none makes the line none.
    let states = attributes.split_whitespace().map(state).collect::<Option<_>>()?;
    let about = match pattern.strip_prefix(b"[attr]") {
        Some(name) => About::Macro(String::from_utf8_lossy(name).into_owned()),
        None => About::Pattern(Pattern::parse(&pattern)?),
    };
    Some(Line { about, states })
}

/// An attribute of a line: `name`, `-name`, `!name` or `name=value`.
fn state(text: &str) -> Option<(String, State)> {
    let plain = text.strip_prefix(['-', '!']);
    let (name, value) = plain
        .unwrap_or(text)
        .split_once('=')
        .map_or((plain.unwrap_or(text), None), |(name, value)| (name, Some(value)));
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.starts_with('-') || !name.bytes().all(is_valid) {
        return None;
    }
    let state = match value {
        _ if plain.is_some() => State::Other,
        None => State::Set,
        Some("lfs") => State::Lfs,
        Some(_) => State::Other,
    };
    Some((name.to_owned(), state))
}

/// A pattern in quotes, with the escapes of C, and what follows it.
fn unquoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut pattern = Vec::new();
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'"' => return Some((pattern, rest)),
            b'\\' => {
                let (byte, after) = escaped(rest)?;
                pattern.push(byte);
                rest = after;
            }
            plain => pattern.push(*plain),
        }
    }
}

/// The byte that an escape stands for, and what follows it.
fn escaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let (byte, rest) = text.split_first()?;
    let byte = match byte {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' | b'"' => *byte,
        b'0'..=b'3' => {
            let digits = text.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)))?;
            let value = digits.iter().fold(0, |value, digit| value * 8 + (digit - b'0'));
            return Some((value, &text[3..]));
        }
        _ => return None,
    };
    Some((byte, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_precedence_are_those_of_git() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().join("repository");
        for folder in [".git/info", "models/tiny", "docs"] {
            fs::create_dir_all(root.join(folder)).expect("made");
        }
        // Above the repository, which git never looks at.
        fs::write(directory.path().join(".gitattributes"), "* filter=lfs\n").expect("written");
        let top = "# comment\n*.bin filter=lfs diff=lfs merge=lfs -text\n[attr]big filter=lfs -text\n\
                   models/**/*.onnx big\n/top.dat\tfilter=lfs\n*.txt text\n\"with space.bin\" !filter\n\
                   data/ filter=lfs\n*.enc filter=crypt\ndocs/*.pdf filter=lfs\n!x.dat filter=lfs\n*.big big\n*.small -big\n";
        fs::write(root.join(".gitattributes"), top).expect("written");
        fs::write(root.join("models/.gitattributes"), "small.bin -filter\n*.gguf filter=lfs").expect("written");
        fs::write(root.join(".git/info/attributes"), "models/secret.bin filter=other\n").expect("written");
        let mut attributes = Attributes::default();
        for (path, expected) in [
            ("a.bin", true),
            ("models/tiny/a.bin", true),
            ("models/small.bin", false),
            ("small.bin", true),
            ("models/tiny/a.onnx", true),
            ("models/a.onnx", true),
            ("a.onnx", false),
            ("top.dat", true),
            ("models/top.dat", false),
            ("a.txt", false),
            ("with space.bin", false),
            ("data/x", false),
            ("a.enc", false),
            ("docs/a.pdf", true),
            ("docs/b/a.pdf", false),
            ("x.dat", false),
            ("models/a.gguf", true),
            ("a.gguf", false),
            ("models/secret.bin", false),
            ("a.big", true),
            ("a.small", false),
            ("other", false),
        ] {
            assert_eq!(attributes.gives_to_lfs(&root.join(path)), expected, "{path}");
        }
    }
}
