//! What `push` brings into a registry, what it leaves alone, and what it says about both.

mod refused;

use std::fs;
use std::process::Command;

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cargo_lambda_image::oci::Digest;
use serde_json::{Value, json};

use crate::support::docker_registry::{DockerRegistry, USER};
use crate::support::images::{Family, TestImage, noise};
use crate::support::lambda_base::LambdaBase;
use crate::support::layout::blobs;
use crate::support::program::{Outcome, Program, blob, json as json_of};
use crate::support::project::{AMD64, Project, files_below, package};
use crate::support::registry::{Auth, Fault, FaultRegistry, Mounts, Ways};
use crate::support::site::Site;
use crate::support::tools::{succeed, tool};
use crate::support::tunnel::Tunnel;

fn open() -> Ways {
    Ways { ecr: true, ..Ways::default() }
}

fn succeeded(outcome: Outcome) -> Outcome {
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome
}

/// How each layer got into the repository, and how many bytes were sent.
fn steps(outcome: &Outcome) -> (Vec<String>, u64) {
    let pushed = outcome.messages("image-pushed");
    assert_eq!(pushed.len(), 1, "{}", outcome.stdout);
    let steps = pushed[0]["steps"].as_array().expect("steps").iter();
    (
        steps.map(|step| step.as_str().expect("a word").to_owned()).collect(),
        pushed[0]["sent_bytes"].as_u64().expect("a number"),
    )
}

/// What skopeo sees under a reference of a plain registry.
fn inspect(reference: &str, raw: bool) -> Value {
    let mut command = Command::new(tool("skopeo"));
    command.args(["inspect", "--tls-verify=false"]).args(raw.then_some("--raw")).arg(format!("docker://{reference}"));
    serde_json::from_str(&succeed(&mut command)).expect("JSON of skopeo")
}

#[test]
fn a_push_prints_where_the_image_is_and_others_find_it_there() {
    let registry = DockerRegistry::start();
    let site = Site::new();
    let repository = format!("{}/team/site", registry.address);
    let pushed = succeeded(site.push(&repository, &["notes.txt"]).args(["--tag", "v1", "--tag", "live"]).run());
    let built = site.build(&["notes.txt"]).succeed()[0];
    assert_eq!(pushed.stdout, format!("{repository}@{built}\n"), "the digest that `build` makes");

    let own = format!("site-{}", built.short());
    for tag in ["v1", "live", own.as_str()] {
        let seen = inspect(&format!("{repository}:{tag}"), false);
        assert_eq!(seen["Digest"], built.to_string());
    }
    let result = json_of(&site.store().join("site.json"));
    assert_eq!(result["image_uri"], pushed.stdout.trim_end(), "kept by the build that came after");
    assert_eq!(result["tags"], json!(["v1", "live", own]));
    assert_eq!((&result["sent_bytes"], &result["reused_bytes"]), (&result["size"], &json!(0)), "of that push, too");
    succeeded(site.push(&repository, &["notes.txt"]).args(["--tag", "v1"]).run());
    let result = json_of(&site.store().join("site.json"));
    assert_eq!((&result["sent_bytes"], &result["reused_bytes"]), (&json!(0), &result["size"]));
}

#[test]
fn only_what_changed_is_sent_again() {
    let registry = DockerRegistry::start();
    let project = Project::new(&[("data.txt", "words")]);
    project.write_program("app", AMD64);
    project.write("big.bin", noise(3_000_000));
    let repository = format!("{}/app", registry.address);
    let push = || {
        let push = project.push().args(["--binary-path", "app", "--base", "scratch", "--message-format", "json"]);
        let push = push.args(["--asset", "big.bin", "--asset", "data.txt", "--repository", &repository, "--tag", "v1"]);
        succeeded(push.run())
    };
    let (first, sent) = steps(&push());
    assert_eq!(first, ["upload"; 3], "an asset each, and the binary");
    assert!(sent > 3_000_000);
    assert!(blobs(&project.layout()).is_empty(), "nothing of the image is kept on disk");

    let (again, sent) = steps(&push());
    assert_eq!((again, sent), (vec!["reuse".to_owned(); 3], 0));

    let mut program = fs::read(project.path("app")).expect("the program");
    program.extend(b"more");
    project.write("app", program);
    let outcome = push();
    let (changed, sent) = steps(&outcome);
    assert_eq!(changed, ["reuse", "reuse", "upload"]);
    let image = &outcome.messages("image-pushed")[0];
    let binary = image["layers"][2]["size"].as_u64().expect("a size");
    assert!(sent > binary && sent < binary + 5000, "the binary, a config and a manifest, not {sent}");
    let seen = inspect(&format!("{repository}:v1"), false);
    assert_eq!(seen["Digest"], image["digest"]);
}

