//! What a registry is asked while an image is pushed: is it there, take it from over there, and the manifests.
//!
//! Uploads are next door. Every question here can be asked again safely, and is, when its answer was lost.

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::watch;

use super::Client;
use super::auth::Scope;
use super::error::{Error, ErrorKind};
use super::origin::redacted;
use super::pull::{Selector, content_type, named_digest, no_registry};
use super::transport::{Call, Retries};
use crate::oci::{Descriptor, Digest};
use crate::problem::Problem;

/// Codes that say that a manifest names a blob which is not there, or not yet: the specification's and ECR's.
const BLOB_MISSING: [&str; 3] = ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "BLOB_UPLOAD_UNKNOWN"];

/// The way on from a registry that is served by https and says http.
const PLAIN: &str = "let the proxy before the registry pass `X-Forwarded-Proto: https` on, or have it answer with \
                     relative locations (docker-registry: `http.relativeurls`); layers must not go where others can \
                     read them";

/// The place where a registry waits for a blob's bytes.
#[derive(Debug, Clone)]
pub struct Session {
    pub(super) url: Url,
}

/// What came of asking for a blob of another repository.
#[derive(Debug)]
pub enum Mount {
    /// It is there now.
    Done,
    /// It is not; the registry waits for its bytes.
    Opened(Session),
    /// It is not, and nothing was opened.
    Declined,
}

impl Client {
    /// Whether a blob is there.
    ///
    /// # Errors
    /// When the registry is not reached or refuses, or has it with another size.
    pub async fn has_blob(&self, repository: &str, descriptor: &Descriptor) -> Result<bool, Error> {
        let url = self.transport.origin.endpoint(&format!("{repository}/blobs/{}", descriptor.digest));
        // The scope of the upload that may follow, so that one token does for both.
        let call = Call::new(Method::HEAD, url, Scope::push(repository));
        let response = match self.transport.send(&call).await {
            Err(error) if error.status() == Some(404) => return Ok(false),
            response => response?,
        };
        match number(response.headers()) {
            Some(size) if size == descriptor.size => Ok(true),
            Some(_) if content_type(response.headers()) == "text/html" => {
                Err(no_registry(&self.transport.origin, &call.url))
            }
            Some(size) => Err(Error::content(
                Problem::failed(format!(
                    "`{}` has {} in `{repository}` with {size} bytes, and it should have {}",
                    self.transport.origin, descriptor.digest, descriptor.size
                ))
                .help("the registry's copy is damaged: delete it there, or push to another repository"),
            )),
            // Without a size nothing is confirmed; sending it again is safe.
            None => Ok(false),
        }
    }

    /// Asks for a blob that the repository `from` of the same registry has. What is not mounted is uploaded as usual,
    /// so that no refusal is an error.
    ///
    /// # Errors
    /// When the work was asked to stop.
    pub async fn mount(&self, repository: &str, digest: &Digest, from: &str) -> Result<Mount, Error> {
        let mut url = self.uploads(repository);
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
        let call = Call::new(Method::POST, url, Scope::mount(repository, from));
        match self.transport.send_once(&call).await {
            Ok(response) if response.status() == StatusCode::CREATED => Ok(Mount::Done),
            Ok(response) => match self.location(&call.url, response.headers())? {
                Some(url) => Ok(Mount::Opened(Session { url })),
                None => Ok(Mount::Declined),
            },
            Err(error) if error.kind == ErrorKind::Stopped => Err(error),
            Err(error) => {
                tracing::debug!(%digest, from, error = %error.problem, "not mounted");
                Ok(Mount::Declined)
            }
        }
    }

    /// What `selector` names now; `None` if there is no such manifest.
    ///
    /// # Errors
    /// When the registry is not reached or refuses.
    pub async fn head_manifest(&self, repository: &str, selector: &Selector) -> Result<Option<Digest>, Error> {
        let call = self.manifest_call(Method::HEAD, Scope::push(repository), selector);
        let response = match self.transport.send(&call).await {
            Err(error) if error.status() == Some(404) => return Ok(None),
            response => response?,
        };
        match named_digest(response.headers(), &redacted(&call.url))? {
            Some(digest) => Ok(Some(digest)),
            None => Ok(Some(self.manifest_within(Scope::push(repository), selector).await?.digest)),
        }
    }

    /// Gives the repository a manifest under its digest or a tag. A tag that cannot be moved and points to it already
    /// is success.
    ///
    /// # Errors
    /// When the registry is not reached or refuses: with [`is_blob_missing`] when it lacks a blob, or does not see it
    /// yet. When it names another digest than that of `bytes`.
    pub async fn put_manifest(
        &self,
        repository: &str,
        selector: &Selector,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<(), Error> {
        let digest = Digest::of(bytes);
        let url = self.transport.origin.endpoint(&format!("{repository}/manifests/{selector}"));
        let mut call = Call { body: bytes.clone(), ..Call::new(Method::PUT, url, Scope::push(repository)) };
        let content_type = HeaderValue::from_str(media_type);
        call.headers.insert(CONTENT_TYPE, content_type.map_err(|_| Problem::failed("a media type is malformed"))?);
        let mut retries = self.transport.retries(redacted(&call.url));
        loop {
            let error = match self.transport.send_once(&call).await {
                Ok(response) => return confirm(response.headers(), &digest, &redacted(&call.url)),
                Err(error) => error,
            };
            if matches!(selector, Selector::Tag(_)) && may_be_immutable(&error) {
                return self.settle_tag(repository, selector, &digest, error).await;
            }
            let was_cut = error.kind == ErrorKind::Cut;
            retries.wait(error).await?;
            // It may be there and only its answer lost.
            if was_cut && self.head_manifest(repository, selector).await? == Some(digest) {
                return Ok(());
            }
        }
    }

    /// A bounded series of tries of `what`, for callers who know better than the wire that another makes sense.
    #[must_use]
    pub fn attempts(&self, what: &str) -> Retries<'_> {
        self.transport.retries(what.to_owned())
    }

