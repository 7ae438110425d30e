//! A layer's bytes: the same everywhere, one gzip member, and a tar that other programs read as what went in.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_lambda_image::event::{Session, TaskKind};
use cargo_lambda_image::layer::entries::Entry;
use cargo_lambda_image::layer::gzip::{DEFAULT_LEVEL, FORMAT_VERSION};
use cargo_lambda_image::layer::{Pipeline, tarball};
use cargo_lambda_image::oci::{DiffId, Digest};
use proptest::prelude::*;

use crate::support::assets::{Member, asset, fixed_tree, layers_of, noise, pack, text, unpack, write_tree};

/// The digests of the fixed tree. A change here is a new `FORMAT_VERSION`: everybody's layers move.
const TAR: &str = "sha256:667da66654b5fc6b35884a1f921cee78d4598413e936d2ad7acb2ec80b914224";
const GOLDEN: [(u32, &str); 6] = [
    (0, "sha256:da50c552e232c6e76d07c684b66cd8569946ff7c6bb3970bc02c2903390b3d24"),
    (1, "sha256:671995b4af76b2d03b2b649c5e19e479f1be09c9ea5a4c72d96310d4d0a72871"),
    (2, "sha256:1910da2e5ce0f31e7eba578f1e7dcd8f0ad8bb32b77dad5558fb2a82b1b8c6e4"),
    (3, "sha256:658a0c1842fa830fae2320013d56b68d753424aa92ae3e1c5af5fac2f8b0b67b"),
    (6, "sha256:498df9f9673033921fda850244d0a8549605b1450b66e0347c333aa663a06ac2"),
    (9, "sha256:8e992195ce9dc5fbb29206a930bac096c8be8bd1febf9366249dae530fe67716"),
];

fn entries_of(directory: &Path) -> Vec<Entry> {
    let mut layers = layers_of(&asset(directory, "assets")).expect("the tree can be packed");
    assert_eq!(layers.len(), 1);
    layers.remove(0).entries
}

#[test]
fn a_fixed_tree_has_fixed_digests_for_any_threads_directory_umask_and_order() {
    // Another level by default would move everybody's layers, too.
    assert_eq!((FORMAT_VERSION, DEFAULT_LEVEL), (1, 2));
    let mut different = Vec::new();
    for (place, umask, backwards, threads) in
        [("here", 0o022, false, 1), ("some/other place", 0o077, true, 2), ("ü", 0o000, true, 7)]
    {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let directory = directory.path().join(place);
        write_tree(&directory.join("assets"), umask, backwards);
        let entries = entries_of(&directory);
        for (level, golden) in GOLDEN {
            let (gzip, diff_id) = pack(&entries, threads, level).expect("packed");
            let digest = Digest::of(&gzip).to_string();
            if diff_id.to_string() != TAR || digest != golden {
                different.push(format!("level {level}, {threads} threads in {place}: {diff_id} {digest}"));
            }
        }
    }
    assert!(different.is_empty(), "{different:#?}");
}

#[test]
fn the_tar_read_back_is_the_tree_with_settled_metadata() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_tree(&directory.path().join("assets"), 0o077, true);
    let entries = entries_of(directory.path());
    let tar = unpack(&pack(&entries, 2, 2).expect("packed").0);
    assert_eq!(tar.len() as u64, tarball::size(&entries), "the size is known before");

    let root = Path::new("var/task/assets");
    let mut expected: Vec<(PathBuf, Member)> =
        ["var", "var/task", "var/task/assets"].map(|path| (path.into(), Member::Directory)).into();
    expected.extend(fixed_tree().into_iter().map(|(path, member)| (root.join(path), member)));

    let mut archive = tar::Archive::new(tar.as_slice());
    let mut found = archive.entries().expect("entries");
    for (path, member) in &expected {
        let mut entry = found.next().expect("as many members as expected").expect("a member");
        let shown = path.display();
        let mut name = path.as_os_str().as_bytes().to_vec();
        if matches!(member, Member::Directory) {
            name.push(b'/');
        }
        assert_eq!(entry.path_bytes().escape_ascii().to_string(), name.escape_ascii().to_string());
        let header = entry.header().clone();
        let numbers = (header.uid().expect("uid"), header.gid().expect("gid"), header.mtime().expect("mtime"));
        assert_eq!(numbers, (0, 0, 1), "{shown}");
        assert_eq!((header.username_bytes(), header.groupname_bytes()), (Some(&b""[..]), Some(&b""[..])), "{shown}");
        let (kind, mode, content): (_, _, &[u8]) = match member {
            Member::Directory => (tar::EntryType::Directory, 0o755, b""),
            Member::File(bytes) => (tar::EntryType::Regular, 0o644, bytes),
            Member::Program(bytes) => (tar::EntryType::Regular, 0o755, bytes),
            Member::Link(_) => (tar::EntryType::Symlink, 0o755, b""),
        };
        assert_eq!((header.entry_type(), header.mode().expect("mode")), (kind, mode), "{shown}");
        if let Member::Link(target) = member {
            assert_eq!(entry.link_name_bytes().as_deref(), Some(target.as_bytes()), "{shown}");
        }
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut read).expect("content");
        assert!(read == content, "{shown} has other content");
    }
    assert!(found.next().is_none(), "more members than expected");
}