#[test]
fn touched_assets_are_hashed_and_not_sent() {
    let registry = DockerRegistry::start();
    let site = Site::new();
    site.write("big.bin", &noise(2_000_000));
    let repository = format!("{}/site", registry.address);
    let push = || succeeded(site.push(&repository, &["big.bin"]).args(["--message-format", "json"]).run());
    push();
    site.write("big.bin", &noise(2_000_000));
    assert_eq!(steps(&push()), (vec!["reuse".to_owned()], 0));
}

#[test]
fn base_layers_go_straight_from_their_registry_and_only_where_they_lack() {
    let base = TestImage::new(Family::Docker, "amd64");
    let bases = FaultRegistry::builder().image("lambda/base", "1", &base).start();
    let registry = DockerRegistry::start();
    let site = Site::new();
    let from = format!("{}/lambda/base:1", bases.address);
    let repository = format!("{}/site", registry.address);
    let push = || succeeded(site.push_on(&from, &repository, &["notes.txt"]).args(["--message-format", "json"]).run());
    assert_eq!(steps(&push()).0, ["relay", "relay", "upload"]);
    assert!(blobs(&site.layout()).is_empty(), "no byte of the base is kept");
    let asked = bases.requests().len();
    site.write("notes.txt", b"second");
    assert_eq!(steps(&push()).0, ["reuse", "reuse", "upload"]);
    let again: Vec<_> = bases.log().drain(asked..).collect();
    assert!(again.iter().all(|request| !request.contains("/blobs/")), "{again:?}");

    // A machine that has the layers sends its own.
    site.build_on(&from, &["notes.txt"]).succeed();
    let second = DockerRegistry::start();
    let push =
        site.push_on(&from, &format!("{}/site", second.address), &["notes.txt"]).args(["--message-format", "json"]);
    assert_eq!(steps(&succeeded(push.run())).0, ["upload"; 3]);
}

#[test]
fn a_base_of_the_same_registry_is_mounted() {
    let base = TestImage::new(Family::Oci, "amd64");
    let ways = Ways { mounts: Mounts::Referenced, ..open() };
    let registry = FaultRegistry::builder().image("lambda/base", "1", &base).repository("site").ways(ways).start();
    let site = Site::new();
    let from = format!("{}/lambda/base:1", registry.address);
    let push = site.push_on(&from, &format!("{}/site", registry.address), &["notes.txt"]);
    let outcome = succeeded(push.args(["--message-format", "json"]).run());
    assert_eq!(steps(&outcome).0, ["mount", "mount", "upload"]);
    let config = &outcome.messages("image-pushed")[0];
    let sent = config["sent_bytes"].as_u64().expect("a number");
    let own = config["layers"][2]["size"].as_u64().expect("a size");
    assert!(sent < own + 5000, "what is mounted is not sent: {sent}");
}

#[test]
fn a_base_that_breaks_off_is_gone_on_with_and_a_forged_one_never_arrives() {
    let base = TestImage::new(Family::Oci, "amd64");
    let hex: &'static str = Digest::of(&base.layers[1]).hex().leak();
    let site = Site::new();
    for (fault, times, works) in
        [(Fault::Cut(100), 1..3, true), (Fault::Shorten(100), 1..2, true), (Fault::Flip(50), 1..99, false)]
    {
        // The first time the layer is only looked through.
        let bases =
            FaultRegistry::builder().image("b", "1", &base).fault(Method::GET, hex, times, fault.clone()).start();
        let registry = FaultRegistry::builder().repository("site").ways(open()).start();
        let from = format!("{}/b:1", bases.address);
        let push = site.push_on(&from, &format!("{}/site", registry.address), &["notes.txt"]).arg("--no-cache");
        let outcome = push.args(["--tag", "v1"]).run();
        assert_eq!(outcome.code, i32::from(!works), "{fault:?}: {}", outcome.stderr);
        assert_eq!(registry.manifest("site", "v1").is_some(), works);
        assert_eq!(registry.blob("site", &base.layers[1]).is_some(), works, "{fault:?}");
        if !works {
            assert!(outcome.stderr.contains(hex), "{}", outcome.stderr);
            assert!(outcome.stderr.contains("could not push layer `base`"), "{}", outcome.stderr);
        }
    }
}

