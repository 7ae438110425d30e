//! Lambda's answers, told in advance: what is made of them, and what is sent.

use aws_sdk_lambda::types::{LastUpdateStatus, State as SdkState};
use serde_json::{Value, json};

use super::function::{LastUpdate, Overrides, Package, Reason, State};
use super::*;
use crate::aws::replay::{Answer as Told, Replay, refusal};
use crate::oci::Digest;

const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

fn lambda(answers: Vec<Told>) -> (Lambda, Replay) {
    let replay = Replay::new(answers);
    let lambda = Lambda { client: replay.lambda(), region: "eu-west-1".into(), caller: Caller { profile: None } };
    (lambda, replay)
}

fn configuration(more: Value) -> Value {
    let mut configuration = json!({
        "FunctionName": "f",
        "FunctionArn": "arn:aws:lambda:eu-west-1:123456789012:function:f",
        "Version": "$LATEST",
        "PackageType": "Image",
        "Architectures": ["arm64"],
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "RevisionId": "r1",
        "CodeSha256": "c1",
        "Role": "arn:aws:iam::123456789012:role/r",
        "Timeout": 3,
        "MemorySize": 128,
    });
    let (Value::Object(all), Value::Object(more)) = (&mut configuration, more) else { panic!("objects") };
    all.extend(more);
    configuration
}

async fn seen(more: Value) -> Function {
    let uri = format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/a@{DIGEST}");
    let body = json!({ "Configuration": configuration(more), "Code": { "ResolvedImageUri": uri } });
    let (lambda, _) = lambda(vec![("GET /2015-03-31/functions/f", 200, body.to_string())]);
    lambda.function("f", None).await.expect("an answer").expect("a function")
}

#[tokio::test]
async fn a_function_is_told_in_our_words() {
    let function = seen(json!({})).await;
    assert_eq!(
        function,
        Function {
            arn: "arn:aws:lambda:eu-west-1:123456789012:function:f".into(),
            version: "$LATEST".into(),
            package: Package::Image,
            architecture: Some(Architecture::Arm64),
            state: State::Active,
            last_update: LastUpdate::Successful,
            overrides: Overrides::default(),
            image: Some(DIGEST.parse::<Digest>().expect("a digest")),
            revision: Some("r1".into()),
            role: Some("arn:aws:iam::123456789012:role/r".into()),
            code_sha256: Some("c1".into()),
        }
    );
    let bare = seen(json!({ "PackageType": null, "Architectures": null, "State": null, "Version": null })).await;
    let told = (bare.package, bare.architecture, bare.state, bare.version.as_str());
    assert_eq!(told, (Package::Zip, Some(Architecture::Amd64), State::Other, "$LATEST"));
    let riscv = seen(json!({ "Architectures": ["riscv"], "State": "Dreaming" })).await;
    assert_eq!((riscv.architecture, riscv.state), (None, State::Other));
}

#[tokio::test]
async fn a_function_is_busy_or_failed_by_state_and_last_update() {
    let failed = |code: &str| Some(Reason { code: Some(code.into()), message: None });
    for (more, busy, failure) in [
        (json!({}), false, None),
        (json!({ "State": "Pending", "StateReasonCode": "Creating" }), true, None),
        (json!({ "LastUpdateStatus": "InProgress" }), true, None),
        (json!({ "State": "Inactive", "StateReasonCode": "Idle" }), false, None),
        (json!({ "State": "Inactive", "StateReasonCode": "ImageDeleted" }), false, failed("ImageDeleted")),
        (json!({ "State": "Failed", "StateReasonCode": "InvalidImage" }), false, failed("InvalidImage")),
        (
            json!({ "LastUpdateStatus": "Failed", "LastUpdateStatusReasonCode": "ImageAccessDenied" }),
            false,
            failed("ImageAccessDenied"),
        ),
        (json!({ "State": "Failed", "StateReasonCode": "Brandnew" }), false, failed("Brandnew")),
    ] {
        let function = seen(more.clone()).await;
        assert_eq!((function.is_busy(), function.failure().cloned()), (busy, failure), "{more}");
    }
}

