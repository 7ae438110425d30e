//! Finds the project, with its Cargo.toml or without one, and the images that are to be made of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, Package};

use crate::cargo::{self, MetadataRequest};
use crate::cli::{BuildArgs, ManifestArgs, SelectionArgs, check};
use crate::event::{Event, Session};
use crate::init::cargo_lambda::{Function, Known};
use crate::problem::{Exit, IoContext, Problem, Result};

use super::BinarySource;
use super::environment::Environment;
use super::metadata::{self, Place};
use super::select;
use super::settings::Settings;
use super::suggest;
use super::table::Table;

/// The configuration of a project without a Cargo.toml.
pub(super) const OWN_FILE: &str = "lambda-image.toml";

/// A project and what is to be made of it.
#[derive(Debug)]
pub(super) struct Project {
    /// The workspace's root, or the working directory without Cargo.
    pub root: PathBuf,
    /// Where everything generated goes, absolute.
    pub target_directory: PathBuf,
    /// One for each image, in the order of package then binary.
    pub selected: Vec<Selected>,
    /// Whether these are all images that the project's tables tell of.
    pub complete: bool,
}

/// Where a project's files are.
#[derive(Debug)]
pub(super) struct Location {
    /// As of [`Project`].
    pub root: PathBuf,
    /// As of [`Project`].
    pub target_directory: PathBuf,
}

/// What becomes an image.
#[derive(Debug)]
pub(super) struct Selected {
    /// The package's name, or the project's.
    pub package: String,
    /// Cargo's id of the package; absent without Cargo.
    pub package_id: Option<String>,
    /// The binary as cargo knows it, or what names the image without one.
    pub bin: String,
    /// The package's version; absent without Cargo.
    pub version: Option<String>,
    /// Where the binary comes from.
    pub source: BinarySource,
    /// The tables that apply, merged.
    pub settings: Settings,
    /// What another tool's table says of the function.
    pub cargo_lambda: Function,
}

/// Finds the project that `args` mean.
///
/// # Errors
/// Cargo's, when it cannot read the project; a selection that selects nothing or what is not there.
pub(super) fn find(args: &BuildArgs, environment: &Environment, session: &Session) -> Result<Project> {
    let nothing_compiled = args.selection.no_binary || args.selection.binary_path.is_some();
    if !has_manifest(&args.manifest, &environment.directory) {
        if nothing_compiled {
            return without_cargo(args, environment, session);
        }
        let place = environment.directory.display();
        return Err(Problem::new(
            Exit::Cargo,
            format!("could not find `Cargo.toml` in `{place}` or any parent directory"),
        )
        .help("outside of a Cargo project, say what to pack with `--no-binary` or `--binary-path FILE`"));
    }
    let metadata = read_metadata(&args.manifest, environment)?;
    let root = metadata.workspace_root.as_std_path();
    for directory in [root, &environment.directory] {
        if directory.join(OWN_FILE).is_file() && directory.join("Cargo.toml").is_file() {
            session.warn(
                &format!("`{}` is not read, since there is a Cargo.toml", directory.join(OWN_FILE).display()),
                Some("put its keys under `[package.metadata.lambda-image]`"),
            );
            break;
        }
    }
    let Location { root, target_directory } = location_of(&metadata, args.compile.target_dir.as_deref(), environment);
    let selected = if args.selection.no_binary {
        vec![assets_only(&metadata, args, session)?]
    } else if let Some(file) = &args.selection.binary_path {
        vec![prebuilt(&metadata, file, args, &environment.directory, session)?]
    } else {
        compiled(&metadata, args, session)?
    };
    let binaries: usize = metadata.workspace_packages().iter().map(|package| select::bins_of(package).count()).sum();
    let complete = !nothing_compiled && selected.len() == binaries;
    Ok(Project { root, target_directory, selected, complete })
}

