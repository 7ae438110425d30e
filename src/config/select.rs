//! Which packages and binaries of a workspace are meant, as `cargo build` would take the same flags.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{Metadata, Package, Target};
use globset::Glob;

use crate::cli::{BuildArgs, CompileArgs, SelectionArgs};
use crate::problem::{Problem, Result};

use super::suggest;

/// The packages that are selected, by name.
///
/// # Errors
/// A spec that matches none.
pub(super) fn packages<'a>(metadata: &'a Metadata, selection: &SelectionArgs) -> Result<Vec<&'a Package>> {
    let mut packages = if selection.workspace {
        metadata.workspace_packages()
    } else if selection.package.is_empty() {
        metadata.workspace_default_packages()
    } else {
        let all = metadata.workspace_packages();
        for spec in &selection.package {
            if !all.iter().any(|package| is_package(package, spec)) {
                let problem = Problem::usage(format!("no package `{spec}` in workspace `{}`", metadata.workspace_root));
                return Err(problem.help(choice(
                    spec,
                    &all.iter().map(|package| package.name.as_str()).collect::<Vec<_>>(),
                    "packages",
                )));
            }
        }
        all.into_iter().filter(|package| selection.package.iter().any(|spec| is_package(package, spec))).collect()
    };
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

/// The binaries that become images, in the order of package then binary.
///
/// # Errors
/// A package or binary that is not there, nothing to build, two binaries of one name.
pub(super) fn binaries<'a>(metadata: &'a Metadata, args: &BuildArgs) -> Result<Vec<(&'a Package, String)>> {
    let packages = packages(metadata, &args.selection)?;
    let mut binaries = Vec::new();
    for package in &packages {
        let mut names: Vec<&Target> = bins_of(package).collect();
        if names.is_empty() && args.selection.package.iter().any(|spec| !is_glob(spec) && is_package(package, spec)) {
            return Err(no_binary(&package.name));
        }
        if args.selection.bin.is_empty() {
            // As cargo does: what is not named is left out when its features are off.
            let features = active_features(package, &args.compile);
            names.retain(|target| target.required_features.iter().all(|feature| features.contains(feature.as_str())));
        } else {
            names.retain(|target| args.selection.bin.iter().any(|spec| matches(&target.name, spec)));
        }
        binaries.extend(names.into_iter().map(|target| (*package, target.name.clone())));
    }
    for spec in &args.selection.bin {
        if !binaries.iter().any(|(_, bin)| matches(bin, spec)) {
            return Err(no_such_bin(metadata, &packages, spec));
        }
    }
    if binaries.is_empty() {
        return Err(nothing_to_build(&packages));
    }
    binaries.sort_by(|(package, bin), (other, other_bin)| (&package.name, bin).cmp(&(&other.name, other_bin)));
    refuse_twins(&binaries)?;
    Ok(binaries)
}

/// The package whose tables apply to a binary that is there already.
///
/// # Errors
/// When it cannot be told.
pub(super) fn package_of_file<'a>(metadata: &'a Metadata, selection: &SelectionArgs, bin: &str) -> Result<&'a Package> {
    let selected = packages(metadata, selection)?;
    let everywhere = metadata.workspace_packages();
    let has_bin = |package: &&Package| bins_of(package).any(|target| target.name == bin);
    let with_bin = |packages: &[&'a Package]| packages.iter().copied().filter(has_bin).collect::<Vec<_>>();
    let explicit = selection.workspace || !selection.package.is_empty();
    let elsewhere = if explicit { Vec::new() } else { with_bin(&everywhere) };
    for candidates in [with_bin(&selected), elsewhere, selected.clone()] {
        if let [package] = candidates.as_slice() {
            return Ok(package);
        }
    }
    Err(too_many(&selected, &format!("none of them alone has a binary `{bin}`")))
}

/// A choice that only the user can make.
pub(super) fn too_many(packages: &[&Package], why: &str) -> Problem {
    let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    Problem::usage(format!("cannot choose between packages: {}", quoted(&names)))
        .because(why.to_owned())
        .help("choose with `-p PACKAGE`")
}

