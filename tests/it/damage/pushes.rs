//! The same attacks before a push: what arrives in a registry is the image that was meant, or nothing is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cargo_lambda_image::oci::Digest;
use serde_json::Value;

use super::{Built, DAMAGES, age, digest, flip, now, set_modified};
use crate::support::assets::{text, unpack};
use crate::support::program::{Outcome, Program};
use crate::support::read_only::ReadOnly;
use crate::support::registry::{FaultRegistry, Ways};
use crate::support::site::Site;

/// A site that was built and pushed, and a registry that takes it again under any name.
struct Pushed {
    built: Built,
    registry: FaultRegistry,
    repositories: usize,
}

impl Pushed {
    fn new() -> Self {
        let registry = FaultRegistry::builder().ways(Ways::default()).start();
        let mut pushed = Self { built: Built::new(), registry, repositories: 0 };
        let (repository, program) = pushed.push();
        pushed.assert_right(&repository, &program.run(), "nothing happened");
        pushed
    }

    /// A push to a repository in which nothing is yet.
    fn push(&mut self) -> (String, Program) {
        self.repositories += 1;
        let repository = format!("site-{}", self.repositories);
        let to = format!("{}/{repository}", self.registry.address);
        (repository, self.built.site.push_on(&self.built.base, &to, &Built::ASSETS))
    }

    fn shown(&self, path: &Path) -> String {
        self.built.shown(path).to_string()
    }

    /// Fails unless the repository has exactly the image, each of whose layers is what its config says.
    fn assert_right(&self, repository: &str, outcome: &Outcome, what: &str) {
        assert_eq!(outcome.code, 0, "{what}: {}", outcome.stderr);
        self.assert_pushed(repository, outcome, what);
    }

    fn assert_pushed(&self, repository: &str, outcome: &Outcome, what: &str) {
        let digest = self.built.digest;
        let expected = format!("{}/{repository}@{digest}\n", self.registry.address);
        assert_eq!(outcome.stdout, expected, "{what}");
        assert_whole(&self.registry, repository, &digest, what);
        self.built.site.assert_tidy();
    }
}

/// Fails unless a repository has an image whose layers are what its config says.
fn assert_whole(registry: &FaultRegistry, repository: &str, digest: &Digest, what: &str) {
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        registry.blob_of(repository, digest).unwrap_or_else(|| panic!("{what}: `{repository}` has no blob {digest}"))
    };
    let manifest = registry.manifest(repository, &digest.to_string()).unwrap_or_else(|| panic!("{what}: no image"));
    let manifest = json(&manifest);
    let config = json(&blob(&manifest["config"]));
    let diff_ids = config["rootfs"]["diff_ids"].as_array().expect("diff-ids");
    let layers = manifest["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), diff_ids.len(), "{what}");
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        assert_eq!(Digest::of(&unpack(&blob(layer))).to_string(), diff_id.as_str().expect("a diff-id"), "{what}");
    }
}

#[test]
fn whatever_happens_to_one_file_the_next_push_is_right() {
    let mut pushed = Pushed::new();
    let mut damaged = 0;
    // The others come to the same: what a file says is not what it should say, or it is not there.
    let kinds = ["truncated", "flipped", "emptied", "swapped"];
    for (what, damage) in DAMAGES.into_iter().filter(|(what, _)| kinds.contains(what)) {
        // All of its layers are in the store.
        assert_eq!(digest(pushed.built.build()), pushed.built.digest, "{what}");
        let files = pushed.built.files();
        for (index, path) in files.iter().enumerate() {
            // A push makes again what it needs, and leaves out of the store what is not there any more.
            let mut others = files.iter().cycle().skip(index + 1);
            let Some(other) = others.find(|other| other.exists()).filter(|_| path.exists()) else { continue };
            damage(path, other);
            damaged += 1;
            let told = format!("{} {what}, the other is {}", pushed.shown(path), pushed.shown(other));
            let (repository, push) = pushed.push();
            pushed.assert_right(&repository, &push.run(), &told);
        }
    }
    assert!(damaged > 70, "only {damaged} damages");
    assert_eq!(digest(pushed.built.build()), pushed.built.digest, "after all of them");
}

#[test]
fn a_push_needs_to_write_none_of_its_own_files() {
    let mut pushed = Pushed::new();
    for path in pushed.built.files() {
        let shown = pushed.shown(&path);
        for (arguments, damaged) in [(&[][..], false), (&["--no-cache"], false), (&[], true)] {
            let whole: Option<(PathBuf, Vec<u8>)> = damaged.then(|| (path.clone(), fs::read(&path).expect("read")));
            if damaged {
                flip(&path);
            }
            let read_only = ReadOnly::new(&path);
            let (repository, push) = pushed.push();
            let outcome = push.args(arguments).run();
            drop(read_only);
            let what = format!("{shown} read-only, {arguments:?}, {}", if damaged { "damaged" } else { "whole" });
            if outcome.code == 0 {
                pushed.assert_right(&repository, &outcome, &what);
            } else {
                assert_eq!(outcome.code, 1, "{what}: {}", outcome.stderr);
                assert!(outcome.stderr.contains(&shown), "{what}: {}", outcome.stderr);
                // What was done all the same is told, and nothing else.
                let is_pushed = outcome.stderr.contains("the image is pushed, and only what tells of it");
                match is_pushed {
                    true => pushed.assert_pushed(&repository, &outcome, &what),
                    false => assert_eq!(outcome.stdout, "", "{what}: {}", outcome.stderr),
                }
            }
            if let Some((path, whole)) = whole {
                fs::write(path, whole).expect("written");
            }
        }
    }
    let (repository, push) = pushed.push();
    pushed.assert_right(&repository, &push.run(), "after all of them");
}

#[test]
fn a_push_sees_a_rewritten_asset_whatever_its_modification_time_says() {
    let registry = FaultRegistry::builder().ways(Ways::default()).start();
    let site = Site::new();
    let asset = site.project().join("table.txt");
    for (round, years) in [-20, 0, 70].into_iter().enumerate() {
        fs::write(&asset, text(50_000)).expect("written");
        let date = u64::try_from(now() + years * 31_557_600).expect("a date");
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(date);
        set_modified(&asset, modified);
        age(std::slice::from_ref(&asset));
        let repository = format!("site-{round}");
        let push = || {
            let outcome = site.push(&format!("{}/{repository}", registry.address), &["table.txt"]).run();
            assert_eq!(outcome.code, 0, "{}", outcome.stderr);
            let (_, digest) = outcome.stdout.trim().split_once('@').expect("a digest");
            let digest: Digest = digest.parse().expect("a digest");
            assert_whole(&registry, &repository, &digest, &format!("{years} years"));
            digest
        };
        let first = push();
        assert_eq!(push(), first);
        let mut bytes = fs::read(&asset).expect("read");
        bytes[30_000] ^= 1;
        fs::write(&asset, &bytes).expect("written");
        set_modified(&asset, modified);
        let second = push();
        assert_ne!(second, first, "{years} years");
        let fresh = site.build(&["table.txt"]).arg("--target-dir").arg(site.path("fresh")).arg("--no-cache");
        assert_eq!([second][..], fresh.succeed(), "{years} years");
    }
}
