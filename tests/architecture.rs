//! Keeps the floors of the house: reads every `crate::` path in `src/` and fails on an import that looks up, or
//! sideways where that is not listed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Floor of each room, and the rooms of its own floor that it may use.
fn rooms() -> BTreeMap<&'static str, (u8, &'static [&'static str])> {
    BTreeMap::from([
        ("main", (6, &[] as &[_])),
        ("report", (5, &[])),
        ("commands", (4, &["config", "cli"])),
        ("config", (4, &["cli"])),
        ("cli", (4, &[])),
        ("base", (3, &[])),
        ("deploy", (3, &[])),
        ("publish", (3, &[])),
        ("aws", (2, &[])),
        ("registry", (2, &[])),
        ("check", (1, &["image", "layer", "store"])),
        ("image", (1, &["layer", "store"])),
        ("layer", (1, &["store"])),
        ("store", (1, &[])),
        ("lock", (1, &[])),
        ("cargo", (1, &[])),
        ("init", (1, &[])),
        ("atomic", (0, &[])),
        ("oci", (0, &[])),
        ("platform", (0, &[])),
        ("event", (0, &["finding", "oci", "problem"])),
        ("finding", (0, &["oci"])),
        ("problem", (0, &[])),
        ("units", (0, &[])),
    ])
}

/// What bridges must not know of the floors below them: images go to any registry, functions only to what AWS keeps.
const NOT_IN_BRIDGES: [(&str, &[&str]); 3] =
    [("base", &["aws"]), ("publish", &["aws"]), ("deploy", &["registry", "check", "image", "layer", "store", "cargo"])];

/// Words that must not occur in the engines and below.
const NOT_IN_ENGINES: [&str; 7] = ["tokio", "reqwest", "clap", "std::env", "anstream", "indicatif", "aws_"];

fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("src can be listed") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn room_of(path: &Path, source: &Path) -> String {
    let relative = path.strip_prefix(source).expect("a file below src");
    let first = relative.iter().next().expect("a first part").to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn imports_look_down_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    let rooms = rooms();
    let mut broken = Vec::new();
    for file in &files {
        let room = room_of(file, &source);
        if room == "lib" {
            continue;
        }
        let (floor, beside) =
            rooms.get(room.as_str()).unwrap_or_else(|| panic!("`{room}` has no floor: add it to this test"));
        let text = fs::read_to_string(file).expect("a source file is UTF-8");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (_, rest) in code.match_indices("crate::").map(|(at, word)| (at, &code[at + word.len()..])) {
                let other: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let Some((other_floor, _)) = rooms.get(other.as_str()) else { continue };
                let allowed = other == room || other_floor < floor || beside.contains(&other.as_str());
                // The surface prints facts; it must not know the engines that tell them.
                let blind = room == "report"
                    && !["atomic", "event", "finding", "oci", "platform", "problem", "units"].contains(&other.as_str())
                    && other != room;
                let crossed =
                    NOT_IN_BRIDGES.iter().any(|(bridge, not)| room == *bridge && not.contains(&other.as_str()));
                if !allowed || blind || crossed {
                    broken.push(format!("{}:{}: `{room}` uses `{other}`", file.display(), number + 1));
                }
            }
            if *floor <= 1 {
                for word in NOT_IN_ENGINES {
                    if code.contains(word) {
                        broken.push(format!("{}:{}: engines know nothing of `{word}`", file.display(), number + 1));
                    }
                }
            }
        }
    }
    assert!(broken.is_empty(), "imports that do not look down:\n{}", broken.join("\n"));
}

#[test]
fn every_room_opens_with_a_header() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    let bare: Vec<_> =
        files.iter().filter(|file| !fs::read_to_string(file).is_ok_and(|text| text.starts_with("//!"))).collect();
    assert!(bare.is_empty(), "files without a header: {bare:?}");
}

#[test]
fn what_compresses_is_pinned_as_the_format_is() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest: toml::Table = fs::read_to_string(manifest).expect("the manifest").parse().expect("TOML");
    for name in ["flate2", "zlib-rs"] {
        let version = manifest["dependencies"][name]["version"].as_str().expect("a version");
        assert!(version.starts_with('='), "`{name}` may become another by itself: {version}");
    }
}
