//! The base image's file system as its layers' headers tell it, for the few questions its guests must ask: is there a
//! directory, what mode has it, is a parent a symlink.

use std::collections::BTreeMap;
use std::path::Path;

use super::facts::{EntryFacts, EntryKind, LayerFacts};

/// Lambda's own directories: of code, of the runtime, of extensions.
const TASK: &str = "var/task";
const RUNTIME: &str = "var/runtime";
const OPT: &str = "opt";

/// Whether a path in the image lies below one of Lambda's own directories.
#[must_use]
pub fn is_lambdas_own(path: &Path) -> bool {
    [TASK, RUNTIME, OPT].iter().any(|own| path.starts_with(own))
}

/// A merged file system of headers; whiteouts are honoured (image-spec, layer.md).
#[derive(Debug, Default, Clone)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
    /// How often links were followed to where an entry belongs.
    ways: usize,
}

/// One path of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: EntryKind,
    /// The permission bits.
    pub mode: u32,
    /// Bytes of content.
    pub size: u64,
    /// What a symbolic link points to.
    pub link: Option<String>,
    /// The number of the layer that has it, the lowest being 0.
    pub layer: usize,
    /// The entry with its content, by layer and path, where that is another one: of a hard link, and of what was
    /// written through a link to a directory.
    content: Option<Box<(usize, String)>>,
}

impl Node {
    /// The entry with its content, where that is another one than at its own path: its layer, and its path there.
    #[must_use]
    pub fn elsewhere(&self) -> Option<(usize, &str)> {
        self.content.as_deref().map(|(layer, path)| (*layer, path.as_str()))
    }
}

/// How many links in a row are followed, as Linux does (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// How many parts of paths are followed on the way to one file: real ones have a few dozen, links included, and a
/// damaged image has a million files.
const MOST_PARTS: usize = 1024;

/// For how many directories below links it is asked where entries belong; what is in more stays at its own path. Real
/// images have a few, and each may be as long a way as [`MOST_PARTS`].
const MOST_WAYS: usize = 50_000;

/// How many directories above one entry are looked at for links.
const MOST_PARENTS: usize = 256;

