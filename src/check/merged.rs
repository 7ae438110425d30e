//! The file system a function sees: the layers' headers merged, and what is known of the inside of the files in it.

use std::collections::HashMap;

use super::findings::Place;
use super::image::{ImageFacts, LayerSource};
use crate::layer::elf::ElfFacts;
use crate::layer::facts::{EntryKind, Inside};
use crate::layer::tree::{Node, Tree};

/// How many hard links in a row are followed.
const MOST_LINKS: usize = 8;

/// The merged file system.
pub(super) struct Merged<'a> {
    pub(super) tree: Tree,
    elf: HashMap<(usize, &'a str), &'a ElfFacts>,
    inside: Vec<(&'a str, &'a Inside)>,
    /// Whether every layer was read, so that what is not here is nowhere.
    pub(super) is_whole: bool,
    /// The numbers of the layers that were read: the tree counts those only.
    numbers: Vec<usize>,
}

impl<'a> Merged<'a> {
    pub(super) fn new(image: &'a ImageFacts) -> Self {
        let read = image.layers.iter().enumerate().filter_map(|(number, layer)| Some((number, layer.facts()?)));
        let (numbers, layers): (Vec<_>, Vec<_>) = read.unzip();
        let tree = Tree::merge(layers.iter().copied());
        let mut elf = HashMap::new();
        let mut inside = Vec::new();
        for (number, facts) in layers.into_iter().enumerate() {
            elf.extend(facts.elf.iter().map(|(path, elf)| ((number, path.as_str()), elf)));
            let is_seen = |path: &str| tree.get(path).is_some_and(|node| node.layer == number);
            inside.extend(facts.inside.iter().map(|(path, inside)| (path.as_str(), inside)).filter(|it| is_seen(it.0)));
        }
        let is_whole = image.layers.iter().all(|layer: &LayerSource| layer.facts().is_some());
        Self { tree, elf, inside, is_whole, numbers }
    }

    /// What is known of the inside of files that are to be seen, by path.
    pub(super) fn inside(&self) -> impl Iterator<Item = (&'a str, &'a Inside)> {
        self.inside.iter().copied()
    }

    /// What is known of the inside of one file.
    pub(super) fn inside_of(&self, path: &str) -> impl Iterator<Item = &'a Inside> {
        self.inside().filter(move |(other, _)| *other == path).map(|(_, inside)| inside)
    }

    /// The file that `path` leads to through links, by its own path.
    pub(super) fn file(&self, path: &str) -> Option<(String, &Node)> {
        let mut path = self.tree.resolve(path)?;
        for _ in 0..MOST_LINKS {
            let node = self.tree.get(&path)?;
            match (node.kind, &node.link) {
                (EntryKind::Hardlink, Some(target)) => {
                    path = target.trim_start_matches("./").trim_start_matches('/').to_owned();
                }
                (EntryKind::File | EntryKind::Sparse, _) => return Some((path, node)),
                _ => return None,
            }
        }
        None
    }

    /// The facts of the ELF file at a resolved path.
    pub(super) fn elf(&self, path: &str) -> Option<&'a ElfFacts> {
        let node = self.tree.get(path)?;
        self.elf.get(&(node.layer, path)).copied()
    }

    /// All ELF files that are to be seen, by path.
    pub(super) fn programs(&self) -> impl Iterator<Item = (&'a str, &'a ElfFacts)> {
        let seen = |number: usize, path: &str| self.tree.get(path).is_some_and(|node| node.layer == number);
        let mut all: Vec<_> = self.elf.iter().filter(|((number, path), _)| seen(*number, path)).collect();
        all.sort_unstable_by_key(|((_, path), _)| *path);
        all.into_iter().map(|((_, path), elf)| (*path, *elf))
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
