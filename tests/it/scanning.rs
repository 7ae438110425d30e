//! Tars of others, honest and hostile, read as a stream for their facts.

use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

use cargo_lambda_image::event::Session;
use cargo_lambda_image::layer::facts::{self, Allowance, EntryFacts, EntryKind, LayerFacts};
use cargo_lambda_image::oci::{DiffId, Digest};
use cargo_lambda_image::problem::{Exit, Problem};
use tar::{EntryType, Header};

use crate::support::assets::write_tree;

fn header(name: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_size(size);
    header.set_cksum();
    header
}

fn member(name: &str, kind: EntryType, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, kind, content.len() as u64).as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn scan(tar: impl Read, session: &Session) -> Result<(DiffId, LayerFacts), Problem> {
    facts::scan(tar, &Allowance::default(), session)
}

fn scanned(tar: impl Read) -> Result<LayerFacts, Problem> {
    scan(tar, &Session::silent()).map(|(_, facts)| facts)
}

/// The refusal with its causes.
fn refused(tar: impl Read) -> String {
    let problem = scanned(tar).expect_err("a hostile tar");
    std::iter::once(problem.message().to_owned()).chain(problem.causes()).collect::<Vec<_>>().join(": ")
}

#[test]
fn a_truncated_tar_is_an_error_or_ends_between_members() {
    let tar = [
        member("directory/", EntryType::Directory, b""),
        member("././@LongLink", EntryType::GNULongName, &[b'n'; 600]),
        member("n", EntryType::Regular, &[1; 1500]),
        member("x", EntryType::XHeader, b"16 path=renamed\n"),
        member("y", EntryType::Regular, b"\x7fELF damaged"),
        vec![0; 1024],
    ]
    .concat();
    // After the directory, the long file, and the renamed file; and anywhere within the end of the archive. An
    // extension without its member is none of these, but harmless: it says something of nothing.
    let ends = [0, 1, 4, 8, 10, 12, 13, 14];
    for blocks in 0..=tar.len() / 512 {
        let result = scanned(&tar[..blocks * 512]);
        assert_eq!(result.is_ok(), ends.contains(&blocks), "{blocks} blocks: {result:?}");
        if blocks > 0 {
            // Within a block, all but padding matters: after "n" and "y", and the last block.
            let padding = [8, 12, 14].contains(&blocks);
            assert_eq!(scanned(&tar[..blocks * 512 - 1]).is_ok(), padding, "a byte less than {blocks} blocks");
        }
    }
    let (diff_id, facts) = scan(tar.as_slice(), &Session::silent()).expect("the whole tar");
    assert_eq!((diff_id, facts.uncompressed_size), (DiffId(Digest::of(&tar)), tar.len() as u64));
    let paths: Vec<_> = facts.entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["directory", &"n".repeat(600), "renamed"]);
}

