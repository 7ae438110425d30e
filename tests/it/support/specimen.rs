//! Images made by hand, good but for what a test does to them.

use std::path::Path;

use cargo_lambda_image::oci::{Digest, media_type};
use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::images::{Family, descriptor, gzip, manifest};
use super::project::{AMD64, elf, write_layout};

/// A tar, written header by header so that it may be wrong.
#[derive(Debug, Clone, Default)]
pub struct Tape {
    bytes: Vec<u8>,
}

impl Tape {
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, &format!("{path}/"), mode, b"", "")
    }

    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, mode, content, "")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, 0o777, b"", target)
    }

    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, 0o644, b"", target)
    }

    pub fn special(self, kind: EntryType, path: &str) -> Self {
        self.entry(kind, path, 0o644, b"", "")
    }

    /// Directories of the usual mode, outermost first.
    pub fn directories(self, paths: &[&str]) -> Self {
        paths.iter().fold(self, |tape, path| tape.directory(path, 0o755))
    }

    pub fn entry(mut self, kind: EntryType, path: &str, mode: u32, content: &[u8], link: &str) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// The tar with its end.
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// An image about to be written.
pub struct Specimen {
    pub family: Family,
    /// Unpacked, lowest first.
    pub tars: Vec<Vec<u8>>,
    pub compress: fn(&[u8]) -> Vec<u8>,
    /// The config without `rootfs`, which is made of the tars unless it is there.
    pub config: Value,
    /// What is done to the manifest at last.
    pub edit: fn(&mut Value),
}

impl Specimen {
    /// An image that Lambda takes and runs: one static program.
    pub fn good() -> Self {
        let program = Tape::default().directories(&["tmp", "var", "var/task"]);
        let program = program.file("var/task/bootstrap", 0o755, &elf(AMD64));
        Self {
            family: Family::Oci,
            tars: vec![program.end()],
            compress: gzip,
            config: json!({
                "architecture": "amd64",
                "os": "linux",
                "config": {"Entrypoint": ["/var/task/bootstrap"], "WorkingDir": "/var/task", "Env": ["PATH=/bin"]},
            }),
            edit: |_| {},
        }
    }

    /// Another layer on top, in which `/var/task` is there already.
    pub fn add(&mut self, fill: impl FnOnce(Tape) -> Tape) {
        self.tars.push(fill(Tape::default().directories(&["var", "var/task"])).end());
    }

    /// Another layer on top, in which nothing is there.
    pub fn add_bare(&mut self, tape: Tape) {
        self.tars.push(tape.end());
    }

    /// Config, manifest and layers as they are stored.
    fn blobs(&self) -> (Vec<u8>, Vec<u8>, Vec<Vec<u8>>) {
        let layers: Vec<_> = self.tars.iter().map(|tar| (self.compress)(tar)).collect();
        let mut config = self.config.clone();
        if config.get("rootfs").is_none() {
            let diff_ids: Vec<_> = self.tars.iter().map(|tar| Digest::of(tar)).collect();
            config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        }
        let config = config.to_string().into_bytes();
        let kind = if self.family == Family::Oci { media_type::OCI_LAYER_GZIP } else { media_type::DOCKER_LAYER_GZIP };
        let described = layers.iter().map(|layer| descriptor(kind, layer)).collect();
        let mut manifest: Value =
            serde_json::from_slice(&manifest(self.family, &config, described)).expect("a manifest");
        (self.edit)(&mut manifest);
        (config, manifest.to_string().into_bytes(), layers)
    }

    /// Writes it as a layout of one image.
    pub fn write(&self, directory: &Path) {
        let (config, manifest, layers) = self.blobs();
        let kind = if self.family == Family::Oci { media_type::OCI_MANIFEST } else { media_type::DOCKER_MANIFEST };
        let mut blobs = vec![manifest.as_slice(), &config];
        blobs.extend(layers.iter().map(Vec::as_slice));
        write_layout(directory, kind, &blobs);
    }

    /// Writes it as a layout whose image lies below an index, beside these other entries.
    pub fn write_below_index(&self, directory: &Path, others: &[Value]) {
        let (config, manifest, layers) = self.blobs();
        let mut entry = descriptor(media_type::OCI_MANIFEST, &manifest);
        entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let entries: Vec<_> = std::iter::once(entry).chain(others.iter().cloned()).collect();
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries}).to_string();
        let mut blobs = vec![index.as_bytes(), &manifest, &config];
        blobs.extend(layers.iter().map(Vec::as_slice));
        write_layout(directory, media_type::OCI_INDEX, &blobs);
    }
}
