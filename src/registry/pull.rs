//! Manifests and blobs, verified while they are read.
//!
//! Nothing leaves here that is not what its digest says, with one exception that its name tells: the pieces of a blob
//! are handed on as they come, and only the final success says that they were the blob.

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, StatusCode, Url};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Client;
use super::auth::Scope;
use super::error::{Error, ErrorKind};
use super::origin::{Origin, redacted};
use super::transport::{Body, Call};
use crate::oci::{Descriptor, Digest, media_type};
use crate::problem::Problem;

/// The largest manifest or index that is read, in bytes; registries must take no more than that either.
pub const MAX_MANIFEST: u64 = 4 * 1024 * 1024;

/// A pull that got this much further since its last failure starts counting failures anew, in bytes.
const GOOD_PROGRESS: u64 = 1024 * 1024;

/// The header that names what an answer is about.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// The way on from what is not what its digest, size or name says.
const CHANGED: &str = "a proxy, a cache or the registry itself changes the bytes; do not use this image";

/// The way on from a blob that is not where its manifest is.
const LOST: &str = "its registry lists it and does not have it: push the image there again, or take another";

/// Every kind of manifest this program reads.
const ACCEPTED: [&str; 4] =
    [media_type::OCI_INDEX, media_type::OCI_MANIFEST, media_type::DOCKER_INDEX, media_type::DOCKER_MANIFEST];

/// Which manifest is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// What a tag points to now.
    Tag(String),
    /// Exactly this one.
    Digest(Digest),
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A manifest or an index as the registry gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The media type of its `Content-Type` header, without parameters; empty if there was none.
    pub media_type: String,
    /// The digest of `bytes`, computed here.
    pub digest: Digest,
    /// The exact bytes.
    pub bytes: Bytes,
}

/// A part of a blob on its way to whoever writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The next bytes.
    Bytes(Bytes),
    /// Everything so far is void, the blob begins anew.
    Restart,
    /// What was sent since the last restart is the whole blob, verified.
    End,
}

impl Client {
    /// What `selector` names now, by one request without a body; `None` if the registry does not say.
    ///
    /// # Errors
    /// When the registry is not reached or refuses; registries that know no HEAD do so too.
    pub async fn manifest_digest(&self, repository: &str, selector: &Selector) -> Result<Option<Digest>, Error> {
        let call = self.manifest_call(Method::HEAD, Scope::pull(repository), selector);
        let response = self.transport.send(&call).await?;
        named_digest(response.headers(), &redacted(&call.url))
    }

    /// Reads a manifest or index and verifies it: by the digest asked for, or by the one the registry names.
    ///
    /// # Errors
    /// When the registry is not reached or refuses, or the bytes are not what they must be.
    pub async fn manifest(&self, repository: &str, selector: &Selector) -> Result<Document, Error> {
        self.manifest_within(Scope::pull(repository), selector).await
    }

    /// As [`Client::manifest`], where what may be done there is known.
    pub(super) async fn manifest_within(&self, scope: Scope, selector: &Selector) -> Result<Document, Error> {
        let repository = scope.repository().to_owned();
        let call = self.manifest_call(Method::GET, scope, selector);
        let mut second_chance = true;
        loop {
            let (headers, bytes) = self.transport.fetch(&call, MAX_MANIFEST).await?;
            if !headers.contains_key(CONTENT_DIGEST) && !bytes.trim_ascii_start().starts_with(b"{") {
                return Err(no_registry(&self.transport.origin, &call.url));
            }
            let digest = Digest::of(&bytes);
            let expected = match selector {
                Selector::Digest(digest) => Some(*digest),
                Selector::Tag(_) => named_digest(&headers, &redacted(&call.url))?,
            };
            if let Some(expected) = expected.filter(|expected| *expected != digest) {
                if std::mem::take(&mut second_chance) {
                    continue;
                }
                let what = format!("manifest `{repository}` {selector} from `{}`", self.transport.origin);
                return Err(wrong_digest(&what, &expected, &digest));
            }
            return Ok(Document { media_type: content_type(&headers), digest, bytes });
        }
    }

