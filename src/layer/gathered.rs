//! Facts of a layer from its sources, before its bytes are made.
//!
//! They are gathered once: the checks ask before slow work begins, the records after it, and no file is opened twice
//! for that.

use std::fs::File;
use std::io::Read as _;
use std::sync::{Arc, OnceLock};

use super::entries::{Content, Entry, Source};
use super::facts::LayerFacts;
use super::{elf, look, tarball};

/// The facts of one layer, or room for them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gathered(Arc<OnceLock<LayerFacts>>);

impl Gathered {
    /// The facts of the layer of `entries`.
    pub(super) fn facts(&self, entries: &[Entry]) -> &LayerFacts {
        self.0.get_or_init(|| gather(entries))
    }
}

/// Headers as they are going to be written, and what the first bytes of the sources say.
fn gather(entries: &[Entry]) -> LayerFacts {
    let mut facts = LayerFacts { uncompressed_size: tarball::size(entries), ..LayerFacts::default() };
    for entry in entries {
        let entry_facts = entry.facts();
        if let Content::File(source) = &entry.content {
            look_inside(&entry_facts.path, entry_facts.mode, source, &mut facts);
        }
        facts.entries.push(entry_facts);
    }
    facts
}

/// What cannot be read fails the build when it is packed; a damaged ELF file is the asset's own affair.
fn look_inside(path: &str, mode: u32, source: &Source, facts: &mut LayerFacts) {
    let size = source.stat.size;
    let mut head = Vec::new();
    let wanted = look::wanted(path, size);
    let read = |mut file: File| file.by_ref().take(wanted).read_to_end(&mut head);
    if size > 0 && tarball::open(source).and_then(read).is_err() {
        return;
    }
    facts.inside.extend(look::look(path, mode, size, &head).into_iter().map(|inside| (path.to_owned(), inside)));
    if head.starts_with(b"\x7fELF") {
        let elf = elf::read_file(&source.path).unwrap_or_default();
        let glibc = || std::fs::read(&source.path).ok().and_then(|bytes| elf::glibc_version(&bytes));
        facts.look_into(path, elf, glibc);
    }
}
