//! Files that others read: whole under their final name, or as they were.
//!
//! Each is written beside its final place and renamed there. Others may read it whom the umask lets, as it is with any
//! new file. It knows nothing of what is written.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

/// What names of files begin with that are not whole yet.
pub const TEMPORARY_PREFIX: &str = ".lambda-image-";

/// An empty file in `directory`, removed when dropped.
///
/// # Errors
/// When it cannot be made.
pub fn temporary_in(directory: &Path) -> io::Result<NamedTempFile> {
    // The kernel takes the umask off, which cannot be asked for without changing it.
    Builder::new().prefix(TEMPORARY_PREFIX).permissions(Permissions::from_mode(0o666)).tempfile_in(directory)
}

/// An empty file beside `path`, and the path to give it: where a link is there, what it leads to is replaced, and it
/// stays a link.
///
/// # Errors
/// When something else than a file is there, or the file cannot be made.
pub fn beside(path: &Path) -> io::Result<(NamedTempFile, PathBuf)> {
    let path = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => target(path),
        resolved => resolved?,
    };
    if fs::metadata(&path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::other("it is there, and no file"));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((temporary_in(directory)?, path))
}

/// Where a file would come to be that is not there: behind links, if there are some. Loops are not for here.
fn target(path: &Path) -> PathBuf {
    match fs::read_link(path) {
        Ok(link) => target(&path.parent().unwrap_or(Path::new("")).join(link)),
        Err(_) => path.to_owned(),
    }
}

/// Gives a finished file its name, and the permissions of the file that it replaces.
///
/// # Errors
/// When it cannot be renamed.
pub fn publish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    if let Some(there) = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file) {
        file.as_file().set_permissions(Permissions::from_mode(there.permissions().mode() & 0o777))?;
    }
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// As [`publish`], once the bytes are on the disk: a rename may reach it before them. Small files are worth the wait.
///
/// # Errors
/// As [`publish`].
pub fn publish_synced(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    publish(file, path)
}

/// Writes or replaces the small file at `path`.
///
/// # Errors
/// When it cannot be written: it is as it was then.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (mut file, path) = beside(path)?;
    file.write_all(bytes)?;
    publish_synced(file, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_links_and_permissions() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        replace(&path("file"), b"old").expect("written");
        fs::write(path("other"), "").expect("written");
        assert_eq!(mode(&path("file")), mode(&path("other")), "as any new file");
        fs::set_permissions(path("file"), Permissions::from_mode(0o640)).expect("set");
        std::os::unix::fs::symlink("file", path("link")).expect("linked");
        replace(&path("link"), b"new").expect("replaced");
        assert_eq!((fs::read(path("file")).expect("read"), mode(&path("file"))), (b"new".to_vec(), 0o640));
        assert!(fs::symlink_metadata(path("link")).expect("a link").is_symlink());
        std::os::unix::fs::symlink("link to nothing", path("first")).expect("linked");
        std::os::unix::fs::symlink("behind", path("link to nothing")).expect("linked");
        replace(&path("first"), b"new").expect("written");
        assert_eq!(fs::read(path("behind")).expect("read"), b"new");
        fs::create_dir(path("folder")).expect("made");
        for wrong in ["folder", "nowhere/file"] {
            assert!(replace(&path(wrong), b"new").is_err(), "{wrong}");
        }
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).expect("listed").map(|it| it.expect("an entry").file_name()).collect();
        left.sort();
        assert_eq!(left, ["behind", "file", "first", "folder", "link", "link to nothing", "other"]);
    }
}
