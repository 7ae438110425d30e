//! Rules about the documents of an image: index, manifest, config, and what they say of one another.

use serde_json::Value;

use super::findings::{Findings, Place, shown};
use super::image::{Content, ImageFacts, LayerSource, ManifestFacts};
use super::rules;
use crate::oci::{DiffId, media_type};
use crate::platform::Architecture;

/// What AWS asks manifests to stay under.
const MANIFEST_BYTES: u64 = 25_400;
/// How many layers Docker stacks.
const MOST_LAYERS: usize = 127;
/// What ENTRYPOINT, CMD, WORKDIR and ENV may take together.
const SETTINGS_BYTES: usize = 16 * 1024;
/// What variables may take.
const ENVIRONMENT_BYTES: usize = 4 * 1024;

/// Whose media type it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Docker,
    Oci,
}

pub(super) fn check(image: &ImageFacts, findings: &mut Findings<'_>) {
    index(image, findings);
    if let Some(manifest) = &image.manifest {
        manifest_itself(image, manifest, findings);
    }
    if image.layers.len() > MOST_LAYERS {
        findings.add(rules::LAYERS, Place::IMAGE, format!("the image has {} layers", image.layers.len()));
    }
    for (number, layer) in image.layers.iter().enumerate() {
        layer_as_described(number, layer, findings);
    }
    platform(image, findings);
    settings(image, findings);
    history(image, findings);
    diff_ids(image, findings);
}

fn index(image: &ImageFacts, findings: &mut Findings<'_>) {
    let Some(index) = &image.index else { return };
    let of_one =
        image.digest().map(|digest| format!("; that of `{}` is {digest}", image.platform())).unwrap_or_default();
    if index.attestations > 0 && index.platforms.len() <= 1 {
        let message =
            format!("{} is an index of the image and {} of its attestations", index.digest, index.attestations);
        let help = format!("{}, or deploy the digest of the image itself{of_one}", rules::ATTESTATION.fix);
        findings.add_with_help(rules::ATTESTATION, Place::IMAGE, message, help);
    } else {
        let platforms = index.platforms.join("`, `");
        let message = format!("{} is an index of images for `{platforms}`", index.digest);
        findings.add_with_help(rules::INDEX, Place::IMAGE, message, format!("{}{of_one}", rules::INDEX.fix));
    }
}

fn manifest_itself(image: &ImageFacts, manifest: &ManifestFacts, findings: &mut Findings<'_>) {
    let own = manifest.media_type.as_deref().filter(|own| !own.is_empty());
    if own.is_none() {
        findings.add(rules::NO_MEDIA_TYPE, Place::IMAGE, "the manifest has no field `mediaType`");
    }
    let of_manifest = own.unwrap_or(&manifest.served_as);
    let known = |media_type: &str, docker: &str, oci: &str| match media_type {
        found if found == docker => Some(Family::Docker),
        found if found == oci => Some(Family::Oci),
        _ => None,
    };
    let mut families = Vec::new();
    for (what, found, family) in [
        ("manifest", of_manifest, known(of_manifest, media_type::DOCKER_MANIFEST, media_type::OCI_MANIFEST)),
        (
            "config",
            manifest.config_media_type.as_str(),
            known(&manifest.config_media_type, media_type::DOCKER_CONFIG, media_type::OCI_CONFIG),
        ),
    ] {
        match family {
            Some(family) => families.push(family),
            None => findings.add(rules::MEDIA_TYPE, Place::IMAGE, format!("the {what} is of type `{}`", shown(found))),
        }
    }
    families.extend(image.layers.iter().filter_map(|layer| family_of_layer(&layer.descriptor.as_ref()?.media_type)));
    if families.contains(&Family::Docker) && families.contains(&Family::Oci) {
        let message =
            format!("the manifest is of type `{}`, and its parts are not all of that family", shown(of_manifest));
        findings.add(rules::MIXED, Place::IMAGE, message);
    }
    if manifest.size_bytes > MANIFEST_BYTES {
        let (size, layers) = (manifest.size_bytes, image.layers.len());
        findings.add(rules::MANIFEST_SIZE, Place::IMAGE, format!("the manifest of {layers} layers has {size} bytes"));
    }
}

fn family_of_layer(media_type: &str) -> Option<Family> {
    if media_type.starts_with("application/vnd.docker.image.rootfs.") {
        Some(Family::Docker)
    } else if media_type.starts_with("application/vnd.oci.image.layer.") {
        Some(Family::Oci)
    } else {
        None
    }
}

