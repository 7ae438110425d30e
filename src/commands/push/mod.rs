//! `cargo lambda-image push`: what `build` does up to the layers, and then only what the repository lacks, tags last.
//!
//! - `target`: the repository, found or created, and the login for it;
//! - `existing`: an image that is there already;
//! - `functions`: what runs the images, once all are pushed;
//! - `recall`: what the records know of layers before any is made;
//! - here: our own images, whose layers go from their files into requests.
//!
//! Repository and credentials come before anything slow: who may not push should not compile first.

mod existing;
mod functions;
mod recall;
pub(super) mod target;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use self::functions::{Functions, Pushed, first_of};
use self::recall::{foresee, recall};
use self::target::Reached;
use super::draft::{self, BaseBytes, Draft, Drafting};
use super::lock::Locking;
use super::login::Logins;
use super::{blocking, build, open_store, prune};
use crate::aws::ecr::host::RegistryHost;
use crate::base::Base;
use crate::config::{BuildRequest, Destination, PushRequest, PushSource};
use crate::event::run::Phase;
use crate::event::{Event, ImageResult, PushPlan, PushResult, Session};
use crate::image::Image;
use crate::image::result as result_file;
use crate::layer::plan::LayerSpec;
use crate::layer::{Layer, Pipeline, gzip};
use crate::lock::Findings;
use crate::oci::{self, Descriptor, Digest, media_type};
use crate::platform::Architecture;
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
    let PushRequest { source, destinations, dry_run, wait } = request;
    match source {
        PushSource::Built(build) => built(&build, &destinations, dry_run, wait, session).await?,
        PushSource::Existing(image) => {
            let destination = destinations.first().ok_or_else(|| Problem::usage("there is no destination"))?;
            existing::push(&image, destination, dry_run, wait, session).await?;
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
    /// In a dry run, what the images before this one would have brought.
    earlier: &'a [Earlier<'a>],
    store: &'a Arc<Store>,
    session: &'a Session,
}

impl Pushing<'_> {
    /// The repositories (`HOST/REPOSITORY`) that images before this one bring a layer to.
    fn brought_to(&self, digest: Option<Digest>, made: Option<(&LayerSpec, u32)>) -> Vec<String> {
        let bringing = self.earlier.iter().filter(|earlier| earlier.brings(digest, made));
        bringing.map(|earlier| earlier.plan.repository.clone()).collect()
    }
}

/// An image that a dry run planned.
struct Earlier<'a> {
    plan: PushPlan,
    draft: &'a Draft,
}

impl Earlier<'_> {
    /// Whether it brings a layer of this digest, or one that is to be made alike while its digest is not known.
    fn brings(&self, digest: Option<Digest>, made: Option<(&LayerSpec, u32)>) -> bool {
        match (digest, made) {
            (Some(_), _) => self.plan.layers.iter().any(|layer| layer.digest == digest),
            (None, Some((spec, level))) => self.draft.makes(spec, level),
            (None, None) => false,
        }
    }
}