/// Where the project's files are, whatever is to be made of it.
///
/// # Errors
/// Cargo's, when it cannot read the project.
pub(super) fn locate(manifest: &ManifestArgs, target: Option<&Path>, environment: &Environment) -> Result<Location> {
    let directory = &environment.directory;
    if has_manifest(manifest, directory) {
        return Ok(location_of(&read_metadata(manifest, environment)?, target, environment));
    }
    let target_directory = directory.join(target.unwrap_or_else(|| Path::new("target")));
    Ok(Location { root: directory.clone(), target_directory })
}

fn read_metadata(manifest: &ManifestArgs, environment: &Environment) -> Result<Metadata> {
    cargo::metadata(&MetadataRequest {
        cargo: cargo_path(environment),
        arguments: metadata_arguments(manifest),
        directory: environment.directory.clone(),
    })
}

fn location_of(metadata: &Metadata, target: Option<&Path>, environment: &Environment) -> Location {
    let target_directory = match target {
        Some(directory) => environment.directory.join(directory),
        None => metadata.target_directory.clone().into_std_path_buf(),
    };
    Location { root: metadata.workspace_root.clone().into_std_path_buf(), target_directory }
}

/// Where everything generated goes, whatever is selected.
pub(super) fn target_directory(args: &BuildArgs, environment: &Environment) -> PathBuf {
    let target = args.compile.target_dir.as_deref();
    let target_directory = || environment.directory.join(target.unwrap_or_else(|| Path::new("target")));
    if target.is_some() {
        return target_directory();
    }
    // A project that cannot be read is nobody's concern where nothing of it is needed.
    locate(&args.manifest, target, environment).map_or_else(|_| target_directory(), |found| found.target_directory)
}

/// `$CARGO`, which cargo sets to itself, or `cargo`.
pub(super) fn cargo_path(environment: &Environment) -> PathBuf {
    environment.get("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// Whether cargo would find a manifest. A configuration of our own in the working directory says that the project is
/// there, even below somebody's Cargo workspace.
pub(super) fn has_manifest(manifest: &ManifestArgs, directory: &Path) -> bool {
    let is_cargos = |directory: &Path| directory.join("Cargo.toml").is_file();
    let is_ours = directory.join(OWN_FILE).is_file() && !is_cargos(directory);
    manifest.manifest_path.is_some() || (!is_ours && directory.ancestors().any(is_cargos))
}

fn metadata_arguments(manifest: &ManifestArgs) -> Vec<OsString> {
    let mut arguments = manifest_arguments(manifest);
    if let Some(path) = &manifest.manifest_path {
        arguments.extend(["--manifest-path".into(), path.into()]);
    }
    arguments
}

/// What cargo may change and reach, for every subcommand.
pub(super) fn manifest_arguments(manifest: &ManifestArgs) -> Vec<OsString> {
    let flags = [("--locked", manifest.locked), ("--offline", manifest.offline), ("--frozen", manifest.frozen)];
    let mut arguments: Vec<OsString> = flags.iter().filter(|(_, set)| *set).map(|(flag, _)| (*flag).into()).collect();
    for value in &manifest.config {
        arguments.extend(["--config".into(), value.clone()]);
    }
    arguments
}

/// A directory without a Cargo.toml.
fn without_cargo(args: &BuildArgs, environment: &Environment, session: &Session) -> Result<Project> {
    let SelectionArgs { package, workspace, bin, binary_path, name, .. } = &args.selection;
    let directory = &environment.directory;
    if *workspace || !package.is_empty() {
        return Err(Problem::usage("there is no Cargo.toml to select a package of")
            .help("leave out `--package` and `--workspace`, or pass `--manifest-path`"));
    }
    let file = directory.join(OWN_FILE);
    // Where flags alone say what there is, another call may say something else.
    let complete = file.is_file();
    // A FIFO would be waited for, and no signal ends that.
    if fs::metadata(&file).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        return Err(Problem::usage(format!("`{}` is no regular file", file.display()))
            .help("write the settings into a file of that name"));
    }
    let table = match fs::read_to_string(&file) {
        Ok(text) => metadata::read_toml(&text, &file, session)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Table::default(),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(Problem::usage(format!("`{}` is not UTF-8", file.display()))
                .help("save it as UTF-8, which TOML is always written in"));
        }
        Err(error) => return Err(error).or_failed(|| format!("could not read `{}`", file.display())),
    };
    let folder = directory.file_name().unwrap_or_default().to_string_lossy();
    let project = name.clone().or_else(|| single_bin(bin).ok()?.cloned()).unwrap_or_else(|| folder.into_owned());
    check::image_name(&project).map_err(|why| {
        Problem::usage(format!("the folder's name `{project}` cannot name an image"))
            .because(why)
            .help("name it with `--name NAME`")
    })?;
    let of_table = match binary_path {
        Some(file) => single_bin(bin)?.cloned().unwrap_or_else(|| name_of_file(file)),
        None => project.clone(),
    };
    let source = binary_path.as_ref().map_or(BinarySource::None, |file| BinarySource::File(directory.join(file)));
    let settings = of_bin(&table, &of_table, directory).over(Settings::of_table(&table, directory));
    Ok(Project {
        root: directory.clone(),
        complete,
        target_directory: directory.join(args.compile.target_dir.as_deref().unwrap_or_else(|| Path::new("target"))),
        selected: vec![Selected {
            package: project.clone(),
            package_id: None,
            version: None,
            bin: project,
            source,
            settings,
            cargo_lambda: Function::default(),
        }],
    })
}

