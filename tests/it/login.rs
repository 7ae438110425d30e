//! Proving who we are: challenges, tokens, stored logins, and never to the wrong server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cargo_lambda_image::event::{Event, Reporter, Session};
use cargo_lambda_image::oci::{Descriptor, Digest, media_type};
use cargo_lambda_image::registry::Client;
use cargo_lambda_image::registry::credentials::{CredentialSource, Credentials, Secret};
use cargo_lambda_image::registry::error::{Error, ErrorKind};
use cargo_lambda_image::registry::origin::Origin;
use cargo_lambda_image::registry::pull::{Document, Selector};
use cargo_lambda_image::registry::push::Mount;

use crate::pull::patience;
use crate::support::child;
use crate::support::images::{Family, TestImage, noise};
use crate::support::registry::{Auth, Builder, Fault, FaultRegistry};

const PASSWORD: &str = "canary-password";

fn given() -> CredentialSource {
    CredentialSource::Given(Credentials::Password { username: "me".into(), password: Secret::new(PASSWORD) })
}

fn client(origin: &str, credentials: CredentialSource) -> Client {
    Client::new(Origin::from_url(origin).expect("an origin"), credentials, patience(), &Session::silent())
}

fn registry(auth: Auth) -> Builder {
    FaultRegistry::builder().auth(auth).image("a", "1", &TestImage::new(Family::Oci, "amd64"))
}

async fn manifest(client: &Client) -> Result<Document, Error> {
    client.manifest("a", &Selector::Tag("1".into())).await
}

#[tokio::test]
async fn anybody_gets_a_token_once_for_many_requests() {
    let registry = registry(Auth::Bearer(None)).start();
    let client = client(&registry.origin, CredentialSource::Anonymous);
    manifest(&client).await.expect("a manifest");
    manifest(&client).await.expect("a manifest");
    assert_eq!(
        registry.log(),
        [
            "GET /v2/a/manifests/1",
            "GET /token?service=test&scope=repository%3Aa%3Apull",
            "GET /v2/a/manifests/1",
            "GET /v2/a/manifests/1",
        ]
    );
}

#[tokio::test]
async fn many_requests_at_once_refresh_a_token_once() {
    let registry = registry(Auth::Bearer(None)).start();
    let client = client(&registry.origin, CredentialSource::Anonymous);
    manifest(&client).await.expect("a manifest");
    registry.revoke_tokens();
    let (one, two, three) = tokio::join!(manifest(&client), manifest(&client), manifest(&client));
    for document in [one, two, three] {
        document.expect("a manifest");
    }
    let tokens = registry.log().iter().filter(|line| line.starts_with("GET /token")).count();
    assert_eq!(tokens, 2, "{:?}", registry.log());
}

#[tokio::test]
async fn a_login_goes_to_who_asks_for_it_properly() {
    for auth in [Auth::Basic("me", PASSWORD), Auth::Bearer(Some(("me", PASSWORD)))] {
        let registry = registry(auth.clone()).start();
        manifest(&client(&registry.origin, given())).await.expect("a manifest");
        let first = &registry.requests()[0];
        assert_eq!(first.header("authorization"), None, "not before it is asked for");

        let error = manifest(&client(&registry.origin, CredentialSource::Anonymous)).await.expect_err("no login");
        assert_eq!(error.status(), Some(401), "{auth:?}");
    }
}

#[tokio::test]
async fn a_wrong_login_fails_at_once_and_stays_secret() {
    let registry = registry(Auth::Basic("me", "another")).start();
    let error = manifest(&client(&registry.origin, given())).await.expect_err("a wrong password");
    assert_eq!((error.status(), registry.requests().len()), (Some(401), 2));
    let shown = format!("{error:?} {} {:?}", error.problem, error.problem.causes());
    assert!(!shown.contains(PASSWORD) && !shown.contains(&STANDARD.encode(format!("me:{PASSWORD}"))), "{shown}");
}

#[tokio::test]
async fn an_old_login_does_not_keep_anybody_from_what_everybody_may_have() {
    // The server refuses any login with 400, as public.ecr.aws does with an expired one.
    let registry = registry(Auth::Bearer(None)).start();
    manifest(&client(&registry.origin, given())).await.expect("a manifest without a login");
    let tokens: Vec<_> =
        registry.requests().into_iter().filter(|request| request.target.starts_with("/token")).collect();
    let has_login: Vec<_> = tokens.iter().map(|request| request.header("authorization").is_some()).collect();
    assert_eq!(has_login, [true, false]);
}

