//! Files of images as they are written: whole under their final name, or not there.
//!
//! Apart from layouts and archives because both write this way; it knows nothing of what the bytes mean.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::event::{Event, Session, Task};
use crate::problem::{IoContext as _, Problem, Result};

/// No index, manifest or result file of ours comes near; what is larger is somebody's mistake.
const MAX_METADATA_BYTES: u64 = 4 * 1024 * 1024;

/// Copies the `size` bytes of `source`, which must be as many.
pub(super) fn copy(source: &File, size: u64, target: &mut File, task: &Task, session: &Session) -> io::Result<()> {
    /// A few milliseconds' worth: often enough to be interrupted, seldom enough for the kernel to copy by itself.
    const STEP_BYTES: u64 = 16 * 1024 * 1024;
    let mut left = size;
    while left > 0 {
        session.check()?;
        let copied = io::copy(&mut source.take(left.min(STEP_BYTES)), target)?;
        if copied == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob ends too early"));
        }
        task.advance(copied);
        left -= copied;
    }
    Ok(())
}

/// What names of files begin with that are not whole yet.
pub(super) const TEMPORARY_PREFIX: &str = ".lambda-image-";

/// An empty file beside its final place, removed when dropped.
pub(super) fn temporary_in(directory: &Path) -> Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .tempfile_in(directory)
        .or_failed(|| format!("could not create a file in `{}`", directory.display()))
}

/// Gives a finished temporary file its name.
pub(super) fn publish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    // Temporary files are private; other users' tools read what we write.
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Writes or replaces a small file through a temporary one on the same file system.
pub(super) fn replace(path: &Path, bytes: &[u8], mut file: NamedTempFile) -> Result<()> {
    let failed = || format!("could not write `{}`", path.display());
    file.write_all(bytes).or_failed(failed)?;
    // A rename may reach the disk before the content does; small files are worth the wait.
    file.as_file().sync_all().or_failed(failed)?;
    publish(file, path).or_failed(failed)
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

/// Waits until no other process holds the lock on `path`; it is given up when the file is dropped.
pub(super) fn lock(path: &Path, session: &Session) -> Result<File> {
    /// A turn takes a few milliseconds, and waiting stays interruptible.
    const PAUSE: Duration = Duration::from_millis(20);
    let failed = || format!("could not lock `{}`", path.display());
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).or_failed(failed)?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            // As Cargo does where a file system knows no locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(Problem::failed(failed()).because(error)),
        }
        session.check()?;
        if !told {
            session.emit(&Event::Waiting { what: "file lock on the image index" });
            told = true;
        }
        std::thread::sleep(PAUSE);
    }
}
