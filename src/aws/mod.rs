//! Talks to AWS: whose credentials, which region, which endpoints, and what went wrong in words.
//!
//! - [`ecr`]: registries, their tokens, repositories and their policies;
//! - [`lambda`]: functions, their versions and aliases;
//! - `error`: what AWS said, and what to do about it.
//!
//! The SDK finds credentials (environment, profiles, SSO, `aws login`, web identity, containers, instances), endpoints
//! (`AWS_ENDPOINT_URL` and its kin) and proxies by itself. Images and registries' own protocol are unknown here.

pub mod ecr;
mod error;
pub mod lambda;
#[cfg(test)]
mod replay;

use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ecr::config::SharedCredentialsProvider;

use self::ecr::host::is_region;
use crate::problem::{Problem, Result};

/// Longer than the SDK's 3.1 s: proxies of companies take their time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The SDK waits without end. No call made here takes a service more than some seconds.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// What the user said about AWS. What is absent is left to AWS's own environment variables and files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    /// `--region`.
    pub region: Option<String>,
    /// `--aws-profile`. Unlike `AWS_PROFILE` it wins over keys in the environment, as in the AWS CLI.
    pub profile: Option<String>,
    /// `--endpoint-url`, for every service but those that credentials come from.
    pub endpoint_url: Option<String>,
}

/// The settings brought together with AWS's environment and files: one for all services.
#[derive(Debug, Clone)]
pub struct Access {
    sdk: SdkConfig,
    asked: Settings,
    /// For what to do when credentials do not work.
    profile: Option<String>,
}

impl Access {
    /// Reads AWS's environment and files. Credentials are looked for by the first call, not here.
    ///
    /// # Errors
    /// When the region or the endpoint is none.
    pub async fn load(settings: &Settings) -> Result<Self> {
        check(settings)?;
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts);
        if let Some(region) = &settings.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &settings.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(endpoint_url) = &settings.endpoint_url {
            loader = loader.endpoint_url(endpoint_url);
        }
        let mut sdk = loader.load().await;
        if let Some(profile) = &settings.profile {
            // The SDK's chain would ask the environment first even now that a profile was named.
            let files = ProviderConfig::without_region().with_region(sdk.region().cloned());
            let files = ProfileFileCredentialsProvider::builder().configure(&files).profile_name(profile).build();
            sdk = sdk.into_builder().credentials_provider(SharedCredentialsProvider::new(files)).build();
        }
        let profile =
            settings.profile.clone().or_else(|| std::env::var("AWS_PROFILE").ok()).filter(|it| !it.is_empty());
        Ok(Self { sdk, asked: settings.clone(), profile })
    }

    /// The chosen region.
    ///
    /// # Errors
    /// When none was chosen anywhere.
    pub fn region(&self) -> Result<&str> {
        let region = self.sdk.region().map(AsRef::as_ref).filter(|region| !region.is_empty());
        region.ok_or_else(|| {
            Problem::usage("no AWS region is chosen").help(
                "give `--region`, set `AWS_REGION` or the profile's `region`, or name the registry's host in the \
                 repository",
            )
        })
    }

    /// Who calls, for what to do about errors.
    fn caller(&self) -> error::Caller {
        error::Caller { profile: self.profile.clone() }
    }
}

/// Refuses what the SDK would only stumble over later, or send requests to a wrong place for.
fn check(settings: &Settings) -> Result<()> {
    if let Some(region) = &settings.region
        && !is_region(region)
    {
        return Err(Problem::usage(format!("`{region}` is not an AWS region"))
            .help("regions look like `eu-central-1`; `aws ec2 describe-regions` lists them"));
    }
    if let Some(url) = &settings.endpoint_url {
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        if host.is_none_or(str::is_empty) {
            // Not shown: a URL may hold a password.
            return Err(Problem::usage("`--endpoint-url` is not an `http://` or `https://` URL")
                .help("leave it out to talk to AWS itself, or write it like `http://localhost:4566`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_and_endpoints_are_checked_before_anything_is_sent() {
        let settings = |region: Option<&str>, endpoint_url: Option<&str>| Settings {
            region: region.map(str::to_owned),
            profile: None,
            endpoint_url: endpoint_url.map(str::to_owned),
        };
        for (region, endpoint_url, expected) in [
            (None, None, None),
            (Some("eu-central-1"), Some("http://localhost:5000"), None),
            (Some("us-gov-west-1"), Some("https://ecr.internal"), None),
            (Some("frankfurt"), None, Some("`frankfurt` is not an AWS region")),
            (Some("eu-central-1.evil.io/"), None, Some("`eu-central-1.evil.io/` is not an AWS region")),
            (None, Some("user:pw@host"), Some("`--endpoint-url` is not an `http://` or `https://` URL")),
            (None, Some("https://"), Some("`--endpoint-url` is not an `http://` or `https://` URL")),
        ] {
            let problem = check(&settings(region, endpoint_url)).err();
            assert_eq!(problem.as_ref().map(Problem::message), expected);
            assert!(problem.is_none_or(|problem| problem.next_step().is_some()), "{expected:?}");
        }
    }
}