impl Tree {
    /// Merges layers, lowest first.
    #[must_use]
    pub fn merge<'a>(layers: impl IntoIterator<Item = &'a LayerFacts>) -> Self {
        let mut tree = Self::default();
        for (number, layer) in layers.into_iter().enumerate() {
            tree.stack(layer, number);
        }
        tree
    }

    /// Puts a layer on top of those that are there.
    pub fn stack(&mut self, layer: &LayerFacts, number: usize) {
        // A layer's whiteouts hide what is below it, wherever they stand in it.
        for entry in &layer.entries {
            self.white_out(&entry.path);
        }
        // Entries of one directory follow one another, and few are below a link.
        let mut known: Option<(&str, Option<String>)> = None;
        for entry in &layer.entries {
            let name = name_of(&entry.path);
            if entry.path.is_empty() || name.starts_with(".wh.") {
                continue;
            }
            let parent = parent_of(&entry.path);
            let (_, leads_to) = match known.take() {
                Some(known) if known.0 == parent => known,
                _ => (parent, self.directory_through_links(&entry.path)),
            };
            let path = leads_to.as_deref().map(|directory| join(directory, name));
            if !self.add(entry, path, number) {
                known = Some((parent, leads_to));
            }
        }
    }

    /// What is at a path without following links.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The entry that has the content of what is at a path: its layer, and its path there.
    #[must_use]
    pub fn content<'t>(&'t self, path: &'t str) -> Option<(usize, &'t str)> {
        let node = self.get(path)?;
        Some(node.elsewhere().unwrap_or((node.layer, path)))
    }

    /// What is at a path without following links; paths that are no UTF-8 are never found.
    #[must_use]
    pub fn at(&self, path: &Path) -> Option<&Node> {
        self.get(path.to_str()?)
    }

    /// All paths with what is there, in their order.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Whether a path is a directory, with an entry of its own or without.
    #[must_use]
    pub fn is_directory(&self, path: &str) -> bool {
        match self.get(path) {
            Some(node) => node.kind == EntryKind::Directory,
            None => {
                let prefix = format!("{path}/");
                path.is_empty()
                    || self.nodes.range(prefix.clone()..).next().is_some_and(|(p, _)| p.starts_with(&prefix))
            }
        }
    }

    /// The path without links that `path`, counted from the root, leads to; `None` if it leads nowhere. Nothing leads
    /// out of the root.
    #[must_use]
    pub fn resolve(&self, path: &str) -> Option<String> {
        let mut open: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut at = String::new();
        let (mut links, mut parts) = (0, 0);
        while let Some(part) = open.pop() {
            parts += 1;
            if parts + open.len() > MOST_PARTS {
                return None;
            }
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    at.truncate(at.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            if !self.is_directory(&at) {
                return None;
            }
            let next = if at.is_empty() { part } else { format!("{at}/{part}") };
            match self.get(&next) {
                Some(Node { kind: EntryKind::Symlink, link: Some(target), .. }) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return None;
                    }
                    if target.starts_with('/') {
                        at.clear();
                    }
                    open.extend(target.split('/').rev().map(str::to_owned));
                }
                Some(_) => at = next,
                None if self.is_directory(&next) => at = next,
                None => return None,
            }
        }
        Some(at)
    }

    /// Whether nothing of the base can be in the way of what goes below Lambda's own directories: they are plain ones
    /// or not there, and empty; in that of the runtime there may be plain files.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        let is_plain = |node: &Node| node.kind == EntryKind::Directory && node.mode == 0o755;
        let inside = |directory: &str| {
            let prefix = format!("{directory}/");
            let from = self.nodes.range(prefix.clone()..);
            from.take_while(move |(path, _)| path.starts_with(&prefix)).map(|(_, node)| node)
        };
        ["var", TASK, RUNTIME, OPT].iter().all(|path| self.get(path).is_none_or(is_plain))
            && inside(TASK).chain(inside(OPT)).next().is_none()
            && inside(RUNTIME).all(|node| is_plain(node) || node.kind == EntryKind::File)
    }

    fn white_out(&mut self, path: &str) {
        let Some(hidden) = name_of(path).strip_prefix(".wh.").filter(|hidden| !hidden.is_empty()) else { return };
        let through = self.directory_through_links(path);
        let parent = through.as_deref().unwrap_or_else(|| parent_of(path));
        if hidden == ".wh..opq" {
            self.remove_below(parent);
        } else {
            let hidden = join(parent, hidden);
            self.nodes.remove(&hidden);
            self.remove_below(&hidden);
        }
    }

    /// Adds an entry at its path, or at the one that links lead to; whether it is a link itself.
    fn add(&mut self, entry: &EntryFacts, through: Option<String>, layer: usize) -> bool {
        let content = through.is_some().then(|| Box::new((layer, entry.path.clone())));
        let path = through.unwrap_or_else(|| entry.path.clone());
        let EntryFacts { kind, mode, size, ref link, .. } = *entry;
        let mut node = Node { kind, mode, size, link: link.clone(), layer, content };
        if kind == EntryKind::Hardlink
            && let Some(target) = self.linked_path(link.as_deref().unwrap_or_default())
            && let Some(linked) = self.get(&target)
        {
            let content = self.content(&target).map(|(layer, path)| Box::new((layer, path.to_owned())));
            node = Node { mode, layer, content, ..linked.clone() };
        }
        if kind != EntryKind::Directory {
            self.remove_below(&path);
        }
        let is_link = node.kind == EntryKind::Symlink;
        self.nodes.insert(path, node);
        is_link
    }

    fn is_below_a_link(&self, path: &str) -> bool {
        let mut parents = path.match_indices('/').map(|(at, _)| &path[..at]).take(MOST_PARENTS);
        parents.any(|parent| self.get(parent).is_some_and(|node| node.kind == EntryKind::Symlink))
    }

    /// The directory into which unpackers write `path`, where that is below a link: they follow those above it, within
    /// the image. `None` where they lead nowhere.
    fn directory_through_links(&mut self, path: &str) -> Option<String> {
        if !self.is_below_a_link(path) || self.ways == MOST_WAYS {
            return None;
        }
        self.ways += 1;
        self.resolve(parent_of(path))
    }

    /// The path of what a hard link names, which may be below a link itself.
    fn linked_path(&mut self, path: &str) -> Option<String> {
        let path = path.trim_start_matches("./").trim_matches('/');
        if self.get(path).is_some() {
            return Some(path.to_owned());
        }
        self.directory_through_links(path).map(|directory| join(&directory, name_of(path)))
    }

    fn remove_below(&mut self, path: &str) {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let below: Vec<_> = self
            .nodes
            .range(prefix.clone()..)
            .map(|(path, _)| path.clone())
            .take_while(|p| p.starts_with(&prefix))
            .collect();
        for path in below {
            self.nodes.remove(&path);
        }
    }
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(entries: &[(&str, EntryKind)]) -> LayerFacts {
        let entry = |(path, kind): &(&str, EntryKind)| EntryFacts {
            path: (*path).into(),
            kind: *kind,
            mode: 0o755,
            size: 0,
            link: None,
            written: None,
        };
        LayerFacts { entries: entries.iter().map(entry).collect(), ..LayerFacts::default() }
    }

    #[test]
    fn later_layers_replace_and_whiteouts_hide() {
        use EntryKind::{Directory, File, Symlink};
        let tree = Tree::merge([
            &layer(&[("a", Directory), ("a/x", File), ("a/y", File), ("ab", File), ("b", Directory), ("b/z", File)]),
            &layer(&[
                (".wh.", File),
                ("a/.wh.x", File),
                ("b", Symlink),
                ("c", Directory),
                ("c/.wh..wh..opq", File),
                ("c/n", File),
            ]),
        ]);
        let paths: Vec<_> = tree.nodes.keys().map(String::as_str).collect();
        assert_eq!(paths, ["a", "a/y", "ab", "b", "c", "c/n"]);
        assert_eq!(tree.get("b").map(|node| node.kind), Some(Symlink));
    }

    #[test]
    fn links_are_followed_within_the_root() {
        use EntryKind::{Directory, File, Symlink};
        let mut facts = layer(&[
            ("usr", Directory),
            ("usr/lib64", Directory),
            ("usr/lib64/libc.so.6", File),
            ("lib64", Symlink),
            ("out", Symlink),
            ("loop", Symlink),
            ("implicit/file", File),
        ]);
        for (at, link) in [(3, "usr/lib64"), (4, "../../usr"), (5, "loop")] {
            facts.entries[at].link = Some(link.into());
        }
        let tree = Tree::merge([&facts]);
        for (path, found) in [
            ("/lib64/libc.so.6", Some("usr/lib64/libc.so.6")),
            ("usr/../lib64/./libc.so.6", Some("usr/lib64/libc.so.6")),
            ("out/lib64", Some("usr/lib64")),
            ("implicit", Some("implicit")),
            ("implicit/file", Some("implicit/file")),
            ("implicit/file/more", None),
            ("/", Some("")),
            ("lib64/none", None),
            ("loop", None),
        ] {
            assert_eq!(tree.resolve(path).as_deref(), found, "{path}");
        }
    }

    #[test]
    fn what_is_written_through_a_link_is_where_the_link_leads() {
        use EntryKind::{Directory, File, Symlink};
        let mut base = layer(&[
            ("usr", Directory),
            ("usr/lib64", Directory),
            ("usr/lib64/gone", File),
            ("lib64", Symlink),
            ("nowhere", Symlink),
        ]);
        base.entries[3].link = Some("usr/lib64".into());
        base.entries[4].link = Some("none".into());
        let above = layer(&[("lib64/.wh.gone", File), ("lib64/a.so", File), ("lib64/b.so", File), ("nowhere/x", File)]);
        let tree = Tree::merge([&base, &above]);
        let paths: Vec<_> = tree.nodes.keys().map(String::as_str).collect();
        assert_eq!(paths, ["lib64", "nowhere", "nowhere/x", "usr", "usr/lib64", "usr/lib64/a.so", "usr/lib64/b.so"]);
        assert_eq!(tree.resolve("lib64/b.so").as_deref(), Some("usr/lib64/b.so"));
        assert_eq!(tree.content("usr/lib64/b.so"), Some((1, "lib64/b.so")));
        assert_eq!(tree.content("usr/lib64"), Some((0, "usr/lib64")));
    }

    #[test]
    fn links_are_followed_to_a_number_of_directories_that_is_bounded() {
        use EntryKind::{Directory, File, Symlink};
        let directories = (0..=MOST_WAYS).map(|number| (format!("d/{number}"), Directory));
        let files = (0..=MOST_WAYS).flat_map(|number| ["a", "b"].map(|name| (format!("l/{number}/{name}"), File)));
        let all: Vec<_> = directories.chain([("l".to_owned(), Symlink)]).chain(files).collect();
        let all: Vec<_> = all.iter().map(|(path, kind)| (path.as_str(), *kind)).collect();
        let mut facts = layer(&all);
        facts.entries[MOST_WAYS + 1].link = Some("d".into());
        let tree = Tree::merge([&facts]);
        let (within, beyond) = (MOST_WAYS - 1, MOST_WAYS);
        for path in [format!("d/{within}/a"), format!("d/{within}/b"), format!("l/{beyond}/a")] {
            assert!(tree.get(&path).is_some(), "{path}");
        }
        assert_eq!(tree.get(&format!("d/{beyond}/a")), None);
    }

    #[test]
    fn a_hard_link_stays_when_the_name_it_was_made_by_goes() {
        use EntryKind::{Directory, File, Hardlink, Symlink};
        let mut base = layer(&[
            ("bin", Directory),
            ("bin/perl", File),
            ("bin/perl5", Hardlink),
            ("sbin", Symlink),
            ("perl", Hardlink),
            ("dangling", Hardlink),
        ]);
        for (at, link) in [(2, "./bin/perl"), (3, "bin"), (4, "sbin/perl"), (5, "none")] {
            base.entries[at].link = Some(link.into());
        }
        base.entries[1].size = 7;
        let tree = Tree::merge([&base, &layer(&[("bin/.wh.perl", File)])]);
        for path in ["bin/perl5", "perl"] {
            let node = tree.get(path).expect("there");
            assert_eq!((node.kind, node.size, tree.content(path)), (File, 7, Some((0, "bin/perl"))), "{path}");
        }
        assert_eq!(tree.get("dangling").map(|node| node.kind), Some(Hardlink));
    }

    #[test]
    fn a_base_is_usual_unless_something_is_in_the_way() {
        use EntryKind::{Directory, File, Symlink};
        for (entries, usual) in [
            (&[][..], true),
            (&[("var", Directory), ("var/task", Directory), ("opt", Directory), ("lib64", Symlink)], true),
            (&[("var/runtime", Directory), ("var/runtime/bootstrap", File), ("var/runtime/a", Directory)], true),
            (&[("var", Symlink)], false),
            (&[("opt", File)], false),
            (&[("var/task/index.js", File)], false),
            (&[("opt/lib", Directory)], false),
            (&[("var/runtime/lib", Symlink)], false),
            (&[("optional/x", File), ("var/tasks", Symlink)], true),
        ] {
            assert_eq!(Tree::merge([&layer(entries)]).is_usual(), usual, "{entries:?}");
        }
        let mut private = layer(&[("var/task", Directory)]);
        private.entries[0].mode = 0o700;
        assert!(!Tree::merge([&private]).is_usual());
    }
}
