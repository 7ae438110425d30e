//! Small facts kept between runs, each in a file of its own with its own checksum.
//!
//! A record is a hint: one that is missing, torn, stale or foreign costs time, never correctness. So reading never
//! fails, it finds nothing.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::Result;

/// What a record is about; each kind is a folder below `records/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Blob digest -> the boot since which it is known to be whole.
    Blob,
}

/// The records of one store.
#[derive(Debug)]
pub struct Records {}

impl Records {
    /// The record of `kind` under `key`, if there is a whole one of this form.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, kind: Kind, key: &str) -> Option<T> {
        let _ = (kind, key);
        todo!()
    }

    /// Writes or replaces a record; `key` may be any string.
    pub fn put<T: Serialize>(&self, kind: Kind, key: &str, value: &T) -> Result<()> {
        let _ = (kind, key, value);
        todo!()
    }
}
