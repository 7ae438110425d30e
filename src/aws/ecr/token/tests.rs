//! Tokens against told answers of ECR: read, renewed, shared, never shown.

use std::io::Write;
use std::sync::Mutex as Lock;

use super::*;
use crate::aws::error::Caller;
use crate::aws::replay::{Answer, Replay, refusal};

const HOUR: Duration = Duration::from_secs(3600);

fn ecr(replay: &Replay) -> Ecr {
    Ecr { client: replay.ecr(), region: "eu-west-1".into(), caller: Caller { profile: None }, fips: false }
}

fn answer(password: &str) -> Answer {
    let token = STANDARD.encode(format!("AWS:{password}"));
    let body = serde_json::json!({ "authorizationData": [{
        "authorizationToken": token,
        // In 2015, as some emulators have it.
        "expiresAt": 1_420_070_400,
        "proxyEndpoint": "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com",
    }] });
    ("GetAuthorizationToken", 200, body.to_string())
}

fn denied() -> Answer {
    ("GetAuthorizationToken", 400, refusal("AccessDeniedException", "no"))
}

#[test]
fn only_what_is_a_user_and_a_password_is_a_token() {
    for (text, expected) in [
        ("AWS:pw", Some(("AWS", "pw"))),
        ("AWS:pw:with:colons", Some(("AWS", "pw:with:colons"))),
        ("AWS:", None),
        (":pw", None),
        ("AWS", None),
        ("", None),
    ] {
        let token = AuthorizationToken::decode(&STANDARD.encode(text));
        assert_eq!(token.as_ref().map(|token| (token.username(), token.password())), expected, "{text}");
    }
    assert_eq!(AuthorizationToken::decode("not base64!"), None);
}

#[test]
fn tokens_are_renewed_before_their_end_whatever_the_clock_says() {
    let now = SystemTime::UNIX_EPOCH + 1000 * HOUR;
    for (expires_at, expected) in [
        (None, 12 * HOUR - RENEWAL_MARGIN),
        (Some(now + 12 * HOUR), 12 * HOUR - RENEWAL_MARGIN),
        (Some(now + HOUR), HOUR - RENEWAL_MARGIN),
        (Some(now + HOUR / 6), HOUR / 12),
        (Some(now + 20 * HOUR), 12 * HOUR - RENEWAL_MARGIN),
        (Some(now), 12 * HOUR - RENEWAL_MARGIN),
        (Some(SystemTime::UNIX_EPOCH), 12 * HOUR - RENEWAL_MARGIN),
    ] {
        assert_eq!(renew_after(expires_at, now), expected, "{expires_at:?}");
    }
}

#[tokio::test]
async fn the_registry_of_the_account_comes_with_its_token() {
    let replay = Replay::new([answer("one")]);
    let authorization = ecr(&replay).authorize().await.expect("a token");
    assert_eq!(authorization.registry.to_string(), "123456789012.dkr.ecr.eu-west-1.amazonaws.com");
    assert_eq!(authorization.token.password(), "one");
}

#[tokio::test]
async fn fips_for_the_api_is_fips_for_the_registry() {
    let replay = Replay::new([answer("one")]);
    let authorization = Ecr { fips: true, ..ecr(&replay) }.authorize().await.expect("a token");
    assert_eq!(authorization.registry.to_string(), "123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com");
}

#[tokio::test]
async fn a_registry_elsewhere_is_refused() {
    let token = STANDARD.encode("AWS:canary");
    for endpoint in ["https://123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.io", "http://localhost:4510", ""] {
        let body = serde_json::json!({
            "authorizationData": [{ "authorizationToken": token, "proxyEndpoint": endpoint }],
        });
        let replay = Replay::new([("GetAuthorizationToken", 200, body.to_string())]);
        let problem = ecr(&replay).authorize().await.expect_err("no registry of ECR");
        assert_eq!(problem.next_step(), Some("name the host in the repository: `--repository HOST/NAME`"));
    }
}

