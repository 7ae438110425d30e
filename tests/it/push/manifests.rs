//! Manifests and tags: lost answers, lies, and tags that cannot be moved.

use axum::http::Method;
use cargo_lambda_image::oci::Digest;
use cargo_lambda_image::registry::error::ErrorKind;
use cargo_lambda_image::registry::pull::Selector;
use cargo_lambda_image::registry::push::is_blob_missing;

use super::{ALWAYS, client, ecr, methods, push, put_manifest};
use crate::support::images::{Family, TestImage};
use crate::support::registry::{Fault, FaultRegistry, Ways};

#[tokio::test]
async fn a_lost_answer_to_a_manifest_is_found_by_asking() {
    let image = TestImage::new(Family::Oci, "amd64");
    for (fault, log) in [
        (Fault::DropReply, &["PUT /v2/a/manifests/2", "HEAD /v2/a/manifests/2"][..]),
        (Fault::ReadThenCut(10), &["PUT /v2/a/manifests/2", "HEAD /v2/a/manifests/2", "PUT /v2/a/manifests/2"]),
    ] {
        let registry =
            FaultRegistry::builder().image("a", "1", &image).fault(Method::PUT, "/manifests/", 0..1, fault).start();
        put_manifest(&client(&registry), "2", &image).await.expect("pushed");
        assert_eq!(registry.log(), log);
        assert_eq!(registry.manifest("a", "2").as_deref(), Some(&image.manifest[..]));
    }
}

#[tokio::test]
async fn a_manifest_that_names_a_missing_blob_is_known_by_both_codes() {
    let image = TestImage::new(Family::Oci, "amd64");
    for ways in [Ways::default(), ecr()] {
        let registry = FaultRegistry::builder().image("a", "1", &image).ways(ways).start();
        registry.forget("a", &image.layers[1]);
        let error = put_manifest(&client(&registry), "2", &image).await.expect_err("incomplete");
        assert!(is_blob_missing(&error), "{:?}", error.kind);
        assert_eq!(registry.manifest("a", "2"), None);
    }
}

#[tokio::test]
async fn a_manifest_taken_under_another_digest_is_an_error() {
    let image = TestImage::new(Family::Oci, "amd64");
    let other = Digest::of(b"other").to_string();
    let registry = FaultRegistry::builder()
        .image("a", "1", &image)
        .fault(Method::PUT, "/manifests/", ALWAYS, Fault::Header("docker-content-digest", other.clone()))
        .start();
    let error = put_manifest(&client(&registry), "2", &image).await.expect_err("another digest");
    assert_eq!(error.kind, ErrorKind::Content);
    assert!(
        error.problem.message().ends_with(&format!("as {other}, and it is {}", image.digest())),
        "{}",
        error.problem
    );
}

#[tokio::test]
async fn a_tag_that_cannot_be_moved_is_known_by_what_it_points_to_whatever_the_registry_says() {
    let image = TestImage::new(Family::Oci, "amd64");
    let other = TestImage::of(Family::Oci, "arm64", &image.tars, crate::support::images::gzip);
    const IMMUTABLE: &str = "tags of this repository are immutable: choose another tag";
    for (status, body, help) in [
        (412, r#"{"errors":[{"code":"PRECONDITION","message":"configured as immutable"}]}"#, Some(IMMUTABLE)),
        (409, "", Some(IMMUTABLE)),
        (403, r#"{"errors":[{"code":"DENIED","message":"tag is Immutable"}]}"#, Some(IMMUTABLE)),
        (403, r#"{"errors":[{"code":"DENIED","message":"no"}]}"#, None),
    ] {
        let registry = FaultRegistry::builder()
            .image("a", "1", &image)
            .ways(ecr())
            .fault(Method::PUT, "/manifests/1", ALWAYS, Fault::Status(status, &[], body))
            .start();
        put_manifest(&client(&registry), "1", &image).await.expect("the same");
        push(&client(&registry), &other.config).await.expect("pushed");
        let error = put_manifest(&client(&registry), "1", &other).await.expect_err("another");
        assert_eq!(error.problem.next_step() == Some(IMMUTABLE), help.is_some(), "{status} {body}: {}", error.problem);
        assert_eq!(error.status(), Some(status));
        // A digest points to itself only.
        let by_digest = Selector::Digest(other.digest());
        let bytes = bytes::Bytes::copy_from_slice(&other.manifest);
        client(&registry).put_manifest("a", &by_digest, other.manifest_type(), &bytes).await.expect("taken");
    }
}

#[tokio::test]
async fn a_tag_that_cannot_be_moved_is_success_if_it_need_not() {
    let image = TestImage::new(Family::Oci, "amd64");
    let ways = Ways { immutable: true, ..ecr() };
    let registry = FaultRegistry::builder().image("a", "1", &image).ways(ways).start();
    put_manifest(&client(&registry), "1", &image).await.expect("the same");
    assert_eq!(methods(&registry), ["PUT", "HEAD"]);

    let other = TestImage::of(Family::Oci, "arm64", &image.tars, crate::support::images::gzip);
    push(&client(&registry), &other.config).await.expect("pushed");
    let error = put_manifest(&client(&registry), "1", &other).await.expect_err("another");
    let expected = format!(
        "tag `1` of `{}/a` cannot be moved to {}: it points to {}",
        registry.address,
        other.digest(),
        image.digest()
    );
    assert_eq!(error.problem.message(), expected);
    assert_eq!(error.problem.next_step(), Some("tags of this repository are immutable: choose another tag"));
    assert_eq!(registry.count(Method::PUT, "/manifests/"), 2, "not tried again");
    assert_eq!(registry.manifest("a", "1").as_deref(), Some(&image.manifest[..]));
}
