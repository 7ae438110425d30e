//! A stand-in for AWS's base image `provided:al2023`, which is out of reach of test machines, with the same shape: an
//! index of two platforms, four layers, a null history, a usr-merged tree, Lambda's entry point and emulator.
//!
//! For amd64 it is real: what it runs with are the C library and the shell of this machine, in Amazon Linux's places.
//! It is written by other means than the program's own, so that the two cannot agree on a mistake.

use std::fs;
use std::path::{Path, PathBuf};

use cargo_lambda_image::oci::{Digest, media_type};
use serde_json::{Value, json};

use super::images::{self, Family, TestImage, descriptor, gzip};
use super::tools::lambda_emulator;

/// The base's name in the layouts [`LambdaBase::write_layout`] writes.
pub const NAME: &str = "al2023";

/// What the runtime and a Rust binary load.
const LIBRARIES: [&str; 4] = ["ld-linux-x86-64.so.2", "libc.so.6", "libgcc_s.so.1", "libm.so.6"];

/// Where they are on Debian, and elsewhere.
const LIBRARY_DIRECTORIES: [&str; 3] = ["/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64"];

/// As in AWS's base images.
const ENVIRONMENT: [&str; 6] = [
    "LANG=en_US.UTF-8",
    "TZ=:/etc/localtime",
    "PATH=/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
    "LD_LIBRARY_PATH=/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
    "LAMBDA_TASK_ROOT=/var/task",
    "LAMBDA_RUNTIME_DIR=/var/runtime",
];

/// Behaves as AWS's does.
const ENTRY_POINT: &str = r#"#!/bin/sh
if [ $# -ne 1 ]; then
  echo "entrypoint requires the handler name to be the first argument" 1>&2
  exit 142
fi
export _HANDLER="$1"
if [ -z "${AWS_LAMBDA_RUNTIME_API}" ]; then
  exec /usr/local/bin/aws-lambda-rie "$LAMBDA_RUNTIME_DIR/bootstrap"
else
  exec "$LAMBDA_RUNTIME_DIR/bootstrap"
fi
"#;

/// The base with all its bytes.
pub struct LambdaBase {
    pub family: Family,
    /// amd64, then arm64, which is for looking at only.
    pub images: [TestImage; 2],
    pub index: Vec<u8>,
}

impl LambdaBase {
    /// The base in a family of media types. AWS's speaks Docker's.
    pub fn new(family: Family) -> Self {
        let images = [("amd64", "x86_64"), ("arm64", "arm64")].map(|(oci, lambda)| image(family, oci, lambda));
        let entries = images.each_ref().map(|image| {
            let mut entry = descriptor(image.manifest_type(), &image.manifest);
            entry["platform"] = json!({"architecture": image.architecture, "os": "linux"});
            entry
        });
        let index = json!({"schemaVersion": 2, "mediaType": images::index_type(family), "manifests": entries});
        Self { family, images, index: index.to_string().into_bytes() }
    }

    /// Writes the base as an OCI layout; `oci:DIRECTORY:al2023` is its reference.
    pub fn write_layout(&self, directory: &Path) {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("a made directory");
        let write = |bytes: &[u8]| fs::write(blobs.join(Digest::of(bytes).hex()), bytes).expect("a written blob");
        for image in &self.images {
            image.layers.iter().chain([&image.config, &image.manifest]).for_each(|bytes| write(bytes));
        }
        write(&self.index);
        let mut entry = descriptor(images::index_type(self.family), &self.index);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": NAME});
        let top = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [entry]});
        fs::write(directory.join("index.json"), top.to_string()).expect("a written index");
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a written layout");
    }
}

