//! Flags, environment and metadata become requests in which every default is settled.
//!
//! Contradictions are refused here, so that nothing below has to wonder whether the user set a thing.

mod compile;
mod destination;
mod environment;
mod functions;
mod init;
mod merge;
mod metadata;
mod outputs;
mod project;
mod push;
mod reference;
mod renew;
mod select;
mod settings;
mod table;
mod talk;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cli::values::{JobsArg, OutputArg, OutputKind};
use crate::cli::{BuildArgs, CheckArgs, ImageArgs, check};
use crate::event::Session;
use crate::platform::Architecture;
use crate::problem::{Problem, Result};

pub use crate::cargo::{CompileRequest, ExpectedBinary};
use crate::layer::make::Reuse;
pub use crate::layer::walk::Asset;
pub use destination::{Destination, Repository};
pub use environment::Environment;
pub use init::init_request;
pub use outputs::{OutputsRequest, in_actions, outputs_request};
pub use push::{ExistingRequest, PushRequest, PushSource, push_request};
pub use reference::reference;
pub use renew::{OutdatedRequest, Renewed, UpdateRequest, outdated_request, update_request};
pub use talk::{Color, Progress, TalkRequest, Verbosity, help_color, talk_request};
pub use verify::{InspectedRequest, VerifyRequest, verify_request};

/// What `build` is asked to do: one image for each binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRequest {
    /// `<target directory>/lambda-image`.
    pub store: PathBuf,
    /// The images, in the order of package then binary.
    pub images: Vec<ImageRequest>,
    /// How to run cargo; absent when no image is compiled.
    pub compile: Option<CompileRequest>,
    /// What becomes of the lock.
    pub lock: LockRequest,
    /// Where each image's blobs may be, in their order, if assets that are not here are to come from there.
    pub blobs: Vec<Option<Destination>>,
    /// No network for base images.
    pub offline: bool,
    /// Look at no record and no stored layer.
    pub no_cache: bool,
    /// Whether images are judged before their layers are made.
    pub checks: Checks,
    /// How many threads compress, at least 1.
    pub threads: usize,
    /// Seconds since 1970 for `created`, from `SOURCE_DATE_EPOCH`.
    pub source_date_epoch: Option<u64>,
}

impl BuildRequest {
    /// How records are used while layers are made.
    #[must_use]
    pub fn reuse(&self) -> Reuse {
        if self.no_cache { Reuse::Nothing } else { Reuse::Records }
    }
}

/// Whether images are judged before their layers are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// Yes, and an error stops the build.
    Refuse,
    /// No, as the user wishes.
    Skip,
    /// Not yet: it is done when they are there.
    Later,
}

/// The lock, and what may become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRequest {
    /// The file.
    pub path: PathBuf,
    /// It must stay as it is.
    pub locked: bool,
    /// The images are all there are, so that entries of others are nobody's.
    pub complete: bool,
    /// Assets that are not here are taken from it.
    pub assets_from_lock: bool,
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
    pub assets: Vec<Asset>,
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
    /// Codes of rules whose findings are errors, or `warnings`.
    pub deny: Vec<String>,
    /// Codes of rules whose findings pass.
    pub allow: Vec<String>,
    /// The project's own limit in bytes, uncompressed.
    pub max_size: Option<u64>,
    /// Where it goes besides the layout.
    pub output: Output,
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

/// The last second that has a year of four digits, as RFC 3339 wants it: the end of 9999.
const LAST_EPOCH: u64 = 253_402_300_799;

/// Settles what `build` is asked to do.
///
/// # Errors
/// Class usage for anything that is not there, malformed or contradictory; cargo's class when it cannot read the
/// project.
pub fn build_request(typed: &BuildArgs, environment: &Environment, session: &Session) -> Result<BuildRequest> {
    let args = environment::over_environment(typed, environment, session)?;
    let request = merged_request(&args, environment, session)?;
    outputs::refuse_alike(&args.talk, &request.images)?;
    Ok(request)
}

/// What flags ask for that are merged with the environment's.
fn merged_request(args: &BuildArgs, environment: &Environment, session: &Session) -> Result<BuildRequest> {
    let project = project::find(args, environment, session)?;
    let blobs = push::sources(&project.selected, args, environment)?;
    Ok(BuildRequest { blobs, ..settle(project, args, environment)? })
}

fn settle(project: project::Project, args: &BuildArgs, environment: &Environment) -> Result<BuildRequest> {
    let source_date_epoch = source_date_epoch(environment)?;
    let compiles = project.selected.iter().any(|selected| selected.source == BinarySource::Cargo);
    let compile = if compiles { Some(compile::request(args, &project, environment)?) } else { None };
    let store = project.target_directory.join("lambda-image");
    let lock = lock_request(&project, args);
    Ok(BuildRequest {
        images: images(project.selected, args, &store, &environment.directory)?,
        store,
        compile,
        lock,
        blobs: Vec::new(),
        offline: args.manifest.offline || args.manifest.frozen,
        no_cache: args.image.no_cache,
        checks: checks(&args.check),
        threads: threads(args.compile.jobs, environment.parallelism),
        source_date_epoch,
    })
}

