//! Rules about each layer's tar: what Lambda's unpacker is stricter about than Docker's.

use std::collections::{HashMap, HashSet};

use super::findings::{Findings, Place, shown};
use super::image::{Content, ImageFacts, LayerSource};
use super::merged::Merged;
use super::rules::{self, Rule};
use crate::layer::facts::{EntryFacts, EntryKind, LayerFacts};
use crate::layer::tree::Tree;

/// Where a function's own files are, besides WORKDIR: what is not readable there was meant to be.
const OF_THE_FUNCTION: [&str; 3] = ["var/task", "var/runtime", "opt"];

/// Where a system keeps its own: a WORKDIR that is one of them tells nothing of the function.
pub(super) const OF_THE_SYSTEM: [&str; 9] =
    ["usr", "etc", "lib", "lib64", "bin", "sbin", "var/lang", "var/lib", "proc"];

/// How many directories without an entry are looked for in one layer.
const MOST_MISSING: usize = 10_000;

/// Whether a path is, or is below, a directory.
pub(super) fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Where the files of one image's function are.
pub(super) struct Own<'a> {
    working_directory: Option<&'a str>,
}

impl<'a> Own<'a> {
    pub(super) fn of(image: &'a ImageFacts) -> Self {
        let directory = image.working_directory().trim_matches('/');
        let is_own = !directory.is_empty() && directory != "var" && !OF_THE_SYSTEM.contains(&directory);
        Self { working_directory: is_own.then_some(directory) }
    }

    /// Whether a path is one of them.
    pub(super) fn has(&self, path: &str) -> bool {
        OF_THE_FUNCTION.into_iter().chain(self.working_directory).any(|directory| is_below(path, directory))
    }
}

pub(super) fn check(image: &ImageFacts, merged: &Merged<'_>, findings: &mut Findings<'_>) {
    let own = Own::of(image);
    for (number, layer) in image.layers.iter().enumerate() {
        let Content::Read { facts, gzip, .. } = &layer.content else { continue };
        entries(number, facts, &own, findings);
        // What a later layer replaces or takes away is nobody's trouble.
        let seen = facts.entries.iter().filter(|it| own.has(&it.path) && merged.shows(number, &it.path));
        seen.for_each(|entry| modes(entry, number, findings));
        if facts.trailing_bytes > 0 {
            let message = format!("{} bytes follow the end of the tar", facts.trailing_bytes);
            findings.add(rules::TRAILING, Place::layer(number), message);
        }
        let Some(gzip) = gzip else { continue };
        if gzip.trailing_bytes > 0 {
            let message = format!("{} bytes follow the end of the gzip stream", gzip.trailing_bytes);
            findings.add(rules::TRAILING, Place::layer(number), message);
        }
        if gzip.members > 1 {
            findings.add(rules::MEMBERS, Place::layer(number), format!("there are {} members", gzip.members));
        }
    }
    replaced_links(image, findings);
}

fn entries(number: usize, facts: &LayerFacts, own: &Own<'_>, findings: &mut Findings<'_>) {
    let mut seen: HashMap<&str, EntryKind> = HashMap::with_capacity(facts.entries.len());
    let mut missing = HashSet::new();
    for entry in &facts.entries {
        let path = entry.path.as_str();
        let place = || Place::file(number, path);
        if let Some(written) = &entry.written {
            written_name(entry, written, number, findings);
        }
        if path.is_empty() {
            continue;
        }
        // Above one that was looked at before, all were.
        let is_new = |parent: &&str| seen.get(parent) != Some(&EntryKind::Directory) && !missing.contains(parent);
        let new: Vec<_> = parents(path).take_while(is_new).take(MOST_MISSING - missing.len()).collect();
        for parent in new.into_iter().rev() {
            missing.insert(parent);
            let message = format!("the layer has no entry for the directory `/{parent}` before `/{path}`");
            findings.add(rules::PARENT, Place::file(number, parent), message);
        }
        match entry.kind {
            EntryKind::Hardlink => {
                if let Some((rule, message)) = hardlink(entry, &seen, own) {
                    findings.add(rule, place(), message);
                }
            }
            EntryKind::Device => findings.add(rules::SPECIAL, place(), "it is a device"),
            EntryKind::Fifo => findings.add(rules::SPECIAL, place(), "it is a FIFO"),
            EntryKind::Sparse => findings.add(rules::SPARSE, place(), "it is stored with holes"),
            EntryKind::Other => findings.add(rules::SPECIAL, place(), "it is of a kind that is no file"),
            EntryKind::File | EntryKind::Directory | EntryKind::Symlink => {}
        }
        // A directory that is there twice changes nothing but its mode, and many tools write it so.
        let before = seen.insert(path, entry.kind);
        if before.is_some_and(|before| before != EntryKind::Directory || entry.kind != EntryKind::Directory) {
            findings.add(rules::DUPLICATE, place(), "it is in the layer more than once");
        }
    }
}

