//! One `send` for every request to a registry: authorised, retried with backoff, redirected by our rules, watched for
//! standing still, and logged without a secret.
//!
//! It knows statuses and headers, not what manifests and blobs are.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION};
use reqwest::{Method, Response, Url};
use tokio::time::Instant;

use super::auth::{Authority, Scope};
use super::credentials::Authorization;
use super::error::{Error, ErrorKind, refused, unreachable};
use super::origin::{Origin, is_loopback_url, redacted};
use crate::event::{Event, Session};
use crate::problem::Problem;

/// The most of an error's body that is read, in bytes.
const MAX_ERROR_BODY: u64 = 64 * 1024;

/// How many redirects one request may follow.
const MAX_REDIRECTS: usize = 5;

/// An answer that brings less than this within the stall limit is a drip feed, in bytes.
const MIN_PROGRESS: u64 = 4 * 1024;

/// How often waiting looks up to see whether the work was asked to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(200);

/// How long things may take and how often they are tried; tests have little.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Tries of one request, the first included.
    pub tries: usize,
    /// Tries of a request whose connection cannot even be made, the first included.
    pub connect_tries: usize,
    /// The wait after the first failure; it doubles, with jitter on top.
    pub first_delay: Duration,
    /// The longest wait of our own making.
    pub max_delay: Duration,
    /// How long a connection may take to be made.
    pub connect: Duration,
    /// How long an answer may stand still, from the request on and between its bytes.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 5,
            connect_tries: 3,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(20),
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(60),
        }
    }
}

/// The HTTP clients: one that minds the proxies of the environment, one for this machine.
pub(super) struct Http {
    pub(super) patience: Patience,
    pub(super) session: Session,
    proxied: OnceLock<reqwest::Client>,
    direct: OnceLock<reqwest::Client>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("patience", &self.patience).finish_non_exhaustive()
    }
}

impl Http {
    fn new(patience: Patience, session: Session) -> Self {
        Self { patience, session, proxied: OnceLock::new(), direct: OnceLock::new() }
    }

    /// The client for `url`. Clients are made late: reading the trusted certificates takes a while.
    pub(super) fn client_for(&self, url: &Url) -> Result<&reqwest::Client, Error> {
        let is_direct = is_loopback_url(url);
        let slot = if is_direct { &self.direct } else { &self.proxied };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let builder = reqwest::Client::builder()
            .user_agent(concat!("cargo-lambda-image/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http1_only()
            .connect_timeout(self.patience.connect);
        let builder = if is_direct { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| {
            Error::from(Problem::failed("could not set up HTTPS").because(error).help(
                "install the trusted certificates (`ca-certificates`), or name a file of them with `SSL_CERT_FILE`",
            ))
        })?;
        Ok(slot.get_or_init(|| client))
    }

    /// Sends one request and waits for the head of its answer; `Err(None)` when none came in time.
    pub(super) async fn send(&self, request: reqwest::Request) -> Result<Response, Option<reqwest::Error>> {
        let client = self.client_for(request.url()).map_err(|_| None)?;
        let limit = self.patience.connect + self.patience.stall;
        tokio::time::timeout(limit, client.execute(request)).await.map_err(|_| None)?.map_err(Some)
    }

    /// Fails as soon as the work is asked to stop; otherwise what `work` gives.
    pub(super) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut work = std::pin::pin!(work);
        loop {
            self.session.check()?;
            if let Ok(done) = tokio::time::timeout(STOP_INTERVAL, &mut work).await {
                return Ok(done);
            }
        }
    }
}

/// A request in a form that can be sent again.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) scope: Scope,
}

/// The way to one registry.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) http: Http,
    pub(super) origin: Origin,
    auth: Authority,
}

impl Transport {
    pub(super) fn new(origin: Origin, auth: Authority, patience: Patience, session: Session) -> Self {
        Self { http: Http::new(patience, session), origin, auth }
    }

    /// Sends `call` until it is answered with success, or failing again makes no sense.
    ///
    /// # Errors
    /// The last failure.
    pub(super) async fn send(&self, call: &Call) -> Result<Response, Error> {
        let mut retries = self.retries(&call.url);
        loop {
            match self.send_once(call).await {
                Ok(response) => return Ok(response),
                Err(error) => retries.wait(error).await?,
            }
        }
    }

    /// Sends `call` and reads the whole answer of at most `cap` bytes, both again when a connection breaks.
    ///
    /// # Errors
    /// The last failure.
    pub(super) async fn fetch(&self, call: &Call, cap: u64) -> Result<(HeaderMap, Bytes), Error> {
        let mut retries = self.retries(&call.url);
        loop {
            let attempt = async {
                let response = self.send_once(call).await?;
                let headers = response.headers().clone();
                let body = read_capped(&self.http, response, cap, &format!("reading {}", redacted(&call.url))).await?;
                Ok((headers, body))
            };
            match attempt.await {
                Ok(answer) => return Ok(answer),
                Err(error) => retries.wait(error).await?,
            }
        }
    }

