//! From a push to live functions with the real program: by AWS's real host names, killed at every call, and on moto's
//! wire formats.

use std::fs;

use axum::http::Method;
use cargo_lambda_image::aws::ecr::host::RegistryHost;
use cargo_lambda_image::aws::lambda::Lambda;
use cargo_lambda_image::aws::{Access, Settings};
use cargo_lambda_image::deploy::{self, Asked, Create, Deployment, Image, Patience, Release};
use cargo_lambda_image::event::Session;
use cargo_lambda_image::oci::Digest;
use cargo_lambda_image::platform::Architecture;
use cargo_lambda_image::problem::together;
use serde_json::{Value, json};

use crate::support::child;
use crate::support::cloud::{Cloud, HOST, LAMBDA, REGION};
use crate::support::hello;
use crate::support::lambda::{FakeFunction, Status, Twist};
use crate::support::moto::{ACCOUNT, Moto};
use crate::support::program::{Outcome, Program, json};
use crate::support::project::{AMD64, ARM64, Project};
use crate::support::tools::{block_on, poll};

fn old() -> FakeFunction {
    FakeFunction::of(&format!("{HOST}/shop/app@{}", Digest::of(b"old")))
}

/// A project whose push compiles nothing.
fn app() -> Project {
    let project = Project::new(&[]);
    project.write_program("app", AMD64);
    project
}

fn push(cloud: &Cloud, project: &Project) -> Program {
    let push = project.push().args(["--binary-path", "app", "--base", "scratch", "--region", REGION]);
    cloud.at_home(push.args(["--repository", "shop/app", "--create-repository"]))
}

fn succeeded(program: Program) -> Outcome {
    let outcome = program.run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome
}

#[test]
fn from_a_workspace_to_live_functions_by_real_names_and_they_answer() {
    let cloud = Cloud::start(&["shop/words", "shop/meanings"]);
    let lambda = &cloud.lambda;
    lambda.functions(|functions| {
        functions.all.insert("words".to_owned(), old().published().alias("live", "1"));
        (functions.busy_looks, functions.version_looks, functions.role_unknown) = (1, 1, 1);
    });
    let table = format!(
        "[workspace.metadata.lambda-image]\nrepository = \"shop/{{bin}}\"\ncreate-repository = true\n\
         function = \"{{bin}}\"\ncreate-function = true\nrole = \"arn:aws:iam::{ACCOUNT}:role/r\"\nalias = \"live\"\n\
         region = \"{REGION}\"\nhandler = \"words\"\nassets = [{{ path = \"words.sqlite3\" }}]\n"
    );
    let project = hello::workspace(&table);
    let push = || cloud.at_home(hello::push_workspace(&project).args(["--workspace", "--message-format", "json"]));
    let outcome = succeeded(push());
    let images = outcome.messages("image-pushed");
    let updated = outcome.messages("function-updated");
    let told: Vec<_> = updated.iter().map(|it| (&it["name"], &it["version"], &it["alias"], &it["steps"])).collect();
    let (made, brought) = (json!(["create", "publish", "alias"]), json!(["code", "publish", "alias"]));
    let mut expected = [
        (&json!("meanings"), &json!("1"), &json!("live"), &made),
        (&json!("words"), &json!("2"), &json!("live"), &brought),
    ];
    let mut sorted = told.clone();
    sorted.sort_by_key(|(name, ..)| name.to_string());
    expected.sort_by_key(|(name, ..)| name.to_string());
    assert_eq!(sorted, expected);
    for (image, (name, version)) in images.iter().zip([("meanings", "1"), ("words", "2")]) {
        let digest = image["digest"].as_str().expect("a digest");
        let uri = format!("{HOST}/shop/{name}@{digest}");
        assert_eq!(image["image_uri"], uri);
        let function = lambda.functions(|functions| functions.get(name).clone());
        assert_eq!((&function.image_uri, function.aliases["live"].version.as_str()), (&uri, version));
        let result = json(&project.store().join(format!("{name}.json")));
        assert_eq!(result["functions"], json!([{ "name": name, "version": version, "alias": "live" }]));
        cloud.assert_it_answers(&format!("shop/{name}"), &format!("@{digest}"));
    }
    assert!(cloud.proxy.requests().contains(&format!("CONNECT {LAMBDA}")));

    let (before, _) = (cloud.registry.received(), lambda.forget());
    let again = succeeded(push());
    assert!(again.messages("function-updated").iter().all(|it| it["steps"] == json!([])), "{}", again.stdout);
    assert_eq!((lambda.changes(), cloud.registry.received()), (Vec::new(), before));
}

