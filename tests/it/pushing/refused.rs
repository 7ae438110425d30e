//! What people are told when a registry refuses a push, breaks off or lies; and that it moved no tag and kept no login.

use std::fs;
use std::ops::Range;
use std::thread;

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cargo_lambda_image::oci::Digest;

use crate::support::images::{Family, TestImage, gzip, noise, tar};
use crate::support::program::Program;
use crate::support::project::{Project, package};
use crate::support::registry::{Auth, Builder, Fault, FaultRegistry, Ways};
use crate::support::site::Site;

const ALWAYS: Range<usize> = 0..usize::MAX;
const PASSWORD: &str = "canary-password";

/// The most memory a run may take, whatever it is answered.
const PEAK_KIB: u64 = 150 * 1024;

fn open() -> Builder {
    let ways = Ways { ecr: true, ..Ways::default() };
    FaultRegistry::builder().repository("site").ways(ways).auth(Auth::Basic("me", PASSWORD))
}

fn puts(path: &'static str, fault: Fault) -> Builder {
    open().fault(Method::PUT, path, ALWAYS, fault)
}

const fn status(code: u16, body: &'static str) -> Fault {
    // Nobody has to be waited for.
    Fault::Status(code, &[("retry-after", "0")], body)
}

#[test]
fn every_refusal_says_what_to_do_and_moves_nothing() {
    const DENIED: &str = r#"{"errors":[{"code":"DENIED","message":"User: arn:aws:iam::1:user/x is not authorized to perform: ecr:PutImage on resource: y"}]}"#;
    const KEY: &str = r#"{"errors":[{"code":"DENIED","message":"User: arn:aws:iam::1:user/x is not authorized to perform: kms:GenerateDataKey on resource: k"}]}"#;
    const POLICY: &str = r#"{"errors":[{"code":"DENIED","message":"User: arn:aws:iam::1:user/x is not authorized to perform: ecr:InitiateLayerUpload on resource: y with an explicit deny in a resource-based policy"}]}"#;
    const LAYERS: &str =
        r#"{"errors":[{"code":"UNSUPPORTED","message":"Limit on number of layers per image exceeded"}]}"#;
    const MEDIA: &str = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"unsupported media type \u001b[2J"}]}"#;
    const WRONG: &str = r#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}"#;
    let other = Digest::of(b"other").to_string();
    let cases: Vec<(&str, Builder, &[&str])> = vec![
        ("no action", puts("/manifests/", status(403, DENIED)), &["allow the IAM action `ecr:PutImage`"]),
        ("no key", puts("/uploads/", status(403, KEY)), &["`kms:GenerateDataKey` on the key that encrypts"]),
        (
            "a policy",
            open().fault(Method::POST, "/uploads/", ALWAYS, status(403, POLICY)),
            &["a policy denies `ecr:InitiateLayerUpload`"],
        ),
        (
            "too many layers",
            puts("/manifests/", status(405, LAYERS)),
            &["Limit on number of layers per image exceeded"],
        ),
        ("media types", puts("/manifests/", status(400, MEDIA)), &["push with `--format docker`"]),
        ("too large", open().fault(Method::PATCH, "", ALWAYS, status(413, "")), &["client_max_body_size"]),
        (
            "moved",
            open().fault(Method::POST, "", ALWAYS, Fault::Redirect("/else".into())),
            &["name the registry as where"],
        ),
        ("wrong bytes", puts("/uploads/", status(400, WRONG)), &["DIGEST_INVALID provided digest did not match"]),
        ("down", puts("/uploads/", status(503, "")), &["answered 503", "try again later"]),
        ("busy", open().fault(Method::POST, "/uploads/", ALWAYS, status(429, "")), &["answered 429", "wait a little"]),
        (
            "endless words",
            puts("/manifests/", Fault::Status(500, &[("retry-after", "0")], "")).fault(
                Method::PUT,
                "/manifests/",
                ALWAYS,
                Fault::Endless,
            ),
            &["answered 500"],
        ),
        (
            "another manifest",
            puts("/manifests/", Fault::Header("docker-content-digest", other)),
            &["as sha256:", "do not use this image"],
        ),
        (
            "no digest",
            puts("/manifests/", Fault::Header("docker-content-digest", "sha256:../../etc/passwd".into())),
            &["/v2/site/manifests/sha256:", " by something that is no digest"],
        ),
        (
            "a lost session",
            puts("/uploads/", status(404, "")).fault(Method::PATCH, "/uploads/", ALWAYS, status(404, "")),
            &["answered 404", "the registry lost the upload's session: run the command again"],
        ),
        (
            "nowhere",
            open().fault(Method::POST, "/uploads/", ALWAYS, Fault::Header("location", String::new())),
            &["did not say where to upload to `site`"],
        ),
        (
            "elsewhere",
            open().fault(
                Method::POST,
                "/uploads/",
                ALWAYS,
                Fault::Header("location", "http://example.com/?sig=canary&digest=%1b%5b2J".into()),
            ),
            &["it leads to plain http on another machine: http://example.com/?sig=***"],
        ),
    ];
    thread::scope(|scope| {
        for (name, builder, words) in cases {
            scope.spawn(move || {
                let registry = builder.start();
                let site = Site::new();
                site.write("big.bin", &noise(300_000));
                site.log_in(&registry.address.to_string(), "me", PASSWORD);
                let push = site.push(&format!("{}/site", registry.address), &["notes.txt", "big.bin"]);
                let ended = push.args(["--tag", "v1", "-vv"]).watched();
                let said = &ended.stderr;
                assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{name}: {said}");
                for word in words {
                    assert!(said.contains(word), "{name}: no `{word}` in {said}");
                }
                assert!(said.contains("\nhelp: "), "{name}: {said}");
                if name == "a policy" {
                    // Both are sent at once, and either may be refused first.
                    let layers = ["big.bin", "notes.txt"].map(|layer| format!("could not push layer `{layer}`"));
                    assert!(layers.iter().any(|layer| said.contains(layer)), "{name}: {said}");
                }
                for secret in [PASSWORD, &STANDARD.encode(format!("me:{PASSWORD}")), "canary"] {
                    assert!(!said.contains(secret), "{name}: `{secret}` in {said}");
                }
                assert!(!said.contains("panicked") && !said.contains('\u{1b}'), "{name}: {said:?}");
                assert!(ended.peak_kib < PEAK_KIB, "{name}: {} KiB", ended.peak_kib);
                assert_eq!(registry.manifest("site", "v1"), None, "{name}");
                // Of a session whose place was kept from it the program knows nothing, and one that is lost has no end.
                let is_hidden = ["moved", "nowhere", "elsewhere", "a lost session"].contains(&name);
                assert!(is_hidden || registry.open_sessions("site") == 0, "{name}: {:?}", registry.log());
                assert!(!site.store().join("site.json").exists(), "{name}");
                site.assert_tidy();
            });
        }
    });
}

