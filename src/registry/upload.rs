//! A blob into a repository, whatever the network does.
//!
//! One try opens a session, sends the bytes into it and closes it. A session is never used twice: what ECR has of a
//! broken one cannot be continued (apple/containerization#790). So every further try asks first whether the blob is
//! there after all, since an answer may have been lost, and then begins anew with freshly made bytes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response, Url};
use tokio::sync::{mpsc, oneshot};

use super::Client;
use super::auth::Scope;
use super::error::{Error, ErrorKind, unreachable};
use super::feed::{Fault, Feed, GivenUp, Made, Source, WAITING_PIECES, Watch};
use super::origin::redacted;
use super::push::{Session, confirm};
use super::transport::Call;
use crate::oci::{Descriptor, Digest, media_type};
use crate::problem::Problem;

/// How long the end of an abandoned session may take.
const ABANDON: Duration = Duration::from_secs(2);

/// How often what proves who we are may be renewed within one upload. Once is normal; more often it is not accepted.
const RENEWALS: usize = 2;

/// Up to these many bytes a registry answers within the stall limit, or so many times that: ECR commits gigabytes
/// slowly.
const ANSWER_CLASSES: [(u64, u32); 2] = [(64 << 20, 1), (1 << 30, 5)];
const ANSWER_LONGEST: u32 = 15;

/// How far an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A try begins, with nothing sent.
    Began,
    /// So many more bytes were taken.
    Sent(u64),
}

/// A blob to upload.
pub struct Upload<'a> {
    /// The repository.
    pub repository: &'a str,
    /// Makes the bytes.
    pub source: &'a Source,
    /// What they are, if that is known; otherwise they are streamed and found out.
    pub known: Option<&'a Descriptor>,
    /// A session that is open already, from a mount that was not made.
    pub session: Option<Session>,
    /// Told how far it is.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
}

/// A try that failed.
struct Failure {
    error: Error,
    /// The session to end, if it may be there still.
    session: Option<Session>,
    /// Whether another login is there to try with at once.
    renewed: bool,
}

/// The body of one try.
struct Body<'a> {
    upload: &'a Upload<'a>,
    /// What its bytes are, if that is known.
    expected: Option<&'a Descriptor>,
    /// Whether the connection broke in the try before.
    was_cut: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, session: None, renewed: false }
    }
}

impl Client {
    /// Uploads a blob: of known digest by one `PUT`, otherwise by one streamed `PATCH` and a `PUT` that names the
    /// digest found on the way. Returns what is confirmed to be there.
    ///
    /// # Errors
    /// The last failure of the wire, or what the source fails with. No try makes sense when the registry has the blob
    /// with another size, refuses for good, or says twice that the bytes are not what they are.
    pub async fn upload(&self, mut upload: Upload<'_>) -> Result<Made, Error> {
        let mut known = upload.known.cloned();
        if known.as_ref().is_some_and(|known| known.size == 0) {
            return Err(empty().into());
        }
        let what = redacted(&self.uploads(upload.repository));
        let mut retries = self.transport.retries(what.clone());
        let confirmed = &self.transport.http.confirmed;
        let mut seen_confirmed = confirmed.load(Ordering::Relaxed);
        let (mut renewals, mut wrong_digests) = (0, 0);
        let mut session = upload.session.take();
        let (mut was_cut, mut was_opened) = (false, session.is_some());
        loop {
            let failure = match self.try_upload(&upload, session.take(), &mut known, was_cut).await {
                Ok(made) => {
                    confirmed.fetch_add(1, Ordering::Relaxed);
                    return Ok(made);
                }
                Err(failure) => failure,
            };
            let Failure { error, session, renewed } = failure;
            was_opened |= session.is_some();
            if let Some(session) = session {
                // Nobody waits long for a program that is to stop: then all are ended at once, by `end_sessions`.
                self.transport.http.session.check()?;
                self.abandon(upload.repository, &session).await;
            }
            if renewed && renewals < RENEWALS {
                renewals += 1;
                continue;
            }
            let is_wrong = error.has_code("DIGEST_INVALID");
            wrong_digests += usize::from(is_wrong);
            if !(error.is_transient() || is_session_gone(&error) || is_wrong && wrong_digests == 1) {
                return Err(error);
            }
            let now_confirmed = confirmed.load(Ordering::Relaxed);
            if error.is_throttling() && now_confirmed != std::mem::replace(&mut seen_confirmed, now_confirmed) {
                // Others get on: it is our turn that is to come, and no reason to give up.
                retries = self.transport.retries(what.clone());
            }
            was_cut = error.kind == ErrorKind::Cut;
            if let Err(error) = retries.back_off(error).await {
                // Who opens a session has the repository, or makes it by the way.
                let is_explained = was_cut && !was_opened;
                return Err(if is_explained { self.explain_cut(upload.repository, error).await } else { error });
            }
            if let Some(descriptor) = &known
                && self.has_blob(upload.repository, descriptor).await?
            {
                return Ok(Made { digest: descriptor.digest, size: descriptor.size });
            }
        }
    }

