//! What can go wrong with a registry, in the classes that callers branch on, each told to a person.
//!
//! Retrying, authentication and fallbacks decide by the class; everybody else turns an [`Error`] into its
//! [`Problem`]. Messages show URLs only in their redacted form.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::origin::{Origin, redacted};
use crate::problem::Problem;

/// The longest a registry may ask us to wait before the next try.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How much of a registry's own words is shown, in characters.
const MAX_SHOWN_MESSAGE: usize = 300;

/// The way on from a connection that broke or stood still.
const TRY_AGAIN: &str = "try again; what is done is kept";

/// A failed conversation with a registry.
#[derive(Debug)]
pub struct Error {
    /// What callers decide by.
    pub kind: ErrorKind,
    /// What people are told.
    pub problem: Problem,
}

/// The classes of failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// The registry could not be reached; `worth_retrying` is false when another try cannot help (certificates).
    Unreachable {
        /// Whether another try may help.
        worth_retrying: bool,
    },
    /// The connection broke or stood still during a request or an answer.
    Cut,
    /// The registry answered with an error.
    Refused(Box<Refusal>),
    /// What was received is not what it must be: digest, size, form.
    Content,
    /// What was made to be sent is not what it was to be.
    OtherBytes,
    /// It lies with us and not with the registry: a rule forbids to go on, something here failed, such as a file that
    /// could not be read, or the work was asked to stop.
    Stopped,
    /// Nobody takes the bytes any more: the cause lies with whoever took them.
    Unwanted,
}

/// An error answer: its status and the codes of the distribution specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The error codes of the body, such as `MANIFEST_UNKNOWN`.
    pub codes: Vec<String>,
    /// How long the registry asks us to wait, capped.
    pub retry_after: Option<Duration>,
    /// Whether what proves who we are is too old, in words of ECR's that no status tells.
    pub is_expired_login: bool,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, problem: Problem) -> Self {
        Self { kind, problem }
    }

    pub(super) fn content(problem: Problem) -> Self {
        Self::new(ErrorKind::Content, problem)
    }

    /// The connection broke while `what` was being read.
    pub(super) fn cut(what: &str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(
            ErrorKind::Cut,
            Problem::failed(format!("the connection broke while {what}")).because(why).help(TRY_AGAIN),
        )
    }

    /// Nothing moved for too long while `what` was done: as good as cut.
    pub(super) fn gave_up(what: &str, why: &'static str) -> Self {
        Self::new(ErrorKind::Cut, Problem::failed(format!("gave up {what}")).because(why).help(TRY_AGAIN))
    }

    /// The status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match &self.kind {
            ErrorKind::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    /// Whether the same request may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match &self.kind {
            ErrorKind::Unreachable { worth_retrying } => *worth_retrying,
            ErrorKind::Cut => true,
            // 522 is what Cloudflare says when the registry behind it does not answer.
            ErrorKind::Refused(refusal) => {
                matches!(refusal.status, 408 | 429 | 500 | 502 | 503 | 504 | 522)
                    || self.has_code("TOOMANYREQUESTS")
                    || self.has_code("UNAVAILABLE")
            }
            ErrorKind::Content | ErrorKind::OtherBytes | ErrorKind::Stopped | ErrorKind::Unwanted => false,
        }
    }

    /// Whether the registry gave this error code of the distribution specification or of its own.
    #[must_use]
    pub fn has_code(&self, code: &str) -> bool {
        matches!(&self.kind, ErrorKind::Refused(refusal) if refusal.codes.iter().any(|found| found == code))
    }

    /// Whether the registry has too many requests, of ours or of everybody's.
    #[must_use]
    pub fn is_throttling(&self) -> bool {
        matches!(self.status(), Some(429 | 503)) || self.has_code("TOOMANYREQUESTS")
    }

    /// Whether what proves who we are was not accepted, though it may be once renewed.
    pub(super) fn is_about_login(&self) -> bool {
        matches!(&self.kind, ErrorKind::Refused(refusal) if refusal.status == 401 || refusal.is_expired_login)
    }

    /// Whether the failure is that nobody took the bytes.
    #[must_use]
    pub fn is_receiver_gone(&self) -> bool {
        self.kind == ErrorKind::Unwanted
    }

    /// How long the registry asked to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match &self.kind {
            ErrorKind::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        error.problem
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::new(ErrorKind::Stopped, problem)
    }
}

