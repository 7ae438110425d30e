//! Reads a tar that somebody else wrote, for its headers and the few files the checks want to look into.
//!
//! Nothing is unpacked, names go nowhere near the file system, and every size a header claims is capped before it
//! costs memory: a hostile tar ends in an error.

use std::collections::HashMap;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::facts::{Allowance, EntryFacts, EntryKind, LayerFacts};
use super::{elf, look};
use crate::event::Session;
use crate::oci::{DiffId, Digest};
use crate::problem::{IoContext as _, Result};

const TAR_BLOCK: usize = 512;

/// Long names and PAX records, which may hold attributes of files besides.
const EXTENSION_LIMIT: u64 = 1 << 20;

/// The longest path that Linux takes (`PATH_MAX`).
const PATH_LIMIT: usize = 4096;

/// Reads an uncompressed tar to its end and gathers its digest and facts.
///
/// # Errors
/// When the tar is malformed or truncated, holds more than is allowed, or when reading fails.
pub(super) fn scan(tar: impl Read, allowance: &Allowance, session: &Session) -> Result<(DiffId, LayerFacts)> {
    let input = Hashed { inner: tar, hasher: Sha256::new(), size: 0, allowance };
    let mut scanner = Scanner { input, session, buffer: vec![0; 64 << 10].into_boxed_slice() };
    let mut facts = LayerFacts::default();
    let read = |error| Err(error).or_failed(|| "could not read the layer's tar".to_owned());
    let mut long = Extensions::default();
    loop {
        let seen = (facts.entries.len(), facts.elf.len(), facts.inside.len());
        let header = match scanner.header() {
            Ok(Some(header)) => header,
            Ok(None) => break,
            Err(error) => return read(error),
        };
        if let Err(error) = scanner.member(&header, &mut long, &mut facts) {
            return read(error);
        }
        let mut kept = facts.entries.get(seen.0).map_or(0, text_bytes);
        // What is inside is a line at most, under the same name again.
        kept += facts.inside[seen.2..].iter().map(|(path, _)| path.len() + look::MOST_TEXT).sum::<usize>();
        kept += facts.elf.get(seen.1).map_or(0, |(_, elf)| elf.text_bytes());
        allowance.take(facts.entries.len() - seen.0, kept)?;
    }
    match scanner.behind_the_end() {
        Ok(bytes) => facts.trailing_bytes = bytes,
        Err(error) => return read(error),
    }
    facts.uncompressed_size = scanner.input.size;
    Ok((DiffId(Digest::from(<[u8; 32]>::from(scanner.input.hasher.finalize()))), facts))
}

/// What extension headers say of the member that follows them.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

struct Scanner<'a, R> {
    input: Hashed<'a, R>,
    session: &'a Session,
    /// Where skipped bytes go.
    buffer: Box<[u8]>,
}