    /// One try from session to confirmation. `known` is filled in as soon as all bytes were made.
    async fn try_upload(
        &self,
        upload: &Upload<'_>,
        opened: Option<Session>,
        known: &mut Option<Descriptor>,
        was_cut: bool,
    ) -> Result<Made, Failure> {
        (upload.progress)(Progress::Began);
        let Session { url } = match opened {
            Some(session) => session,
            None => self.open(upload.repository).await?,
        };
        self.sessions().push((upload.repository.to_owned(), url.clone()));
        let outcome = self.fill(upload, &url, known, was_cut).await;
        if !outcome.as_ref().is_err_and(|failure| failure.session.is_some()) {
            self.forget(&url);
        }
        outcome
    }

    /// The sessions under way. One that was dropped in the middle stays listed.
    fn sessions(&self) -> MutexGuard<'_, Vec<(String, Url)>> {
        self.transport.http.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, session: &Url) {
        self.sessions().retain(|(_, open)| open != session);
    }

    /// Ends the sessions of uploads that were dropped or stopped; only for when none is under way. They would expire by
    /// themselves, but count against the registry's limits until then.
    pub async fn end_sessions(&self) {
        let left = std::mem::take(&mut *self.sessions());
        let ends = left.into_iter().map(|(repository, url)| async move {
            self.abandon(&repository, &Session { url }).await;
        });
        futures_util::future::join_all(ends).await;
    }

    /// Sends all bytes into an open session and closes it.
    async fn fill(
        &self,
        upload: &Upload<'_>,
        url: &Url,
        known: &mut Option<Descriptor>,
        was_cut: bool,
    ) -> Result<Made, Failure> {
        if let Some(descriptor) = known.as_ref() {
            let url = closing(url, &descriptor.digest);
            let body = Body { upload, expected: Some(descriptor), was_cut };
            let (made, response) = self.send_body(Method::PUT, &url, &body, |_| {}).await?;
            confirm(response.headers(), &made.digest, &redacted(&url))?;
            return Ok(made);
        }
        let note = |made: &Made| {
            let Made { digest, size } = *made;
            *known = Some(Descriptor { media_type: media_type::OCI_LAYER_GZIP.to_owned(), digest, size });
        };
        let (made, response) =
            self.send_body(Method::PATCH, url, &Body { upload, expected: None, was_cut }, note).await?;
        let close = async {
            let next = self.location(url, response.headers())?.unwrap_or_else(|| url.clone());
            let call_url = closing(&next, &made.digest);
            let mut call = Call::new(Method::PUT, call_url, Scope::push(upload.repository));
            call.answer = Some(answer_limit(self.transport.http.patience.stall, made.size));
            call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            let response = self.transport.send_once(&call).await?;
            confirm(response.headers(), &made.digest, &redacted(&call.url))
        };
        match close.await {
            Ok(()) => Ok(made),
            Err(error) => {
                let session = worth_ending(&error).then(|| Session { url: url.clone() });
                Err(Failure { session, error, renewed: false })
            }
        }
    }

    /// Opens a session.
    async fn open(&self, repository: &str) -> Result<Session, Error> {
        let call = Call::new(Method::POST, self.uploads(repository), Scope::push(repository));
        let response = self.transport.send_once(&call).await?;
        match self.location(&call.url, response.headers())? {
            Some(url) => Ok(Session { url }),
            None => Err(Error::content(
                Problem::failed(format!("`{}` did not say where to upload to `{repository}`", self.transport.origin))
                    .help("see whether it is a registry that takes images, and ask who runs it"),
            )),
        }
    }

    /// Sends freshly made bytes, and calls `note` once they were made.
    async fn send_body(
        &self,
        method: Method,
        url: &Url,
        body: &Body<'_>,
        note: impl FnOnce(&Made),
    ) -> Result<(Made, Response), Failure> {
        let Body { upload, expected, was_cut } = *body;
        let failed = |error: Error, renewed| {
            let session = worth_ending(&error).then(|| Session { url: url.clone() });
            Failure { error, session, renewed }
        };
        let scope = Scope::push(upload.repository);
        let used = self.transport.authorization(&scope).await?;
        let (pieces, receiver) = mpsc::channel(WAITING_PIECES);
        let (right, verdict) = oneshot::channel();
        let watch = Watch::new();
        let progress = upload.progress.clone();
        let taken = Arc::new(move |count| progress(Progress::Sent(count)));
        let feed = Feed::new(receiver, verdict, expected.map(|expected| expected.size), watch.clone(), taken);
        let feed = feed.listen_first(was_cut);
        let mut request = reqwest::Request::new(method.clone(), url.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if let Some(expected) = expected {
            request.headers_mut().insert(CONTENT_LENGTH, expected.size.into());
        }
        *request.body_mut() = Some(reqwest::Body::wrap_stream(feed));
        self.transport.authorize(&mut request, used.as_ref());

        let making = upload.source.make(pieces);
        let make = async {
            let made = making.await?;
            check(&made, expected)?;
            // Nobody waits for the verdict once the request has failed.
            let _ = right.send(());
            Ok::<_, Error>(made)
        };
        let work = self.exchange(request, url, make, &watch, expected.map(|expected| expected.size));
        let (made, answer) = self.transport.http.unless_stopped(work).await.map_err(|error| failed(error, false))?;
        if let Some(made) = &made {
            note(made);
        }
        let response = answer.map_err(|error| failed(error, false))?;
        tracing::debug!(%method, url = redacted(url), status = response.status().as_u16(), bytes = watch.taken_bytes());
        if !response.status().is_success() {
            let rejected = self.transport.rejected(&method, url, response).await;
            let better = self.transport.better(&scope, used.as_ref(), &rejected).await?;
            return Err(failed(rejected.error, better.is_some()));
        }
        let what = || format!("sending to {}", redacted(url));
        let made = made.ok_or_else(|| failed(Error::cut(&what(), "it was answered before all was sent"), false))?;
        Ok((made, response))
    }

    /// Runs maker and request side by side until there is an answer, or nothing moves any more.
    async fn exchange(
        &self,
        request: reqwest::Request,
        url: &Url,
        make: impl Future<Output = Result<Made, Error>>,
        watch: &Watch,
        size: Option<u64>,
    ) -> (Option<Made>, Result<Response, Error>) {
        let client = match self.transport.http.client_for(url) {
            Ok(client) => client,
            Err(error) => return (None, Err(error)),
        };
        let what = format!("sending to {}", redacted(url));
        let stall = self.transport.http.patience.stall;
        let mut request = std::pin::pin!(client.execute(request));
        let mut make = std::pin::pin!(make);
        let answer = || answer_limit(stall, size.unwrap_or_else(|| watch.taken_bytes()));
        let mut stalled = std::pin::pin!(watch.stalled(stall, answer));
        let (mut made, mut unmade, mut is_making) = (None, None, true);
        loop {
            tokio::select! {
                biased;
                answer = &mut request => {
                    let is_given_up = answer.as_ref().is_err_and(is_given_up);
                    if is_given_up && watch.fault().is_none() {
                        // Its maker failed, and knows why.
                        let failed = if is_making { make.await.err() } else { unmade };
                        if let Some(error) = failed {
                            return (None, Err(error));
                        }
                    }
                    let answer = answer.map_err(|error| match watch.fault() {
                        Some(Fault::Restarted) => Error::cut(&what, "its bytes come anew from where they are taken"),
                        Some(Fault::TooLong) => changed(size.unwrap_or_default(), "more"),
                        None => unreachable(url, error, false),
                    });
                    return (made, answer);
                }
                outcome = &mut make, if is_making => {
                    is_making = false;
                    match outcome {
                        Ok(all) => made = Some(all),
                        // Who finds nobody to take the bytes knows less than the request that failed.
                        Err(error) if watch.is_gone() => unmade = Some(error),
                        Err(error) => return (None, Err(error)),
                    }
                }
                why = &mut stalled => return (made, Err(Error::gave_up(&what, why))),
            }
        }
    }

    /// Ends a session that will not be used any more; one that stays expires by itself.
    pub async fn abandon(&self, repository: &str, session: &Session) {
        let end = async {
            let authorization = self.transport.last_authorization(&Scope::push(repository)).await;
            let mut request = reqwest::Request::new(Method::DELETE, session.url.clone());
            self.transport.authorize(&mut request, authorization.as_ref());
            self.transport.http.send(request).await.ok().map(|response| response.status())
        };
        let status = tokio::time::timeout(ABANDON, end).await.ok().flatten();
        self.forget(&session.url);
        tracing::debug!(url = redacted(&session.url), ?status, "gave up an upload");
    }

    /// Some registries cut the connection when the repository does not exist; asked another way they say so.
    async fn explain_cut(&self, repository: &str, error: Error) -> Error {
        let url = self.transport.origin.endpoint(&format!("{repository}/tags/list"));
        let call = Call::new(Method::GET, url, Scope::push(repository));
        match self.transport.send_once(&call).await {
            Err(found) if found.has_code("NAME_UNKNOWN") => {
                let message = format!("`{}` knows no repository `{repository}`", self.transport.origin);
                let problem = Problem::failed(message).because(error.problem);
                let help = "check its name, or create it; one in ECR is created with `--create-repository`";
                Error::new(found.kind, problem.help(help))
            }
            _ => error,
        }
    }
}

