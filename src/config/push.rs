//! Settles what `push` is asked to do: what `build` makes, or an image that is there, and where each goes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::aws::ecr::host::RegistryHost;
use crate::check::findings::Options;
use crate::cli::{BuildArgs, DestinationArgs, PushArgs, check};
use crate::event::{Event, Session};
use crate::init::cargo_lambda::Function;
use crate::layer::gzip::DEFAULT_LEVEL;
use crate::platform::Architecture;
use crate::problem::{Problem, Result};

use super::destination::{DestinationSettings, Names, Repository, refuse_collisions};
use super::environment::{Environment, destination_of_environment, push_over_environment};
use super::functions::{FunctionSettings, refuse_idle_flags, refuse_shared};
use super::project::{self, Selected};
use super::settings::Settings;
use super::{BuildRequest, Checks, Destination, checks, compile, outputs, settle, threads};

/// What `push` is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRequest {
    /// What is pushed.
    pub source: PushSource,
    /// Where each image goes, in their order.
    pub destinations: Vec<Destination>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// How long to wait for each function; by the size of its image if absent.
    pub wait: Option<Duration>,
}

/// What is pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushSource {
    /// The images that `build` would make.
    Built(BuildRequest),
    /// An image that is there.
    Existing(ExistingRequest),
}

/// An image that is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingRequest {
    /// Its reference, in the forms of a base's.
    pub reference: String,
    /// Where relative paths in it start.
    pub directory: PathBuf,
    /// The package's name, or the image's own.
    pub package: String,
    /// What it is called.
    pub bin: String,
    /// Which one of an index; absent when it may be any.
    pub architecture: Option<Architecture>,
    /// `<target directory>/lambda-image`.
    pub store: PathBuf,
    /// No network for an image of a registry.
    pub offline: bool,
    /// Look at no record and no stored layer.
    pub no_cache: bool,
    /// How many threads compress layers that are not compressed.
    pub threads: usize,
    /// How hard.
    pub compression_level: u32,
    /// What the rules are for.
    pub checks: Checks,
    /// What it is judged by.
    pub options: Options,
}

/// Settles what `push` is asked to do.
///
/// # Errors
/// As [`super::build_request`], and what is missing or contradictory about where images go.
pub fn push_request(typed: &PushArgs, environment: &Environment, session: &Session) -> Result<PushRequest> {
    if typed.build.image.output.is_some() {
        return Err(Problem::usage("`--output` is not for `push`, which writes no image here")
            .help("write it with `cargo lambda-image build --output ...`"));
    }
    let args = push_over_environment(typed, environment, session)?;
    let dry_run = args.destination.dry_run;
    let wait = args.functions.wait.map(|wait| wait.0);
    if let Some(reference) = args.destination.image.clone() {
        let (existing, destination) = existing(reference, args, environment, session)?;
        refuse_idle(typed, std::slice::from_ref(&destination), session)?;
        return Ok(PushRequest {
            source: PushSource::Existing(existing),
            destinations: vec![destination],
            dry_run,
            wait,
        });
    }
    let project = project::find(&args.build, environment, session)?;
    let destinations = destinations(&project.selected, &args, session)?;
    refuse_idle(typed, &destinations, session)?;
    let build = settle(project, &args.build, environment)?;
    outputs::refuse_alike(&args.build.talk, &build.images)?;
    Ok(PushRequest { source: PushSource::Built(build), destinations, dry_run, wait })
}

/// Refuses what was typed in vain. What variables and keys say may be for other pushes.
fn refuse_idle(typed: &PushArgs, destinations: &[Destination], session: &Session) -> Result<()> {
    let asked: Vec<_> = destinations.iter().flat_map(|destination| &destination.functions).collect();
    refuse_idle_flags(&typed.functions, &asked)?;
    let elsewhere = |destination: &Destination| match &destination.repository {
        Repository::At { host, .. } if RegistryHost::parse(host).is_none() => Some(host.clone()),
        Repository::At { .. } | Repository::OfAccount(_) => None,
    };
    let all_elsewhere: Option<Vec<_>> = destinations.iter().map(elsewhere).collect();
    if let (true, Some([host, ..])) = (typed.destination.create_repository, all_elsewhere.as_deref()) {
        let message = format!("`--create-repository` is for Amazon ECR only, and `{host}` is another registry");
        session.warn(&message, Some("leave it out: others create repositories on the first push, or on their pages"));
    }
    Ok(())
}

fn destinations(selected: &[Selected], args: &PushArgs, session: &Session) -> Result<Vec<Destination>> {
    let PushArgs { build, destination: flags, functions: function_flags } = args;
    let (mut settled, mut functions) = (Vec::new(), Vec::new());
    for selected in selected {
        let bin = build.selection.name.as_deref().unwrap_or(&selected.bin);
        let names = Names { bin, package: &selected.package, version: selected.version.as_deref() };
        let destination = selected.settings.destination.clone().settle(flags, names)?;
        let asked = selected.settings.functions.clone();
        let asked = asked.settle(function_flags, names, &destination.repository, &selected.cargo_lambda, session)?;
        settled.push((bin.to_owned(), destination));
        functions.push((bin.to_owned(), asked));
    }
    refuse_collisions(&settled)?;
    refuse_shared(&functions)?;
    let all = settled.into_iter().zip(functions);
    Ok(all.map(|((_, destination), (_, functions))| Destination { functions, ..destination }).collect())
}