    /// Changes whenever the registry asks for fewer requests.
    #[must_use]
    pub fn throttled(&self) -> watch::Receiver<u64> {
        self.transport.http.throttled.subscribe()
    }

    /// ECR refuses to write a tag that cannot be moved even when nothing would change (moby/buildkit#3776).
    async fn settle_tag(
        &self,
        repository: &str,
        selector: &Selector,
        digest: &Digest,
        error: Error,
    ) -> Result<(), Error> {
        let origin = &self.transport.origin;
        match self.head_manifest(repository, selector).await {
            Ok(Some(found)) if found == *digest => Ok(()),
            Ok(Some(found)) if says_immutable(&error) => {
                let problem = immovable(&format!("{origin}/{repository}"), &[(&selector.to_string(), found)], digest);
                Err(Error::new(error.kind, problem.because(error.problem)))
            }
            _ => Err(error),
        }
    }

    pub(super) fn uploads(&self, repository: &str) -> Url {
        self.transport.origin.endpoint(&format!("{repository}/blobs/uploads/"))
    }

    /// Where an answer to `from` sends us on to; `None` if it does not say.
    ///
    /// # Errors
    /// When it is a place where bytes must not be sent.
    pub(super) fn location(&self, from: &Url, headers: &HeaderMap) -> Result<Option<Url>, Error> {
        let Some(location) = headers.get(LOCATION) else { return Ok(None) };
        let refused = |why: String| {
            Problem::failed(format!("refused to upload where `{}` says", self.transport.origin)).because(why)
        };
        let refuse =
            |why: String| refused(why).help("ask who runs it: layers must not go where others can read or change them");
        let location = location.to_str().map_err(|_| refuse("its location is not a URL".into()))?;
        let mut to = from.join(location).map_err(|_| refuse("its location is not a URL".into()))?;
        to.set_fragment(None);
        if let Err(why) = self.transport.origin.allow_redirect(from, &to) {
            let why = format!("{why}: {}", redacted(&to));
            // A registry that does not know of the TLS before it names itself by http.
            let is_itself_in_plain = (from.scheme(), to.scheme()) == ("https", "http") && from.host() == to.host();
            return Err(if is_itself_in_plain { refused(why).help(PLAIN) } else { refuse(why) }.into());
        }
        Ok(Some(to))
    }
}

/// Whether a manifest was refused because a blob it names is not there, or not seen yet: ECR's check lags behind its
/// confirmation by some hundred milliseconds.
#[must_use]
pub fn is_blob_missing(error: &Error) -> bool {
    BLOB_MISSING.iter().any(|code| error.has_code(code))
}

/// That tags of `HOST/REPOSITORY`, which point to other digests, do not let themselves be moved to `digest`.
#[must_use]
pub fn immovable(repository: &str, taken: &[(&str, Digest)], digest: &Digest) -> Problem {
    let (tags, digests): (Vec<_>, Vec<_>) = taken.iter().map(|(tag, at)| (format!("`{tag}`"), at.to_string())).unzip();
    let (tag, points) = if taken.len() == 1 { ("tag", "it points") } else { ("tags", "they point") };
    let (tags, digests) = (tags.join(", "), digests.join(", "));
    Problem::failed(format!("{tag} {tags} of `{repository}` cannot be moved to {digest}: {points} to {digests}"))
        .help("tags of this repository are immutable: choose another tag")
}

/// Whether a tag may have been refused because it cannot be moved, for which each registry has a status of its own.
fn may_be_immutable(error: &Error) -> bool {
    matches!(error.status(), Some(400 | 403 | 405 | 409 | 412 | 422)) && !is_blob_missing(error)
}

/// Whether that is why: ECR's code, Harbor's status, a word of others'.
fn says_immutable(error: &Error) -> bool {
    error.has_code("TAG_INVALID")
        || matches!(error.status(), Some(409 | 412))
        || error.problem.in_one_line().to_lowercase().contains("immutable")
}

/// Whether the registry took for `digest` what it was given, if it says.
pub(super) fn confirm(headers: &HeaderMap, digest: &Digest, url: &str) -> Result<(), Error> {
    match named_digest(headers, url)? {
        Some(found) if found != *digest => Err(Error::content(
            Problem::failed(format!("the registry took {url} as {found}, and it is {digest}"))
                .help("a proxy or the registry itself changes what it is given; do not use this image"),
        )),
        _ => Ok(()),
    }
}

/// The length of the whole that an answer tells, even if it holds one byte of it.
fn number(headers: &HeaderMap) -> Option<u64> {
    let of_part = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok()?.rsplit_once('/'));
    let whole = of_part.map(|(_, whole)| whole).or_else(|| headers.get(CONTENT_LENGTH)?.to_str().ok())?;
    whole.trim().parse().ok()
}