    /// Reads a whole blob of at most `cap` bytes into memory: a config.
    ///
    /// # Errors
    /// As [`Client::blob`], and when the blob is larger than `cap`.
    pub async fn small_blob(&self, repository: &str, descriptor: &Descriptor, cap: u64) -> Result<Vec<u8>, Error> {
        if descriptor.size > cap {
            let (digest, size) = (descriptor.digest, descriptor.size);
            let message = format!("{digest} has {size} bytes, at most {cap} are read");
            return Err(Error::content(Problem::failed(message).help("no real image has one so long; take another")));
        }
        let (sender, mut receiver) = mpsc::channel(4);
        let collect = async {
            let mut bytes = Vec::new();
            while let Some(piece) = receiver.recv().await {
                match piece {
                    Piece::Bytes(piece) => bytes.extend_from_slice(&piece),
                    Piece::Restart => bytes.clear(),
                    Piece::End => break,
                }
            }
            bytes
        };
        let pull = async {
            // Moved in, so that the channel closes with the end of the pull.
            let sender = sender;
            self.blob(repository, descriptor, &sender).await
        };
        let (pulled, bytes) = tokio::join!(pull, collect);
        pulled.map(|()| bytes)
    }

    /// Sends a blob's bytes into `pieces`, and [`Piece::End`] if and only if what was sent since the last
    /// [`Piece::Restart`] is exactly the blob that `descriptor` describes. A broken connection is resumed where it
    /// broke.
    ///
    /// # Errors
    /// When the registry is not reached or refuses, when the blob is not what it must be twice in a row, or when
    /// nobody receives the pieces any more.
    pub async fn blob(
        &self,
        repository: &str,
        descriptor: &Descriptor,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<(), Error> {
        let first = match self.blob_once(repository, descriptor, pieces).await {
            Err(error) if error.kind == ErrorKind::Content => error,
            // A manifest of the registry names it, so no name is mistyped.
            Err(error) if error.status() == Some(404) && !error.has_code("NAME_UNKNOWN") => {
                return Err(Error { problem: error.problem.help(LOST), ..error });
            }
            outcome => return outcome,
        };
        // A cache on the way may have kept a bad copy once; twice is no accident.
        tracing::debug!(digest = %descriptor.digest, error = %first.problem, "reading the blob again");
        send(pieces, Piece::Restart).await?;
        self.blob_once(repository, descriptor, pieces).await
    }

    async fn blob_once(
        &self,
        repository: &str,
        descriptor: &Descriptor,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<(), Error> {
        let url = self.transport.origin.endpoint(&format!("{repository}/blobs/{}", descriptor.digest));
        let mut call = Call { headers: identity(), ..Call::new(Method::GET, url, Scope::pull(repository)) };
        let mut received = Received { hasher: Sha256::new(), bytes: 0 };
        let mut retries = self.transport.retries(redacted(&call.url));
        let mut good_mark = GOOD_PROGRESS;
        loop {
            match self.read_on(&mut call, descriptor, &mut received, pieces).await {
                Ok(()) => break,
                Err(error) if error.kind == ErrorKind::Cut => {
                    if received.bytes >= good_mark {
                        retries = self.transport.retries(redacted(&call.url));
                        good_mark = received.bytes + GOOD_PROGRESS;
                    }
                    retries.wait(error).await?;
                }
                Err(error) => return Err(error),
            }
        }
        let digest = Digest::from(<[u8; 32]>::from(received.hasher.finalize()));
        if digest == descriptor.digest {
            return send(pieces, Piece::End).await;
        }
        let what = format!("blob of `{repository}` from `{}`", self.transport.origin);
        Err(wrong_digest(&what, &descriptor.digest, &digest))
    }

    /// Reads from where `received` ends until the blob does, or the connection.
    async fn read_on(
        &self,
        call: &mut Call,
        descriptor: &Descriptor,
        received: &mut Received,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<(), Error> {
        call.headers.remove(RANGE);
        if received.bytes > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", received.bytes));
            call.headers.insert(RANGE, range.expect("digits are a header value"));
        }
        let response = match self.transport.send(call).await {
            // The registry does not know such a range: the next try asks for everything.
            Err(error) if error.status() == Some(416) && received.bytes > 0 => {
                received.restart(pieces).await?;
                return Err(Error::cut("resuming a blob", "the registry cannot resume it"));
            }
            response => response?,
        };
        if received.bytes > 0 && !continues_at(&response, received.bytes) {
            received.restart(pieces).await?;
            if response.status() == StatusCode::PARTIAL_CONTENT {
                return Err(Error::cut("resuming a blob", "the registry sent another part of it"));
            }
        }
        let what = format!("reading {} from `{}`", descriptor.digest, self.transport.origin);
        let mut body = Body::new(&self.transport.http, response);
        while let Some(piece) = body.next(&what).await? {
            received.bytes += piece.len() as u64;
            if received.bytes > descriptor.size {
                let message =
                    format!("{} is longer than the {} bytes it should have", descriptor.digest, descriptor.size);
                return Err(Error::content(Problem::failed(message).help(CHANGED)));
            }
            received.hasher.update(&piece);
            let start = Instant::now();
            send(pieces, Piece::Bytes(piece)).await?;
            body.forgive(start);
        }
        if received.bytes < descriptor.size {
            let why = format!("it ended after {} of {} bytes", received.bytes, descriptor.size);
            return Err(Error::cut(&what, why));
        }
        Ok(())
    }

    /// A request for any kind of manifest that this program reads.
    pub(super) fn manifest_call(&self, method: Method, scope: Scope, selector: &Selector) -> Call {
        let url = self.transport.origin.endpoint(&format!("{}/manifests/{selector}", scope.repository()));
        let mut headers = identity();
        headers.insert(ACCEPT, HeaderValue::from_str(&ACCEPTED.join(", ")).expect("media types are a header value"));
        Call { headers, ..Call::new(method, url, scope) }
    }
}

/// What was received of a blob since it last began.
struct Received {
    hasher: Sha256,
    bytes: u64,
}

impl Received {
    async fn restart(&mut self, pieces: &mpsc::Sender<Piece>) -> Result<(), Error> {
        *self = Self { hasher: Sha256::new(), bytes: 0 };
        send(pieces, Piece::Restart).await
    }
}

async fn send(pieces: &mpsc::Sender<Piece>, piece: Piece) -> Result<(), Error> {
    let unwanted = |_| Error::new(ErrorKind::Unwanted, Problem::failed("nobody takes the blob's bytes any more"));
    pieces.send(piece).await.map_err(unwanted)
}

/// Headers that ask for the bytes as they are: a transparent compression would break every digest.
fn identity() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))])
}

