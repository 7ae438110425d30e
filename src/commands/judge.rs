//! The rules before slow work: an image is judged while it is a draft, from what is known of its layers anyway.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::check;
use crate::check::findings::Options;
use crate::check::image::{BaseFacts, Content, ImageFacts, LayerSource};
use crate::config::ImageRequest;
use crate::event::{Event, Session};
use crate::finding::{Finding, Severity};
use crate::image;
use crate::layer::facts::LayerFacts;
use crate::layer::gunzip::GzipFacts;
use crate::layer::plan::LayerSpec;
use crate::layer::{Origin, Pipeline};
use crate::problem::{Problem, Result};
use crate::store::Store;

/// What an image's project wants of the rules, today.
///
/// # Errors
/// When a code is none.
pub(super) fn options(request: &ImageRequest) -> Result<Options> {
    let mut allow_secrets = request.allow_secrets.clone();
    allow_secrets.extend(request.assets.iter().flat_map(|asset| asset.allow_secrets.iter().cloned()));
    Ok(Options {
        max_size: request.max_size,
        allow_secrets,
        today: today(),
        ..Options::of_codes(&request.deny, &request.allow)?
    })
}

/// The date, as rules about dates want it; empty when the clock cannot be right.
pub(super) fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = image::timestamp(since.as_secs()).unwrap_or_default();
    time.split('T').next().unwrap_or_default().to_owned()
}

/// An image whose own layers are not made yet.
pub(super) struct Planned<'a> {
    pub request: &'a ImageRequest,
    /// What it will start, as in a config.
    pub config: serde_json::Value,
    pub base: BaseFacts,
    pub base_layers: Vec<LayerFacts>,
    pub specs: &'a [LayerSpec],
}

/// Judges a planned image: tells what was found, and refuses it for an error.
///
/// # Errors
/// Of class refused when a finding is an error.
pub(super) fn refuse(planned: Planned<'_>, store: &Store, session: &Session) -> Result<()> {
    let Planned { request, config, base, base_layers, specs } = planned;
    let ImageRequest { package, bin, .. } = request;
    let one_member = GzipFacts { members: 1, trailing_bytes: 0 };
    let mut layers = Vec::new();
    for facts in base_layers {
        let gzip = Some(facts.gzip.as_ref().map_or(one_member, |(_, gzip)| *gzip));
        layers.push(source("base", facts, gzip, false));
    }
    for spec in specs {
        // Files that did not change are not looked into again.
        let facts = Pipeline::recall_facts(spec, store).unwrap_or_else(|| spec.facts().clone());
        layers.push(source(&spec.name, facts, Some(one_member), spec.origin == Origin::Asset));
    }
    let image = ImageFacts { shown: bin.clone(), index: None, manifest: None, config, layers, base: Some(base) };
    let findings = check::verify(&image, &options(request)?);
    for finding in &findings {
        session.emit(&Event::Found { package, bin, finding });
    }
    verdict(&format!("image `{bin}`"), &findings)
}

fn source(name: &str, facts: LayerFacts, gzip: Option<GzipFacts>, secrets_judged: bool) -> LayerSource {
    let content = Content::Read { diff_id: None, facts: Arc::new(facts), gzip };
    LayerSource { name: name.to_owned(), descriptor: None, has_urls: false, content, secrets_judged }
}

/// The refusal for the errors among findings, which were told already.
///
/// # Errors
/// Of class refused when there is one.
pub(super) fn verdict<'a>(what: &str, findings: impl IntoIterator<Item = &'a Finding>) -> Result<()> {
    let errors: Vec<_> = findings.into_iter().filter(|finding| finding.severity == Severity::Error).collect();
    let message = match errors[..] {
        [] => return Ok(()),
        [one] => format!("{what} would not run on Lambda: {}", one.title),
        _ => format!("{what} would not run on Lambda: {} errors", errors.len()),
    };
    let codes: Vec<_> = errors.iter().map(|finding| finding.code).collect();
    let code = codes.first().copied().unwrap_or_default();
    Err(Problem::refused(message)
        .help(format!("`cargo lambda-image verify --explain {code}` tells more; `--allow {code}` lets it pass")))
}
