//! One pass over a function: what is there is looked at, and what is missing is done, once.
//!
//! A refusal that passes ends the pass; the next one begins by looking again. Whether a change was heard whose answer
//! was lost need therefore not be known.

use std::time::{Duration, Instant};

use super::rest::{delays, unless_stopped};
use super::{Deployment, Patience, Release, check};
use crate::aws::lambda::function::{Function, LATEST, LastUpdate, Reason, State, Version};
use crate::aws::lambda::refusal::{Refusal, Why};
use crate::aws::lambda::{Answer, Lambda, NewFunction, reasons};
use crate::event::function::FunctionStep;
use crate::event::{Event, Session};
use crate::problem::{Problem, Result};

/// Looks at a function that was just changed before it counts as changed by another: answers may lag behind.
const MAX_LOOKS: usize = 6;

/// A function on its way to an image.
pub(super) struct Work<'a> {
    pub(super) lambda: &'a Lambda,
    pub(super) deployment: &'a Deployment,
    pub(super) patience: &'a Patience,
    /// For all changes together.
    pub(super) limit: Duration,
    pub(super) begun: Instant,
    pub(super) session: &'a Session,
    /// What was done.
    pub(super) steps: Vec<FunctionStep>,
}

/// Why a pass ended early.
pub(super) enum Stop {
    /// Another pass may do better.
    Again(Refusal),
    /// It cannot be done.
    Failed(Problem),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        match refusal.why {
            Why::Conflict | Why::Changed | Why::Passing | Why::RoleUnknown | Why::ImageUnknown => Self::Again(refusal),
            Why::Absent | Why::Other => Self::Failed(refusal.problem),
        }
    }
}

/// Where a pass ended that left nothing to do.
pub(super) struct End {
    pub(super) arn: String,
    pub(super) version: Option<String>,
}

/// The number of the newest version that is like `latest`.
pub(super) fn newest_like(latest: &Version, versions: &[Version]) -> Option<String> {
    let like = versions.iter().filter(|version| version.number != LATEST && version.is_like(latest));
    like.filter_map(|version| version.number.parse::<u64>().ok()).max().map(|number| number.to_string())
}

