//! Where things lie on disk: `<target>/lambda-image/` with its `layout/`, `records/` and temporary files.
//!
//! Content-addressed files and who may write or delete them. It knows nothing of what the bytes mean.

pub mod blob;
pub mod records;

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::event::Session;
use crate::oci::{Descriptor, Digest};
use crate::problem::Result;

pub use blob::BlobWriter;
pub use records::{Kind, Records};

/// The program's directory below Cargo's target directory. Open while a build runs: it holds a shared lock, so that
/// nobody prunes what this build is about to use.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    records: Records,
}

impl Store {
    /// Opens or creates the store at `root` (`<target>/lambda-image`), takes the shared lock and removes what killed
    /// builds left behind.
    pub fn open(root: &Path, session: &Session) -> Result<Self> {
        let _ = (root, session);
        todo!()
    }

    /// `<target>/lambda-image`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The OCI layout: `<root>/layout`.
    #[must_use]
    pub fn layout_path(&self) -> PathBuf {
        self.root.join("layout")
    }

    /// What is known of layers and bases.
    #[must_use]
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Where the blob of `digest` lies, or would.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.layout_path().join("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is there and can be trusted: a regular file of the right size, written since the last boot,
    /// or verified again now.
    pub fn contains(&self, descriptor: &Descriptor) -> bool {
        let _ = descriptor;
        todo!()
    }

    /// Opens a blob for reading, never through a symlink.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<File> {
        let _ = descriptor;
        todo!()
    }

    /// Begins a blob whose digest is not yet known, or is to be verified at the end.
    pub fn writer(&self) -> Result<BlobWriter<'_>> {
        todo!()
    }

    /// Writes small bytes as a blob; does nothing if it is already there.
    pub fn write_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let _ = bytes;
        todo!()
    }

    /// An empty temporary file on the store's file system, removed when dropped.
    pub fn temporary_file(&self) -> Result<tempfile::NamedTempFile> {
        todo!()
    }

    /// Deletes every blob that is not in `keep`, unless another build is running.
    pub fn prune(&self, keep: &HashSet<Digest>) -> Result<()> {
        let _ = keep;
        todo!()
    }
}
