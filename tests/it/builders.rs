//! What other builders make of the same files, judged: the findings expected of each, in every form images come in.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::support::docker::Docker;
use crate::support::docker_registry::DockerRegistry;
use crate::support::emulator::Podman;
use crate::support::program::Program;
use crate::support::project::{AMD64, elf};
use crate::support::site::Site;
use crate::support::tools::{succeed, tool};
use crate::verdicts::{findings, owned, verify};

/// A function's files, with two things that are likely to go wrong: a hard link, and a file for its owner alone.
struct Files {
    directory: TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { directory: TempDir::new().expect("a directory") };
        let task = files.path("root/var/task");
        fs::create_dir_all(&task).expect("made");
        for (name, mode, content) in [("bootstrap", 0o755, elf(AMD64)), ("private", 0o600, b"x".to_vec())] {
            fs::write(task.join(name), content).expect("written");
            fs::set_permissions(task.join(name), Permissions::from_mode(mode)).expect("a mode");
        }
        fs::hard_link(task.join("bootstrap"), task.join("second")).expect("linked");
        files
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        succeed(Command::new(tool(program)).current_dir(self.directory.path()).args(arguments))
    }

    fn buildah(&self, arguments: &[&str]) -> String {
        let storage = ["--storage-driver", "vfs", "--root", "storage", "--runroot", "run"];
        let absolute: Vec<_> = storage
            .iter()
            .map(|it| {
                if it.starts_with("--") || *it == "vfs" {
                    (*it).to_owned()
                } else {
                    self.path(it).display().to_string()
                }
            })
            .collect();
        let all: Vec<&str> = absolute.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        self.run("buildah", &all).trim().to_owned()
    }

    /// Has buildah make the image, and write it in these forms.
    fn build(&self, targets: &[&str]) {
        let container = self.buildah(&["from", "scratch"]);
        self.buildah(&["copy", &container, "root", "/"]);
        let start = ["config", "--os", "linux", "--arch", "amd64", "--entrypoint", r#"["/var/task/bootstrap"]"#];
        self.buildah(&[&start[..], &[&container]].concat());
        for target in targets {
            self.buildah(&["commit", "--quiet", &container, target]);
        }
    }
}

/// Which of both names comes first in the tar is the directory's affair.
fn without_names(findings: Vec<String>) -> Vec<String> {
    let name = |line: String| line.replace("/var/task/second", "/var/task/bootstrap");
    findings.into_iter().map(name).collect()
}

const PRIVATE: &str = "L029 warning /var/task/private";
const LINK: &str = "L021 warning /var/task/bootstrap";

#[test]
fn images_of_buildah() {
    let files = Files::new();
    files.build(&["oci:layout:hello", "oci-archive:oci.tar:hello", "docker-archive:docker.tar:hello"]);
    // What buildah writes to a layout is not compressed unless it is asked for.
    for (image, expected) in [
        ("oci:layout:hello", &["L007 warning -", LINK, PRIVATE][..]),
        ("oci-archive:oci.tar", &["L007 warning -", LINK, PRIVATE]),
        ("docker-archive:docker.tar", &[LINK, PRIVATE]),
    ] {
        let outcome = verify(files.directory.path(), image);
        assert_eq!(without_names(findings(&outcome)), expected, "{image}: {}", outcome.stdout);
        assert_eq!(outcome.code, 0, "{image}: warnings are no refusal");
    }
}

