//! Where things lie on disk: `<target>/lambda-image/` with its `layout/`, `records/` and temporary files.
//!
//! Content-addressed files, who may write or delete them when several builds run at once, and who only looks at them,
//! as a dry run does. It knows nothing of what the bytes mean.

pub mod blob;
pub mod lock;
pub mod records;
mod trust;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::atomic;
use crate::event::Session;
use crate::oci::{Descriptor, Digest};
use crate::problem::{IoContext as _, Problem, Result};

pub use blob::{BlobFile, BlobWriter};
pub use lock::Hold;
pub use records::{Kind, Records};

/// The lock of a store, for people.
const WHAT_IS_LOCKED: &str = "file lock on the image store";

/// The program's directory below Cargo's target directory. While it is open it holds a shared lock, so that nobody
/// prunes what this build is about to use.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    records: Records,
    access: Access,
}

/// What may be done to the files of a store.
#[derive(Debug)]
enum Access {
    Write {
        /// Shared while builds run, exclusive while one of them prunes.
        build_lock: File,
        /// Removed with everything in it when the store is dropped; a killed build's is removed by the next one.
        temporary: tempfile::TempDir,
        /// Held for as long as `temporary` is in use: who can take it knows that its owner is dead.
        _temporary_lock: File,
    },
    Read {
        /// Absent where no build was before, or nothing can be locked.
        _build_lock: Option<File>,
        /// The blobs that would have been written, and their sizes.
        unwritten: Mutex<HashMap<Digest, u64>>,
    },
}