#[test]
fn an_image_that_is_there_keeps_its_digest() {
    let registry = DockerRegistry::start();
    let site = Site::new();
    site.write("big.bin", &noise(100_000));
    let archive = site.path("site.tar");
    for format in ["oci", "docker"] {
        let output = format!("oci-archive:{}", archive.display());
        let build = site.build(&["notes.txt", "big.bin"]).args(["--format", format, "--output", &output]);
        let digest = build.succeed()[0];
        let layout = format!("oci:{}:site", site.layout().display());
        for (number, reference) in [layout, format!("oci-archive:{}", archive.display())].iter().enumerate() {
            let repository = format!("{}/{format}-{number}", registry.address);
            let home = site.path("home");
            let push = Program::push(&home).args(["--image", reference, "--repository", &repository, "--tag", "v1"]);
            assert_eq!(succeeded(push.run()).stdout, format!("{repository}@{digest}\n"));
            assert_eq!(inspect(&format!("{repository}:v1"), false)["Digest"], digest.to_string());
            let own = format!("{repository}:site-{}", digest.short());
            assert_eq!(inspect(&own, true)["schemaVersion"], 2);
        }
        // From one registry into another, byte for byte.
        let (from, to) = (format!("{}/{format}-0:v1", registry.address), format!("{}/copy-{format}", registry.address));
        let push = Program::push(&site.path("home")).args(["--image", &from, "--repository", &to]);
        assert_eq!(succeeded(push.run()).stdout, format!("{to}@{digest}\n"));
    }
}

#[test]
fn what_docker_saved_gets_a_manifest_of_its_own() {
    let registry = DockerRegistry::start();
    let site = Site::new();
    let digest = site.build(&["notes.txt"]).succeed()[0];
    let saved = site.path("saved.tar");
    let mut skopeo = Command::new(tool("skopeo"));
    skopeo.arg("copy").arg(format!("oci:{}:site", site.layout().display()));
    succeed(skopeo.arg(format!("docker-archive:{}:shop/site:v1", saved.display())));
    let repository = format!("{}/site", registry.address);
    let reference = format!("docker-archive:{}", saved.display());
    let push = || {
        let push = Program::push(&site.path("home"));
        push.args(["--image", &reference, "--name", "site", "--repository", &repository, "--tag", "v1"])
    };
    let pushed = succeeded(push().run()).stdout;
    assert_eq!(succeeded(push().run()).stdout, pushed, "the same each time");
    let manifest = inspect(&format!("{repository}:v1"), true);
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let ours = site.store().join("layout/blobs/sha256").join(digest.hex());
    let ours: Value = serde_json::from_slice(&fs::read(ours).expect("a manifest")).expect("JSON");
    assert_eq!(manifest["layers"][0]["digest"], ours["layers"][0]["digest"], "packed as we pack");
    let kept = |place: &str| {
        files_below(&site.path(place).join("target/lambda-image/layout/blobs")).into_values().collect::<Vec<_>>()
    };
    assert_eq!(kept("home"), [], "what was packed for a push is of no use after it");

    // A base is packed once for all pushes, and makes room for the next.
    let packed = |archive: &str| {
        let base = format!("docker-archive:{}", site.path(archive).display());
        let push = Program::push(&site.path("app")).args(["--no-binary", "--handler", "a.b", "--base", &base]);
        succeeded(push.args(["--no-verify", "--asset", "model", "--repository", &repository]).run());
        kept("app")
    };
    fs::create_dir(site.path("app")).expect("made");
    fs::write(site.path("app/model"), noise(1000)).expect("written");
    let first = packed("saved.tar");
    assert_eq!(first.len(), 1);
    assert_eq!(packed("saved.tar"), first);
    site.write("notes.txt", b"another");
    site.build(&["notes.txt"]).succeed();
    let mut skopeo = Command::new(tool("skopeo"));
    skopeo.arg("copy").arg(format!("oci:{}:site", site.layout().display()));
    succeed(skopeo.arg(format!("docker-archive:{}:shop/site:v2", site.path("other.tar").display())));
    let second = packed("other.tar");
    assert_eq!(second.len(), 1);
    assert_ne!(second, first);
}