#[test]
fn images_of_umoci_and_copies_of_skopeo() {
    let files = Files::new();
    files.run("umoci", &["init", "--layout", "image"]);
    files.run("umoci", &["new", "--image", "image:hello"]);
    files.run("umoci", &["unpack", "--image", "image:hello", "bundle"]);
    files.run("cp", &["-a", "root/.", "bundle/rootfs/"]);
    files.run("umoci", &["repack", "--image", "image:hello", "bundle"]);
    let entry_point = ["--config.entrypoint", "/var/task/bootstrap", "--architecture", "amd64", "--os", "linux"];
    files.run("umoci", &[&["config", "--image", "image:hello"][..], &entry_point].concat());
    let outcome = verify(files.directory.path(), "oci:image:hello");
    assert_eq!(without_names(findings(&outcome)), ["L009 warning -", LINK, PRIVATE], "{}", outcome.stdout);

    files.run("skopeo", &["copy", "--quiet", "oci:image:hello", "docker-archive:saved.tar:hello:1"]);
    let outcome = verify(files.directory.path(), "docker-archive:saved.tar:hello:1");
    assert_eq!(without_names(findings(&outcome)), [LINK, PRIVATE], "{}", outcome.stdout);

    let registry = DockerRegistry::start();
    let target = format!("docker://{}/hello:1", registry.address);
    files
        .run("skopeo", &["copy", "--quiet", "--format", "v2s2", "--dest-tls-verify=false", "oci:image:hello", &target]);
    let outcome = verify(files.directory.path(), &format!("{}/hello:1", registry.address));
    assert_eq!(without_names(findings(&outcome)), [LINK, PRIVATE], "{}{}", outcome.stdout, outcome.stderr);
}

/// What the builders that read such files are given.
const CONTAINERFILE: &str = "FROM scratch\nCOPY root/ /\nENTRYPOINT [\"/var/task/bootstrap\"]\n";

/// Judges each image and compares what was found.
fn expect(files: &Files, table: &[(&str, &[&str])]) {
    for (image, expected) in table {
        let outcome = verify(files.directory.path(), image);
        assert_eq!(without_names(findings(&outcome)), *expected, "{image}: {}{}", outcome.stdout, outcome.stderr);
        let is_error = expected.iter().any(|line| line.contains(" error "));
        assert_eq!(outcome.code, if is_error { 3 } else { 0 }, "{image}: {}", outcome.stderr);
    }
}

#[test]
fn images_of_podman() {
    let (files, podman) = (Files::new(), Podman::new());
    fs::write(files.path("Containerfile"), CONTAINERFILE).expect("written");
    let here = files.directory.path();
    podman.run(here, &["build", "--quiet", "--arch=amd64", "--tag", "built:1", "."]);
    for (form, file) in [("oci-archive", "oci.tar"), ("docker-archive", "docker.tar"), ("oci-dir", "layout")] {
        podman.run(here, &["save", "--quiet", "--format", form, "--output", file, "built:1"]);
    }
    let container = podman.run(here, &["create", "built:1"]);
    podman.run(here, &["commit", "--quiet", "--change", "CMD [\"none\"]", &container, "committed:1"]);
    podman.run(here, &["save", "--quiet", "--format", "oci-archive", "--output", "committed.tar", "committed:1"]);
    expect(
        &files,
        &[
            ("oci-archive:oci.tar", &[LINK, PRIVATE]),
            ("docker-archive:docker.tar", &[LINK, PRIVATE]),
            ("oci:layout", &[LINK, PRIVATE]),
            ("oci-archive:committed.tar", &[LINK, PRIVATE]),
        ],
    );
}

