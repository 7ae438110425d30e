//! Waiting for other processes: file locks that can be waited for without holding up a request to stop.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::event::{Event, Session};
use crate::problem::{IoContext as _, Problem, Result};

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Together with others who share it.
    Shared,
    /// By nobody else.
    Alone,
}

/// Opens the file of a lock, which is made if need be.
///
/// # Errors
/// When it cannot be opened.
pub(super) fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .or_failed(|| format!("could not open `{}`", path.display()))
}

/// Waits until the lock on `path` can be held; it is given up when the file is dropped. `what` says for people what the
/// lock is on, should there be a wait.
///
/// # Errors
/// When the file cannot be opened or locked, or the session is asked to stop.
pub fn wait(path: &Path, hold: Hold, what: &'static str, session: &Session) -> Result<File> {
    hold_on(open(path)?, path, hold, what, session)
}

/// As [`wait`], for who may write nothing: shares the lock if there is one that can be shared.
///
/// # Errors
/// When the session is asked to stop.
pub(super) fn share_if_there(path: &Path, what: &'static str, session: &Session) -> Result<Option<File>> {
    let Ok(file) = super::open_plain(path) else { return Ok(None) };
    let held = hold_on(file, path, Hold::Shared, what, session);
    session.check()?;
    Ok(held.ok())
}

fn hold_on(file: File, path: &Path, hold: Hold, what: &'static str, session: &Session) -> Result<File> {
    /// Turns take milliseconds; only a pruning of gigabytes takes longer.
    const PAUSE: Duration = Duration::from_millis(20);

    let mut told = false;
    loop {
        let locked = match hold {
            Hold::Shared => file.try_lock_shared(),
            Hold::Alone => file.try_lock(),
        };
        match locked {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            // As Cargo does where a file system knows no locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(file),
            Err(TryLockError::Error(error)) => {
                return Err(Problem::failed(format!("could not lock `{}`", path.display()))
                    .because(error)
                    .help("keep the target directory on a disk of this machine, with `--target-dir`"));
            }
        }
        session.check()?;
        if !told {
            session.emit(&Event::Waiting { what });
            told = true;
        }
        std::thread::sleep(PAUSE);
    }
}
