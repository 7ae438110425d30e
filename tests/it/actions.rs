//! What a step of GitHub Actions, and other CI services, get from the real program: outputs, summaries and variables,
//! read back as they are read there.

mod dotenv;
mod hostile;
mod log;
mod secrets;

use std::fs;

use cargo_lambda_image::oci::Digest;
use cargo_lambda_image::units;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cloud::{Cloud, HOST, REGION};
use crate::support::hello;
use crate::support::images::Family;
use crate::support::lambda::FakeFunction;
use crate::support::lambda_base::LambdaBase;
use crate::support::program;
use crate::support::project::{Project, package};
use crate::support::registry::{FaultRegistry, Ways};
use crate::support::runner::{Runner, commands, html, unfolded};
use crate::support::site::Site;

/// The base of [`on_a_base`].
pub const BASE: &str = "oci:base:al2023";

/// A project of two binaries that anything compiles.
pub fn two(names: [&str; 2]) -> Project {
    let bin = |name: &str| format!("[[bin]]\nname = \"{name}\"\npath = \"src/main.rs\"\n");
    let manifest = package("shop", &names.map(bin).concat());
    on_a_base(&[("Cargo.toml", &manifest), ("src/main.rs", "fn main() {}"), ("notes.txt", "some notes")])
}

/// A project with a base beside it, which is [`BASE`].
pub fn on_a_base(files: &[(&str, &str)]) -> Project {
    let project = Project::new(files);
    LambdaBase::new(Family::Docker).write_layout(&project.path("base"));
    project
}

/// A registry that takes all.
pub fn registry(repositories: &[&str]) -> FaultRegistry {
    let registry = FaultRegistry::builder().ways(Ways::default());
    repositories.iter().fold(registry, |registry, name| registry.repository(name)).start()
}

fn strings<const N: usize>(row: [&str; N]) -> Vec<String> {
    row.map(str::to_owned).to_vec()
}

#[test]
fn a_step_that_pushes_hands_on_what_it_came_to() {
    let cloud = Cloud::start(&["shop/hello"]);
    let old = FakeFunction::of(&format!("{HOST}/shop/hello@{}", Digest::of(b"old"))).published().alias("live", "1");
    cloud.lambda.functions(|functions| functions.all.insert("hello".to_owned(), old));
    let (target, runner) = (TempDir::new().expect("a temporary directory"), Runner::new());
    let dotenv = target.path().join("image.env");
    let push = |said: &[&str]| {
        let push = hello::push(target.path()).args(["--repository", "shop/{bin}", "--create-repository"]).args(said);
        let push = push.args(["--region", REGION, "--tag", "v1", "--function", "hello", "--alias", "live"]);
        runner.next_step();
        runner.step(cloud.at_home(push.arg("--output-env").arg(&dotenv))).run()
    };
    let outcome = push(&[]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let result = program::json(&target.path().join("lambda-image/hello.json"));
    let (uri, digest) = (result["image_uri"].as_str().expect("a URI"), result["digest"].as_str().expect("a digest"));
    assert_eq!(outcome.stdout, format!("{uri}\n"), "stdout is data only");
    let size = result["size"].as_u64().expect("a size");
    let mut outputs = runner.outputs();
    let images: Value = serde_json::from_str(&outputs.remove("images").expect("images")).expect("JSON");
    assert_eq!(images, json!({ "hello": result }));
    let told: Vec<_> = outputs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("digest", digest),
        ("function-version", "2"),
        ("image-uri", uri),
        ("pushed-bytes", &size.to_string()),
        ("skipped-bytes", "0"),
    ];
    assert_eq!(told, expected);
    assert_eq!(
        fs::read_to_string(&dotenv).expect("variables"),
        format!("IMAGE_URI={uri}\nDIGEST={digest}\nFUNCTION_VERSION=2\nPUSHED_BYTES={size}\nSKIPPED_BYTES=0\n")
    );

    let rendered = runner.rendered();
    assert!(rendered.starts_with("<h3><code>hello</code></h3>\n"), "{rendered}");
    assert!(rendered.contains(&format!("<p>{} sent, 0 B were there.</p>", units::size(size))), "{rendered}");
    let layer = |index: usize, step: &str| {
        let layer = &result["layers"][index];
        let sizes = ["uncompressed_size", "size"].map(|key| units::size(layer[key].as_u64().expect("a size")));
        let (name, digest) = (layer["name"].as_str().expect("a name"), layer["digest"].as_str().expect("a digest"));
        let code = |text: &str| format!("<code>{}</code>", html(text));
        strings([&code(name), &sizes[0], &sizes[1], step, &code(&digest["sha256:".len()..][..12])])
    };
    let tags: Vec<_> = result["tags"].as_array().expect("tags").iter().filter_map(Value::as_str).collect();
    let tags = tags.iter().map(|tag| format!("<code>{tag}</code>")).collect::<Vec<_>>().join(", ");
    let strong = |key: &str| format!("<strong>{}</strong>", units::size(result[key].as_u64().expect("a size")));
    let mut expected = vec![
        strings(["Image", &format!("<code>{uri}</code>")]),
        strings(["Tags", &tags]),
        strings(["Platform", "<code>linux/amd64</code>"]),
        strings(["Function", "<code>hello</code>, version <code>2</code>, alias <code>live</code>"]),
    ];
    expected.extend((0..6).map(|index| layer(index, if index < 4 { "relayed" } else { "sent" })));
    expected.push(strings(["<strong>total</strong>", &strong("uncompressed_size"), &strong("size"), "", ""]));
    assert_eq!(runner.rows(), expected);

    let given = commands(&outcome.stderr);
    let groups: Vec<_> = given.iter().filter_map(|line| line.strip_prefix("::group::")).collect();
    assert_eq!(groups, ["Compile", "Base image and checks", "Push hello", "Functions"]);
    let seen = unfolded(&outcome.stderr).join("\n");
    for word in ["      Pushed hello to ", "      Tagged ", "    Finished 1 image in "] {
        assert!(seen.contains(word), "`{word}` is to be seen: {}", outcome.stderr);
    }

    // In whatever form it talks, it hands on the same.
    let outcome = push(&["-q", "--message-format", "json"]);
    assert_eq!(outcome.messages("image-pushed")[0]["image_uri"], uri);
    let mut outputs = runner.outputs();
    outputs.remove("images");
    let told: Vec<_> = outputs.values().map(String::as_str).collect();
    assert_eq!(told, [digest, "2", uri, "0", &size.to_string()]);
    assert_eq!(runner.rows()[4][3], "was there");
    let given = commands(&outcome.stderr);
    assert!(given.iter().all(|line| line.starts_with("::add-mask::")), "{}", outcome.stderr);
}

