//! What an ELF file is built for, asks for and offers, read from its headers and dynamic section only.
//!
//! Section headers are never looked at, since stripped files may lack them; what the loader reads is enough. Files
//! come from anywhere and may lie: every count and size is bounded before it is believed, and a damaged file is an
//! error or no facts, never a panic and never a large allocation.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use object::elf;
use object::endian::LittleEndian as LE;
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};
use serde::{Deserialize, Serialize};

use crate::platform::Architecture;
use crate::problem::{IoContext, Problem, Result};

/// No linker writes as many program headers; a damaged count could ask for gigabytes.
const MAX_PROGRAM_HEADERS: u32 = 1024;
/// The bound for a dynamic section in bytes: 16 bytes an entry, and real ones have a few dozen entries.
const MAX_DYNAMIC_BYTES: u64 = 256 * 1024;
/// The bound for records of one kind: libc itself has some 40 versions.
const MAX_RECORDS: u32 = 4096;
/// The longest string that is read, in bytes.
const MAX_STRING_BYTES: u64 = 4096;
/// ELF files up to this size are held: any libc, and all but the largest programs and libraries. Of larger ones in a
/// tar this much is, where a linker puts all strings, and the dynamic section.
pub(super) const HELD_BYTES: u64 = 16 << 20;

/// The facts of one ELF file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElfFacts {
    /// The architecture, if Lambda runs it.
    pub architecture: Option<Architecture>,
    /// `e_machine`, for messages about others.
    pub machine: u16,
    /// The loader it asks for; absent in static files and libraries.
    pub interpreter: Option<String>,
    /// The libraries it needs, in order.
    pub needed: Vec<String>,
    /// The symbol versions it needs, as `library` and `version`: `("libc.so.6", "GLIBC_2.34")`.
    pub needed_versions: Vec<(String, String)>,
    /// The symbol versions it offers.
    pub offered_versions: Vec<String>,
    /// `DT_RUNPATH`: where its own libraries are looked for.
    pub runpath: Option<String>,
    /// `DT_RPATH`, where there is no `DT_RUNPATH`: it holds for the libraries of its libraries, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpath: Option<String>,
    /// Its own name as a library.
    pub soname: Option<String>,
    /// How far what is to be loaded reaches beyond the end of the file: it is cut short, and no more is known of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl ElfFacts {
    /// The highest `GLIBC_` version asked for, as numbers: `[2, 34]`.
    #[must_use]
    pub fn required_glibc(&self) -> Option<Vec<u32>> {
        self.needed_versions.iter().filter_map(|(_, version)| glibc_numbers(version)).max()
    }

    /// How many bytes of text these facts hold.
    pub(super) fn text_bytes(&self) -> usize {
        let names = [&self.interpreter, &self.runpath, &self.rpath, &self.soname].into_iter().flatten();
        let lists = names.chain(&self.needed).chain(&self.offered_versions);
        let pairs = self.needed_versions.iter().flat_map(|(library, version)| [library, version]);
        lists.chain(pairs).map(String::len).sum()
    }
}

/// Reads the facts of the file at `path`; `None` if it is no ELF file.
///
/// Only headers and the dynamic section are read, whatever the file's size.
///
/// # Errors
/// When the file cannot be read, or is an ELF file whose headers contradict each other.
pub fn read_file(path: &Path) -> Result<Option<ElfFacts>> {
    let unreadable = || format!("could not read `{}`", path.display());
    let mut file = File::open(path).or_failed(unreadable)?;
    let mut magic = Vec::with_capacity(4);
    (&mut file).take(4).read_to_end(&mut magic).or_failed(unreadable)?;
    if magic != elf::ELFMAG {
        return Ok(None);
    }
    match parse(&ReadCache::new(file)) {
        Ok(facts) => Ok(Some(facts)),
        Err(Damage(what)) => Err(damaged(path, what)),
    }
}

/// That the ELF file at `path` is damaged.
#[must_use]
pub fn damaged(path: &Path, what: impl Display) -> Problem {
    Problem::refused(format!("`{}` is a damaged ELF file: {what}", path.display()))
        .help("it may be cut short: build or copy it again")
}

