//! Flags, environment and metadata become requests in which every default is settled.
//!
//! Contradictions are refused here, so that nothing below has to wonder whether the user set a thing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::platform::Architecture;

/// What `build` is asked to do: one image for each binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRequest {
    /// `<target directory>/lambda-image`.
    pub store: PathBuf,
    /// The images, in the order of package then binary.
    pub images: Vec<ImageRequest>,
    /// How to run cargo; absent when no image is compiled.
    pub compile: Option<CompileRequest>,
    /// Where the images go.
    pub output: Output,
    /// No network for base images.
    pub offline: bool,
    /// Look at no record and no stored layer.
    pub no_cache: bool,
    /// How many threads compress.
    pub threads: usize,
    /// Seconds since 1970 for `created`, from `SOURCE_DATE_EPOCH`.
    pub source_date_epoch: Option<u64>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRequest {
    /// The Cargo package's name, or the project's without Cargo.
    pub package: String,
    /// The binary's name, which names the image.
    pub bin: String,
    /// Where the binary comes from.
    pub binary: BinarySource,
    /// The architecture asked for by flag or triple; absent when the binary's own decides.
    pub architecture: Option<Architecture>,
    /// The base image's reference.
    pub base: String,
    /// The directory relative paths in `base` (`oci:DIR`, ...) start from.
    pub base_directory: PathBuf,
    /// What to pack, in order.
    pub assets: Vec<AssetRequest>,
    /// CMD, if it was given.
    pub handler: Option<String>,
    /// Variables set in the image.
    pub env: BTreeMap<String, String>,
    /// ENTRYPOINT, if it was given.
    pub entrypoint: Option<Vec<String>>,
    /// WORKDIR, if it was given.
    pub working_directory: Option<String>,
    /// 0 stores, 1 to 9 compress.
    pub compression_level: u32,
    /// The family of media types.
    pub format: Format,
    /// Globs of files that may look like secrets, for all assets.
    pub allow_secrets: Vec<String>,
}

/// Where an image's binary comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BinarySource {
    /// Cargo compiles it.
    Cargo,
    /// It is there already.
    File(PathBuf),
    /// The image has none; its base brings the runtime.
    None,
}

/// One asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetRequest {
    /// A name for people.
    pub name: String,
    /// As the user wrote it, for messages.
    pub shown: String,
    /// The directory the path starts from (absolute).
    pub directory: PathBuf,
    /// File, directory or glob, relative to `directory` or absolute.
    pub path: String,
    /// Where it goes, if the user said so; relative to `/var/task` or absolute.
    pub to: Option<String>,
    /// Globs relative to `path`.
    pub exclude: Vec<String>,
    /// Pack what links point to.
    pub follow_symlinks: bool,
    /// Globs of files that may look like secrets.
    pub allow_secrets: Vec<String>,
}

/// How to run cargo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileRequest {
    /// `$CARGO`, or `cargo`.
    pub cargo: PathBuf,
    /// The subcommand that builds: `["build"]`, `["zigbuild"]`, `["lambda", "build"]`.
    pub subcommand: Vec<String>,
    /// Its arguments, all but `--message-format`.
    pub arguments: Vec<String>,
    /// The directory to run it in.
    pub directory: PathBuf,
    /// What is expected of it: `(package name, binary name)`.
    pub expected: Vec<(String, String)>,
}

/// A family of media types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OCI's, throughout.
    Oci,
    /// Docker's, throughout.
    Docker,
}

/// Where images go besides the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The layout in the store only.
    Store,
    /// Another OCI layout directory.
    OciDir(PathBuf),
    /// A tar of an OCI layout.
    OciArchive(PathBuf),
    /// A tar that `docker load` and `podman load` take.
    DockerArchive(PathBuf),
}
