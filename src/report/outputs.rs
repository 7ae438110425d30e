//! What a run came to, gathered while it is told, and written at its end to files that others read: the outputs and the
//! summary of a step of GitHub Actions, and a dotenv file.
//!
//! Files are looked at before any work, since a result that cannot be handed on is worth none.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::{functions, summary, table, text};
use crate::atomic;
use crate::event::run::variable;
use crate::event::{Event, ImageResult, PushResult};
use crate::finding::{Finding, Verdict};
use crate::problem::{Problem, Result};

/// Where results go besides stdout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The file for a step's outputs; it is added to.
    pub output: Option<PathBuf>,
    /// The file for a step's summary; it is added to.
    pub summary: Option<PathBuf>,
    /// A dotenv file; it is written anew.
    pub dotenv: Option<PathBuf>,
}

/// What a run came to so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub images: Vec<Entry>,
    /// The plans of a dry run, as they are on stdout.
    pub plans: Vec<String>,
    pub verdicts: Vec<Verdict>,
    /// What was found in images on the way, with the names of these.
    pub found: Vec<(String, Finding)>,
}

/// An image, and what its push did if it was pushed.
#[derive(Debug)]
pub(super) struct Entry {
    pub image: ImageResult,
    pub push: Option<PushResult>,
}

impl Files {
    pub(super) fn are_any(&self) -> bool {
        self.output.is_some() || self.summary.is_some() || self.dotenv.is_some()
    }

    /// Finds out whether all can be written, as far as that can be known before it is done.
    ///
    /// # Errors
    /// The first that cannot.
    pub(super) fn check(&self) -> Result<()> {
        for (path, variable) in [(&self.output, "GITHUB_OUTPUT"), (&self.summary, "GITHUB_STEP_SUMMARY")] {
            if let Some(path) = path {
                appending(path).map_err(|error| not_appended(path, variable, error))?;
            }
        }
        match &self.dotenv {
            Some(path) => atomic::beside(path).map(drop).map_err(|error| not_replaced(path, error)),
            None => Ok(()),
        }
    }

    /// Writes what a run that succeeded came to.
    ///
    /// # Errors
    /// The first file that cannot be written.
    pub(super) fn write(&self, ledger: &Ledger) -> Result<()> {
        if let Some(path) = self.dotenv.as_ref().filter(|_| !ledger.images.is_empty()) {
            atomic::replace(path, dotenv(ledger).as_bytes()).map_err(|error| not_replaced(path, error))?;
        }
        if let Some(path) = self.output.as_ref().filter(|_| ledger.has_outputs()) {
            let text = output(&ledger.outputs()?)?;
            append(path, &text).map_err(|error| not_appended(path, "GITHUB_OUTPUT", error))?;
        }
        Ok(())
    }

    /// Writes the summary of a run, however it ended.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn summarize(&self, ledger: &Ledger, failure: Option<&Problem>) -> Result<()> {
        let Some(path) = &self.summary else { return Ok(()) };
        let before = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let room = summary::MAX_BYTES.saturating_sub(usize::try_from(before).unwrap_or(usize::MAX));
        let text = summary::render(ledger, failure, room);
        append(path, &text).map_err(|error| not_appended(path, "GITHUB_STEP_SUMMARY", error))
    }
}

impl Ledger {
    pub(super) fn note(&mut self, event: &Event<'_>) {
        match event {
            Event::ImageBuilt { image } => self.images.push(Entry { image: (*image).clone(), push: None }),
            Event::ImagePushed { image, push } => {
                self.images.push(Entry { image: (*image).clone(), push: Some((*push).clone()) });
            }
            Event::ImageDeployed { image } => {
                let same = |entry: &&mut Entry| entry.image.bin == image.bin;
                if let Some(entry) = self.images.iter_mut().find(same) {
                    entry.image = (*image).clone();
                }
            }
            Event::PushPlanned { bin, plan, dry_run: true, .. } => self.plan(&table::planned(bin, plan)),
            Event::FunctionPlanned { plan, .. } => self.plan(&functions::planned(plan)),
            Event::Checked { verdicts } => self.verdicts.extend_from_slice(verdicts),
            Event::Found { bin, finding, .. } => self.found.push(((*bin).to_owned(), (*finding).clone())),
            _ => {}
        }
    }

    fn plan(&mut self, text: &str) {
        self.plans.push(text::tame(text.trim_end()).into_owned());
    }

    fn has_outputs(&self) -> bool {
        !self.images.is_empty() || !self.plans.is_empty()
    }

