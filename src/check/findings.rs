//! Gathers what the rules find: bounded for each rule and layer, and with what the user allows and denies.

use std::collections::{BTreeMap, BTreeSet};

use super::image::ImageFacts;
use super::rules::{self, Rule};
use crate::finding::{Finding, Severity};
use crate::problem::{Problem, Result};

/// How many findings of one rule in one layer are listed: a hostile layer has a million.
const LISTED: usize = 10;

/// How many characters are repeated of what an image says: a link's target may be a megabyte of anything.
const SHOWN: usize = 200;

/// A name or a value of an image's, as messages repeat it.
pub(super) fn shown(text: &str) -> String {
    let mut shown = text.chars().take(SHOWN).collect::<String>().escape_debug().to_string();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('\u{2026}');
    }
    shown
}

/// What the user wants of the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// Codes whose findings count as errors.
    pub deny: BTreeSet<String>,
    /// Whether every warning counts as an error.
    pub deny_warnings: bool,
    /// Codes whose findings do not count at all.
    pub allow: BTreeSet<String>,
    /// The user's own limit of bytes, uncompressed.
    pub max_size: Option<u64>,
    /// Globs of files that only look like secrets.
    pub allow_secrets: Vec<String>,
    /// The date as `YYYY-MM-DD`; without one nothing is judged by date.
    pub today: String,
}

impl Options {
    /// The options with these codes denied and allowed; `warnings` stands for all warnings.
    ///
    /// # Errors
    /// Of class usage when a code is none.
    pub fn of_codes(deny: &[String], allow: &[String]) -> Result<Self> {
        let mut options = Self::default();
        for code in deny {
            if code == "warnings" {
                options.deny_warnings = true;
            } else {
                options.deny.insert(known(code)?);
            }
        }
        for code in allow {
            options.allow.insert(known(code)?);
        }
        Ok(options)
    }
}

/// The code as the table writes it.
fn known(code: &str) -> Result<String> {
    match rules::find(code) {
        Some(rule) => Ok(rule.code.to_owned()),
        None => Err(Problem::usage(format!("`{}` is no code of a rule", code.escape_debug())).help(rules::other(code))),
    }
}

/// Where something was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    layer: Option<usize>,
    path: Option<String>,
}

impl Place {
    /// The image as a whole.
    pub(super) const IMAGE: Self = Self { layer: None, path: None };

    /// The layer of this number.
    pub(super) fn layer(number: usize) -> Self {
        Self { layer: Some(number), path: None }
    }

    /// A path in the layer of this number.
    pub(super) fn file(layer: usize, path: &str) -> Self {
        Self { layer: Some(layer), path: Some(format!("/{}", path.trim_start_matches('/'))) }
    }

    /// A path in the merged file system.
    pub(super) fn path(path: &str) -> Self {
        Self { layer: None, path: Some(format!("/{}", path.trim_start_matches('/'))) }
    }
}

/// The findings so far.
pub(super) struct Findings<'a> {
    image: &'a ImageFacts,
    pub(super) options: &'a Options,
    found: Vec<Finding>,
    /// How many there were of each rule and layer, and where the last one listed is.
    counts: BTreeMap<(&'static str, Option<usize>), (usize, usize)>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(image: &'a ImageFacts, options: &'a Options) -> Self {
        Self { image, options, found: Vec::new(), counts: BTreeMap::new() }
    }

    /// A finding with the rule's own advice.
    pub(super) fn add(&mut self, rule: &'static Rule, place: Place, message: impl Into<String>) {
        self.add_with_help(rule, place, message, rule.fix);
    }

    /// A finding with advice of its own.
    pub(super) fn add_with_help(
        &mut self,
        rule: &'static Rule,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let severity = if self.options.deny.contains(rule.code) { Severity::Error } else { rule.severity };
        self.push(rule, severity, place, message.into(), help.into());
    }

    /// That a rule could not be asked.
    pub(super) fn not_checked(&mut self, rule: &'static Rule, place: Place, why: &str) {
        let help = "make what is missing readable, and check again";
        self.push(rule, Severity::Note, place, format!("not checked: {why}"), help.to_owned());
    }

    fn push(&mut self, rule: &'static Rule, severity: Severity, place: Place, message: String, help: String) {
        if self.options.allow.contains(rule.code) {
            return;
        }
        let severity =
            if severity == Severity::Warning && self.options.deny_warnings { Severity::Error } else { severity };
        let (count, last) = self.counts.entry((rule.code, place.layer)).or_default();
        *count += 1;
        if *count > LISTED {
            return;
        }
        *last = self.found.len();
        let layer = place.layer.and_then(|number| self.image.layers.get(number)).map(|layer| layer.name.clone());
        self.found.push(Finding {
            code: rule.code,
            severity,
            title: rule.title,
            layer,
            path: place.path,
            message,
            why: rule.why,
            help,
        });
    }

    /// Everything that was found, the worst first, and otherwise by code and in the order of layers.
    pub(super) fn finish(mut self) -> Vec<Finding> {
        for (count, last) in self.counts.into_values().filter(|(count, _)| *count > LISTED) {
            self.found[last].message.push_str(&format!(" (and {} more like it in this layer)", count - LISTED));
        }
        self.found.sort_by(|one, other| other.severity.cmp(&one.severity).then_with(|| one.code.cmp(other.code)));
        self.found
    }
}
