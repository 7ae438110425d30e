//! An image into a repository, in the order that leaves nothing half-done: every blob confirmed, then the config, then
//! the manifest under its digest, and only then the tags.
//!
//! - [`plan`]: what has to move;
//! - [`supply`]: where bytes come from that the registry lacks;
//! - `blobs`: several at once, each recorded as it is confirmed;
//! - `window`: how many at once.
//!
//! It knows images, layers and registries, but neither where a base comes from nor who asked for all this.

mod blobs;
pub mod plan;
pub mod supply;
mod window;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use self::blobs::Blob;
use crate::event::{Event, PushPlan, PushResult, PushStep, PushedLayer, Session};
use crate::image::Image;
use crate::oci::{Descriptor, Digest};
use crate::problem::{Problem, Result};
use crate::registry::Client;
use crate::registry::feed::Source;
use crate::registry::pull::Selector;
use crate::registry::push::is_blob_missing;
use crate::store::Store;

/// Where an image goes.
#[derive(Debug, Clone)]
pub struct Target {
    /// The way to its registry, with the right to push.
    pub client: Arc<Client>,
    /// The repository within it.
    pub repository: String,
}

impl Target {
    /// `HOST/REPOSITORY`, which digest or tag follow.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{}/{}", self.client.origin().name(), self.repository)
    }
}

/// A layer on its way into a repository.
#[derive(Debug, Clone)]
pub struct LayerToPush {
    /// A name for people.
    pub name: String,
    /// What it is, if that is known before its bytes are made.
    pub known: Option<Descriptor>,
    /// The most bytes it can have compressed, which counts while it is not known.
    pub at_most: u64,
    /// Where its bytes come from.
    pub supply: Supply,
    /// Repositories of the same registry that have it, as far as the caller knows: the base's.
    pub lenders: Vec<String>,
}

/// Where the bytes of a layer come from.
#[derive(Debug, Clone)]
pub enum Supply {
    /// From here.
    Here(Source),
    /// From here, made from files; what it turns out to be may differ from what it was when others made it.
    Made(Source),
    /// From the base's registry, which is not here.
    Base(Source),
    /// From nowhere: the repository must have it, or one that lends it.
    Absent {
        /// Where its files should be, if it is made of files.
        expected: Option<PathBuf>,
    },
}

/// Everything about one push beside its layers.
#[derive(Debug)]
pub struct Request<'a> {
    /// The package the image is of, for people.
    pub package: &'a str,
    /// Names the image to people.
    pub bin: &'a str,
    /// The tags it gets.
    pub tags: &'a [String],
    /// Whether it also gets the tag `{bin}-{first 12 of its digest}`, by which it stays tagged when the others move on.
    pub digest_tag: bool,
}

/// Finds out what `target` has of `layers` and what has to move; writes nothing there.
///
/// # Errors
/// When the registry is not reached or refuses, or has a layer with another size.
pub async fn survey(target: &Target, layers: &[LayerToPush], store: &Store) -> Result<PushPlan> {
    let present = blobs::present(target, layers.iter().filter_map(|layer| layer.known.as_ref())).await?;
    let is_mountable = |layer: &LayerToPush| !blobs::lenders(target, layer, store).is_empty();
    Ok(draw(target, layers, &present, is_mountable))
}

/// What has to move into a repository that does not exist yet.
#[must_use]
pub fn survey_nothing(target: &Target, layers: &[LayerToPush]) -> PushPlan {
    draw(target, layers, &HashSet::new(), |_| false)
}

fn draw(
    target: &Target,
    layers: &[LayerToPush],
    present: &HashSet<Digest>,
    is_mountable: impl Fn(&LayerToPush) -> bool,
) -> PushPlan {
    let known = layers.iter().map(|layer| plan::Known {
        name: layer.name.clone(),
        digest: layer.known.as_ref().map(|known| known.digest),
        size: layer.known.as_ref().map_or(layer.at_most, |known| known.size),
        is_relayed: matches!(layer.supply, Supply::Base(_)),
        is_mountable: is_mountable(layer),
        is_present: layer.known.as_ref().is_some_and(|known| present.contains(&known.digest)),
    });
    plan::plan(&target.shown(), &known.collect::<Vec<_>>())
}

/// Brings an image into `target`: its layers, then what `compose` makes of them, in their order, once all are confirmed.
///
/// # Errors
/// The first failure. Tags are untouched then, and what was confirmed is recorded.
pub async fn publish(
    target: &Target,
    request: &Request<'_>,
    layers: &[LayerToPush],
    compose: impl FnOnce(&[PushedLayer]) -> Result<Image>,
    store: &Store,
    session: &Session,
) -> Result<PushResult> {
    let work = async {
        let plan = survey(target, layers, store).await?;
        session.emit(&Event::PushPlanned { package: request.package, bin: request.bin, plan: &plan, dry_run: false });
        let pushed = blobs::push(target, request, layers, &plan, store, session).await?;
        let image = compose(&pushed)?;
        finish(target, request, &image, layers, pushed, store, session).await
    };
    let outcome = work.await;
    if outcome.is_err() {
        // The failure of one dropped its neighbours in the middle.
        target.client.end_sessions().await;
    }
    outcome
}

