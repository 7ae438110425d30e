//! ECR's control plane as the SDK finds it: moto for AWS, real files for credentials, real environment variables.
//!
//! Each test that depends on the environment runs itself in a child that has it.

use std::fs;
use std::path::Path;

use axum::http::Method;
use cargo_lambda_image::aws::ecr::host::RegistryHost;
use cargo_lambda_image::aws::ecr::repository::IfAbsent;
use cargo_lambda_image::aws::ecr::token::TokenSource;
use cargo_lambda_image::aws::ecr::{Authorization, Ecr};
use cargo_lambda_image::aws::{Access, Settings};
use cargo_lambda_image::event::Session;
use cargo_lambda_image::oci::Digest;
use cargo_lambda_image::problem::{Exit, Problem, Result};
use rcgen::generate_simple_self_signed;
use serde_json::{Value, json};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::support::child;
use crate::support::moto::{ACCOUNT, Moto};
use crate::support::registry::{Fault, FaultRegistry};
use crate::support::tools::block_on;

/// A token for the account's registry, as ECR answers: the password is `pw`.
const TOKEN: &str = r#"{"authorizationData":[{"authorizationToken":"QVdTOnB3","expiresAt":1420070400,
    "proxyEndpoint":"https://123456789012.dkr.ecr.eu-west-1.amazonaws.com"}]}"#;

/// Keys in the environment, and no other place to find any.
const KEYS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT"),
    ("AWS_SECRET_ACCESS_KEY", "canary-secret"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_MAX_ATTEMPTS", "1"),
];

/// No keys anywhere but in the files of `home`.
fn files(home: &Path) -> Vec<(&str, &str)> {
    let home = home.to_str().expect("a plain path");
    vec![("HOME", home), ("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_MAX_ATTEMPTS", "1")]
}

fn settings(region: Option<&str>, profile: Option<&str>) -> Settings {
    Settings { region: region.map(str::to_owned), profile: profile.map(str::to_owned), endpoint_url: None }
}

async fn authorize(settings: &Settings) -> Result<Authorization> {
    Ecr::in_region(&Access::load(settings).await?)?.authorize().await
}

fn refused(settings: &Settings) -> Problem {
    block_on(authorize(settings)).expect_err("a refusal")
}

#[test]
fn a_repository_is_made_once_and_read_by_lambda() {
    const TEST: &str = "aws::a_repository_is_made_once_and_read_by_lambda";
    if child::is_child() {
        block_on(async {
            let access = Access::load(&Settings::default()).await.expect("access");
            let ecr = Ecr::in_region(&access).expect("a region");
            let registry = ecr.authorize().await.expect("a login").registry;
            assert_eq!(registry.to_string(), format!("{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com"));
            let token = TokenSource::new(ecr.clone()).current().await.expect("a token");
            assert_eq!((token.username(), token.password()), ("AWS", format!("{ACCOUNT}-auth-token").as_str()));

            let session = Session::silent();
            let absent = ecr.repository(&registry, "shop/a", IfAbsent::Fail, &session).await.expect_err("none yet");
            assert_eq!(absent.message(), format!("repository `shop/a` does not exist in `{registry}`"));
            let made = ecr.repository(&registry, "shop/a", IfAbsent::Create, &session).await.expect("a new one");
            assert_eq!((made.created, made.uri), (true, format!("{registry}/shop/a")));
            assert!(!made.tags.expect("a rule").is_immutable("v1"));
            let again = ecr.repository(&registry, "shop/a", IfAbsent::Create, &session).await.expect("the same");
            assert!(!again.created);
            let by_host = Ecr::at(&access, &registry).expect("the same region");
            by_host.repository(&registry, "shop/a", IfAbsent::Fail, &session).await.expect("the same");
        });
        return;
    }
    let moto = Moto::start();
    let environment = [&KEYS[..], &[("AWS_ENDPOINT_URL", moto.url.as_str()), ("AWS_REGION", "eu-central-1")]].concat();
    child::run(TEST, &environment);

    let name = json!({ "repositoryName": "shop/a" });
    let described = moto.ecr("eu-central-1", "DescribeRepositories", &json!({ "repositoryNames": ["shop/a"] }));
    assert_eq!(described["repositories"][0]["imageScanningConfiguration"], json!({ "scanOnPush": true }));
    let policy = moto.ecr("eu-central-1", "GetRepositoryPolicy", &name);
    let policy: Value = serde_json::from_str(policy["policyText"].as_str().expect("a policy")).expect("JSON");
    let expected = json!([{
        "Sid": "LambdaECRImageRetrievalPolicy",
        "Effect": "Allow",
        "Principal": { "Service": "lambda.amazonaws.com" },
        "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        "Condition": {
            "StringLike": { "aws:sourceArn": format!("arn:aws:lambda:eu-central-1:{ACCOUNT}:function:*") },
        },
    }]);
    assert_eq!(policy["Statement"], expected);
}

