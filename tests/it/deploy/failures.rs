//! Functions that fail, are made, keep everybody waiting, or fail beside others.

use std::time::Duration;

use aws_sdk_lambda::types::LastUpdateStatusReasonCode;
use cargo_lambda_image::aws::lambda::reasons;
use cargo_lambda_image::deploy::{Patience, Release};
use cargo_lambda_image::event::Session;
use cargo_lambda_image::problem::{Exit, together};
use serde_json::json;

use super::{
    Told, asked, creating, deploy, deploy_with, is_live, live, old, patience, result, to_new, uri, wire, with_keys,
};
use crate::support::lambda::{FakeFunction, FakeLambda, Functions, Status, Twist};

#[test]
fn every_reason_to_fail_is_told_with_its_fix_and_what_ran_before_still_runs() {
    with_keys("failures::every_reason_to_fail_is_told_with_its_fix_and_what_ran_before_still_runs", async || {
        for code in LastUpdateStatusReasonCode::values() {
            let aws = FakeLambda::start().with("f", old().published().alias("live", "1"));
            aws.functions(|functions| functions.failure = Some((*code).to_owned()));
            let problem = deploy(&aws, asked("f", live())).await.expect_err(code);
            let expected = "Lambda could not bring function `f` to the image: what ran before still runs";
            assert_eq!((problem.message(), problem.exit()), (expected, Exit::Failed));
            assert_eq!(problem.causes(), [format!("{code}: Something is wrong.")]);
            assert_eq!(problem.next_step(), reasons::fix(code));
            assert_eq!(aws.changes(), ["UpdateFunctionCode f"]);
            // And the next run heals it, though it may say that it has our code already.
            aws.functions(|functions| functions.failure = None);
            deploy(&aws, asked("f", live())).await.expect("a second try");
            is_live(&aws, "2");
        }
    });
}

#[test]
fn a_function_that_failed_before_gets_its_code_again() {
    with_keys("failures::a_function_that_failed_before_gets_its_code_again", async || {
        for (state, last_update) in [
            (Status::because("Failed", "InvalidImage"), Status::of("Successful")),
            (Status::because("Inactive", "ImageDeleted"), Status::of("Successful")),
            (Status::of("Active"), Status::because("Failed", "ImageAccessDenied")),
        ] {
            let function = FakeFunction { state, last_update, ..FakeFunction::of(&uri("new")) };
            let aws = FakeLambda::start().with("f", function);
            deploy(&aws, asked("f", Release::Code)).await.expect("a healed function");
            assert_eq!(aws.changes(), ["UpdateFunctionCode f"]);
        }
        // One that only sleeps is well.
        let sleeping = FakeFunction { state: Status::because("Inactive", "Idle"), ..FakeFunction::of(&uri("new")) };
        let (aws, told) = (FakeLambda::start().with("f", sleeping), Told::default());
        deploy_with(&aws, asked("f", Release::Code), &patience(), &told).await.expect("nothing to do");
        assert_eq!(aws.changes(), [] as [&str; 0]);
        assert!(told.lines()[0].starts_with("function `f` is as asked, but put away by Lambda (Idle)"));
    });
}

#[test]
fn waiting_ends_at_its_limit_and_at_a_signal() {
    with_keys("failures::waiting_ends_at_its_limit_and_at_a_signal", async || {
        let aws = FakeLambda::start().with("f", old());
        aws.functions(|functions| functions.busy_looks = usize::MAX);
        let short = Patience { wait: Some(Duration::from_millis(50)), ..patience() };
        let problem = deploy_with(&aws, asked("f", Release::Code), &short, &Told::default()).await.expect_err("late");
        assert_eq!(problem.message(), "function `f` is still InProgress after 1 s");
        assert_eq!(aws.changes(), ["UpdateFunctionCode f"]);

        let told = Told::default();
        let session = told.session();
        let (all, patience) = ([(wire(&aws).await, to_new(asked("f", Release::Code)))], patience());
        let run = deploy::deploy(&all, &patience, &session);
        let stop = async {
            while told.lines().is_empty() {
                tokio::task::yield_now().await;
            }
            session.stop(Exit::Terminated);
        };
        let (outcomes, ()) = tokio::join!(run, stop);
        assert_eq!(together(outcomes, "functions").expect_err("stopped").exit(), Exit::Terminated);
    });
}

