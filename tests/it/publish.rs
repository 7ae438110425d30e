//! A whole image into a repository: the order of things, what is sent and what is not, and what a failure leaves.

mod missing;

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::http::Method;
use cargo_lambda_image::base::{self, BaseRequest, Holder};
use cargo_lambda_image::event::{Event, PushResult, PushStep, Reporter, Session};
use cargo_lambda_image::image::Image;
use cargo_lambda_image::layer::entries::{Content, Entry, Source as FileSource, Stat};
use cargo_lambda_image::layer::plan::LayerSpec;
use cargo_lambda_image::layer::{Origin as LayerOrigin, Pipeline, gzip, tarball};
use cargo_lambda_image::oci::{Descriptor, Digest, media_type};
use cargo_lambda_image::platform::Architecture;
use cargo_lambda_image::problem::{Problem, Result};
use cargo_lambda_image::publish::{LayerToPush, Push, Request, Supply, Target, digest_tag, publish, supply, survey};
use cargo_lambda_image::registry::Client;
use cargo_lambda_image::registry::credentials::CredentialSource;
use cargo_lambda_image::registry::feed::Source;
use cargo_lambda_image::registry::origin::Origin;
use cargo_lambda_image::registry::pull::Selector;
use cargo_lambda_image::store::Store;
use tempfile::TempDir;

use crate::pull::patience;
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::{Family, TestImage, gzip as packed, noise, tar};
use crate::support::registry::{Builder, Fault, FaultRegistry, Mounts, Ways};

fn ecr() -> Ways {
    Ways { ecr: true, ..Ways::default() }
}

fn open() -> Builder {
    FaultRegistry::builder().repository("a").ways(ecr())
}

fn target(origin: &str, repository: &str) -> Target {
    let origin = Origin::from_url(origin).expect("an origin");
    let client = Client::new(origin, CredentialSource::Anonymous, patience(), &Session::silent());
    Target { client: Arc::new(client), repository: repository.to_owned() }
}

fn store() -> (TempDir, Arc<Store>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&directory.path().join("lambda-image"), &Session::silent()).expect("a store");
    (directory, Arc::new(store))
}