#[test]
fn a_profile_that_was_typed_wins_over_keys_in_the_environment() {
    const TEST: &str = "aws::a_profile_that_was_typed_wins_over_keys_in_the_environment";
    if child::is_child() {
        block_on(authorize(&settings(None, Some("work")))).expect("a login");
        block_on(authorize(&settings(Some("eu-west-3"), None))).expect("a login");
        return;
    }
    let answer = Fault::Status(200, &[("content-type", "application/x-amz-json-1.1")], TOKEN);
    let aws = FaultRegistry::builder().fault(Method::POST, "/", 0..9, answer).start();
    let home = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(home.path().join(".aws")).expect("a directory");
    fs::write(
        home.path().join(".aws/config"),
        "[profile work]\nregion = eu-west-2\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = canary\n",
    )
    .expect("a written file");
    // The service's own endpoint wins over the general one, where nobody listens.
    let endpoints = [("AWS_ENDPOINT_URL_ECR", aws.origin.as_str()), ("AWS_ENDPOINT_URL", "http://127.0.0.1:9")];
    child::run(TEST, &[&files(home.path())[..], &KEYS, &endpoints].concat());

    let scopes: Vec<_> = aws
        .requests()
        .iter()
        .map(|request| {
            let (_, rest) =
                request.header("authorization").expect("a signature").split_once("Credential=").expect("a credential");
            let mut parts = rest.split('/');
            (parts.next().expect("a key").to_owned(), parts.nth(1).expect("a region").to_owned())
        })
        .collect();
    let expected = [("AKIAPROFILE", "eu-west-2"), ("AKIAENVIRONMENT", "eu-west-3")];
    assert_eq!(scopes, expected.map(|(key, region)| (key.to_owned(), region.to_owned())));
}

