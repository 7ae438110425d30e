//! Entries become deterministic tar bytes: nothing of the machine, the user or the day is in them.
//!
//! Headers are ustar, with PAX records only where a name's length or a file's size demands them: what Docker's own
//! writer does, so what Lambda's reader meets most. (Not named `tar`: that would shadow the crate.)

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;

use tar::{EntryType, Header};

use super::entries::{Content, Entry, Source, Stat};
use crate::problem::{IoContext as _, Problem, Result};

/// The one modification time of every member, in seconds since 1970. Not 0, which some programs read as "no time".
const MTIME: u64 = 1;

/// Sizes that do not fit the 11 octal digits of a ustar header need a PAX record.
const USTAR_SIZE_LIMIT: u64 = 0o777_7777_7777;

/// Room in a ustar header for a link's target.
const USTAR_LINK_LIMIT: usize = 100;

const TAR_BLOCK: u64 = 512;

/// Takes a tar's bytes: headers by `Write`, and the content of files straight from where they are read.
pub trait TarSink: Write {
    /// Takes exactly `size` bytes from `file`; returns how many there were if it ended early.
    ///
    /// # Errors
    /// When reading fails, or what comes after the sink does.
    fn take_from(&mut self, file: &mut File, size: u64) -> io::Result<u64>;
}

/// Writes `entries` and the end of the archive.
///
/// # Errors
/// When a source cannot be read or is no longer what it was when it was listed, or when the sink fails.
pub fn write<S: TarSink>(entries: &[Entry], sink: &mut S) -> Result<()> {
    let failed = || "could not write the layer".to_owned();
    for entry in entries {
        write_headers(entry, sink).or_failed(failed)?;
        if let Content::File(source) = &entry.content {
            write_content(source, sink)?;
        }
    }
    sink.write_all(&[0; 2 * TAR_BLOCK as usize]).or_failed(failed)
}

/// The size in bytes of the tar that [`write()`] makes of `entries`, known without reading a file.
#[must_use]
pub fn size(entries: &[Entry]) -> u64 {
    let content = |entry: &Entry| entry.size().div_ceil(TAR_BLOCK) * TAR_BLOCK;
    let headers = |entry: &Entry| {
        let mut counter = Counter(0);
        // A counter takes everything.
        let _ = write_headers(entry, &mut counter);
        counter.0
    };
    entries.iter().map(|entry| headers(entry) + content(entry)).sum::<u64>() + 2 * TAR_BLOCK
}

fn write_headers(entry: &Entry, sink: &mut impl Write) -> io::Result<()> {
    let mut name = entry.path_bytes().to_vec();
    let mut header = Header::new_ustar();
    let mut records: Vec<(&str, Vec<u8>)> = Vec::new();
    header.set_mode(entry.mode());
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    match &entry.content {
        Content::Directory { .. } => {
            name.push(b'/');
            header.set_entry_type(EntryType::Directory);
        }
        Content::File(_) => header.set_entry_type(EntryType::Regular),
        Content::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            let target = target.as_os_str().as_bytes();
            if target.len() <= USTAR_LINK_LIMIT {
                header.set_link_name_literal(target)?;
            } else {
                records.push(("linkpath", target.to_vec()));
            }
        }
    }
    if !set_name(&mut header, &name) {
        records.push(("path", name));
    }
    let size = entry.size();
    if size > USTAR_SIZE_LIMIT {
        records.push(("size", size.to_string().into_bytes()));
        header.set_size(0);
    } else {
        header.set_size(size);
    }
    if !records.is_empty() {
        write_pax(&records, sink)?;
    }
    header.set_cksum();
    sink.write_all(header.as_bytes())
}

/// Puts a name into the header's `prefix` and `name` fields if it fits there.
fn set_name(header: &mut Header, name: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else { return false };
    if name.len() <= ustar.name.len() {
        ustar.name[..name.len()].copy_from_slice(name);
        return true;
    }
    // The split must be at a `/` that leaves a name of 1 to 100 bytes and a prefix of 1 to 155.
    let earliest = name.len().saturating_sub(ustar.name.len() + 1);
    let split = name[..name.len() - 1]
        .iter()
        .enumerate()
        .skip(earliest.max(1))
        .find(|(at, byte)| **byte == b'/' && *at <= ustar.prefix.len());
    let Some((at, _)) = split else { return false };
    ustar.prefix[..at].copy_from_slice(&name[..at]);
    let rest = &name[at + 1..];
    ustar.name[..rest.len()].copy_from_slice(rest);
    true
}

