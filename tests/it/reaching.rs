//! The way to a registry: names, certificates, proxies, and which HTTP is spoken.
//!
//! Each test runs itself in a child that has the variables which say the way.

use std::fs;
use std::sync::{Arc, Mutex};

use axum::http::Method;
use cargo_lambda_image::event::{Event, Reporter, Session};
use cargo_lambda_image::oci::Digest;
use cargo_lambda_image::registry::Client;
use cargo_lambda_image::registry::credentials::CredentialSource;
use cargo_lambda_image::registry::error::{Error, ErrorKind};
use cargo_lambda_image::registry::origin::Origin;
use cargo_lambda_image::registry::pull::{Document, Selector};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::pull::patience;
use crate::support::child;
use crate::support::images::{Family, TestImage};
use crate::support::registry::{Auth, Builder, Fault, FaultRegistry};
use crate::support::tools::block_on;

fn client(origin: &str) -> Client {
    let origin = Origin::from_url(origin).expect("an origin");
    Client::new(origin, CredentialSource::Anonymous, patience(), &Session::silent())
}

fn registry() -> Builder {
    FaultRegistry::builder().image("a", "1", &TestImage::new(Family::Oci, "amd64"))
}

/// Where the parent's registry is.
fn origin() -> String {
    std::env::var("REGISTRY").expect("where the registry is")
}

async fn manifest(client: &Client) -> Result<Document, Error> {
    client.manifest("a", &Selector::Tag("1".into())).await
}

/// A certificate for `localhost` and the loopback address that signs itself: as PEM, and as a server's configuration.
fn certificate() -> (String, ServerConfig) {
    certificate_of((2020, 4000))
}

/// One that is valid from the beginning of one year to that of another.
fn certificate_of((from, to): (i32, i32)) -> (String, ServerConfig) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut parameters = rcgen::CertificateParams::new(names).expect("names");
    parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(to, 1, 1);
    let signing_key = rcgen::KeyPair::generate().expect("a key");
    let made = parameters.self_signed(&signing_key).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config =
        ServerConfig::builder_with_provider(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.der().clone()], key)
            .expect("a configuration");
    (made.pem(), config)
}

/// Runs a test again, with this certificate trusted.
fn run_trusting(test: &str, registry: &FaultRegistry, pem: &str, more: &[(&str, &str)]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("authority.pem");
    fs::write(&file, pem).expect("written");
    let file = file.to_str().expect("a plain path");
    let environment = [("REGISTRY", registry.origin.as_str()), ("SSL_CERT_FILE", file)];
    child::run(&format!("reaching::{test}"), &[&environment, more].concat());
}

#[test]
fn certificates_of_ssl_cert_file_are_trusted_and_others_are_not() {
    const TEST: &str = "certificates_of_ssl_cert_file_are_trusted_and_others_are_not";
    if child::is_child() {
        let is_trusted = std::env::var("TRUSTED").is_ok();
        match block_on(manifest(&client(&origin()))) {
            Ok(_) => assert!(is_trusted, "an unknown certificate was trusted"),
            Err(error) => {
                assert!(!is_trusted, "{} {:?}", error.problem, error.problem.causes());
                assert_eq!(error.kind, ErrorKind::Unreachable { worth_retrying: false });
                let host = origin().replace("https://", "");
                assert_eq!(error.problem.message(), format!("the certificate of `{host}` is not trusted"));
                assert!(error.problem.next_step().expect("a next step").contains("SSL_CERT_FILE"));
            }
        }
        return;
    }
    let ((ours, config), (theirs, _)) = (certificate(), certificate());
    let registry = registry().auth(Auth::Bearer(None)).tls(config).start();
    run_trusting(TEST, &registry, &ours, &[("TRUSTED", "1")]);
    run_trusting(TEST, &registry, &theirs, &[]);
}

#[test]
fn a_certificate_out_of_date_is_told_as_that_and_not_asked_again() {
    if child::is_child() {
        let error = block_on(manifest(&client(&origin()))).expect_err("out of date");
        assert_eq!(error.kind, ErrorKind::Unreachable { worth_retrying: false }, "{:?}", error.problem.causes());
        let (host, what) = (origin().replace("https://", ""), std::env::var("EXPECTED").expect("what is wrong"));
        assert_eq!(error.problem.message(), format!("the certificate of `{host}` {what}"));
        let help = error.problem.next_step().unwrap_or_default();
        assert!(help.contains("this machine's clock"), "{help}");
        return;
    }
    for (years, expected) in [((2019, 2020), "has expired"), ((2090, 2091), "is not valid yet")] {
        let (pem, config) = certificate_of(years);
        let test = "a_certificate_out_of_date_is_told_as_that_and_not_asked_again";
        run_trusting(test, &registry().tls(config).start(), &pem, &[("EXPECTED", expected)]);
    }
}

#[test]
fn http_2_is_not_spoken_where_it_is_offered() {
    if child::is_child() {
        block_on(manifest(&client(&origin()))).expect("a manifest");
        return;
    }
    // The registry speaks HTTP/1.1, so that who believed its offer would get no answer.
    let (pem, mut config) = certificate();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    run_trusting("http_2_is_not_spoken_where_it_is_offered", &registry().tls(config).start(), &pem, &[]);
}

