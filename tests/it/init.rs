//! First configurations: what is found, what is written, and that nothing that was there changes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::{Value, json};

use crate::support::program::{Outcome, Program};
use crate::support::project::{AMD64, Project, files_below, package};

const TABLE: &str = "package.metadata.lambda-image";

fn init(project: &Project, arguments: &[&str]) -> Outcome {
    Program::of("init", project.root()).args(arguments).run()
}

fn succeed(project: &Project, arguments: &[&str]) -> String {
    let outcome = init(project, arguments);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, ""), "{}", outcome.stderr);
    outcome.stderr
}

fn refused(project: &Project, arguments: &[&str], code: i32, texts: &[&str]) {
    let before = files_below(project.root());
    let outcome = init(project, arguments);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (code, ""), "{arguments:?}: {}", outcome.stderr);
    for text in texts {
        assert!(outcome.stderr.contains(text), "{arguments:?}: no `{text}` in {}", outcome.stderr);
    }
    assert!(outcome.stderr.contains("\nhelp: "), "{arguments:?}: no help in {}", outcome.stderr);
    assert_eq!(files_below(project.root()), before, "{arguments:?}: nothing changed");
}

fn toml(project: &Project, path: &str) -> Value {
    toml::from_str(&fs::read_to_string(project.path(path)).expect("a file")).expect("TOML")
}

#[test]
fn data_and_cargo_lambdas_settings_become_a_table_that_build_takes() {
    let lambda = r#"   # two spaces,  and a comment
[package.metadata.lambda.deploy]
include = ["./templates", "words/list.txt:words.txt"]
memory = 512
env = { MODE = "fast" }
[package.metadata.lambda.bin.app.deploy]
timeout = 60"#;
    let project = Project::new(&[
        ("Cargo.toml", &package("app", lambda)),
        ("src/main.rs", "fn main() {}"),
        ("templates/index.html", "x"),
        ("words/list.txt", "x"),
        ("models/bert/config.json", "{}"),
        ("notes.txt", "small"),
        ("small.db", "a sample"),
    ]);
    let large = vec![0; 100_000];
    for path in [
        "words.sqlite3",
        "models/bert/v1/a.onnx",
        "models/bert/v2/b.onnx",
        "tests/big.db",
        "target/x.bin",
        ".git/x.pack.bin",
        "other/big.bin",
        "templates/pictures.bin",
    ] {
        project.write(path, &large);
    }
    project.write("other/Cargo.toml", "[workspace]\n");
    let sparse = fs::File::create(project.path("weights")).expect("made");
    sparse.set_len(20 << 20).expect("grown");
    let before = fs::read_to_string(project.path("Cargo.toml")).expect("read");
    fs::rename(project.path("Cargo.toml"), project.path("real.toml")).expect("moved");
    symlink("real.toml", project.path("Cargo.toml")).expect("linked");
    fs::set_permissions(project.path("real.toml"), Permissions::from_mode(0o640)).expect("permissions");

    let said = succeed(&project, &[]);
    for text in ["Found models/bert (2 files, 195.3 KiB)", "Found words.sqlite3 (97.6 KiB)", "Added the table"] {
        assert!(said.contains(text), "no `{text}` in {said}");
    }
    let after = fs::read_to_string(project.path("real.toml")).expect("read");
    assert!(after.starts_with(&format!("{before}\n\n[{TABLE}]\n")), "{after}");
    assert!(project.path("Cargo.toml").is_symlink());
    assert_eq!(fs::metadata(project.path("real.toml")).expect("stat").permissions().mode() & 0o777, 0o640);
    assert_eq!(
        toml(&project, "Cargo.toml")["package"]["metadata"]["lambda-image"],
        json!({
            "base": "public.ecr.aws/lambda/provided:al2023",
            "memory": 512,
            "env": {"MODE": "fast"},
            "assets": [
                {"path": "./templates"},
                {"path": "words/list.txt", "to": "words.txt"},
                {"path": "models/bert"},
                {"path": "weights"},
                {"path": "words.sqlite3"},
            ],
            "bin": {"app": {"timeout": 60}},
        })
    );

    project.write_program("app", AMD64);
    let built = project.build().args(["--binary-path", "app", "--base", "scratch"]).run();
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(!built.stderr.contains("warning"), "every key is known: {}", built.stderr);
    refused(&project, &[], 2, &["`app` has settings of cargo lambda-image already"]);
}

