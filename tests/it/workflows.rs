//! The examples of `docs/ci.md`: what they say is understood, and their scripts do what they are for.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use cargo_lambda_image::cli;
use cargo_lambda_image::cli::values::ColorArg;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::composite::Composite;
use crate::support::docker_registry::DockerRegistry;
use crate::support::hello::{self, testdata};
use crate::support::markdown::{pages, read, repository};
use crate::support::node;
use crate::support::program::json as json_of;
use crate::support::runner::{Runner, html};
use crate::support::site::Site;
use crate::support::tools::{succeed, tool};
use crate::support::yaml;

/// What stands for the action in the examples.
const ACTION: &str = "OWNER/cargo-lambda-image@";

fn examples() -> Vec<PathBuf> {
    let listed = fs::read_dir(repository().join("docs/workflows")).expect("examples");
    let mut paths: Vec<_> = listed.map(|entry| entry.expect("an example").path()).collect();
    paths.sort();
    paths
}

/// All steps of a workflow.
fn steps(workflow: &Value) -> Vec<Value> {
    let jobs = workflow["jobs"].as_object().expect("jobs");
    jobs.values().flat_map(|job| job["steps"].as_array().expect("steps").clone()).collect()
}

/// The script of a step of an example, by its name.
fn script(example: &str, name: &str) -> String {
    let steps = steps(&yaml::read(format!("docs/workflows/{example}")));
    let step = steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no step `{name}`"));
    let script = step["run"].as_str().expect("a script").to_owned();
    assert!(!script.contains("${{"), "{script}");
    script
}

/// A script as the runner starts it where no shell is said.
fn bash(script: &str, directory: &TempDir) -> Command {
    let path = directory.path().join("script.sh");
    fs::write(&path, script).expect("written");
    let mut bash = Command::new(tool("bash"));
    bash.arg("-e").arg(path);
    bash
}

#[test]
fn what_the_examples_say_to_the_action_is_understood() {
    let mut seen = 0;
    for path in examples() {
        for step in steps(&yaml::read(&path)) {
            let Some(version) = step["uses"].as_str().and_then(|uses| uses.strip_prefix(ACTION)) else { continue };
            assert_eq!(version, concat!("v", env!("CARGO_PKG_VERSION")), "{}", path.display());
            seen += 1;
            let with = step["with"].as_object().expect("inputs").iter();
            let value = |value: &Value| {
                let text = value.as_str().expect("a text");
                if text.contains("${{") { "some".to_owned() } else { text.to_owned() }
            };
            let job = with.fold(Composite::observed(), |job, (input, text)| job.with(input, &value(text)));
            let ran = job.run(&job.path(""));
            let typed = ["cargo-lambda-image".to_owned()].into_iter().chain(job.arguments(&ran));
            let parsed = cli::parse(typed.map(Into::into), ColorArg::Never);
            assert!(parsed.is_ok(), "{}: {:?}", path.display(), parsed.err());
        }
    }
    assert_eq!(seen, 4);
    for page in pages() {
        for (at, _) in read(&page).match_indices(ACTION) {
            let version = &read(&page)[at + ACTION.len()..];
            assert!(version.starts_with(concat!("v", env!("CARGO_PKG_VERSION"))), "{}", page.display());
        }
    }
}

#[test]
fn our_own_workflow_finds_what_it_looks_for() {
    let workspace = TempDir::new().expect("a temporary directory");
    let project = hello::copy("hello", &workspace.path().join("testdata"));
    succeed(Command::new(env!("CARGO")).args(["fetch", "--quiet"]).current_dir(project));
    let steps = steps(&yaml::read(".github/workflows/ci.yml"));
    let at = steps.iter().position(|step| step["uses"] == "./").expect("a step that tries the action");
    let cargo = Composite::installed().provide("cargo", &format!("exec '{}' \"$@\"", env!("CARGO")));
    let home = std::env::var("CARGO_HOME").unwrap_or_else(|_| std::env::var("HOME").expect("a home") + "/.cargo");
    let with = steps[at]["with"].as_object().expect("inputs").iter();
    let job = with
        .fold(cargo.env("CARGO_HOME", home), |job, (input, value)| job.with(input, value.as_str().expect("a text")));
    let ran = job.run(workspace.path());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let check = |digest: &str| {
        let mut check = bash(steps[at + 1]["run"].as_str().expect("a script"), &workspace);
        check
            .env("DIGEST", digest)
            .env("IMAGES", &ran.outputs["images"])
            .output()
            .expect("bash starts")
            .status
            .success()
    };
    assert!(check(&ran.outputs["digest"]));
    assert!(!check("sha256:another"));
}

#[test]
fn the_page_tells_of_every_input_and_output_and_of_no_other() {
    let (page, action) = (read("docs/ci.md"), yaml::read("action.yml"));
    for (section, key) in [("Inputs", "inputs"), ("Outputs", "outputs")] {
        let (_, rest) = page.split_once(&format!("\n### {section}\n")).expect("the section");
        let rows = rest.split("\n#").next().unwrap_or_default().lines().filter_map(|line| line.strip_prefix("| `"));
        let told: Vec<_> = rows.map(|row| row.split('`').next().unwrap_or_default().to_owned()).collect();
        let mut is: Vec<_> = action[key].as_object().expect("an object").keys().cloned().collect();
        let mut sorted = told.clone();
        sorted.sort();
        is.sort();
        assert_eq!(sorted, is, "{section}");
    }
    for path in examples() {
        let name = path.strip_prefix(repository().join("docs")).expect("below docs").display().to_string();
        assert!(page.contains(&format!("]({name})")), "docs/ci.md does not link {name}");
    }
}

