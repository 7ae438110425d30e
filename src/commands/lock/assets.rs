//! What the lock makes of an image's assets: which entry is whose, and what stands in for those that are not here.
//!
//! An asset that is not here at all, or only as pointers of Git LFS, is taken from the lock if that was asked for. One of
//! which a part is missing is never: nobody could say what the image would hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Locking, told};
use crate::base::{self, Base};
use crate::commands::draft::{Draft, refuse_own_store};
use crate::commands::login::Logins;
use crate::commands::push::target;
use crate::config::{BuildRequest, Destination, ImageRequest};
use crate::event::Session;
use crate::layer::entries::{Content, Entry, Stat};
use crate::layer::lfs::{self, LfsContent, Pointer};
use crate::layer::plan::{LayerSpec, OWN_LAYER_BYTES, Pack, SHARED_NAME};
use crate::layer::walk::{self, Asset};
use crate::layer::{Origin, Pipeline};
use crate::lock::{AssetKey, LayerKey, LockedLayer};
use crate::oci::Descriptor;
use crate::problem::{Problem, Result};
use crate::store::Store;

/// The destination of layers that small assets share.
const SHARED_DESTINATION: &str = "(small assets)";

/// The assets of an image, one pack each, in their order.
pub(in crate::commands) struct Assets {
    pub packs: Vec<Pack>,
    found: Vec<Found>,
}

/// What was found of an asset.
struct Found {
    key: AssetKey,
    name: String,
    /// Where it is, or should be.
    root: PathBuf,
    is_absent: bool,
    /// Whether it is one file by itself.
    is_file: bool,
    /// The pointers among its files, by their paths in the image.
    pointers: BTreeMap<PathBuf, Pointer>,
}

/// How a layer stands to the lock.
#[derive(Debug, Clone, Default)]
pub(in crate::commands) struct Locked {
    /// Its entry's key; the binary has none.
    pub key: Option<LayerKey>,
    /// Which part of its asset it is, as its name tells people.
    pub part: Option<String>,
    /// Where its files should be, if they are not here.
    pub expected: Option<PathBuf>,
}

impl Locking {
    /// Lists an image's assets.
    ///
    /// # Errors
    /// What is wrong with an asset; and when it is not here, or only pointers are, unless the lock may stand in.
    pub(in crate::commands) fn assets(&self, image: &ImageRequest, store: &Path) -> Result<Assets> {
        let mut assets = Assets { packs: Vec::new(), found: Vec::new() };
        for asset in &image.assets {
            let mut asset = asset.clone();
            asset.allow_secrets.extend_from_slice(&image.allow_secrets);
            let (pack, found) = self.asset(asset, store)?;
            assets.packs.push(pack);
            assets.found.push(found);
        }
        Ok(assets)
    }

    fn asset(&self, asset: Asset, store: &Path) -> Result<(Pack, Found)> {
        let may_stand_in = self.request.assets_from_lock;
        let is_absent = may_stand_in && walk::is_absent(&asset)?;
        let mut entries = if is_absent { Vec::new() } else { walk::walk(&asset)? };
        refuse_own_store(&asset, &entries, store)?;
        self.leave_out_the_lock(&mut entries);
        let pointers = lfs::pointers(&entries)?;
        if !pointers.is_empty() && !may_stand_in {
            return Err(lfs::not_fetched(&asset.shown, &entries, &pointers));
        }
        lfs::stand_in(&mut entries, &pointers);
        let found = Found {
            key: self.asset_key(&asset)?,
            name: asset.name.clone(),
            is_file: walk::root(&asset).is_file(),
            root: walk::root(&asset),
            is_absent,
            pointers,
        };
        Ok((Pack { name: asset.name, origin: Origin::Asset, entries }, found))
    }

    /// The lock says what the layers are, so none can hold it. It is there from the second build on, and must not make that
    /// one another.
    fn leave_out_the_lock(&self, entries: &mut Vec<Entry>) {
        let Ok(metadata) = std::fs::metadata(&self.request.path) else { return };
        let lock = Stat::of(&metadata).identity;
        entries.retain(|entry| !matches!(&entry.content, Content::File(source) if source.stat.identity == lock));
    }