#[test]
fn a_login_that_is_wrong_is_told_before_anything_is_compiled() {
    let registry = DockerRegistry::start_with_password();
    let project = Project::new(&[
        ("Cargo.toml", &package("app", "")),
        ("src/main.rs", "fn main() { this does not compile }"),
        ("docker/config.json", "{}"),
    ]);
    let repository = format!("{}/app", registry.address);
    let push = || project.push().args(["--base", "scratch", "--repository", &repository, "--dry-run"]);
    let outcome = push().run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&format!("docker login {}", registry.address)), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("Compiling"), "{}", outcome.stderr);

    let auth = STANDARD.encode(format!("{}:{}", USER.0, USER.1));
    let login = json!({"auths": {registry.address.as_str(): {"auth": auth}}});
    project.write("docker/config.json", login.to_string());
    let outcome = push().env("DOCKER_CONFIG", project.path("docker")).run();
    assert_eq!(outcome.code, 101, "now the compiler has its say: {}", outcome.stderr);
}

#[test]
fn binaries_of_a_workspace_share_what_they_share() {
    let project = Project::new(&[
        (
            "Cargo.toml",
            &package(
                "shop",
                "[[bin]]\nname = \"one\"\npath = \"src/main.rs\"\n[[bin]]\nname = \"two\"\npath = \"src/main.rs\"\n\
                 [package.metadata.lambda-image]\nbase = \"oci:base:al2023\"\nassets = [{ path = \"data.bin\" }]\n\
                 tags = [\"v{version}\"]\n",
            ),
        ),
        ("src/main.rs", "fn main() {}"),
    ]);
    project.write("data.bin", noise(200_000));
    LambdaBase::new(Family::Docker).write_layout(&project.path("base"));
    // By another repository of the registry, if it lends, else by their bytes.
    for (mounts, shared) in [(Mounts::Referenced, "mount"), (Mounts::Never, "upload")] {
        let ways = Ways { mounts, ..open() };
        let registry = FaultRegistry::builder().repository("shop/one").repository("shop/two").ways(ways).start();
        let repository = format!("{}/{{package}}/{{bin}}", registry.address);
        let push = project.push().args(["--dev", "--repository", &repository, "--message-format", "json"]);
        let outcome = succeeded(push.run());
        let pushed = outcome.messages("image-pushed");
        let bins: Vec<_> = pushed.iter().map(|image| (&image["bin"], &image["tags"][0])).collect();
        assert_eq!(bins, [(&json!("one"), &json!("v1.2.3")), (&json!("two"), &json!("v1.2.3"))]);
        for (image, name) in pushed.iter().zip(["one", "two"]) {
            let uri = format!("{}/shop/{name}@{}", registry.address, image["digest"].as_str().expect("a digest"));
            assert_eq!(image["image_uri"], uri);
            assert!(registry.manifest(&format!("shop/{name}"), "v1.2.3").is_some());
        }
        // Four layers of the base, the asset, the binary.
        assert_eq!(pushed[0]["steps"], json!(vec!["upload"; 6]), "the base is a layout here");
        assert_eq!(pushed[1]["steps"], json!([shared, shared, shared, shared, shared, "upload"]));
        let sent = |image: &Value| image["sent_bytes"].as_u64().expect("a number");
        let manifests: usize = pushed
            .iter()
            .map(|image| {
                registry
                    .manifest(&format!("shop/{}", image["bin"].as_str().expect("a name")), "v1.2.3")
                    .expect("a tag")
                    .len()
            })
            .sum();
        assert_eq!(registry.received() + manifests as u64, sent(&pushed[0]) + sent(&pushed[1]), "no byte more");
    }

    // In one repository they are there already, whatever it lends.
    let registry = FaultRegistry::builder().repository("shop").ways(open()).start();
    let same = format!("{}/shop", registry.address);
    let push =
        |tag: &str| project.push().args(["--dev", "--repository", &same, "--tag", tag, "--message-format", "json"]);
    let pushed = succeeded(push("{bin}").run()).messages("image-pushed");
    assert_eq!(pushed[1]["steps"], json!(["reuse", "reuse", "reuse", "reuse", "reuse", "upload"]));

    // Under one tag, the last would win.
    let clash = push("v1").run();
    assert_eq!(clash.code, 2);
    assert!(clash.stderr.contains(&format!("`one` and `two` would both be `{same}:v1`")), "{}", clash.stderr);
}

