//! Amazon ECR's control plane, as far as pushing needs it.
//!
//! - [`host`]: which hosts are registries of ECR;
//! - [`token`]: what a registry takes as a login, kept fresh;
//! - [`repository`]: found or created, and readable by Lambda;
//! - `policy`: the JSON of the latter.
//!
//! Blobs and manifests go by the registry's own protocol, elsewhere.

pub mod host;
mod policy;
pub mod repository;
pub mod token;

use aws_sdk_ecr::Client;
use aws_sdk_ecr::config::{Builder, Region};

use self::host::RegistryHost;
use self::token::AuthorizationToken;
use super::error::{self, Caller, Failure, ServiceError};
use super::{Access, Settings};
use crate::problem::{Problem, Result};

/// ECR in one region. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Ecr {
    client: Client,
    region: String,
    caller: Caller,
    fips: bool,
}

/// A login, and the registry it was made for.
#[derive(Debug, Clone)]
pub struct Authorization {
    /// The registry of the caller's account in the region.
    pub registry: RegistryHost,
    /// A login that it takes, as do all registries of the region that the caller may use.
    pub token: AuthorizationToken,
}

impl Ecr {
    /// ECR in the chosen region, where a repository without a host is.
    ///
    /// # Errors
    /// When no region is chosen.
    pub fn in_region(access: &Access) -> Result<Self> {
        let region = access.region()?;
        Ok(Self::new(access, Builder::from(&access.sdk), region, access.sdk.use_fips() == Some(true)))
    }

    /// ECR in the region of `host`, by the same kind of endpoint.
    ///
    /// # Errors
    /// When `--region` says another.
    pub fn at(access: &Access, host: &RegistryHost) -> Result<Self> {
        check_region(&access.asked, host)?;
        let mut config = Builder::from(&access.sdk).region(Region::new(host.region().to_owned()));
        // A given endpoint is what it is: the SDK refuses to make a FIPS or dual-stack one of it.
        if access.sdk.endpoint_url().is_none() {
            if host.is_fips() {
                config = config.use_fips(true);
            }
            if host.is_dual_stack() {
                config = config.use_dual_stack(true);
            }
        }
        Ok(Self::new(access, config, host.region(), host.is_fips()))
    }

    fn new(access: &Access, config: Builder, region: &str, fips: bool) -> Self {
        let client = Client::from_conf(config.build());
        Self { client, region: region.to_owned(), caller: access.caller(), fips }
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The registry of the caller's account, and a fresh login for it.
    ///
    /// # Errors
    /// When AWS gives none, or names a registry that is none of ECR's.
    pub async fn authorize(&self) -> Result<Authorization> {
        let (token, endpoint) = token::request(self).await?;
        let host = endpoint.strip_prefix("https://").unwrap_or(&endpoint).trim_end_matches('/');
        let registry = RegistryHost::parse(host).ok_or_else(|| {
            Problem::failed(format!("the registry of the account is said to be `{host}`, which is not one of ECR's"))
                .help("name the host in the repository: `--repository HOST/NAME`")
        })?;
        // Who set `AWS_USE_FIPS_ENDPOINT` means the layers too.
        let registry = if self.fips { registry.with_fips() } else { registry };
        Ok(Authorization { registry, token })
    }

    fn problem<E: ServiceError>(&self, doing: &str, action: &str, error: Failure<E>) -> Problem {
        error::problem(doing, action, error, &self.caller)
    }
}

/// A region that was typed must be the one in the host: one of the two is a mistake, and a push to the wrong one is
/// found out late.
fn check_region(asked: &Settings, host: &RegistryHost) -> Result<()> {
    match &asked.region {
        Some(region) if region != host.region() => Err(Problem::usage(format!(
            "`--region` says `{region}`, but the registry `{host}` is in `{}`",
            host.region()
        ))
        .help("leave `--region` out, or name the repository without a host")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_that_contradicts_the_host_is_refused() {
        let host = RegistryHost::parse("123456789012.dkr.ecr.eu-west-1.amazonaws.com").expect("a host");
        let asked = |region: &str| Settings { region: Some(region.to_owned()), ..Settings::default() };
        assert!(check_region(&Settings::default(), &host).is_ok());
        assert!(check_region(&asked("eu-west-1"), &host).is_ok());
        let problem = check_region(&asked("us-east-1"), &host).expect_err("another region");
        assert_eq!(
            problem.message(),
            "`--region` says `us-east-1`, but the registry `123456789012.dkr.ecr.eu-west-1.amazonaws.com` is in \
             `eu-west-1`"
        );
    }
}
