//! What a layer's tar says that later checks want to know, gathered while its bytes pass by.
//!
//! Records of facts outlive the program that wrote them: whoever changes these forms changes the folder's name of
//! [`crate::store::Kind::Facts`], and older records count as absent.

use std::io::Read;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::elf::ElfFacts;
use super::gunzip::GzipFacts;
use super::scan;
use crate::event::Session;
use crate::oci::{DiffId, Digest};
use crate::problem::{Problem, Result};

/// The facts of one layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFacts {
    /// Bytes of the tar.
    pub uncompressed_size: u64,
    /// The tar's members in order.
    pub entries: Vec<EntryFacts>,
    /// What its ELF files need and offer; those whose dynamic section lies too far from its strings are missing here.
    pub elf: Vec<(String, ElfFacts)>,
    /// The version of the GNU C library in it, such as `2.34`, from the library itself.
    pub glibc: Option<String>,
    /// What else a look into its files told, by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inside: Vec<(String, Inside)>,
    /// Bytes other than zero after the end of the archive.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trailing_bytes: u64,
    /// How the compressed bytes of this digest are framed, for layers that others made. Ours are one member each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gzip: Option<(Digest, GzipFacts)>,
}

/// The header of one tar member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryFacts {
    /// The path without leading `./` or `/` and without a trailing `/`; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// The permission bits.
    pub mode: u32,
    /// Bytes of content.
    pub size: u64,
    /// What a link points to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The name as the tar has it, where that is absolute or has `..` in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
}

/// The kinds of tar members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A hard link.
    Hardlink,
    /// A block or character device.
    Device,
    /// A FIFO.
    Fifo,
    /// A file with holes, in one of the forms of GNU tar.
    Sparse,
    /// Anything else.
    Other,
}

/// What the first bytes of a file told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inside {
    /// A SQLite database.
    Sqlite {
        /// Whether it is in write-ahead-log mode, which wants to write beside it.
        wal: bool,
    },
    /// A pointer of Git LFS in place of the file.
    LfsPointer,
    /// A likely secret: what it seems to be.
    Secret(String),
    /// The line of an executable script that names its interpreter, without `#!`.
    Script(String),
    /// `ID` and `VERSION_ID` of `os-release`, such as `amzn 2023`.
    System(String),
    /// The major version of Node.js, from its own header file.
    Node(u32),
}

impl LayerFacts {
    /// Adds what the ELF file at `path` in the image says, if it is one.
    pub(super) fn look_into(&mut self, path: &str, elf: Option<ElfFacts>, glibc: impl FnOnce() -> Option<String>) {
        if path.ends_with("/libc.so.6") || is_versioned_libc(path) {
            self.glibc = glibc().or(self.glibc.take());
        }
        if let Some(elf) = elf {
            self.elf.push((path.to_owned(), elf));
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// `libc-2.26.so`, which older systems have `libc.so.6` point to.
fn is_versioned_libc(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_prefix("libc-2.").is_some_and(|rest| {
        rest.strip_suffix(".so").is_some_and(|minor| minor.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// An image of Lambda's ten gigabytes cannot hold more files than this and be sensible.
const MOST_ENTRIES: usize = 1_000_000;

/// Bytes of names, links and ELF strings that are kept of an image: two hundred thousand files have some 20 MB.
const MOST_TEXT: usize = 128 << 20;

/// Bytes of all layers that are read: three times what Lambda takes, so that whoever has too much is told how much and
/// of what, and a thousand layers of zeros come to an end.
const MOST_BYTES: u64 = 32 << 30;

/// The way on from an image of too many files.
const TOO_MANY: &str = "leave files out: no function needs that many";

/// How much the layers of one image may hold, together: layers of a few kilobytes may claim millions of files.
#[derive(Debug)]
pub struct Allowance {
    limits: (usize, usize, u64),
    taken: (AtomicUsize, AtomicUsize, AtomicU64),
}

impl Default for Allowance {
    fn default() -> Self {
        Self::of(MOST_ENTRIES, MOST_TEXT, MOST_BYTES)
    }
}

impl Allowance {
    pub(super) fn of(entries: usize, text_bytes: usize, bytes: u64) -> Self {
        Self { limits: (entries, text_bytes, bytes), taken: Default::default() }
    }

    /// Counts entries and bytes of text that are going to be kept.
    ///
    /// # Errors
    /// Of class refused when they are too many.
    pub(super) fn take(&self, entries: usize, text_bytes: usize) -> Result<()> {
        let take = |taken: &AtomicUsize, more| taken.fetch_add(more, Ordering::Relaxed) + more;
        let (most_entries, most_text, _) = self.limits;
        if take(&self.taken.0, entries) > most_entries {
            return Err(Problem::refused(format!("the image has more than {most_entries} entries")).help(TOO_MANY));
        }
        if take(&self.taken.1, text_bytes) > most_text {
            let message = format!("the names in the image have more than {most_text} bytes");
            return Err(Problem::refused(message).help(TOO_MANY));
        }
        Ok(())
    }

    /// Counts bytes of a tar that were read.
    ///
    /// # Errors
    /// Of class refused when they are too many.
    pub(super) fn take_bytes(&self, count: u64) -> Result<()> {
        let most = self.limits.2;
        if self.taken.2.fetch_add(count, Ordering::Relaxed) + count > most {
            let message = format!("the layers of the image have more than {most} bytes, uncompressed");
            let help = "Lambda takes 10,737,418,240 bytes at most: leave files out";
            return Err(Problem::refused(message).help(help));
        }
        Ok(())
    }
}

/// Reads an uncompressed tar to its end and gathers its facts; nothing is unpacked, memory is bounded by what the image
/// is allowed.
///
/// # Errors
/// When the tar is malformed or truncated, holds more than is allowed, or when reading fails.
pub fn scan(tar: impl Read, allowance: &Allowance, session: &Session) -> Result<(DiffId, LayerFacts)> {
    scan::scan(tar, allowance, session)
}
