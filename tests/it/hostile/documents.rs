//! Documents that lie and layers that attack whoever reads them.

use std::path::Path;

use cargo_lambda_image::oci::{Digest, media_type};
use serde_json::{Value, json};

use super::Expected::{Other, Refusal};
use super::{World, assert_all, base_image, build_on, snapshot};
use crate::support::images::{self, Family, TestImage, descriptor, gzip, index_type, noise, tar};
use crate::support::registry::{Builder, FaultRegistry};

/// An image with these layers as they are, under a config with these diff-ids.
fn image_of(layers: &[(Value, Vec<u8>)], diff_ids: &[Digest]) -> Builder {
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = config.to_string().into_bytes();
    let described = layers.iter().map(|(descriptor, _)| descriptor.clone()).collect();
    let manifest = images::manifest(Family::Oci, &config, described);
    let registry = FaultRegistry::builder().manifest("a", "1", media_type::OCI_MANIFEST, &manifest).blob("a", &config);
    layers.iter().fold(registry, |registry, (_, bytes)| registry.blob("a", bytes))
}

/// One layer whose bytes and descriptor are in order.
fn one_layer(tar: &[u8]) -> Builder {
    let bytes = gzip(tar);
    image_of(&[(descriptor(media_type::OCI_LAYER_GZIP, &bytes), bytes)], &[Digest::of(tar)])
}

/// One layer with something else about its descriptor.
fn odd_layer(key: &str, value: Value) -> Builder {
    let tar = tar(&[("opt/data", b"x")]);
    let bytes = gzip(&tar);
    let mut descriptor = descriptor(media_type::OCI_LAYER_GZIP, &bytes);
    descriptor[key] = value;
    image_of(&[(descriptor, bytes)], &[Digest::of(&tar)])
}

fn document(content_type: &str, document: &Value) -> Builder {
    FaultRegistry::builder().manifest("a", "1", content_type, document.to_string().as_bytes())
}

