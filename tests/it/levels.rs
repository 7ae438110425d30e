//! Flag, environment, the binary's table, the package's, the workspace's, default: which of them an image is made by.

use serde_json::{Value, json};

use crate::support::program::Program;
use crate::support::project::{AMD64, Project, members, package};

/// A workspace of two packages, the second with two binaries, whose settings overlap on every level.
fn workspace() -> Project {
    let root = r#"
        [workspace]
        members = ["api", "jobs"]
        resolver = "2"
        [workspace.metadata.lambda-image]
        base = "scratch"
        handler = "workspace"
        working-directory = "/workspace"
        compression-level = 0
        env = { A = "workspace", B = "workspace", C = "workspace", D = "workspace", E = "workspace" }
        assets = [{ path = "shared" }]
    "#;
    let jobs = r#"
        [package.metadata.lambda-image]
        handler = "package"
        entrypoint = ["/package"]
        env = { B = "package", C = "package", D = "package", E = "package" }
        assets = [{ path = "words" }]
        [package.metadata.lambda-image.bin.resize]
        handler = "bin"
        env = { C = "bin", D = "bin", E = "bin" }
    "#;
    let project = Project::new(&[
        ("Cargo.toml", root),
        ("shared/s", "s"),
        ("api/Cargo.toml", &package("api", "")),
        ("api/src/main.rs", "fn main() {}"),
        ("jobs/Cargo.toml", &package("jobs", jobs)),
        ("jobs/src/bin/resize.rs", "fn main() {}"),
        ("jobs/src/bin/sweep.rs", "fn main() {}"),
        ("jobs/words/w", "w"),
        ("typed/t", "t"),
    ]);
    project.write_program("out/resize", AMD64);
    project.write_program("out/sweep", AMD64);
    project.write_program("out/api", AMD64);
    project
}

fn run(build: Program) {
    let outcome = build.run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
}

#[test]
fn each_setting_is_that_of_the_nearest_level() {
    let project = workspace();
    let build = |bin: &str| project.build().args(["--binary-path", &format!("out/{bin}")]);

    run(build("api"));
    let api = project.image("api").config["config"].clone();
    let env = |pairs: &[&str]| pairs.iter().map(|pair| (*pair).to_owned()).collect::<Vec<_>>();
    assert_eq!(api["Cmd"], json!(["workspace"]));
    assert_eq!(api["WorkingDir"], "/workspace");
    assert_eq!(api["Entrypoint"], json!(["/var/task/bootstrap"]));
    let words = ["A=workspace", "B=workspace", "C=workspace", "D=workspace", "E=workspace"];
    assert_eq!(variables(&api), env(&words));

    run(build("sweep"));
    let sweep = project.image("sweep").config["config"].clone();
    assert_eq!((&sweep["Cmd"], &sweep["Entrypoint"]), (&json!(["package"]), &json!(["/package"])));
    assert_eq!(variables(&sweep), env(&["A=workspace", "B=package", "C=package", "D=package", "E=package"]));

    let asset = |bin: &str| members(&project.layout(), &project.image(bin).manifest);
    assert_eq!(asset("api"), ["var/task/shared/s", "var/task/bootstrap"]);
    assert_eq!(asset("sweep"), ["var/task/words/w", "var/task/bootstrap"], "lists replace each other");

    run(build("resize"));
    let resize = project.image("resize").config["config"].clone();
    assert_eq!(resize["Cmd"], json!(["bin"]));
    assert_eq!(variables(&resize), env(&["A=workspace", "B=package", "C=bin", "D=bin", "E=bin"]));

    let with_environment = |build: Program| {
        build
            .env("CARGO_LAMBDA_IMAGE_HANDLER", "variable")
            .env("CARGO_LAMBDA_IMAGE_WORKING_DIRECTORY", "/variable")
            .env("CARGO_LAMBDA_IMAGE_ENV", "D=variable\nE=variable")
            .env("CARGO_LAMBDA_IMAGE_ASSET", "typed:variable")
    };
    run(with_environment(build("resize")));
    let set = project.image("resize").config["config"].clone();
    assert_eq!((&set["Cmd"], &set["WorkingDir"]), (&json!(["variable"]), &json!("/variable")));
    assert_eq!(variables(&set), env(&["A=workspace", "B=package", "C=bin", "D=variable", "E=variable"]));
    let all = ["var/task/words/w", "var/task/variable/t", "var/task/bootstrap"];
    assert_eq!(asset("resize"), all, "assets of flags and variables are added");

    let flags = ["--handler", "flag", "--env", "E=flag", "--asset", "typed:flag"];
    run(with_environment(build("resize")).args(flags));
    let typed = project.image("resize").config["config"].clone();
    assert_eq!((&typed["Cmd"], &typed["WorkingDir"]), (&json!(["flag"]), &json!("/variable")));
    assert_eq!(variables(&typed), env(&["A=workspace", "B=package", "C=bin", "D=variable", "E=flag"]));
    assert_eq!(asset("resize"), ["var/task/words/w", "var/task/flag/t", "var/task/bootstrap"]);

    run(build("resize").args(["--no-assets", "--asset", "typed"]));
    assert_eq!(asset("resize"), ["var/task/typed/t", "var/task/bootstrap"]);
}

/// What a config sets besides what every image has.
fn variables(config: &Value) -> Vec<String> {
    let all = config["Env"].as_array().expect("variables").iter().filter_map(Value::as_str).map(str::to_owned);
    let mut ours: Vec<_> = all.filter(|pair| !pair.starts_with("LAMBDA_")).collect();
    ours.sort();
    ours
}