#[test]
fn images_of_docker_and_ours_in_docker() {
    let (files, docker) = (Files::new(), Docker::start());
    fs::write(files.path("Dockerfile"), CONTAINERFILE).expect("written");
    let here = files.directory.path();
    docker.run(here, &["build", "--quiet", "--tag", "built:1", "."]);
    docker.run(here, &["save", "--output", "saved.tar", "built:1"]);
    files.run("tar", &["--create", "--file", "root.tar", "--directory", "root", "."]);
    docker.run(here, &["import", "root.tar", "imported:1"]);
    docker.run(here, &["save", "--output", "both.tar", "built:1", "imported:1"]);
    // Docker on a machine of another architecture makes images for that.
    let foreign: &[&str] = if cfg!(target_arch = "x86_64") { &[] } else { &["L056 error /var/task/bootstrap"] };
    let built = [foreign, &[LINK, PRIVATE]].concat();
    expect(
        &files,
        &[
            ("docker-archive:saved.tar", &built),
            ("docker-archive:both.tar:built:1", &built),
            ("docker-archive:both.tar:imported:1", &[LINK, PRIVATE, "L050 warning -"]),
        ],
    );

    // Docker takes what we write, and gives it back as we know it.
    let site = Site::new();
    let archive = format!("docker-archive:{}", site.path("ours.tar").display());
    let digest = site.build(&["notes.txt"]).args(["--output", &archive]).succeed()[0];
    let manifest = crate::support::program::blob(&site.layout(), &digest.to_string());
    let loaded = docker.run(here, &["load", "--input", &site.path("ours.tar").display().to_string()]);
    assert!(loaded.starts_with("Loaded image: site:"), "{loaded}");
    let name = loaded.trim_start_matches("Loaded image: ");
    let id = docker.run(here, &["image", "inspect", "--format", "{{.Id}}", name]);
    assert_eq!(json!(id), manifest["config"]["digest"], "an image's id is its config's digest");
    docker.run(here, &["save", "--output", "back.tar", name]);
    let outcome =
        Program::verify(here).args(["docker-archive:back.tar", "--message-format", "json", "--allow", "L051"]).run();
    assert_eq!((findings(&outcome), outcome.code), (owned(&[]), 0), "{}", outcome.stdout);
}

#[test]
fn images_of_crane() {
    let files = Files::new();
    // No package of Debian brings crane: these were made by it, by the script beside them.
    files.run("cp", &["-r", concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/crane"), "crane"]);
    // Named file by file the tar has no directories, and crane's empty base has no platform.
    let common = ["L014 error -", "L020 error /var", "L020 error /var/task"];
    let appended = [&common[..], &[LINK, PRIVATE, "L050 warning -"]].concat();
    let mutated = [&common[..], &[LINK, PRIVATE]].concat();
    expect(&files, &[("oci:crane/layout", &mutated), ("docker-archive:crane/image.tar", &appended)]);
}

#[test]
fn a_layer_of_zstd_is_named_and_not_looked_into() {
    let files = Files::new();
    files.build(&["oci:layout:hello"]);
    let zstd = ["--dest-compress", "--dest-compress-format=zstd"];
    files.run("skopeo", &[&["copy", "--quiet"], &zstd[..], &["oci:layout:hello", "oci:zstd:hello"]].concat());
    let outcome = verify(files.directory.path(), "oci:zstd:hello");
    assert_eq!(findings(&outcome), ["L005 error -", "L017 note -", "L051 note -"], "{}", outcome.stdout);
    for note in ["not checked: the layer is compressed with zstd", "not checked: a layer was not read"] {
        assert!(outcome.stdout.contains(note), "{}", outcome.stdout);
    }
}

#[test]
fn what_advice_says_of_compression_is_what_skopeo_does() {
    let files = Files::new();
    files.build(&["oci:layout:hello"]);
    let mut good = findings(&verify(files.directory.path(), "oci:layout:hello"));
    good.retain(|finding| !finding.starts_with("L007"));
    let plain = ["--dest-decompress", "--dest-oci-accept-uncompressed-layers"];
    for (how, code, command) in [
        (
            &["--dest-compress", "--dest-compress-format=zstd"],
            "L005",
            "copy --dest-compress-format gzip SOURCE oci:DIR",
        ),
        (&plain, "L007", "copy SOURCE oci:DIR"),
    ] {
        let made = format!("oci:{code}:hello");
        files.run("skopeo", &[&["copy", "--quiet"], &how[..], &["oci:layout:hello", &made]].concat());
        let outcome = verify(files.directory.path(), &made);
        let found = findings(&outcome);
        assert!(found.iter().any(|finding| finding.starts_with(code)), "{found:?}");
        assert!(outcome.stdout.contains(&format!("`skopeo {command}`")), "{}", outcome.stdout);
        let command = command.replace("SOURCE", &made).replace("DIR", &format!("mended-{code}"));
        files.run("skopeo", &command.split(' ').collect::<Vec<_>>());
        let outcome = verify(files.directory.path(), &format!("oci:mended-{code}"));
        assert_eq!((findings(&outcome), outcome.code), (good.clone(), 0), "{}", outcome.stdout);
    }
}