#[test]
fn a_stored_layer_that_was_damaged_is_made_again_and_not_kept() {
    let site = Site::new();
    site.write("big.bin", &noise(300_000));
    let built = site.build(&["notes.txt", "big.bin"]).succeed()[0];
    let manifest = blob(&site.layout(), &built.to_string());
    let damaged: Digest = manifest["layers"][1]["digest"].as_str().expect("a digest").parse().expect("a digest");
    let path = site.layout().join("blobs/sha256").join(damaged.hex());
    let mut bytes = fs::read(&path).expect("read");
    bytes[100_000] ^= 1;
    fs::write(&path, &bytes).expect("written");
    let registry = FaultRegistry::builder().repository("site").ways(open()).start();
    let repository = format!("{}/site", registry.address);
    let push = || site.push(&repository, &["notes.txt", "big.bin"]);
    succeeded(push().arg("--dry-run").run());
    assert!(path.exists(), "a dry run changes nothing");
    let pushed = succeeded(push().run());
    assert!(!path.exists(), "nobody else may read it");
    assert_eq!(pushed.stdout, format!("{repository}@{built}\n"));
    assert!(registry.blob_size("site", &damaged.to_string()).is_some());
}

#[test]
fn what_says_no_destination_is_a_usage_error() {
    let site = Site::new();
    let push = || {
        let push = Program::push(&site.project()).args(["--no-binary", "--base", "scratch"]);
        push.args(["--asset", "notes.txt", "--handler", "app.get"])
    };
    for (arguments, expected) in [
        (&[] as &[&str], "there is no repository to push `site` to"),
        (&["--repository", "localhost:1/x", "--no-digest-tag"], "`site` would get no tag at all"),
        (&["--repository", "localhost:1/x", "--output", "oci-archive:x"], "`--output` is not for `push`"),
        (&["--repository", "localhost:1/x", "--tag", "v{version}"], "asks for a version"),
        (&["--repository", "localhost:1/X"], "lower-case"),
        (&["--repository", "localhost:1/x:v1"], "without a tag"),
        (&["--repository", "https://localhost:1/x"], "is written without a scheme: `localhost:1/x`"),
        (&["--repository", "http://a.b/x"], "`a.b/x`; `--insecure` allows plain http"),
        (&["--repository", "x", "--role", "r"], "`--role` is given, but no function is to be created"),
        (&["--repository", "x", "--function", "f", "--memory", "512"], "`--memory` is given, but no function is to be"),
        (&["--repository", "x", "--region", "nowhere"], "`nowhere` is not an AWS region"),
    ] {
        let outcome = push().args(arguments).run();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{arguments:?}: {}", outcome.stderr);
    }
    let with_image = Program::push(&site.project());
    let outcome = with_image.args(["--image", "oci:x", "--base", "scratch", "--repository", "localhost:1/x"]).run();
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("--base"), "{}", outcome.stderr);
}

#[test]
fn the_environment_sets_what_flags_do_and_flags_win() {
    let registry = FaultRegistry::builder().repository("a").repository("b").ways(open()).start();
    let site = Site::new();
    let [a, b] = ["a", "b"].map(|name| format!("{}/{name}", registry.address));
    let push = || {
        let push = Program::push(&site.project()).args(["--no-binary", "--base", "scratch"]);
        let push = push.args(["--asset", "notes.txt", "--handler", "app.get"]).env("CARGO_LAMBDA_IMAGE_REPOSITORY", &a);
        push.env("CARGO_LAMBDA_IMAGE_TAG", "one\ntwo\n").env("CARGO_LAMBDA_IMAGE_NO_DIGEST_TAG", "true")
    };
    assert!(succeeded(push().run()).stdout.starts_with(&format!("{a}@sha256:")));
    assert!(registry.manifest("a", "one").is_some() && registry.manifest("a", "two").is_some());
    assert!(succeeded(push().args(["--repository", &b, "--tag", "three"]).run()).stdout.starts_with(&b));
    assert_eq!(["one", "two", "three"].map(|tag| registry.manifest("b", tag).is_some()), [false, false, true]);
    assert_eq!(files_below(&site.store()).keys().filter(|path| path.ends_with("site.json")).count(), 1);
}

