//! Reads manifests, indexes and configs, wherever they come from, and refuses what could be read in two ways.
//!
//! Pure functions over bytes that were verified already. The strictness is against confusion of manifests with
//! indexes (CVE-2021-41190): a document is one of the two by its fields, its own media type and its header alike.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{BaseLayer, Compression};
use crate::oci::{Descriptor, DiffId, Digest, REF_NAME, media_type};
use crate::platform::Architecture;
use crate::problem::{Exit, Problem, Result};

/// The most entries an index may have.
const MAX_INDEX_ENTRIES: usize = 1000;

/// The most values a config may have; images of a hundred layers have some thousand. A value takes a hundred times the
/// memory of its text, so that the size alone is no bound.
const MAX_CONFIG_VALUES: usize = 20_000;

/// Docker's first format, in its two spellings.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";

/// Media types of headers that say nothing about the document.
const GENERIC_TYPES: [&str; 4] = ["", "application/json", "application/octet-stream", "text/plain"];

/// A verified document that describes images.
#[derive(Debug)]
pub(super) enum Document {
    /// Several images, one a platform, or one a name.
    Index(Vec<Entry>),
    /// One image.
    Manifest(Manifest),
}

/// One image.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    layers: Vec<Entry>,
}

/// A descriptor with all that decides about it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) urls: Option<Vec<String>>,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

/// A manifest or an index, before it is known which.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    schema_version: Option<u32>,
    pub(super) media_type: Option<String>,
    pub(super) manifests: Option<Vec<Entry>>,
    pub(super) config: Option<Entry>,
    pub(super) layers: Option<Vec<Entry>>,
}

impl Entry {
    pub(super) fn descriptor(&self) -> Descriptor {
        Descriptor { media_type: self.media_type.clone(), digest: self.digest, size: self.size }
    }

    /// The name a layout gives this image.
    pub(super) fn name(&self) -> Option<&str> {
        self.annotation(REF_NAME)
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

impl Platform {
    fn shown(&self) -> String {
        let variant = self.variant.iter().flat_map(|variant| ["/", variant.as_str()]);
        [self.os.as_str(), "/", self.architecture.as_str()].into_iter().chain(variant).collect()
    }
}

/// Reads a manifest or index. `content_type` is what the place it came from calls it, if it does; `what` names it.
///
/// # Errors
/// When it is neither, could be both, or is of a form this program does not read.
pub(super) fn parse(bytes: &[u8], content_type: &str, what: &str) -> Result<Document> {
    let refuse = |why: &str| Problem::failed(format!("{what} cannot be used: {why}")).help(REMAKE);
    let raw: Raw =
        serde_json::from_slice(bytes).map_err(|error| refuse("it is not the JSON of a manifest").because(error))?;
    let own = raw.media_type.as_deref().unwrap_or_default();
    if raw.schema_version == Some(1) || own.starts_with(SCHEMA_1) || content_type.starts_with(SCHEMA_1) {
        return Err(refuse("it is in Docker's first manifest format, which registries gave up")
            .help("push the image anew, or `skopeo copy --format oci` it"));
    }
    if raw.schema_version != Some(2) {
        return Err(refuse("its `schemaVersion` is not 2"));
    }
    if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
        return Err(refuse("it could be read as an index and as a manifest"));
    }
    if !own.is_empty() && !GENERIC_TYPES.contains(&content_type) && own != content_type {
        return Err(refuse(&format!("it calls itself `{own}` and was served as `{content_type}`")));
    }
    let media_type = if own.is_empty() { content_type } else { own };
    let is_index = match media_type {
        media_type::OCI_INDEX | media_type::DOCKER_INDEX => true,
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => false,
        other if GENERIC_TYPES.contains(&other) => raw.manifests.is_some(),
        other => return Err(refuse(&format!("`{other}` is not the media type of an image"))),
    };
    match raw {
        Raw { manifests: Some(entries), .. } if is_index && entries.len() <= MAX_INDEX_ENTRIES => {
            Ok(Document::Index(entries))
        }
        Raw { manifests: Some(_), .. } if is_index => Err(refuse("it lists more than 1000 images")),
        Raw { config: Some(config), layers: Some(layers), .. } if !is_index => {
            let config = config.descriptor();
            if !matches!(config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
                let why = format!("its config is of type `{}`: it is no container image", config.media_type);
                return Err(
                    refuse(&why).help("name the image itself: charts, signatures and the like lie beside images")
                );
            }
            Ok(Document::Manifest(Manifest { config, layers }))
        }
        _ => Err(refuse(&format!("it has not the fields of `{media_type}`"))),
    }
}

/// The image of an index that runs on `architecture`.
///
/// # Errors
/// When there is none, listing the platforms there are.
pub(super) fn choose<'a>(entries: &'a [Entry], architecture: Architecture, what: &str) -> Result<&'a Entry> {
    let runs_here = |platform: &Platform| platform.os == "linux" && platform.architecture == architecture.oci();
    // Levels above the first (amd64 v3, arm64 v9) may ask for instructions that Lambda's machines lack.
    let is_plain = |platform: &Platform| matches!(platform.variant.as_deref(), None | Some("" | "v1" | "v8"));
    let candidates = || entries.iter().filter(|entry| entry.platform.as_ref().is_some_and(runs_here));
    candidates().find(|entry| entry.platform.as_ref().is_some_and(is_plain)).or_else(|| candidates().next()).ok_or_else(
        || {
            let platforms = entries.iter().filter_map(|entry| entry.platform.as_ref());
            // What BuildKit calls `unknown/unknown` are attestations, not images.
            let mut shown: Vec<_> =
                platforms.filter(|platform| platform.os != "unknown").map(Platform::shown).collect();
            shown.sort();
            shown.dedup();
            let there = if shown.is_empty() { "none".to_owned() } else { format!("`{}`", shown.join("`, `")) };
            Problem::refused(format!("{what} has no image for `{}`, only for {there}", architecture.platform()))
                .help("build for another platform (`--x86-64`, `--arm64`), or take another base")
        },
    )
}

