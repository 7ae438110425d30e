//! A registry in this process that does what its script says: the honest protocol, and every fault on request.
//!
//! It serves from a thread of its own, so that tests of the library and of the binary can use it alike. Faults are
//! rules: which requests, which of them by count, and what happens instead.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cargo_lambda_image::oci::Digest;
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::images::TestImage;

/// How far the bytes of a drip feed are apart.
const DRIP: Duration = Duration::from_millis(10);

/// Who may use the registry.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Anybody.
    #[default]
    Open,
    /// Whoever knows these, as `(user name, password)`.
    Basic(&'static str, &'static str),
    /// Whoever has a token; anybody gets one, or only those who know these.
    Bearer(Option<(&'static str, &'static str)>),
    /// Whoever has a token of another server's, at this realm.
    BearerAt(String),
}

/// What happens instead of the honest answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// An error status with these headers and this body.
    Status(u16, &'static [(&'static str, &'static str)], &'static str),
    /// No answer ever comes.
    Hang,
    /// The body breaks off after so many bytes, whatever its `Content-Length` said.
    Cut(usize),
    /// The body is cut to so many bytes, and its `Content-Length` with it.
    Shorten(usize),
    /// The body stands still after so many bytes.
    Stall(usize),
    /// The body comes byte by byte, never standing still.
    Drip,
    /// One bit of the byte at this place is another.
    Flip(usize),
    /// Everything is sent, whatever `Range` asked for.
    IgnoreRange,
    /// A body without end.
    Endless,
    /// This header is another; an empty value removes it.
    Header(&'static str, String),
    /// A redirect to this URL.
    Redirect(String),
    /// A redirect to the same path at this origin.
    RedirectTo(String),
}

struct Rule {
    method: Method,
    path: &'static str,
    times: Range<usize>,
    seen: usize,
    fault: Fault,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    /// The body of a form; empty otherwise.
    pub body: Bytes,
}

impl Recorded {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[derive(Default)]
struct Repository {
    /// By tag and by digest: content type and bytes.
    manifests: BTreeMap<String, (String, Bytes)>,
    blobs: BTreeMap<String, Bytes>,
}

#[derive(Default)]
struct Shared {
    repositories: BTreeMap<String, Repository>,
    rules: Vec<Rule>,
    requests: Vec<Recorded>,
    auth: Auth,
    tokens: usize,
    revoked: usize,
    origin: String,
}

/// The registry while its script is written.
#[derive(Default)]
pub struct Builder {
    shared: Shared,
    tls: Option<tokio_rustls::TlsAcceptor>,
}

impl Builder {
    pub fn auth(mut self, auth: Auth) -> Self {
        self.shared.auth = auth;
        self
    }

    /// Serves HTTPS with this configuration.
    pub fn tls(mut self, config: tokio_rustls::rustls::ServerConfig) -> Self {
        self.tls = Some(Arc::new(config).into());
        self
    }

    pub fn manifest(mut self, repository: &str, tag: &str, content_type: &str, bytes: &[u8]) -> Self {
        let repository = self.shared.repositories.entry(repository.into()).or_default();
        let manifest = (content_type.to_owned(), Bytes::copy_from_slice(bytes));
        repository.manifests.insert(Digest::of(bytes).to_string(), manifest.clone());
        repository.manifests.insert(tag.into(), manifest);
        self
    }

    pub fn blob(mut self, repository: &str, bytes: &[u8]) -> Self {
        let repository = self.shared.repositories.entry(repository.into()).or_default();
        repository.blobs.insert(Digest::of(bytes).to_string(), Bytes::copy_from_slice(bytes));
        self
    }

    pub fn image(self, repository: &str, tag: &str, image: &TestImage) -> Self {
        let with = self.manifest(repository, tag, image.manifest_type(), &image.manifest);
        let with = with.blob(repository, &image.config);
        image.layers.iter().fold(with, |with, layer| with.blob(repository, layer))
    }

