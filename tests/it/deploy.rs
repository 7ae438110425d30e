//! Functions brought to an image, against a Lambda that is busy, refuses, races, fails and loses answers.
//!
//! Each test runs itself in a child that has keys in its environment.

mod failures;
mod refusals;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cargo_lambda_image::aws::ecr::host::RegistryHost;
use cargo_lambda_image::aws::lambda::Lambda;
use cargo_lambda_image::aws::{Access, Settings};
use cargo_lambda_image::deploy::check::preflight;
use cargo_lambda_image::deploy::policy::{Wanted, policy};
use cargo_lambda_image::deploy::{self, Asked, Create, Deployment, Image, Patience, Release, plan};
use cargo_lambda_image::event::function::FunctionStep;
use cargo_lambda_image::event::{Event, FunctionResult, Reporter, Session};
use cargo_lambda_image::oci::Digest;
use cargo_lambda_image::platform::Architecture;
use cargo_lambda_image::problem::{Problem, Result, together};
use serde_json::{Value, json};

use crate::support::child;
use crate::support::lambda::{ACCOUNT, FakeFunction, FakeLambda, REGION, Status};
use crate::support::tools::{PATIENCE, block_on};

const KEYS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT"),
    ("AWS_SECRET_ACCESS_KEY", "canary-secret"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_MAX_ATTEMPTS", "1"),
];

/// Runs `work` in a child that has keys.
fn with_keys<F: Future<Output = ()>>(test: &str, work: impl FnOnce() -> F) {
    if child::is_child() { block_on(work()) } else { child::run(&format!("deploy::{test}"), &KEYS) }
}

fn host() -> RegistryHost {
    RegistryHost::of(ACCOUNT, REGION).expect("a registry")
}

/// The URI of an image that is told from others by `content`.
fn uri(content: &str) -> String {
    format!("{}/shop/a@{}", host(), Digest::of(content.as_bytes()))
}

fn old() -> FakeFunction {
    FakeFunction::of(&uri("old"))
}

fn live() -> Release {
    Release::Alias("live".to_owned())
}

fn asked(name: &str, release: Release) -> Asked {
    Asked {
        package: "p".to_owned(),
        bin: "bin".to_owned(),
        function: name.parse().expect("a name"),
        create: None,
        release,
    }
}

fn creating(name: &str, release: Release) -> Asked {
    let role = format!("arn:aws:iam::{ACCOUNT}:role/r");
    Asked {
        create: Some(Create {
            role,
            memory_mb: Some(256),
            timeout_seconds: Some(9),
            env: [("A".to_owned(), "b".to_owned())].into(),
        }),
        ..asked(name, release)
    }
}

fn to_new(asked: Asked) -> Deployment {
    let image =
        Image { uri: uri("new"), digest: Digest::of(b"new"), architecture: Architecture::Amd64, uncompressed_size: 1 };
    Deployment { asked, image }
}

/// No longer between two looks than a test may take.
fn patience() -> Patience {
    let short = Duration::from_millis(2);
    Patience {
        wait: None,
        first_delay: short,
        max_delay: short,
        // What comes at all comes soon, and on a busy machine no sooner than it can.
        role: PATIENCE,
        image: PATIENCE,
        told_every: Duration::ZERO,
    }
}

/// Keeps what is told, a line an event.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn session(&self) -> Session {
        Session::new(Box::new(self.clone()))
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panic under the lock").clone()
    }
}

impl Reporter for Told {
    fn event(&self, event: &Event<'_>) {
        let line = match event {
            Event::FunctionStarted { name, step, .. } => format!("{name} {step:?}"),
            Event::FunctionWaiting { name, version, doing, .. } => format!("{name} {version:?} {doing}"),
            Event::FunctionUpdated { function, .. } => format!("{} done {:?}", function.name, function.steps),
            Event::Retrying { why, .. } => format!("retrying {why}"),
            Event::Warning { message, help } => format!("{message} | {}", help.unwrap_or_default()),
            _ => return,
        };
        self.0.lock().expect("no panic under the lock").push(line);
    }
}

async fn wire(aws: &FakeLambda) -> Lambda {
    let settings = Settings { endpoint_url: Some(aws.url.clone()), region: Some(REGION.into()), ..Settings::default() };
    Lambda::beside(&Access::load(&settings).await.expect("access"), &host())
}

async fn deploy_with(aws: &FakeLambda, asked: Asked, patience: &Patience, told: &Told) -> Result<FunctionResult> {
    let outcomes = deploy::deploy(&[(wire(aws).await, to_new(asked))], patience, &told.session()).await;
    together(outcomes, "functions").map(|mut results| results.remove(0))
}

async fn deploy(aws: &FakeLambda, asked: Asked) -> Result<FunctionResult> {
    deploy_with(aws, asked, &patience(), &Told::default()).await
}

fn is_live(aws: &FakeLambda, version: &str) {
    aws.functions(|functions| {
        let function = functions.get("f");
        assert_eq!(function.image_uri, uri("new"));
        assert_eq!(function.aliases["live"].version, version);
        let number: usize = version.parse().expect("a number");
        assert_eq!(function.versions[number - 1].image_uri, uri("new"));
    });
}