/// Reads an image config and checks that it is for Lambda's system and for `architecture`.
///
/// # Errors
/// When it is no config, or one for another platform.
pub(super) fn parse_config(bytes: &[u8], architecture: Architecture, what: &str) -> Result<Value> {
    let config = json_config(bytes, what)?;
    let word = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (os, found) = (word("os"), word("architecture"));
    if os != "linux" || found != architecture.oci() {
        return Err(Problem::refused(format!(
            "{what} is for `{os}/{found}`, and `{}` is wanted",
            architecture.platform()
        ))
        .help("build for another platform (`--x86-64`, `--arm64`), or take another base"));
    }
    Ok(config)
}

/// Reads an image config, whatever it says.
///
/// # Errors
/// When it is no JSON object, or one that would take too much memory.
pub(super) fn json_config(bytes: &[u8], what: &str) -> Result<Value> {
    if values_at_most(bytes) > MAX_CONFIG_VALUES {
        let message = format!("the config of {what} has more than {MAX_CONFIG_VALUES} values");
        return Err(Problem::failed(message).help("no real image has so many; take another base"));
    }
    let config = serde_json::from_slice(bytes).ok().filter(Value::is_object);
    config.ok_or_else(|| Problem::failed(format!("the config of {what} is not a JSON object")).help(REMAKE))
}

/// A bound of how many values some JSON has, found without reading them into memory.
fn values_at_most(json: &[u8]) -> usize {
    let (mut is_text, mut is_escaped, mut count) = (false, false, 0);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b',' | b'[' | b'{' if !is_text => count += 1,
            _ => {}
        }
    }
    count + 1
}

/// Each layer costs memory and a look, whoever the image is for, and no image has so many.
const MOST_LAYERS: usize = 1000;

/// That an image has too many layers to be looked at.
///
/// # Errors
/// Of class refused when it has.
pub(super) fn refuse_layers(count: usize, what: &str) -> Result<()> {
    if count <= MOST_LAYERS {
        return Ok(());
    }
    Err(Problem::refused(format!("{what} has more than {MOST_LAYERS} layers"))
        .help("Lambda takes a manifest of some hundred; build it anew with fewer"))
}

