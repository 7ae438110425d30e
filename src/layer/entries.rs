//! One settled member of a layer's tar: its path in the image, its kind and where its bytes come from.
//!
//! Nothing here looks at the file system; `walk` makes entries, `tarball` writes them.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::facts::{EntryFacts, EntryKind};

/// One member of a layer's tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it goes in the image: relative to `/`, without `.`, `..` or a trailing `/`.
    pub path: PathBuf,
    /// What it is.
    pub content: Content,
}

/// What a tar member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A directory with its permission bits.
    Directory {
        /// 0755, or the bits the base gave this directory.
        mode: u32,
    },
    /// A regular file.
    File(Source),
    /// A symbolic link to this target.
    Symlink(PathBuf),
}

/// A file to be packed, as it was when it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// Whether its last part may be a symlink.
    pub follow: bool,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// What identifies it and its content.
    pub stat: Stat,
}

/// What tells whether a file is still the same without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Device and inode.
    pub identity: (u64, u64),
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds of the last change of content; anyone can set it.
    pub modified: (i64, i64),
    /// Seconds and nanoseconds of the last change at all; only the kernel sets it.
    pub changed: (i64, i64),
    /// Names that the file has.
    pub links: u64,
}

impl Stat {
    /// The stat of a file's metadata.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            identity: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            links: metadata.nlink(),
        }
    }

    /// Whether a file that was `other` still has its content. A name that came or went is a change, too, but none of
    /// content: Cargo links what it made from one directory into another, and others may use the same ones.
    pub(super) fn has_content_of(&self, other: &Self) -> bool {
        let changed = if self.links == other.links { self.changed } else { other.changed };
        Self { changed, links: other.links, ..*self } == *other
    }

    /// Seconds since 1970 of the latest change of any kind.
    fn latest_seconds(&self) -> i64 {
        self.modified.0.max(self.changed.0)
    }
}

impl Entry {
    /// The permission bits in the tar: 0755 for directories, links and executables, 0644 for other files.
    #[must_use]
    pub fn mode(&self) -> u32 {
        match &self.content {
            Content::Directory { mode } => *mode,
            Content::File(source) if !source.executable => 0o644,
            Content::File(_) | Content::Symlink(_) => 0o755,
        }
    }

    /// Bytes of content in the tar.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.content {
            Content::File(source) => source.stat.size,
            Content::Directory { .. } | Content::Symlink(_) => 0,
        }
    }

    /// The path's bytes, by which entries are sorted.
    #[must_use]
    pub fn path_bytes(&self) -> &[u8] {
        self.path.as_os_str().as_bytes()
    }

    /// What the checks want to know of it.
    #[must_use]
    pub fn facts(&self) -> EntryFacts {
        let (kind, link) = match &self.content {
            Content::Directory { .. } => (EntryKind::Directory, None),
            Content::File(_) => (EntryKind::File, None),
            Content::Symlink(target) => (EntryKind::Symlink, Some(target.to_string_lossy().into_owned())),
        };
        let path = self.path.to_string_lossy().into_owned();
        EntryFacts { path, kind, mode: self.mode(), size: self.size(), link, written: None }
    }
}

/// A fingerprint of entries and the stat of all their sources: equal fingerprints mean equal tars, unless a file was
/// changed within the time stamps' granularity, which [`too_fresh`] guards against.
#[must_use]
pub fn fingerprint<'a>(entries: impl IntoIterator<Item = &'a Entry>, salt: &str) -> String {
    let mut hasher = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(salt.as_bytes());
    for entry in entries {
        field(entry.path_bytes());
        field(&entry.mode().to_le_bytes());
        match &entry.content {
            Content::Directory { .. } => field(b"directory"),
            Content::Symlink(target) => {
                field(b"symlink");
                field(target.as_os_str().as_bytes());
            }
            Content::File(Source { path, stat, .. }) => {
                field(b"file");
                field(path.as_os_str().as_bytes());
                for number in [stat.identity.0, stat.identity.1, stat.size] {
                    field(&number.to_le_bytes());
                }
                for number in [stat.modified.0, stat.modified.1, stat.changed.0, stat.changed.1] {
                    field(&number.to_le_bytes());
                }
            }
        }
    }
    hex::encode(hasher.finalize())
}

/// Whether a source may still be changed without its time stamps showing it, as git's index calls it: racily clean.
///
/// `listed_at` is the time in seconds since 1970 just before the files were listed. Two seconds cover the coarsest time
/// stamps of file systems in use; a time stamp in the future is fresh too, so a clock set back does no harm.
#[must_use]
pub fn too_fresh<'a>(entries: impl IntoIterator<Item = &'a Entry>, listed_at: i64) -> bool {
    entries.into_iter().any(|entry| match &entry.content {
        Content::File(source) => source.stat.latest_seconds() >= listed_at - 2,
        Content::Directory { .. } | Content::Symlink(_) => false,
    })
}

/// The proper ancestors of a path in the image, outermost first: `var` and `var/task` for `var/task/a`.
pub fn ancestors(path: &Path) -> impl Iterator<Item = &Path> {
    let mut ancestors: Vec<_> =
        path.ancestors().skip(1).filter(|ancestor| ancestor.as_os_str() != OsStr::new("")).collect();
    ancestors.reverse();
    ancestors.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, changed: i64) -> Entry {
        let stat = Stat { identity: (1, 2), size: 3, modified: (4, 5), changed: (changed, 7), links: 1 };
        Entry {
            path: path.into(),
            content: Content::File(Source { path: "x".into(), follow: false, executable: false, stat }),
        }
    }

    #[test]
    fn a_fingerprint_depends_on_every_field() {
        let base = fingerprint(&[file("a", 6)], "");
        assert_eq!(base, fingerprint(&[file("a", 6)], ""));
        assert_ne!(base, fingerprint(&[file("b", 6)], ""));
        assert_ne!(base, fingerprint(&[file("a", 8)], ""), "ctime catches rewrites that keep mtime");
        assert_ne!(base, fingerprint(&[file("a", 6)], "other rules"));
        assert_ne!(base, fingerprint(&[file("a", 6), file("b", 6)], ""));
    }

    #[test]
    fn files_of_the_last_two_seconds_and_of_the_future_are_too_fresh() {
        for (listed_at, fresh) in [(5, true), (6, true), (8, true), (9, false), (100, false)] {
            assert_eq!(too_fresh(&[file("a", 6)], listed_at), fresh, "listed at {listed_at}");
        }
        let mut touched = file("a", 6);
        if let Content::File(source) = &mut touched.content {
            source.stat.modified = (4000, 0);
        }
        assert!(too_fresh(&[touched], 100), "either time counts");
    }

    #[test]
    fn ancestors_come_outermost_first() {
        let all: Vec<_> = ancestors(Path::new("var/task/a/b")).collect();
        assert_eq!(all, [Path::new("var"), Path::new("var/task"), Path::new("var/task/a")]);
    }
}