/// A request that never got an answer; what is pulled may be here already.
pub(super) fn unreachable(url: &Url, error: reqwest::Error, is_pull: bool) -> Error {
    // The URL in reqwest's text may hold a signature.
    let error = error.without_url();
    let text = chain(&error);
    let host = place(url);
    let problem = Problem::failed(format!("could not reach `{host}`"));
    if text.contains("invalid peer certificate") {
        let (what, help) = if text.contains("certificate expired") {
            ("has expired", "have it renewed, unless this machine's clock is wrong")
        } else if text.contains("certificate not valid yet") {
            ("is not valid yet", "set this machine's clock")
        } else {
            ("is not trusted", "if a proxy or private authority signs it, name its certificates with `SSL_CERT_FILE`")
        };
        let problem = Problem::failed(format!("the certificate of `{host}` {what}")).because(error);
        return Error::new(ErrorKind::Unreachable { worth_retrying: false }, problem.help(help));
    }
    if text.contains("proxy auth") {
        let help = "put the user name and password into `HTTPS_PROXY`";
        return Error::new(ErrorKind::Unreachable { worth_retrying: false }, problem.because(error).help(help));
    }
    if error.is_connect() {
        let help = match is_pull {
            true => "check the host name, the network and `HTTPS_PROXY`; with `--offline` only what is there is used",
            false => "check the host name, the network and `HTTPS_PROXY`",
        };
        return Error::new(ErrorKind::Unreachable { worth_retrying: true }, problem.because(error).help(help));
    }
    Error::cut(&format!("talking to `{host}`"), error)
}