#[tokio::test]
async fn an_identity_token_is_posted_and_never_in_a_url() {
    let registry = registry(Auth::Bearer(Some(("me", PASSWORD)))).start();
    let source = CredentialSource::Given(Credentials::IdentityToken(Secret::new("canary-token")));
    manifest(&client(&registry.origin, source)).await.expect("a manifest");
    let posted = registry.requests().into_iter().find(|request| request.method == Method::POST).expect("a POST");
    let body = String::from_utf8(posted.body.to_vec()).expect("a form");
    assert_eq!(posted.target, "/token");
    assert!(body.contains("grant_type=refresh_token") && body.contains("refresh_token=canary-token"), "{body}");
    assert!(body.contains("&scope=repository%3Aa%3Apull&"), "{body}");
}

#[tokio::test]
async fn a_form_names_all_scopes_at_once() {
    let registry = registry(Auth::Bearer(Some(("me", PASSWORD)))).start();
    let source = CredentialSource::Given(Credentials::IdentityToken(Secret::new("canary-token")));
    client(&registry.origin, source).mount("a", &Digest::of(b"x"), "b").await.expect("an answer");
    let posted = registry.requests().into_iter().find(|request| request.target == "/token").expect("a question");
    let body = String::from_utf8(posted.body.to_vec()).expect("a form");
    assert_eq!(body.matches("scope=").count(), 1, "{body}");
    assert!(body.contains("scope=repository%3Aa%3Apull%2Cpush+repository%3Ab%3Apull&"), "{body}");
}

#[tokio::test]
async fn a_token_server_without_forms_is_asked_the_old_way() {
    for status in [400, 401, 404, 405] {
        let registry = registry(Auth::Bearer(Some(("", "canary-token"))))
            .fault(Method::POST, "/token", 0..9, Fault::Status(status, &[], ""))
            .start();
        let source = || CredentialSource::Given(Credentials::IdentityToken(Secret::new("canary-token")));
        manifest(&client(&registry.origin, source())).await.expect("a manifest");
        let methods = |registry: &FaultRegistry| {
            let requests = registry.requests().into_iter();
            requests.filter(|it| it.target.starts_with("/token")).map(|it| it.method).collect::<Vec<_>>()
        };
        assert_eq!(methods(&registry), [Method::POST, Method::GET], "{status}");
    }
    let registry = registry(Auth::Bearer(Some(("", "canary-token"))))
        .fault(Method::POST, "/token", 0..9, Fault::Status(403, &[], ""))
        .start();
    let source = CredentialSource::Given(Credentials::IdentityToken(Secret::new("canary-token")));
    let error = client(&registry.origin, source).mount("a", &Digest::of(b"x"), "b").await;
    assert!(matches!(error, Ok(Mount::Declined)), "{error:?}");
    assert_eq!(registry.log().iter().filter(|line| line.contains("/token")).count(), 1, "{:?}", registry.log());
}

#[tokio::test]
async fn a_token_that_is_refused_in_words_alone_is_replaced() {
    // As public.ecr.aws does after an hour, without a challenge.
    const OVER: &str = r#"{"errors":[{"code":"DENIED","message":"Your Authorization Token is invalid."}]}"#;
    for method in [Method::GET, Method::HEAD] {
        let registry = registry(Auth::Bearer(None))
            .fault(
                method.clone(),
                "/manifests/",
                2..3,
                Fault::Status(400, &[], if method == Method::HEAD { "" } else { OVER }),
            )
            .fault(
                Method::GET,
                "/manifests/",
                if method == Method::HEAD { 0..1 } else { 0..0 },
                Fault::Status(400, &[], OVER),
            )
            .start();
        let client = client(&registry.origin, CredentialSource::Anonymous);
        for _ in 0..2 {
            match method {
                Method::HEAD => drop(client.manifest_digest("a", &Selector::Tag("1".into())).await.expect("a digest")),
                _ => drop(manifest(&client).await.expect("a manifest")),
            }
        }
        let tokens = registry.log().iter().filter(|line| line.starts_with("GET /token")).count();
        assert_eq!(tokens, 2, "{:?}", registry.log());
    }
}

