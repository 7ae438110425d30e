//! The real binary against registries that fail, lie and attack: it ends well or with a clear error, in little memory,
//! and nothing leaks, neither onto the disk outside its store nor out of the user's logins.

mod documents;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cargo_lambda_image::oci::Digest;
use serde_json::json;

use crate::support::images::{self, Family, TestImage, index_type};
use crate::support::layout::verify;
use crate::support::registry::{Auth, Builder, Fault, FaultRegistry};
use crate::support::running::Ended;
use crate::support::site::Site;
use crate::support::tunnel::Tunnel;

const ALWAYS: Range<usize> = 0..usize::MAX;
const ONCE: Range<usize> = 0..1;

/// Who the user is in all registries.
const USER: &str = "me";
const PASSWORD: &str = "canary-password";

/// The most memory a run may take, whatever it is sent.
const PEAK_KIB: u64 = 150 * 1024;

/// A site, and a user who is logged in.
struct World {
    site: Site,
}

impl World {
    fn new() -> Self {
        Self { site: Site::new() }
    }

    /// Leaves a login as `docker login` does.
    fn log_in(&self, registry: &str) {
        let directory = self.site.path("home/.docker");
        fs::create_dir_all(&directory).expect("made");
        let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let config = json!({"auths": {registry: {"auth": auth}}});
        fs::write(directory.join("config.json"), config.to_string()).expect("written");
    }

    /// Builds on `base` and looks at everything that no registry may bring about.
    fn attempt(
        &self,
        base: &str,
        more: impl Fn(crate::support::program::Program) -> crate::support::program::Program,
    ) -> Ended {
        let before = snapshot(&self.site.path(""));
        let ended = more(self.site.build_on(base, &["notes.txt"]).arg("-vv")).watched();
        assert_eq!(snapshot(&self.site.path("")), before, "something outside the store changed");
        assert!(ended.peak_kib < PEAK_KIB, "{} KiB: {}", ended.peak_kib, ended.stderr);
        self.assert_no_secret(&ended);
        if self.site.store().exists() {
            self.site.assert_tidy();
        }
        if ended.code == Some(0) {
            verify(&self.site.layout());
        }
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        assert!(!ended.stderr.contains('\u{1b}'), "painted: {:?}", ended.stderr);
        ended
    }

    fn assert_no_secret(&self, ended: &Ended) {
        let encoded = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let store = self.site.store();
        let files = snapshot(&store).into_keys().map(|path| store.join(path)).filter(|path| path.is_file());
        let written: Vec<_> = files.map(|path| fs::read(path).expect("read")).collect();
        let said = [ended.stdout.as_bytes().to_vec(), ended.stderr.as_bytes().to_vec()];
        for bytes in said.iter().chain(&written) {
            let text = String::from_utf8_lossy(bytes);
            for secret in [PASSWORD, &encoded, "token-1"] {
                assert!(!text.contains(secret), "`{secret}` in {text}");
            }
        }
    }
}

/// What every file below a directory is and holds, all but the program's own directory and its lock.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.expect("listed").path();
            let metadata = fs::symlink_metadata(&path).expect("there");
            if path.ends_with("site/target") || path.ends_with("site/lambda-image.lock") {
                continue;
            }
            let holds = if metadata.is_dir() {
                left.push(path.clone());
                "a directory".to_owned()
            } else if metadata.is_file() {
                Digest::of(&fs::read(&path).expect("read")).to_string()
            } else {
                format!("{:?}", metadata.file_type())
            };
            found.insert(path.strip_prefix(root).expect("below").to_owned(), holds);
        }
    }
    found
}

fn base_image() -> TestImage {
    TestImage::new(Family::Oci, "amd64")
}

/// A registry with the base image as `a:1`.
fn with_base() -> Builder {
    FaultRegistry::builder().image("a", "1", &base_image())
}

/// Starts the registry, logs in, and builds on its `a:1`.
fn build_on(builder: Builder) -> (Ended, FaultRegistry, World) {
    let (registry, world) = (builder.start(), World::new());
    world.log_in(&registry.address.to_string());
    let ended = world.attempt(&format!("{}/a:1", registry.address), |program| program);
    (ended, registry, world)
}

