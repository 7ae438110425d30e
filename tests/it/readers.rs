//! Other people's tools read what the program wrote: skopeo, umoci and podman see the image that was meant.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_lambda_image::lock::{FILE_NAME, file};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::docker_registry::DockerRegistry;
use crate::support::emulator::Podman;
use crate::support::hello::{self, testdata};
use crate::support::images::{Family, noise};
use crate::support::lambda_base::{self, LambdaBase};
use crate::support::program::{Program, blob, json};
use crate::support::project::{ARM64, elf};
use crate::support::tools::{succeed, target_directory, tool};

/// A project without Cargo, its base, and a place for what it becomes.
struct Project {
    directory: TempDir,
}

impl Project {
    /// A project named `site` on a base of Lambda's shape, with files of all kinds that assets come in.
    fn new(family: Family) -> Self {
        let project = Self { directory: TempDir::new().expect("a temporary directory") };
        LambdaBase::new(family).write_layout(&project.path("base"));
        project.write("site/app.mjs", b"export const get = async () => 'hello'\n", 0o600);
        project.write("site/node_modules/.bin/tool", b"#!/bin/sh\n", 0o700);
        project.write("site/node_modules/left-pad/index.js", b"module.exports = 1\n", 0o644);
        project.write("site/database.sqlite3", &noise(300_000), 0o644);
        fs::create_dir_all(project.path("site/node_modules/empty")).expect("a made directory");
        let long = format!("site/node_modules/{}/{}.js", "d".repeat(120), "f".repeat(120));
        project.write(&long, b"0\n", 0o644);
        std::os::unix::fs::symlink("left-pad/index.js", project.path("site/node_modules/pad.js")).expect("a made link");
        project.write("site/lambda-image.toml", CONFIGURATION.as_bytes(), 0o644);
        project
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    fn write(&self, path: &str, bytes: &[u8], mode: u32) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a made directory");
        fs::write(&path, bytes).expect("a written file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a set mode");
    }

    fn build(&self) -> Program {
        Program::build(&self.path("site")).args(["--no-binary", "--name", "site"]).env("HOME", self.directory.path())
    }

    /// Where the image's layout is.
    fn layout(&self) -> PathBuf {
        self.path("site/target/lambda-image/layout")
    }

    /// What `/var/task` must hold.
    fn expected(&self) -> BTreeMap<PathBuf, Node> {
        let mut tree = tree(&self.path("site"));
        let ours = ["target", "lambda-image.toml", FILE_NAME];
        tree.retain(|path, _| !ours.iter().any(|name| path.starts_with(name)));
        tree
    }
}

const CONFIGURATION: &str = r#"
base = "oci:../base:al2023"
handler = "app.get"
env = { NODE_ENV = "production" }

[[assets]]
path = "database.sqlite3"

[[assets]]
path = "node_modules"

[[assets]]
path = "app.mjs"
"#;

/// What lies at a path.
#[derive(Debug, PartialEq, Eq)]
enum Node {
    Directory,
    /// Its content, and whether it may be run.
    File(Vec<u8>, bool),
    Link(PathBuf),
}

/// All below a directory, by relative path.
fn tree(root: &Path) -> BTreeMap<PathBuf, Node> {
    let entries = walkdir::WalkDir::new(root).min_depth(1).into_iter().map(|entry| entry.expect("a readable entry"));
    let nodes = entries.map(|entry| {
        let path = entry.path();
        let node = if entry.file_type().is_dir() {
            Node::Directory
        } else if entry.file_type().is_symlink() {
            Node::Link(fs::read_link(path).expect("a link"))
        } else {
            let mode = entry.metadata().expect("metadata").permissions().mode();
            Node::File(fs::read(path).expect("a readable file"), mode & 0o100 != 0)
        };
        (path.strip_prefix(root).expect("a path below the root").to_owned(), node)
    });
    nodes.collect()
}

/// Unpacks an image of a layout with umoci; the root of its file system.
fn unpack(layout: &Path, name: &str, bundle: &Path) -> PathBuf {
    succeed(
        Command::new(tool("umoci")).args(["unpack", "--image"]).arg(format!("{}:{name}", layout.display())).arg(bundle),
    );
    bundle.join("rootfs")
}

fn inspect(reference: &str, arguments: &[&str]) -> Value {
    let text = succeed(Command::new(tool("skopeo")).arg("inspect").args(arguments).arg(reference));
    serde_json::from_str(&text).expect("JSON of skopeo")
}

