//! An HTTPS proxy that is `public.ecr.aws`, so that the program runs with its real host names, TLS and proxy code.
//!
//! As there, anybody gets a token but nobody goes without, and blobs come by way of a redirect to another host, which
//! refuses whoever sends it the token. Behind both is a local registry. The certificates are of a private authority.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

/// The registry of AWS's base images.
const REGISTRY: &str = "public.ecr.aws";

/// Where it keeps blobs.
const BLOBS: &str = "d5l0dvt14r5h8.cloudfront.net";

const TOKEN: &str = "anonymous-token";

/// The proxy, serving until dropped.
pub struct Proxy {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    certificates: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: String,
    /// Other hosts, and who is each: everything goes through as it is.
    others: Vec<(String, String)>,
    acceptor: TlsAcceptor,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// A proxy before the registry at `upstream` (host and port).
    pub fn start(upstream: &str) -> Self {
        Self::start_with(upstream, &[])
    }

    /// A proxy that is other hosts besides, each with the address (host and port) of who answers for it.
    pub fn start_with(upstream: &str, others: &[(&str, &str)]) -> Self {
        let certificates = TempDir::new().expect("a temporary directory");
        let others: Vec<_> = others.iter().map(|(host, at)| ((*host).to_owned(), (*at).to_owned())).collect();
        let names = [REGISTRY, BLOBS].into_iter().chain(others.iter().map(|(host, _)| host.as_str()));
        let names = names.map(str::to_owned).collect();
        let acceptor = TlsAcceptor::from(Arc::new(tls(&certificates.path().join("ca.pem"), names)));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let upstream = upstream.to_owned();
        let shared = Arc::new(Shared { upstream, others, acceptor, requests: Arc::clone(&requests) });
        let (started, address) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                started.send(listener.local_addr().expect("its address")).expect("a waiting test");
                tokio::select! { () = accept(&listener, shared) => (), _ = stopped => () }
            });
        });
        let address = address.recv().expect("a started proxy");
        Self { address, requests, certificates, stop: Some(stop), thread: Some(thread) }
    }

    /// The value of `HTTPS_PROXY`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The value of `SSL_CERT_FILE`.
    pub fn authority(&self) -> PathBuf {
        self.certificates.path().join("ca.pem")
    }

    /// Method, host and path of what was asked so far, in order.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic under the lock").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends by itself; its panic, if there was one, has been printed.
            let _ = thread.join();
        }
    }
}

/// A certificate for all hosts, whose authority is written to `authority`.
fn tls(authority: &Path, names: Vec<String>) -> ServerConfig {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // To OpenSSL a certificate whose issuer has its own name is self-signed, and by default all are called the same.
    parameters.distinguished_name.push(DnType::CommonName, "authority");
    let key = KeyPair::generate().expect("a key");
    let certificate = parameters.self_signed(&key).expect("an authority");
    std::fs::write(authority, certificate.pem()).expect("a written authority");
    let issuer = Issuer::new(parameters, key);
    let host_key = KeyPair::generate().expect("a key");
    let host = CertificateParams::new(names).expect("host names").signed_by(&host_key, &issuer).expect("a certificate");
    ServerConfig::builder_with_provider(crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![host.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(host_key.serialize_der())),
        )
        .expect("a configuration")
}

async fn accept(listener: &TcpListener, shared: Arc<Shared>) {
    while let Ok((connection, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // A client may leave at any moment; what it missed, its own test will tell.
            let _ = serve(connection, &shared).await;
        });
    }
}

/// Answers one CONNECT and, inside, one request: every answer closes its connection.
async fn serve(mut connection: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let connect = head(&mut connection).await?;
    let host = connect.strip_prefix("CONNECT ").and_then(|rest| rest.split(':').next()).unwrap_or_default().to_owned();
    if let Some((_, at)) = shared.others.iter().find(|(other, _)| *other == host) {
        shared.requests.lock().expect("no panic under the lock").push(format!("CONNECT {host}"));
        connection.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
        let mut client = shared.acceptor.accept(connection).await?;
        let mut upstream = TcpStream::connect(at).await?;
        return tokio::io::copy_bidirectional(&mut client, &mut upstream).await.map(drop);
    }
    if host != REGISTRY && host != BLOBS {
        return connection.write_all(&answer("403 Forbidden", "", "no such host behind this proxy")).await;
    }
    connection.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    let mut client = shared.acceptor.accept(connection).await?;
    let request = head(&mut client).await?;
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    shared.requests.lock().expect("no panic under the lock").push(format!("{method} {host}{path}"));
    let authorization = header(&request, "authorization");
    if host == BLOBS {
        match authorization {
            None => forward(&mut client, &request, shared).await?,
            Some(_) => client.write_all(&answer("400 Bad Request", "", "credentials do not belong here")).await?,
        }
    } else if path.starts_with("/token/") {
        client.write_all(&answer("200 OK", "", &format!(r#"{{"token":"{TOKEN}"}}"#))).await?;
    } else if authorization != Some(&format!("Bearer {TOKEN}")) {
        let challenge = format!(
            "Www-Authenticate: Bearer realm=\"https://{REGISTRY}/token/\",service=\"{REGISTRY}\",scope=\"aws\"\r\n"
        );
        let body = r#"{"errors":[{"code":"DENIED","message":"Not Authorized"}]}"#;
        client.write_all(&answer("401 Unauthorized", &challenge, body)).await?;
    } else if path.contains("/blobs/") {
        let location = format!("Location: https://{BLOBS}{path}\r\n");
        client.write_all(&answer("307 Temporary Redirect", &location, "")).await?;
    } else {
        forward(&mut client, &request, shared).await?;
    }
    client.shutdown().await
}

/// Passes a request without a body on, and all of its answer back.
async fn forward(client: &mut (impl AsyncWrite + Unpin), request: &str, shared: &Shared) -> std::io::Result<()> {
    let mut upstream = TcpStream::connect(&shared.upstream).await?;
    let (first, headers) = request.split_once("\r\n").unwrap_or((request, ""));
    let dropped = ["host:", "connection:", "authorization:"];
    let kept = headers.lines().filter(|line| !dropped.iter().any(|name| line.to_ascii_lowercase().starts_with(name)));
    let kept: String = kept.filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect();
    let head = format!("{first}\r\nHost: {}\r\nConnection: close\r\n{kept}\r\n", shared.upstream);
    upstream.write_all(head.as_bytes()).await?;
    tokio::io::copy(&mut upstream, client).await.map(drop)
}

/// All up to the empty line; nobody sends more than that here.
async fn head(connection: &mut (impl AsyncRead + Unpin)) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(connection.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let lines = request.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        .into_bytes()
}