#[test]
fn a_push_killed_at_any_call_of_lambda_is_finished_by_the_next() {
    let cloud = Cloud::start(&["shop/app"]);
    let project = app();
    let deploy = || push(&cloud, &project).args(["--function", "f", "--alias", "live"]);
    let uri = succeeded(push(&cloud, &project)).stdout.trim_end().to_owned();
    let mut killed = 0;
    for calls in 1..=12 {
        cloud.lambda.functions(|functions| {
            functions.all.insert("f".to_owned(), old().published().alias("live", "1"));
            (functions.busy_looks, functions.version_looks) = (1, 1);
        });
        cloud.lambda.forget();
        let mut running = deploy().start();
        poll("calls of Lambda", || (running.has_ended() || cloud.lambda.log().len() >= calls).then_some(()));
        running.signal_or_gone("KILL");
        killed += usize::from(running.wait().signal == Some(9));
        let again = succeeded(deploy().args(["--message-format", "json"]));
        assert_eq!(
            again.messages("function-updated")[0]["version"],
            "2",
            "no version too many: {:?}",
            cloud.lambda.log()
        );
        let function = cloud.lambda.functions(|functions| functions.get("f").clone());
        assert_eq!((&function.image_uri, function.versions.len()), (&uri, 2));
        assert_eq!(function.aliases["live"].version, "2");
        cloud.lambda.forget();
        succeeded(deploy());
        assert_eq!(cloud.lambda.changes(), [] as [&str; 0]);
    }
    assert!(killed >= 8, "only {killed} of 12 were killed in time");
}

#[test]
fn what_a_function_cannot_run_is_told_before_anything_is_compiled() {
    let cloud = Cloud::start(&["shop/app"]);
    cloud.lambda.functions(|functions| {
        functions.all.insert("zip".to_owned(), FakeFunction { package: "Zip", ..old() });
        functions.all.insert("arm".to_owned(), FakeFunction { architecture: "arm64".to_owned(), ..old() });
    });
    let manifest = "[package]\nname = \"app\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[workspace]\n";
    let project = Project::new(&[("Cargo.toml", manifest), ("src/main.rs", "fn main() { this does not compile }")]);
    let other = format!("{}/shop/app", cloud.registry.address);
    let fips = "123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com/shop/app";
    let elsewhere = format!("arn:aws:lambda:us-east-1:{ACCOUNT}:function:f");
    for (repository, function, code, message) in [
        ("shop/app", "zip", 1, "function `zip` runs an archive, and Lambda cannot give it an image"),
        ("shop/app", "arm", 3, "the image is for x86_64, but function `arm` runs on arm64"),
        ("shop/app", "none", 1, "function `none` does not exist in eu-west-1"),
        ("shop/app", &elsewhere, 2, "function `f` is in us-east-1, and takes no image from"),
        (&other, "f", 2, "functions take images from private repositories of Amazon ECR only"),
        (fips, "f", 2, "Lambda takes no images by a FIPS name"),
    ] {
        let push = project.push().args(["--base", "scratch", "--x86-64", "--region", REGION, "--function", function]);
        let outcome = cloud.at_home(push.args(["--repository", repository, "--create-repository"])).run();
        assert_eq!(outcome.code, code, "{function}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(message) && outcome.stderr.contains("help: "), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("Compiling"), "{}", outcome.stderr);
    }
    assert_eq!(cloud.lambda.changes(), [] as [&str; 0]);
    // Without a word of the architecture, the binary's own is compared, before anything is sent.
    let project = app();
    project.write_program("app", ARM64);
    cloud.lambda.functions(|functions| drop(functions.all.insert("f".to_owned(), old())));
    let outcome = push(&cloud, &project).args(["--function", "f"]).run();
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the image is for arm64, but function `f` runs on x86_64"), "{}", outcome.stderr);
    assert!(cloud.registry.log().iter().all(|request| !request.starts_with("P")), "{:?}", cloud.registry.log());
    let outcome = push(&cloud, &project).args(["--function", "zip", "--no-function"]).run();
    assert_eq!(outcome.code, 2, "one or the other: {}", outcome.stderr);
}

#[test]
fn one_function_that_fails_hides_neither_the_image_nor_the_others() {
    let cloud = Cloud::start(&["shop/app"]);
    cloud.lambda.functions(|functions| {
        for name in ["a", "b", "c"] {
            functions.all.insert(name.to_owned(), old());
        }
        functions.get("b").last_update = Status {
            then: Some(("Successful", None, "x@y".to_owned())),
            looks: usize::MAX,
            ..Status::of("InProgress")
        };
    });
    let project = app();
    let deploy = || {
        let deploy =
            push(&cloud, &project).args(["--function", "a", "--function", "b", "--function", "c", "--publish"]);
        deploy.args(["--wait", "1s"])
    };
    let outcome = deploy().run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with(&format!("{HOST}/shop/app@sha256:")), "{}", outcome.stdout);
    let expected = "error: image `app` is pushed, but not all of its functions run it\n\nCaused by:\n  function `b` is still \
                    InProgress after 1 s\n\nhelp: run this again";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("     Waiting for function b: InProgress (0."), "{}", outcome.stderr);
    let result = json(&project.store().join("app.json"));
    assert_eq!(
        result["functions"],
        json!([
            { "name": "a", "version": "1", "alias": null },
            { "name": "c", "version": "1", "alias": null },
        ])
    );
    cloud.lambda.functions(|functions| functions.get("b").last_update = Status::of("Successful"));
    let outcome = succeeded(deploy());
    for line in ["       Fresh function a, version 1\n", "    Deployed function b, version 1\n"] {
        assert!(outcome.stderr.contains(line), "{}", outcome.stderr);
    }
}

