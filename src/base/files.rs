//! Names with bytes behind them: a directory and a tar, which look alike here.
//!
//! Nothing is ever unpacked, and no symlink of the file system is followed; links inside a tar are names, resolved
//! within the tar. What the names mean is `local`'s and `docker`'s.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document;
use crate::layer::gunzip;
use crate::oci::{Descriptor, Digest};
use crate::problem::{IoContext as _, Problem, Result};
use crate::store::open_plain;

/// How many links in a row are followed inside a tar.
const MAX_LINKS: usize = 8;

/// The most members an archive may have: a layout of the largest image has a few hundred.
const MAX_MEMBERS: usize = 100_000;

/// The most bytes the headers of an archive may have, names included: those of that many members. A name is read whole.
const MAX_HEADERS: u64 = MAX_MEMBERS as u64 * 512;

/// The first bytes of a zstd frame (RFC 8878, 3.1.1).
pub(super) const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The name of a blob in a layout.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Names with bytes behind them: a directory, or an uncompressed tar.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Directory,
    Tar { file: Arc<File>, members: BTreeMap<String, Member>, has_end: bool },
}

/// What a tar has under a name.
#[derive(Debug)]
enum Member {
    File { offset: u64, size: u64 },
    Link { target: String },
}

impl Files {
    pub(super) fn directory(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Err(Problem::usage(format!("there is no directory `{}`", path.display()))
                .help("a layout in a tar file is written `oci-archive:FILE`"));
        }
        Ok(Self { path: path.to_owned(), kind: Kind::Directory })
    }

    /// Reads where the members of the tar at `path` lie; their bytes are skipped.
    pub(super) fn archive(path: &Path) -> Result<Self> {
        let shown = path.display();
        // The archive itself may be a symlink: the user named it. A pipe would hold us up, and cannot be read twice.
        let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Problem::usage(format!("there is no file `{shown}`"))
                    .help("`skopeo copy` and `docker save` write such archives"));
            }
            file => file.or_failed(|| format!("could not open `{shown}`"))?,
        };
        let kind = file.metadata().or_failed(|| format!("could not read `{shown}`"))?.file_type();
        if kind.is_dir() {
            return Err(
                Problem::usage(format!("`{shown}` is a directory")).help("a layout directory is written `oci:DIR`")
            );
        }
        if !kind.is_file() {
            return Err(Problem::usage(format!("`{shown}` is no regular file"))
                .help("write the archive into a file first, and name that"));
        }
        let mut magic = [0; 4];
        let count = file.read_at(&mut magic, 0).or_failed(|| format!("could not read `{shown}`"))?;
        if magic[..count].starts_with(&gunzip::MAGIC) || magic[..count] == ZSTD_MAGIC {
            return Err(Problem::usage(format!("`{shown}` is compressed as a whole"))
                .help("decompress it first, for example with `gunzip` or `zstd -d`"));
        }
        let members = members(&file)
            .or_failed(|| format!("could not read `{shown}` as a tar"))
            .map_err(|problem| problem.help(WHOLE))?;
        let has_end = has_end(&file).or_failed(|| format!("could not read `{shown}`"))?;
        Ok(Self { path: path.to_owned(), kind: Kind::Tar { file: Arc::new(file), members, has_end } })
    }

    /// Whether it is a tar.
    pub(super) fn is_archive(&self) -> bool {
        matches!(self.kind, Kind::Tar { .. })
    }

    /// Why something may be missing: the archive ends between two members, and nothing says that this is its end.
    pub(super) fn cut_short(&self) -> Option<Problem> {
        let message = || format!("`{}` is cut short: it ends without the mark of a tar's end", self.path.display());
        match &self.kind {
            Kind::Tar { has_end: false, .. } => Some(Problem::failed(message()).help(WHOLE)),
            Kind::Tar { .. } | Kind::Directory => None,
        }
    }

    /// Whether there are bytes under `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.open(name).is_ok()
    }

    /// The bytes under `name`, and how many there are.
    ///
    /// # Errors
    /// When there are none, or only by way of a symlink of the file system.
    pub(super) fn open(&self, name: &str) -> Result<(Box<dyn Read + Send>, u64)> {
        match &self.kind {
            Kind::Directory => {
                let path = self.path.join(name);
                let file = open_plain(&path)
                    .or_failed(|| format!("could not open `{}`", path.display()))
                    .map_err(|problem| problem.or_help(document::REMAKE))?;
                let size = file.metadata().or_failed(|| format!("could not read `{}`", path.display()))?.len();
                Ok((Box::new(file), size))
            }
            Kind::Tar { file, members, .. } => {
                let missing = || {
                    let message = format!("`{}` has no member `{name}`", self.path.display());
                    self.cut_short().unwrap_or_else(|| Problem::failed(message).help(document::REMAKE))
                };
                let (offset, size) = find(members, name).ok_or_else(missing)?;
                Ok((Box::new(Section { file: file.clone(), offset, left: size }), size))
            }
        }
    }

    /// All bytes under `name`, at most `cap`.
    pub(super) fn small(&self, name: &str, cap: u64) -> Result<Vec<u8>> {
        let (reader, size) = self.open(name)?;
        let path = self.path.display();
        if size > cap {
            let message = format!("`{name}` of `{path}` has {size} bytes, at most {cap} are read");
            return Err(Problem::failed(message).help(document::TOO_LONG));
        }
        let mut bytes = Vec::new();
        reader.take(cap).read_to_end(&mut bytes).or_failed(|| format!("could not read `{name}` of `{path}`"))?;
        Ok(bytes)
    }

    /// A small blob of a layout, verified.
    pub(super) fn blob(&self, descriptor: &Descriptor, cap: u64) -> Result<Vec<u8>> {
        let bytes = self.small(&blob_name(&descriptor.digest), cap)?;
        let found = Digest::of(&bytes);
        if found == descriptor.digest && bytes.len() as u64 == descriptor.size {
            return Ok(bytes);
        }
        Err(Problem::failed(format!(
            "blob {} ({} bytes) of `{}` is damaged: it is {found} ({} bytes)",
            descriptor.digest,
            descriptor.size,
            self.path.display(),
            bytes.len()
        ))
        .help("write the layout anew"))
    }
}