/// The digests of a manifest's layers, lowest first.
fn layers(manifest: &Value) -> Vec<&Value> {
    manifest["layers"].as_array().expect("layers").iter().map(|layer| &layer["digest"]).collect()
}

#[test]
fn umoci_unpacks_what_was_packed() {
    let project = Project::new(Family::Docker);
    project.build().succeed();
    let root = unpack(&project.layout(), "site", &project.path("bundle"));

    assert_eq!(tree(&root.join("var/task")), project.expected());
    for (path, mode) in [
        ("var/task", 0o755),
        ("var/task/app.mjs", 0o644),
        ("var/task/node_modules/.bin/tool", 0o755),
        ("var/task/node_modules/empty", 0o755),
        ("tmp", 0o1777),
    ] {
        let metadata = fs::metadata(root.join(path)).expect("an unpacked path");
        assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{path}");
    }
    assert_eq!(fs::read_link(root.join("lib64")).expect("the base's link"), Path::new("usr/lib64"));
}

#[test]
fn skopeo_sees_the_configuration_that_was_asked_for() {
    let project = Project::new(Family::Docker);
    let digest = project.build().succeed()[0].to_string();
    let reference = format!("oci:{}:site", project.layout().display());

    let seen = inspect(&reference, &[]);
    assert_eq!(seen["Digest"], json!(digest));
    assert_eq!((&seen["Os"], &seen["Architecture"]), (&json!("linux"), &json!("amd64")));
    assert_eq!(seen["Layers"].as_array().expect("layers").len(), 4 + 3);

    let config = inspect(&reference, &["--config"]);
    assert_eq!(config["config"]["Entrypoint"], json!(["/lambda-entrypoint.sh"]));
    assert_eq!(config["config"]["Cmd"], json!(["app.get"]));
    assert_eq!(config["config"]["WorkingDir"], json!("/var/task"));
    let variables = config["config"]["Env"].as_array().expect("variables");
    assert!(variables.contains(&json!("LAMBDA_TASK_ROOT=/var/task")), "{variables:?}");
    assert!(variables.contains(&json!("NODE_ENV=production")), "{variables:?}");
    let history = config["history"].as_array().expect("a history");
    let made = history.iter().filter(|step| step["empty_layer"] != json!(true)).count();
    assert_eq!(made, 7, "one step a layer, though the base has none: {history:?}");
}

#[test]
fn skopeo_copies_the_image_as_it_is() {
    let project = Project::new(Family::Docker);
    let digest = project.build().succeed()[0].to_string();
    let source = format!("oci:{}:site", project.layout().display());
    let copy = format!("oci:{}:copy", project.path("copy").display());
    // All digests are verified on the way.
    succeed(Command::new(tool("skopeo")).args(["copy", "--quiet", "--preserve-digests", &source, &copy]));
    assert_eq!(json(&project.path("copy/index.json"))["manifests"][0]["digest"], json!(digest));
}

#[test]
fn docker_media_types_are_docker_s_throughout() {
    let project = Project::new(Family::Oci);
    let digest = project.build().args(["--format", "docker"]).succeed()[0].to_string();
    // Skopeo takes such an image from a registry only: in a layout it looks for OCI's types.
    let registry = DockerRegistry::start();
    registry.push_from_layout("site", "docker", &project.layout(), &digest);
    let source = format!("docker://{}/site:docker", registry.address);
    let directory = project.path("directory");
    let target = format!("dir:{}", directory.display());
    let options = ["copy", "--quiet", "--src-tls-verify=false", "--preserve-digests"];
    succeed(Command::new(tool("skopeo")).args(options).args([&source, &target]));

    let manifest = json(&directory.join("manifest.json"));
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
    let layers = manifest["layers"].as_array().expect("layers");
    assert!(layers.iter().all(|layer| layer["mediaType"] == "application/vnd.docker.image.rootfs.diff.tar.gzip"));
}

#[test]
fn podman_loads_both_archives() {
    for output in ["oci-archive", "docker-archive"] {
        let project = Project::new(Family::Docker);
        let archive = project.path("image.tar");
        let digest = project.build().args(["--output", &format!("{output}:{}", archive.display())]).succeed()[0];
        let podman = Podman::new();
        let id = podman.load(&archive);
        let seen = podman.inspect(&id);
        assert_eq!(seen["Config"]["Cmd"], json!(["app.get"]), "{output}");
        assert_eq!(seen["RootFS"]["Layers"].as_array().expect("layers").len(), 7, "{output}");
        let config = blob(&project.layout(), &digest.to_string())["config"]["digest"].clone();
        assert_eq!(json!(format!("sha256:{id}")), config, "{output}: an image's id is its config's digest");
    }
}

