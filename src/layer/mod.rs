//! A layer: what it is once made, what is asked for, and the pipeline between.

pub mod elf;
pub mod entries;
pub mod facts;
pub mod gzip;
pub mod tarball;

use std::path::PathBuf;

use crate::oci::{Descriptor, DiffId};

/// Where a layer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The base image.
    Base,
    /// A file or directory the user named.
    Asset,
    /// The compiled binary.
    Binary,
}

/// A finished layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// A name for people: the asset's, the binary's, or `base`.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// The compressed bytes; the media type is the OCI one whatever the base called it.
    pub descriptor: Descriptor,
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// Bytes of the tar.
    pub uncompressed_size: u64,
    /// Whether nothing had to be made or pulled for it.
    pub reused: bool,
    /// Where the bytes lie.
    pub blob: PathBuf,
}

/// The machinery that makes layers: threads that compress and one budget of blocks for all layers in flight.
#[derive(Debug)]
pub struct Pipeline {
    level: u32,
}

impl Pipeline {
    /// A pipeline of `threads` compressing threads at `level` (0 stores everything).
    #[must_use]
    pub fn new(threads: usize, level: u32) -> Self {
        let _ = threads;
        Self { level }
    }

    /// Compresses an existing tar (a base's uncompressed layer) into the store and records its facts.
    pub fn pack_tar(
        &self,
        name: &str,
        tar: impl std::io::Read + Send,
        store: &crate::store::Store,
        session: &crate::event::Session,
    ) -> crate::problem::Result<Layer> {
        let _ = (name, tar, store, session, self.level);
        todo!()
    }
}