/// `a/b` and `a` of `a/b/c`.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('/').map(|(at, _)| &path[..at])
}

fn written_name(entry: &EntryFacts, written: &str, number: usize, findings: &mut Findings<'_>) {
    let message = format!("its name in the tar is `{}`", shown(written));
    let rule = if written.split('/').any(|part| part == "..") { rules::ESCAPE } else { rules::ABSOLUTE };
    findings.add(rule, Place::file(number, &entry.path), message);
}

/// What there is to say of a hard link.
fn hardlink(entry: &EntryFacts, seen: &HashMap<&str, EntryKind>, own: &Own<'_>) -> Option<(&'static Rule, String)> {
    let target = entry.link.as_deref().unwrap_or_default();
    let target = target.trim_start_matches("./").trim_start_matches('/');
    let is_there = matches!(seen.get(target), Some(EntryKind::File | EntryKind::Hardlink | EntryKind::Symlink));
    // AWS's guide builds on Debian's images, too, whose perl and gzip are such.
    let is_the_systems = OF_THE_SYSTEM.iter().any(|directory| is_below(&entry.path, directory));
    if is_there && is_the_systems && !own.has(&entry.path) {
        return None;
    }
    let message = format!("it is a hard link to `/{}`", shown(target));
    Some((if is_there { rules::HARDLINK } else { rules::DANGLING }, message))
}

/// What Lambda's unprivileged user cannot use. Systems have files for root alone, so only the function's own count.
fn modes(entry: &EntryFacts, number: usize, findings: &mut Findings<'_>) {
    let place = Place::file(number, &entry.path);
    let message = format!("its mode is {:04o}", entry.mode);
    match entry.kind {
        EntryKind::File | EntryKind::Hardlink if entry.mode & 0o004 == 0 => {
            findings.add(rules::UNREADABLE, place, message);
        }
        EntryKind::Directory if entry.mode & 0o001 == 0 => findings.add(rules::CLOSED, place, message),
        _ => {}
    }
}

/// A directory over a symbolic link of a lower layer hides what the link led to.
fn replaced_links(image: &ImageFacts, findings: &mut Findings<'_>) {
    let layers: Vec<_> =
        image.layers.iter().enumerate().filter_map(|it| Some((it.0, LayerSource::facts(it.1)?))).collect();
    let is_link = |entry: &&EntryFacts| entry.kind == EntryKind::Symlink;
    let links: HashSet<&str> = layers
        .iter()
        .flat_map(|(_, facts)| facts.entries.iter().filter(is_link))
        .map(|entry| entry.path.as_str())
        .collect();
    let is_suspect = |entry: &&EntryFacts| entry.kind == EntryKind::Directory && links.contains(entry.path.as_str());
    let Some(last) = layers.iter().rposition(|(_, facts)| facts.entries.iter().any(|entry| is_suspect(&entry))) else {
        return;
    };
    let mut below = Tree::default();
    for (at, (number, facts)) in layers[..=last].iter().enumerate() {
        for entry in facts.entries.iter().filter(is_suspect) {
            if let Some(node) = below.get(&entry.path).filter(|node| node.kind == EntryKind::Symlink) {
                let target = node.link.as_deref().unwrap_or_default();
                let message = format!("it replaces a link to `{}` of a lower layer", shown(target));
                let place = Place::file(*number, &entry.path);
                let help = below.resolve(&entry.path).map_or_else(
                    || rules::REPLACED_LINK.fix.to_owned(),
                    |real| format!("pack the files below `{}` and not `{}`", shown(&real), shown(&entry.path)),
                );
                findings.add_with_help(rules::REPLACED_LINK, place, message, help);
            }
        }
        below.stack(facts, at);
    }
}