fn checks(args: &CheckArgs) -> Checks {
    if args.no_verify { Checks::Skip } else { Checks::Refuse }
}

fn lock_request(project: &project::Project, args: &BuildArgs) -> LockRequest {
    let ImageArgs { base, no_assets, compression_level, assets_from_lock, .. } = &args.image;
    // What such flags replace is not gone from the project.
    let replaces = base.is_some() || *no_assets || compression_level.is_some();
    LockRequest {
        path: project.root.join(crate::lock::FILE_NAME),
        locked: args.manifest.locked || args.manifest.frozen,
        complete: project.complete && !replaces,
        assets_from_lock: *assets_from_lock,
    }
}

fn images(
    selected: Vec<project::Selected>,
    args: &BuildArgs,
    store: &Path,
    directory: &Path,
) -> Result<Vec<ImageRequest>> {
    let name = args.selection.name.as_ref();
    if let (Some(name), true) = (name, selected.len() > 1) {
        let bins: Vec<String> = selected.iter().map(|selected| format!("`{}`", selected.bin)).collect();
        return Err(Problem::usage(format!("`--name {name}` cannot name the images of {}", bins.join(", ")))
            .help("choose one with `--bin NAME`"));
    }
    let asked = compile::architecture(&args.compile);
    let image = |selected: project::Selected| {
        let bin = name.cloned().unwrap_or(selected.bin);
        check::image_name(&bin).map_err(|why| {
            Problem::usage(format!("binary `{bin}` cannot name an image"))
                .because(why)
                .help("name it with `--name NAME`")
        })?;
        // Without a binary nothing else could say it.
        let architecture = match selected.source {
            BinarySource::None => asked.or(Some(Architecture::Amd64)),
            BinarySource::Cargo | BinarySource::File(_) => asked,
        };
        let output = output(args.image.output.as_ref(), &bin, store, directory);
        let settings = selected.settings.under_flags(&args.image, &args.check, directory);
        Ok(settings.settle((selected.package, bin), selected.source, architecture, output, directory))
    };
    selected.into_iter().map(image).collect()
}

/// Archives hold one image each, so without a path each has its own, named by the binary.
fn output(asked: Option<&OutputArg>, bin: &str, store: &Path, directory: &Path) -> Output {
    let Some(OutputArg { kind, path }) = asked else { return Output::Store };
    let path = path.as_ref().map(|path| directory.join(path));
    match (kind, path) {
        (OutputKind::OciDir, None) => Output::Store,
        (OutputKind::OciDir, Some(path)) => Output::OciDir(path),
        (OutputKind::OciArchive, path) => {
            Output::OciArchive(path.unwrap_or_else(|| store.join(format!("{bin}.oci.tar"))))
        }
        (OutputKind::DockerArchive, path) => {
            Output::DockerArchive(path.unwrap_or_else(|| store.join(format!("{bin}.docker.tar"))))
        }
    }
}

/// More threads gain nothing on any machine, and a system may refuse to start them.
const MOST_THREADS: usize = 256;

/// As cargo counts: a negative number leaves so many CPUs free.
fn threads(jobs: Option<JobsArg>, parallelism: usize) -> usize {
    let count = match jobs {
        None | Some(JobsArg::Default) => parallelism,
        Some(JobsArg::Count(count)) => match usize::try_from(count) {
            Ok(count) => count,
            Err(_) => parallelism.saturating_sub(count.unsigned_abs() as usize),
        },
    };
    count.clamp(1, MOST_THREADS)
}

/// Strictly digits, as the specification of reproducible builds has it: a script that failed to find a date should
/// fail, and not date an image 1970.
fn source_date_epoch(environment: &Environment) -> Result<Option<u64>> {
    let Some(value) = environment.variables.get(std::ffi::OsStr::new("SOURCE_DATE_EPOCH")) else { return Ok(None) };
    let digits = value.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|text| text.parse().ok()).filter(|seconds| *seconds <= LAST_EPOCH) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Problem::usage(format!("`{}` is no value of SOURCE_DATE_EPOCH", value.display()))
            .because("must be a number of seconds since 1970, in digits only, before the year 10000")
            .help("unset it, or set it to what `git log -1 --format=%ct` prints")),
    }
}

/// The name that was probably meant.
pub(crate) fn suggest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let flat = |name: &str| name.to_lowercase().replace('_', "-");
    let scored = names.map(|name| (strsim::jaro_winkler(&flat(wrong), &flat(name)), name));
    // The threshold below which clap too suggests nothing is 0.7; short names need a little more to be alike.
    let best = scored.max_by(|(score, _), (other, _)| score.total_cmp(other));
    best.filter(|(score, _)| *score > 0.8).map(|(_, name)| name)
}

#[cfg(test)]
mod tests;