#[tokio::test]
async fn what_wins_over_the_image_is_shown_as_dockerfiles_write_it() {
    let own = json!({ "EntryPoint": ["/x"], "Command": ["a", "b"], "WorkingDirectory": "/w" });
    let function = seen(json!({ "ImageConfigResponse": { "ImageConfig": own } })).await;
    assert_eq!(function.overrides.shown(), ["ENTRYPOINT [\"/x\"]", "CMD [\"a\",\"b\"]", "WORKDIR /w"]);
    let function = seen(json!({ "ImageConfigResponse": { "ImageConfig": { "WorkingDirectory": "" } } })).await;
    assert_eq!(function.overrides, Overrides::default());
}

#[tokio::test]
async fn refusals_are_sorted_by_what_comes_next() {
    let url = "PUT /2015-03-31/functions/f/code";
    for (status, code, message, why) in [
        (404, "ResourceNotFoundException", "Function not found", Why::Absent),
        (409, "ResourceConflictException", "An update is in progress", Why::Conflict),
        (412, "PreconditionFailedException", "The RevisionId provided does not match", Why::Changed),
        (429, "TooManyRequestsException", "Rate Exceeded.", Why::Passing),
        (500, "ServiceException", "An error occurred", Why::Passing),
        (400, "InvalidParameterValueException", "The role … cannot be assumed by Lambda.", Why::RoleUnknown),
        (
            400,
            "InvalidParameterValueException",
            "CodeSHA256 (a) is different from current CodeSHA256 in …",
            Why::Changed,
        ),
        (400, "InvalidParameterValueException", "Source image a is not valid.", Why::Other),
        (400, "InvalidParameterValueException", "Source image a does not exist.", Why::ImageUnknown),
        (403, "AccessDeniedException", "Lambda does not have permission to access the ECR image.", Why::ImageUnknown),
        (403, "AccessDeniedException", "not authorized to perform: lambda:UpdateFunctionCode", Why::Other),
    ] {
        let (lambda, _) = lambda(vec![(url, status, refusal(code, message))]);
        let refusal = lambda.update_code("f", "u", None).await.expect_err("a refusal");
        assert_eq!(refusal.why, why, "{code}");
        let causes = refusal.problem.causes();
        assert_eq!(
            (refusal.problem.message(), causes[0].as_str()),
            ("could not update function `f` to `u`", &*format!("{code}: {message}"))
        );
    }
}

#[tokio::test]
async fn a_missing_permission_is_named_for_every_call() {
    let denied = || refusal("AccessDeniedException", "User: x is not authorized");
    let functions = "/2015-03-31/functions";
    let function = seen(json!({})).await;
    let alias = Alias { version: "1".into(), is_weighted: false, revision: None };
    let new = NewFunction {
        name: "f".into(),
        image_uri: "u".into(),
        architecture: Architecture::Amd64,
        role: "r".into(),
        memory_mb: None,
        timeout_seconds: None,
        env: BTreeMap::new(),
    };
    let told = |operation: &'static str| lambda(vec![(operation, 403, denied())]).0;
    let outcomes = [
        ("GetFunction", told("GET /2015-03-31/functions/f").function("f", None).await.err()),
        ("UpdateFunctionCode", told("PUT /2015-03-31/functions/f/code").update_code("f", "u", None).await.err()),
        ("CreateFunction", told("POST /2015-03-31/functions").create(&new).await.err()),
        ("PublishVersion", told("POST /2015-03-31/functions/f/versions").publish("f", &function).await.err()),
        ("ListVersionsByFunction", told("GET /2015-03-31/functions/f/versions").versions("f").await.err()),
        ("GetAlias", told("GET /2015-03-31/functions/f/aliases/a").alias("f", "a").await.err()),
        ("CreateAlias", told("POST /2015-03-31/functions/f/aliases").create_alias("f", "a", "1").await.err()),
        ("UpdateAlias", told("PUT /2015-03-31/functions/f/aliases/a").move_alias("f", "a", "1", &alias).await.err()),
    ];
    for (action, refused) in outcomes {
        let problem = refused.unwrap_or_else(|| panic!("{action} at {functions}")).problem;
        assert_eq!(problem.next_step(), Some(&*format!("allow the caller `lambda:{action}` in an IAM policy")));
    }
}

