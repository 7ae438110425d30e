//! The smallest IAM policy that lets a caller push images and bring functions to them: a pure function of what is
//! asked.
//!
//! Actions are those this program calls, and those that Lambda checks the caller for while it takes an image (Lambda
//! developer guide, "Amazon ECR permissions"). Nothing is allowed on `*` but what IAM knows no resource for.

use serde::Serialize;

use super::name::FunctionName;
use super::{Asked, Release};
use crate::aws::ecr::host::RegistryHost;

/// What a policy is for, beside functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The registry that images go to.
    pub registry: RegistryHost,
    /// The names of the repositories there.
    pub repositories: Vec<String>,
    /// Whether they are made if they are absent.
    pub create_repository: bool,
    /// Repositories of ECR that bases come from.
    pub bases: Vec<(RegistryHost, String)>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Policy {
    version: &'static str,
    statement: Vec<Statement>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    sid: &'static str,
    effect: &'static str,
    action: Vec<&'static str>,
    resource: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<serde_json::Value>,
}

/// The policy as JSON text.
#[must_use]
pub fn policy(wanted: &Wanted, functions: &[Asked]) -> String {
    let mut statement = vec![allow("Login", &["ecr:GetAuthorizationToken"], vec!["*".to_owned()])];
    statement.extend(repositories(wanted, functions));
    statement.extend(of_functions(&wanted.registry, functions));
    statement.retain(|statement| !statement.resource.is_empty());
    let policy = Policy { version: "2012-10-17", statement };
    serde_json::to_string_pretty(&policy).expect("strings are always written")
}

fn repositories(wanted: &Wanted, functions: &[Asked]) -> Vec<Statement> {
    let arn = |host: &RegistryHost, name: &str| {
        format!("arn:{}:ecr:{}:{}:repository/{name}", host.partition(), host.region(), host.account())
    };
    let mut own: Vec<_> = wanted.repositories.iter().map(|name| arn(&wanted.registry, name)).collect();
    let mut bases: Vec<_> = wanted.bases.iter().map(|(host, name)| arn(host, name)).collect();
    for arns in [&mut own, &mut bases] {
        arns.sort_unstable();
        arns.dedup();
    }
    let mut push = vec![
        "ecr:DescribeRepositories",
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:InitiateLayerUpload",
        "ecr:UploadLayerPart",
        "ecr:CompleteLayerUpload",
        "ecr:PutImage",
    ];
    let creates_function = functions.iter().any(|asked| asked.create.is_some());
    if wanted.create_repository {
        push.push("ecr:CreateRepository");
    }
    // Lambda adds its own permission to the repository's policy when a function is made, in the name of the caller.
    if wanted.create_repository || creates_function {
        push.extend(["ecr:GetRepositoryPolicy", "ecr:SetRepositoryPolicy"]);
    }
    if !functions.is_empty() {
        push.push("ecr:GetDownloadUrlForLayer");
    }
    let pull = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"];
    vec![allow("Push", &push, own), allow("Base", &pull, bases)]
}

fn of_functions(host: &RegistryHost, functions: &[Asked]) -> Vec<Statement> {
    let arns = |wants: &dyn Fn(&Asked) -> bool, with_versions: bool| {
        let mut arns: Vec<_> =
            functions.iter().filter(|asked| wants(asked)).map(|asked| arn(host, &asked.function)).collect();
        arns.sort_unstable();
        arns.dedup();
        if with_versions {
            arns = arns.into_iter().flat_map(|arn| [arn.clone(), format!("{arn}:*")]).collect();
        }
        arns
    };
    let releases = |asked: &Asked| asked.release != Release::Code;
    let mut roles: Vec<_> =
        functions.iter().filter_map(|asked| asked.create.as_ref()).map(|create| create.role.clone()).collect();
    roles.sort_unstable();
    roles.dedup();
    let mut pass_role = allow("PassRole", &["iam:PassRole"], roles);
    pass_role.condition =
        Some(serde_json::json!({ "StringEquals": { "iam:PassedToService": "lambda.amazonaws.com" } }));
    vec![
        allow("Function", &["lambda:GetFunction", "lambda:UpdateFunctionCode"], arns(&|_| true, false)),
        allow("Create", &["lambda:CreateFunction"], arns(&|asked| asked.create.is_some(), false)),
        pass_role,
        allow("Version", &["lambda:ListVersionsByFunction", "lambda:PublishVersion"], arns(&releases, false)),
        // Versions are looked at, and aliases are named, below the function.
        allow("LookAtVersion", &["lambda:GetFunction"], versions_only(arns(&releases, true))),
        allow(
            "Alias",
            &["lambda:GetAlias", "lambda:CreateAlias", "lambda:UpdateAlias"],
            arns(&|asked| asked.release.alias().is_some(), true),
        ),
    ]
}

fn versions_only(arns: Vec<String>) -> Vec<String> {
    arns.into_iter().filter(|arn| arn.ends_with(":*")).collect()
}

fn arn(host: &RegistryHost, function: &FunctionName) -> String {
    let account = function.account().unwrap_or(host.account());
    format!("arn:{}:lambda:{}:{account}:function:{}", host.partition(), host.region(), function.name())
}

