//! An HTTPS proxy that leads one host name to a server of the test, so that the program runs with TLS and a name.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

/// The proxy. Its thread ends with the test's process.
pub struct Tunnel {
    address: SocketAddr,
    certificates: TempDir,
    listener: Option<TcpListener>,
}

impl Tunnel {
    /// A tunnel yet without an end, and what the server at its end is to serve with.
    pub fn prepare(host: &str) -> (Self, ServerConfig) {
        let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a configuration");
        let certificates = TempDir::new().expect("a temporary directory");
        std::fs::write(certificates.path().join("key.pem"), made.signing_key.serialize_pem()).expect("written");
        std::fs::write(certificates.path().join("authority.pem"), made.cert.pem()).expect("written");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        (Self { address, certificates, listener: Some(listener) }, config)
    }

    /// The certificate and key that the end serves with, as files, for a server that is another program.
    pub fn files(&self) -> (PathBuf, PathBuf) {
        (self.authority(), self.certificates.path().join("key.pem"))
    }

    /// Leads every connection to `end`.
    pub fn start(mut self, end: SocketAddr) -> Self {
        let listener = self.listener.take().expect("a tunnel that was not started");
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                thread::spawn(move || lead(connection, end));
            }
        });
        self
    }

    /// The value of `HTTPS_PROXY`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The value of `SSL_CERT_FILE`.
    pub fn authority(&self) -> PathBuf {
        self.certificates.path().join("authority.pem")
    }
}

/// Either side may leave at any moment, which ends both.
fn lead(mut client: TcpStream, end: SocketAddr) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let mut server = TcpStream::connect(end).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    thread::spawn(move || {
        drop(std::io::copy(&mut from_client, &mut to_server));
        drop(to_server.shutdown(std::net::Shutdown::Write));
    });
    drop(std::io::copy(&mut server, &mut client));
    drop(client.shutdown(std::net::Shutdown::Both));
    Some(())
}
