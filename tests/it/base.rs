//! Base images from every kind of source, down to the layers in the store.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use axum::http::Method;
use cargo_lambda_image::base::{self, Base, BaseRequest, Holder};
use cargo_lambda_image::event::Session;
use cargo_lambda_image::layer::facts::LayerFacts;
use cargo_lambda_image::layer::{Layer, Origin, Pipeline};
use cargo_lambda_image::oci::{Digest, media_type};
use cargo_lambda_image::platform::Architecture;
use cargo_lambda_image::problem::{Problem, Result};
use cargo_lambda_image::registry::credentials::CredentialSource;
use cargo_lambda_image::store::{Kind, Store};
use serde_json::json;

use crate::support::images::{self, Family, TestImage, descriptor, gzip, tar, tar_with_links};
use crate::support::registry::{Fault, FaultRegistry};

/// A project with a store, and what is asked of it.
struct World {
    directory: tempfile::TempDir,
    store: Arc<Store>,
    pipeline: Arc<Pipeline>,
    session: Session,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let session = Session::silent();
        let store = Arc::new(Store::open(&directory.path().join("lambda-image"), &session).expect("a store"));
        Self { directory, store, pipeline: Arc::new(Pipeline::new(2, 1)), session }
    }

    fn request(&self, reference: &str) -> BaseRequest {
        BaseRequest {
            reference: reference.to_owned(),
            directory: self.directory.path().to_owned(),
            architecture: Architecture::Amd64,
            pinned: None,
            offline: false,
            no_cache: false,
            holder: Holder::BaseImage,
        }
    }

    async fn resolve(&self, request: &BaseRequest) -> Result<Base> {
        base::resolve(request, &|_| CredentialSource::from_environment(), &self.store, &self.session).await
    }

    async fn pull(&self, base: &Base) -> Result<Vec<Layer>> {
        base::pull(base, &self.store, &self.pipeline, &self.session).await
    }

    /// Resolves and pulls.
    async fn bring(&self, request: &BaseRequest) -> Result<(Base, Vec<Layer>)> {
        let base = self.resolve(request).await?;
        let layers = self.pull(&base).await?;
        Ok((base, layers))
    }

    async fn refusal(&self, reference: &str) -> Problem {
        self.bring(&self.request(reference)).await.map(|(base, _)| base.shown).expect_err(reference)
    }

    /// Checks that `layers` are the gzip layers of `image`, byte for byte, and that their facts are known.
    fn expect(&self, layers: &[Layer], image: &TestImage, reused: bool) {
        assert_eq!(layers.len(), image.layers.len());
        for ((layer, bytes), tar) in layers.iter().zip(&image.layers).zip(&image.tars) {
            assert_eq!(&fs::read(&layer.blob).expect("a blob"), bytes);
            assert_eq!(layer.descriptor.media_type, media_type::OCI_LAYER_GZIP);
            assert_eq!((layer.descriptor.digest, layer.descriptor.size), (Digest::of(bytes), bytes.len() as u64));
            assert_eq!((layer.diff_id.0, layer.uncompressed_size), (Digest::of(tar), tar.len() as u64));
            assert_eq!((layer.origin, layer.reused), (Origin::Base, reused));
            let facts = self.store.records().get::<LayerFacts>(Kind::Facts, &layer.diff_id.to_string());
            assert_eq!(facts.expect("facts").entries.len(), 1);
        }
    }
}

/// The name under which a reference finds a test registry.
fn at(registry: &FaultRegistry, name: &str) -> String {
    format!("{}/{name}", registry.address)
}

