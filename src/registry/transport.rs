//! One `send` for every request to a registry: authorised, retried with backoff, redirected by our rules, watched for
//! standing still, and logged without a secret.
//!
//! It knows statuses and headers, not what manifests and blobs are.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Response, Url};
use tokio::sync::watch;
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
    /// Tries of a request whose connection cannot even be made, the first included, while nobody ever answered: who did
    /// will be back.
    pub connect_tries: usize,
    /// How long a request is tried again, however often, while the registry has too many of them.
    pub throttled: Duration,
    /// The longest wait after the first failure; it doubles with each one, and a random part of it is waited.
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
            throttled: Duration::from_secs(60),
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
    /// How often the registry asked for fewer requests.
    pub(super) throttled: watch::Sender<u64>,
    /// Whether anybody ever answered.
    answered: AtomicBool,
    /// How many uploads the registry confirmed.
    pub(super) confirmed: AtomicU64,
    /// The sessions of uploads under way, by repository.
    pub(super) sessions: Mutex<Vec<(String, Url)>>,
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
        let throttled = watch::Sender::new(0);
        let confirmed = AtomicU64::new(0);
        let (answered, sessions) = (AtomicBool::new(false), Mutex::default());
        let (proxied, direct) = (OnceLock::new(), OnceLock::new());
        Self { patience, session, throttled, answered, confirmed, sessions, proxied, direct }
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
            // A blob has a connection to itself: no window shared with others, no GOAWAY or REFUSED_STREAM in its
            // middle (300 streams have stopped a connection to ECR for good: clowdhaus/ocync#104).
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
        self.send_within(request, self.patience.stall).await
    }

    /// As [`Http::send`], with as much time for the answer.
    async fn send_within(
        &self,
        request: reqwest::Request,
        answer: Duration,
    ) -> Result<Response, Option<reqwest::Error>> {
        let client = self.client_for(request.url()).map_err(|_| None)?;
        let limit = self.patience.connect + answer;
        let answer = tokio::time::timeout(limit, client.execute(request)).await.map_err(|_| None)?.map_err(Some)?;
        self.answered.store(true, Ordering::Relaxed);
        Ok(answer)
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
    /// A body small enough to be kept: a manifest.
    pub(super) body: Bytes,
    /// How long the answer may take, where that is not the stall limit.
    pub(super) answer: Option<Duration>,
}

impl Call {
    pub(super) fn new(method: Method, url: Url, scope: Scope) -> Self {
        Self { method, url, headers: HeaderMap::new(), scope, body: Bytes::new(), answer: None }
    }
}

/// An error answer, and what is needed to answer it in turn.
pub(super) struct Rejected {
    pub(super) error: Error,
    headers: HeaderMap,
    /// Whether it came from the registry itself, so that its challenges count.
    at_home: bool,
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
        let mut retries = self.retries(redacted(&call.url));
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
        let mut retries = self.retries(redacted(&call.url));
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