impl<R: Read> Scanner<'_, R> {
    /// The next header, or `None` at the end of the archive.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while filled < TAR_BLOCK {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the tar ends within a header")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let checksum = bytes.iter().enumerate().map(|(at, byte)| match at {
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        });
        let checksum = checksum.sum::<u32>();
        if header.cksum().map_err(malformed)? != checksum {
            return Err(io::Error::other("a header of the tar has a wrong checksum"));
        }
        Ok(Some(header))
    }

    fn member(&mut self, header: &Header, long: &mut Extensions, facts: &mut LayerFacts) -> io::Result<()> {
        self.session.check()?;
        let header_size = header.entry_size().map_err(malformed)?;
        match header.entry_type() {
            EntryType::GNULongName => long.path = Some(self.name(header_size)?),
            EntryType::GNULongLink => long.link = Some(self.name(header_size)?),
            EntryType::XHeader => {
                let body = self.extension(header_size)?;
                read_pax(&body, long)?;
            }
            EntryType::XGlobalHeader => drop(self.extension(header_size)?),
            kind => {
                let long = std::mem::take(long);
                let entry = entry(header, kind, &long, long.size.unwrap_or(header_size));
                if entry.path.len() > PATH_LIMIT {
                    let length = entry.path.len();
                    return Err(io::Error::other(format!(
                        "the tar has a name of {length} bytes, and Linux takes {PATH_LIMIT}"
                    )));
                }
                // Links and directories may state a size and have no content (POSIX, ustar typeflag).
                let has_content = !matches!(
                    kind,
                    EntryType::Link
                        | EntryType::Symlink
                        | EntryType::Directory
                        | EntryType::Char
                        | EntryType::Block
                        | EntryType::Fifo
                );
                if kind == EntryType::GNUSparse {
                    self.skip_sparse_map(header)?;
                }
                if has_content {
                    self.content(&entry, long.size.unwrap_or(header_size), facts)?;
                }
                facts.entries.push(entry);
            }
        }
        Ok(())
    }

    /// Reads or skips a member's content, looking at the first bytes of files and into ELF files.
    fn content(&mut self, entry: &EntryFacts, size: u64, facts: &mut LayerFacts) -> io::Result<()> {
        // A size without an end is refused before anything is read for it.
        padded(size)?;
        if entry.kind != EntryKind::File {
            self.skip(size)?;
            return self.padding(size);
        }
        let mut head = self.exactly(look::wanted(&entry.path, size))?;
        let found = look::look(&entry.path, entry.mode, size, &head);
        facts.inside.extend(found.into_iter().map(|inside| (entry.path.clone(), inside)));
        if head.starts_with(b"\x7fELF") {
            let more = self.exactly(size.min(elf::HELD_BYTES) - head.len() as u64)?;
            head.extend(more);
            if size <= elf::HELD_BYTES {
                facts.look_into(&entry.path, elf::read_bytes(&head), || elf::glibc_version(&head));
            } else {
                return self.large_elf(entry, size, &head, facts);
            }
        }
        self.skip(size - head.len() as u64)?;
        self.padding(size)
    }

    /// The rest of an ELF file that is too large to be held: of it only the dynamic section is kept.
    fn large_elf(&mut self, entry: &EntryFacts, size: u64, head: &[u8], facts: &mut LayerFacts) -> io::Result<()> {
        let mut at = head.len() as u64;
        let (mut offset, mut part) = (at, Vec::new());
        let behind = elf::dynamic_section(head)
            .filter(|(start, length)| *start >= at && start.checked_add(*length).is_some_and(|end| end <= size));
        if let Some((start, length)) = behind {
            self.skip(start - at)?;
            part = self.exactly(length)?;
            (offset, at) = (start, start + length);
        }
        let parts = elf::Parts { head, offset, part: &part, size };
        facts.look_into(&entry.path, elf::read_parts(&parts), || None);
        self.skip(size - at)?;
        self.padding(size)
    }

    /// The next `size` bytes, which the caller has bounded.
    fn exactly(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        (&mut self.input).take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == size { Ok(bytes) } else { Err(truncated()) }
    }

    /// Skips what rounds `size` up to a block. Some writers (umoci's) leave out the last member's padding and the end
    /// of the archive, and readers go along: an end of file here is the end of the archive, which [`Self::header`]
    /// sees.
    fn padding(&mut self, size: u64) -> io::Result<()> {
        let mut rest = (&mut self.input).take(padded(size)? - size);
        io::copy(&mut rest, &mut io::sink()).map(drop)
    }

    fn name(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut name = self.extension(size)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > EXTENSION_LIMIT {
            return Err(io::Error::other(format!("the tar has an extension header of {size} bytes")));
        }
        let mut body = Vec::new();
        (&mut self.input).take(size).read_to_end(&mut body)?;
        self.skip(padded(size)? - size)?;
        if body.len() as u64 == size { Ok(body) } else { Err(truncated()) }
    }

    /// Old GNU sparse files may have more blocks of map after the header.
    fn skip_sparse_map(&mut self, header: &Header) -> io::Result<()> {
        let mut extended = header.as_gnu().is_some_and(tar::GnuHeader::is_extended);
        while extended {
            let mut block = [0; TAR_BLOCK];
            self.input.read_exact(&mut block)?;
            extended = block[504] == 1;
        }
        Ok(())
    }

    /// Reads what follows the first block of zeroes; how many bytes of it are not zero.
    fn behind_the_end(&mut self) -> io::Result<u64> {
        let mut other = 0;
        loop {
            match self.input.read(&mut self.buffer) {
                Ok(0) => return Ok(other),
                Ok(count) => other += self.buffer[..count].iter().filter(|byte| **byte != 0).count() as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            self.session.check()?;
        }
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            let part = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match self.input.read(&mut self.buffer[..part]) {
                Ok(0) => return Err(truncated()),
                Ok(read) => left -= read as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            self.session.check()?;
        }
        Ok(())
    }
}

/// How many bytes of text an entry's facts hold.
fn text_bytes(entry: &EntryFacts) -> usize {
    let other = [&entry.link, &entry.written].into_iter().flatten();
    entry.path.len() + other.map(String::len).sum::<usize>()
}

/// Without the cause, which quotes the header: its bytes may be anything, and this is shown on terminals.
fn malformed(_: io::Error) -> io::Error {
    io::Error::other("the tar has a malformed header")
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the tar ends within a member")
}

