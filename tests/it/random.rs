//! Random trees of assets through the real program: what it writes, it finds no error in when it is asked as of
//! anybody's.

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;

use crate::support::images::{Family, noise};
use crate::support::lambda_base::LambdaBase;
use crate::support::program::Program;
use crate::verdicts::{findings, owned, verify};

/// What lies at a path of a tree.
#[derive(Debug, Clone)]
enum Thing {
    Directory,
    /// Bytes, and permission bits.
    File(Vec<u8>, u32),
    /// A link to another path of the tree, or to nothing.
    Link(String),
}

/// Parts of paths as people and machines make them: long, spaced, hidden, of other scripts, and with what tar cares
/// for.
fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-z]{1,8}",
        2 => "[A-Za-z0-9 ._+@=,~-]{0,20}[a-z]",
        1 => "[\u{e0}-\u{ff}\u{4e00}-\u{4e20}]{1,6}",
        1 => "[a-z]{90,140}",
        1 => Just("line\nbreak".to_owned()),
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(part(), 1..6).prop_map(|parts| parts.join("/"))
}

fn thing() -> impl Strategy<Value = Thing> {
    let size = prop_oneof![4 => 0..600_usize, 1 => 60_000..70_000_usize, 1 => Just(512), 1 => Just(1_200_000)];
    let file = (size, 0..0o10000_u32).prop_map(|(size, mode)| Thing::File(noise(size), mode | 0o400));
    prop_oneof![6 => file, 1 => Just(Thing::Directory), 1 => path().prop_map(Thing::Link)]
}

/// Makes as much of a tree as can be: names may be in each other's way.
fn make(root: &Path, things: &[(String, Thing)]) {
    fs::create_dir_all(root).expect("made");
    for (path, thing) in things {
        let at = root.join(path);
        if at.symlink_metadata().is_ok() || fs::create_dir_all(at.parent().expect("a parent")).is_err() {
            continue;
        }
        match thing {
            Thing::Directory => fs::create_dir(&at).expect("made"),
            Thing::File(bytes, mode) => {
                fs::write(&at, bytes).expect("written");
                fs::set_permissions(&at, Permissions::from_mode(*mode)).expect("a mode");
            }
            Thing::Link(target) => {
                let up = "../".repeat(path.matches('/').count());
                symlink(format!("{up}{target}"), &at).expect("linked");
            }
        }
    }
}

#[test]
fn what_is_written_has_no_error() {
    let bases = TempDir::new().expect("a directory");
    LambdaBase::new(Family::Docker).write_layout(&bases.path().join("base"));
    let base = format!("oci:{}:al2023", bases.path().join("base").display());
    let places = prop::sample::select(vec!["", ":data/", ":/opt/lib/", ":/srv/data/", ":/var/task/a/b/"]);
    let trees = prop::collection::vec((prop::collection::vec((path(), thing()), 1..12), places), 1..4);
    let formats = prop::sample::select(vec!["oci", "docker"]);
    let levels = prop::sample::select(vec!["0", "1", "6"]);
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let built = Cell::new(0);
    let outcome = runner.run(&(trees, formats, levels), |(trees, format, level)| {
        let project = TempDir::new().expect("a directory");
        let mut assets = Vec::new();
        for (number, (things, place)) in trees.iter().enumerate() {
            make(&project.path().join(format!("tree{number}")), things);
            assets.push(format!("--asset=tree{number}{place}"));
        }
        let build = Program::build(project.path()).judged().args(["--no-binary", "--name", "image"]);
        // It is the assets that are looked at: nothing starts in a base alone.
        let build = build.args(["--allow", "L055", "--base", &base, "--handler", "app.get", "--format", format]);
        let outcome = build.args(["--compression-level", level]).args(&assets).run();
        if outcome.code != 0 {
            // Two sources of one path, and links that lead out or nowhere, are refused by configuration.
            prop_assert_eq!(outcome.code, 2, "{}", outcome.stderr);
            return Ok(());
        }
        built.set(built.get() + 1);
        let outcome = verify(project.path(), "oci:target/lambda-image/layout:image");
        prop_assert_eq!(findings(&outcome), owned(&["L055 error /var/runtime/bootstrap"]), "{}", outcome.stdout);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(built.get() >= 20, "only {} of 40 trees could be built", built.get());
}
