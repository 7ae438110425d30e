//! `cargo lambda-image iam-policy`: what a push would need to be allowed, read from its flags and configuration alone.
//!
//! AWS is asked for one thing at most, the caller's account, and only where nothing that was written names it.

use super::push::base_in_ecr;
use crate::aws::Access;
use crate::aws::ecr::Ecr;
use crate::aws::ecr::host::RegistryHost;
use crate::config::{Destination, PushRequest, PushSource, Repository};
use crate::deploy::Asked;
use crate::deploy::policy::{Wanted, policy};
use crate::event::{Event, Session};
use crate::problem::{Problem, Result};

/// Tells the policy.
///
/// # Errors
/// When images go to other registries than one of ECR, or the account cannot be found out.
pub async fn run(request: PushRequest, session: &Session) -> Result<()> {
    let bases: Vec<&str> = match &request.source {
        PushSource::Built(build) => build.images.iter().map(|image| image.base.as_str()).collect(),
        PushSource::Existing(existing) => vec![existing.reference.as_str()],
    };
    let mut wanted: Option<Wanted> = None;
    for destination in &request.destinations {
        let (registry, repository) = place(destination).await?;
        match &mut wanted {
            None => {
                let bases = bases.iter().filter_map(|base| base_in_ecr(base)).collect();
                let create_repository = destination.create_repository;
                wanted = Some(Wanted { registry, repositories: vec![repository], create_repository, bases });
            }
            Some(wanted) if wanted.registry == registry => {
                wanted.repositories.push(repository);
                wanted.create_repository |= destination.create_repository;
            }
            Some(wanted) => {
                return Err(Problem::usage(format!(
                    "the images go to two registries, `{}` and `{registry}`: one policy would mix them up",
                    wanted.registry
                ))
                .help("choose images of one registry with `--package` and `--bin`"));
            }
        }
    }
    let wanted = wanted.ok_or_else(|| Problem::usage("there is no image to push"))?;
    let functions: Vec<Asked> =
        request.destinations.into_iter().flat_map(|destination| destination.functions).collect();
    session.emit(&Event::PolicyTold { policy: &policy(&wanted, &functions) });
    Ok(())
}

/// The registry and the repository of a destination.
async fn place(destination: &Destination) -> Result<(RegistryHost, String)> {
    match &destination.repository {
        Repository::At { host, path } => match RegistryHost::parse(host) {
            Some(host) => Ok((host, path.clone())),
            None => {
                Err(Problem::usage(format!("`{host}` is not a registry of ECR: IAM has no say in who pushes to it"))
                    .help("name a repository of ECR with `--repository`"))
            }
        },
        Repository::OfAccount(name) => {
            let access = Access::load(&destination.aws).await?;
            let written =
                account(&destination.functions).and_then(|account| RegistryHost::of(account, access.region().ok()?));
            let registry = match written {
                Some(registry) => registry,
                None => {
                    Ecr::in_region(&access)?
                        .authorize()
                        .await
                        .map_err(|problem| {
                            problem.context(
                        "could not find out the account, which neither the repository nor a role or function names",
                    )
                        })?
                        .registry
                }
            };
            Ok((registry, name.clone()))
        }
    }
}

/// The account that the ARN of a role names: functions and their roles are in one. A function alone may be in another
/// account than its image.
fn account(functions: &[Asked]) -> Option<&str> {
    let mut roles = functions.iter().filter_map(|asked| asked.create.as_ref());
    roles.find_map(|create| create.role.split(':').nth(4)).filter(|account| !account.is_empty())
}
