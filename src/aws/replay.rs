//! For tests: AWS's side of a conversation, told in advance and checked request by request.
//!
//! It stands in for the network, so that the SDK's own signing, retries and parsing of answers are in the tests too.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use aws_sdk_ecr::Client;
use aws_sdk_ecr::config::retry::RetryConfig;
use aws_sdk_ecr::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use serde_json::Value;

/// One answer: to which operation, with which status and body. Lambda's operations have no name on the wire: there it
/// is method, path and query.
pub(super) type Answer = (&'static str, u16, String);

/// The answers still to be given, and the requests that were made.
#[derive(Debug, Clone)]
pub(super) struct Replay {
    script: Arc<Mutex<Script>>,
}

#[derive(Debug)]
struct Script {
    answers: VecDeque<Answer>,
    requests: Vec<(String, Value)>,
}

impl Replay {
    pub(super) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers = answers.into_iter().collect();
        Self { script: Arc::new(Mutex::new(Script { answers, requests: Vec::new() })) }
    }

    /// A client of ECR in `eu-west-1` that asks once and hears these answers.
    pub(super) fn ecr(&self) -> Client {
        let connector = SharedHttpConnector::new(self.clone());
        let http: SharedHttpClient = http_client_fn(move |_, _| connector.clone());
        let config = aws_sdk_ecr::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::new("AKIATEST", "canary-secret-key", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .http_client(http);
        Client::from_conf(config.build())
    }

    /// A client of Lambda in `eu-west-1` that asks once and hears these answers.
    pub(super) fn lambda(&self) -> aws_sdk_lambda::Client {
        let connector = SharedHttpConnector::new(self.clone());
        let http: SharedHttpClient = http_client_fn(move |_, _| connector.clone());
        let config = aws_sdk_lambda::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::new("AKIATEST", "canary-secret-key", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .http_client(http);
        aws_sdk_lambda::Client::from_conf(config.build())
    }

    /// The operations that were asked for, with their parameters, in order. Fails if answers are left over.
    pub(super) fn requests(&self) -> Vec<(String, Value)> {
        let script = self.script.lock().expect("a lock of a test");
        assert!(script.answers.is_empty(), "never asked for: {:?}", script.answers);
        script.requests.clone()
    }

    /// The operations that were asked for, in order.
    pub(super) fn operations(&self) -> Vec<String> {
        self.requests().into_iter().map(|(operation, _)| operation).collect()
    }

    fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let operation = match request.headers().get("x-amz-target") {
            Some(target) => target.rsplit('.').next().expect("a name").to_owned(),
            None => {
                let (_, path) = request.uri().split_once(".amazonaws.com").expect("a host of AWS");
                format!("{} {path}", request.method())
            }
        };
        let body = match request.body().bytes().expect("a body in memory") {
            [] => Value::Null,
            body => serde_json::from_slice(body).expect("JSON"),
        };
        let mut script = self.script.lock().expect("a lock of a test");
        let answer = script.answers.pop_front();
        let Some((expected, status, text)) = answer else { panic!("`{operation}` was not to be asked for") };
        assert_eq!(operation, expected);
        script.requests.push((operation, body));
        HttpResponse::new(StatusCode::try_from(status).expect("a status"), SdkBody::from(text))
    }
}

impl HttpConnector for Replay {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let replay = self.clone();
        HttpConnectorFuture::new(async move {
            // So that others get their turn, as they would while a network answers.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            Ok(replay.answer(&request))
        })
    }
}

/// The body of a refusal.
pub(super) fn refusal(code: &str, message: &str) -> String {
    serde_json::json!({ "__type": code, "message": message }).to_string()
}
