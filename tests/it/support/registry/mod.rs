//! A registry in this process that does what its script says: the honest protocol, and every fault on request.
//!
//! It serves from a thread of its own, so that tests of the library and of the binary can use it alike. Faults are
//! rules: which requests, which of them by count, and what happens instead.
//!
//! `answers` are what is sent, whole or spoilt, `wire` are connections that can be cut, `uploads` is what pushing
//! needs, ECR's ways included.

mod answers;
mod uploads;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cargo_lambda_image::oci::Digest;
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use self::answers::{Answer, Spoilt, blob_answer, plain, refuse, spoil};
use self::uploads::Uploads;
pub use self::uploads::{Mounts, Ways};
use self::wire::{Cutter, WireListener};
use super::images::TestImage;

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
    /// Whoever knows the user name `AWS` and one of the passwords `login-1`, `login-2` and so on that is not expired.
    Ecr,
}

/// What happens instead of the honest answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// An error status with these headers and this body.
    Status(u16, &'static [(&'static str, &'static str)], &'static str),
    /// No answer ever comes.
    Hang,
    /// All is done as it should be, and the answer comes after this time.
    Late(Duration),
    /// The body breaks off after so many bytes, whatever its `Content-Length` said.
    Cut(usize),
    /// The body is cut to so many bytes, and its `Content-Length` with it.
    Shorten(usize),
    /// The body is whole and then breaks off, since its `Content-Length` promised so many bytes.
    Promise(u64),
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
    /// The connection breaks once so many bytes of the request's body were read.
    ReadThenCut(usize),
    /// Nothing more is read after so many bytes, and no answer comes.
    ReadThenHang(usize),
    /// This status and body are the answer once so many bytes were read, and no more are.
    ReadThenAnswer(usize, u16, &'static str),
    /// All is done as it should be, and the connection breaks instead of the answer.
    DropReply,
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
    /// The body of a form or a manifest; empty otherwise.
    pub body: Bytes,
    /// How many bytes of its body were read.
    pub received: u64,
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
    uploads: Uploads,
}

#[derive(Default)]
struct Shared {
    repositories: BTreeMap<String, Repository>,
    rules: Vec<Rule>,
    requests: Vec<Recorded>,
    auth: Auth,
    tokens: usize,
    revoked: usize,
    ways: Ways,
    origin: String,
}

/// The registry while its script is written.
#[derive(Default)]
pub struct Builder {
    shared: Shared,
    is_everywhere: bool,
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

    /// Takes pushes, in these ways.
    pub fn ways(mut self, ways: Ways) -> Self {
        self.shared.ways = ways;
        self
    }

    /// A repository that is there, and empty unless something is put into it.
    pub fn repository(mut self, repository: &str) -> Self {
        self.shared.repositories.entry(repository.into()).or_default();
        self
    }

    /// Does `fault` to those requests of `method` whose path contains `path` that are counted by `times`.
    pub fn fault(mut self, method: Method, path: &'static str, times: Range<usize>, fault: Fault) -> Self {
        self.shared.rules.push(Rule { method, path, times, seen: 0, fault });
        self
    }

    /// Listens at every address of the machine, those that it gets later too.
    pub fn everywhere(mut self) -> Self {
        self.is_everywhere = true;
        self
    }

