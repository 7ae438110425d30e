//! The forms of the tables in `Cargo.toml` and `lambda-image.toml`: every key there is, those of `push` among them,
//! since one table serves all commands. Reading and checking are done elsewhere.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

/// One table of settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default, expecting = "a table")]
pub(super) struct Table {
    /// The base image's reference.
    pub base: Option<String>,
    /// What to pack.
    pub assets: Option<Vec<AssetTable>>,
    /// CMD.
    pub handler: Option<String>,
    /// ENV.
    pub env: BTreeMap<String, String>,
    /// ENTRYPOINT.
    pub entrypoint: Option<Words>,
    /// WORKDIR.
    pub working_directory: Option<String>,
    /// 0 to 9.
    pub compression_level: Option<u32>,
    /// The family of media types.
    pub format: Option<FormatWord>,
    /// Globs of files that only look like secrets.
    pub allow_secrets: Option<Vec<String>>,
    /// Codes of rules whose findings are errors.
    pub deny: Option<Words>,
    /// Codes of rules whose findings pass.
    pub allow: Option<Words>,
    /// The limit of the project's own, such as `2GB`.
    pub max_size: Option<String>,
    /// The cargo subcommand that compiles.
    pub cargo_build: Option<String>,
    /// Where `push` puts images.
    pub repository: Option<String>,
    /// Whether `push` makes the repository.
    pub create_repository: Option<bool>,
    /// What `push` calls the image.
    pub tags: Option<Vec<String>>,
    /// Functions that `push` updates.
    pub function: Option<Words>,
    /// Whether `push` makes the function.
    pub create_function: Option<bool>,
    /// The role of a function that `push` makes.
    pub role: Option<String>,
    /// Its memory in MB.
    pub memory: Option<u32>,
    /// Its timeout in seconds.
    pub timeout: Option<u32>,
    /// Whether `push` publishes a version.
    pub publish: Option<bool>,
    /// The alias that `push` moves.
    pub alias: Option<String>,
    /// The AWS region.
    pub region: Option<String>,
    /// The profile of AWS's own configuration.
    pub aws_profile: Option<String>,
    /// Another endpoint for AWS's services.
    pub endpoint_url: Option<String>,
    /// Whether plain http is good enough for a registry that is not on this machine.
    pub insecure: Option<bool>,
    /// Settings of single binaries.
    pub bin: BTreeMap<String, Table>,
}

/// An asset as it is written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case", expecting = "a table")]
pub(super) struct AssetTable {
    /// A name for people.
    pub name: Option<String>,
    /// File, directory or glob.
    pub path: String,
    /// Where it goes.
    pub to: Option<String>,
    /// Globs relative to `path`.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Pack what links point to.
    #[serde(default)]
    pub follow_symlinks: bool,
    /// Globs of files that only look like secrets.
    #[serde(default)]
    pub allow_secrets: Vec<String>,
}

/// A family of media types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FormatWord {
    /// OCI's.
    Oci,
    /// Docker's.
    Docker,
}

/// A word or a list of words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words(pub Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By hand, since an untagged enum would lose the place and the reason of an error.
        struct WordsVisitor;
        impl<'de> Visitor<'de> for WordsVisitor {
            type Value = Words;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Words, E> {
                Ok(Words(vec![word.into()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<Words, A::Error> {
                let mut list = Vec::new();
                while let Some(word) = words.next_element()? {
                    list.push(word);
                }
                Ok(Words(list))
            }
        }
        deserializer.deserialize_any(WordsVisitor)
    }
}
