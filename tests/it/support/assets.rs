//! Asset trees to pack, and the short ways through the layer rooms that several tests take.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use cargo_lambda_image::event::{Session, TaskKind};
use cargo_lambda_image::layer::entries::Entry;
use cargo_lambda_image::layer::plan::{LayerSpec, Pack, plan};
use cargo_lambda_image::layer::tree::Tree;
use cargo_lambda_image::layer::walk::{Asset, walk};
use cargo_lambda_image::layer::{Origin, Pipeline, tarball};
use cargo_lambda_image::oci::DiffId;
use cargo_lambda_image::problem::Result;
use flate2::read::GzDecoder;

/// Bytes that look random and are the same on every machine (xorshift).
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(bytes).collect()
}

/// Rows of text, each different.
pub(crate) fn text(bytes: usize) -> Vec<u8> {
    let row = |n: usize| format!("{n:>8}|user{}@example.org|{}|active\n", n * 7919 % 10_007, n * 104_729 % 65_537);
    (0..).flat_map(|n| row(n).into_bytes()).take(bytes).collect()
}

/// What a member of the fixed tree is.
pub(crate) enum Member {
    Directory,
    File(Vec<u8>),
    Program(Vec<u8>),
    Link(&'static str),
}

/// A tree with one of each: in image order, parents first, without its root.
pub(crate) fn fixed_tree() -> Vec<(PathBuf, Member)> {
    use Member::{Directory, File, Link, Program};
    let [a, b, c] = ["a", "b", "c"].map(|letter| letter.repeat(90));
    let not_utf8 = PathBuf::from(OsStr::from_bytes(b"caf\xe9"));
    let long_not_utf8 = PathBuf::from(OsStr::from_bytes(&[&[0xff; 130][..], b".bin"].concat()));
    let mut tree = vec![
        (".hidden".into(), File(b"dotfiles are packed".to_vec())),
        ("empty".into(), File(Vec::new())),
        ("empty-directory".into(), Directory),
        ("link".into(), Link("text.txt")),
        // The longest target that a header holds, and one byte more.
        (
            "link-100".into(),
            Link(
                "././././././././././././././././././././././././././././././././././././././././././././././text.txt",
            ),
        ),
        (
            "link-101".into(),
            Link(
                "././././././././././././././././././././././././././././././././././././././././././././././/text.txt",
            ),
        ),
        ("noise.bin".into(), File(noise(1, 2_500_000))),
        (PathBuf::from(&a), Directory),
        (Path::new(&a).join(&b), Directory),
        (Path::new(&a).join(&b).join(&c), Directory),
        (Path::new(&a).join(&b).join(&c).join("longer-than-255"), File(b"deep".to_vec())),
        ("n".repeat(120).into(), File(b"longer than 100".to_vec())),
        ("run.sh".into(), Program(b"#!/bin/sh\n".to_vec())),
        ("text.txt".into(), File(text(3_000_000))),
        (not_utf8, File(b"latin 1".to_vec())),
        (long_not_utf8, File(b"not UTF-8 and long".to_vec())),
    ];
    tree.sort_by(|(a, _), (b, _)| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    tree
}

/// Writes the fixed tree below `root`, with the modes `umask` would leave.
pub(crate) fn write_tree(root: &Path, umask: u32, backwards: bool) {
    fs::create_dir_all(root).expect("made");
    let mut tree = fixed_tree();
    if backwards {
        tree.reverse();
    }
    for (path, member) in &tree {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        let mode = match member {
            Member::Directory => {
                fs::create_dir_all(&path).expect("made");
                0o777
            }
            Member::File(bytes) => {
                fs::write(&path, bytes).expect("written");
                0o666
            }
            Member::Program(bytes) => {
                fs::write(&path, bytes).expect("written");
                0o777
            }
            Member::Link(target) => {
                symlink(target, &path).expect("linked");
                continue;
            }
        };
        fs::set_permissions(&path, Permissions::from_mode(mode & !umask)).expect("permissions");
    }
}

/// The asset at `path` in `directory`, all else by default.
pub(crate) fn asset(directory: &Path, path: &str) -> Asset {
    Asset {
        name: path.into(),
        shown: path.into(),
        directory: directory.into(),
        path: path.into(),
        to: None,
        exclude: Vec::new(),
        follow_symlinks: false,
        allow_secrets: Vec::new(),
    }
}

/// The layers of one asset on an empty base.
pub(crate) fn layers_of(asset: &Asset) -> Result<Vec<LayerSpec>> {
    let pack = Pack { name: asset.name.clone(), origin: Origin::Asset, entries: walk(asset)?, told_layers: 0 };
    plan(vec![pack], &Tree::default(), 0)
}

/// Packs entries into memory: the gzip member and the tar's digest.
pub(crate) fn pack(entries: &[Entry], threads: usize, level: u32) -> Result<(Vec<u8>, DiffId)> {
    let session = Session::silent();
    let task = session.task(TaskKind::Layer, "test", None);
    let packed =
        Pipeline::new(threads, level).run(Vec::new(), &task, &session, |sink| tarball::write(entries, sink))?;
    Ok((packed.sink, packed.diff_id))
}

/// Decodes exactly one gzip member, after which nothing may follow.
pub(crate) fn unpack(gzip: &[u8]) -> Vec<u8> {
    let mut decoder = GzDecoder::new(gzip);
    let mut tar = Vec::new();
    decoder.read_to_end(&mut tar).expect("a whole gzip member");
    assert!(decoder.into_inner().is_empty(), "bytes after the member");
    tar
}
