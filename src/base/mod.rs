//! Brings a base image in: finds it, checks it, and puts its layers into the store.
//!
//! - [`mod@reference`]: what the user may write;
//! - `document`: manifests, indexes and configs, strictly read;
//! - `remote`: images of registries;
//! - `local`: layouts and archives, `docker`: what `docker save` writes;
//! - `fetch`: layers into the store, verified, each looked through once; `flow`: their bytes on the way;
//! - `inspect`: an image of anybody's for the checks, by documents that `found` reads without judging;
//! - `relay`: layers from where they are straight to whoever takes them.
//!
//! Resolving reads small documents only, so that everything else can be checked before bytes move.

mod docker;
mod document;
mod fetch;
mod files;
mod flow;
mod found;
mod inspect;
mod local;
pub mod reference;
mod relay;
mod remote;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use self::files::Files;
use self::reference::BaseReference;
use crate::event::{Event, Session};
use crate::layer::Layer;
use crate::oci::{Descriptor, DiffId, Digest};
use crate::platform::Architecture;
use crate::problem::{Problem, Result};
use crate::registry::Client;
use crate::registry::credentials::CredentialSource;
use crate::store::Store;

pub use self::fetch::{look, pull};
#[doc(hidden)]
pub use self::found::read_documents;
pub use self::inspect::{InspectRequest, inspect};

/// Which base image is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseRequest {
    /// As the user wrote it.
    pub reference: String,
    /// Where relative paths in it start.
    pub directory: PathBuf,
    /// The architecture of the image to be built.
    pub architecture: Architecture,
    /// The digest of the platform's manifest, where the lock says it: what the tag means now is not asked then.
    pub pinned: Option<Digest>,
    /// No network.
    pub offline: bool,
    /// Look at no record and no stored layer.
    pub no_cache: bool,
    /// What it is to be, for messages.
    pub holder: Holder,
}

/// A base image, resolved to one platform.
#[derive(Debug, Clone)]
pub struct Base {
    /// The reference in full, for people.
    pub shown: String,
    /// The digest of the platform's manifest; absent where there is none (`scratch`, `docker-archive:`).
    pub digest: Option<Digest>,
    /// The architecture it runs on.
    pub architecture: Architecture,
    /// The image config as it came, unknown fields included.
    pub config: Value,
    /// Its layers, lowest first.
    pub layers: Vec<BaseLayer>,
    /// Its documents as they came.
    pub documents: Documents,
    source: Source,
    holder: Holder,
    offline: bool,
    no_cache: bool,
}

/// What holds the layers, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// An image for others to stand on.
    BaseImage,
    /// An image that stays as it is.
    Image,
    /// A repository, of which no image is meant.
    Repository,
}

/// A layer of a base image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseLayer {
    /// The bytes as they lie at the source, under the source's media type.
    pub descriptor: Descriptor,
    /// The digest of the tar, as the config has it.
    pub diff_id: DiffId,
    /// How the bytes are compressed.
    pub compression: Compression,
    /// The member or file of a local source that holds the bytes.
    path: Option<String>,
}

/// An image's documents, byte for byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Documents {
    /// The config.
    pub config: Vec<u8>,
    /// The manifest and its media type; absent where there is none (`scratch`, `docker-archive:`).
    pub manifest: Option<(String, Vec<u8>)>,
}

/// How a layer is compressed at its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// With gzip: the bytes pass through as they are.
    Gzip,
    /// Not at all: it has to be packed.
    None,
}

/// Where the bytes of a base's layers are.
#[derive(Debug, Clone)]
enum Source {
    /// There are none.
    Scratch,
    /// In a repository of a registry.
    Registry { client: Arc<Client>, repository: String },
    /// In a directory or an archive.
    Local(Arc<Files>),
}

/// What every kind of source finds out.
#[derive(Debug)]
struct Image {
    digest: Option<Digest>,
    config: Value,
    layers: Vec<BaseLayer>,
    documents: Documents,
    source: Source,
}

/// What proves who we are to a registry, given its name.
pub type Login<'a> = &'a (dyn Fn(&str) -> CredentialSource + Send + Sync);

/// Finds the base image for the platform asked for and checks all that can be checked without its layers.
///
/// # Errors
/// When the reference is malformed (a usage problem), when the image is not to be had, or not usable.
pub async fn resolve(request: &BaseRequest, login: Login<'_>, store: &Arc<Store>, session: &Session) -> Result<Base> {
    let reference = BaseReference::parse(&request.reference, &request.directory)?;
    let shown = reference.to_string();
    session.emit(&Event::BaseResolving { reference: &shown });
    let image = match &reference {
        BaseReference::Scratch => scratch(request.architecture),
        BaseReference::Registry(reference) => remote::resolve(reference, request, login, store, session).await?,
        _ => {
            let (architecture, holder, session) = (request.architecture, request.holder, session.clone());
            let resolve = move || local::resolve(&reference, architecture, holder, &session);
            let found = tokio::task::spawn_blocking(resolve).await;
            found.map_err(|error| Problem::failed("reading the image failed").because(error))??
        }
    };
    let Image { digest, config, layers, documents, source } = image;
    Ok(Base {
        shown,
        digest,
        architecture: request.architecture,
        config,
        layers,
        documents,
        source,
        holder: request.holder,
        offline: request.offline,
        no_cache: request.no_cache,
    })
}

impl Base {
    /// Whether any of its layers is not compressed, so that it is packed into the store before it goes anywhere.
    #[must_use]
    pub fn is_packed_here(&self) -> bool {
        self.layers.iter().any(|layer| layer.compression == Compression::None)
    }

    /// Blobs of a repository that make no image: gzip layers with their diff-ids, to be pulled as a base's are.
    #[must_use]
    pub fn of_blobs(
        client: Arc<Client>,
        repository: String,
        shown: String,
        architecture: Architecture,
        blobs: Vec<(Descriptor, DiffId)>,
    ) -> Self {
        let layer =
            |(descriptor, diff_id)| BaseLayer { descriptor, diff_id, compression: Compression::Gzip, path: None };
        Self {
            shown,
            digest: None,
            architecture,
            config: Value::Null,
            layers: blobs.into_iter().map(layer).collect(),
            documents: Documents::default(),
            source: Source::Registry { client, repository },
            holder: Holder::Repository,
            offline: false,
            no_cache: false,
        }
    }

    /// The layers as they lie at their source, where the sizes of their tars are known and nobody needs to look into
    /// them. `None` where a layer has to be packed first, or the sizes are not as many.
    #[must_use]
    pub fn layers_of_sizes(&self, uncompressed_sizes: &[u64], store: &Store) -> Option<Vec<Layer>> {
        if uncompressed_sizes.len() != self.layers.len() {
            return None;
        }
        let layer = |(layer, size): (&BaseLayer, &u64)| {
            (layer.compression == Compression::Gzip).then(|| fetch::gzip(layer, *size, false, store))
        };
        self.layers.iter().zip(uncompressed_sizes).map(layer).collect()
    }
}

impl Holder {
    /// What it is called, and what its layers are.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::BaseImage => ("base image", "base layer"),
            Self::Image => ("image", "layer"),
            Self::Repository => ("repository", "layer"),
        }
    }
}

fn scratch(architecture: Architecture) -> Image {
    let config = json!({
        "architecture": architecture.oci(),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [],
    });
    Image { digest: None, config, layers: Vec::new(), documents: Documents::default(), source: Source::Scratch }
}
