//! What the runner of GitHub Actions reads.

use super::{PLAIN, image, printed, report};
use crate::event::Event;
use crate::event::run::{Hidden, Phase};
use crate::finding::{Finding, Severity};
use crate::problem::{Exit, Problem};
use crate::report::{Format, Look};

const ACTIONS: Look = Look { tame: true, commands: true, ..PLAIN };

fn finding(severity: Severity) -> Finding {
    Finding {
        code: "L020",
        severity,
        title: "a title",
        layer: None,
        path: Some("/a,b".into()),
        message: "100%".into(),
        why: "because",
        help: "do it".into(),
    }
}

#[test]
fn what_everybody_wants_to_see_is_in_no_group() {
    let image = image();
    let (error, warning) = (finding(Severity::Error), finding(Severity::Warning));
    let found = |finding| Event::Found { package: "shop", bin: "thumbnailer", finding };
    let events = [
        Event::PhaseStarted { phase: Phase::Base },
        Event::SecretLearned { secret: Hidden::new("a%b") },
        Event::BaseResolving { reference: "##[error]a" },
        found(&warning),
        found(&error),
        Event::PhaseStarted { phase: Phase::Layers },
        Event::Warning { message: "::a", help: Some("do") },
        Event::ImageBuilt { image: &image },
    ];
    let (stdout, stderr) = printed(ACTIONS, &events);
    assert_eq!(stdout, format!("{}\n", image.digest));
    let lines: Vec<_> = stderr.lines().collect();
    let expected = [
        "::group::Base image and checks",
        "::add-mask::a%25b",
        "   Resolving ##\\u{5b}error]a",
        "::warning title=L020::a title: 100%25 (/a,b)%0Ahelp: do it",
        "::endgroup::",
        "::error title=L020::a title: 100%25 (/a,b)%0Ahelp: do it",
        "::group::Layers",
        "::warning title=cargo lambda-image::\\u{3a}:a%0Ahelp: do",
        "::endgroup::",
        "       Built thumbnailer for linux/amd64",
    ];
    assert_eq!(lines[..expected.len()], expected);

    let (_, quiet) = printed(Look { quiet: true, ..ACTIONS }, &events);
    assert_eq!(quiet, "::add-mask::a%25b\n");
    // The runner does not read files, and a secret would stay there.
    let (_, file) = printed(Look { commands: false, ..ACTIONS }, &events);
    assert!(!file.contains("a%") && !file.lines().any(|line| line.starts_with("::")), "{file}");
}

#[test]
fn what_cargo_said_of_errors_is_said_again_behind_its_group() {
    let lines = ["   Compiling a v1.0.0", "error[E0425]: no `x`", " --> src/main.rs:1:2", "", "::error::b"];
    let told = || Problem::new(Exit::Cargo, "`cargo build` failed").already_told();
    let run = |look: Look| {
        let (report, _, stderr) = report(look);
        report.shared.talk.event(&Event::PhaseStarted { phase: Phase::Compile });
        lines.iter().for_each(|line| report.shared.talk.event(&Event::CargoSaid { line }));
        let _ = report.conclude(Err(told()));
        stderr.text()
    };
    let said = "error[E0425]: no `x`\n --> src/main.rs:1:2\n\n\\u{3a}:error::b\n";
    let first = "`cargo build` failed%0Aerror[E0425]: no `x`%0A --> src/main.rs:1:2";
    let annotation = format!("::error title=cargo lambda-image::{first}\n");
    assert_eq!(
        run(ACTIONS),
        format!("::group::Compile\n   Compiling a v1.0.0\n{said}::endgroup::\n{said}{annotation}")
    );
    assert_eq!(run(Look { quiet: true, ..ACTIONS }), format!("   Compiling a v1.0.0\n{said}{annotation}"));
    assert_eq!(run(Look { commands: false, ..ACTIONS }), format!("   Compiling a v1.0.0\n{said}"));
}

#[test]
fn a_failure_is_an_annotation_behind_its_group_and_of_its_file() {
    let (report, stdout, stderr) = report(Look { format: Format::Json, ..ACTIONS });
    report.shared.talk.event(&Event::PhaseStarted { phase: Phase::Base });
    let problem = Problem::usage("no ##[such] `a`").because(std::io::Error::other("gone\n::b"));
    let _ = report.conclude(Err(problem.help("create it").in_file("/w/a,b.toml").context("could not")));
    let expected = "::group::Base image and checks\n::endgroup::\n\
                    ::error title=cargo lambda-image,file=/w/a%2Cb.toml::could not%0A%0ACaused by:%0A  0: no ##\\u{5b}such] `a`\
                    %0A  1: gone%0A     \\u{3a}:b%0A%0Ahelp: create it\n";
    assert_eq!(stderr.text(), expected);
    assert!(stdout.text().contains(r#""no ##\u005bsuch] `a`""#), "{}", stdout.text());
}
