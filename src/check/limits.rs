//! The size of an image against Lambda's limit, with what to cut when it is over.

use std::fmt::Write as _;

use crate::layer::facts::{EntryKind, LayerFacts};
use crate::problem::{Problem, Result};
use crate::units;

/// What Lambda takes: bytes of uncompressed tar over all layers, 10 GiB (Lambda quotas, container image size).
pub const MAX_UNCOMPRESSED_BYTES: u64 = 10_737_418_240;

/// How many of the largest files a refusal lists.
const LISTED_FILES: usize = 10;

/// One layer as this check sees it, before or after its bytes are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSize {
    /// A name for people.
    pub name: String,
    /// Bytes of the tar.
    pub uncompressed_size: u64,
    /// Its largest files, path and bytes; as many as are known.
    pub files: Vec<(String, u64)>,
}

impl LayerSize {
    /// A layer whose facts are known.
    #[must_use]
    pub fn of(name: &str, facts: &LayerFacts) -> Self {
        let files = facts.entries.iter().filter(|entry| entry.kind == EntryKind::File);
        let files = largest(files.map(|entry| (entry.path.clone(), entry.size)).collect());
        Self { name: name.to_owned(), uncompressed_size: facts.uncompressed_size, files }
    }
}

/// Whether the layers are within the limit together.
///
/// # Errors
/// Of class refused, with a table of the layers and the ten largest files.
pub fn total(layers: &[LayerSize]) -> Result<()> {
    let total: u64 = layers.iter().map(|layer| layer.uncompressed_size).fold(0, u64::saturating_add);
    if total <= MAX_UNCOMPRESSED_BYTES {
        return Ok(());
    }
    let message = format!("{}{}", over(total, MAX_UNCOMPRESSED_BYTES), tables(layers));
    Err(Problem::refused(message)
        .help("leave files out with `exclude`, or load what is seldom needed from S3 or EFS at run time"))
}

/// That `total` bytes are more than `limit`.
pub(super) fn over(total: u64, limit: u64) -> String {
    format!(
        "the image has {total} bytes ({}) of uncompressed layers, and {} takes at most {limit} ({}): {} bytes too many",
        units::size(total),
        if limit == MAX_UNCOMPRESSED_BYTES { "Lambda" } else { "the project" },
        units::size(limit),
        total.saturating_sub(limit),
    )
}

/// The layers in order and the largest files of all.
pub(super) fn tables(layers: &[LayerSize]) -> String {
    let mut text = String::new();
    table(&mut text, "layers", layers.iter().map(|layer| (layer.name.clone(), layer.uncompressed_size)).collect());
    table(&mut text, "largest files", largest(layers.iter().flat_map(|layer| layer.files.clone()).collect()));
    text
}

/// The largest files, sorted by size and then by path.
fn largest(mut files: Vec<(String, u64)>) -> Vec<(String, u64)> {
    files.sort_by(|(path, size), (other_path, other_size)| other_size.cmp(size).then_with(|| path.cmp(other_path)));
    files.truncate(LISTED_FILES);
    files
}

fn table(message: &mut String, title: &str, rows: Vec<(String, u64)>) {
    if rows.is_empty() {
        return;
    }
    // Writing to a string cannot fail.
    let _ = write!(message, "\n\n  {title}:");
    for (name, size) in rows {
        let _ = write!(message, "\n  {:>12}  {name}", units::size(size));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::facts::EntryFacts;
    use crate::problem::Exit;

    fn layer(name: &str, uncompressed_size: u64, files: &[(&str, u64)]) -> LayerSize {
        let files = files.iter().map(|(path, size)| ((*path).to_owned(), *size)).collect();
        LayerSize { name: name.to_owned(), uncompressed_size, files }
    }

    #[test]
    fn exactly_ten_gib_pass_and_a_byte_more_does_not() {
        let base = layer("base", 737_418_240, &[]);
        assert!(total(&[base.clone(), layer("models", 10_000_000_000, &[])]).is_ok());
        let problem = total(&[base, layer("models", 10_000_000_001, &[])]).expect_err("refused");
        assert_eq!(problem.exit(), Exit::Refused);
        assert!(total(&[layer("a", u64::MAX, &[]), layer("b", u64::MAX, &[])]).is_err());
    }

    #[test]
    fn a_refusal_lists_layers_in_order_and_files_by_size() {
        let gib = 1 << 30;
        let layers = [
            layer("base", gib / 10, &[("usr/lib/libc.so.6", 2_000_000)]),
            layer("models", 11 * gib, &[("var/task/models/a.bin", 5 * gib), ("var/task/models/b.bin", 6 * gib)]),
        ];
        assert_eq!(
            total(&layers).expect_err("refused").message(),
            "the image has 11918534246 bytes (11.0 GiB) of uncompressed layers, and Lambda takes at most 10737418240 \
             (10.0 GiB): 1181116006 bytes too many\n\
             \n  layers:\
             \n     102.3 MiB  base\
             \n      11.0 GiB  models\n\
             \n  largest files:\
             \n       6.0 GiB  var/task/models/b.bin\
             \n       5.0 GiB  var/task/models/a.bin\
             \n       1.9 MiB  usr/lib/libc.so.6"
        );
    }

    #[test]
    fn ten_files_of_all_layers_are_enough() {
        let entry = |number: u64, kind: EntryKind| EntryFacts {
            path: format!("f{number:02}"),
            kind,
            mode: 0o644,
            size: number,
            link: None,
            written: None,
        };
        let mut entries: Vec<_> = (0..12).map(|number| entry(number, EntryKind::File)).collect();
        entries.push(entry(99, EntryKind::Hardlink));
        let facts = LayerFacts { uncompressed_size: MAX_UNCOMPRESSED_BYTES, entries, ..LayerFacts::default() };
        let one = LayerSize::of("one", &facts);
        assert_eq!(one.files.len(), 10);
        assert_eq!(one.files[0], ("f11".to_owned(), 11));
        let problem = total(&[one.clone(), one]).expect_err("refused");
        let files = problem.message().split("largest files:\n").nth(1).expect("a list").lines();
        assert_eq!(
            files.collect::<Vec<_>>()[..3],
            ["          11 B  f11", "          11 B  f11", "          10 B  f10"]
        );
    }
}
