//! The documents of an image that is to be checked: found, verified, and read with as little judgement as can be.
//!
//! Where a base's documents are refused, here they are facts. Only what leaves nothing to judge is refused.

use std::sync::Arc;

use super::Login;
use super::docker;
use super::document::{self, Entry, Raw, too_deep};
use super::files::{self, Files};
use super::local;
use super::reference::{BaseReference, LocalReference};
use super::remote::{MAX_CONFIG, MAX_DEPTH};
use crate::check::image::IndexFacts;
use crate::event::Session;
use crate::oci::{Descriptor, Digest, Reference};
use crate::platform::Architecture;
use crate::problem::{Exit, Problem, Result};
use crate::registry::origin::Origin;
use crate::registry::pull::{MAX_MANIFEST, Selector};
use crate::registry::{Client, Patience};

/// The annotation by which BuildKit marks attestations.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// The documents of an image, and where its layers are.
pub(super) struct Found {
    pub(super) index: Option<IndexFacts>,
    pub(super) manifest: Option<Manifest>,
    pub(super) config: Vec<u8>,
    pub(super) layers: Vec<Described>,
    pub(super) place: Place,
}

/// Where the layers are.
#[derive(Clone)]
pub(super) enum Place {
    Files(Arc<Files>),
    Registry { client: Arc<Client>, repository: String },
}

/// A manifest as it came, and what it says of itself.
pub(super) struct Manifest {
    pub(super) bytes: Vec<u8>,
    pub(super) served_as: String,
    pub(super) media_type: Option<String>,
    pub(super) config_media_type: String,
}

/// A layer as it is described.
#[derive(Debug, Clone)]
pub(super) struct Described {
    /// Absent without a manifest.
    pub(super) descriptor: Option<Descriptor>,
    pub(super) has_urls: bool,
    /// The name of its bytes in a layout or an archive.
    pub(super) path: String,
}

fn is_attestation(entry: &Entry) -> bool {
    let is_unknown = entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
    is_unknown || entry.annotation(REFERENCE_TYPE) == Some("attestation-manifest")
}

fn runs_on(entry: &Entry, architecture: Architecture) -> bool {
    let platform = entry.platform.as_ref();
    platform.is_some_and(|platform| platform.os == "linux" && platform.architecture == architecture.oci())
}

/// A document with what the place it came from calls it.
struct Document {
    digest: Digest,
    served_as: String,
    bytes: Vec<u8>,
    raw: Raw,
}

fn parse(bytes: Vec<u8>, served_as: String, what: &str) -> Result<Document> {
    let raw: Raw = serde_json::from_slice(&bytes).map_err(|error| {
        Problem::refused(format!("{what} is no manifest that could be judged"))
            .because(error)
            .help("Lambda takes Docker's schema 2 and OCI's image manifest, with SHA-256 digests")
    })?;
    Ok(Document { digest: Digest::of(&bytes), served_as, bytes, raw })
}

/// What a document leads to.
enum Step {
    /// To the manifest of one image of an index.
    Down(Descriptor, IndexFacts),
    Image(Manifest, Descriptor, Vec<Described>),
}

fn step(document: Document, architecture: Option<Architecture>, what: &str) -> Result<Step> {
    let Document { digest, served_as, bytes, raw } = document;
    match raw {
        Raw { manifests: Some(entries), .. } => {
            let chosen = choose(&entries, architecture, what)?.descriptor();
            let (attestations, images): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| is_attestation(entry));
            let platform = |entry: &&Entry| {
                let platform = entry.platform.as_ref();
                platform.map_or_else(|| "any".to_owned(), |it| format!("{}/{}", it.os, it.architecture))
            };
            let platforms = images.iter().map(platform).collect();
            Ok(Step::Down(chosen, IndexFacts { digest, platforms, attestations: attestations.len() }))
        }
        Raw { config: Some(config), layers: Some(layers), media_type, .. } => {
            document::refuse_layers(layers.len(), what)?;
            let config = config.descriptor();
            let config_media_type = config.media_type.clone();
            let layers = layers.iter().map(|entry| Described {
                descriptor: Some(entry.descriptor()),
                has_urls: entry.urls.as_ref().is_some_and(|urls| !urls.is_empty()),
                path: files::blob_name(&entry.digest),
            });
            let layers = layers.collect();
            Ok(Step::Image(Manifest { bytes, served_as, media_type, config_media_type }, config, layers))
        }
        _ => Err(Problem::refused(format!("{what} is neither a manifest nor an index"))
            .help("push the image anew, or `skopeo copy --format oci` it")),
    }
}

/// The image that is meant: for the platform asked for, else x86-64's, else the first there is.
fn choose<'a>(entries: &'a [Entry], asked: Option<Architecture>, what: &str) -> Result<&'a Entry> {
    let images = || entries.iter().filter(|entry| !is_attestation(entry));
    let of = |architecture| images().find(move |entry| runs_on(entry, architecture));
    let chosen = match asked {
        Some(architecture) => of(architecture),
        None => of(Architecture::Amd64).or_else(|| of(Architecture::Arm64)).or_else(|| images().next()),
    };
    chosen.ok_or_else(|| {
        let wanted = asked.map(|asked| format!(" for `{}`", asked.platform())).unwrap_or_default();
        Problem::refused(format!("{what} has no image{wanted}")).help("name another, or leave out the platform")
    })
}