#[test]
fn a_result_that_cannot_be_written_keeps_no_function_from_its_image() {
    let cloud = Cloud::start(&["shop/app"]);
    cloud.lambda.functions(|functions| drop(functions.all.insert("f".to_owned(), old())));
    let project = app();
    // What is renamed onto a directory that is not empty gets nowhere.
    fs::create_dir_all(project.store().join("app.json/in the way")).expect("made");
    let outcome = push(&cloud, &project).args(["--function", "f", "--message-format", "json"]).run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    let image = &outcome.messages("image-pushed")[0];
    let function = cloud.lambda.functions(|functions| functions.get("f").clone());
    assert_eq!(image["image_uri"], function.image_uri);
    assert_eq!(outcome.messages("function-updated")[0]["steps"], json!(["code"]));
    let expected = "its functions run the image, and only what tells of it could not be written";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("app.json"), "{}", outcome.stderr);

    // Without a function there is as much to tell.
    let outcome = push(&cloud, &project).run();
    assert_eq!((outcome.code, outcome.stdout.trim_end()), (1, function.image_uri.as_str()), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the image is pushed, and only what tells of it"), "{}", outcome.stderr);
}

#[test]
fn a_dry_run_tells_what_would_become_of_each_function() {
    let cloud = Cloud::start(&["shop/app"]);
    cloud
        .lambda
        .functions(|functions| drop(functions.all.insert("f".to_owned(), old().published().alias("live", "1"))));
    let project = app();
    let plan = || push(&cloud, &project).args(["--function", "f", "--alias", "live", "--dry-run"]);
    let outcome = succeeded(plan());
    let expected = format!(
        "function f\n  image  {} -> not known yet\n  version  1 -> a new one\n  alias live  1 -> the new version\n",
        Digest::of(b"old")
    );
    assert!(outcome.stdout.ends_with(&expected), "{}", outcome.stdout);
    assert_eq!(cloud.registry.count(Method::PUT, ""), 0);

    let uri = succeeded(push(&cloud, &project)).stdout;
    let (_, digest) = uri.trim_end().split_once('@').expect("a digest");
    let planned = &succeeded(plan().args(["--message-format", "json"])).messages("function-planned")[0];
    assert_eq!((&planned["next"]["digest"], &planned["steps"]), (&json!(digest), &json!(["code", "publish", "alias"])));
    assert_eq!(cloud.lambda.changes(), [] as [&str; 0]);
}