/// Host and port as in `url`.
fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// An answer with an error status; `body` is its beginning.
pub(super) fn refused(
    origin: &Origin,
    method: &Method,
    url: &Url,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Error {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let entries = serde_json::from_slice::<Body>(body).map(|body| body.errors).unwrap_or_default();
    let codes: Vec<_> = entries.iter().map(|entry| entry.code.clone()).filter(|code| !code.is_empty()).collect();
    let words: Vec<_> = entries
        .iter()
        .map(|entry| [entry.code.as_str(), entry.message.as_str()].join(" ").trim().to_owned())
        .filter(|words| !words.is_empty())
        .collect();
    let retry_after = headers.get(RETRY_AFTER).and_then(|value| asked_delay(value.to_str().ok()?, SystemTime::now()));
    let message = format!("`{}` answered {status} to {method} {}", place(url), redacted(url));
    let words = words.join("; ");
    let mut problem = Problem::failed(message).help(help(origin, method, url, status, &codes, &words));
    let is_expired_login = is_expired_login(status, &words);
    if !words.is_empty() {
        problem = problem.because(printable(&words));
    }
    let refusal = Refusal { status: status.as_u16(), codes, retry_after, is_expired_login };
    Error::new(ErrorKind::Refused(Box::new(refusal)), problem)
}

/// What `Retry-After` asks for (RFC 9110, section 10.2.3): seconds, or a date; but no more than we are ready to wait.
fn asked_delay(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let delay = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(delay.min(MAX_RETRY_AFTER))
}

/// ECR's way to say 401: 403 after the twelve hours of a token and 400 at public.ecr.aws, neither with a challenge.
fn is_expired_login(status: StatusCode, words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    match status.as_u16() {
        403 => words.contains("authorization token has expired"),
        400 => words.contains("authorization token is invalid"),
        _ => false,
    }
}

fn help(origin: &Origin, method: &Method, url: &Url, status: StatusCode, codes: &[String], words: &str) -> String {
    if codes.iter().any(|code| code == "NAME_UNKNOWN") {
        return "check the repository's name; one in ECR is created with `--create-repository`".to_owned();
    }
    if let Some(help) = permission(words) {
        return help;
    }
    let lower = words.to_ascii_lowercase();
    if ["media type", "mediatype"].iter().any(|said| lower.contains(said)) {
        return "where it takes no OCI manifests, push with `--format docker`".to_owned();
    }
    match status.as_u16() {
        401 => format!("log in with `docker login {origin}` or `podman login {origin}`, and check the image's name"),
        403 => format!("the account logged in at `{origin}` may not do this; an expired login looks the same"),
        // What is sent elsewhere is a blob's, into a session.
        404 if matches!(*method, Method::PATCH | Method::PUT) && !url.path().contains("/manifests/") => {
            "the registry lost the upload's session: run the command again; if it does so every time, its instances do \
             not share their storage or secret (docker-registry: `http.secret`)"
                .to_owned()
        }
        404 => "check the name and the tag".to_owned(),
        301 | 302 | 303 | 307 | 308 => {
            "what is sent follows no redirect: name the registry as where it redirects to".to_owned()
        }
        413 => "a proxy before the registry takes no more at once (`client_max_body_size` in nginx): let it take more"
            .to_owned(),
        407 => "put the user name and password into `HTTPS_PROXY`".to_owned(),
        429 => format!("wait a little, or log in with `docker login {origin}` for a higher limit"),
        500..=599 => "the registry has a problem of its own; try again later".to_owned(),
        _ if words.is_empty() => format!("check the image's name, and whether there is a registry at `{origin}`"),
        _ => format!("ask who runs `{origin}`, with its own words above"),
    }
}

/// What to do about IAM's own words: `User: ... is not authorized to perform: ecr:PutImage on resource: ...`.
fn permission(words: &str) -> Option<String> {
    let (_, rest) = words.split_once("is not authorized to perform: ")?;
    let action: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || ":-*".contains(*c)).collect();
    Some(match action.split(':').next() {
        _ if rest.contains("explicit deny") => format!("a policy denies `{action}`: whoever keeps it can lift that"),
        Some("kms") => format!("allow the IAM action `{action}` on the key that encrypts this repository"),
        _ => format!("allow the IAM action `{action}` on this repository"),
    })
}

/// A registry's words without control characters, which could paint the terminal, and not without end.
fn printable(text: &str) -> String {
    let mut shown: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SHOWN_MESSAGE).collect();
    if text.chars().nth(MAX_SHOWN_MESSAGE).is_some() {
        shown.push_str("...");
    }
    shown
}

