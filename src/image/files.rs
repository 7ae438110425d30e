//! Files of images as they are written: as large as images are, and interrupted at any moment.
//!
//! Apart from layouts and archives because both write this way; it knows nothing of what the bytes mean.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::atomic::{self, TEMPORARY_PREFIX};
use crate::event::Session;
use crate::problem::{IoContext as _, Result};

/// No index, manifest or result file of ours comes near; what is larger is somebody's mistake.
const MAX_METADATA_BYTES: u64 = 4 * 1024 * 1024;

/// Copies the `size` bytes of `source`, which must be as many, and tells `advance` of each part.
pub(super) fn copy(
    source: &File,
    size: u64,
    target: &mut impl Write,
    advance: impl Fn(u64),
    session: &Session,
) -> io::Result<()> {
    /// A few milliseconds' worth: often enough to be interrupted, seldom enough for the kernel to copy by itself.
    const STEP_BYTES: u64 = 16 * 1024 * 1024;
    let mut left = size;
    while left > 0 {
        session.check()?;
        let copied = io::copy(&mut source.take(left.min(STEP_BYTES)), target)?;
        if copied == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob ends too early"));
        }
        advance(copied);
        left -= copied;
    }
    Ok(())
}

/// An empty file beside its final place, removed when dropped. It is locked while its owner lives.
pub(super) fn temporary_in(directory: &Path) -> Result<NamedTempFile> {
    let failed = || format!("could not create a file in `{}`", directory.display());
    loop {
        let file = atomic::temporary_in(directory).or_failed(failed)?;
        // Where there are no locks, nobody removes what others left.
        let _ = file.as_file().try_lock();
        // Another build may have taken it for abandoned just before it was locked.
        let ours = file.as_file().metadata().or_failed(failed)?.ino();
        if fs::symlink_metadata(file.path()).is_ok_and(|found| found.ino() == ours) {
            return Ok(file);
        }
    }
}

/// Removes the temporary files in `directory` whose owners were killed.
pub(super) fn remove_abandoned(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_temporary = entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY_PREFIX));
        if is_temporary
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
        {
            // What cannot be removed costs space, and the next build tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Writes or replaces a small file through a temporary one on the same file system.
pub(super) fn replace(path: &Path, bytes: &[u8], mut file: NamedTempFile) -> Result<()> {
    let failed = || format!("could not write `{}`", path.display());
    file.write_all(bytes).or_failed(failed)?;
    atomic::publish_synced(file, path).or_failed(failed)
}

/// A small file's bytes, if there is one.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = || format!("could not read `{}`", path.display());
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.or_failed(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_METADATA_BYTES).read_to_end(&mut bytes).or_failed(failed)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_is_writing_is_abandoned() {
        let directory = tempfile::tempdir().expect("a directory");
        let written = temporary_in(directory.path()).expect("a file");
        let abandoned = directory.path().join(".lambda-image-killed");
        let others = [directory.path().join("lambda-image-mine"), directory.path().join(".lambda-image-directory")];
        fs::write(&abandoned, "part").expect("written");
        fs::write(&others[0], "part").expect("written");
        fs::create_dir(&others[1]).expect("made");
        remove_abandoned(directory.path());
        assert!(!abandoned.exists());
        assert!(written.path().exists() && others.iter().all(|path| path.exists()));
    }
}
