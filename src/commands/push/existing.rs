//! An image that is there already, into a repository: its own bytes, its own digest.
//!
//! Only an image without a manifest of its own, or with layers that are not compressed, gets a new manifest: what
//! `docker save` wrote. It is judged as it is going to be pushed, by what was found when its layers were looked
//! through, which they are in any case: nothing is read twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::functions::Functions;
use super::{Pushing, Sent, base_supply, conclude, lenders, send, target, to_push};
use crate::base::{self, Base, BaseRequest, Compression, Holder};
use crate::check::findings::Options;
use crate::check::image::{Content, ImageFacts, LayerSource, ManifestFacts};
use crate::commands::login::Logins;
use crate::commands::{draft, judge, open_store, prune};
use crate::config::{Checks, Destination, ExistingRequest};
use crate::event::run::Phase;
use crate::event::{Event, Session};
use crate::image::{self, Image, MediaTypes};
use crate::layer::facts::LayerFacts;
use crate::layer::gunzip::GzipFacts;
use crate::layer::{Layer, Pipeline};
use crate::oci::{Descriptor, Digest, media_type};
use crate::platform::Architecture;
use crate::problem::{Exit, Problem, Result};
use crate::store::{Kind, Store};

/// Pushes the image.
///
/// # Errors
/// When there is no such image, or it cannot be pushed.
pub(super) async fn push(
    request: &ExistingRequest,
    destination: &Destination,
    dry_run: bool,
    wait: Option<Duration>,
    session: &Session,
) -> Result<()> {
    let logins = Logins::new(destination.aws.clone());
    let store = open_store(&request.store, dry_run, session).await?;
    session.emit(&Event::PhaseStarted { phase: Phase::Base });
    let base = resolve(request, &logins, &store, session).await?;
    let reached = target::reach(destination, dry_run, &logins, session).await?;
    let (destinations, places) = (std::slice::from_ref(destination), std::slice::from_ref(&reached));
    let functions = Functions::prepare(destinations, places, &[Some(base.architecture)], session).await?;
    let pipeline = Arc::new(Pipeline::new(request.threads, request.compression_level));
    let mut layers = base::look(&base, &store, &pipeline, session).await?;
    for (number, layer) in layers.iter_mut().enumerate() {
        // Nothing else tells them apart; findings call them that too.
        layer.name = format!("layer {}", number + 1);
    }
    let image = image(&base, &layers)?;
    if request.checks == Checks::Skip {
        judge::skip(&request.bin, &format!("cargo lambda-image verify {}", request.reference), session);
    } else {
        let facts = facts(&base, &image, &layers, &store)?;
        let options = Options { today: judge::today(), ..request.options.clone() };
        judge::refuse(&facts, &options, (&request.package, &request.bin), session)?;
    }
    let (package, bin) = (request.package.as_str(), request.bin.as_str());
    let pushing =
        Pushing { package, bin, destination, reached: &reached, dry_run, earlier: &[], store: &store, session };
    let to_push: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let supply = base_supply(&base, index, layer, request.offline, &store);
            to_push(layer, supply, lenders(&base, &reached.target), &pushing)
        })
        .collect();
    let (digest, architecture) = (image.digest(), image.architecture);
    session.emit(&Event::PhaseStarted { phase: Phase::Push(bin) });
    match send(&to_push, Some(digest), || Ok(image), &pushing).await? {
        Sent::Planned(planned) => {
            functions.plan(&[Some(digest)], session).await?;
            planned.refused.map_or(Ok(()), Err)
        }
        Sent::Pushed(image, push) => {
            if base.is_packed_here() {
                prune(&store, HashSet::new(), session).await;
            }
            let pushed = conclude(draft::result(package, bin, &image, &layers), architecture, &push, &pushing);
            functions.deploy(vec![pushed], wait, &store, session).await
        }
    }
}

