//! Which entries share a layer: large files have one each, the rest of an asset shares one, the binary comes last.
//!
//! A pure function of the listed entries and the base's tree. The aim is that a change of one thing moves no other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::Origin;
use super::entries::{Content, Entry, ancestors};
use super::facts::{EntryKind, LayerFacts};
use super::gathered::Gathered;
use super::tree::Tree;
use crate::oci::{DiffId, Digest};
use crate::problem::{Problem, Result};

/// Files of this many bytes or more are layers of their own.
pub const OWN_LAYER_BYTES: u64 = 64 << 20;

/// ECR refuses images of about 300 layers, and Lambda wants a manifest under 25,400 bytes: some 120 layers.
pub const LAYER_LIMIT: usize = 100;

/// What one asset, or the binary, packs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// A name for people.
    pub name: String,
    /// Asset or binary.
    pub origin: Origin,
    /// Its entries, in any order; none where its files are not here.
    pub entries: Vec<Entry>,
    /// How many layers it is told to have where its files are not here; 0 where they are.
    pub told_layers: usize,
}

/// A layer to be made.
#[derive(Debug, Clone)]
pub struct LayerSpec {
    /// A name for people: the pack's, or the pack's and the file's.
    pub name: String,
    /// Asset or binary.
    pub origin: Origin,
    /// Its entries with all their ancestors, sorted by path.
    pub entries: Vec<Entry>,
    /// Which packs its entries are of, by their number: one, or several whose smallest layers share this one.
    pub packs: Vec<usize>,
    /// What it is, where its files are not here and somebody else found it out: then it cannot be made.
    pub told: Option<Told>,
    /// What was found in it, once somebody asked: of the entries as they are, so that others need another.
    pub(crate) inside: Gathered,
}

/// What a layer was when it was made, as the lock tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// The digest of the compressed bytes.
    pub digest: Digest,
    /// Compressed bytes.
    pub size: u64,
    /// Bytes of the tar.
    pub uncompressed_size: u64,
}

impl PartialEq for LayerSpec {
    /// Whether both make the same layer: the numbers of packs differ between images that share an asset.
    fn eq(&self, other: &Self) -> bool {
        let Self { name, origin, entries, packs: _, told, inside: _ } = self;
        (name, origin, entries, told) == (&other.name, &other.origin, &other.entries, &other.told)
    }
}

impl Eq for LayerSpec {}

/// What layers are called that small assets share.
pub const SHARED_NAME: &str = "small assets";

impl LayerSpec {
    /// A layer of these entries, which are of these packs.
    #[must_use]
    pub fn new(name: String, origin: Origin, entries: Vec<Entry>, packs: Vec<usize>) -> Self {
        Self { name, origin, entries, packs, told: None, inside: Gathered::default() }
    }

    /// The headers as they are going to be written, and what the first bytes of the sources say. Reads those once.
    #[must_use]
    pub fn facts(&self) -> &LayerFacts {
        self.inside.facts(&self.entries)
    }

    /// Bytes of its tar.
    #[must_use]
    pub fn tar_size(&self) -> u64 {
        self.told.map_or_else(|| self.inside.tar_size(&self.entries), |told| told.uncompressed_size)
    }

    fn content_bytes(&self) -> u64 {
        self.entries.iter().map(Entry::size).sum()
    }
}

/// Lays packs out in layers on top of a base of `base_layers` layers whose file system is `base`.
///
/// # Errors
/// When two sources have one path, one would replace something of the base's that must stay, or the base has so many
/// layers that ours do not fit.
pub fn plan(packs: Vec<Pack>, base: &Tree, base_layers: usize) -> Result<Vec<LayerSpec>> {
    check_conflicts(&packs)?;
    // What is not here has one layer in the plan, and others in the image.
    let elsewhere: usize = packs.iter().map(|pack| pack.told_layers.saturating_sub(1)).sum();
    let mut passed = HashSet::new();
    for pack in &packs {
        for entry in &pack.entries {
            check_against_base(entry, &pack.name, base, &mut passed)?;
        }
    }
    let mut layers: Vec<_> = packs.into_iter().enumerate().flat_map(|(number, pack)| split(number, pack)).collect();
    share_smallest(&mut layers, LAYER_LIMIT.saturating_sub(base_layers + elsewhere).max(1));
    refuse_too_many(base_layers, layers.len() + elsewhere)?;
    for layer in &mut layers {
        settle(layer, base);
    }
    Ok(layers)
}

/// Refuses an image of more layers than are taken, `own` of them on top of the base's.
fn refuse_too_many(base_layers: usize, own: usize) -> Result<()> {
    if base_layers + own <= LAYER_LIMIT {
        return Ok(());
    }
    Err(Problem::refused(format!(
        "the image would have {} layers, {base_layers} of them the base's; Lambda takes manifests of about {LAYER_LIMIT}",
        base_layers + own
    ))
    .help("choose a base of fewer layers, or squash this one: `podman build --squash-all`"))
}