async fn built(
    build: &BuildRequest,
    destinations: &[Destination],
    dry_run: bool,
    wait: Option<Duration>,
    session: &Session,
) -> Result<()> {
    build::refuse_early(build)?;
    let locking = Locking::read(&build.lock).await?;
    let logins = Logins::new(destinations.first().map(|first| first.aws.clone()).unwrap_or_default());
    let reached = reach(destinations, dry_run, &logins, session).await?;
    let architectures: Vec<_> = build.images.iter().map(|image| image.architecture).collect();
    let functions = Functions::prepare(destinations, &reached, &architectures, session).await?;
    let binaries = draft::binaries(build, session).await?;
    let store = open_store(&build.store, dry_run, session).await?;
    let base_bytes = BaseBytes::Left;
    let drafting = Drafting { request: build, base_bytes, locking: &locking, logins: &logins, store: &store, session };
    let drafts = drafting.drafts(binaries).await?;
    functions.compare(&drafts.iter().map(|draft| draft.architecture).collect::<Vec<_>>())?;
    let must_stay = if dry_run { locking.request.locked } else { locking.must_stay };
    let mut foreseen = match must_stay {
        true => foresee(build, &drafts, &locking, &store, session).await?,
        false => Vec::new(),
    }
    .into_iter();
    let mut found = Findings { complete: locking.request.complete, whole: true, ..Findings::default() };
    let (mut pushed_images, mut plans, mut refused) = (Vec::new(), Vec::new(), None);
    for (number, ((draft, destination), reached)) in drafts.iter().zip(destinations).zip(&reached).enumerate() {
        let (package, bin) = (draft.request.package.as_str(), draft.request.bin.as_str());
        let earlier = &plans;
        let pushing = Pushing { package, bin, destination, reached, dry_run, earlier, store: &store, session };
        session.emit(&Event::PhaseStarted { phase: Phase::Push(bin) });
        let recalled = foreseen.next().filter(|_| !build.no_cache);
        let drafted = Drafted { draft, before: &drafts[..number], recalled };
        let pushed = push(build, drafted, &locking, &pushing).await;
        let in_image = |problem: Problem| match drafts.len() {
            1 => problem,
            _ => problem.context(format!("could not push image `{bin}`")),
        };
        let (outcome, of_image) = match pushed.map_err(in_image) {
            Ok(pushed) => pushed,
            Err(problem) if dry_run => return Err(problem),
            Err(problem) => {
                // What was found out of the images before this one is true of what was pushed.
                let saved = save(Findings { complete: false, ..found }, &locking, &store, session).await;
                let unwritten = pushed_images.into_iter().filter_map(|image: Pushed| image.written.err());
                return first_of([problem].into_iter().chain(saved.err()).chain(unwritten), session);
            }
        };
        found.bases.extend(of_image.bases);
        found.layers.extend(of_image.layers);
        match outcome {
            Outcome::Pushed(image) => pushed_images.push(*image),
            Outcome::Planned(planned) => {
                let Planned { plan, refused: problem } = *planned;
                plans.push(Earlier { plan, draft });
                refused = refused.or(problem.map(in_image));
            }
        }
    }
    if dry_run {
        functions.plan(&plans.iter().map(|planned| planned.plan.digest).collect::<Vec<_>>(), session).await?;
        return refused.map_or(Ok(()), Err);
    }
    let saved = save(found, &locking, &store, session).await;
    if drafts.iter().any(|draft| draft.base.is_packed_here()) {
        // A base is packed once; what was packed of others is of no use any more.
        let of_bases = drafts.iter().flat_map(|draft| &draft.base_layers).map(|layer| layer.descriptor.digest);
        prune(&store, of_bases.collect(), session).await;
    }
    let deployed = functions.deploy(pushed_images, wait, &store, session).await;
    first_of(deployed.err().into_iter().chain(saved.err()), session)
}

async fn save(found: Findings, locking: &Arc<Locking>, store: &Arc<Store>, session: &Session) -> Result<()> {
    let (locking, store, session) = (Arc::clone(locking), Arc::clone(store), session.clone());
    let saved = blocking(move || locking.save(&found, &store, &session).map(drop)).await;
    saved.map_err(|problem| problem.context("what is pushed is not in the lock"))
}

/// What became of an image.
enum Outcome {
    Pushed(Box<Pushed>),
    /// Nothing.
    Planned(Box<Planned>),
}

/// A draft, and what the records know of each of its layers, if they were asked already.
struct Drafted<'a> {
    draft: &'a Draft,
    /// Those of the images before it.
    before: &'a [Draft],
    recalled: Option<Vec<Option<Layer>>>,
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
        let Destination { repository, aws, insecure, create_repository, .. } = destination;
        let key = format!("{repository} {aws:?} {insecure} {create_repository}");
        let reached = match known.get(&key) {
            Some(reached) => reached.clone(),
            None => target::reach(destination, dry_run, logins, session).await?,
        };
        known.insert(key, reached.clone());
        all.push(reached);
    }
    Ok(all)
}