#[test]
fn a_function_that_is_not_seen_to_change_is_not_said_to_run_anything() {
    with_keys("failures::a_function_that_is_not_seen_to_change_is_not_said_to_run_anything", async || {
        let unknown = Twist::Refuse(404, "ResourceNotFoundException", "Function not found");
        let aws = FakeLambda::start().twist("GetFunction", 0..usize::MAX, unknown);
        for wait in [None, Some(Duration::ZERO)] {
            let patience = Patience { wait, ..patience() };
            let made = deploy_with(&aws, creating("f", Release::Code), &patience, &Told::default()).await;
            let problem = made.expect_err("nobody sees it");
            assert_eq!((problem.message(), problem.causes()), ("function `f` is not seen to change", vec![]));
            assert!(problem.next_step().is_some_and(|help| help.starts_with("run this again")), "{problem:?}");
            aws.functions(|functions| *functions = Functions::default());
        }
    });
}

#[test]
fn a_function_is_made_once_its_role_is_known_and_used_once_it_is_active() {
    with_keys("failures::a_function_is_made_once_its_role_is_known_and_used_once_it_is_active", async || {
        let aws = FakeLambda::start();
        aws.functions(|functions| (functions.role_unknown, functions.busy_looks) = (2, 2));
        let told = Told::default();
        let done = deploy_with(&aws, creating("f", live()), &patience(), &told).await.expect("a function");
        assert_eq!(done, result(Some("1"), Some("live")));
        is_live(&aws, "1");
        let made = aws.functions(|functions| functions.get("f").clone());
        assert_eq!((made.timeout, made.environment), (9, json!({ "A": "b" })));
        let expected = ["CreateFunction f"; 3].into_iter().chain(["PublishVersion f", "CreateAlias f:live"]);
        assert_eq!(aws.changes(), expected.collect::<Vec<_>>());
        assert!(told.lines().contains(&"f None Pending".to_owned()), "{:?}", told.lines());

        let aws = FakeLambda::start();
        aws.functions(|functions| functions.role_unknown = usize::MAX);
        let short = Patience { role: Duration::from_millis(50), ..patience() };
        let never = deploy_with(&aws, creating("f", Release::Code), &short, &Told::default()).await;
        let problem = never.expect_err("no such role");
        let help = problem.next_step().expect("a way on");
        assert!(help.starts_with("check that the role exists in this account"), "{help}");

        let aws = FakeLambda::start();
        aws.functions(|functions| functions.failure = Some("InvalidImage".to_owned()));
        let problem = deploy(&aws, creating("f", Release::Code)).await.expect_err("a failed function");
        assert_eq!(problem.message(), "function `f` failed with the image");
        assert_eq!(problem.next_step(), reasons::fix("InvalidImage"));
        // It exists now, so the next run gives it code.
        aws.functions(|functions| functions.failure = None);
        deploy(&aws, creating("f", Release::Code)).await.expect("a healed function");
        assert_eq!(aws.changes(), ["CreateFunction f", "UpdateFunctionCode f"]);
    });
}

#[test]
fn one_function_that_fails_does_not_hide_the_others() {
    with_keys("failures::one_function_that_fails_does_not_hide_the_others", async || {
        let zip = FakeFunction { package: "Zip", ..old() };
        let arm = FakeFunction { architecture: "arm64".to_owned(), ..old() };
        let aws = FakeLambda::start().with("a", old()).with("b", zip).with("c", old()).with("d", arm);
        let lambda = wire(&aws).await;
        let all = ["a", "b", "c", "d", "e"].map(|name| (lambda.clone(), to_new(asked(name, Release::Version))));
        let outcomes = deploy::deploy(&all, &patience(), &Session::silent()).await;
        let told = outcomes.iter().map(|outcome| match outcome {
            Ok(result) => format!("{} {:?}", result.name, result.version),
            Err(problem) => format!("{} ({:?})", problem.message(), problem.exit()),
        });
        let expected = [
            "a Some(\"1\")",
            "function `b` runs an archive, and Lambda cannot give it an image (Failed)",
            "c Some(\"1\")",
            "the image is for x86_64, but function `d` runs on arm64 (Refused)",
            "function `e` does not exist in eu-west-1 (Failed)",
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        let problem = together(outcomes, "functions").expect_err("three failed");
        assert_eq!(problem.message(), "3 of 5 functions failed");
        assert!(problem.causes()[0].contains("help: create it with `--create-function --role ARN`"));
    });
}
