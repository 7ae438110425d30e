//! What a check has to say of an image: the words between the rules that find and the report that shows.
//!
//! Nothing here decides what is wrong or how it looks.

use serde::Serialize;

use crate::oci::Digest;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Likely to fail, or to fail somewhere else.
    Warning,
    /// Lambda refuses the image, or cannot run it.
    Error,
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing a rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's code, such as `L020`.
    pub code: &'static str,
    /// How bad it is, with what the user denied counted in.
    pub severity: Severity,
    /// What the rule is about, in a few words.
    pub title: &'static str,
    /// The layer it was found in, as people call it.
    pub layer: Option<String>,
    /// The absolute path in the image.
    pub path: Option<String>,
    /// What was found.
    pub message: String,
    /// Why Lambda cares, and who says so.
    pub why: &'static str,
    /// What to do about it.
    pub help: String,
}

/// What is to be said of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The image as the user knows it.
    pub image: String,
    /// The digest of its manifest, if it has one.
    pub digest: Option<Digest>,
    /// What it runs on, such as `linux/amd64`.
    pub platform: String,
    /// How many layers it has.
    pub layers: usize,
    /// Bytes of all layers' tars, as far as they were read.
    pub uncompressed_size: u64,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// How many findings are of this severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}
