//! Rules about the base image: runtimes that AWS gives up, and tags that move.

use super::findings::{Findings, Place};
use super::image::ImageFacts;
use super::merged::Merged;
use super::{rules, run};
use crate::layer::facts::Inside;

/// When AWS stops to maintain a runtime: the day the language or the system behind it gets no updates any more. AWS,
/// Lambda developer guide, "Lambda runtimes", as of 2026-10. Dates on Amazon Linux 2 moved in 2026
/// (aws-cloudformation/cfn-lint#4532); the runtimes that have passed are those of terraform-linters/tflint-ruleset-aws
/// too.
const RUNTIMES: [(&str, &str); 42] = [
    ("dotnet5.0", "2022-05-10"),
    ("dotnet6", "2024-12-20"),
    ("dotnet7", "2024-05-14"),
    ("dotnet8", "2026-11-10"),
    ("dotnet9", "2026-11-10"),
    ("dotnet10", "2028-11-14"),
    ("dotnetcore2.1", "2022-01-05"),
    ("dotnetcore3.1", "2023-04-03"),
    ("go1.x", "2024-01-08"),
    ("java8", "2024-01-08"),
    ("java8.al2", "2027-06-30"),
    ("java11", "2027-06-30"),
    ("java17", "2027-06-30"),
    ("java21", "2029-06-30"),
    ("java25", "2029-06-30"),
    ("nodejs10.x", "2021-07-30"),
    ("nodejs12.x", "2023-03-31"),
    ("nodejs14.x", "2023-12-04"),
    ("nodejs16.x", "2024-06-12"),
    ("nodejs18.x", "2025-09-01"),
    ("nodejs20.x", "2026-04-30"),
    ("nodejs22.x", "2027-04-30"),
    ("nodejs24.x", "2028-04-30"),
    ("provided", "2024-01-08"),
    ("provided.al2", "2026-07-31"),
    ("provided.al2023", "2029-06-30"),
    ("python2.7", "2021-07-15"),
    ("python3.6", "2022-07-18"),
    ("python3.7", "2023-12-04"),
    ("python3.8", "2024-10-14"),
    ("python3.9", "2025-12-15"),
    ("python3.10", "2026-10-31"),
    ("python3.11", "2027-06-30"),
    ("python3.12", "2028-10-31"),
    ("python3.13", "2029-06-30"),
    ("python3.14", "2029-06-30"),
    ("ruby2.5", "2021-07-30"),
    ("ruby2.7", "2023-12-07"),
    ("ruby3.2", "2026-03-31"),
    ("ruby3.3", "2027-03-31"),
    ("ruby3.4", "2028-03-31"),
    ("nodejs8.10", "2020-03-06"),
];

pub(super) fn check(image: &ImageFacts, merged: &Merged<'_>, findings: &mut Findings<'_>) {
    let today = findings.options.today.clone();
    if let Some(runtime) = runtime(image, merged)
        && let Some((_, last)) = RUNTIMES.iter().find(|(name, _)| *name == runtime)
        && !today.is_empty()
    {
        // Dates of this form sort as they follow one another.
        if *last < today.as_str() {
            findings.add(rules::DEPRECATED, Place::IMAGE, format!("`{runtime}` is deprecated since {last}"));
        } else if *last < half_a_year_after(&today).as_str() {
            findings.add(rules::ENDING, Place::IMAGE, format!("`{runtime}` is maintained until {last}"));
        }
    }
    if let Some(base) = image.base.as_ref().filter(|base| !base.pinned) {
        let message = format!("the base `{}` is what its tag meant today", base.reference.escape_debug());
        findings.add(rules::UNPINNED, Place::IMAGE, message);
    }
}

/// The date six months on; its day need not be one that month has.
fn half_a_year_after(date: &str) -> String {
    let mut parts = date.splitn(3, '-');
    let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok()).unwrap_or_default();
    let (year, month, day) = (number(), number(), number());
    let month = month + 6;
    let (year, month) = if month > 12 { (year + 1, month - 12) } else { (year, month) };
    format!("{year:04}-{month:02}-{day:02}")
}

