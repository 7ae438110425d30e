//! Pulling manifests and blobs from a registry that fails in every way it can.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::Method;
use cargo_lambda_image::event::{Event, Reporter, Session};
use cargo_lambda_image::oci::{Descriptor, Digest, media_type};
use cargo_lambda_image::problem::{Exit, Problem};
use cargo_lambda_image::registry::credentials::CredentialSource;
use cargo_lambda_image::registry::error::{Error, ErrorKind};
use cargo_lambda_image::registry::origin::Origin;
use cargo_lambda_image::registry::pull::{Piece, Selector};
use cargo_lambda_image::registry::{Client, Patience};
use tokio::sync::mpsc;

use crate::support::images::{Family, TestImage, noise};
use crate::support::registry::{Auth, Builder, Fault, FaultRegistry};

const ALWAYS: Range<usize> = 0..usize::MAX;

/// Little of everything, but enough for a busy machine.
pub fn patience() -> Patience {
    Patience {
        tries: 4,
        connect_tries: 2,
        throttled: Duration::ZERO,
        first_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(4),
        connect: Duration::from_secs(10),
        stall: Duration::from_secs(10),
    }
}

fn client_at(origin: &str, session: &Session) -> Client {
    let origin = Origin::from_url(origin).expect("an origin");
    Client::new(origin, CredentialSource::Anonymous, patience(), session)
}

fn client(registry: &FaultRegistry) -> Client {
    client_at(&registry.origin, &Session::silent())
}

fn tag(name: &str) -> Selector {
    Selector::Tag(name.into())
}