/// The way on from an image that contradicts itself.
pub(super) const REMAKE: &str =
    "the tool that made it wrote it wrong, or somebody changed it since: make or fetch it again";

/// The way on from a document that is longer than any real one.
pub(super) const TOO_LONG: &str = "no real image has one so long; take another base";

/// The refusal of indexes without end.
pub(super) fn too_deep(exit: Exit, what: &str) -> Problem {
    Problem::new(exit, format!("{what} is an index of indexes of indexes"))
        .help("name the image for the platform by its digest, or take another")
}

/// The way on from a layer that its registry does not have.
const ELSEWHERE: &str = "take an image whose layers all lie in its own registry";

/// The way on from layers that are not gzip.
const CONVERT: &str = "take an image with gzip layers, or convert it: \
                       `skopeo copy --dest-compress-format gzip SOURCE oci:DIR`";

/// The diff-ids a config lists.
///
/// # Errors
/// When there is no such list.
pub(super) fn diff_ids(config: &Value, what: &str) -> Result<Vec<DiffId>> {
    let listed = config.pointer("/rootfs/diff_ids").cloned().unwrap_or(Value::Array(Vec::new()));
    serde_json::from_value(listed).map_err(|error| {
        Problem::failed(format!("the config of {what} has no proper `rootfs.diff_ids`")).because(error).help(REMAKE)
    })
}

/// The layers of an image, each with what the config says of its contents.
///
/// # Errors
/// When manifest and config disagree, or a layer is of a kind Lambda does not take.
pub(super) fn layers(manifest: &Manifest, config: &Value, what: &str) -> Result<Vec<BaseLayer>> {
    let diff_ids = diff_ids(config, what)?;
    if diff_ids.len() != manifest.layers.len() {
        return Err(Problem::failed(format!(
            "{what} has {} layers, and its config lists {}",
            manifest.layers.len(),
            diff_ids.len()
        ))
        .help(REMAKE));
    }
    let pairs = manifest.layers.iter().zip(diff_ids);
    pairs.map(|(entry, diff_id)| layer(entry, diff_id, what)).collect()
}

fn layer(entry: &Entry, diff_id: DiffId, what: &str) -> Result<BaseLayer> {
    let media_type = entry.media_type.as_str();
    let refuse = |why: &str| Problem::failed(format!("layer {} of {what} {why}", entry.digest)).help(REMAKE);
    let compression = match media_type {
        media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Compression::Gzip,
        media_type::OCI_LAYER_TAR | media_type::DOCKER_LAYER_TAR => Compression::None,
        _ if media_type.contains("zstd") => return Err(zstd(&refuse("is compressed with zstd").to_string())),
        _ if media_type.contains("nondistributable") || media_type.contains("foreign") => {
            return Err(refuse("may not be distributed and lies elsewhere").help(ELSEWHERE));
        }
        _ => return Err(refuse(&format!("is of the unknown type `{media_type}`")).help(CONVERT)),
    };
    // What `urls` point to is somebody else's server: the class of CVE-2020-15157.
    if entry.urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
        return Err(refuse("lies elsewhere, at the `urls` of its descriptor").help(ELSEWHERE));
    }
    if compression == Compression::None && entry.digest != diff_id.0 {
        return Err(refuse(&format!("is uncompressed, and the config calls it {diff_id}")));
    }
    Ok(BaseLayer { descriptor: entry.descriptor(), diff_id, compression, path: None })
}