#[test]
fn an_image_that_is_no_base_is_not_called_one_and_what_it_lost_is_told() {
    let image = TestImage::of(Family::Oci, "amd64", &[tar(&[("opt/large", &noise(2_000_000))])], gzip);
    let there = FaultRegistry::builder().image("app", "1", &image).start();
    let into = FaultRegistry::builder().repository("site").ways(Ways::default()).start();
    let site = Site::new();
    let reference = format!("{}/app:1", there.address);
    let push = |flags: &[&str]| {
        let push = Program::push(&site.path("home")).args(["--image", &reference, "--no-verify"]).args(flags);
        push.args(["--repository", &format!("{}/site", into.address)]).run()
    };
    let pushed = push(&[]);
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    assert!(pushed.stderr.contains(" layer "), "it was read: {}", pushed.stderr);
    assert!(!pushed.stderr.contains("base"), "{}", pushed.stderr);
    let digest = Digest::of(&image.layers[0]);
    there.forget_digest("app", &digest);
    let lost = push(&["--no-cache"]);
    assert_eq!(lost.code, 1, "{}", lost.stderr);
    for said in [
        format!("could not take layer {digest} of image `{reference}`"),
        "help: its registry lists it and does not have it: push the image there again, or take another".to_owned(),
    ] {
        assert!(lost.stderr.contains(&said), "no `{said}` in {}", lost.stderr);
    }
    let offline = push(&["--target-dir", "fresh", "--offline"]);
    assert!(offline.stderr.contains(&format!("error: image `{reference}` for `linux/amd64` was never fetched")));
}

#[test]
fn a_result_that_could_not_be_written_is_told_though_a_later_image_is_refused() {
    let bins = "[[bin]]\nname = \"one\"\npath = \"src/main.rs\"\n[[bin]]\nname = \"two\"\npath = \"src/main.rs\"\n";
    let project = Project::new(&[("Cargo.toml", &package("shop", bins)), ("src/main.rs", "fn main() {}")]);
    let ways = Ways { ecr: true, ..Ways::default() };
    let registry = FaultRegistry::builder().repository("shop/one").ways(ways).start();
    // What is renamed onto a directory that is not empty gets nowhere.
    fs::create_dir_all(project.store().join("one.json/in the way")).expect("made");
    let push = project.push().args(["--dev", "--base", "scratch", "--no-verify"]);
    let outcome = push.args(["--repository", &format!("{}/shop/{{bin}}", registry.address)]).run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    let warning = "warning: the image is pushed, and only what tells of it could not be written: could not write `";
    assert!(outcome.stderr.contains(warning), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error: could not push image `two`"), "{}", outcome.stderr);
}