#[test]
fn gnu_tar_and_gzip_take_the_layer_without_a_word() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_tree(&directory.path().join("assets"), 0o022, false);
    let layer = directory.path().join("layer.tar.gz");
    fs::write(&layer, pack(&entries_of(directory.path()), 2, 2).expect("packed").0).expect("written");
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).env("LC_ALL", "C").output().expect(program);
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let layer = layer.to_str().expect("UTF-8");
    assert_eq!(run("gzip", &["-t", layer]), "");

    let out = directory.path().join("out");
    fs::create_dir(&out).expect("made");
    let said = run("tar", &["-xpzf", layer, "-C", out.to_str().expect("UTF-8")]);
    // GNU tar takes all names for bytes and says that it does not know the record that says just that.
    let unexpected: Vec<_> = said.lines().filter(|line| !line.contains("keyword 'hdrcharset'")).collect();
    assert_eq!(unexpected, [""; 0]);
    let root = out.join("var/task/assets");
    for (path, member) in fixed_tree() {
        let place = root.join(&path);
        let metadata = fs::symlink_metadata(&place).expect("extracted");
        let mode = metadata.permissions().mode() & 0o7777;
        match member {
            Member::Directory => assert!(metadata.is_dir() && mode == 0o755, "{}", path.display()),
            Member::File(bytes) => assert!(fs::read(&place).expect("read") == bytes && mode == 0o644),
            Member::Program(bytes) => assert!(fs::read(&place).expect("read") == bytes && mode == 0o755),
            Member::Link(target) => assert_eq!(fs::read_link(&place).expect("a link"), Path::new(target)),
        }
    }
}

/// What `gzip -1` makes of bytes.
fn gzip_1(bytes: &[u8]) -> usize {
    let mut child = Command::new("gzip").arg("-1").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes).expect("gzip reads all"));
        child.wait_with_output().expect("gzip ends").stdout.len()
    })
}

#[test]
fn compressible_layers_are_no_larger_than_gzip_1_makes_them_and_noise_stays() {
    for (name, content, compressible) in [
        ("text", text(8 << 20), true),
        ("zeros", vec![0; 8 << 20], true),
        ("half noise", [text(4 << 20), noise(2, 4 << 20)].concat(), true),
        ("noise", noise(3, 8 << 20), false),
    ] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("assets")).expect("made");
        fs::write(directory.path().join("assets/file"), content).expect("written");
        let gzip = pack(&entries_of(directory.path()), 2, 2).expect("packed").0;
        let tar = unpack(&gzip);
        let limit = if compressible { gzip_1(&tar) } else { tar.len() + tar.len() / 1000 };
        assert!(gzip.len() <= limit, "{name}: {} of {} bytes, at most {limit}", gzip.len(), tar.len());
    }
}

/// Runs bytes, written in the given pieces, through the pipeline.
fn run(pieces: &[Vec<u8>], threads: usize, level: u32) -> (Vec<u8>, DiffId, u64) {
    let session = Session::silent();
    let task = session.task(TaskKind::Layer, "test", None);
    let produce = |sink: &mut cargo_lambda_image::layer::BlockWriter<'_>| {
        for piece in pieces {
            sink.write_all(piece).expect("a Vec takes all");
        }
        Ok(())
    };
    let packed = Pipeline::new(threads, level).run(Vec::new(), &task, &session, produce).expect("nothing can fail");
    assert_eq!((packed.digest, packed.size), (Digest::of(&packed.sink), packed.sink.len() as u64));
    (packed.sink, packed.diff_id, packed.uncompressed_size)
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![0..5000_usize, 0..700_000_usize, Just(1 << 20), Just((1 << 20) - 1), Just((1 << 20) + 1)];
    (0..5_u8, length, any::<u64>()).prop_map(|(kind, length, seed)| match kind {
        0 => vec![0; length],
        1 => text(length),
        2 => noise(seed, length),
        3 => noise(seed, 1 + length / 50).into_iter().cycle().take(length).collect(),
        _ => noise(seed, length).chunks(4).flat_map(|c| [c[0] & 15, 0, 0xb8, c[0] >> 4]).take(length).collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_come_back_and_are_the_same_for_any_threads(
        pieces in prop::collection::vec(piece(), 0..8),
        level in 0..=9_u32,
    ) {
        let (one, diff_id, size) = run(&pieces, 1, level);
        let raw = pieces.concat();
        prop_assert!(unpack(&one) == raw);
        prop_assert_eq!((diff_id, size), (DiffId(Digest::of(&raw)), raw.len() as u64));
        prop_assert!(run(&[raw], 3, level).0 == one);
    }
}

#[test]
fn every_path_of_a_layer_is_there_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_tree(&directory.path().join("assets"), 0o022, false);
    // Destinations that end in an empty part are where a path may come twice, once with a slash.
    for (path, to) in
        [("assets", None), ("assets/", Some("x/")), (".", None), ("assets", Some("")), ("assets", Some("/"))]
    {
        let mut asset = asset(directory.path(), path);
        asset.to = to.map(str::to_owned);
        let entries = layers_of(&asset).expect("planned").remove(0).entries;
        let tar = unpack(&pack(&entries, 1, 1).expect("packed").0);
        let mut names: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for entry in tar::Archive::new(tar.as_slice()).entries().expect("entries") {
            let entry = entry.expect("a member");
            let name = entry.path_bytes().into_owned();
            assert!(!name.ends_with(b"//"), "{path} to {to:?}: {}", name.escape_ascii());
            *names.entry(name.strip_suffix(b"/").unwrap_or(&name).to_vec()).or_default() += 1;
        }
        let twice: Vec<_> =
            names.iter().filter(|(_, count)| **count > 1).map(|(name, _)| name.escape_ascii()).collect();
        assert!(twice.is_empty(), "{path} to {to:?}: {}", twice[0]);
    }
}