/// The facts of an ELF file held in memory; `None` if it is no ELF file, or a damaged one.
#[must_use]
pub fn read_bytes(bytes: &[u8]) -> Option<ElfFacts> {
    if bytes.starts_with(&elf::ELFMAG) { parse(bytes).ok() } else { None }
}

/// Two parts of a file that is too large to be held: its start, and the dynamic section, which linkers put near the
/// end.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The first bytes.
    pub head: &'a [u8],
    /// Where the other part begins.
    pub offset: u64,
    /// The other part.
    pub part: &'a [u8],
    /// Bytes of the whole file.
    pub size: u64,
}

impl<'d> ReadRef<'d> for &'d Parts<'d> {
    fn len(self) -> std::result::Result<u64, ()> {
        Ok(self.size)
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> std::result::Result<&'d [u8], ()> {
        self.head.read_bytes_at(offset, size).or_else(|()| {
            let within = offset.checked_sub(self.offset).ok_or(())?;
            self.part.read_bytes_at(within, size)
        })
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> std::result::Result<&'d [u8], ()> {
        let end = range.end.min(self.head.len() as u64);
        self.head.read_bytes_at_until(range.start..end, delimiter)
    }
}

/// Where the dynamic section of the file that begins with `head` lies, as offset and size in bytes.
#[must_use]
pub fn dynamic_section(head: &[u8]) -> Option<(u64, u64)> {
    let header = elf::FileHeader64::<LE>::parse(head).ok()?;
    if header.phnum(LE, head).ok()? > MAX_PROGRAM_HEADERS {
        return None;
    }
    let segments = header.program_headers(LE, head).ok()?;
    let dynamic = segments.iter().find(|segment| segment.p_type(LE) == elf::PT_DYNAMIC)?;
    Some(dynamic.file_range(LE)).filter(|(_, size)| *size <= MAX_DYNAMIC_BYTES)
}

/// The facts of an ELF file of which only parts are held; `None` if they do not suffice.
#[must_use]
pub fn read_parts(parts: &Parts<'_>) -> Option<ElfFacts> {
    parse(parts).ok()
}

/// The version, such as `2.34`, of the GNU C library whose `libc.so.6` is `bytes`.
///
/// The highest symbol version it offers is what binaries are compared with; the banner stands in for a library whose
/// dynamic section cannot be read.
#[must_use]
pub fn glibc_version(bytes: &[u8]) -> Option<String> {
    let facts = read_bytes(bytes)?;
    let offered = facts.offered_versions.iter().filter_map(|version| {
        let numbers = glibc_numbers(version)?;
        Some((numbers, version.strip_prefix("GLIBC_")?.to_owned()))
    });
    offered.max().map(|(_, name)| name).or_else(|| banner_version(bytes))
}

/// `2.34` of `GNU C Library (...) stable release version 2.34.`
fn banner_version(bytes: &[u8]) -> Option<String> {
    const START: &[u8] = b"GNU C Library";
    const BEFORE: &str = "version ";
    let start = bytes.windows(START.len()).position(|window| window == START)?;
    let line = &bytes[start..bytes.len().min(start + 200)];
    let line = String::from_utf8_lossy(line.split(|byte| *byte == b'\n').next()?).into_owned();
    let version = &line[line.find(BEFORE)? + BEFORE.len()..];
    let version: String = version.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let version = version.trim_end_matches('.');
    (!version.is_empty()).then(|| version.to_owned())
}

/// `[2, 34]` of `GLIBC_2.34`; nothing for other libraries' versions, `GLIBC_PRIVATE`, and markers of features such as
/// `GLIBC_ABI_DT_RELR`, which distributions carry back to older versions.
fn glibc_numbers(version: &str) -> Option<Vec<u32>> {
    version.strip_prefix("GLIBC_")?.split('.').map(|number| number.parse().ok()).collect()
}