fn describe(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: media_type.into(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

/// What composing would make of a test image.
fn image(image: &TestImage) -> Image {
    Image {
        architecture: Architecture::Amd64,
        config: image.config.clone(),
        config_descriptor: describe(media_type::OCI_CONFIG, &image.config),
        manifest: image.manifest.clone(),
        manifest_descriptor: describe(image.manifest_type(), &image.manifest),
        layers: image.layers.iter().map(|layer| describe(media_type::OCI_LAYER_GZIP, layer)).collect(),
    }
}

/// Layers whose bytes are in the store.
fn layers(image: &TestImage, store: &Arc<Store>) -> Vec<LayerToPush> {
    let layer = |(index, bytes): (usize, &Vec<u8>)| {
        store.write_blob(bytes).expect("a blob");
        let known = describe(media_type::OCI_LAYER_GZIP, bytes);
        let supply = Supply::Here(supply::stored(store, &known));
        LayerToPush {
            name: format!("layer {index}"),
            at_most: known.size,
            known: Some(known),
            supply,
            lenders: vec![],
            brought_to: vec![],
        }
    };
    image.layers.iter().enumerate().map(layer).collect()
}

/// An image of this many layers.
fn many(count: usize) -> TestImage {
    let tars: Vec<_> = (0..count).map(|index| tar(&[(&format!("file-{index}"), &noise(20_000 + index))])).collect();
    TestImage::of(Family::Oci, "amd64", &tars, packed)
}

const TAGS: [&str; 2] = ["v1", "v2"];

async fn push(target: &Target, tags: &[&str], of: &TestImage, store: &Arc<Store>) -> Result<PushResult> {
    push_layers(target, tags, of, &layers(of, store), store).await
}

async fn push_layers(
    target: &Target,
    tags: &[&str],
    of: &TestImage,
    layers: &[LayerToPush],
    store: &Arc<Store>,
) -> Result<PushResult> {
    let tags: Vec<_> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let digest = layers.iter().all(|layer| layer.known.is_some()).then(|| of.digest());
    let push = Push { target, request: &request(&tags), layers, digest };
    publish(&push, |_| Ok(image(of)), store, &Session::silent()).await
}

fn request(tags: &[String]) -> Request<'_> {
    Request { package: "p", bin: "app", tags, immutable: &[], digest_tag: true }
}

fn steps(result: &PushResult) -> Vec<PushStep> {
    result.layers.iter().map(|layer| layer.step).collect()
}

#[tokio::test]
async fn tags_come_after_the_manifest_and_it_after_every_blob() {
    let (_directory, store) = store();
    let registry = open().start();
    let of = many(6);
    let result = push(&target(&registry.origin, "a"), &TAGS, &of, &store).await.expect("pushed");
    let writes: Vec<_> = registry
        .log()
        .into_iter()
        .filter_map(|line| {
            line.strip_prefix("PUT ").map(|target| target.split('?').next().unwrap_or_default().to_owned())
        })
        .collect();
    let (blobs, manifests) = writes.split_at(7);
    assert!(blobs.iter().all(|target| target.contains("/uploads/")), "{writes:?}");
    let own = digest_tag("app", &of.digest());
    assert_eq!(own, format!("app-{}", of.digest().short()));
    let expected = [of.digest().to_string(), "v1".into(), "v2".into(), own.clone()];
    let expected: Vec<_> = expected.iter().map(|reference| format!("/v2/a/manifests/{reference}")).collect();
    assert_eq!(manifests, expected);
    let config = registry.log().iter().rposition(|line| line.contains("/uploads/")).expect("an upload");
    assert!(registry.log()[config].contains(&Digest::of(&of.config).hex()), "the config is the last blob");

    assert_eq!(result.digest, of.digest());
    assert_eq!(result.image_uri, format!("{}/a@{}", registry.address, of.digest()));
    assert_eq!(result.tags, ["v1", "v2", &own]);
    assert_eq!((result.sent_bytes, result.reused_bytes), (image(&of).size_bytes(), 0));
}

#[tokio::test]
async fn what_is_there_is_not_sent_again() {
    let (_directory, store) = store();
    let registry = open().start();
    let of = many(3);
    let target = target(&registry.origin, "a");
    push(&target, &TAGS, &of, &store).await.expect("pushed");
    let before = registry.requests().len();
    let result = push(&target, &TAGS, &of, &store).await.expect("pushed");
    assert_eq!(steps(&result), [PushStep::Reuse; 3]);
    assert_eq!((result.sent_bytes, result.reused_bytes), (0, image(&of).size_bytes()));
    let rest = registry.log().split_off(before);
    // One question each: three layers, the config, the manifest, three tags.
    assert_eq!(rest.len(), 8, "{rest:?}");
    assert!(rest.iter().all(|line| line.starts_with("HEAD ")), "{rest:?}");
}

#[tokio::test]
async fn a_failed_push_leaves_the_tags_and_a_rerun_sends_only_the_rest() {
    const BROKEN: Fault = Fault::Status(400, &[], "");
    let (old, new) = (TestImage::new(Family::Oci, "amd64"), many(5));
    // Each write of the push fails in its turn: five layers, the config, the manifest, two tags.
    for failing in 0..9 {
        let (_directory, store) = store();
        let registry = open().image("a", "v1", &old).fault(Method::PUT, "/a/", failing..failing + 1, BROKEN).start();
        let target = target(&registry.origin, "a");
        push(&target, &["v1"], &new, &store).await.expect_err("a failing write");
        let moved = failing == 8;
        let expected = if moved { &new.manifest } else { &old.manifest };
        assert_eq!(registry.manifest("a", "v1").as_deref(), Some(&expected[..]), "write {failing}");
        let there: Vec<_> = new.layers.iter().map(|layer| registry.blob("a", layer).is_some()).collect();
        let before = registry.received();
        let result = push(&target, &["v1"], &new, &store).await.expect("pushed");
        let lacking: u64 =
            new.layers.iter().zip(&there).filter(|(_, there)| !**there).map(|(layer, _)| layer.len() as u64).sum();
        let config = if failing < 6 { new.config.len() as u64 } else { 0 };
        // What was on its way when its neighbour failed may still arrive, and belongs to no push then.
        let sent = match failing {
            ..5 => result.sent_bytes - new.manifest.len() as u64,
            _ => registry.received() - before,
        };
        assert!(sent == lacking + config || (failing < 5 && sent < lacking + config), "write {failing}: {sent}");
        assert_eq!(registry.manifest("a", "v1").as_deref(), Some(&new.manifest[..]));
        assert_eq!(result.digest, new.digest());
    }
}

#[tokio::test]
async fn a_tag_that_is_moved_while_layers_are_sent_points_to_the_image_in_the_end() {
    let (_directory, store) = store();
    let (of, other) = (many(1), many(2));
    let registry = Arc::new(open().image("a", "v1", &of).start());
    let target = target(&registry.origin, "a");
    // What it is turns out on the way.
    let layers: Vec<_> = layers(&of, &store).into_iter().map(|layer| LayerToPush { known: None, ..layer }).collect();
    let (tags, moving) = (["v1".to_owned()], registry.clone());
    let compose = |_: &[_]| {
        moving.move_tag("a", "v1", other.manifest_type(), &other.manifest);
        Ok(image(&of))
    };
    let push = Push { target: &target, request: &request(&tags), layers: &layers, digest: None };
    publish(&push, compose, &store, &Session::silent()).await.expect("pushed");
    assert_eq!(registry.manifest("a", "v1").as_deref(), Some(&of.manifest[..]));
}

#[tokio::test]
async fn every_tag_is_tried_and_the_message_says_what_became_of_each() {
    let (_directory, store) = store();
    let of = many(1);
    let registry = open()
        .fault(Method::PUT, "/manifests/v1", 0..9, Fault::Status(403, &[], r#"{"errors":[{"code":"DENIED"}]}"#))
        .fault(Method::PUT, "/manifests/v3", 0..9, Fault::Status(418, &[], ""))
        .start();
    let target = target(&registry.origin, "a");
    let (shown, digest, own) = (target.shown(), of.digest(), digest_tag("app", &of.digest()));
    let problem = push(&target, &["v1", "v2"], &of, &store).await.expect_err("one is refused");
    let expected = format!("the image is in `{shown}` as {digest}, under `v2` and `{own}`, but not under `v1`");
    assert_eq!(problem.message(), expected);
    let problem = push(&target, &["v1", "v3", "v4"], &of, &store).await.expect_err("two are refused");
    let expected =
        format!("the image is in `{shown}` as {digest}, under `v4` and `{own}`, but not under `v1` nor `v3`");
    assert_eq!((problem.message(), problem.causes()[0].as_str()), (&*expected, "2 of 4 tags failed"));
    let told = &problem.causes()[1];
    assert!(told.contains("/v2/a/manifests/v1") && told.contains("/v2/a/manifests/v3"), "{told}");
    for tag in ["v2", "v4", &own] {
        assert_eq!(registry.manifest("a", tag).as_deref(), Some(&of.manifest[..]), "{tag}");
    }
}

#[tokio::test]
async fn a_layer_that_is_in_an_image_twice_counts_once() {
    let (_directory, store) = store();
    let one = tar(&[("file", &noise(20_000))]);
    let of = TestImage::of(Family::Oci, "amd64", &[one.clone(), one], packed);
    let registry = open().start();
    let result = push(&target(&registry.origin, "a"), &[], &of, &store).await.expect("pushed");
    assert_eq!(steps(&result), [PushStep::Upload, PushStep::Reuse]);
    let sent = of.layers[0].len() + of.config.len() + of.manifest.len();
    assert_eq!((result.sent_bytes, result.reused_bytes), (sent as u64, 0));
}

#[tokio::test]
async fn a_config_that_got_lost_is_sent_again() {
    let (_directory, store) = store();
    let of = many(2);
    let registry = open().start();
    let target = target(&registry.origin, "a");
    push(&target, &["v1"], &of, &store).await.expect("pushed");
    registry.forget("a", &of.config);
    let result = push(&target, &["v1"], &of, &store).await.expect("mended");
    assert!(registry.blob("a", &of.config).is_some());
    assert_eq!(result.sent_bytes, of.config.len() as u64);
    assert_eq!(steps(&result), [PushStep::Reuse; 2]);
}

#[tokio::test]
async fn a_session_that_a_mount_opened_in_vain_is_ended() {
    let (_directory, store) = store();
    let of = many(1);
    let registry = open().repository("b").ways(Ways { mounts: Mounts::Never, ..ecr() }).start();
    push(&target(&registry.origin, "a"), &[], &of, &store).await.expect("pushed");
    let mut absent = layers(&of, &store);
    absent[0].supply = Supply::Absent { expected: None };
    let b = target(&registry.origin, "b");
    let problem = push_layers(&b, &[], &of, &absent, &store).await.expect_err("nobody has it");
    assert!(problem.causes()[0].contains("has no layer `layer 0`"), "{:?}", problem.causes());
    assert_eq!(registry.count(Method::DELETE, "/uploads/"), 1);
}

#[tokio::test]
async fn an_immutable_tag_is_left_where_it_is() {
    let (_directory, store) = store();
    let ways = Ways { immutable: true, ..ecr() };
    let (old, new) = (many(1), many(2));
    let registry = open().image("a", "v1", &old).ways(ways).start();
    let target = target(&registry.origin, "a");
    push(&target, &["v1"], &old, &store).await.expect("the same");
    let tagged = registry.count(Method::PUT, "/manifests/v1");
    assert_eq!(tagged, 0, "asked first");

    let problem = push(&target, &["v1", "v2"], &new, &store).await.expect_err("another");
    let host = registry.address;
    let own = digest_tag("app", &new.digest());
    let expected =
        format!("the image is in `{host}/a` as {}, under `v2` and `{own}`, but not under `v1`", new.digest());
    assert_eq!(problem.message(), expected);
    assert_eq!(problem.next_step(), Some("tags of this repository are immutable: choose another tag"));
    assert_eq!(registry.count(Method::PUT, "/manifests/v1"), 1);
    assert_eq!(registry.manifest("a", "v1").as_deref(), Some(&old.manifest[..]));
}

#[tokio::test]
async fn two_pushes_of_one_tag_both_complete() {
    let (_directory, store) = store();
    let registry = open().start();
    let target = target(&registry.origin, "a");
    let (one, two) = (many(4), many(5));
    let (first, second) = tokio::join!(push(&target, &["v1"], &one, &store), push(&target, &["v1"], &two, &store));
    for (result, of) in [(first, &one), (second, &two)] {
        assert_eq!(result.expect("pushed").digest, of.digest());
        assert_eq!(registry.manifest("a", &of.digest().to_string()).as_deref(), Some(&of.manifest[..]));
        assert!(of.layers.iter().all(|layer| registry.blob("a", layer).is_some()));
    }
    let last = registry.manifest("a", "v1").expect("the tag");
    assert!(last == one.manifest || last == two.manifest);
}

#[tokio::test]
async fn another_repository_lends_what_was_pushed_there() {
    let (_directory, store) = store();
    let of = many(3);
    for (mounts, step) in [(Mounts::Referenced, PushStep::Mount), (Mounts::Never, PushStep::Upload)] {
        let registry = open().repository("b").ways(Ways { mounts, ..ecr() }).start();
        push(&target(&registry.origin, "a"), &[], &of, &store).await.expect("pushed");
        let before = registry.received();
        let (b, layers_of_it) = (target(&registry.origin, "b"), layers(&of, &store));
        let push_to_b = Push { target: &b, request: &request(&[]), layers: &layers_of_it, digest: None };
        let plan = survey(&push_to_b, &store).await.expect("a plan");
        assert!(plan.layers.iter().all(|layer| layer.step == PushStep::Mount), "{plan:?}");
        let result = push(&target(&registry.origin, "b"), &[], &of, &store).await.expect("pushed");
        assert_eq!(steps(&result), [step; 3]);
        let config = of.config.len() as u64;
        let layers: u64 = of.layers.iter().map(|layer| layer.len() as u64).sum();
        let sent = if step == PushStep::Mount { config } else { config + layers };
        assert_eq!(registry.received() - before, sent);
    }
}

#[tokio::test]
async fn a_mount_that_is_refused_costs_the_bytes_and_nothing_else() {
    let (_directory, store) = store();
    let of = many(2);
    for status in [401, 403, 404, 405, 429, 500, 503] {
        let registry = open()
            .repository("b")
            .ways(Ways { mounts: Mounts::Always, ..ecr() })
            .fault(Method::POST, "mount=", 0..99, Fault::Status(status, &[], ""))
            .start();
        push(&target(&registry.origin, "a"), &[], &of, &store).await.expect("pushed");
        let result = push(&target(&registry.origin, "b"), &["v1"], &of, &store).await.expect("pushed");
        assert_eq!(steps(&result), [PushStep::Upload; 2], "{status}");
        assert_eq!(registry.count(Method::POST, "mount="), 2, "{status}: asked once");
        assert_eq!(registry.manifest("b", "v1").as_deref(), Some(&of.manifest[..]));
    }
}

#[tokio::test]
async fn no_session_of_a_mount_is_left_open() {
    let (_directory, store) = store();
    let of = many(1);
    // A blob is there, but only where a manifest names it is it lent.
    for (lenders, step, opened) in [
        (["idle", "lender"], PushStep::Mount, 1),
        (["idle", "idler"], PushStep::Upload, 2),
        (["lender", "idle"], PushStep::Mount, 0),
    ] {
        let registry = open()
            .blob("idle", &of.layers[0])
            .blob("idler", &of.layers[0])
            .image("lender", "1", &of)
            .ways(Ways { mounts: Mounts::Referenced, ..ecr() })
            .start();
        let mut layers = layers(&of, &store);
        layers[0].lenders = lenders.map(str::to_owned).to_vec();
        let result = push_layers(&target(&registry.origin, "a"), &[], &of, &layers, &store).await.expect("pushed");
        assert_eq!(steps(&result), [step], "{lenders:?}");
        let posts = registry.count(Method::POST, "mount=");
        assert_eq!(posts, opened + usize::from(step == PushStep::Mount), "{lenders:?}");
        assert_eq!(registry.open_sessions("a"), 0, "{lenders:?}: {:?}", registry.log());
    }
}

#[tokio::test]
async fn a_registry_that_throttles_is_pushed_to_all_the_same() {
    let (_directory, store) = store();
    let of = many(20);
    let registry = open().ways(Ways { sessions: Some(1), ..ecr() }).start();
    let origin = Origin::from_url(&registry.origin).expect("an origin");
    let patience = cargo_lambda_image::registry::Patience { tries: 12, ..patience() };
    let client = Arc::new(Client::new(origin, CredentialSource::Anonymous, patience, &Session::silent()));
    push(&Target { client, repository: "a".into() }, &[], &of, &store).await.expect("pushed");
    assert!(of.layers.iter().all(|layer| registry.blob("a", layer).is_some()));
    let sent: u64 = of.layers.iter().map(|layer| layer.len() as u64).sum::<u64>() + of.config.len() as u64;
    assert_eq!(registry.received(), sent, "nothing twice");
}

#[tokio::test]
async fn what_is_nowhere_is_told_by_its_name() {
    let (_directory, store) = store();
    let registry = open().start();
    let of = many(1);
    let mut layers = layers(&of, &store);
    layers[0].supply = Supply::Absent { expected: None };
    let pushed = push_layers(&target(&registry.origin, "a"), &["v1"], &of, &layers, &store).await;
    let problem = pushed.expect_err("no bytes");
    assert_eq!(problem.message(), "could not push layer `layer 0`");
    assert_eq!(registry.manifest("a", "v1"), None);
}

#[tokio::test]
async fn a_stored_blob_that_rotted_unseen_is_never_sent_to_its_end() {
    let (_directory, store) = store();
    let registry = open().start();
    let of = many(1);
    let layers = layers(&of, &store);
    let path = store.blob_path(&Digest::of(&of.layers[0]));
    let mut rotten = of.layers[0].clone();
    rotten[70] ^= 1;
    std::fs::write(&path, &rotten).expect("written");
    let pushed = push_layers(&target(&registry.origin, "a"), &["v1"], &of, &layers, &store).await;
    let problem = pushed.expect_err("other bytes");
    let found = format!("blob `{}` is damaged: its digest is {}", path.display(), Digest::of(&rotten));
    assert_eq!(problem.causes(), [found]);
    assert_eq!(problem.next_step(), Some("delete the file and run the command again"));
    assert_eq!((registry.manifest("a", "v1"), registry.blob("a", &rotten)), (None, None));
    assert_eq!(registry.count(Method::PUT, "/uploads/"), 1, "not tried again");
}

/// A directory with one file, and the layer that holds it.
fn spec(directory: &Path, content: &[u8]) -> LayerSpec {
    let path = directory.join("data.bin");
    std::fs::write(&path, content).expect("a file");
    let stat = Stat::of(&std::fs::metadata(&path).expect("a stat"));
    let source = FileSource { path, follow: true, executable: false, stat };
    let entry = Entry { path: "data.bin".into(), content: Content::File(source) };
    LayerSpec::new("data".into(), LayerOrigin::Asset, vec![entry], vec![0])
}

#[tokio::test]
async fn a_layer_of_unknown_digest_is_streamed_kept_nowhere_and_known_afterwards() {
    let (directory, store) = store();
    let registry = open().start();
    let session = Session::silent();
    let spec = spec(directory.path(), &noise(5_000_000));
    let pipeline = Arc::new(Pipeline::new(2, 1));
    assert_eq!(pipeline.recall(&spec, &store, &session).expect("no record"), None);

    let (source, cell) = supply::recipe(spec.clone(), &pipeline, &store, &session);
    let at_most = gzip::bound(tarball::size(&spec.entries));
    let layer = LayerToPush {
        name: "data".into(),
        known: None,
        at_most,
        supply: Supply::Here(source),
        lenders: vec![],
        brought_to: vec![],
    };
    let target = target(&registry.origin, "a");
    let (layers, nameless) = (std::slice::from_ref(&layer), request(&[]));
    let plan = survey(&Push { target: &target, request: &nameless, layers, digest: None }, &store).await;
    let plan = plan.expect("a plan");
    assert_eq!((plan.layers[0].step, plan.uploaded_bytes, plan.at_most), (PushStep::Upload, at_most, true));
    assert_eq!(registry.requests().len(), 0, "what is not known is not asked for");

    let tags = ["v1".to_owned()];
    let request = Request { digest_tag: false, ..request(&tags) };
    let compose = |pushed: &[cargo_lambda_image::event::PushedLayer]| {
        let layer = cell.lock().map_err(|_| Problem::failed("a panic"))?.clone().expect("a made layer");
        assert_eq!((pushed[0].digest, pushed[0].size), (layer.descriptor.digest, layer.descriptor.size));
        assert!(pushed[0].size <= at_most);
        let config = br#"{"architecture":"amd64","os":"linux"}"#.to_vec();
        let config_descriptor = describe(media_type::OCI_CONFIG, &config);
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": config_descriptor, "layers": [layer.descriptor],
        });
        let manifest = manifest.to_string().into_bytes();
        let manifest_descriptor = describe(media_type::OCI_MANIFEST, &manifest);
        let layers = vec![layer.descriptor];
        Ok(Image {
            architecture: Architecture::Amd64,
            config,
            config_descriptor,
            manifest,
            manifest_descriptor,
            layers,
        })
    };
    let result = publish(&Push { target: &target, request: &request, layers, digest: None }, compose, &store, &session)
        .await
        .expect("pushed");
    let blobs = std::fs::read_dir(store.layout_path().join("blobs/sha256")).expect("listed").count();
    assert_eq!(blobs, 0, "no second copy on disk");

    let known = pipeline.recall(&spec, &store, &session).expect("no failure");
    // A file this fresh is not trusted by its stat, but by its hash.
    let known = known.expect("a record");
    assert_eq!(known.descriptor.digest, result.layers[0].digest);
    let stored =
        pipeline.make(std::slice::from_ref(&spec), &store, &session, cargo_lambda_image::layer::make::Reuse::Nothing);
    assert_eq!(stored.expect("made")[0].descriptor, known.descriptor, "the same bytes either way");
}

#[tokio::test]
async fn a_base_is_relayed_without_touching_the_disk_and_mounted_within_its_registry() {
    let (directory, store) = store();
    let of = TestImage::new(Family::Docker, "amd64");
    let elsewhere = FaultRegistry::builder().image("base", "1", &of).start();
    for (base_origin, step) in [(Some(&elsewhere), PushStep::Relay), (None, PushStep::Mount)] {
        let registry = open().image("base", "1", &of).ways(Ways { mounts: Mounts::Referenced, ..ecr() }).start();
        let from = base_origin.unwrap_or(&registry);
        let request = BaseRequest {
            reference: format!("{}/base:1", from.address),
            directory: directory.path().to_owned(),
            architecture: Architecture::Amd64,
            pinned: None,
            offline: false,
            no_cache: false,
            holder: Holder::BaseImage,
        };
        let base = base::resolve(&request, &|_| CredentialSource::from_environment(), &store, &Session::silent())
            .await
            .expect("a base");
        let target = target(&registry.origin, "a");
        let (host, repository) = base.repository().expect("a registry");
        let lenders = if host == target.client.origin().name() { vec![repository.to_owned()] } else { vec![] };
        let layers: Vec<_> = base
            .layers
            .iter()
            .enumerate()
            .map(|(index, layer)| LayerToPush {
                name: "base".into(),
                known: Some(layer.descriptor.clone()),
                at_most: layer.descriptor.size,
                supply: Supply::Base(base.layer_source(index).expect("gzip")),
                lenders: lenders.clone(),
                brought_to: vec![],
            })
            .collect();
        let result = push_layers(&target, &[], &of, &layers, &store).await.expect("pushed");
        assert_eq!(steps(&result), [step; 2]);
        let blobs = std::fs::read_dir(store.layout_path().join("blobs/sha256")).expect("listed").count();
        assert_eq!(blobs, 0);
    }
}

/// Keeps the steps that were told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Reporter for Told {
    fn event(&self, event: &Event<'_>) {
        let line = match event {
            Event::PushPlanned { plan, .. } => format!("planned {} bytes", plan.uploaded_bytes),
            Event::TaskStarted { name, total_bytes, .. } => format!("started {name} {total_bytes:?}"),
            Event::TaskFinished { outcome, .. } => format!("finished {outcome:?}"),
            Event::LayerPushed { layer, .. } => format!("{} {:?}", layer.name, layer.step),
            _ => return,
        };
        self.0.lock().expect("no panic under the lock").push(line);
    }
}