#[test]
fn the_matrix_is_of_every_binary_of_a_workspace() {
    let (directory, runner) = (TempDir::new().expect("a temporary directory"), Runner::new());
    let mut find = bash(&script("matrix.yml", "Find the binaries"), &directory);
    succeed(find.current_dir(testdata("workspace")).env("GITHUB_OUTPUT", runner.path("output")));
    let text = fs::read_to_string(runner.path("output")).expect("outputs");
    let found: Value = serde_json::from_str(text.strip_prefix("binaries=").expect("an output")).expect("JSON");
    let expected = ["count", "longest"].map(|name| json!({ "package": name, "bin": name }));
    assert_eq!(found, json!(expected));
}

#[test]
fn a_plan_becomes_a_comment_in_which_nothing_is_markdown() {
    let (directory, runner) = (TempDir::new().expect("a temporary directory"), Runner::new());
    let noted = directory.path().join("arguments");
    fs::create_dir(directory.path().join("bin")).expect("made");
    let gh = directory.path().join("bin/gh");
    fs::write(&gh, format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >\"{}\"\n", noted.display())).expect("written");
    fs::set_permissions(&gh, Permissions::from_mode(0o755)).expect("permissions");
    let canary = directory.path().join("canary");
    let plan = format!(
        "host/shop/site\n```\n</code></pre> <b>@user</b> $(touch {0}) `touch {0}` '; touch {0}\n\n# heading\n  at the end",
        canary.display()
    );
    let path = std::env::var("PATH").expect("a path");
    let mut comment = bash(&script("plan.yml", "Comment"), &directory);
    comment.env("PATH", format!("{}:{path}", directory.path().join("bin").display()));
    comment.env("RUNNER_TEMP", directory.path()).env("NUMBER", "12").env("PLAN", &plan);
    succeed(&mut comment);
    let body = directory.path().join("plan.md").display().to_string();
    let expected = ["pr", "comment", "12", "--body-file", &body, "--edit-last", "--create-if-none"];
    assert_eq!(fs::read_to_string(noted).expect("a call").lines().collect::<Vec<_>>(), expected);
    fs::copy(body, runner.path("summary")).expect("copied");
    let block = format!("<pre><code>{}\n</code></pre>\n", html(&plan));
    assert_eq!(runner.rendered(), format!("<p>A push of this would do:</p>\n{block}"));
    assert!(!canary.exists());
}

/// The example, carried out by a runner of GitLab's jobs, hands the variables on by GitLab's own rules.
#[test]
fn a_job_of_gitlab_pushes_and_the_next_one_reads_what_came_of_it() {
    let (registry, site) = (DockerRegistry::start(), Site::new());
    let uri = format!("{}/shop/site", registry.address);
    site.write(
        "lambda-image.toml",
        format!(
            "base = \"scratch\"\nhandler = \"a.b\"\nrepository = \"{uri}\"\nassets = [{{ path = \"notes.txt\" }}]\n"
        )
        .as_bytes(),
    );
    site.write(".gitlab-ci.yml", read("docs/gitlab-ci.yml").as_bytes());
    site.write(".gitignore", b"target\n");
    // The lock is committed, as the job holds it.
    site.build(&[]).env("CARGO_LAMBDA_IMAGE_NO_VERIFY", "true").succeed();
    let git = "git init -q . && git add -A && git -c user.name=a -c user.email=a@b commit -q -m first";
    succeed(Command::new(tool("bash")).args(["-c", git]).current_dir(site.project()));
    fs::remove_dir_all(site.project().join("target")).expect("removed");

    fs::create_dir(site.path("bin")).expect("made");
    let program = env!("CARGO_BIN_EXE_cargo-lambda-image");
    let installs = format!("[ \"$*\" != 'install --locked cargo-lambda-image' ] || exit 0\nexec '{program}' \"$@\"");
    let deploys = "printf '%s\\n' \"$*\" \"$IMAGE_URI\" \"$DIGEST\" \"$PUSHED_BYTES\" \"$SKIPPED_BYTES\" >\"$NOTED\"\n\
                   cp target/lambda-image/site.json \"$NOTED.json\"";
    for (name, script) in [("cargo", installs.as_str()), ("npx", deploys)] {
        let path = site.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\nset -eu\n{script}\n")).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("permissions");
    }
    let noted = site.path("noted");
    let mut gitlab = node::tool_of("gitlab-ci-local/dist/index.js");
    gitlab.args(["--force-shell-executor", "--shell-isolation", "--variable", "AWS_TOKEN=token"]);
    let path = format!("{}:{}", site.path("bin").display(), std::env::var("PATH").expect("a path"));
    gitlab
        .current_dir(site.project())
        .env_clear()
        .env("PATH", path)
        .env("HOME", site.path("home"))
        .env("NOTED", &noted);
    // What a binary would be made of is not there; and here each job has a directory of its own name.
    gitlab.env("CARGO_LAMBDA_IMAGE_NAME", "site");
    gitlab.env("CARGO_LAMBDA_IMAGE_NO_BINARY", "true").env("CARGO_LAMBDA_IMAGE_NO_VERIFY", "true");
    let printed = succeed(&mut gitlab);

    let result = json_of(&site.path("noted.json"));
    let (uri, digest) = (result["image_uri"].as_str().expect("a URI"), result["digest"].as_str().expect("a digest"));
    let size = result["size"].to_string();
    let read = fs::read_to_string(&noted).expect("what the second job saw");
    assert_eq!(read.lines().collect::<Vec<_>>(), ["serverless@3 deploy", uri, digest, &size, "0"]);
    assert!(printed.contains(&format!("deploying {uri}")), "{printed}");
    let mut skopeo = Command::new(tool("skopeo"));
    skopeo.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{uri}")]);
    assert_eq!(succeed(&mut skopeo).trim(), digest);
}
