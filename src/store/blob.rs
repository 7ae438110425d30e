//! Writes one blob and names it by its digest.
//!
//! The name is unknown until the last byte, so bytes go to a temporary file on the same file system and are renamed on
//! finish: a crash leaves a stray file, never a wrong blob.

use std::fs::{File, Permissions};
use std::io::{self, Seek as _, Write};
use std::os::unix::fs::PermissionsExt as _;

use tempfile::NamedTempFile;

use super::{Store, trust};
use crate::oci::{Descriptor, Digest, HashingWriter};
use crate::problem::{IoContext as _, Problem, Result};

/// A blob being written. Dropping it unfinished removes what was written.
#[derive(Debug)]
pub struct BlobWriter<'a> {
    store: &'a Store,
    file: NamedTempFile,
    writer: HashingWriter<File>,
}

impl<'a> BlobWriter<'a> {
    pub(super) fn new(store: &'a Store) -> Result<Self> {
        let file = store.temporary_file()?;
        let writer = HashingWriter::new(file.as_file().try_clone().or_failed(|| shown(&file))?);
        Ok(Self { store, file, writer })
    }

    /// How many bytes were written so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.writer.written_bytes()
    }

    /// Starts again from nothing.
    ///
    /// # Errors
    /// When the temporary file cannot be emptied.
    pub fn restart(&mut self) -> Result<()> {
        let failed = || shown(&self.file);
        let mut file = self.file.as_file().try_clone().or_failed(failed)?;
        file.set_len(0).or_failed(failed)?;
        file.rewind().or_failed(failed)?;
        self.writer = HashingWriter::new(file);
        Ok(())
    }

    /// Gives the blob its name; returns its digest and its size in bytes.
    ///
    /// # Errors
    /// When the file cannot be renamed or recorded.
    pub fn finish(self) -> Result<(Digest, u64)> {
        let (_, digest, size) = self.writer.finish();
        name(self.store, self.file, &digest)?;
        Ok((digest, size))
    }

    /// Gives the blob its name if it is what `expected` says; otherwise leaves nothing.
    ///
    /// # Errors
    /// When size or digest differ: the problem names both sides.
    pub fn finish_as(self, expected: &Descriptor) -> Result<()> {
        let (_, digest, size) = self.writer.finish();
        if (digest, size) != (expected.digest, expected.size) {
            return Err(Problem::failed(format!(
                "expected {} bytes with digest {} and got {size} bytes with digest {digest}",
                expected.size, expected.digest
            ))
            .help("it is cut short or damaged where it comes from: copy or pull it from its origin again"));
        }
        name(self.store, self.file, &digest)
    }
}

fn name(store: &Store, file: NamedTempFile, digest: &Digest) -> Result<()> {
    let path = store.blob_path(digest);
    let failed = || format!("could not write blob `{}`", path.display());
    // Temporary files are private; other tools read the layout.
    file.as_file().set_permissions(Permissions::from_mode(0o644)).or_failed(failed)?;
    trust::settle(file.as_file()).or_failed(failed)?;
    file.persist(&path).map_err(|error| error.error).or_failed(failed)?;
    trust::remember(store, digest, &path)
}

fn shown(file: &NamedTempFile) -> String {
    format!("could not write `{}`", file.path().display())
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
