//! Which entries share a layer: large files have one each, the rest of an asset shares one, the binary comes last.
//!
//! A pure function of the listed entries and the base's tree. The aim is that a change of one thing moves no other.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::Origin;
use super::entries::{Content, Entry, ancestors};
use super::facts::{EntryKind, LayerFacts};
use super::gathered::Gathered;
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
    /// What was found in it, once somebody asked.
    inside: Gathered,
}

impl LayerSpec {
    /// A layer of these entries.
    #[must_use]
    pub fn new(name: String, origin: Origin, entries: Vec<Entry>) -> Self {
        Self { name, origin, entries, inside: Gathered::default() }
    }

    /// The headers as they are going to be written, and what the first bytes of the sources say. Reads those once.
    #[must_use]
    pub fn facts(&self) -> &LayerFacts {
        self.inside.facts(&self.entries)
    }

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
    let mut passed = HashSet::new();
    for pack in &packs {
        for entry in &pack.entries {
            check_against_base(entry, &pack.name, base, &mut passed)?;
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
        return vec![LayerSpec::new(name, origin, entries)];
    }
    let (mut large, rest): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.size() >= OWN_LAYER_BYTES);
    large.sort_by(|a, b| a.path_bytes().cmp(b.path_bytes()));
    let alone = rest.is_empty() && large.len() == 1;
    let own = |entry: Entry| {
        let file = entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = if alone || name == file { name.clone() } else { format!("{name}/{file}") };
        LayerSpec::new(name, origin, vec![entry])
    };
    let mut layers: Vec<_> = large.into_iter().map(own).collect();
    // Directories alone are no reason for a layer beside those of their files.
    if layers.is_empty()
        || rest.iter().any(|entry| !matches!(entry.content, Content::Directory { .. }))
        || has_empty_directory(&rest, &layers)
    {
        layers.push(LayerSpec::new(name, origin, rest));
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
mod tests {
    use super::super::entries::{Source, Stat};
    use super::super::facts::{EntryFacts, LayerFacts};
    use super::*;

    fn file(path: &str, size: u64) -> Entry {
        let stat = Stat { identity: (1, 2), size, modified: (3, 4), changed: (5, 6) };
        let source = Source { path: "x".into(), follow: false, executable: false, stat };
        Entry { path: path.into(), content: Content::File(source) }
    }

    fn directory(path: &str) -> Entry {
        Entry { path: path.into(), content: Content::Directory { mode: 0o755 } }
    }

    fn pack(name: &str, entries: Vec<Entry>) -> Pack {
        Pack { name: name.into(), origin: Origin::Asset, entries }
    }

    /// A usr-merged base.
    fn base() -> Tree {
        let node = |path: &str, kind, mode, link: Option<&str>| EntryFacts {
            path: path.into(),
            kind,
            mode,
            size: 0,
            link: link.map(str::to_owned),
            written: None,
        };
        let entries = vec![
            node("usr", EntryKind::Directory, 0o555, None),
            node("usr/lib64", EntryKind::Directory, 0o555, None),
            node("lib64", EntryKind::Symlink, 0o777, Some("usr/lib64")),
            node("var", EntryKind::Directory, 0o755, None),
            node("var/run", EntryKind::Symlink, 0o777, Some("/run")),
            node("tmp", EntryKind::Directory, 0o1777, None),
            node("etc", EntryKind::Directory, 0o755, None),
            node("etc/hosts", EntryKind::File, 0o640, None),
            node("etc/second", EntryKind::Hardlink, 0o640, Some("etc/hosts")),
        ];
        Tree::merge([&LayerFacts { entries, ..LayerFacts::default() }])
    }

    /// The layers' names with their paths; a directory with a mode of its own shows it.
    fn laid_out(layers: &[LayerSpec]) -> Vec<String> {
        let shown = |entry: &Entry| match entry.content {
            Content::Directory { mode: 0o755 } => format!("{}/", entry.path.display()),
            Content::Directory { mode } => format!("{}/ {mode:o}", entry.path.display()),
            _ => entry.path.display().to_string(),
        };
        let layer = |layer: &LayerSpec| layer.entries.iter().map(shown).collect::<Vec<_>>().join(", ");
        layers.iter().map(|spec| format!("{}: {}", spec.name, layer(spec))).collect()
    }

    #[test]
    fn large_files_have_their_own_layers_and_the_rest_shares_one() {
        let assets = vec![
            file("var/task/m/b.bin", OWN_LAYER_BYTES),
            directory("var/task/m"),
            file("var/task/m/small", OWN_LAYER_BYTES - 1),
            file("var/task/m/a.bin", OWN_LAYER_BYTES + 1),
            directory("var/task/m/empty"),
        ];
        let single = vec![file("var/task/db", OWN_LAYER_BYTES)];
        let held = vec![directory("var/task/h"), file("var/task/h/model", OWN_LAYER_BYTES)];
        let binary = Pack {
            name: "bin".into(),
            origin: Origin::Binary,
            entries: vec![file("var/runtime/bootstrap", OWN_LAYER_BYTES)],
        };
        let packs =
            vec![pack("m", assets), pack("db", single), pack("h", held), pack("e", vec![directory("opt/e")]), binary];
        assert_eq!(
            laid_out(&plan(packs, &Tree::default(), 4).expect("a plan")),
            [
                "m/a.bin: var/, var/task/, var/task/m/, var/task/m/a.bin",
                "m/b.bin: var/, var/task/, var/task/m/, var/task/m/b.bin",
                "m: var/, var/task/, var/task/m/, var/task/m/empty/, var/task/m/small",
                "db: var/, var/task/, var/task/db",
                "h/model: var/, var/task/, var/task/h/, var/task/h/model",
                "e: opt/, opt/e/",
                "bin: var/, var/runtime/, var/runtime/bootstrap",
            ]
        );
    }

    #[test]
    fn entries_are_sorted_by_bytes_whatever_order_they_came_in() {
        let mut entries = vec![file("a.b", 1), directory("a"), file("a/c", 1), file("a-b", 1), file("a/B", 1)];
        let expected = ["x: a/, a-b, a.b, a/B, a/c"];
        for _ in 0..entries.len() {
            entries.rotate_left(1);
            let layers = plan(vec![pack("x", entries.clone())], &Tree::default(), 0).expect("a plan");
            assert_eq!(laid_out(&layers), expected);
        }
    }

    #[test]
    fn directories_the_base_has_keep_its_modes() {
        let entries = vec![file("tmp/a", 1), file("usr/lib64/b", 1), file("usr/share/c", 1), directory("etc")];
        let layers = plan(vec![pack("x", entries)], &base(), 1).expect("a plan");
        let expected = "x: etc/, tmp/ 1777, tmp/a, usr/ 555, usr/lib64/ 555, usr/lib64/b, usr/share/, usr/share/c";
        assert_eq!(laid_out(&layers), [expected]);
    }

    #[test]
    fn what_would_replace_a_part_of_the_base_or_of_another_asset_is_refused() {
        let table = [
            (vec![file("a", 1), file("a", 1)], vec![], "`/a` has two sources: two sources within `one`"),
            (vec![file("a", 1)], vec![file("a", 1)], "`/a` has two sources: `one` and `two`"),
            (vec![directory("a")], vec![file("a", 1)], "`/a` has two sources: `one` and `two`"),
            (vec![file("a", 1)], vec![directory("a")], "`/a` has two sources: `one` and `two`"),
            (vec![file("a/b", 1)], vec![file("a", 1)], "`/a` has two sources: `two` and `one`"),
            (vec![file("a", 1)], vec![file("a/b/c", 1)], "`/a` has two sources: `one` and `two`"),
            (
                vec![file("lib64/x", 1)],
                vec![],
                "`one` goes through `/lib64`, which is a symlink to `usr/lib64` in the base image",
            ),
            (
                vec![directory("lib64")],
                vec![],
                "`one` goes through `/lib64`, which is a symlink to `usr/lib64` in the base image",
            ),
            (
                vec![file("var/run/a/b", 1)],
                vec![],
                "`one` goes through `/var/run`, which is a symlink to `/run` in the base image",
            ),
            (vec![file("etc", 1)], vec![], "`one` would replace the directory `/etc` of the base image by a file"),
            (
                vec![directory("etc/hosts")],
                vec![],
                "`one` would replace the file `/etc/hosts` of the base image by a directory",
            ),
            (
                vec![file("etc/hosts/x", 1)],
                vec![],
                "`one` has files below `/etc/hosts`, which is a file in the base image",
            ),
            (
                vec![file("etc/second/x", 1)],
                vec![],
                "`one` has files below `/etc/second`, which is a file in the base image",
            ),
        ];
        for (one, two, expected) in table {
            let problem = plan(vec![pack("one", one), pack("two", two)], &base(), 1).expect_err(expected);
            assert_eq!(problem.message(), expected);
            assert!(problem.next_step().is_some(), "{expected}");
        }
        let fine = vec![file("etc/hosts", 1), file("lib64", 1), directory("a"), file("a/b", 1)];
        assert!(plan(vec![pack("one", fine), pack("two", vec![directory("a")])], &base(), 1).is_ok());
    }

    #[test]
    fn past_a_hundred_layers_the_smallest_share_one() {
        let packs = |count: u64| {
            let one = |n| pack(&format!("p{n:03}"), vec![file(&format!("var/task/{n:03}"), 1000 - n)]);
            let mut packs: Vec<_> = (0..count).map(one).collect();
            packs.push(Pack { name: "bin".into(), origin: Origin::Binary, entries: vec![file("bootstrap", 0)] });
            packs
        };
        assert_eq!(plan(packs(94), &Tree::default(), 5).expect("a plan").len(), 95, "as many as there is room for");
        let layers = plan(packs(97), &Tree::default(), 5).expect("a plan");
        assert_eq!(layers.len(), 95);
        let (binary, assets) = layers.split_last().expect("layers");
        assert_eq!((binary.name.as_str(), binary.entries.len()), ("bin", 1));
        let (shared, own) = assets.split_last().expect("layers");
        assert_eq!(own.iter().map(|layer| layer.name.as_str()).next_back(), Some("p092"));
        let expected = "small assets: var/, var/task/, var/task/093, var/task/094, var/task/095, var/task/096";
        assert_eq!(laid_out(std::slice::from_ref(shared)), [expected]);
        assert_eq!(plan(packs(3), &Tree::default(), 200).expect("a plan").len(), 2, "the binary never shares");
    }
}
