//! Small projects in directories of their own, which are built without a compiler.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cargo_lambda_image::oci::Digest;
use serde_json::Value;
use tempfile::TempDir;

use super::images::{TestImage, index};
use super::program::{Program, blob, json};
use super::schema;

/// `e_machine` of programs for x86-64 and arm64 (gABI, ELF header).
pub const AMD64: u16 = 62;
pub const ARM64: u16 = 183;

/// A directory called `app` with files in it, removed when dropped.
pub struct Project {
    _directory: TempDir,
    root: PathBuf,
}

impl Project {
    pub fn new(files: &[(&str, &str)]) -> Self {
        Self::within("app", files)
    }

    /// A project in a directory of this relative path, whose last part names it.
    pub fn within(place: &str, files: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let root = directory.path().join(place);
        fs::create_dir_all(&root).expect("made");
        let project = Self { _directory: directory, root };
        for (path, content) in files {
            project.write(path, content);
        }
        project
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, content).expect("written");
    }

    /// Writes a program that starts nowhere, but whose headers are right.
    pub fn write_program(&self, path: &str, machine: u16) {
        self.write(path, elf(machine));
        fs::set_permissions(self.path(path), Permissions::from_mode(0o755)).expect("permissions");
    }

    /// `build`, run in the project's directory.
    pub fn build(&self) -> Program {
        Program::build(self.root())
    }

    /// `push`, run in the project's directory.
    pub fn push(&self) -> Program {
        Program::push(self.root())
    }

    pub fn store(&self) -> PathBuf {
        self.path("target/lambda-image")
    }

    pub fn layout(&self) -> PathBuf {
        self.store().join("layout")
    }

    /// Every file of the layout, with its digest.
    pub fn layout_files(&self) -> BTreeMap<PathBuf, Digest> {
        files_below(&self.layout())
    }

    /// The image of this name in the layout.
    pub fn image(&self, name: &str) -> Image {
        image(&self.layout(), name)
    }

    /// The result file of this name.
    pub fn result(&self, name: &str) -> Value {
        let result = json(&self.store().join(format!("{name}.json")));
        schema::assert_result(&result);
        result
    }
}

/// The documents of one image.
#[derive(Debug)]
pub struct Image {
    pub digest: String,
    pub manifest: Value,
    pub config: Value,
}

/// The image of this name in an OCI layout.
pub fn image(layout: &Path, name: &str) -> Image {
    let index = json(&layout.join("index.json"));
    let is_it = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == name;
    let entry = index["manifests"].as_array().and_then(|entries| entries.iter().find(is_it));
    let digest = entry.unwrap_or_else(|| panic!("no image `{name}` in {index}"))["digest"].as_str().expect("a digest");
    let manifest = blob(layout, digest);
    let config = blob(layout, manifest["config"]["digest"].as_str().expect("a digest"));
    Image { digest: digest.to_owned(), manifest, config }
}

/// Names in the layers' tars, without directories, from all layers.
pub fn members(layout: &Path, manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().expect("layers").iter();
    layers
        .flat_map(|layer| {
            let hex = layer["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
            let file = File::open(layout.join("blobs/sha256").join(hex)).expect("a blob");
            let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
            let entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry"));
            let files = entries.filter(|entry| !entry.header().entry_type().is_dir());
            files.map(|entry| entry.path().expect("a path").display().to_string()).collect::<Vec<_>>()
        })
        .collect()
}

/// The manifest of a package, and what else stands in the file.
pub fn package(name: &str, rest: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"1.2.3\"\nedition = \"2021\"\n{rest}")
}

/// All files below `directory`, by their relative paths, with their digests.
pub fn files_below(directory: &Path) -> BTreeMap<PathBuf, Digest> {
    let mut files = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let below = path.strip_prefix(directory).expect("below").to_owned();
                files.insert(below, Digest::of(&fs::read(&path).expect("read")));
            }
        }
    }
    files
}

/// Writes a layout of these blobs, whose index has one entry of the media type `kind` for the first.
pub fn write_layout(directory: &Path, kind: &str, blobs: &[&[u8]]) {
    let folder = directory.join("blobs/sha256");
    fs::create_dir_all(&folder).expect("made");
    for blob in blobs {
        let digest = Digest::of(blob);
        fs::write(folder.join(digest.hex()), blob).expect("written");
    }
    let entry = super::images::descriptor(kind, blobs[0]);
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(directory.join("index.json"), index.to_string()).expect("written");
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
}

/// Writes a layout of these images, each for a platform, below one index.
pub fn write_images(directory: &Path, images: &[&TestImage]) {
    let index = index(images[0].family, images);
    let mut blobs: Vec<&[u8]> = vec![&index];
    for image in images {
        blobs.extend([image.config.as_slice(), &image.manifest]);
        blobs.extend(image.layers.iter().map(Vec::as_slice));
    }
    write_layout(directory, super::images::index_type(images[0].family), &blobs);
}

/// A static ELF program for `machine`: a header and one segment, which holds nothing to run.
pub fn elf(machine: u16) -> Vec<u8> {
    const HEADER: u16 = 64;
    const PROGRAM_HEADER: u16 = 56;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend(2_u16.to_le_bytes());
    bytes.extend(machine.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    for address in [0x40_0078_u64, HEADER.into(), 0] {
        bytes.extend(address.to_le_bytes());
    }
    bytes.extend(0_u32.to_le_bytes());
    for count in [HEADER, PROGRAM_HEADER, 1, 0, 0, 0] {
        bytes.extend(count.to_le_bytes());
    }
    let size = u64::from(HEADER + PROGRAM_HEADER) + 8;
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(5_u32.to_le_bytes());
    for value in [0, 0x40_0000, 0x40_0000, size, size, 0x1000_u64] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 8]);
    bytes
}
