//! What an asset packs, where it goes, and what is refused.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use cargo_lambda_image::layer::entries::Content;
use cargo_lambda_image::layer::walk::{Asset, walk};
use cargo_lambda_image::problem::Exit;

use crate::support::assets::asset;

/// Makes files (`a/b`), directories (`a/`) and links (`a -> b`) below `root`.
fn make(root: &Path, members: &[&str]) {
    for member in members {
        let (path, target) = member.split_once(" -> ").map_or((*member, None), |(path, target)| (path, Some(target)));
        let place = root.join(path);
        fs::create_dir_all(place.parent().expect("a parent")).expect("made");
        match target {
            Some(target) => symlink(target, &place).expect("linked"),
            None if path.ends_with('/') => fs::create_dir_all(&place).expect("made"),
            None => fs::write(&place, path).expect("written"),
        }
    }
}

/// What is packed: directories end in `/`, links show where they point to.
fn packed(asset: &Asset) -> Vec<String> {
    let mut all: Vec<_> = walk(asset)
        .expect("packed")
        .into_iter()
        .map(|entry| match entry.content {
            Content::Directory { .. } => format!("{}/", entry.path.display()),
            Content::File(_) => entry.path.display().to_string(),
            Content::Symlink(target) => format!("{} -> {}", entry.path.display(), target.display()),
        })
        .collect();
    all.sort();
    all
}

