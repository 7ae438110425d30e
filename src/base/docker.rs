//! What `docker save` and `podman save` write: a `manifest.json` that names configs and layers by member.
//!
//! Old archives hold plain tars, newer ones a layout beside it, some link equal layers to one another. So layers are
//! told by their first bytes, and verified by the config's diff-ids in any case.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use serde::Deserialize;

use super::document;
use super::files::{Files, ZSTD_MAGIC};
use super::reference::LocalReference;
use super::remote::MAX_CONFIG;
use super::{BaseLayer, Compression, Documents, Image, Source};
use crate::event::Session;
use crate::layer::gunzip;
use crate::oci::{Descriptor, DiffId, Digest, HashingWriter, media_type, reference};
use crate::platform::Architecture;
use crate::problem::{IoContext as _, Problem, Result};
use crate::registry::pull::MAX_MANIFEST;

/// One image of `manifest.json` (moby, `image/spec/v1.2.md`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The way on where it is not clear which image is meant.
const NAME_ONE: &str = "name one of them behind the file: `docker-archive:FILE:NAME`";

/// Finds the image that `local` names in a saved archive.
pub(super) fn resolve(
    files: Files,
    local: &LocalReference,
    architecture: Architecture,
    what: &str,
    session: &Session,
) -> Result<Image> {
    let (config_bytes, members) = documents(&files, local, what)?;
    let config = document::parse_config(&config_bytes, architecture, what)?;
    let diff_ids = document::diff_ids(&config, what)?;
    if members.len() != diff_ids.len() {
        let (has, lists) = (members.len(), diff_ids.len());
        return Err(
            Problem::failed(format!("{what} has {has} layers, and its config lists {lists}")).help(document::REMAKE)
        );
    }
    let pairs = members.iter().zip(diff_ids);
    let layers = pairs.map(|(member, diff_id)| layer(&files, member, diff_id, what, session)).collect::<Result<_>>()?;
    let documents = Documents { config: config_bytes, manifest: None };
    Ok(Image { digest: None, config, layers, documents, source: Source::Local(Arc::new(files)) })
}

/// The config of the image that `local` names, and the names of its layers.
///
/// # Errors
/// When it is no such archive, or holds no such image.
pub(super) fn documents(files: &Files, local: &LocalReference, what: &str) -> Result<(Vec<u8>, Vec<String>)> {
    if !files.has("manifest.json") {
        let help = if files.has("oci-layout") {
            "a tar of an OCI layout is written `oci-archive:FILE`"
        } else {
            "`docker save --output FILE NAME` writes one"
        };
        return Err(files.cut_short().unwrap_or_else(|| {
            Problem::usage(format!("`{}` is not what `docker save` writes", local.path.display()))
                .because("it has no member `manifest.json`")
                .help(help)
        }));
    }
    let manifest = files.small("manifest.json", MAX_MANIFEST)?;
    let images: Vec<Saved> = serde_json::from_slice(&manifest)
        .map_err(|error| Problem::failed(format!("`manifest.json` of {what} is malformed")).because(error))
        .map_err(|problem| problem.help(document::REMAKE))?;
    let image = pick(&images, local, what)?;
    let config_bytes = files.small(&image.config, MAX_CONFIG)?;
    if let Some(expected) = named_digest(&image.config)
        && expected != Digest::of(&config_bytes)
    {
        let found = Digest::of(&config_bytes);
        let message = format!("the config of {what} is damaged: expected {expected}, found {found}");
        return Err(Problem::failed(message).help(document::REMAKE));
    }
    let layers = image.layers.clone().unwrap_or_default();
    document::refuse_layers(layers.len(), what)?;
    Ok((config_bytes, layers))
}