/// The binaries of a package.
pub(super) fn bins_of(package: &Package) -> impl Iterator<Item = &Target> {
    package.targets.iter().filter(|target| target.is_bin())
}

fn is_glob(spec: &str) -> bool {
    spec.contains(['*', '?', '['])
}

/// Cargo's `-p` and `--bin` take globs.
fn matches(name: &str, spec: &str) -> bool {
    name == spec || (is_glob(spec) && Glob::new(spec).is_ok_and(|glob| glob.compile_matcher().is_match(name)))
}

fn is_package(package: &Package, spec: &str) -> bool {
    let with_version = || {
        spec.split_once('@')
            .is_some_and(|(name, version)| package.name.as_str() == name && package.version.to_string() == version)
    };
    matches(&package.name, spec) || with_version() || package.id.repr == spec
}

/// The features of `package` that the flags turn on, with all they imply.
fn active_features(package: &Package, compile: &CompileArgs) -> BTreeSet<String> {
    if compile.all_features {
        return package.features.keys().cloned().collect();
    }
    let typed = compile.features.iter().flat_map(|list| list.split([',', ' ']));
    let mut open: Vec<String> =
        typed.filter(|feature| !feature.is_empty()).map(|feature| own(feature, package)).collect();
    if !compile.no_default_features {
        open.push("default".into());
    }
    let mut active = BTreeSet::new();
    while let Some(feature) = open.pop() {
        open.extend(
            package.features.get(&feature).into_iter().flatten().filter(|name| !active.contains(*name)).cloned(),
        );
        active.insert(feature);
    }
    active
}

/// A feature without the package's name, which may be written before it.
fn own(feature: &str, package: &Package) -> String {
    match feature.split_once('/') {
        Some((name, feature)) if name == package.name.as_str() => feature.into(),
        _ => feature.into(),
    }
}

fn no_such_bin(metadata: &Metadata, selected: &[&Package], spec: &str) -> Problem {
    let problem = Problem::usage(match selected {
        [package] => format!("no binary `{spec}` in package `{}`", package.name),
        _ => format!("no binary `{spec}` in the selected packages"),
    });
    let elsewhere = metadata.workspace_packages();
    let owner = elsewhere.iter().find(|package| bins_of(package).any(|target| target.name == spec));
    if let Some(owner) = owner {
        return problem.help(format!("package `{0}` has it: add `-p {0}`", owner.name));
    }
    let names = selected.iter().flat_map(|package| bins_of(package)).map(|target| target.name.as_str());
    problem.help(choice(spec, &names.collect::<Vec<_>>(), "binaries"))
}

fn nothing_to_build(packages: &[&Package]) -> Problem {
    let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let without: Vec<&Target> = packages.iter().flat_map(|package| bins_of(package)).collect();
    if let [first, ..] = without.as_slice() {
        return Problem::usage(format!("the features that binary `{}` requires are off", first.name))
            .help(format!("turn them on with `--features {}`", first.required_features.join(",")));
    }
    match names.as_slice() {
        [name] => no_binary(name),
        names => Problem::usage(format!("no package has a binary: {}", quoted(names)))
            .help("choose another with `-p PACKAGE`, or build an image of assets with `--no-binary`"),
    }
}

/// A package that makes nothing to run.
pub(super) fn no_binary(package: &str) -> Problem {
    Problem::usage(format!("package `{package}` has no binary"))
        .help("add `src/main.rs` or a `[[bin]]`, or build an image of its assets with `--no-binary`")
}

/// An image is named by its binary, so there cannot be two of one name.
fn refuse_twins(binaries: &[(&Package, String)]) -> Result<()> {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (package, bin) in binaries {
        if let Some(other) = owners.insert(bin, &package.name) {
            let both = quoted(&[other, &package.name]);
            return Err(Problem::usage(format!("binary `{bin}` is in more than one package: {both}"))
                .because("an image is named by its binary")
                .help("choose with `-p PACKAGE` or `--bin NAME`"));
        }
    }
    Ok(())
}

fn choice(wrong: &str, names: &[&str], what: &str) -> String {
    match suggest(wrong, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are the {what} {}", quoted(names)),
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
