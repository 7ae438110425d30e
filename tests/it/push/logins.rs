//! Logins that expire, are renewed and are refused while blobs are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::Method;
use cargo_lambda_image::problem::Problem;
use cargo_lambda_image::registry::credentials::{CredentialSource, Credentials, Lease, Renewal, Secret};
use cargo_lambda_image::registry::feed::Source;

use super::{ALWAYS, client, client_at, ecr, methods, of, open, push, upload};
use crate::pull::patience;
use crate::support::images::noise;
use crate::support::registry::{Auth, Fault, FaultRegistry};

/// Logins `login-1`, `login-2` and so on, and how many there were.
fn logins(first: usize) -> (CredentialSource, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(first));
    let counter = given.clone();
    let renewal = Renewal::new(move || {
        let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
        let password = Secret::new(format!("login-{number}"));
        let credentials = Credentials::Password { username: "AWS".into(), password };
        Box::pin(async move { Ok(Lease { credentials, lifetime: Duration::from_secs(12 * 3600) }) })
    });
    (CredentialSource::Renewed(renewal), given)
}

#[tokio::test]
async fn an_expired_ecr_login_is_renewed_once_for_all() {
    let blobs: Vec<_> = (0..4).map(|index| noise(10_000 + index)).collect();
    let registry = open().ways(ecr()).auth(Auth::Ecr).start();
    let (source, given) = logins(0);
    let client = client_at(&registry.origin, source, patience());
    push(&client, &blobs[0]).await.expect("pushed");
    assert_eq!(methods(&registry), ["POST", "PUT"], "the login goes along unasked");

    registry.expire_logins(1);
    let first = of(&blobs[0]);
    let (one, two, three) =
        tokio::join!(push(&client, &blobs[1]), push(&client, &blobs[2]), client.has_blob("a", &first));
    one.and(two).expect("both pushed");
    assert!(three.expect("an answer to HEAD, whose refusal had no words"));
    assert_eq!(given.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_login_that_expires_while_bytes_are_sent_is_renewed() {
    let blob = noise(3_000_000);
    for known in [true, false] {
        let registry = Arc::new(open().ways(ecr()).auth(Auth::Ecr).start());
        let (source, given) = logins(0);
        let client = client_at(&registry.origin, source, patience());
        let (bytes, expiring) = (blob.clone(), registry.clone());
        let source = Source::blocking(move |mut pieces| {
            expiring.expire_logins(1);
            std::io::Write::write_all(&mut pieces, &bytes)
                .map_err(|error| Problem::failed("written").because(error))?;
            pieces.finish()
        });
        // The session is opened with the first login, and bytes come only after it expired.
        let descriptor = of(&blob);
        client.upload(upload(&source, known.then_some(&descriptor))).await.expect("pushed");
        assert_eq!(given.load(Ordering::Relaxed), 2);
        assert_eq!(registry.blob("a", &blob).as_deref(), Some(&blob[..]));
    }
}

#[tokio::test]
async fn a_login_that_is_refused_after_its_renewal_ends_the_push() {
    let blob = noise(3000);
    let registry = open().ways(ecr()).auth(Auth::Ecr).start();
    registry.expire_logins(100);
    let (source, given) = logins(0);
    let error = push(&client_at(&registry.origin, source, patience()), &blob).await.expect_err("refused");
    assert_eq!(error.status(), Some(403));
    assert!(error.problem.causes()[0].contains("authorization token has expired"), "{:?}", error.problem.causes());
    assert_eq!(given.load(Ordering::Relaxed), 2);
    assert_eq!(registry.received(), 0);
}

#[tokio::test]
async fn a_login_that_cannot_be_renewed_says_why() {
    let registry = open().ways(ecr()).auth(Auth::Ecr).start();
    let renewal =
        Renewal::new(|| Box::pin(async { Err(Problem::failed("the SSO session has expired").help("log in")) }));
    let client = client_at(&registry.origin, CredentialSource::Renewed(renewal), patience());
    let error = push(&client, &noise(10)).await.expect_err("no login");
    assert_eq!((error.problem.message(), error.problem.next_step()), ("the SSO session has expired", Some("log in")));
    assert_eq!(registry.requests().len(), 0);
}

#[tokio::test]
async fn a_login_that_can_no_more_be_renewed_ends_the_push_and_not_what_is_there() {
    let blobs = [noise(3000), noise(4000)];
    let registry = open().ways(ecr()).auth(Auth::Ecr).start();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let renewal = Renewal::new(move || {
        let is_first = counter.fetch_add(1, Ordering::Relaxed) == 0;
        let password = Secret::new("login-1");
        let credentials = Credentials::Password { username: "AWS".into(), password };
        let lease = Lease { credentials, lifetime: Duration::from_secs(12 * 3600) };
        let over = || Problem::failed("the SSO session has expired").help("log in");
        Box::pin(async move { is_first.then_some(lease).ok_or_else(over) })
    });
    let client = client_at(&registry.origin, CredentialSource::Renewed(renewal), patience());
    push(&client, &blobs[0]).await.expect("pushed");
    registry.expire_logins(1);
    let error = push(&client, &blobs[1]).await.expect_err("no login");
    assert_eq!((error.problem.message(), error.problem.next_step()), ("the SSO session has expired", Some("log in")));
    assert_eq!((asked.load(Ordering::Relaxed), registry.count(Method::POST, "/uploads/")), (2, 2), "not tried again");
    assert_eq!(registry.blob("a", &blobs[0]).as_deref(), Some(&blobs[0][..]));
}

#[tokio::test]
async fn a_token_for_pushing_is_asked_with_its_scope_and_never_without_the_login() {
    let blob = noise(3000);
    let given = |password| {
        let password = Secret::new(password);
        CredentialSource::Given(Credentials::Password { username: "me".into(), password })
    };
    let registry = open().auth(Auth::Bearer(Some(("me", "right")))).start();
    push(&client_at(&registry.origin, given("right"), patience()), &blob).await.expect("pushed");
    let tokens = |registry: &FaultRegistry| {
        let log = registry.log().into_iter();
        log.filter(|line| line.starts_with("GET /token")).collect::<Vec<_>>()
    };
    assert_eq!(tokens(&registry), ["GET /token?service=test&scope=repository%3Aa%3Apull%2Cpush"]);

    let error = push(&client_at(&registry.origin, given("wrong"), patience()), &blob).await.expect_err("refused");
    assert_eq!(error.status(), Some(401));
    assert_eq!(tokens(&registry).len(), 2, "no second try as nobody");
}

#[tokio::test]
async fn a_token_that_ends_while_bytes_are_sent_is_replaced_once() {
    let blob = noise(3_000_000);
    let registry = Arc::new(open().auth(Auth::Bearer(None)).start());
    let (bytes, revoking, once) = (blob.clone(), registry.clone(), AtomicUsize::new(0));
    let source = Source::blocking(move |mut pieces| {
        if once.fetch_add(1, Ordering::Relaxed) == 0 {
            revoking.revoke_tokens();
        }
        std::io::Write::write_all(&mut pieces, &bytes).map_err(|error| Problem::failed("written").because(error))?;
        pieces.finish()
    });
    client(&registry).upload(upload(&source, None)).await.expect("pushed");
    assert_eq!(registry.count(Method::GET, "/token"), 2);

    let refusing = open().fault(Method::PUT, "/uploads/", ALWAYS, Fault::Status(401, &[], "")).start();
    let error = push(&client(&refusing), &blob).await.expect_err("refused");
    assert_eq!((error.status(), refusing.count(Method::PUT, "/uploads/")), (Some(401), 1));
    let help =
        format!("log in with `docker login {0}` or `podman login {0}`, and check the image's name", refusing.address);
    assert_eq!(error.problem.next_step(), Some(help.as_str()));
}