/// An image of a package's assets.
fn assets_only(metadata: &Metadata, args: &BuildArgs, session: &Session) -> Result<Selected> {
    let packages = select::packages(metadata, &args.selection)?;
    let [package] = packages.as_slice() else {
        return Err(select::too_many(&packages, "an image without a binary is one package's"));
    };
    let bin = args.selection.name.clone().unwrap_or_else(|| package.name.to_string());
    let settings = Tables::read(metadata, session)?.of(package, &bin, session)?;
    Ok(selected(metadata, package, bin, BinarySource::None, settings))
}

/// What the tables say of an image called `name` that is there: it needs no project, and its project may be another
/// one. Where it may be any package's, the workspace's table counts.
///
/// # Errors
/// Of class usage for tables and flags that are wrong.
pub(super) fn settings_of_image(
    args: &BuildArgs,
    name: &str,
    environment: &Environment,
    session: &Session,
) -> Result<Settings> {
    if !has_manifest(&args.manifest, &environment.directory) {
        let mut args = args.clone();
        args.selection.name = Some(name.to_owned());
        let selected = without_cargo(&args, environment, session)?.selected;
        return Ok(selected.into_iter().next().map(|selected| selected.settings).unwrap_or_default());
    }
    let metadata = match read_metadata(&args.manifest, environment) {
        Ok(metadata) => metadata,
        Err(problem) => {
            session.emit(&Event::Detail { message: &format!("no configuration is read: {problem}") });
            return Ok(Settings::default());
        }
    };
    let mut tables = Tables::read(&metadata, session)?;
    match select::packages(&metadata, &args.selection)?.as_slice() {
        [package] => tables.of(package, name, session),
        _ => Ok(tables.workspace),
    }
}

/// An image of a binary that is there already.
fn prebuilt(
    metadata: &Metadata,
    file: &Path,
    args: &BuildArgs,
    directory: &Path,
    session: &Session,
) -> Result<Selected> {
    let bin = single_bin(&args.selection.bin)?.cloned().unwrap_or_else(|| name_of_file(file));
    let package = select::package_of_file(metadata, &args.selection, &bin)?;
    let settings = Tables::read(metadata, session)?.of(package, &bin, session)?;
    Ok(selected(metadata, package, bin, BinarySource::File(directory.join(file)), settings))
}

/// The images of all binaries that cargo compiles.
fn compiled(metadata: &Metadata, args: &BuildArgs, session: &Session) -> Result<Vec<Selected>> {
    let mut tables = Tables::read(metadata, session)?;
    let binaries = select::binaries(metadata, args)?;
    binaries
        .into_iter()
        .map(|(package, bin)| {
            let settings = tables.of(package, &bin, session)?;
            Ok(selected(metadata, package, bin, BinarySource::Cargo, settings))
        })
        .collect()
}

