//! `action.yml`, carried out as a runner does, with the real program and a real registry behind it.

mod install;

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cloud::{Cloud, KEYS, REGION};
use crate::support::composite::{Composite, Ran};
use crate::support::docker_registry::DockerRegistry;
use crate::support::lambda::FakeFunction;
use crate::support::program::json as json_of;
use crate::support::runner::commands;
use crate::support::schema;
use crate::support::site::{Site, names};
use crate::support::tools::{succeed, tool};

/// What `site` is made of, as lines of `args`.
const ARGS: &str = "--no-binary\n--no-verify\n--base=scratch\n--handler\napp.get\n--asset\nnotes.txt\n";

/// A job with the program, for the project of a [`Site`] in its workspace.
fn job(command: &str) -> Composite {
    Composite::installed().with("command", command).with("working-directory", "site")
}

fn outputs(ran: &Ran) -> Vec<(&str, &str)> {
    let plain = ran.outputs.iter().filter(|(name, _)| *name != "images");
    plain.map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[test]
fn what_is_pushed_is_in_the_registry_and_in_the_outputs() {
    let (registry, site) = (DockerRegistry::start(), Site::new());
    let repository = format!("{}/shop/site", registry.address);
    let push = || {
        let job = job("push").with("repository", &repository).with("tags", "v1\nlatest\n").with("args", ARGS);
        let ran = job.run(&site.path(""));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        (job, ran)
    };
    let (job, first) = push();
    let result = json_of(&site.store().join("site.json"));
    let (uri, digest) = (result["image_uri"].as_str().expect("a URI"), result["digest"].as_str().expect("a digest"));
    let size = result["size"].as_u64().expect("a size").to_string();
    let expected = [("digest", digest), ("image-uri", uri), ("pushed-bytes", &size), ("skipped-bytes", "0")];
    assert_eq!(outputs(&first), expected);
    let images: Value = serde_json::from_str(&first.outputs["images"]).expect("JSON");
    assert_eq!(images, json!({ "site": result }));
    assert_eq!(uri, format!("{repository}@{digest}"));
    for tag in ["v1", "latest"] {
        let mut skopeo = Command::new(tool("skopeo"));
        skopeo.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"]);
        assert_eq!(succeed(skopeo.arg(format!("docker://{repository}:{tag}"))).trim(), digest);
    }
    let rendered = job.runner.rendered();
    assert!(rendered.starts_with("<h3><code>site</code></h3>\n") && rendered.contains(uri), "{rendered}");

    let (_, second) = push();
    assert_eq!(outputs(&second)[2..], [("pushed-bytes", "0"), ("skipped-bytes", &size)]);
}

#[test]
fn a_function_is_updated_and_its_version_handed_on() {
    let (cloud, site) = (Cloud::start(&["shop/site"]), Site::new());
    let old = FakeFunction::of(&format!("{}/shop/site@sha256:{}", crate::support::cloud::HOST, "0".repeat(64)));
    cloud.lambda.functions(|functions| functions.all.insert("site".to_owned(), old.published().alias("live", "1")));
    let job = job("push").with("repository", "shop/site").with("function", "site").with("alias", "live");
    let job = job.with("args", &format!("{ARGS}--create-repository\n")).env("AWS_REGION", REGION);
    let job = job.env("HTTPS_PROXY", cloud.proxy.url()).env("SSL_CERT_FILE", cloud.proxy.authority());
    let job = KEYS.iter().fold(job, |job, (name, value)| job.env(name, *value));
    let ran = job.run(&site.path(""));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.outputs["function-version"], "2");
    let function = cloud.lambda.functions(|functions| functions.get("site").clone());
    assert_eq!(function.image_uri, ran.outputs["image-uri"]);
}

#[test]
fn a_dry_run_hands_on_its_plan() {
    let (registry, site) = (DockerRegistry::start(), Site::new());
    let repository = format!("{}/shop/site", registry.address);
    let job = job("push").with("repository", &repository).with("dry-run", "true").with("args", ARGS);
    let ran = job.run(&site.path(""));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(outputs(&ran), [("plan", ran.outputs["plan"].as_str())]);
    assert!(ran.stdout.ends_with(&format!("{}\n", ran.outputs["plan"])), "{}", ran.stdout);
}

#[test]
fn a_step_fails_as_the_program_does() {
    let site = Site::new();
    let push = || job("push").with("args", ARGS);
    for (job, code, said) in [
        (push(), 2, "repository"),
        (push().with("repository", "127.0.0.1:1/shop/site"), 1, "127.0.0.1:1"),
        (push().with("repository", "127.0.0.1:1/a").with("image", "oci:gone"), 2, "--no-binary"),
        (job("build").with("args", &format!("{ARGS}--asset=gone")), 2, "gone"),
        (job("verify").with("publish", "true"), 2, "--publish"),
        (job("update"), 2, "the input `command` is `push`, `build` or `verify`, not `update`"),
        (push().with("dry-run", "yes"), 2, "the input `dry-run` is `true` or `false`, not `yes`"),
    ] {
        let ran = job.run(&site.path(""));
        assert_eq!(ran.code, code, "{said}: {}", ran.stderr);
        let errors: Vec<_> =
            commands(&ran.stderr).into_iter().filter(|line| line.starts_with("::error title=")).collect();
        assert!(errors.len() == 1 && errors[0].contains(said), "{said}: {}", ran.stderr);
        assert_eq!(ran.outputs.len(), 0);
    }
}

