//! What `build` makes of small projects: where each setting comes from, what is written where, and what is said on
//! stdout.

use std::fs;
use std::path::Path;

use cargo_lambda_image::oci::media_type;
use serde_json::{Value, json};

use crate::support::images::{Family, TestImage, gzip};
use crate::support::program::{Outcome, Program, blob, json as document};
use crate::support::project::{AMD64, ARM64, Project, files_below, image, members, package, write_images};
use crate::support::tools::{cargo_lambda, succeed, tool};

const TASK: &str = "/var/task/bootstrap";

fn run(build: Program) -> Outcome {
    let outcome = build.run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome
}

#[test]
fn a_binary_goes_where_the_base_starts_it() {
    let project = Project::new(&[]);
    project.write_program("app", AMD64);
    write_images(&project.path("base"), &[&TestImage::new(Family::Docker, "amd64")]);

    run(project.build().args(["--binary-path", "app", "--base", "scratch", "--handler", "h"]));
    let scratch = project.image("app");
    assert_eq!(scratch.config["config"]["Entrypoint"], json!([TASK]));
    assert_eq!(members(&project.layout(), &scratch.manifest), ["var/task/bootstrap"]);

    run(project.build().args(["--binary-path", "app", "--base", "oci:base"]));
    let lambda = project.image("app");
    assert_eq!(lambda.config["config"]["Cmd"], json!(["app"]), "one element, the binary's name");
    assert_eq!(lambda.config["config"]["X-Unknown"], 1, "unknown fields of the base stay");
    assert_eq!(members(&project.layout(), &lambda.manifest).last().map(String::as_str), Some("var/runtime/bootstrap"));
    let types: Vec<_> = lambda.manifest["layers"].as_array().expect("layers").iter().map(|l| &l["mediaType"]).collect();
    assert_eq!(types, [media_type::OCI_LAYER_GZIP; 3], "a Docker base is renamed throughout");
    assert_eq!(lambda.config["history"].as_array().map(Vec::len), Some(3), "one entry a layer");
    assert_eq!(lambda.manifest["mediaType"], media_type::OCI_MANIFEST);
    assert_eq!(lambda.manifest.get("annotations"), None);

    run(project.build().args(["--binary-path", "app", "--base", "oci:base", "--format", "docker"]));
    let docker = project.image("app").manifest;
    assert_eq!(docker["mediaType"], media_type::DOCKER_MANIFEST);
    assert_eq!(docker["config"]["mediaType"], media_type::DOCKER_CONFIG);
    for (ours, theirs) in docker["layers"].as_array().expect("layers").iter().zip(0..) {
        assert_eq!(ours["mediaType"], media_type::DOCKER_LAYER_GZIP);
        assert_eq!(ours["digest"], lambda.manifest["layers"][theirs]["digest"], "the same bytes");
    }
}

#[test]
fn the_seed_case_without_a_binary() {
    let own = r#"
        base = "oci:base"
        handler = "app.get"
        assets = [
            { path = "database.sqlite3" },
            { path = "node_modules" },
            { path = "dist/app.mjs", to = "app.mjs" },
        ]
    "#;
    let project = Project::within(
        "shop",
        &[
            ("lambda-image.toml", own),
            ("database.sqlite3", "rows"),
            ("node_modules/.package-lock.json", "{}"),
            ("node_modules/m/index.js", "m"),
            ("dist/app.mjs", "app"),
        ],
    );
    let node = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/lambda-entrypoint.sh"], "WorkingDir": "/var/task"},
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    let node = TestImage { config: node.to_string().into_bytes(), ..TestImage::of(Family::Oci, "amd64", &[], gzip) };
    let manifest = crate::support::images::manifest(Family::Oci, &node.config, Vec::new());
    write_images(&project.path("base"), &[&TestImage { manifest, ..node }]);
    run(project.build().arg("--no-binary"));
    let image = project.image("shop");
    assert_eq!(image.config["config"]["Cmd"], json!(["app.get"]));
    assert_eq!(image.config["config"]["Entrypoint"], json!(["/lambda-entrypoint.sh"]));
    let files = ["database.sqlite3", "node_modules/.package-lock.json", "node_modules/m/index.js", "app.mjs"];
    assert_eq!(members(&project.layout(), &image.manifest), files.map(|file| format!("var/task/{file}")));
    assert_eq!(project.result("shop")["package"], "shop");
    let names: Vec<_> =
        project.result("shop")["layers"].as_array().expect("layers").iter().map(|l| l["name"].clone()).collect();
    assert_eq!(names, ["database.sqlite3", "node_modules", "app.mjs"]);
}