#[test]
fn who_has_no_credentials_is_told_how_to_get_some() {
    const TEST: &str = "aws::who_has_no_credentials_is_told_how_to_get_some";
    if child::is_child() {
        let problem = refused(&settings(Some("eu-west-1"), None));
        assert_eq!(problem.message(), "could not get a login for Amazon ECR");
        assert_eq!(problem.causes(), ["no AWS credentials were found"]);
        let problem = refused(&settings(Some("eu-west-1"), Some("nobody")));
        assert!(problem.causes()[0].contains("profile `nobody` was not defined"), "{:?}", problem.causes());
        let help =
            "`aws configure list-profiles` lists the profiles there are, `aws configure --profile nobody` makes one";
        assert_eq!(problem.next_step(), Some(help));
        let problem = refused(&settings(None, None));
        assert_eq!((problem.exit(), problem.message()), (Exit::Usage, "no AWS region is chosen"));
        return;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(home.path().join(".aws")).expect("a directory");
    fs::write(home.path().join(".aws/config"), "[profile work]\noutput = json\n").expect("a written file");
    child::run(TEST, &files(home.path()));
}

#[test]
fn keys_come_from_a_web_identity_from_sso_and_from_a_login() {
    const TEST: &str = "aws::keys_come_from_a_web_identity_from_sso_and_from_a_login";
    const ROLE: &str = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
        <AccessKeyId>ASIAWEB</AccessKeyId><SecretAccessKey>canary</SecretAccessKey><SessionToken>canary</SessionToken>\
        <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
        </AssumeRoleWithWebIdentityResponse>";
    const SSO: &str = r#"{"roleCredentials":{"accessKeyId":"ASIASSO","secretAccessKey":"canary",
        "sessionToken":"canary","expiration":4070908800000}}"#;
    if child::is_child() {
        let profile = std::env::var("PROFILE").ok();
        block_on(authorize(&settings(Some("eu-west-1"), profile.as_deref()))).expect("a login");
        return;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = |below: &str| home.path().join(below);
    let login = "arn:aws:iam::123456789012:user/me";
    let config = format!(
        "[profile sso]\nsso_session = company\nsso_account_id = 123456789012\nsso_role_name = Dev\n\
         [sso-session company]\nsso_region = eu-west-1\nsso_start_url = https://company.example/start\n\
         [profile login]\nlogin_session = {login}\n"
    );
    for directory in [".aws/sso/cache", ".aws/login/cache"] {
        fs::create_dir_all(path(directory)).expect("a directory");
    }
    fs::write(path(".aws/config"), config).expect("a written file");
    let token = json!({ "accessToken": "canary", "expiresAt": "2099-01-01T00:00:00Z", "region": "eu-west-1" });
    let file = path(".aws/sso/cache/71b21161ffa1e6516bcc072aaf5ef38cbe85b511.json");
    fs::write(file, token.to_string()).expect("a written file");
    let token = json!({
        "accessToken": { "accessKeyId": "ASIALOGIN", "secretAccessKey": "canary", "sessionToken": "canary",
            "accountId": "123456789012", "expiresAt": "2099-01-01T00:00:00Z" },
        "tokenType": "aws_sigv4", "refreshToken": "canary", "clientId": "x", "dpopKey": "x",
    });
    let file = path(".aws/login/cache").join(format!("{}.json", Digest::of(login.as_bytes()).hex()));
    fs::write(file, token.to_string()).expect("a written file");
    fs::write(path("identity"), "canary-identity").expect("a written file");
    let identity = path("identity").display().to_string();

    let web =
        [("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/ci"), ("AWS_WEB_IDENTITY_TOKEN_FILE", identity.as_str())];
    for (way, key, before) in [
        (&web[..], "ASIAWEB", &["POST /"][..]),
        (&[("PROFILE", "sso")], "ASIASSO", &["GET /federation/credentials?role_name=Dev&account_id=123456789012"]),
        (&[("PROFILE", "login")], "ASIALOGIN", &[]),
    ] {
        let answer = Fault::Status(200, &[("content-type", "application/x-amz-json-1.1")], TOKEN);
        let first = before.contains(&"POST /");
        let aws = FaultRegistry::builder()
            .fault(Method::POST, "/", 0..usize::from(first), Fault::Status(200, &[("content-type", "text/xml")], ROLE))
            .fault(Method::GET, "/federation", 0..1, Fault::Status(200, &[], SSO))
            .fault(Method::POST, "/", usize::from(first)..9, answer)
            .start();
        child::run(TEST, &[&files(home.path())[..], way, &[("AWS_ENDPOINT_URL", aws.origin.as_str())]].concat());
        assert_eq!(aws.log(), [before, &["POST /"]].concat());
        let signed = aws.requests().pop().expect("a request");
        let signature = signed.header("authorization").expect("a signature");
        assert!(signature.contains(&format!("Credential={key}/")), "{signature}");
    }
}