#[tokio::test]
async fn every_kind_of_document_leads_to_the_platforms_image() {
    for family in [Family::Oci, Family::Docker] {
        let (amd64, arm64) = (TestImage::new(family, "amd64"), TestImage::new(family, "arm64"));
        let index = images::index(family, &[&amd64, &arm64]);
        let registry = FaultRegistry::builder()
            .image("base", "single", &amd64)
            .image("base", "other", &arm64)
            .manifest("base", "index", images::index_type(family), &index)
            .start();
        for tag in ["single", "index"] {
            let world = World::new();
            let request = world.request(&at(&registry, &format!("base:{tag}")));
            let (base, layers) = world.bring(&request).await.expect(tag);
            assert_eq!((base.digest, base.architecture), (Some(amd64.digest()), Architecture::Amd64));
            assert_eq!(base.config.to_string().into_bytes(), amd64.config, "unknown fields are kept");
            world.expect(&layers, &amd64, false);
        }
        let world = World::new();
        let request = BaseRequest { architecture: Architecture::Arm64, ..world.request(&at(&registry, "base:index")) };
        assert_eq!(world.resolve(&request).await.expect("arm64").digest, Some(arm64.digest()));
        let pinned = world.request(&at(&registry, &format!("base@{}", Digest::of(&index))));
        assert_eq!(world.resolve(&pinned).await.expect("pinned").digest, Some(amd64.digest()));
    }
}

#[tokio::test]
async fn what_did_not_change_is_not_asked_for_again() {
    let image = TestImage::new(Family::Oci, "amd64");
    let index = images::index(Family::Oci, &[&image]);
    let registry = FaultRegistry::builder()
        .image("base", "x", &image)
        .manifest("base", "1", media_type::OCI_INDEX, &index)
        .start();
    let world = World::new();
    let request = world.request(&at(&registry, "base:1"));
    world.bring(&request).await.expect("the first time");
    assert_eq!(registry.requests().len(), 5, "{:?}", registry.log());

    let (_, layers) = world.bring(&request).await.expect("the second time");
    world.expect(&layers, &image, true);
    assert_eq!(registry.log()[5..], ["HEAD /v2/base/manifests/1"]);

    let pinned = world.request(&at(&registry, &format!("base:1@{}", Digest::of(&index))));
    world.bring(&pinned).await.expect("a pinned one");
    assert_eq!(registry.requests().len(), 6, "a digest needs no network");

    let offline = BaseRequest { offline: true, ..request.clone() };
    world.bring(&offline).await.expect("without the network");
    assert_eq!(registry.requests().len(), 6);

    let (_, layers) = world.bring(&BaseRequest { no_cache: true, ..request.clone() }).await.expect("anew");
    world.expect(&layers, &image, false);
    assert_eq!(registry.requests().len(), 11, "{:?}", registry.log());

    let other = TestImage::new(Family::Docker, "amd64");
    registry.move_tag("base", "1", other.manifest_type(), &other.manifest);
    assert_eq!(world.resolve(&request).await.expect("the moved tag").digest, Some(other.digest()));
}

#[tokio::test]
async fn a_failing_head_is_answered_by_get() {
    let image = TestImage::new(Family::Oci, "amd64");
    let registry = FaultRegistry::builder()
        .image("base", "1", &image)
        .fault(Method::HEAD, "/manifests/", 0..9, Fault::Status(405, &[], ""))
        .start();
    let world = World::new();
    let request = world.request(&at(&registry, "base:1"));
    for _ in 0..2 {
        assert_eq!(world.resolve(&request).await.expect("an image").digest, Some(image.digest()));
    }
    assert_eq!(registry.log()[2..], ["HEAD /v2/base/manifests/1", "GET /v2/base/manifests/1"]);
}

#[tokio::test]
async fn offline_says_exactly_what_is_missing() {
    let image = TestImage::new(Family::Oci, "amd64");
    let registry = FaultRegistry::builder().image("base", "1", &image).start();
    let world = World::new();
    let request = world.request(&at(&registry, "base:1"));
    let offline = BaseRequest { offline: true, ..request.clone() };
    let problem = world.resolve(&offline).await.expect_err("nothing there");
    let name = at(&registry, "base:1");
    assert_eq!(
        problem.message(),
        format!("base image `{name}` for `linux/amd64` was never fetched, and `--offline` forbids to fetch it")
    );
    assert_eq!((problem.exit().code(), problem.next_step()), (1, Some("run once without `--offline`")));

    let (_, layers) = world.bring(&request).await.expect("with the network");
    fs::remove_file(&layers[1].blob).expect("removed");
    let base = world.resolve(&offline).await.expect("manifest and config are kept");
    let problem = world.pull(&base).await.expect_err("a layer is gone");
    assert_eq!(
        problem.message(),
        format!(
            "layers {} of base image `{name}` are not there, and `--offline` forbids to fetch them",
            layers[1].descriptor.digest
        )
    );
}