    fn asset_key(&self, asset: &Asset) -> Result<AssetKey> {
        let from = real(self.request.path.parent().unwrap_or(Path::new("/")));
        let root = walk::root(&Asset { directory: real(&asset.directory), ..asset.clone() });
        // What lies elsewhere by its absolute path is there on every machine.
        let path = match Path::new(&asset.path).is_absolute() && !root.starts_with(&from) {
            true => asset.path.clone(),
            false => relative(&root, &from),
        };
        let to = walk::place(asset)?;
        Ok(AssetKey { path, to, exclude: asset.exclude.clone(), follow_symlinks: asset.follow_symlinks })
    }

    /// Gives each planned layer its entry; where files are not here, what the lock says takes their place.
    ///
    /// # Errors
    /// When the lock does not say it, or says something else.
    pub(in crate::commands) fn settle(
        &self,
        specs: Vec<LayerSpec>,
        assets: &Assets,
        level: u32,
        session: &Session,
    ) -> Result<(Vec<LayerSpec>, Vec<Locked>)> {
        let mut settled = Vec::new();
        for spec in specs {
            if spec.origin != Origin::Asset {
                settled.push((spec, Locked::default()));
                continue;
            }
            let packed: Vec<_> = spec.packs.iter().filter_map(|number| assets.found.get(*number)).collect();
            if let Some(absent) = packed.iter().find(|found| found.is_absent) {
                settled.extend(self.absent(absent, packed.len(), spec.packs.clone(), level)?);
                continue;
            }
            let key = key_of(&spec, &packed, level);
            let pointers = packed.iter().flat_map(|found| found.pointers.clone());
            let pointers: BTreeMap<_, _> =
                pointers.filter(|(path, _)| spec.entries.iter().any(|entry| entry.path == *path)).collect();
            settled.push(match pointers.is_empty() {
                true => {
                    let part = part_of(&spec, &packed);
                    (spec, Locked { key: Some(key), part, expected: None })
                }
                false => self.pointed(spec, key, &packed, &pointers, session)?,
            });
        }
        if self.request.assets_from_lock {
            self.refuse_parts(&settled, assets, level)?;
        }
        Ok(settled.into_iter().unzip())
    }

    /// The layers of an asset that is not here.
    fn absent(&self, found: &Found, sharers: usize, packs: Vec<usize>, level: u32) -> Result<Vec<(LayerSpec, Locked)>> {
        let layers = self.lock.layers_of(&found.key, level);
        let missing = |why: &str| {
            Problem::usage(format!("asset `{}` is not at `{}`, and {why}", found.name, found.root.display()))
                .help("build once where it is, and commit the lock; or fetch it")
        };
        if layers.is_empty() {
            return Err(missing("the lock has no layer of it"));
        }
        if sharers > 1 || layers.iter().any(|(key, _)| key.assets.len() > 1) {
            return Err(missing("it shares a layer with other assets, so that it cannot be taken from the lock alone"));
        }
        let twice = |(index, (key, _)): (usize, &(&LayerKey, &LockedLayer))| {
            layers[..index].iter().any(|(other, _)| other.destination == key.destination)
        };
        if layers.iter().enumerate().any(twice) {
            return Err(missing("the lock has it for several bases that it goes into differently"));
        }
        let layer = |(key, entry): &(&LayerKey, &LockedLayer)| {
            let part = entry.part.as_ref().map(|part| format!("/{part}")).unwrap_or_default();
            let name = format!("{}{part}", found.name);
            let (packs, told) = (packs.clone(), Some(told(entry)));
            let spec = LayerSpec { told, ..LayerSpec::new(name, Origin::Asset, Vec::new(), packs) };
            (spec, Locked { key: Some((*key).clone()), part: entry.part.clone(), expected: Some(found.root.clone()) })
        };
        Ok(layers.iter().map(layer).collect())
    }

