//! Base images on disk: OCI layouts in directories and tars; `docker` knows what `docker save` writes.

use std::sync::Arc;

use serde::Deserialize;

use super::document::{self, Document, Entry};
use super::files::{Files, blob_name};
use super::reference::{BaseReference, LocalReference};
use super::remote::{MAX_CONFIG, MAX_DEPTH};
use super::{Documents, Holder, Image, Source, docker};
use crate::event::Session;
use crate::platform::Architecture;
use crate::problem::{Exit, Problem, Result};
use crate::registry::pull::MAX_MANIFEST;

/// Finds the image that `reference` names. Blocking.
///
/// # Errors
/// When there is no such file, directory or image, or it is not usable.
pub(super) fn resolve(
    reference: &BaseReference,
    architecture: Architecture,
    holder: Holder,
    session: &Session,
) -> Result<Image> {
    let what = format!("{} `{reference}`", holder.words().0);
    match reference {
        BaseReference::OciDir(local) => layout(Files::directory(&local.path)?, local, architecture, &what),
        BaseReference::OciArchive(local) => layout(Files::archive(&local.path)?, local, architecture, &what),
        BaseReference::DockerArchive(local) => {
            docker::resolve(Files::archive(&local.path)?, local, architecture, &what, session)
        }
        BaseReference::Scratch | BaseReference::Registry(_) => {
            Err(Problem::failed(format!("{what} is not a file or directory")))
        }
    }
}

/// The `index.json` of an OCI layout (image-spec, image-layout.md).
///
/// # Errors
/// When it is no layout.
pub(super) fn index_of(files: &Files, local: &LocalReference) -> Result<Vec<u8>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        image_layout_version: String,
    }
    if !files.has("oci-layout") {
        return Err(files.cut_short().unwrap_or_else(|| {
            let problem = not_a_layout(local, "it has no file `oci-layout`");
            match files.is_archive() {
                true if files.has("manifest.json") => {
                    problem.help("an archive of `docker save` is written `docker-archive:FILE`")
                }
                true => problem.help("`skopeo copy SOURCE oci-archive:FILE` makes a tar of one"),
                false => problem,
            }
        }));
    }
    let version: Version = serde_json::from_slice(&files.small("oci-layout", MAX_MANIFEST)?)
        .map_err(|_| not_a_layout(local, "`oci-layout` is not JSON"))?;
    if !version.image_layout_version.starts_with("1.") {
        return Err(not_a_layout(local, &format!("its version is `{}`", version.image_layout_version.escape_debug())));
    }
    files.small("index.json", MAX_MANIFEST)
}

fn not_a_layout(local: &LocalReference, why: &str) -> Problem {
    Problem::usage(format!("`{}` is not an OCI image layout: {why}", local.path.display()))
        .help("`skopeo copy SOURCE oci:DIR` makes one")
}

/// The image of an OCI layout.
fn layout(files: Files, local: &LocalReference, architecture: Architecture, what: &str) -> Result<Image> {
    let index = index_of(&files, local)?;
    let Document::Index(entries) = document::parse(&index, "", what)? else {
        return Err(not_a_layout(local, "`index.json` is not an index"));
    };
    let mut chosen = pick(&entries, local, architecture, what)?.descriptor();
    for _ in 0..MAX_DEPTH {
        let bytes = files.blob(&chosen, MAX_MANIFEST)?;
        match document::parse(&bytes, &chosen.media_type, what)? {
            Document::Index(entries) => chosen = document::choose(&entries, architecture, what)?.descriptor(),
            Document::Manifest(manifest) => {
                let config_bytes = files.blob(&manifest.config, MAX_CONFIG)?;
                let config = document::parse_config(&config_bytes, architecture, what)?;
                let mut layers = document::layers(&manifest, &config, what)?;
                for layer in &mut layers {
                    layer.path = Some(blob_name(&layer.descriptor.digest));
                }
                return Ok(Image {
                    digest: Some(chosen.digest),
                    config,
                    layers,
                    documents: Documents { config: config_bytes, manifest: Some((chosen.media_type, bytes)) },
                    source: Source::Local(Arc::new(files)),
                });
            }
        }
    }
    Err(document::too_deep(Exit::Failed, what))
}

/// The entry of a layout's index that is meant: by name, the only one, or the only one for the platform.
fn pick<'a>(entries: &'a [Entry], local: &LocalReference, architecture: Architecture, what: &str) -> Result<&'a Entry> {
    let names: Vec<_> = entries.iter().filter_map(Entry::name).collect();
    let there = if names.is_empty() {
        "its images have no names".to_owned()
    } else {
        format!("there are `{}`", names.join("`, `"))
    };
    let example = names.first().map(|name| format!("name one of them behind the path, as in `:{name}`"));
    let or_help = |problem: Problem| problem.help(example.as_deref().unwrap_or(UNNAMED));
    if let Some(wanted) = &local.name {
        let named: Vec<_> = entries.iter().filter(|entry| entry.name() == Some(wanted)).collect();
        return match named[..] {
            [one] => Ok(one),
            [] => Err(or_help(Problem::usage(format!("{what} is not in the layout: {there}")))),
            _ => Err(Problem::usage(format!("{what} is not one image: the layout has several of the name `{wanted}`"))
                .help("copy the one that is meant to a layout of its own: `skopeo copy SOURCE oci:DIR`")),
        };
    }
    match entries {
        [one] => Ok(one),
        [] => Err(Problem::usage(format!("{what} is an empty layout")).help(FILL)),
        _ if names.is_empty() => document::choose(entries, architecture, what),
        _ => Err(or_help(Problem::usage(format!("{what} is not one image: {there}")))),
    }
}

/// The way on where images of a layout have no names to choose by.
pub(super) const UNNAMED: &str = "leave out the name: the image for the platform is taken";

/// The way on from a layout without images.
pub(super) const FILL: &str = "`skopeo copy SOURCE oci:DIR:NAME` puts an image into it";