#[test]
fn a_session_that_is_over_is_told_with_how_to_renew_it() {
    const TEST: &str = "aws::a_session_that_is_over_is_told_with_how_to_renew_it";
    if child::is_child() {
        for profile in ["sso", "login"] {
            let problem = refused(&settings(Some("eu-west-1"), Some(profile)));
            let causes = problem.causes();
            assert!(causes[0].starts_with("the AWS session is over, or was never begun: "), "{causes:?}");
            let help = format!(
                "renew it: `aws sso login --profile {profile}`, `aws login --profile {profile}`, or whatever the keys \
                 came from"
            );
            assert_eq!(problem.next_step(), Some(help.as_str()));
        }
        let problem = refused(&settings(Some("eu-west-1"), Some("process")));
        let text = format!("{problem} {:?}", problem.causes());
        assert!(text.contains("AWS credentials could not be had") && !text.contains("canary"), "{text}");
        return;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let config = "[profile sso]\nsso_session = company\nsso_account_id = 123456789012\nsso_role_name = Dev\n\
                  [sso-session company]\nsso_region = eu-west-1\nsso_start_url = https://company.example/start\n\
                  [profile login]\nlogin_session = arn:aws:iam::123456789012:user/me\n\
                  [profile process]\ncredential_process = sh -c 'echo canary >&2; exit 1'\n";
    let cache = home.path().join(".aws/sso/cache");
    fs::create_dir_all(&cache).expect("a directory");
    fs::write(home.path().join(".aws/config"), config).expect("a written file");
    // The name is the SHA-1 of the session's.
    let token = json!({ "accessToken": "canary", "expiresAt": "2020-01-01T00:00:00Z", "region": "eu-west-1" });
    fs::write(cache.join("71b21161ffa1e6516bcc072aaf5ef38cbe85b511.json"), token.to_string()).expect("a written file");
    child::run(TEST, &files(home.path()));
}

#[test]
fn every_kind_of_registry_is_asked_for_at_its_own_kind_of_endpoint() {
    const TEST: &str = "aws::every_kind_of_registry_is_asked_for_at_its_own_kind_of_endpoint";
    if child::is_child() {
        block_on(async {
            let access = Access::load(&settings(None, None)).await.expect("access");
            for host in [
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
                "123456789012.dkr-ecr.eu-central-1.on.aws",
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com",
                "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
            ] {
                let host = RegistryHost::parse(host).expect("a host of the table");
                let problem = Ecr::at(&access, &host).expect("a client").authorize().await.expect_err("no tunnel");
                assert!(problem.next_step().expect("a next step").contains("`HTTPS_PROXY`"), "{:?}", problem.causes());
            }
        });
        return;
    }
    let proxy = FaultRegistry::builder().fault(Method::CONNECT, "", 0..99, Fault::Status(403, &[], "")).start();
    child::run(TEST, &[&KEYS[..], &[("HTTPS_PROXY", proxy.origin.as_str())]].concat());
    let asked: Vec<_> =
        proxy.requests().iter().map(|request| request.header("host").expect("a host").to_owned()).collect();
    assert_eq!(
        asked,
        [
            "api.ecr.eu-west-1.amazonaws.com:443",
            "api.ecr-fips.us-east-1.amazonaws.com:443",
            "ecr.eu-central-1.api.aws:443",
            "api.ecr.cn-north-1.amazonaws.com.cn:443",
            "api.ecr.us-gov-west-1.amazonaws.com:443",
            "api.ecr.eusc-de-east-1.amazonaws.eu:443",
        ]
    );
}

#[test]
fn aws_is_reached_without_the_proxy_where_no_proxy_says_so() {
    const TEST: &str = "aws::aws_is_reached_without_the_proxy_where_no_proxy_says_so";
    if child::is_child() {
        block_on(authorize(&settings(Some("eu-west-1"), None))).expect("a login");
        return;
    }
    let answer = || Fault::Status(200, &[("content-type", "application/x-amz-json-1.1")], TOKEN);
    let [aws, proxy] = [(); 2].map(|()| FaultRegistry::builder().fault(Method::POST, "/", 0..9, answer()).start());
    // Every address of this machine, and none that is known to be its own.
    let endpoint = aws.origin.replace("127.0.0.1", "0.0.0.0");
    for (no_proxy, proxied) in [("registry.example,0.0.0.0", 0), ("registry.example", 1)] {
        let way = [("AWS_ENDPOINT_URL", endpoint.as_str()), ("HTTP_PROXY", &proxy.origin), ("NO_PROXY", no_proxy)];
        child::run(TEST, &[&KEYS[..], &way].concat());
        assert_eq!((proxy.requests().len(), aws.requests().len()), (proxied, 1), "{no_proxy}");
    }
}

#[test]
fn aws_is_trusted_by_ssl_cert_file_and_not_without() {
    const TEST: &str = "aws::aws_is_trusted_by_ssl_cert_file_and_not_without";
    if child::is_child() {
        let outcome = block_on(authorize(&settings(Some("eu-west-1"), None)));
        if std::env::var_os("SSL_CERT_FILE").is_some() {
            assert_eq!(outcome.expect("a login").token.password(), "pw");
        } else {
            let problem = outcome.expect_err("a certificate nobody knows");
            let help = "if a proxy opens TLS here, let `SSL_CERT_FILE` name a file with its certificate";
            assert_eq!(problem.next_step(), Some(help), "{:?}", problem.causes());
        }
        return;
    }
    let made = generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let tls = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a configuration");
    let answer = Fault::Status(200, &[("content-type", "application/x-amz-json-1.1")], TOKEN);
    let aws = FaultRegistry::builder().tls(tls).fault(Method::POST, "/", 0..9, answer).start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("authority.pem");
    fs::write(&file, made.cert.pem()).expect("a written file");
    let endpoint = format!("https://localhost:{}", aws.address.port());
    let environment = [&KEYS[..], &[("AWS_ENDPOINT_URL", endpoint.as_str())]].concat();
    child::run(TEST, &environment);
    child::run(TEST, &[&environment[..], &[("SSL_CERT_FILE", file.to_str().expect("a plain path"))]].concat());
}