impl Work<'_> {
    pub(super) async fn pass(&mut self) -> Result<End, Stop> {
        let function = self.code().await?;
        let arn = function.arn.clone();
        let version = match &self.deployment.asked.release {
            Release::Code => {
                self.tell_of_sleep(&function);
                return Ok(End { arn, version: None });
            }
            Release::Version | Release::Alias(_) => self.version(&function).await?,
        };
        if let Release::Alias(alias) = &self.deployment.asked.release {
            self.alias(alias, &version).await?;
        }
        Ok(End { arn, version: Some(version) })
    }

    /// The function with our code, at rest.
    async fn code(&mut self) -> Result<Function, Stop> {
        let Deployment { asked, image } = self.deployment;
        let Some(seen) = self.at_rest(None).await? else { return self.create().await };
        check::suits(&asked.function, &seen, Some(image.architecture))?;
        // One that failed gets its code again, whatever it says it runs: nothing else heals it.
        if seen.image == Some(image.digest) && seen.failure().is_none() {
            return Ok(seen);
        }
        let (name, revision) = (asked.function.for_api(), seen.revision.as_deref());
        self.begin(FunctionStep::Code, &image.uri);
        self.done(FunctionStep::Code, self.lambda.update_code(&name, &image.uri, revision)).await?;
        self.arrived(Some(&seen)).await
    }

    async fn create(&mut self) -> Result<Function, Stop> {
        let Deployment { asked, image } = self.deployment;
        let create = asked.create.as_ref();
        let create = create.ok_or_else(|| check::missing(&asked.function, self.lambda.region()))?;
        let new = NewFunction {
            name: asked.function.for_api(),
            image_uri: image.uri.clone(),
            architecture: image.architecture,
            role: create.role.clone(),
            memory_mb: create.memory_mb,
            timeout_seconds: create.timeout_seconds,
            env: create.env.clone(),
        };
        self.begin(FunctionStep::Create, &image.uri);
        self.done(FunctionStep::Create, self.lambda.create(&new)).await?;
        self.arrived(None).await
    }

    /// The function once it runs our code. What it was `before` the change is not an answer to it.
    async fn arrived(&self, before: Option<&Function>) -> Result<Function, Stop> {
        let Deployment { asked, image } = self.deployment;
        let unseen = || {
            Problem::failed(format!("function `{}` is not seen to change", asked.function))
                .help("run this again, which goes on from here: nothing is sent twice")
        };
        let mut other = None;
        for delay in delays(self.patience).take(MAX_LOOKS) {
            match self.at_rest(None).await? {
                Some(function)
                    if function.revision.is_some() && Some(&function.revision) == before.map(|it| &it.revision) => {}
                Some(function) => {
                    if let Some(reason) = function.failure() {
                        return Err(self.failed(None, &function, reason).into());
                    }
                    if function.image == Some(image.digest) {
                        return Ok(function);
                    }
                    other = Some(function.image);
                }
                // One that was just made is not known everywhere at once.
                None => {}
            }
            self.sleep(delay, unseen).await?;
        }
        let runs = other.ok_or_else(unseen)?.map_or_else(|| "another image".to_owned(), |digest| digest.to_string());
        Err(Problem::failed(format!("function `{}` runs {runs}, and not {}", asked.function, image.digest))
            .because("Lambda took our image, and something else changed the function right after")
            .help("let only one of the two deploy the function, then run this again")
            .into())
    }

    /// The number of a version that is like the function, once it can be called.
    async fn version(&mut self, function: &Function) -> Result<String, Stop> {
        let name = self.deployment.asked.function.for_api();
        let version = match self.existing_version(function).await? {
            Some(version) => version,
            None => {
                self.begin(FunctionStep::Publish, &self.deployment.image.uri);
                let number = self.done(FunctionStep::Publish, self.lambda.publish(&name, function)).await?;
                let gone = || Problem::failed(format!("version {number} of function `{name}` was deleted meanwhile"));
                self.at_rest(Some(&number)).await?.ok_or_else(gone)?
            }
        };
        if let State::Failed(reason) = &version.state {
            return Err(self.failed(Some(&version.version), &version, reason).into());
        }
        self.tell_of_sleep(&version);
        Ok(version.version)
    }

    /// The newest version that is like the function and holds our code.
    async fn existing_version(&self, function: &Function) -> Result<Option<Function>, Stop> {
        let name = self.deployment.asked.function.for_api();
        let versions = unless_stopped(self.session, self.lambda.versions(&name)).await??;
        let Some(latest) = versions.iter().find(|version| version.number == LATEST) else { return Ok(None) };
        // A list that lags behind says nothing; publishing again makes no second version.
        if latest.code_sha256 != function.code_sha256 {
            return Ok(None);
        }
        let Some(number) = newest_like(latest, &versions) else { return Ok(None) };
        let version = self.at_rest(Some(&number)).await?;
        Ok(version.filter(|version| {
            version.image == Some(self.deployment.image.digest) && !matches!(version.state, State::Failed(_))
        }))
    }

    /// The alias to the version, made or moved if it is not there.
    async fn alias(&mut self, alias: &str, version: &str) -> Result<(), Stop> {
        let name = self.deployment.asked.function.for_api();
        let what = format!("{alias} to version {version}");
        match unless_stopped(self.session, self.lambda.alias(&name, alias)).await?? {
            Some(seen) if seen.points_to(version) => Ok(()),
            Some(seen) => {
                self.begin(FunctionStep::Alias, &what);
                self.done(FunctionStep::Alias, self.lambda.move_alias(&name, alias, version, &seen)).await?;
                if seen.is_weighted {
                    let function = &self.deployment.asked.function;
                    let message =
                        format!("alias `{alias}` of `{function}` sent a part of its calls to another version");
                    let help = format!("all of them go to version {version} now");
                    self.session.warn(&message, Some(&help));
                }
                Ok(())
            }
            None => {
                self.begin(FunctionStep::Alias, &what);
                self.done(FunctionStep::Alias, self.lambda.create_alias(&name, alias, version)).await
            }
        }
    }

    fn begin(&self, step: FunctionStep, what: &str) {
        let name = self.deployment.asked.function.name();
        self.session.emit(&Event::FunctionStarted { name, step, what });
    }

    /// Makes a change and notes that it was made.
    async fn done<T>(&mut self, step: FunctionStep, change: impl Future<Output = Answer<T>>) -> Result<T, Stop> {
        let answer = unless_stopped(self.session, change).await??;
        self.steps.push(step);
        Ok(answer)
    }

    /// Why a function failed and what to do about it.
    fn failed(&self, version: Option<&str>, function: &Function, reason: &Reason) -> Problem {
        let name = &self.deployment.asked.function;
        let message = match (version, &function.last_update) {
            (Some(version), _) => format!("version {version} of function `{name}` failed"),
            (None, LastUpdate::Failed(_)) if function.state == State::Active => {
                format!("Lambda could not bring function `{name}` to the image: what ran before still runs")
            }
            (None, _) => format!("function `{name}` failed with the image"),
        };
        let problem = Problem::failed(message).because(reason.shown());
        match reason.code.as_deref().and_then(reasons::fix) {
            Some(fix) => problem.help(fix),
            None => problem.help(format!("`aws lambda get-function --function-name {}` tells more", name.for_api())),
        }
    }

    /// Lambda puts away what nobody calls for weeks.
    fn tell_of_sleep(&self, function: &Function) {
        let State::Inactive(reason) = &function.state else { return };
        let name = &self.deployment.asked.function;
        let message = format!("function `{name}` is as asked, but put away by Lambda ({})", reason.shown());
        self.session.warn(&message, Some("its first call fails and wakes it, which takes some minutes"));
    }
}