/// What is to come of a build.
enum Expected {
    /// The same image as from an honest registry.
    Image,
    /// Another image.
    Other,
    /// This exit code, these words in what it says, and a way on.
    Refusal(i32, &'static [&'static str]),
}

use Expected::{Image, Other, Refusal};

/// Runs each case, several at once: most wait for their retries.
fn assert_all(cases: Vec<(&'static str, Builder, Expected)>) {
    let honest = build_on(with_base()).0.stdout;
    assert!(honest.starts_with("sha256:"));
    thread::scope(|scope| {
        for (name, builder, expected) in cases {
            let honest = &honest;
            scope.spawn(move || {
                let (ended, ..) = build_on(builder);
                match expected {
                    Image => {
                        assert_eq!(ended.code, Some(0), "{name}: {}", ended.stderr);
                        assert_eq!(&ended.stdout, honest, "{name}");
                    }
                    Other => assert_eq!(ended.code, Some(0), "{name}: {}", ended.stderr),
                    Refusal(code, words) => {
                        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{name}: {}", ended.stderr);
                        for word in words {
                            assert!(ended.stderr.contains(word), "{name}: no `{word}` in {}", ended.stderr);
                        }
                        assert!(ended.stderr.contains("\nhelp: "), "{name}: no way on in {}", ended.stderr);
                    }
                }
            });
        }
    });
}

fn manifests(fault: Fault, times: Range<usize>) -> Builder {
    with_base().fault(Method::GET, "/manifests/", times, fault)
}

/// The fault on the second layer, which is the large one.
fn large_layer(fault: Fault, times: Range<usize>) -> Builder {
    let hex: &'static str = Digest::of(&base_image().layers[1]).hex().leak();
    with_base().fault(Method::GET, hex, times, fault)
}

fn status(code: u16) -> Fault {
    Fault::Status(code, &[], "")
}

#[test]
fn a_registry_that_refuses_is_asked_again_only_where_that_helps() {
    assert_all(vec![
        ("401", manifests(status(401), ALWAYS), Refusal(1, &["answered 401", "docker login"])),
        ("403", manifests(status(403), ALWAYS), Refusal(1, &["answered 403", "may not do this"])),
        ("404", manifests(status(404), ALWAYS), Refusal(1, &["answered 404", "check the name and the tag"])),
        ("429 once", manifests(Fault::Status(429, &[("retry-after", "1")], ""), ONCE), Image),
        (
            "429 for ever",
            manifests(Fault::Status(429, &[("retry-after", "0")], ""), ALWAYS),
            Refusal(1, &["answered 429", "wait a little", "docker login"]),
        ),
        ("500 once", manifests(status(500), ONCE), Image),
        (
            "503 for ever",
            manifests(Fault::Status(503, &[("retry-after", "0")], ""), ALWAYS),
            Refusal(1, &["answered 503", "try again later"]),
        ),
        ("502 on a layer once", large_layer(status(502), ONCE), Image),
        ("404 on a layer", large_layer(status(404), ALWAYS), Refusal(1, &["answered 404", "could not take layer"])),
        (
            "painted words",
            manifests(
                Fault::Status(403, &[], r#"{"errors":[{"code":"DENIED","message":"\u001b[2J\u001b]0;x\u0007"}]}"#),
                ALWAYS,
            ),
            Refusal(1, &["DENIED"]),
        ),
    ]);
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let ended = World::new().attempt(&format!("{address}/a:1"), |program| program);
    assert_eq!(ended.code, Some(1));
    for word in [
        format!("could not reach `{address}`"),
        "Connection refused".into(),
        "check the host name".into(),
        "`--offline`".into(),
    ] {
        assert!(ended.stderr.contains(&word), "no `{word}` in {}", ended.stderr);
    }
}

#[test]
fn a_pull_that_breaks_goes_on_where_it_broke() {
    let (ended, registry, _) = build_on(large_layer(Fault::Cut(60_000), ONCE));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let ranges: Vec<_> =
        registry.requests().iter().filter_map(|request| request.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, ["bytes=60000-"]);
}

#[test]
fn bytes_that_are_not_the_blob_never_get_its_name() {
    let forged =
        Refusal(1, &["is not what it should be: expected sha256:", ", received sha256:", "do not use this image"]);
    assert_all(vec![
        ("cut again and again", large_layer(Fault::Cut(60_000), 0..3), Image),
        ("shortened once", large_layer(Fault::Shorten(70_000), ONCE), Image),
        ("shortened for ever", large_layer(Fault::Shorten(0), ALWAYS), Refusal(1, &["it ended after 0 of "])),
        ("flipped once", large_layer(Fault::Flip(9), ONCE), Image),
        ("flipped for ever", large_layer(Fault::Flip(9), ALWAYS), forged),
        ("an endless layer", large_layer(Fault::Endless, ALWAYS), Refusal(1, &["is longer than the"])),
        ("an endless manifest", manifests(Fault::Endless, ALWAYS), Refusal(1, &["it is longer than 4194304 bytes"])),
        ("a manifest of 10 GB", manifests(Fault::Promise(10_000_000_000), ALWAYS), Refusal(1, &["/v2/a/manifests/1"])),
        (
            "a layer of 10 GB",
            large_layer(Fault::Promise(10_000_000_000), ALWAYS),
            Refusal(1, &["could not take layer"]),
        ),
        ("a drip feed", manifests(Fault::Drip, ALWAYS), Image),
        (
            "another digest in the header",
            manifests(Fault::Header("docker-content-digest", Digest::of(b"other").to_string()), ALWAYS),
            Refusal(1, &["is not what it should be", "do not use this image"]),
        ),
        (
            "a path for a digest in the header",
            manifests(Fault::Header("docker-content-digest", "sha256:../../../etc/passwd".into()), ALWAYS),
            Refusal(1, &["something that is no digest"]),
        ),
    ]);
}

#[test]
fn a_pinned_digest_is_worth_more_than_the_registrys_word() {
    let (honest, other) = (base_image(), TestImage::new(Family::Docker, "amd64"));
    let registry = FaultRegistry::builder().image("a", "1", &honest).start();
    let lying = FaultRegistry::builder()
        .image("a", "1", &other)
        .manifest("a", &honest.digest().to_string(), other.manifest_type(), &other.manifest)
        .start();
    let world = World::new();
    let pinned = |registry: &FaultRegistry| format!("{}/a:1@{}", registry.address, honest.digest());
    let ended = world.attempt(&pinned(&lying), |program| program);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains(&format!("expected {}, received {}", honest.digest(), other.digest())),
        "{}",
        ended.stderr
    );
    assert_eq!(world.attempt(&pinned(&registry), |program| program).code, Some(0));
}

#[test]
fn logins_stay_at_home_when_blobs_are_elsewhere() {
    let elsewhere = with_base().start();
    let (ended, registry, _) = build_on(with_base().auth(Auth::Bearer(Some((USER, PASSWORD)))).fault(
        Method::GET,
        "/blobs/",
        ALWAYS,
        Fault::RedirectTo(elsewhere.origin.clone()),
    ));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(registry.requests().iter().any(|request| request.header("authorization").is_some()));
    assert_eq!(elsewhere.requests().len(), 3, "a config and two layers");
    for request in elsewhere.requests() {
        assert_eq!(request.header("authorization"), None, "{}", request.target);
    }
}

#[test]
fn redirects_and_realms_lead_nowhere_they_should_not() {
    let login = || with_base().auth(Auth::Basic(USER, PASSWORD));
    let redirect = |to: &str| login().fault(Method::GET, "/manifests/", ALWAYS, Fault::Redirect(to.into()));
    let realm = |realm: &str| with_base().auth(Auth::BearerAt(realm.into()));
    assert_all(vec![
        ("itself", redirect("/v2/a/manifests/1"), Refusal(1, &["more than 5 redirects"])),
        ("a file", redirect("file:///etc/passwd"), Refusal(1, &["it leads away from http"])),
        ("paint", redirect("http://example.com/?digest=%1b%5b2J&%1b%5b1m=x"), Refusal(1, &["it leads to plain http"])),
        ("plain http", redirect("http://example.com/"), Refusal(1, &["plain http on another machine"])),
        ("a user", redirect("https://me:canary@example.com/"), Refusal(1, &["it contains a user name"])),
        (
            "no place",
            login().fault(Method::GET, "/manifests/", ALWAYS, status(307)),
            Refusal(1, &["does not say where to"]),
        ),
        ("a realm elsewhere", realm("https://evil.invalid/token"), Refusal(1, &["another domain"])),
        ("a realm of metadata", realm("http://169.254.169.254/token"), Refusal(1, &["it is not https"])),
        (
            "a realm of metadata, https",
            realm("https://169.254.169.254/token"),
            Refusal(1, &["private or metadata address"]),
        ),
        (
            "a realm mapped",
            realm("https://[::ffff:169.254.169.254]/token"),
            Refusal(1, &["private or metadata address"]),
        ),
        ("a realm with a user", realm("https://me@127.0.0.1/token"), Refusal(1, &["user name"])),
        ("a realm of its own kind", realm("gopher://x"), Refusal(1, &["it is not https"])),
        ("a realm that is none", realm("::::"), Refusal(1, &["answered 401"])),
    ]);
}

#[test]
fn https_is_not_left_for_plain_http() {
    let plain = with_base().start();
    let (tunnel, tls) = Tunnel::prepare("registry.example");
    let registry = with_base()
        .auth(Auth::Basic(USER, PASSWORD))
        .tls(tls)
        .fault(Method::GET, "/blobs/", ALWAYS, Fault::RedirectTo(plain.origin.clone()))
        .start();
    let tunnel = tunnel.start(registry.address);
    let world = World::new();
    world.log_in("registry.example");
    let ended = world.attempt("registry.example/a:1", |program| {
        program.env("HTTPS_PROXY", tunnel.url()).env("SSL_CERT_FILE", tunnel.authority())
    });
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("it leads from https to plain http"), "{}", ended.stderr);
    assert!(registry.requests().iter().any(|request| request.header("authorization").is_some()), "it was logged in");
    assert_eq!(plain.log(), [""; 0]);
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused_at_once() {
    let (tunnel, tls) = Tunnel::prepare("registry.example");
    let registry = with_base().tls(tls).start();
    let tunnel = tunnel.start(registry.address);
    let world = World::new();
    let ended = world.attempt("registry.example/a:1", |program| program.env("HTTPS_PROXY", tunnel.url()));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for word in ["the certificate of `registry.example` is not trusted", "SSL_CERT_FILE"] {
        assert!(ended.stderr.contains(word), "no `{word}` in {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("Retrying"), "{}", ended.stderr);
    assert_eq!(registry.log(), [""; 0]);
}

#[test]
fn offline_uses_what_is_there_and_says_what_is_missing() {
    let image = base_image();
    let index = images::index(Family::Oci, &[&image]);
    let registry =
        FaultRegistry::builder().image("a", "x", &image).manifest("a", "1", index_type(Family::Oci), &index).start();
    let world = World::new();
    let tag = format!("{}/a:1", registry.address);
    let pinned = format!("{}/a@{}", registry.address, Digest::of(&index));
    let offline = |base: &str| {
        let before = registry.log().len();
        let ended = world.attempt(base, |program| program.arg("--offline"));
        assert_eq!(registry.log().len(), before, "the registry was asked");
        ended
    };
    let missing = |base: &str, what: &str| {
        let ended = offline(base);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
        for word in [what, "run once without `--offline`"] {
            assert!(ended.stderr.contains(word), "no `{word}` in {}", ended.stderr);
        }
    };
    missing(&tag, &format!("base image `{tag}` for `linux/amd64` was never fetched"));
    missing(&pinned, &Digest::of(&index).to_string());

    let online = world.attempt(&tag, |program| program);
    assert_eq!(online.code, Some(0), "{}", online.stderr);
    for base in [&tag, &pinned] {
        let ended = offline(base);
        assert_eq!((ended.code, &ended.stdout), (Some(0), &online.stdout), "{}", ended.stderr);
    }
    missing(&format!("{}/a:2", registry.address), "a:2` for `linux/amd64` was never fetched");

    let layer = Digest::of(&image.layers[1]);
    fs::remove_file(world.site.layout().join("blobs/sha256").join(layer.hex())).expect("removed");
    missing(&tag, &format!("layers {layer} of base image"));
    let online = world.attempt(&tag, |program| program);
    assert_eq!(online.code, Some(0), "{}", online.stderr);
    assert_eq!(offline(&tag).stdout, online.stdout);
}
