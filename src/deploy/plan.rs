//! What has to be done to a function, for `--dry-run`: read calls only, and no waiting.

use futures_util::{StreamExt as _, stream};

use super::pass::newest_like;
use super::{AT_ONCE, Asked, Release, check};
use crate::aws::lambda::Lambda;
use crate::aws::lambda::function::{Alias, Function, LATEST};
use crate::event::function::{FunctionFacts, FunctionPlan, FunctionStep};
use crate::event::{Event, Session};
use crate::oci::Digest;
use crate::problem::{Result, together};

/// What is known of a function.
#[derive(Debug, Clone, Default, PartialEq)]
struct Seen {
    function: Option<Function>,
    /// The newest version that is like it.
    version: Option<String>,
    alias: Option<Alias>,
}

/// Tells what each function still needs to run the image of `digest`, absent if the image is not made yet.
///
/// # Errors
/// When a function cannot be looked at, or could not run the image.
pub async fn plan(asked: &[(Lambda, Asked, Option<Digest>)], session: &Session) -> Result<Vec<FunctionPlan>> {
    let all = asked.iter().map(async |(lambda, asked, digest)| {
        let seen = look(lambda, asked).await?;
        Ok(decide(asked, &seen, *digest))
    });
    let plans = together(stream::iter(all).buffered(AT_ONCE).collect().await, "functions")?;
    for ((_, asked, _), plan) in asked.iter().zip(&plans) {
        session.emit(&Event::FunctionPlanned { package: &asked.package, bin: &asked.bin, plan });
    }
    Ok(plans)
}

async fn look(lambda: &Lambda, asked: &Asked) -> Result<Seen> {
    let name = asked.function.for_api();
    let function = lambda.function(&name, None).await.map_err(|refusal| refusal.problem)?;
    let Some(function) = function else {
        return match asked.create {
            Some(_) => Ok(Seen::default()),
            None => Err(check::missing(&asked.function, lambda.region())),
        };
    };
    let mut seen = Seen { function: Some(function), ..Seen::default() };
    if asked.release != Release::Code {
        let versions = lambda.versions(&name).await.map_err(|refusal| refusal.problem)?;
        let latest = versions.iter().find(|version| version.number == LATEST);
        seen.version = latest.and_then(|latest| newest_like(latest, &versions));
    }
    if let Release::Alias(alias) = &asked.release {
        seen.alias = lambda.alias(&name, alias).await.map_err(|refusal| refusal.problem)?;
    }
    Ok(seen)
}

/// What is to be done to a function that is as `seen`.
fn decide(asked: &Asked, seen: &Seen, digest: Option<Digest>) -> FunctionPlan {
    let Seen { function, version, alias } = seen;
    let current = FunctionFacts {
        digest: function.as_ref().and_then(|function| function.image),
        version: version.clone(),
        alias_version: alias.as_ref().map(|alias| alias.version.clone()),
    };
    let mut steps = Vec::new();
    match function {
        None => steps.push(FunctionStep::Create),
        Some(function) if digest.is_some() && function.image == digest && function.failure().is_none() => {}
        Some(_) => steps.push(FunctionStep::Code),
    }
    let mut next = FunctionFacts { digest, ..FunctionFacts::default() };
    if asked.release != Release::Code {
        // What is not as it will be is like no version.
        next.version = version.clone().filter(|_| steps.is_empty());
        if next.version.is_none() {
            steps.push(FunctionStep::Publish);
        }
    }
    if asked.release.alias().is_some() {
        next.alias_version = next.version.clone();
        let stays = match (alias, &next.version) {
            (Some(alias), Some(version)) => alias.points_to(version),
            _ => false,
        };
        if !stays {
            steps.push(FunctionStep::Alias);
        }
    }
    let alias = asked.release.alias().map(str::to_owned);
    FunctionPlan { name: asked.function.name().to_owned(), alias, current, next, steps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::lambda::function::{LastUpdate, Overrides, Package, Reason, State};
    use crate::deploy::Create;
    use crate::platform::Architecture;

    fn function(image: Digest, state: State) -> Function {
        Function {
            arn: "arn".into(),
            version: LATEST.into(),
            package: Package::Image,
            architecture: Some(Architecture::Amd64),
            state,
            last_update: LastUpdate::Successful,
            overrides: Overrides::default(),
            image: Some(image),
            revision: None,
            role: None,
            code_sha256: None,
        }
    }

    fn seen(image: Digest, version: Option<&str>, alias: Option<&str>) -> Seen {
        let alias = alias.map(|version| Alias { version: version.into(), is_weighted: false, revision: None });
        Seen { function: Some(function(image, State::Active)), version: version.map(str::to_owned), alias }
    }

    #[test]
    fn each_fact_is_compared_and_brought_where_it_was_asked_to_be() {
        use FunctionStep::{Alias as MoveAlias, Code, Create as Make, Publish};
        let (ours, other) = (Digest::of(b"ours"), Digest::of(b"other"));
        let live = || Release::Alias("live".into());
        let failed = || Seen {
            function: Some(function(ours, State::Failed(Reason::default()))),
            ..seen(ours, Some("7"), Some("7"))
        };
        let weighted = || {
            let alias = Alias { version: "7".into(), is_weighted: true, revision: None };
            Seen { alias: Some(alias), ..seen(ours, Some("7"), None) }
        };
        for (release, seen, digest, steps, version) in [
            (Release::Code, seen(ours, None, None), Some(ours), vec![], None),
            (Release::Code, seen(other, None, None), Some(ours), vec![Code], None),
            (Release::Code, Seen::default(), Some(ours), vec![Make], None),
            (Release::Code, seen(other, None, None), None, vec![Code], None),
            (Release::Version, seen(ours, Some("7"), None), Some(ours), vec![], Some("7")),
            (Release::Version, seen(ours, None, None), Some(ours), vec![Publish], None),
            (Release::Version, seen(other, Some("6"), None), Some(ours), vec![Code, Publish], None),
            (live(), seen(ours, Some("7"), Some("7")), Some(ours), vec![], Some("7")),
            (live(), seen(ours, Some("7"), Some("6")), Some(ours), vec![MoveAlias], Some("7")),
            (live(), seen(ours, Some("7"), None), Some(ours), vec![MoveAlias], Some("7")),
            (live(), weighted(), Some(ours), vec![MoveAlias], Some("7")),
            (live(), seen(ours, None, Some("6")), Some(ours), vec![Publish, MoveAlias], None),
            (live(), seen(other, Some("6"), Some("6")), Some(ours), vec![Code, Publish, MoveAlias], None),
            (live(), failed(), Some(ours), vec![Code, Publish, MoveAlias], None),
            (live(), Seen::default(), None, vec![Make, Publish, MoveAlias], None),
        ] {
            let create = Create { role: "r".into(), memory_mb: None, timeout_seconds: None, env: Default::default() };
            let asked = Asked {
                package: "p".into(),
                bin: "b".into(),
                function: "f".parse().expect("a name"),
                create: Some(create),
                release: release.clone(),
            };
            let plan = decide(&asked, &seen, digest);
            assert_eq!((&plan.steps, plan.next.version.as_deref()), (&steps, version), "{release:?} {seen:?}");
            assert_eq!((plan.next.digest, plan.alias.as_deref()), (digest, release.alias()));
        }
    }
}