    /// Does `fault` to those requests of `method` whose path contains `path` that are counted by `times`.
    pub fn fault(mut self, method: Method, path: &'static str, times: Range<usize>, fault: Fault) -> Self {
        self.shared.rules.push(Rule { method, path, times, seen: 0, fault });
        self
    }

    pub fn start(self) -> FaultRegistry {
        let (stop, stopped) = oneshot::channel();
        let (started, address) = std::sync::mpsc::channel();
        let is_tls = self.tls.is_some();
        let shared = Arc::new(Mutex::new(self.shared));
        let serve = {
            let (shared, tls) = (shared.clone(), self.tls);
            async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                started.send(listener.local_addr().expect("its address")).expect("a waiting test");
                let app = axum::Router::new().fallback(handle).with_state(shared);
                match tls {
                    None => drop(
                        tokio::select! { served = axum::serve(listener, app).into_future() => served, _ = stopped => Ok(()) },
                    ),
                    Some(tls) => {
                        let listener = TlsListener { listener, tls };
                        drop(
                            tokio::select! { served = axum::serve(listener, app).into_future() => served, _ = stopped => Ok(()) },
                        );
                    }
                }
            }
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve);
        });
        let address: SocketAddr = address.recv().expect("a started server");
        let scheme = if is_tls { "https" } else { "http" };
        let origin = format!("{scheme}://{address}");
        shared.lock().expect("no panic under the lock").origin.clone_from(&origin);
        FaultRegistry { address, origin, shared, stop: Some(stop), thread: Some(thread) }
    }
}

/// A registry being served; it ends when dropped.
pub struct FaultRegistry {
    pub address: SocketAddr,
    /// Scheme, host and port.
    pub origin: String,
    shared: Arc<Mutex<Shared>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FaultRegistry {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.lock().expect("no panic under the lock").requests.clone()
    }

    /// Method and target of what was asked so far, in order.
    pub fn log(&self) -> Vec<String> {
        self.requests().iter().map(|request| format!("{} {}", request.method, request.target)).collect()
    }

    /// Makes all tokens given so far worthless.
    pub fn revoke_tokens(&self) {
        let mut shared = self.shared.lock().expect("no panic under the lock");
        shared.revoked = shared.tokens;
    }

    /// Lets a tag point to other bytes.
    pub fn move_tag(&self, repository: &str, tag: &str, content_type: &str, bytes: &[u8]) {
        let mut shared = self.shared.lock().expect("no panic under the lock");
        let repository = shared.repositories.get_mut(repository).expect("a repository");
        let manifest = (content_type.to_owned(), Bytes::copy_from_slice(bytes));
        repository.manifests.insert(Digest::of(bytes).to_string(), manifest.clone());
        repository.manifests.insert(tag.into(), manifest);
    }
}

impl Drop for FaultRegistry {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let joined = thread.join();
            assert!(joined.is_ok() || std::thread::panicking(), "the registry's thread panicked");
        }
    }
}

struct TlsListener {
    listener: TcpListener,
    tls: tokio_rustls::TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn handle(State(shared): State<Arc<Mutex<Shared>>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1024 * 1024).await.unwrap_or_default();
    let target = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let request = Recorded { method: parts.method, target, headers: parts.headers, body };
    let (honest, faults) = {
        let mut shared = shared.lock().expect("no panic under the lock");
        shared.requests.push(request.clone());
        let faults = shared.faults(&request);
        let whole = faults.iter().any(|fault| matches!(fault, Fault::IgnoreRange));
        (shared.answer(&request, whole), faults)
    };
    let answer = faults.into_iter().fold(honest, |answer, fault| spoil(answer, fault, &request));
    if matches!(answer.body, Spoilt::Never) {
        std::future::pending::<()>().await;
    }
    answer.into()
}

