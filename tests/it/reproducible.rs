//! The same project gives the same digests, wherever, whenever and however it is built.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use cargo_lambda_image::oci::Digest;

use crate::support::assets::{noise, text};
use crate::support::project::{AMD64, Project, files_below};

const FILES: [&str; 6] = ["a.txt", "big.bin", "rows.txt", "run.sh", "sub/.hidden", "sub/z"];

fn content(file: &str) -> Vec<u8> {
    match file {
        "big.bin" => noise(7, 3_000_000),
        "rows.txt" => text(4_000_000),
        _ => file.as_bytes().to_vec(),
    }
}

/// All that must not matter.
struct World {
    place: &'static str,
    umask: u32,
    backwards: bool,
    /// The modification time of all files, in seconds since 1970.
    modified: u64,
    uid: u32,
    zone: &'static str,
    jobs: &'static str,
}

fn project(world: &World) -> Project {
    let own = "base = \"scratch\"\nassets = [{ path = \"data\" }]\nenv = { B = \"2\", A = \"1\" }\n";
    let project = Project::within(world.place, &[("lambda-image.toml", own)]);
    let mut files = FILES.to_vec();
    if world.backwards {
        files.reverse();
    }
    for file in &files {
        project.write(&format!("data/{file}"), content(file));
    }
    fs::create_dir(project.path("data/empty")).expect("made");
    symlink("sub/z", project.path("data/link")).expect("linked");
    project.write_program("tool", AMD64);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(world.modified);
    let programs = ["data/run.sh", "tool"];
    let paths = FILES.map(|file| format!("data/{file}"));
    for path in paths.iter().map(String::as_str).chain(["tool", "data", "data/sub", "data/empty"]) {
        let path_on_disk = project.path(path);
        let mode = if programs.contains(&path) || path_on_disk.is_dir() { 0o777 } else { 0o666 };
        File::open(&path_on_disk).expect("opened").set_modified(time).expect("a time");
        if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
            chown(&path_on_disk, Some(world.uid), Some(world.uid)).expect("owned");
        }
        fs::set_permissions(&path_on_disk, Permissions::from_mode(mode & !world.umask)).expect("permissions");
    }
    project
}

/// The layout that `world` comes to.
fn layout(world: &World, variables: &[(&str, &str)]) -> BTreeMap<std::path::PathBuf, Digest> {
    let project = project(world);
    let mut build = project.build().args(["--binary-path", "tool", "--name", "tool", "-j", world.jobs]);
    for (name, value) in variables {
        build = build.env(name, *value);
    }
    let umask = format!("umask {:03o}; exec \"$@\"", world.umask);
    let digests = build.env("TZ", world.zone).under("sh", ["-c", &umask, "sh"]).succeed();
    assert_eq!(digests.len(), 1);
    files_below(&project.layout())
}

const HERE: World =
    World { place: "here", umask: 0o022, backwards: false, modified: 1_000_000_000, uid: 0, zone: "UTC", jobs: "1" };

#[test]
fn nothing_but_the_input_matters() {
    let expected = layout(&HERE, &[]);
    assert_eq!(expected.len(), 6, "two layers, config, manifest, index and marker: {expected:?}");
    let there = World {
        place: "some/other place/ü",
        umask: 0o077,
        backwards: true,
        modified: 1_700_000_000,
        uid: 1234,
        zone: "Pacific/Kiritimati",
        jobs: "7",
    };
    let variables = [("LANG", "tr_TR.UTF-8"), ("LC_ALL", "tr_TR.UTF-8"), ("USER", "x"), ("HOSTNAME", "y")];
    assert_eq!(layout(&there, &variables), expected);
    let many = World { jobs: "100000", umask: 0o000, ..HERE };
    assert_eq!(layout(&many, &[]), expected);
}

#[test]
fn a_source_date_moves_the_config_and_no_layer() {
    let plain = layout(&HERE, &[]);
    let dated = layout(&HERE, &[("SOURCE_DATE_EPOCH", "1700000000")]);
    let blobs = |files: &BTreeMap<std::path::PathBuf, Digest>| {
        files.keys().filter(|path| path.starts_with("blobs")).cloned().collect::<std::collections::BTreeSet<_>>()
    };
    let (plain_blobs, dated_blobs) = (blobs(&plain), blobs(&dated));
    assert_eq!(plain_blobs.intersection(&dated_blobs).count(), 2, "both layers");
    assert_eq!(plain_blobs.difference(&dated_blobs).count(), 2, "config and manifest");
    assert_ne!(plain[Path::new("index.json")], dated[Path::new("index.json")]);
    assert_eq!(layout(&World { zone: "Asia/Tokyo", ..HERE }, &[("SOURCE_DATE_EPOCH", "1700000000")]), dated);
}

#[test]
fn one_bit_of_one_file_matters() {
    let build = |project: &Project| {
        let digests = project.build().args(["--binary-path", "tool", "--name", "tool"]).succeed();
        (digests, project.result("tool")["layers"].clone())
    };
    let project = project(&HERE);
    let (first, first_layers) = build(&project);
    let mut rows = content("rows.txt");
    rows[3_999_999] ^= 1;
    project.write("data/rows.txt", rows);
    let (second, second_layers) = build(&project);
    assert_ne!(first, second);
    assert_ne!(first_layers[0]["diff_id"], second_layers[0]["diff_id"]);
    assert_eq!(first_layers[1], second_layers[1], "the binary's layer is the same");
}
