//! Which files a project gives to Git LFS, as its `.gitattributes` say (gitattributes(5)).
//!
//! Only the attribute `filter` is looked at. Git itself is not asked: a checkout in a container may have none.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};

/// The files of attributes above and beside the files asked about, each read once.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    files: HashMap<PathBuf, Arc<Vec<Rule>>>,
    /// The directory of the file asked about last, and what counts in it: the highest precedence first, files without rules
    /// left out. Who asks goes through directory by directory.
    last: Option<(PathBuf, Vec<Scope>)>,
}

/// The rules of one file of attributes.
#[derive(Debug)]
struct Scope {
    /// Where its patterns start from.
    directory: PathBuf,
    rules: Arc<Vec<Rule>>,
}

/// A line that says something of `filter`.
#[derive(Debug)]
struct Rule {
    pattern: GlobMatcher,
    /// Whether the pattern is about names, wherever they are, and not about paths.
    is_name: bool,
    /// Whether it gives the files to LFS, or takes them away.
    gives: bool,
}

impl Attributes {
    /// Whether the file at this absolute path is given to LFS.
    pub(super) fn gives_to_lfs(&mut self, path: &Path) -> bool {
        let bytes = path.as_os_str().as_bytes();
        let Some(slash) = bytes.iter().rposition(|byte| *byte == b'/') else { return false };
        let directory = OsStr::from_bytes(&bytes[..slash.max(1)]);
        match &self.last {
            Some((last, _)) if last.as_os_str() == directory => {}
            _ => self.last = Some((directory.into(), self.scopes(Path::new(directory)))),
        }
        let scopes = self.last.as_ref().map_or(&[][..], |(_, scopes)| scopes);
        scopes.iter().find_map(|scope| scope.decide(path)).unwrap_or(false)
    }

    fn scopes(&mut self, directory: &Path) -> Vec<Scope> {
        let above: Vec<_> = directory.ancestors().collect();
        let root = above.iter().position(|directory| directory.join(".git").exists());
        let within = &above[..root.map_or(above.len(), |root| root + 1)];
        let info = root.map(|root| (above[root], above[root].join(".git/info/attributes")));
        let beside = within.iter().map(|directory| (*directory, directory.join(".gitattributes")));
        let files: Vec<_> = info.into_iter().chain(beside).collect();
        let scope = |(directory, file)| Scope { directory: PathBuf::from(directory), rules: self.rules_of(file) };
        files.into_iter().map(scope).filter(|scope| !scope.rules.is_empty()).collect()
    }

    fn rules_of(&mut self, file: PathBuf) -> Arc<Vec<Rule>> {
        if let Some(known) = self.files.get(&file) {
            return Arc::clone(known);
        }
        // Without the file, or without leave to read it, nothing is said.
        let text = fs::read(&file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let rules = Arc::new(rules(&text));
        self.files.insert(file, Arc::clone(&rules));
        rules
    }
}

impl Scope {
    /// What the rules say of a path; the last one that matches counts.
    fn decide(&self, path: &Path) -> Option<bool> {
        let (below, name) = (path.strip_prefix(&self.directory).ok()?, path.file_name()?);
        let matching = |rule: &&Rule| {
            let subject = if rule.is_name { Path::new(name) } else { below };
            rule.pattern.is_match(subject)
        };
        self.rules.iter().rev().find(matching).map(|rule| rule.gives)
    }
}

/// The rules of a file of attributes.
fn rules(text: &str) -> Vec<Rule> {
    let mut macros: HashMap<String, bool> = HashMap::new();
    let mut rules = Vec::new();
    for line in text.lines().map(str::trim_start).filter(|line| !line.starts_with('#')) {
        let Some((pattern, attributes)) = split(line) else { continue };
        let mut gives = None;
        for attribute in attributes.split_whitespace() {
            gives = match attribute.trim_start_matches(['-', '!']) {
                "filter" => Some(false),
                set if set.starts_with("filter=") => Some(attribute == "filter=lfs"),
                name => macros.get(name).map(|gives| *gives && name == attribute).or(gives),
            };
        }
        let Some(gives) = gives else { continue };
        if let Some(name) = pattern.strip_prefix("[attr]") {
            macros.insert(name.to_owned(), gives);
        } else if let Some(rule) = rule(&pattern, gives) {
            rules.push(rule);
        }
    }
    rules
}

/// A line's pattern, which may be quoted, and the rest.
fn split(line: &str) -> Option<(String, &str)> {
    let Some(quoted) = line.strip_prefix('"') else {
        let (pattern, rest) = line.split_once([' ', '\t'])?;
        return Some((pattern.to_owned(), rest));
    };
    let mut pattern = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((pattern, &quoted[at + 1..])),
            '\\' => pattern.push(characters.next()?.1),
            plain => pattern.push(plain),
        }
    }
    None
}

/// Patterns are those of ignore files, except that none is negative and none is about what lies below a directory.
fn rule(pattern: &str, gives: bool) -> Option<Rule> {
    if pattern.is_empty() || pattern.starts_with('!') || pattern.ends_with('/') {
        return None;
    }
    let is_name = !pattern.contains('/');
    let glob = GlobBuilder::new(pattern.trim_start_matches('/')).literal_separator(true).build().ok()?;
    Some(Rule { pattern: glob.compile_matcher(), is_name, gives })
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