#[test]
fn documents_that_lie_are_refused() {
    let image = base_image();
    let arm = TestImage::new(Family::Oci, "arm64");
    let config = descriptor(media_type::OCI_CONFIG, &image.config);
    let both = json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []});
    let named = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "config": config, "layers": []});
    let painted = json!({"schemaVersion": 2, "mediaType": "\u{1b}[2Jx", "config": config, "layers": []});
    let path = json!({"mediaType": media_type::OCI_CONFIG, "digest": "sha256:../../../../etc/passwd", "size": 1});
    let itself = images::index(Family::Oci, &[&TestImage { manifest: b"none".to_vec(), ..image.clone() }]);
    let tar = tar(&[("opt/data", b"x")]);
    let large = |value: &str, count: usize| {
        let config = format!(r#"{{"architecture":"amd64","os":"linux","x":[{}0]}}"#, value.repeat(count));
        let manifest = images::manifest(Family::Oci, config.as_bytes(), Vec::new());
        FaultRegistry::builder().manifest("a", "1", media_type::OCI_MANIFEST, &manifest).blob("a", config.as_bytes())
    };
    let deep = format!("{}{}", r#"{"manifests":["#.repeat(50_000), "]}".repeat(50_000));
    assert_all(vec![
        ("both", document(media_type::OCI_INDEX, &both), Refusal(1, &["could be read as an index and as a manifest"])),
        ("misnamed", document(media_type::OCI_INDEX, &named), Refusal(1, &["has not the fields"])),
        ("mistyped", document(media_type::OCI_MANIFEST, &named), Refusal(1, &["calls itself"])),
        ("painted", document("text/plain", &painted), Refusal(1, &["is not the media type of an image"])),
        (
            "a path for a digest",
            document(media_type::OCI_MANIFEST, &json!({"schemaVersion": 2, "config": path, "layers": []})),
            Refusal(1, &["not the JSON of a manifest"]),
        ),
        (
            "no platform of ours",
            FaultRegistry::builder().image("a", "x", &arm).manifest(
                "a",
                "1",
                index_type(Family::Oci),
                &images::index(Family::Oci, &[&arm]),
            ),
            Refusal(3, &["has no image for `linux/amd64`, only for `linux/arm64`", "--arm64"]),
        ),
        (
            "an index of nothing",
            FaultRegistry::builder().manifest("a", "1", index_type(Family::Oci), &itself),
            Refusal(1, &["answered 404"]),
        ),
        (
            "another platform's config",
            FaultRegistry::builder().image("a", "1", &arm),
            Refusal(3, &["is for `linux/arm64`"]),
        ),
        (
            "deeply nested",
            FaultRegistry::builder().manifest("a", "1", media_type::OCI_INDEX, deep.as_bytes()),
            Refusal(1, &["not the JSON"]),
        ),
        (
            "not UTF-8",
            FaultRegistry::builder().manifest("a", "1", media_type::OCI_INDEX, b"\xff\xfe"),
            Refusal(1, &["is not UTF-8"]),
        ),
        (
            "zstd",
            odd_layer("mediaType", json!(media_type::OCI_LAYER_ZSTD)),
            Refusal(3, &["zstd, which Lambda does not take", "skopeo copy"]),
        ),
        ("foreign", odd_layer("urls", json!(["https://evil.invalid/x"])), Refusal(1, &["lies elsewhere"])),
        ("too long", odd_layer("size", json!(20)), Refusal(1, &["is longer than the 20 bytes"])),
        ("negative", odd_layer("size", json!(-1)), Refusal(1, &["not the JSON of a manifest"])),
        ("enormous", odd_layer("size", json!(u64::MAX)), Refusal(3, &["10 GiB"])),
        (
            "another tar",
            image_of(&[(descriptor(media_type::OCI_LAYER_GZIP, &gzip(&tar)), gzip(&tar))], &[Digest::of(b"")]),
            Refusal(1, &["its tar is sha256:", "the image contradicts itself"]),
        ),
        (
            "fewer diff-ids",
            image_of(&[(descriptor(media_type::OCI_LAYER_GZIP, &gzip(&tar)), gzip(&tar))], &[]),
            Refusal(1, &["its config lists 0"]),
        ),
        (
            "no gzip",
            image_of(&[(descriptor(media_type::OCI_LAYER_GZIP, &tar), tar.clone())], &[Digest::of(&tar)]),
            Refusal(1, &["could not take layer"]),
        ),
        (
            "half a gzip",
            {
                let half = gzip(&noise(9000))[..5000].to_vec();
                image_of(&[(descriptor(media_type::OCI_LAYER_GZIP, &half), half)], &[Digest::of(&tar)])
            },
            Refusal(1, &["could not take layer"]),
        ),
        ("a large config", large("0,", 19_000), Other),
        ("a config of many maps", large(r#"{"":0},"#, 9_000), Other),
        ("a config of too many values", large("0,", 500_000), Refusal(1, &["more than 20000 values"])),
        ("a config too large", large("0,", 530_000), Refusal(1, &["at most"])),
        ("a tar of nonsense", one_layer(&noise(100_000)), Refusal(1, &["could not read the layer's tar"])),
    ]);
}

/// A tar that tries everything to get out of where it is unpacked.
fn hostile_tar(outside: &Path) -> Vec<u8> {
    use tar::EntryType::{Block, Char, Fifo, Link, Regular, Symlink};
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, name: &str, link: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o6777);
        let content: &[u8] = if kind == Regular { b"owned" } else { b"" };
        header.set_size(content.len() as u64);
        // The builder itself refuses such names.
        header.as_gnu_mut().expect("a GNU header").name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_gnu_mut().expect("a GNU header").linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, content).expect("a member");
    };
    let outside = outside.to_str().expect("a plain path");
    for up in 1..9 {
        add(Regular, &format!("{}owned", "../".repeat(up)), "");
    }
    add(Regular, &format!("{outside}/owned"), "");
    add(Regular, "/owned", "");
    add(Symlink, "way", outside);
    add(Regular, "way/owned", "");
    add(Symlink, "self", "self");
    add(Link, "hard", &format!("{outside}/home/.docker/config.json"));
    add(Link, "up", "../../../../../etc/passwd");
    add(Char, "dev/mem", "");
    add(Block, "dev/sda", "");
    add(Fifo, "fifo", "");
    add(Regular, "a\u{1b}[2Jb", "");
    add(Regular, "", "");
    builder.into_inner().expect("a tar")
}

#[test]
fn a_layers_names_touch_nothing() {
    let world = World::new();
    let tar = hostile_tar(&world.site.path(""));
    for layers in [gzip as fn(&[u8]) -> Vec<u8>, <[u8]>::to_vec] {
        let image = TestImage::of(Family::Oci, "amd64", std::slice::from_ref(&tar), layers);
        let registry = FaultRegistry::builder().image("a", "1", &image).start();
        world.log_in(&registry.address.to_string());
        let ended = world.attempt(&format!("{}/a:1", registry.address), |program| program);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    assert!(!Path::new("/owned").exists());
}

/// A gzip blob that unpacks to `head` and `count` MiB of zeros: members one after the other are one stream.
fn bomb(count: usize, head: &[u8]) -> Vec<u8> {
    [gzip(head), gzip(&vec![0; 1024 * 1024]).repeat(count)].concat()
}

#[test]
fn a_bomb_costs_neither_memory_nor_disk() {
    let mut header = tar::Header::new_gnu();
    header.set_path("opt/zeros").expect("a name");
    header.set_size(2 * 1024 * 1024 * 1024);
    header.set_cksum();
    let blob = bomb(1024, header.as_bytes());
    let registry = image_of(&[(descriptor(media_type::OCI_LAYER_GZIP, &blob), blob)], &[Digest::of(b"")]);
    let (ended, _, world) = build_on(registry);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("the tar ends within a member"), "{}", ended.stderr);
    let written: u64 = snapshot(&world.site.store())
        .keys()
        .map(|path| world.site.store().join(path).metadata().map_or(0, |it| it.len()))
        .sum();
    assert!(written < 20 * 1024 * 1024, "{written} bytes are more than the blob");
}
