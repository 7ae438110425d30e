//! From projects on disk to requests: cargo's real metadata, with the selection and the tables of real files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cargo_lambda_image::cli::{self, BuildArgs, Command, values::ColorArg};
use cargo_lambda_image::config::{self, BinarySource, BuildRequest, Environment};
use cargo_lambda_image::event::{Event, Reporter, Session};
use cargo_lambda_image::platform::Architecture;
use cargo_lambda_image::problem::{Exit, Problem, Result};
use tempfile::TempDir;

/// A directory of files, with what is asked for in it and what was warned about.
struct Project {
    directory: TempDir,
    warnings: Arc<Mutex<Vec<String>>>,
}

struct Warnings(Arc<Mutex<Vec<String>>>);

impl Reporter for Warnings {
    fn event(&self, event: &Event<'_>) {
        if let Event::Warning { message, .. } = event {
            self.0.lock().expect("not poisoned").push((*message).to_owned());
        }
    }
}

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        for (path, text) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directories can be made");
            fs::write(path, text).expect("files can be written");
        }
        Self { directory, warnings: Arc::default() }
    }

    /// Its path as cargo shows it, without symlinks.
    fn root(&self) -> PathBuf {
        self.directory.path().canonicalize().expect("it is there")
    }

    fn request_in(&self, folder: &str, flags: &[&str], variables: &[(&str, &str)]) -> Result<BuildRequest> {
        let environment = Environment {
            variables: variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect(),
            directory: self.root().join(folder),
            parallelism: 2,
            stderr_is_terminal: false,
        };
        let session = Session::new(Box::new(Warnings(Arc::clone(&self.warnings))));
        config::build_request(&typed(flags), &environment, &session)
    }

    fn request(&self, flags: &[&str]) -> BuildRequest {
        self.request_in("", flags, &[]).expect("the request can be settled")
    }

    fn problem(&self, flags: &[&str]) -> Problem {
        self.request_in("", flags, &[]).expect_err("the request is refused")
    }

    /// What was warned about, with the project's path left out.
    fn warnings(&self) -> Vec<String> {
        let root = format!("{}/", self.root().display());
        self.warnings.lock().expect("not poisoned").iter().map(|warning| warning.replace(&root, "")).collect()
    }
}

fn typed(flags: &[&str]) -> BuildArgs {
    let line = ["cargo-lambda-image", "lambda-image", "build"].iter().chain(flags).map(OsString::from);
    let Command::Build(args) = cli::parse(line, ColorArg::Never).expect("the flags are right").command else {
        panic!("`build` was typed");
    };
    *args
}

/// `package/bin` of each image.
fn images(request: &BuildRequest) -> Vec<String> {
    request.images.iter().map(|image| format!("{}/{}", image.package, image.bin)).collect()
}

fn package(name: &str, rest: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"1.2.3\"\nedition = \"2021\"\n{rest}")
}

const MAIN: &str = "fn main() {}";

/// Two packages with binaries, and a library.
fn workspace() -> Project {
    let root = r#"
        [workspace]
        members = ["api", "jobs", "words"]
        resolver = "2"
        [workspace.metadata.lambda-image]
        base = "oci:base"
        handler = "workspace"
        env = { A = "workspace", B = "workspace" }
        assets = [{ path = "shared" }]
    "#;
    let api = r#"
        [package.metadata.lambda-image]
        env = { A = "package" }
        assets = [{ path = "models", to = "m" }]
        [package.metadata.lambda-image.bin.api]
        handler = "bin"
    "#;
    let jobs = r#"
        [features]
        extra = []
        all = ["extra"]
        [[bin]]
        name = "sweep"
        path = "src/sweep.rs"
        required-features = ["extra"]
        [[bin]]
        name = "resize"
        path = "src/resize.rs"
    "#;
    Project::new(&[
        ("Cargo.toml", root),
        ("api/Cargo.toml", &package("api", api)),
        ("api/src/main.rs", MAIN),
        ("jobs/Cargo.toml", &package("jobs", jobs)),
        ("jobs/src/sweep.rs", MAIN),
        ("jobs/src/resize.rs", MAIN),
        ("words/Cargo.toml", &package("words", "")),
        ("words/src/lib.rs", ""),
    ])
}