    pub fn start(self) -> FaultRegistry {
        let (stop, stopped) = oneshot::channel();
        let (started, address) = std::sync::mpsc::channel();
        let is_tls = self.tls.is_some();
        let at = if self.is_everywhere { "0.0.0.0:0" } else { "127.0.0.1:0" };
        let shared = Arc::new(Mutex::new(self.shared));
        let serve = {
            let (shared, tls) = (shared.clone(), self.tls);
            async move {
                let listener = TcpListener::bind(at).await.expect("a free port");
                started.send(listener.local_addr().expect("its address")).expect("a waiting test");
                let app = axum::Router::new().fallback(handle).with_state(shared);
                let service = app.into_make_service_with_connect_info::<Cutter>();
                let serving = axum::serve(WireListener { listener, tls }, service).into_future();
                drop(tokio::select! { served = serving => served, _ = stopped => Ok(()) });
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

    /// Makes the logins of [`Auth::Ecr`] up to this number worthless.
    pub fn expire_logins(&self, number: usize) {
        self.shared.lock().expect("no panic under the lock").revoked = number;
    }

    /// Bytes of blobs that were received so far.
    pub fn received(&self) -> u64 {
        self.requests()
            .iter()
            .filter(|request| request.target.contains("/blobs/"))
            .map(|request| request.received)
            .sum()
    }

    /// How many uploads of a repository were begun and neither closed nor given up.
    pub fn open_sessions(&self, repository: &str) -> usize {
        let shared = self.shared.lock().expect("no panic under the lock");
        shared.repositories.get(repository).map_or(0, |repository| repository.uploads.open.len())
    }

    /// How many requests of this method had this in their target.
    pub fn count(&self, method: Method, part: &str) -> usize {
        self.requests().iter().filter(|request| request.method == method && request.target.contains(part)).count()
    }

    /// A blob as it is there.
    pub fn blob(&self, repository: &str, bytes: &[u8]) -> Option<Bytes> {
        let shared = self.shared.lock().expect("no panic under the lock");
        shared.repositories.get(repository)?.blobs.get(&Digest::of(bytes).to_string()).cloned()
    }

    /// The blob of this digest.
    pub fn blob_of(&self, repository: &str, digest: &str) -> Option<Bytes> {
        let shared = self.shared.lock().expect("no panic under the lock");
        shared.repositories.get(repository)?.blobs.get(digest).cloned()
    }

    /// How many bytes the blob of this digest has, whose digest is right.
    pub fn blob_size(&self, repository: &str, digest: &str) -> Option<u64> {
        let shared = self.shared.lock().expect("no panic under the lock");
        let blob = shared.repositories.get(repository)?.blobs.get(digest)?;
        assert_eq!(Digest::of(blob).to_string(), digest, "a blob under a wrong name");
        Some(blob.len() as u64)
    }

    /// What a tag or digest names.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Bytes> {
        let shared = self.shared.lock().expect("no panic under the lock");
        Some(shared.repositories.get(repository)?.manifests.get(reference)?.1.clone())
    }

    /// Takes a blob away.
    pub fn forget(&self, repository: &str, bytes: &[u8]) {
        self.forget_digest(repository, &Digest::of(bytes));
    }

    /// Takes away the blob of this digest.
    pub fn forget_digest(&self, repository: &str, digest: &Digest) {
        let mut shared = self.shared.lock().expect("no panic under the lock");
        let repository = shared.repositories.get_mut(repository).expect("a repository");
        repository.blobs.remove(&digest.to_string());
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

async fn handle(
    State(shared): State<Arc<Mutex<Shared>>>,
    ConnectInfo(cutter): ConnectInfo<Cutter>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let request = Recorded { method: parts.method, target, headers: parts.headers, body: Bytes::new(), received: 0 };
    let (index, faults) = {
        let mut shared = shared.lock().expect("no panic under the lock");
        shared.requests.push(request.clone());
        (shared.requests.len() - 1, shared.faults(&request))
    };
    let limit = faults.iter().find_map(|fault| match fault {
        Fault::ReadThenCut(count) | Fault::ReadThenHang(count) | Fault::ReadThenAnswer(count, ..) => Some(*count),
        _ => None,
    });
    let body = read(body, limit, |count| {
        shared.lock().expect("no panic under the lock").requests[index].received += count as u64;
    });
    let (body, left) = body.await;
    let request = Recorded { received: body.len() as u64, body, ..request };
    let mut answer = {
        let mut shared = shared.lock().expect("no panic under the lock");
        if !request.target.contains("/blobs/") {
            shared.requests[index].body = request.body.clone();
        }
        let whole = faults.iter().any(|fault| matches!(fault, Fault::IgnoreRange));
        // What fails has no effect.
        let fails = limit.is_some() || faults.iter().any(|fault| matches!(fault, Fault::Status(..)));
        let honest = if fails { refuse(StatusCode::IM_A_TEAPOT, "SPOILT") } else { shared.answer(&request, whole) };
        drop(shared);
        faults.into_iter().fold(honest, |answer, fault| spoil(answer, fault, &request))
    };
    match answer.body {
        Spoilt::Late(after) => {
            tokio::time::sleep(after).await;
            answer.body = Spoilt::Whole(Bytes::new());
        }
        Spoilt::Never => std::future::pending::<()>().await,
        Spoilt::Broken => cutter.cut(),
        _ => {}
    }
    drop(left);
    answer.into()
}

/// Reads a body, or its first `limit` bytes; what is left of it is not read until it is dropped.
async fn read(
    body: Body,
    limit: Option<usize>,
    mut count: impl FnMut(usize),
) -> (Bytes, Option<axum::body::BodyDataStream>) {
    let mut pieces = body.into_data_stream();
    let mut read = Vec::new();
    while limit.is_none_or(|limit| read.len() < limit) {
        match pieces.next().await {
            Some(Ok(piece)) => {
                count(piece.len());
                read.extend_from_slice(&piece);
            }
            // A body that broke off never was: its connection is gone, and so is whoever waits for an answer.
            Some(Err(_)) => std::future::pending().await,
            None => return (read.into(), None),
        }
    }
    (read.into(), Some(pieces))
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
        if let Some(expired) = self.expired(request) {
            return expired;
        }
        let parts = path.strip_prefix("/v2/").unwrap_or_default();
        if let Some(answer) = self.push(request, parts) {
            return answer;
        }
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
            Auth::Ecr => {
                given.is_none().then(|| "Basic realm=\"https://ecr\",service=\"ecr.amazonaws.com\"".to_owned())
            }
            Auth::BearerAt(realm) => Some(format!("Bearer realm=\"{realm}\",service=\"test\"")),
        }
    }

    /// What ECR says of a login that is not, or no more, good: no challenge.
    fn expired(&self, request: &Recorded) -> Option<Answer> {
        let Auth::Ecr = self.auth else { return None };
        let given =
            request.header("authorization").and_then(|given| STANDARD.decode(given.strip_prefix("Basic ")?).ok());
        let given = String::from_utf8(given.unwrap_or_default()).unwrap_or_default();
        match given.strip_prefix("AWS:login-").and_then(|number| number.parse::<usize>().ok()) {
            Some(number) if number > self.revoked => None,
            Some(_) => Some(plain(
                403,
                r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}"#,
            )),
            None => Some(plain(400, "")),
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

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