fn result(version: Option<&str>, alias: Option<&str>) -> FunctionResult {
    let own = |text: Option<&str>| text.map(str::to_owned);
    FunctionResult { name: "f".to_owned(), version: own(version), alias: own(alias) }
}

#[test]
fn code_version_and_alias_are_brought_in_this_order_and_a_rerun_only_reads() {
    with_keys("code_version_and_alias_are_brought_in_this_order_and_a_rerun_only_reads", async || {
        let aws = FakeLambda::start().with("f", old().published().alias("live", "1"));
        aws.functions(|functions| (functions.busy_looks, functions.version_looks) = (3, 2));
        let told = Told::default();
        let done = deploy_with(&aws, asked("f", live()), &patience(), &told).await.expect("a deployment");
        assert_eq!(done, result(Some("2"), Some("live")));
        is_live(&aws, "2");
        assert_eq!(aws.changes(), ["UpdateFunctionCode f", "PublishVersion f", "UpdateAlias f:live"]);
        let busy = ["f None InProgress"; 3];
        let pending = ["f Some(\"2\") Pending"; 2];
        let expected =
            [&["f Code"], &busy[..], &["f Publish"], &pending, &["f Alias", "f done [Code, Publish, Alias]"]];
        assert_eq!(told.lines(), expected.concat());

        aws.forget();
        let told = Told::default();
        let again = deploy_with(&aws, asked("f", live()), &patience(), &told).await.expect("nothing to do");
        assert_eq!(again, done);
        assert_eq!(told.lines(), ["f done []"]);
        assert_eq!(aws.changes(), [] as [&str; 0]);
        assert_eq!(aws.log(), ["GetFunction f", "ListVersionsByFunction f", "GetFunction f:2", "GetAlias f:live"]);
    });
}

#[test]
fn only_what_is_asked_is_changed() {
    with_keys("only_what_is_asked_is_changed", async || {
        for (release, done, changes) in [
            (Release::Code, result(None, None), &["UpdateFunctionCode f"][..]),
            (Release::Version, result(Some("1"), None), &["UpdateFunctionCode f", "PublishVersion f"]),
            (
                live(),
                result(Some("1"), Some("live")),
                &["UpdateFunctionCode f", "PublishVersion f", "CreateAlias f:live"],
            ),
        ] {
            let aws = FakeLambda::start().with("f", old());
            assert_eq!(deploy(&aws, asked("f", release)).await.expect("a deployment"), done);
            assert_eq!(aws.changes(), changes);
        }
    });
}

#[test]
fn what_is_there_is_used_whoever_made_it() {
    with_keys("what_is_there_is_used_whoever_made_it", async || {
        let new = || FakeFunction::of(&uri("new"));
        let with_other_timeout = || {
            let mut function = new().published();
            function.timeout = 60;
            function
        };
        let two_versions = || {
            let mut function = new().published();
            function.versions.push(old());
            function
        };
        for (function, version, changes) in [
            (new(), "1", &["PublishVersion f", "CreateAlias f:live"][..]),
            (new().published(), "1", &["CreateAlias f:live"]),
            (new().published().alias("live", "7"), "1", &["UpdateAlias f:live"]),
            (new().published().alias("live", "$LATEST"), "1", &["UpdateAlias f:live"]),
            // The same code with another configuration is another version.
            (with_other_timeout(), "2", &["PublishVersion f", "CreateAlias f:live"]),
            // A version need not be the last one.
            (two_versions(), "1", &["CreateAlias f:live"]),
        ] {
            let aws = FakeLambda::start().with("f", function);
            let done = deploy(&aws, asked("f", live())).await.expect("a deployment");
            assert_eq!(done, result(Some(version), Some("live")));
            assert_eq!(aws.changes(), changes);
        }
    });
}

#[test]
fn an_alias_that_shares_its_calls_is_moved_wholly_with_a_warning() {
    with_keys("an_alias_that_shares_its_calls_is_moved_wholly_with_a_warning", async || {
        let aws = FakeLambda::start().with("f", FakeFunction::of(&uri("new")).published().alias("live", "1"));
        let weights = json!({ "AdditionalVersionWeights": { "7": 0.1 } });
        aws.functions(|functions| functions.get("f").aliases.get_mut("live").expect("the alias").weights = weights);
        let told = Told::default();
        deploy_with(&aws, asked("f", live()), &patience(), &told).await.expect("a deployment");
        assert_eq!(aws.functions(|functions| functions.get("f").aliases["live"].weights.clone()), Value::Null);
        let expected =
            "alias `live` of `f` sent a part of its calls to another version | all of them go to version 1 now";
        assert!(told.lines().contains(&expected.to_owned()), "{:?}", told.lines());
    });
}

async fn preflight_of(aws: &FakeLambda, asked: Asked, told: &Told) -> Result<(), Problem> {
    preflight(&[(wire(aws).await, asked, Some(Architecture::Amd64))], &told.session()).await.map(|_| ())
}

