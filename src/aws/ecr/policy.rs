//! Policies of repositories: whether one lets Lambda read images, and one that does with all else kept.
//!
//! Pure JSON in and out. A statement counts only if it plainly allows; what is in doubt does not count, since one more
//! statement harms nobody, and one too few keeps a function from starting.

use serde_json::{Map, Value, json};

use super::host::RegistryHost;

/// The name under which Lambda itself adds this statement, and finds it (Lambda developer guide, "Amazon ECR
/// permissions").
const STATEMENT_ID: &str = "LambdaECRImageRetrievalPolicy";

/// Who reads the image when a function is created, updated or woken.
const LAMBDA: &str = "lambda.amazonaws.com";

/// What it must be allowed.
const ACTIONS: [&str; 2] = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"];

/// The policy that lets the functions of the registry's own account and region read a repository's images: `existing`
/// with one statement more, or a new one. `None` if `existing` lets Lambda read already, whatever its conditions are:
/// who wrote them had reasons.
///
/// # Errors
/// When `existing` is not a policy.
pub(super) fn with_lambda(existing: Option<&str>, host: &RegistryHost) -> Result<Option<String>, serde_json::Error> {
    let mut policy: Map<String, Value> = match existing {
        Some(text) => serde_json::from_str(text)?,
        None => Map::from_iter([("Version".to_owned(), json!("2012-10-17"))]),
    };
    let mut statements = match policy.remove("Statement") {
        Some(Value::Array(statements)) => statements,
        Some(one) => vec![one],
        None => Vec::new(),
    };
    if ACTIONS.iter().all(|action| statements.iter().any(|statement| lets_lambda(statement, action))) {
        return Ok(None);
    }
    statements.push(json!({
        "Sid": free_id(&statements),
        "Effect": "Allow",
        "Principal": { "Service": LAMBDA },
        "Action": ACTIONS,
        "Condition": { "StringLike": { "aws:sourceArn": functions_of(host) } },
    }));
    policy.insert("Statement".to_owned(), statements.into());
    serde_json::to_string(&policy).map(Some)
}

/// The pattern of all functions beside the repository: without it, anybody's function could have Lambda read from it.
fn functions_of(host: &RegistryHost) -> String {
    format!("arn:{}:lambda:{}:{}:function:*", host.partition(), host.region(), host.account())
}

fn lets_lambda(statement: &Value, action: &str) -> bool {
    statement["Effect"] == "Allow"
        && one_or_many(&statement["Principal"]["Service"]).any(|service| service.eq_ignore_ascii_case(LAMBDA))
        && one_or_many(&statement["Action"])
            .any(|pattern| matches(&pattern.to_ascii_lowercase(), &action.to_ascii_lowercase()))
}

/// The strings of a value that a policy may give alone or in a list.
fn one_or_many(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice).iter().filter_map(Value::as_str)
}

/// An ID that no statement has: two equal ones are an invalid policy.
fn free_id(statements: &[Value]) -> String {
    let taken = |id: &str| statements.iter().any(|statement| statement["Sid"] == id);
    let numbered = (2..).map(|number| format!("{STATEMENT_ID}{number}"));
    std::iter::once(STATEMENT_ID.to_owned()).chain(numbered).find(|id| !taken(id)).unwrap_or_default()
}