fn padded(size: u64) -> io::Result<u64> {
    size.checked_next_multiple_of(TAR_BLOCK as u64).ok_or_else(|| io::Error::other("a member of the tar has no end"))
}

fn entry(header: &Header, kind: EntryType, long: &Extensions, size: u64) -> EntryFacts {
    let path = long.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
    let link = long.link.clone().or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
    let kind = match kind {
        _ if long.sparse => EntryKind::Sparse,
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => EntryKind::Directory,
        EntryType::Regular | EntryType::Continuous => EntryKind::File,
        EntryType::Directory => EntryKind::Directory,
        EntryType::Symlink => EntryKind::Symlink,
        EntryType::Link => EntryKind::Hardlink,
        EntryType::Char | EntryType::Block => EntryKind::Device,
        EntryType::Fifo => EntryKind::Fifo,
        EntryType::GNUSparse => EntryKind::Sparse,
        _ => EntryKind::Other,
    };
    let link = link.filter(|_| matches!(kind, EntryKind::Symlink | EntryKind::Hardlink));
    let path = String::from_utf8_lossy(&path);
    let is_odd = path.starts_with('/') || path.split('/').any(|part| part == "..");
    EntryFacts {
        path: clean(&path),
        kind,
        mode: header.mode().unwrap_or(0) & 0o7777,
        size: if kind == EntryKind::File { size } else { 0 },
        link: link.map(|link| String::from_utf8_lossy(&link).into_owned()),
        written: is_odd.then(|| path.clone().into_owned()),
    }
}

/// The path as unpackers see it: relative to `/`, without `.`, `..`, or a slash too many.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Takes what matters out of a PAX header's body: `LENGTH key=value\n` records.
fn read_pax(body: &[u8], long: &mut Extensions) -> io::Result<()> {
    let malformed = || io::Error::other("the tar has a malformed PAX header");
    let mut rest = body;
    let mut records = HashMap::new();
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let length = std::str::from_utf8(&rest[..space]).ok().and_then(|digits| digits.parse::<usize>().ok());
        let length = length.filter(|length| (space + 2..=rest.len()).contains(length)).ok_or_else(malformed)?;
        let record = &rest[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        records.insert(&record[..equals], &record[equals + 1..]);
        rest = &rest[length..];
    }
    // The path of a sparse file is a made-up one (GNU tar, "Storing Sparse Files").
    let path = records.get(&b"GNU.sparse.name"[..]).or_else(|| records.get(&b"path"[..]));
    long.path = path.map(|path| path.to_vec()).or(long.path.take());
    long.link = records.get(&b"linkpath"[..]).map(|path| path.to_vec()).or(long.link.take());
    if let Some(size) = records.get(&b"size"[..]) {
        let size = std::str::from_utf8(size).ok().and_then(|digits| digits.parse().ok());
        long.size = Some(size.ok_or_else(malformed)?);
    }
    long.sparse = records.keys().any(|key| key.starts_with(b"GNU.sparse."));
    Ok(())
}

/// Hashes and counts what is read, as far as that is allowed.
struct Hashed<'a, R> {
    inner: R,
    hasher: Sha256,
    size: u64,
    allowance: &'a Allowance,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        self.allowance.take_bytes(count as u64)?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_layers_of_an_image_hold_is_bounded() {
        let mut header = Header::new_ustar();
        header.set_path("name").expect("short");
        header.set_size(0);
        header.set_cksum();
        let tar = header.as_bytes().repeat(1000);
        let scan = |allowance: &Allowance| scan(tar.as_slice(), allowance, &Session::silent());
        let two = Allowance::of(2000, 1 << 20, 1 << 20);
        assert!(scan(&two).is_ok() && scan(&two).is_ok());
        let problem = scan(&two).expect_err("one too many");
        assert_eq!(problem.message(), "the image has more than 2000 entries");
        assert!(problem.next_step().is_some(), "{problem:?}");
        let problem = scan(&Allowance::of(2000, 3999, 1 << 20)).expect_err("a byte too many");
        assert_eq!(problem.message(), "the names in the image have more than 3999 bytes");
        assert!(problem.next_step().is_some(), "{problem:?}");
        let problem = scan(&Allowance::of(2000, 1 << 20, 511_999)).expect_err("a byte too many");
        assert_eq!(problem.message(), "the layers of the image have more than 511999 bytes, uncompressed");
        assert!(problem.next_step().is_some_and(|help| help.contains("10,737,418,240 bytes")), "{problem:?}");
    }
}