#[test]
fn the_printed_policy_is_all_a_push_needs() {
    let cloud = Cloud::start(&["shop/app"]);
    cloud.lambda.functions(|functions| drop(functions.all.insert("f".to_owned(), old())));
    let project = app();
    let flags = ["--repository", &format!("{HOST}/shop/app"), "--function", "f", "--alias", "live"];
    // Neither keys nor a network are needed where the account is written.
    let policy = Program::policy(project.root()).args(["--binary-path", "app"]).args(flags);
    let policy: Value = serde_json::from_str(&succeeded(policy).stdout).expect("JSON");
    let sids: Vec<_> = policy["Statement"].as_array().expect("statements").iter().map(|it| &it["Sid"]).collect();
    assert_eq!(sids, ["Login", "Push", "Function", "Version", "LookAtVersion", "Alias"]);
    let push = || cloud.at_home(project.push().args(["--binary-path", "app", "--base", "scratch"]).args(flags));
    cloud.moto.ecr(REGION, "CreateRepository", &json!({ "repositoryName": "shop/app" }));
    cloud.lambda.allow_only(policy.clone());
    succeeded(push());
    let mut less = policy;
    less["Statement"].as_array_mut().expect("statements").pop();
    cloud.lambda.allow_only(less);
    let outcome = push().run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    let help =
        format!("help: allow the caller `lambda:GetAlias` on `arn:aws:lambda:{REGION}:{ACCOUNT}:function:f:live`");
    assert!(outcome.stderr.contains(&help), "{}", outcome.stderr);

    // Where nothing names the account, AWS is asked.
    let policy = Program::policy(project.root()).args(["--binary-path", "app", "--repository", "shop/app"]);
    let policy = cloud.at_home(policy.args(["--region", REGION, "--message-format", "json"]));
    let told = &succeeded(policy).messages("iam-policy")[0]["policy"];
    let arn = format!("arn:aws:ecr:{REGION}:{ACCOUNT}:repository/shop/app");
    assert_eq!(told["Statement"][1]["Resource"], json!([arn]));
}

#[test]
fn a_signal_while_lambda_is_busy_ends_at_once() {
    let cloud = Cloud::start(&["shop/app"]);
    cloud.lambda.functions(|functions| {
        functions.all.insert("f".to_owned(), old());
        functions.busy_looks = usize::MAX;
    });
    let project = app();
    let mut running = push(&cloud, &project).args(["--function", "f"]).start();
    poll("an update", || {
        assert!(!running.has_ended());
        (!cloud.lambda.changes().is_empty()).then_some(())
    });
    running.signal("INT");
    let ended = running.wait();
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
}

#[test]
fn an_account_that_is_throttled_is_waited_for() {
    let cloud = Cloud::start(&["shop/app"]);
    cloud.lambda.functions(|functions| drop(functions.all.insert("f".to_owned(), old())));
    let project = app();
    for (operation, times) in [("GetFunction", 1..4), ("UpdateFunctionCode", 0..3)] {
        cloud.lambda.functions(|functions| functions.get("f").overwrite("x/y@z"));
        // The SDK gives up after one try here, as it does after some elsewhere.
        cloud.lambda.add(operation, times, Twist::Refuse(429, "TooManyRequestsException", "Rate Exceeded."));
        let outcome = succeeded(push(&cloud, &project).args(["--function", "f"]).env("AWS_MAX_ATTEMPTS", "1"));
        assert!(outcome.stderr.contains("Retrying function `f` in 0."), "{}", outcome.stderr);
        cloud.lambda.calm();
    }
}