/// Finds the image; which one of an index is x86-64's unless said, or the only one there is.
async fn resolve(request: &ExistingRequest, logins: &Logins, store: &Arc<Store>, session: &Session) -> Result<Base> {
    let wanted = |architecture| BaseRequest {
        reference: request.reference.clone(),
        directory: request.directory.clone(),
        architecture,
        pinned: None,
        offline: request.offline,
        no_cache: request.no_cache,
        holder: Holder::Image,
    };
    let login = |registry: &str| logins.of(registry);
    let first = wanted(request.architecture.unwrap_or(Architecture::Amd64));
    match base::resolve(&first, &login, store, session).await {
        Err(problem) if request.architecture.is_none() && problem.exit() == Exit::Refused => {
            let other = base::resolve(&wanted(Architecture::Arm64), &login, store, session).await;
            other.map_err(|_| problem)
        }
        resolved => resolved,
    }
}

/// The image as it is; with a new manifest only where it has none that could be pushed.
fn image(base: &Base, layers: &[Layer]) -> Result<Image> {
    let config = base.documents.config.clone();
    let manifest = base.documents.manifest.as_ref().filter(|_| {
        // A layer that was packed is another blob than the one the manifest lists.
        base.layers.iter().all(|layer| layer.compression == Compression::Gzip)
    });
    let Some((content_type, manifest)) = manifest else {
        return image::wrap(config, base.architecture, layers, MediaTypes::Oci);
    };
    let value: serde_json::Value = serde_json::from_slice(manifest)
        .map_err(|error| Problem::failed(format!("the manifest of `{}` is not JSON", base.shown)).because(error))?;
    let media_type = value["mediaType"].as_str().map_or_else(|| said(content_type), str::to_owned);
    let config_type = value["config"]["mediaType"].as_str().unwrap_or(media_type::OCI_CONFIG).to_owned();
    let describe = |media_type: String, bytes: &[u8]| Descriptor {
        media_type,
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    };
    Ok(Image {
        architecture: base.architecture,
        config_descriptor: describe(config_type, &config),
        config,
        manifest_descriptor: describe(media_type, manifest),
        manifest: manifest.clone(),
        layers: base.layers.iter().map(|layer| layer.descriptor.clone()).collect(),
    })
}

/// What the rules judge: the documents as they are going to be pushed, and what the records know of the layers by now.
fn facts(base: &Base, image: &Image, layers: &[Layer], store: &Store) -> Result<ImageFacts> {
    let json = |bytes: &[u8], what: &str| -> Result<serde_json::Value> {
        serde_json::from_slice(bytes)
            .map_err(|error| Problem::failed(format!("the {what} of `{}` is not JSON", base.shown)).because(error))
    };
    let manifest = ManifestFacts {
        digest: image.digest(),
        size_bytes: image.manifest.len() as u64,
        media_type: json(&image.manifest, "manifest")?["mediaType"].as_str().map(str::to_owned),
        served_as: image.manifest_descriptor.media_type.clone(),
        config_media_type: image.config_descriptor.media_type.clone(),
    };
    let layers = layers.iter().zip(&image.layers).enumerate().map(|(number, (layer, descriptor))| LayerSource {
        name: format!("layer {} ({})", number + 1, descriptor.digest.short()),
        descriptor: Some(descriptor.clone()),
        has_urls: false,
        content: content(layer, store),
        secrets_judged: false,
    });
    let (shown, layers) = (base.shown.clone(), layers.collect());
    Ok(ImageFacts {
        shown,
        index: None,
        manifest: Some(manifest),
        config: json(&image.config, "config")?,
        layers,
        base: None,
    })
}

/// What is in a layer that was looked through. One that was packed here is a single member.
fn content(layer: &Layer, store: &Store) -> Content {
    let Some(facts) = store.records().get::<LayerFacts>(Kind::Facts, &layer.diff_id.to_string()) else {
        return Content::Unread("the record of what is in it was lost".to_owned());
    };
    let framed = facts.gzip.as_ref().filter(|(digest, _)| *digest == layer.descriptor.digest);
    let gzip = framed.map_or(GzipFacts { members: 1, trailing_bytes: 0 }, |(_, gzip)| *gzip);
    Content::Read { diff_id: Some(layer.diff_id), facts: Arc::new(facts), gzip: Some(gzip) }
}

/// The media type of a manifest that does not say it itself.
fn said(content_type: &str) -> String {
    match content_type {
        media_type::DOCKER_MANIFEST => content_type.to_owned(),
        _ => media_type::OCI_MANIFEST.to_owned(),
    }
}
