//! `cargo lambda-image update`: what bases' tags mean now, and layers anew; the lock is written, and nothing is built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::draft::facts;
use super::lock::assets::{Locked, Settling};
use super::lock::{Locking, Used, base_key, describe_base, told};
use super::login::Logins;
use super::{blocking, open_store};
use crate::aws;
use crate::base::{self, BaseRequest, Holder};
use crate::config::{self, BuildRequest, ImageRequest, Renewed, UpdateRequest};
use crate::event::{Event, Session};
use crate::layer::Pipeline;
use crate::layer::gzip::FORMAT_VERSION;
use crate::layer::make::Reuse;
use crate::layer::plan::{self, LayerSpec};
use crate::layer::tree::Tree;
use crate::lock::change::{Change, changes};
use crate::lock::{BaseKey, Findings, LayerKey, LockedBase, LockedLayer};
use crate::platform::Architecture;
use crate::problem::{Problem, Result};
use crate::store::Store;

/// What the parts of an update share.
struct Updating<'a> {
    request: &'a BuildRequest,
    locking: Arc<Locking>,
    logins: Logins,
    store: Arc<Store>,
    session: &'a Session,
    dry_run: bool,
}

/// Renews the lock.
///
/// # Errors
/// When a base is not to be had, or a layer cannot be made; the lock stays as it was then.
pub async fn run(request: UpdateRequest, session: &Session) -> Result<()> {
    let UpdateRequest { build, renewed, dry_run } = request;
    let store = open_store(&build.store, dry_run, session).await?;
    let locking = Locking::read(&build.lock).await?;
    let logins = Logins::new(aws::Settings::default());
    let updating = Updating { request: &build, locking, logins, store, session, dry_run };
    let wants_bases = matches!(renewed, Renewed::Outdated | Renewed::Only { bases: true, .. });
    let mut found = Findings::default();
    if wants_bases {
        found.bases = updating.bases().await?;
    }
    let Renewal { layers, unmade, in_part } = updating.layers(&renewed, &found.bases).await?;
    (found.layers, found.whole) = (layers, !in_part);
    let Updating { locking, store, .. } = updating;
    if dry_run {
        let known = changes(&locking.lock, &locking.lock.after(&found));
        let changes: Vec<_> = known.iter().chain(&unmade).map(ToString::to_string).collect();
        tell(&locking.request.path, &changes, dry_run, session);
        return Ok(());
    }
    let path = locking.request.path.clone();
    let telling = session.clone();
    if !blocking(move || locking.save(&found, &store, &telling)).await? {
        tell(&path, &[], dry_run, session);
    }
    Ok(())
}

/// Tells what would change, or that nothing does: also where there is no lock yet.
fn tell(path: &Path, changes: &[String], dry_run: bool, session: &Session) {
    if changes.is_empty() && !path.exists() {
        let message = format!("there is no `{}`, and nothing in it to renew", path.display());
        session.warn(&message, Some("`cargo lambda-image build` and `push` write it"));
    } else {
        session.emit(&Event::Locked { path, changes, dry_run });
    }
}