/// An answer whose body is still whole.
struct Answer {
    head: Response<()>,
    body: Spoilt,
}

enum Spoilt {
    Whole(Bytes),
    /// These bytes, then an error if there are fewer than the head says.
    Cut(Bytes),
    Stall(Bytes),
    Drip(Bytes),
    Endless,
    /// Not even the head.
    Never,
}

impl From<Answer> for Response<Body> {
    fn from(answer: Answer) -> Self {
        let body = match answer.body {
            Spoilt::Whole(bytes) => Body::from(bytes),
            Spoilt::Cut(bytes) => {
                // Yielding lets the bytes go out before the error takes the connection down.
                let cut = stream::once(async {
                    tokio::task::yield_now().await;
                    Err(std::io::Error::other("cut by the script"))
                });
                Body::from_stream(stream::iter([Ok(bytes)]).chain(cut))
            }
            Spoilt::Stall(bytes) => {
                Body::from_stream(stream::iter([Ok::<_, Infallible>(bytes)]).chain(stream::pending()))
            }
            Spoilt::Drip(bytes) => Body::from_stream(stream::unfold(bytes, |mut left| async move {
                tokio::time::sleep(DRIP).await;
                (!left.is_empty()).then(|| (Ok::<_, Infallible>(left.split_to(1)), left))
            })),
            Spoilt::Never => Body::empty(),
            Spoilt::Endless => Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(vec![b' '; 64 * 1024]))),
        };
        answer.head.map(|()| body)
    }
}

fn spoil(mut answer: Answer, fault: Fault, request: &Recorded) -> Answer {
    let Spoilt::Whole(bytes) = &answer.body else { return answer };
    let bytes = bytes.clone();
    let length = |answer: &mut Answer, count: usize| {
        answer.head.headers_mut().insert(header::CONTENT_LENGTH, count.into());
    };
    match fault {
        Fault::Status(status, headers, body) => {
            let mut builder = Response::builder().status(status);
            for (name, value) in headers {
                builder = builder.header(*name, *value);
            }
            return Answer { head: builder.body(()).expect("an answer"), body: Spoilt::Whole(body.into()) };
        }
        Fault::Hang => answer.body = Spoilt::Never,
        Fault::Cut(count) => {
            length(&mut answer, bytes.len());
            answer.body = Spoilt::Cut(bytes.slice(..count.min(bytes.len())));
        }
        Fault::Shorten(count) => answer.body = Spoilt::Whole(bytes.slice(..count.min(bytes.len()))),
        Fault::Stall(count) => {
            length(&mut answer, bytes.len());
            answer.body = Spoilt::Stall(bytes.slice(..count.min(bytes.len())));
        }
        Fault::Drip => {
            length(&mut answer, bytes.len());
            answer.body = Spoilt::Drip(bytes);
        }
        Fault::Flip(at) => {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1;
            answer.body = Spoilt::Whole(flipped.into());
        }
        Fault::IgnoreRange => {}
        Fault::Endless => answer.body = Spoilt::Endless,
        Fault::Header(name, value) if value.is_empty() => drop(answer.head.headers_mut().remove(name)),
        Fault::Header(name, value) => {
            answer.head.headers_mut().insert(name, value.parse().expect("a header value"));
        }
        Fault::Redirect(to) => return redirect(&to),
        Fault::RedirectTo(origin) => return redirect(&format!("{origin}{}", request.target)),
    }
    answer
}

fn redirect(to: &str) -> Answer {
    let head = Response::builder().status(StatusCode::TEMPORARY_REDIRECT).header(header::LOCATION, to);
    Answer { head: head.body(()).expect("an answer"), body: Spoilt::Whole(Bytes::new()) }
}

fn refuse(status: StatusCode, code: &str) -> Answer {
    let body = json!({"errors": [{"code": code, "message": "says the test registry"}]}).to_string();
    let head = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    Answer { head: head.body(()).expect("an answer"), body: Spoilt::Whole(body.into()) }
}

