//! Rules about what is started: the programs that ENTRYPOINT and CMD name, followed to their interpreters.
//!
//! What those programs load is `libraries`'s.

use std::collections::HashSet;

use super::binary::{machine_name, missing};
use super::findings::{Findings, Place, shown};
use super::image::ImageFacts;
use super::libraries::{self, Surroundings};
use super::merged::Merged;
use super::rules::{self, Rule};
use crate::layer::elf::ElfFacts;
use crate::layer::facts::{EntryKind, Inside};
use crate::platform::Architecture;

/// AWS's entry point in its base images.
const AWS_ENTRY_POINT: &str = "/lambda-entrypoint.sh";
/// Where AWS's entry point starts a runtime unless `LAMBDA_RUNTIME_DIR` says otherwise.
const RUNTIME_DIRECTORY: &str = "/var/runtime";
/// Where programs are looked for without a PATH (execvp(3), and what Docker sets).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// ELF files up to this size were read as a whole, so that what says nothing is no program.
const READ_WHOLE: u64 = 16 << 20;
/// How many parts of a PATH are looked through; all settings of a function have 16 KB.
const MOST_DIRECTORIES: usize = 1000;
/// How many files of a program's name are looked at when it is not where it should be.
const MOST_NAMESAKES: usize = 100;
/// A script's interpreter may be a script; Linux goes this far (`load_script`).
const MOST_INTERPRETERS: usize = 5;

/// What to do about a link to what is not in the image.
const FOR_A_LINK: &str = "copy what the link means there, as `cp -L` does, or copy that to where it leads as well";
/// How many words advice repeats.
const MOST_WORDS: usize = 20;
/// What to do about a line that no list says, where there is no shell.
const NO_LIST: &str =
    "write it as a list of words, in which none has a meaning for shells, or take a base that has `/bin/sh`";
/// What a shell reads otherwise than as it stands (POSIX, Shell Command Language, 2.2).
const OF_SHELLS: &[char] =
    &['|', '&', ';', '<', '>', '(', ')', '$', '`', '\\', '"', '\'', '*', '?', '[', '#', '~', '%'];

/// What all questions about programs need.
struct Start<'a, 'f> {
    image: &'a ImageFacts,
    merged: &'a Merged<'a>,
    findings: &'f mut Findings<'a>,
    /// Dynamic programs that were found to be started.
    programs: Vec<(String, &'a ElfFacts)>,
    /// Those of them that have no loader and nothing else of their system, which is told already.
    stranded: HashSet<String>,
}

/// Whether the image starts with AWS's own entry point.
pub(super) fn starts_with_aws(image: &ImageFacts) -> bool {
    image.words("Entrypoint").first().is_some_and(|program| program.ends_with(AWS_ENTRY_POINT))
}

pub(super) fn check<'a>(image: &'a ImageFacts, merged: &'a Merged<'a>, findings: &mut Findings<'a>) {
    let (entrypoint, cmd) = (image.words("Entrypoint"), image.words("Cmd"));
    let Some(program) = entrypoint.first().or(cmd.first()).copied() else {
        findings.add(rules::NOTHING, Place::IMAGE, "the image has neither ENTRYPOINT nor CMD");
        return;
    };
    if starts_with_aws(image) && cmd.len() != 1 {
        let message = format!("the entry point wants exactly one argument, the handler, and CMD has {}", cmd.len());
        let list = shell_form(&cmd).and_then(|line| list_form("CMD", line));
        let help = list.unwrap_or_else(|| rules::CMD.fix.to_owned());
        findings.add_with_help(rules::CMD, Place::IMAGE, message, help);
    }
    let mut start = Start { image, merged, findings, programs: Vec::new(), stranded: HashSet::new() };
    let what = if entrypoint.is_empty() { "CMD" } else { "ENTRYPOINT" };
    start.program(program, &format!("{what} starts `{}`", shown(program)), rules::MISSING);
    if starts_with_aws(image) {
        let directory = image.variable("LAMBDA_RUNTIME_DIR").unwrap_or(RUNTIME_DIRECTORY).trim_end_matches('/');
        let bootstrap = format!("{directory}/bootstrap");
        start.program(&bootstrap, &format!("the entry point starts `{bootstrap}`"), rules::BOOTSTRAP);
    }
    let Start { programs, stranded, .. } = start;
    if !merged.is_whole() {
        if !programs.is_empty() {
            findings.not_checked(rules::LIBRARY, Place::IMAGE, "a layer was not read, and libraries may be in it");
        }
        return;
    }
    let started: HashSet<_> = programs.iter().map(|(path, _)| path.clone()).collect();
    let programs: Vec<_> = programs.into_iter().filter(|(path, _)| !stranded.contains(path)).collect();
    let surroundings = Surroundings::of(image, merged);
    libraries::programs(&programs, &surroundings, findings);
    libraries::modules(&started, &surroundings, findings);
}