    /// A layer some of whose files are pointers: what the lock has, if that is exactly what the pointers stand for.
    fn pointed(
        &self,
        spec: LayerSpec,
        key: LayerKey,
        packed: &[&Found],
        pointers: &BTreeMap<PathBuf, Pointer>,
        session: &Session,
    ) -> Result<(LayerSpec, Locked)> {
        let name = packed.first().map(|found| found.name.as_str()).unwrap_or_default();
        let not_fetched = |why: String| lfs::not_fetched(name, &spec.entries, pointers).because(why);
        let Some(entry) = self.lock.layers.get(&key) else {
            return Err(not_fetched(format!("the lock has no layer for `{}`", key.destination)));
        };
        let Some(LfsContent { files, beside }) = lfs::content(&spec.entries, pointers, session)? else {
            return Err(not_fetched("nothing tells what they stand for".to_owned()));
        };
        if let Some((path, oid)) = files.iter().find(|(path, oid)| entry.lfs.get(*path) != Some(oid)) {
            let locked = entry.lfs.get(path).map_or_else(|| "nothing".to_owned(), ToString::to_string);
            return Err(not_fetched(format!("`{path}` is {oid} by its pointer and {locked} by the lock")));
        }
        if entry.lfs.len() != files.len() || entry.beside_lfs != Some(beside) {
            let why = format!("other files of layer `{}` are not what they were when it was locked", key.destination);
            return Err(not_fetched(why));
        }
        let expected = packed.first().map(|found| found.root.clone());
        let part = entry.part.clone();
        Ok((LayerSpec { told: Some(told(entry)), ..spec }, Locked { key: Some(key), part, expected }))
    }

    /// Refuses assets of which the lock has layers or files that are not here.
    fn refuse_parts(&self, settled: &[(LayerSpec, Locked)], assets: &Assets, level: u32) -> Result<()> {
        for found in assets.found.iter().filter(|found| !found.is_absent) {
            for (key, entry) in self.lock.layers_of(&found.key, level) {
                let here = settled.iter().find(|(_, locked)| locked.key.as_ref() == Some(key));
                let what = match here {
                    None => format!("`{}` is not", key.destination),
                    Some((spec, _)) if files(spec) < entry.files => {
                        format!("of `{}` only {} of {} files are", key.destination, files(spec), entry.files)
                    }
                    Some(_) => continue,
                };
                let message = format!("asset `{}` is only partly at `{}`: {what}", found.name, found.root.display());
                return Err(Problem::usage(message).help(
                    "fetch all of it, or remove all of it; if it is meant to be so, build once without \
                     `--assets-from-lock`, which locks what is here",
                ));
            }
        }
        Ok(())
    }
}

/// Brings the blobs of layers whose files are not here into the store, from the repository of their image.
///
/// # Errors
/// When there is no repository, or it does not have them: asset, digest and place are named.
pub(in crate::commands) async fn fetch(
    request: &BuildRequest,
    drafts: &[Draft],
    logins: &Logins,
    store: &Arc<Store>,
    session: &Session,
) -> Result<()> {
    for (index, draft) in drafts.iter().enumerate() {
        let missing = missing(draft, store);
        let Some((spec, locked)) = missing.first() else { continue };
        let absent = |why: String| {
            let root = locked.expected.as_ref().map(|root| root.display().to_string()).unwrap_or_default();
            let digest = spec.told.map(|told| told.digest.to_string()).unwrap_or_default();
            Problem::failed(format!("asset `{}` is not at `{root}`, and its layer {digest} {why}", spec.name))
        };
        let destination = request.blobs.get(index).and_then(Option::as_ref);
        let Some(destination) = destination.filter(|_| !request.offline) else {
            return Err(match request.offline {
                true => absent("is not in the store, and `--offline` forbids to fetch it".into())
                    .help("run once without `--offline`"),
                false => absent("is not in the store, and no repository is named that could have it".into())
                    .help("name it with the key `repository` under `[package.metadata.lambda-image]`"),
            });
        };
        let from = Destination { create_repository: false, ..destination.clone() };
        let reached = target::reach(&from, true, logins, session).await?;
        let shown = reached.target.shown();
        let layers: Vec<_> =
            missing.iter().filter_map(|(spec, _)| spec.told).map(|told| (told.descriptor(), told.diff_id)).collect();
        let (client, repository) = (Arc::clone(&reached.target.client), reached.target.repository.clone());
        for (layer, (spec, _)) in layers.iter().zip(&missing) {
            let Descriptor { digest, .. } = layer.0;
            if !client.has_blob(&repository, &layer.0).await? {
                return Err(absent(format!("is not in `{shown}`")).help("push once from a machine that has the files"));
            }
            tracing::debug!(%digest, name = spec.name, "fetching");
        }
        let blobs = Base::of_blobs(client, repository, shown, draft.base.architecture, layers);
        let pipeline = Arc::new(Pipeline::new(request.threads, draft.request.compression_level));
        base::pull(&blobs, store, &pipeline, session).await?;
    }
    Ok(())
}