fn allow(sid: &'static str, action: &[&'static str], resource: Vec<String>) -> Statement {
    Statement { sid, effect: "Allow", action: action.to_vec(), resource, condition: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::Create;

    fn wanted(create_repository: bool) -> Wanted {
        let registry = RegistryHost::of("123456789012", "eu-west-1").expect("a registry");
        Wanted { registry, repositories: vec!["shop/a".into(), "shop/a".into()], create_repository, bases: Vec::new() }
    }

    fn asked(name: &str, create: bool, release: Release) -> Asked {
        let role = "arn:aws:iam::123456789012:role/r".to_owned();
        let create = create.then_some(Create { role, memory_mb: None, timeout_seconds: None, env: Default::default() });
        Asked { package: "p".into(), bin: "b".into(), function: name.parse().expect("a name"), create, release }
    }

    /// Each statement as `Sid: actions without their service | resources without their account`.
    fn told(text: &str) -> Vec<String> {
        let policy: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(policy["Version"], "2012-10-17");
        let words = |value: &serde_json::Value| {
            let all = value.as_array().expect("a list").iter().map(|word| word.as_str().expect("a word"));
            all.map(|word| word.rsplit_once("123456789012:").map_or(word, |(_, rest)| rest))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let statements = policy["Statement"].as_array().expect("statements").iter();
        statements
            .map(|it| {
                format!(
                    "{}: {} | {}",
                    it["Sid"].as_str().expect("a name"),
                    words(&it["Action"]),
                    words(&it["Resource"])
                )
            })
            .collect()
    }

    const LOGIN: &str = "Login: ecr:GetAuthorizationToken | *";
    const PUSH: &str = "ecr:DescribeRepositories ecr:BatchCheckLayerAvailability ecr:BatchGetImage \
                        ecr:InitiateLayerUpload ecr:UploadLayerPart ecr:CompleteLayerUpload ecr:PutImage";

    #[test]
    fn only_what_is_asked_is_allowed() {
        let function = "Function: lambda:GetFunction lambda:UpdateFunctionCode | function:f";
        assert_eq!(told(&policy(&wanted(false), &[])), [LOGIN, &format!("Push: {PUSH} | repository/shop/a")]);
        let made = format!(
            "Push: {PUSH} ecr:CreateRepository ecr:GetRepositoryPolicy ecr:SetRepositoryPolicy | repository/shop/a"
        );
        assert_eq!(told(&policy(&wanted(true), &[])), [LOGIN, &made]);
        let push = format!("Push: {PUSH} ecr:GetDownloadUrlForLayer | repository/shop/a");
        let code = asked("f", false, Release::Code);
        assert_eq!(told(&policy(&wanted(false), std::slice::from_ref(&code))), [LOGIN, &push, function]);
        let version = asked("f", false, Release::Version);
        let publish = "Version: lambda:ListVersionsByFunction lambda:PublishVersion | function:f";
        let look = "LookAtVersion: lambda:GetFunction | function:f:*";
        assert_eq!(told(&policy(&wanted(false), &[version])), [LOGIN, &push, function, publish, look]);
        let alias = "Alias: lambda:GetAlias lambda:CreateAlias lambda:UpdateAlias | function:f function:f:*";
        let live = asked("f", false, Release::Alias("live".into()));
        assert_eq!(told(&policy(&wanted(false), &[live])), [LOGIN, &push, function, publish, look, alias]);
    }

    #[test]
    fn making_a_function_passes_its_role_to_lambda_only() {
        let text = policy(&wanted(false), &[asked("f", true, Release::Code), asked("g", false, Release::Code)]);
        let push = format!(
            "Push: {PUSH} ecr:GetRepositoryPolicy ecr:SetRepositoryPolicy ecr:GetDownloadUrlForLayer | repository/shop/a"
        );
        let function = "Function: lambda:GetFunction lambda:UpdateFunctionCode | function:f function:g";
        let create = "Create: lambda:CreateFunction | function:f";
        assert_eq!(told(&text), [LOGIN, &push, function, create, "PassRole: iam:PassRole | role/r"]);
        let policy: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let condition = serde_json::json!({ "StringEquals": { "iam:PassedToService": "lambda.amazonaws.com" } });
        assert_eq!(policy["Statement"][4]["Condition"], condition);
        assert_eq!(policy["Statement"][3].get("Condition"), None);
    }

    #[test]
    fn bases_are_read_and_functions_of_other_accounts_are_named() {
        let base = RegistryHost::of("210987654321", "us-east-1").expect("a registry");
        let wanted = Wanted { bases: vec![(base, "base".into())], ..wanted(false) };
        let arn = "arn:aws:lambda:eu-west-1:999999999999:function:f";
        let text = policy(&wanted, &[asked(arn, false, Release::Code)]);
        let policy: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(policy["Statement"][2]["Resource"][0], "arn:aws:ecr:us-east-1:210987654321:repository/base");
        assert_eq!(policy["Statement"][2]["Sid"], "Base");
        assert_eq!(policy["Statement"][3]["Resource"][0], arn);
    }
}
