//! What AWS said, told to a person: which permission is missing, whose session is over, which clock is wrong.
//!
//! Services put these into codes and sentences, and the SDK wraps what happens before a request in errors of its own.
//! Every sentence below was seen in an answer of a service or in the SDK's source; what is not known is passed on as
//! it is.

use std::error::Error;

use aws_sdk_ecr::config::http::HttpResponse;
use aws_sdk_ecr::error::{ProvideErrorMetadata, SdkError};

use crate::problem::Problem;

/// Who makes the calls.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The profile by name, if one was chosen.
    pub(super) profile: Option<String>,
}

impl Caller {
    /// ` --profile NAME` for the AWS CLI, or nothing.
    fn cli_flag(&self) -> String {
        self.profile.as_ref().map(|profile| format!(" --profile {profile}")).unwrap_or_default()
    }

    fn log_in_again(&self) -> String {
        let flag = self.cli_flag();
        format!("renew it: `aws sso login{flag}`, `aws login{flag}`, or whatever the keys came from")
    }
}

/// A call that failed.
pub(super) type Failure<E> = SdkError<E, HttpResponse>;

/// The error of one operation of a service.
pub(super) trait ServiceError: ProvideErrorMetadata + Error + Send + Sync + 'static {}

impl<E: ProvideErrorMetadata + Error + Send + Sync + 'static> ServiceError for E {}

/// Makes a problem of a call that failed. `doing` says what was tried, as in ``could not find repository `x` ``;
/// `action` is what IAM calls it, as in `ecr:DescribeRepositories`.
pub(super) fn problem<E: ServiceError>(doing: &str, action: &str, error: Failure<E>, caller: &Caller) -> Problem {
    let problem = Problem::failed(doing);
    if let Some(service) = error.as_service_error() {
        let said = Said { code: service.code().unwrap_or("no code"), message: service.message().unwrap_or_default() };
        let status = error.raw_response().map(|response| response.status().as_u16());
        let cause = match (said.message, status) {
            ("", Some(status)) => format!("{} (HTTP status {status})", said.code),
            ("", None) => said.code.to_owned(),
            (message, _) => format!("{}: {message}", said.code),
        };
        let problem = problem.because(cause);
        return match advice(&said, action, caller) {
            Some(help) => problem.help(help),
            None => problem,
        };
    }
    let causes = chain(&error);
    match before_the_service(&causes, caller) {
        Some((cause, help)) => problem.because(cause).help(help),
        None => problem.because(causes.join(": ")),
    }
}

/// Whether AWS refused for want of a permission, as opposed to anything else.
pub(super) fn is_denied<E: ProvideErrorMetadata>(error: &Failure<E>) -> bool {
    error.as_service_error().and_then(ProvideErrorMetadata::code).is_some_and(is_denial)
}

fn is_denial(code: &str) -> bool {
    matches!(code, "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" | "NotAuthorized")
}

/// A service's answer.
struct Said<'a> {
    code: &'a str,
    message: &'a str,
}

/// The next step after a service said no.
fn advice(said: &Said<'_>, action: &str, caller: &Caller) -> Option<String> {
    let message = said.message.to_lowercase();
    let has = |text: &str| message.contains(text);
    Some(match said.code {
        code if is_denial(code) => denied(said.message, action),
        "KmsException" => "let the caller use the repository's KMS key (`kms:CreateGrant`, `kms:DescribeKey`, \
                           `kms:GenerateDataKey`, `kms:Decrypt`), and check that the key is enabled"
            .to_owned(),
        "ExpiredToken" | "ExpiredTokenException" => caller.log_in_again(),
        // One code for a wrong key and for a wrong clock; only the sentence tells.
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestExpired" | "RequestTimeTooSkewed"
            if has("expired") || has("not yet current") || has("too large") || said.code.starts_with("Request") =>
        {
            "set this machine's clock: AWS takes requests only within some minutes of their time".to_owned()
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" if has("credential should be scoped") => {
            "the endpoint belongs to another region: give that one by `--region`".to_owned()
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" => {
            "the secret key does not belong to the access key: set both again".to_owned()
        }
        "UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidAccessKeyId" => {
            "check the access key and the region: keys that are deleted are not known, nor are any in a region the \
             account has not enabled"
                .to_owned()
        }
        "OptInRequired" | "SubscriptionRequiredException" => {
            "enable the region or the service for the account, or choose another region by `--region`".to_owned()
        }
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded" => {
            "the account makes more calls than AWS takes: try again, or raise `AWS_MAX_ATTEMPTS` (3 unless set)"
                .to_owned()
        }
        "LimitExceededException" => "delete what is not needed, or ask AWS for a higher quota".to_owned(),
        "ServerException" | "InternalFailure" | "ServiceUnavailable" | "ServiceUnavailableException" => {
            "the service itself failed: try again later".to_owned()
        }
        _ => return None,
    })
}

