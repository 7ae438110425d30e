//! The whole way into Amazon ECR, by its real host names: moto is its API, a registry of ECR's ways keeps the blobs,
//! and an HTTPS proxy makes both answer under the names that the program knows.

use std::fs;

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cargo_lambda_image::lock::FILE_NAME;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cloud::{API, Cloud, HOST, KEYS, PASSWORD, REGION};
use crate::support::hello;
use crate::support::images::noise;
use crate::support::layout;
use crate::support::moto::{ACCOUNT, Moto};
use crate::support::program::{Outcome, Program};
use crate::support::project::{Project, files_below};
use crate::support::proxy::Proxy;
use crate::support::registry::{Auth, Fault, FaultRegistry, Ways};
use crate::support::site::Site;

#[test]
fn from_the_public_base_into_an_account_by_real_names_and_it_answers() {
    let cloud = Cloud::start(&["shop/hello"]);
    let target = TempDir::new().expect("a temporary directory");
    let push = || {
        let push = hello::push(target.path()).args(["--repository", "shop/{bin}", "--create-repository"]);
        cloud.at_home(push.args(["--region", REGION, "--tag", "v1", "--message-format", "json"])).run()
    };
    let outcome = push();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let pushed = &outcome.messages("image-pushed")[0];
    let digest = pushed["digest"].as_str().expect("a digest");
    assert_eq!(pushed["image_uri"], format!("{HOST}/shop/hello@{digest}"));
    assert_eq!(pushed["steps"], json!(["relay", "relay", "relay", "relay", "upload", "upload"]));
    assert_eq!(fs::read_dir(hello::layout(target.path()).join("blobs/sha256")).expect("blobs").count(), 0);

    let described = cloud.moto.ecr(REGION, "DescribeRepositories", &json!({"repositoryNames": ["shop/hello"]}));
    assert_eq!(described["repositories"][0]["imageScanningConfiguration"]["scanOnPush"], true);
    let policy = cloud.moto.ecr(REGION, "GetRepositoryPolicy", &json!({"repositoryName": "shop/hello"}));
    assert!(policy["policyText"].as_str().is_some_and(|text| text.contains("lambda.amazonaws.com")), "{policy}");
    let hosts: Vec<_> = cloud.proxy.requests();
    for host in [HOST, API] {
        assert!(hosts.contains(&format!("CONNECT {host}")), "{hosts:?}");
    }

    let before = cloud.registry.received();
    let again = push();
    let again = &again.messages("image-pushed")[0];
    assert_eq!((&again["digest"], &again["sent_bytes"]), (&pushed["digest"], &json!(0)));
    assert_eq!(cloud.registry.received(), before);
    cloud.assert_it_answers("shop/hello", ":v1");
    drop(cloud.bases);
}

#[test]
fn no_secret_is_logged_or_kept() {
    let cloud = Cloud::start(&["shop/site"]);
    let site = Site::new();
    let login = STANDARD.encode("me:canary-docker-password");
    let docker = json!({"auths": {"public.ecr.aws": {"auth": login}, "elsewhere.example": {"auth": login}}});
    fs::create_dir(site.path("docker")).expect("made");
    fs::write(site.path("docker/config.json"), docker.to_string()).expect("written");
    let push = site.push("shop/site", &["notes.txt"]).args(["--region", REGION, "--create-repository", "-vv"]);
    let push = push.env("DOCKER_CONFIG", site.path("docker")).env("RUST_LOG", "trace");
    let outcome = cloud.at_home(push.env("AWS_LOG", "trace")).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("/v2/shop/site/"), "the requests are told: {}", outcome.stderr);
    let basic = STANDARD.encode(format!("AWS:{PASSWORD}"));
    let secrets = ["canary", PASSWORD, basic.as_str(), login.as_str()];
    for secret in secrets {
        assert!(!outcome.stderr.contains(secret) && !outcome.stdout.contains(secret), "`{secret}` was printed");
    }
    let below = site.project();
    for path in files_below(&below).keys() {
        let bytes = fs::read(below.join(path)).expect("read");
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "`{secret}` is in {}", path.display());
        }
    }
    assert_eq!(files_below(&site.path("home")).len(), 0, "nothing is left at home");
    // Who is no registry of the account's sees no login of it.
    let asked = cloud.registry.requests();
    assert!(asked.iter().all(|it| it.header("x-amz-security-token").is_none()));
    assert!(asked.iter().filter_map(|it| it.header("authorization")).all(|it| it == format!("Basic {basic}")));
}