#[test]
fn an_arm64_image_says_so_everywhere() {
    let project = Project::new(&[("data/x", "x")]);
    project.write_program("app", ARM64);
    let (amd64, arm64) = (TestImage::new(Family::Oci, "amd64"), TestImage::new(Family::Oci, "arm64"));
    write_images(&project.path("base"), &[&amd64, &arm64]);
    for flags in [
        &["--binary-path", "app"][..],
        &["--binary-path", "app", "--arm64"],
        &["--no-binary", "--arm64"],
        &["--no-binary", "--target", "aarch64-unknown-linux-musl"],
    ] {
        let outcome = run(project.build().args(flags).args(["--base", "oci:base", "--handler", "h"]));
        assert!(outcome.stderr.contains("Built app for linux/arm64\n"), "{flags:?}: {}", outcome.stderr);
        let image = project.image("app");
        assert_eq!(image.config["architecture"], "arm64", "{flags:?}");
        assert_eq!(
            image.manifest["layers"][0],
            crate::support::images::descriptor(media_type::OCI_LAYER_GZIP, &arm64.layers[0])
        );
        let index = document(&project.layout().join("index.json"));
        assert_eq!(index["manifests"][0]["platform"], json!({"architecture": "arm64", "os": "linux"}), "{flags:?}");
        assert_eq!(project.result("app")["platform"], "linux/arm64", "{flags:?}");
    }
}

#[test]
fn the_result_file_and_the_message_tell_exactly_what_was_written() {
    let project = Project::new(&[("data/x", "x")]);
    project.write_program("tool", AMD64);
    let arguments = ["--binary-path", "tool", "--name", "renamed", "--base", "scratch", "--asset", "data"];
    let outcome = run(project.build().args(arguments));
    let image = project.image("renamed");
    assert_eq!(outcome.stdout, format!("{}\n", image.digest), "one line an image");

    let layer = |at: usize, name: &str, size: u64| {
        let descriptor = &image.manifest["layers"][at];
        json!({
            "name": name,
            "digest": descriptor["digest"],
            "diff_id": image.config["rootfs"]["diff_ids"][at],
            "size": descriptor["size"],
            "uncompressed_size": size,
            "media_type": media_type::OCI_LAYER_GZIP,
        })
    };
    let size_of = |digest: &Value| {
        fs::metadata(project.layout().join("blobs/sha256").join(&digest.as_str().expect("text")[7..]))
            .expect("a blob")
            .len()
    };
    let digests = [
        &json!(image.digest),
        &image.manifest["config"]["digest"],
        &image.manifest["layers"][0]["digest"],
        &image.manifest["layers"][1]["digest"],
    ];
    let expected = json!({
        "schema": 1,
        "package": "renamed",
        "bin": "renamed",
        "digest": image.digest,
        "image_uri": null,
        "tags": [],
        "platform": "linux/amd64",
        "size": digests.map(size_of).iter().sum::<u64>(),
        "uncompressed_size": 3584 + 3072,
        "layers": [layer(0, "data", 3584), layer(1, "renamed", 3072)],
        "functions": [],
        "sent_bytes": null,
        "reused_bytes": null,
    });
    assert_eq!(project.result("renamed"), expected);
    assert_eq!(files_below(&project.layout()).len(), 4 + 2, "four blobs, the index and the marker");

    let outcome = run(project.build().args(arguments).args(["--message-format", "json", "-q"]));
    let lines: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let base = json!({"reason": "base-resolved", "package": "renamed", "bin": "renamed", "reference": "scratch", "digest": null, "platform": "linux/amd64"});
    let mut built = expected;
    built["reason"] = "image-built".into();
    for of_pushes in ["sent_bytes", "reused_bytes"] {
        built.as_object_mut().expect("an object").remove(of_pushes);
    }
    for layer in built["layers"].as_array_mut().expect("layers") {
        layer["reused"] = true.into();
    }
    assert_eq!(lines, [base, built, json!({"reason": "finished", "success": true})]);
    assert_eq!(outcome.stderr, "", "quiet");
}