/// What to do about a refusal: IAM says which permission on what, and sometimes which policy is in the way.
fn denied(message: &str, action: &str) -> String {
    let action = word_after(message, "perform: ").unwrap_or(action);
    let resource = word_after(message, "on resource: ").map(|it| format!(" on `{it}`")).unwrap_or_default();
    let explicit = message.contains("explicit deny");
    // The longest name first: each also holds the words of a shorter one.
    let policies = [
        "service control policy",
        "resource control policy",
        "permissions boundary",
        "session policy",
        "VPC endpoint policy",
        "resource-based policy",
        "identity-based policy",
    ];
    let policy = policies.into_iter().find(|policy| message.contains(policy));
    match (explicit, policy) {
        (true, Some(policy)) => format!("a {policy} denies `{action}`{resource}: whoever keeps it can lift that"),
        (true, None) => format!("a policy denies `{action}`{resource}: whoever keeps it can lift that"),
        (false, Some(policy)) if policy != "identity-based policy" => {
            format!("allow `{action}`{resource} in the {policy}")
        }
        (false, _) => format!("allow the caller `{action}`{resource} in an IAM policy"),
    }
}

fn word_after<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_whitespace().next().map(|word| word.trim_end_matches(['.', ',']))
}

/// The messages of an error and its causes, outermost first.
fn chain(error: &dyn Error) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        // What a credential process wrote may be anything, a secret too.
        let message = message.split(" Stderr:").next().unwrap_or_default().trim_end_matches('.').to_owned();
        // Many wrappers repeat what they wrap.
        if messages.last().is_none_or(|last| !last.contains(&message)) {
            messages.push(message);
        }
        next = error.source();
    }
    messages
}

/// What happened and what to do when a request never reached its service, or no answer came back.
fn before_the_service(causes: &[String], caller: &Caller) -> Option<(String, String)> {
    let flag = caller.cli_flag();
    let last = causes.last().map(String::as_str).unwrap_or_default();
    let has = |text: &str| causes.iter().any(|cause| cause.to_lowercase().contains(text));
    let credentials = has("credential") || has("identity") || has("sso");
    let (cause, help) = if has("/sso/cache/")
        || has("/login/cache/")
        || has("sso token has expired")
        || has("login token is expired")
        || has("cached sso token")
        || has("session token not found or invalid")
        || (credentials && (has("unauthorizedexception") || has("expiredtoken") || has("refresh cached login token")))
    {
        (format!("the AWS session is over, or was never begun: {last}"), caller.log_in_again())
    } else if has("requires following cargo feature") {
        let cause = "the profile logs in by `aws login`, which was left out when this program was built";
        (cause.to_owned(), "build it with its feature `aws-login`, or use another profile".to_owned())
    } else if has("was not defined") || has("did not contain credential") || has("no profiles were defined") {
        let help =
            format!("`aws configure list-profiles` lists the profiles there are, `aws configure{flag}` makes one");
        (last.to_owned(), help)
    } else if has("no providers in chain provided credentials") || has("credential provider was not enabled") {
        let way = format!(
            "log in (`aws sso login{flag}`, `aws login{flag}`, `aws configure{flag}`), set `AWS_ACCESS_KEY_ID` and \
             `AWS_SECRET_ACCESS_KEY`, or name a profile by `--aws-profile`"
        );
        ("no AWS credentials were found".to_owned(), way)
    } else if credentials {
        let tell = causes.iter().rev().take(3).rev().cloned().collect::<Vec<_>>().join(": ");
        let help = format!("see whether `aws sts get-caller-identity{flag}` works");
        (format!("AWS credentials could not be had: {tell}"), help)
    } else if has("certificate expired") || has("certificate not valid yet") {
        (causes.join(": "), "set this machine's clock, or have the certificate renewed".to_owned())
    } else if has("invalid peer certificate") || has("unknownissuer") || has("certificate") {
        let help = "if a proxy opens TLS here, let `SSL_CERT_FILE` name a file with its certificate";
        (causes.join(": "), help.to_owned())
    } else if has("dispatch failure") || has("timeout") || has("timed out") {
        let help =
            "check the network, the region, and `HTTPS_PROXY`, `NO_PROXY` and `AWS_ENDPOINT_URL` if they are set";
        (causes.join(": "), help.to_owned())
    } else {
        return None;
    };
    Some((cause, help))
}

#[cfg(test)]
mod tests;
