//! Whole images judged by the real program: our own, which break no rule, those of registries, and what is no image.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::docker_registry::DockerRegistry;
use crate::support::hello;
use crate::support::images::Family;
use crate::support::lambda_base::LambdaBase;
use crate::support::program::{Outcome, Program};
use crate::support::project::{AMD64, Project};
use crate::support::registry::{FaultRegistry, Ways};
use crate::support::specimen::{Specimen, Tape};

/// The findings of a run in JSON, as `CODE severity path`.
pub fn findings(outcome: &Outcome) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let lines = outcome.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"));
    let found = lines.filter(|line| line["reason"] == "finding");
    found.map(|it| format!("{} {} {}", word(&it["code"]), word(&it["severity"]), word(&it["path"]))).collect()
}

pub fn verify(directory: &Path, image: &str) -> Outcome {
    Program::verify(directory).args([image, "--message-format", "json"]).run()
}

#[test]
fn an_index_of_a_registry_is_named_with_the_digest_to_deploy() {
    let directory = TempDir::new().expect("a directory");
    let base = LambdaBase::new(Family::Docker);
    let registry = DockerRegistry::start();
    registry.push("lambda/provided", "al2023", &base);
    let image = format!("{}/lambda/provided:al2023", registry.address);
    let outcome = verify(directory.path(), &image);
    // A base alone starts nothing.
    let expected = ["L001 error -", "L055 error /var/runtime/bootstrap", "L054 warning -"];
    assert_eq!(findings(&outcome), expected, "{}", outcome.stdout);
    assert!(outcome.stdout.contains(&base.images[0].digest().to_string()), "{}", outcome.stdout);
    let by_digest = format!("{}/lambda/provided@{}", registry.address, base.images[0].digest());
    assert_eq!(findings(&verify(directory.path(), &by_digest)), expected[1..]);
}

#[test]
fn our_own_images_break_no_rule() {
    let target = TempDir::new().expect("a directory");
    LambdaBase::new(Family::Docker).write_layout(&target.path().join("base"));
    let base = format!("oci:{}:al2023", target.path().join("base").display());
    let json = ["--message-format", "json"];
    let outcome = hello::verify(target.path()).args(["--base", &base]).args(json).run();
    assert_eq!((findings(&outcome), outcome.code), (Vec::new(), 0), "{}{}", outcome.stdout, outcome.stderr);
    let verified = outcome.stdout.lines().find(|line| line.contains("image-verified")).expect("a summary");
    assert_eq!(serde_json::from_str::<Value>(verified).expect("JSON")["layers"], 4 + 2);

    // Read as anybody's, the same image is judged alike.
    let layout = format!("oci:{}:hello", hello::layout(target.path()).display());
    let outcome = verify(target.path(), &layout);
    assert_eq!((findings(&outcome), outcome.code), (Vec::new(), 0), "{}", outcome.stdout);
}

#[test]
fn an_image_that_is_there_is_judged_before_it_is_pushed() {
    let directory = TempDir::new().expect("a directory");
    let mut specimen = Specimen::good();
    specimen.add_bare(Tape::default().file("srv/words.txt", 0o644, b"words").file(".env", 0o644, b"KEY=1"));
    specimen.write(&directory.path().join("image"));
    specimen.write_below_index(&directory.path().join("index"), &[]);
    let registry = FaultRegistry::builder().repository("site").ways(Ways { ecr: true, ..Ways::default() }).start();
    let repository = format!("{}/site", registry.address);
    let push = |image: &str, flags: &[&str]| {
        let push = Program::push(directory.path()).judged().args(["--image", image, "--name", "site"]);
        push.args(["--repository", &repository, "--tag", "v1", "--message-format", "json"]).args(flags).run()
    };
    let both = ["L020 error /srv", "L072 error /.env"];
    for (image, flags, expected) in [
        ("oci:image", &[][..], &both[..]),
        ("oci:index", &[], &both),
        ("oci:image", &["--dry-run"], &both),
        ("oci:image", &["--allow", "L020"], &both[1..]),
        ("oci:image", &["--allow", "L020", "--allow-secrets", ".env", "--max-size", "10B"], &["L041 error -"]),
    ] {
        let outcome = push(image, flags);
        assert_eq!((findings(&outcome), outcome.code), (owned(expected), 3), "{flags:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("the checks refuse image `site`"), "{}", outcome.stderr);
    }
    let methods: Vec<_> = registry.requests().into_iter().map(|request| request.method).collect();
    assert!(methods.iter().all(|method| method.is_safe()), "nothing was sent: {methods:?}");
    assert!(registry.manifest("site", "v1").is_none());

    // The project's table counts, and warnings are none of a refusal.
    fs::write(directory.path().join("lambda-image.toml"), "allow = [\"L020\", \"L072\"]\n").expect("written");
    let outcome = push("oci:image", &["--no-digest-tag"]);
    assert_eq!((findings(&outcome), outcome.code), (owned(&[]), 0), "{}", outcome.stderr);
    assert!(registry.manifest("site", "v1").is_some());

    fs::remove_file(directory.path().join("lambda-image.toml")).expect("removed");
    let outcome = push("oci:image", &["--no-verify"]);
    assert_eq!((findings(&outcome), outcome.code), (owned(&[]), 0), "{}", outcome.stderr);
    let told = "is not checked, as `--no-verify` asks";
    assert!(outcome.stderr.contains(told) && outcome.stderr.contains("verify oci:image"), "{}", outcome.stderr);
}

#[test]
fn an_image_that_is_there_is_judged_by_the_projects_table_where_there_is_one() {
    let directory = TempDir::new().expect("a directory");
    let mut specimen = Specimen::good();
    specimen.add_bare(Tape::default().file("srv/words.txt", 0o644, b"words").file(".env", 0o644, b"KEY=1"));
    specimen.write(&directory.path().join("image"));
    let both = ["L020 error /srv", "L072 error /.env"];
    let judged = |expected: &[&str], code: i32| {
        let outcome = verify(directory.path(), "oci:image");
        assert_eq!((findings(&outcome), outcome.code), (owned(expected), code), "{}", outcome.stderr);
        outcome.stderr
    };
    judged(&both, 3);
    let table = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("written");
    table("lambda-image.toml", "allow = [\"L020\"]\nallow-secrets = [\".env\"]\n[bin.other]\ndeny = [\"L020\"]\n");
    judged(&[], 0);
    table("lambda-image.toml", "allow = [\"L020\"]\n[bin.image]\nallow = [\"L072\"]\n");
    judged(&both[..1], 3);
    table("lambda-image.toml", "allow = [\"L99\"]\n");
    let told = judged(&[], 2);
    assert!(told.contains("`L99` is no code of a rule") && told.contains("verify --explain all"), "{told}");

    fs::remove_file(directory.path().join("lambda-image.toml")).expect("removed");
    let package =
        "[package]\nname = \"site\"\n[lib]\npath = \"lib.rs\"\n[package.metadata.lambda-image]\nallow = [\"L020\"]\n";
    table("Cargo.toml", package);
    table("lib.rs", "");
    judged(&both[1..], 3);
    // What is no project says nothing of the image.
    table("Cargo.toml", "no manifest");
    judged(&both, 3);
}

pub fn owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(ToString::to_string).collect()
}