/// Pushes one image of ours.
async fn push(
    build: &BuildRequest,
    Drafted { draft, before, recalled }: Drafted<'_>,
    locking: &Locking,
    pushing: &Pushing<'_>,
) -> Result<(Outcome, Findings)> {
    let (store, session) = (pushing.store, pushing.session);
    let pipeline = Arc::new(Pipeline::new(build.threads, draft.request.compression_level));
    let (mut layers, mut made) = (Vec::new(), Vec::new());
    for (index, layer) in draft.base_layers.iter().enumerate() {
        let supply = base_supply(&draft.base, index, layer, build.offline, store);
        layers.push(to_push(layer, supply, lenders(&draft.base, &pushing.reached.target), pushing));
        made.push(Made::Known(layer.clone()));
    }
    let recalled = match recalled {
        Some(recalled) => recalled,
        None => {
            // What this run made itself is known whatever is not to be believed; a dry run makes nothing.
            let level = draft.request.compression_level;
            let is_made =
                |spec: &LayerSpec| !pushing.dry_run && before.iter().any(|earlier| earlier.makes(spec, level));
            recall(draft, &pipeline, |spec| !build.no_cache || is_made(spec), store, session).await?
        }
    };
    for ((spec, locked), known) in draft.specs.iter().zip(&draft.locked).zip(recalled) {
        let (source, cell) = supply::recipe(spec.clone(), &pipeline, store, session);
        let Some(layer) = known else {
            let at_most = gzip::bound(spec.tar_size());
            let (name, supply) = (spec.name.clone(), Supply::Made(source));
            let brought_to = pushing.brought_to(None, Some((spec, draft.request.compression_level)));
            layers.push(LayerToPush { name, known: None, at_most, supply, lenders: Vec::new(), brought_to });
            made.push(Made::OnTheWay(spec.name.clone(), cell));
            continue;
        };
        let supply = if store.contains(&layer.descriptor) {
            Supply::Here(supply::stored(store, &layer.descriptor))
        } else if spec.told.is_some() {
            Supply::Absent { expected: locked.expected.clone() }
        } else {
            Supply::Made(source)
        };
        layers.push(to_push(&layer, supply, Vec::new(), pushing));
        made.push(Made::Again(layer, cell));
    }
    let all = || made.iter().map(Made::layer).collect::<Result<Vec<_>>>();
    let foreseen = all().ok().map(|layers| draft.compose(&layers, build.source_date_epoch)).transpose()?;
    let mut found = Findings::default();
    let compose = || {
        let all = all()?;
        // All blobs are there, and nothing names them yet. What this image has not, others may have.
        found = Findings { complete: false, ..locking.findings(&[(draft, &all)], session)? };
        locking.check(&found, session)?;
        draft.compose(&all, build.source_date_epoch)
    };
    match send(&layers, foreseen.map(|image| image.digest()), compose, pushing).await? {
        Sent::Planned(planned) => Ok((Outcome::Planned(planned), found)),
        Sent::Pushed(image, push) => {
            let pushed = conclude(draft.result(&image, &all()?), image.architecture, &push, pushing);
            Ok((Outcome::Pushed(Box::new(pushed)), found))
        }
    }
}

/// A layer, which may still have to be made.
enum Made {
    Known(Layer),
    /// Known, but what it is made again as, if it is, is what counts.
    Again(Layer, Cell),
    OnTheWay(String, Cell),
}

impl Made {
    fn layer(&self) -> Result<Layer> {
        match self {
            Self::Known(layer) => Ok(layer.clone()),
            Self::Again(layer, cell) => Ok(made(cell).unwrap_or_else(|| layer.clone())),
            Self::OnTheWay(name, cell) => {
                made(cell).ok_or_else(|| Problem::failed(format!("layer `{name}` was confirmed before it was made")))
            }
        }
    }
}

