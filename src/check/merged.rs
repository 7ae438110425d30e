//! The file system a function sees: the layers' headers merged, and what is known of the inside of the files in it.

use std::collections::{HashMap, HashSet};

use super::findings::Place;
use super::image::{ImageFacts, LayerSource};
use crate::layer::elf::ElfFacts;
use crate::layer::facts::{EntryKind, Inside};
use crate::layer::tree::{Node, Tree};

/// The merged file system.
pub(super) struct Merged<'a> {
    pub(super) tree: Tree,
    /// What is known of entries' insides, by layer and path of the entry.
    elf: HashMap<(usize, &'a str), &'a ElfFacts>,
    inside: Vec<((usize, &'a str), &'a Inside)>,
    /// The number of the highest layer that was not read.
    last_unread: Option<usize>,
    /// The numbers of the layers that were read: the tree counts those only.
    numbers: Vec<usize>,
}

impl<'a> Merged<'a> {
    pub(super) fn new(image: &'a ImageFacts) -> Self {
        let read = image.layers.iter().enumerate().filter_map(|(number, layer)| Some((number, layer.facts()?)));
        let (numbers, layers): (Vec<_>, Vec<_>) = read.unzip();
        let tree = Tree::merge(layers.iter().copied());
        // Hard links, and what was written through links: their entries have other paths than they have.
        let elsewhere: HashSet<(usize, &str)> = tree.nodes().filter_map(|(_, node)| node.elsewhere()).collect();
        let is_seen = |entry: (usize, &str)| tree.content(entry.1) == Some(entry) || elsewhere.contains(&entry);
        let (mut elf, mut inside) = (HashMap::new(), Vec::new());
        for (number, facts) in layers.into_iter().enumerate() {
            elf.extend(facts.elf.iter().map(|(path, elf)| ((number, path.as_str()), elf)).filter(|it| is_seen(it.0)));
            inside
                .extend(facts.inside.iter().map(|(path, it)| ((number, path.as_str()), it)).filter(|it| is_seen(it.0)));
        }
        let last_unread = image.layers.iter().rposition(|layer: &LayerSource| layer.facts().is_none());
        Self { tree, elf, inside, last_unread, numbers }
    }

    /// Whether every layer was read, so that what is not here is nowhere.
    pub(super) fn is_whole(&self) -> bool {
        self.last_unread.is_none()
    }

    /// Whether nothing else can be at a path: no layer that was not read is above what is there.
    pub(super) fn is_settled(&self, path: &str) -> bool {
        let is_above = |unread| {
            let layer = self.tree.get(path.trim_matches('/')).and_then(|node| self.numbers.get(node.layer));
            layer.is_some_and(|layer| *layer > unread)
        };
        self.last_unread.is_none_or(is_above)
    }

    /// What is known of the inside of files that are to be seen, by path.
    pub(super) fn inside(&self) -> impl Iterator<Item = (&'a str, &'a Inside)> {
        self.inside.iter().map(|((_, path), inside)| (*path, *inside))
    }

    /// What is known of the inside of one file.
    pub(super) fn inside_of<'m>(&'m self, path: &'m str) -> impl Iterator<Item = &'a Inside> + use<'a, 'm> {
        let entry = self.tree.content(path);
        self.inside.iter().filter(move |(other, _)| Some(*other) == entry).map(|(_, inside)| *inside)
    }

    /// The file that `path` leads to through links, by its own path.
    pub(super) fn file(&self, path: &str) -> Option<(String, &Node)> {
        let path = self.tree.resolve(path)?;
        let node = self.tree.get(&path)?;
        matches!(node.kind, EntryKind::File | EntryKind::Sparse).then_some((path, node))
    }

    /// The facts of the ELF file at a resolved path.
    pub(super) fn elf(&self, path: &str) -> Option<&'a ElfFacts> {
        self.elf.get(&self.tree.content(path)?).copied()
    }

    /// All ELF files that are to be seen, by path.
    pub(super) fn programs(&self) -> impl Iterator<Item = (&'a str, &'a ElfFacts)> {
        let mut all: Vec<_> = self.elf.iter().collect();
        all.sort_unstable_by_key(|((_, path), _)| *path);
        all.into_iter().map(|((_, path), elf)| (*path, *elf))
    }

    /// Whether what is at a path in the layer of this number is what is to be seen there.
    pub(super) fn shows(&self, layer: usize, path: &str) -> bool {
        self.tree.get(path).is_some_and(|node| self.numbers.get(node.layer) == Some(&layer))
    }

    /// The first directory above a resolved path that others may not enter.
    pub(super) fn closed_directory<'p>(&self, path: &'p str) -> Option<&'p str> {
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        parents.into_iter().find(|parent| self.tree.get(parent).is_some_and(|node| node.mode & 0o001 == 0))
    }

    /// The place of a path that is to be seen.
    pub(super) fn place(&self, path: &str) -> Place {
        match self.tree.get(path).and_then(|node| self.numbers.get(node.layer)) {
            Some(number) => Place::file(*number, path),
            None => Place::path(path),
        }
    }
}
