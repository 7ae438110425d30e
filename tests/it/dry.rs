//! What only looks: `push --dry-run`, `update --dry-run` and `outdated` tell what would be done, and write nothing.

use std::fs;
use std::process::Command;

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::images::{Family, TestImage, noise};
use crate::support::lambda_base::LambdaBase;
use crate::support::program::{Outcome, Program};
use crate::support::project::{Project, files_below, package};
use crate::support::read_only::ReadOnly;
use crate::support::registry::{FaultRegistry, Mounts, Ways};
use crate::support::site::Site;
use crate::support::tools::{succeed, tool};

fn ecr() -> Ways {
    Ways { ecr: true, ..Ways::default() }
}

fn succeeded(outcome: Outcome) -> Outcome {
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome
}

/// A project without Cargo whose one image has a base and two assets.
fn project(base: &str) -> Project {
    let config =
        format!("base = \"{base}\"\nhandler = \"a.b\"\nassets = [{{ path = \"x.db\" }}, {{ path = \"model\" }}]\n");
    let project = Project::new(&[("lambda-image.toml", &config), ("x.db", "rows")]);
    project.write("model", noise(100_000));
    project
}

/// The program, with nothing that it could write to but what is given to it.
fn looking(project: &Project, command: &str) -> Program {
    let program = Program::of(command, project.root());
    program.env("TMPDIR", project.root()).env("HOME", project.root())
}

#[test]
fn nothing_is_written_anywhere() {
    let image = TestImage::new(Family::Oci, "amd64");
    let bases = FaultRegistry::builder().image("base", "1", &image).start();
    let registry = FaultRegistry::builder().repository("app").ways(ecr()).start();
    let (base, repository) = (format!("{}/base:1", bases.address), format!("{}/app", registry.address));
    let project = project(&base);
    // Its layer is not compressed: it would be packed and kept.
    let site = Site::new();
    site.build(&["notes.txt"]).succeed();
    let mut skopeo = Command::new(tool("skopeo"));
    skopeo.arg("copy").arg(format!("oci:{}:site", site.layout().display()));
    succeed(skopeo.arg(format!("docker-archive:{}:shop/base:v1", project.path("saved.tar").display())));
    let archive = format!("docker-archive:{}", project.path("saved.tar").display());

    let push = |base: &str| {
        let push = looking(&project, "push").args(["--no-binary", "--base", base, "--repository", &repository]);
        push.args(["--tag", "v1", "--no-verify", "--dry-run", "--message-format", "json"])
    };
    let steps = |outcome: &Outcome| -> Vec<Value> {
        let plan = &outcome.messages("push-planned")[0];
        plan["layers"].as_array().expect("layers").iter().map(|layer| layer["step"].clone()).collect()
    };
    let look_at_all = |known: bool| {
        let before = files_below(project.root());
        let read_only = ReadOnly::new(project.root());
        let planned = succeeded(push(&base).run());
        // What was built is here.
        let base_step = if known { "upload" } else { "relay" };
        assert_eq!(steps(&planned), [base_step, base_step, "upload", "upload"]);
        let plan = &planned.messages("push-planned")[0];
        assert_eq!(plan["digest"].is_string(), known, "{plan}");
        assert_eq!(plan["layers"][2]["at_most"], !known);
        assert_eq!(plan["tags"][0], json!({"tag": "v1", "digest": null, "step": "create", "immutable": false}));
        assert_eq!(steps(&succeeded(push(&archive).run())), ["upload"; 3]);
        let image = looking(&project, "push").args(["--image", &archive, "--repository", &repository, "--dry-run"]);
        let image = succeeded(image.arg("--no-verify").run()).stdout;
        assert!(image.starts_with(&format!("image saved -> {repository}\n")), "{image}");
        if known {
            assert_eq!(succeeded(looking(&project, "outdated").run()).stdout, "");
        }
        succeeded(looking(&project, "update").arg("--dry-run").run());
        let renewed = succeeded(looking(&project, "update").args(["x.db", "--dry-run"]).run()).stdout;
        assert_eq!(renewed, if known { "" } else { "layer `/var/task/x.db`: is added\n" });
        drop(read_only);
        assert_eq!(files_below(project.root()), before);
    };
    look_at_all(false);
    assert!(!project.path("target").exists());
    project.build().args(["--no-binary", "--no-verify"]).succeed();
    look_at_all(true);

    // Whatever was asked of the registry was a question.
    let asked = registry.requests();
    assert!(asked.iter().all(|it| [Method::GET, Method::HEAD].contains(&it.method)), "{asked:?}");
}