#[tokio::test]
async fn a_tampered_record_is_fetched_again() {
    let image = TestImage::new(Family::Oci, "amd64");
    let registry = FaultRegistry::builder().image("base", "1", &image).start();
    let world = World::new();
    let request = world.request(&at(&registry, &format!("base@{}", image.digest())));
    world.resolve(&request).await.expect("an image");
    let forged = json!({"content_type": media_type::OCI_MANIFEST, "text": "{}"});
    world.store.records().put(Kind::Base, &image.digest().to_string(), &forged).expect("written");
    world.resolve(&request).await.expect("an image");
    assert_eq!(registry.requests().len(), 3);
}

#[tokio::test]
async fn images_that_cannot_be_used_are_refused() {
    let (oci, amd64) = (Family::Oci, TestImage::new(Family::Oci, "amd64"));
    let arm64 = TestImage::new(oci, "arm64");
    let index = images::index(oci, &[&arm64]);
    let zstd = images::manifest(oci, &amd64.config, vec![descriptor(media_type::OCI_LAYER_ZSTD, b"1"); 2]);
    let both = json!({"schemaVersion": 2, "manifests": [], "layers": [], "config": descriptor("x", b"")}).to_string();
    let mut lying = TestImage::of(oci, "amd64", &[tar(&[("a", b"1")])], gzip);
    let swapped = gzip(&tar(&[("a", b"2")]));
    lying.manifest = images::manifest(oci, &lying.config, vec![descriptor(media_type::OCI_LAYER_GZIP, &swapped)]);
    lying.layers = vec![swapped];
    let broken = TestImage::of(oci, "amd64", &[tar(&[("a", b"1")])], |_| b"no gzip".to_vec());
    let registry = FaultRegistry::builder()
        .image("base", "arm64", &arm64)
        .manifest("base", "index", media_type::OCI_INDEX, &index)
        .image("base", "amd64", &amd64)
        .manifest("base", "zstd", media_type::OCI_MANIFEST, &zstd)
        .manifest("base", "both", media_type::OCI_INDEX, both.as_bytes())
        .manifest("base", "type", media_type::OCI_INDEX, &amd64.manifest)
        .manifest("base", "v1", "application/vnd.docker.distribution.manifest.v1+prettyjws", b"{\"schemaVersion\":1}")
        .image("base", "lying", &lying)
        .image("base", "broken", &broken)
        .start();
    for (tag, why) in [
        ("arm64", "is for `linux/arm64`, and `linux/amd64` is wanted"),
        ("index", "has no image for `linux/amd64`, only for `linux/arm64`"),
        ("zstd", "is compressed with zstd, which Lambda does not take"),
        ("both", "it could be read as an index and as a manifest"),
        ("type", "and was served as `application/vnd.oci.image.index.v1+json`"),
        ("v1", "it is in Docker's first manifest format"),
        ("none", "answered 404 Not Found to GET"),
        ("lying", "and the config says"),
        ("broken", ""),
    ] {
        let problem = World::new().refusal(&at(&registry, &format!("base:{tag}"))).await;
        let told = [vec![problem.message().to_owned()], problem.causes()].concat().join(": ");
        assert!(told.contains(why), "{tag}: {told}");
        assert!(problem.next_step().is_some(), "{tag}: {told}");
        // What is whole, but cannot become an image for Lambda, is a check's refusal.
        let code = if ["arm64", "index", "zstd"].contains(&tag) { 3 } else { 1 };
        assert_eq!(problem.exit().code(), code, "{tag}");
    }
}

