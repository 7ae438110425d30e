//! Which entries share a layer: large files have one each, the rest of an asset shares one, the binary comes last.
//!
//! A pure function of the listed entries and the base's tree. The aim is that a change of one thing moves no other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Origin;
use super::entries::{Content, Entry, ancestors};
use super::facts::EntryKind;
use super::tree::Tree;
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
    /// Its entries, in any order.
    pub entries: Vec<Entry>,
}

/// A layer to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSpec {
    /// A name for people: the pack's, or the pack's and the file's.
    pub name: String,
    /// Asset or binary.
    pub origin: Origin,
    /// Its entries with all their ancestors, sorted by path.
    pub entries: Vec<Entry>,
}

impl LayerSpec {
    fn content_bytes(&self) -> u64 {
        self.entries.iter().map(Entry::size).sum()
    }
}

/// Lays packs out in layers on top of a base of `base_layers` layers whose file system is `base`.
///
/// # Errors
/// When two sources have one path, or one would replace something of the base's that must stay.
pub fn plan(packs: Vec<Pack>, base: &Tree, base_layers: usize) -> Result<Vec<LayerSpec>> {
    check_conflicts(&packs)?;
    for pack in &packs {
        for entry in &pack.entries {
            check_against_base(entry, &pack.name, base)?;
        }
    }
    let mut layers: Vec<_> = packs.into_iter().flat_map(split).collect();
    share_smallest(&mut layers, LAYER_LIMIT.saturating_sub(base_layers).max(1));
    for layer in &mut layers {
        settle(layer, base);
    }
    Ok(layers)
}

/// Large files apart, the rest together, in the order of their paths.
fn split(pack: Pack) -> Vec<LayerSpec> {
    let Pack { name, origin, entries } = pack;
    if origin == Origin::Binary {
        return vec![LayerSpec { name, origin, entries }];
    }
    let (mut large, rest): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.size() >= OWN_LAYER_BYTES);
    large.sort_by(|a, b| a.path_bytes().cmp(b.path_bytes()));
    let alone = rest.is_empty() && large.len() == 1;
    let own = |entry: Entry| {
        let file = entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = if alone || name == file { name.clone() } else { format!("{name}/{file}") };
        LayerSpec { name, origin, entries: vec![entry] }
    };
    let mut layers: Vec<_> = large.into_iter().map(own).collect();
    // Directories alone are no reason for a layer beside those of their files.
    if layers.is_empty()
        || rest.iter().any(|entry| !matches!(entry.content, Content::Directory { .. }))
        || has_empty_directory(&rest, &layers)
    {
        layers.push(LayerSpec { name, origin, entries: rest });
    }
    layers
}

/// Whether a directory would be missing from the image if only the large files' layers were made.
fn has_empty_directory(rest: &[Entry], layers: &[LayerSpec]) -> bool {
    let made: BTreeSet<_> =
        layers.iter().flat_map(|layer| &layer.entries).flat_map(|entry| ancestors(&entry.path)).collect();
    rest.iter().any(|entry| !made.contains(entry.path.as_path()))
}

/// Merges the smallest asset layers until there are `limit` layers at most.
fn share_smallest(layers: &mut Vec<LayerSpec>, limit: usize) {
    while layers.len() > limit {
        let mut assets: Vec<_> = (0..layers.len()).filter(|index| layers[*index].origin == Origin::Asset).collect();
        if assets.len() < 2 {
            return;
        }
        let excess = layers.len() - limit + 1;
        assets.sort_by_key(|index| (layers[*index].content_bytes(), *index));
        let mut merged: Vec<_> = assets.into_iter().take(excess).collect();
        merged.sort_unstable();
        let first = merged[0];
        for index in merged.into_iter().skip(1).rev() {
            let layer = layers.remove(index);
            layers[first].entries.extend(layer.entries);
        }
        layers[first].name = "small assets".to_owned();
    }
}

/// Adds every ancestor and sorts. An ancestor the base has keeps the base's mode.
fn settle(layer: &mut LayerSpec, base: &Tree) {
    let mut entries: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
    for entry in std::mem::take(&mut layer.entries) {
        for ancestor in ancestors(&entry.path) {
            let directory = Entry { path: ancestor.to_owned(), content: Content::Directory { mode: 0o755 } };
            entries.entry(directory.path_bytes().to_vec()).or_insert(directory);
        }
        entries.insert(entry.path_bytes().to_vec(), entry);
    }
    layer.entries = entries.into_values().collect();
    for entry in &mut layer.entries {
        if let Content::Directory { mode } = &mut entry.content
            && let Some(node) = base.at(&entry.path).filter(|node| node.kind == EntryKind::Directory)
        {
            *mode = node.mode;
        }
    }
}

/// Refuses two sources of one path, and a path that is both a directory and something else.
fn check_conflicts(packs: &[Pack]) -> Result<()> {
    let mut places: BTreeMap<&Path, (&str, &Content)> = BTreeMap::new();
    let mut directories: BTreeMap<PathBuf, &str> = BTreeMap::new();
    for pack in packs {
        for entry in &pack.entries {
            let directory = matches!(entry.content, Content::Directory { .. });
            if let Some((other, content)) = places.insert(&entry.path, (&pack.name, &entry.content))
                && !(directory && matches!(content, Content::Directory { .. }))
            {
                return Err(conflict(&entry.path, other, &pack.name));
            }
            for ancestor in ancestors(&entry.path) {
                directories.entry(ancestor.to_owned()).or_insert(&pack.name);
            }
        }
    }
    for (path, (name, content)) in &places {
        if !matches!(content, Content::Directory { .. })
            && let Some(other) = directories.get(*path)
        {
            return Err(conflict(path, name, other));
        }
    }
    Ok(())
}

fn conflict(path: &Path, one: &str, other: &str) -> Problem {
    let sources = if one == other { format!("two sources within `{one}`") } else { format!("`{one}` and `{other}`") };
    Problem::usage(format!("`/{}` has two sources: {sources}", path.display()))
        .help("give one of them another destination, or exclude the file from one")
}

/// Refuses what would hide or replace a part of the base (an entry for `lib64/` takes a usr-merged base's loader away).
fn check_against_base(entry: &Entry, name: &str, base: &Tree) -> Result<()> {
    for ancestor in ancestors(&entry.path) {
        refuse_link(ancestor, name, base)?;
        if base.at(ancestor).is_some_and(|node| !matches!(node.kind, EntryKind::Directory | EntryKind::Symlink)) {
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
