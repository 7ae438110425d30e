//! Writes one blob and names it by its digest.
//!
//! The name is unknown until the last byte, so bytes go to a temporary file beside the final one and are renamed on
//! finish: a crash leaves a stray file, never a wrong blob.

use std::io::{self, Write};

use super::Store;
use crate::oci::{Descriptor, Digest};
use crate::problem::Result;

/// A blob being written.
#[derive(Debug)]
pub struct BlobWriter<'a> {
    store: &'a Store,
}

impl BlobWriter<'_> {
    /// How many bytes were written so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        todo!()
    }

    /// Starts again from nothing.
    pub fn restart(&mut self) -> Result<()> {
        todo!()
    }

    /// Gives the blob its name: its digest and size in bytes.
    pub fn finish(self) -> Result<(Digest, u64)> {
        let _ = self.store;
        todo!()
    }

    /// Gives the blob its name if it is what `expected` says; otherwise leaves nothing and fails, naming both digests.
    pub fn finish_as(self, expected: &Descriptor) -> Result<()> {
        let _ = expected;
        todo!()
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = bytes;
        todo!()
    }

    fn flush(&mut self) -> io::Result<()> {
        todo!()
    }
}
