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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::check::findings::Options;
    use crate::check::image::{Content, LayerSource};
    use crate::layer::facts::{EntryFacts, EntryKind, LayerFacts};

    #[test]
    fn a_byte_over_ten_gib_is_one_too_many() {
        let layer = |name: &str, bytes: u64| {
            let entry = EntryFacts {
                path: format!("var/task/{name}"),
                kind: EntryKind::File,
                mode: 0o644,
                size: bytes,
                link: None,
                written: None,
            };
            let facts = LayerFacts { uncompressed_size: bytes, entries: vec![entry], ..LayerFacts::default() };
            LayerSource {
                name: name.into(),
                descriptor: None,
                has_urls: false,
                content: Content::Read { diff_id: None, facts: Arc::new(facts), gzip: None },
                secrets_judged: true,
            }
        };
        let (limit, options) = (limits::MAX_UNCOMPRESSED_BYTES, Options::default());
        for (bytes, expected) in [(limit - 5, 0), (limit - 4, 1)] {
            let image = ImageFacts {
                shown: "x".into(),
                index: None,
                manifest: None,
                config: json!({}),
                layers: vec![layer("small", 5), layer("large", bytes)],
                base: None,
            };
            let mut findings = Findings::new(&image, &options);
            check(&image, &mut findings);
            let found = findings.finish();
            assert_eq!(found.len(), expected, "{bytes}");
            if let [finding] = &found[..] {
                assert_eq!(finding.code, "L040");
                let layers = "\n\n  layers:\n           5 B  small\n       9.9 GiB  large\n";
                assert!(finding.message.contains(layers), "{finding:?}");
                assert!(finding.message.contains("1 bytes too many"), "{finding:?}");
            }
        }
    }
}
