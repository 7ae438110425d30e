//! `testdata/hello` through the real program into an image, and an answer out of its database through Lambda's
//! emulator.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::docker_registry::{DockerRegistry, USER};
use crate::support::emulator::{Emulator, Function, Podman};
use crate::support::hello::{self, layout, testdata};
use crate::support::images::Family;
use crate::support::lambda_base::LambdaBase;
use crate::support::program::blob;
use crate::support::proxy::Proxy;

/// The default base, by the only name users know it by.
const AL2023: &str = "public.ecr.aws/lambda/provided:al2023";

/// Asks the function in the layout for a word it knows and for one it does not.
fn assert_it_answers(layout: &Path, emulator: Emulator) {
    let podman = Podman::new();
    let image = podman.pull(layout, "hello");
    let function = Function::start(&podman, &image, emulator);
    let known = function.invoke(&json!({"word": "keel"}));
    assert_eq!(known, json!({"word": "keel", "meaning": "the backbone of a hull, along its bottom"}));
    let unknown = function.invoke(&json!({"word": "daemon"}));
    assert_eq!(unknown, json!({"word": "daemon", "meaning": null}));
}

/// Every media type of the image `hello`: the manifest's, the config's, and the layers'.
fn media_types(layout: &Path, digest: &str) -> Vec<Value> {
    let manifest = blob(layout, digest);
    let layers = manifest["layers"].as_array().expect("layers").iter().map(|layer| layer["mediaType"].clone());
    [manifest["mediaType"].clone(), manifest["config"]["mediaType"].clone()].into_iter().chain(layers).collect()
}

#[test]
fn a_docker_base_of_the_public_registry_answers() {
    let registry = DockerRegistry::start();
    registry.push("lambda/provided", "al2023", &LambdaBase::new(Family::Docker));
    let proxy = Proxy::start(&registry.address);
    let target = TempDir::new().expect("a temporary directory");

    let build = || {
        hello::build(target.path())
            .args(["--base", AL2023])
            .env("HTTPS_PROXY", proxy.url())
            .env("SSL_CERT_FILE", proxy.authority())
            .succeed()
    };
    let first = build();
    let asked = proxy.requests();
    let resolved = asked.iter().any(|request| request.ends_with(" public.ecr.aws/v2/lambda/provided/manifests/al2023"));
    assert!(resolved, "{asked:?}");
    let pulled = asked.iter().filter(|request| request.starts_with("GET d5l0dvt14r5h8.cloudfront.net/v2/"));
    assert_eq!(
        pulled.collect::<HashSet<_>>().len(),
        5,
        "a config and four layers come by way of the redirect: {asked:?}"
    );

    assert_eq!(build(), first, "the same image");
    let again = proxy.requests();
    let again = again[asked.len()..].iter().filter(|request| request.contains("/blobs/")).count();
    assert_eq!(again, 0, "blobs that are there are not pulled again");

    let layout = layout(target.path());
    let types = media_types(&layout, &first[0].to_string());
    assert_eq!(types.len(), 2 + 4 + 2, "four layers of the base, the database, the binary");
    assert!(types.iter().all(|kind| kind.as_str().is_some_and(|kind| kind.starts_with("application/vnd.oci."))));
    assert_it_answers(&layout, Emulator::OfBase);
}

#[test]
fn an_oci_base_of_a_local_registry_with_a_login_answers() {
    let registry = DockerRegistry::start_with_password();
    registry.push("bases/provided", "al2023", &LambdaBase::new(Family::Oci));
    let target = TempDir::new().expect("a temporary directory");
    let base = format!("{}/bases/provided:al2023", registry.address);

    let refused = hello::build(target.path()).args(["--base", &base]).run();
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains(&registry.address), "{}", refused.stderr);

    let docker = target.path().join("docker");
    fs::create_dir(&docker).expect("a made directory");
    let login = STANDARD.encode(format!("{}:{}", USER.0, USER.1));
    let login = json!({"auths": {registry.address.as_str(): {"auth": login}}});
    fs::write(docker.join("config.json"), login.to_string()).expect("a written login");
    hello::build(target.path()).args(["--base", &base]).env("DOCKER_CONFIG", docker).succeed();
    assert_it_answers(&layout(target.path()), Emulator::OfBase);
}

#[test]
fn a_static_binary_on_scratch_answers() {
    let target = TempDir::new().expect("a temporary directory");
    hello::build(target.path()).args(["--base", "scratch", "--config"]).arg(testdata("hello/static.toml")).succeed();
    assert_it_answers(&layout(target.path()), Emulator::OfHost);
}

#[test]
fn a_dynamic_binary_on_scratch_is_refused() {
    let target = TempDir::new().expect("a temporary directory");
    let refused = hello::build(target.path()).args(["--base", "scratch"]).run();
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("crt-static"), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
}
