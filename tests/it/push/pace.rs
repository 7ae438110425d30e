//! Registries that are slow or stand still, and machines that sleep or move while bytes are sent, as laptops do.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::Method;
use bytes::Bytes;
use cargo_lambda_image::event::{Event, Reporter, Session};
use cargo_lambda_image::problem::Problem;
use cargo_lambda_image::registry::credentials::CredentialSource;
use cargo_lambda_image::registry::feed::Source;
use cargo_lambda_image::registry::origin::Origin;
use cargo_lambda_image::registry::pull::Piece;
use cargo_lambda_image::registry::{Client, Patience};

use super::{ALWAYS, LARGE, client_at, made, methods, of, open, push, put_manifest, upload};
use crate::pull::patience;
use crate::support::child;
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::{Family, TestImage, noise};
use crate::support::registry::{Fault, FaultRegistry};
use crate::support::tools::{block_on, succeed, tool};

fn hasty(registry: &FaultRegistry) -> Client {
    let patience = Patience { stall: Duration::from_millis(300), ..patience() };
    client_at(&registry.origin, CredentialSource::Anonymous, patience)
}

#[tokio::test]
async fn a_server_that_takes_no_more_bytes_is_left() {
    let blob = noise(LARGE);
    let registry = open().fault(Method::PUT, "/uploads/", 0..1, Fault::ReadThenHang(1 << 20)).start();
    push(&hasty(&registry), &blob).await.expect("pushed");
    assert_eq!(registry.count(Method::POST, "/uploads/"), 2);
}

#[tokio::test]
async fn a_server_that_never_confirms_is_asked() {
    let blob = noise(300_000);
    let registry = open().fault(Method::PUT, "/uploads/", 0..1, Fault::Hang).start();
    push(&hasty(&registry), &blob).await.expect("pushed");
    assert_eq!((registry.received(), registry.count(Method::POST, "/uploads/")), (300_000, 1));
}

#[tokio::test]
async fn a_large_blob_may_take_its_time_to_be_confirmed_however_it_was_sent() {
    static MIB: [u8; 1 << 20] = [7; 1 << 20];
    let blob = vec![7; MIB.len() * 64];
    let late = Fault::Late(Duration::from_secs(2));
    // Less than the answer takes, but more than a fifth of it: so long may any answer to so many bytes take.
    let patience = Patience { stall: Duration::from_secs(1), connect: Duration::from_millis(500), ..patience() };
    for (known, expected) in [(Some(of(&blob)), &["POST", "PUT"][..]), (None, &["POST", "PATCH", "PUT"])] {
        let registry = open().fault(Method::PUT, "/uploads/", 0..1, late.clone()).start();
        let client = client_at(&registry.origin, CredentialSource::Anonymous, patience.clone());
        let source = Source::blocking(|mut pieces| {
            for _ in 0..64 {
                std::io::Write::write_all(&mut pieces, &MIB)
                    .map_err(|error| Problem::failed("written").because(error))?;
            }
            pieces.finish()
        });
        assert_eq!(client.upload(upload(&source, known.as_ref())).await.expect("pushed"), made(&blob));
        assert_eq!(methods(&registry), expected);
    }
}

#[tokio::test]
async fn who_makes_the_bytes_may_take_longer_than_the_wire() {
    let registry = open().start();
    let source = Source::new(|pieces| {
        Box::pin(async move {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(400)).await;
                let sent = pieces.send(Piece::Bytes(Bytes::from_static(b"abc"))).await;
                sent.map_err(|_| Problem::failed("nobody takes it"))?;
            }
            Ok(made(b"abcabcabc"))
        })
    });
    let pushed = hasty(&registry).upload(upload(&source, None)).await.expect("pushed");
    assert_eq!(pushed, made(b"abcabcabc"));
    assert_eq!(methods(&registry), ["POST", "PATCH", "PUT"]);
}

#[tokio::test]
async fn bytes_are_made_no_faster_than_they_are_taken() {
    let registry = open().fault(Method::PATCH, "/uploads/", ALWAYS, Fault::ReadThenHang(0)).start();
    let most = Arc::new(AtomicU64::new(0));
    let counter = most.clone();
    let source = Source::blocking(move |mut pieces| {
        let mut count = 0;
        // 64 GiB, unless somebody stops us.
        for _ in 0..65536 {
            std::io::Write::write_all(&mut pieces, &[7; 1 << 20])
                .map_err(|error| Problem::failed("written").because(error))?;
            count += 1 << 20;
            counter.fetch_max(count, Ordering::Relaxed);
        }
        pieces.finish()
    });
    hasty(&registry).upload(upload(&source, None)).await.expect_err("nobody reads");
    assert!(most.load(Ordering::Relaxed) < 32 << 20, "{most:?}");
}