/// Config, manifest and tags, once all layers are there.
async fn finish(
    target: &Target,
    request: &Request<'_>,
    image: &Image,
    layers: &[LayerToPush],
    pushed: Vec<PushedLayer>,
    store: &Store,
    session: &Session,
) -> Result<PushResult> {
    let moved = |layer: &&PushedLayer| matches!(layer.step, PushStep::Relay | PushStep::Upload);
    let total = |layers: &[PushedLayer]| layers.iter().map(|layer| layer.size).sum::<u64>();
    let mut sent_bytes = pushed.iter().filter(moved).map(|layer| layer.size).sum();
    let mut reused_bytes = total(&pushed) - sent_bytes;

    let config = Blob {
        name: "config",
        descriptor: Some(&image.config_descriptor),
        at_most: image.config_descriptor.size,
        supply: &Supply::Here(Source::bytes(Bytes::copy_from_slice(&image.config))),
        lenders: Vec::new(),
    };
    let digest = image.digest();
    // A registry that has a manifest has its config.
    if target.client.head_manifest(&target.repository, &Selector::Digest(digest)).await? == Some(digest) {
        reused_bytes += image.config_descriptor.size + image.manifest_descriptor.size;
    } else {
        // As with layers: what no record tells of is sent without asking.
        let is_known = blobs::is_recorded(target, &image.config_descriptor.digest, store);
        if is_known && target.client.has_blob(&target.repository, &image.config_descriptor).await? {
            reused_bytes += image.config_descriptor.size;
        } else {
            blobs::send(target, &config, store, session).await?;
            sent_bytes += image.config_descriptor.size;
        }
        put_manifest(target, image, &config, layers, &pushed, store, session).await?;
        sent_bytes += image.manifest_descriptor.size;
    }

    let tags = put_tags(target, request, image).await?;
    let image_uri = format!("{}@{digest}", target.shown());
    Ok(PushResult { image_uri, digest, tags, layers: pushed, sent_bytes, reused_bytes })
}

/// Puts the manifest under its digest. A registry that does not see a blob yet is asked again after a while; one that
/// lost it, or keeps missing what it says to have, gets it again.
async fn put_manifest(
    target: &Target,
    image: &Image,
    config: &Blob<'_>,
    layers: &[LayerToPush],
    pushed: &[PushedLayer],
    store: &Store,
    session: &Session,
) -> Result<()> {
    let Target { client, repository } = target;
    let selector = Selector::Digest(image.digest());
    let bytes = Bytes::copy_from_slice(&image.manifest);
    let mut attempts = client.attempts(&format!("manifest of {}", target.shown()));
    let mut missed_before = String::new();
    loop {
        let media_type = &image.manifest_descriptor.media_type;
        let error = match client.put_manifest(repository, &selector, media_type, &bytes).await {
            Ok(()) => return Ok(()),
            Err(error) if is_blob_missing(&error) => error,
            Err(error) => return Err(error.into()),
        };
        let missed = error.problem.causes().concat();
        let is_missed_again =
            |digest: &Digest| [&missed, &missed_before].iter().all(|it| it.contains(&digest.to_string()));
        attempts.back_off(error).await?;
        let descriptors: Vec<_> = layers
            .iter()
            .zip(pushed)
            .map(|(layer, pushed)| match &layer.known {
                Some(known) if known.digest == pushed.digest => known.clone(),
                _ => blobs::layer_descriptor(pushed.digest, pushed.size),
            })
            .collect();
        let all = descriptors.iter().chain(config.descriptor);
        let present = blobs::present(target, all).await?;
        let lacks = |digest: &Digest| !present.contains(digest) || is_missed_again(digest);
        if lacks(&image.config_descriptor.digest) {
            blobs::send(target, config, store, session).await?;
        }
        for (layer, descriptor) in layers.iter().zip(&descriptors) {
            if lacks(&descriptor.digest) {
                let blob = Blob::of(layer, Some(descriptor), Vec::new());
                blobs::send(target, &blob, store, session).await?;
            }
        }
        missed_before = missed;
    }
}

/// Points each tag to the image, unless it does already; returns them all.
async fn put_tags(target: &Target, request: &Request<'_>, image: &Image) -> Result<Vec<String>> {
    let digest = image.digest();
    let bytes = Bytes::copy_from_slice(&image.manifest);
    let mut tags = request.tags.to_vec();
    let own = digest_tag(request.bin, &digest);
    if request.digest_tag && !tags.contains(&own) {
        tags.push(own);
    }
    let puts = tags.iter().map(|tag| {
        let bytes = &bytes;
        async move {
            let (client, repository) = (&target.client, &target.repository);
            let selector = Selector::Tag(tag.clone());
            // Asked first, since ECR refuses to write a tag that cannot be moved even if nothing would change.
            if client.head_manifest(repository, &selector).await? == Some(digest) {
                return Ok(());
            }
            let put = client.put_manifest(repository, &selector, &image.manifest_descriptor.media_type, bytes).await;
            put.map_err(|error| {
                let what = format!("the image is in `{}` as {digest}, but not under the tag `{tag}`", target.shown());
                Problem::from(error).context(what)
            })
        }
    });
    window::run(puts, target.client.throttled()).await?;
    Ok(tags)
}

/// The tag that names an image of `bin` by its digest.
#[must_use]
pub fn digest_tag(bin: &str, digest: &Digest) -> String {
    format!("{bin}-{}", digest.short())
}