#[test]
fn the_password_of_a_proxy_goes_to_it_and_is_never_shown() {
    let proxy = FaultRegistry::builder().fault(Method::CONNECT, "", 0..99, Fault::Status(403, &[], "")).start();
    let url = proxy.origin.replace("http://", "http://me:canary-proxy-password@");
    let basic = format!("Basic {}", STANDARD.encode("me:canary-proxy-password"));
    let site = Site::new();
    for repository in ["registry.example/shop/site", "shop/site"] {
        let push = site.push(repository, &["notes.txt"]).args(["--region", REGION, "-vv"]).env("HTTPS_PROXY", &url);
        let push = KEYS.iter().fold(push, |push, (name, value)| push.env(name, *value));
        let before = proxy.requests().len();
        let outcome = push.env("RUST_LOG", "trace").env("AWS_LOG", "trace").env("AWS_MAX_ATTEMPTS", "1").run();
        assert_eq!(outcome.code, 1, "{repository}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("`HTTPS_PROXY`"), "{repository}: {}", outcome.stderr);
        let asked = proxy.requests().split_off(before);
        assert!(!asked.is_empty(), "{repository}");
        assert!(asked.iter().all(|it| it.header("proxy-authorization") == Some(&basic)), "{repository}: {asked:?}");
        for secret in ["canary", &basic["Basic ".len()..]] {
            assert!(!outcome.stderr.contains(secret), "{repository}: `{secret}` in {}", outcome.stderr);
        }
    }
}

#[test]
fn assets_that_are_not_here_come_from_the_lock_and_an_account() {
    let cloud = Cloud::start(&["shop/app"]);
    let config =
        "repository = \"shop/app\"\nhandler = \"a.b\"\nassets = [{ path = \"models\" }, { path = \"x.db\" }]\n";
    let first = Project::new(&[("lambda-image.toml", config), ("x.db", &"rows ".repeat(10_000))]);
    first.write("models/a.bin", noise(300_000));
    let there = |program: Program, said: &[&str]| {
        let program = program.args(["--no-binary", "--region", REGION, "--message-format", "json"]).args(said);
        cloud.at_home(program.env("AWS_REGION", REGION)).run()
    };
    let pushed = |outcome: &Outcome| {
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        outcome.messages("image-pushed").remove(0)
    };
    let image = pushed(&there(first.push(), &["--create-repository"]));
    let checkout = || {
        let fresh = Project::new(&[("lambda-image.toml", config)]);
        fresh.write(FILE_NAME, fs::read(first.path(FILE_NAME)).expect("a lock"));
        fresh
    };
    let from_lock = &["--assets-from-lock", "--locked"];

    let fresh = checkout();
    let before = cloud.registry.received();
    let again = pushed(&there(fresh.push(), from_lock));
    assert_eq!(
        (&again["digest"], &again["layers"], &again["sent_bytes"]),
        (&image["digest"], &image["layers"], &json!(0))
    );
    assert_eq!(cloud.registry.received(), before);

    // `build` has no flag for the region, as it talks to AWS for this only.
    let fresh = checkout();
    let build = |project: &Project, said: &[&str]| {
        let program = project.build().args(["--no-binary", "--assets-from-lock", "--locked"]).args(said);
        cloud.at_home(program.env("AWS_REGION", REGION)).run()
    };
    let built = build(&fresh, &[]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert_eq!(json!(built.stdout.trim()), image["digest"]);
    assert_eq!(layout::verify(&fresh.layout()), [("app".to_owned(), built.stdout.trim().to_owned())]);
    for layer in image["layers"].as_array().expect("layers").iter().skip(4) {
        let digest = layer["digest"].as_str().expect("a digest");
        assert_eq!(cloud.registry.count(Method::GET, digest), 1, "{digest} is pulled once");
    }
    assert_eq!(build(&fresh, &["--offline"]).stdout, built.stdout, "all of it is here now");

    let lost = image["layers"][4]["digest"].as_str().expect("a digest");
    cloud.registry.forget_digest("shop/app", &lost.parse().expect("a digest"));
    for (outcome, command) in [(build(&checkout(), &[]), "build"), (there(checkout().push(), from_lock), "push")] {
        assert_eq!(outcome.code, 1, "{command}: {}", outcome.stderr);
        for word in ["models", lost, &format!("{HOST}/shop/app")] {
            assert!(outcome.stderr.contains(word), "{command}: no `{word}` in {}", outcome.stderr);
        }
    }
}

#[test]
fn what_only_looks_like_a_registry_of_ecr_gets_no_login_of_aws() {
    let nobody = FaultRegistry::builder().fault(Method::CONNECT, "", 0..99, Fault::Status(403, &[], "")).start();
    let aws = FaultRegistry::builder().fault(Method::POST, "/", 0..99, Fault::Status(500, &[], "")).start();
    let site = Site::new();
    for host in [
        format!("{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com.evil.io"),
        format!("{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com:8443"),
        format!("x{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com"),
        format!("{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.co"),
    ] {
        let push = site.push(&format!("{host}/shop/site"), &["notes.txt"]).env("HTTPS_PROXY", &nobody.origin);
        let push = KEYS.iter().fold(push, |push, (name, value)| push.env(name, *value));
        let outcome = push.env("AWS_ENDPOINT_URL", &aws.origin).run();
        assert_eq!(outcome.code, 1, "{host}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(&host), "{}", outcome.stderr);
    }
    assert!(aws.requests().is_empty(), "{:?}", aws.log());
    assert!(nobody.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_login_is_asked_for_once_however_much_is_pushed() {
    const TOKEN: &str = concat!(
        r#"{"authorizationData":[{"authorizationToken":"QVdTOmxvZ2luLTE=","expiresAt":1,"#,
        r#""proxyEndpoint":"https://123456789012.dkr.ecr.eu-west-1.amazonaws.com"}]}"#
    );
    let answer = Fault::Status(200, &[("content-type", "application/x-amz-json-1.1")], TOKEN);
    // Everything else is forbidden, which pushing can do without.
    let denied = r#"{"__type":"AccessDeniedException","message":"not authorized"}"#;
    let denied = Fault::Status(400, &[("content-type", "application/x-amz-json-1.1")], denied);
    let aws = FaultRegistry::builder().fault(Method::POST, "/", 0..1, answer).fault(Method::POST, "/", 1..99, denied);
    let aws = aws.start();
    let ways = Ways { ecr: true, ..Ways::default() };
    let registry = FaultRegistry::builder().auth(Auth::Ecr).ways(ways).repository("shop/site").start();
    let proxy = Proxy::start_with("127.0.0.1:1", &[(HOST, &registry.address.to_string())]);
    let site = Site::new();
    for number in 0..20 {
        site.write(&format!("{number}.txt"), format!("number {number}").as_bytes());
    }
    let names: Vec<_> = (0..20).map(|number| format!("{number}.txt")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let push = site.push("shop/site", &names).env("HTTPS_PROXY", proxy.url()).env("SSL_CERT_FILE", proxy.authority());
    let push = KEYS.iter().fold(push, |push, (name, value)| push.env(name, *value));
    let outcome = push.args(["--region", REGION]).env("AWS_ENDPOINT_URL", &aws.origin).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let asked: Vec<_> = aws.requests().iter().filter_map(|it| it.header("x-amz-target").map(str::to_owned)).collect();
    let tokens = asked.iter().filter(|target| target.ends_with("GetAuthorizationToken")).count();
    assert_eq!(tokens, 1, "{asked:?}");
}

#[test]
fn what_aws_refuses_is_told_with_what_to_do() {
    let site = Site::new();
    let push = || site.push("shop/site", &["notes.txt"]);
    let keys = |push: Program| KEYS.iter().fold(push, |push, (name, value)| push.env(name, *value));
    let outcome = keys(push()).run();
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("no AWS region is chosen"), "{}", outcome.stderr);

    let outcome = push().args(["--region", REGION]).env("AWS_EC2_METADATA_DISABLED", "true").run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("help: "), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("credentials"), "{}", outcome.stderr);

    let moto = Moto::start();
    let outcome = keys(push()).args(["--region", REGION, "--endpoint-url", &moto.url]).run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("repository `shop/site` does not exist"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("--create-repository"), "{}", outcome.stderr);
}

#[test]
fn a_dry_run_tells_of_a_repository_that_would_be_created_and_creates_none() {
    let cloud = Cloud::start(&["shop/site"]);
    let site = Site::new();
    site.write("big.bin", &noise(100_000));
    let push = |repository: &str| {
        let push = cloud.at_home(site.push(repository, &["notes.txt", "big.bin"]).args(["--region", REGION]));
        push.arg("--create-repository")
    };
    assert_eq!(push("shop/site").run().code, 0);
    // The registry of a new name has no such repository; it lends what another has.
    let plan = push("shop/new").args(["--dry-run", "--message-format", "json"]).run();
    let plan = &plan.messages("push-planned")[0];
    assert_eq!((&plan["creates_repository"], &plan["uploaded_bytes"]), (&json!(true), &json!(0)));
    assert_eq!((&plan["layers"][0]["step"], &plan["layers"][1]["step"]), (&json!("mount"), &json!("mount")));
    let dry = push("shop/new").arg("--dry-run").run();
    assert!(dry.stdout.starts_with(&format!("image site -> {HOST}/shop/new, to be created\n")), "{}", dry.stdout);
    let described = cloud.moto.ecr(REGION, "DescribeRepositories", &json!({}));
    assert_eq!(described["repositories"].as_array().map(Vec::len), Some(1), "{described}");

    // Who would not get there is told so.
    let nowhere = push("shop/new").arg("--dry-run").env("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt").run();
    assert_eq!(nowhere.code, 1, "{}", nowhere.stderr);
}

#[test]
fn a_tag_that_cannot_be_moved_is_told_of_before_any_other_is() {
    let cloud = Cloud::start(&["shop/site"]);
    let immutable = json!({"repositoryName": "shop/site", "imageTagMutability": "IMMUTABLE"});
    cloud.moto.ecr(REGION, "CreateRepository", &immutable);
    let site = Site::new();
    let push = |tags: &[&str]| {
        let push = cloud.at_home(site.push("shop/site", &["notes.txt"]).args(["--region", REGION]));
        push.args(tags.iter().flat_map(|tag| ["--tag", tag]))
    };
    let first = push(&["v1"]).run();
    assert_eq!(first.code, 0, "{}", first.stderr);
    let (_, old) = first.stdout.trim_end().split_once('@').expect("a digest");
    let writes = || ["PUT", "POST", "PATCH"].map(|it| cloud.registry.count(it.parse().expect("a method"), "/"));
    let before = writes();
    let again = push(&["v1"]).run();
    assert_eq!((again.code, &again.stdout), (0, &first.stdout), "{}", again.stderr);
    assert_eq!(writes(), before, "it is there already");

    // Its layer is made on the way to the registry: which image it is turns out only there.
    site.write("notes.txt", b"second");
    let refused = push(&["v2", "v1"]).run();
    let tagged = |tag: &str| cloud.registry.manifest("shop/site", tag);
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{}", refused.stderr);
    assert_eq!(tagged("v2"), None);
    assert_eq!(cloud.registry.count(Method::PUT, "/manifests/"), 3, "those of the first push");
    let taken = |digest: &str| format!("tag `v1` of `{HOST}/shop/site` cannot be moved to {digest}");
    assert!(refused.stderr.contains(&taken("sha256:")), "{}", refused.stderr);
    assert!(refused.stderr.contains(&format!(": it points to {old}\n")), "{}", refused.stderr);
    assert!(refused.stderr.contains("help: tags of this repository are immutable"), "{}", refused.stderr);

    // From then on it is known, and nothing is sent in vain.
    let before = writes();
    assert!(push(&["v2", "v1"]).run().stderr.contains(&taken("sha256:")));
    let dry = push(&["v2", "v1"]).arg("--dry-run").run();
    assert_eq!(writes(), before);
    assert_eq!(dry.code, 1, "{}", dry.stderr);
    let (_, rest) = dry.stderr.split_once(&taken("")).expect("the refusal");
    let (new, _) = rest.split_once(':').and_then(|(_, hex)| hex.split_once(':')).expect("a digest");
    let new = &format!("sha256:{new}");
    let short = &new["sha256:".len()..][..12];
    let tags = format!(
        "  tag v2  none -> {new}\n  tag v1  {old} -> {new}, and cannot be moved\n  tag site-{short}  none -> {new}\n"
    );
    assert!(dry.stdout.ends_with(&tags), "{}", dry.stdout);
    let dry = push(&["v1"]).args(["--dry-run", "--message-format", "json"]).run();
    let plan = &dry.messages("push-planned")[0];
    assert_eq!(plan["digest"], *new);
    assert_eq!(plan["tags"][0], json!({"tag": "v1", "digest": old, "step": "move", "immutable": true}));
}

#[test]
fn refusals_of_aws_end_the_push_with_the_permission_or_the_thing_to_do() {
    const USER: &str = "User: arn:aws:iam::123456789012:user/ci is not authorized to perform:";
    const ARN: &str = "arn:aws:ecr:eu-west-1:123456789012:repository/shop/site";
    let token = Answer(
        200,
        json!({"authorizationData": [{
            "authorizationToken": STANDARD.encode("AWS:login-1"),
            "proxyEndpoint": format!("https://{HOST}"),
        }]}),
    );
    let absent = Answer::refusal("RepositoryNotFoundException", "The repository does not exist");
    let first = |code, message: &str| vec![Answer::refusal(code, message)];
    let create = |code, message: &str| vec![token.clone(), absent.clone(), Answer::refusal(code, message)];
    for (answers, said) in [
        (
            first(
                "AccessDeniedException",
                &format!("{USER} ecr:GetAuthorizationToken on resource: * because no identity-based policy allows it"),
            ),
            "allow the caller `ecr:GetAuthorizationToken` on `*` in an IAM policy",
        ),
        (
            first("ExpiredTokenException", "The security token included in the request is expired"),
            "renew it: `aws sso login`",
        ),
        (first("UnrecognizedClientException", "The security token is invalid."), "check the access key and the region"),
        (
            first(
                "InvalidSignatureException",
                "Signature expired: 20260101T000000Z is now earlier than 20260102T000000Z",
            ),
            "set this machine's clock",
        ),
        (
            create(
                "AccessDeniedException",
                &format!(
                    "{USER} ecr:CreateRepository on resource: {ARN} with an explicit deny in a service control policy"
                ),
            ),
            "a service control policy denies `ecr:CreateRepository`",
        ),
        (create("KmsException", "The key is disabled"), "let the caller use the repository's KMS key"),
        (
            create("LimitExceededException", "Too many repositories"),
            "delete what is not needed, or ask AWS for a higher quota",
        ),
    ] {
        let aws = answers.into_iter().enumerate().fold(FaultRegistry::builder(), |aws, (at, Answer(status, body))| {
            let body: &'static str = body.to_string().leak();
            let json = &[("content-type", "application/x-amz-json-1.1")];
            aws.fault(Method::POST, "/", at..at + 1, Fault::Status(status, json, body))
        });
        let aws = aws.start();
        let site = Site::new();
        let push = site.push("shop/site", &["notes.txt"]).args(["--region", REGION, "--create-repository"]);
        let push = KEYS.iter().fold(push, |push, (name, value)| push.env(name, *value));
        let outcome = push.env("AWS_ENDPOINT_URL", &aws.origin).env("AWS_MAX_ATTEMPTS", "1").run();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{said}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(&format!("help: {said}")), "no `{said}` in {}", outcome.stderr);
    }
}

/// An answer of AWS's: status and body.
#[derive(Clone)]
struct Answer(u16, Value);

impl Answer {
    fn refusal(code: &str, message: &str) -> Self {
        Self(400, json!({"__type": code, "message": message}))
    }
}