/// Reads documents as those of a base and as those of an image to be checked are read, and drops what they say.
///
/// For the fuzzer, which has no image around them.
#[doc(hidden)]
pub fn read_documents(manifest: &[u8], config: &[u8]) {
    const WHAT: &str = "the input";
    for architecture in [Architecture::Amd64, Architecture::Arm64] {
        let config = document::parse_config(config, architecture, WHAT);
        match document::parse(manifest, "", WHAT) {
            Ok(document::Document::Index(entries)) => drop(document::choose(&entries, architecture, WHAT)),
            Ok(document::Document::Manifest(manifest)) => {
                drop(config.and_then(|config| document::layers(&manifest, &config, WHAT)));
            }
            Err(_) => {}
        }
        drop(parse(manifest.to_vec(), String::new(), WHAT).and_then(|read| step(read, Some(architecture), WHAT)));
    }
    drop(document::json_config(config, WHAT));
}

/// An image of a layout or an archive. Blocking.
pub(super) fn in_files(reference: &BaseReference, architecture: Option<Architecture>) -> Result<Found> {
    let what = format!("`{reference}`");
    match reference {
        BaseReference::OciDir(local) => in_layout(Files::directory(&local.path)?, local, architecture, &what),
        BaseReference::OciArchive(local) => in_layout(Files::archive(&local.path)?, local, architecture, &what),
        BaseReference::DockerArchive(local) => {
            let files = Files::archive(&local.path)?;
            let (config, members) = docker::documents(&files, local, &what)?;
            let layers = members.into_iter().map(|path| Described { descriptor: None, has_urls: false, path });
            let layers = layers.collect();
            Ok(Found { index: None, manifest: None, config, layers, place: Place::Files(Arc::new(files)) })
        }
        BaseReference::Scratch | BaseReference::Registry(_) => {
            Err(Problem::failed(format!("{what} is not a file or directory")))
        }
    }
}

fn in_layout(files: Files, local: &LocalReference, architecture: Option<Architecture>, what: &str) -> Result<Found> {
    let top = parse(local::index_of(&files, local)?, String::new(), what)?;
    let entries = top.raw.manifests.unwrap_or_default();
    let mut wanted = pick(&entries, local, architecture, what)?.descriptor();
    let mut index = None;
    for _ in 0..MAX_DEPTH {
        let bytes = files.blob(&wanted, MAX_MANIFEST)?;
        match step(parse(bytes, wanted.media_type.clone(), what)?, architecture, what)? {
            Step::Down(chosen, of) => {
                index = index.or(Some(of));
                wanted = chosen;
            }
            Step::Image(manifest, config, layers) => {
                let config = files.blob(&config, MAX_CONFIG)?;
                let place = Place::Files(Arc::new(files));
                return Ok(Found { index, manifest: Some(manifest), config, layers, place });
            }
        }
    }
    Err(too_deep(Exit::Refused, what))
}

/// The way on where it is not clear which image of a layout is meant.
const NAME_ONE: &str = "name one of them behind the path, as in `oci:DIR:NAME`";

/// The entry of a layout's index that is meant: by name, the only one, or one of several platforms.
fn pick<'a>(
    entries: &'a [Entry],
    local: &LocalReference,
    architecture: Option<Architecture>,
    what: &str,
) -> Result<&'a Entry> {
    let names: Vec<_> = entries.iter().filter_map(|entry| entry.name()).collect();
    let there = || match names.first() {
        Some(_) => format!("there are `{}`", names.join("`, `")),
        None => "its images have no names".to_owned(),
    };
    match &local.name {
        Some(wanted) => {
            let named = entries.iter().find(|entry| entry.name() == Some(wanted));
            named.ok_or_else(|| {
                Problem::usage(format!("{what} is not in the layout: {}", there())).help(match names.is_empty() {
                    true => local::UNNAMED,
                    false => NAME_ONE,
                })
            })
        }
        None => match entries {
            [] => Err(Problem::usage(format!("{what} is an empty layout")).help(local::FILL)),
            [one] => Ok(one),
            _ if names.is_empty() => choose(entries, architecture, what),
            _ => Err(Problem::usage(format!("{what} is not one image: {}", there())).help(NAME_ONE)),
        },
    }
}

/// An image of a registry.
pub(super) async fn in_registry(
    reference: &Reference,
    architecture: Option<Architecture>,
    login: Login<'_>,
    session: &Session,
) -> Result<Found> {
    let what = format!("`{reference}`");
    let origin = Origin::of(reference)?;
    let credentials = login(origin.name());
    let client = Arc::new(Client::new(origin, credentials, Patience::default(), session));
    let repository = reference.repository().to_owned();
    let mut selector = match reference.digest() {
        Some(digest) => Selector::Digest(digest.parse().map_err(|error: crate::oci::InvalidDigest| {
            Problem::usage(format!("{what} is malformed")).because(error)
        })?),
        None => Selector::Tag(reference.tag().unwrap_or("latest").to_owned()),
    };
    let mut index = None;
    for _ in 0..MAX_DEPTH {
        let document = client.manifest(&repository, &selector).await?;
        let document = parse(document.bytes.to_vec(), document.media_type, &what)?;
        match step(document, architecture, &what)? {
            Step::Down(chosen, of) => {
                index = index.or(Some(of));
                selector = Selector::Digest(chosen.digest);
            }
            Step::Image(manifest, config, layers) => {
                let config = client.small_blob(&repository, &config, MAX_CONFIG).await?;
                let place = Place::Registry { client, repository };
                return Ok(Found { index, manifest: Some(manifest), config, layers, place });
            }
        }
    }
    Err(too_deep(Exit::Refused, &what))
}