#[test]
fn two_binaries_share_the_layer_of_their_asset() {
    let target = TempDir::new().expect("a temporary directory");
    let build = || {
        Program::build(&hello::copy("workspace", target.path()))
            .args(["--workspace", "--target-dir"])
            .arg(target.path())
            .args(["--config"])
            .arg(testdata("hello/static.toml"))
            .env("CARGO_BUILD_BUILD_DIR", target_directory().join("it/workspace"))
    };
    let digests = build().succeed();
    assert_eq!(digests.len(), 2);
    let layout = hello::layout(target.path());
    let images: Vec<_> = digests.iter().map(|digest| blob(&layout, &digest.to_string())).collect();
    let (count, longest) = (layers(&images[0]), layers(&images[1]));
    assert_eq!((count.len(), longest.len()), (2, 2), "the asset, then the binary");
    assert_eq!(count[0], longest[0]);
    assert_ne!(count[1], longest[1]);
    let lock = file::read(&target.path().join("workspace").join(FILE_NAME)).expect("a lock");
    assert_eq!(lock.layers.len(), 1, "what members share has one entry");

    for (name, digest, handler) in
        [("count", &digests[0], json!(null)), ("longest", &digests[1], json!(["longest.word"]))]
    {
        let reference = format!("oci:{}:{name}", layout.display());
        assert_eq!(inspect(&reference, &[])["Digest"], json!(digest.to_string()));
        let config = &inspect(&reference, &["--config"])["config"];
        assert_eq!(config["Entrypoint"], json!(["/var/task/bootstrap"]));
        assert_eq!(config["Cmd"], handler, "{name}");
        let root = unpack(&layout, name, &target.path().join("bundles").join(name));
        let words = fs::read(root.join("var/task/words.txt")).expect("the asset");
        assert_eq!(words, fs::read(testdata("workspace/words.txt")).expect("the asset"));
    }
    assert_eq!(build().args(["--bin", "longest"]).succeed(), digests[1..], "one of them alone is the same image");
}

#[test]
fn an_arm64_binary_finds_its_platform_of_the_base() {
    let project = Project::new(Family::Docker);
    project.write("bootstrap", &elf(ARM64), 0o755);
    let build = Program::build(&project.path("site")).args(["--name", "arm", "--handler", "get", "--binary-path"]);
    let digest = build.arg(project.path("bootstrap")).env("HOME", project.directory.path()).succeed()[0];

    let reference = format!("oci:{}:arm", project.layout().display());
    assert_eq!(inspect(&reference, &["--raw"]), blob(&project.layout(), &digest.to_string()));
    let config = inspect(&reference, &["--config"]);
    assert_eq!(config["architecture"], json!("arm64"));
    assert_eq!(config["config"]["Cmd"], json!(["get"]));
    let arm = &LambdaBase::new(Family::Docker).images[1];
    let base: Vec<Value> = serde_json::from_slice::<Value>(&arm.config).expect("JSON")["rootfs"]["diff_ids"]
        .as_array()
        .expect("layers")
        .clone();
    assert_eq!(config["rootfs"]["diff_ids"].as_array().expect("layers")[..4], base);

    let root = unpack(&project.layout(), "arm", &project.path("bundle"));
    let binary = fs::read(root.join("var/runtime/bootstrap")).expect("the binary where the runtime looks");
    assert_eq!(binary, elf(ARM64));
}

#[test]
fn uncompressed_layers_of_a_saved_base_are_compressed() {
    let project = Project::new(Family::Oci);
    let saved = project.path("saved.tar");
    let from = format!("oci:{}:{}", project.path("base").display(), lambda_base::NAME);
    let to = format!("docker-archive:{}:provided:al2023", saved.display());
    succeed(Command::new(tool("skopeo")).args(["copy", "--quiet", "--override-arch=amd64", &from, &to]));

    let from_archive = project.build().args(["--base", "docker-archive:../saved.tar"]).succeed()[0].to_string();
    let manifest = blob(&project.layout(), &from_archive);
    let described = manifest["layers"].as_array().expect("layers");
    assert!(described.iter().all(|layer| layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"));
    let root = unpack(&project.layout(), "site", &project.path("from-archive"));

    project.build().succeed();
    let passed_through = unpack(&project.layout(), "site", &project.path("from-layout"));
    assert_eq!(tree(&root), tree(&passed_through));
}