#[test]
fn builds_are_refused_before_slow_work_and_verified_with_a_whole_report() {
    let project = Project::new(&[
        ("lambda-image.toml", "base = \"scratch\"\nassets = [{ path = \"data\" }]\n"),
        ("data/pointer.bin", "not yet"),
    ]);
    project.write_program("app", AMD64);
    let build = || project.build().judged().args(["--binary-path", "app"]);
    build().succeed();
    let before = project.layout_files();

    let mut database = b"SQLite format 3\0\x10\0\x02\x02".to_vec();
    database.resize(512, 0);
    project.write("data/words.db", database);
    let outcome = build().args(["--deny", "warnings"]).run();
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error[L070]: a SQLite database that wants to write"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the checks refuse image `app`"), "{}", outcome.stderr);
    assert_eq!((outcome.stdout.as_str(), project.layout_files()), ("", before), "nothing was made");

    let verify = |flags: &[&str]| Program::verify(project.root()).args(["--binary-path", "app"]).args(flags).run();
    let outcome = verify(&[]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with("app: linux/amd64, 2 layers, "), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("warning[L070]") && outcome.stdout.ends_with("Found 1 warning.\n"));
    assert_eq!(verify(&["--deny", "warnings"]).code, 3);
    project.write("lambda-image.toml", "base = \"scratch\"\nassets = [{ path = \"data\" }]\nallow = [\"L070\"]\n");
    assert!(verify(&["--deny", "warnings"]).stdout.ends_with("Nothing found.\n"));

    let outcome = build().args(["--no-verify", "--deny", "warnings"]).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("is not checked, as `--no-verify` asks"), "{}", outcome.stderr);
}

#[test]
fn a_report_for_code_scanning_is_sarif_and_says_all_that_json_says() {
    let directory = TempDir::new().expect("a directory");
    let mut specimen = Specimen::good();
    specimen.add_bare(Tape::default().file("srv/a b%.txt", 0o644, b"words").file(".env", 0o644, b"KEY=1"));
    specimen.config["config"]["Env"] = serde_json::json!(["HF_HOME=/srv"]);
    specimen.write(&directory.path().join("image"));
    let found = findings(&verify(directory.path(), "oci:image"));
    assert_eq!(found, ["L020 error /srv", "L072 error /.env", "L073 note -"]);
    let outcome = Program::verify(directory.path()).args(["oci:image", "--message-format", "sarif"]).run();
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let results = report["runs"][0]["results"].as_array().expect("results");
    let told = results.iter().map(|it| format!("{} {}", it["ruleId"].as_str().expect("a code"), it["level"]));
    assert_eq!(told.collect::<Vec<_>>(), ["L020 \"error\"", "L072 \"error\"", "L073 \"note\""]);
}

#[test]
fn what_is_no_image_is_told() {
    let directory = TempDir::new().expect("a directory");
    fs::write(directory.path().join("text"), "hello").expect("written");
    for (image, code, said) in [
        ("oci:none", 2, "there is no directory"),
        ("docker-archive:text", 1, "could not read"),
        ("scratch", 2, "`scratch` is no image"),
        ("localhost:1/none:1", 1, "localhost:1"),
    ] {
        let outcome = verify(directory.path(), image);
        assert_eq!(outcome.code, code, "{image}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(said), "{image}: {}", outcome.stderr);
    }
    let outcome = Program::build(directory.path()).args(["--message-format", "sarif"]).run();
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
}