fn selected(metadata: &Metadata, package: &Package, bin: String, source: BinarySource, settings: Settings) -> Selected {
    Selected {
        package: package.name.to_string(),
        package_id: Some(package.id.repr.clone()),
        version: Some(package.version.to_string()),
        cargo_lambda: known(metadata, package, [bin.as_str()]).function_of(&bin).clone(),
        bin,
        source,
        settings,
    }
}

/// What cargo-lambda was told of a package of the workspace and of these binaries.
pub(super) fn known<'a>(metadata: &Metadata, package: &Package, bins: impl IntoIterator<Item = &'a str>) -> Known {
    let directory = package.manifest_path.parent().unwrap_or(&package.manifest_path);
    let below = directory.strip_prefix(&metadata.workspace_root).unwrap_or("".into());
    Known::read(&metadata.workspace_metadata, &package.metadata, below.as_std_path(), bins)
}

/// `--bin` where it only names: at most one.
fn single_bin(bins: &[String]) -> Result<Option<&String>> {
    match bins {
        [] => Ok(None),
        [bin] => Ok(Some(bin)),
        _ => Err(Problem::usage("one binary file cannot have several names").help("pass `--bin` once")),
    }
}

/// The name a binary's file stands for. Everything made for Lambda's `provided` runtimes is called `bootstrap`, and its
/// directory says what it is.
fn name_of_file(file: &Path) -> String {
    let name = match file.parent().and_then(Path::file_name) {
        Some(parent) if file.file_name().is_some_and(|name| name == "bootstrap") => Some(parent),
        _ => file.file_name(),
    };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

fn of_bin(table: &Table, bin: &str, directory: &Path) -> Settings {
    table.bin.get(bin).map_or_else(Settings::default, |table| Settings::of_table(table, directory))
}

/// The tables of a workspace, each read once, so that each of its faults is told once.
struct Tables {
    workspace: Settings,
    packages: BTreeMap<String, Table>,
}

impl Tables {
    fn read(workspace: &Metadata, session: &Session) -> Result<Self> {
        let root = workspace.workspace_root.as_std_path();
        let place = Place { file: &root.join("Cargo.toml"), keys: "workspace.metadata.lambda-image" };
        let table = metadata::read(&workspace.workspace_metadata, place, session)?;
        if !table.bin.is_empty() {
            metadata::warn_of_misplaced("bin", place, "only a package has tables for its binaries", session);
        }
        Ok(Self { workspace: Settings::of_table(&table, root), packages: BTreeMap::new() })
    }

    fn of(&mut self, package: &Package, bin: &str, session: &Session) -> Result<Settings> {
        let file = package.manifest_path.as_std_path();
        let directory = file.parent().unwrap_or(file);
        if !self.packages.contains_key(&package.id.repr) {
            let place = Place { file, keys: "package.metadata.lambda-image" };
            let table = metadata::read(&package.metadata, place, session)?;
            warn_of_unknown_bins(&table, package, bin, place, session);
            self.packages.insert(package.id.repr.clone(), table);
        }
        let table = &self.packages[&package.id.repr];
        let own = of_bin(table, bin, directory).over(Settings::of_table(table, directory));
        Ok(own.over(self.workspace.clone()))
    }
}

fn warn_of_unknown_bins(table: &Table, package: &Package, image: &str, place: Place<'_>, session: &Session) {
    let known: Vec<&str> = select::bins_of(package).map(|target| target.name.as_str()).collect();
    for bin in table.bin.keys().map(String::as_str) {
        // Without a binary of Cargo's, the image's name is what picks a table.
        if bin != image && !known.contains(&bin) {
            let help = match suggest(bin, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("package `{}` has no binary of that name", package.name),
            };
            metadata::warn_of_misplaced(&format!("bin.{bin}"), place, &help, session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_named_bootstrap_is_named_by_its_directory() {
        for (file, expected) in [
            ("target/lambda/resize/bootstrap", "resize"),
            ("bootstrap", "bootstrap"),
            ("a/resize", "resize"),
            ("x", "x"),
        ] {
            assert_eq!(name_of_file(Path::new(file)), expected, "{file}");
        }
    }
}