/// Large files apart, the rest together, in the order of their paths.
fn split(number: usize, pack: Pack) -> Vec<LayerSpec> {
    let Pack { name, origin, entries, told_layers: _ } = pack;
    let packs = vec![number];
    if origin == Origin::Binary {
        return vec![LayerSpec::new(name, origin, entries, packs)];
    }
    let (mut large, rest): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.size() >= OWN_LAYER_BYTES);
    large.sort_by(|a, b| a.path_bytes().cmp(b.path_bytes()));
    let alone = rest.is_empty() && large.len() == 1;
    let top = common_directory(large.iter().chain(&rest));
    let own = |entry: Entry| {
        let below = entry.path.strip_prefix(&top).unwrap_or(&entry.path).to_string_lossy();
        let name = if alone || name == below { name.clone() } else { format!("{name}/{below}") };
        LayerSpec::new(name, origin, vec![entry], packs.clone())
    };
    let mut layers: Vec<_> = large.into_iter().map(own).collect();
    // Directories alone are no reason for a layer beside those of their files.
    if layers.is_empty()
        || rest.iter().any(|entry| !matches!(entry.content, Content::Directory { .. }))
        || has_empty_directory(&rest, &layers)
    {
        layers.push(LayerSpec::new(name, origin, rest, packs));
    }
    layers
}

/// The deepest directory that holds all entries, itself one of them or not: an asset's own, or that of its glob's
/// matches.
fn common_directory<'a>(entries: impl Iterator<Item = &'a Entry>) -> PathBuf {
    let directory = |entry: &'a Entry| {
        if is_directory(entry) { entry.path.as_path() } else { entry.path.parent().unwrap_or(Path::new("")) }
    };
    let shared = |one: &'a Path, other: &'a Path| {
        one.ancestors().find(|ancestor| other.starts_with(ancestor)).unwrap_or(Path::new(""))
    };
    entries.map(directory).reduce(shared).unwrap_or(Path::new("")).to_owned()
}

/// Whether a directory would be missing from the image if only the large files' layers were made.
fn has_empty_directory(rest: &[Entry], layers: &[LayerSpec]) -> bool {
    let made: BTreeSet<_> =
        layers.iter().flat_map(|layer| &layer.entries).flat_map(|entry| ancestors(&entry.path)).collect();
    rest.iter().any(|entry| !made.contains(entry.path.as_path()))
}

/// Merges the smallest asset layers into one behind the others, so that there are `limit` layers at most. What is not
/// here is what it is told to be.
fn share_smallest(layers: &mut Vec<LayerSpec>, limit: usize) {
    let can_share = |layer: &LayerSpec| layer.origin == Origin::Asset && !layer.entries.is_empty();
    let mut assets: Vec<_> = (0..layers.len()).filter(|index| can_share(&layers[*index])).collect();
    if layers.len() <= limit || assets.len() < 2 {
        return;
    }
    assets.sort_by_key(|index| (layers[*index].content_bytes(), *index));
    assets.truncate(layers.len() - limit + 1);
    assets.sort_unstable();
    let mut shared = LayerSpec::new(SHARED_NAME.to_owned(), Origin::Asset, Vec::new(), Vec::new());
    for index in assets.into_iter().rev() {
        let layer = layers.remove(index);
        shared.entries.extend(layer.entries);
        shared.packs.extend(layer.packs);
    }
    shared.packs.sort_unstable();
    shared.packs.dedup();
    let behind = layers.iter().rposition(|layer| layer.origin == Origin::Asset).map_or(0, |last| last + 1);
    layers.insert(behind, shared);
}

/// Adds every ancestor and sorts. A directory the base has keeps the base's mode.
fn settle(layer: &mut LayerSpec, base: &Tree) {
    let entries = std::mem::take(&mut layer.entries);
    let mut known: HashSet<&[u8]> = entries.iter().filter(|entry| is_directory(entry)).map(Entry::path_bytes).collect();
    let mut missing = Vec::new();
    for entry in &entries {
        // Where one is known, so are those above it.
        for parent in parents(entry.path_bytes()).take_while(|parent| known.insert(*parent)) {
            let path = PathBuf::from(OsStr::from_bytes(parent));
            missing.push(Entry { path, content: Content::Directory { mode: 0o755 } });
        }
    }
    layer.entries = entries;
    layer.entries.append(&mut missing);
    layer.entries.sort_unstable_by(|a, b| a.path_bytes().cmp(b.path_bytes()));
    // Only directories can be there twice.
    layer.entries.dedup_by(|a, b| a.path_bytes() == b.path_bytes());
    for entry in &mut layer.entries {
        if let Content::Directory { mode } = &mut entry.content
            && let Some(node) = base.at(&entry.path).filter(|node| node.kind == EntryKind::Directory)
        {
            *mode = node.mode;
        }
    }
}

fn is_directory(entry: &Entry) -> bool {
    matches!(entry.content, Content::Directory { .. })
}

