//! `cargo lambda-image push`: what `build` does up to the layers, and then only what the repository lacks, tags last.
//!
//! - `target`: the repository, found or created, and the login for it;
//! - `existing`: an image that is there already;
//! - here: our own images, whose layers go from their files into requests.
//!
//! Repository and credentials come before anything slow: who may not push should not compile first.

mod existing;
mod target;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use self::target::Reached;
use super::draft::{self, BaseBytes, Draft, Drafting};
use super::login::Logins;
use super::{blocking, build};
use crate::base::Base;
use crate::config::{BuildRequest, Destination, PushRequest, PushSource};
use crate::event::{Event, ImageResult, PushResult, Session};
use crate::image::Image;
use crate::image::result as result_file;
use crate::layer::plan::LayerSpec;
use crate::layer::{Layer, Pipeline, gzip, tarball};
use crate::oci::{Descriptor, media_type};
use crate::problem::{Problem, Result};
use crate::publish::supply::{self, Cell};
use crate::publish::{self, LayerToPush, Supply, Target};
use crate::store::Store;

/// Pushes every image of the request.
///
/// # Errors
/// Whatever stops it; images already pushed stay pushed, and tags of the others stay where they were.
pub async fn run(request: PushRequest, session: &Session) -> Result<()> {
    let started = Instant::now();
    let PushRequest { source, destinations, dry_run } = request;
    match source {
        PushSource::Built(build) => built(&build, &destinations, dry_run, session).await?,
        PushSource::Existing(image) => {
            let destination = destinations.first().ok_or_else(|| Problem::usage("there is no destination"))?;
            existing::push(&image, destination, dry_run, session).await?;
        }
    }
    session.emit(&Event::Finished { elapsed: started.elapsed() });
    Ok(())
}

/// What one image's push needs beside the image.
struct Pushing<'a> {
    package: &'a str,
    bin: &'a str,
    destination: &'a Destination,
    reached: &'a Reached,
    dry_run: bool,
    store: &'a Arc<Store>,
    session: &'a Session,
}

async fn built(build: &BuildRequest, destinations: &[Destination], dry_run: bool, session: &Session) -> Result<()> {
    build::refuse_early(build)?;
    let logins = Logins::new(destinations.first().map(|first| first.aws.clone()).unwrap_or_default());
    let reached = reach(destinations, dry_run, &logins, session).await?;
    let binaries = draft::binaries(build, session).await?;
    let store = open(build.store.clone(), session).await?;
    let drafting = Drafting { request: build, base_bytes: BaseBytes::Left, logins: &logins, store: &store, session };
    let drafts = drafting.drafts(binaries).await?;
    for ((draft, destination), reached) in drafts.iter().zip(destinations).zip(&reached) {
        let (package, bin) = (draft.request.package.as_str(), draft.request.bin.as_str());
        let pushing = Pushing { package, bin, destination, reached, dry_run, store: &store, session };
        let pushed = push(build, draft, &pushing).await;
        let context = |problem: Problem| problem.context(format!("could not push image `{bin}`"));
        if drafts.len() > 1 { pushed.map_err(context)? } else { pushed? }
    }
    Ok(())
}

/// The target of each destination; a repository that several share is looked for once.
async fn reach(
    destinations: &[Destination],
    dry_run: bool,
    logins: &Logins,
    session: &Session,
) -> Result<Vec<Reached>> {
    let mut known: HashMap<String, Reached> = HashMap::new();
    let mut all = Vec::new();
    for destination in destinations {
        let key = format!("{} {:?} {}", destination.repository, destination.aws, destination.insecure);
        let reached = match known.get(&key) {
            Some(reached) => reached.clone(),
            None => target::reach(destination, dry_run, logins, session).await?,
        };
        known.insert(key, reached.clone());
        all.push(reached);
    }
    Ok(all)
}

async fn open(root: std::path::PathBuf, session: &Session) -> Result<Arc<Store>> {
    let session = session.clone();
    Ok(Arc::new(blocking(move || Store::open(&root, &session)).await?))
}