#[test]
fn sources_go_where_their_destinations_say() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let project = directory.path().join("project");
    make(
        directory.path(),
        &["project/db.sqlite", "project/data/m/w.bin", "project/data/.dot", "project/[x].txt", "out/f"],
    );
    let outside = directory.path().join("out/f");
    let outside = outside.to_str().expect("UTF-8");
    let table: [(&str, Option<&str>, &[&str]); 23] = [
        ("db.sqlite", None, &["var/task/db.sqlite"]),
        ("./data/../db.sqlite", None, &["var/task/db.sqlite"]),
        ("db.sqlite", Some("x"), &["var/task/x"]),
        ("db.sqlite", Some("x/"), &["var/task/x/db.sqlite"]),
        ("db.sqlite", Some(""), &["var/task/db.sqlite"]),
        ("db.sqlite", Some("."), &["var/task/db.sqlite"]),
        ("db.sqlite", Some("/opt/x"), &["opt/x"]),
        ("db.sqlite", Some("//opt/./x/"), &["opt/x/db.sqlite"]),
        ("db.sqlite", Some("/"), &["db.sqlite"]),
        ("[x].txt", None, &["var/task/[x].txt"]),
        ("data/m/w.bin", None, &["var/task/data/m/w.bin"]),
        ("data/m", None, &["var/task/data/m/", "var/task/data/m/w.bin"]),
        ("data/m/", Some("x"), &["var/task/x/", "var/task/x/w.bin"]),
        ("data/m", Some("/"), &["w.bin"]),
        ("data", Some("x/"), &["var/task/x/", "var/task/x/.dot", "var/task/x/m/", "var/task/x/m/w.bin"]),
        ("../out", None, &["var/task/out/", "var/task/out/f"]),
        ("../out/f", None, &["var/task/f"]),
        (outside, None, &["var/task/f"]),
        ("data/*", None, &["var/task/data/.dot", "var/task/data/m/", "var/task/data/m/w.bin"]),
        ("data/**/*.bin", None, &["var/task/data/m/w.bin"]),
        ("data/{m,n}/w.*", Some("x"), &["var/task/x/m/w.bin"]),
        ("*.sqlite", Some("/opt"), &["opt/db.sqlite"]),
        ("../out/?", None, &["var/task/out/f"]),
    ];
    let mut wrong = Vec::new();
    for (path, to, expected) in table {
        let asset = Asset { to: to.map(str::to_owned), ..asset(&project, path) };
        let found = packed(&asset);
        if found != expected {
            wrong.push(format!("{path} to {to:?}: {found:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn excludes_start_at_the_asset_and_at_a_globs_prefix() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    make(
        directory.path(),
        &["a/keep", "a/x.tmp", "a/b/x.tmp", "a/b/c/", "a/b/d/e", "a/.git/config", "a/gone -> /nowhere"],
    );
    let table: [(&str, &[&str], &[&str]); 5] = [
        ("a", &["*.tmp", ".git", "b/", "gone"], &["a/", "a/keep"]),
        ("a", &["**/*.tmp", "./b/d/", ".git/**", "gone"], &["a/", "a/.git/", "a/b/", "a/b/c/", "a/keep"]),
        ("a/*", &["b/x.tmp", "b/d", ".git", "x.tmp", "gone"], &["a/b/", "a/b/c/", "a/keep"]),
        ("*", &["a/b", "a/.git/config", "a/gone"], &["a/", "a/.git/", "a/keep", "a/x.tmp"]),
        ("a/b", &["c", "x.tmp"], &["a/b/", "a/b/d/", "a/b/d/e"]),
    ];
    for (path, exclude, expected) in table {
        for follow_symlinks in [false, true] {
            let exclude = exclude.iter().map(|&pattern| pattern.to_owned()).collect();
            let found = packed(&Asset { exclude, follow_symlinks, ..asset(directory.path(), path) });
            let expected: Vec<_> = expected.iter().map(|path| format!("var/task/{path}")).collect();
            assert_eq!(found, expected, "{path}, follow {follow_symlinks}");
        }
    }
}

#[test]
fn links_are_kept_within_the_asset_and_followed_on_demand() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let hub =
        ["hub/blobs/0a1b", "hub/snapshots/main/config.json -> ../../blobs/0a1b", "hub/refs/main -> ../snapshots/main"];
    make(directory.path(), &hub);
    make(
        directory.path(),
        &["bin/tool.js", "bin/.bin/tool -> ../tool.js", "bin/dangling -> not/there", "bin/self -> ."],
    );
    assert_eq!(
        packed(&asset(directory.path(), "hub")),
        [
            "var/task/hub/",
            "var/task/hub/blobs/",
            "var/task/hub/blobs/0a1b",
            "var/task/hub/refs/",
            "var/task/hub/refs/main -> ../snapshots/main",
            "var/task/hub/snapshots/",
            "var/task/hub/snapshots/main/",
            "var/task/hub/snapshots/main/config.json -> ../../blobs/0a1b",
        ]
    );
    let follow = |path| Asset { follow_symlinks: true, ..asset(directory.path(), path) };
    let snapshot = ["var/task/hub/snapshots/main/", "var/task/hub/snapshots/main/config.json"];
    assert_eq!(packed(&follow("hub/snapshots/main")), snapshot);
    assert_eq!(packed(&follow("hub/refs/main")), ["var/task/hub/refs/main/", "var/task/hub/refs/main/config.json"]);
    assert_eq!(packed(&follow("hub/refs/*")), ["var/task/hub/refs/main/", "var/task/hub/refs/main/config.json"]);
    assert_eq!(packed(&asset(directory.path(), "bin")).len(), 6, "dangling and circular links are links like others");

    // By its own name an asset is reached only where it keeps that name.
    make(directory.path(), &["named/f", "named/a/x -> ../../named/f"]);
    let to = |to: &str| Asset { to: Some(to.to_owned()), ..asset(directory.path(), "named") };
    for (place, link) in [("named", "var/task/named/a/x"), ("/opt/named/", "opt/named/a/x")] {
        assert!(packed(&to(place)).contains(&format!("{link} -> ../../named/f")), "{place}");
    }
    for (place, lands_at) in [("other", "/var/task/named/f"), (".", "/var/named/f"), ("/", "/named/f")] {
        let problem = walk(&to(place)).expect_err("the link would lead elsewhere");
        assert!(problem.message().ends_with(&format!("`../../named/f` is `{lands_at}` in the image")), "{problem}");
        assert_eq!((problem.exit(), problem.next_step().is_some()), (Exit::Usage, true));
    }
}

#[test]
fn what_must_not_be_packed_is_refused_by_name_with_a_way_on() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path();
    let (parent, absolute) = ("up/x -> ../outside", format!("abs/x -> {}", root.join("abs/y").display()));
    make(
        root,
        &["outside", "f", parent, &absolute, "deep/a/x -> ../../outside", "loop/a/b -> ..", "dang/x -> y", "l -> f"],
    );
    make(root, &["over/a -> b/../../outside", "over/b/", "wh/.wh.f", "wh/g", "secret/.env", "dir/f"]);
    // The text of the target stays inside, its parts lead outside.
    make(root, &["sly/inner -> ../dir", "sly2/inner/", "sly2/x -> inner/f"]);
    fs::remove_dir(root.join("sly2/inner")).expect("removed");
    symlink("../dir", root.join("sly2/inner")).expect("linked");
    fs::create_dir(root.join("odd")).expect("made");
    assert!(Command::new("mkfifo").arg(root.join("odd/pipe")).status().expect("mkfifo").success());
    fs::create_dir(root.join("odd2")).expect("made");
    let _listener = UnixListener::bind(root.join("odd2/socket")).expect("a socket");
    let to = |path: &str, to: &str| Asset { to: Some(to.to_owned()), ..asset(root, path) };
    let with = |path: &str, exclude: &str| Asset { exclude: vec![exclude.into()], ..asset(root, path) };
    let follow = |path: &str| Asset { follow_symlinks: true, ..asset(root, path) };
    let plain = |path: &str| asset(root, path);
    let table = [
        (plain("missing"), Exit::Usage, "no such asset `missing`"),
        (plain("missing/*.bin"), Exit::Usage, "no such asset `missing/*.bin`"),
        (plain("dir/*.bin"), Exit::Usage, "asset `dir/*.bin` matches nothing"),
        (plain("f/below"), Exit::Usage, "no such asset `f/below`"),
        (plain("nul\0"), Exit::Usage, "no such asset `nul"),
        (plain("dir/{a"), Exit::Usage, "malformed pattern in `path`"),
        (with("dir", "[a"), Exit::Usage, "malformed pattern in `exclude`"),
        (plain("l"), Exit::Usage, "asset `l` is a symlink"),
        (plain("up"), Exit::Usage, "up/x` leaves the asset"),
        (plain("abs"), Exit::Usage, "abs/x` leaves the asset"),
        (plain("deep/a"), Exit::Usage, "a/x` leaves the asset"),
        (plain("over"), Exit::Usage, "over/a` leaves the asset"),
        (plain("sly"), Exit::Usage, "sly/inner` leaves the asset"),
        (with("sly2", "inner"), Exit::Usage, "sly2/x` leaves the asset"),
        (follow("loop"), Exit::Usage, "loop/a/b` leads back to"),
        (follow("dang"), Exit::Usage, "dang/x` points to nothing"),
        (plain("odd"), Exit::Usage, "odd/pipe` is a FIFO"),
        (plain("odd/pipe"), Exit::Usage, "odd/pipe` is a FIFO"),
        (plain("odd2"), Exit::Usage, "odd2/socket` is a socket"),
        (to("/dev/null", "x"), Exit::Usage, "`/dev/null` is a device"),
        (plain("wh"), Exit::Usage, "wh/.wh.f` would be taken for a whiteout"),
        (to("f", ".wh.f"), Exit::Usage, "has a whiteout"),
        (to("f", "/opt/.wh.d/f"), Exit::Usage, "has a whiteout"),
        (to("dir", "../x"), Exit::Usage, "has a `..`"),
        (to("dir", "/opt/../../x"), Exit::Usage, "has a `..`"),
        (to("f", "a\0b"), Exit::Usage, "has a NUL"),
        (to("f", "/var/task"), Exit::Usage, "would replace `/var/task`"),
        (to("f", "/opt"), Exit::Usage, "would replace `/opt`"),
        (plain("secret"), Exit::Refused, "secret/.env` looks like a secret"),
        (to("secret/.env", "settings"), Exit::Refused, "secret/.env` looks like a secret"),
        (to("f", ".env"), Exit::Refused, "looks like a secret"),
    ];
    let mut wrong = Vec::new();
    for (asset, exit, expected) in table {
        let shown = (asset.path.clone(), asset.to.clone());
        match walk(&asset) {
            Ok(entries) => wrong.push(format!("{shown:?} was packed: {entries:?}")),
            Err(problem) => {
                let told = problem.message().contains(expected) && problem.exit() == exit;
                if !told || problem.next_step().is_none() {
                    wrong.push(format!("{shown:?}: {problem:?}, not {expected}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn modes_are_settled_and_names_are_bytes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().join("a");
    fs::create_dir(&root).expect("made");
    let modes = [(0o600, 0o644), (0o666, 0o644), (0o4755, 0o755), (0o100, 0o755), (0o011, 0o644)];
    for (mode, _) in modes {
        let path = root.join(format!("{mode:o}"));
        fs::write(&path, b"").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("permissions");
    }
    let odd = OsStr::from_bytes(b"new\nline \xff");
    fs::write(root.join(odd), b"").expect("written");
    fs::create_dir(root.join("private")).expect("made");
    fs::set_permissions(root.join("private"), Permissions::from_mode(0o700)).expect("permissions");
    let entries = walk(&asset(directory.path(), "a")).expect("packed");
    let found: BTreeMap<_, _> =
        entries.iter().map(|entry| (entry.path.file_name().expect("a name").to_owned(), entry.mode())).collect();
    for (mode, expected) in modes {
        assert_eq!(found.get(OsStr::new(&format!("{mode:o}"))), Some(&expected), "{mode:o}");
    }
    assert_eq!((found.get(odd), found.get(OsStr::new("private"))), (Some(&0o644), Some(&0o755)));
}