impl Updating<'_> {
    /// What the bases of all images mean now, for every platform that is locked, or that would be built.
    async fn bases(&self) -> Result<BTreeMap<BaseKey, LockedBase>> {
        let mut wanted = BTreeMap::new();
        for image in &self.request.images {
            let mut architectures = self.locked_architectures(image);
            if architectures.is_empty() {
                architectures.push(image.architecture.unwrap_or(Architecture::Amd64));
            }
            for architecture in architectures {
                if let Some(key) = base_key(&image.base, &image.base_directory, architecture) {
                    wanted.insert(key, (image, architecture));
                }
            }
        }
        let mut found = BTreeMap::new();
        for (key, (image, architecture)) in wanted {
            let base = self.base(image, architecture, &key).await?;
            found.insert(key, base);
        }
        Ok(found)
    }

    fn locked_architectures(&self, image: &ImageRequest) -> Vec<Architecture> {
        let is_locked = |architecture: &Architecture| {
            let key = base_key(&image.base, &image.base_directory, *architecture);
            key.is_some_and(|key| self.locking.lock.bases.contains_key(&key))
        };
        [Architecture::Amd64, Architecture::Arm64].into_iter().filter(is_locked).collect()
    }

    async fn base(&self, image: &ImageRequest, architecture: Architecture, key: &BaseKey) -> Result<LockedBase> {
        let wanted = BaseRequest {
            reference: image.base.clone(),
            directory: image.base_directory.clone(),
            architecture,
            pinned: None,
            offline: false,
            no_cache: self.request.no_cache,
            holder: Holder::BaseImage,
        };
        let base = base::resolve(&wanted, &|registry| self.logins.of(registry), &self.store, self.session).await?;
        let digest =
            base.digest.ok_or_else(|| Problem::failed(format!("base image `{}` has no digest", base.shown)))?;
        let locked = self.locking.lock.bases.get(key);
        match locked.filter(|locked| locked.digest == digest || self.dry_run) {
            Some(locked) => Ok(LockedBase { digest, ..locked.clone() }),
            None if self.dry_run => Ok(describe_base(digest, &[], &Tree::default())),
            None => {
                let pipeline = Arc::new(Pipeline::new(self.request.threads, image.compression_level));
                let layers = base::look(&base, &self.store, &pipeline, self.session).await?;
                let store = Arc::clone(&self.store);
                blocking(move || {
                    let facts = facts(&layers, &store)?;
                    Ok(describe_base(digest, &facts, &Tree::merge(&facts)))
                })
                .await
            }
        }
    }

    /// The layers that are to be made anew, made.
    async fn layers(&self, renewed: &Renewed, bases: &BTreeMap<BaseKey, LockedBase>) -> Result<Renewal> {
        let (mut found, mut met) = (Renewal::default(), BTreeSet::new());
        if !self.may_renew(renewed) {
            return Ok(found);
        }
        for image in &self.request.images {
            let Renewal { layers, unmade, in_part } = self.layers_of(image, renewed, bases, &mut met).await?;
            found.layers.extend(layers);
            found.in_part |= in_part;
            found.unmade.extend(unmade.into_iter().filter(|change| !found.unmade.contains(change)).collect::<Vec<_>>());
        }
        let Renewed::Only { destinations, .. } = renewed else { return Ok(found) };
        match destinations.iter().find(|wanted| !met.iter().any(|key: &LayerKey| goes_to(key, wanted))) {
            None => Ok(found),
            Some(unknown) => {
                let known = met.iter().map(|key| key.destination.as_str()).collect();
                Err(Problem::usage(format!("no asset goes to `{unknown}`")).help(what_there_is(unknown, &known)))
            }
        }
    }

    /// Whether any layer may be made anew, so that assets have to be looked at.
    fn may_renew(&self, renewed: &Renewed) -> bool {
        match renewed {
            Renewed::Outdated => self.locking.lock.layers.values().any(|layer| layer.format != FORMAT_VERSION),
            Renewed::Only { destinations, .. } => !destinations.is_empty(),
        }
    }

    async fn layers_of(
        &self,
        image: &ImageRequest,
        renewed: &Renewed,
        bases: &BTreeMap<BaseKey, LockedBase>,
        met: &mut BTreeSet<LayerKey>,
    ) -> Result<Renewal> {
        let architectures = self.locked_architectures(image);
        let architecture = image.architecture.or_else(|| architectures.first().copied()).unwrap_or(Architecture::Amd64);
        let key = base_key(&image.base, &image.base_directory, architecture);
        let pinned = key.and_then(|key| bases.get(&key).or_else(|| self.locking.lock.bases.get(&key)));
        let wanted = BaseRequest {
            reference: image.base.clone(),
            directory: image.base_directory.clone(),
            architecture,
            pinned: pinned.map(|base| base.digest),
            offline: false,
            no_cache: self.request.no_cache,
            holder: Holder::BaseImage,
        };
        let base = base::resolve(&wanted, &|registry| self.logins.of(registry), &self.store, self.session).await?;
        let pipeline = Arc::new(Pipeline::new(self.request.threads, image.compression_level));
        let base_layers = base::look(&base, &self.store, &pipeline, self.session).await?;
        let (locking, store, session) = (Arc::clone(&self.locking), Arc::clone(&self.store), self.session.clone());
        let (image, reuse, dry_run) = (image.clone(), self.request.reuse(), self.dry_run);
        let renewed = renewed.clone();
        let (found, keys) = blocking(move || {
            let mut assets = locking.assets(&image, &store, reuse)?;
            let tree = Tree::merge(&facts(&base_layers, &store)?);
            let specs = plan::plan(std::mem::take(&mut assets.packs), &tree, base_layers.len())?;
            let on = Settling { tree: &tree, base_layers: base_layers.len(), level: image.compression_level };
            let (specs, locked) = locking.settle(specs, &assets, &on, &session)?;
            let is_meant = |key: &LayerKey| match &renewed {
                Renewed::Outdated => locking.lock.layers.get(key).is_some_and(|layer| layer.format != FORMAT_VERSION),
                Renewed::Only { destinations, .. } => destinations.iter().any(|wanted| goes_to(key, wanted)),
            };
            for problem in specs.iter().zip(&locked).filter_map(|(spec, locked)| absent(spec, locked, is_meant)) {
                match &renewed {
                    Renewed::Only { .. } => return Err(problem),
                    Renewed::Outdated => session.warn(&problem.in_one_line(), problem.next_step()),
                }
            }
            let layers = specs.into_iter().zip(locked);
            let layers = layers.filter_map(|(spec, locked)| Some((spec, (locked.key?, locked.part))));
            let layers: Vec<_> = layers.collect();
            let keys: Vec<_> = layers.iter().map(|(_, (key, _))| key.clone()).collect();
            let (specs, meant): (Vec<_>, Vec<_>) =
                layers.into_iter().filter(|(spec, (key, _))| spec.told.is_none() && is_meant(key)).unzip();
            let is_meant = |key: &LayerKey| meant.iter().any(|(meant, _)| meant == key);
            let of_meant =
                |key: &LayerKey| key.assets.iter().any(|asset| meant.iter().any(|(key, _)| key.assets.contains(asset)));
            let in_part = keys.iter().any(|key| !is_meant(key) && of_meant(key));
            if dry_run {
                let meant: Vec<_> = meant.into_iter().map(|(key, _)| key).zip(&specs).collect();
                let found = would_change(&locking, meant, &pipeline, &store, &session)?;
                return Ok((Renewal { in_part, ..found }, keys));
            }
            let made = pipeline.make(&specs, &store, &session, Reuse::Nothing)?;
            let mut found = Renewal { in_part, ..Renewal::default() };
            for (((key, part), spec), layer) in meant.into_iter().zip(&specs).zip(&made) {
                let part = part.as_deref();
                let mut entry = locking.found(&Used { key: &key, spec, part, layer }, &session)?;
                entry.format = FORMAT_VERSION;
                found.layers.insert(key, entry);
            }
            Ok((found, keys))
        })
        .await?;
        met.extend(keys);
        Ok(found)
    }
}

