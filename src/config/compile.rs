//! What cargo is told to compile, and for which architecture.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use crate::cargo::{CompileRequest, ExpectedBinary};
use crate::cli::values::{ColorArg, JobsArg};
use crate::cli::{BuildArgs, CompileArgs};
use crate::platform::Architecture;
use crate::problem::{Problem, Result};

use super::environment::Environment;
use super::outputs::in_actions;
use super::project::{Project, Selected, cargo_path, manifest_arguments};

/// The one run of cargo that makes all binaries.
///
/// # Errors
/// Binaries whose tables ask for different compiling commands.
pub(super) fn request(args: &BuildArgs, project: &Project, environment: &Environment) -> Result<CompileRequest> {
    let Project { selected, target_directory, .. } = project;
    let expected: Vec<ExpectedBinary> = selected
        .iter()
        .filter_map(|selected| {
            let (package, bin) = (selected.package.clone(), selected.bin.clone());
            Some(ExpectedBinary { package_id: selected.package_id.clone()?, package, bin })
        })
        .collect();
    Ok(CompileRequest {
        cargo: cargo_path(environment),
        subcommand: subcommand(args, selected)?,
        arguments: arguments(args, &expected),
        directory: environment.directory.clone(),
        target_directory: target_directory.clone(),
        expected,
        // Nobody else's lines may be commands to the runner, and errors are not to be folded away.
        is_heard: in_actions(environment),
    })
}

fn subcommand(args: &BuildArgs, selected: &[Selected]) -> Result<Vec<String>> {
    let mut commands: BTreeSet<&str> = BTreeSet::new();
    match &args.compile.cargo_build {
        Some(command) => commands.insert(command),
        None => {
            commands.extend(selected.iter().map(|one| one.settings.cargo_build.as_deref().unwrap_or("build")));
            true
        }
    };
    let commands: Vec<&str> = commands.into_iter().collect();
    match commands.as_slice() {
        [command] => Ok(command.split_whitespace().map(Into::into).collect()),
        commands => {
            Err(Problem::usage(format!("the binaries are compiled by different commands: {}", commands.join(", ")))
                .help("choose one with `--cargo-build CMD`, or build them one by one with `-p` or `--bin`"))
        }
    }
}

fn arguments(args: &BuildArgs, expected: &[ExpectedBinary]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut option = |flag: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        arguments.extend([flag.into(), value.as_ref().to_owned()]);
    };
    if let Some(path) = &args.manifest.manifest_path {
        option("--manifest-path", path);
    }
    for package in expected.iter().map(|expected| &expected.package).collect::<BTreeSet<_>>() {
        option("--package", package);
    }
    for bin in expected.iter().map(|expected| &expected.bin) {
        option("--bin", bin);
    }
    for features in &args.compile.features {
        option("--features", features);
    }
    if let Some(profile) = &args.compile.profile {
        option("--profile", profile);
    }
    if let Some(triple) = triple(&args.compile) {
        option("--target", &triple);
    }
    if let Some(directory) = &args.compile.target_dir {
        option("--target-dir", directory);
    }
    match args.compile.jobs {
        None => {}
        Some(JobsArg::Default) => option("--jobs", &"default"),
        // Cargo takes a negative number only so.
        Some(JobsArg::Count(count)) => arguments.push(format!("--jobs={count}").into()),
    }
    let CompileArgs { all_features, no_default_features, dev, profile, .. } = &args.compile;
    let flags = [
        ("--all-features", *all_features),
        ("--no-default-features", *no_default_features),
        // Images are for production, unlike most of what `cargo build` makes.
        ("--release", !dev && profile.is_none()),
        ("--quiet", args.talk.quiet),
    ];
    arguments.extend(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| (*flag).into()));
    arguments.extend(std::iter::repeat_n(OsString::from("--verbose"), args.talk.verbose.into()));
    arguments.extend(args.talk.color.map(|color| {
        OsString::from(match color {
            ColorArg::Auto => "--color=auto",
            ColorArg::Always => "--color=always",
            ColorArg::Never => "--color=never",
        })
    }));
    arguments.extend(manifest_arguments(&args.manifest));
    arguments
}

fn triple(compile: &CompileArgs) -> Option<String> {
    match compile {
        CompileArgs { arm64: true, .. } => Some(Architecture::Arm64.gnu_triple().into()),
        CompileArgs { x86_64: true, .. } => Some(Architecture::Amd64.gnu_triple().into()),
        CompileArgs { target, .. } => target.clone(),
    }
}

