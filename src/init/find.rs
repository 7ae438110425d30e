//! Finds data in a project that a function probably wants beside it: databases, models, indexes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::cargo_lambda::Known;

/// Names of files that hold data and nothing else.
const EXTENSIONS: [&str; 29] = [
    "arrow",
    "bin",
    "cbor",
    "csv",
    "db",
    "duckdb",
    "engine",
    "f32",
    "faiss",
    "fst",
    "gguf",
    "h5",
    "joblib",
    "mmdb",
    "model",
    "npy",
    "npz",
    "onnx",
    "parquet",
    "pb",
    "pkl",
    "pt",
    "pth",
    "safetensors",
    "sqlite",
    "sqlite3",
    "tflite",
    "tsv",
    "usearch",
];

/// Smaller ones are samples and tables, which code often brings itself (`include_bytes!`).
const DATA_BYTES: u64 = 64 << 10;

/// From here on a file is data whatever it is called: neither source nor text weigh as much.
const LARGE_BYTES: u64 = 16 << 20;

/// Directories of what no function needs when it runs.
const PASSED_OVER: [&str; 8] = ["benches", "dist", "docs", "examples", "node_modules", "src", "testdata", "tests"];

/// After so many files a proposal is late enough.
const MOST_ENTRIES: usize = 200_000;

/// Data that belongs together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// A file or a directory, relative to the project.
    pub path: PathBuf,
    /// How many files of data there are in it.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// The data in `directory` that cargo-lambda's includes do not cover, by path: files that lie in it by themselves, and
/// otherwise the innermost directories that hold all there is below one of its own. What cannot be listed is not found.
pub fn data(directory: &Path, target: &Path, known: &Known) -> Vec<Data> {
    let mut found: BTreeMap<PathBuf, Data> = BTreeMap::new();
    let walker = WalkDir::new(directory).min_depth(1).sort_by_file_name().into_iter();
    let walker = walker.filter_entry(|entry| is_looked_at(entry, target)).take(MOST_ENTRIES);
    for entry in walker.flatten().filter(|entry| entry.file_type().is_file()) {
        let Ok(below) = entry.path().strip_prefix(directory) else { continue };
        let Some(bytes) = entry.metadata().ok().map(|metadata| metadata.len()).filter(|bytes| is_data(below, *bytes))
        else {
            continue;
        };
        let first = PathBuf::from(below.iter().next().unwrap_or_default());
        let place = if entry.depth() == 1 { below } else { below.parent().unwrap_or(below) };
        found
            .entry(first)
            .and_modify(|data| {
                data.path = common(&data.path, place);
                data.files += 1;
                data.bytes += bytes;
            })
            .or_insert_with(|| Data { path: place.to_owned(), files: 1, bytes });
    }
    let is_included = |data: &Data| {
        let includes = known.includes.iter().map(|(path, _)| Path::new(path.trim_start_matches("./")));
        includes.into_iter().any(|path| data.path.starts_with(path) || path.starts_with(&data.path))
    };
    found.into_values().filter(|data| !is_included(data)).collect()
}

fn is_looked_at(entry: &DirEntry, target: &Path) -> bool {
    let name = entry.file_name().to_string_lossy();
    if name.starts_with('.') {
        return false;
    }
    // A directory with a manifest is another package; one with the tag is a cache, such as Cargo's own.
    let is_other = || ["Cargo.toml", "CACHEDIR.TAG"].iter().any(|file| entry.path().join(file).exists());
    !entry.file_type().is_dir() || !(PASSED_OVER.contains(&&*name) || entry.path() == target || is_other())
}

fn is_data(path: &Path, bytes: u64) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    let by_name = extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()));
    bytes >= LARGE_BYTES || (by_name && bytes >= DATA_BYTES)
}

fn common(one: &Path, other: &Path) -> PathBuf {
    one.ancestors().find(|ancestor| other.starts_with(ancestor)).unwrap_or(Path::new("")).to_owned()
}