#[test]
fn a_build_tells_its_digest_and_what_is_new_of_it() {
    let (site, runner) = (Site::new(), Runner::new());
    let outcome = runner.step(site.build(&["notes.txt"])).run();
    let digest = outcome.stdout.trim_end().to_owned();
    let mut outputs = runner.outputs();
    let images: Value = serde_json::from_str(&outputs.remove("images").expect("images")).expect("JSON");
    assert_eq!(images, json!({ "site": program::json(&site.store().join("site.json")) }));
    assert_eq!(outputs.into_iter().collect::<Vec<_>>(), [("digest".to_owned(), digest.clone())]);
    let rows = runner.rows();
    assert_eq!(rows[0], strings(["Digest", &format!("<code>{digest}</code>")]));
    assert_eq!((rows[2][0].as_str(), rows[2][3].as_str()), ("<code>notes.txt</code>", "new"));
    runner.step(site.build(&["notes.txt"])).succeed();
    assert_eq!(runner.rows()[rows.len() + 2][3], "reused", "steps of one job add to the file");
}

#[test]
fn a_dry_run_hands_on_its_plan_and_nothing_that_is_not_there_yet() {
    let (registry, site, runner) = (registry(&["shop/site"]), Site::new(), Runner::new());
    let repository = format!("{}/shop/site", registry.address);
    let push = site.push(&repository, &["notes.txt"]).args(["--dry-run", "--output-env", "image.env"]);
    let outcome = runner.step(push).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with(&format!("image site -> {repository}\n")), "{}", outcome.stdout);
    let plan = outcome.stdout.trim_end().to_owned();
    let expected = [("images".to_owned(), "{}".to_owned()), ("plan".to_owned(), plan.clone())];
    assert_eq!(runner.outputs().into_iter().collect::<Vec<_>>(), expected);
    let block = format!("<pre><code class=\"language-text\">{}\n</code></pre>\n", html(&plan));
    assert_eq!(runner.rendered(), format!("<h3>Plan</h3>\n{block}"));
    assert!(!site.project().join("image.env").exists());
}