/// What is wrong with a malformed file.
#[derive(Debug)]
struct Damage(&'static str);

type Parsed<T> = std::result::Result<T, Damage>;

fn parse<'d, R: ReadRef<'d>>(data: R) -> Parsed<ElfFacts> {
    let ident = data.read_bytes_at(0, 20).map_err(|()| Damage("its header is cut short"))?;
    let [class, encoding] = [ident[4], ident[5]];
    let machine = [ident[18], ident[19]];
    if class != elf::ELFCLASS64.0 || encoding != elf::ELFDATA2LSB.0 {
        // Lambda runs neither 32-bit nor big-endian programs: their name is all a message needs.
        let machine =
            if encoding == elf::ELFDATA2LSB.0 { u16::from_le_bytes(machine) } else { u16::from_be_bytes(machine) };
        return Ok(ElfFacts { machine, ..ElfFacts::default() });
    }
    let header = elf::FileHeader64::<LE>::parse(data).map_err(|_| Damage("its header is not valid"))?;
    let machine = header.e_machine(LE).0;
    let architecture = match elf::Machine(machine) {
        elf::EM_X86_64 => Some(Architecture::Amd64),
        elf::EM_AARCH64 => Some(Architecture::Arm64),
        _ => None,
    };
    let mut facts = ElfFacts { architecture, machine, ..ElfFacts::default() };
    if header.e_phoff(LE) == 0 {
        return Ok(facts);
    }
    if header.phnum(LE, data).map_err(|_| Damage("its program headers lie outside"))? > MAX_PROGRAM_HEADERS {
        return Err(Damage("it has too many program headers"));
    }
    let segments = header.program_headers(LE, data).map_err(|_| Damage("its program headers lie outside"))?;
    let length = data.len().map_err(|()| Damage("its size is not known"))?;
    // Files of debugging information alone have the program's segments and not their bytes, too: nothing loads them.
    let loaded = segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD && segment.p_filesz(LE) > 0);
    let ends = loaded.map(|segment| segment.p_offset(LE).saturating_add(segment.p_filesz(LE)));
    facts.missing_bytes = ends.max().unwrap_or_default().saturating_sub(length);
    if facts.missing_bytes > 0 {
        return Ok(facts);
    }
    for segment in segments {
        let (offset, size) = segment.file_range(LE);
        match segment.p_type(LE) {
            elf::PT_INTERP => facts.interpreter = Some(string_at(data, offset, size)?),
            elf::PT_DYNAMIC => Dynamic::read(data, segments, offset, size)?.tell(&mut facts)?,
            _ => {}
        }
    }
    Ok(facts)
}

/// A NUL-terminated string of at most `size` bytes at a file offset.
fn string_at<'d, R: ReadRef<'d>>(data: R, offset: u64, size: u64) -> Parsed<String> {
    const OUTSIDE: Damage = Damage("a string lies outside or has no end");
    let length = data.len().map_err(|()| OUTSIDE)?;
    let end = offset.saturating_add(size.min(MAX_STRING_BYTES)).min(length);
    if offset >= end {
        return Err(OUTSIDE);
    }
    let bytes = data.read_bytes_at_until(offset..end, 0).map_err(|()| OUTSIDE)?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// The dynamic section, and what it takes to follow its addresses.
struct Dynamic<'d, R> {
    data: R,
    segments: &'d [elf::ProgramHeader64<LE>],
    entries: Vec<(elf::DynamicTag, u64)>,
}