#[test]
fn what_would_stop_a_deployment_is_found_by_reading() {
    with_keys("what_would_stop_a_deployment_is_found_by_reading", async || {
        let own = json!({ "Command": ["app.get"], "WorkingDirectory": "/w" });
        let aws = FakeLambda::start()
            .with("zip", FakeFunction { package: "Zip", ..old() })
            .with("arm", FakeFunction { architecture: "arm64".to_owned(), ..old() })
            .with("going", FakeFunction { state: Status::of("Deleting"), ..old() })
            .with("own", FakeFunction { image_config: own, ..old() })
            .with("f", old());
        for (name, message, help) in [
            (
                "zip",
                "function `zip` runs an archive, and Lambda cannot give it an image",
                "let another function run the image, as by `--function zip-image --create-function --role \
                 arn:aws:iam::123456789012:role/r`, or delete this one first: `aws lambda delete-function \
                 --function-name zip`",
            ),
            (
                "arm",
                "the image is for x86_64, but function `arm` runs on arm64",
                "build for the function with `--arm64`, on a base for the same architecture",
            ),
            ("going", "function `going` is being deleted", "wait until it is gone, or name another function"),
            (
                "none",
                "function `none` does not exist in eu-west-1",
                "create it with `--create-function --role ARN`, or push with `--no-function` and create it from the \
                 image's URI with the tool that keeps it",
            ),
        ] {
            let told = Told::default();
            let problem = preflight_of(&aws, asked(name, Release::Code), &told).await.expect_err(name);
            assert_eq!((problem.message(), problem.next_step()), (message, Some(help)));
        }
        let told = Told::default();
        preflight_of(&aws, asked("f", live()), &told).await.expect("it suits");
        preflight_of(&aws, creating("none", live()), &told).await.expect("it will be made");
        preflight_of(&aws, asked("own", live()), &told).await.expect("it suits");
        let warning = "function `own` has settings that win over the image's: CMD [\"app.get\"], WORKDIR /w | to have the \
                       image's: `aws lambda update-function-configuration --function-name own --region eu-west-1 \
                       --image-config '{}'`";
        assert_eq!(told.lines(), [warning]);
        assert_eq!(aws.changes(), [] as [&str; 0]);
    });
}

#[test]
fn a_plan_reads_only_and_says_what_a_run_would_do() {
    with_keys("a_plan_reads_only_and_says_what_a_run_would_do", async || {
        let aws = FakeLambda::start().with("f", old().published().alias("live", "1"));
        let asked = [(wire(&aws).await, asked("f", live()), Some(Digest::of(b"new")))];
        let plans = plan::plan(&asked, &Session::silent()).await.expect("a plan");
        let expected = json!([{
            "name": "f",
            "alias": "live",
            "current": { "digest": Digest::of(b"old").to_string(), "version": "1", "alias_version": "1" },
            "next": { "digest": Digest::of(b"new").to_string(), "version": null, "alias_version": null },
            "steps": ["code", "publish", "alias"],
        }]);
        assert_eq!(serde_json::to_value(&plans).expect("JSON"), expected);
        assert_eq!(aws.changes(), [] as [&str; 0]);
        deploy(&aws, asked[0].1.clone()).await.expect("a deployment");
        let plans = plan::plan(&asked, &Session::silent()).await.expect("a plan");
        assert_eq!((&plans[0].steps, &plans[0].current), (&Vec::<FunctionStep>::new(), &plans[0].next));
    });
}

#[test]
fn the_policy_is_enough_and_no_word_of_it_can_be_spared() {
    with_keys("the_policy_is_enough_and_no_word_of_it_can_be_spared", async || {
        let wanted = Wanted {
            registry: host(),
            repositories: vec!["shop/a".to_owned()],
            create_repository: false,
            bases: Vec::new(),
        };
        for asked in
            [asked("f", Release::Code), asked("f", Release::Version), asked("f", live()), creating("g", live())]
        {
            let whole: Value = serde_json::from_str(&policy(&wanted, std::slice::from_ref(&asked))).expect("JSON");
            // A run that makes an alias, and one that moves it.
            let run = async |policy: Value| {
                let aws = FakeLambda::start().with("f", old());
                aws.allow_only(policy);
                deploy(&aws, asked.clone()).await?;
                aws.functions(|functions| {
                    let function = functions.get(asked.function.name());
                    function.overwrite(&uri("old"));
                    function.timeout += 1;
                });
                deploy(&aws, asked.clone()).await
            };
            run(whole.clone()).await.expect("enough");
            let statements = whole["Statement"].as_array().expect("statements");
            for (place, statement) in statements.iter().enumerate() {
                for (word, action) in statement["Action"].as_array().expect("actions").iter().enumerate() {
                    let Some(operation) = action.as_str().and_then(|it| it.strip_prefix("lambda:")) else { continue };
                    let mut less = whole.clone();
                    less["Statement"][place]["Action"].as_array_mut().expect("actions").remove(word);
                    let problem = run(less).await.expect_err(operation);
                    let help = problem.next_step().expect("a way on");
                    let expected = format!("allow the caller `lambda:{operation}` on `arn:aws:lambda:");
                    assert!(help.starts_with(&expected), "{help}");
                }
            }
        }
    });
}
