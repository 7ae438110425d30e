//! Uploading blobs and manifests to a registry that fails in every way it can.

mod logins;
mod manifests;
mod pace;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::Method;
use bytes::Bytes;
use cargo_lambda_image::event::Session;
use cargo_lambda_image::oci::{Descriptor, Digest, media_type};
use cargo_lambda_image::problem::Problem;
use cargo_lambda_image::registry::credentials::{CredentialSource, Credentials, Secret};
use cargo_lambda_image::registry::error::{Error, ErrorKind};
use cargo_lambda_image::registry::feed::{Made, Source};
use cargo_lambda_image::registry::origin::Origin;
use cargo_lambda_image::registry::pull::{Piece, Selector};
use cargo_lambda_image::registry::push::Mount;
use cargo_lambda_image::registry::upload::{Progress, Upload};
use cargo_lambda_image::registry::{Client, Patience};

use crate::pull::patience;
use crate::support::images::{Family, TestImage, noise};
use crate::support::registry::{Auth, Builder, Fault, FaultRegistry, Mounts, Ways};

const ALWAYS: Range<usize> = 0..usize::MAX;

/// More than the buffers of a loopback connection hold.
const LARGE: usize = 24 << 20;

fn client_at(origin: &str, credentials: CredentialSource, patience: Patience) -> Client {
    Client::new(Origin::from_url(origin).expect("an origin"), credentials, patience, &Session::silent())
}

fn client(registry: &FaultRegistry) -> Client {
    client_at(&registry.origin, CredentialSource::Anonymous, patience())
}

fn ecr() -> Ways {
    Ways { ecr: true, ..Ways::default() }
}

