//! A project without Cargo, which the program packs in milliseconds: for tests that build it many times.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cargo_lambda_image::oci::Digest;
use serde_json::json;
use tempfile::TempDir;

use super::layout::verify;
use super::program::Program;

/// A directory with a project `site` in it, and beside that whatever a test needs.
pub struct Site {
    directory: TempDir,
}

impl Site {
    /// A project with one small file, `notes.txt`.
    pub fn new() -> Self {
        let site = Self { directory: TempDir::new().expect("a temporary directory") };
        fs::create_dir(site.project()).expect("made");
        fs::create_dir(site.path("home")).expect("made");
        site.write("notes.txt", b"first");
        site
    }

    /// A path below the directory.
    pub fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    pub fn project(&self) -> PathBuf {
        self.path("site")
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.project().join(name), bytes).expect("written");
    }

    /// Makes a file of the project that is all zeros and takes no space.
    pub fn write_zeros(&self, name: &str, size: u64) {
        let file = File::create(self.project().join(name)).expect("created");
        file.set_len(size).expect("grown");
    }

    /// Leaves a login for a registry as `docker login` does.
    pub fn log_in(&self, registry: &str, user: &str, password: &str) {
        let directory = self.path("home/.docker");
        fs::create_dir_all(&directory).expect("made");
        let auth = STANDARD.encode(format!("{user}:{password}"));
        let config = json!({"auths": {registry: {"auth": auth}}});
        fs::write(directory.join("config.json"), config.to_string()).expect("written");
    }

    /// `build` of all named assets on nothing, with the target directory in its default place.
    pub fn build(&self, assets: &[&str]) -> Program {
        self.build_on("scratch", assets)
    }

    /// `build` of all named assets on a base.
    pub fn build_on(&self, base: &str, assets: &[&str]) -> Program {
        Program::build(&self.project())
            .args(["--no-binary", "--handler", "app.get", "--base", base])
            .args(assets.iter().flat_map(|asset| ["--asset", asset]))
            .env("HOME", self.path("home"))
    }

    /// `push` of all named assets on nothing.
    pub fn push(&self, repository: &str, assets: &[&str]) -> Program {
        self.push_on("scratch", repository, assets)
    }

    /// `push` of all named assets on a base.
    pub fn push_on(&self, base: &str, repository: &str, assets: &[&str]) -> Program {
        Program::push(&self.project())
            .args(["--no-binary", "--handler", "app.get", "--base", base, "--repository", repository])
            .args(assets.iter().flat_map(|asset| ["--asset", asset]))
            .env("HOME", self.path("home"))
    }

    /// The program's directory.
    pub fn store(&self) -> PathBuf {
        self.project().join("target/lambda-image")
    }

    pub fn layout(&self) -> PathBuf {
        self.store().join("layout")
    }

    /// Fails unless the layout is whole and holds exactly this image, as `site`.
    pub fn assert_holds(&self, digest: &Digest) {
        assert_eq!(verify(&self.layout()), [("site".to_owned(), digest.to_string())]);
    }

    /// Fails if a build left temporary files.
    pub fn assert_tidy(&self) {
        assert_eq!(names(&self.store().join("tmp")), ["lock"]);
    }
}

/// What lies in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let listed = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut names: Vec<_> =
        listed.map(|entry| entry.expect("listed").file_name().into_string().expect("a plain name")).collect();
    names.sort();
    names
}
