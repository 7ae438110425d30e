//! Writes a project's first configuration: the table, and a workflow where one is asked for.
//!
//! A file that is there is only ever appended to, byte for byte what it was before, and only if the whole is valid TOML
//! then: formatting and comments are kept because they are not touched. Nothing is overwritten. What the table may hold
//! is `config`'s; here is what to propose.

pub mod cargo_lambda;
pub mod find;

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::atomic;
use crate::event::{Event, Session};
use crate::problem::{IoContext as _, Problem, Result};
use crate::units;
use cargo_lambda::{Function, Known};
use find::Data;

/// The base of compiled functions.
const COMPILED_BASE: &str = "public.ecr.aws/lambda/provided:al2023";

/// The base of a project that `npm` manages.
const NODE_BASE: &str = "public.ecr.aws/lambda/nodejs:22";

/// The workflow that builds and pushes, as it is for a project at the repository's root.
const WORKFLOW: &str = include_str!("workflow.yml");

/// The line of the workflow that differs from project to project.
const PUSH: &str = "run: cargo lambda-image push\n";

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitRequest {
    /// The package's name, or the folder's.
    pub name: String,
    /// The project: what is looked through, and what the assets' paths start from.
    pub directory: PathBuf,
    /// Where everything generated goes; never looked through.
    pub target_directory: PathBuf,
    /// Where the table goes; absent if there is one already.
    pub table: Option<Table>,
    /// The directory whose `.github/workflows` gets a workflow, if one was asked for.
    pub workflow: Option<PathBuf>,
    /// Whether the workspace's own table names a base, which a package's would hide.
    pub has_base: bool,
    /// What cargo-lambda was told.
    pub known: Known,
}

/// Where the table goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Table {
    /// To the end of this `Cargo.toml`.
    Manifest(PathBuf),
    /// Into this file, which is not there yet.
    OwnFile(PathBuf),
}

/// Writes what is asked for.
///
/// # Errors
/// When a workflow is there already, the manifest cannot be extended, or a file cannot be written.
pub fn init(request: &InitRequest, session: &Session) -> Result<()> {
    let workflow = request.workflow.as_ref().map(|root| workflow(root, &request.directory)).transpose()?;
    if let Some(table) = &request.table {
        let found = find::data(&request.directory, &request.target_directory, &request.known);
        let text = text(request, table, &found);
        for data in &found {
            let files = if data.files == 1 { String::new() } else { format!("{} files, ", data.files) };
            let what = format!("{} ({files}{})", data.path.display(), units::size(data.bytes));
            session.emit(&Event::Proposed { what: &what, becomes: "an asset" });
        }
        for (path, _) in &request.known.includes {
            session.emit(&Event::Proposed { what: &format!("{path} (cargo-lambda's include)"), becomes: "an asset" });
        }
        match table {
            Table::Manifest(path) => append(path, &text)?,
            Table::OwnFile(path) => create(path, &text)?,
        }
        let (Table::Manifest(path) | Table::OwnFile(path)) = table;
        session.emit(&Event::Added { what: "the table of cargo lambda-image", path });
    }
    if let Some((path, text)) = workflow {
        create(&path, &text)?;
        session.emit(&Event::Added { what: "a workflow", path: &path });
    }
    Ok(())
}

/// The configuration, with a newline at its end.
fn text(request: &InitRequest, table: &Table, found: &[Data]) -> String {
    let prefix = match table {
        Table::Manifest(_) => "package.metadata.lambda-image",
        Table::OwnFile(_) => "",
    };
    let node = prefix.is_empty() && request.directory.join("package.json").is_file();
    let base = if node { NODE_BASE } else { COMPILED_BASE };
    let name = request.name.to_lowercase();
    let mut text = if prefix.is_empty() { String::new() } else { format!("[{prefix}]\n") };
    if !request.has_base {
        text += &format!("base = {}\n", quoted(base));
    }
    text += &format!("# repository = {}    # in Amazon ECR, for `cargo lambda-image push`\n", quoted(&name));
    text += &format!("# function = {}      # brought to each image that is pushed\n", quoted(&name));
    if node {
        text += "# handler = \"app.handler\"    # file and function\n";
    }
    if request.known.zigbuild {
        text += "cargo-build = \"zigbuild\"\n";
    }
    text += &settings(&request.known.function, &Function::default());
    let node_modules = (node && request.directory.join("node_modules").is_dir()).then_some(("node_modules", None));
    let included = request.known.includes.iter().map(|(path, to)| (path.as_str(), to.as_deref()));
    let found = found.iter().filter_map(|data| Some((data.path.to_str()?, None)));
    let dot = if prefix.is_empty() { "" } else { "." };
    for (path, to) in node_modules.into_iter().chain(included).chain(found) {
        text += &format!("\n[[{prefix}{dot}assets]]\npath = {}\n", quoted(path));
        if let Some(to) = to {
            text += &format!("to = {}\n", quoted(to));
        }
    }
    for (bin, function) in &request.known.bins {
        text += &format!("\n[{prefix}{dot}bin.{}]\n{}", key(bin), settings(function, &request.known.function));
    }
    text
}

