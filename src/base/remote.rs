//! A base image of a registry: its tag becomes a digest, and its manifest and config are read once.
//!
//! Both documents are kept in the records under their digests, and verified again whenever they are read from there.
//! So a tag costs one request without a body when nothing changed, a digest none, and `--offline` works.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::{self, Document, Manifest};
use super::{BaseRequest, Documents, Image, Login, Source};
use crate::event::Session;
use crate::oci::{Descriptor, Digest, Reference};
use crate::problem::{Exit, Problem, Result};
use crate::registry::origin::Origin;
use crate::registry::pull::Selector;
use crate::registry::{Client, Patience};
use crate::store::{Kind, Store};

/// The largest config that is read, in bytes. Real ones have some tens of kB, and what is kept of hostile ones in
/// memory is fifty times their size.
pub(super) const MAX_CONFIG: u64 = 1024 * 1024;

/// How deep indexes may lie in indexes.
pub(super) const MAX_DEPTH: usize = 3;

/// What a reference meant when it was last resolved.
#[derive(Debug, Serialize, Deserialize)]
struct Pointed {
    /// The digest of the manifest or index.
    digest: Digest,
}

/// A document as it was received.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    content_type: String,
    text: String,
}

/// One resolution under way.
struct Remote<'a> {
    client: Arc<Client>,
    reference: &'a Reference,
    request: &'a BaseRequest,
    store: &'a Store,
}

/// Finds the manifest and config that `reference` means for the platform asked for.
pub(super) async fn resolve(
    reference: &Reference,
    request: &BaseRequest,
    login: Login<'_>,
    store: &Store,
    session: &Session,
) -> Result<Image> {
    let origin = Origin::of(reference)?;
    let credentials = login(origin.name());
    let client = Client::new(origin, credentials, Patience::default(), session);
    let remote = Remote { client: Arc::new(client), reference, request, store };
    let what = remote.what();
    let (digest, manifest, kept) = remote.manifest(&what).await?;
    let config_bytes = remote.config(&manifest.config).await?;
    let config = document::parse_config(&config_bytes, request.architecture, &what)?;
    let layers = document::layers(&manifest, &config, &what)?;
    let source = Source::Registry { client: remote.client, repository: reference.repository().to_owned() };
    let documents = Documents { config: config_bytes, manifest: Some((kept.content_type, kept.text.into_bytes())) };
    Ok(Image { digest: Some(digest), config, layers, documents, source })
}

impl Remote<'_> {
    /// The image, as messages call it.
    fn what(&self) -> String {
        format!("{} `{}`", self.request.holder.words().0, self.reference)
    }

    /// The manifest for the platform, by way of an index or not, its digest, and itself as it came.
    async fn manifest(&self, what: &str) -> Result<(Digest, Manifest, Kept)> {
        let (mut digest, mut first) = self.top(what).await?;
        for _ in 0..MAX_DEPTH {
            let kept = match first.take() {
                Some(kept) => kept,
                None => self.document(&digest).await?,
            };
            match document::parse(kept.text.as_bytes(), &kept.content_type, what)? {
                Document::Manifest(manifest) => return Ok((digest, manifest, kept)),
                Document::Index(entries) => {
                    digest = document::choose(&entries, self.request.architecture, what)?.descriptor().digest;
                }
            }
        }
        Err(document::too_deep(Exit::Failed, what))
    }

    /// The digest of what the reference itself names, and the document if it had to be read to know.
    async fn top(&self, what: &str) -> Result<(Digest, Option<Kept>)> {
        if let Some(pinned) = self.request.pinned {
            return Ok((pinned, None));
        }
        if let Some(digest) = self.reference.digest() {
            let digest = digest.parse();
            return digest
                .map(|digest| (digest, None))
                .map_err(|error| Problem::usage(format!("{what} is malformed")).because(error));
        }
        let key = format!("{} {}", self.reference, self.request.architecture.platform());
        let known = self.store.records().get::<Pointed>(Kind::Reference, &key).map(|pointed| pointed.digest);
        if self.request.offline {
            return known.map(|digest| (digest, None)).ok_or_else(|| self.missing(what));
        }
        let selector = Selector::Tag(self.reference.tag().unwrap_or("latest").to_owned());
        let repository = self.reference.repository();
        if let Some(known) = known.filter(|known| self.kept(known).is_some()) {
            let now = match self.client.manifest_digest(repository, &selector).await {
                Ok(digest) => digest,
                // A refused HEAD has no body that says why, and some registries know no HEAD: then GET decides.
                Err(error) if error.status().is_some() && !error.is_transient() => None,
                Err(error) => return Err(error.into()),
            };
            if now == Some(known) {
                return Ok((known, None));
            }
        }
        let document = self.client.manifest(repository, &selector).await?;
        let kept = self.keep(&document.digest, &document.media_type, &document.bytes)?;
        self.store.records().put(Kind::Reference, &key, &Pointed { digest: document.digest })?;
        Ok((document.digest, Some(kept)))
    }

    /// A manifest or index by its digest.
    async fn document(&self, digest: &Digest) -> Result<Kept> {
        if let Some(kept) = self.kept(digest) {
            return Ok(kept);
        }
        if self.request.offline {
            return Err(self.missing(&format!("manifest {digest} of {}", self.what())));
        }
        let document = match self.client.manifest(self.reference.repository(), &Selector::Digest(*digest)).await {
            Ok(document) => document,
            Err(error) if error.status() == Some(404) && self.request.pinned == Some(*digest) => {
                let message = format!("{} is locked to {digest}, which is gone", self.what());
                let problem = Problem::failed(message).because(Problem::from(error));
                return Err(problem.help("run `cargo lambda-image update base`, which looks up what the tag means now"));
            }
            Err(error) => return Err(error.into()),
        };
        self.keep(digest, &document.media_type, &document.bytes)
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        if let Some(kept) = self.kept(&descriptor.digest) {
            return Ok(kept.text.into_bytes());
        }
        if self.request.offline {
            let digest = descriptor.digest;
            return Err(self.missing(&format!("config {digest} of {}", self.what())));
        }
        let bytes = self.client.small_blob(self.reference.repository(), descriptor, MAX_CONFIG).await?;
        self.keep(&descriptor.digest, &descriptor.media_type, &bytes)?;
        Ok(bytes)
    }

    /// A document of the records, if it is still what its digest says.
    fn kept(&self, digest: &Digest) -> Option<Kept> {
        // Without a cache nothing is taken from the records; `--offline` has nothing else.
        if self.request.no_cache && !self.request.offline {
            return None;
        }
        let kept: Kept = self.store.records().get(Kind::Base, &digest.to_string())?;
        (Digest::of(kept.text.as_bytes()) == *digest).then_some(kept)
    }

    fn keep(&self, digest: &Digest, content_type: &str, bytes: &[u8]) -> Result<Kept> {
        let text = String::from_utf8(bytes.to_vec())
            .map_err(|_| Problem::failed(format!("{digest} of {} is not UTF-8", self.what())))
            .map_err(|problem| problem.help(document::REMAKE))?;
        let kept = Kept { content_type: content_type.to_owned(), text };
        self.store.records().put(Kind::Base, &digest.to_string(), &kept)?;
        Ok(kept)
    }

    fn missing(&self, what: &str) -> Problem {
        let platform = self.request.architecture.platform();
        Problem::failed(format!("{what} for `{platform}` was never fetched, and `--offline` forbids to fetch it"))
            .help("run once without `--offline`")
    }
}