#[tokio::test]
async fn another_host_never_sees_the_authorization() {
    let blob = noise(3000);
    for auth in [Auth::Basic("me", PASSWORD), Auth::Bearer(Some(("me", PASSWORD)))] {
        let storage = FaultRegistry::builder().blob("a", &blob).start();
        let registry = registry(auth)
            .blob("a", &blob)
            .fault(Method::GET, "/blobs/", 1..9, Fault::RedirectTo(storage.origin.clone()))
            .start();
        let descriptor = Descriptor {
            media_type: media_type::OCI_LAYER_GZIP.into(),
            digest: Digest::of(&blob),
            size: blob.len() as u64,
        };
        let pulled = client(&registry.origin, given()).small_blob("a", &descriptor, 10_000).await;
        assert_eq!(pulled.expect("the blob"), blob);
        let last = registry.requests().pop().expect("a request");
        assert!(last.header("authorization").is_some(), "the registry does see it");
        for request in storage.requests() {
            assert_eq!(request.header("authorization"), None);
        }
        assert_eq!(storage.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_challenge_of_another_host_is_not_answered() {
    let blob = noise(3000);
    let storage = FaultRegistry::builder().auth(Auth::Basic("me", PASSWORD)).blob("a", &blob).start();
    let registry = registry(Auth::Open)
        .blob("a", &blob)
        .fault(Method::GET, "/blobs/", 0..9, Fault::RedirectTo(storage.origin.clone()))
        .start();
    let descriptor = Descriptor { media_type: String::new(), digest: Digest::of(&blob), size: blob.len() as u64 };
    let error = client(&registry.origin, given()).small_blob("a", &descriptor, 10_000).await.expect_err("a trap");
    assert_eq!(error.status(), Some(401));
    assert_eq!(storage.requests().len(), 1);
}

#[tokio::test]
async fn a_realm_that_would_take_the_login_elsewhere_is_not_asked() {
    for realm in [
        "https://evil.example/token",
        "http://example.com/token",
        "https://169.254.169.254/token",
        "https://[fd00:ec2::254]/token",
        "https://user@127.0.0.1/token",
    ] {
        let registry = registry(Auth::BearerAt(realm.to_owned())).start();
        let error = manifest(&client(&registry.origin, given())).await.expect_err(realm);
        assert_eq!(error.kind, ErrorKind::Stopped, "{realm}: {}", error.problem);
        assert!(error.problem.message().contains("wants a token to be asked of "), "{}", error.problem);
        assert_eq!(registry.requests().len(), 1, "{realm}");
    }
}

#[tokio::test]
async fn a_token_server_that_redirects_is_not_followed() {
    let trap = FaultRegistry::builder().auth(Auth::Bearer(None)).start();
    let registry = registry(Auth::Bearer(Some(("me", PASSWORD))))
        .fault(Method::GET, "/token", 0..9, Fault::RedirectTo(trap.origin.clone()))
        .start();
    let error = manifest(&client(&registry.origin, given())).await.expect_err("a redirect");
    assert_eq!((error.status(), trap.requests().len()), (Some(307), 0));
}

#[tokio::test]
async fn an_endless_or_senseless_token_is_refused() {
    for fault in [Fault::Endless, Fault::Status(200, &[], "<html>"), Fault::Status(200, &[], "{}")] {
        let registry = registry(Auth::Bearer(None)).fault(Method::GET, "/token", 0..9, fault.clone()).start();
        let error = manifest(&client(&registry.origin, CredentialSource::Anonymous)).await.expect_err("no token");
        assert_eq!(error.kind, ErrorKind::Content, "{fault:?}: {}", error.problem);
    }
}

/// A Docker configuration in `directory` that leaves logins to the helper `test`, which this writes too.
fn helper(directory: &Path, script: &str) {
    fs::write(directory.join("config.json"), r#"{"credsStore":"test"}"#).expect("written");
    let path = directory.join("docker-credential-test");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
}

#[test]
fn a_credential_helper_is_asked_for_the_login() {
    const SCRIPT: &str =
        r#"read server; echo "{\"Username\":\"me\",\"Secret\":\"canary-password\",\"ServerURL\":\"$server\"}""#;
    if child::is_child() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let registry = registry(Auth::Basic("me", PASSWORD)).start();
            manifest(&client(&registry.origin, CredentialSource::from_environment())).await.expect("a manifest");
        });
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    helper(directory.path(), SCRIPT);
    let docker = directory.path().to_str().expect("a plain path");
    let path = format!("{docker}:{}", std::env::var("PATH").expect("a PATH"));
    child::run("login::a_credential_helper_is_asked_for_the_login", &[("DOCKER_CONFIG", docker), ("PATH", &path)]);
}

/// Keeps the warnings.
#[derive(Clone, Default)]
struct Warned(Arc<Mutex<Vec<String>>>);

impl Reporter for Warned {
    fn event(&self, event: &Event<'_>) {
        if let Event::Warning { message, .. } = event {
            self.0.lock().expect("no panic under the lock").push((*message).to_owned());
        }
    }
}

#[test]
fn a_credential_helpers_identity_token_is_posted() {
    const SCRIPT: &str = r#"read server; echo '{"Username":"<token>","Secret":"canary-token","ServerURL":"x"}'"#;
    const TEST: &str = "login::a_credential_helpers_identity_token_is_posted";
    if child::is_child() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let registry = registry(Auth::Bearer(Some(("me", PASSWORD)))).start();
            manifest(&client(&registry.origin, CredentialSource::from_environment())).await.expect("a manifest");
            let posted = registry.requests().into_iter().find(|request| request.method == Method::POST);
            let form = String::from_utf8(posted.expect("a form").body.to_vec()).expect("text");
            assert!(form.contains("refresh_token=canary-token"), "{form}");
        });
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    helper(directory.path(), SCRIPT);
    let docker = directory.path().to_str().expect("a plain path");
    let path = format!("{docker}:{}", std::env::var("PATH").expect("a PATH"));
    child::run(TEST, &[("DOCKER_CONFIG", docker), ("PATH", &path)]);
}

