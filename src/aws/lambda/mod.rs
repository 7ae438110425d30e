//! AWS Lambda's control plane, as far as bringing functions to an image needs it.
//!
//! - [`function`]: what Lambda says of functions and their versions, in our words;
//! - [`refusal`]: why it said no, for those who must decide what to do next;
//! - [`reasons`]: what to do about a function that failed, by reason code.
//!
//! One method a call: what comes after what is decided elsewhere. `GetFunction` is the only way a function is looked
//! at: it tells the configuration and the image in one, so that a caller needs one permission and not two.

pub mod function;
pub mod reasons;
pub mod refusal;

use std::collections::BTreeMap;

use aws_sdk_lambda::Client;
use aws_sdk_lambda::config::{Builder, Region};
use aws_sdk_lambda::types::{AliasRoutingConfiguration, Environment, FunctionCode, PackageType};

use self::function::{Alias, Function, LATEST, Version};
use self::refusal::{Refusal, Why};
use super::Access;
use super::ecr::host::RegistryHost;
use super::error::{Caller, Failure, ServiceError};
use crate::platform::Architecture;
use crate::problem::Problem;

/// The outcome of a call.
pub type Answer<T> = Result<T, Refusal>;

/// Lambda in one region. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Lambda {
    client: Client,
    region: String,
    caller: Caller,
}

/// A function to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFunction {
    /// Its name.
    pub name: String,
    /// `HOST/REPOSITORY@sha256:...`.
    pub image_uri: String,
    /// What the image runs on.
    pub architecture: Architecture,
    /// The ARN of the role it runs as.
    pub role: String,
    /// Megabytes of memory; Lambda's default is 128.
    pub memory_mb: Option<u32>,
    /// Seconds an invocation may take; Lambda's default is 3.
    pub timeout_seconds: Option<u32>,
    /// Variables of its environment, besides those of the image.
    pub env: BTreeMap<String, String>,
}