/// The way on from an archive of which a part is missing.
const WHOLE: &str = "give a whole archive, as `skopeo copy` and `docker save` write them";

/// Whether a tar ends with a block of zeros (POSIX, ustar); some writers leave them out.
fn has_end(file: &File) -> io::Result<bool> {
    let mut last = [0; 512];
    let Some(start) = file.metadata()?.len().checked_sub(last.len() as u64) else { return Ok(false) };
    file.read_exact_at(&mut last, start)?;
    Ok(last == [0; 512])
}

/// Where the bytes of `name` lie, through the links of the tar.
fn find(members: &BTreeMap<String, Member>, name: &str) -> Option<(u64, u64)> {
    let mut name = normal(name)?;
    for _ in 0..MAX_LINKS {
        match members.get(&name)? {
            Member::File { offset, size } => return Some((*offset, *size)),
            Member::Link { target } => name.clone_from(target),
        }
    }
    None
}

fn members(file: &File) -> io::Result<BTreeMap<String, Member>> {
    let length = file.metadata()?.len();
    let mut members = BTreeMap::new();
    let mut archive = tar::Archive::new(Headers { file, left: MAX_HEADERS });
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some(name) = normal(&path) else { continue };
        let (kind, start, size) = (entry.header().entry_type(), entry.raw_file_position(), entry.size());
        let is_file = matches!(kind, tar::EntryType::Regular | tar::EntryType::Continuous);
        // What lies behind the end of the file is sought past as well.
        if is_file && start.checked_add(size).is_none_or(|end| end > length) {
            let message = format!("it is cut short: it ends within `{}`", name.escape_debug());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        let target = entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
        let member = match (kind, target) {
            _ if is_file => Some(Member::File { offset: start, size }),
            // A symlink counts from its directory, a hard link from the root of the archive.
            (tar::EntryType::Symlink, Some(target)) => {
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                normal(&format!("{directory}/{target}")).map(|target| Member::Link { target })
            }
            (tar::EntryType::Link, Some(target)) => normal(&target).map(|target| Member::Link { target }),
            _ => None,
        };
        members.extend(member.map(|member| (name, member)));
        if members.len() > MAX_MEMBERS {
            return Err(io::Error::other("it has too many members to be an image"));
        }
    }
    Ok(members)
}

/// An archive that gives only so many bytes to whoever looks for its members: the rest is sought past.
struct Headers<'a> {
    file: &'a File,
    left: u64,
}

impl Read for Headers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        let left = self.left.checked_sub(count as u64);
        self.left = left.ok_or_else(|| io::Error::other("its headers are too long for an image"))?;
        Ok(count)
    }
}

impl Seek for Headers<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

/// A path inside a tar without `.`, `..` and empty parts; `None` if it leads out.
fn normal(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A part of a file, read by position so that several readers share one handle.
struct Section {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.offset)?;
        if count == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is truncated"));
        }
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_resolved_within_the_archive() {
        let link = |target: &str| Member::Link { target: target.into() };
        let members = BTreeMap::from([
            ("a/layer.tar".to_owned(), Member::File { offset: 512, size: 3 }),
            ("b/layer.tar".to_owned(), link("a/layer.tar")),
            ("c/layer.tar".to_owned(), link("b/layer.tar")),
            ("loop".to_owned(), link("loop")),
            ("dangling".to_owned(), link("nowhere")),
        ]);
        for (name, found) in [
            ("a/layer.tar", Some((512, 3))),
            ("./a//layer.tar", Some((512, 3))),
            ("b/../c/layer.tar", Some((512, 3))),
            ("loop", None),
            ("dangling", None),
            ("../a/layer.tar", None),
            ("a", None),
        ] {
            assert_eq!(find(&members, name), found, "{name}");
        }
    }
}
