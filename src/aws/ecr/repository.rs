//! A repository: found, or created when asked, and readable by Lambda.
//!
//! Creating is done as AWS advises: images are scanned on push, and Lambda may read them. Of a repository that is
//! there already nothing is changed but a policy that lacks the latter.

use aws_sdk_ecr::error::ProvideErrorMetadata as _;
use aws_sdk_ecr::types::{ImageScanningConfiguration, ImageTagMutability};

use super::host::RegistryHost;
use super::{Ecr, policy};
use crate::aws::error::{Failure, ServiceError, is_denied};
use crate::event::{Event, Session};
use crate::problem::{Problem, Result};

/// What to do about a repository that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfAbsent {
    /// Say so, with the ways to create it.
    Fail,
    /// Create it (`--create-repository`).
    Create,
    /// Say what it would be like (`--dry-run`).
    Imagine,
}

/// A repository of ECR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `HOST/NAME`, as ECR says it.
    pub uri: String,
    /// The name below the host.
    pub name: String,
    /// The Amazon resource name, as policies want it.
    pub arn: String,
    /// Whether it did not exist before, and does now or would.
    pub created: bool,
    /// Which tags can be moved to another image. Absent if the caller may not see it.
    pub tags: Option<TagRule>,
    /// What layers are encrypted with: blobs are mounted only between repositories of equal encryption. Absent if the
    /// caller may not see it.
    pub encryption: Option<Encryption>,
}

/// Whether tags can be moved, and those for which it is the other way round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRule {
    immutable: bool,
    /// Patterns with `*`.
    except: Vec<String>,
}

impl TagRule {
    /// Whether `tag`, once set, stays with its image.
    #[must_use]
    pub fn is_immutable(&self, tag: &str) -> bool {
        self.immutable != self.except.iter().any(|pattern| policy::matches(pattern, tag))
    }
}

/// How a repository encrypts what it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// `AES256`, `KMS` or `KMS_DSSE`.
    pub kind: String,
    /// The KMS key, if it is one of the account's choice.
    pub key: Option<String>,
}

/// Whether a repository is there.
enum Seen {
    Yes(Repository),
    No,
    /// The caller may not do what would tell.
    Denied(Problem),
}

impl Ecr {
    /// Finds the repository `name` of the registry `host`, whose account may be another than the caller's. A caller
    /// who may not look at it is taken at their word that it is there.
    ///
    /// # Errors
    /// When it does not exist and is not to be created, or cannot be.
    pub async fn repository(
        &self,
        host: &RegistryHost,
        name: &str,
        if_absent: IfAbsent,
        session: &Session,
    ) -> Result<Repository> {
        let found = match (self.describe(host, name).await?, if_absent) {
            (Seen::Yes(found), IfAbsent::Fail | IfAbsent::Imagine) => return Ok(found),
            (Seen::No, IfAbsent::Imagine) => return Ok(Repository { created: true, ..unseen(host, name) }),
            // Pushing needs no permission to look: the registry will say whether it is there.
            (Seen::Denied(problem), IfAbsent::Fail | IfAbsent::Imagine) => {
                session.emit(&Event::Detail { message: &problem.in_one_line() });
                return Ok(unseen(host, name));
            }
            (Seen::No, IfAbsent::Fail) => return Err(self.absent(host, name)),
            (Seen::Yes(found), IfAbsent::Create) => found,
            (Seen::No, IfAbsent::Create) => match self.create(host, name).await? {
                Seen::Yes(created) => created,
                Seen::No => return Err(self.absent(host, name)),
                Seen::Denied(problem) => return Err(problem),
            },
            (Seen::Denied(_), IfAbsent::Create) => match self.create(host, name).await? {
                Seen::Yes(created) => created,
                Seen::No => unseen(host, name),
                // It may be there all the same, made by someone with more permissions.
                Seen::Denied(problem) => {
                    session.warn(&problem.in_one_line(), problem.next_step());
                    return Ok(unseen(host, name));
                }
            },
        };
        self.let_lambda_read(host, name, session).await?;
        Ok(found)
    }

    async fn describe(&self, host: &RegistryHost, name: &str) -> Result<Seen> {
        let request = self.client.describe_repositories().registry_id(host.account()).repository_names(name);
        match request.send().await {
            Ok(answer) => {
                let first = answer.repositories.and_then(|found| found.into_iter().next());
                Ok(first.map_or(Seen::No, |repository| Seen::Yes(found(repository))))
            }
            Err(error) if error.code() == Some("RepositoryNotFoundException") => Ok(Seen::No),
            Err(error) => {
                let doing = format!("could not find repository `{name}` in `{host}`");
                self.seen(&doing, "ecr:DescribeRepositories", error)
            }
        }
    }