fn of(bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: media_type::OCI_LAYER_GZIP.into(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

/// A registry with one blob in `a`.
fn with_blob(blob: &[u8]) -> Builder {
    FaultRegistry::builder().blob("a", blob)
}

async fn pull(client: &Client, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    client.small_blob("a", descriptor, 64 * 1024 * 1024).await
}

fn ranges(registry: &FaultRegistry) -> Vec<Option<String>> {
    registry.requests().iter().map(|request| request.header("range").map(str::to_owned)).collect()
}

/// Keeps what is told about retries, the reason and the wait.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(String, Duration)>>>);

impl Reporter for Told {
    fn event(&self, event: &Event<'_>) {
        if let Event::Retrying { why, delay, .. } = event {
            self.0.lock().expect("no panic under the lock").push(((*why).to_owned(), *delay));
        }
    }
}

#[tokio::test]
async fn a_manifest_is_what_its_tag_or_digest_says() {
    let image = TestImage::new(Family::Oci, "amd64");
    let registry = FaultRegistry::builder().image("a/b", "1", &image).start();
    let client = client(&registry);
    for selector in [tag("1"), Selector::Digest(image.digest())] {
        let document = client.manifest("a/b", &selector).await.expect("a manifest");
        assert_eq!((document.digest, document.media_type.as_str()), (image.digest(), media_type::OCI_MANIFEST));
        assert_eq!(document.bytes, image.manifest);
    }
    assert_eq!(client.manifest_digest("a/b", &tag("1")).await.expect("a digest"), Some(image.digest()));
    let last = registry.requests().pop().expect("a request");
    assert_eq!((last.method.as_str(), last.target.as_str()), ("HEAD", "/v2/a/b/manifests/1"));
    let accept = last.header("accept").expect("what is understood");
    for media_type in
        [media_type::OCI_INDEX, media_type::OCI_MANIFEST, media_type::DOCKER_INDEX, media_type::DOCKER_MANIFEST]
    {
        assert!(accept.contains(media_type), "{accept}");
    }
}

#[tokio::test]
async fn a_forged_manifest_is_refused_and_names_both_digests() {
    let image = TestImage::new(Family::Oci, "amd64");
    let mut forged = image.manifest.clone();
    forged[20] ^= 1;
    for selector in [tag("1"), Selector::Digest(image.digest())] {
        let registry = FaultRegistry::builder()
            .image("a", "1", &image)
            .fault(Method::GET, "/manifests/", ALWAYS, Fault::Flip(20))
            .start();
        let error = client(&registry).manifest("a", &selector).await.expect_err("a forgery");
        assert_eq!(error.kind, ErrorKind::Content);
        let message = error.problem.message();
        let ends = format!("expected {}, received {}", image.digest(), Digest::of(&forged));
        assert!(message.ends_with(&ends), "{message}");
        assert_eq!(registry.requests().len(), 2, "one second chance");
    }
}

#[tokio::test]
async fn refusals_are_told_with_status_code_and_next_step() {
    let image = TestImage::new(Family::Oci, "amd64");
    for (status, tries, help) in [
        (401, 1, "log in with `docker login"),
        (403, 1, "the account logged in at"),
        (404, 1, "check the name and the tag"),
        (429, 4, "wait a little, or log in with `docker login"),
        (500, 4, "the registry has a problem of its own"),
        (503, 4, "the registry has a problem of its own"),
    ] {
        let body = r#"{"errors":[{"code":"CANARY","message":"in its own words"}]}"#;
        let registry = FaultRegistry::builder()
            .image("a", "1", &image)
            .fault(Method::GET, "/manifests/", ALWAYS, Fault::Status(status, &[], body))
            .start();
        let error = client(&registry).manifest("a", &tag("1")).await.expect_err("a refusal");
        assert_eq!(error.status(), Some(status));
        assert_eq!(registry.requests().len(), tries, "{status}");
        let problem = Problem::from(error);
        let answered = format!("`{}` answered {status} ", registry.address);
        let (message, causes) = (problem.message().to_owned(), problem.causes());
        let told = [vec![message], causes].concat();
        let (told, words) = told.split_at(told.len() - 1);
        assert!(told.last().is_some_and(|message| message.starts_with(&answered)), "{problem}");
        assert_eq!(words, ["CANARY in its own words"]);
        assert!(problem.next_step().expect("a next step").starts_with(help), "{:?}", problem.next_step());
    }
}

#[tokio::test]
async fn a_registry_that_has_too_many_requests_is_asked_for_longer_than_one_that_fails() {
    let throttled = Duration::from_millis(300);
    let too_many = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}"#;
    for (status, headers, body, is_throttling) in [
        (429, &[][..], too_many, true),
        (403, &[], too_many, true),
        (503, &[], "", true),
        // Who says to come back at once has no limit that has to be waited out.
        (429, &[("retry-after", "0")], "", false),
        (500, &[], "", false),
        (504, &[], "", false),
    ] {
        let registry = FaultRegistry::builder()
            .fault(Method::GET, "/manifests/", ALWAYS, Fault::Status(status, headers, body))
            .start();
        let origin = Origin::from_url(&registry.origin).expect("an origin");
        let patience = Patience { throttled, ..patience() };
        let client = Client::new(origin, CredentialSource::Anonymous, patience, &Session::silent());
        let start = std::time::Instant::now();
        let error = client.manifest("a", &tag("1")).await.expect_err("a refusal");
        assert_eq!(error.status(), Some(status));
        let tries = registry.requests().len();
        let message = error.problem.message();
        if is_throttling {
            assert!(start.elapsed() >= throttled && tries > patience_tries(), "{status}: {tries} tries");
            assert_eq!(message, format!("gave up after {tries} tries in {} s", start.elapsed().as_secs()));
        } else {
            assert_eq!(tries, patience_tries(), "{status}");
            assert!(message.starts_with(&format!("`{}` answered {status} ", registry.address)), "{message}");
        }
    }
}

fn patience_tries() -> usize {
    patience().tries
}

#[tokio::test]
async fn a_digest_that_is_none_is_told_with_the_url_that_it_came_from() {
    let image = TestImage::new(Family::Oci, "amd64");
    for method in [Method::GET, Method::HEAD] {
        let forged = Fault::Header("docker-content-digest", "sha256:../x".into());
        let registry =
            FaultRegistry::builder().image("a", "1", &image).fault(method.clone(), "", ALWAYS, forged).start();
        let client = client(&registry);
        let error = match method {
            Method::GET => client.manifest("a", &tag("1")).await.map(drop).expect_err("no digest"),
            _ => client.manifest_digest("a", &tag("1")).await.map(drop).expect_err("no digest"),
        };
        let expected =
            format!("the registry names {}/v2/a/manifests/1 by something that is no digest", registry.origin);
        assert_eq!(error.problem.message(), expected);
    }
}

#[tokio::test]
async fn a_server_that_answers_with_a_page_is_no_registry() {
    for page in ["<!doctype html><p>Welcome", "Welcome"] {
        let page = Fault::Status(200, &[("content-type", "text/html; charset=utf-8")], page);
        let registry = FaultRegistry::builder().fault(Method::GET, "", ALWAYS, page.clone());
        let registry = registry.fault(Method::HEAD, "", ALWAYS, page).start();
        let client = client(&registry);
        let manifest = client.manifest("a", &tag("1")).await.map(drop).expect_err("no manifest");
        let layer = of(b"some layer");
        let blob = client.has_blob("a", &layer).await.map(drop).expect_err("no blob");
        for (error, path) in [(manifest, "manifests/1".to_owned()), (blob, format!("blobs/{}", layer.digest))] {
            let message =
                format!("`{}` does not answer as a registry: {}/v2/a/{path}", registry.address, registry.origin);
            assert_eq!(error.problem.message(), message);
            let help = "check the host and port: this is another server, or a proxy's page";
            assert_eq!(error.problem.next_step(), Some(help));
        }
    }
}

#[tokio::test]
async fn what_does_not_come_in_time_is_not_called_a_broken_connection() {
    let blob = noise(300_000);
    let short = Duration::from_millis(100);
    for (fault, message, cause) in [
        (Fault::Hang, "gave up waiting for ", "no answer in time"),
        (Fault::Stall(100), "gave up reading ", "too little came for too long"),
        (Fault::Cut(100), "the connection broke while reading ", ""),
    ] {
        let registry = with_blob(&blob).fault(Method::GET, "/blobs/", ALWAYS, fault).start();
        let origin = Origin::from_url(&registry.origin).expect("an origin");
        let patience = Patience { stall: short, connect: short, tries: 1, ..patience() };
        let client = Client::new(origin, CredentialSource::Anonymous, patience, &Session::silent());
        let error = pull(&client, &of(&blob)).await.expect_err("not in time");
        assert!(error.problem.message().starts_with(message), "{:?}", error.problem);
        assert!(error.problem.causes()[0].starts_with(cause), "{:?}", error.problem);
    }
}

#[tokio::test]
async fn a_token_server_that_is_not_where_the_challenge_says_is_told_as_such() {
    for status in [301, 307, 404] {
        let fault = Fault::Status(status, &[("location", "https://example.com/token")], "");
        let registry = FaultRegistry::builder().auth(Auth::Bearer(None)).fault(Method::GET, "/token", ALWAYS, fault);
        let registry = registry.start();
        let error = client(&registry).manifest("a", &tag("1")).await.expect_err("no token");
        let help = "the token server is not where the registry's challenge says: ask who runs the registry";
        assert_eq!(error.problem.next_step(), Some(help), "{status}");
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again_as_the_registry_asks() {
    let image = TestImage::new(Family::Oci, "amd64");
    for (status, headers, asked) in [
        (429, &[("retry-after", "1")][..], Duration::from_secs(1)),
        (500, &[], Duration::ZERO),
        (502, &[], Duration::ZERO),
        (503, &[("retry-after", "1")], Duration::from_secs(1)),
        (504, &[], Duration::ZERO),
    ] {
        let told = Told::default();
        let registry = FaultRegistry::builder()
            .image("a", "1", &image)
            .fault(Method::GET, "/manifests/", 0..2, Fault::Status(status, headers, ""))
            .start();
        let client = client_at(&registry.origin, &Session::new(Box::new(told.clone())));
        let document = client.manifest("a", &tag("1")).await.expect("the third time");
        assert_eq!(document.digest, image.digest());
        let told = told.0.lock().expect("no panic under the lock").clone();
        assert_eq!(told.len(), 2, "{told:?}");
        for (why, delay) in told {
            assert!(why.contains(&status.to_string()), "{why}");
            // As long as it asks, and a random part of our own wait, so that not all come back at once.
            assert!(delay > asked && delay <= asked + patience().max_delay, "{status}: {delay:?}");
        }
    }
}

#[tokio::test]
async fn a_registry_that_is_down_is_named_after_few_tries() {
    let address = FaultRegistry::builder().start().address;
    let told = Told::default();
    let client = client_at(&format!("http://{address}"), &Session::new(Box::new(told.clone())));
    let error = client.manifest("a", &tag("1")).await.expect_err("nobody there");
    assert_eq!(error.kind, ErrorKind::Unreachable { worth_retrying: true });
    assert_eq!(error.problem.message(), format!("could not reach `{address}`"));
    assert!(error.problem.next_step().is_some());
    assert_eq!(told.0.lock().expect("no panic under the lock").len(), 1);
}

#[tokio::test]
async fn a_cut_blob_is_resumed_where_it_broke() {
    let blob = noise(300_000);
    let registry = with_blob(&blob)
        .fault(Method::GET, "/blobs/", 0..1, Fault::Cut(100_000))
        .fault(Method::GET, "/blobs/", 1..2, Fault::Cut(50_000))
        .start();
    assert_eq!(pull(&client(&registry), &of(&blob)).await.expect("the blob"), blob);
    assert_eq!(ranges(&registry), [None, Some("bytes=100000-".into()), Some("bytes=150000-".into())]);
}

#[tokio::test]
async fn a_blob_is_begun_anew_where_ranges_are_unknown() {
    let blob = noise(300_000);
    for fault in [
        Fault::IgnoreRange,
        Fault::Status(416, &[], ""),
        Fault::Header("content-range", "bytes 0-199999/300000".into()),
        Fault::Header("content-range", String::new()),
    ] {
        let registry = with_blob(&blob)
            .fault(Method::GET, "/blobs/", 0..1, Fault::Cut(100_000))
            .fault(Method::GET, "/blobs/", 1..2, fault.clone())
            .start();
        assert_eq!(pull(&client(&registry), &of(&blob)).await.expect("the blob"), blob, "{fault:?}");
        assert_eq!(ranges(&registry)[1].as_deref(), Some("bytes=100000-"));
        assert!(registry.requests().len() <= 3, "{fault:?}");
    }
}

#[tokio::test]
async fn a_blob_that_always_breaks_is_given_up() {
    let blob = noise(3000);
    for fault in [Fault::Cut(100), Fault::Shorten(100)] {
        let registry = with_blob(&blob).fault(Method::GET, "/blobs/", ALWAYS, fault).start();
        let error = pull(&client(&registry), &of(&blob)).await.expect_err("never whole");
        assert_eq!(error.kind, ErrorKind::Cut);
        assert_eq!(
            ranges(&registry),
            [None, Some("bytes=100-".into()), Some("bytes=200-".into()), Some("bytes=300-".into())]
        );
    }
}

#[tokio::test]
async fn a_truncated_blob_is_never_taken_for_whole() {
    let blob = noise(3000);
    let registry = with_blob(&blob).fault(Method::GET, "/blobs/", 0..1, Fault::Shorten(2999)).start();
    assert_eq!(pull(&client(&registry), &of(&blob)).await.expect("the blob"), blob);
    assert_eq!(ranges(&registry), [None, Some("bytes=2999-".into())]);
}

#[tokio::test]
async fn a_flipped_byte_costs_one_more_pull_and_then_an_error() {
    let blob = noise(3000);
    let registry = with_blob(&blob).fault(Method::GET, "/blobs/", 0..1, Fault::Flip(7)).start();
    assert_eq!(pull(&client(&registry), &of(&blob)).await.expect("the second time"), blob);

    let registry = with_blob(&blob).fault(Method::GET, "/blobs/", ALWAYS, Fault::Flip(7)).start();
    let error = pull(&client(&registry), &of(&blob)).await.expect_err("a forgery");
    let mut forged = blob.clone();
    forged[7] ^= 1;
    let ends = format!("expected {}, received {}", Digest::of(&blob), Digest::of(&forged));
    assert!(error.problem.message().ends_with(&ends), "{}", error.problem);
    assert_eq!(ranges(&registry), [None, None]);
}

#[tokio::test]
async fn nothing_without_end_is_read() {
    let blob = noise(3000);
    let image = TestImage::new(Family::Oci, "amd64");
    let registry = with_blob(&blob)
        .image("a", "1", &image)
        .fault(Method::GET, "/blobs/", ALWAYS, Fault::Endless)
        .fault(Method::GET, "/manifests/1", ALWAYS, Fault::Endless)
        .fault(Method::GET, "/manifests/none", ALWAYS, Fault::Status(500, &[], ""))
        .fault(Method::GET, "/manifests/none", ALWAYS, Fault::Endless)
        .start();
    let client = client(&registry);
    let error = pull(&client, &of(&blob)).await.expect_err("too long");
    assert_eq!(error.problem.message(), format!("{} is longer than the 3000 bytes it should have", Digest::of(&blob)));
    let error = client.manifest("a", &tag("1")).await.expect_err("too long");
    assert!(error.problem.message().ends_with("it is longer than 4194304 bytes"), "{}", error.problem);
    let error = client.manifest("a", &tag("none")).await.expect_err("an endless error");
    assert_eq!(error.status(), Some(500));
    let error = client.small_blob("a", &of(&blob), 2999).await.expect_err("too large");
    assert!(error.problem.message().ends_with("has 3000 bytes, at most 2999 are read"), "{}", error.problem);
}

#[tokio::test]
async fn a_server_that_stands_still_or_drips_is_left() {
    let blob = noise(300_000);
    let short = Duration::from_millis(300);
    for fault in [Fault::Stall(100_000), Fault::Stall(10), Fault::Drip, Fault::Hang] {
        let registry = with_blob(&blob).fault(Method::GET, "/blobs/", 0..1, fault.clone()).start();
        let origin = Origin::from_url(&registry.origin).expect("an origin");
        let patience = Patience { stall: short, connect: short, ..patience() };
        let client = Client::new(origin, CredentialSource::Anonymous, patience, &Session::silent());
        assert_eq!(pull(&client, &of(&blob)).await.expect("the blob"), blob, "{fault:?}");
        assert!(registry.requests().len() >= 2, "{fault:?}");
    }
}

#[tokio::test]
async fn a_cut_manifest_is_read_again() {
    let image = TestImage::new(Family::Oci, "amd64");
    let registry = FaultRegistry::builder()
        .image("a", "1", &image)
        .fault(Method::GET, "/manifests/", 0..1, Fault::Cut(20))
        .start();
    assert_eq!(client(&registry).manifest("a", &tag("1")).await.expect("a manifest").digest, image.digest());
    assert_eq!(registry.requests().len(), 2);
}

#[tokio::test]
async fn a_stopped_session_ends_a_pull_that_waits() {
    let blob = noise(300_000);
    let registry = with_blob(&blob).fault(Method::GET, "/blobs/", ALWAYS, Fault::Stall(100)).start();
    let session = Session::silent();
    let client = client_at(&registry.origin, &session);
    let (sender, mut receiver) = mpsc::channel(1);
    let descriptor = of(&blob);
    let stop = async {
        assert!(matches!(receiver.recv().await, Some(Piece::Bytes(_))));
        session.stop(Exit::Interrupted);
    };
    let (pulled, ()) = tokio::join!(client.blob("a", &descriptor, &sender), stop);
    let problem = Problem::from(pulled.expect_err("stopped"));
    assert_eq!((problem.exit(), problem.message()), (Exit::Interrupted, "interrupted"));
}

#[tokio::test]
async fn only_a_verified_blob_comes_to_its_end() {
    let blob = noise(3000);
    let registry = with_blob(&blob).fault(Method::GET, "/blobs/", ALWAYS, Fault::Flip(7)).start();
    let (sender, mut receiver) = mpsc::channel(100);
    client(&registry).blob("a", &of(&blob), &sender).await.expect_err("a forgery");
    drop(sender);
    while let Some(piece) = receiver.recv().await {
        assert_ne!(piece, Piece::End);
    }
}

#[tokio::test]
async fn redirects_are_followed_without_credentials_and_not_for_ever() {
    let blob = noise(3000);
    let storage = with_blob(&blob).start();
    let registry =
        with_blob(&blob).fault(Method::GET, "/blobs/", ALWAYS, Fault::RedirectTo(storage.origin.clone())).start();
    assert_eq!(pull(&client(&registry), &of(&blob)).await.expect("the blob"), blob);
    assert_eq!(storage.requests().len(), 1);

    let round = with_blob(&blob).fault(Method::GET, "/blobs/", ALWAYS, Fault::Redirect("/v2/a/blobs/x".into())).start();
    let error = pull(&client(&round), &of(&blob)).await.expect_err("a circle");
    assert!(error.problem.message().starts_with("more than 5 redirects from "), "{}", error.problem);
    assert_eq!(round.requests().len(), 6);

    let elsewhere = "http://example.com/x?X-Amz-Signature=canary".to_owned();
    let plain = with_blob(&blob).fault(Method::GET, "/blobs/", ALWAYS, Fault::Redirect(elsewhere)).start();
    let error = pull(&client(&plain), &of(&blob)).await.expect_err("plain http");
    let causes = error.problem.causes();
    assert_eq!(causes, ["it leads to plain http on another machine: http://example.com/x?X-Amz-Signature=***"]);
}