/// Pushes one image of ours.
async fn push(build: &BuildRequest, draft: &Draft, pushing: &Pushing<'_>) -> Result<()> {
    let (store, session) = (pushing.store, pushing.session);
    let pipeline = Arc::new(Pipeline::new(build.threads, draft.request.compression_level));
    let (mut layers, mut made) = (Vec::new(), Vec::new());
    for (index, layer) in draft.base_layers.iter().enumerate() {
        let supply = base_supply(&draft.base, index, layer, build.offline, store);
        layers.push(to_push(layer, supply, lenders(&draft.base, &pushing.reached.target)));
        made.push(Made::Known(layer.clone()));
    }
    let recalled = recall(draft, &pipeline, build.no_cache, store, session).await?;
    for (spec, known) in draft.specs.iter().zip(recalled) {
        let (source, cell) = supply::recipe(spec.clone(), &pipeline, store, session);
        match known {
            Some(layer) => {
                let source =
                    if store.contains(&layer.descriptor) { supply::stored(store, &layer.descriptor) } else { source };
                layers.push(to_push(&layer, Supply::Here(source), Vec::new()));
                made.push(Made::Known(layer));
            }
            None => {
                let at_most = gzip::bound(tarball::size(&spec.entries));
                let (name, supply) = (spec.name.clone(), Supply::Here(source));
                layers.push(LayerToPush { name, known: None, at_most, supply, lenders: Vec::new() });
                made.push(Made::OnTheWay(spec.name.clone(), cell));
            }
        }
    }
    let all = || made.iter().map(Made::layer).collect::<Result<Vec<_>>>();
    let compose = || draft.compose(&all()?, build.source_date_epoch);
    let Some((image, push)) = send(&layers, compose, pushing).await? else { return Ok(()) };
    conclude(draft.result(&image, &all()?), &push, pushing)
}

/// A layer of ours, which may still have to be made.
enum Made {
    Known(Layer),
    OnTheWay(String, Cell),
}

impl Made {
    fn layer(&self) -> Result<Layer> {
        match self {
            Self::Known(layer) => Ok(layer.clone()),
            Self::OnTheWay(name, cell) => {
                let made = cell.lock().unwrap_or_else(PoisonError::into_inner).clone();
                made.ok_or_else(|| Problem::failed(format!("layer `{name}` was confirmed before it was made")))
            }
        }
    }
}

/// What the records know of each layer to be made; assets whose files were touched are hashed for it, several at once.
async fn recall(
    draft: &Draft,
    pipeline: &Arc<Pipeline>,
    no_cache: bool,
    store: &Arc<Store>,
    session: &Session,
) -> Result<Vec<Option<Layer>>> {
    let at_once = pipeline.layers_at_once();
    let recalls = draft.specs.iter().cloned().map(|spec: LayerSpec| {
        let (pipeline, store, session) = (Arc::clone(pipeline), Arc::clone(store), session.clone());
        async move {
            if no_cache {
                return Ok(None);
            }
            blocking(move || pipeline.recall(&spec, &store, &session)).await
        }
    });
    stream::iter(recalls).buffered(at_once).try_collect().await
}

/// Where the bytes of a base's layer come from if the repository lacks them.
fn base_supply(base: &Base, index: usize, layer: &Layer, offline: bool, store: &Arc<Store>) -> Supply {
    if store.contains(&layer.descriptor) {
        return Supply::Here(supply::stored(store, &layer.descriptor));
    }
    match base.layer_source(index) {
        Some(_) if offline && base.repository().is_some() => Supply::Absent,
        Some(source) => Supply::Base(source),
        None => Supply::Absent,
    }
}

/// The repositories of the target's own registry that lend the layers of `base`.
fn lenders(base: &Base, target: &Target) -> Vec<String> {
    let same = base.repository().filter(|(registry, _)| *registry == target.client.origin().name());
    same.map(|(_, repository)| repository.to_owned()).into_iter().collect()
}

fn to_push(layer: &Layer, supply: Supply, lenders: Vec<String>) -> LayerToPush {
    let known = Descriptor { media_type: media_type::OCI_LAYER_GZIP.to_owned(), ..layer.descriptor.clone() };
    LayerToPush { name: layer.name.clone(), at_most: known.size, known: Some(known), supply, lenders }
}

/// Sends what has to be sent, or only says what that would be.
async fn send(
    layers: &[LayerToPush],
    compose: impl FnOnce() -> Result<Image>,
    pushing: &Pushing<'_>,
) -> Result<Option<(Image, PushResult)>> {
    let Pushing { package, bin, destination, reached, dry_run, store, session } = *pushing;
    if dry_run {
        let plan = match reached.is_imagined {
            true => publish::survey_nothing(&reached.target, layers),
            false => publish::survey(&reached.target, layers, store).await?,
        };
        session.emit(&Event::PushPlanned { package, bin, plan: &plan, dry_run });
        return Ok(None);
    }
    let request = publish::Request { package, bin, tags: &destination.tags, digest_tag: destination.digest_tag };
    let mut composed = None;
    let compose = |_: &[_]| {
        let image = compose()?;
        composed = Some(image.clone());
        Ok(image)
    };
    let push = publish::publish(&reached.target, &request, layers, compose, store, session).await?;
    Ok(composed.map(|image| (image, push)))
}

/// Writes down and tells what was pushed.
fn conclude(mut result: ImageResult, push: &PushResult, pushing: &Pushing<'_>) -> Result<()> {
    result.image_uri = Some(push.image_uri.clone());
    result.tags.clone_from(&push.tags);
    let result = result_file::write(pushing.store, &result)?;
    pushing.session.emit(&Event::ImagePushed { image: &result, push });
    Ok(())
}
