//! What Lambda says of a function, in our words, without what nobody here asks for.
//!
//! States and reasons that Lambda may invent one day are kept as they are: what is not known must not fail a
//! deployment.

use aws_sdk_lambda::types::{FunctionConfiguration, LastUpdateStatus, State as SdkState};

use crate::oci::Digest;
use crate::platform::Architecture;

/// The name of the version that can be changed.
pub const LATEST: &str = "$LATEST";

/// A function, or one of its versions.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// The ARN.
    pub arn: String,
    /// `$LATEST`, or the number of the version.
    pub version: String,
    /// What its code is.
    pub package: Package,
    /// What it runs on, if it is something we know.
    pub architecture: Option<Architecture>,
    /// Whether it can be invoked.
    pub state: State,
    /// What became of the last change.
    pub last_update: LastUpdate,
    /// The settings of its own that win over those of the image.
    pub overrides: Overrides,
    /// The digest of its image.
    pub image: Option<Digest>,
    /// The name of this very state of it.
    pub revision: Option<String>,
    /// The role it runs as.
    pub role: Option<String>,
    /// The SHA-256 of its code, in whatever form Lambda likes.
    pub code_sha256: Option<String>,
}

/// What a function's code is. It cannot be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    /// An archive.
    Zip,
    /// An image.
    Image,
}

/// Whether a function can be invoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It can.
    Active,
    /// Not yet.
    Pending,
    /// Lambda put it away: the first invocation fails, and wakes it if the image is still there.
    Inactive(Reason),
    /// It could not be made.
    Failed(Reason),
    /// It is on its way out.
    Deleting,
    /// Something else, or not told.
    Other,
}

/// What became of the last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastUpdate {
    /// It was made.
    Successful,
    /// It is being made; nothing else can be changed meanwhile.
    InProgress,
    /// It was not made: what was before still runs.
    Failed(Reason),
    /// Not told.
    Other,
}

/// Why a function is as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reason {
    /// As in `ImageAccessDenied`.
    pub code: Option<String>,
    /// A sentence.
    pub message: Option<String>,
}

/// `ImageConfig`: settings of a function that win over those of its image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// CMD.
    pub command: Vec<String>,
    /// WORKDIR.
    pub working_directory: Option<String>,
}

impl Overrides {
    /// What is overridden, as Dockerfiles call it, with its value.
    #[must_use]
    pub fn shown(&self) -> Vec<String> {
        let list = |words: &[String]| serde_json::to_string(words).expect("strings are always written");
        let entrypoint = (!self.entrypoint.is_empty()).then(|| format!("ENTRYPOINT {}", list(&self.entrypoint)));
        let command = (!self.command.is_empty()).then(|| format!("CMD {}", list(&self.command)));
        let directory = self.working_directory.as_ref().map(|directory| format!("WORKDIR {directory}"));
        [entrypoint, command, directory].into_iter().flatten().collect()
    }
}

impl Function {
    pub(super) fn new(configuration: FunctionConfiguration, resolved_image_uri: Option<String>) -> Self {
        let reason = Reason::new(
            configuration.state_reason_code.as_ref().map(|code| code.as_str()),
            configuration.state_reason.as_deref(),
        );
        let update_reason = Reason::new(
            configuration.last_update_status_reason_code.as_ref().map(|code| code.as_str()),
            configuration.last_update_status_reason.as_deref(),
        );
        let own = configuration.image_config_response.and_then(|response| response.image_config);
        let overrides = own.map_or_else(Overrides::default, |own| Overrides {
            entrypoint: own.entry_point.unwrap_or_default(),
            command: own.command.unwrap_or_default(),
            working_directory: own.working_directory.filter(|directory| !directory.is_empty()),
        });
        let package = match configuration.package_type {
            Some(aws_sdk_lambda::types::PackageType::Image) => Package::Image,
            // What has no type is from the time before images.
            _ => Package::Zip,
        };
        Self {
            arn: configuration.function_arn.unwrap_or_default(),
            version: configuration.version.unwrap_or_else(|| LATEST.to_owned()),
            package,
            architecture: architecture(configuration.architectures.as_deref()),
            state: State::new(configuration.state.as_ref(), reason),
            last_update: LastUpdate::new(configuration.last_update_status.as_ref(), update_reason),
            overrides,
            image: resolved_image_uri.as_deref().and_then(digest),
            revision: configuration.revision_id,
            role: configuration.role,
            code_sha256: configuration.code_sha256,
        }
    }

