//! What `init` is asked to do: which project it is, where its table goes, and what is known of it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cargo::{self, MetadataRequest};
use crate::cli::{InitArgs, ManifestArgs, SelectionArgs, check};
use crate::init::cargo_lambda::Known;
use crate::init::{InitRequest, Table};
use crate::problem::{Problem, Result};

use super::environment::Environment;
use super::project::{OWN_FILE, cargo_path, has_manifest, known};
use super::select;

/// Settles what `init` is asked to do.
///
/// # Errors
/// Cargo's, when it cannot read the project; no such package, or several; a table that is there already.
pub fn init_request(typed: &InitArgs, environment: &Environment) -> Result<InitRequest> {
    let manifest = ManifestArgs { manifest_path: typed.manifest_path.clone(), ..ManifestArgs::default() };
    let request = if has_manifest(&manifest, &environment.directory) {
        of_package(typed, environment)?
    } else {
        without_cargo(typed, environment)?
    };
    if request.table.is_none() && request.workflow.is_none() {
        return Err(Problem::usage(format!("`{}` has settings of cargo lambda-image already", request.name))
            .help("edit them where they are; `cargo lambda-image build --help` names the keys' flags"));
    }
    Ok(request)
}

fn of_package(typed: &InitArgs, environment: &Environment) -> Result<InitRequest> {
    let mut arguments = Vec::new();
    if let Some(path) = &typed.manifest_path {
        arguments.extend(["--manifest-path".into(), path.into()]);
    }
    let directory = environment.directory.clone();
    let metadata = cargo::metadata(&MetadataRequest { cargo: cargo_path(environment), arguments, directory })?;
    let selection = SelectionArgs { package: typed.package.iter().cloned().collect(), ..SelectionArgs::default() };
    let packages = select::packages(&metadata, &selection)?;
    let [package] = packages.as_slice() else {
        return Err(select::too_many(&packages, "a table is one package's"));
    };
    let manifest = package.manifest_path.as_std_path();
    let directory = manifest.parent().unwrap_or(manifest).to_owned();
    let has_table = |metadata: &Value| metadata.get("lambda-image").is_some();
    if !has_table(&package.metadata) && select::bins_of(package).next().is_none() {
        return Err(select::no_binary(&package.name));
    }
    Ok(InitRequest {
        name: package.name.to_string(),
        target_directory: metadata.target_directory.as_std_path().to_owned(),
        table: (!has_table(&package.metadata)).then(|| Table::Manifest(manifest.to_owned())),
        workflow: typed.workflow.then(|| repository(&directory, metadata.workspace_root.as_std_path())),
        has_base: metadata.workspace_metadata["lambda-image"]["base"].is_string(),
        known: known(&metadata, package, select::bins_of(package).map(|target| target.name.as_str())),
        directory,
    })
}

/// A directory without a Cargo.toml has a file of our own.
fn without_cargo(typed: &InitArgs, environment: &Environment) -> Result<InitRequest> {
    if typed.package.is_some() {
        return Err(Problem::usage("there is no Cargo.toml to select a package of")
            .help("leave out `--package`, or pass `--manifest-path`"));
    }
    let directory = environment.directory.clone();
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    check::image_name(&name).map_err(|why| {
        Problem::usage(format!("the folder's name `{name}` cannot name an image"))
            .because(why)
            .help("rename the folder, or write `lambda-image.toml` by hand and build with `--name NAME`")
    })?;
    let file = directory.join(OWN_FILE);
    Ok(InitRequest {
        name,
        target_directory: directory.join("target"),
        workflow: typed.workflow.then(|| repository(&directory, &directory)),
        table: (!file.exists()).then_some(Table::OwnFile(file)),
        has_base: false,
        known: Known::default(),
        directory,
    })
}

/// The root of the repository that `directory` is in, or `otherwise`.
fn repository(directory: &Path, otherwise: &Path) -> PathBuf {
    directory.ancestors().find(|above| above.join(".git").exists()).unwrap_or(otherwise).to_owned()
}
