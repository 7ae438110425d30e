//! Manifests that name blobs which the registry does not see, not yet or no more.

use std::sync::Arc;

use axum::http::Method;
use cargo_lambda_image::event::Session;
use cargo_lambda_image::oci::{Digest, media_type};
use cargo_lambda_image::publish::{Push, Supply, publish};

use super::{describe, ecr, image, layers, many, open, push, push_layers, request, store, target};
use crate::support::registry::{Fault, Ways};

#[tokio::test]
async fn a_registry_that_sees_blobs_late_is_asked_again() {
    let (_directory, store) = store();
    let of = many(2);
    let registry = open().ways(Ways { lag: 2, ..ecr() }).start();
    push(&target(&registry.origin, "a"), &[], &of, &store).await.expect("pushed");
    assert_eq!(registry.count(Method::PUT, "/manifests/sha256:"), 3);
    assert_eq!(registry.count(Method::POST, "/uploads/"), 3, "no blob is sent twice");

    let registry = open().ways(Ways { lag: usize::MAX, ..ecr() }).start();
    let problem = push(&target(&registry.origin, "a"), &["v1"], &of, &store).await.expect_err("never seen");
    assert!(problem.causes()[0].contains("BLOB_UPLOAD_UNKNOWN"), "{:?}", problem.causes());
    assert_eq!(registry.manifest("a", "v1"), None);
}

#[tokio::test]
async fn a_blob_that_is_missed_again_though_it_is_there_is_sent_again() {
    let (_directory, store) = store();
    let of = many(2);
    let missed = Digest::of(&of.layers[1]);
    let body = format!(
        r#"{{"errors":[{{"code":"BLOB_UPLOAD_UNKNOWN","message":"Layers with digests '[{missed}]' do not exist"}}]}}"#
    );
    for (times, sent) in [(1, 0), (2, 1), (3, 2)] {
        let fault = Fault::Status(404, &[], body.clone().leak());
        let registry = open().fault(Method::PUT, "/manifests/sha256:", 0..times, fault).start();
        push(&target(&registry.origin, "a"), &[], &of, &store).await.expect("pushed");
        let again = registry.count(Method::PUT, &missed.to_string().replace(':', "%3A")) - 1;
        assert_eq!(again, sent, "{times}");
        assert_eq!(registry.count(Method::POST, "/uploads/"), 3 + sent, "{times}: no other");
    }
}

#[tokio::test]
async fn a_layer_that_was_made_as_other_bytes_is_asked_for_as_those() {
    let (_directory, store) = store();
    let of = many(1);
    let registry = open().ways(Ways { lag: 1, ..ecr() }).start();
    let mut layers = layers(&of, &store);
    let Supply::Here(source) = layers[0].supply.clone() else { panic!("a stored layer") };
    // As a lock says it that another version of the compressor wrote.
    let locked = describe(media_type::OCI_LAYER_GZIP, b"other bytes of the same content");
    (layers[0].known, layers[0].supply) = (Some(locked.clone()), Supply::Made(source));
    let result = push_layers(&target(&registry.origin, "a"), &[], &of, &layers, &store).await.expect("pushed");
    assert_eq!(result.layers[0].digest, Digest::of(&of.layers[0]));
    assert_eq!(registry.count(Method::PUT, "/manifests/sha256:"), 2);
    let asked = registry.log().into_iter().filter(|line| line.starts_with("HEAD /v2/a/blobs/")).collect::<Vec<_>>();
    assert_eq!(asked[0], format!("HEAD /v2/a/blobs/{}", locked.digest), "what is locked is asked for first");
    let made = [&of.layers[0], &of.config].map(|bytes| format!("HEAD /v2/a/blobs/{}", Digest::of(bytes)));
    assert_eq!(asked[1..], made, "and then what was made");
}

#[tokio::test]
async fn a_blob_that_got_lost_is_sent_again_before_the_manifest() {
    let (_directory, store) = store();
    let of = many(2);
    let registry = Arc::new(open().start());
    let (losing, lost) = (registry.clone(), of.layers[1].clone());
    let target = target(&registry.origin, "a");
    // Composing comes after every layer was confirmed.
    let compose = |_: &[_]| {
        losing.forget("a", &lost);
        Ok(image(&of))
    };
    let layers = layers(&of, &store);
    let push = Push { target: &target, request: &request(&[]), layers: &layers, digest: None };
    publish(&push, compose, &store, &Session::silent()).await.expect("pushed");
    assert_eq!(registry.count(Method::PUT, "/manifests/sha256:"), 2);
    assert!(registry.blob("a", &of.layers[1]).is_some());
}