impl Store {
    /// Opens or creates the store at `root` (`<target>/lambda-image`), takes the shared lock and removes what killed
    /// builds left behind.
    ///
    /// # Errors
    /// When the directories cannot be made or locked.
    pub fn open(root: &Path, session: &Session) -> Result<Self> {
        for directory in ["layout/blobs/sha256", "records", "tmp"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).or_failed(|| format!("could not create `{}`", path.display()))?;
        }
        let build_lock = lock::wait(&root.join("build.lock"), Hold::Shared, WHAT_IS_LOCKED, session)?;
        let (temporary, temporary_lock) = claim_temporary(&root.join("tmp"), session)?;
        let records = Records::new(root.join("records"), temporary.path().to_owned());
        let access = Access::Write { build_lock, temporary, _temporary_lock: temporary_lock };
        Ok(Self { root: root.to_owned(), records, access })
    }

    /// Opens the store at `root` for who only wants to know what would be done. What is there is used; what would be
    /// written is as if it had been for as long as the store is open, but nothing on disk changes: records are kept in
    /// memory, the bytes of blobs nowhere. There need not be a store.
    ///
    /// # Errors
    /// When the session is asked to stop while another process prunes.
    pub fn look(root: &Path, session: &Session) -> Result<Self> {
        let build_lock = lock::share_if_there(&root.join("build.lock"), WHAT_IS_LOCKED, session)?;
        let records = Records::in_memory(root.join("records"));
        let access = Access::Read { _build_lock: build_lock, unwritten: Mutex::default() };
        Ok(Self { root: root.to_owned(), records, access })
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

    /// Whether the blob is there and can be trusted: untouched since this program wrote it during this boot of the
    /// machine, or verified again now. One that turns out damaged is removed.
    #[must_use]
    pub fn contains(&self, descriptor: &Descriptor) -> bool {
        self.would_contain(descriptor) || trust::is_whole(self, &descriptor.digest, descriptor.size)
    }

    /// Whether it is a blob that was made, and not written since nothing is to be.
    fn would_contain(&self, descriptor: &Descriptor) -> bool {
        match &self.access {
            Access::Write { .. } => false,
            Access::Read { unwritten, .. } => {
                let unwritten = unwritten.lock().unwrap_or_else(PoisonError::into_inner);
                unwritten.get(&descriptor.digest) == Some(&descriptor.size)
            }
        }
    }

    fn would_write(&self, digest: &Digest, size: u64) {
        if let Access::Read { unwritten, .. } = &self.access {
            unwritten.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest, size);
        }
    }

    /// Opens a blob for reading, never through a symlink (the class of CVE-2026-50162).
    ///
    /// # Errors
    /// When it is absent, no regular file, or of another size.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<File> {
        let path = self.blob_path(&descriptor.digest);
        let file = open_plain(&path).or_failed(|| format!("could not open blob `{}`", path.display()))?;
        let size = file.metadata().or_failed(|| format!("could not read the size of `{}`", path.display()))?.len();
        if size != descriptor.size {
            return Err(Problem::failed(format!(
                "blob `{}` has {size} bytes and should have {}",
                path.display(),
                descriptor.size
            ))
            .help("delete the file and build again"));
        }
        Ok(file)
    }

    /// Begins a blob whose digest is not yet known, or is to be verified at the end.
    ///
    /// # Errors
    /// When no temporary file can be made.
    pub fn writer(&self) -> Result<BlobWriter<'_>> {
        BlobWriter::new(self)
    }

    /// Begins a blob that somebody else hashes.
    ///
    /// # Errors
    /// When no temporary file can be made.
    pub fn file(&self) -> Result<BlobFile<'_>> {
        BlobFile::new(self)
    }

    /// Writes small bytes as a blob; does nothing if it is already there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !trust::is_whole(self, &digest, bytes.len() as u64) {
            let mut writer = self.writer()?;
            writer.write_all(bytes).or_failed(|| format!("could not write blob {digest}"))?;
            writer.finish()?;
        }
        Ok(digest)
    }

    fn may_write(&self) -> bool {
        matches!(self.access, Access::Write { .. })
    }

    /// An empty temporary file on the store's file system, removed when dropped.
    ///
    /// # Errors
    /// When it cannot be made, or nothing is to be written.
    pub fn temporary_file(&self) -> Result<tempfile::NamedTempFile> {
        let Access::Write { temporary, .. } = &self.access else {
            return Err(Problem::failed(format!("`{}` is only to be looked at", self.root.display())));
        };
        let directory = temporary.path();
        atomic::temporary_in(directory).or_failed(|| format!("could not create a file in `{}`", directory.display()))
    }

    /// Deletes every blob that `keep` does not name, unless another build is running. `keep` is asked once nobody
    /// else can add blobs, so that it sees every finished build.
    ///
    /// # Errors
    /// What `keep` fails with, or a directory that cannot be listed.
    pub fn prune(&self, keep: impl FnOnce() -> Result<HashSet<Digest>>) -> Result<()> {
        let Access::Write { build_lock, .. } = &self.access else { return Ok(()) };
        if build_lock.try_lock().is_err() {
            // A failed conversion may have given up the shared lock.
            return build_lock.lock_shared().or_failed(|| format!("could not lock `{}`", self.root.display()));
        }
        let kept = keep().and_then(|keep| self.delete_all_but(&keep));
        let shared = build_lock.lock_shared().or_failed(|| format!("could not lock `{}`", self.root.display()));
        kept.and(shared)
    }

    fn delete_all_but(&self, keep: &HashSet<Digest>) -> Result<()> {
        let directory = self.layout_path().join("blobs/sha256");
        let listed = || format!("could not list `{}`", directory.display());
        for entry in fs::read_dir(&directory).or_failed(listed)? {
            let entry = entry.or_failed(listed)?;
            let digest = entry.file_name().to_str().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            match digest {
                Some(digest) if keep.contains(&digest) => {}
                _ => {
                    // What cannot be deleted costs space, and the next build tries again.
                    let _ = fs::remove_file(entry.path());
                    if let Some(digest) = digest {
                        self.records.remove(Kind::Blob, &digest.to_string());
                    }
                }
            }
        }
        self.records.expire();
        Ok(())
    }
}

/// Opens a regular file for reading, never through a symlink.
pub(crate) fn open_plain(path: &Path) -> std::io::Result<File> {
    // Without blocking, so that a FIFO under the name of a file cannot hold us up.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::Error::other("not a regular file")) }
}

/// Makes this process's temporary directory and removes what those left whose owners are gone.
fn claim_temporary(tmp: &Path, session: &Session) -> Result<(tempfile::TempDir, File)> {
    let failed = || format!("could not prepare `{}`", tmp.display());
    // Held while looking, so that nobody's directory is seen between its creation and its lock.
    let _guard = lock::wait(&tmp.join("lock"), Hold::Alone, "file lock on temporary files", session)?;
    for entry in fs::read_dir(tmp).or_failed(failed)? {
        let entry = entry.or_failed(failed)?;
        let path = entry.path();
        // Not what a link leads to: that is not ours.
        if entry.file_type().or_failed(failed)?.is_dir()
            && lock::open(&path.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok())
        {
            // What cannot be removed costs space, and the next build tries again.
            let _ = fs::remove_dir_all(&path);
        }
    }
    let mine = tempfile::TempDir::new_in(tmp).or_failed(failed)?;
    let lock = lock::open(&mine.path().join("lock"))?;
    match lock.lock() {
        Err(error) if error.kind() != std::io::ErrorKind::Unsupported => Err(error).or_failed(failed),
        _ => Ok((mine, lock)),
    }
}

#[cfg(test)]
mod tests;