#[tokio::test]
async fn a_failed_pull_leaves_no_blob() {
    let image = TestImage::new(Family::Oci, "amd64");
    let registry = FaultRegistry::builder()
        .image("base", "1", &image)
        .fault(Method::GET, "/blobs/", 1..99, Fault::Flip(30))
        .start();
    let world = World::new();
    let problem = world.refusal(&at(&registry, "base:1")).await;
    assert!(problem.causes()[0].contains("is not what it should be: expected sha256:"), "{problem:?}");
    let blobs = fs::read_dir(world.store.layout_path().join("blobs/sha256")).expect("listed");
    assert_eq!(blobs.count(), 0);
}

#[tokio::test]
async fn a_layer_that_comes_damaged_once_is_read_again_whatever_the_damage_looks_like() {
    let tars = [tar(&[("a", b"1"), ("b", &images::noise(50_000))])];
    for compress in [<[u8]>::to_vec, images::gzip as fn(&[u8]) -> Vec<u8>] {
        let image = TestImage::of(Family::Docker, "amd64", &tars, compress);
        // In a header of the tar or of the gzip, and in the middle.
        for place in [3, 600, 30_000] {
            for times in [1..2, 1..99] {
                let once = times.end == 2;
                let flip = Fault::Flip(place);
                let registry =
                    FaultRegistry::builder().image("base", "1", &image).fault(Method::GET, "/blobs/", times, flip);
                let registry = registry.start();
                let world = World::new();
                let base = world.resolve(&world.request(&at(&registry, "base:1"))).await.expect("an image");
                let pipeline = Arc::new(Pipeline::new(2, 1));
                let looked = base::look(&base, &world.store, &pipeline, &Session::silent()).await;
                match looked {
                    Ok(layers) => assert_eq!((once, layers[0].diff_id.0), (true, Digest::of(&tars[0]))),
                    Err(problem) => {
                        let told = problem.causes().concat();
                        assert!(
                            !once && told.contains("is not what it should be: expected sha256:"),
                            "{place}: {told}"
                        );
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn uncompressed_layers_are_packed_once() {
    let tars = [tar(&[("a", b"1")]), tar(&[("b", &images::noise(50_000))])];
    let image = TestImage::of(Family::Docker, "amd64", &tars, <[u8]>::to_vec);
    let registry = FaultRegistry::builder().image("base", "1", &image).start();
    let world = World::new();
    let request = world.request(&at(&registry, "base:1"));
    let (_, layers) = world.bring(&request).await.expect("the first time");
    for (layer, tar) in layers.iter().zip(&tars) {
        assert_eq!((layer.diff_id.0, layer.reused, layer.origin), (Digest::of(tar), false, Origin::Base));
        let mut unpacked = Vec::new();
        let blob = fs::File::open(&layer.blob).expect("a blob");
        std::io::copy(&mut flate2::read::GzDecoder::new(blob), &mut unpacked).expect("gzip");
        assert_eq!(&unpacked, tar);
    }
    let asked = registry.requests().len();
    let (_, again) = world.bring(&BaseRequest { offline: true, ..request }).await.expect("the second time");
    assert!(again.iter().all(|layer| layer.reused));
    assert_eq!(registry.requests().len(), asked);
}

#[tokio::test]
async fn scratch_is_an_empty_image() {
    let world = World::new();
    let (base, layers) = world.bring(&world.request("scratch")).await.expect("scratch");
    assert_eq!((base.digest, base.shown.as_str(), layers.len()), (None, "scratch", 0));
    assert_eq!(base.config["architecture"], "amd64");
    assert_eq!(base.config["os"], "linux");
}

/// The files of a layout of these images by name.
fn layout(named: &[(&str, &TestImage)]) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut entries = Vec::new();
    for (name, image) in named {
        let mut entry = descriptor(image.manifest_type(), &image.manifest);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        entries.push(entry);
        for bytes in image.layers.iter().chain([&image.manifest, &image.config]) {
            files.push((format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes.clone()));
        }
    }
    let index = json!({"schemaVersion": 2, "manifests": entries}).to_string();
    files.push(("index.json".to_owned(), index.into_bytes()));
    files
}

fn write_files(directory: &Path, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, bytes).expect("written");
    }
}

/// A directory with images in files, apart from any store.
struct Shelf(tempfile::TempDir);

impl Shelf {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn archive(&self, name: &str, files: &[(String, Vec<u8>)], links: &[(String, String)]) {
        fs::write(self.path(name), tar_with_links(files, links)).expect("written");
    }

    /// Brings the image of `reference` into a new world.
    async fn bring(&self, reference: &str) -> Result<(World, Base, Vec<Layer>)> {
        let world = World::new();
        let request = BaseRequest { directory: self.0.path().to_owned(), ..world.request(reference) };
        let (base, layers) = world.bring(&request).await?;
        Ok((world, base, layers))
    }

    async fn refusal(&self, reference: &str) -> Problem {
        self.bring(reference).await.map(|(_, base, _)| base.shown).expect_err(reference)
    }
}

#[tokio::test]
async fn layouts_are_read_in_directories_and_archives() {
    let one = TestImage::new(Family::Oci, "amd64");
    let two = TestImage::of(Family::Docker, "amd64", &[tar(&[("other", b"2")])], gzip);
    let shelf = Shelf::new();
    let both = layout(&[("one", &one), ("docker.io/x/two:1", &two)]);
    write_files(&shelf.path("both"), &both);
    shelf.archive("both.tar", &both, &[]);
    shelf.archive("single.tar", &layout(&[("one", &one)]), &[]);
    for (reference, image) in [
        ("oci:both:one", &one),
        ("oci:both:docker.io/x/two:1", &two),
        ("oci-archive:both.tar:one", &one),
        ("oci-archive:single.tar", &one),
    ] {
        let (world, base, layers) = shelf.bring(reference).await.expect(reference);
        assert_eq!(base.digest, Some(image.digest()), "{reference}");
        world.expect(&layers, image, false);
    }
    for reference in ["oci:both", "oci:both:three", "oci-archive:both.tar"] {
        let problem = shelf.refusal(reference).await;
        assert!(problem.message().ends_with("there are `one`, `docker.io/x/two:1`"), "{problem}");
        assert_eq!(problem.exit().code(), 2);
    }
}

#[tokio::test]
async fn a_layout_without_names_is_chosen_from_by_platform() {
    let (amd64, arm64) = (TestImage::new(Family::Oci, "amd64"), TestImage::new(Family::Oci, "arm64"));
    let shelf = Shelf::new();
    write_files(&shelf.path("a"), &layout(&[("x", &amd64), ("y", &arm64)]));
    fs::write(shelf.path("a/index.json"), images::index(Family::Oci, &[&arm64, &amd64])).expect("written");
    let (_, base, _) = shelf.bring("oci:a").await.expect("an image");
    assert_eq!(base.digest, Some(amd64.digest()));
}

#[tokio::test]
async fn a_damaged_or_hostile_layout_is_refused() {
    let image = TestImage::new(Family::Oci, "amd64");
    let whole = layout(&[("one", &image)]);
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    type Change = (String, fn(&Path), &'static str);
    let changes: [Change; 4] = [
        (blob(&image.manifest), |path| fs::write(path, b"{}").expect("written"), "is damaged: it is sha256:"),
        (blob(&image.layers[1]), |path| fs::write(path, b"{}").expect("written"), "sha256:"),
        (
            blob(&image.layers[1]),
            |path| {
                fs::rename(path, path.with_extension("moved")).expect("moved");
                symlink(path.with_extension("moved"), path).expect("linked");
            },
            "could not open `",
        ),
        ("oci-layout".to_owned(), |path| fs::remove_file(path).expect("removed"), "it has no file `oci-layout`"),
    ];
    for (name, change, why) in changes {
        let shelf = Shelf::new();
        write_files(&shelf.path("a"), &whole);
        change(&shelf.path("a").join(&name));
        let problem = shelf.refusal("oci:a").await;
        let told = [vec![problem.message().to_owned()], problem.causes()].concat().join(": ");
        assert!(told.contains(why), "{name}: {told}");
        assert!(problem.next_step().is_some(), "{name}: {told}");
    }
    let shelf = Shelf::new();
    fs::write(shelf.path("a.tar.gz"), gzip(&tar_with_links(&whole, &[]))).expect("written");
    shelf.archive("none.tar", &[], &[]);
    assert!(Command::new("mkfifo").arg(shelf.path("pipe")).status().expect("mkfifo").success());
    for (reference, message) in [
        ("oci-archive:pipe", format!("`{}` is no regular file", shelf.path("pipe").display())),
        ("docker-archive:/dev/zero", "`/dev/zero` is no regular file".to_owned()),
        ("oci-archive:a.tar.gz", format!("`{}` is compressed as a whole", shelf.path("a.tar.gz").display())),
        ("oci:missing", format!("there is no directory `{}`", shelf.path("missing").display())),
        ("oci-archive:missing", format!("there is no file `{}`", shelf.path("missing").display())),
        ("docker-archive:none.tar", format!("`{}` is not what `docker save` writes", shelf.path("none.tar").display())),
    ] {
        let problem = shelf.refusal(reference).await;
        assert_eq!((problem.message(), problem.exit().code()), (message.as_str(), 2));
        assert!(problem.next_step().is_some(), "{message}");
    }
}

#[tokio::test]
async fn wrong_bytes_around_the_right_tar_are_refused_every_time() {
    let image = TestImage::of(Family::Oci, "amd64", &[tar(&[("a", b"1")])], gzip);
    let mut other = image.layers[0].clone();
    // When it was compressed, which no tar tells.
    other[4] ^= 1;
    let shelf = Shelf::new();
    write_files(&shelf.path("a"), &layout(&[("one", &image)]));
    let blob = shelf.path("a/blobs/sha256").join(Digest::of(&image.layers[0]).hex());
    fs::write(blob, other).expect("written");
    let world = World::new();
    let request = BaseRequest { directory: shelf.path(""), ..world.request("oci:a") };
    let base = world.resolve(&request).await.expect("its documents are whole");
    for time in ["first", "second"] {
        let looked = base::look(&base, &world.store, &world.pipeline, &world.session).await;
        let problem = looked.map(|layers| layers.len()).expect_err(time);
        assert!(problem.causes()[0].starts_with("it is sha256:"), "{time}: {problem:?}");
    }
}

#[tokio::test]
async fn an_archive_cannot_fill_memory_with_a_long_name() {
    let shelf = Shelf::new();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(80 * 1024 * 1024);
    header.set_cksum();
    let mut file = fs::File::create(shelf.path("a.tar")).expect("made");
    file.write_all(header.as_bytes()).expect("written");
    // Zeros that take no place on the disk, and a member to bear the name.
    file.seek(SeekFrom::Current(80 * 1024 * 1024)).expect("sought");
    file.write_all(&tar(&[("a", b"1")])).expect("written");
    let problem = shelf.refusal("oci-archive:a.tar").await;
    assert_eq!(problem.message(), format!("could not read `{}` as a tar", shelf.path("a.tar").display()));
    assert_eq!(problem.causes(), ["its headers are too long for an image"]);
    assert!(problem.next_step().is_some(), "{problem:?}");
}

/// `manifest.json` of one saved image.
fn saved(config: &str, tags: &[&str], layers: &[&str]) -> serde_json::Value {
    json!({"Config": config, "RepoTags": tags, "Layers": layers})
}

#[tokio::test]
async fn what_docker_saved_is_read_in_all_its_forms() {
    let plain = TestImage::of(Family::Docker, "amd64", &[tar(&[("a", b"1")]), tar(&[("b", b"2")])], <[u8]>::to_vec);
    let packed = TestImage::of(Family::Docker, "amd64", &plain.tars, gzip);
    let shelf = Shelf::new();
    let file = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    let config_name = format!("{}.json", Digest::of(&plain.config).hex());

    // Before Docker 25: plain tars in folders, equal ones linked; an image that contains one layer twice.
    let twice = TestImage::of(Family::Docker, "amd64", &[plain.tars[0].clone(), plain.tars[0].clone()], <[u8]>::to_vec);
    let manifest = json!([saved("c.json", &["old:1"], &["x/layer.tar", "y/layer.tar"])]).to_string();
    let files = [
        file("manifest.json", manifest.as_bytes()),
        file("c.json", &twice.config),
        file("x/layer.tar", &twice.tars[0]),
    ];
    shelf.archive("linked.tar", &files, &[("y/layer.tar".into(), "../x/layer.tar".into())]);

    // Docker 25 and later: a layout beside the manifest.
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let names: Vec<_> = packed.layers.iter().map(|layer| blob(layer)).collect();
    let manifest = json!([saved(&blob(&packed.config), &["new:1"], &[&names[0], &names[1]])]).to_string();
    let mut files = vec![file("manifest.json", manifest.as_bytes()), (blob(&packed.config), packed.config.clone())];
    files.extend(names.iter().cloned().zip(packed.layers.iter().cloned()));
    shelf.archive("new.tar", &files, &[]);

    // Gzip layers under names that say nothing, and two images.
    let images =
        [saved(&config_name, &["docker.io/library/one:latest"], &["0", "1"]), saved("c.json", &["two:2"], &["x", "x"])];
    let files = [
        file("manifest.json", json!(images).to_string().as_bytes()),
        file(&config_name, &packed.config),
        file("c.json", &twice.config),
        file("0", &packed.layers[0]),
        file("1", &packed.layers[1]),
        file("x", &twice.tars[0]),
    ];
    shelf.archive("two.tar", &files, &[]);

    for (reference, image) in [
        ("docker-archive:linked.tar", &twice),
        ("docker-archive:new.tar", &packed),
        ("docker-archive:new.tar:new:1", &packed),
        ("docker-archive:two.tar:one", &packed),
        ("docker-archive:two.tar:two:2", &twice),
    ] {
        let (world, base, layers) = shelf.bring(reference).await.expect(reference);
        assert_eq!(base.digest, None);
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.0).collect();
        assert_eq!(diff_ids, image.tars.iter().map(|tar| Digest::of(tar)).collect::<Vec<_>>(), "{reference}");
        if image.layers != image.tars {
            world.expect(&layers, image, false);
        }
    }
    let problem = shelf.refusal("docker-archive:two.tar").await;
    assert!(problem.message().ends_with("there are `docker.io/library/one:latest`, `two:2`"), "{problem}");
}

#[tokio::test]
async fn a_forged_saved_layer_is_refused() {
    let image = TestImage::of(Family::Docker, "amd64", &[tar(&[("a", b"1")])], <[u8]>::to_vec);
    let other = tar(&[("a", b"2")]);
    let shelf = Shelf::new();
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd][..], &[0; 8]].concat();
    for (name, layer, why) in [
        (
            "plain",
            other.clone(),
            format!("its tar is {} and should be {}", Digest::of(&other), Digest::of(&image.tars[0])),
        ),
        (
            "gzip",
            gzip(&other),
            format!("its tar is {}, and the config says {}", Digest::of(&other), Digest::of(&image.tars[0])),
        ),
        ("zstd", zstd, "layer `0` of base image".to_owned()),
    ] {
        let manifest = json!([saved("c.json", &[], &["0"])]).to_string();
        let files = [
            ("manifest.json".to_owned(), manifest.into_bytes()),
            ("c.json".to_owned(), image.config.clone()),
            ("0".to_owned(), layer),
        ];
        shelf.archive(name, &files, &[]);
        let problem = shelf.refusal(&format!("docker-archive:{name}")).await;
        let told = [vec![problem.message().to_owned()], problem.causes()].concat().join(": ");
        assert!(told.contains(&why), "{name}: {told}");
        assert!(problem.next_step().is_some(), "{name}: {told}");
    }
}
