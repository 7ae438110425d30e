//! An image into a repository, in the order that leaves nothing half-done: every blob confirmed, then the config, then
//! the manifest under its digest, and only then the tags.
//!
//! - [`plan`]: what has to move;
//! - `tags`: what points to the image;
//! - [`supply`]: where bytes come from that the registry lacks;
//! - `blobs`: several at once, each recorded as it is confirmed;
//! - `window`: how many at once.
//!
//! It knows images, layers and registries, but neither where a base comes from nor who asked for all this.

mod blobs;
pub mod plan;
pub mod supply;
mod tags;
mod window;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use self::blobs::Blob;
use crate::event::{Event, PushPlan, PushResult, PushStep, PushedLayer, Session};
use crate::image::Image;
use crate::oci::{Descriptor, Digest};
use crate::problem::Result;
use crate::registry::Client;
use crate::registry::feed::Source;
use crate::registry::pull::Selector;
use crate::registry::push::is_blob_missing;
use crate::store::Store;

pub use self::tags::digest_tag;

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
    /// Where (`HOST/REPOSITORY`) it will be by then, though nobody brought it there yet: for plans that are not carried out.
    pub brought_to: Vec<String>,
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
    /// Those of them that the repository is known not to move once they are there.
    pub immutable: &'a [String],
    /// Whether it also gets the tag `{bin}-{first 12 of its digest}`, by which it stays tagged when the others move on.
    pub digest_tag: bool,
}

/// One image on its way into a repository.
#[derive(Debug, Clone, Copy)]
pub struct Push<'a> {
    /// The repository.
    pub target: &'a Target,
    /// Its names.
    pub request: &'a Request<'a>,
    /// Its layers.
    pub layers: &'a [LayerToPush],
    /// The digest of its manifest, if all layers are known before they are made.
    pub digest: Option<Digest>,
}

/// Finds out what the repository has of the image and what has to move; writes nothing there.
///
/// # Errors
/// When the registry is not reached or refuses, or has a layer with another size.
pub async fn survey(push: &Push<'_>, store: &Store) -> Result<PushPlan> {
    let Push { target, request, layers, digest } = *push;
    let known = layers.iter().filter_map(|layer| layer.known.as_ref());
    let names = tags::names(request, digest.as_ref());
    let (present, current) = tokio::try_join!(blobs::present(target, known), tags::look(target, &names))?;
    let (here, registry) = (target.shown(), format!("{}/", target.client.origin().name()));
    let known = layers.iter().map(|layer| {
        let digest = layer.known.as_ref().map(|known| known.digest);
        let is_lent = !blobs::lenders(target, layer, store).is_empty();
        plan::Known {
            name: layer.name.clone(),
            digest,
            size: layer.known.as_ref().map_or(layer.at_most, |known| known.size),
            is_relayed: matches!(layer.supply, Supply::Base(_)),
            is_mountable: is_lent || layer.brought_to.iter().any(|place| place.starts_with(&registry)),
            is_present: digest.is_some_and(|digest| present.contains(&digest)) || layer.brought_to.contains(&here),
        }
    });
    Ok(plan::plan(&here, &known.collect::<Vec<_>>(), digest, tags::plan(request, digest, current)))
}

/// Refuses what cannot come to its end by this plan, before anything is sent.
///
/// # Errors
/// When a tag is taken that cannot be moved, or a layer is neither here nor there.
pub fn refuse(push: &Push<'_>, plan: &PushPlan) -> Result<()> {
    for (layer, planned) in push.layers.iter().zip(&plan.layers) {
        if let (Supply::Absent { expected }, PushStep::Upload) = (&layer.supply, planned.step) {
            let problem = blobs::absent(push.target, &layer.name, planned.digest, expected.as_deref());
            return Err(problem.context(blobs::not_pushed(&layer.name)));
        }
    }
    push.digest.map_or(Ok(()), |digest| tags::refuse(push.target, &plan.tags, &digest))
}

/// Brings an image into its repository: its layers, then what `compose` makes of them, in their order, once all are
/// confirmed.
///
/// # Errors
/// The first failure. Tags are untouched then, and what was confirmed is recorded.
pub async fn publish(
    push: &Push<'_>,
    compose: impl FnOnce(&[PushedLayer]) -> Result<Image>,
    store: &Store,
    session: &Session,
) -> Result<PushResult> {
    let Push { target, request, layers, .. } = *push;
    let work = async {
        let plan = survey(push, store).await?;
        session.emit(&Event::PushPlanned { package: request.package, bin: request.bin, plan: &plan, dry_run: false });
        refuse(push, &plan)?;
        let pushed = blobs::push(target, request, layers, &plan, store, session).await?;
        let image = compose(&pushed)?;
        // What was made again may have become another image than was foreseen.
        tags::refuse(target, &plan.tags, &image.digest())?;
        finish(push, &image, &plan, pushed, store, session).await
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
    push: &Push<'_>,
    image: &Image,
    plan: &PushPlan,
    pushed: Vec<PushedLayer>,
    store: &Store,
    session: &Session,
) -> Result<PushResult> {
    let Push { target, request, layers, .. } = *push;
    let (mut sent_bytes, mut reused_bytes, mut counted) = (0, 0, HashSet::new());
    // The same bytes twice in an image moved once.
    for layer in pushed.iter().filter(|layer| counted.insert(layer.digest)) {
        match layer.step {
            PushStep::Relay | PushStep::Upload => sent_bytes += layer.size,
            PushStep::Reuse | PushStep::Mount => reused_bytes += layer.size,
        }
    }
    let config = Blob {
        name: "config",
        descriptor: Some(&image.config_descriptor),
        at_most: image.config_descriptor.size,
        supply: &Supply::Here(Source::bytes(Bytes::copy_from_slice(&image.config))),
        lenders: Vec::new(),
    };
    let digest = image.digest();
    // Where a layer was lacking the manifest is, too; what was sent without asking may have been there.
    let was_lacking =
        |(layer, pushed): (&LayerToPush, &PushedLayer)| layer.known.is_some() && pushed.step != PushStep::Reuse;
    let client = &target.client;
    let (has_manifest, has_config) = if layers.iter().zip(&pushed).any(was_lacking) {
        // What no record tells of is sent without asking.
        let is_known = blobs::is_recorded(target, &image.config_descriptor.digest, store);
        (false, is_known && client.has_blob(&target.repository, &image.config_descriptor).await?)
    } else {
        let selector = Selector::Digest(digest);
        let found = client.head_manifest(&target.repository, &selector);
        let (found, has_config) =
            tokio::try_join!(found, client.has_blob(&target.repository, &image.config_descriptor))?;
        (found == Some(digest), has_config)
    };
    if has_config {
        reused_bytes += image.config_descriptor.size;
    } else {
        blobs::send(target, &config, store, session).await?;
        sent_bytes += image.config_descriptor.size;
    }
    if has_manifest {
        reused_bytes += image.manifest_descriptor.size;
    } else {
        put_manifest(target, image, &config, layers, &pushed, store, session).await?;
        sent_bytes += image.manifest_descriptor.size;
    }

    // While bytes were sent, others may have moved what was looked at before.
    let was_all_there = has_manifest && has_config && pushed.iter().all(|layer| layer.step == PushStep::Reuse);
    let looked_at = if was_all_there { &plan.tags[..] } else { &[] };
    let tags = tags::put(target, request, image, looked_at, !has_manifest).await?;
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