impl Shared {
    fn faults(&mut self, request: &Recorded) -> Vec<Fault> {
        let mut faults = Vec::new();
        for rule in &mut self.rules {
            if rule.method == request.method && request.target.contains(rule.path) {
                if rule.times.contains(&rule.seen) {
                    faults.push(rule.fault.clone());
                }
                rule.seen += 1;
            }
        }
        faults
    }

    /// The honest answer.
    fn answer(&mut self, request: &Recorded, ignore_range: bool) -> Answer {
        let path = request.target.split('?').next().unwrap_or_default();
        if path == "/token" {
            return self.token(request);
        }
        if let Some(challenge) = self.challenge(request) {
            let mut answer = refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
            answer.head.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().expect("a header value"));
            return answer;
        }
        let parts = path.strip_prefix("/v2/").unwrap_or_default();
        if let Some((repository, reference)) = parts.split_once("/manifests/") {
            let Some(repository) = self.repositories.get(repository) else {
                return refuse(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
            };
            let Some((content_type, bytes)) = repository.manifests.get(reference) else {
                return refuse(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
            };
            let head = Response::builder()
                .header(header::CONTENT_TYPE, content_type)
                .header("docker-content-digest", Digest::of(bytes).to_string())
                .body(());
            return Answer { head: head.expect("an answer"), body: Spoilt::Whole(bytes.clone()) };
        }
        if let Some((repository, digest)) = parts.split_once("/blobs/") {
            let blob = self.repositories.get(repository).and_then(|repository| repository.blobs.get(digest));
            let Some(blob) = blob else { return refuse(StatusCode::NOT_FOUND, "BLOB_UNKNOWN") };
            return blob_answer(blob, request.header("range").filter(|_| !ignore_range));
        }
        refuse(StatusCode::NOT_FOUND, "UNSUPPORTED")
    }

    /// What is wanted of a request that does not prove enough.
    fn challenge(&self, request: &Recorded) -> Option<String> {
        let given = request.header("authorization");
        match &self.auth {
            Auth::Open => None,
            Auth::Basic(user, password) => {
                (given != Some(&basic(user, password))).then(|| "Basic realm=\"test\"".to_owned())
            }
            Auth::Bearer(_) => {
                let token = given.and_then(|given| given.strip_prefix("Bearer token-")?.parse::<usize>().ok());
                let is_good = token.is_some_and(|token| token > self.revoked && token <= self.tokens);
                (!is_good).then(|| format!("Bearer realm=\"{}/token\",service=\"test\"", self.origin))
            }
            Auth::BearerAt(realm) => Some(format!("Bearer realm=\"{realm}\",service=\"test\"")),
        }
    }

    fn token(&mut self, request: &Recorded) -> Answer {
        let given = request.header("authorization");
        if let (Auth::Bearer(Some((user, password))), false) = (&self.auth, request.method == Method::POST)
            && given != Some(&basic(user, password))
        {
            return refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
        }
        if matches!(self.auth, Auth::Bearer(None)) && given.is_some() {
            // As public.ecr.aws answers an expired login.
            return refuse(StatusCode::BAD_REQUEST, "DENIED");
        }
        self.tokens += 1;
        let body = json!({"token": format!("token-{}", self.tokens), "expires_in": 300}).to_string();
        Answer { head: Response::new(()), body: Spoilt::Whole(body.into()) }
    }
}

fn blob_answer(blob: &Bytes, range: Option<&str>) -> Answer {
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match start {
        None => Answer { head: Response::new(()), body: Spoilt::Whole(blob.clone()) },
        Some(start) if start >= blob.len() => refuse(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID"),
        Some(start) => {
            let head = Response::builder()
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{}", blob.len() - 1, blob.len()));
            Answer { head: head.body(()).expect("an answer"), body: Spoilt::Whole(blob.slice(start..)) }
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
