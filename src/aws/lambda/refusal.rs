//! Why Lambda refused, sorted by what a caller does next, and told with a way out.
//!
//! Lambda says much in sentences under one code, `InvalidParameterValueException`. Those matched below are its own, as
//! users of other tools report them.

use crate::aws::error::{self, Caller, Failure, ServiceError};
use crate::problem::Problem;

/// A call that failed.
#[derive(Debug)]
pub struct Refusal {
    /// What it means for the next step.
    pub why: Why,
    /// What to tell, if there is no next step.
    pub problem: Problem,
}

/// The kinds of refusal that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is no such function, version or alias.
    Absent,
    /// Another change is under way, or has just made what was to be made.
    Conflict,
    /// It is not any more as the caller saw it.
    Changed,
    /// Lambda or the way to it failed; the same call may work later. Whether it was heard is not known.
    Passing,
    /// The role is not known to Lambda yet, as it is for some time after it was made.
    RoleUnknown,
    /// The image or its repository is not known to Lambda yet, or it may not read it yet, as it is for some seconds
    /// after these were made.
    ImageUnknown,
    /// All else.
    Other,
}

impl Refusal {
    pub(super) fn new<E: ServiceError>(doing: &str, action: &str, error: Failure<E>, caller: &Caller) -> Self {
        let service = error.as_service_error();
        let code = service.and_then(|service| service.code()).unwrap_or_default().to_owned();
        let message = service.and_then(|service| service.message()).unwrap_or_default().to_owned();
        let status = error.raw_response().map(|response| response.status().as_u16());
        let is_unheard = matches!(
            error,
            aws_sdk_lambda::error::SdkError::TimeoutError(_) | aws_sdk_lambda::error::SdkError::ResponseError(_)
        ) || matches!(&error, aws_sdk_lambda::error::SdkError::DispatchFailure(failure)
            if failure.is_timeout() || failure.is_io());
        let why = match code.as_str() {
            _ if is_unheard => Why::Passing,
            "ResourceNotFoundException" => Why::Absent,
            "ResourceConflictException" => Why::Conflict,
            "PreconditionFailedException" => Why::Changed,
            "TooManyRequestsException" | "ThrottlingException" | "Throttling" => Why::Passing,
            "InvalidParameterValueException" if is_role_unknown(&message) => Why::RoleUnknown,
            "InvalidParameterValueException" if message.contains("is different from current CodeSHA256") => {
                Why::Changed
            }
            _ if is_image_unknown(&message) => Why::ImageUnknown,
            _ if status.is_some_and(|status| status >= 500) => Why::Passing,
            _ => Why::Other,
        };
        let problem = error::problem(doing, action, error, caller);
        let problem = match advice(&code, &message) {
            Some(help) => problem.help(help),
            None => problem,
        };
        Self { why, problem }
    }
}

/// What Lambda says of roles that IAM has not told it of yet, and of keys whose grants name such a role.
fn is_role_unknown(message: &str) -> bool {
    let message = message.to_lowercase();
    message.contains("cannot be assumed by lambda")
        || message.contains("role validation failed")
        || message.contains("invalid for creategrant")
        || message.contains("execution role does not have permissions")
}

/// What Lambda says of images and repositories' policies that are only just there, or not at all.
fn is_image_unknown(message: &str) -> bool {
    let message = message.to_lowercase();
    message.contains("does not have permission to access the ecr image")
        || (message.contains("source image") && message.contains("does not exist"))
}

/// The next step, where Lambda's sentence tells it better than its code.
fn advice(code: &str, message: &str) -> Option<&'static str> {
    let message = message.to_lowercase();
    let has = |text: &str| message.contains(text);
    Some(match code {
        "ResourceConflictException" => "another change of the function was under way: run this again when it is over",
        "PreconditionFailedException" => {
            "something else changes the function at the same time: let one of the two deploy it, then run this again"
        }
        "CodeStorageExceededException" => "delete functions and versions that are not used any more",
        "AliasLimitExceededException" => "delete aliases that are not used any more",
        _ if is_role_unknown(&message) => {
            "check that the role exists in this account and lets `lambda.amazonaws.com` assume it: `aws iam get-role \
             --role-name NAME` shows its `AssumeRolePolicyDocument`"
        }
        _ if has("media type") && has("not supported") => "push it again with `--format docker`",
        _ if has("does not have permission to access the ecr image") => {
            "let Lambda read the repository: push with `--create-repository`, which also adds what the policy of an \
             existing one lacks"
        }
        _ if has("source image") && has("does not exist") => {
            "the repository lost the image, perhaps by a lifecycle policy: push again"
        }
        _ if has("source image") && has("not valid") => {
            "functions take images from Amazon ECR in their own region only: see that the repository is there"
        }
        _ if has("packagetype zip") || has("packagetype image") || has("package type") => {
            "the package type of a function cannot be changed: delete the function, or create another"
        }
        _ if has("10737418240") || (has("image") && has("size") && has("exceed")) => {
            "Lambda takes images of at most 10 GiB uncompressed: leave out assets or move them to another place"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_of_lambda_have_their_own_way_out() {
        let invalid = "InvalidParameterValueException";
        for (code, message, expected) in [
            (invalid, "The role defined for the function cannot be assumed by Lambda.", Some("check that the role")),
            (
                invalid,
                "Lambda does not have permission to access the ECR image. Check the ECR permissions.",
                Some("let"),
            ),
            ("AccessDeniedException", "Lambda does not have permission to access the ECR image.", Some("let Lambda")),
            (invalid, "Source image a/b:c does not exist. Provide a valid source image.", Some("the repository lost")),
            (invalid, "Source image a/b:c is not valid. Provide a valid source image.", Some("functions take images")),
            (
                invalid,
                "The image manifest, config or layer media type for the source image a@b is not supported.",
                Some("push it again with `--format docker`"),
            ),
            (
                invalid,
                "Please don't provide ImageUri when updating a function with packageType Zip.",
                Some("the package type"),
            ),
            (invalid, "Uncompressed container image size exceeds 10 GiB limit", Some("Lambda takes images of")),
            (invalid, "Something else", None),
        ] {
            let said = advice(code, message);
            assert_eq!(said.is_some(), expected.is_some(), "{message}: {said:?}");
            let begins = said.unwrap_or_default().starts_with(expected.unwrap_or_default());
            assert!(begins, "{message}: {said:?}");
        }
    }
}