#[test]
fn https_is_never_left_for_plain_http() {
    if child::is_child() {
        block_on(async {
            let client = client(&origin());
            let redirected = manifest(&client).await.expect_err("a redirect");
            let located = client.mount("a", &Digest::of(b"x"), "b").await.expect_err("a location");
            for error in [redirected, located] {
                assert_eq!(error.kind, ErrorKind::Stopped);
                let causes = error.problem.causes();
                assert!(causes[0].starts_with("it leads from https to plain http: http://127.0.0.1:"), "{causes:?}");
            }
        });
        return;
    }
    let (pem, config) = certificate();
    let plain = registry().start();
    let location = Fault::Header("location", format!("{}/v2/a/blobs/uploads/1-0", plain.origin));
    let registry = registry()
        .tls(config)
        .fault(Method::GET, "/manifests/", 0..9, Fault::RedirectTo(plain.origin.clone()))
        .fault(Method::POST, "/uploads/", 0..9, location)
        .start();
    run_trusting("https_is_never_left_for_plain_http", &registry, &pem, &[]);
    assert_eq!((registry.requests().len(), plain.requests().len()), (2, 0));
}

#[test]
fn this_machine_is_reached_without_the_proxy() {
    if child::is_child() {
        block_on(async {
            manifest(&client(&origin())).await.expect("a manifest");
            let error = manifest(&client("https://registry.invalid")).await;
            assert!(matches!(error.expect_err("the proxy is no proxy").kind, ErrorKind::Unreachable { .. }));
        });
        return;
    }
    let proxy = FaultRegistry::builder().start();
    let registry = registry().start();
    let environment =
        [("REGISTRY", registry.origin.as_str()), ("HTTP_PROXY", &proxy.origin), ("HTTPS_PROXY", &proxy.origin)];
    child::run("reaching::this_machine_is_reached_without_the_proxy", &environment);
    let asked: Vec<_> = proxy.requests().iter().map(|request| request.method.clone()).collect();
    assert!(!asked.is_empty() && asked.iter().all(|method| method == Method::CONNECT), "{asked:?}");
}

#[test]
fn whom_no_proxy_names_is_reached_without_one() {
    if child::is_child() {
        block_on(manifest(&client(&origin()))).expect("a manifest");
        return;
    }
    let (proxy, registry) = (registry().start(), registry().start());
    // Every address of this machine, and none that is known to be its own.
    let origin = registry.origin.replace("127.0.0.1", "0.0.0.0");
    for (no_proxy, proxied) in [("registry.example,0.0.0.0", 0), ("registry.example", 1)] {
        let environment = [("REGISTRY", origin.as_str()), ("HTTP_PROXY", &proxy.origin), ("NO_PROXY", no_proxy)];
        child::run("reaching::whom_no_proxy_names_is_reached_without_one", &environment);
        assert_eq!((proxy.requests().len(), registry.requests().len()), (proxied, 1), "{no_proxy}");
    }
}

#[tokio::test]
async fn a_registry_that_answered_before_is_waited_for_as_long_as_for_an_answer() {
    let (retried, registry) = (Retried::default(), registry().start());
    let origin = Origin::from_url(&registry.origin).expect("an origin");
    let session = Session::new(Box::new(retried.clone()));
    let client = Client::new(origin, CredentialSource::Anonymous, patience(), &session);
    manifest(&client).await.expect("a manifest");
    drop(registry);
    manifest(&client).await.expect_err("nobody is there");
    assert_eq!(*retried.0.lock().expect("no panic under the lock"), patience().tries - 1);
}

#[test]
fn a_host_nobody_knows_is_looked_for_again_and_then_named() {
    if child::is_child() {
        let retried = Retried::default();
        let origin = Origin::from_url("https://registry.invalid").expect("an origin");
        let session = Session::new(Box::new(retried.clone()));
        let client = Client::new(origin, CredentialSource::Anonymous, patience(), &session);
        let error = block_on(manifest(&client)).expect_err("no such host");
        assert_eq!(error.kind, ErrorKind::Unreachable { worth_retrying: true }, "{:?}", error.problem.causes());
        assert_eq!(error.problem.message(), "could not reach `registry.invalid`");
        assert!(error.problem.next_step().is_some_and(|help| help.starts_with("check the host name")));
        assert_eq!(*retried.0.lock().expect("no panic under the lock"), patience().connect_tries - 1);
        return;
    }
    child::run("reaching::a_host_nobody_knows_is_looked_for_again_and_then_named", &[]);
}

/// Counts the tries that are tried again.
#[derive(Clone, Default)]
struct Retried(Arc<Mutex<usize>>);

impl Reporter for Retried {
    fn event(&self, event: &Event<'_>) {
        if let Event::Retrying { .. } = event {
            *self.0.lock().expect("no panic under the lock") += 1;
        }
    }
}

#[test]
fn a_proxy_that_wants_a_password_is_not_asked_twice() {
    if child::is_child() {
        let error = block_on(manifest(&client("https://registry.invalid"))).expect_err("no tunnel");
        assert_eq!(error.kind, ErrorKind::Unreachable { worth_retrying: false }, "{:?}", error.problem.causes());
        assert_eq!(error.problem.next_step(), Some("put the user name and password into `HTTPS_PROXY`"));
        return;
    }
    let proxy = FaultRegistry::builder().fault(Method::CONNECT, "", 0..9, Fault::Status(407, &[], "")).start();
    let environment = [("HTTPS_PROXY", proxy.origin.as_str())];
    child::run("reaching::a_proxy_that_wants_a_password_is_not_asked_twice", &environment);
    assert_eq!(proxy.requests().len(), 1);
}