/// The refusal of zstd, which Lambda does not read.
pub(super) fn zstd(message: &str) -> Problem {
    Problem::refused(format!("{message}, which Lambda does not take")).help(CONVERT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(byte: u8) -> String {
        Digest::from([byte; 32]).to_string()
    }

    fn config() -> Value {
        json!({"mediaType": media_type::OCI_CONFIG, "digest": digest(1), "size": 2})
    }

    fn error(document: &Value, content_type: &str) -> String {
        parse(document.to_string().as_bytes(), content_type, "`x`").expect_err("a refusal").to_string()
    }

    #[test]
    fn a_document_that_can_be_read_in_two_ways_is_refused() {
        let manifests = json!({"schemaVersion": 2, "manifests": []});
        let manifest = json!({"schemaVersion": 2, "config": config(), "layers": []});
        let both = json!({"schemaVersion": 2, "manifests": [], "config": config(), "layers": []});
        let named = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []});
        let misnamed =
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "config": config(), "layers": []});
        for (document, content_type, why) in [
            (&both, media_type::OCI_INDEX, "it could be read as an index and as a manifest"),
            (&both, media_type::OCI_MANIFEST, "it could be read as an index and as a manifest"),
            (
                &named,
                media_type::OCI_MANIFEST,
                "it calls itself `application/vnd.oci.image.index.v1+json` and was served as \
                 `application/vnd.oci.image.manifest.v1+json`",
            ),
            (&misnamed, media_type::OCI_INDEX, "it has not the fields of `application/vnd.oci.image.index.v1+json`"),
            (
                &manifests,
                media_type::DOCKER_MANIFEST,
                "it has not the fields of `application/vnd.docker.distribution.manifest.v2+json`",
            ),
            (
                &manifest,
                media_type::DOCKER_INDEX,
                "it has not the fields of `application/vnd.docker.distribution.manifest.list.v2+json`",
            ),
            (&manifest, "text/html", "`text/html` is not the media type of an image"),
            (&json!({"schemaVersion": 1}), "", "it is in Docker's first manifest format, which registries gave up"),
            (
                &manifest,
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
                "it is in Docker's first manifest format, which registries gave up",
            ),
            (&json!({"schemaVersion": 3}), "", "its `schemaVersion` is not 2"),
            (&json!([]), "", "it is not the JSON of a manifest"),
        ] {
            assert_eq!(error(document, content_type), format!("`x` cannot be used: {why}"));
        }
        for (document, content_type) in
            [(&manifests, ""), (&manifests, media_type::DOCKER_INDEX), (&named, "application/json")]
        {
            let parsed = parse(document.to_string().as_bytes(), content_type, "`x`");
            assert!(matches!(parsed, Ok(Document::Index(_))), "{parsed:?}");
        }
        let parsed = parse(manifest.to_string().as_bytes(), media_type::DOCKER_MANIFEST, "`x`");
        assert!(matches!(parsed, Ok(Document::Manifest(_))), "{parsed:?}");
    }

    #[test]
    fn what_is_no_container_image_is_refused() {
        let helm = json!({"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": digest(1), "size": 2});
        assert_eq!(
            error(&json!({"schemaVersion": 2, "config": helm, "layers": []}), ""),
            "`x` cannot be used: its config is of type `application/vnd.cncf.helm.config.v1+json`: it is no container image"
        );
    }

    fn index(platforms: &[(&str, &str, Option<&str>)]) -> Vec<Entry> {
        let entry = |(at, (os, architecture, variant)): (usize, &(&str, &str, Option<&str>))| Entry {
            media_type: media_type::OCI_MANIFEST.into(),
            digest: Digest::from([u8::try_from(at).expect("a short table"); 32]),
            size: 1,
            urls: None,
            platform: Some(Platform {
                os: (*os).into(),
                architecture: (*architecture).into(),
                variant: variant.map(str::to_owned),
            }),
            annotations: None,
        };
        platforms.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn the_platform_is_chosen_from_an_index() {
        let entries = index(&[
            ("unknown", "unknown", None),
            ("windows", "amd64", None),
            ("linux", "amd64", Some("v3")),
            ("linux", "amd64", None),
            ("linux", "arm64", Some("v8")),
        ]);
        for (architecture, at) in [(Architecture::Amd64, 3), (Architecture::Arm64, 4)] {
            let chosen = choose(&entries, architecture, "`x`").expect("an image");
            assert_eq!(chosen.digest, Digest::from([at; 32]));
        }
        let without = index(&[("unknown", "unknown", None), ("linux", "arm", Some("v7")), ("linux", "amd64", None)]);
        assert_eq!(
            choose(&without, Architecture::Arm64, "`x`").expect_err("no image").message(),
            "`x` has no image for `linux/arm64`, only for `linux/amd64`, `linux/arm/v7`"
        );
    }

    fn refused_layer(media_type: &str, urls: &Value, diff_id: u8) -> Option<String> {
        let layer = json!({"mediaType": media_type, "digest": digest(7), "size": 1, "urls": urls});
        let document = json!({"schemaVersion": 2, "config": config(), "layers": [layer]}).to_string();
        let Ok(Document::Manifest(manifest)) = parse(document.as_bytes(), "", "`x`") else { panic!("no manifest") };
        let config = json!({"rootfs": {"diff_ids": [digest(diff_id)]}});
        layers(&manifest, &config, "`x`").err().map(|problem| problem.message().to_owned())
    }

    #[test]
    fn layers_that_lambda_does_not_take_are_refused() {
        let layer = format!("layer {} of `x`", digest(7));
        for (media_type, urls, diff_id, why) in [
            (media_type::OCI_LAYER_GZIP, json!(null), 8, None),
            (media_type::DOCKER_LAYER_GZIP, json!([]), 8, None),
            (media_type::DOCKER_LAYER_TAR, json!(null), 7, None),
            (
                media_type::OCI_LAYER_TAR,
                json!(null),
                8,
                Some(format!("is uncompressed, and the config calls it {}", digest(8))),
            ),
            (
                media_type::OCI_LAYER_ZSTD,
                json!(null),
                8,
                Some("is compressed with zstd, which Lambda does not take".into()),
            ),
            (
                media_type::OCI_LAYER_GZIP,
                json!(["https://evil.io"]),
                8,
                Some("lies elsewhere, at the `urls` of its descriptor".into()),
            ),
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                json!(null),
                8,
                Some("may not be distributed and lies elsewhere".into()),
            ),
            ("text/plain", json!(null), 8, Some("is of the unknown type `text/plain`".into())),
        ] {
            assert_eq!(refused_layer(media_type, &urls, diff_id), why.map(|why| format!("{layer} {why}")));
        }
    }

    #[test]
    fn values_are_counted_outside_of_texts() {
        for (json, count) in
            [(r#"1"#, 1), (r#"{"a":[1,2],"b":{}}"#, 6), (r#"{"a,,[[{":"\",,"}"#, 2), (r#"["\\",1]"#, 3)]
        {
            assert_eq!(values_at_most(json.as_bytes()), count, "{json}");
        }
    }

    #[test]
    fn a_config_of_too_many_values_is_refused() {
        let config = |count: usize| {
            format!(r#"{{"os":"linux","architecture":"amd64","x":[{}]}}"#, ["0"; 1].repeat(count).join(","))
        };
        parse_config(config(19_900).as_bytes(), Architecture::Amd64, "`x`").expect("many, but not too many");
        let problem = parse_config(config(20_000).as_bytes(), Architecture::Amd64, "`x`").expect_err("too many");
        assert_eq!(problem.message(), "the config of `x` has more than 20000 values");
    }

    #[test]
    fn manifest_and_config_must_agree() {
        let document = json!({"schemaVersion": 2, "config": config(), "layers": []}).to_string();
        let Ok(Document::Manifest(manifest)) = parse(document.as_bytes(), "", "`x`") else { panic!("no manifest") };
        let config = json!({"rootfs": {"diff_ids": [digest(1)]}});
        assert_eq!(
            layers(&manifest, &config, "`x`").expect_err("one too many").message(),
            "`x` has 0 layers, and its config lists 1"
        );
        let config = br#"{"os":"linux","architecture":"arm64","unknown":1}"#;
        assert_eq!(
            parse_config(config, Architecture::Amd64, "`x`").expect_err("another platform").message(),
            "`x` is for `linux/arm64`, and `linux/amd64` is wanted"
        );
        let kept = parse_config(config, Architecture::Arm64, "`x`").expect("a config");
        assert_eq!(kept["unknown"], 1);
    }
}