/// The architecture that the flags ask for.
pub(super) fn architecture(compile: &CompileArgs) -> Option<Architecture> {
    let triple = triple(compile)?;
    // A target specification's file name says as much as its author wished, so it is believed only when it fits.
    let name = Path::new(&triple).file_name()?.to_str()?.to_owned();
    Architecture::from_triple(&name)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::settings::Settings;
    use super::super::tests::{environment, typed};
    use super::super::{BinarySource, table::Table};
    use super::*;

    fn selected(package: &str, bin: &str, cargo_build: Option<&str>) -> Selected {
        let table = Table { cargo_build: cargo_build.map(Into::into), ..Table::default() };
        Selected {
            package: package.into(),
            version: None,
            cargo_lambda: Default::default(),
            package_id: Some(format!("id#{package}")),
            bin: bin.into(),
            source: BinarySource::Cargo,
            settings: Settings::of_table(&table, Path::new("/p")),
        }
    }

    #[test]
    fn one_run_of_cargo_makes_all_binaries_in_release() {
        let selected = vec![selected("a", "x", None), selected("a", "y", None), selected("b", "z", None)];
        let project = Project { root: "/p".into(), target_directory: "/t".into(), selected, complete: true };
        let request = request(&typed(&[]), &project, &environment(&[])).expect("nothing contradicts");
        assert_eq!(request.subcommand, ["build"]);
        assert_eq!(request.cargo, PathBuf::from("cargo"));
        let expected = "--package a --package b --bin x --bin y --bin z --release";
        assert_eq!(request.arguments.join(" ".as_ref()), expected);
        assert_eq!(request.expected[2].package_id, "id#b");
    }

    #[test]
    fn flags_of_cargo_are_passed_along() {
        for (flags, expected) in [
            (&["--dev"][..], "--bin b"),
            (&["--profile", "lambda"], "--bin b --profile lambda"),
            (&["--arm64"], "--bin b --target aarch64-unknown-linux-gnu --release"),
            (&["--target=x86_64-unknown-linux-musl"], "--bin b --target x86_64-unknown-linux-musl --release"),
            (&["-F", "a b", "--features=c"], "--bin b --features a b --features c --release"),
            (&["-j", "-2", "--no-default-features"], "--bin b --jobs=-2 --no-default-features --release"),
            (&["-vv", "--color=always", "--frozen"], "--bin b --release --verbose --verbose --color=always --frozen"),
            (&["-q", "--config", "a=1"], "--bin b --release --quiet --config a=1"),
            (&["--manifest-path", "x/Cargo.toml"], "--manifest-path x/Cargo.toml --bin b --release"),
        ] {
            let expected_binary = ExpectedBinary { package_id: "i".into(), package: "p".into(), bin: "b".into() };
            let arguments = arguments(&typed(flags), &[expected_binary]).join(" ".as_ref());
            assert_eq!(arguments.to_string_lossy().replace("--package p ", ""), expected, "{flags:?}");
        }
    }

    #[test]
    fn the_compiling_command_is_the_flags_or_everybodys() {
        let zig = || selected("a", "x", Some("zigbuild"));
        for (flags, selected, expected) in [
            (&[][..], vec![zig()], Some("zigbuild")),
            (&["--cargo-build", "lambda  build"], vec![zig(), selected("a", "y", None)], Some("lambda|build")),
            (&[], vec![zig(), selected("a", "y", None)], None),
        ] {
            let command = subcommand(&typed(flags), &selected).ok().map(|words| words.join("|"));
            assert_eq!(command.as_deref(), expected);
        }
    }

    #[test]
    fn the_architecture_is_that_of_the_triple() {
        for (flags, expected) in [
            (&[][..], None),
            (&["--arm64"], Some(Architecture::Arm64)),
            (&["--x86-64"], Some(Architecture::Amd64)),
            (&["--target", "aarch64-unknown-linux-gnu.2.34"], Some(Architecture::Arm64)),
            (&["--target", "targets/x86_64-mine.json"], Some(Architecture::Amd64)),
            (&["--target", "targets/mine.json"], None),
        ] {
            assert_eq!(architecture(&typed(flags).compile), expected, "{flags:?}");
        }
    }
}