#[test]
fn several_images_are_told_of_by_name_and_in_sum() {
    let (registry, runner) = (registry(&["one-a", "two"]), Runner::new());
    let project = two(["one-a", "two"]);
    let repository = format!("{}/{{bin}}", registry.address);
    let push = project.push().args(["--dev", "--base", BASE, "--asset", "notes.txt", "--repository", &repository]);
    let outcome = runner.step(push.args(["--message-format", "json", "--output-env", "image.env"])).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let pushed = outcome.messages("image-pushed");
    let sum = |key: &str| pushed.iter().filter_map(|image| image[key].as_u64()).sum::<u64>().to_string();
    let mut outputs = runner.outputs();
    let images: Value = serde_json::from_str(&outputs.remove("images").expect("images")).expect("JSON");
    assert_eq!(images, json!({ "one-a": project.result("one-a"), "two": project.result("two") }));
    let expected = [("pushed-bytes".to_owned(), sum("sent_bytes")), ("skipped-bytes".to_owned(), sum("reused_bytes"))];
    assert_eq!(outputs.into_iter().collect::<Vec<_>>(), expected);
    let lines = |image: &Value, suffix: &str| {
        let text = |key: &str| image[key].as_str().map_or_else(|| image[key].to_string(), str::to_owned);
        let keys = [("IMAGE_URI", "image_uri"), ("DIGEST", "digest"), ("PUSHED_BYTES", "sent_bytes")];
        let keys = keys.into_iter().chain([("SKIPPED_BYTES", "reused_bytes")]);
        keys.map(|(name, key)| format!("{name}_{suffix}={}\n", text(key))).collect::<String>()
    };
    let dotenv = fs::read_to_string(project.path("image.env")).expect("variables");
    assert_eq!(dotenv, lines(&pushed[0], "ONE_A") + &lines(&pushed[1], "TWO"));
    let rendered = runner.rendered();
    let headings: Vec<_> = rendered.lines().filter(|line| line.starts_with("<h")).collect();
    assert_eq!(headings, ["<h3><code>one-a</code></h3>", "<h3><code>two</code></h3>"]);
}

#[test]
fn a_step_that_fails_has_no_outputs_and_a_summary_that_says_why() {
    let (site, runner) = (Site::new(), Runner::new());
    let outcome = runner.step(site.build(&["notes.txt", "gone"])).run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""));
    assert_eq!(runner.outputs().len(), 0);
    let rendered = runner.rendered();
    assert!(rendered.starts_with("<p><strong>Failed:</strong> ") && rendered.contains("gone"), "{rendered}");
}

#[test]
fn a_verdict_is_a_table_with_each_finding_an_annotation() {
    let (site, runner) = (Site::new(), Runner::new());
    site.build(&["notes.txt"]).succeed();
    let image = format!("oci:{}:site", site.layout().display());
    for form in ["human", "json"] {
        runner.next_step();
        let verify = program::Program::verify(&site.project()).args([&image, "--message-format", form]);
        let plain = program::Program::verify(&site.project()).args([&image, "--message-format", form]).run();
        let outcome = runner.step(verify).run();
        assert_eq!((outcome.code, &outcome.stdout), (3, &plain.stdout), "the report is as ever");
        let rows = runner.rows();
        assert!(!rows.is_empty() && rows.iter().all(|row| row.len() == 5), "{rows:?}");
        let annotations: Vec<_> = commands(&outcome.stderr)
            .into_iter()
            .filter(|line| line.starts_with("::error ") || line.starts_with("::warning "))
            .collect();
        for row in &rows {
            let (level, rule) = (&row[0], row[1].split(':').next().expect("a rule"));
            let begin = format!("::{level} title={rule}::");
            assert!(level == "note" || annotations.iter().any(|it| it.starts_with(&begin)), "{begin}: {annotations:?}");
            assert!(level == "note" || unfolded(&outcome.stderr).iter().any(|it| it.starts_with(&begin)));
        }
        assert!(runner.outputs().is_empty());
    }
}

#[test]
fn outside_of_actions_nobody_is_told_anything_more() {
    let (site, runner) = (Site::new(), Runner::new());
    for given in ["", "false", "1"] {
        let outcome = runner.files(site.build(&["notes.txt"])).env("GITHUB_ACTIONS", given).run();
        assert_eq!((outcome.code, commands(&outcome.stderr)), (0, vec![]), "{}", outcome.stderr);
        assert_eq!((runner.summary().as_str(), runner.outputs().len()), ("", 0));
    }
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_any_work() {
    let (site, runner) = (Site::new(), Runner::new());
    for variable in ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"] {
        let build = runner.step(site.build(&["notes.txt"])).env(variable, "/nowhere/file");
        let outcome = build.run();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""));
        assert!(outcome.stderr.contains(&format!("could not write to `/nowhere/file`, which {variable} names")));
        assert!(!site.store().exists());
    }
}
