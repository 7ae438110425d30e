//! The `index.json` of an OCI layout: which images are in it and by which names.
//!
//! Kept as JSON, since entries that others wrote must survive in every detail (image-spec, image-layout.md).

use serde_json::{Map, Value, json};

use super::Image;
use crate::oci::{Digest, REF_NAME, media_type};

/// The file that marks a directory as an OCI layout, and its content.
pub(super) const LAYOUT_FILE: (&str, &[u8]) = ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
/// The file that names the images.
pub(super) const INDEX_FILE: &str = "index.json";

/// An index of images by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    /// Everything but the entries.
    fields: Map<String, Value>,
    entries: Vec<Value>,
}

impl Index {
    /// An index without images.
    pub(super) fn new() -> Self {
        let fields = [("schemaVersion", json!(2)), ("mediaType", json!(media_type::OCI_INDEX))];
        Self { fields: fields.map(|(key, value)| (key.to_owned(), value)).into_iter().collect(), entries: Vec::new() }
    }

    /// The index that `bytes` hold; nothing when they are no index.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let Value::Object(mut fields) = serde_json::from_slice(bytes).ok()? else { return None };
        let Some(Value::Array(entries)) = fields.remove("manifests") else { return None };
        entries.iter().all(|entry| digest_of(entry).is_some()).then_some(Self { fields, entries })
    }

    /// Puts `image` in the place of the image called `name`. Entries are sorted by name, so that the order of builds
    /// leaves no trace.
    pub(super) fn put(&mut self, name: &str, image: &Image) {
        let descriptor = &image.manifest_descriptor;
        let entry = json!({
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
            "annotations": {REF_NAME: name},
            "platform": {"architecture": image.architecture.oci(), "os": "linux"},
        });
        self.entries.retain(|entry| name_of(entry) != Some(name));
        self.entries.push(entry);
        self.entries.sort_by(|one, other| name_of(one).cmp(&name_of(other)));
    }

    /// The digests of the images' manifests.
    pub(super) fn manifests(&self) -> impl Iterator<Item = Digest> {
        self.entries.iter().filter_map(digest_of)
    }

    /// The index as it is written.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut fields = self.fields.clone();
        fields.insert("manifests".to_owned(), Value::Array(self.entries.clone()));
        Value::Object(fields).to_string().into_bytes()
    }
}

fn name_of(entry: &Value) -> Option<&str> {
    entry["annotations"][REF_NAME].as_str()
}

/// The digest of a descriptor in JSON.
pub(super) fn digest_of(descriptor: &Value) -> Option<Digest> {
    descriptor["digest"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::MediaTypes;
    use crate::image::config::tests::image;
    use crate::image::placement::Placement;

    fn some_image(cmd: &str) -> Image {
        let placement = Placement { cmd: vec![cmd.to_owned()], ..Placement::default() };
        image(&Value::Null, &placement, MediaTypes::Oci).expect("composed")
    }

    #[test]
    fn an_image_takes_the_place_of_its_name_only() {
        let (one, two) = (some_image("one"), some_image("two"));
        let mut index = Index::new();
        index.put("b", &one);
        index.put("a", &one);
        index.put("b", &two);
        assert_eq!(index.manifests().collect::<Vec<_>>(), [one.digest(), two.digest()]);
        let mut other_order = Index::new();
        other_order.put("b", &two);
        other_order.put("a", &one);
        assert_eq!(index.to_bytes(), other_order.to_bytes());
    }

    #[test]
    fn what_others_wrote_survives() {
        let digest = Digest::of(b"x");
        let foreign = json!({
            "schemaVersion": 2, "annotations": {"a": "b"},
            "manifests": [{"digest": digest, "mediaType": "m", "size": 3, "extra": [1], "annotations": {"c": "d"}}],
        });
        let mut index = Index::parse(foreign.to_string().as_bytes()).expect("an index");
        index.put("mine", &some_image("one"));
        let written: Value = serde_json::from_slice(&index.to_bytes()).expect("JSON");
        assert_eq!(written["annotations"], foreign["annotations"]);
        assert_eq!(written["manifests"][0], foreign["manifests"][0]);
        assert_eq!(name_of(&written["manifests"][1]), Some("mine"));
    }

    #[test]
    fn another_reader_understands_the_index() {
        let image = some_image("one");
        let mut index = Index::new();
        index.put("hello", &image);
        let index = oci_spec::image::ImageIndex::from_reader(&index.to_bytes()[..]).expect("an index");
        let entry = &index.manifests()[0];
        assert_eq!(entry.digest().to_string(), image.digest().to_string());
        assert_eq!(entry.platform().as_ref().expect("a platform").architecture().to_string(), "amd64");
    }

    #[test]
    fn damaged_bytes_are_no_index() {
        let no_digest = br#"{"schemaVersion":2,"manifests":[{"digest":"sha256:../x"}]}"#;
        for bytes in [&b""[..], b"{", b"[]", b"{}", br#"{"manifests":{}}"#, no_digest] {
            assert_eq!(Index::parse(bytes), None, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