#[test]
fn malformed_and_oversized_claims_are_refused_before_they_cost_anything() {
    let with_size = |field: [u8; 12]| {
        let mut header = header("f", EntryType::Regular, 0);
        header.as_old_mut().size = field;
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let mut bad_checksum = member("f", EntryType::Regular, b"");
    bad_checksum[0] ^= 1;
    for (name, tar, expected) in [
        ("a checksum", bad_checksum, "wrong checksum"),
        ("a long name of 10 GB", header("l", EntryType::GNULongName, 10 << 30).as_bytes().to_vec(), "extension header"),
        ("PAX records of 10 GB", header("l", EntryType::XHeader, 10 << 30).as_bytes().to_vec(), "extension header"),
        ("a global header", header("l", EntryType::XGlobalHeader, 10 << 30).as_bytes().to_vec(), "extension header"),
        ("a negative size", with_size([0xff; 12]), ""),
        ("a size of 2^64", with_size([0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), "no end"),
        ("a size of letters", with_size(*b"not a number"), "malformed header"),
        ("a PAX length", member("x", EntryType::XHeader, b"99 path=a\n"), "malformed PAX"),
        ("a PAX length of 0", member("x", EntryType::XHeader, b"0 path=a\n"), "malformed PAX"),
        ("a PAX record of no key", member("x", EntryType::XHeader, b"6 abc\n"), "malformed PAX"),
        ("a PAX size", member("x", EntryType::XHeader, b"12 size=-1\n\n"), "malformed PAX"),
        ("no tar, and text that a terminal obeys", vec![0x1b; 4096], "malformed header"),
    ] {
        let said = refused(tar.as_slice());
        assert!(said.contains(expected), "{name}: {said}");
    }
}

/// Repeats a piece for ever.
struct Endless {
    piece: Vec<u8>,
    at: usize,
    /// What was read, to see that nobody read on.
    read_bytes: u64,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at = (self.at + count) % self.piece.len();
        self.read_bytes += count as u64;
        Ok(count)
    }
}

#[test]
fn endless_long_names_end_in_a_refusal() {
    let name = [b"4010 path=".as_slice(), &[b'n'; 3999], b"\n"].concat();
    let piece = [member("x", EntryType::XHeader, &name), member("f", EntryType::Regular, b"")].concat();
    let mut tar = Endless { piece, at: 0, read_bytes: 0 };
    let said = refused(&mut tar);
    assert!(said.contains("names in the image"), "{said}");
    assert!(tar.read_bytes < 200 << 20, "{} bytes were read", tar.read_bytes);
}

#[test]
fn a_stop_is_heard_within_a_member() {
    let session = Session::silent();
    session.stop(Exit::Interrupted);
    let problem = scan(member("f", EntryType::Regular, b"x").as_slice(), &session).expect_err("stopped");
    assert_eq!(problem.exit(), Exit::Interrupted);
}

#[test]
fn each_kind_is_told_and_paths_are_as_unpackers_see_them() {
    let mut link = header("./usr//lib/../lib64", EntryType::Symlink, 0);
    link.set_link_name("usr/lib").expect("short");
    link.set_cksum();
    let mut hard = header("/abs", EntryType::Link, 7);
    hard.set_link_name("./usr").expect("short");
    hard.set_cksum();
    let mut sparse = header("sparse", EntryType::GNUSparse, 512);
    sparse.as_gnu_mut().expect("GNU").isextended = [1];
    sparse.set_cksum();
    let mut map = vec![0; 1024];
    map[504] = 1;
    let tar = [
        member("./", EntryType::Directory, b""),
        link.as_bytes().to_vec(),
        hard.as_bytes().to_vec(),
        sparse.as_bytes().to_vec(),
        map,
        vec![9; 512],
        member("dev/null", EntryType::Char, b""),
        member("pipe", EntryType::Fifo, b""),
        member("../../escape", EntryType::Regular, b"abc"),
        vec![0; 1024],
    ]
    .concat();
    let facts = scanned(tar.as_slice()).expect("odd, not malformed");
    let told: Vec<_> = facts
        .entries
        .iter()
        .map(|EntryFacts { path, kind, mode, size, link, .. }| (path.as_str(), *kind, *mode, *size, link.as_deref()))
        .collect();
    let mode = 0o4755;
    assert_eq!(
        told,
        [
            ("", EntryKind::Directory, mode, 0, None),
            ("usr/lib64", EntryKind::Symlink, mode, 0, Some("usr/lib")),
            ("abs", EntryKind::Hardlink, mode, 0, Some("./usr")),
            ("sparse", EntryKind::Sparse, mode, 0, None),
            ("dev/null", EntryKind::Device, mode, 0, None),
            ("pipe", EntryKind::Fifo, mode, 0, None),
            ("escape", EntryKind::File, mode, 3, None),
        ]
    );
}

/// The tree as Debian's tar sees it, in its order.
fn by_tar(root: &Path, format: &str) -> Vec<u8> {
    let output = Command::new("tar")
        .args(["--create", "--format", format, "--sort=name", "-C"])
        .arg(root)
        .arg(".")
        .output()
        .expect("tar");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn sparse_files_keep_their_names_in_every_form() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let inside = directory.path().join("data");
    std::fs::create_dir(&inside).expect("made");
    let file = std::fs::File::create(inside.join("hole")).expect("made");
    file.set_len(1 << 20).expect("a hole");
    for form in [&["--format=gnu"][..], &["--sparse-version=0.0"], &["--sparse-version=0.1"], &["--sparse-version=1.0"]]
    {
        let mut tar = Command::new("tar");
        tar.args(["--create", "--sparse", "--format=posix", "--sort=name", "-C"]).arg(directory.path());
        let output = tar.args(form).args(["data"]).output().expect("tar");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.len() < 20_000, "{form:?}: it has its hole");
        let facts = scanned(output.stdout.as_slice()).expect("an honest tar");
        let told: Vec<_> = facts.entries.iter().map(|entry| (entry.path.as_str(), entry.kind)).collect();
        assert_eq!(told, [("data", EntryKind::Directory), ("data/hole", EntryKind::Sparse)], "{form:?}");
    }
}

#[test]
fn names_longer_than_any_of_linux_are_refused() {
    let named = |length: usize| {
        let record = format!(" path={}\n", "a/".repeat(length / 2));
        let record = format!("{}{record}", record.len() + 4);
        [member("x", EntryType::XHeader, record.as_bytes()), member("f", EntryType::Regular, b"")].concat()
    };
    assert!(scanned(named(4096).as_slice()).is_ok());
    assert!(refused(named(4100).as_slice()).contains("a name of 4099 bytes, and Linux takes 4096"));
}

#[test]
fn facts_of_debians_tar_are_the_same_in_its_formats() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_tree(directory.path(), 0o022, false);
    std::fs::hard_link(directory.path().join("text.txt"), directory.path().join("a-second-name")).expect("linked");
    let [gnu, posix] = ["gnu", "posix"].map(|format| {
        let tar = by_tar(directory.path(), format);
        let (diff_id, facts) = scan(tar.as_slice(), &Session::silent()).expect("an honest tar");
        assert_eq!(diff_id, DiffId(Digest::of(&tar)), "{format}");
        facts.entries
    });
    assert_eq!(gnu, posix);
    let of = |path: &str| gnu.iter().find(|entry| entry.path == path).unwrap_or_else(|| panic!("no {path}"));
    let deep = format!("{}/{}/{}/longer-than-255", "a".repeat(90), "b".repeat(90), "c".repeat(90));
    assert_eq!((of(&deep).kind, of(&deep).size, of(&deep).mode), (EntryKind::File, 4, 0o644));
    assert_eq!((of("link").kind, of("link").link.as_deref()), (EntryKind::Symlink, Some("text.txt")));
    assert_eq!((of("run.sh").kind, of("run.sh").mode), (EntryKind::File, 0o755));
    let second = of("text.txt");
    assert_eq!((second.kind, second.link.as_deref()), (EntryKind::Hardlink, Some("./a-second-name")));
    assert_eq!(of("caf\u{fffd}").size, 7);
}