#[tokio::test]
async fn a_push_tells_what_it_does() {
    let (_directory, store) = store();
    let of = many(1);
    let registry = open().fault(Method::PUT, "/uploads/", 0..1, Fault::Status(503, &[], "")).start();
    let told = Told::default();
    let session = Session::new(Box::new(told.clone()));
    let (target, layers) = (target(&registry.origin, "a"), layers(&of, &store));
    let push = Push { target: &target, request: &request(&[]), layers: &layers, digest: None };
    let pushed = publish(&push, |_| Ok(image(&of)), &store, &session).await;
    assert_eq!(pushed.expect("pushed").sent_bytes, image(&of).size_bytes());
    let (layer, config) = (of.layers[0].len(), of.config.len());
    let expected = [
        format!("planned {layer} bytes"),
        format!("started layer 0 Some({layer})"),
        "finished Failed".to_owned(),
        format!("started layer 0 Some({layer})"),
        "finished Done".to_owned(),
        "layer 0 Upload".to_owned(),
        format!("started config Some({config})"),
        "finished Done".to_owned(),
    ];
    assert_eq!(*told.0.lock().expect("no panic under the lock"), expected);
}

#[tokio::test]
async fn a_real_registry_takes_it_all() {
    let (directory, store) = store();
    let registry = DockerRegistry::start();
    let of = many(8);
    let target = target(&format!("http://{}", registry.address), "team/app");
    let result = push(&target, &TAGS, &of, &store).await.expect("pushed");
    assert_eq!(steps(&result), [PushStep::Upload; 8]);
    let again = push(&target, &TAGS, &of, &store).await.expect("pushed");
    assert_eq!((steps(&again), again.sent_bytes), (vec![PushStep::Reuse; 8], 0));
    for tag in result.tags {
        let document = target.client.manifest("team/app", &Selector::Tag(tag)).await.expect("a manifest");
        assert_eq!((document.digest, document.bytes.as_ref()), (of.digest(), &of.manifest[..]));
    }
    for layer in &of.layers {
        let descriptor = describe(media_type::OCI_LAYER_GZIP, layer);
        assert_eq!(&target.client.small_blob("team/app", &descriptor, 1 << 20).await.expect("a blob"), layer);
    }
    // Streamed by one PATCH, and lent to another repository.
    let spec = spec(directory.path(), &noise(9_000_000));
    let pipeline = Arc::new(Pipeline::new(2, 1));
    let (source, cell) = supply::recipe(spec, &pipeline, &store, &Session::silent());
    let unknown = LayerToPush {
        name: "data".into(),
        known: None,
        at_most: 10_000_000,
        supply: Supply::Here(source),
        lenders: vec![],
        brought_to: vec![],
    };
    let mut all = layers(&of, &store);
    all.push(unknown);
    let streamed = push_layers(&target, &TAGS, &of, &all, &store).await.expect("pushed");
    assert_eq!(streamed.layers[8].step, PushStep::Upload);
    let made = cell.lock().expect("no panic").clone().expect("a layer").descriptor;
    assert!(target.client.has_blob("team/app", &made).await.expect("an answer"));

    let other = Target { repository: "team/other".into(), ..target.clone() };
    let lent = push(&other, &[], &of, &store).await.expect("pushed");
    assert_eq!(steps(&lent), [PushStep::Mount; 8]);
    let tiny = Source::bytes(bytes::Bytes::from_static(b"{}"));
    let known = describe("x", b"{}");
    let layer = LayerToPush {
        name: "tiny".into(),
        known: Some(known.clone()),
        at_most: 2,
        supply: Supply::Here(tiny),
        lenders: vec![],
        brought_to: vec![],
    };
    push_layers(&other, &[], &of, &[layer], &store).await.expect("pushed");
    assert!(other.client.has_blob("team/other", &known).await.expect("an answer"));
}
