//! Repositories against told answers of ECR: found, created, in a race, with and without permissions.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::aws::error::Caller;
use crate::aws::replay::{Answer, Replay, refusal};
use crate::event::Reporter;

/// Keeps the warnings of a session.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Reporter for Warnings {
    fn event(&self, event: &Event<'_>) {
        if let Event::Warning { message, help } = event {
            let text = format!("{message} | {}", help.unwrap_or_default());
            self.0.lock().expect("a lock of a test").push(text);
        }
    }
}

async fn repository(answers: Vec<Answer>, if_absent: IfAbsent) -> (Result<Repository>, Replay, Vec<String>) {
    let replay = Replay::new(answers);
    let ecr = Ecr { client: replay.ecr(), region: "eu-west-1".into(), caller: Caller { profile: None }, fips: false };
    let host = RegistryHost::parse("123456789012.dkr.ecr.eu-west-1.amazonaws.com").expect("a host");
    let warnings = Warnings::default();
    let session = Session::new(Box::new(warnings.clone()));
    let outcome = ecr.repository(&host, "shop/a", if_absent, &session).await;
    let warnings = warnings.0.lock().expect("a lock of a test").clone();
    (outcome, replay, warnings)
}

fn described(more: Value) -> Value {
    let mut repository = json!({
        "repositoryName": "shop/a",
        "repositoryUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/a",
        "repositoryArn": "arn:aws:ecr:eu-west-1:123456789012:repository/shop/a",
        "registryId": "123456789012",
    });
    let (Value::Object(repository_map), Value::Object(more)) = (&mut repository, more) else { panic!("objects") };
    repository_map.extend(more);
    repository
}

fn is_there() -> Answer {
    ("DescribeRepositories", 200, json!({ "repositories": [described(json!({}))] }).to_string())
}

fn is_absent() -> Answer {
    (
        "DescribeRepositories",
        400,
        refusal("RepositoryNotFoundException", "The repository with name 'shop/a' does not exist"),
    )
}

fn denied(operation: &'static str, arn: &str) -> Answer {
    let message = format!(
        "User: arn:aws:iam::123456789012:user/ci is not authorized to perform: ecr:{operation} on resource: {arn} \
         because no identity-based policy allows the ecr:{operation} action"
    );
    (operation, 400, refusal("AccessDeniedException", &message))
}

const ARN: &str = "arn:aws:ecr:eu-west-1:123456789012:repository/shop/a";

fn created() -> Answer {
    ("CreateRepository", 200, json!({ "repository": described(json!({})) }).to_string())
}

fn no_policy() -> Answer {
    ("GetRepositoryPolicy", 400, refusal("RepositoryPolicyNotFoundException", "none"))
}

fn set() -> Answer {
    ("SetRepositoryPolicy", 200, json!({ "policyText": "{}" }).to_string())
}

#[tokio::test]
async fn a_repository_is_described_as_it_is() {
    let plain = (false, false, "AES256", None);
    for (more, expected) in [
        (json!({}), plain),
        (json!({ "imageTagMutability": "MUTABLE" }), plain),
        (json!({ "imageTagMutability": "IMMUTABLE" }), (true, true, "AES256", None)),
        (
            json!({
                "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
                "imageTagMutabilityExclusionFilters": [{ "filterType": "WILDCARD", "filter": "dev*" }],
            }),
            (true, false, "AES256", None),
        ),
        (
            json!({
                "imageTagMutability": "MUTABLE_WITH_EXCLUSION",
                "imageTagMutabilityExclusionFilters": [{ "filterType": "WILDCARD", "filter": "v*" }],
            }),
            (true, false, "AES256", None),
        ),
        (
            json!({ "encryptionConfiguration": { "encryptionType": "KMS", "kmsKey": "arn:aws:kms:x" } }),
            (false, false, "KMS", Some("arn:aws:kms:x")),
        ),
    ] {
        let body = json!({ "repositories": [described(more.clone())] }).to_string();
        let (found, replay, _) = repository(vec![("DescribeRepositories", 200, body)], IfAbsent::Fail).await;
        let found = found.expect("a repository");
        let (tags, encryption) = (found.tags.expect("a rule"), found.encryption.expect("a kind"));
        let actual =
            (tags.is_immutable("v1"), tags.is_immutable("dev-3"), encryption.kind.as_str(), encryption.key.as_deref());
        assert_eq!(actual, expected, "{more}");
        assert_eq!((found.name.as_str(), found.arn.as_str(), found.created), ("shop/a", ARN, false));
        assert_eq!(found.uri, "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/a");
        let asked = json!({ "registryId": "123456789012", "repositoryNames": ["shop/a"] });
        assert_eq!(replay.requests(), [("DescribeRepositories".to_owned(), asked)]);
    }
}

#[tokio::test]
async fn an_absent_repository_is_said_to_be_with_both_ways_on() {
    let (outcome, ..) = repository(vec![is_absent()], IfAbsent::Fail).await;
    let problem = outcome.expect_err("no repository");
    assert_eq!(
        problem.message(),
        "repository `shop/a` does not exist in `123456789012.dkr.ecr.eu-west-1.amazonaws.com`"
    );
    assert_eq!(
        problem.next_step(),
        Some(
            "create it with `--create-repository`, or by `aws ecr create-repository --repository-name shop/a --region \
             eu-west-1`"
        )
    );
}