    /// The outputs of the step. What there is of each image is told only of a single one: of several, the wrong one
    /// would be worse than none.
    fn outputs(&self) -> Result<Vec<(&'static str, String)>> {
        let mut outputs = Vec::new();
        if let [entry] = &self.images[..] {
            outputs.extend(entry.push.iter().map(|push| ("image-uri", push.image_uri.clone())));
            outputs.push(("digest", entry.image.digest.to_string()));
            let versions = entry.versions().join("\n");
            outputs.extend(Some(("function-version", versions)).filter(|(_, versions)| !versions.is_empty()));
        }
        let pushes: Vec<_> = self.images.iter().filter_map(|entry| entry.push.as_ref()).collect();
        if !pushes.is_empty() {
            let sum = |bytes: fn(&PushResult) -> u64| pushes.iter().map(|push| bytes(push)).sum::<u64>().to_string();
            outputs.push(("pushed-bytes", sum(|push| push.sent_bytes)));
            outputs.push(("skipped-bytes", sum(|push| push.reused_bytes)));
        }
        let images: BTreeMap<_, _> = self.images.iter().map(|entry| (&entry.image.bin, &entry.image)).collect();
        let images = serde_json::to_string(&images)
            .map_err(|error| Problem::failed("could not write the images as JSON").because(error))?;
        outputs.push(("images", images));
        if !self.plans.is_empty() {
            outputs.push(("plan", self.plans.join("\n")));
        }
        Ok(outputs)
    }
}

impl Entry {
    /// The versions of functions that this push brought to the image.
    fn versions(&self) -> Vec<&str> {
        let functions = self.image.functions.iter().filter(|_| self.push.is_some());
        functions.filter_map(|function| function.version.as_deref()).collect()
    }
}

/// A word that nobody can have foreseen.
fn random_word() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::failed("the system gives no random bytes").because(error.to_string()))?;
    Ok(format!("lambda-image-{}", hex::encode(bytes)))
}

/// Outputs as the runner reads them: each value between two lines that it cannot hold.
fn output(outputs: &[(&'static str, String)]) -> Result<String> {
    let mut word = random_word()?;
    while outputs.iter().any(|(_, value)| value.contains(&word)) {
        word = random_word()?;
    }
    Ok(outputs.iter().map(|(name, value)| format!("{name}<<{word}\n{value}\n{word}\n")).collect())
}

/// Variables of every image, a line each and unquoted: GitLab's `artifacts:reports:dotenv` takes nothing else.
fn dotenv(ledger: &Ledger) -> String {
    let mut text = String::new();
    for entry in &ledger.images {
        let suffix = if ledger.images.len() > 1 { format!("_{}", variable(&entry.image.bin)) } else { String::new() };
        let mut line = |name: &str, value: &str| text += &format!("{name}{suffix}={}\n", text::one_line(value));
        if let Some(push) = &entry.push {
            line("IMAGE_URI", &push.image_uri);
        }
        line("DIGEST", &entry.image.digest.to_string());
        let versions = entry.versions().join(",");
        if !versions.is_empty() {
            line("FUNCTION_VERSION", &versions);
        }
        if let Some(push) = &entry.push {
            line("PUSHED_BYTES", &push.sent_bytes.to_string());
            line("SKIPPED_BYTES", &push.reused_bytes.to_string());
        }
    }
    text
}

fn appending(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Adds text by one write, on a line of its own whatever was written before.
fn append(path: &Path, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let text = if ends_within_a_line(path) { format!("\n{text}") } else { text.to_owned() };
    appending(path)?.write_all(text.as_bytes())
}

/// Whether a file's last line has no end. One that cannot be read tells nothing.
fn ends_within_a_line(path: &Path) -> bool {
    let last = || -> io::Result<u8> {
        let mut file = fs::File::open(path)?;
        file.seek(SeekFrom::End(-1))?;
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    // What is no file, such as a pipe, has no end to look at, and opening it could take for ever.
    fs::metadata(path).is_ok_and(|found| found.is_file()) && last().is_ok_and(|byte| byte != b'\n')
}

fn not_appended(path: &Path, variable: &str, error: io::Error) -> Problem {
    Problem::failed(format!("could not write to `{}`, which {variable} names", path.display()))
        .because(error)
        .help(format!("leave {variable} as the runner set it, or unset it"))
}

fn not_replaced(path: &Path, error: io::Error) -> Problem {
    Problem::failed(format!("could not write `{}`", path.display()))
        .because(error)
        .help("name a file in a directory that is there and can be written: `--output-env FILE`")
}

#[cfg(test)]
mod tests;
