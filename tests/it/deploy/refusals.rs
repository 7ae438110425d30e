//! Refusals that pass, races, and runs that end in the middle: the next pass or the next run goes on.

use std::time::Duration;

use cargo_lambda_image::deploy::{Patience, Release};
use cargo_lambda_image::oci::Digest;

use super::{Told, asked, creating, deploy, deploy_with, is_live, live, old, patience, uri, with_keys};
use crate::support::lambda::{FakeLambda, Functions, Twist};

#[test]
fn a_run_that_ends_between_any_two_calls_is_finished_by_the_next() {
    with_keys("refusals::a_run_that_ends_between_any_two_calls_is_finished_by_the_next", async || {
        const ALL: [&str; 7] = [
            "GetFunction",
            "UpdateFunctionCode",
            "ListVersionsByFunction",
            "PublishVersion",
            "GetAlias",
            "UpdateAlias",
            "CreateFunction",
        ];
        for operation in ALL {
            for count in 0..4 {
                let start = || match operation {
                    "CreateFunction" => FakeLambda::start(),
                    _ => FakeLambda::start().with("f", old().published().alias("live", "1")),
                };
                let aws = start().twist(operation, count..count + 1, Twist::LoseAnswer);
                aws.functions(|functions| (functions.busy_looks, functions.version_looks) = (1, 1));
                let told = Told::default();
                let (asked, patience) = (creating("f", live()), patience());
                let run = deploy_with(&aws, asked.clone(), &patience, &told);
                // The call was heard, and the program is gone before the answer.
                let ended = tokio::time::timeout(Duration::from_millis(300), run).await;
                aws.calm();
                let again =
                    deploy(&aws, asked).await.unwrap_or_else(|problem| panic!("{operation} {count}: {problem}"));
                let version = again.version.expect("a version");
                is_live(&aws, &version);
                let changes = aws.changes();
                let most = if operation == "CreateFunction" { 1 } else { 2 };
                assert_eq!(version, most.to_string(), "{operation} {count}: a version too many: {changes:?}");
                for change in ["UpdateFunctionCode f", "PublishVersion f"] {
                    let times = changes.iter().filter(|it| *it == change).count();
                    assert!(times <= 1, "{operation} {count}, first run {ended:?}: {changes:?}");
                }
            }
        }
    });
}

#[test]
fn refusals_that_pass_are_waited_out_at_every_call() {
    with_keys("refusals::refusals_that_pass_are_waited_out_at_every_call", async || {
        let (throttled, broken) = (
            Twist::Refuse(429, "TooManyRequestsException", "Rate Exceeded."),
            Twist::Refuse(500, "ServiceException", ""),
        );
        let conflict = Twist::Refuse(409, "ResourceConflictException", "An update is in progress for resource: f");
        let changes = ["UpdateFunctionCode", "PublishVersion", "UpdateAlias"];
        let looks = ["GetFunction", "ListVersionsByFunction", "GetAlias"];
        let all = changes.iter().chain(&looks);
        let cases = all.clone().flat_map(|it| [(*it, throttled.clone()), (*it, broken.clone())]);
        for (operation, twist) in cases.chain(changes.iter().map(|it| (*it, conflict.clone()))) {
            let aws = FakeLambda::start().with("f", old().published().alias("live", "1")).twist(operation, 0..3, twist);
            let told = Told::default();
            deploy_with(&aws, asked("f", live()), &patience(), &told).await.expect(operation);
            is_live(&aws, "2");
            let retries = told.lines().iter().filter(|line| line.starts_with("retrying ")).count();
            assert_eq!(retries, 3, "{operation}: {:?}", told.lines());
        }
    });
}

#[test]
fn a_function_that_changes_under_our_hands_is_looked_at_again() {
    with_keys("refusals::a_function_that_changes_under_our_hands_is_looked_at_again", async || {
        let tweak = |functions: &mut Functions| {
            let function = functions.get("f");
            function.timeout += 1;
            function.revision += 1;
        };
        let move_alias =
            |functions: &mut Functions| functions.get("f").aliases.get_mut("live").expect("it").revision += 1;
        for (operation, change) in [
            ("UpdateFunctionCode", tweak as fn(&mut Functions)),
            ("PublishVersion", tweak),
            ("UpdateAlias", move_alias),
        ] {
            let aws = FakeLambda::start().with("f", old().published().alias("live", "1"));
            let aws = aws.twist(operation, 0..1, Twist::Before(change));
            deploy(&aws, asked("f", live())).await.expect(operation);
            is_live(&aws, "2");
        }
        // Who changes it each time will not stop.
        let aws = FakeLambda::start().with("f", old()).twist("UpdateFunctionCode", 0..99, Twist::Before(tweak));
        let problem = deploy(&aws, asked("f", Release::Code)).await.expect_err("a fight");
        assert_eq!(aws.changes().len(), 5);
        let help =
            "something else changes the function at the same time: let one of the two deploy it, then run this again";
        assert_eq!(problem.next_step(), Some(help));
    });
}

#[test]
fn another_deployment_right_after_ours_is_told_and_not_fought() {
    with_keys("refusals::another_deployment_right_after_ours_is_told_and_not_fought", async || {
        let overwrite = |functions: &mut Functions| functions.get("f").overwrite(&uri("theirs"));
        let aws = FakeLambda::start().with("f", old()).twist("UpdateFunctionCode", 0..1, Twist::After(overwrite));
        let problem = deploy(&aws, asked("f", live())).await.expect_err("theirs");
        let expected = format!("function `f` runs {}, and not {}", Digest::of(b"theirs"), Digest::of(b"new"));
        assert_eq!(problem.message(), expected);
        assert_eq!(aws.changes(), ["UpdateFunctionCode f"]);
    });
}

#[test]
fn an_image_that_lambda_does_not_see_yet_is_waited_for_but_not_for_long() {
    with_keys("refusals::an_image_that_lambda_does_not_see_yet_is_waited_for_but_not_for_long", async || {
        let unreadable =
            Twist::Refuse(403, "AccessDeniedException", "Lambda does not have permission to access the ECR image.");
        let aws = FakeLambda::start().with("f", old()).twist("UpdateFunctionCode", 0..2, unreadable.clone());
        deploy(&aws, asked("f", Release::Code)).await.expect("a deployment");
        let aws = FakeLambda::start().with("f", old()).twist("UpdateFunctionCode", 0..usize::MAX, unreadable);
        let short = Patience { image: Duration::from_millis(40), ..patience() };
        let problem = deploy_with(&aws, asked("f", Release::Code), &short, &Told::default()).await.expect_err("never");
        let help = problem.next_step().expect("a way on");
        assert!(help.starts_with("let Lambda read the repository: push with `--create-repository`"), "{help}");
    });
}