fn pick<'a>(images: &'a [Saved], local: &LocalReference, what: &str) -> Result<&'a Saved> {
    let names: BTreeSet<_> = images.iter().flat_map(|image| image.repo_tags.iter().flatten()).collect();
    let names: Vec<_> = names.into_iter().map(String::as_str).collect();
    let there = if names.is_empty() {
        "its images have no names".to_owned()
    } else {
        format!("there are `{}`", names.join("`, `"))
    };
    match &local.name {
        Some(wanted) => {
            let is_meant = |name: &String| same_name(name, wanted);
            images
                .iter()
                .find(|image| image.repo_tags.iter().flatten().any(is_meant))
                .ok_or_else(|| Problem::usage(format!("{what} is not in the archive: {there}")).help(NAME_ONE))
        }
        None => match images {
            [one] => Ok(one),
            [] => Err(Problem::usage(format!("{what} is an empty archive"))
                .help("`docker save --output FILE NAME` puts an image into one")),
            _ => Err(Problem::usage(format!("{what} is not one image: {there}")).help(NAME_ONE)),
        },
    }
}

/// Whether two names are one image's: Docker leaves out what is its default, podman does not.
fn same_name(one: &str, other: &str) -> bool {
    let full = |name: &str| reference(name).map(|reference| reference.to_string());
    one == other || matches!((full(one), full(other)), (Ok(one), Ok(other)) if one == other)
}

/// The digest a member's name claims: `blobs/sha256/HEX` or `HEX.json`.
fn named_digest(member: &str) -> Option<Digest> {
    let last = member.rsplit('/').next()?;
    format!("sha256:{}", last.strip_suffix(".json").unwrap_or(last)).parse().ok()
}

fn layer(files: &Files, member: &str, diff_id: DiffId, what: &str, session: &Session) -> Result<BaseLayer> {
    let (mut reader, size) = files.open(member)?;
    let mut magic = Vec::new();
    let failed = || format!("could not read layer `{member}` of {what}");
    reader.by_ref().take(4).read_to_end(&mut magic).or_failed(failed)?;
    if magic == ZSTD_MAGIC {
        return Err(document::zstd(&format!("layer `{member}` of {what} is compressed with zstd")));
    }
    let (compression, media_type, digest) = if magic.starts_with(&gunzip::MAGIC) {
        // A digest in the name is verified when the bytes are taken; without one they are read here to know it.
        let digest = match named_digest(member) {
            Some(digest) => digest,
            None => hash(files, member, session).map_err(|problem| problem.context(failed()))?,
        };
        (Compression::Gzip, media_type::DOCKER_LAYER_GZIP, digest)
    } else {
        (Compression::None, media_type::DOCKER_LAYER_TAR, diff_id.0)
    };
    let descriptor = Descriptor { media_type: media_type.to_owned(), digest, size };
    Ok(BaseLayer { descriptor, diff_id, compression, path: Some(member.to_owned()) })
}

fn hash(files: &Files, member: &str, session: &Session) -> Result<Digest> {
    let (mut reader, _) = files.open(member)?;
    let mut hasher = HashingWriter::new(std::io::sink());
    let mut part = 1;
    while part > 0 {
        session.check()?;
        part = std::io::copy(&mut reader.by_ref().take(16 * 1024 * 1024), &mut hasher)
            .or_failed(|| format!("could not read `{member}`"))?;
    }
    Ok(hasher.finish().1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_docker_means_them() {
        for (one, other, same) in [
            ("base:1", "base:1", true),
            ("base:latest", "base", true),
            ("docker.io/library/base:1", "base:1", true),
            ("localhost/base:1", "base:1", false),
            ("base:1", "base:2", false),
        ] {
            assert_eq!(same_name(one, other), same, "{one} {other}");
        }
    }

    #[test]
    fn a_members_name_may_claim_a_digest() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (member, claims) in [
            (format!("{hex}.json"), true),
            (format!("blobs/sha256/{hex}"), true),
            (format!("{hex}/layer.tar"), false),
            ("config.json".to_owned(), false),
        ] {
            assert_eq!(named_digest(&member), claims.then(|| Digest::of(b"")), "{member}");
        }
    }
}