/// Writes a PAX extended header (POSIX pax, "pax Header Block") for the member that follows.
fn write_pax(records: &[(&str, Vec<u8>)], sink: &mut impl Write) -> io::Result<()> {
    let mut body = Vec::new();
    // Without this, readers take names for UTF-8.
    if records.iter().any(|(_, value)| std::str::from_utf8(value).is_err()) {
        body.extend(pax_record("hdrcharset", b"BINARY"));
    }
    for (key, value) in records {
        body.extend(pax_record(key, value));
    }
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    header.set_size(body.len() as u64);
    set_name(&mut header, b"PaxHeaders/member");
    header.set_cksum();
    sink.write_all(header.as_bytes())?;
    body.resize(body.len().next_multiple_of(TAR_BLOCK as usize), 0);
    sink.write_all(&body)
}

/// `LENGTH key=value\n`, where the length counts its own digits too.
fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

/// Writes a file's bytes and padding, and makes sure that it was one and the same file all the while.
fn write_content(source: &Source, sink: &mut impl TarSink) -> Result<()> {
    let path = source.path.display();
    let mut file = open(source).map_err(|error| unopened(source, error))?;
    let stat = |file: &File| -> Result<Stat> {
        file.metadata().map(|metadata| Stat::of(&metadata)).or_failed(|| format!("could not stat `{path}`"))
    };
    let found = stat(&file)?;
    if !found.has_content_of(&source.stat) {
        return Err(changed(source, found, "since it was listed"));
    }
    let size = source.stat.size;
    let taken = sink.take_from(&mut file, size).or_failed(|| format!("could not read `{path}`"))?;
    let after = stat(&file)?;
    if taken < size || !after.has_content_of(&source.stat) {
        return Err(changed(source, after, "while it was read"));
    }
    if file.read(&mut [0]).or_failed(|| format!("could not read `{path}`"))? > 0 {
        return Err(changed(source, Stat { size: size + 1, ..after }, "while it was read"));
    }
    let named = if source.follow { fs::metadata(&source.path) } else { fs::symlink_metadata(&source.path) };
    match named {
        Ok(metadata) if Stat::of(&metadata).has_content_of(&source.stat) => {}
        Ok(metadata) => return Err(changed(source, Stat::of(&metadata), "while it was read")),
        Err(error) => {
            return Err(Problem::failed(format!("`{path}` vanished while it was read")).because(error).help(RETRY));
        }
    }
    let padding = size.next_multiple_of(TAR_BLOCK) - size;
    sink.write_all(&[0; TAR_BLOCK as usize][..usize::try_from(padding).unwrap_or(0)])
        .or_failed(|| "could not write the layer".into())
}

const RETRY: &str = "build again once nothing writes to it any more";

fn changed(source: &Source, found: Stat, when: &str) -> Problem {
    let listed = source.stat;
    let what = if found.identity != listed.identity {
        "was replaced".to_owned()
    } else if found.size > listed.size {
        format!("grew from {} bytes", listed.size)
    } else if found.size < listed.size {
        format!("shrank from {} to {} bytes", listed.size, found.size)
    } else {
        "changed".to_owned()
    };
    Problem::failed(format!("`{}` {what} {when}", source.path.display())).help(RETRY)
}

/// What became of a file that cannot be opened any more.
fn unopened(source: &Source, error: io::Error) -> Problem {
    let path = source.path.display();
    let what = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => "vanished",
        // A symlink where there was none is not followed; a socket cannot be opened.
        Some(libc::ELOOP | libc::ENXIO) => "was replaced",
        _ => {
            let failed = Err::<(), _>(error).or_failed(|| format!("could not open `{path}`"));
            return failed.expect_err("an error stays one");
        }
    };
    Problem::failed(format!("`{path}` {what} since it was listed")).because(error).help(RETRY)
}

/// Opens a source as it is going to be read.
pub(super) fn open(source: &Source) -> io::Result<File> {
    // Not blocking, in case a FIFO took the file's place.
    let flags = if source.follow { libc::O_NONBLOCK } else { libc::O_NONBLOCK | libc::O_NOFOLLOW };
    OpenOptions::new().read(true).custom_flags(flags).open(&source.path)
}

struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
