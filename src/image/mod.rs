//! An image: the base's config and layers with ours on top, as exact config and manifest bytes.
//!
//! Making one is pure: the same base, layers and settings give the same bytes everywhere. Writing it as a layout or an
//! archive is apart, and nothing here knows how layers are made or where a base comes from.

pub mod archive;
mod config;
mod files;
mod history;
mod index;
pub mod layout;
pub mod placement;
pub mod result;

use serde::Serialize;
use serde_json::Value;

use crate::layer::Layer;
use crate::oci::{Descriptor, Digest, media_type};
use crate::platform::Architecture;
use crate::problem::{Problem, Result};
use crate::units;
use placement::Placement;

/// Lambda asks for manifests below this many bytes (AWS guide, "Create a Lambda function using a container image").
const MAX_MANIFEST_BYTES: usize = 25_400;

/// The family of media types of a whole image, which is never a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaTypes {
    /// OCI's.
    Oci,
    /// Docker's schema 2.
    Docker,
}

impl MediaTypes {
    /// The media type of manifests.
    #[must_use]
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => media_type::OCI_MANIFEST,
            Self::Docker => media_type::DOCKER_MANIFEST,
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => media_type::OCI_CONFIG,
            Self::Docker => media_type::DOCKER_CONFIG,
        }
    }

    fn gzip_layer(self) -> &'static str {
        match self {
            Self::Oci => media_type::OCI_LAYER_GZIP,
            Self::Docker => media_type::DOCKER_LAYER_GZIP,
        }
    }
}

/// All that decides an image's bytes.
#[derive(Debug)]
pub struct ImageSpec<'a> {
    /// The base's config as JSON; anything but an object stands for `scratch`.
    pub base_config: &'a Value,
    /// What the image runs on.
    pub architecture: Architecture,
    /// All layers, the base's first.
    pub layers: &'a [Layer],
    /// What is started and with which variables, from [`placement::place`].
    pub placement: &'a Placement,
    /// Seconds since 1970 for `created`; without it 0, so that equal inputs give equal digests.
    pub created: Option<u64>,
    /// The family of media types.
    pub media_types: MediaTypes,
}

/// A finished image: exact bytes, and where its layers are by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What it runs on.
    pub architecture: Architecture,
    /// The config's bytes.
    pub config: Vec<u8>,
    /// What the manifest says of the config.
    pub config_descriptor: Descriptor,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The manifest's media type, digest and size.
    pub manifest_descriptor: Descriptor,
    /// The layers as the manifest lists them, the base's first; one digest may occur twice.
    pub layers: Vec<Descriptor>,
}

impl Image {
    /// The digest of the manifest, which names the image.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.manifest_descriptor.digest
    }

    /// Bytes of manifest, config and compressed layers.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(|layer| layer.size).sum();
        layers + self.config_descriptor.size + self.manifest_descriptor.size
    }
}

/// The fields of a manifest in the order they are written (image-spec, manifest.md).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    /// ECR has refused manifests without it.
    media_type: &'a str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
}

/// An image of a config that is there, byte for byte, and of these layers.
///
/// # Errors
/// As [`compose`], of the manifest.
pub fn wrap(config: Vec<u8>, architecture: Architecture, layers: &[Layer], media_types: MediaTypes) -> Result<Image> {
    let config_descriptor = describe(media_types.config(), &config);
    let layers = layers.iter().map(|layer| rename(layer, media_types)).collect::<Result<Vec<_>>>()?;
    let manifest =
        Manifest { schema_version: 2, media_type: media_types.manifest(), config: &config_descriptor, layers: &layers };
    let manifest = serde_json::to_vec(&manifest)
        .map_err(|error| Problem::failed("could not write the manifest").because(error))?;
    if manifest.len() > MAX_MANIFEST_BYTES {
        return Err(Problem::refused(format!(
            "the manifest of {} layers has {} bytes, and Lambda takes at most {MAX_MANIFEST_BYTES}",
            layers.len(),
            manifest.len(),
        ))
        .help("join assets in one directory, so that they share a layer, or take a base of fewer layers"));
    }
    let manifest_descriptor = describe(media_types.manifest(), &manifest);
    Ok(Image { architecture, config, config_descriptor, manifest, manifest_descriptor, layers })
}

/// Makes the image that `spec` describes.
///
/// # Errors
/// A problem of class refused when a setting or the manifest is past what Lambda takes, or when a layer is not gzip;
/// of class usage when `created` is no date.
pub fn compose(spec: &ImageSpec<'_>) -> Result<Image> {
    let config = config::compose(spec)?;
    wrap(config, spec.architecture, spec.layers, spec.media_types)
}

/// Seconds since 1970 as RFC 3339 in UTC: `1970-01-01T00:00:00Z`.
///
/// # Errors
/// Past the year 9999.
pub fn timestamp(seconds: u64) -> Result<String> {
    config::timestamp(seconds)
}

fn describe(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

/// The layer's descriptor under the family's name for the same bytes.
fn rename(layer: &Layer, media_types: MediaTypes) -> Result<Descriptor> {
    match layer.descriptor.media_type.as_str() {
        media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => {
            Ok(Descriptor { media_type: media_types.gzip_layer().to_owned(), ..layer.descriptor.clone() })
        }
        // Lambda refuses uncompressed layers, and nobody has seen it take zstd.
        other => Err(Problem::refused(format!(
            "layer `{}` ({}) has media type `{}`, and Lambda takes gzip only",
            layer.name,
            units::size(layer.descriptor.size),
            other.escape_debug()
        ))
        .help("convert the image: `skopeo copy --dest-compress-format gzip SOURCE oci:DIR`")),
    }
}
