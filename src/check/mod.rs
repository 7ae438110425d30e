//! Judges facts against what Lambda takes; reads nothing.
//!
//! - [`rules`]: the table of all rules; a file for each group of them looks for what they forbid;
//! - [`image`]: what they look at, filled in by whoever read the image;
//! - [`mod@findings`]: what they found, and what the user allows and denies;
//! - [`binary`] and [`limits`]: what stops a build before anything is packed.

mod base;
pub mod binary;
mod data;
pub mod findings;
pub mod image;
mod libraries;
pub mod limits;
mod manifest;
mod merged;
pub mod rules;
mod run;
mod size;
mod systems;
mod tar;

use self::findings::{Findings, Options};
use self::image::ImageFacts;
use self::merged::Merged;
use crate::finding::{Finding, Verdict};

/// Everything the rules find in an image, the worst first.
#[must_use]
pub fn verify(image: &ImageFacts, options: &Options) -> Vec<Finding> {
    let mut findings = Findings::new(image, options);
    let merged = Merged::new(image);
    manifest::check(image, &mut findings);
    tar::check(image, &merged, &mut findings);
    size::check(image, &mut findings);
    run::check(image, &merged, &mut findings);
    data::check(image, &merged, &mut findings);
    base::check(image, &merged, &mut findings);
    findings.finish()
}

/// What is to be said of an image as a whole.
#[must_use]
pub fn judge(image: &ImageFacts, options: &Options) -> Verdict {
    Verdict {
        image: image.shown.clone(),
        digest: image.digest(),
        platform: image.platform(),
        layers: image.layers.len(),
        uncompressed_size: image.uncompressed_size(),
        findings: verify(image, options),
    }
}