fn image(family: Family, architecture: &'static str, lambda_architecture: &str) -> TestImage {
    let tars = layers(architecture, lambda_architecture);
    let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar)).collect();
    let config = config(architecture, &diff_ids).to_string().into_bytes();
    let layers: Vec<_> = tars.iter().map(|tar| gzip(tar)).collect();
    let layer_type = match family {
        Family::Oci => media_type::OCI_LAYER_GZIP,
        Family::Docker => media_type::DOCKER_LAYER_GZIP,
    };
    let described = layers.iter().map(|layer| descriptor(layer_type, layer)).collect();
    let manifest = images::manifest(family, &config, described);
    TestImage { family, architecture, config, manifest, layers, tars }
}

fn config(architecture: &str, diff_ids: &[Digest]) -> Value {
    json!({
        "architecture": architecture,
        "config": {
            "Hostname": "",
            "Env": ENVIRONMENT,
            "Cmd": null,
            "WorkingDir": "/var/task",
            "Entrypoint": ["/lambda-entrypoint.sh"],
            "OnBuild": null,
        },
        "container": "2b45b5d0b9f4",
        "created": "2026-10-20T08:14:03.521Z",
        "docker_version": "25.0.8",
        "history": null,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

/// The system, the emulator, the entry point, and the directories of the function.
fn layers(architecture: &str, lambda_architecture: &str) -> Vec<Vec<u8>> {
    let emulator = fs::read(lambda_emulator(lambda_architecture)).expect("the emulator");
    let mut runtime = Tar::new();
    runtime.directories(&["usr", "usr/local", "usr/local/bin"]).file("usr/local/bin/aws-lambda-rie", 0o755, &emulator);
    let mut entry_point = Tar::new();
    entry_point.file("lambda-entrypoint.sh", 0o755, ENTRY_POINT.as_bytes());
    let mut function = Tar::new();
    function.directories(&["opt", "var", "var/lang", "var/runtime", "var/task"]);
    [system(architecture), runtime, entry_point, function].into_iter().map(Tar::finish).collect()
}

fn system(architecture: &str) -> Tar {
    let mut tar = Tar::new();
    tar.directories(&["dev", "etc", "proc", "sys", "usr", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin"]);
    tar.mode("tmp", 0o1777);
    for directory in ["bin", "lib", "lib64", "sbin"] {
        tar.link(directory, &format!("usr/{directory}"));
    }
    tar.file("etc/os-release", 0o644, b"NAME=\"Amazon Linux\"\nVERSION=\"2023\"\nID=\"amzn\"\nVERSION_ID=\"2023\"\n");
    tar.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nsbx_user1051:x:993:990::/home/sbx_user1051:/bin/sh\n",
    );
    if architecture == "amd64" {
        for name in LIBRARIES {
            let bytes = fs::read(library(name)).expect("a library");
            tar.file(&format!("usr/lib64/{name}"), 0o755, &bytes);
        }
        tar.file("usr/bin/sh", 0o755, &fs::read("/bin/sh").expect("a shell"));
    }
    tar
}

fn library(name: &str) -> PathBuf {
    LIBRARY_DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("`{name}` is in none of {LIBRARY_DIRECTORIES:?}"))
}

/// A tar under construction.
struct Tar {
    builder: tar::Builder<Vec<u8>>,
}

impl Tar {
    fn new() -> Self {
        Self { builder: tar::Builder::new(Vec::new()) }
    }

    fn directories(&mut self, paths: &[&str]) -> &mut Self {
        for path in paths {
            self.mode(path, 0o755);
        }
        self
    }

    /// A directory with a mode.
    fn mode(&mut self, path: &str, mode: u32) {
        self.entry(tar::EntryType::Directory, &format!("{path}/"), mode, &[]);
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        self.entry(tar::EntryType::Regular, path, mode, bytes);
    }

    fn link(&mut self, path: &str, target: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        self.builder.append_link(&mut header, path, target).expect("a link");
    }

    fn entry(&mut self, kind: tar::EntryType, path: &str, mode: u32, bytes: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        self.builder.append_data(&mut header, path, bytes).expect("a member");
    }

    fn finish(self) -> Vec<u8> {
        self.builder.into_inner().expect("a tar")
    }
}
