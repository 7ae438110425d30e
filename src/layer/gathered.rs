//! Facts of a layer from its sources, before its bytes are made.
//!
//! They are gathered once: the checks ask before slow work begins, the records after it, and no file is opened twice
//! for that. Opening many small files takes as long as packing them, so several threads do it.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::{Arc, OnceLock};
use std::thread;

use super::entries::{Content, Entry, Source};
use super::facts::LayerFacts;
use super::{elf, look, tarball};

/// So many entries are worth a thread.
const ENTRIES_A_THREAD: usize = 500;

/// Beyond this, waiting for the file system is no shorter.
const MOST_THREADS: usize = 4;

/// The facts of one layer and the size of its tar, or room for them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gathered {
    facts: Arc<OnceLock<LayerFacts>>,
    tar_size: OnceLock<u64>,
}

impl Gathered {
    /// The facts of the layer of `entries`.
    pub(super) fn facts(&self, entries: &[Entry]) -> &LayerFacts {
        self.facts.get_or_init(|| gather(entries, self.tar_size(entries)))
    }

    /// The size in bytes of the tar of `entries`.
    pub(super) fn tar_size(&self, entries: &[Entry]) -> u64 {
        *self.tar_size.get_or_init(|| tarball::size(entries))
    }
}

/// Headers as they are going to be written, and what the first bytes of the sources say.
fn gather(entries: &[Entry], uncompressed_size: u64) -> LayerFacts {
    let cores = thread::available_parallelism().map_or(1, Into::into);
    let threads = (entries.len() / ENTRIES_A_THREAD).clamp(1, cores.min(MOST_THREADS));
    let parts: Vec<_> = entries.chunks(entries.len().div_ceil(threads).max(1)).collect();
    let mut facts = LayerFacts { uncompressed_size, ..LayerFacts::default() };
    if let [part] = parts[..] {
        gather_part(part, &mut facts);
        return facts;
    }
    let gathered: Vec<_> = thread::scope(|scope| {
        let gather = |part| {
            scope.spawn(move || {
                let mut facts = LayerFacts::default();
                gather_part(part, &mut facts);
                facts
            })
        };
        let running: Vec<_> = parts.iter().map(|part| (gather(*part), *part)).collect();
        // What a thread that panicked would have found is looked for again, here where the panic is seen.
        let finish = |(thread, part): (thread::ScopedJoinHandle<'_, LayerFacts>, &[Entry])| {
            thread.join().unwrap_or_else(|_| {
                let mut facts = LayerFacts::default();
                gather_part(part, &mut facts);
                facts
            })
        };
        running.into_iter().map(finish).collect()
    });
    for part in gathered {
        let LayerFacts { entries, elf, glibc, inside, .. } = part;
        facts.entries.extend(entries);
        facts.elf.extend(elf);
        facts.glibc = glibc.or(facts.glibc);
        facts.inside.extend(inside);
    }
    facts
}

fn gather_part(entries: &[Entry], facts: &mut LayerFacts) {
    let mut head = Vec::new();
    for entry in entries {
        let entry_facts = entry.facts();
        if let Content::File(source) = &entry.content {
            look_inside(&entry_facts.path, entry_facts.mode, source, &mut head, facts);
        }
        facts.entries.push(entry_facts);
    }
}

/// What cannot be read fails the build when it is packed; a damaged ELF file is the asset's own affair. `head` is room
/// for the first bytes.
fn look_inside(path: &str, mode: u32, source: &Source, head: &mut Vec<u8>, facts: &mut LayerFacts) {
    let size = source.stat.size;
    head.resize(usize::try_from(look::wanted(path, size)).unwrap_or(0), 0);
    let read = |mut file: File| fill(&mut file, head);
    if size > 0 && tarball::open(source).and_then(read).is_err() {
        return;
    }
    facts.inside.extend(look::look(path, mode, size, head).into_iter().map(|inside| (path.to_owned(), inside)));
    if head.starts_with(b"\x7fELF") {
        let elf = elf::read_file(&source.path).unwrap_or_default();
        let held = || (size <= elf::HELD_BYTES).then(|| std::fs::read(&source.path).ok()).flatten();
        let glibc = || held().and_then(|bytes| elf::glibc_version(&bytes));
        facts.look_into(path, elf, glibc);
    }
}

/// Reads until `head` is full or the file ends, with one call for most files; `head` is as long as what was read.
fn fill(file: &mut File, head: &mut Vec<u8>) -> io::Result<()> {
    let mut filled = 0;
    while filled < head.len() {
        match file.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    head.truncate(filled);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::entries::Stat;
    use super::*;

    #[test]
    fn a_file_that_is_too_large_for_a_libc_is_not_held() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("libc.so.6");
        let glibc = |size: u64| {
            // A header without programs: what a library offers is then told by its banner.
            let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
            bytes.resize(64, 0);
            for (at, byte) in [(16, 3), (18, 62), (20, 1), (52, 64), (54, 56)] {
                bytes[at] = byte;
            }
            bytes.extend(b"GNU C Library stable release version 2.99.\n");
            std::fs::write(&path, bytes).expect("written");
            File::options().write(true).open(&path).and_then(|file| file.set_len(size)).expect("enlarged");
            let stat = Stat::of(&std::fs::metadata(&path).expect("there"));
            let source = Source { path: path.clone(), follow: false, executable: false, stat };
            let mut facts = LayerFacts::default();
            look_inside("/lib64/libc.so.6", 0o644, &source, &mut Vec::new(), &mut facts);
            facts.glibc
        };
        assert_eq!(glibc(elf::HELD_BYTES).as_deref(), Some("2.99"));
        assert_eq!(glibc(elf::HELD_BYTES + 1), None);
    }

    #[test]
    fn threads_find_what_one_finds_in_the_order_of_the_entries() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let entry = |number: usize| {
            let path = directory.path().join(format!("{number:05}"));
            let content = match number % 7 {
                0 => format!("#!/bin/interpreter-{number}\n"),
                1 => String::new(),
                _ => "x".repeat(number % 700),
            };
            std::fs::write(&path, content).expect("written");
            let stat = Stat::of(&std::fs::metadata(&path).expect("there"));
            let source = Source { path, follow: false, executable: true, stat };
            Entry { path: format!("var/task/{number:05}").into(), content: Content::File(source) }
        };
        let entries: Vec<_> = (0..3 * ENTRIES_A_THREAD + 1).map(entry).collect();
        let mut one = LayerFacts { uncompressed_size: tarball::size(&entries), ..LayerFacts::default() };
        gather_part(&entries, &mut one);
        assert_eq!(one.inside.len(), entries.len().div_ceil(7));
        assert_eq!(Gathered::default().facts(&entries), &one);
        assert_eq!(Gathered::default().facts(&[]), &LayerFacts { uncompressed_size: 1024, ..LayerFacts::default() });
    }
}