#[test]
fn cargo_compiles_and_its_messages_are_passed_on() {
    let project = Project::new(&[
        ("Cargo.toml", &package("two", "")),
        ("src/bin/one.rs", "fn main() {}"),
        ("src/bin/two.rs", "fn main() {}"),
        ("Cargo.lock", "version = 4\n[[package]]\nname = \"two\"\nversion = \"1.2.3\"\n"),
    ]);
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let flags = ["--base", "scratch", "--dev", "--offline", "--target", &target, "--config"];
    let rustflags = format!("target.{target}.rustflags = ['-Ctarget-feature=+crt-static']");
    let build = || project.build().args(flags).arg(&rustflags);

    let outcome = run(build());
    let digests = [project.image("one").digest, project.image("two").digest];
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), digests, "in the order of their names");
    assert!(outcome.stderr.contains("Compiling two v1.2.3"), "{}", outcome.stderr);

    let outcome = run(build().args(["--message-format=json", "-q"]));
    let lines: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: Vec<_> = lines.iter().map(|line| (line["reason"].as_str().unwrap_or_default(), &line["bin"])).collect();
    let (none, one, two) = (Value::Null, json!("one"), json!("two"));
    assert_eq!(
        told,
        [
            ("compiler-artifact", &none),
            ("compiler-artifact", &none),
            ("build-finished", &none),
            ("base-resolved", &one),
            ("base-resolved", &two),
            ("image-built", &one),
            ("image-built", &two),
            ("finished", &none),
        ]
    );
    assert!(lines[0]["executable"].is_string() && lines[0]["package_id"].is_string(), "as cargo says it");

    project.write("src/bin/two.rs", "fn main() { nonsense }");
    let before = project.layout_files();
    let outcome = build().args(["--message-format=json", "-q"]).run();
    assert_eq!(outcome.code, 101);
    assert!(outcome.stderr.contains("error[E0425]: cannot find value `nonsense`"), "{}", outcome.stderr);
    let last: Value = serde_json::from_str(outcome.stdout.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last, json!({"reason": "finished", "success": false}));
    assert_eq!(project.layout_files(), before);
}