fn made(cell: &Cell) -> Option<Layer> {
    cell.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Where the bytes of a base's layer come from if the repository lacks them.
fn base_supply(base: &Base, index: usize, layer: &Layer, offline: bool, store: &Arc<Store>) -> Supply {
    if store.contains(&layer.descriptor) {
        return Supply::Here(supply::stored(store, &layer.descriptor));
    }
    match base.layer_source(index) {
        Some(_) if offline && base.repository().is_some() => Supply::Absent { expected: None },
        Some(source) if base.repository().is_some() => Supply::Base(source),
        // A layout or an archive is as near as a blob of the store.
        Some(source) => Supply::Here(source),
        None => Supply::Absent { expected: None },
    }
}

/// The repositories of the target's own registry that lend the layers of `base`.
fn lenders(base: &Base, target: &Target) -> Vec<String> {
    let same = base.repository().filter(|(registry, _)| *registry == target.client.origin().name());
    same.map(|(_, repository)| repository.to_owned()).into_iter().collect()
}

fn to_push(layer: &Layer, supply: Supply, lenders: Vec<String>, pushing: &Pushing<'_>) -> LayerToPush {
    let known = Descriptor { media_type: media_type::OCI_LAYER_GZIP.to_owned(), ..layer.descriptor.clone() };
    let brought_to = pushing.brought_to(Some(known.digest), None);
    LayerToPush { name: layer.name.clone(), at_most: known.size, known: Some(known), supply, lenders, brought_to }
}

/// What was done with an image, or would be.
enum Sent {
    Pushed(Box<Image>, PushResult),
    Planned(Box<Planned>),
}

/// What would be done, and what would stop it.
struct Planned {
    plan: PushPlan,
    refused: Option<Problem>,
}

/// Sends what has to be sent, or only says what that would be. `digest` is the image's, if it is known by now.
async fn send(
    layers: &[LayerToPush],
    digest: Option<Digest>,
    compose: impl FnOnce() -> Result<Image>,
    pushing: &Pushing<'_>,
) -> Result<Sent> {
    let Pushing { package, bin, destination, reached, dry_run, store, session, .. } = *pushing;
    let Destination { tags, digest_tag, .. } = destination;
    let immutable = reached.immutable(tags);
    let request = publish::Request { package, bin, tags, immutable: &immutable, digest_tag: *digest_tag };
    let push = publish::Push { target: &reached.target, request: &request, layers, digest };
    if dry_run {
        let plan = PushPlan { creates_repository: reached.is_imagined, ..publish::survey(&push, store).await? };
        session.emit(&Event::PushPlanned { package, bin, plan: &plan, dry_run });
        let refused = publish::refuse(&push, &plan).err();
        return Ok(Sent::Planned(Box::new(Planned { plan, refused })));
    }
    let mut composed = None;
    let compose = |_: &[_]| {
        let image = compose()?;
        composed = Some(image.clone());
        Ok(image)
    };
    let result = publish::publish(&push, compose, store, session).await?;
    let image = composed.ok_or_else(|| Problem::failed("an image was pushed before it was composed"))?;
    Ok(Sent::Pushed(Box::new(image), result))
}

/// Writes down and tells what was pushed.
fn conclude(mut result: ImageResult, architecture: Architecture, push: &PushResult, pushing: &Pushing<'_>) -> Pushed {
    result.image_uri = Some(push.image_uri.clone());
    result.tags.clone_from(&push.tags);
    (result.sent_bytes, result.reused_bytes) = (Some(push.sent_bytes), Some(push.reused_bytes));
    let written = result_file::write(pushing.store, &result).map(drop);
    // It is pushed and tagged, whatever becomes of the file.
    pushing.session.emit(&Event::ImagePushed { image: &result, push });
    let context = "the image is pushed, and only what tells of it could not be written";
    Pushed { result, architecture, written: written.map_err(|problem| problem.context(context)) }
}

/// The registry and the repository of a base in ECR.
pub(super) fn base_in_ecr(reference: &str) -> Option<(RegistryHost, String)> {
    let (host, _) = reference.split_once('/')?;
    let reference = oci::reference(reference).ok()?;
    Some((RegistryHost::parse(host)?, reference.repository().to_owned()))
}
