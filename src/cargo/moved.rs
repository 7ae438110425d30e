//! Binaries that a subcommand takes away from where cargo says they are.
//!
//! cargo-lambda does: it has cargo compile, and then moves each binary to `lambda/NAME/bootstrap` in the target
//! directory. What lies there counts only if it was put there by this very run: an older one would be somebody's older
//! code.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What tells whether a file was put in its place since: only the kernel sets the last of it.
type Mark = (u64, u64, (i64, i64));

/// Where the binary of one name would be moved to, and what was there before.
#[derive(Debug)]
pub(super) struct Destination {
    path: PathBuf,
    before: Option<Mark>,
}

impl Destination {
    /// Looks at where the binary `bin` would go, before anything runs.
    pub(super) fn of(bin: &str, target_directory: &Path) -> Self {
        let path = target_directory.join("lambda").join(bin).join("bootstrap");
        Self { before: mark(&path), path }
    }

    /// Where the binary is that cargo says is at `told`.
    pub(super) fn find(self, told: PathBuf) -> Option<PathBuf> {
        if told.exists() {
            return Some(told);
        }
        let now = mark(&self.path);
        (now.is_some() && now != self.before).then_some(self.path)
    }
}

fn mark(path: &Path) -> Option<Mark> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.size(), (metadata.ctime(), metadata.ctime_nsec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_where_cargo_says_or_where_it_was_moved_to_by_this_run() {
        let target = tempfile::tempdir().expect("a temporary directory");
        let (told, moved) = (target.path().join("app"), target.path().join("lambda/app/bootstrap"));
        let found = |destination: Destination| destination.find(told.clone());
        assert_eq!(found(Destination::of("app", target.path())), None);

        fs::create_dir_all(moved.parent().expect("a parent")).expect("made");
        let destination = Destination::of("app", target.path());
        fs::write(&moved, "first").expect("written");
        assert_eq!(found(destination), Some(moved.clone()));
        assert_eq!(found(Destination::of("app", target.path())), None, "it was there before");

        let destination = Destination::of("app", target.path());
        fs::remove_file(&moved).expect("removed");
        assert_eq!(found(destination), None);

        let destination = Destination::of("app", target.path());
        fs::write(&moved, "again").expect("written");
        fs::write(&told, "where it should be").expect("written");
        assert_eq!(found(destination), Some(told));
    }
}