#[tokio::test]
async fn answers_without_a_token_are_problems() {
    for (body, cause) in [
        (r#"{"authorizationData":[]}"#, "the answer holds none"),
        ("{}", "the answer holds none"),
        (r#"{"authorizationData":[{"authorizationToken":"QVdT"}]}"#, "the answer is not the base64 of `USER:PASSWORD`"),
    ] {
        let replay = Replay::new([("GetAuthorizationToken", 200, body.to_owned())]);
        let problem = ecr(&replay).authorize().await.expect_err(body);
        assert_eq!((problem.message(), problem.causes()), ("could not get a login for Amazon ECR", vec![cause.into()]));
    }
}

#[tokio::test]
async fn many_tasks_share_one_token() {
    let replay = Replay::new([answer("one")]);
    let source = Arc::new(TokenSource::new(ecr(&replay)));
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            tokio::spawn({
                let source = source.clone();
                async move { source.current().await }
            })
        })
        .collect();
    for task in tasks {
        let token = task.await.expect("a task").expect("a token");
        assert_eq!(token.password(), "one");
    }
    assert_eq!(replay.requests().len(), 1);
}

#[tokio::test]
async fn many_tasks_share_one_failure() {
    let replay = Replay::new([denied(), answer("one")]);
    let source = Arc::new(TokenSource::new(ecr(&replay)));
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            tokio::spawn({
                let source = source.clone();
                async move { source.current().await }
            })
        })
        .collect();
    for task in tasks {
        let problem = task.await.expect("a task").expect_err("a refusal");
        assert_eq!(problem.causes(), ["AccessDeniedException: no"]);
        assert_eq!(problem.next_step(), Some("allow the caller `ecr:GetAuthorizationToken` in an IAM policy"));
    }
    // Who comes later asks again.
    assert_eq!(source.current().await.expect("a token").password(), "one");
    assert_eq!(replay.requests().len(), 2);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_for_all_whom_it_was_refused() {
    let replay = Replay::new([answer("one"), answer("two")]);
    let source = Arc::new(TokenSource::new(ecr(&replay)));
    let refused = source.current().await.expect("a token");
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            tokio::spawn({
                let (source, refused) = (source.clone(), refused.clone());
                async move { source.renew(&refused).await }
            })
        })
        .collect();
    for task in tasks {
        let token = task.await.expect("a task").expect("a token");
        assert_eq!(token.password(), "two");
    }
    assert_eq!(source.current().await.expect("a token").password(), "two");
    assert_eq!(replay.requests().len(), 2);
}

#[tokio::test]
async fn a_token_past_its_end_is_never_handed_out() {
    let replay = Replay::new([answer("one"), denied(), answer("two")]);
    let source = TokenSource::new(ecr(&replay));
    assert_eq!(source.current().await.expect("a token").password(), "one");
    {
        let mut state = source.state.lock().await;
        let held = state.held.as_mut().expect("the token of before");
        let left = held.renew_at - Instant::now();
        assert!(left > 11 * HOUR && left <= 12 * HOUR, "an end in the past was believed: {left:?}");
        held.renew_at = Instant::now();
    }
    assert!(source.current().await.is_err());
    assert_eq!(source.current().await.expect("a token").password(), "two");
    replay.requests();
}

#[tokio::test]
async fn a_request_given_up_midway_does_not_block_the_next() {
    let replay = Replay::new([answer("one")]);
    let source = TokenSource::new(ecr(&replay));
    tokio::select! {
        biased;
        _ = source.current() => panic!("an answer at once"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(source.current().await.expect("a token").password(), "one");
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Lock<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("a lock of a test").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn neither_logs_nor_debug_output_show_a_token() {
    let (log, replay) = (Log::default(), Replay::new([answer("canary-password"), answer("canary-password")]));
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let source = TokenSource::new(ecr(&replay));
    let shown = async {
        tracing::trace!("the log works");
        let authorization = ecr(&replay).authorize().await.expect("a token");
        let token = source.current().await.expect("a token");
        format!("{authorization:?} {token:?} {source:?}")
    };
    let shown = shown.with_subscriber(subscriber).await;
    let logged = String::from_utf8_lossy(&log.0.lock().expect("a lock of a test")).into_owned();
    assert!(logged.contains("the log works"));
    for canary in ["canary", &STANDARD.encode("AWS:canary-password")] {
        assert!(!logged.contains(canary), "{logged}");
        assert!(!shown.contains(canary), "{shown}");
    }
}
