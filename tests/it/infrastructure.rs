//! `docs/infrastructure.md` with the real tools: its examples, as they stand there, deploy what was pushed.
//!
//! Whatever a tool wrote is deployed to moto where moto can, so that the image of the functions counts, not the
//! spelling of a template.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::cloud::{Cloud, HOST, REGION};
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::Family;
use crate::support::lambda_base::LambdaBase;
use crate::support::markdown::{blocks, commands};
use crate::support::moto::Moto;
use crate::support::node;
use crate::support::program::json as json_of;
use crate::support::project::{AMD64, Project};
use crate::support::proxy::Proxy;
use crate::support::shell::{Shell, pasted};
use crate::support::tools::{succeed, target_directory, tool};

const PAGE: &str = "docs/infrastructure.md";

const ROLE: &str = "arn:aws:iam::123456789012:role/shop";

/// A file that the page shows, by the name in its first line.
fn example(name: &str) -> String {
    let named = |text: &str| text.lines().next().is_some_and(|line| line.ends_with(&format!(" {name}")));
    let found: Vec<_> = blocks(PAGE).into_iter().filter(|block| named(&block.text)).collect();
    let [block] = found.try_into().unwrap_or_else(|found| panic!("one `{name}`, not {found:?}"));
    block.text
}

/// Makes the page's project and pushes it, after other lines of shell. Returns where the images of `api` and `sweep`
/// are.
fn push(shell: &Shell, before: &str) -> [String; 2] {
    // Two projects that look the same to Cargo write over each other's binaries where they share what is made on the
    // way.
    let before = format!("unset CARGO_BUILD_BUILD_DIR\n{before}");
    let printed = shell.run(&(before + &commands(PAGE, "What they read").concat()));
    let [api, sweep, again] = printed.lines().collect::<Vec<_>>().try_into().expect("two images, and jq");
    assert_eq!(api, again, "what jq reads is what the push printed");
    [api.to_owned(), sweep.to_owned()]
}

/// Writes an example into the project, and tells where that is.
fn written(shell: &Shell, file: &str) -> PathBuf {
    let project = shell.path("work/shop");
    fs::write(project.join(file), example(file)).expect("written");
    project
}

fn serverless(shell: &Shell) -> Value {
    node::serverless(&written(shell, "serverless.yml")).expect("a template")
}

/// What CDK makes, with what its command line hands to the program.
fn cdk(shell: &Shell, context: &Value) -> Value {
    let project = written(shell, "shop.mjs");
    let environment = [("CDK_OUTDIR", "cdk.out"), ("CDK_CONTEXT_JSON", &context.to_string())];
    let output = node::node(&project, &["shop.mjs"], &environment);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    json_of(&project.join("cdk.out/Shop.template.json"))
}

/// Only the functions of a template, as roles and events are moto's business and not ours.
fn functions(mut template: Value) -> Value {
    let resources = template["Resources"].as_object_mut().expect("resources");
    resources.retain(|_, resource| resource["Type"] == "AWS::Lambda::Function");
    for resource in resources.values_mut() {
        resource.as_object_mut().expect("a resource").remove("DependsOn");
        resource["Properties"]["Role"] = json!(ROLE);
    }
    json!({ "Resources": resources })
}

/// Which images the functions of a template get.
fn deployed(template: &Value, parameters: &[(&str, &str)]) -> Vec<String> {
    let moto = Moto::start();
    moto.create_role("shop");
    moto.deploy(REGION, template, parameters)
}

#[test]
fn serverless_packages_what_a_registry_has() {
    let registry = DockerRegistry::start();
    registry.push("lambda/provided", "al2023", &LambdaBase::new(Family::Docker));
    let proxy = Proxy::start(&registry.address);
    let shell = Shell::behind(&proxy);
    // The page's repository is one of ECR; a variable wins over the table.
    let elsewhere = format!("export CARGO_LAMBDA_IMAGE_REPOSITORY={}/shop/{{bin}}\n", registry.address);
    let elsewhere = elsewhere + "export CARGO_LAMBDA_IMAGE_CREATE_REPOSITORY=false\n";
    let [api, sweep] = push(&shell, &elsewhere);
    let template = serverless(&shell);
    for (function, image) in [("Api", api), ("Sweep", sweep)] {
        let properties = &template["Resources"][format!("{function}LambdaFunction")]["Properties"];
        assert_eq!(properties["Code"], json!({ "ImageUri": image }));
        assert_eq!(properties["PackageType"], "Image");
        let mut skopeo = Command::new(tool("skopeo"));
        skopeo.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{image}")]);
        let digest = succeed(&mut skopeo);
        assert!(image.ends_with(&format!("@{}", digest.trim())), "{image} is there");
    }
}

#[test]
fn all_tools_deploy_what_was_pushed() {
    let cloud = Cloud::start(&["shop/api", "shop/sweep"]);
    let shell = Shell::in_cloud(&cloud);
    let images = push(&shell, "");
    assert!(images.iter().all(|image| image.starts_with(&format!("{HOST}/shop/"))), "{images:?}");
    let [api, sweep] = &images;

    let written = serverless(&shell);
    let version = |function: &str| {
        let resources = written["Resources"].as_object().expect("resources");
        let mut versions = resources.iter().filter(|(_, it)| it["Type"] == "AWS::Lambda::Version");
        let (_, version) = versions.find(|(name, _)| name.starts_with(function)).expect("a version");
        version["Properties"]["CodeSha256"].as_str().expect("a digest").to_owned()
    };
    assert!(api.ends_with(&version("Api")) && sweep.ends_with(&version("Sweep")), "as the page says");
    assert_eq!(deployed(&functions(written), &[]), images);

    sam_deploys(&shell, &images);
    terraform_reads(&shell, &images);

    let written = cdk(&shell, &json!({}));
    assert_eq!(deployed(&functions(written.clone()), &[]), images);
    let results = shell.path("work/shop/target/lambda-image");
    let result = |bin: &str| fs::read_to_string(results.join(bin)).expect("a result");
    let context = json!({ "api": result("api.json"), "sweep": result("sweep.json") });
    fs::remove_dir_all(&results).expect("removed");
    assert_eq!(cdk(&shell, &context), written, "the context stands for the files");
}