/// The runtime of an image on one of AWS's bases, by AWS's name for it.
fn runtime(image: &ImageFacts, merged: &Merged<'_>) -> Option<String> {
    if let Some(named) = image.base.as_ref().and_then(|base| named(&base.reference)) {
        return Some(named);
    }
    if !run::starts_with_aws(image) {
        return None;
    }
    let mut paths = merged.tree.nodes().map(|(path, _)| path);
    if let Some(language) = paths.find_map(language) {
        return Some(language);
    }
    let node = merged.inside().find_map(|(path, inside)| match inside {
        Inside::Node(major) if path.starts_with("var/lang/") => Some(format!("nodejs{major}.x")),
        _ => None,
    });
    if node.is_some() || merged.tree.is_directory("var/lang/bin") {
        return node;
    }
    merged.inside().find_map(|(_, inside)| match inside {
        Inside::System(system) => match system.as_str() {
            "amzn 2018.03" => Some("provided".to_owned()),
            "amzn 2" => Some("provided.al2".to_owned()),
            "amzn 2023" => Some("provided.al2023".to_owned()),
            _ => None,
        },
        _ => None,
    })
}

/// The runtime by which AWS names a base: `public.ecr.aws/lambda/python:3.12.2026.01.10.20` is `python3.12`.
fn named(reference: &str) -> Option<String> {
    let rest = reference.rsplit_once("/lambda/")?.1;
    let rest = rest.split('@').next().unwrap_or(rest);
    let (name, tag) = rest.split_once(':')?;
    let known = |candidate: String| RUNTIMES.iter().any(|(name, _)| *name == candidate).then_some(candidate);
    let mut parts = tag.split(['.', '-']);
    let (first, second) = (parts.next()?, parts.next().unwrap_or_default());
    match name {
        "provided" => known(format!("provided.{first}")).or_else(|| (first == "alami").then(|| "provided".to_owned())),
        "nodejs" => known(format!("nodejs{first}.x")),
        "go" => Some("go1.x".to_owned()),
        // Java has runtimes of one version on two systems, which end on other days (aws/aws-lambda-roadmap#86).
        "java" if second == "al2" => known(format!("java{first}.al2")).or_else(|| known(format!("java{first}"))),
        "java" if second == "al2023" => known(format!("java{first}.al2023")),
        _ => known(format!("{name}{first}.{second}")).or_else(|| known(format!("{name}{first}"))),
    }
}

/// The runtime whose files lie at `path` in AWS's bases.
fn language(path: &str) -> Option<String> {
    let rest = path.strip_prefix("var/lang/")?;
    let is_version =
        |version: &str| version.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if let Some(python) = rest.strip_prefix("bin/python").filter(|version| version.contains('.') && is_version(version))
    {
        return Some(format!("python{python}"));
    }
    if let Some(ruby) = rest.strip_prefix("lib/ruby/").filter(|version| version.contains('.') && is_version(version)) {
        return Some(format!("ruby{}", ruby.rsplit_once('.')?.0));
    }
    let dotnet = rest.strip_prefix("bin/shared/Microsoft.NETCore.App/").filter(|version| is_version(version))?;
    Some(format!("dotnet{}", dotnet.split('.').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_known_by_reference_and_by_files() {
        for (reference, runtime) in [
            ("public.ecr.aws/lambda/provided:al2023", Some("provided.al2023")),
            ("public.ecr.aws/lambda/provided:al2-arm64@sha256:00", Some("provided.al2")),
            ("public.ecr.aws/lambda/python:3.9", Some("python3.9")),
            ("public.ecr.aws/lambda/python:3.12.2026.01.10.20", Some("python3.12")),
            ("public.ecr.aws/lambda/nodejs:18", Some("nodejs18.x")),
            ("public.ecr.aws/lambda/java:8.al2", Some("java8.al2")),
            ("public.ecr.aws/lambda/java:21-x86_64", Some("java21")),
            ("public.ecr.aws/lambda/java:17.al2", Some("java17")),
            ("public.ecr.aws/lambda/java:17.al2023", None),
            ("public.ecr.aws/lambda/dotnet:6", Some("dotnet6")),
            ("docker.io/library/python:3.9", None),
            ("public.ecr.aws/lambda/python:latest", None),
        ] {
            assert_eq!(named(reference).as_deref(), runtime, "{reference}");
        }
        for (path, runtime) in [
            ("var/lang/bin/python3.9", Some("python3.9")),
            ("var/lang/bin/python3", None),
            ("var/lang/bin/python3.9-config", None),
            ("var/lang/lib/ruby/3.2.0", Some("ruby3.2")),
            ("var/lang/bin/shared/Microsoft.NETCore.App/6.0.36", Some("dotnet6")),
            ("usr/bin/python3.9", None),
        ] {
            assert_eq!(language(path).as_deref(), runtime, "{path}");
        }
    }

    #[test]
    fn half_a_year_may_end_in_the_next() {
        for (date, later) in [("2026-11-23", "2027-05-23"), ("2026-06-30", "2026-12-30"), ("2026-01-01", "2026-07-01")]
        {
            assert_eq!(half_a_year_after(date), later);
        }
    }
}