#[tokio::test]
async fn a_new_repository_is_scanned_on_push_and_read_by_lambda() {
    let (outcome, replay, warnings) =
        repository(vec![is_absent(), created(), no_policy(), set()], IfAbsent::Create).await;
    assert!(outcome.expect("a repository").created);
    let requests = replay.requests();
    assert_eq!(requests[1].1["imageScanningConfiguration"], json!({ "scanOnPush": true }));
    let policy = requests[3].1["policyText"].as_str().expect("a text");
    let policy: Value = serde_json::from_str(policy).expect("JSON");
    assert_eq!(policy["Statement"][0]["Sid"], "LambdaECRImageRetrievalPolicy");
    assert_eq!(requests[3].1["repositoryName"], "shop/a");
    assert_eq!(warnings, [""; 0]);
}

#[tokio::test]
async fn a_repository_that_lambda_reads_is_left_alone() {
    let policy = json!({ "Statement": [{
        "Effect": "Allow",
        "Principal": { "Service": "lambda.amazonaws.com" },
        "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
    }] });
    let body = json!({ "policyText": policy.to_string() }).to_string();
    let (outcome, replay, _) = repository(vec![is_there(), ("GetRepositoryPolicy", 200, body)], IfAbsent::Create).await;
    assert!(!outcome.expect("a repository").created);
    assert_eq!(replay.operations(), ["DescribeRepositories", "GetRepositoryPolicy"]);
}

#[tokio::test]
async fn a_repository_made_meanwhile_is_found() {
    let exists = ("CreateRepository", 400, refusal("RepositoryAlreadyExistsException", "exists"));
    let (outcome, ..) = repository(vec![is_absent(), exists, is_there(), no_policy(), set()], IfAbsent::Create).await;
    assert!(!outcome.expect("a repository").created);
}

#[tokio::test]
async fn a_policy_that_may_not_be_changed_is_a_warning() {
    let unreadable = ("GetRepositoryPolicy", 200, json!({ "policyText": "[" }).to_string());
    for (answers, expected) in [
        (
            vec![is_there(), denied("GetRepositoryPolicy", ARN)],
            "allow the caller `ecr:GetRepositoryPolicy` on `arn:aws:ecr:eu-west-1:123456789012:repository/shop/a` in \
             an IAM policy",
        ),
        (
            vec![is_there(), no_policy(), denied("SetRepositoryPolicy", ARN)],
            "allow the caller `ecr:SetRepositoryPolicy` on `arn:aws:ecr:eu-west-1:123456789012:repository/shop/a` in \
             an IAM policy",
        ),
        (vec![is_there(), unreadable], "the policy of repository `shop/a` is left as it is: it cannot be read: "),
    ] {
        let (outcome, replay, warnings) = repository(answers, IfAbsent::Create).await;
        assert!(outcome.is_ok());
        assert!(warnings.len() == 1 && warnings[0].contains(expected), "{warnings:?}");
        replay.requests();
    }
}

#[tokio::test]
async fn a_policy_that_cannot_be_set_for_another_reason_is_a_failure() {
    let failed = ("SetRepositoryPolicy", 500, refusal("ServerException", "oops"));
    let (outcome, ..) = repository(vec![is_there(), no_policy(), failed], IfAbsent::Create).await;
    let problem = outcome.expect_err("a failure");
    assert_eq!(problem.message(), "could not let Lambda read repository `shop/a`");
    assert_eq!(problem.next_step(), Some("the service itself failed: try again later"));
}

#[tokio::test]
async fn who_may_push_but_not_look_may_go_on() {
    let look = || denied("DescribeRepositories", ARN);
    let exists = ("CreateRepository", 400, refusal("RepositoryAlreadyExistsException", "exists"));
    for (answers, if_absent, warned) in [
        (vec![look()], IfAbsent::Fail, 0),
        (vec![look(), denied("CreateRepository", ARN)], IfAbsent::Create, 1),
        (vec![look(), exists, look(), no_policy(), set()], IfAbsent::Create, 0),
    ] {
        let (outcome, replay, warnings) = repository(answers, if_absent).await;
        let unseen = Repository {
            uri: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/a".into(),
            name: "shop/a".into(),
            arn: ARN.into(),
            created: false,
            tags: None,
            encryption: None,
        };
        assert_eq!(outcome.expect("a repository"), unseen);
        assert_eq!(warnings.len(), warned, "{warnings:?}");
        replay.requests();
    }
}

#[tokio::test]
async fn who_may_look_but_not_create_is_told_the_permission() {
    let (outcome, ..) = repository(vec![is_absent(), denied("CreateRepository", ARN)], IfAbsent::Create).await;
    let problem = outcome.expect_err("a refusal");
    assert_eq!(
        problem.message(),
        "could not create repository `shop/a` in `123456789012.dkr.ecr.eu-west-1.amazonaws.com`"
    );
    assert_eq!(
        problem.next_step(),
        Some(
            "allow the caller `ecr:CreateRepository` on `arn:aws:ecr:eu-west-1:123456789012:repository/shop/a` in an \
             IAM policy"
        )
    );
}
