//! Names and texts of others, which are neither commands of a runner nor Markdown of ours.

use crate::support::docker_registry::DockerRegistry;
use crate::support::images::noise;
use crate::support::project::{Project, package};
use crate::support::runner::{Runner, commands, html};

use super::{BASE, on_a_base, registry};

/// Names of assets, and how each is seen.
const NAMES: [(&str, &str); 8] = [
    ("::error::x", "::error::x"),
    ("a|b", "a|b"),
    ("`c`` | ```", "`c`` | ```"),
    ("new\n::add-mask::line\r\n", "new\\n::add-mask::line\\r\\n"),
    ("##[error]y", "##[error]y"),
    ("<img src=x onerror=y> &amp; </td>", "<img src=x onerror=y> &amp; </td>"),
    ("*d* _e_ [f](http://g) @user #1 \\|", "*d* _e_ [f](http://g) @user #1 \\|"),
    ("\u{1b}[31m\u{200b}::z", "\\u{1b}[31m\u{200b}::z"),
];

fn project(repository: &str) -> Project {
    let mut config = format!("repository = \"{repository}\"\nhandler = \"a.b\"\nbase = \"scratch\"\n");
    let project = Project::new(&[]);
    for (index, (name, _)) in NAMES.iter().enumerate() {
        let name = serde_json::Value::from(*name);
        config += &format!("[[assets]]\nname = {}\npath = \"{index}.bin\"\n", toml_string(&name));
        project.write(&format!("{index}.bin"), noise(1000 + index));
    }
    config += "[[assets]]\npath = \"::error::file\"\n";
    project.write("::error::file", "a file by that name");
    project.write("lambda-image.toml", config);
    project
}

/// JSON's strings are TOML's, but for what it escapes as a pair of surrogates, which is not here.
fn toml_string(text: &serde_json::Value) -> String {
    text.to_string().replace('\u{1b}', "\\u001b")
}

#[test]
fn names_neither_break_a_table_nor_become_commands() {
    let registry = DockerRegistry::start();
    let project = project(&format!("{}/shop/app", registry.address));
    let runner = Runner::new();
    for (form, verbosity) in [("human", "-v"), ("json", "-v"), ("human", "-vv")] {
        for said in [&["--dry-run"][..], &[]] {
            runner.next_step();
            let push = project.push().args(["--no-binary", "--message-format", form, verbosity]).args(said);
            let outcome = runner.step(push).run();
            assert_eq!(outcome.code, 0, "{}", outcome.stderr);
            assert_eq!(commands(&outcome.stdout), [] as [&str; 0], "{form} {said:?}");
            let ours = ["::group::", "::endgroup::"];
            let others: Vec<_> = commands(&outcome.stderr)
                .into_iter()
                .filter(|line| !ours.iter().any(|it| line.starts_with(it)))
                .collect();
            assert_eq!(others, [] as [&str; 0], "{form} {said:?}");
            let rendered = runner.rendered();
            assert!(
                !rendered.contains("<img") && !rendered.contains("<a ") && !rendered.contains("<em>"),
                "{rendered}"
            );
            if said.is_empty() {
                let rows = runner.rows();
                let layers: Vec<_> = rows.iter().filter(|row| row.len() == 5).map(|row| row[0].clone()).collect();
                let seen = NAMES.iter().map(|(_, seen)| format!("<code>{}</code>", html(seen)));
                let expected: Vec<_> = seen
                    .chain(["<code>::error::file</code>".to_owned(), "<strong>total</strong>".to_owned()])
                    .collect();
                assert_eq!(layers, expected, "{}", runner.summary());
            } else {
                let plan = runner.outputs().remove("plan").expect("a plan");
                assert!(form == "json" || plan == outcome.stdout.trim_end(), "{plan}");
                let block = format!("<pre><code class=\"language-text\">{}\n</code></pre>\n", html(&plan));
                assert_eq!(rendered, format!("<h3>Plan</h3>\n{block}"));
            }
        }
    }
}

#[test]
fn json_says_the_names_as_they_are() {
    let registry = registry(&["shop/app"]);
    let (project, runner) = (project(&format!("{}/shop/app", registry.address)), Runner::new());
    let outcome = runner.step(project.push().args(["--no-binary", "--message-format", "json"])).run();
    let pushed = &outcome.messages("image-pushed")[0];
    let names: Vec<_> = pushed["layers"].as_array().expect("layers").iter().map(|it| it["name"].clone()).collect();
    let expected: Vec<_> = NAMES.iter().map(|(name, _)| *name).chain(["::error::file"]).collect();
    assert_eq!(names, expected);
    let images = runner.outputs().remove("images").expect("images");
    let images: serde_json::Value = serde_json::from_str(&images).expect("JSON");
    assert_eq!(images["app"], project.result("app"));
}

#[test]
fn what_is_wrong_in_a_name_is_shown_and_not_obeyed() {
    let (project, runner) = (Project::new(&[("notes.txt", "notes")]), Runner::new());
    let push = |said: &[&str]| {
        runner.next_step();
        let push =
            project.push().args(["--no-binary", "--base", "scratch", "--handler", "a.b", "--asset", "notes.txt"]);
        runner.step(push.args(["--repository", "shop/app", "--region", "eu-west-1"]).args(said)).run()
    };
    for name in ["x\n::add-path::/evil", "##[error]`|<b>", "\u{feff}::set-env name=A::b"] {
        for flag in ["--function", "--tag", "--alias", "--no-such-flag"] {
            let outcome = push(&[&format!("{flag}={name}")]);
            assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{}", outcome.stderr);
            let given = commands(&outcome.stderr);
            assert_eq!(given.len(), 1, "{flag} {name:?}: {}", outcome.stderr);
            assert!(given[0].starts_with("::error title=cargo lambda-image::"), "{}", given[0]);
            let rendered = runner.rendered();
            assert!(!rendered.contains("<b>") && !rendered.contains("<table>"), "{rendered}");
        }
    }
}

#[test]
fn what_a_build_script_prints_is_no_command() {
    let script = r###"fn main() {
        println!("cargo:warning=##[error]from the script");
        eprintln!("::add-path::/evil\n  ::set-env name=A::b\n##[add-mask]x");
        if std::env::var_os("FAIL").is_some() { panic!("on purpose") }
    }"###;
    let files = [("Cargo.toml", package("app", "")), ("src/main.rs", "fn main() {}".to_owned())];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let (project, runner) = (on_a_base(&files), Runner::new());
    project.write("build.rs", script);
    let build = || runner.step(project.build().args(["--base", BASE, "--dev"]));
    let warned = build().run();
    assert_eq!(warned.code, 0, "{}", warned.stderr);
    assert!(warned.stderr.contains("error]from the script"), "{}", warned.stderr);
    let failed = build().env("FAIL", "1").arg("--target-dir").arg(project.path("other")).run();
    assert_eq!(failed.code, 101, "{}", failed.stderr);
    assert!(failed.stderr.contains(":add-path::/evil"), "{}", failed.stderr);
    for outcome in [warned, failed] {
        let given = commands(&outcome.stderr);
        let is_ours = |line: &&str| {
            ["::group::", "::endgroup::", "::error title=cargo lambda-image::"].iter().any(|it| line.starts_with(it))
        };
        assert!(given.iter().all(is_ours), "{given:?}");
    }
}
