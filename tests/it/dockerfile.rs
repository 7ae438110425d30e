//! `docs/from-dockerfile.md` with a builder of Dockerfiles and with Serverless: what the page says stays the same,
//! stays.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::cloud::{Cloud, PASSWORD, REGION};
use crate::support::images::Family;
use crate::support::lambda_base::LambdaBase;
use crate::support::markdown::{blocks, commands};
use crate::support::node::serverless;
use crate::support::program::json;
use crate::support::shell::Shell;
use crate::support::tools::{succeed, tool};

const PAGE: &str = "docs/from-dockerfile.md";

/// The page's one block in a language.
fn block(language: &str) -> String {
    let found: Vec<_> = blocks(PAGE).into_iter().filter(|it| it.language == language).collect();
    let [block] = found.try_into().unwrap_or_else(|found| panic!("one of {language}: {found:?}"));
    block.text
}

/// What an image in a layout starts as, and the files of the function in it.
fn image(layout: &Path) -> (Value, BTreeMap<String, Vec<u8>>) {
    let image = format!("{}:lookup", layout.display());
    let config = succeed(Command::new(tool("skopeo")).args(["inspect", "--config", &format!("oci:{image}")]));
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let root = layout.with_extension("files");
    succeed(Command::new(tool("umoci")).args(["raw", "unpack", "--rootless", "--image", &image]).arg(&root));
    let (mut files, mut left) = (BTreeMap::new(), vec![root.join("var/task")]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(&root).expect("below").display().to_string();
                files.insert(name, fs::read(path).expect("a file"));
            }
        }
    }
    (config["config"].clone(), files)
}

#[test]
fn a_node_function_needs_no_dockerfile() {
    let cloud = Cloud::start(&["shop/lookup"]);
    cloud.bases.push("lambda/nodejs", "22", &LambdaBase::new(Family::Docker));
    let shell = Shell::in_cloud(&cloud);
    let [typed] = commands(PAGE, "A function of Node.js, Python or anything else").try_into().expect("one block");
    // The stand-in for the base brings no Node.js.
    let pushed = shell.run(&format!("export CARGO_LAMBDA_IMAGE_ALLOW=L055\n{typed}"));
    let project = shell.path("work/lookup");
    let result = json(&project.join("target/lambda-image/lookup.json"));
    assert_eq!(result["image_uri"], pushed.trim_end());
    let names: Vec<_> = result["layers"].as_array().expect("layers").iter().map(|layer| &layer["name"]).collect();
    assert_eq!(names[names.len() - 3..], ["database.sqlite3", "node_modules", "app.js"]);

    fs::write(project.join("Dockerfile"), block("dockerfile")).expect("written");
    shell.run_in(
        "lookup",
        "buildah() { command buildah --storage-driver vfs --root \"$PWD/../storage\" --runroot \"$PWD/../run\" \"$@\"; }
         buildah build --isolation chroot --tag lookup .
         buildah push lookup oci:../theirs:lookup",
    );
    let ours = shell.path("work/ours");
    let digest = result["digest"].as_str().expect("a digest");
    let mut skopeo = Command::new(tool("skopeo"));
    skopeo.args(["copy", "--src-tls-verify=false", "--src-creds", &format!("AWS:{PASSWORD}")]);
    skopeo.arg(format!("docker://{}/shop/lookup@{digest}", cloud.registry.address));
    succeed(skopeo.arg(format!("oci:{}:lookup", ours.display())));
    let [ours, theirs] = [&ours, &shell.path("work/theirs")].map(|layout| image(layout));
    assert_eq!(ours.1.keys().filter(|name| !name.contains("node_modules")).count(), 2, "{:?}", ours.1.keys());
    assert_eq!(ours.1, theirs.1, "the same files");
    for key in ["Cmd", "Entrypoint", "Env", "WorkingDir"] {
        assert_eq!(ours.0[key], theirs.0[key], "{key}");
    }
    assert_eq!(ours.0["Cmd"], serde_json::json!(["app.get"]));

    let service = format!("service: words\nframeworkVersion: \"3\"\nprovider:\n  name: aws\n  region: {REGION}\n");
    fs::write(project.join("serverless.yml"), service + &block("yaml")).expect("written");
    fs::remove_dir_all(project.join("node_modules")).expect("removed");
    let template = serverless(&project).expect("a template");
    let code = &template["Resources"]["LookupLambdaFunction"]["Properties"]["Code"];
    assert_eq!(code["ImageUri"], result["image_uri"]);
}