impl<'a> Start<'a, '_> {
    /// Follows a program to what Linux starts in the end. `why` says who starts it.
    fn program(&mut self, word: &str, why: &str, missing: &'static Rule) {
        let mut word = word.to_owned();
        let mut why = why.to_owned();
        let mut missing = missing;
        let mut is_script = false;
        for _ in 0..MOST_INTERPRETERS {
            if !self.is_settled(&word) {
                let why = "a layer was not read, and the program may be in it";
                self.findings.not_checked(missing, Place::IMAGE, why);
                return;
            }
            let Some(path) = self.find(&word) else {
                let path = word.contains('/').then(|| self.absolute(&word));
                let (what, fix) =
                    path.as_deref().map_or(("PATH leads to none".into(), None), |path| self.instead(path));
                let help = self.advice(&word, is_script).unwrap_or_else(|| fix.unwrap_or(missing.fix).to_owned());
                let place = path.map_or(Place::IMAGE, |path| Place::path(&path));
                self.findings.add_with_help(missing, place, format!("{why}, and {what}"), help);
                return;
            };
            let Some(interpreter) = self.inspect(&path, &why) else { return };
            let mut words = interpreter.split_whitespace();
            word = words.next().unwrap_or_default().to_owned();
            if interpreter.ends_with('\r') {
                let message = format!("{why}, and its first line ends with a carriage return, as on Windows");
                self.findings.add(rules::NOT_A_PROGRAM, self.merged.place(&path), message);
                return;
            }
            why = format!("`/{path}` is a script for `{}`", shown(&interpreter));
            missing = rules::MISSING;
            is_script = true;
            // What `env` starts is found by PATH, unless it has options and variables to set first.
            let started = words.find(|word| !word.starts_with('-') && !word.contains('='));
            if let Some(started) = started.filter(|_| word.ends_with("/env")) {
                if self.find(&word).is_none() {
                    continue;
                }
                word = started.to_owned();
            }
        }
    }

    /// What to do about a program that is not found, where there is more to say than that.
    fn advice(&self, word: &str, is_script: bool) -> Option<String> {
        let (key, words) = match self.image.words("Entrypoint") {
            words if words.is_empty() => ("CMD", self.image.words("Cmd")),
            words => ("ENTRYPOINT", words),
        };
        if let Some(line) = shell_form(&words).filter(|_| !is_script && words.first() == Some(&word)) {
            let list = list_form(key, line).unwrap_or_else(|| NO_LIST.to_owned());
            return Some(format!("there is no shell in the image to read it: {list}"));
        }
        match self.elsewhere(word) {
            Some(path) if is_script => Some(format!("it is at `{path}`: begin the script with `#!{path}`")),
            Some(path) => Some(format!("it is at `{path}`: name it by its whole path")),
            None if is_script => Some(format!(
                "take a base that has `{}`, or start a compiled program: an empty base has neither shell nor interpreter",
                shown(word)
            )),
            None => None,
        }
    }

    /// What is at a path where no file is, and what to do about it if that is special.
    fn instead(&self, path: &str) -> (String, Option<&'static str>) {
        let tree = &self.merged.tree;
        if tree.resolve(path).is_some_and(|path| tree.is_directory(&path)) {
            return ("it is a directory".to_owned(), None);
        }
        match tree.get(path.trim_matches('/')).and_then(|node| node.link.as_deref()) {
            Some(target) => (format!("it is a link to `{}`, which leads nowhere", shown(target)), Some(FOR_A_LINK)),
            None => ("it is not there".to_owned(), None),
        }
    }

    /// A path as it is meant in WORKDIR.
    fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            return path.to_owned();
        }
        let directory = self.image.working_directory().trim_end_matches('/');
        format!("{directory}/{}", path.trim_start_matches("./").trim_end_matches('/'))
    }

    /// Whether it is known what a program is: all was read, or all that could be in its place.
    fn is_settled(&self, word: &str) -> bool {
        self.merged.is_whole() || {
            // Links and the parts of PATH before the right one may be in what was not read.
            let path = self.absolute(word);
            word.contains('/')
                && self.find(word).is_some_and(|found| found == path.trim_start_matches('/'))
                && self.merged.is_settled(&path)
        }
    }

    /// The path, without links, of a program as execvp(3) finds it.
    fn find(&self, word: &str) -> Option<String> {
        let file = |path: &str| self.merged.file(path).map(|(path, _)| path);
        if word.contains('/') {
            return file(&self.absolute(word));
        }
        let path = self.image.variable("PATH").unwrap_or(DEFAULT_PATH);
        // An empty part is the working directory, too.
        let in_part = |part: &str| self.absolute(&format!("{}/{word}", if part.is_empty() { "." } else { part }));
        let there = || path.split(':').take(MOST_DIRECTORIES).filter_map(|part| file(&in_part(part)));
        // What nobody may execute is passed by, as long as there is something else.
        let may_start = |path: &String| self.merged.tree.get(path).is_some_and(|node| node.mode & 0o111 != 0);
        there().find(may_start).or_else(|| there().next())
    }

    /// Judges a program; the line of its interpreter if it is a script.
    fn inspect(&mut self, path: &str, why: &str) -> Option<String> {
        let merged = self.merged;
        let (_, node) = merged.file(path)?;
        if node.mode & 0o001 == 0 {
            let message = format!("{why}, and its mode is {:04o}", node.mode);
            self.findings.add(rules::NOT_EXECUTABLE, merged.place(path), message);
        } else if let Some(closed) = merged.closed_directory(path).filter(|closed| merged.is_settled(closed)) {
            let message = format!("{why}, and others may not enter `/{closed}`");
            self.findings.add(rules::NOT_EXECUTABLE, merged.place(path), message);
        }
        let line = merged.inside_of(path).find_map(|inside| match inside {
            Inside::Script(line) => Some(line.clone()),
            _ => None,
        });
        if line.is_some() {
            return line;
        }
        match merged.elf(path) {
            Some(elf) => self.elf(path, why, elf),
            // Without `x` nobody looked whether it is a script, and into what has holes nobody looks.
            None if node.size <= READ_WHOLE && node.mode & 0o111 != 0 && node.kind == EntryKind::File => {
                let message = format!("{why}, and it is neither a script nor an ELF file that is whole");
                self.findings.add(rules::NOT_A_PROGRAM, merged.place(path), message);
            }
            None => {}
        }
        None
    }

    fn elf(&mut self, path: &str, why: &str, elf: &'a ElfFacts) {
        let image = Architecture::from_oci(self.image.word("architecture"));
        if elf.architecture.is_none() || (image.is_some() && elf.architecture != image) {
            let own = elf.architecture.map_or_else(|| machine_name(elf.machine), |own| own.to_string());
            let message = format!("{why}; it is for {own}, and the image for {}", self.image.platform());
            let help = machine_advice(elf.architecture, image);
            self.findings.add_with_help(rules::ARCHITECTURE, self.merged.place(path), message, help);
            return;
        }
        if elf.missing_bytes > 0 {
            let message = format!("{why}, and it is cut short: {}", missing(elf));
            self.findings.add_with_help(rules::NOT_A_PROGRAM, self.merged.place(path), message, rules::CUT_SHORT);
            return;
        }
        let Some(loader) = &elf.interpreter else { return };
        if self.merged.is_whole() && self.merged.file(loader).is_none() {
            let message = format!("{why}; it asks for `{}`, which is not there", shown(loader));
            let elsewhere = self.elsewhere(loader);
            let help = match &elsewhere {
                Some(path) => format!(
                    "it is at `{path}`: let `{}` be a link that leads there; a later layer may have put a directory in its place",
                    shown(loader.rsplit_once('/').map_or("/", |(directory, _)| directory))
                ),
                None => loader_advice(elf, loader),
            };
            self.findings.add_with_help(rules::LOADER, self.merged.place(path), message, help);
            if elsewhere.is_none() {
                self.stranded.insert(path.to_owned());
            }
        }
        if !self.programs.iter().any(|(other, _)| other == path) {
            self.programs.push((path.to_owned(), elf));
        }
    }

    /// Where else a file of this name is.
    fn elsewhere(&self, word: &str) -> Option<String> {
        let name = word.rsplit('/').next().unwrap_or(word);
        let named = self.merged.tree.nodes().filter(|(path, _)| path.rsplit('/').next() == Some(name));
        named.map(|(path, _)| format!("/{path}")).take(MOST_NAMESAKES).find(|path| self.merged.file(path).is_some())
    }
}