/// The proper ancestors of a path in the image, innermost first.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let above = |path: &[u8]| path.iter().rposition(|byte| *byte == b'/');
    std::iter::successors(above(path).map(|slash| &path[..slash]), move |parent| {
        above(parent).map(|slash| &path[..slash])
    })
}

/// Refuses two sources of one path, and a path that is both a directory and something else.
fn check_conflicts(packs: &[Pack]) -> Result<()> {
    let all = || packs.iter().flat_map(|pack| pack.entries.iter().map(move |entry| (entry, pack.name.as_str())));
    let mut places: HashMap<&[u8], (&Entry, &str)> = HashMap::new();
    for (entry, name) in all() {
        if let Some((other, other_name)) = places.insert(entry.path_bytes(), (entry, name))
            && !(is_directory(entry) && is_directory(other))
        {
            return Err(conflict(&entry.path, other_name, name));
        }
    }
    let mut passed = HashSet::new();
    for (entry, name) in all() {
        for parent in parents(entry.path_bytes()).take_while(|parent| passed.insert(*parent)) {
            if let Some((other, other_name)) = places.get(parent).filter(|(other, _)| !is_directory(other)) {
                return Err(conflict(&other.path, other_name, name));
            }
        }
    }
    Ok(())
}

fn conflict(path: &Path, one: &str, other: &str) -> Problem {
    let sources = if one == other { format!("two sources within `{one}`") } else { format!("`{one}` and `{other}`") };
    Problem::usage(format!("`/{}` has two sources: {sources}", path.display()))
        .help("give one of them another destination, or exclude the file from one")
}

/// Refuses a layer that is told of, and not here, if it goes through a link of this base's or was made for directories
/// of other modes: `modes` are those it was made for, the others being 0755.
///
/// # Errors
/// When it does not fit: the base is another than it was made on.
pub fn fits_base(name: &str, destination: &Path, modes: &BTreeMap<PathBuf, u32>, base: &Tree) -> Result<()> {
    let known = ancestors(destination).chain(modes.keys().map(PathBuf::as_path));
    for directory in known {
        refuse_link(directory, name, base)?;
        let made_for = modes.get(directory).copied().unwrap_or(0o755);
        let node = base.at(directory).filter(|node| node.kind == EntryKind::Directory);
        if node.map_or(0o755, |node| node.mode) != made_for {
            return Err(Problem::usage(format!(
                "`{name}` was locked for a base with other permissions of `/{}`",
                directory.display()
            ))
            .help("build once where its files are, and commit the lock; or fetch them"));
        }
    }
    Ok(())
}

/// Refuses what would hide or replace a part of the base (an entry for `lib64/` takes a usr-merged base's loader away).
/// `passed` are the ancestors that were found to be in order before.
fn check_against_base<'a>(entry: &'a Entry, name: &str, base: &Tree, passed: &mut HashSet<&'a [u8]>) -> Result<()> {
    // The outermost link is the one that a message must name.
    let unknown: Vec<_> = parents(entry.path_bytes()).take_while(|parent| passed.insert(*parent)).collect();
    for ancestor in unknown.into_iter().rev().map(|parent| Path::new(OsStr::from_bytes(parent))) {
        refuse_link(ancestor, name, base)?;
        if base.at(ancestor).is_some_and(|node| node.kind != EntryKind::Directory) {
            return Err(Problem::usage(format!(
                "`{name}` has files below `/{}`, which is a file in the base image",
                ancestor.display()
            ))
            .help("choose another destination"));
        }
    }
    let Some(node) = base.at(&entry.path) else { return Ok(()) };
    match (&entry.content, node.kind) {
        (Content::Directory { .. }, EntryKind::Symlink) => refuse_link(&entry.path, name, base),
        (Content::Directory { .. }, kind) if kind != EntryKind::Directory => Err(Problem::usage(format!(
            "`{name}` would replace the file `/{}` of the base image by a directory",
            entry.path.display()
        ))
        .help("choose another destination")),
        (Content::File(_) | Content::Symlink(_), EntryKind::Directory) => Err(Problem::usage(format!(
            "`{name}` would replace the directory `/{}` of the base image by a file",
            entry.path.display()
        ))
        .help(format!("end the destination with `/` to put the file into it: `/{}/`", entry.path.display()))),
        _ => Ok(()),
    }
}

fn refuse_link(path: &Path, name: &str, base: &Tree) -> Result<()> {
    let Some(node) = base.at(path).filter(|node| node.kind == EntryKind::Symlink) else { return Ok(()) };
    let target = node.link.as_deref().unwrap_or_default();
    let real = if target.starts_with('/') {
        PathBuf::from(target)
    } else {
        Path::new("/").join(path.parent().unwrap_or(Path::new(""))).join(target)
    };
    Err(Problem::usage(format!(
        "`{name}` goes through `/{}`, which is a symlink to `{target}` in the base image",
        path.display()
    ))
    .help(format!("use the real path `{}` in the destination", real.display())))
}

#[cfg(test)]
mod tests;
