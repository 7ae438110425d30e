//! What cannot be written, whoever tries.

use std::path::Path;
use std::process::Command;

use super::tools::{succeed, tool};

/// A file or directory that nobody may write, root neither: mounted read-only over itself, so that it can be neither
/// opened for writing nor removed nor replaced.
pub struct ReadOnly<'a>(&'a Path);

impl<'a> ReadOnly<'a> {
    pub fn new(path: &'a Path) -> Self {
        succeed(Command::new(tool("mount")).arg("--bind").arg(path).arg(path));
        let read_only = Self(path);
        succeed(Command::new(tool("mount")).args(["-o", "remount,bind,ro"]).arg(path));
        read_only
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        // A mount that stays makes the removal of its directory fail, which nothing depends on.
        drop(Command::new(tool("umount")).arg("-l").arg(self.0).output());
    }
}
