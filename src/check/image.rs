//! All that the rules judge of an image: its documents as they are, and what is in its layers.
//!
//! Whoever reads an image fills this in, from the network, a file or the records; the rules never read anything.

use std::sync::Arc;

use serde_json::Value;

use crate::layer::facts::LayerFacts;
use crate::layer::gunzip::GzipFacts;
use crate::oci::{Descriptor, DiffId, Digest};

/// An image as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageFacts {
    /// The image as the user knows it.
    pub shown: String,
    /// The index by which the manifest was found, where the reference means one.
    pub index: Option<IndexFacts>,
    /// The manifest; absent before there is one, and in archives of `docker save`.
    pub manifest: Option<ManifestFacts>,
    /// The config; `Null` if it could not be read.
    pub config: Value,
    /// The layers, lowest first.
    pub layers: Vec<LayerSource>,
    /// The base it was built on, where that is known.
    pub base: Option<BaseFacts>,
}

/// An index that stands where Lambda wants a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFacts {
    /// Its digest.
    pub digest: Digest,
    /// The platforms of the images in it.
    pub platforms: Vec<String>,
    /// How many of its entries are attestations.
    pub attestations: usize,
}

/// What a manifest says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFacts {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size_bytes: u64,
    /// Its own `mediaType`, if it has the field.
    pub media_type: Option<String>,
    /// What the place it came from calls it.
    pub served_as: String,
    /// The media type of its config.
    pub config_media_type: String,
}

/// The base of an image that was built here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseFacts {
    /// Its reference in full.
    pub reference: String,
    /// Whether something, its digest or the lock, keeps it from changing.
    pub pinned: bool,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSource {
    /// A name for people.
    pub name: String,
    /// How the manifest describes it; absent without a manifest.
    pub descriptor: Option<Descriptor>,
    /// Whether the descriptor names other places where the bytes are.
    pub has_urls: bool,
    /// What is in it.
    pub content: Content,
    /// Whether files that look like secrets were allowed or refused when it was packed.
    pub secrets_judged: bool,
}

/// What is known of a layer's inside.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// It was read to its end.
    Read {
        /// The digest of its tar; absent before it is made.
        diff_id: Option<DiffId>,
        /// What is in it.
        facts: Arc<LayerFacts>,
        /// How it is compressed, if it is.
        gzip: Option<GzipFacts>,
    },
    /// It could not be read to its end.
    Damaged {
        /// The reason.
        why: String,
        /// What to do about it, if that is not the same as always.
        help: Option<String>,
    },
    /// Nobody looked, for this reason.
    Unread(String),
}

impl LayerSource {
    /// What is in it, if it was read.
    #[must_use]
    pub fn facts(&self) -> Option<&LayerFacts> {
        match &self.content {
            Content::Read { facts, .. } => Some(facts),
            Content::Damaged { .. } | Content::Unread(_) => None,
        }
    }
}

impl ImageFacts {
    /// The digest of the manifest.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.manifest.as_ref().map(|manifest| manifest.digest)
    }

    /// The platform of the config, such as `linux/amd64`; `unknown` stands for what it does not say.
    #[must_use]
    pub fn platform(&self) -> String {
        let word = |key| Some(self.word(key)).filter(|word| !word.is_empty()).unwrap_or("unknown");
        format!("{}/{}", word("os"), word("architecture"))
    }

    /// Bytes of all tars that were read.
    #[must_use]
    pub fn uncompressed_size(&self) -> u64 {
        self.layers
            .iter()
            .filter_map(LayerSource::facts)
            .fold(0, |sum, facts| sum.saturating_add(facts.uncompressed_size))
    }

    /// A word of the config's top level, empty if it is not there.
    pub(super) fn word(&self, key: &str) -> &str {
        self.config.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// The words of `Entrypoint`, `Cmd` or `Env`.
    pub(super) fn words(&self, key: &str) -> Vec<&str> {
        let words = self.config.pointer("/config").and_then(|config| config.get(key)).and_then(Value::as_array);
        words.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The variables of ENV; of one set twice the last counts.
    pub(super) fn variables(&self) -> Vec<(&str, &str)> {
        self.words("Env").into_iter().map(|entry| entry.split_once('=').unwrap_or((entry, ""))).collect()
    }

    /// The value of a variable of ENV that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        let variables = self.variables();
        variables.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| *value).filter(|value| !value.is_empty())
    }

    /// WORKDIR.
    pub(super) fn working_directory(&self) -> &str {
        let directory = self.config.pointer("/config/WorkingDir").and_then(Value::as_str).unwrap_or_default();
        if directory.is_empty() { "/" } else { directory }
    }
}