/// The page's way with SAM, whose command line only takes what the shell hands to it.
fn sam_deploys(shell: &Shell, [api, sweep]: &[String; 2]) {
    // What CloudFormation does with a template of SAM, and moto does not: AWS's own code for it.
    const TRANSFORM: &str = "
import json, sys
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse
class Policies:
    load = staticmethod(dict)
print(json.dumps(transform(yaml_parse(open(sys.argv[1]).read()), {}, Policies())))";

    let template = written(shell, "template.yaml").join("template.yaml");
    let mut lint = Command::new(target_directory().join("tools/moto/bin/cfn-lint"));
    succeed(lint.args(["--regions", REGION, "--template"]).arg(&template));

    shell.provide("sam", "printf '%s\\n' \"$@\"");
    let [deploy] = commands(PAGE, "SAM and CloudFormation").try_into().expect("one block of shell");
    let typed = shell.run_in("shop", &deploy);
    let typed: Vec<_> = typed.lines().collect();
    let [repository, given, first, second] = typed[typed.len() - 4..] else { panic!("{typed:?}") };
    assert_eq!((repository, given), (api.split('@').next().expect("a repository"), "--parameter-overrides"));
    assert_eq!([first, second], [format!("ApiImage={api}"), format!("SweepImage={sweep}")]);

    let mut transform = Command::new(target_directory().join("tools/moto/bin/python"));
    let transformed = succeed(transform.args(["-c", TRANSFORM]).arg(&template).env("AWS_DEFAULT_REGION", REGION));
    let transformed: Value = serde_json::from_str(&transformed).expect("JSON");
    let mut plain = functions(transformed.clone());
    plain["Parameters"] = transformed["Parameters"].clone();
    let parameters = [first, second].map(|it| it.split_once('=').expect("a value"));
    assert_eq!(deployed(&plain, &parameters), [api.as_str(), sweep]);
}

/// HashiCorp's parser reads the example; what it says about the file is then looked up by hand.
fn terraform_reads(shell: &Shell, [api, sweep]: &[String; 2]) {
    const PARSE: &str = "require('@cdktf/hcl2json').parse('main.tf', require('fs').readFileSync('main.tf', 'utf8'))
        .then((it) => require('fs').writeFileSync('main.tf.json', JSON.stringify(it)))";
    let project = written(shell, "main.tf");
    let output = node::node(&project, &["-e", PARSE], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let parsed = json_of(&project.join("main.tf.json"));
    let images = parsed["locals"][0]["images"].as_str().expect("an expression");
    let images = images.strip_prefix("${{").expect("an object").split_whitespace().collect::<Vec<_>>().join(" ");
    let path = "target/lambda-image/${bin}.json";
    let expected =
        format!("for bin in [\"api\", \"sweep\"] : bin => jsondecode(file(\"${{path.module}}/{path}\")) }}}}");
    assert_eq!(images, expected);
    let function = &parsed["resource"]["aws_lambda_function"]["shop"][0];
    assert_eq!((&function["for_each"], &function["package_type"]), (&json!("${local.images}"), &json!("Image")));
    assert_eq!(function["image_uri"], "${each.value.image_uri}");
    for (bin, image) in [("api", api), ("sweep", sweep)] {
        let result = json_of(&project.join(path.replace("${bin}", bin)));
        assert_eq!((&result["image_uri"], &result["platform"]), (&json!(image), &json!("linux/amd64")));
    }
}

#[test]
fn no_tool_deploys_what_was_only_built() {
    let project = Project::within("work/shop", &[]);
    project.write_program("api", AMD64);
    let build = |bin: &str| project.build().args(["--binary-path", "api", "--bin", bin, "--base", "scratch"]).succeed();
    build("api");
    build("sweep");
    assert_eq!(project.result("api")["image_uri"], Value::Null);
    project.write("serverless.yml", example("serverless.yml"));
    let said = node::serverless(project.root()).expect_err("no URI");
    let [_, message] = texts("Serverless").try_into().expect("two blocks");
    assert!(said.contains(message.trim()), "what the page quotes: {said}");

    project.write("shop.mjs", example("shop.mjs"));
    let output = node::node(project.root(), &["shop.mjs"], &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("Error: target/lambda-image/api.json: built, but not pushed"), "{said}");

    let [deploy] = commands(PAGE, "SAM and CloudFormation").try_into().expect("one block of shell");
    let deploy = format!("sam() {{ echo deployed; }}\n{deploy}");
    let output = pasted(&deploy).current_dir(project.root()).output().expect("bash starts");
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()), "jq ends the script");
}

/// What a section shows and no test runs.
fn texts(section: &str) -> Vec<String> {
    let shown = |language: &str| language != "sh";
    blocks(PAGE).into_iter().filter(|it| it.section == section && shown(&it.language)).map(|it| it.text).collect()
}