/// Wakes the registry as soon as something is tried again, and counts how often.
struct Waker {
    registry: Arc<DockerRegistry>,
    retries: Arc<AtomicUsize>,
}

impl Reporter for Waker {
    fn event(&self, event: &Event<'_>) {
        if let Event::Retrying { .. } = event {
            self.registry.signal("CONT");
            self.retries.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn a_registry_that_falls_asleep_in_the_middle_is_left_and_pushed_to_once_it_is_awake() {
    let blob = noise(LARGE);
    let known = of(&blob);
    for known in [Some(&known), None] {
        let registry = Arc::new(DockerRegistry::start());
        let retries = Arc::new(AtomicUsize::new(0));
        let session = Session::new(Box::new(Waker { registry: registry.clone(), retries: retries.clone() }));
        let origin = Origin::from_url(&format!("http://{}", registry.address)).expect("an origin");
        let patience = Patience { stall: Duration::from_millis(500), ..patience() };
        let client = Client::new(origin, CredentialSource::Anonymous, patience, &session);
        let (bytes, tries) = (blob.clone(), AtomicUsize::new(0));
        let source = Source::blocking(move |mut pieces| {
            let is_first = tries.fetch_add(1, Ordering::Relaxed) == 0;
            for (number, part) in bytes.chunks(1 << 20).enumerate() {
                // What is left is more than the buffers of a connection hold.
                if is_first && number == 4 {
                    registry.signal("STOP");
                }
                std::io::Write::write_all(&mut pieces, part)
                    .map_err(|error| Problem::failed("written").because(error))?;
            }
            pieces.finish()
        });
        assert_eq!(client.upload(upload(&source, known)).await.expect("pushed"), made(&blob));
        assert!(client.has_blob("a", &of(&blob)).await.expect("an answer"));
        assert_eq!(retries.load(Ordering::Relaxed), 1);
    }
}

/// The machine's address goes, and with it every answer to what was sent from it; the registry is known by another one
/// now.
fn move_to(address: &str) {
    let ip = |arguments: &[&str]| drop(succeed(Command::new(tool("ip")).args(arguments)));
    ip(&["address", "flush", "dev", "lo", "scope", "global"]);
    ip(&["address", "add", address, "dev", "lo"]);
    fs::write("/etc/hosts", format!("{address} registry.example\n")).expect("written");
}

#[test]
fn a_machine_that_comes_back_with_another_address_goes_on_where_the_name_leads_then() {
    const TEST: &str = "push::pace::a_machine_that_comes_back_with_another_address_goes_on_where_the_name_leads_then";
    if !child::is_child() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let hosts = directory.path().join("hosts");
        fs::write(&hosts, "").expect("written");
        let script = format!("ip link set lo up; mount --bind '{}' /etc/hosts", hosts.display());
        return child::run_apart(&script, TEST, &[]);
    }
    let image = TestImage::of(Family::Oci, "amd64", &[noise(LARGE)], |tar| tar.to_vec());
    let layer = &image.layers[0];
    for known in [Some(&of(layer)), None] {
        move_to("10.9.0.1");
        let registry = open().everywhere().start();
        let retries = Retries::default();
        let origin = Origin::from_url(&format!("http://registry.example:{}", registry.address.port()));
        let patience = Patience { stall: Duration::from_millis(500), ..patience() };
        let session = Session::new(Box::new(retries.clone()));
        let client = Client::new(origin.expect("an origin"), CredentialSource::Anonymous, patience, &session);
        let (bytes, tries) = (layer.clone(), AtomicUsize::new(0));
        let source = Source::blocking(move |mut pieces| {
            let is_first = tries.fetch_add(1, Ordering::Relaxed) == 0;
            for (number, part) in bytes.chunks(1 << 20).enumerate() {
                // What is left is more than the buffers of a connection hold.
                if is_first && number == 4 {
                    move_to("10.9.0.2");
                }
                std::io::Write::write_all(&mut pieces, part)
                    .map_err(|error| Problem::failed("written").because(error))?;
            }
            pieces.finish()
        });
        block_on(async {
            assert_eq!(client.upload(upload(&source, known)).await.expect("pushed"), made(layer));
            push(&client, &image.config).await.expect("pushed");
            put_manifest(&client, "v1", &image).await.expect("tagged");
        });
        assert_eq!(retries.0.load(Ordering::Relaxed), 1);
        assert_eq!(registry.blob("a", layer).as_ref(), Some(&Bytes::from(layer.clone())));
        assert_eq!(registry.manifest("a", "v1").as_deref(), Some(&image.manifest[..]));
    }
}

/// Counts what is tried again.
#[derive(Clone, Default)]
struct Retries(Arc<AtomicUsize>);

impl Reporter for Retries {
    fn event(&self, event: &Event<'_>) {
        if let Event::Retrying { .. } = event {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
