//! Settles what `verify` is asked to do: a page of the reference, the project's images, or one that is there.

use std::path::PathBuf;

use crate::check::findings::Options;
use crate::cli::{SelectionArgs, VerifyArgs};
use crate::event::Session;
use crate::platform::Architecture;
use crate::problem::{Problem, Result};

use super::environment::{Environment, verify_over_environment};
use super::push::name_of;
use super::{BuildRequest, Checks, compile, merged_request, project};

/// What `verify` is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyRequest {
    /// Print the page of this rule, or all codes.
    Explain(String),
    /// Build the project's images and judge them.
    Project(BuildRequest),
    /// Judge an image that is there.
    Image(InspectedRequest),
}

/// An image that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedRequest {
    /// Its reference, in the forms of a base's.
    pub reference: String,
    /// Where relative paths in it start.
    pub directory: PathBuf,
    /// Which one of an index; absent when it may be any.
    pub architecture: Option<Architecture>,
    /// No network.
    pub offline: bool,
    /// What it is judged by.
    pub options: Options,
}

/// Settles what `verify` is asked to do.
///
/// # Errors
/// As [`super::build_request`].
pub fn verify_request(typed: &VerifyArgs, environment: &Environment, session: &Session) -> Result<VerifyRequest> {
    if typed.build.check.no_verify || typed.build.image.output.is_some() {
        let flag = if typed.build.check.no_verify { "--no-verify" } else { "--output" };
        return Err(Problem::usage(format!("`{flag}` is not for `verify`")).help("it is a flag of `build`"));
    }
    let args = verify_over_environment(typed, environment, session)?;
    if let Some(code) = args.explain {
        return Ok(VerifyRequest::Explain(code));
    }
    let build = &args.build;
    let Some(reference) = args.image else {
        let request = merged_request(build, environment, session)?;
        return Ok(VerifyRequest::Project(BuildRequest { checks: Checks::Later, ..request }));
    };
    let SelectionArgs { name, bin, .. } = &build.selection;
    let name = name.clone().or_else(|| bin.first().cloned()).or_else(|| name_of(&reference));
    let name = name.as_deref().unwrap_or("image");
    let settings = project::settings_of_image(build, name, environment, session)?;
    let options = settings.under_flags(&build.image, &build.check, &environment.directory).options()?;
    Ok(VerifyRequest::Image(InspectedRequest {
        reference,
        directory: environment.directory.clone(),
        architecture: compile::architecture(&build.compile),
        offline: build.manifest.offline || build.manifest.frozen,
        options,
    }))
}