#[tokio::test]
async fn what_is_sent_holds_what_was_seen() {
    let function = seen(json!({})).await;
    let (lambda, replay) = lambda(vec![
        ("PUT /2015-03-31/functions/f/code", 200, configuration(json!({})).to_string()),
        ("POST /2015-03-31/functions", 201, configuration(json!({})).to_string()),
        ("POST /2015-03-31/functions/f/versions", 201, configuration(json!({ "Version": "8" })).to_string()),
        ("PUT /2015-03-31/functions/f/aliases/live", 200, "{}".into()),
        ("PUT /2015-03-31/functions/f/aliases/live", 200, "{}".into()),
    ]);
    lambda.update_code("f", "u@d", function.revision.as_deref()).await.expect("an update");
    let new = NewFunction {
        name: "f".into(),
        image_uri: "u@d".into(),
        architecture: Architecture::Arm64,
        role: "r".into(),
        memory_mb: Some(512),
        timeout_seconds: Some(30),
        env: BTreeMap::from([("A".into(), "b".into())]),
    };
    lambda.create(&new).await.expect("a function");
    assert_eq!(lambda.publish("f", &function).await.expect("a version"), "8");
    for is_weighted in [false, true] {
        let alias = Alias { version: "1".into(), is_weighted, revision: Some("a1".into()) };
        lambda.move_alias("f", "live", "8", &alias).await.expect("an alias");
    }
    let bodies: Vec<_> = replay.requests().into_iter().map(|(_, body)| body).collect();
    assert_eq!(
        bodies,
        [
            json!({ "ImageUri": "u@d", "Publish": false, "RevisionId": "r1" }),
            json!({ "FunctionName": "f", "PackageType": "Image", "Code": { "ImageUri": "u@d" }, "Role": "r",
                    "Architectures": ["arm64"], "MemorySize": 512, "Timeout": 30, "Environment": { "Variables": { "A": "b" } } }),
            json!({ "CodeSha256": "c1", "RevisionId": "r1" }),
            json!({ "FunctionVersion": "8", "RevisionId": "a1" }),
            json!({ "FunctionVersion": "8", "RevisionId": "a1", "RoutingConfig": {} }),
        ]
    );
}

#[tokio::test]
async fn versions_come_from_all_pages_and_are_compared_by_what_matters() {
    let version = |number: &str, more: Value| {
        let mut all = configuration(more);
        all["Version"] = number.into();
        all["FunctionArn"] = format!("arn:f:{number}").into();
        all["RevisionId"] = format!("r{number}").into();
        all["LastModified"] = format!("2026-01-0{}", number.len()).into();
        all["Description"] = number.into();
        all
    };
    let first = json!({ "NextMarker": "2", "Versions": [version("$LATEST", json!({})), version("1", json!({}))] });
    let second = json!({ "Versions": [
        version("2", json!({ "Timeout": 4 })), version("3", json!({ "CodeSha256": "c0" })),
        version("10", json!({ "State": "Inactive" })),
    ] });
    let (lambda, _) = lambda(vec![
        ("GET /2015-03-31/functions/f/versions", 200, first.to_string()),
        ("GET /2015-03-31/functions/f/versions?Marker=2", 200, second.to_string()),
    ]);
    let versions = lambda.versions("f").await.expect("versions");
    let like: Vec<_> = versions.iter().filter(|it| it.is_like(&versions[0])).map(|it| it.number.as_str()).collect();
    assert_eq!(like, ["$LATEST", "1", "10"]);
}

#[test]
fn every_state_of_the_api_is_known() {
    // A new one is no error, but worth a look.
    assert_eq!(LastUpdateStatus::values(), ["Failed", "InProgress", "Successful"]);
    let known =
        ["Active", "ActiveNonInvocable", "Deactivated", "Deactivating", "Deleting", "Failed", "Inactive", "Pending"];
    assert_eq!(SdkState::values(), known);
}
