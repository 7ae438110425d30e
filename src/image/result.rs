//! The result file `<bin>.json`: what serverless.yml, SAM, CDK and Terraform read of an image.

use super::files::{read, replace};
use crate::event::ImageResult;
use crate::problem::{Problem, Result};
use crate::store::Store;

/// Writes `<store>/<bin>.json` and returns what it says: the outcome of the last push is kept while the digest is the
/// same one, unless `result` is that of a push itself.
///
/// # Errors
/// When the file cannot be written.
pub fn write(store: &Store, result: &ImageResult) -> Result<ImageResult> {
    let path = store.root().join(format!("{}.json", result.bin));
    let old = read(&path).ok().flatten();
    let pushed = old.as_deref().and_then(|bytes| serde_json::from_slice::<ImageResult>(bytes).ok());
    let mut result = result.clone();
    if let Some(pushed) = pushed.filter(|pushed| result.image_uri.is_none() && pushed.digest == result.digest) {
        result.image_uri = pushed.image_uri;
        result.tags = pushed.tags;
        result.functions = pushed.functions;
        (result.sent_bytes, result.reused_bytes) = (pushed.sent_bytes, pushed.reused_bytes);
    }
    let mut bytes = serde_json::to_vec_pretty(&result)
        .map_err(|error| Problem::failed(format!("could not write `{}`", path.display())).because(error))?;
    bytes.push(b'\n');
    if old.as_ref() != Some(&bytes) {
        replace(&path, &bytes, store.temporary_file()?)?;
    }
    Ok(result)
}

/// What `<store>/<bin>.json` says, if it says something.
#[must_use]
pub fn last(store: &Store, bin: &str) -> Option<ImageResult> {
    let bytes = read(&store.root().join(format!("{bin}.json"))).ok().flatten()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::event::LayerResult;
    use crate::image::layout::tests::new_store;
    use crate::oci::{DiffId, Digest};

    #[test]
    fn the_last_push_is_told_while_the_digest_is_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = new_store(directory.path());
        let result = ImageResult {
            schema: 1,
            package: "p".into(),
            bin: "hello".into(),
            digest: Digest::of(b"1"),
            image_uri: Some("host/repo@sha256:1".into()),
            tags: vec!["v1".into()],
            platform: "linux/amd64".into(),
            size: 1,
            uncompressed_size: 2,
            layers: vec![LayerResult {
                name: "models".into(),
                digest: Digest::of(b"2"),
                diff_id: DiffId(Digest::of(b"3")),
                size: 4,
                uncompressed_size: 5,
                media_type: "m".into(),
                reused: false,
            }],
            functions: vec![],
            sent_bytes: Some(6),
            reused_bytes: Some(7),
        };
        write(&store, &result).expect("written");
        let built = ImageResult {
            image_uri: None,
            tags: vec![],
            size: 9,
            sent_bytes: None,
            reused_bytes: None,
            ..result.clone()
        };
        let again = write(&store, &built).expect("written");
        assert_eq!(again, ImageResult { size: 9, ..result });
        let changed = ImageResult { digest: Digest::of(b"4"), ..built };
        assert_eq!(write(&store, &changed).expect("written"), changed);
        let bytes = fs::read(store.root().join("hello.json")).expect("a result");
        assert_eq!(serde_json::from_slice::<ImageResult>(&bytes).expect("JSON"), changed);
    }
}
