//! Services' refusals and the SDK's failures, with the sentences both really use.

use super::*;
use crate::aws::replay::{Replay, refusal};

fn caller() -> Caller {
    Caller { profile: Some("ci".into()) }
}

async fn refused(status: u16, code: &str, message: &str) -> Problem {
    let replay = Replay::new([("CreateRepository", status, refusal(code, message))]);
    let error = replay.ecr().create_repository().repository_name("a").send().await.expect_err("a refusal");
    problem("could not create repository `a`", "ecr:CreateRepository", error, &caller())
}

#[tokio::test]
async fn a_missing_permission_is_named_with_its_resource_and_its_policy() {
    let user = "User: arn:aws:iam::123456789012:user/ci is not authorized to perform:";
    let arn = "arn:aws:ecr:eu-west-1:123456789012:repository/a";
    for (message, expected) in [
        (
            format!(
                "{user} ecr:CreateRepository on resource: {arn} because no identity-based policy allows the ecr:CreateRepository action"
            ),
            format!("allow the caller `ecr:CreateRepository` on `{arn}` in an IAM policy"),
        ),
        (
            format!("{user} ecr:TagResource on resource: {arn} with an explicit deny in a service control policy"),
            format!("a service control policy denies `ecr:TagResource` on `{arn}`: whoever keeps it can lift that"),
        ),
        (
            format!("{user} ecr:CreateRepository on resource: {arn} with an explicit deny"),
            format!("a policy denies `ecr:CreateRepository` on `{arn}`: whoever keeps it can lift that"),
        ),
        (
            format!(
                "{user} ecr:CreateRepository on resource: {arn} because no permissions boundary allows the ecr:CreateRepository action"
            ),
            format!("allow `ecr:CreateRepository` on `{arn}` in the permissions boundary"),
        ),
        (
            format!(
                "{user} kms:CreateGrant on resource: arn:aws:kms:eu-west-1:123456789012:key/k because no resource-based policy allows the kms:CreateGrant action"
            ),
            "allow `kms:CreateGrant` on `arn:aws:kms:eu-west-1:123456789012:key/k` in the resource-based policy".into(),
        ),
        (String::new(), "allow the caller `ecr:CreateRepository` in an IAM policy".into()),
    ] {
        let problem = refused(400, "AccessDeniedException", &message).await;
        assert_eq!(problem.next_step(), Some(expected.as_str()), "{message}");
        assert!(problem.causes()[0].starts_with("AccessDeniedException"), "{:?}", problem.causes());
    }
}

#[tokio::test]
async fn every_refusal_comes_with_what_to_do() {
    let renew = "renew it: `aws sso login --profile ci`, `aws login --profile ci`, or whatever the keys came from";
    for (code, message, expected) in [
        ("ExpiredTokenException", "The security token included in the request is expired", renew),
        (
            "InvalidSignatureException",
            "Signature expired: 20261123T000000Z is now earlier than 20261123T010000Z",
            "set this machine's clock: AWS takes requests only within some minutes of their time",
        ),
        (
            "InvalidSignatureException",
            "Signature not yet current: 20261124T000000Z is still later than 20261123T000000Z",
            "set this machine's clock: AWS takes requests only within some minutes of their time",
        ),
        (
            "InvalidSignatureException",
            "Credential should be scoped to a valid region, not 'us-east-1'. ",
            "the endpoint belongs to another region: give that one by `--region`",
        ),
        (
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided.",
            "the secret key does not belong to the access key: set both again",
        ),
        (
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
            "check the access key and the region: keys that are deleted are not known, nor are any in a region the account has not enabled",
        ),
        (
            "ThrottlingException",
            "Rate exceeded",
            "the account makes more calls than AWS takes: try again, or raise `AWS_MAX_ATTEMPTS` (3 unless set)",
        ),
        ("LimitExceededException", "too many repositories", "delete what is not needed, or ask AWS for a higher quota"),
        (
            "KmsException",
            "The key is disabled",
            "let the caller use the repository's KMS key (`kms:CreateGrant`, `kms:DescribeKey`, `kms:GenerateDataKey`, `kms:Decrypt`), and check that the key is enabled",
        ),
    ] {
        let problem = refused(400, code, message).await;
        assert_eq!(problem.message(), "could not create repository `a`");
        assert_eq!(problem.causes(), [format!("{code}: {message}")]);
        assert_eq!(problem.next_step(), Some(expected), "{code}: {message}");
    }
}

