//! Rules about size: Lambda's limit and the project's own.

use super::findings::{Findings, Place};
use super::image::ImageFacts;
use super::limits::{self, LayerSize};
use super::rules;

pub(super) fn check(image: &ImageFacts, findings: &mut Findings<'_>) {
    let total = image.uncompressed_size();
    let budget = findings.options.max_size.unwrap_or(u64::MAX);
    if total <= limits::MAX_UNCOMPRESSED_BYTES && total <= budget {
        return;
    }
    let sizes: Vec<_> =
        image.layers.iter().filter_map(|layer| Some(LayerSize::of(&layer.name, layer.facts()?))).collect();
    let tables = limits::tables(&sizes);
    if total > limits::MAX_UNCOMPRESSED_BYTES {
        let message = format!("{}{tables}", limits::over(total, limits::MAX_UNCOMPRESSED_BYTES));
        findings.add(rules::TOO_LARGE, Place::IMAGE, message);
    }
    if total > budget {
        let message = format!("{}{tables}", limits::over(total, budget));
        findings.add(rules::BUDGET, Place::IMAGE, message);
    }
}
