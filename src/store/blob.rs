//! Writes one blob and names it by its digest.
//!
//! The name is unknown until the last byte, so bytes go to a temporary file on the same file system and are renamed on
//! finish: a crash leaves a stray file, never a wrong blob.

use std::io::{self, IoSlice, Seek as _, Write};

use tempfile::NamedTempFile;

use super::{Store, trust};
use crate::oci::{Descriptor, Digest, HashingWriter};
use crate::problem::{IoContext as _, Problem, Result};

/// A blob being written by somebody who hashes it. Dropping it unfinished removes what was written.
#[derive(Debug)]
pub struct BlobFile<'a> {
    store: &'a Store,
    /// Absent where nothing is to be written.
    file: Option<NamedTempFile>,
    written_bytes: u64,
}

impl<'a> BlobFile<'a> {
    pub(super) fn new(store: &'a Store) -> Result<Self> {
        let file = store.may_write().then(|| store.temporary_file()).transpose()?;
        Ok(Self { store, file, written_bytes: 0 })
    }

    /// Gives the blob its name, which has to be the digest of all that was written.
    ///
    /// # Errors
    /// When the file cannot be renamed or recorded.
    pub fn finish(self, digest: &Digest) -> Result<()> {
        let Self { store, file, written_bytes } = self;
        let Some(file) = file else {
            store.would_write(digest, written_bytes);
            return Ok(());
        };
        let path = store.blob_path(digest);
        let failed = || format!("could not write blob `{}`", path.display());
        trust::settle(file.as_file()).or_failed(failed)?;
        file.persist(&path).map_err(|error| error.error).or_failed(failed)?;
        trust::remember(store, digest, &path)
    }

    fn restart(&mut self) -> Result<()> {
        self.written_bytes = 0;
        let Some(file) = &mut self.file else { return Ok(()) };
        let emptied = file.as_file_mut().set_len(0).and_then(|()| file.as_file_mut().rewind());
        emptied.or_failed(|| format!("could not write `{}`", file.path().display()))
    }

    fn counted(&mut self, count: usize) -> usize {
        self.written_bytes += count as u64;
        count
    }
}

impl Write for BlobFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.as_mut().map_or(Ok(bytes.len()), |file| file.as_file_mut().write(bytes));
        written.map(|count| self.counted(count))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let all = || parts.iter().map(|part| part.len()).sum();
        let written = self.file.as_mut().map_or_else(|| Ok(all()), |file| file.as_file_mut().write_vectored(parts));
        written.map(|count| self.counted(count))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.as_file_mut().flush())
    }
}

/// A blob being written and hashed. Dropping it unfinished removes what was written.
#[derive(Debug)]
pub struct BlobWriter<'a>(HashingWriter<BlobFile<'a>>);

impl<'a> BlobWriter<'a> {
    pub(super) fn new(store: &'a Store) -> Result<Self> {
        Ok(Self(HashingWriter::new(BlobFile::new(store)?)))
    }

    /// How many bytes were written so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.0.written_bytes()
    }

    /// Starts again from nothing.
    ///
    /// # Errors
    /// When the temporary file cannot be emptied.
    pub fn restart(&mut self) -> Result<()> {
        self.0.restart().restart()
    }

    /// Gives the blob its name; returns its digest and its size in bytes.
    ///
    /// # Errors
    /// When the file cannot be renamed or recorded.
    pub fn finish(self) -> Result<(Digest, u64)> {
        let (file, digest, size) = self.0.finish();
        file.finish(&digest)?;
        Ok((digest, size))
    }

    /// Gives the blob its name if it is what `expected` says; otherwise leaves nothing.
    ///
    /// # Errors
    /// When size or digest differ: the problem names both sides.
    pub fn finish_as(self, expected: &Descriptor) -> Result<()> {
        let (file, digest, size) = self.0.finish();
        if (digest, size) != (expected.digest, expected.size) {
            return Err(Problem::failed(format!(
                "expected {} bytes with digest {} and got {size} bytes with digest {digest}",
                expected.size, expected.digest
            ))
            .help("it is cut short or damaged where it comes from: copy or pull it from its origin again"));
        }
        file.finish(&digest)
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