#[test]
fn each_binary_is_an_image_in_the_order_of_package_then_binary() {
    let project = workspace();
    for (folder, flags, expected) in [
        ("", &[][..], &["api/api", "jobs/resize"][..]),
        ("", &["--workspace", "--all-features"], &["api/api", "jobs/resize", "jobs/sweep"]),
        ("", &["-p", "jobs", "-F", "all"], &["jobs/resize", "jobs/sweep"]),
        ("", &["-p", "jobs@1.2.3"], &["jobs/resize"]),
        ("", &["-p", "j*", "-p", "api"], &["api/api", "jobs/resize"]),
        ("", &["--bin", "resize"], &["jobs/resize"]),
        ("", &["--bin", "sweep", "--bin", "api"], &["api/api", "jobs/sweep"]),
        ("jobs", &[], &["jobs/resize"]),
        ("jobs", &["--workspace"], &["api/api", "jobs/resize"]),
        ("jobs/src", &["-p", "api"], &["api/api"]),
        ("", &["--manifest-path", "api/Cargo.toml"], &["api/api"]),
    ] {
        let request = project.request_in(folder, flags, &[]).expect("something is selected");
        assert_eq!(images(&request), expected, "{flags:?} in {folder:?}");
        assert_eq!(request.store, project.root().join("target/lambda-image"));
        let expected_of_cargo = request.compile.expect("cargo compiles").expected;
        let names: Vec<_> = expected_of_cargo.iter().map(|one| format!("{}/{}", one.package, one.bin)).collect();
        assert_eq!(names, expected, "cargo is asked for the images' binaries, in their order");
    }
    assert_eq!(project.warnings(), Vec::<String>::new());
}

#[test]
fn what_is_not_there_is_a_usage_error_with_a_suggestion() {
    let project = workspace();
    for (flags, message, help) in [
        (&["-p", "jbos"][..], "no package `jbos` in workspace `{root}`", "did you mean `jobs`?"),
        (&["--bin", "resise"], "no binary `resise` in the selected packages", "did you mean `resize`?"),
        (&["-p", "api", "--bin", "x"], "no binary `x` in package `api`", "there are the binaries `api`"),
        (
            &["-p", "api", "--bin", "resize"],
            "no binary `resize` in package `api`",
            "package `jobs` has it: add `-p jobs`",
        ),
        (
            &["-p", "words"],
            "package `words` has no binary",
            "add `src/main.rs` or a `[[bin]]`, or build an image of its assets with `--no-binary`",
        ),
        (&["--no-binary"], "cannot choose between packages: `api`, `jobs`, `words`", "choose with `-p PACKAGE`"),
        (&["--name", "x"], "`--name x` cannot name the images of `api`, `resize`", "choose one with `--bin NAME`"),
    ] {
        let problem = project.problem(flags);
        assert_eq!(problem.message(), message.replace("{root}", &project.root().to_string_lossy()));
        assert_eq!((problem.next_step(), problem.exit()), (Some(help), Exit::Usage), "{flags:?}");
    }
}

#[test]
fn binaries_of_one_name_need_a_choice() {
    let project = Project::new(&[
        ("Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\"]\nresolver = \"2\""),
        ("a/Cargo.toml", &package("a", "")),
        ("a/src/bin/same.rs", MAIN),
        ("b/Cargo.toml", &package("b", "")),
        ("b/src/bin/same.rs", MAIN),
    ]);
    let problem = project.problem(&[]);
    assert_eq!(problem.message(), "binary `same` is in more than one package: `a`, `b`");
    assert_eq!((problem.exit(), problem.next_step()), (Exit::Usage, Some("choose with `-p PACKAGE` or `--bin NAME`")));
    assert_eq!(images(&project.request(&["-p", "b"])), ["b/same"]);
}