#[test]
fn a_registry_with_tls_and_a_login_takes_it() {
    let (tunnel, _) = Tunnel::prepare("registry.example");
    let registry = DockerRegistry::start_with_tls(tunnel.files());
    let tunnel = tunnel.start(registry.address.parse().expect("an address"));
    let site = Site::new();
    let auth = STANDARD.encode(format!("{}:{}", USER.0, USER.1));
    fs::create_dir(site.path("docker")).expect("made");
    let login = json!({"auths": {"registry.example": {"auth": auth}}});
    fs::write(site.path("docker/config.json"), login.to_string()).expect("written");
    let push = || site.push("registry.example/team/site", &["notes.txt"]).env("HTTPS_PROXY", tunnel.url());
    let trusted = || push().env("SSL_CERT_FILE", tunnel.authority());
    let outcome = trusted().env("DOCKER_CONFIG", site.path("docker")).run();
    assert!(succeeded(outcome).stdout.starts_with("registry.example/team/site@sha256:"));

    let outcome = trusted().run();
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("docker login registry.example"), "{}", outcome.stderr);
    let outcome = push().env("DOCKER_CONFIG", site.path("docker")).run();
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("`SSL_CERT_FILE`"), "{}", outcome.stderr);
}

#[test]
fn a_registry_that_does_not_know_of_the_tls_before_it_gets_no_bytes_and_the_way_out_is_told() {
    let (tunnel, tls) = Tunnel::prepare("registry.example");
    let ways = Ways { location: Some("http://registry.example".into()), ..open() };
    let registry = FaultRegistry::builder().repository("site").ways(ways).tls(tls).start();
    let tunnel = tunnel.start(registry.address);
    let site = Site::new();
    let push = site.push("registry.example/site", &["notes.txt"]).env("HTTPS_PROXY", tunnel.url());
    let outcome = push.env("SSL_CERT_FILE", tunnel.authority()).run();
    assert_eq!((outcome.code, registry.received()), (1, 0), "{}", outcome.stderr);
    let why = "it leads from https to plain http: http://registry.example/v2/site/blobs/uploads/1-0?_state=***";
    let help = "help: let the proxy before the registry pass `X-Forwarded-Proto: https` on, or have it answer with \
                relative locations (docker-registry: `http.relativeurls`); layers must not go where others can read them";
    for said in [why, help] {
        assert!(outcome.stderr.contains(said), "no `{said}` in {}", outcome.stderr);
    }
}

