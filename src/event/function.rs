//! Facts about functions that are brought to an image: what is planned, what is done, what it ended with.

use serde::{Deserialize, Serialize};

use crate::oci::Digest;

/// One of the changes that bring a function to an image, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FunctionStep {
    /// The function is made.
    Create,
    /// It gets the image.
    Code,
    /// A version is made of it.
    Publish,
    /// The alias is made or moved.
    Alias,
}

/// How a function is, as far as an image concerns it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionFacts {
    /// The digest of its image.
    pub digest: Option<Digest>,
    /// The version that is like it.
    pub version: Option<String>,
    /// The version that the alias points to.
    pub alias_version: Option<String>,
}

/// What has to be done to a function, before it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionPlan {
    /// The function's name.
    pub name: String,
    /// The alias that is to point to it.
    pub alias: Option<String>,
    /// How it is; nothing but absent values for one that is to be made.
    pub current: FunctionFacts,
    /// How it is to be. Versions that are not made yet have no number, digests of images that are not made yet are
    /// absent.
    pub next: FunctionFacts,
    /// What has to be done; nothing if all is as asked.
    pub steps: Vec<FunctionStep>,
}

/// What was done to a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployedFunction {
    /// The function's name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// `HOST/REPOSITORY@sha256:...` of the image it runs.
    pub image_uri: String,
    /// The version, if one was asked for.
    pub version: Option<String>,
    /// The alias that points to the version, if one was asked for.
    pub alias: Option<String>,
    /// What was done; nothing if all was as asked.
    pub steps: Vec<FunctionStep>,
}