fn layer_as_described(number: usize, layer: &LayerSource, findings: &mut Findings<'_>) {
    let place = || Place::layer(number);
    match &layer.content {
        Content::Damaged { why, help } => {
            let help = help.as_deref().unwrap_or(rules::DAMAGED.fix);
            findings.add_with_help(rules::DAMAGED, place(), why.clone(), help);
        }
        Content::Unread(why) => findings.not_checked(rules::DAMAGED, place(), why),
        Content::Read { .. } => {}
    }
    let Some(descriptor) = &layer.descriptor else { return };
    let media_type = descriptor.media_type.as_str();
    let is_foreign = media_type.contains("nondistributable") || media_type.contains("foreign");
    let message = format!("layer {} is of type `{}`", descriptor.digest, shown(media_type));
    match media_type {
        _ if is_foreign || layer.has_urls => {
            findings.add(rules::FOREIGN, place(), format!("layer {} lies elsewhere", descriptor.digest));
        }
        media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => {}
        media_type::DOCKER_LAYER_TAR => findings.add(rules::PLAIN_DOCKER, place(), message),
        media_type::OCI_LAYER_TAR => findings.add(rules::PLAIN_OCI, place(), message),
        _ if media_type.contains("zstd") => findings.add(rules::ZSTD, place(), message),
        _ => findings.add(rules::MEDIA_TYPE, place(), message),
    }
}

fn platform(image: &ImageFacts, findings: &mut Findings<'_>) {
    if image.word("os") != "linux" || Architecture::from_oci(image.word("architecture")).is_none() {
        let message = match (image.word("os"), image.word("architecture")) {
            ("", "") => "the config says no platform".to_owned(),
            _ => format!("the config says `{}`", shown(&image.platform())),
        };
        findings.add(rules::PLATFORM, Place::IMAGE, message);
    }
}

fn settings(image: &ImageFacts, findings: &mut Findings<'_>) {
    let environment: usize = image.variables().iter().map(|(name, value)| name.len() + value.len()).sum();
    if environment > ENVIRONMENT_BYTES {
        findings.add(rules::ENVIRONMENT, Place::IMAGE, format!("the variables of ENV have {environment} bytes"));
    }
    let Some(config) = image.config.get("config") else { return };
    let honoured = ["Entrypoint", "Cmd", "WorkingDir", "Env"].iter().filter_map(|key| config.get(key));
    let size: usize = honoured.filter(|value| !value.is_null()).map(|value| value.to_string().len()).sum();
    if size > SETTINGS_BYTES {
        let message = format!("ENTRYPOINT, CMD, WORKDIR and ENV have {size} bytes");
        findings.add(rules::SETTINGS, Place::IMAGE, message);
    }
}

fn history(image: &ImageFacts, findings: &mut Findings<'_>) {
    // AWS's own bases have none, which nobody minds.
    let Some(history) = image.config.get("history").and_then(Value::as_array).filter(|history| !history.is_empty())
    else {
        return;
    };
    let is_empty = |entry: &&Value| entry.get("empty_layer").and_then(Value::as_bool) == Some(true);
    let counted = history.len() - history.iter().filter(is_empty).count();
    if counted != image.layers.len() {
        let message = format!("the history tells of {counted} layers, and there are {}", image.layers.len());
        findings.add(rules::HISTORY, Place::IMAGE, message);
    }
}

fn diff_ids(image: &ImageFacts, findings: &mut Findings<'_>) {
    // Before the layers are made there is nothing to compare.
    let Some(listed) = image.config.pointer("/rootfs/diff_ids") else {
        if image.manifest.is_some() {
            findings.add(rules::DIFF_IDS, Place::IMAGE, "the config has no `rootfs.diff_ids`");
        }
        return;
    };
    let Ok(listed) = serde_json::from_value::<Vec<DiffId>>(listed.clone()) else {
        findings.add(rules::DIFF_IDS, Place::IMAGE, "`rootfs.diff_ids` of the config is no list of digests");
        return;
    };
    if listed.len() != image.layers.len() {
        let message =
            format!("the config lists {} diff-ids, and there are {} layers", listed.len(), image.layers.len());
        findings.add(rules::DIFF_IDS, Place::IMAGE, message);
        return;
    }
    for (number, (layer, listed)) in image.layers.iter().zip(listed).enumerate() {
        if let Content::Read { diff_id: Some(found), .. } = &layer.content
            && *found != listed
        {
            let message = format!("the tar is {found}, and the config says {listed}");
            findings.add(rules::DIFF_IDS, Place::layer(number), message);
        }
    }
}
