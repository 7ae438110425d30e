//! What the lock makes of an image's assets: which entry is whose, and what stands in for those that are not here.
//!
//! An asset that is not here at all, or only as pointers of Git LFS, is taken from the lock if that was asked for. One
//! of which a part is missing is never: nobody could say what the image would hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Locking, told};
use crate::commands::draft::refuse_own_store;
use crate::config::ImageRequest;
use crate::event::Session;
use crate::layer::Origin;
use crate::layer::entries::{Content, Entry, Stat};
use crate::layer::lfs::{self, LfsContent, Pointer};
use crate::layer::make::Reuse;
use crate::layer::plan::{self, LAYER_LIMIT, LayerSpec, OWN_LAYER_BYTES, Pack, SHARED_NAME};
use crate::layer::tree::Tree;
use crate::layer::walk::{self, Asset};
use crate::lock::{AssetKey, LayerKey, LockedLayer, SHARED_DESTINATION};
use crate::problem::{Problem, Result};
use crate::store::Store;

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

/// What layers are settled on.
pub(in crate::commands) struct Settling<'a> {
    /// The base's file system; empty where nothing that goes on top can meet it.
    pub tree: &'a Tree,
    pub base_layers: usize,
    /// The compression level.
    pub level: u32,
}

impl Assets {
    /// Where those go whose files are not here, relative to `/`.
    pub(in crate::commands) fn absent_places(&self) -> impl Iterator<Item = &Path> {
        let absent = self.found.iter().filter(|found| found.is_absent);
        absent.map(|found| Path::new(found.key.place().trim_start_matches('/')))
    }
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
    pub(in crate::commands) fn assets(&self, image: &ImageRequest, store: &Store, reuse: Reuse) -> Result<Assets> {
        let mut assets = Assets { packs: Vec::new(), found: Vec::new() };
        for asset in &image.assets {
            let mut asset = asset.clone();
            asset.allow_secrets.extend_from_slice(&image.allow_secrets);
            let (mut pack, found) = self.asset(asset, store, reuse)?;
            if found.is_absent {
                pack.told_layers = self.told_layers(&found.key, image.compression_level);
            }
            assets.packs.push(pack);
            assets.found.push(found);
        }
        Ok(assets)
    }

    fn asset(&self, asset: Asset, store: &Store, reuse: Reuse) -> Result<(Pack, Found)> {
        let may_stand_in = self.request.assets_from_lock;
        let is_absent = may_stand_in && walk::is_absent(&asset)?;
        let mut entries = match is_absent {
            true => Vec::new(),
            false => walk::walk(&asset).map_err(|problem| match walk::is_absent(&asset) {
                Ok(true) => self.or_from_lock(problem, &asset),
                _ => problem,
            })?,
        };
        refuse_own_store(&asset, &entries, store.root())?;
        self.leave_out_the_lock(&mut entries);
        let pointers = lfs::unknown_pointers(&entries, store, reuse)?;
        if !pointers.is_empty() && !may_stand_in {
            return Err(self.or_from_lock(lfs::not_fetched(&asset.shown, &entries, &pointers), &asset));
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
        Ok((Pack { name: asset.name, origin: Origin::Asset, entries, told_layers: 0 }, found))
    }

    /// The problem that an asset is not here, which may be none: if the lock has it, the help says so.
    fn or_from_lock(&self, problem: Problem, asset: &Asset) -> Problem {
        let Ok(key) = self.asset_key(asset) else { return problem };
        if !self.lock.layers.keys().any(|layer| layer.assets.contains(&key)) {
            return problem;
        }
        let first = problem.next_step().map(|help| format!("{help}; ")).unwrap_or_default();
        problem.help(format!("{first}or take it from the lock and the repository with `--assets-from-lock`"))
    }

    /// How many layers the lock tells of that are an asset's alone.
    fn told_layers(&self, asset: &AssetKey, level: u32) -> usize {
        self.lock.layers_of(asset, level).iter().filter(|(key, _)| key.assets.len() == 1).count()
    }

    /// The lock says what the layers are, so none can hold it. It is there from the second build on, and must not make
    /// that one another.
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
        on: &Settling<'_>,
        session: &Session,
    ) -> Result<(Vec<LayerSpec>, Vec<Locked>)> {
        let level = on.level;
        let mut settled = Vec::new();
        for spec in specs {
            if spec.origin != Origin::Asset {
                settled.push((spec, Locked::default()));
                continue;
            }
            let packed: Vec<_> = spec.packs.iter().filter_map(|number| assets.found.get(*number)).collect();
            if let Some(absent) = packed.iter().find(|found| found.is_absent) {
                settled.extend(self.absent(absent, &spec, assets, on)?);
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
            settle_shared(&mut settled, on)?;
        }
        Ok(settled.into_iter().unzip())
    }

    /// The layers of an asset that is not here.
    fn absent(
        &self,
        found: &Found,
        spec: &LayerSpec,
        assets: &Assets,
        on: &Settling<'_>,
    ) -> Result<Vec<(LayerSpec, Locked)>> {
        let layers = self.layers_of(found, assets, on.level);
        let missing = |why: &str| not_here(&found.name, &found.root, why);
        if layers.is_empty() {
            return Err(missing("the lock has no layer of it"));
        }
        if layers.iter().any(|(key, _)| key.assets.len() > 1) {
            return Err(missing("it shares a layer with other assets, so that it cannot be taken from the lock alone"));
        }
        let twice = |(index, (key, _)): (usize, &(&LayerKey, &LockedLayer))| {
            layers[..index].iter().any(|(other, _)| other.destination == key.destination)
        };
        if layers.iter().enumerate().any(twice) {
            return Err(missing("the lock has it for several bases that it goes into differently"));
        }
        for (key, _) in &layers {
            let destination = if key.is_shared() { found.key.place() } else { &key.destination };
            let destination = Path::new(destination.trim_start_matches('/'));
            plan::fits_base(&found.name, destination, &modes_of(key), on.tree)?;
        }
        let layer = |(key, entry): &(&LayerKey, &LockedLayer)| {
            let part = entry.part.as_ref().map(|part| format!("/{part}")).unwrap_or_default();
            let name = if key.is_shared() { SHARED_NAME.to_owned() } else { format!("{}{part}", found.name) };
            let (packs, told) = (spec.packs.clone(), Some(told(entry)));
            let spec = LayerSpec { told, ..LayerSpec::new(name, Origin::Asset, Vec::new(), packs) };
            (spec, Locked { key: Some((*key).clone()), part: entry.part.clone(), expected: Some(found.root.clone()) })
        };
        Ok(layers.iter().map(layer).collect())
    }

    /// The layers that the lock has of an asset. One that it shares with assets which are not of this image is another
    /// image's.
    fn layers_of(&self, found: &Found, assets: &Assets, level: u32) -> Vec<(&LayerKey, &LockedLayer)> {
        let is_of_image = |asset: &AssetKey| assets.found.iter().any(|found| found.key == *asset);
        let layers = self.lock.layers_of(&found.key, level).into_iter();
        layers.filter(|(key, _)| key.assets.iter().all(is_of_image)).collect()
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
            let why = format!(
                "other files or directories of layer `{}` are not what they were when it was locked",
                key.destination
            );
            return Err(not_fetched(why));
        }
        let expected = packed.first().map(|found| found.root.clone());
        let part = entry.part.clone();
        Ok((LayerSpec { told: Some(told(entry)), ..spec }, Locked { key: Some(key), part, expected }))
    }