#[test]
fn a_workflow_goes_to_the_repositorys_root_and_one_that_is_there_stays() {
    let project = Project::new(&[
        (".git/HEAD", ""),
        ("Cargo.toml", "[workspace]\nmembers = [\"api\", \"jobs\"]\nresolver = \"3\"\n"),
        ("api/Cargo.toml", &package("api", "")),
        ("api/src/main.rs", "fn main() {}"),
        ("jobs/Cargo.toml", &package("jobs", "")),
        ("jobs/src/main.rs", "fn main() {}"),
    ]);
    refused(&project, &["--workflow"], 2, &["cannot choose between packages: `api`, `jobs`", "-p PACKAGE"]);
    refused(&project, &["-p", "apis"], 2, &["no package `apis`", "did you mean `api`?"]);
    succeed(&project, &["-p", "api", "--workflow"]);
    let path = ".github/workflows/lambda-image.yml";
    let text = fs::read_to_string(project.path(path)).expect("a workflow");
    assert!(text.ends_with("run: cargo lambda-image push\n        working-directory: \"api\"\n"), "{text}");
    refused(&project, &["-p", "jobs", "--workflow"], 2, &[path, "is there already"]);
    assert!(toml(&project, "jobs/Cargo.toml")["package"].get("metadata").is_none());
    // A table that is there is no reason to go without a workflow.
    fs::remove_file(project.path(path)).expect("removed");
    let table = fs::read(project.path("api/Cargo.toml")).expect("read");
    succeed(&project, &["-p", "api", "--workflow"]);
    assert_eq!(fs::read_to_string(project.path(path)).expect("a workflow"), text);
    assert_eq!(fs::read(project.path("api/Cargo.toml")).expect("read"), table);
}

#[test]
fn what_the_workspace_says_holds_for_a_package_of_it() {
    let workspace = r#"[workspace]
members = ["crates/api"]
resolver = "3"
[workspace.metadata.lambda-image]
base = "scratch"
[workspace.metadata.lambda.deploy]
memory = 512
timeout = 30
include = ["shared.txt"]
[workspace.metadata.lambda.bin.api.deploy]
memory = 1024
[workspace.metadata.lambda.bin."api.v2".deploy]
memory = 256
"#;
    let project = Project::new(&[
        ("Cargo.toml", workspace),
        ("shared.txt", "x"),
        ("crates/api/Cargo.toml", &package("api", "[package.metadata.lambda.deploy]\ntimeout = 60\n")),
        ("crates/api/src/main.rs", "fn main() {}"),
        ("crates/api/src/bin/api.v2.rs", "fn main() {}"),
    ]);
    succeed(&project, &["-p", "api"]);
    assert_eq!(
        toml(&project, "crates/api/Cargo.toml")["package"]["metadata"]["lambda-image"],
        json!({
            "memory": 512,
            "timeout": 60,
            "assets": [{"path": "../../shared.txt", "to": "shared.txt"}],
            "bin": {"api": {"memory": 1024}, "api.v2": {"memory": 256}},
        }),
        "a base of the package's own would hide the workspace's"
    );
    project.write_program("app", AMD64);
    let built = project.build().args(["-p", "api", "--binary-path", "app", "--bin", "api"]).run();
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(!built.stderr.contains("warning"), "every key is known: {}", built.stderr);
}

#[test]
fn a_node_project_has_a_file_of_its_own() {
    let project = Project::within("shop", &[("package.json", "{}"), ("node_modules/m/index.js", "m")]);
    project.write("database.sqlite3", vec![0; 100_000]);
    succeed(&project, &[]);
    assert_eq!(
        toml(&project, "lambda-image.toml"),
        json!({
            "base": "public.ecr.aws/lambda/nodejs:22",
            "assets": [{"path": "node_modules"}, {"path": "database.sqlite3"}],
        })
    );
    let built =
        project.build().args(["--no-binary", "--base", "scratch", "--entrypoint", "/x", "--handler", "h"]).run();
    assert_eq!(built.code, 0, "{}", built.stderr);
    refused(&project, &[], 2, &["`shop` has settings of cargo lambda-image already"]);
}

#[test]
fn what_cannot_be_extended_is_left_as_it_is() {
    let inline = "metadata = { other = 1 }\n";
    let project = Project::new(&[("Cargo.toml", &package("app", inline)), ("src/main.rs", "fn main() {}")]);
    refused(&project, &[], 2, &["could not add a table to `", "[package.metadata]", "base = \"public.ecr.aws"]);
    project.write("Cargo.toml", "[package\n");
    refused(&project, &[], 101, &["unclosed table", "Cargo.toml:1:9"]);
    project.write("Cargo.toml", package("app", ""));
    fs::rename(project.path("src/main.rs"), project.path("src/lib.rs")).expect("moved");
    refused(&project, &[], 2, &["package `app` has no binary", "src/main.rs"]);
}