/// The line that a shell is to read, where a Dockerfile's ENTRYPOINT or CMD was written as one.
fn shell_form<'a>(words: &[&'a str]) -> Option<&'a str> {
    match words {
        ["/bin/sh", "-c", line, ..] => Some(line),
        _ => None,
    }
}

/// How to write the same without a shell, where it means the same.
fn list_form(key: &str, line: &str) -> Option<String> {
    let line = line.trim();
    let words: Vec<_> = line.strip_prefix("exec ").unwrap_or(line).split_whitespace().collect();
    if line.contains(OF_SHELLS) || words.first()?.contains('=') || words.len() > MOST_WORDS {
        return None;
    }
    let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    Some(format!("write it as a list, which needs none: `{key} [{}]`", words.join(", ")))
}

/// What to do about a program for `own` in an image for another machine.
fn machine_advice(own: Option<Architecture>, image: Option<Architecture>) -> String {
    let compile = |image: Architecture| {
        let (triple, oci) = (image.gnu_triple(), image.oci());
        format!("compile it for the image: `--target {triple}` in Rust, `GOARCH={oci}` in Go")
    };
    let build = |own: Architecture| {
        format!("build the image for it: `--platform {}` of docker, podman and buildah", own.platform())
    };
    match (image.map(compile), own.map(build)) {
        (Some(compile), Some(build)) => format!("{compile}; or {build}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => rules::ARCHITECTURE.fix.to_owned(),
    }
}

/// What to do about a program whose loader is not there.
fn loader_advice(elf: &ElfFacts, loader: &str) -> String {
    let triple = elf.architecture.map_or("x86_64-unknown-linux-gnu", Architecture::gnu_triple);
    let musl = triple.replace("-gnu", "-musl");
    let base = if loader.rsplit('/').next().is_some_and(|name| name.starts_with("ld-musl")) {
        "musl, such as Alpine's"
    } else {
        "glibc, such as `public.ecr.aws/lambda/provided:al2023`"
    };
    format!("link statically, in Rust with `--target {musl}`, or take a base with {base}")
}
