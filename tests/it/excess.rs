//! Images that claim or unpack to far more than they weigh: verified within bounds of memory, and with an answer.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use cargo_lambda_image::oci::{Digest, media_type};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tar::{EntryType, Header};
use tempfile::TempDir;

use crate::support::images::{Family, descriptor, manifest};
use crate::support::program::{Outcome, Program};
use crate::support::project::{AMD64, elf, write_layout};
use crate::support::specimen::Tape;
use crate::verdicts::findings;

/// What the program may have in memory at any of these, in KiB: a million entries weigh most.
const MOST_MEMORY: u64 = 500 << 10;

fn member(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

fn header(kind: EntryType, name: &str, size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A PAX header of these records, which are short.
fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = format!(" {key}={value}\n");
        let length = rest.len() + if rest.len() + 2 < 100 { 2 } else { 3 };
        format!("{length}{rest}")
    };
    let body: String = records.iter().map(record).collect();
    [header(EntryType::XHeader, "x", body.len() as u64), padded(body.into_bytes())].concat()
}

/// Verifies an image of these layers, which are compressed already.
fn verify(layers: &[Vec<u8>]) -> (Outcome, u64) {
    let directory = TempDir::new().expect("a directory");
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/a"]},
        "rootfs": {"type": "layers", "diff_ids": vec![Digest::of(b"unknown"); layers.len()]}});
    let config = config.to_string().into_bytes();
    let described = layers.iter().map(|layer| descriptor(media_type::OCI_LAYER_GZIP, layer)).collect();
    let manifest = manifest(Family::Oci, &config, described);
    let mut blobs = vec![manifest.as_slice(), &config];
    blobs.extend(layers.iter().map(Vec::as_slice));
    write_layout(&directory.path().join("image"), media_type::OCI_MANIFEST, &blobs);
    let allowed = ["--allow", "L016", "--allow", "L051", "--allow", "L020", "--allow", "L032", "--allow", "L025"];
    let program = Program::verify(directory.path()).args(["oci:image", "--message-format", "json"]).args(allowed);
    let ended = program.watched();
    let code = ended.code.unwrap_or_else(|| panic!("it died: {}", ended.stderr));
    (Outcome { code, stdout: ended.stdout, stderr: ended.stderr }, ended.peak_kib)
}

#[test]
fn what_claims_too_much_is_answered_within_bounds() {
    let mib = vec![0; 1 << 20];
    let zeros = |count: usize| member(&mib).repeat(count);
    let end = || member(&[0; 1024]);
    let files = |count: usize| -> Vec<u8> {
        (0..count).flat_map(|number| header(EntryType::Regular, &format!("f{number}"), 0)).collect()
    };
    let thousand = files(1000);
    let named = |name: &str| {
        let record = format!("{} path={name}\n", name.len() + 11);
        [header(EntryType::XHeader, "x", record.len() as u64), padded(record.into_bytes())].concat()
    };
    let long = [named(&"n".repeat(4000)), header(EntryType::Regular, "f", 0)].concat();
    // Each as deep as can be, and below another directory.
    let deep = |number: usize| {
        let name = format!("{number:05}/{}", "d/".repeat(2000));
        [named(&name), header(EntryType::Regular, "f", 0)].concat()
    };
    let deep: Vec<u8> = (0..10_000).map(deep).collect::<Vec<_>>().concat();
    let sparse = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "10737418240")];
    let sparse = [pax(&sparse), header(EntryType::Regular, "hole", 0), vec![0; 1024]].concat();
    let mut old_sparse = Header::from_byte_slice(&header(EntryType::GNUSparse, "hole", 0)).clone();
    old_sparse.as_gnu_mut().expect("GNU").realsize = *b"120000000000";
    old_sparse.set_cksum();
    let (many, damaged) = ("the image has more than 1000000 entries", ["L017 error -"]);
    for (name, layers, expected, said) in [
        (
            "long names without an end",
            vec![member(&long.repeat(1000)).repeat(40)],
            &damaged[..],
            "the names in the image",
        ),
        (
            "a file of zeros that breaks off",
            vec![[member(&header(EntryType::Regular, "zeros", 4 << 30)), zeros(512)].concat()],
            &damaged,
            "ends within a member",
        ),
        (
            "a file of zeros",
            vec![[member(&header(EntryType::Regular, "zeros", 1 << 30)), zeros(1024), end()].concat()],
            &[],
            "\"uncompressed_size\":1073743360",
        ),
        ("zeros behind the end", vec![[end(), zeros(512)].concat()], &[], "image-verified"),
        ("directories without an end", vec![member(&deep)], &[], "image-verified"),
        ("entries over many layers", vec![member(&thousand).repeat(100); 11], &damaged, many),
        ("a sparse file of 10 GiB", vec![member(&sparse)], &["L024 warning /hole"], "image-verified"),
        (
            "an old sparse file of 10 GiB",
            vec![[member(old_sparse.as_bytes()), end()].concat()],
            &["L024 warning /hole"],
            "image-verified",
        ),
    ] {
        let (outcome, peak_kib) = verify(&layers);
        let mut found = findings(&outcome);
        // Several layers are read at once, and each of them may be one too many.
        found.dedup();
        assert_eq!(found, expected, "{name}: {}{}", outcome.stdout, outcome.stderr);
        assert!(outcome.stdout.contains(said), "{name}: {}", outcome.stdout);
        assert!(peak_kib < MOST_MEMORY, "{name}: {peak_kib} KiB");
    }
}

