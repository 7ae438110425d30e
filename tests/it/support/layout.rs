//! Looks at an OCI layout as somebody who trusts nothing in it.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use cargo_lambda_image::oci::Digest;
use flate2::read::GzDecoder;
use serde_json::Value;

use super::program::{blob, json};

/// Hashes every file that has a blob's name and every blob that the index reaches, unpacks every layer, and returns
/// the images as `(name, digest)`, sorted.
pub fn verify(layout: &Path) -> Vec<(String, String)> {
    assert_eq!(json(&layout.join("oci-layout"))["imageLayoutVersion"], "1.0.0");
    for (name, bytes) in blobs(layout) {
        assert_eq!(Digest::of(&bytes).hex(), name, "a blob of another name in {}", layout.display());
    }
    let index = json(&layout.join("index.json"));
    let entries = index["manifests"].as_array().expect("an index has manifests");
    let mut images: Vec<_> = entries
        .iter()
        .map(|entry| {
            verify_image(layout, entry);
            let name = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().expect("a name");
            (name.to_owned(), text(&entry["digest"]))
        })
        .collect();
    images.sort();
    images
}

fn verify_image(layout: &Path, entry: &Value) {
    let manifest = described(layout, entry);
    let config = described(layout, &manifest["config"]);
    let diff_ids = config["rootfs"]["diff_ids"].as_array().expect("diff-ids");
    let layers = manifest["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), diff_ids.len());
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let mut tar = Vec::new();
        GzDecoder::new(bytes(layout, layer).as_slice()).read_to_end(&mut tar).expect("a gzip member");
        assert_eq!(Digest::of(&tar).to_string(), text(diff_id));
    }
}

/// Every file under a blob's final name.
pub fn blobs(layout: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(layout.join("blobs/sha256")).expect("a directory of blobs");
    files
        .map(|file| {
            let file = file.expect("listed");
            (file.file_name().into_string().expect("a plain name"), fs::read(file.path()).expect("a readable blob"))
        })
        .collect()
}

fn described(layout: &Path, descriptor: &Value) -> Value {
    bytes(layout, descriptor);
    blob(layout, &text(&descriptor["digest"]))
}

fn bytes(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = text(&descriptor["digest"]);
    let hex = digest.strip_prefix("sha256:").expect("a SHA-256 digest");
    let bytes = fs::read(layout.join("blobs/sha256").join(hex)).unwrap_or_else(|error| panic!("{digest}: {error}"));
    assert_eq!(bytes.len(), descriptor["size"].as_u64().expect("a size") as usize, "{digest}");
    assert_eq!(Digest::of(&bytes).to_string(), digest);
    bytes
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
