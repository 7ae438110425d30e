//! Small facts kept between runs, each in a file of its own with its own checksum.
//!
//! A record is a hint: one that is missing, torn, stale or foreign costs time, never correctness. So reading never
//! fails, it finds nothing; and since the checksum covers kind and key, a file moved to another name is foreign.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::atomic;
use crate::oci::Digest;
use crate::problem::{IoContext as _, Problem, Result};

/// What a record is about; each kind is a folder below `records/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Stat fingerprint of a layer's sources -> diff-id.
    Fingerprint,
    /// Diff-id, format and level -> digest and sizes.
    Layer,
    /// Diff-id -> facts for the checks.
    Facts,
    /// Base reference and platform -> manifest digest.
    Reference,
    /// Manifest digest -> what is known of a base as a whole.
    Base,
    /// Blob digest -> what its file looked like when it was known to be whole.
    Blob,
    /// Registry and blob digest -> the repositories where it was confirmed to be.
    Pushed,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Fingerprint, Self::Layer, Self::Facts, Self::Reference, Self::Base, Self::Blob, Self::Pushed];

    fn folder(self) -> &'static str {
        match self {
            Self::Fingerprint => "fingerprints",
            Self::Layer => "layers",
            // The number is the form of the facts: records of another are in another folder, and so absent.
            Self::Facts => "facts-4",
            Self::Reference => "references",
            Self::Base => "bases",
            Self::Blob => "blobs",
            Self::Pushed => "pushed",
        }
    }
}

/// Every build of a changed binary leaves three records; this many days of them are kept.
const KEPT: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// The records of one store.
#[derive(Debug)]
pub struct Records {
    root: PathBuf,
    new: New,
}

/// What becomes of new records.
#[derive(Debug)]
enum New {
    /// They are written here, and then get their place.
    Written { temporary: PathBuf },
    /// They hide those on disk for as long as there is this memory.
    Remembered(Mutex<Memory>),
}

/// What there is by kind and key, or that it is no more.
type Memory = HashMap<(Kind, String), Option<Vec<u8>>>;

impl Records {
    pub(super) fn new(root: PathBuf, temporary: PathBuf) -> Self {
        Self { root, new: New::Written { temporary } }
    }

    /// Those on disk, which stay as they are, and new ones in memory.
    pub(super) fn in_memory(root: PathBuf) -> Self {
        Self { root, new: New::Remembered(Mutex::default()) }
    }

    /// The record of `kind` under `key`, if there is a whole one of this form.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, kind: Kind, key: &str) -> Option<T> {
        if let Some(remembered) = self.remembered(kind, key) {
            return serde_json::from_slice(&remembered?).ok();
        }
        let bytes = fs::read(self.path(kind, key)).ok()?;
        let (checksum, value) = bytes.split_at_checked(64)?;
        let value = value.strip_prefix(b"\n")?;
        if checksum != self::checksum(kind, key, value).hex().as_bytes() {
            return None;
        }
        serde_json::from_slice(value).ok()
    }

    /// Whether there is something under `key`, without a look at whether it is whole.
    #[must_use]
    pub fn has(&self, kind: Kind, key: &str) -> bool {
        self.remembered(kind, key).map_or_else(|| self.path(kind, key).is_file(), |remembered| remembered.is_some())
    }

    /// Writes or replaces a record; `key` may be any string.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put<T: Serialize>(&self, kind: Kind, key: &str, value: &T) -> Result<()> {
        let path = self.path(kind, key);
        let failed = || format!("could not write record `{}`", path.display());
        let value = serde_json::to_vec(value).map_err(|error| Problem::failed(failed()).because(error))?;
        let temporary = match &self.new {
            New::Written { temporary } => temporary,
            New::Remembered(memory) => {
                lock(memory).insert((kind, key.to_owned()), Some(value));
                return Ok(());
            }
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).or_failed(failed)?;
        }
        let mut file = atomic::temporary_in(temporary).or_failed(failed)?;
        let checksum = checksum(kind, key, &value).hex();
        file.write_all(checksum.as_bytes()).or_failed(failed)?;
        file.write_all(b"\n").or_failed(failed)?;
        file.write_all(&value).or_failed(failed)?;
        file.persist(&path).map_err(|error| error.error).or_failed(failed)?;
        Ok(())
    }

    /// Forgets a record.
    pub fn remove(&self, kind: Kind, key: &str) {
        match &self.new {
            // A record that stays is a hint that will not hold.
            New::Written { .. } => drop(fs::remove_file(self.path(kind, key))),
            New::Remembered(memory) => drop(lock(memory).insert((kind, key.to_owned()), None)),
        }
    }

    /// Deletes records nobody wrote or read for a long time; what is still true is found out again.
    pub(super) fn expire(&self) {
        let now = SystemTime::now();
        for kind in Kind::ALL {
            let Ok(entries) = fs::read_dir(self.root.join(kind.folder())) else { continue };
            for entry in entries.flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                let last_use = metadata.modified().ok().max(metadata.accessed().ok());
                if last_use.and_then(|at| now.duration_since(at).ok()).is_some_and(|age| age > KEPT) {
                    // As above: a stale record only costs its few bytes.
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    /// What is kept in memory under `key`: a record, or that there is none any more.
    fn remembered(&self, kind: Kind, key: &str) -> Option<Option<Vec<u8>>> {
        match &self.new {
            New::Written { .. } => None,
            New::Remembered(memory) => lock(memory).get(&(kind, key.to_owned())).cloned(),
        }
    }

    fn path(&self, kind: Kind, key: &str) -> PathBuf {
        self.root.join(kind.folder()).join(Digest::of(key.as_bytes()).hex())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn checksum(kind: Kind, key: &str, value: &[u8]) -> Digest {
    let mut bytes = format!("{}\0{key}\0", kind.folder()).into_bytes();
    bytes.extend_from_slice(value);
    Digest::of(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> (tempfile::TempDir, Records) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let records = Records::new(directory.path().join("records"), directory.path().to_owned());
        (directory, records)
    }

    #[test]
    fn a_record_is_found_under_its_kind_and_key_only() {
        let (_directory, records) = records();
        records.put(Kind::Layer, "a", &("x", 1)).expect("written");
        assert_eq!(records.get::<(String, u32)>(Kind::Layer, "a"), Some(("x".into(), 1)));
        assert_eq!(records.get::<(String, u32)>(Kind::Layer, "b"), None);
        assert_eq!(records.get::<(String, u32)>(Kind::Facts, "a"), None);
        assert_eq!(records.get::<Vec<u32>>(Kind::Layer, "a"), None, "a record of another form");
    }

    #[test]
    fn a_damaged_or_foreign_record_is_no_record() {
        let (_directory, records) = records();
        let path = records.path(Kind::Layer, "a");
        records.put(Kind::Layer, "a", &"value").expect("written");
        let whole = fs::read(&path).expect("read");
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).expect("truncated");
            assert_eq!(records.get::<String>(Kind::Layer, "a"), None, "truncated to {length}");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).expect("flipped");
            assert_eq!(records.get::<String>(Kind::Layer, "a"), None, "flipped at {at}");
        }
        fs::write(records.path(Kind::Layer, "b"), &whole).expect("copied");
        assert_eq!(records.get::<String>(Kind::Layer, "b"), None, "another key's record");
    }
}