    /// Whether Lambda is busy with it, so that nothing can be changed.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.state == State::Pending || self.last_update == LastUpdate::InProgress
    }

    /// Why it does not run what it was last told to run, if it does not. One that sleeps for want of calls is well.
    #[must_use]
    pub fn failure(&self) -> Option<&Reason> {
        match (&self.state, &self.last_update) {
            (State::Failed(reason), _) | (_, LastUpdate::Failed(reason)) => Some(reason),
            (State::Inactive(reason), _) if !reason.is_idle() => Some(reason),
            _ => None,
        }
    }
}

/// `$LATEST` has no architectures in answers from before there were two.
fn architecture(all: Option<&[aws_sdk_lambda::types::Architecture]>) -> Option<Architecture> {
    match all.and_then(<[_]>::first) {
        None | Some(aws_sdk_lambda::types::Architecture::X8664) => Some(Architecture::Amd64),
        Some(aws_sdk_lambda::types::Architecture::Arm64) => Some(Architecture::Arm64),
        Some(_) => None,
    }
}

fn digest(resolved_image_uri: &str) -> Option<Digest> {
    resolved_image_uri.rsplit_once('@').and_then(|(_, digest)| digest.parse().ok())
}

impl State {
    fn new(state: Option<&SdkState>, reason: Reason) -> Self {
        match state {
            Some(SdkState::Active) => Self::Active,
            Some(SdkState::Pending) => Self::Pending,
            Some(SdkState::Inactive) => Self::Inactive(reason),
            Some(SdkState::Failed) => Self::Failed(reason),
            Some(SdkState::Deleting) => Self::Deleting,
            _ => Self::Other,
        }
    }
}

impl LastUpdate {
    fn new(status: Option<&LastUpdateStatus>, reason: Reason) -> Self {
        match status {
            Some(LastUpdateStatus::Successful) => Self::Successful,
            Some(LastUpdateStatus::InProgress) => Self::InProgress,
            Some(LastUpdateStatus::Failed) => Self::Failed(reason),
            _ => Self::Other,
        }
    }
}

impl Reason {
    fn new(code: Option<&str>, message: Option<&str>) -> Self {
        let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        Self { code: text(code), message: text(message) }
    }

    fn is_idle(&self) -> bool {
        self.code.as_deref() == Some("Idle")
    }

    /// Code and sentence, as far as they are known.
    #[must_use]
    pub fn shown(&self) -> String {
        match (&self.code, &self.message) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(text), None) | (None, Some(text)) => text.clone(),
            (None, None) => "Lambda gives no reason".to_owned(),
        }
    }
}

/// One line of the list of a function's versions.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// `$LATEST`, or the number.
    pub number: String,
    /// The SHA-256 of its code.
    pub code_sha256: Option<String>,
    setup: FunctionConfiguration,
}

impl Version {
    pub(super) fn new(mut configuration: FunctionConfiguration) -> Self {
        let number = configuration.version.take().unwrap_or_else(|| LATEST.to_owned());
        let code_sha256 = configuration.code_sha256.clone();
        Self { number, code_sha256, setup: setup(configuration) }
    }

    /// Whether code and configuration are those of `other`: publishing the one would make the other again.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.setup == other.setup
    }
}

/// A configuration without what differs between a function and a version made of it. The description does too, as a
/// version may have one of its own.
fn setup(mut configuration: FunctionConfiguration) -> FunctionConfiguration {
    configuration.function_arn = None;
    configuration.version = None;
    configuration.description = None;
    configuration.last_modified = None;
    configuration.master_arn = None;
    configuration.revision_id = None;
    configuration.config_sha256 = None;
    configuration.state = None;
    configuration.state_reason = None;
    configuration.state_reason_code = None;
    configuration.last_update_status = None;
    configuration.last_update_status_reason = None;
    configuration.last_update_status_reason_code = None;
    configuration.snap_start = None;
    configuration.runtime_version_config = None;
    configuration
}

/// A name that points to a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The number of the version, or `$LATEST`.
    pub version: String,
    /// Whether a part of the calls goes to another version.
    pub is_weighted: bool,
    /// The name of this very state of it.
    pub revision: Option<String>,
}

impl Alias {
    /// Whether every call goes to `version`.
    #[must_use]
    pub fn points_to(&self, version: &str) -> bool {
        self.version == version && !self.is_weighted
    }
}