#[tokio::test]
async fn an_unknown_refusal_is_passed_on() {
    let problem = refused(400, "InvalidParameterException", "name must satisfy [a-z]").await;
    assert_eq!(problem.causes(), ["InvalidParameterException: name must satisfy [a-z]"]);
    assert_eq!(problem.next_step(), None);
    let replay = Replay::new([("CreateRepository", 502, "<html>".into())]);
    let error = replay.ecr().create_repository().repository_name("a").send().await.expect_err("no answer of AWS");
    let problem = problem_of(error);
    assert!(!problem.causes().is_empty());
}

fn problem_of<E: ServiceError>(error: Failure<E>) -> Problem {
    problem("could not create repository `a`", "ecr:CreateRepository", error, &caller())
}

#[test]
fn failures_before_a_request_come_with_what_to_do() {
    let renew = "renew it: `aws sso login --profile ci`, `aws login --profile ci`, or whatever the keys came from";
    let profiles = "`aws configure list-profiles` lists the profiles there are, `aws configure --profile ci` makes one";
    let loading = "an error occurred while loading credentials";
    for (causes, cause, help) in [
        (
            &["dispatch failure", "other", loading, "the SSO token has expired and cannot be refreshed"][..],
            "the AWS session is over, or was never begun: the SSO token has expired and cannot be refreshed",
            renew,
        ),
        (
            &[
                "dispatch failure",
                loading,
                "service error",
                "UnauthorizedException: Session token not found or invalid",
            ],
            "the AWS session is over, or was never begun: UnauthorizedException: Session token not found or invalid",
            renew,
        ),
        (
            &["dispatch failure", "other", loading, "cached Login token is expired"],
            "the AWS session is over, or was never begun: cached Login token is expired",
            renew,
        ),
        (
            &[
                "dispatch failure",
                "the credential provider was not enabled",
                "no providers in chain provided credentials",
            ],
            "no AWS credentials were found",
            "log in (`aws sso login --profile ci`, `aws login --profile ci`, `aws configure --profile ci`), set \
             `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or name a profile by `--aws-profile`",
        ),
        (
            &[
                "dispatch failure",
                "the credentials provider was not properly configured",
                "ProfileFile provider could not be built: profile `x` was not defined: could not find",
            ],
            "ProfileFile provider could not be built: profile `x` was not defined: could not find",
            profiles,
        ),
        (
            &[
                "dispatch failure",
                "other",
                loading,
                "This behavior requires following cargo feature(s) enabled: credentials-login. ",
            ],
            "the profile logs in by `aws login`, which was left out when this program was built",
            "build it with its feature `aws-login`, or use another profile",
        ),
        (
            &["dispatch failure", "other", loading, "service error", "WebIdentityErr"],
            "AWS credentials could not be had: an error occurred while loading credentials: service error: WebIdentityErr",
            "see whether `aws sts get-caller-identity --profile ci` works",
        ),
        (
            &["dispatch failure", "io error", "invalid peer certificate: UnknownIssuer"],
            "dispatch failure: io error: invalid peer certificate: UnknownIssuer",
            "if a proxy opens TLS here, let `SSL_CERT_FILE` name a file with its certificate",
        ),
        (
            &["dispatch failure", "io error", "invalid peer certificate: certificate expired: verification time 9"],
            "dispatch failure: io error: invalid peer certificate: certificate expired: verification time 9",
            "set this machine's clock, or have the certificate renewed",
        ),
        (
            &["dispatch failure", "io error", "tcp connect error", "Connection refused (os error 111)"],
            "dispatch failure: io error: tcp connect error: Connection refused (os error 111)",
            "check the network, the region, and `HTTPS_PROXY`, `NO_PROXY` and `AWS_ENDPOINT_URL` if they are set",
        ),
    ] {
        let causes: Vec<String> = causes.iter().map(|&cause| cause.to_owned()).collect();
        let expected = Some((cause.to_owned(), help.to_owned()));
        assert_eq!(before_the_service(&causes, &caller()), expected, "{causes:?}");
    }
    assert_eq!(before_the_service(&["failed to construct request".into()], &caller()), None);
}

/// An error with a cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Layer(&'static str, #[source] Option<Box<Layer>>);

#[test]
fn what_a_credential_process_wrote_is_not_shown() {
    let inner = Layer("external process exited with code 1. Stderr: canary", None);
    let outer = Layer("could not load. Stderr: canary", Some(Box::new(inner)));
    assert_eq!(chain(&outer), ["could not load", "external process exited with code 1"]);
}