#[test]
fn a_lock_that_is_not_there_is_not_called_unchanged() {
    let project = project("scratch");
    for dry in [&["--dry-run"][..], &[]] {
        let outcome = succeeded(Program::of("update", project.root()).args(dry).run());
        assert!(!outcome.stderr.contains("Unchanged"), "{}", outcome.stderr);
        let said = "lambda-image.lock`, and nothing in it to renew\n";
        assert!(outcome.stderr.contains(said), "no `{said}` in {}", outcome.stderr);
        assert!(!project.path("lambda-image.lock").exists());
    }
}

#[test]
fn cargo_writes_what_it_compiles_and_nobody_else_writes_anything() {
    let registry = FaultRegistry::builder().repository("shop").ways(ecr()).start();
    let project = Project::new(&[("Cargo.toml", &package("shop", "")), ("src/main.rs", "fn main() {}")]);
    LambdaBase::new(Family::Docker).write_layout(&project.path("base"));
    let repository = format!("{}/shop", registry.address);
    let push = project.push().args(["--dev", "--base", "oci:base:al2023", "--repository", &repository, "--dry-run"]);
    succeeded(push.run());
    assert!(project.path("target").exists());
    assert!(!project.store().exists());
    assert!(!project.path("lambda-image.lock").exists());
}

#[test]
fn the_plan_counts_once_what_several_images_bring() {
    let table = "[[bin]]\nname = \"one\"\npath = \"src/main.rs\"\n[[bin]]\nname = \"two\"\npath = \"src/main.rs\"\n\
                 [package.metadata.lambda-image]\nbase = \"oci:base:al2023\"\nassets = [{ path = \"data.bin\" }]\n\
                 tags = [\"{bin}\"]\n";
    let project = Project::new(&[("Cargo.toml", &package("shop", table)), ("src/main.rs", "fn main() {}")]);
    project.write("data.bin", noise(200_000));
    LambdaBase::new(Family::Docker).write_layout(&project.path("base"));
    project.build().arg("--dev").succeed();
    for (repository, shared) in [("shop", "reuse"), ("{bin}", "mount")] {
        let ways = Ways { mounts: Mounts::Referenced, ..ecr() };
        let registry = FaultRegistry::builder().ways(ways);
        let registry = ["shop", "one", "two"].into_iter().fold(registry, |it, name| it.repository(name)).start();
        let repository = format!("{}/{repository}", registry.address);
        let push = || project.push().args(["--dev", "--repository", &repository, "--message-format", "json"]);
        let planned = succeeded(push().arg("--dry-run").run()).messages("push-planned");
        let steps = |plan: &Value| -> Vec<_> {
            plan["layers"].as_array().expect("layers").iter().map(|layer| layer["step"].clone()).collect()
        };
        // Four layers of the base, the asset, the binary.
        let (first, second) = (["upload"; 6], [shared, shared, shared, shared, shared, "upload"]);
        assert_eq!(
            (steps(&planned[0]), steps(&planned[1])),
            (first.map(Value::from).to_vec(), second.map(Value::from).to_vec())
        );
        let size = |plan: &Value, layer: usize| plan["layers"][layer]["size"].as_u64().expect("a number");
        let uploaded: u64 = planned.iter().map(|plan| plan["uploaded_bytes"].as_u64().expect("a number")).sum();
        assert_eq!(uploaded, (0..6).map(|layer| size(&planned[0], layer)).sum::<u64>() + size(&planned[1], 5));

        // And so it comes.
        let pushed = succeeded(push().run()).messages("image-pushed");
        let done: Vec<_> = pushed.iter().map(|image| image["steps"].clone()).collect();
        assert_eq!(done, [json!(first), json!(second)]);
        let tags = succeeded(push().arg("--dry-run").run()).messages("push-planned")[1]["tags"].clone();
        let digest = &pushed[1]["digest"];
        let own = format!("two-{}", &digest.as_str().expect("a digest")["sha256:".len()..][..12]);
        let stays = |tag: &str| json!({"tag": tag, "digest": digest, "step": "stay", "immutable": false});
        assert_eq!(tags, json!([stays("two"), stays(&own)]));
    }
}