/// Whether `text` fits `pattern`, in which `*` stands for any run of bytes and `?` for one, as in IAM and in ECR's
/// tag filters.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut from) = (0, 0);
    // Where the last star was and how much of the text it has taken: only that one needs to take more.
    let mut star = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[from] => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    (at, from) = (star_at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(existing: Option<&Value>) -> Option<Value> {
        let host = RegistryHost::parse("123456789012.dkr.ecr.eu-west-1.amazonaws.com").expect("a host");
        let text = existing.map(Value::to_string);
        let policy = with_lambda(text.as_deref(), &host).expect("a policy");
        policy.map(|policy| serde_json::from_str(&policy).expect("JSON"))
    }

    fn lambda_statement(id: &str) -> Value {
        json!({
            "Sid": id,
            "Effect": "Allow",
            "Principal": { "Service": "lambda.amazonaws.com" },
            "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
            "Condition": {
                "StringLike": { "aws:sourceArn": "arn:aws:lambda:eu-west-1:123456789012:function:*" },
            },
        })
    }

    #[test]
    fn a_new_policy_holds_the_statement_lambda_looks_for() {
        let expected = json!({ "Version": "2012-10-17", "Statement": [lambda_statement(STATEMENT_ID)] });
        assert_eq!(added(None), Some(expected));
    }

    #[test]
    fn functions_are_named_by_the_partition_of_the_registry() {
        let host = RegistryHost::parse("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn").expect("a host");
        assert_eq!(functions_of(&host), "arn:aws-cn:lambda:cn-north-1:123456789012:function:*");
    }

    #[test]
    fn what_a_policy_says_already_is_kept() {
        let others = json!({ "Sid": "Team", "Effect": "Deny", "Principal": "*", "Action": "ecr:DeleteRepository" });
        let existing = json!({ "Version": "2008-10-17", "Id": "ours", "Statement": others });
        let expected = json!({
            "Version": "2008-10-17",
            "Id": "ours",
            "Statement": [others, lambda_statement(STATEMENT_ID)],
        });
        assert_eq!(added(Some(&existing)), Some(expected));
    }

    #[test]
    fn a_statement_id_is_never_taken_twice() {
        let half = |id: &str| json!({ "Sid": id, "Effect": "Allow", "Principal": { "Service": LAMBDA } });
        let (one, two) = (half(STATEMENT_ID), half("LambdaECRImageRetrievalPolicy2"));
        let policy = added(Some(&json!({ "Statement": [one, two] }))).expect("a policy that had to change");
        assert_eq!(policy["Statement"][2], lambda_statement("LambdaECRImageRetrievalPolicy3"));
    }

    #[test]
    fn a_policy_that_lets_lambda_read_is_left_alone() {
        let allow = |service: Value, action: Value| json!({ "Effect": "Allow", "Principal": { "Service": service }, "Action": action });
        let both = json!(["ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"]);
        for statements in [
            json!(lambda_statement("Mine")),
            json!([allow(json!(LAMBDA), both.clone())]),
            json!([allow(json!(["ecs.amazonaws.com", LAMBDA]), json!("ecr:*"))]),
            json!([allow(json!(LAMBDA), json!("*"))]),
            json!([allow(json!(LAMBDA), json!(["ECR:batchGet*", "ecr:GetDownloadUrl???Layer"]))]),
            json!([allow(json!(LAMBDA), json!("ecr:BatchGetImage")), allow(json!(LAMBDA), json!("ecr:Get*"))]),
        ] {
            assert_eq!(added(Some(&json!({ "Statement": statements }))), None, "{statements}");
        }
        for statements in [
            json!([]),
            json!([allow(json!(LAMBDA), json!("ecr:BatchGetImage"))]),
            json!([allow(json!("lambda.amazonaws.com.evil.io"), both.clone())]),
            json!([{ "Effect": "Deny", "Principal": { "Service": LAMBDA }, "Action": both }]),
            json!([{ "Effect": "Allow", "Principal": { "AWS": LAMBDA }, "Action": both }]),
            json!([{ "Effect": "Allow", "Principal": { "Service": LAMBDA }, "NotAction": both }]),
            json!([{ "Effect": "Allow", "NotPrincipal": { "Service": LAMBDA }, "Action": both }]),
        ] {
            assert!(added(Some(&json!({ "Statement": statements }))).is_some(), "{statements}");
        }
    }

    #[test]
    fn what_is_no_policy_is_not_overwritten() {
        let host = RegistryHost::parse("123456789012.dkr.ecr.eu-west-1.amazonaws.com").expect("a host");
        for text in ["", "[]", "{", "\"text\""] {
            assert!(with_lambda(Some(text), &host).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_fit_as_in_iam() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("*", "abc", true),
            ("a", "", false),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b", "xaxab", true),
            ("*a*b*", "xbxa", false),
            ("v*.*.*", "v1.2.3", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