impl Lambda {
    /// Lambda in the region of `host`: functions take images of their own region only.
    #[must_use]
    pub fn beside(access: &Access, host: &RegistryHost) -> Self {
        let config = Builder::from(&access.sdk).region(Region::new(host.region().to_owned()));
        Self { client: Client::from_conf(config.build()), region: host.region().to_owned(), caller: access.caller() }
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// A function as it is, or one of its versions; `None` if there is none.
    ///
    /// # Errors
    /// When Lambda does not say.
    pub async fn function(&self, name: &str, version: Option<&str>) -> Answer<Option<Function>> {
        let request = self.client.get_function().function_name(name).set_qualifier(version.map(str::to_owned));
        match request.send().await {
            Ok(answer) => {
                let configuration = answer.configuration.ok_or_else(|| self.empty(&looking(name)))?;
                Ok(Some(Function::new(configuration, answer.code.and_then(|code| code.resolved_image_uri))))
            }
            Err(error) => self.unless_absent(&looking(name), "lambda:GetFunction", error),
        }
    }

    /// Has the function run another image. `revision` is that of the function the caller looked at: if it changed
    /// meanwhile, nothing is done.
    ///
    /// # Errors
    /// When Lambda does not begin it.
    pub async fn update_code(&self, name: &str, image_uri: &str, revision: Option<&str>) -> Answer<()> {
        let request = self.client.update_function_code().function_name(name).image_uri(image_uri).publish(false);
        let doing = format!("could not update function `{name}` to `{image_uri}`");
        match request.set_revision_id(revision.map(str::to_owned)).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refusal(&doing, "lambda:UpdateFunctionCode", error)),
        }
    }

    /// Makes a function. It can be used once its state says so.
    ///
    /// # Errors
    /// When Lambda does not begin it; a role that is minutes old is often not known to it yet.
    pub async fn create(&self, new: &NewFunction) -> Answer<()> {
        let request = self.client.create_function().function_name(&new.name).package_type(PackageType::Image);
        let code = FunctionCode::builder().image_uri(&new.image_uri).build();
        let architecture = match new.architecture {
            Architecture::Amd64 => aws_sdk_lambda::types::Architecture::X8664,
            Architecture::Arm64 => aws_sdk_lambda::types::Architecture::Arm64,
        };
        let request = request.code(code).architectures(architecture).role(&new.role);
        let request = request.set_memory_size(new.memory_mb.map(u32::cast_signed));
        let request = request.set_timeout(new.timeout_seconds.map(u32::cast_signed));
        let env = new.env.iter().fold(Environment::builder(), |env, (key, value)| env.variables(key, value));
        let request = if new.env.is_empty() { request } else { request.environment(env.build()) };
        let doing = format!("could not create function `{}` in {}", new.name, self.region);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refusal(&doing, "lambda:CreateFunction", error)),
        }
    }

    /// Makes a version of the function as it is, which must be as `seen`; returns its number. Where nothing changed
    /// since the last version, Lambda makes none and returns that one.
    ///
    /// # Errors
    /// When Lambda does not begin it.
    pub async fn publish(&self, name: &str, seen: &Function) -> Answer<String> {
        let request = self.client.publish_version().function_name(name);
        let request = request.set_code_sha256(seen.code_sha256.clone()).set_revision_id(seen.revision.clone());
        let doing = format!("could not publish a version of function `{name}`");
        match request.send().await {
            Ok(answer) => answer.version.ok_or_else(|| self.empty(&doing)),
            Err(error) => Err(self.refusal(&doing, "lambda:PublishVersion", error)),
        }
    }

    /// The function as it is, by the name of `$LATEST`, and all its versions; the oldest first.
    ///
    /// # Errors
    /// When Lambda does not say.
    pub async fn versions(&self, name: &str) -> Answer<Vec<Version>> {
        let doing = format!("could not list the versions of function `{name}`");
        let mut pages = self.client.list_versions_by_function().function_name(name).into_paginator().send();
        let mut versions = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.refusal(&doing, "lambda:ListVersionsByFunction", error))?;
            versions.extend(page.versions.unwrap_or_default().into_iter().map(Version::new));
        }
        Ok(versions)
    }

    /// An alias of the function; `None` if there is none.
    ///
    /// # Errors
    /// When Lambda does not say.
    pub async fn alias(&self, name: &str, alias: &str) -> Answer<Option<Alias>> {
        match self.client.get_alias().function_name(name).name(alias).send().await {
            Ok(answer) => {
                let weights = answer.routing_config.and_then(|routing| routing.additional_version_weights);
                Ok(Some(Alias {
                    version: answer.function_version.unwrap_or_else(|| LATEST.to_owned()),
                    is_weighted: weights.is_some_and(|weights| !weights.is_empty()),
                    revision: answer.revision_id,
                }))
            }
            Err(error) => {
                self.unless_absent(&format!("could not find alias `{alias}` of `{name}`"), "lambda:GetAlias", error)
            }
        }
    }

    /// Makes an alias that points to `version`.
    ///
    /// # Errors
    /// When Lambda does not.
    pub async fn create_alias(&self, name: &str, alias: &str, version: &str) -> Answer<()> {
        let request = self.client.create_alias().function_name(name).name(alias).function_version(version);
        let doing = format!("could not create alias `{alias}` of function `{name}` for version {version}");
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refusal(&doing, "lambda:CreateAlias", error)),
        }
    }

    /// Has an alias point to `version`, and to no other beside it. `seen` is what the caller looked at.
    ///
    /// # Errors
    /// When Lambda does not.
    pub async fn move_alias(&self, name: &str, alias: &str, version: &str, seen: &Alias) -> Answer<()> {
        let request = self.client.update_alias().function_name(name).name(alias).function_version(version);
        let mut request = request.set_revision_id(seen.revision.clone());
        if seen.is_weighted {
            request = request.routing_config(AliasRoutingConfiguration::builder().build());
        }
        let doing = format!("could not move alias `{alias}` of function `{name}` to version {version}");
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refusal(&doing, "lambda:UpdateAlias", error)),
        }
    }

    /// What it means that something was not found.
    fn unless_absent<T, E: ServiceError>(&self, doing: &str, action: &str, error: Failure<E>) -> Answer<Option<T>> {
        match self.refusal(doing, action, error) {
            Refusal { why: Why::Absent, .. } => Ok(None),
            refusal => Err(refusal),
        }
    }

    fn refusal<E: ServiceError>(&self, doing: &str, action: &str, error: Failure<E>) -> Refusal {
        Refusal::new(doing, action, error, &self.caller)
    }

    fn empty(&self, doing: &str) -> Refusal {
        Refusal { why: Why::Other, problem: Problem::failed(doing).because("the answer holds none") }
    }
}

fn looking(name: &str) -> String {
    format!("could not look at function `{name}`")
}

#[cfg(test)]
mod tests;