#[test]
fn a_verdict_is_a_file_of_sarif_however_it_is_and_nothing_else_is() {
    let site = Site::new();
    site.build(&["notes.txt"]).env("CARGO_LAMBDA_IMAGE_NO_VERIFY", "true").succeed();
    let image = format!("oci:{}:site", site.layout().display());
    let verify = |image: &str| job("verify").with("image", image).with("sarif-file", "a b.sarif");
    let file = site.project().join("a b.sarif");

    let ran = verify(&image).run(&site.path(""));
    assert_eq!(ran.code, 3, "nobody could start it: {}", ran.stderr);
    schema::assert_messages(&fs::read_to_string(&file).expect("a report"));
    let report = json_of(&file);
    let rules: Vec<_> = report["runs"][0]["results"].as_array().expect("results").iter().collect();
    assert!(rules.iter().any(|result| result["level"] == "error"), "{report}");
    assert!(commands(&ran.stderr).iter().any(|line| line.starts_with("::error title=L")), "{}", ran.stderr);

    let allowed: Vec<_> = rules.iter().filter_map(|result| result["ruleId"].as_str()).collect();
    let ran = verify(&image).env("CARGO_LAMBDA_IMAGE_ALLOW", allowed.join("\n")).run(&site.path(""));
    assert_eq!((ran.code, ran.stdout.lines().count()), (0, 1), "only what the first step says: {}", ran.stdout);
    assert_eq!(json_of(&file)["runs"][0]["results"], json!([]));

    // A report of the past is no report of today.
    let ran = verify("oci:gone").run(&site.path(""));
    assert_ne!(ran.code, 0);
    assert!(!file.exists());
}

/// Texts that are something else to a shell, to the runner, or to a parser of flags.
fn hostile(canary: &str) -> Vec<String> {
    let run = format!("touch {canary}");
    vec![
        format!("$({run})"),
        format!("`{run}`"),
        format!("'; {run}; '"),
        format!("\"; {run}; \""),
        format!("\\\"; {run} #"),
        format!("x\\; {run}"),
        format!("x && {run} || {run} & {run} | {run}"),
        format!("${{{{ github.token }}}} ${{{{ inputs.args }}}} ${{HOME}} $HOME %HOME% {run}"),
        format!("<({run}) >{canary} a=$({run}) a[$({run})]"),
        "--help".to_owned(),
        "-".to_owned(),
        "--".to_owned(),
        "  blanks  and\ttabs  ".to_owned(),
        "* ? [a-z] {a,b} ~ !! \\n \\".to_owned(),
        "::error::x ##[error]y".to_owned(),
        "größe \u{1F980} 'it''s'".to_owned(),
    ]
}

#[test]
fn each_input_is_one_argument_whatever_stands_in_it() {
    const FLAGS: [(&str, &str); 9] = [
        ("manifest-path", "--manifest-path="),
        ("package", "--package="),
        ("bin", "--bin="),
        ("repository", "--repository="),
        ("tags", "--tag="),
        ("function", "--function="),
        ("alias", "--alias="),
        ("args", ""),
        ("image", "--image="),
    ];
    let workspace = TempDir::new().expect("a temporary directory");
    for text in hostile("canary") {
        let job = FLAGS.iter().fold(Composite::observed(), |job, (input, _)| job.with(input, &text));
        let ran = job.run(workspace.path());
        let flags = FLAGS.iter().map(|(_, flag)| format!("{flag}{text}"));
        let expected: Vec<_> = ["push".to_owned()].into_iter().chain(flags).collect();
        assert_eq!(job.arguments(&ran), expected, "{}", ran.stderr);

        let job = Composite::observed().with("command", "verify").with("image", &text).with("sarif-file", &text);
        let ran = job.run(workspace.path());
        assert_eq!(job.arguments(&ran), ["verify", "--message-format=sarif", "--", &text], "{}", ran.stderr);

        for input in ["command", "publish", "dry-run", "version"] {
            let job = Composite::observed().with(input, &text);
            let ran = job.run(workspace.path());
            assert!(ran.code != 0 && !job.was_run(), "{input}: {text}");
            assert_eq!(commands(&ran.stderr).len(), 1, "{}", ran.stderr);
        }
        assert_eq!(names(workspace.path()), [] as [&str; 0], "{text}");
    }
}

#[test]
fn of_several_lines_each_is_one_argument_or_all_are() {
    let lines = "a b\n\n--env=X=$(true)\n'c\n";
    let job = Composite::observed()
        .with("args", lines)
        .with("tags", lines)
        .with("function", lines)
        .with("repository", "a\nb\n");
    let ran = job.run(&job.path(""));
    let each = |flag: &str| ["a b", "--env=X=$(true)", "'c"].map(|line| format!("{flag}{line}"));
    let mut expected = vec!["push".to_owned(), "--repository=a\nb\n".to_owned()];
    expected.extend([each("--tag="), each("--function="), each("")].concat());
    assert_eq!(job.arguments(&ran), expected);
    // What would begin a command on a line of its own stays within the error.
    let job = Composite::observed().with("command", "push\n::set-env name=A::b\r\n%0A");
    let ran = job.run(&job.path(""));
    assert_eq!(ran.code, 2);
    assert_eq!(commands(&ran.stderr).len(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("push%0A::set-env name=A::b%0D%0A%250A"), "{}", ran.stderr);
}

#[test]
fn without_inputs_nothing_is_said_to_the_program() {
    let job = Composite::observed().env("CARGO_LAMBDA_IMAGE_REPOSITORY", "shop/site");
    let ran = job.run(&job.path(""));
    assert_eq!(job.arguments(&ran), ["push"], "variables and tables say the rest: {}", ran.stderr);
}
