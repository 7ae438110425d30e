//! What the log of a step shows: errors are never folded away, and annotations name what is to be mended.

use std::fs;

use crate::support::program::Outcome;
use crate::support::project::{AMD64, Project, package};
use crate::support::runner::{Runner, commands, unfolded};
use crate::support::site::Site;

/// The one error that is an annotation, which nothing hides.
fn error(outcome: &Outcome) -> String {
    let errors: Vec<_> = unfolded(&outcome.stderr).into_iter().filter(|line| line.starts_with("::error ")).collect();
    assert_eq!(errors.len(), 1, "{}", outcome.stderr);
    errors[0].to_owned()
}

#[test]
fn what_the_compiler_says_of_errors_is_seen_without_unfolding() {
    let source = "fn main() {\n    let count: u8 = \"many\";\n}\n";
    let project = Project::new(&[("Cargo.toml", &package("app", "")), ("src/main.rs", source)]);
    let runner = Runner::new();
    for (said, color) in [(&[][..], "auto"), (&[], "always"), (&["-q"], "auto"), (&["--message-format=json"], "auto")] {
        let build = project.build().args(["--base", "scratch", "--dev"]).args(said).env("CARGO_TERM_COLOR", color);
        let outcome = runner.step(build).run();
        assert_eq!(outcome.code, 101, "{}", outcome.stderr);
        let seen = unfolded(&outcome.stderr).join("\n");
        for word in ["mismatched types", "src/main.rs:2:21", "could not compile `app`"] {
            assert!(seen.contains(word), "`{word}` is to be seen: {}", outcome.stderr);
        }
        let error = error(&outcome);
        let begin = "::error title=cargo lambda-image::`cargo build` failed (exit status: 101)%0Aerror[E0308]: mismatched types%0A";
        assert!(error.starts_with(begin) && error.contains("src/main.rs:2:21"), "{error}");
        let groups = commands(&outcome.stderr).iter().filter(|line| line.starts_with("::group::")).count();
        assert_eq!(groups, usize::from(said != ["-q"]));
    }
}

#[test]
fn errors_of_every_phase_are_in_no_group() {
    let (site, runner) = (Site::new(), Runner::new());
    site.write(".env", b"SECRET=1");
    for (program, code, words) in [
        (site.build(&["gone"]), 2, "gone"),
        (site.build_on("localhost:1/no/base:here", &["notes.txt"]), 1, "localhost:1"),
        (site.build(&[".env"]), 3, ".env"),
        (site.push("localhost:1/app", &["notes.txt"]), 1, "localhost:1"),
    ] {
        let outcome = runner.step(program).run();
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
        let seen = unfolded(&outcome.stderr);
        assert!(
            seen.iter().any(|line| line.starts_with("::error ") && line.contains(words)),
            "`{words}` is to be seen: {}",
            outcome.stderr
        );
    }
}

#[test]
fn an_error_of_a_file_names_it() {
    let runner = Runner::new();
    let project = Project::new(&[("lambda-image.toml", "base = \"scratch\"\ntags = 1\n"), ("notes.txt", "notes")]);
    let file = |name: &str| project.path(name).display().to_string();
    let build = || project.build().args(["--no-binary", "--handler", "a.b", "--asset", "notes.txt"]);
    let begin = |name: &str| format!("::error title=cargo lambda-image,file={}::", file(name));
    let outcome = runner.step(build()).run();
    assert!(error(&outcome).starts_with(&begin("lambda-image.toml")), "{}", outcome.stderr);
    project.write("lambda-image.toml", "base = ");
    let outcome = runner.step(build()).run();
    assert!(error(&outcome).starts_with(&begin("lambda-image.toml")), "{}", outcome.stderr);
    project.write("lambda-image.toml", "base = \"scratch\"\n");
    project.write("lambda-image.lock", "<<<<<<< ours\n");
    let outcome = runner.step(build()).run();
    assert!(error(&outcome).starts_with(&begin("lambda-image.lock")), "{}", outcome.stderr);

    let manifest = package("app", "[package.metadata.lambda-image]\nhandler = [1]\n");
    let project = Project::new(&[("Cargo.toml", &manifest), ("src/main.rs", "fn main() {}")]);
    let outcome = runner.step(project.build()).run();
    let begin = format!("::error title=cargo lambda-image,file={}::", project.path("Cargo.toml").display());
    assert!(error(&outcome).starts_with(&begin), "{}", outcome.stderr);
}

#[test]
fn a_warning_is_an_annotation() {
    let (project, runner) = (Project::new(&[("lambda-image.toml", "base = \"scratch\"\ncolour = 1\n")]), Runner::new());
    project.write_program("app", AMD64);
    let outcome = runner.step(project.build().args(["--binary-path", "app"])).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let warnings: Vec<_> =
        commands(&outcome.stderr).into_iter().filter(|line| line.starts_with("::warning ")).collect();
    let file = project.path("lambda-image.toml");
    let expected = format!("::warning title=cargo lambda-image::unused key `colour` in `{}`", file.display());
    assert_eq!(warnings, [expected]);
}

#[test]
fn a_job_run_anew_with_debug_logging_tells_details() {
    let (site, runner) = (Site::new(), Runner::new());
    let build = |debug: &str, said: &[&str]| {
        let build = runner.step(site.build(&["notes.txt"])).env("RUNNER_DEBUG", debug).args(said);
        build.run().stderr
    };
    assert!(build("1", &[]).contains("    Resolved scratch"), "as `-v`");
    for (debug, said) in [("", &[][..]), ("0", &[]), ("1", &["-q"])] {
        assert!(!build(debug, said).contains("Resolved"), "{debug} {said:?}");
    }
    let outside = site.build(&["notes.txt"]).env("RUNNER_DEBUG", "1").run();
    assert!(!outside.stderr.contains("Resolved"), "{}", outside.stderr);
}

#[test]
fn a_log_in_a_file_holds_no_commands() {
    let (site, runner) = (Site::new(), Runner::new());
    let log = runner.path("log");
    let script = format!("exec \"$0\" \"$@\" 2>{}", log.display());
    let digest = runner.step(site.build(&["notes.txt"])).under("sh", ["-c", &script]).succeed()[0];
    let log = fs::read_to_string(&log).expect("a log");
    assert_eq!(commands(&log), [] as [&str; 0]);
    assert!(log.contains("Finished 1 image"), "{log}");
    assert_eq!(runner.outputs()["digest"], digest.to_string());
}