    /// A fresh series of tries of whatever `url` stands for.
    pub(super) fn retries(&self, url: &Url) -> Retries<'_> {
        let patience = &self.http.patience;
        let delays = ExponentialBuilder::default()
            .with_min_delay(patience.first_delay)
            .with_max_delay(patience.max_delay)
            .with_max_times(patience.tries.saturating_sub(1))
            .with_jitter()
            .build();
        Retries { http: &self.http, what: redacted(url), delays, failures: 0 }
    }

    /// One try, with one more when the registry wants to know who we are.
    async fn send_once(&self, call: &Call) -> Result<Response, Error> {
        let used = self.http.unless_stopped(self.auth.current(&self.http, &call.scope)).await??;
        let (response, url) = self.follow(call, used.as_ref()).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        if response.status() != 401 || !self.origin.covers(&url) {
            return Err(self.refusal(&call.method, &url, response).await);
        }
        let headers = response.headers().clone();
        let refusal = self.refusal(&call.method, &url, response).await;
        let answer = self.auth.answer(&self.http, &call.scope, used.as_ref(), &headers);
        let Some(better) = self.http.unless_stopped(answer).await?? else { return Err(refusal) };
        let (response, url) = self.follow(call, Some(&better)).await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refusal(&call.method, &url, response).await)
        }
    }

    /// Sends `call` where it leads, with `authorization` at the registry itself and nowhere else.
    async fn follow(&self, call: &Call, authorization: Option<&Authorization>) -> Result<(Response, Url), Error> {
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = reqwest::Request::new(call.method.clone(), url.clone());
            *request.headers_mut() = call.headers.clone();
            if let Some(authorization) = authorization.filter(|_| self.origin.covers(&url)) {
                request.headers_mut().insert(AUTHORIZATION, authorization.header());
            }
            self.http.client_for(&url)?;
            let response = self.http.unless_stopped(self.http.send(request)).await?;
            let response = response.map_err(|error| match error {
                Some(error) => unreachable(&url, error),
                None => Error::cut(&format!("waiting for {}", redacted(&url)), "no answer in time"),
            })?;
            tracing::debug!(method = %call.method, url = redacted(&url), status = response.status().as_u16());
            let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !is_redirect || !matches!(call.method, Method::GET | Method::HEAD) {
                return Ok((response, url));
            }
            url = self.redirected(&url, &response)?;
        }
        Err(Problem::failed(format!("more than {MAX_REDIRECTS} redirects from {}", redacted(&call.url))).into())
    }

    fn redirected(&self, from: &Url, response: &Response) -> Result<Url, Error> {
        let refuse = |why: &str| {
            Error::from(Problem::failed(format!("refused to follow a redirect of {}", redacted(from))).because(why))
        };
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let location = location.ok_or_else(|| refuse("it does not say where to"))?;
        let mut to = from.join(location).map_err(|_| refuse("its target is not a URL"))?;
        to.set_fragment(None);
        self.origin.allow_redirect(from, &to).map_err(|why| refuse(&format!("{why}: {}", redacted(&to))))?;
        Ok(to)
    }

    async fn refusal(&self, method: &Method, url: &Url, response: Response) -> Error {
        let (status, headers) = (response.status(), response.headers().clone());
        // Without its body an error is still an error.
        let body = read_capped(&self.http, response, MAX_ERROR_BODY, "reading an error").await.unwrap_or_default();
        refused(&self.origin, method, url, status, &headers, &body)
    }
}

/// A bounded series of tries.
pub(super) struct Retries<'a> {
    http: &'a Http,
    what: String,
    delays: ExponentialBackoff,
    failures: usize,
}

impl Retries<'_> {
    /// Waits before the next try after `error`, as long as the registry asks or our own backoff says.
    ///
    /// # Errors
    /// `error` itself when another try makes no sense or was the last.
    pub(super) async fn wait(&mut self, error: Error) -> Result<(), Error> {
        self.failures += 1;
        let is_connect = matches!(error.kind, ErrorKind::Unreachable { .. });
        if !error.is_transient() || (is_connect && self.failures >= self.http.patience.connect_tries) {
            return Err(error);
        }
        let Some(own) = self.delays.next() else { return Err(error) };
        let delay = error.retry_after().unwrap_or(own);
        self.http.session.emit(&Event::Retrying { what: &self.what, why: error.problem.message(), delay });
        self.http.unless_stopped(tokio::time::sleep(delay)).await
    }
}

/// Reads an answer piece by piece and notices when it stands still or only drips.
pub(super) struct Body<'a> {
    http: &'a Http,
    response: Response,
    window_end: Instant,
    window_bytes: u64,
}

impl<'a> Body<'a> {
    pub(super) fn new(http: &'a Http, response: Response) -> Self {
        Self { http, response, window_end: Instant::now() + http.patience.stall, window_bytes: 0 }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// Of class [`ErrorKind::Cut`] when the connection broke or stalled.
    pub(super) async fn next(&mut self, what: &str) -> Result<Option<Bytes>, Error> {
        let end = self.window_end;
        let piece = self.http.unless_stopped(tokio::time::timeout_at(end, self.response.chunk())).await?;
        let piece = piece
            .map_err(|_| Error::cut(what, "too little came for too long"))?
            .map_err(|error| Error::cut(what, error.without_url()))?;
        if let Some(piece) = &piece {
            self.window_bytes += piece.len() as u64;
            if self.window_bytes >= MIN_PROGRESS {
                self.window_end = Instant::now() + self.http.patience.stall;
                self.window_bytes = 0;
            }
        }
        Ok(piece)
    }

    /// Whoever takes the pieces was busy since `start`: that time is not the registry's fault.
    pub(super) fn forgive(&mut self, start: Instant) {
        self.window_end += start.elapsed();
    }
}

/// Reads a whole answer of at most `cap` bytes.
pub(super) async fn read_capped(http: &Http, response: Response, cap: u64, what: &str) -> Result<Bytes, Error> {
    let mut body = Body::new(http, response);
    let mut bytes = Vec::new();
    while let Some(piece) = body.next(what).await? {
        if (bytes.len() + piece.len()) as u64 > cap {
            return Err(Error::content(Problem::failed(format!("stopped {what}: it is longer than {cap} bytes"))));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}