    /// A fresh series of tries of `what`.
    pub(super) fn retries(&self, what: String) -> Retries<'_> {
        let patience = &self.http.patience;
        let delays = ExponentialBuilder::default()
            .with_min_delay(patience.first_delay)
            .with_max_delay(patience.max_delay)
            .without_max_times()
            .build();
        Retries { http: &self.http, what, delays, failures: 0, first_failure: None }
    }

    /// One try, with one more when the registry wants to know who we are.
    ///
    /// # Errors
    /// Its failure.
    pub(super) async fn send_once(&self, call: &Call) -> Result<Response, Error> {
        let used = self.authorization(&call.scope).await?;
        let rejected = match self.attempt(call, used.as_ref()).await? {
            Ok(response) => return Ok(response),
            Err(rejected) => rejected,
        };
        match self.better(&call.scope, used.as_ref(), &rejected).await? {
            None => Err(rejected.error),
            Some(better) => self.attempt(call, Some(&better)).await?.map_err(|rejected| rejected.error),
        }
    }

    /// What to send with a request now.
    pub(super) async fn authorization(&self, scope: &Scope) -> Result<Option<Authorization>, Error> {
        self.http.unless_stopped(self.auth.current(&self.http, scope)).await?
    }

    /// What there is to send with a request that is made after the work was asked to stop.
    pub(super) async fn last_authorization(&self, scope: &Scope) -> Option<Authorization> {
        self.auth.current(&self.http, scope).await.ok().flatten()
    }

    /// What to send instead of `used`, which was `rejected`; `None` when that was for another reason, or there is
    /// nothing else.
    pub(super) async fn better(
        &self,
        scope: &Scope,
        used: Option<&Authorization>,
        rejected: &Rejected,
    ) -> Result<Option<Authorization>, Error> {
        if !rejected.at_home || !rejected.error.is_about_login() {
            return Ok(None);
        }
        self.http.unless_stopped(self.auth.answer(&self.http, scope, used, &rejected.headers)).await?
    }

    async fn attempt(
        &self,
        call: &Call,
        authorization: Option<&Authorization>,
    ) -> Result<Result<Response, Rejected>, Error> {
        let (response, url) = self.follow(call, authorization).await?;
        if response.status().is_success() {
            return Ok(Ok(response));
        }
        let rejected = self.rejected(&call.method, &url, response).await;
        // An answer to HEAD cannot say why: GET is asked for the reason, and for nothing else. Where it is HEAD alone
        // that is refused, its headers are the answer.
        if call.method != Method::HEAD || !matches!(rejected.error.status(), Some(400 | 403 | 405)) {
            return Ok(Err(rejected));
        }
        let mut why = Call { headers: call.headers.clone(), ..Call::new(Method::GET, url, call.scope.clone()) };
        why.headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        let (response, url) = self.follow(&why, authorization).await?;
        if response.status().is_success() {
            return Ok(Ok(response));
        }
        Ok(Err(self.rejected(&why.method, &url, response).await))
    }

    /// Sends `call` where it leads, with `authorization` at the registry itself and nowhere else.
    async fn follow(&self, call: &Call, authorization: Option<&Authorization>) -> Result<(Response, Url), Error> {
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = reqwest::Request::new(call.method.clone(), url.clone());
            *request.headers_mut() = call.headers.clone();
            if matches!(call.method, Method::POST | Method::PUT) {
                request.headers_mut().insert(CONTENT_LENGTH, call.body.len().into());
                *request.body_mut() = Some(call.body.clone().into());
            }
            self.authorize(&mut request, authorization);
            self.http.client_for(&url)?;
            let answer = call.answer.unwrap_or(self.http.patience.stall);
            let response = self.http.unless_stopped(self.http.send_within(request, answer)).await?;
            let response = response.map_err(|error| match error {
                Some(error) => unreachable(&url, error, call.scope.for_anybody),
                None => Error::gave_up(&format!("waiting for {}", redacted(&url)), "no answer in time"),
            })?;
            tracing::debug!(method = %call.method, url = redacted(&url), status = response.status().as_u16());
            let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !is_redirect || !matches!(call.method, Method::GET | Method::HEAD) {
                return Ok((response, url));
            }
            url = self.redirected(&url, &response)?;
        }
        Err(Problem::failed(format!("more than {MAX_REDIRECTS} redirects from {}", redacted(&call.url)))
            .help("a proxy or a mirror sends requests in a circle: ask who runs it")
            .into())
    }

    /// Credentials go to the registry itself and nowhere else.
    pub(super) fn authorize(&self, request: &mut reqwest::Request, authorization: Option<&Authorization>) {
        if let Some(authorization) = authorization.filter(|_| self.origin.covers(request.url())) {
            request.headers_mut().insert(AUTHORIZATION, authorization.header());
        }
    }

    fn redirected(&self, from: &Url, response: &Response) -> Result<Url, Error> {
        let refuse = |why: &str| {
            let message = format!("refused to follow a redirect of {}", redacted(from));
            Error::from(Problem::failed(message).because(why).help("ask who runs the registry, or the proxy before it"))
        };
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let location = location.ok_or_else(|| refuse("it does not say where to"))?;
        let mut to = from.join(location).map_err(|_| refuse("its target is not a URL"))?;
        to.set_fragment(None);
        self.origin.allow_redirect(from, &to).map_err(|why| refuse(&format!("{why}: {}", redacted(&to))))?;
        Ok(to)
    }

    /// Reads what an error answer says.
    pub(super) async fn rejected(&self, method: &Method, url: &Url, response: Response) -> Rejected {
        let (status, headers) = (response.status(), response.headers().clone());
        // Without its body an error is still an error.
        let body = read_capped(&self.http, response, MAX_ERROR_BODY, "reading an error").await.unwrap_or_default();
        let error = refused(&self.origin, method, url, status, &headers, &body);
        Rejected { error, headers, at_home: self.origin.covers(url) }
    }
}

/// Some part of `delay`, so that those who failed together do not come back together.
fn jittered(delay: Duration) -> Duration {
    // Every `RandomState` has other keys, which is randomness enough here.
    let part = RandomState::new().hash_one(()) % 1000 + 1;
    delay.mul_f64(part as f64 / 1000.0)
}

/// A bounded series of tries.
#[derive(Debug)]
pub struct Retries<'a> {
    http: &'a Http,
    what: String,
    delays: ExponentialBackoff,
    failures: usize,
    first_failure: Option<Instant>,
}

impl Retries<'_> {
    /// Waits before the next try after `error`, as long as the registry asks or our own backoff says.
    ///
    /// # Errors
    /// `error` itself when another try makes no sense or was the last.
    pub(super) async fn wait(&mut self, error: Error) -> Result<(), Error> {
        if error.is_transient() { self.back_off(error).await } else { Err(error) }
    }

    /// Waits before the next try after `error`, of which the caller knows that another try makes sense.
    ///
    /// # Errors
    /// `error` itself when that was the last try.
    pub async fn back_off(&mut self, error: Error) -> Result<(), Error> {
        self.failures += 1;
        let patience = &self.http.patience;
        if error.is_throttling() {
            self.http.throttled.send_modify(|times| *times += 1);
        }
        let is_connect = matches!(error.kind, ErrorKind::Unreachable { .. });
        let was_there = self.http.answered.load(Ordering::Relaxed);
        if is_connect && !was_there && self.failures >= patience.connect_tries {
            return Err(error);
        }
        // A limit lasts for as long as others keep it full, unless the registry says that there is nothing to wait for.
        let is_limited = error.is_throttling() && error.retry_after() != Some(Duration::ZERO);
        let passed = self.first_failure.get_or_insert_with(Instant::now).elapsed();
        if self.failures >= patience.tries && !is_limited {
            return Err(error);
        }
        if self.failures >= patience.tries && passed >= patience.throttled {
            let told = format!("gave up after {} tries in {} s", self.failures, passed.as_secs());
            return Err(Error { problem: error.problem.context(told), ..error });
        }
        let own = self.delays.next().unwrap_or(patience.max_delay);
        // What was refused together is told to come back at the same time, and would be refused together again.
        let delay = error.retry_after().unwrap_or_default() + jittered(own);
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
            .map_err(|_| Error::gave_up(what, "too little came for too long"))?
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
            let message = format!("stopped {what}: it is longer than {cap} bytes");
            return Err(Error::content(
                Problem::failed(message).help("make sure that this is the address of a registry"),
            ));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}