/// Where the blobs of each image may be, for `build` to fetch those whose files are not here; nowhere where no
/// repository is named.
///
/// # Errors
/// A repository or tag that is none once its placeholders are filled in.
pub(super) fn sources(
    selected: &[Selected],
    build: &BuildArgs,
    environment: &Environment,
) -> Result<Vec<Option<Destination>>> {
    if !build.image.assets_from_lock {
        return Ok(Vec::new());
    }
    let flags = DestinationArgs { tag: Vec::new(), no_digest_tag: false, ..destination_of_environment(environment)? };
    let source = |selected: &Selected| {
        let settings = selected.settings.destination.clone();
        if flags.repository.is_none() && !settings.names_repository() {
            return Ok(None);
        }
        let bin = build.selection.name.as_deref().unwrap_or(&selected.bin);
        let names = Names { bin, package: &selected.package, version: selected.version.as_deref() };
        settings.settle(&flags, names).map(Some)
    };
    selected.iter().map(source).collect()
}

/// An image that is there needs no project; where there is one, its tables count.
fn existing(
    reference: String,
    args: PushArgs,
    environment: &Environment,
    session: &Session,
) -> Result<(ExistingRequest, Destination)> {
    let PushArgs { mut build, destination: flags, functions: function_flags } = args;
    let said = build.selection.name.clone().or_else(|| build.selection.bin.first().cloned());
    let bin = match said {
        Some(name) => name,
        None => name_of(&reference).ok_or_else(|| {
            Problem::usage(format!("`{reference}` does not say what the image is called"))
                .help("name it with `--name NAME`")
        })?,
    };
    build.selection.no_binary = true;
    build.selection.bin.clear();
    build.selection.name = Some(bin.clone());
    let (store, destination, package, settings) = match project::find(&build, environment, session) {
        Ok(found) => {
            let selected = found.selected.into_iter().next();
            let (settings, package, version, cargo_lambda) = selected.map_or_else(Default::default, |selected| {
                (selected.settings, selected.package, selected.version, selected.cargo_lambda)
            });
            let names = Names { bin: &bin, package: &package, version: version.as_deref() };
            let destination = settings.destination.clone().settle(&flags, names)?;
            let repository = &destination.repository;
            let functions = settings.functions.clone();
            let functions = functions.settle(&function_flags, names, repository, &cargo_lambda, session)?;
            (found.target_directory, Destination { functions, ..destination }, package.clone(), settings)
        }
        // Without its tables there is still what was typed.
        Err(problem) if flags.repository.is_some() => {
            session.emit(&Event::Detail { message: &format!("no configuration is read: {problem}") });
            let names = Names { bin: &bin, package: &bin, version: None };
            let destination = DestinationSettings::default().settle(&flags, names)?;
            let (settings, other) = (FunctionSettings::default(), Function::default());
            let functions = settings.settle(&function_flags, names, &destination.repository, &other, session)?;
            let destination = Destination { functions, ..destination };
            (project::target_directory(&build, environment), destination, bin.clone(), Settings::default())
        }
        Err(problem) => return Err(problem),
    };
    let request = ExistingRequest {
        reference,
        directory: environment.directory.clone(),
        package,
        bin,
        architecture: compile::architecture(&build.compile),
        store: store.join("lambda-image"),
        offline: build.manifest.offline || build.manifest.frozen,
        no_cache: build.image.no_cache,
        threads: threads(build.compile.jobs, environment.parallelism),
        compression_level: build.image.compression_level.unwrap_or(DEFAULT_LEVEL),
        checks: checks(&build.check),
        options: settings.under_flags(&build.image, &build.check, &environment.directory).options()?,
    };
    Ok((request, destination))
}

/// What a reference calls its image: the name in a layout or archive, the last part of a repository, or the file's
/// name.
pub(super) fn name_of(reference: &str) -> Option<String> {
    let local = ["oci:", "oci-archive:", "docker-archive:"].iter().find_map(|scheme| reference.strip_prefix(scheme));
    let name = match local {
        Some(local) => match local.split_once(':') {
            Some((_, name)) if !name.is_empty() => last_part(name),
            _ => {
                let name = Path::new(local.trim_end_matches(':')).file_stem()?.to_str()?;
                // As `build --output` calls archives.
                name.strip_suffix(".oci").or_else(|| name.strip_suffix(".docker")).unwrap_or(name).to_owned()
            }
        },
        None => last_part(reference),
    };
    check::image_name(&name).is_ok().then_some(name)
}

/// `thumbnailer` of `ghcr.io/shop/thumbnailer:v1@sha256:...`.
fn last_part(reference: &str) -> String {
    let name = reference.split('@').next().unwrap_or(reference);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split(':').next().unwrap_or(last).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_called_as_its_reference_says() {
        for (reference, expected) in [
            ("oci:out:resize", Some("resize")),
            ("oci:target/lambda-image/layout:api", Some("api")),
            ("oci-archive:dist/resize.tar", Some("resize")),
            ("oci-archive:dist/resize.oci.tar", Some("resize")),
            ("docker-archive:target/lambda-image/resize.docker.tar", Some("resize")),
            ("oci-archive:.oci.tar", None),
            ("docker-archive:x.tar:shop/resize:v1", Some("resize")),
            ("ghcr.io/shop/resize:v1", Some("resize")),
            ("localhost:5000/resize", Some("resize")),
            ("scratch", Some("scratch")),
            ("oci:/", None),
        ] {
            assert_eq!(name_of(reference).as_deref(), expected, "{reference}");
        }
    }
}
