//! Functions brought to an image: code, version and alias are three facts, each compared and brought where it was asked
//! to be, the alias last.
//!
//! - [`name`]: what functions are called;
//! - [`check`]: what would stop a deployment, found before slow work;
//! - [`plan`]: what has to be done, for `--dry-run`;
//! - `pass`: one look at a function, and each change that it still needs;
//! - `rest`: waiting until Lambda is done with the last change, and between tries;
//! - [`policy`]: what a caller must be allowed.
//!
//! Every pass begins with what is there, so it does not matter who made it so: a rerun after a crash, a conflict or a
//! race goes the same way as the first run, and one with nothing to do only reads.
//!
//! It stands to Lambda as `publish` stands to registries, hence it knows that wire and its words, but neither images
//! nor registries' protocol, nor who asked for all this.

pub mod check;
pub mod name;
mod pass;
pub mod plan;
pub mod policy;
mod rest;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;

use self::name::FunctionName;
use self::pass::{Stop, Work};
use self::rest::Tries;
use crate::aws::lambda::Lambda;
use crate::event::function::DeployedFunction;
use crate::event::{Event, FunctionResult, Session};
use crate::oci::Digest;
use crate::platform::Architecture;
use crate::problem::Result;

/// Functions looked at or brought to an image at once: well below what Lambda's API takes a second.
const AT_ONCE: usize = 8;

/// How long an update may take at least before it is given up.
const MIN_WAIT: Duration = Duration::from_secs(10 * 60);

/// What each GiB of an image adds: Lambda was seen to take half a minute.
const WAIT_PER_GIB: Duration = Duration::from_secs(2 * 60);

/// What is asked of one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The package and the binary of the image, for people.
    pub package: String,
    /// See `package`.
    pub bin: String,
    /// The function.
    pub function: FunctionName,
    /// How to make it if there is none.
    pub create: Option<Create>,
    /// How far to bring it.
    pub release: Release,
}

/// How a function is made that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// The ARN of the role it runs as.
    pub role: String,
    /// Megabytes of memory; Lambda's default is 128.
    pub memory_mb: Option<u32>,
    /// Seconds an invocation may take; Lambda's default is 3.
    pub timeout_seconds: Option<u32>,
    /// Variables of its environment, besides those of the image.
    pub env: BTreeMap<String, String>,
}

/// How far a function is brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// Its code only.
    Code,
    /// A version of it too.
    Version,
    /// An alias of this name to the version too.
    Alias(String),
}

impl Release {
    /// The alias, if one is asked for.
    #[must_use]
    pub fn alias(&self) -> Option<&str> {
        match self {
            Self::Alias(alias) => Some(alias),
            Self::Code | Self::Version => None,
        }
    }
}

/// An image that is in ECR, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `HOST/REPOSITORY@sha256:...` by the name that Lambda takes.
    pub uri: String,
    /// Its digest.
    pub digest: Digest,
    /// What it runs on.
    pub architecture: Architecture,
    /// Bytes of all layers' tars.
    pub uncompressed_size: u64,
}

/// A function and the image it is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The function.
    pub asked: Asked,
    /// The image.
    pub image: Image,
}

/// How long to wait for Lambda.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// For all changes of a function together (`--wait`); by the size of the image if absent.
    pub wait: Option<Duration>,
    /// Before the second look at something unfinished.
    pub first_delay: Duration,
    /// The most between two looks.
    pub max_delay: Duration,
    /// For a role to become known to Lambda: a new one takes some ten seconds, and a wrong one is never known.
    pub role: Duration,
    /// For an image, or the permission to read it, to become known to Lambda.
    pub image: Duration,
    /// Between two lines that say that this waits.
    pub told_every: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            wait: None,
            first_delay: Duration::from_millis(250),
            max_delay: Duration::from_secs(5),
            role: Duration::from_secs(60),
            image: Duration::from_secs(20),
            told_every: Duration::from_secs(15),
        }
    }
}

impl Patience {
    /// How long all changes of a function may take that is brought to an image of this many bytes of tar.
    #[must_use]
    pub fn limit(&self, uncompressed_size: u64) -> Duration {
        let gibibytes = uncompressed_size.div_ceil(1 << 30).min(100) as u32;
        self.wait.unwrap_or(MIN_WAIT + WAIT_PER_GIB * gibibytes)
    }
}

/// Brings every function where it was asked to be, several at once. One that fails does not stop the others: the
/// outcomes are in the order of `deployments`.
pub async fn deploy(
    deployments: &[(Lambda, Deployment)],
    patience: &Patience,
    session: &Session,
) -> Vec<Result<FunctionResult>> {
    let all = deployments.iter().map(|(lambda, deployment)| one(lambda, deployment, patience, session));
    stream::iter(all).buffered(AT_ONCE).collect().await
}

/// Makes passes over a function until one finds or leaves everything as asked.
async fn one(
    lambda: &Lambda,
    deployment: &Deployment,
    patience: &Patience,
    session: &Session,
) -> Result<FunctionResult> {
    let limit = patience.limit(deployment.image.uncompressed_size);
    let mut work = Work { lambda, deployment, patience, limit, begun: Instant::now(), session, steps: Vec::new() };
    let mut tries = Tries::new(patience);
    let end = loop {
        match work.pass().await {
            Ok(end) => break end,
            Err(Stop::Failed(problem)) => return Err(problem),
            Err(Stop::Again(refusal)) => tries.wait(refusal, &work).await?,
        }
    };
    let Asked { package, bin, function, release, .. } = &deployment.asked;
    let alias = release.alias().map(str::to_owned);
    let (name, version) = (function.name().to_owned(), end.version);
    let image_uri = deployment.image.uri.clone();
    work.steps.sort_unstable();
    work.steps.dedup();
    let deployed = DeployedFunction {
        name: name.clone(),
        arn: end.arn,
        image_uri,
        version: version.clone(),
        alias: alias.clone(),
        steps: work.steps,
    };
    session.emit(&Event::FunctionUpdated { package, bin, function: &deployed });
    Ok(FunctionResult { name, version, alias })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_with_the_image_and_is_the_users_to_set() {
        let (mut patience, minute, gib) = (Patience::default(), 60, 1 << 30);
        for (size, minutes) in [(0, 10), (1, 12), (gib, 12), (gib + 1, 14), (10 * gib, 30), (u64::MAX, 210)] {
            assert_eq!(patience.limit(size), Duration::from_secs(minutes * minute), "{size}");
        }
        patience.wait = Some(Duration::from_secs(5));
        assert_eq!(patience.limit(10 * gib), Duration::from_secs(5));
    }
}