#[test]
fn each_setting_comes_from_the_nearest_that_says_it() {
    let project = workspace();
    let root = project.root();
    let api = |flags: &[&str], variables: &[(&str, &str)]| {
        let request = project.request_in("api", flags, variables).expect("the request can be settled");
        request.images.into_iter().next().expect("one image")
    };
    let image = api(&[], &[]);
    assert_eq!(image.handler.as_deref(), Some("bin"));
    assert_eq!((image.base.as_str(), &image.base_directory), ("oci:base", &root));
    let [asset] = image.assets.as_slice() else { panic!("one asset: {:?}", image.assets) };
    assert_eq!(
        (asset.directory.clone(), asset.path.as_str(), asset.to.as_deref()),
        (root.join("api"), "models", Some("m"))
    );

    let variables = [
        ("CARGO_LAMBDA_IMAGE_HANDLER", "set"),
        ("CARGO_LAMBDA_IMAGE_ENV", "B=set\nC=set"),
        ("CARGO_LAMBDA_IMAGE_BASE", "oci:b"),
    ];
    let image = api(&["--env", "C=typed", "--asset", "../x:y"], &variables);
    assert_eq!(image.handler.as_deref(), Some("set"));
    assert_eq!((image.base.as_str(), &image.base_directory), ("oci:b", &root.join("api")));
    let env = [("A", "package"), ("B", "set"), ("C", "typed")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(image.env, BTreeMap::from(env));
    let paths: Vec<_> = image.assets.iter().map(|asset| asset.path.as_str()).collect();
    assert_eq!(paths, ["models", "../x"]);
    assert_eq!(api(&["--handler", "typed"], &variables).handler.as_deref(), Some("typed"));
    assert_eq!(api(&["--no-assets"], &[]).assets, []);

    let jobs = project.request(&["-p", "jobs"]).images.remove(0);
    assert_eq!(jobs.handler.as_deref(), Some("workspace"));
    assert_eq!(jobs.assets[0].directory, root, "a workspace's assets start at its root");
}

#[test]
fn unused_keys_and_tables_are_told_once() {
    let manifest = package(
        "a",
        r#"
        [package.metadata.lambda-image]
        handeler = "x"
        [package.metadata.lambda-image.bin.three]
        handler = "x"
        [workspace.metadata.lambda-image.bin.one]
        handler = "x"
        [workspace]
        "#,
    );
    let project = Project::new(&[
        ("Cargo.toml", &manifest),
        ("src/bin/one.rs", MAIN),
        ("src/bin/two.rs", MAIN),
        ("lambda-image.toml", ""),
    ]);
    assert_eq!(images(&project.request(&[])), ["a/one", "a/two"]);
    assert_eq!(
        project.warnings(),
        [
            "`lambda-image.toml` is not read, since there is a Cargo.toml",
            "unused key `workspace.metadata.lambda-image.bin` in `Cargo.toml`",
            "unused key `package.metadata.lambda-image.handeler` in `Cargo.toml`",
            "unused key `package.metadata.lambda-image.bin.three` in `Cargo.toml`",
        ]
    );
}

#[test]
fn a_wrong_type_names_file_and_key() {
    let manifest = package("a", "[package.metadata.lambda-image]\nassets = [{ path = 1 }]");
    let project = Project::new(&[("Cargo.toml", &manifest), ("src/main.rs", MAIN)]);
    let problem = project.problem(&[]);
    let file = project.root().join("Cargo.toml");
    let expected = format!("`package.metadata.lambda-image.assets[0].path` in `{}` is not valid", file.display());
    assert_eq!((problem.message(), problem.exit()), (expected.as_str(), Exit::Usage));
    assert_eq!(problem.causes(), ["invalid type: integer `1`, expected a string"]);
}

#[test]
fn a_project_that_cargo_cannot_read_ends_with_cargos_words() {
    let project = Project::new(&[("Cargo.toml", "[package]\nname = 1")]);
    let problem = project.problem(&[]);
    assert_eq!(problem.exit(), Exit::Cargo);
    let told = format!("{problem} {:?}", problem.causes());
    assert!(told.contains("expected a string") && !told.contains("error: "), "{told}");
}

#[test]
fn without_cargo_the_working_directory_is_the_project() {
    let own = r#"
        base = "scratch"
        assets = [{ path = "data" }]
        [bin.tool]
        handler = "of-tool"
    "#;
    let project = Project::new(&[("site/lambda-image.toml", own), ("site/bin/tool", ""), ("plain/x", "")]);
    let root = project.root();
    let request = |folder, flags: &[&str]| project.request_in(folder, flags, &[]).expect("the request can be settled");

    let site = request("site", &["--no-binary"]);
    assert_eq!((site.store, site.compile), (root.join("site/target/lambda-image"), None));
    let [image] = site.images.as_slice() else { panic!("one image") };
    assert_eq!((image.package.as_str(), image.bin.as_str(), image.base.as_str()), ("site", "site", "scratch"));
    assert_eq!((&image.binary, image.architecture), (&BinarySource::None, Some(Architecture::Amd64)));
    assert_eq!(image.assets[0].directory, root.join("site"));

    let tool = request("site", &["--binary-path", "bin/tool", "--arm64", "--target-dir", "t"]);
    assert_eq!(tool.store, root.join("site/t/lambda-image"));
    let image = &tool.images[0];
    assert_eq!((image.bin.as_str(), image.handler.as_deref()), ("site", Some("of-tool")));
    assert_eq!(image.binary, BinarySource::File(root.join("site/bin/tool")));
    assert_eq!(image.architecture, Some(Architecture::Arm64));

    assert_eq!(request("plain", &["--no-binary", "--name", "named"]).images[0].bin, "named");
    let problem = project.request_in("plain", &[], &[]).expect_err("there is nothing to compile");
    assert_eq!(problem.exit(), Exit::Cargo);
    assert!(problem.next_step().is_some_and(|help| help.contains("--no-binary")));
    assert_eq!(
        project.request_in("plain", &["--no-binary", "-p", "x"], &[]).map_err(|problem| problem.exit()).err(),
        Some(Exit::Usage)
    );
}

#[test]
fn a_prebuilt_binary_finds_its_package_and_table() {
    let project = workspace();
    for (flags, expected, handler) in [
        (&["--binary-path", "out/api"][..], "api/api", "bin"),
        (&["--binary-path", "target/lambda/resize/bootstrap"], "jobs/resize", "workspace"),
        (&["--binary-path", "x", "--bin", "api"], "api/api", "bin"),
        (&["--binary-path", "x", "-p", "jobs"], "jobs/x", "workspace"),
        (&["--binary-path", "api", "--name", "renamed"], "api/renamed", "bin"),
    ] {
        let request = project.request(flags);
        assert_eq!(images(&request), [expected], "{flags:?}");
        assert_eq!(request.images[0].handler.as_deref(), Some(handler), "{flags:?}");
        assert_eq!(request.images[0].binary, BinarySource::File(project.root().join(flags[1])));
        assert_eq!(request.compile, None);
    }
    assert_eq!(project.problem(&["--binary-path", "x"]).next_step(), Some("choose with `-p PACKAGE`"));
}

#[test]
fn an_image_of_assets_is_named_by_its_package() {
    let project = workspace();
    let image = project.request(&["--no-binary", "-p", "words"]).images.remove(0);
    assert_eq!((image.package.as_str(), image.bin.as_str()), ("words", "words"));
    assert_eq!(image.assets[0].directory, project.root());
}

#[test]
fn the_target_directory_is_cargos_or_the_flags() {
    let project = Project::new(&[
        ("Cargo.toml", &package("a", "")),
        ("src/main.rs", MAIN),
        (".cargo/config.toml", "[build]\ntarget-dir = \"configured\""),
    ]);
    let store = |flags: &[&str]| project.request(flags).store;
    assert_eq!(store(&[]), project.root().join("configured/lambda-image"));
    assert_eq!(store(&["--arm64"]), project.root().join("configured/lambda-image"), "never one of a triple");
    assert_eq!(store(&["--target-dir", "typed"]), project.root().join("typed/lambda-image"));
    assert_eq!(store(&["--config", "build.target-dir = 'told'"]), project.root().join("told/lambda-image"));
}

#[test]
fn offline_and_frozen_hold_for_base_images_too() {
    let project = Project::new(&[
        ("Cargo.toml", &package("a", "")),
        ("src/main.rs", MAIN),
        ("Cargo.lock", "version = 4\n[[package]]\nname = \"a\"\nversion = \"1.2.3\"\n"),
    ]);
    for (flags, expected) in [(&[][..], false), (&["--locked"], false), (&["--offline"], true), (&["--frozen"], true)] {
        assert_eq!(project.request(flags).offline, expected, "{flags:?}");
    }
}

#[test]
fn a_folder_whose_name_cannot_name_an_image_needs_a_name() {
    let project = Project::new(&[("two words/x", "")]);
    let problem = project.request_in("two words", &["--no-binary"], &[]).expect_err("it has a space");
    assert_eq!(problem.message(), "the folder's name `two words` cannot name an image");
    assert_eq!(problem.next_step(), Some("name it with `--name NAME`"));
}
