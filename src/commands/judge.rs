//! The rules before slow work: an image is judged while it is a draft, from what is known of its layers anyway.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::draft::Draft;
use crate::check;
use crate::check::findings::Options;
use crate::check::image::{BaseFacts, Content, ImageFacts, LayerSource};
use crate::config::{Checks, ImageRequest};
use crate::event::{Event, Session};
use crate::finding::{Finding, Severity};
use crate::image;
use crate::layer::facts::LayerFacts;
use crate::layer::gunzip::GzipFacts;
use crate::layer::plan::LayerSpec;
use crate::layer::{Layer, Origin, Pipeline};
use crate::problem::{Problem, Result};
use crate::store::{Kind, Store};

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

/// Judges an image before its layers are made, as far as that is asked for: tells what was found, and refuses it for an
/// error.
///
/// # Errors
/// Of class refused when a finding is an error.
pub(super) fn draft(draft: &Draft, checks: Checks, store: &Store, session: &Session) -> Result<()> {
    let ImageRequest { package, bin, .. } = &draft.request;
    match checks {
        Checks::Later => return Ok(()),
        Checks::Skip => {
            skip(bin, "cargo lambda-image verify", session);
            return Ok(());
        }
        Checks::Refuse => {}
    }
    let of_base = draft.base_layers.iter().map(|layer| base_layer(layer, store));
    let ours = draft.specs.iter().map(|spec| own_layer(spec, store));
    let base = base_of(&draft.request);
    let image = ImageFacts {
        shown: bin.clone(),
        index: None,
        manifest: None,
        config: config_of(draft)?,
        layers: of_base.chain(ours).collect(),
        base: Some(BaseFacts { reference: draft.base.shown.clone(), pinned: base.pinned || draft.base_was_locked }),
    };
    refuse(&image, &options(&draft.request)?, (package, bin), session)
}

/// Says that an image is not checked, and by which command it can be.
pub(super) fn skip(bin: &str, command: &str, session: &Session) {
    let message = format!("image `{bin}` is not checked, as `--no-verify` asks");
    session.warn(&message, Some(&format!("`{command}` checks it")));
}

/// Tells what the rules find in an image that is about to be made or sent, and refuses it for an error.
///
/// # Errors
/// Of class refused when a finding is an error.
pub(super) fn refuse(
    image: &ImageFacts,
    options: &Options,
    (package, bin): (&str, &str),
    session: &Session,
) -> Result<()> {
    let findings = check::verify(image, options);
    for finding in &findings {
        session.emit(&Event::Found { package, bin, finding });
    }
    verdict(&format!("image `{bin}`"), &findings)
}

/// A base is held where it is by its digest, or because it is no registry's.
pub(super) fn base_of(image: &ImageRequest) -> BaseFacts {
    let is_local = ["oci:", "oci-archive:", "docker-archive:"].iter().any(|scheme| image.base.starts_with(scheme));
    let pinned = is_local || image.base == "scratch" || image.base.contains("@sha256:");
    BaseFacts { reference: image.base.clone(), pinned }
}

/// The config the image will have, but for what tells of layers that are not there yet.
fn config_of(draft: &Draft) -> Result<Value> {
    let config = draft.compose(&[], None)?.config;
    let mut config: Value = serde_json::from_slice(&config)
        .map_err(|error| Problem::failed("the config made here is not JSON").because(error))?;
    for key in ["rootfs", "history"] {
        config.as_object_mut().and_then(|config| config.remove(key));
    }
    Ok(config)
}

/// How layers are framed that this program made.
const OURS: GzipFacts = GzipFacts { members: 1, trailing_bytes: 0 };

fn base_layer(layer: &Layer, store: &Store) -> LayerSource {
    let facts = store.records().get::<LayerFacts>(Kind::Facts, &layer.diff_id.to_string());
    let content = match facts {
        Some(facts) => {
            let gzip = facts.gzip.as_ref().map_or(OURS, |(_, gzip)| *gzip);
            Content::Read { diff_id: None, facts: Arc::new(facts), gzip: Some(gzip) }
        }
        None => Content::Unread("the lock tells of the layer what a build needs, and it was not read".to_owned()),
    };
    source("base", content, false)
}

fn own_layer(spec: &LayerSpec, store: &Store) -> LayerSource {
    let facts = match &spec.told {
        // Its files are not here.
        Some(told) => store.records().get::<LayerFacts>(Kind::Facts, &told.diff_id.to_string()),
        // Files that did not change are not looked into again.
        None => Some(Pipeline::recall_facts(spec, store).unwrap_or_else(|| spec.facts().clone())),
    };
    let content = match facts {
        Some(facts) => Content::Read { diff_id: None, facts: Arc::new(facts), gzip: Some(OURS) },
        None => Content::Unread("its files are not here".to_owned()),
    };
    source(&spec.name, content, spec.origin == Origin::Asset)
}

fn source(name: &str, content: Content, secrets_judged: bool) -> LayerSource {
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
        [one] => format!("the checks refuse {what}: {}", one.title),
        _ => format!("the checks refuse {what}: {} errors", errors.len()),
    };
    let codes: BTreeSet<_> = errors.iter().map(|finding| finding.code).collect();
    let first = codes.first().copied().unwrap_or_default();
    let pass: Vec<_> = codes.iter().map(|code| format!("--allow {code}")).collect();
    let pass = format!("`{}` lets {} pass", pass.join(" "), if codes.len() == 1 { "it" } else { "them" });
    Err(Problem::refused(message).help(format!("`cargo lambda-image verify --explain {first}` tells more; {pass}")))
}
