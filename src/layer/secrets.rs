//! Files that look like credentials are refused: an image is read by everyone who may pull it.
//!
//! The list is short and by name, with a look inside only where a name alone says too little, so that ordinary files of
//! ML and Node projects pass.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::problem::{Problem, Result};

/// Keys and certificates are this small; larger files are something else.
pub(super) const LOOKED_AT: u64 = 1 << 20;

/// Judges files by name, unless a glob of the user's allows them.
#[derive(Debug)]
pub(super) struct Guard {
    allowed: GlobSet,
}

impl Guard {
    pub(super) fn new(allow: &[String]) -> Result<Self, globset::Error> {
        let mut allowed = GlobSetBuilder::new();
        for pattern in allow {
            let pattern = pattern.trim_start_matches("./").trim_start_matches('/');
            allowed.add(GlobBuilder::new(pattern).literal_separator(true).build()?);
            if !pattern.contains('/') {
                // As in ignore files, a pattern without a slash is about names.
                allowed.add(GlobBuilder::new(&format!("**/{pattern}")).literal_separator(true).build()?);
            }
        }
        Ok(Self { allowed: allowed.build()? })
    }

    /// Refuses the file at `path` if it looks like a secret; `below` is its path within the asset and `place` that in
    /// the image, either of which the user's globs may match.
    pub(super) fn check(&self, path: &Path, below: &Path, place: &Path) -> Result<()> {
        // A secret is one under another name too.
        // What a link into the project's own files brings is no package's.
        let is_a_packages =
            is_of_a_package(place) && fs::canonicalize(path).is_ok_and(|real_path| is_of_a_package(&real_path));
        let seen = [below, place].into_iter().find_map(|name| suspicion(name, is_a_packages)?.confirmed(path));
        let Some(what) = seen else { return Ok(()) };
        if self.allowed.is_match(below) || self.allowed.is_match(place) {
            return Ok(());
        }
        Err(Problem::refused(format!("`{}` looks like a secret: {what}", path.display())).help(format!(
            "exclude it from the asset, or pass `--allow-secrets '{}'` if it may be read by all who can pull the image",
            below.display()
        )))
    }
}

/// Whether it takes a look inside to tell if the file at `path` in an image is a secret.
pub(super) fn wants_content(path: &Path) -> bool {
    suspicion(path, is_of_a_package(path)).is_some_and(|suspicion| !suspicion.content.is_empty())
}

/// What kind of secret a file seems to be, by its path and its first bytes.
pub(super) fn seems(path: &Path, head: &[u8]) -> Option<&'static str> {
    suspicion(path, is_of_a_package(path))?.confirmed_by(|| Some(head.to_vec()))
}

struct Suspicion {
    what: &'static str,
    /// What its content must have for it to count.
    content: &'static [&'static str],
}

impl Suspicion {
    fn confirmed(&self, path: &Path) -> Option<&'static str> {
        self.confirmed_by(|| {
            let mut bytes = Vec::new();
            // What cannot be read fails the build when it is packed.
            File::open(path).ok()?.take(LOOKED_AT).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        })
    }

    fn confirmed_by(&self, content: impl FnOnce() -> Option<Vec<u8>>) -> Option<&'static str> {
        if self.content.is_empty() {
            return Some(self.what);
        }
        let bytes = content()?;
        let text = String::from_utf8_lossy(&bytes);
        self.content.iter().any(|needle| text.contains(needle)).then_some(self.what)
    }
}

fn suspicion(place: &Path, is_a_packages: bool) -> Option<Suspicion> {
    let name = place.file_name()?.to_str()?;
    // Taking paths apart is slow where there are many; most hold no such text at all.
    let may_hold = |wanted: &str| place.to_str().is_none_or(|text| text.contains(wanted));
    let directory = |wanted: &str| {
        may_hold(wanted) && place.parent().is_some_and(|parent| parent.iter().any(|part| part == wanted))
    };
    let parent_is =
        |wanted: &str| place.parent().is_some_and(|parent| parent.file_name().is_some_and(|part| part == wanted));
    let named = |what| Some(Suspicion { what, content: &[] });
    let holding = |what, content| Some(Suspicion { what, content });
    if name.starts_with(".env") {
        // Examples hold names without values.
        let example = [".example", ".sample", ".template", ".dist"].iter().any(|end| name.ends_with(end));
        return if example || is_a_packages { None } else { named("a file of environment variables") };
    }
    if directory(".aws") {
        return named("AWS credentials or configuration");
    }
    if directory(".ssh") {
        return named("a file of the SSH client");
    }
    match name {
        ".netrc" | "_netrc" => named("login data"),
        ".npmrc" => holding("an npm token", &["_authToken", "_password", "_auth="]),
        "config.json" if parent_is(".docker") => named("registry credentials"),
        "credentials" | "credentials.toml" if parent_is(".cargo") => named("registry tokens"),
        "id_rsa" | "id_dsa" | "id_ecdsa" | "id_ed25519" => named("a private SSH key"),
        _ if is_a_packages => None,
        _ if name.ends_with(".pem") || name.ends_with(".key") => holding("a private key", &["PRIVATE KEY-----"]),
        _ => None,
    }
}