    /// [`Seen::No`] if it is there but may not be looked at.
    async fn create(&self, host: &RegistryHost, name: &str) -> Result<Seen> {
        let scan = ImageScanningConfiguration::builder().scan_on_push(true).build();
        let request = self.client.create_repository().registry_id(host.account()).repository_name(name);
        let doing = format!("could not create repository `{name}` in `{host}`");
        match request.image_scanning_configuration(scan).send().await {
            Ok(answer) => match answer.repository {
                Some(repository) => Ok(Seen::Yes(Repository { created: true, ..found(repository) })),
                None => Err(Problem::failed(doing).because("the answer holds none")),
            },
            // Another push was faster.
            Err(error) if error.code() == Some("RepositoryAlreadyExistsException") => {
                Ok(match self.describe(host, name).await? {
                    Seen::Denied(_) => Seen::No,
                    seen => seen,
                })
            }
            Err(error) => self.seen(&doing, "ecr:CreateRepository", error),
        }
    }

    /// Adds what Lambda needs to the repository's policy if it is not there. A caller who may not do so is warned:
    /// Lambda adds it itself for whoever creates a function and may.
    ///
    /// # Errors
    /// When AWS fails for another reason than a missing permission.
    pub async fn let_lambda_read(&self, host: &RegistryHost, name: &str, session: &Session) -> Result<()> {
        let request = self.client.get_repository_policy().registry_id(host.account()).repository_name(name);
        let existing = match request.send().await {
            Ok(answer) => answer.policy_text,
            Err(error) if error.code() == Some("RepositoryPolicyNotFoundException") => None,
            Err(error) => {
                let denied = is_denied(&error);
                let doing = format!("could not read the policy of repository `{name}`");
                return tell(self.problem(&doing, "ecr:GetRepositoryPolicy", error), denied, session);
            }
        };
        let policy = match policy::with_lambda(existing.as_deref(), host) {
            Ok(Some(policy)) => policy,
            Ok(None) => return Ok(()),
            Err(error) => {
                let problem = Problem::failed(format!("the policy of repository `{name}` is left as it is"));
                return tell(problem.because(format!("it cannot be read: {error}")), true, session);
            }
        };
        let request = self.client.set_repository_policy().registry_id(host.account()).repository_name(name);
        match request.policy_text(policy).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let denied = is_denied(&error);
                let doing = format!("could not let Lambda read repository `{name}`");
                tell(self.problem(&doing, "ecr:SetRepositoryPolicy", error), denied, session)
            }
        }
    }

    fn seen<E: ServiceError>(&self, doing: &str, action: &str, error: Failure<E>) -> Result<Seen> {
        let denied = is_denied(&error);
        let problem = self.problem(doing, action, error);
        if denied { Ok(Seen::Denied(problem)) } else { Err(problem) }
    }

    fn absent(&self, host: &RegistryHost, name: &str) -> Problem {
        Problem::failed(format!("repository `{name}` does not exist in `{host}`")).help(format!(
            "create it with `--create-repository`, or by `aws ecr create-repository --repository-name {name} --region {}`",
            self.region
        ))
    }
}

/// A warning where the work can go on, else the problem.
fn tell(problem: Problem, goes_on: bool, session: &Session) -> Result<()> {
    if !goes_on {
        return Err(problem);
    }
    session.warn(&problem.in_one_line(), problem.next_step());
    Ok(())
}

/// What is known of a repository from its name alone.
fn unseen(host: &RegistryHost, name: &str) -> Repository {
    let (partition, region, account) = (host.partition(), host.region(), host.account());
    Repository {
        uri: format!("{host}/{name}"),
        name: name.to_owned(),
        arn: format!("arn:{partition}:ecr:{region}:{account}:repository/{name}"),
        created: false,
        tags: None,
        encryption: None,
    }
}

fn found(repository: aws_sdk_ecr::types::Repository) -> Repository {
    let mutability = repository.image_tag_mutability;
    let filters = repository.image_tag_mutability_exclusion_filters.unwrap_or_default();
    let encryption = repository.encryption_configuration;
    Repository {
        uri: repository.repository_uri.unwrap_or_default(),
        name: repository.repository_name.unwrap_or_default(),
        arn: repository.repository_arn.unwrap_or_default(),
        created: false,
        tags: Some(TagRule {
            immutable: matches!(
                mutability,
                Some(ImageTagMutability::Immutable | ImageTagMutability::ImmutableWithExclusion)
            ),
            except: filters.into_iter().map(|filter| filter.filter).collect(),
        }),
        encryption: Some(Encryption {
            kind: encryption.as_ref().map_or("AES256", |it| it.encryption_type.as_str()).to_owned(),
            key: encryption.and_then(|it| it.kms_key),
        }),
    }
}

#[cfg(test)]
mod tests;
