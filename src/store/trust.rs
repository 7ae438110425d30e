//! Whether a stored blob can be used without reading it.
//!
//! Syncing gigabytes to disk would cost more than making them (0.3 GB/s against 0.4 GB/s on the machine where this
//! was measured), and only a crash of the machine can tear what was written. So a blob is trusted while it is untouched
//! within the boot that wrote it, and verified once by its digest after that. Where the boot has no name, blobs are
//! synced.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::{Kind, Store, open_plain};
use crate::oci::{Digest, HashingWriter};
use crate::problem::{IoContext as _, Result};

/// What a blob's file looked like when its bytes were last known to be whole.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    boot: String,
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn now(metadata: &Metadata) -> Self {
        Self {
            boot: boot_id().unwrap_or("synced").to_owned(),
            size: metadata.size(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The running boot's name, if the system has one.
fn boot_id() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    BOOT.get_or_init(|| Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())).as_deref()
}

/// Makes a blob's bytes safe before it gets its name, where that is not left to verification after the next boot.
pub(super) fn settle(file: &File) -> io::Result<()> {
    if boot_id().is_some() { Ok(()) } else { file.sync_all() }
}

/// Remembers that the file at `path` holds the blob.
pub(super) fn remember(store: &Store, digest: &Digest, path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path).or_failed(|| format!("could not stat `{}`", path.display()))?;
    store.records().put(Kind::Blob, &digest.to_string(), &Seen::now(&metadata))
}

/// Whether the blob is there, of this size, and whole.
pub(super) fn is_whole(store: &Store, digest: &Digest, size: u64) -> bool {
    let path = store.blob_path(digest);
    let Ok(metadata) = fs::symlink_metadata(&path) else { return false };
    let found = Seen::now(&metadata);
    if metadata.is_file() {
        let key = digest.to_string();
        if store.records().get::<Seen>(Kind::Blob, &key).is_some_and(|seen| seen == found)
            || (digest_of(&path).is_ok_and(|digest_now| digest_now == *digest)
                // As it was before it was read: who writes into it meanwhile is not taken for whole.
                && store.records().put(Kind::Blob, &key, &found).is_ok())
        {
            // A whole blob of another size: whoever claims that size is wrong, not the blob.
            return metadata.size() == size;
        }
    }
    // A damaged blob under a final name must not be left for others to read, unless another build has just replaced
    // it. One that cannot be removed is replaced by the rename that ends its making.
    if store.may_write() && fs::symlink_metadata(&path).is_ok_and(|metadata| Seen::now(&metadata) == found) {
        let _ = fs::remove_file(&path);
    }
    false
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = open_plain(path)?;
    let mut hasher = HashingWriter::new(io::sink());
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish().1);
        }
        io::Write::write_all(&mut hasher, &buffer[..count])?;
    }
}
