//! `moto`, which stands in for AWS's own APIs, on a free port.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::tools::{block_on, poll, target_directory};

/// The account that owns everything in moto.
pub const ACCOUNT: &str = "123456789012";

/// An AWS of this test's own; it ends when dropped.
pub struct Moto {
    /// The value of `AWS_ENDPOINT_URL`.
    pub url: String,
    process: Child,
    _directory: TempDir,
}

impl Moto {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One whose functions take only images that its own ECR has.
    pub fn start_with_images() -> Self {
        Self::start_with(&[("MOTO_LAMBDA_STUB_ECR", "false")])
    }

    fn start_with(environment: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let log = directory.path().join("log");
        let program = target_directory().join("tools/moto/bin/moto_server");
        assert!(
            program.is_file(),
            "there is no `{}`: `tests/run` brings it and all else the tests need",
            program.display()
        );
        let process = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("moto starts");
        let mut moto = Self { url: String::new(), process, _directory: directory };
        moto.url = poll("moto to listen", || {
            let text = fs::read_to_string(&log).expect("the log of moto");
            let ended = moto.process.try_wait().expect("the state of moto");
            assert!(ended.is_none(), "moto ended: {text}");
            // The port was free for it to choose, so only its log knows it.
            let (_, rest) = text.split_once("Running on ")?;
            rest.split_once('\n').map(|(url, _)| url.trim().to_owned())
        });
        moto
    }

    /// Makes a role that Lambda may assume.
    pub fn create_role(&self, name: &str) {
        const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","#;
        let trust = format!("{TRUST}\"Principal\":{{\"Service\":\"lambda.amazonaws.com\"}}}}]}}");
        let form = [("Action", "CreateRole"), ("Version", "2010-05-08"), ("RoleName", name)];
        let form: Vec<_> = form.into_iter().chain([("AssumeRolePolicyDocument", trust.as_str())]).collect();
        block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
            let url = reqwest::Url::parse_with_params(&self.url, form).expect("a URL");
            let credential = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/iam/aws4_request";
            let answer = client.get(url).header("authorization", credential).send().await.expect("an answer of moto");
            assert!(answer.status().is_success(), "{:?}", answer.text().await);
        });
    }

    /// The answer to an operation of ECR in `region`, asked past the library.
    pub fn ecr(&self, region: &str, operation: &str, parameters: &Value) -> Value {
        // moto reads the region out of the signature and asks for no more of it.
        let credential = format!("AWS4-HMAC-SHA256 Credential=test/20260101/{region}/ecr/aws4_request");
        block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
            let request = client
                .post(&self.url)
                .header("content-type", "application/x-amz-json-1.1")
                .header("x-amz-target", format!("AmazonEC2ContainerRegistry_V20150921.{operation}"))
                .header("authorization", credential)
                .body(parameters.to_string());
            let answer = request.send().await.expect("an answer of moto");
            answer.json().await.expect("JSON of moto")
        })
    }
}

impl Moto {
    /// Makes the resources of a template of CloudFormation in `region`, and tells which image each function got,
    /// sorted.
    pub fn deploy(&self, region: &str, template: &Value, parameters: &[(&str, &str)]) -> Vec<String> {
        let mut form =
            vec![("Action".to_owned(), "CreateStack".to_owned()), ("StackName".to_owned(), "shop".to_owned())];
        form.push(("TemplateBody".to_owned(), template.to_string()));
        for (index, (name, value)) in parameters.iter().enumerate() {
            let member = format!("Parameters.member.{}.Parameter", index + 1);
            form.push((format!("{member}Key"), (*name).to_owned()));
            form.push((format!("{member}Value"), (*value).to_owned()));
        }
        let form = reqwest::Url::parse_with_params("http://form", form).expect("a form");
        let body = form.query().expect("its fields").to_owned();
        let credential =
            |service: &str| format!("AWS4-HMAC-SHA256 Credential=test/20260101/{region}/{service}/aws4_request");
        block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
            let request = client.post(&self.url).header("content-type", "application/x-www-form-urlencoded");
            let request = request.header("authorization", credential("cloudformation")).body(body);
            let answer = request.send().await.expect("an answer of moto");
            assert!(answer.status().is_success(), "{:?}", answer.text().await);
            let ask = async |path: &str| -> Value {
                let request = client.get(format!("{}/2015-03-31/functions{path}", self.url));
                let answer = request.header("authorization", credential("lambda")).send().await;
                answer.expect("an answer of moto").json().await.expect("JSON of moto")
            };
            let listed = ask("/").await;
            let mut images = Vec::new();
            for function in listed["Functions"].as_array().expect("functions") {
                let function = ask(&format!("/{}", function["FunctionName"].as_str().expect("a name"))).await;
                images.push(function["Code"]["ImageUri"].as_str().expect("an image").to_owned());
            }
            images.sort();
            images
        })
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Either call fails only for a process that is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