/// Whether a request failed since its body was given up.
fn is_given_up(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<GivenUp>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether the registry no longer knows the session, or has another idea of what is in it: another one is needed.
/// ECR says the latter by itself now and then (google/go-containerregistry#431).
fn is_session_gone(error: &Error) -> bool {
    let is_gone = error.status() == Some(404) && !error.has_code("NAME_UNKNOWN");
    is_gone
        || error.status() == Some(416)
        || ["BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "RANGE_INVALID"].iter().any(|code| error.has_code(code))
}

/// Whether there may still be something to end.
fn worth_ending(error: &Error) -> bool {
    !matches!(error.kind, ErrorKind::Unreachable { .. }) && error.status() != Some(404)
}

/// The URL that closes a session: the registry's own query stays as it is.
fn closing(session: &Url, digest: &Digest) -> Url {
    let mut url = session.clone();
    url.query_pairs_mut().append_pair("digest", &digest.to_string());
    url
}

fn answer_limit(stall: Duration, size: u64) -> Duration {
    let class = ANSWER_CLASSES.iter().find(|(limit, _)| size < *limit);
    stall * class.map_or(ANSWER_LONGEST, |(_, times)| *times)
}

/// What was made again must be what was promised, or the last of it is never sent.
fn check(made: &Made, expected: Option<&Descriptor>) -> Result<(), Error> {
    match expected {
        _ if made.size == 0 => Err(empty().into()),
        Some(expected) if made.size != expected.size => {
            Err(changed(expected.size, if made.size < expected.size { "fewer" } else { "more" }))
        }
        Some(expected) if made.digest != expected.digest => {
            let message = format!("a blob was to be {} and its bytes are {}", expected.digest, made.digest);
            Err(other_bytes(message))
        }
        _ => Ok(()),
    }
}

fn changed(size: u64, how: &str) -> Error {
    other_bytes(format!("a blob was to have {size} bytes and has {how}"))
}

fn other_bytes(message: String) -> Error {
    let problem = Problem::failed(message).help("its source changed while it was pushed; run the command again");
    Error::new(ErrorKind::OtherBytes, problem)
}

/// ECR refuses them (`EmptyUploadException`), and no layer or config is empty.
fn empty() -> Problem {
    Problem::failed("an empty blob cannot be pushed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_closed_with_its_own_query_kept() {
        let digest = Digest::of(b"abc");
        let hex = digest.hex();
        for (session, closed) in [
            ("https://a.io/v2/b/uploads/1", format!("https://a.io/v2/b/uploads/1?digest=sha256%3A{hex}")),
            ("https://a.io/u?_state=a%2Fb%3D", format!("https://a.io/u?_state=a%2Fb%3D&digest=sha256%3A{hex}")),
            ("https://a.io/u?x", format!("https://a.io/u?x&digest=sha256%3A{hex}")),
        ] {
            assert_eq!(closing(&session.parse().expect("a URL of the table"), &digest).as_str(), closed);
        }
    }

    #[test]
    fn large_blobs_may_take_their_time_to_be_answered() {
        let stall = Duration::from_secs(60);
        for (size, seconds) in [(0, 60), ((64 << 20) - 1, 60), (64 << 20, 300), ((1 << 30) - 1, 300), (1 << 30, 900)] {
            assert_eq!(answer_limit(stall, size).as_secs(), seconds, "{size}");
        }
    }
}