impl<'d, R: ReadRef<'d>> Dynamic<'d, R> {
    fn read(data: R, segments: &'d [elf::ProgramHeader64<LE>], offset: u64, size: u64) -> Parsed<Self> {
        const OUTSIDE: Damage = Damage("its dynamic section lies outside");
        const ENTRY_BYTES: u64 = 16;
        if size > MAX_DYNAMIC_BYTES {
            return Err(Damage("its dynamic section is too large"));
        }
        let count = usize::try_from(size / ENTRY_BYTES).map_err(|_| OUTSIDE)?;
        let entries: &[elf::Dyn64<LE>] = data.read_slice_at(offset, count).map_err(|()| OUTSIDE)?;
        let entries = entries
            .iter()
            .map(|entry| (elf::DynamicTag(entry.d_tag.get(LE).0), entry.d_val.get(LE)))
            .take_while(|(tag, _)| *tag != elf::DT_NULL)
            .collect();
        Ok(Self { data, segments, entries })
    }

    fn tell(&self, facts: &mut ElfFacts) -> Parsed<()> {
        let needed = self.entries.iter().filter(|(tag, _)| *tag == elf::DT_NEEDED);
        if needed.clone().count() > MAX_RECORDS as usize {
            return Err(Damage("it needs too many libraries"));
        }
        facts.needed = needed.map(|(_, name)| self.string(*name)).collect::<Parsed<_>>()?;
        facts.soname = self.value(elf::DT_SONAME).map(|name| self.string(name)).transpose()?;
        let path = |tag| self.value(tag).map(|path| self.string(path)).transpose();
        facts.runpath = path(elf::DT_RUNPATH)?;
        facts.rpath = if facts.runpath.is_none() { path(elf::DT_RPATH)? } else { None };
        facts.needed_versions = self.needed_versions()?;
        facts.offered_versions = self.offered_versions()?;
        Ok(())
    }

    fn value(&self, tag: elf::DynamicTag) -> Option<u64> {
        self.entries.iter().find(|(other, _)| *other == tag).map(|(_, value)| *value)
    }

    /// The file offset of what the loader would find at `address`.
    fn offset_of(&self, address: u64) -> Parsed<u64> {
        let loaded = self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD);
        loaded
            .filter_map(|segment| {
                let within = address.checked_sub(segment.p_vaddr(LE))?;
                (within < segment.p_filesz(LE)).then(|| segment.p_offset(LE).checked_add(within))?
            })
            .next()
            .ok_or(Damage("an address lies in no segment"))
    }

    /// The string at `index` of the dynamic string table.
    fn string(&self, index: u64) -> Parsed<String> {
        const OUTSIDE: Damage = Damage("a string lies outside its table");
        let table = self.value(elf::DT_STRTAB).ok_or(Damage("it has no dynamic string table"))?;
        let size = self.value(elf::DT_STRSZ).ok_or(Damage("its string table has no size"))?;
        let left = size.checked_sub(index).ok_or(OUTSIDE)?;
        let offset = self.offset_of(table)?.checked_add(index).ok_or(OUTSIDE)?;
        string_at(self.data, offset, left)
    }

    fn record<T: object::pod::Pod>(&self, offset: u64) -> Parsed<&'d T> {
        self.data.read_at(offset).map_err(|()| Damage("a version record lies outside"))
    }

    /// The records of DT_VERNEED: for each library the versions asked of it (gABI, symbol versioning), but for those
    /// that only weak symbols have, which the loader does without.
    fn needed_versions(&self) -> Parsed<Vec<(String, String)>> {
        let mut versions = Vec::new();
        let Some(address) = self.value(elf::DT_VERNEED) else { return Ok(versions) };
        let mut budget = MAX_RECORDS;
        let mut at = self.offset_of(address)?;
        loop {
            let library: &elf::Verneed<LE> = self.record(at)?;
            let name = self.string(library.vn_file.get(LE).into())?;
            let mut version_at = step(at, library.vn_aux.get(LE))?;
            for _ in 0..library.vn_cnt.get(LE) {
                spend(&mut budget)?;
                let version: &elf::Vernaux<LE> = self.record(version_at)?;
                if !version.vna_flags.get(LE).contains(elf::VER_FLG_WEAK) {
                    versions.push((name.clone(), self.string(version.vna_name.get(LE).into())?));
                }
                version_at = step(version_at, version.vna_next.get(LE))?;
            }
            spend(&mut budget)?;
            match library.vn_next.get(LE) {
                0 => return Ok(versions),
                next => at = step(at, next)?,
            }
        }
    }

    /// The records of DT_VERDEF: the versions offered, without the one that only names the library.
    fn offered_versions(&self) -> Parsed<Vec<String>> {
        let mut versions = Vec::new();
        let Some(address) = self.value(elf::DT_VERDEF) else { return Ok(versions) };
        let mut budget = MAX_RECORDS;
        let mut at = self.offset_of(address)?;
        loop {
            let definition: &elf::Verdef<LE> = self.record(at)?;
            if definition.vd_cnt.get(LE) > 0 && !definition.vd_flags.get(LE).contains(elf::VER_FLG_BASE) {
                // The first name is the version's own, the others are those it inherits from.
                let name: &elf::Verdaux<LE> = self.record(step(at, definition.vd_aux.get(LE))?)?;
                versions.push(self.string(name.vda_name.get(LE).into())?);
            }
            spend(&mut budget)?;
            match definition.vd_next.get(LE) {
                0 => return Ok(versions),
                next => at = step(at, next)?,
            }
        }
    }
}

fn step(offset: u64, by: u32) -> Parsed<u64> {
    offset.checked_add(by.into()).ok_or(Damage("a version record lies outside"))
}

