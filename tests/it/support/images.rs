//! Small images in all the forms they come in.

use std::io::Write as _;

use cargo_lambda_image::oci::{Digest, media_type};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

/// Which family of media types an image speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Oci,
    Docker,
}

/// An image for one platform: exact bytes of everything.
#[derive(Debug, Clone)]
pub struct TestImage {
    pub family: Family,
    pub architecture: &'static str,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    /// As they are stored, lowest first.
    pub layers: Vec<Vec<u8>>,
    /// Unpacked, lowest first.
    pub tars: Vec<Vec<u8>>,
}

impl TestImage {
    /// An image of two gzip layers.
    pub fn new(family: Family, architecture: &'static str) -> Self {
        let tars = vec![tar(&[("etc/os-release", b"ID=test\n")]), tar(&[("opt/data", &noise(100_000))])];
        Self::of(family, architecture, &tars, gzip)
    }

    /// An image of these tars, each compressed by `compress`; bytes that stay as they are count as uncompressed.
    pub fn of(family: Family, architecture: &'static str, tars: &[Vec<u8>], compress: fn(&[u8]) -> Vec<u8>) -> Self {
        let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar)).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["LAMBDA_RUNTIME_DIR=/var/runtime"], "X-Unknown": 1},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let layers: Vec<_> = tars.iter().map(|tar| compress(tar)).collect();
        let pairs = layers.iter().zip(tars);
        let described = pairs.map(|(layer, tar)| descriptor(layer_type(family, layer == tar), layer)).collect();
        let manifest = manifest(family, &config, described);
        Self { family, architecture, config, manifest, layers, tars: tars.to_vec() }
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub fn manifest_type(&self) -> &'static str {
        manifest_type(self.family)
    }
}

/// The manifest of a config and described layers.
pub fn manifest(family: Family, config: &[u8], layers: Vec<Value>) -> Vec<u8> {
    let config_type = if family == Family::Oci { media_type::OCI_CONFIG } else { media_type::DOCKER_CONFIG };
    json!({
        "schemaVersion": 2,
        "mediaType": manifest_type(family),
        "config": descriptor(config_type, config),
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}

/// The index of these images, with an attestation as BuildKit adds it.
pub fn index(family: Family, images: &[&TestImage]) -> Vec<u8> {
    let mut manifests: Vec<_> = images
        .iter()
        .map(|image| {
            let mut entry = descriptor(image.manifest_type(), &image.manifest);
            entry["platform"] = json!({"os": "linux", "architecture": image.architecture});
            entry
        })
        .collect();
    let mut attestation = descriptor(manifest_type(family), b"attestation");
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    manifests.insert(0, attestation);
    json!({"schemaVersion": 2, "mediaType": index_type(family), "manifests": manifests}).to_string().into_bytes()
}

pub fn index_type(family: Family) -> &'static str {
    if family == Family::Oci { media_type::OCI_INDEX } else { media_type::DOCKER_INDEX }
}

fn manifest_type(family: Family) -> &'static str {
    if family == Family::Oci { media_type::OCI_MANIFEST } else { media_type::DOCKER_MANIFEST }
}

fn layer_type(family: Family, is_plain: bool) -> &'static str {
    match (family, is_plain) {
        (Family::Oci, false) => media_type::OCI_LAYER_GZIP,
        (Family::Oci, true) => media_type::OCI_LAYER_TAR,
        (Family::Docker, false) => media_type::DOCKER_LAYER_GZIP,
        (Family::Docker, true) => media_type::DOCKER_LAYER_TAR,
    }
}

/// The descriptor of `bytes` as JSON.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
}

/// A tar of these files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *content).expect("a member");
    }
    builder.into_inner().expect("a tar")
}

/// A tar of these files, and of symlinks as `(path, target)`.
pub fn tar_with_links(files: &[(String, Vec<u8>)], links: &[(String, String)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content.as_slice()).expect("a member");
    }
    for (path, target) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, path, target).expect("a link");
    }
    builder.into_inner().expect("a tar")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

/// Bytes that do not compress, the same every time.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(&mut next).take(count).collect()
}