#[test]
fn what_is_not_made_yet_counts_once_too() {
    let table = "[[bin]]\nname = \"one\"\npath = \"src/main.rs\"\n[[bin]]\nname = \"two\"\npath = \"src/main.rs\"\n\
                 [package.metadata.lambda-image]\nbase = \"oci:base:al2023\"\nassets = [{ path = \"data.bin\" }]\n";
    let project = Project::new(&[("Cargo.toml", &package("shop", table)), ("src/main.rs", "fn main() {}")]);
    project.write("data.bin", noise(200_000));
    LambdaBase::new(Family::Docker).write_layout(&project.path("base"));
    let ways = Ways { mounts: Mounts::Referenced, ..ecr() };
    let registry = FaultRegistry::builder().repository("shop").repository("one").repository("two").ways(ways).start();
    for (repository, step) in [("shop", "reuse"), ("{bin}", "mount")] {
        let repository = format!("{}/{repository}", registry.address);
        let push = || {
            let push = project.push().args(["--dev", "--repository", &repository, "--message-format", "json"]);
            push.args(["--no-cache", "--tag", "{bin}"])
        };
        let planned = succeeded(push().arg("--dry-run").run()).messages("push-planned");
        let data = |plan: &Value| (plan["layers"][4]["step"].clone(), plan["layers"][4]["at_most"].clone());
        assert_eq!(data(&planned[0]), ("upload".into(), true.into()));
        assert_eq!(data(&planned[1]), (step.into(), true.into()));
        assert_eq!(planned[1]["uploaded_bytes"], planned[1]["layers"][5]["size"], "its program alone");
        // And so it comes: what the push made for the first is not made again for the second.
        let pushed = succeeded(push().run()).messages("image-pushed");
        assert_eq!((&pushed[0]["steps"][4], &pushed[1]["steps"][4]), (&json!("upload"), &json!(step)));
    }
}

#[test]
fn what_the_push_would_lack_stops_the_dry_run_too() {
    let registry = FaultRegistry::builder().repository("app").ways(ecr()).start();
    let repository = format!("{}/app", registry.address);
    let project = project("scratch");
    project.build().arg("--no-binary").succeed();
    fs::remove_file(project.path("model")).expect("removed");
    fs::remove_dir_all(project.store()).expect("removed");
    let push = || {
        let push = project.push().args(["--no-binary", "--assets-from-lock", "--repository", &repository]);
        push.arg("--no-verify").run()
    };
    let dry = project.push().args(["--no-binary", "--assets-from-lock", "--repository", &repository]);
    let dry = dry.args(["--no-verify", "--dry-run"]).run();
    let said = format!("`{repository}` has no layer `model` (sha256:");
    assert_eq!(dry.code, 1, "{}", dry.stderr);
    assert!(dry.stderr.contains(&said), "{}", dry.stderr);
    assert!(dry.stdout.starts_with(&format!("image app -> {repository}\n")), "{}", dry.stdout);
    let push = push();
    assert_eq!(push.code, 1, "{}", push.stderr);
    assert!(push.stderr.contains(&said), "{}", push.stderr);
    assert_eq!(registry.received(), 0, "told before the other asset was sent");
}