/// The settings of a function that are not those of `others`, a line each.
fn settings(function: &Function, others: &Function) -> String {
    let Function { role, memory_mb, timeout_seconds, env } = function;
    let mut text = String::new();
    if let Some(memory_mb) = memory_mb.filter(|_| *memory_mb != others.memory_mb) {
        text += &format!("memory = {memory_mb}\n");
    }
    if let Some(timeout_seconds) = timeout_seconds.filter(|_| *timeout_seconds != others.timeout_seconds) {
        text += &format!("timeout = {timeout_seconds}\n");
    }
    if let Some(role) = role.as_ref().filter(|_| *role != others.role) {
        text += &format!("role = {}\n", quoted(role));
    }
    let env = env.iter().filter(|(name, value)| others.env.get(*name) != Some(value));
    let env: toml::Table = env.map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    if !env.is_empty() {
        text += &format!("env = {}\n", toml::Value::Table(env));
    }
    text
}

/// A key of TOML, in quotes where it must be: a dot would lead into another table.
fn key(text: &str) -> Cow<'_, str> {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if text.chars().all(is_bare) { text.into() } else { quoted(text).into() }
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Puts `text` behind what `path` holds.
fn append(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("could not write `{}`", path.display());
    let old = fs::read_to_string(path).or_failed(|| format!("could not read `{}`", path.display()))?;
    let new = appended(&old, text);
    toml::from_str::<toml::Table>(&new).map_err(|error| {
        let why = error.message().to_owned();
        Problem::usage(format!("could not add a table to `{}`", path.display()))
            .because(why)
            .help(format!("`metadata` is written inline there: make it `[package.metadata]`, or add by hand\n\n{text}"))
    })?;
    let (mut file, path) = atomic::beside(path).or_failed(failed)?;
    file.write_all(new.as_bytes()).or_failed(failed)?;
    if fs::read(&path).or_failed(failed)? != old.as_bytes() {
        return Err(Problem::failed(format!("`{}` changed meanwhile", path.display())).help("try again"));
    }
    atomic::publish_synced(file, &path).or_failed(failed)
}

/// `old` and, an empty line apart, `text`, whose lines end as those of `old` do.
fn appended(old: &str, text: &str) -> String {
    let newline = if old.split('\n').next().is_some_and(|line| line.ends_with('\r')) { "\r\n" } else { "\n" };
    let gap = match old {
        "" => "",
        old if old.ends_with('\n') => newline,
        _ => &newline.repeat(2),
    };
    format!("{old}{gap}{}", text.replace('\n', newline))
}

/// Writes a file that must not be there yet, with the directories above it.
fn create(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("could not write `{}`", path.display());
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).or_failed(failed)?;
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(there_already(path)),
        opened => opened.or_failed(failed)?,
    };
    let written = file.write_all(text.as_bytes()).and_then(|()| File::sync_all(&file));
    if written.is_err() {
        // Half a file would be in the way of the next try.
        let _ = fs::remove_file(path);
    }
    written.or_failed(failed)
}

fn there_already(path: &Path) -> Problem {
    Problem::usage(format!("`{}` is there already", path.display()))
        .help("nothing was changed: edit it, or move it away first")
}

/// The workflow for the project in `directory`, and its path below the repository's root.
fn workflow(root: &Path, directory: &Path) -> Result<(PathBuf, String)> {
    let path = root.join(".github/workflows/lambda-image.yml");
    if fs::symlink_metadata(&path).is_ok() {
        return Err(there_already(&path));
    }
    let text = match directory.strip_prefix(root) {
        Ok(below) if !below.as_os_str().is_empty() => {
            let below = serde_json::to_string(&below.to_string_lossy()).unwrap_or_default();
            WORKFLOW.replace(PUSH, &format!("{PUSH}        working-directory: {below}\n"))
        }
        _ => WORKFLOW.to_owned(),
    };
    Ok((path, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays_as_it_is_to_the_last_byte() {
        for (old, expected) in [
            ("", "[t]\na = 1\n"),
            ("[x] # why\n", "[x] # why\n\n[t]\na = 1\n"),
            ("[x]", "[x]\n\n[t]\na = 1\n"),
            ("[x]\r\nb = 2\r\n", "[x]\r\nb = 2\r\n\r\n[t]\r\na = 1\r\n"),
        ] {
            assert_eq!(appended(old, "[t]\na = 1\n"), expected, "{old:?}");
        }
    }

    #[test]
    fn the_workflow_is_run_where_the_project_is() {
        let root = tempfile::tempdir().expect("a directory");
        let (path, text) = workflow(root.path(), root.path()).expect("none is there");
        assert_eq!((path.strip_prefix(root.path()).expect("below"), text.as_str()), {
            (Path::new(".github/workflows/lambda-image.yml"), WORKFLOW)
        });
        assert_eq!(WORKFLOW.matches(PUSH).count(), 1);
        let (_, text) = workflow(root.path(), &root.path().join("a \"b\"")).expect("none is there");
        assert!(text.contains(&format!("{PUSH}        working-directory: \"a \\\"b\\\"\"\n")), "{text}");
    }
}