    /// Refuses assets of which the lock has layers or files that are not here.
    fn refuse_parts(&self, settled: &[(LayerSpec, Locked)], assets: &Assets, level: u32) -> Result<()> {
        for found in assets.found.iter().filter(|found| !found.is_absent) {
            for (key, entry) in self.layers_of(found, assets, level) {
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

/// Puts a layer that is shared, and not here, where one is that is: behind the other assets'. It was made since there
/// would have been too many layers, so now there must be as many as there may be.
fn settle_shared(settled: &mut Vec<(LayerSpec, Locked)>, on: &Settling<'_>) -> Result<()> {
    let is_told_and_shared = |(spec, locked): &(LayerSpec, Locked)| {
        spec.told.is_some() && locked.key.as_ref().is_some_and(LayerKey::is_shared)
    };
    let Some(at) = settled.iter().position(is_told_and_shared) else { return Ok(()) };
    let shared = settled.remove(at);
    if on.base_layers + settled.len() + 1 != LAYER_LIMIT || settled.iter().any(is_told_and_shared) {
        let names = shared.1.key.iter().flat_map(|key| &key.assets).map(|asset| asset.path.as_str());
        let expected = shared.1.expected.unwrap_or_default();
        let why = "it shares a layer, as the locked image had too many, which this one would share otherwise";
        return Err(not_here(&names.collect::<Vec<_>>().join(", "), &expected, why));
    }
    let behind = settled.iter().rposition(|(spec, _)| spec.origin == Origin::Asset).map_or(0, |last| last + 1);
    settled.insert(behind, shared);
    Ok(())
}

fn not_here(name: &str, root: &Path, why: &str) -> Problem {
    Problem::usage(format!("asset `{name}` is not at `{}`, and {why}", root.display()))
        .help("build once where it is, and commit the lock; or fetch it")
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

/// The modes that [`key_of`] wrote down, by paths relative to `/`.
fn modes_of(key: &LayerKey) -> BTreeMap<PathBuf, u32> {
    let mode = |line: &String| {
        let (mode, path) = line.split_once(" /")?;
        Some((PathBuf::from(path), u32::from_str_radix(mode, 8).ok()?))
    };
    key.modes.iter().filter_map(mode).collect()
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
mod tests;