/// Whether a file belongs to a package that npm or pip installed: its keys and settings are of its tests, and public.
fn is_of_a_package(path: &Path) -> bool {
    let is_of_packages = |part: &OsStr| ["node_modules", "site-packages", "dist-packages"].iter().any(|it| part == *it);
    // A file beside the packages is nobody's but the project's.
    let package = path.parent().and_then(Path::parent);
    package.is_some_and(|above| above.iter().any(is_of_packages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likely_secrets_are_refused_and_ordinary_files_pass() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let key = "-----BEGIN RSA PRIVATE KEY-----\nx\n-----END RSA PRIVATE KEY-----\n";
        for (place, content, refused) in [
            (".env", "", true),
            (".env.production", "", true),
            (".env.example", "", false),
            ("environment.py", "", false),
            (".aws/credentials", "", true),
            (".ssh/known_hosts", "", true),
            (".netrc", "", true),
            (".npmrc", "//registry/:_authToken=x", true),
            (".npmrc", "save-exact=true", false),
            (".docker/config.json", "{}", true),
            ("config.json", "{}", false),
            (".cargo/credentials.toml", "", true),
            ("credentials.toml", "", false),
            ("id_ed25519", "", true),
            ("id_ed25519.pub", "", false),
            ("certifi/cacert.pem", "-----BEGIN CERTIFICATE-----", false),
            ("tls/server.pem", key, true),
            ("tls/server.key", key, true),
            ("presentation.key", "PK", false),
            ("model.safetensors", "", false),
            // Of packages that anybody may fetch: bottleneck, public-encrypt, tornado.
            ("node_modules/bottleneck/.env", "REDIS_PORT=6379", false),
            ("node_modules/public-encrypt/test/test_key.pem", key, false),
            ("lib/python3.12/site-packages/tornado/test/test.key", key, false),
            ("node_modules/.env", "", true),
            ("node_modules/bottleneck/.aws/credentials", "", true),
            ("my_node_modules/bottleneck/.env", "", true),
            ("tokenizer.json", "", false),
        ] {
            let path = directory.path().join(place);
            std::fs::create_dir_all(path.parent().expect("a directory above")).expect("made");
            std::fs::write(&path, content).expect("written");
            let place = Path::new("var/task").join(place);
            let guard = Guard::new(&[]).expect("no patterns");
            assert_eq!(guard.check(&path, Path::new("x"), &place).is_err(), refused, "{}", place.display());
        }
    }

    #[test]
    fn a_file_is_judged_by_its_name_in_the_asset_and_by_its_place_in_the_image() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----").expect("written");
        let guard = Guard::new(&[]).expect("no patterns");
        for (below, place, refused) in [
            ("a", "var/task/.env", true),
            (".env", "var/task/a", true),
            ("a.pem", "root/.ssh/a.pem", true),
            ("a.pem", "var/task/a.pem", false),
        ] {
            assert_eq!(guard.check(&path, Path::new(below), Path::new(place)).is_err(), refused, "{below} at {place}");
        }
    }

    #[test]
    fn what_a_link_among_packages_leads_to_is_judged_as_the_projects() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = |path: &str| directory.path().join(path);
        for folder in ["api", "node_modules"] {
            std::fs::create_dir(at(folder)).expect("made");
        }
        std::fs::write(at("api/.env"), "KEY=1").expect("written");
        std::os::unix::fs::symlink("../api", at("node_modules/api")).expect("linked");
        let (guard, place) = (Guard::new(&[]).expect("no patterns"), Path::new("var/task/node_modules/api/.env"));
        assert!(guard.check(&at("node_modules/api/.env"), Path::new("api/.env"), place).is_err());
    }

    #[test]
    fn a_glob_allows_by_name_by_path_in_the_asset_or_in_the_image() {
        for (glob, allowed) in [
            (".env", true),
            ("conf/.env", true),
            ("/var/task/conf/.env", true),
            ("**/.env*", true),
            ("other/.env", false),
            ("*.pem", false),
        ] {
            let guard = Guard::new(&[glob.to_owned()]).expect("a pattern");
            let result = guard.check(Path::new("/x"), Path::new("conf/.env"), Path::new("var/task/conf/.env"));
            assert_eq!(result.is_ok(), allowed, "{glob}");
        }
    }
}
