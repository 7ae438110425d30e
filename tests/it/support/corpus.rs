//! One broken image a rule as a file in `testdata/corpus`, for whoever wants to see what a rule says, and so that what
//! was refused once stays refused. `testdata/corpus/make` takes them from the tests that make them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::project::files_below;

/// Larger ones, such as those with a whole C library, are not kept.
const MOST_BYTES: u64 = 64 << 10;

pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/corpus")
}

/// When asked to by the environment, keeps the image of a layout, unless there is one for its first finding already.
pub fn keep(layout: &Path, findings: &[impl AsRef<str>]) {
    if std::env::var_os("UPDATE_CORPUS").is_none() {
        return;
    }
    let name = findings.first().map_or("good", |finding| finding.as_ref().split(' ').next().expect("a code"));
    let path = directory().join(format!("{name}.tar"));
    let files = files_below(layout);
    let size = |path: &PathBuf| fs::metadata(layout.join(path)).expect("there").len();
    if path.exists() || files.keys().map(size).sum::<u64>() > MOST_BYTES {
        return;
    }
    let mut tar = tar::Builder::new(File::create(path).expect("created"));
    for file in files.keys() {
        let bytes = fs::read(layout.join(file)).expect("read");
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_mtime(1);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, file, bytes.as_slice()).expect("written");
    }
    tar.finish().expect("written");
    let mut table = File::options().create(true).append(true).open(directory().join("expected.txt")).expect("opened");
    let line = [name].into_iter().chain(findings.iter().map(AsRef::as_ref)).collect::<Vec<_>>().join("\t");
    writeln!(table, "{line}").expect("written");
}
