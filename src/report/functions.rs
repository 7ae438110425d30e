//! What is said of functions: the words of their steps, what became of them, and the plan of a dry run.

use std::time::Duration;

use crate::event::function::{DeployedFunction, FunctionPlan, FunctionStep};

use super::text::one_line;
use super::words::duration;

/// The verb of a step that begins, and what it is about.
pub(super) fn started(name: &str, step: FunctionStep, what: &str) -> (&'static str, String) {
    let digest = what.rsplit_once('@').map_or(what, |(_, digest)| digest);
    match step {
        FunctionStep::Create => ("Creating", format!("function {name} with {digest}")),
        FunctionStep::Code => ("Updating", format!("function {name} to {digest}")),
        FunctionStep::Publish => ("Publishing", format!("a version of function {name}")),
        FunctionStep::Alias => ("Pointing", format!("alias {what} of function {name}")),
    }
}

/// What is waited for, and for how long at most.
pub(super) fn waiting(name: &str, version: Option<&str>, doing: &str, elapsed: Duration, limit: Duration) -> String {
    let version = version.map(|version| format!("version {version} of ")).unwrap_or_default();
    format!("for {version}function {name}: {doing} ({} of {})", duration(elapsed), duration(limit))
}

/// What became of a function.
pub(super) fn updated(function: &DeployedFunction) -> (&'static str, String) {
    let verb = match function.steps.first() {
        None => "Fresh",
        Some(FunctionStep::Create) => "Created",
        Some(_) => "Deployed",
    };
    let version = function.version.as_ref().map(|version| format!(", version {version}")).unwrap_or_default();
    let alias = function.alias.as_ref().map(|alias| format!(", alias {alias}")).unwrap_or_default();
    (verb, format!("function {}{version}{alias}", function.name))
}

/// What would be done to a function, as data: a line a fact, as it is and as it would be.
pub(super) fn planned(plan: &FunctionPlan) -> String {
    let FunctionPlan { name, alias, current, next, steps } = plan;
    let fact = |name: &str, current: Option<String>, next: Option<String>, step: FunctionStep, unknown: &str| {
        let current = current.unwrap_or_else(|| "none".to_owned());
        match steps.contains(&step) {
            false => format!("  {name}  {current}, stays\n"),
            true => format!("  {name}  {current} -> {}\n", next.unwrap_or_else(|| unknown.to_owned())),
        }
    };
    let digest = |digest: &Option<crate::oci::Digest>| digest.map(|digest| digest.to_string());
    let is_new = steps.contains(&FunctionStep::Create);
    let code = if is_new { FunctionStep::Create } else { FunctionStep::Code };
    let mut text = format!("function {}{}\n", one_line(name), if is_new { ", to be created" } else { "" });
    text += &fact("image", digest(&current.digest), digest(&next.digest), code, "not known yet");
    if next.version.is_some() || steps.contains(&FunctionStep::Publish) {
        let (current, next) = (current.version.clone(), next.version.clone());
        text += &fact("version", current, next, FunctionStep::Publish, "a new one");
    }
    if let Some(alias) = alias {
        let (current, next) = (current.alias_version.clone(), next.alias_version.clone());
        text += &fact(&format!("alias {alias}"), current, next, FunctionStep::Alias, "the new version");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::function::FunctionFacts;
    use crate::oci::Digest;

    #[test]
    fn a_plan_is_a_line_a_fact() {
        use FunctionStep::{Alias, Code, Create, Publish};
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let facts = |digest, version: Option<&str>, alias_version: Option<&str>| FunctionFacts {
            digest,
            version: version.map(str::to_owned),
            alias_version: alias_version.map(str::to_owned),
        };
        for (alias, current, next, steps, expected) in [
            (
                Some("live"),
                facts(Some(old), Some("6"), Some("6")),
                facts(Some(new), None, None),
                vec![Code, Publish, Alias],
                format!(
                    "function f\n  image  {old} -> {new}\n  version  6 -> a new one\n  alias live  6 -> the new version\n"
                ),
            ),
            (
                Some("live"),
                facts(Some(new), Some("7"), Some("6")),
                facts(Some(new), Some("7"), Some("7")),
                vec![Alias],
                format!("function f\n  image  {new}, stays\n  version  7, stays\n  alias live  6 -> 7\n"),
            ),
            (
                None,
                facts(None, None, None),
                facts(None, None, None),
                vec![Create],
                "function f, to be created\n  image  none -> not known yet\n".to_owned(),
            ),
        ] {
            let alias = alias.map(str::to_owned);
            assert_eq!(planned(&FunctionPlan { name: "f".into(), alias, current, next, steps }), expected);
        }
    }

    #[test]
    fn steps_and_waits_are_said_in_few_words() {
        let uri = "host/a@sha256:12";
        assert_eq!(started("f", FunctionStep::Code, uri), ("Updating", "function f to sha256:12".into()));
        let alias = started("f", FunctionStep::Alias, "live to version 7");
        assert_eq!(alias, ("Pointing", "alias live to version 7 of function f".into()));
        let (elapsed, limit) = (Duration::from_secs(75), Duration::from_secs(720));
        let line = waiting("f", None, "InProgress", elapsed, limit);
        assert_eq!(line, "for function f: InProgress (1m 15s of 12m 00s)");
        assert_eq!(
            waiting("f", Some("7"), "Pending", elapsed, limit),
            "for version 7 of function f: Pending (1m 15s of 12m 00s)"
        );
        let mut function = DeployedFunction {
            name: "f".into(),
            arn: "arn".into(),
            image_uri: uri.into(),
            version: Some("7".into()),
            alias: Some("live".into()),
            steps: Vec::new(),
        };
        assert_eq!(updated(&function), ("Fresh", "function f, version 7, alias live".into()));
        function.steps = vec![FunctionStep::Create];
        assert_eq!(
            updated(&DeployedFunction { version: None, alias: None, ..function }),
            ("Created", "function f".into())
        );
    }
}
