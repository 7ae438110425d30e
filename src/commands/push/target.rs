//! From a repository's name to a place that images can be pushed to: the registry, the login, the repository itself.
//!
//! The one place that decides between ECR, by AWS's API, and any other registry, by Docker's logins.

use std::sync::Arc;

use crate::aws::Access;
use crate::aws::ecr::Ecr;
use crate::aws::ecr::host::RegistryHost;
use crate::aws::ecr::repository::{IfAbsent, TagRule};
use crate::aws::ecr::token::TokenSource;
use crate::commands::login::Logins;
use crate::config::{Destination, Repository};
use crate::event::{Event, Session};
use crate::oci;
use crate::problem::{Problem, Result};
use crate::publish::Target;
use crate::registry::origin::Origin;
use crate::registry::pull::Selector;
use crate::registry::{Client, Patience};

/// A place that images can be pushed to.
#[derive(Debug, Clone)]
pub(in crate::commands) struct Reached {
    pub target: Target,
    /// Whether the repository is not there, and would be made but for `--dry-run`.
    pub is_imagined: bool,
    /// Which tags can be moved there, if that is known.
    tags: Option<TagRule>,
}

impl Reached {
    /// Those of `tags` that are known to stay with their image once they are there.
    pub(super) fn immutable(&self, tags: &[String]) -> Vec<String> {
        let rule = self.tags.as_ref();
        tags.iter().filter(|tag| rule.is_some_and(|rule| rule.is_immutable(tag))).cloned().collect()
    }
}

/// Finds the destination, and creates its repository where that was asked for.
///
/// # Errors
/// When there is no such place, or no way in.
pub(in crate::commands) async fn reach(
    destination: &Destination,
    dry_run: bool,
    logins: &Logins,
    session: &Session,
) -> Result<Reached> {
    match &destination.repository {
        Repository::OfAccount(name) => {
            let access = Access::load(&destination.aws).await?;
            let ecr = Ecr::in_region(&access)?;
            let authorization = ecr.authorize().await?;
            let host = authorization.registry;
            logins.hold(&destination.aws, &host, TokenSource::holding(ecr.clone(), authorization.token));
            in_ecr(&ecr, &host, name, destination, dry_run, logins, session).await
        }
        Repository::At { host, path } => match RegistryHost::parse(host) {
            Some(host) => {
                let access = Access::load(&destination.aws).await?;
                let ecr = Ecr::at(&access, &host)?;
                in_ecr(&ecr, &host, path, destination, dry_run, logins, session).await
            }
            None => elsewhere(host, path, destination, logins, session).await,
        },
    }
}

async fn in_ecr(
    ecr: &Ecr,
    host: &RegistryHost,
    name: &str,
    destination: &Destination,
    dry_run: bool,
    logins: &Logins,
    session: &Session,
) -> Result<Reached> {
    if destination.insecure {
        session.emit(&Event::Detail { message: "ECR is always spoken to by https" });
    }
    let if_absent = match (destination.create_repository, dry_run) {
        (false, _) => IfAbsent::Fail,
        (true, false) => IfAbsent::Create,
        (true, true) => IfAbsent::Imagine,
    };
    let repository = ecr.repository(host, name, if_absent, session).await?;
    let origin = Origin::from_url(&format!("https://{host}"))?;
    let credentials = logins.of_with(&destination.aws, origin.name());
    let client = Arc::new(Client::new(origin, credentials, Patience::default(), session));
    let target = Target { client, repository: name.to_owned() };
    Ok(Reached { target, is_imagined: dry_run && repository.created, tags: repository.tags })
}

async fn elsewhere(
    host: &str,
    path: &str,
    destination: &Destination,
    logins: &Logins,
    session: &Session,
) -> Result<Reached> {
    let shown = format!("{host}/{path}");
    let reference = oci::reference(&shown)
        .map_err(|error| Problem::usage(format!("`{shown}` is not a repository")).because(error))
        .map_err(|problem| problem.help("name it as in `--repository ghcr.io/you/name`: lower case, without a tag"))?;
    if destination.create_repository {
        session.emit(&Event::Detail { message: &format!("`{host}` is not ECR: no repository is created there") });
    }
    let origin = match destination.insecure {
        true => Origin::from_url(&format!("http://{host}"))?,
        false => Origin::of(&reference)?,
    };
    let credentials = logins.of_with(&destination.aws, origin.name());
    let client = Arc::new(Client::new(origin, credentials, Patience::default(), session));
    let target = Target { client, repository: reference.repository().to_owned() };
    // Asked for the answer alone: a login that is missing or wrong is told now, not after the compiler.
    let any = Selector::Tag(destination.tags.first().map_or_else(|| "latest".to_owned(), Clone::clone));
    target.client.head_manifest(&target.repository, &any).await?;
    Ok(Reached { target, is_imagined: false, tags: None })
}