#[test]
fn a_function_is_made_updated_and_pointed_to_on_motos_wire() {
    const TEST: &str = "functions::a_function_is_made_updated_and_pointed_to_on_motos_wire";
    let manifests = ["one", "two"].map(|name| {
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": { "size": 2, "digest": Digest::of(name.as_bytes()).to_string() }, "layers": [] })
        .to_string()
    });
    if child::is_child() {
        block_on(async {
            let host = RegistryHost::of(ACCOUNT, REGION).expect("a registry");
            let lambda = Lambda::beside(&Access::load(&Settings::default()).await.expect("access"), &host);
            let asked = Asked {
                package: "app".to_owned(),
                bin: "app".to_owned(),
                function: "f".parse().expect("a name"),
                create: Some(Create {
                    role: format!("arn:aws:iam::{ACCOUNT}:role/r"),
                    memory_mb: Some(512),
                    timeout_seconds: Some(9),
                    env: [("A".to_owned(), "b".to_owned())].into(),
                }),
                release: Release::Alias("live".to_owned()),
            };
            for (manifest, version) in manifests.iter().zip(["1", "2"]) {
                let digest = Digest::of(manifest.as_bytes());
                let image = Image {
                    uri: format!("{host}/app@{digest}"),
                    digest,
                    architecture: Architecture::Amd64,
                    uncompressed_size: 1,
                };
                let all = [(lambda.clone(), Deployment { asked: asked.clone(), image })];
                for _ in 0..2 {
                    let outcomes = deploy::deploy(&all, &Patience::default(), &Session::silent()).await;
                    let done = together(outcomes, "functions").expect("a deployment").remove(0);
                    assert_eq!(done.version.as_deref(), Some(version));
                    let alias = lambda.alias("f", "live").await.expect("an answer").expect("an alias");
                    assert!(alias.points_to(version), "{alias:?}");
                }
            }
            assert_eq!(lambda.versions("f").await.expect("versions").len(), 3, "the two and the one that changes");
        });
        return;
    }
    let moto = Moto::start_with_images();
    moto.create_role("r");
    moto.ecr(REGION, "CreateRepository", &json!({ "repositoryName": "app" }));
    for manifest in &manifests {
        let digest = Digest::of(manifest.as_bytes()).to_string();
        let image = json!({ "repositoryName": "app", "imageManifest": manifest, "imageDigest": digest, "imageTag": &digest[7..] });
        let put = moto.ecr(REGION, "PutImage", &image);
        assert_eq!(put["image"]["imageId"]["imageDigest"], digest, "{put}");
    }
    let keys = [("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "canary"), ("AWS_REGION", REGION)];
    child::run(TEST, &[&keys[..], &[("AWS_ENDPOINT_URL", moto.url.as_str())]].concat());
}

#[test]
fn another_tools_table_gives_what_ours_leaves_open() {
    let cloud = Cloud::start(&["shop/app"]);
    let table = format!(
        "[package]\nname = \"app\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[workspace]\n\
         [package.metadata.lambda.deploy]\nmemory = 512\ntimeout = 60\niam_role = \"arn:aws:iam::{ACCOUNT}:role/r\"\n\
         env = {{ A = \"b\" }}\n[package.metadata.lambda-image]\ntimeout = 9\n"
    );
    let project = Project::new(&[("Cargo.toml", &table), ("src/main.rs", "fn main() {}")]);
    project.write_program("app", AMD64);
    let outcome = succeeded(push(&cloud, &project).arg("--create-function"));
    let note = "warning: `iam_role`, `memory`, `env` of cargo-lambda's settings are taken for a created function";
    assert!(outcome.stderr.contains(note), "{}", outcome.stderr);
    let made = cloud.lambda.functions(|functions| functions.get("app").clone());
    assert_eq!((made.timeout, made.environment), (9, json!({ "A": "b" })));
    assert!(fs::exists(project.store().join("app.json")).expect("a look"));
}

#[test]
fn the_guide_shows_what_the_program_prints() {
    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/permissions.md")).expect("the guide");
    let project = app();
    let shown: Vec<_> = guide.split("```text\ncargo lambda-image iam-policy ").skip(1).collect();
    assert_eq!(shown.len(), 2);
    for block in shown {
        let (flags, rest) = block.split_once("\n```\n\n```json\n").expect("a command and its policy");
        let (policy, _) = rest.split_once("```").expect("an end");
        let program = Program::policy(project.root()).args(["--binary-path", "app"]).args(flags.split(' '));
        assert_eq!(succeeded(program).stdout, policy, "{flags}");
    }
}