#[test]
fn a_target_that_is_not_reached_is_told_with_its_port_and_what_helps_there() {
    let site = Site::new();
    let outcome = site.push("127.0.0.1:1/site", &["notes.txt"]).run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("could not reach `127.0.0.1:1`"), "{}", outcome.stderr);
    assert!(
        outcome.stderr.ends_with("help: check the host name, the network and `HTTPS_PROXY`\n"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_push_whose_result_cannot_be_written_says_that_it_pushed() {
    let registry = FaultRegistry::builder().repository("site").ways(open()).start();
    let site = Site::new();
    let push = || site.push(&format!("{}/site", registry.address), &["notes.txt"]).args(["--message-format", "json"]);
    succeeded(push().run());
    let result = site.store().join("site.json");
    fs::remove_file(&result).expect("removed");
    // What is renamed onto a directory that is not empty gets nowhere.
    fs::create_dir_all(result.join("in the way")).expect("made");
    let outcome = push().args(["--tag", "live", "--env", "A=1"]).run();
    assert_eq!(outcome.code, 1);
    let digest = outcome.messages("image-pushed")[0]["digest"].as_str().expect("a digest").to_owned();
    let live = registry.manifest("site", "live").expect("a tag");
    assert_eq!(Digest::of(&live).to_string(), digest);
    assert!(outcome.stderr.contains("the image is pushed, and only"), "{}", outcome.stderr);
}

#[test]
fn a_registry_that_refuses_every_head_and_no_get_is_pushed_to() {
    for status in [403, 405] {
        let refused = Fault::Status(status, &[], "");
        let registry = FaultRegistry::builder().repository("site").ways(open());
        let registry = registry.fault(Method::HEAD, "/", 0..usize::MAX, refused).start();
        let site = Site::new();
        let push = || {
            let push = site.push(&format!("{}/site", registry.address), &["notes.txt"]).args(["--tag", "v1"]);
            succeeded(push.args(["--message-format", "json"]).run())
        };
        let first = push();
        assert_eq!(steps(&push()).1, 0, "{status}: nothing that is there is sent again");
        let live = registry.manifest("site", "v1").expect("a tag");
        assert_eq!(first.messages("image-pushed")[0]["digest"], Digest::of(&live).to_string());
        // Of another machine, which has no records.
        fs::remove_dir_all(site.store()).expect("removed");
        assert_eq!(steps(&push()).1, 0, "{status}");
    }
}

#[test]
fn a_credential_helper_that_is_not_installed_is_named() {
    let registry = FaultRegistry::builder().repository("site").auth(Auth::Basic("me", "canary")).start();
    let site = Site::new();
    let host = registry.address.to_string();
    let config = site.path("config.json");
    let directory = site.path("");
    for (setting, value) in [("credsStore", json!("gone")), ("credHelpers", json!({ host.as_str(): "gone" }))] {
        fs::write(&config, json!({ setting: value }).to_string()).expect("written");
        let push = site.push(&format!("{host}/site"), &["notes.txt"]).env("DOCKER_CONFIG", &directory).run();
        assert_eq!(push.code, 1, "{}", push.stderr);
        let expected = format!(
            "could not take the login for `{host}` from `{}`\n\nCaused by:\n  its `{setting}` names \
             `docker-credential-gone`, which could not be run\n\nhelp: install `docker-credential-gone` where `PATH` leads",
            config.display()
        );
        assert!(push.stderr.contains(&expected), "{}", push.stderr);
    }
}

#[test]
fn to_create_a_repository_where_ecr_is_not_is_warned_of_if_it_was_typed() {
    let registry = FaultRegistry::builder().repository("site").ways(open()).start();
    let site = Site::new();
    let push = || site.push(&format!("{}/site", registry.address), &["notes.txt"]);
    let warning = "warning: `--create-repository` is for Amazon ECR only, and `127.0.0.1:";
    let typed = succeeded(push().arg("--create-repository").run());
    assert!(typed.stderr.contains(warning), "{}", typed.stderr);
    let set = succeeded(push().env("CARGO_LAMBDA_IMAGE_CREATE_REPOSITORY", "true").run());
    assert!(!set.stderr.contains("warning"), "{}", set.stderr);
}

#[test]
fn a_login_of_podman_for_a_part_of_a_registry_is_used_there_alone() {
    let registry = DockerRegistry::start_with_password();
    let site = Site::new();
    let file = site.path("auth.json");
    let login = ["--tls-verify=false", "--username", USER.0, "--password", USER.1];
    let place = format!("{}/team", registry.address);
    succeed(Command::new(tool("podman")).arg("login").args(login).arg("--authfile").arg(&file).arg(place));
    let push = |repository: &str| {
        let push = site.push(&format!("{}/{repository}", registry.address), &["notes.txt"]);
        push.env("REGISTRY_AUTH_FILE", &file).run()
    };
    succeeded(push("team/site"));
    let outcome = push("other/site");
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains(&format!("docker login {}", registry.address)), "{}", outcome.stderr);
}

#[test]
fn plain_http_elsewhere_is_spoken_only_when_asked_for() {
    let registry = DockerRegistry::start();
    // Every address of this machine, and none that is known to be its own.
    let elsewhere = registry.address.replace("127.0.0.1", "0.0.0.0");
    let site = Site::new();
    let push = || site.push(&format!("{elsewhere}/site"), &["notes.txt"]);
    let outcome = push().run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&format!("https://{elsewhere}")), "{}", outcome.stderr);
    assert!(succeeded(push().arg("--insecure").run()).stdout.starts_with(&format!("{elsewhere}/site@sha256:")));
}