/// The layers of a draft that cannot be made, and whose blobs are not here.
fn missing<'a>(draft: &'a Draft, store: &Store) -> Vec<(&'a LayerSpec, &'a Locked)> {
    let is_missing = |spec: &LayerSpec| spec.told.is_some_and(|told| !store.contains(&told.descriptor()));
    draft.specs.iter().zip(&draft.locked).filter(|(spec, _)| is_missing(spec)).collect()
}

/// How many files and links a layer packs.
pub(super) fn files(spec: &LayerSpec) -> u64 {
    spec.entries.iter().filter(|entry| !is_directory(entry)).count() as u64
}

fn is_directory(entry: &Entry) -> bool {
    matches!(entry.content, Content::Directory { .. })
}

/// What a layer's name says beside its asset's.
fn part_of(spec: &LayerSpec, packed: &[&Found]) -> Option<String> {
    let name = &packed.first()?.name;
    spec.name.strip_prefix(name.as_str())?.strip_prefix('/').map(str::to_owned)
}

fn key_of(spec: &LayerSpec, packed: &[&Found], level: u32) -> LayerKey {
    let place = packed.first().map_or("/", |found| found.key.place());
    let mut files = spec.entries.iter().filter(|entry| !is_directory(entry));
    let destination = match (files.next(), files.next()) {
        _ if packed.len() > 1 || spec.name == SHARED_NAME => SHARED_DESTINATION.to_owned(),
        (Some(file), None) if file.size() >= OWN_LAYER_BYTES || packed.iter().all(|found| found.is_file) => {
            format!("/{}", file.path.display())
        }
        _ => place.to_owned(),
    };
    let mode = |entry: &Entry| match entry.content {
        Content::Directory { mode } if mode != 0o755 => Some(format!("{mode:o} /{}", entry.path.display())),
        _ => None,
    };
    let modes = spec.entries.iter().filter_map(mode).collect();
    LayerKey { destination, assets: packed.iter().map(|found| found.key.clone()).collect(), level, modes }
}

/// A directory without links, so that both of two are told in the same way.
fn real(directory: &Path) -> PathBuf {
    directory.canonicalize().unwrap_or_else(|_| directory.to_owned())
}

/// The way from one absolute directory to a path, by `..` where need be.
fn relative(path: &Path, from: &Path) -> String {
    let shared = path.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    let mut way: PathBuf = from.components().skip(shared).map(|_| "..").collect();
    way.extend(path.components().skip(shared));
    if way.as_os_str().is_empty() { ".".to_owned() } else { way.display().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_where_the_lock_is() {
        for (path, expected) in [
            ("/w/models", "models"),
            ("/w/api/models/*.bin", "api/models/*.bin"),
            ("/w", "."),
            ("/models", "../models"),
            ("/other/w/x", "../other/w/x"),
        ] {
            assert_eq!(relative(Path::new(path), Path::new("/w")), expected, "{path}");
        }
    }
}
