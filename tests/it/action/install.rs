//! How the program gets onto a runner, from a server that is GitHub's by its names.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::support::composite::{ACTION, Composite, Ran};
use crate::support::markdown::{read, repository};
use crate::support::project::files_below;
use crate::support::proxy::Proxy;
use crate::support::runner::commands;
use crate::support::site::Site;
use crate::support::tools::{succeed, tool};

const NAME: &str = "cargo-lambda-image";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const TARGET: &str = "x86_64-unknown-linux-musl";

/// Where GitHub sends those who want a file of a release.
const FILES: &str = "release-assets.githubusercontent.com";

/// A program that becomes the one under test, which is too large to be packed in every test.
fn launcher() -> String {
    format!("#!/bin/sh\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_cargo-lambda-image"))
}

/// What `.ci/release` makes for a target, into `directory`.
fn pack(target: &str, directory: &Path) {
    let program = directory.join("program");
    fs::write(&program, launcher()).expect("written");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("permissions");
    let mut release = Command::new(repository().join(".ci/release"));
    succeed(release.arg(target).arg(directory).arg(&program).env_remove("GITHUB_REF_TYPE"));
    fs::remove_file(program).expect("removed");
}

/// A release on GitHub.
struct Release {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    proxy: Proxy,
    _server: Runtime,
}

impl Release {
    fn publish() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        pack(TARGET, directory.path());
        let names = files_below(directory.path()).into_keys();
        let files =
            names.map(|name| (name.display().to_string(), fs::read(directory.path().join(name)).expect("read")));
        let files = Arc::new(Mutex::new(files.collect::<BTreeMap<_, _>>()));
        let served = Arc::clone(&files);
        let server = Runtime::new().expect("a runtime");
        let listener = server.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let app =
            Router::new().fallback(move |uri: Uri| std::future::ready(answer(&served.lock().expect("alone"), &uri)));
        server.spawn(async move { axum::serve(listener, app).await });
        let proxy = Proxy::start_with(&address, &[("github.com", &address), (FILES, &address)]);
        Self { files, proxy, _server: server }
    }

    /// Changes what the release has.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) {
        change(&mut self.files.lock().expect("alone"));
    }

    /// A job that builds an image on a runner which reaches the release, and nothing else.
    fn job(&self) -> Composite {
        let args = "--no-binary\n--no-verify\n--base=scratch\n--handler=a.b\n--asset=notes.txt";
        let job = Composite::new().with("command", "build").with("working-directory", "site").with("args", args);
        job.env("HTTPS_PROXY", self.proxy.url()).env("CURL_CA_BUNDLE", self.proxy.authority())
    }
}