/// Layers that are made anew.
#[derive(Default)]
struct Renewal {
    layers: BTreeMap<LayerKey, LockedLayer>,
    /// What would become of those that were not made, since nothing was to be changed.
    unmade: Vec<Change>,
    /// Whether an asset has layers beside those.
    in_part: bool,
}

/// The layers as a dry run tells them: hashed, where that can tell whether they are what is locked, and not compressed.
fn would_change(
    locking: &Locking,
    meant: Vec<(LayerKey, &LayerSpec)>,
    pipeline: &Pipeline,
    store: &Store,
    session: &Session,
) -> Result<Renewal> {
    let mut found = Renewal::default();
    for (key, spec) in meant {
        let entry = format!("layer `{}`", key.destination);
        let Some(locked) = locking.lock.layers.get(&key) else {
            found.unmade.push(Change { entry, what: "is added".to_owned() });
            continue;
        };
        pipeline.learn(spec, &told(locked), store)?;
        let same = pipeline.recall(spec, store, session)?.is_some_and(|layer| layer.diff_id == locked.diff_id);
        if same {
            // What another version made would get this one's format.
            found.layers.insert(key, LockedLayer { format: FORMAT_VERSION, ..locked.clone() });
        } else {
            found.unmade.push(Change { entry, what: "its content changed".to_owned() });
        }
    }
    Ok(found)
}

/// Why a layer that is meant cannot be made anew: it stands for files which are not here.
fn absent(spec: &LayerSpec, locked: &Locked, is_meant: impl Fn(&LayerKey) -> bool) -> Option<Problem> {
    let key = locked.key.as_ref().filter(|key| spec.told.is_some() && is_meant(key))?;
    let root = locked.expected.as_deref().unwrap_or(Path::new("")).display();
    let problem = Problem::usage(format!("layer `{}` cannot be made anew without its files", key.destination))
        .because(format!("they are not at `{root}`, or only as pointers of Git LFS"));
    Some(problem.help("fetch them, or run this where they are"))
}

/// What could have been meant by a destination that there is not.
fn what_there_is(unknown: &str, known: &BTreeSet<&str>) -> String {
    const SHOWN: usize = 8;
    // As it may be typed: what all have in common makes none of them likelier.
    let typed = |place: &'_ str| place.strip_prefix("/var/task/").unwrap_or(place).to_owned();
    let names: Vec<_> = known.iter().map(|place| typed(place)).chain(["base".to_owned()]).collect();
    if let Some(near) = config::suggest(&typed(unknown), names.iter().map(String::as_str)) {
        return format!("did you mean `{near}`?");
    }
    let shown: Vec<_> = known.iter().take(SHOWN).map(|place| format!("`{place}`")).collect();
    match known.len().checked_sub(SHOWN) {
        _ if known.is_empty() => "there is no asset".to_owned(),
        None | Some(0) => format!("there are {}", shown.join(", ")),
        Some(more) => format!("there are {} and {more} more", shown.join(", ")),
    }
}

/// Whether a layer goes to, or below, what was asked for, or is a part of an asset that does.
fn goes_to(key: &LayerKey, wanted: &str) -> bool {
    let is_below = |place: &str| Path::new(place).starts_with(wanted);
    is_below(&key.destination) || key.assets.iter().any(|asset| is_below(asset.place()))
}