/// Links between records can form no cycle, since they only point forward, but they may overlap by the million.
fn spend(budget: &mut u32) -> Parsed<()> {
    *budget = budget.checked_sub(1).ok_or(Damage("it has too many version records"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::OnceLock;

    use proptest::prelude::*;

    use super::*;

    /// A real dynamic executable: this test itself.
    fn own_path() -> &'static Path {
        Path::new("/proc/self/exe")
    }

    fn own_bytes() -> &'static [u8] {
        static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
        BYTES.get_or_init(|| std::fs::read(own_path()).expect("the test can read itself"))
    }

    /// The C library that this test runs on: a small file with every kind of record.
    fn libc_bytes() -> &'static [u8] {
        static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
        BYTES.get_or_init(|| {
            let maps = std::fs::read_to_string("/proc/self/maps").expect("a Linux system");
            let line = maps.lines().find(|line| line.ends_with("/libc.so.6")).expect("a glibc system");
            std::fs::read(&line[line.find('/').expect("a path")..]).expect("the libc can be read")
        })
    }

    #[test]
    fn facts_of_this_very_test_are_read_from_the_file() {
        let facts = read_file(own_path()).expect("readable").expect("an ELF file");
        let own = if cfg!(target_arch = "x86_64") { Architecture::Amd64 } else { Architecture::Arm64 };
        assert_eq!(facts.architecture, Some(own));
        assert!(facts.interpreter.is_some_and(|path| path.starts_with("/lib")));
        assert!(facts.needed.contains(&"libc.so.6".to_owned()), "{:?}", facts.needed);
        assert!(facts.needed_versions.contains(&("libc.so.6".to_owned(), "GLIBC_2.34".to_owned())));
        assert_eq!((facts.soname, facts.offered_versions), (None, Vec::new()));
    }

    #[test]
    fn a_file_in_memory_says_what_the_file_on_disk_says() {
        assert_eq!(read_bytes(own_bytes()), read_file(own_path()).expect("readable"));
    }

    #[test]
    fn other_files_are_no_elf_files() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        assert_eq!(read_file(file.path()).expect("readable"), None);
        file.write_all(b"#!/bin/sh\n").expect("written");
        assert_eq!(read_file(file.path()).expect("readable"), None);
        assert_eq!(read_bytes(b""), None);
    }

    #[test]
    fn a_truncated_file_is_named() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(&own_bytes()[..200]).expect("written");
        let problem = read_file(file.path()).expect_err("damaged");
        let path = file.path().display();
        assert_eq!(problem.message(), format!("`{path}` is a damaged ELF file: its program headers lie outside"));
    }

    #[test]
    fn files_of_other_classes_have_a_machine_and_no_architecture() {
        let mut bytes = own_bytes()[..64].to_vec();
        bytes[4] = 1;
        bytes[18..20].copy_from_slice(&[40, 0]);
        let facts = read_bytes(&bytes).expect("an ELF file");
        assert_eq!((facts.architecture, facts.machine), (None, 40));
        bytes[4..6].copy_from_slice(&[2, 2]);
        bytes[18..20].copy_from_slice(&[0, 22]);
        let facts = read_bytes(&bytes).expect("an ELF file");
        assert_eq!((facts.architecture, facts.machine), (None, 22));
    }

    #[test]
    fn a_version_of_weak_symbols_only_is_not_needed() {
        let mut bytes = own_bytes().to_vec();
        let needs = |bytes: &[u8]| read_bytes(bytes).expect("an ELF file").needed_versions;
        let version = ("libc.so.6".to_owned(), "GLIBC_2.34".to_owned());
        assert!(needs(&bytes).contains(&version));
        // The record begins with the hash of the version's name (gABI, hash table), and its flags follow.
        let hash = version.1.bytes().fold(0_u32, |hash, byte| {
            let hash = (hash << 4).wrapping_add(byte.into());
            let high = hash & 0xf000_0000;
            (hash ^ (high >> 24)) & !high
        });
        let at = bytes.windows(6).position(|it| it[..4] == hash.to_le_bytes() && it[4..] == [0, 0]).expect("a record");
        bytes[at + 4] = 2;
        assert!(!needs(&bytes).contains(&version));
        assert_eq!(needs(&bytes).len() + 1, needs(own_bytes()).len());
    }

    #[test]
    fn the_highest_glibc_version_is_compared_by_number() {
        let table: [(&[&str], Option<&[u32]>); 6] = [
            (&[], None),
            (&["GLIBC_2.2.5", "GLIBC_2.17", "GLIBC_2.9"], Some(&[2, 17])),
            (&["GLIBC_2.34", "GLIBC_2.4"], Some(&[2, 34])),
            (&["GLIBC_PRIVATE", "GCC_3.0", "GLIBCXX_3.4.30"], None),
            (&["GLIBC_2.3", "GLIBC_2.3.4"], Some(&[2, 3, 4])),
            (&["GLIBC_2.17", "GLIBC_ABI_DT_RELR"], Some(&[2, 17])),
        ];
        for (versions, expected) in table {
            let needed_versions = versions.iter().map(|version| ("libc.so.6".into(), (*version).into())).collect();
            let facts = ElfFacts { needed_versions, ..ElfFacts::default() };
            assert_eq!(facts.required_glibc().as_deref(), expected, "{versions:?}");
        }
    }

    #[test]
    fn the_banner_names_the_version() {
        let banner = b"\0GNU C Library (Amazon Linux) stable release version 2.34.\nCopyright";
        assert_eq!(banner_version(banner).as_deref(), Some("2.34"));
        assert_eq!(banner_version(b"GNU C Library"), None);
        assert_eq!(banner_version(b"GNU C Library version \n2.34"), None);
    }

    #[test]
    fn the_systems_libc_knows_its_version() {
        let bytes = libc_bytes();
        let version = glibc_version(bytes).expect("a version");
        let numbers: Vec<u32> = version.split('.').map(|number| number.parse().expect("a number")).collect();
        let required = read_bytes(own_bytes()).and_then(|facts| facts.required_glibc()).expect("a version");
        assert!(numbers >= required, "{version} runs this test, which asks for {required:?}");
        let facts = read_bytes(bytes).expect("an ELF file");
        assert_eq!(facts.soname.as_deref(), Some("libc.so.6"));
        assert!(facts.offered_versions.iter().any(|offered| *offered == format!("GLIBC_{version}")));
        assert_eq!(read_bytes(b"\x7fELF"), None);
    }

    /// Where the fields are that matter: headers, the dynamic section, and the tables it names.
    fn hot_ranges() -> Vec<std::ops::Range<usize>> {
        let data = libc_bytes();
        let header = elf::FileHeader64::<LE>::parse(data).expect("a header");
        let segments = header.program_headers(LE, data).expect("program headers");
        let dynamic = segments.iter().find(|segment| segment.p_type(LE) == elf::PT_DYNAMIC).expect("a dynamic file");
        let (offset, size) = dynamic.file_range(LE);
        let dynamic = Dynamic::read(data, segments, offset, size).expect("a dynamic section");
        let tables = [(elf::DT_VERNEED, 64), (elf::DT_VERDEF, 512), (elf::DT_STRTAB, 4096)].map(|(tag, size)| {
            let start = dynamic.offset_of(dynamic.value(tag).expect("a table")).expect("inside") as usize;
            start..start + size
        });
        let dynamic = offset as usize..(offset + size) as usize;
        [0..64, 64..1024, dynamic].into_iter().chain(tables).collect()
    }

    fn mutated() -> impl Strategy<Value = Vec<u8>> {
        let ranges = hot_ranges();
        let change = (0..ranges.len(), any::<u16>(), prop_oneof![Just(0), Just(0xff), any::<u8>()]);
        let cut = prop_oneof![3 => Just(libc_bytes().len()), 1 => 0..libc_bytes().len()];
        (proptest::collection::vec(change, 1..6), cut).prop_map(move |(changes, cut)| {
            let mut bytes = libc_bytes().to_vec();
            for (range, at, byte) in changes {
                let range = &ranges[range];
                bytes[range.start + usize::from(at) % range.len()] = byte;
            }
            bytes.truncate(cut);
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

        #[test]
        fn damaged_files_never_panic_and_read_alike_from_disk_and_memory(bytes in mutated()) {
            let from_file = parse(&ReadCache::new(std::io::Cursor::new(&bytes))).ok();
            prop_assert_eq!(from_file, parse(&bytes[..]).ok());
        }
    }
}