/// Files of a release have one address for people, which leads to another.
fn answer(files: &BTreeMap<String, Vec<u8>>, uri: &Uri) -> Response {
    let (directory, name) = uri.path().rsplit_once('/').expect("an absolute path");
    match files.get(name) {
        Some(bytes) if directory.is_empty() => bytes.clone().into_response(),
        Some(_) if directory == format!("/{ACTION}/releases/download/v{VERSION}") => {
            (StatusCode::FOUND, [(header::LOCATION, format!("https://{FILES}/{name}"))]).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The name of the archive.
fn archive() -> String {
    format!("{NAME}-{TARGET}-v{VERSION}.tgz")
}

/// A runner with a `cargo` that notes where it was called and with what, and installs.
fn with_cargo(job: Composite) -> Composite {
    let program = job.path("launcher");
    fs::write(&program, launcher()).expect("written");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("permissions");
    let (noted, program, copy) = (job.path("noted"), program.display(), tool("cp"));
    job.provide(
        "cargo",
        &format!(
            "printf '%s\\n' \"$PWD\" \"${{RUSTFLAGS-none}}\" \"$@\" >\"{}\"
            while [ \"$1\" != --root ]; do shift; done
            mkdir \"$2/bin\"
            {} \"{program}\" \"$2/bin/{NAME}\"",
            noted.display(),
            copy.display(),
        ),
    )
}

/// What that `cargo` noted, with `ROOT` for the directory it was to install into.
fn noted(job: &Composite, ran: &Ran) -> Vec<String> {
    let root = ran.path[0].parent().expect("a parent").display().to_string();
    let text = fs::read_to_string(job.path("noted")).unwrap_or_else(|error| panic!("{error}: {}", ran.stderr));
    text.lines().map(|line| line.replace(&root, "ROOT")).collect()
}

fn assert_built(ran: &Ran) {
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.outputs["digest"].starts_with("sha256:"), "{:?}", ran.outputs);
}

/// Fails unless the first step ended the job with this error, and left nothing that later steps could run.
fn assert_refused(job: &Composite, ran: &Ran, error: &str) {
    assert_eq!((ran.code, commands(&ran.stderr)), (1, vec![&*format!("::error title=cargo lambda-image::{error}")]));
    assert_eq!((ran.path.len(), ran.outputs.len()), (0, 0));
    let is_program = |path: &PathBuf| path.file_name().is_some_and(|name| name == NAME);
    assert!(!files_below(&job.temporary()).keys().any(is_program), "it is nowhere");
}

#[test]
fn the_archive_of_a_release_is_installed_for_this_step_and_those_after() {
    let (release, site) = (Release::publish(), Site::new());
    let job = release.job();
    let ran = job.run(&site.path(""));
    assert_built(&ran);
    let [path] = &ran.path[..] else { panic!("{:?}", ran.path) };
    assert!(path.starts_with(job.temporary()), "{}", path.display());
    let version = succeed(Command::new(path.join(NAME)).arg("--version"));
    assert_eq!(version, format!("{NAME} {VERSION}\n"));
    let once = ["CONNECT github.com".to_owned(), format!("CONNECT {FILES}")];
    assert_eq!(release.proxy.requests(), [once.clone(), once].concat(), "its checksum, then itself");

    // The same version, said as tags say it.
    assert_built(&release.job().with("version", &format!("v{VERSION}")).run(&site.path("")));
}

#[test]
fn an_archive_that_is_not_what_its_checksum_says_is_refused() {
    let (release, site) = (Release::publish(), Site::new());
    let sum = format!("{}.sha256", archive());
    let wanted = release.files.lock().expect("alone")[&sum].clone();
    let wanted = String::from_utf8(wanted).expect("text").split(' ').next().expect("a digest").to_owned();
    release.change(|files| files.get_mut(&archive()).expect("an archive").push(0));
    let found = cargo_lambda_image::oci::Digest::of(&release.files.lock().expect("alone")[&archive()]);
    let found = found.hex();
    let job = with_cargo(release.job());
    let ran = job.run(&site.path(""));
    let error = format!("{} has the SHA-256 digest {found}, and not {wanted}: nothing was installed", archive());
    assert_refused(&job, &ran, &error);
    assert!(!job.path("noted").exists(), "what is not what it should be is no reason for another way");

    // Nor is a checksum that says nothing.
    release.change(|files| drop(files.insert(sum.clone(), Vec::new())));
    let job = release.job();
    let ran = job.run(&site.path(""));
    let error = format!("{} has the SHA-256 digest {found}, and not : nothing was installed", archive());
    assert_refused(&job, &ran, &error);
}

#[test]
fn without_an_archive_the_actions_own_source_is_compiled() {
    let (release, site) = (Release::publish(), Site::new());
    for gone in [archive(), format!("{}.sha256", archive())] {
        release.change(|files| drop(files.remove(&gone)));
        // What the job says of its own code is not meant for this.
        let job = with_cargo(release.job()).env("RUSTFLAGS", "-D warnings");
        let ran = job.run(&site.path(""));
        assert_built(&ran);
        let here = repository().display().to_string();
        let expected =
            [&here, "none", "install", "--locked", "--root", "ROOT", "--target-dir", "ROOT/target", "--path", "."];
        assert_eq!(noted(&job, &ran), expected);
    }
    for (os, architecture) in [("Linux", "X86"), ("Linux", "ARM")] {
        let job = with_cargo(release.job()).on(os, architecture);
        assert_built(&job.run(&site.path("")));
    }
}

#[test]
fn without_an_archive_another_version_is_compiled_from_crates_io() {
    let (release, site) = (Release::publish(), Site::new());
    let job = with_cargo(release.job()).with("version", "9.8.7-rc.1");
    let ran = job.run(&site.path(""));
    assert_built(&ran);
    assert_eq!(
        noted(&job, &ran)[2..],
        ["install", "--locked", "--root", "ROOT", "--target-dir", "ROOT/target", "cargo-lambda-image@9.8.7-rc.1"]
    );
}

#[test]
fn without_an_archive_and_without_cargo_it_says_so() {
    let (release, site) = (Release::publish(), Site::new());
    release.change(BTreeMap::clear);
    let job = release.job();
    let ran = job.run(&site.path(""));
    let error = format!("no archive of {NAME} {VERSION} for this machine, and no cargo to build it with");
    assert_refused(&job, &ran, &error);
}

#[test]
fn each_runner_gets_the_archive_for_it() {
    let (release, site) = (Release::publish(), Site::new());
    for (os, architecture, target) in [
        ("Linux", "ARM64", "aarch64-unknown-linux-musl"),
        ("macOS", "X64", "x86_64-apple-darwin"),
        ("macOS", "ARM64", "aarch64-apple-darwin"),
    ] {
        let directory = TempDir::new().expect("a temporary directory");
        pack(target, directory.path());
        release.change(|files| {
            files.clear();
            for name in files_below(directory.path()).into_keys() {
                files.insert(name.display().to_string(), fs::read(directory.path().join(name)).expect("read"));
            }
        });
        assert_built(&release.job().on(os, architecture).run(&site.path("")));
    }
    let job = with_cargo(release.job()).on("Windows", "X64");
    let ran = job.run(&site.path(""));
    assert_refused(&job, &ran, &format!("{NAME} does not run on Windows: use a runner with Linux or macOS"));
}

#[test]
fn a_program_that_is_there_is_used_if_it_is_the_version_that_is_asked_for() {
    let (release, site) = (Release::publish(), Site::new());
    let asked = |version: &str, there: &str| {
        let job = release.job().with("version", version);
        let job = job.provide(NAME, &format!("[ \"$1\" != --version ] || {{ echo '{there}'; exit; }}; exit 9"));
        let ran = job.run(&site.path(""));
        (ran.code, ran.path.len())
    };
    let ours = format!("{NAME} {VERSION}");
    assert_eq!(asked("", &ours), (9, 0), "it was run");
    assert_eq!(asked(VERSION, &ours), (9, 0));
    assert_eq!(asked("", &format!("{NAME} 0.0.9")), (0, 1), "the one of the release was");
    assert_eq!(asked("", "something else"), (0, 1));
}

#[test]
fn a_version_that_is_none_is_refused_before_anything_is_asked_for() {
    let (release, site) = (Release::publish(), Site::new());
    for (version, seen) in [
        ("latest", "latest"),
        ("1.2", "1.2"),
        ("../../x", "../../x"),
        ("0.1.0/../../evil", "0.1.0/../../evil"),
        ("0.1.0\n::add-path::/evil", "0.1.0%0A::add-path::/evil"),
    ] {
        let job = release.job().with("version", version);
        let ran = job.run(&site.path(""));
        let error = format!("the input `version` is a version such as `{VERSION}`, not `{seen}`");
        assert_refused(&job, &ran, &error);
    }
    assert_eq!(release.proxy.requests(), [] as [&str; 0]);
}

#[test]
fn cargo_binstall_is_told_where_the_archives_are_and_what_is_in_them() {
    let directory = TempDir::new().expect("a temporary directory");
    pack(TARGET, directory.path());
    let manifest: toml::Value = toml::from_str(&read("Cargo.toml")).expect("TOML");
    let told = &manifest["package"]["metadata"]["binstall"];
    let filled = |key: &str| {
        let text = told[key].as_str().expect("a template");
        let values = [("name", NAME), ("version", VERSION), ("target", TARGET), ("bin", NAME), ("binary-ext", "")];
        let text =
            values.iter().fold(text.to_owned(), |text, (key, value)| text.replace(&format!("{{ {key} }}"), value));
        text.replace("{ repo }", "REPO")
    };
    assert_eq!(filled("pkg-url"), format!("REPO/releases/download/v{VERSION}/{}", archive()));
    assert_eq!(told["pkg-fmt"].as_str(), Some("tgz"));
    let packed = directory.path().join(archive());
    let members = succeed(Command::new(tool("tar")).arg("-tzf").arg(packed));
    let mut members: Vec<_> = members.lines().filter(|name| !name.ends_with('/')).collect();
    members.sort_unstable();
    let folder = archive().replace(".tgz", "/");
    let expected = ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md", NAME];
    assert_eq!(members, expected.map(|name| format!("{folder}{name}")));
    assert_eq!(filled("bin-dir"), format!("{folder}{NAME}"));
}