fn of(bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: media_type::OCI_LAYER_GZIP.into(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

fn made(bytes: &[u8]) -> Made {
    Made { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

/// A source of these bytes, and how often they were made.
fn counted(bytes: &[u8]) -> (Source, Arc<AtomicUsize>) {
    let times = Arc::new(AtomicUsize::new(0));
    let (bytes, counter) = (bytes.to_vec(), times.clone());
    let source = Source::blocking(move |mut pieces| {
        counter.fetch_add(1, Ordering::Relaxed);
        std::io::Write::write_all(&mut pieces, &bytes).map_err(|error| Problem::failed("written").because(error))?;
        pieces.finish()
    });
    (source, times)
}

fn upload<'a>(source: &'a Source, known: Option<&'a Descriptor>) -> Upload<'a> {
    Upload { repository: "a", source, known, session: None, progress: Arc::new(|_| {}) }
}

async fn push(client: &Client, bytes: &[u8]) -> Result<Made, Error> {
    client.upload(upload(&counted(bytes).0, Some(&of(bytes)))).await
}

async fn stream(client: &Client, bytes: &[u8]) -> Result<Made, Error> {
    client.upload(upload(&counted(bytes).0, None)).await
}

/// Methods of what was asked, in order.
fn methods(registry: &FaultRegistry) -> Vec<String> {
    registry.requests().iter().map(|request| request.method.to_string()).collect()
}

fn open() -> Builder {
    FaultRegistry::builder().repository("a")
}

#[tokio::test]
async fn a_known_blob_is_one_post_and_one_put_with_its_length() {
    let blob = noise(300_000);
    for ways in [Ways::default(), ecr()] {
        let registry = open().ways(ways).start();
        assert_eq!(push(&client(&registry), &blob).await.expect("pushed"), made(&blob));
        assert_eq!(methods(&registry), ["POST", "PUT"]);
        let requests = registry.requests();
        assert_eq!(requests[0].header("content-length"), Some("0"));
        assert_eq!(requests[1].header("content-length"), Some("300000"));
        assert_eq!(requests[1].header("content-type"), Some("application/octet-stream"));
        assert_eq!(requests[1].header("content-range"), None);
        let hex = Digest::of(&blob).hex();
        let target = format!("/v2/a/blobs/uploads/1-0?_state=a%2Fb%3D%3D&digest=sha256%3A{hex}");
        assert_eq!(requests[1].target, target);
        assert_eq!(registry.blob("a", &blob).as_deref(), Some(&blob[..]));
    }
}

#[tokio::test]
async fn a_blob_of_unknown_digest_is_streamed_by_one_patch() {
    let blob = noise(3_000_000);
    for ways in [Ways::default(), ecr()] {
        let registry = open().ways(ways).start();
        assert_eq!(stream(&client(&registry), &blob).await.expect("pushed"), made(&blob));
        assert_eq!(methods(&registry), ["POST", "PATCH", "PUT"]);
        let requests = registry.requests();
        assert_eq!(requests[1].header("transfer-encoding"), Some("chunked"));
        assert_eq!(requests[2].header("content-length"), Some("0"));
        assert!(requests[2].target.starts_with("/v2/a/blobs/uploads/1-1?"), "the location of the PATCH's answer");
        assert_eq!(registry.blob("a", &blob).as_deref(), Some(&blob[..]));
    }
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_costs_one_more_try() {
    let blob = noise(LARGE);
    for (method, expected) in [
        (Method::PUT, &["POST", "PUT", "DELETE", "HEAD", "POST", "PUT"][..]),
        (Method::PATCH, &["POST", "PATCH", "DELETE", "POST", "PATCH", "PUT"]),
    ] {
        let registry = open().ways(ecr()).fault(method.clone(), "/uploads/", 0..1, Fault::ReadThenCut(1 << 20)).start();
        let known = of(&blob);
        let (source, times) = counted(&blob);
        let known = (method == Method::PUT).then_some(&known);
        let tries = Arc::new(Mutex::new(Vec::new()));
        let told = tries.clone();
        let progress = move |progress| {
            let mut tries = told.lock().expect("no panic under the lock");
            match progress {
                Progress::Began => tries.push(0),
                Progress::Sent(count) => *tries.last_mut().expect("a try") += count,
            }
        };
        let upload = Upload { progress: Arc::new(progress), ..upload(&source, known) };
        assert_eq!(client(&registry).upload(upload).await.expect("pushed"), made(&blob));
        assert_eq!(methods(&registry), expected);
        assert_eq!(times.load(Ordering::Relaxed), 2, "the bytes are made anew");
        let tries = tries.lock().expect("no panic under the lock").clone();
        assert_eq!((tries.len(), tries[1]), (2, LARGE as u64), "{tries:?}");
        assert!(registry.received() < LARGE as u64 + (2 << 20), "no more than what was cut is sent twice");
        assert_eq!(registry.blob("a", &blob).as_deref(), Some(&blob[..]));
    }
}

#[tokio::test]
async fn a_connection_that_is_always_cut_is_given_up() {
    let blob = noise(3_000_000);
    let registry = open().fault(Method::PUT, "/uploads/", ALWAYS, Fault::ReadThenCut(1000)).start();
    let error = push(&client(&registry), &blob).await.expect_err("cut");
    assert_eq!(error.kind, ErrorKind::Cut);
    assert_eq!((registry.count(Method::POST, "/uploads/"), registry.count(Method::PUT, "/uploads/")), (4, 4));
}

#[tokio::test]
async fn an_early_refusal_is_told_rather_than_the_broken_pipe() {
    const DENIED: &str = r#"{"errors":[{"code":"DENIED","message":"User: arn:aws:iam::1:user/x is not authorized to perform: ecr:UploadLayerPart on resource: y"}]}"#;
    let blob = noise(LARGE);
    let known = of(&blob);
    let fast = counted(&blob).0;
    // Slower than its answer, as every network but loopback is.
    let slow = Source::new(|pieces| {
        Box::pin(async move {
            while pieces.send(Piece::Bytes(Bytes::from_static(&[7; 64 * 1024]))).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(Problem::failed("nobody takes it"))
        })
    });
    for method in [Method::PUT, Method::PATCH] {
        for (source, count, most) in [(&fast, 0, 2), (&slow, 0, 1), (&slow, 1 << 20, 1)] {
            let fault = Fault::ReadThenAnswer(count, 403, DENIED);
            let registry = open().fault(method.clone(), "/uploads/", ALWAYS, fault).start();
            let known = (method == Method::PUT).then_some(&known);
            let error = client(&registry).upload(upload(source, known)).await.expect_err("refused");
            assert_eq!(error.status(), Some(403), "{:?}", error.problem.causes());
            let help = "allow the IAM action `ecr:UploadLayerPart` on this repository";
            assert_eq!(error.problem.next_step(), Some(help));
            let tries = registry.count(method.clone(), "/uploads/");
            assert!(tries <= most, "{tries} tries");
        }
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again_in_a_new_session() {
    let blob = noise(300_000);
    for status in [408, 429, 500, 502, 503, 504] {
        for (method, posts, puts) in [(Method::POST, 2, 1), (Method::PUT, 2, 2), (Method::PATCH, 2, 1)] {
            let registry = open().fault(method.clone(), "/uploads/", 0..1, Fault::Status(status, &[], "")).start();
            let client = client(&registry);
            let is_streamed = method == Method::PATCH;
            let pushed = if is_streamed { stream(&client, &blob).await } else { push(&client, &blob).await };
            assert_eq!(pushed.expect("pushed"), made(&blob), "{status} {method}");
            let counts = (registry.count(Method::POST, "/uploads/"), registry.count(Method::PUT, "/uploads/"));
            assert_eq!(counts, (posts, puts), "{status} {method}");
        }
        let image = TestImage::new(Family::Oci, "amd64");
        let registry = FaultRegistry::builder()
            .image("a", "1", &image)
            .fault(Method::PUT, "/manifests/", 0..2, Fault::Status(status, &[], ""))
            .fault(Method::HEAD, "/blobs/", 0..2, Fault::Status(status, &[], ""))
            .start();
        put_manifest(&client(&registry), "2", &image).await.expect("pushed");
        assert_eq!(registry.count(Method::PUT, "/manifests/"), 3, "{status}");
        assert!(client(&registry).has_blob("a", &of(&image.layers[0])).await.expect("an answer"), "{status}");
    }
}

#[tokio::test]
async fn what_fails_at_the_close_of_a_stream_is_sent_again_as_a_blob_that_is_known() {
    let blob = noise(300_000);
    for (status, body) in [
        (500, ""),
        (404, r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#),
        (416, r#"{"errors":[{"code":"BLOB_UPLOAD_INVALID"}]}"#),
    ] {
        let registry = open().fault(Method::PUT, "/uploads/1-1", 0..1, Fault::Status(status, &[], body)).start();
        let (source, times) = counted(&blob);
        assert_eq!(client(&registry).upload(upload(&source, None)).await.expect("pushed"), made(&blob));
        let end = if status == 404 { &[][..] } else { &["DELETE"] };
        let expected = [&["POST", "PATCH", "PUT"][..], end, &["HEAD", "POST", "PUT"]].concat();
        assert_eq!(
            (methods(&registry), times.load(Ordering::Relaxed)),
            (expected.iter().map(|it| (*it).to_owned()).collect(), 2)
        );
        assert_eq!(
            (registry.open_sessions("a"), registry.blob("a", &blob).as_deref()),
            (usize::from(status == 404), Some(&blob[..]))
        );
    }
}

#[tokio::test]
async fn a_refusal_without_words_is_asked_for_its_reason() {
    const DENIED: &str = r#"{"errors":[{"code":"DENIED","message":"User: arn:aws:iam::1:user/x is not authorized to perform: ecr:BatchCheckLayerAvailability on resource: y"}]}"#;
    let blob = noise(3000);
    let registry = open()
        .blob("a", &blob)
        .fault(Method::HEAD, "/blobs/", ALWAYS, Fault::Status(403, &[], ""))
        .fault(Method::GET, "/blobs/", ALWAYS, Fault::Status(403, &[], DENIED))
        .start();
    let error = client(&registry).has_blob("a", &of(&blob)).await.expect_err("refused");
    assert_eq!(error.status(), Some(403));
    let help = "allow the IAM action `ecr:BatchCheckLayerAvailability` on this repository";
    assert_eq!(error.problem.next_step(), Some(help));
    assert_eq!(methods(&registry), ["HEAD", "GET"], "not tried again");
    assert_eq!(registry.requests()[1].header("range"), Some("bytes=0-0"), "the blob is not wanted");
}

#[tokio::test]
async fn where_head_alone_is_refused_get_tells_what_is_there() {
    let image = TestImage::new(Family::Oci, "amd64");
    let layer = of(&image.layers[0]);
    for status in [400, 403, 405] {
        let head = Fault::Status(status, &[], "");
        for ranges in [0..0, ALWAYS] {
            let registry = FaultRegistry::builder()
                .image("a", "1", &image)
                .fault(Method::HEAD, "/", ALWAYS, head.clone())
                .fault(Method::GET, "/", ranges, Fault::IgnoreRange)
                .start();
            let client = client(&registry);
            assert!(client.has_blob("a", &layer).await.expect("an answer"), "{status}");
            let larger = Descriptor { size: layer.size + 1, ..layer.clone() };
            client.has_blob("a", &larger).await.expect_err("another size");
            assert!(!client.has_blob("a", &of(b"other")).await.expect("an answer"), "{status}");
            let tag = |name: &str| Selector::Tag(name.to_owned());
            assert_eq!(client.head_manifest("a", &tag("1")).await.expect("an answer"), Some(image.digest()));
            assert_eq!(client.head_manifest("a", &tag("2")).await.expect("an answer"), None);
        }
    }
}

#[tokio::test]
async fn a_registry_that_asks_to_wait_is_waited_for() {
    let blob = noise(3000);
    let registry =
        open().fault(Method::POST, "/uploads/", 0..1, Fault::Status(429, &[("retry-after", "1")], "")).start();
    let start = std::time::Instant::now();
    let client = client(&registry);
    let throttled = client.throttled();
    push(&client, &blob).await.expect("pushed");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(*throttled.borrow(), 1);
}

#[tokio::test]
async fn a_session_that_is_gone_or_confused_is_replaced() {
    let blob = noise(300_000);
    for (status, body) in [
        (404, r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#),
        (404, ""),
        (416, r#"{"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"First byte of the layer part is 0"}]}"#),
        (400, r#"{"errors":[{"code":"BLOB_UPLOAD_INVALID"}]}"#),
    ] {
        let registry = open().fault(Method::PUT, "/uploads/", 0..1, Fault::Status(status, &[], body)).start();
        push(&client(&registry), &blob).await.expect("pushed");
        let sessions: Vec<_> =
            registry.requests().into_iter().filter(|request| request.method == Method::PUT).map(|r| r.target).collect();
        assert!(sessions[0].contains("/uploads/1-0") && sessions[1].contains("/uploads/2-0"), "{sessions:?}");
        assert_eq!(sessions.len(), 2);
    }
}

async fn put_manifest(client: &Client, tag: &str, image: &TestImage) -> Result<(), Error> {
    let bytes = Bytes::copy_from_slice(&image.manifest);
    client.put_manifest("a", &Selector::Tag(tag.into()), image.manifest_type(), &bytes).await
}

#[tokio::test]
async fn a_lost_confirmation_is_found_by_asking() {
    let blob = noise(300_000);
    for is_streamed in [false, true] {
        let registry = open().fault(Method::PUT, "/uploads/", 0..1, Fault::DropReply).start();
        let client = client(&registry);
        let pushed = if is_streamed { stream(&client, &blob).await } else { push(&client, &blob).await };
        assert_eq!(pushed.expect("pushed"), made(&blob));
        assert_eq!(registry.received(), 300_000, "sent once");
        assert_eq!(registry.count(Method::POST, "/uploads/"), 1);
        assert_eq!(methods(&registry).last().map(String::as_str), Some("HEAD"));
    }
}

#[tokio::test]
async fn a_registry_that_makes_repositories_by_itself_lacks_none_when_connections_break() {
    // As docker-registry, which knows no repository before its first manifest.
    const UNKNOWN: &str = r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#;
    let registry = FaultRegistry::builder()
        .repository("a")
        .fault(Method::GET, "/tags/list", ALWAYS, Fault::Status(404, &[], UNKNOWN))
        .fault(Method::PATCH, "", ALWAYS, Fault::ReadThenCut(1000))
        .start();
    let error = stream(&client(&registry), &noise(LARGE)).await.expect_err("the connection breaks");
    assert_eq!(error.kind, ErrorKind::Cut, "{}", error.problem);
}

#[tokio::test]
async fn a_missing_repository_is_told_as_that_even_if_the_connection_is_just_cut() {
    for cuts_unknown_repositories in [false, true] {
        let ways = Ways { cuts_unknown_repositories, ..ecr() };
        let registry = FaultRegistry::builder().ways(ways).start();
        let error = push(&client(&registry), &noise(3000)).await.expect_err("no repository");
        assert!(error.has_code("NAME_UNKNOWN"), "{:?}", error.kind);
        let help = error.problem.next_step().unwrap_or_default();
        assert!(help.contains("--create-repository"), "{help}");
        let posts = registry.count(Method::POST, "/uploads/");
        assert_eq!(posts, if cuts_unknown_repositories { 4 } else { 1 });
    }
}

#[tokio::test]
async fn a_mount_is_made_or_its_session_used_or_forgotten() {
    let blob = noise(300_000);
    let digest = Digest::of(&blob);
    for (mounts, is_named, done) in [
        (Mounts::Always, false, true),
        (Mounts::Never, true, false),
        (Mounts::Referenced, false, false),
        (Mounts::Referenced, true, true),
    ] {
        let mut builder = open().ways(Ways { mounts, ..ecr() }).blob("b", &blob);
        if is_named {
            let manifest = serde_json::json!({"layers": [{"digest": digest}]}).to_string();
            builder = builder.manifest("b", "1", "x", manifest.as_bytes());
        }
        let registry = builder.start();
        let client = client(&registry);
        match client.mount("a", &digest, "b").await.expect("an answer") {
            Mount::Done => assert!(done, "{mounts:?}"),
            Mount::Opened(session) => {
                assert!(!done, "{mounts:?}");
                let (source, known) = (counted(&blob).0, of(&blob));
                let upload = Upload { session: Some(session), ..upload(&source, Some(&known)) };
                client.upload(upload).await.expect("pushed");
                assert_eq!(methods(&registry), ["POST", "PUT"], "no session of its own");
            }
            Mount::Declined => panic!("{mounts:?} was declined"),
        }
        assert_eq!(registry.blob("a", &blob).as_deref(), Some(&blob[..]));
    }
    for status in [401, 403, 404, 405, 500] {
        let registry = open().fault(Method::POST, "mount=", ALWAYS, Fault::Status(status, &[], "")).start();
        let mounted = client(&registry).mount("a", &digest, "b").await.expect("no error");
        assert!(matches!(mounted, Mount::Declined), "{status}");
    }
}

#[tokio::test]
async fn a_mount_asks_for_the_right_to_read_the_lender() {
    let registry = open().auth(Auth::Bearer(None)).start();
    client(&registry).mount("a", &Digest::of(b"x"), "b").await.expect("an answer");
    let token = "GET /token?service=test&scope=repository%3Aa%3Apull%2Cpush&scope=repository%3Ab%3Apull";
    assert_eq!(registry.log()[1], token);
}

#[tokio::test]
async fn an_upload_elsewhere_carries_no_login() {
    let blob = noise(300_000);
    for (is_streamed, cut, expected) in [
        (false, 0..0, &["POST", "PUT"][..]),
        (true, 0..0, &["POST", "PATCH", "PUT"]),
        (true, 0..1, &["POST", "PATCH", "DELETE"]),
    ] {
        let gives_up = !cut.is_empty();
        let storage = open().auth(Auth::Open).fault(Method::PATCH, "", cut, Fault::DropReply).start();
        let location = Fault::Header("location", format!("{}/v2/a/blobs/uploads/1-0?x=1", storage.origin));
        let registry =
            open().auth(Auth::Basic("me", "canary")).fault(Method::POST, "/uploads/", 1..2, location).start();
        let password = Secret::new("canary");
        let login = CredentialSource::Given(Credentials::Password { username: "me".into(), password });
        // So that the other server knows a session of this name.
        client(&storage).mount("a", &Digest::of(b"x"), "b").await.expect("a session");
        let client = client_at(&registry.origin, login, patience());
        let pushed = if is_streamed { stream(&client, &blob).await } else { push(&client, &blob).await };
        assert_eq!(pushed.expect("pushed"), made(&blob));
        let there = if gives_up { &registry } else { &storage };
        assert_eq!(there.blob("a", &blob).as_deref(), Some(&blob[..]));
        assert_eq!(methods(&storage), expected);
        for request in storage.requests() {
            assert_eq!(request.header("authorization"), None, "{} {}", request.method, request.target);
        }
    }
}

#[tokio::test]
async fn locations_are_followed_where_that_is_safe() {
    let blob = noise(3000);
    let absolute = open().start();
    let ways = Ways { location: Some(absolute.origin.clone()), ..Ways::default() };
    drop(absolute);
    let registry = open().fault(Method::POST, "/uploads/", ALWAYS, Fault::Header("location", String::new())).start();
    let error = push(&client(&registry), &blob).await.expect_err("no location");
    assert!(error.problem.message().starts_with("`127.0.0.1:"), "{}", error.problem);
    assert!(error.problem.message().ends_with("did not say where to upload to `a`"), "{}", error.problem);

    for (location, why) in [
        ("http://example.com/x?sig=canary", "it leads to plain http on another machine: http://example.com/x?sig=***"),
        ("ftp://example.com/x", "it leads away from http: ftp://example.com/x"),
        ("http://me@127.0.0.1/x", "it contains a user name: http://127.0.0.1/x"),
    ] {
        let fault = Fault::Header("location", location.to_owned());
        let registry = open().fault(Method::POST, "/uploads/", ALWAYS, fault).start();
        let error = push(&client(&registry), &blob).await.expect_err("refused");
        assert_eq!(error.problem.causes(), [why]);
        assert_eq!(registry.requests().len(), 1, "not tried again");
    }
    // An absolute one to a server that is gone by now is a failure of the wire, not of trust.
    let registry = open().ways(ways).start();
    let error = push(&client(&registry), &blob).await.expect_err("nobody there");
    assert_eq!(error.kind, ErrorKind::Unreachable { worth_retrying: true });
}

#[tokio::test]
async fn a_registry_that_calls_right_bytes_wrong_is_believed_the_second_time() {
    const WRONG: &str = r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#;
    let blob = noise(300_000);
    for (times, expected) in [(0..1, 2), (ALWAYS, 2)] {
        let fails = times == ALWAYS;
        let registry = open().fault(Method::PUT, "/uploads/", times, Fault::Status(400, &[], WRONG)).start();
        let pushed = push(&client(&registry), &blob).await;
        assert_eq!(pushed.is_err_and(|error| error.has_code("DIGEST_INVALID")), fails);
        assert_eq!(registry.count(Method::PUT, "/uploads/"), expected);
    }
    // What it says next is taken as if it had said nothing before.
    let registry = open()
        .fault(Method::PUT, "/uploads/", 0..1, Fault::Status(400, &[], WRONG))
        .fault(Method::PUT, "/uploads/", 1..99, Fault::Status(403, &[], "{}"))
        .start();
    let error = push(&client(&registry), &blob).await.expect_err("refused");
    assert_eq!((error.status(), registry.count(Method::PUT, "/uploads/")), (Some(403), 2));
}

#[tokio::test]
async fn a_blob_that_is_taken_for_another_is_an_error() {
    let blob = noise(3000);
    let other = Digest::of(b"other");
    for is_streamed in [false, true] {
        let fault = Fault::Header("docker-content-digest", other.to_string());
        let registry = open().fault(Method::PUT, "/uploads/", ALWAYS, fault).start();
        let client = client(&registry);
        let pushed = if is_streamed { stream(&client, &blob).await } else { push(&client, &blob).await };
        let error = pushed.expect_err("another blob");
        assert_eq!(error.kind, ErrorKind::Content);
        let message = error.problem.message();
        assert!(message.ends_with(&format!("as {other}, and it is {}", Digest::of(&blob))), "{message}");
        assert_eq!(registry.count(Method::PUT, "/uploads/"), 1, "not tried again");
    }
}

#[tokio::test]
async fn a_blob_there_with_another_size_is_an_error() {
    let blob = noise(3000);
    let registry = open().blob("a", &blob).fault(Method::HEAD, "/blobs/", ALWAYS, Fault::Shorten(2999)).start();
    let error = client(&registry).has_blob("a", &of(&blob)).await.expect_err("another size");
    assert_eq!(error.kind, ErrorKind::Content);
    let message = error.problem.message();
    assert!(message.ends_with("in `a` with 2999 bytes, and it should have 3000"), "{message}");
}

#[tokio::test]
async fn what_is_not_right_to_its_last_byte_is_never_complete() {
    let blob = noise(3_000_000);
    let mut longer = blob.clone();
    longer.extend_from_slice(&noise(200_000));
    let mut other = blob.clone();
    other[7] ^= 1;
    let known = of(&blob);
    for (bytes, message) in [
        (&blob[..2_999_999], "a blob was to have 3000000 bytes and has fewer".to_owned()),
        (&longer, "a blob was to have 3000000 bytes and has more".to_owned()),
        (&other, format!("a blob was to be {} and its bytes are {}", known.digest, Digest::of(&other))),
    ] {
        let registry = open().start();
        let error = client(&registry).upload(upload(&counted(bytes).0, Some(&known))).await.expect_err("changed");
        assert_eq!(error.problem.message(), message);
        assert_eq!(registry.count(Method::PUT, "/uploads/"), 1, "not tried again");
        assert!(registry.received() < 3_000_000, "the last piece is withheld");
        assert_eq!(registry.blob("a", &other).or(registry.blob("a", &blob)), None);
    }
}

#[tokio::test]
async fn a_source_that_fails_ends_the_push_with_its_own_words() {
    for known in [None, Some(&of(&noise(3_000_000)))] {
        let registry = open().start();
        let source = Source::blocking(|mut pieces| {
            std::io::Write::write_all(&mut pieces, &noise(1_000_000))
                .map_err(|error| Problem::failed("written").because(error))?;
            Err(Problem::failed("`models/a.bin` changed while it was read"))
        });
        let error = client(&registry).upload(upload(&source, known)).await.expect_err("a failed source");
        assert_eq!(error.problem.message(), "`models/a.bin` changed while it was read");
        assert_eq!(registry.count(Method::POST, "/uploads/"), 1);
    }
}

#[tokio::test]
async fn a_base_layer_comes_straight_from_its_registry_and_begins_anew_with_it() {
    let blob = noise(3_000_000);
    let known = of(&blob);
    for (fault, posts) in [(Fault::Cut(1_000_000), 1), (Fault::Flip(2_000_000), 2)] {
        let base = FaultRegistry::builder().blob("base", &blob).fault(Method::GET, "/blobs/", 0..1, fault).start();
        let registry = open().start();
        let from = Arc::new(client(&base));
        let descriptor = known.clone();
        let source = Source::new(move |pieces| {
            let (from, descriptor) = (from.clone(), descriptor.clone());
            Box::pin(async move {
                from.blob("base", &descriptor, &pieces).await?;
                Ok(Made { digest: descriptor.digest, size: descriptor.size })
            })
        });
        client(&registry).upload(upload(&source, Some(&known))).await.expect("relayed");
        assert_eq!(registry.count(Method::POST, "/uploads/"), posts);
        assert_eq!(registry.blob("a", &blob).as_deref(), Some(&blob[..]));
    }
}

#[tokio::test]
async fn empty_blobs_are_never_sent() {
    let registry = open().ways(ecr()).start();
    push(&client(&registry), b"").await.expect_err("empty");
    assert_eq!(registry.requests().len(), 0);
    stream(&client(&registry), b"").await.expect_err("empty");
    assert_eq!(registry.count(Method::PUT, ""), 0);
}