/// Writes pieces of an archive, each with as many bytes behind it that take no room on disk.
fn write(path: &Path, pieces: &[(Vec<u8>, i64)]) {
    let mut file = File::create(path).expect("made");
    let mut end = 0;
    for (bytes, nothing) in pieces {
        file.write_all(bytes).expect("written");
        end = file.seek(SeekFrom::Current(*nothing)).expect("moved");
    }
    file.set_len(end + 1024).expect("ended");
}

#[test]
fn archives_that_claim_too_much_are_answered_within_bounds() {
    let claim = |kind: EntryType, size: u32| (header(kind, "x", size.into()), size.into());
    let names = [claim(EntryType::GNULongName, 512 << 10), (header(EntryType::Regular, "f", 0), 0)];
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("image.tar");
    for (name, pieces) in [
        ("a long name", vec![claim(EntryType::GNULongName, 1 << 30)]),
        ("a long link", vec![claim(EntryType::GNULongLink, 1 << 30)]),
        ("PAX records", vec![claim(EntryType::XHeader, 1 << 30)]),
        ("long names", std::iter::repeat_n(names, 1000).flatten().collect()),
    ] {
        write(&path, &pieces);
        for form in ["docker-archive", "oci-archive"] {
            let ended = Program::verify(directory.path()).arg(format!("{form}:image.tar")).watched();
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{name}: {}", ended.stderr);
            for said in ["/image.tar` as a tar", "headers are too long for an image", "\nhelp: give a whole archive"] {
                assert!(ended.stderr.contains(said), "{name}, {form}: no `{said}` in {}", ended.stderr);
            }
            assert!(ended.peak_kib < 200 << 10, "{name}, {form}: {} KiB", ended.peak_kib);
        }
    }
}

#[test]
fn a_saved_image_has_as_many_layers_as_any_other_may_have() {
    let directory = TempDir::new().expect("a directory");
    let layer = Tape::default().file("a", 0o755, &elf(AMD64)).end();
    let verify = |count: usize| {
        let config = json!({"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/a"]},
            "rootfs": {"type": "layers", "diff_ids": vec![Digest::of(&layer); count]}});
        let manifest = json!([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": vec!["layer.tar"; count]}]);
        let mut archive = Tape::default();
        for (name, content) in [("config.json", config.to_string()), ("manifest.json", manifest.to_string())] {
            archive = archive.file(name, 0o644, content.as_bytes());
        }
        let archive = archive.file("layer.tar", 0o644, &layer).end();
        std::fs::write(directory.path().join("image.tar"), archive).expect("written");
        Program::verify(directory.path()).args(["docker-archive:image.tar", "--message-format", "json"]).run()
    };
    assert_eq!(findings(&verify(127)), [""; 0]);
    let outcome = verify(1000);
    assert_eq!((findings(&outcome), outcome.code), (vec!["L011 warning -".to_owned()], 0), "{}", outcome.stderr);
    let outcome = verify(1001);
    assert_eq!((findings(&outcome), outcome.code), (Vec::new(), 3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("has more than 1000 layers"), "{}", outcome.stderr);
}