#[test]
fn a_helper_that_fails_is_warned_of_and_does_not_keep_anybody_from_public_images() {
    if child::is_child() {
        let expected = std::env::var("EXPECTED").expect("what to expect");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let registry = registry(Auth::Bearer(None)).start();
            let warned = Warned::default();
            let origin = Origin::from_url(&registry.origin).expect("an origin");
            let session = Session::new(Box::new(warned.clone()));
            let client = Client::new(origin, CredentialSource::from_environment(), patience(), &session);
            manifest(&client).await.expect("a manifest");
            let warnings = warned.0.lock().expect("no panic under the lock").join("\n");
            assert!(!warnings.contains("canary"), "{warnings}");
            assert!(warnings.ends_with(&expected) && warnings.is_empty() == expected.is_empty(), "{warnings}");
        });
        return;
    }
    for (script, expected) in [
        ("read server; echo 'credentials not found in native keychain'; exit 1", ""),
        (
            "read server; echo canary; echo canary >&2; exit 1",
            "`docker-credential-test get` failed, going on without a login",
        ),
        ("", "its `credsStore` names `docker-credential-test`, which could not be run, going on without a login"),
    ] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        helper(directory.path(), script);
        if script.is_empty() {
            fs::remove_file(directory.path().join("docker-credential-test")).expect("removed");
        }
        let docker = directory.path().to_str().expect("a plain path");
        let path = format!("{docker}:{}", std::env::var("PATH").expect("a PATH"));
        let environment = [("DOCKER_CONFIG", docker), ("PATH", path.as_str()), ("EXPECTED", expected)];
        let test = "login::a_helper_that_fails_is_warned_of_and_does_not_keep_anybody_from_public_images";
        child::run(test, &environment);
    }
}

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic under the lock").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_log_holds_a_secret() {
    if !child::is_child() {
        // What is logged is settled for the whole process by who asks first.
        return child::run("login::no_log_holds_a_secret", &[]);
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let guard = tracing::subscriber::set_default(subscriber);
    runtime.block_on(async {
        let signed = "/v2/a/manifests/2?X-Amz-Signature=canary-signature".to_owned();
        for auth in [Auth::Basic("me", PASSWORD), Auth::Bearer(Some(("me", PASSWORD)))] {
            let registry =
                registry(auth).fault(Method::GET, "/manifests/1", 1..9, Fault::Redirect(signed.clone())).start();
            let error = manifest(&client(&registry.origin, given())).await.expect_err("no such manifest");
            assert_eq!(error.status(), Some(404));
            let last = registry.log().pop().expect("a request");
            assert_eq!(last, format!("GET {signed}"), "the secrets were really used");
        }
    });
    drop(guard);
    let log = String::from_utf8(log.0.lock().expect("no panic under the lock").clone()).expect("text");
    assert!(log.contains("X-Amz-Signature=***"), "{log}");
    for secret in ["canary", "token-1", &STANDARD.encode(format!("me:{PASSWORD}"))] {
        assert!(!log.contains(secret), "`{secret}` in {log}");
    }
}