#[test]
fn what_cargo_lambda_compiles_is_packed_from_where_it_moves_it() {
    let project = Project::new(&[
        ("Cargo.toml", &package("app", "[workspace]\n")),
        ("src/main.rs", "fn main() { println!(\"one\"); }"),
        ("Cargo.lock", "version = 4\n[[package]]\nname = \"app\"\nversion = \"1.2.3\"\n"),
    ]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([cargo_lambda()].into_iter().chain(std::env::split_paths(&path))).expect("a PATH");
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let build = || {
        let build = project.build().args(["--cargo-build", "lambda build", "--dev", "--offline", "--target", &target]);
        let build = build.args(["--config", &format!("target.{target}.rustflags = ['-Ctarget-feature=+crt-static']")]);
        // Its own way to compile is by zig, which is not there.
        build.args(["--base", "scratch"]).env("PATH", &path).env("CARGO_LAMBDA_COMPILER", "cargo").succeed()
    };
    let binary = || fs::read(project.path("target/lambda/app/bootstrap")).expect("where cargo-lambda puts it");
    let (first, one) = (build(), binary());
    assert!(!project.path(&format!("target/{target}/debug/app")).exists(), "it is not where cargo said");
    assert_eq!(build(), first, "nothing changed");

    project.write("src/main.rs", "fn main() { println!(\"other\"); }");
    assert_ne!(build(), first);
    assert_ne!(binary(), one);
    let layer = project.result("app")["layers"][0].clone();
    let size = fs::metadata(project.path("target/lambda/app/bootstrap")).expect("the binary").len();
    assert!(layer["uncompressed_size"].as_u64().is_some_and(|tar| tar > size), "{layer}");
}

#[test]
fn a_second_build_reads_no_byte_of_an_asset() {
    // Files of this repository, since those of a test are too fresh for their time stamps to be trusted.
    // Small ones, too: each could be a pointer of Git LFS.
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let [asset, small] = ["hello/words.sqlite3", "workspace/words.txt"].map(|path| testdata.join(path));
    let project = Project::new(&[]);
    let trace = project.path("trace");
    let build = |flags: &[&str]| {
        let build = project.build().args(["--no-binary", "--base", "scratch", "--handler", "h", "--asset"]);
        let build = build.arg(&asset).arg("--asset").arg(&small).args(flags).args(["--message-format", "json"]);
        let strace = tool("strace");
        let watch = ["-f", "-qq", "-e", "trace=openat,open,openat2", "-o", trace.to_str().expect("UTF-8")];
        let outcome = run(build.under(strace.to_str().expect("UTF-8"), watch));
        let traced = fs::read_to_string(&trace).expect("a trace");
        let opened = ["words.sqlite3\"", "words.txt\""].map(|name| traced.contains(name));
        let mut built = outcome.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let built = built.rfind(|line| line["reason"] == "image-built").expect("an image");
        (built["digest"].clone(), built["layers"][0]["reused"].clone(), opened)
    };
    let (digest, reused, opened) = build(&[]);
    assert_eq!((reused, opened), (json!(false), [true; 2]), "the first build reads them");
    assert_eq!(build(&[]), (digest.clone(), json!(true), [false; 2]));
    assert_eq!(build(&["--no-cache"]), (digest.clone(), json!(false), [true; 2]), "as if nothing were known");
    assert_eq!(build(&[]), (digest, json!(true), [false; 2]));
}

#[test]
fn another_name_for_the_same_bytes_costs_a_hash() {
    let project = Project::new(&[("data/x", "x")]);
    project.write_program("app", AMD64);
    let build = |flags: &[&str]| {
        let build = project.build().args(["--binary-path", "app", "--base", "scratch", "--message-format", "json"]);
        let outcome = run(build.args(flags));
        let mut lines = outcome.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let image = lines.rfind(|line| line["reason"] == "image-built").expect("an image");
        let layers = image["layers"].as_array().expect("layers").clone();
        layers.into_iter().map(|layer| (layer["name"].clone(), layer["reused"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(build(&["--asset", "data"]), [(json!("data"), json!(false)), (json!("app"), json!(false))]);
    let names = ["--name", "second", "--asset", "data"];
    assert_eq!(build(&names), [(json!("data"), json!(true)), (json!("second"), json!(true))]);
}

#[test]
fn archives_without_a_path_are_one_for_each_binary() {
    let project = Project::new(&[
        ("Cargo.toml", &package("pair", "")),
        ("src/bin/one.rs", "fn main() {}"),
        ("src/bin/two.rs", "fn main() {}"),
        ("Cargo.lock", "version = 4\n[[package]]\nname = \"pair\"\nversion = \"1.2.3\"\n"),
    ]);
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let rustflags = format!("target.{target}.rustflags = ['-Ctarget-feature=+crt-static']");
    let flags = ["--base", "scratch", "--dev", "--offline", "--target", &target, "--config", &rustflags, "--output"];
    let build = |output: &str| project.build().args(flags).arg(output);
    let digests = build("docker-archive").succeed();
    assert_eq!(digests.len(), 2);
    for bin in ["one", "two"] {
        let path = project.store().join(format!("{bin}.docker.tar"));
        let list = ["-xOf", path.to_str().expect("UTF-8"), "manifest.json"];
        let listed: Value = serde_json::from_str(&succeed(std::process::Command::new("tar").args(list))).expect("JSON");
        assert_eq!(listed[0]["RepoTags"], json!([format!("{bin}:latest")]));
    }
    let outcome = build("docker-archive:both.tar").run();
    assert_eq!(outcome.code, 2);
    for text in ["/both.tar` takes one image, and there are 2: `one`, `two`", "\nhelp: choose one with `--bin`"] {
        assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
    }
    assert!(!project.path("both.tar").exists());
}

#[test]
fn outputs_go_where_they_are_sent_and_into_the_layout() {
    let project = Project::new(&[("data/x", "x"), ("old.tar", "old")]);
    project.write_program("app", AMD64);
    std::os::unix::fs::symlink("old.tar", project.path("link.tar")).expect("linked");
    let build = |flags: &[&str]| {
        run(project.build().args(["--binary-path", "app", "--base", "scratch", "--asset", "data"]).args(flags))
    };
    build(&[]);
    let expected = project.image("app");
    for output in ["oci-dir", "oci-dir:new/layout", "oci-dir:new/layout"] {
        assert_eq!(build(&["--output", output]).stdout, format!("{}\n", expected.digest), "{output}");
    }
    assert_eq!(image(&project.path("new/layout"), "app").digest, expected.digest);
    assert_eq!(files_below(&project.path("new/layout")), project.layout_files(), "nothing more, nothing less");

    build(&["--name", "second", "--output", "oci-dir:new/layout"]);
    assert_eq!(image(&project.path("new/layout"), "app").digest, expected.digest, "the other image stays");
    assert_ne!(image(&project.path("new/layout"), "second").digest, expected.digest);

    for (output, path) in [
        ("oci-archive:new/oci.tar", "new/oci.tar"),
        ("oci-archive", "target/lambda-image/app.oci.tar"),
        ("oci-archive:link.tar", "old.tar"),
    ] {
        build(&["--output", output]);
        let unpacked = project.path("unpacked");
        fs::create_dir(&unpacked).expect("made");
        succeed(std::process::Command::new("tar").arg("-xf").arg(project.path(path)).arg("-C").arg(&unpacked));
        assert_eq!(image(&unpacked, "app").digest, expected.digest, "{output}");
        fs::remove_dir_all(&unpacked).expect("removed");
    }
    assert!(project.path("link.tar").is_symlink(), "what a link points to is replaced");
    let told = build(&["--output", "oci-archive:told.tar", "--message-format", "json"]).messages("wrote");
    let told: Vec<_> = told.iter().map(|message| (&message["bin"], &message["what"], &message["path"])).collect();
    assert_eq!(told, [(&json!("app"), &json!("archive"), &json!(project.path("told.tar")))]);
    for (output, path) in [("docker-archive:d.tar", "d.tar"), ("docker-archive", "target/lambda-image/app.docker.tar")]
    {
        build(&["--output", output]);
        let list = ["-xOf", path, "manifest.json"];
        let text = succeed(std::process::Command::new("tar").args(list).current_dir(project.root()));
        let listed: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(listed[0]["RepoTags"], json!(["app:latest"]), "{output}");
        let config = expected.manifest["config"]["digest"].as_str().expect("a digest");
        assert_eq!(listed[0]["Config"], format!("{}.json", &config[7..]), "{output}");
        assert_eq!(blob(&project.layout(), config)["rootfs"]["diff_ids"].as_array().map(Vec::len), Some(2));
    }
    let left: Vec<_> = files_below(project.root())
        .into_keys()
        .filter(|path| path.to_string_lossy().contains(".lambda-image-"))
        .collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new(), "no temporary file is left");
}