/// The texts of an error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Error {
        let origin = Origin::from_url("https://example.com").expect("an origin");
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().expect("a header value"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        refused(&origin, &Method::GET, &origin.endpoint("a/manifests/b"), status, &headers, body.as_bytes())
    }

    #[test]
    fn an_error_body_gives_its_codes_and_words() {
        let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no\u001b[31m such"}]}"#;
        let error = answer(404, None, body);
        assert_eq!(
            error.kind,
            ErrorKind::Refused(Box::new(Refusal {
                status: 404,
                codes: vec!["MANIFEST_UNKNOWN".into()],
                retry_after: None,
                is_expired_login: false
            }))
        );
        assert_eq!(
            error.problem.message(),
            "`example.com` answered 404 Not Found to GET https://example.com/v2/a/manifests/b"
        );
        assert_eq!(error.problem.causes(), ["MANIFEST_UNKNOWN no [31m such"]);
    }

    #[test]
    fn only_what_may_pass_is_retried() {
        for (status, body, transient) in [
            (400, "", false),
            (401, "", false),
            (403, "", false),
            (404, "", false),
            (408, "", true),
            (429, "", true),
            (500, "<html>", true),
            (501, "", false),
            (503, "", true),
            (403, r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#, true),
        ] {
            assert_eq!(answer(status, None, body).is_transient(), transient, "{status} {body}");
        }
    }

    #[test]
    fn an_expired_login_is_told_from_a_forbidden_one() {
        for (status, message, expected) in [
            (403, "Your authorization token has expired. Reauthenticate and try again.", true),
            (403, "User: x is not authorized to perform: ecr:PutImage on resource: y", false),
            (400, "Your Authorization Token is invalid.", true),
            (400, "invalid parameter", false),
            (404, "Your authorization token has expired. Reauthenticate and try again.", false),
        ] {
            let body = serde_json::json!({"errors": [{"code": "DENIED", "message": message}]}).to_string();
            assert_eq!(answer(status, None, &body).is_about_login(), expected, "{status} {message}");
        }
    }

    #[test]
    fn a_refusal_by_iam_names_the_missing_action_or_what_forbids_it() {
        for (words, help) in [
            ("ecr:PutImage on resource: y", "allow the IAM action `ecr:PutImage` on this repository"),
            (
                "ecr:PutImage on resource: y with an explicit deny in a resource-based policy",
                "a policy denies `ecr:PutImage`: whoever keeps it can lift that",
            ),
            (
                "kms:GenerateDataKey on resource: arn:aws:kms:eu-west-1:1:key/k because no resource-based policy allows it",
                "allow the IAM action `kms:GenerateDataKey` on the key that encrypts this repository",
            ),
        ] {
            let message = format!("User: arn:aws:iam::1:user/x is not authorized to perform: {words}");
            let body = serde_json::json!({"errors": [{"code": "DENIED", "message": message}]}).to_string();
            let error = answer(403, None, &body);
            assert_eq!(error.problem.next_step(), Some(help));
            assert_eq!(error.problem.causes(), [format!("DENIED {message}")]);
        }
    }

    #[test]
    fn what_registries_and_their_proxies_do_not_take_comes_with_what_to_do() {
        for (status, words, help) in [
            (
                413,
                "",
                "a proxy before the registry takes no more at once (`client_max_body_size` in nginx): let it take more",
            ),
            (308, "", "what is sent follows no redirect: name the registry as where it redirects to"),
            (405, "Unsupported media type in manifest", "where it takes no OCI manifests, push with `--format docker`"),
            (
                400,
                "manifest invalid: mediaType application/x",
                "where it takes no OCI manifests, push with `--format docker`",
            ),
        ] {
            let body = serde_json::json!({"errors": [{"code": "UNSUPPORTED", "message": words}]}).to_string();
            assert_eq!(answer(status, None, &body).problem.next_step(), Some(help), "{status}");
        }
    }

    #[test]
    fn retry_after_is_honoured_up_to_a_minute() {
        for (header, seconds) in [("0", Some(0)), ("7", Some(7)), ("86400", Some(60)), ("soon", None), ("-1", None)] {
            assert_eq!(answer(429, Some(header), "").retry_after(), seconds.map(Duration::from_secs), "{header}");
        }
    }

    #[test]
    fn retry_after_may_be_a_date() {
        let now = httpdate::parse_http_date("Sun, 29 Nov 2026 12:00:00 GMT").expect("a date");
        for (date, seconds) in [
            ("Sun, 29 Nov 2026 12:00:07 GMT", Some(7)),
            ("Sun, 29 Nov 2026 13:00:00 GMT", Some(60)),
            ("Sun, 29 Nov 2026 11:00:00 GMT", Some(0)),
            ("Sunday, 29-Nov-26 12:00:07 GMT", Some(7)),
            ("29 November", None),
        ] {
            assert_eq!(asked_delay(date, now), seconds.map(Duration::from_secs), "{date}");
        }
    }
}