/// Whether `response` is the rest of the blob from byte `offset` on.
fn continues_at(response: &reqwest::Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

pub(super) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_owned()
}

/// The digest the registry names in its answer from `url`; algorithms other than ours are no statement about ours.
pub(super) fn named_digest(headers: &HeaderMap, url: &str) -> Result<Option<Digest>, Error> {
    let value = headers.get(CONTENT_DIGEST).and_then(|value| value.to_str().ok());
    match value.filter(|value| value.starts_with("sha256:")) {
        None => Ok(None),
        Some(value) => value.parse().map(Some).map_err(|error| {
            let message = format!("the registry names {url} by something that is no digest");
            Error::content(Problem::failed(message).because(error).help(CHANGED))
        }),
    }
}

/// Of an answer that is a success, and what a login page or any web server would say.
pub(super) fn no_registry(origin: &Origin, url: &Url) -> Error {
    let message = format!("`{origin}` does not answer as a registry: {}", redacted(url));
    Error::content(Problem::failed(message).help("check the host and port: this is another server, or a proxy's page"))
}

fn wrong_digest(what: &str, expected: &Digest, found: &Digest) -> Error {
    Error::content(
        Problem::failed(format!("{what} is not what it should be: expected {expected}, received {found}"))
            .help(CHANGED),
    )
}
