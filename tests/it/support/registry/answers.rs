//! What the registry sends: honest answers, and what a fault makes of them.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode, header};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::{Fault, Recorded};

/// How far the bytes of a drip feed are apart.
const DRIP: Duration = Duration::from_millis(10);

/// An answer whose body is still whole.
pub(super) struct Answer {
    pub(super) head: Response<()>,
    pub(super) body: Spoilt,
}

pub(super) enum Spoilt {
    Whole(Bytes),
    /// These bytes, then an error if there are fewer than the head says.
    Cut(Bytes),
    Stall(Bytes),
    Drip(Bytes),
    Endless,
    /// No bytes, after this time.
    Late(Duration),
    /// Not even the head.
    Never,
    /// Not even the head, and the connection is gone.
    Broken,
}

impl From<Answer> for Response<Body> {
    fn from(answer: Answer) -> Self {
        let body = match answer.body {
            Spoilt::Whole(bytes) => Body::from(bytes),
            Spoilt::Cut(bytes) => {
                // Yielding lets the bytes go out before the error takes the connection down.
                let cut = stream::once(async {
                    tokio::task::yield_now().await;
                    Err(std::io::Error::other("cut by the script"))
                });
                Body::from_stream(stream::iter([Ok(bytes)]).chain(cut))
            }
            Spoilt::Stall(bytes) => {
                Body::from_stream(stream::iter([Ok::<_, Infallible>(bytes)]).chain(stream::pending()))
            }
            Spoilt::Drip(bytes) => Body::from_stream(stream::unfold(bytes, |mut left| async move {
                tokio::time::sleep(DRIP).await;
                (!left.is_empty()).then(|| (Ok::<_, Infallible>(left.split_to(1)), left))
            })),
            Spoilt::Late(_) | Spoilt::Never | Spoilt::Broken => Body::empty(),
            Spoilt::Endless => Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(vec![b' '; 64 * 1024]))),
        };
        answer.head.map(|()| body)
    }
}

pub(super) fn spoil(mut answer: Answer, fault: Fault, request: &Recorded) -> Answer {
    let Spoilt::Whole(bytes) = &answer.body else { return answer };
    let bytes = bytes.clone();
    let length = |answer: &mut Answer, count: usize| {
        answer.head.headers_mut().insert(header::CONTENT_LENGTH, count.into());
    };
    match fault {
        Fault::Status(status, headers, body) => {
            let mut builder = Response::builder().status(status);
            for (name, value) in headers {
                builder = builder.header(*name, *value);
            }
            return Answer { head: builder.body(()).expect("an answer"), body: Spoilt::Whole(body.into()) };
        }
        Fault::Hang => answer.body = Spoilt::Never,
        Fault::Late(after) => answer.body = Spoilt::Late(after),
        Fault::Cut(count) => {
            length(&mut answer, bytes.len());
            answer.body = Spoilt::Cut(bytes.slice(..count.min(bytes.len())));
        }
        Fault::Promise(count) => {
            answer.head.headers_mut().insert(header::CONTENT_LENGTH, count.into());
            answer.body = Spoilt::Cut(bytes);
        }
        Fault::Shorten(count) => answer.body = Spoilt::Whole(bytes.slice(..count.min(bytes.len()))),
        Fault::Stall(count) => {
            length(&mut answer, bytes.len());
            answer.body = Spoilt::Stall(bytes.slice(..count.min(bytes.len())));
        }
        Fault::Drip => {
            length(&mut answer, bytes.len());
            answer.body = Spoilt::Drip(bytes);
        }
        Fault::Flip(at) => {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1;
            answer.body = Spoilt::Whole(flipped.into());
        }
        Fault::IgnoreRange => {}
        Fault::Endless => answer.body = Spoilt::Endless,
        Fault::Header(name, value) if value.is_empty() => drop(answer.head.headers_mut().remove(name)),
        Fault::Header(name, value) => {
            answer.head.headers_mut().insert(name, value.parse().expect("a header value"));
        }
        Fault::ReadThenCut(_) | Fault::DropReply => answer.body = Spoilt::Broken,
        Fault::ReadThenHang(_) => answer.body = Spoilt::Never,
        Fault::ReadThenAnswer(_, status, body) => return plain(status, body),
        Fault::Redirect(to) => return redirect(&to),
        Fault::RedirectTo(origin) => return redirect(&format!("{origin}{}", request.target)),
    }
    answer
}

pub(super) fn plain(status: u16, body: &'static str) -> Answer {
    let head = Response::builder().status(status).body(()).expect("an answer");
    Answer { head, body: Spoilt::Whole(Bytes::from_static(body.as_bytes())) }
}

pub(super) fn redirect(to: &str) -> Answer {
    let head = Response::builder().status(StatusCode::TEMPORARY_REDIRECT).header(header::LOCATION, to);
    Answer { head: head.body(()).expect("an answer"), body: Spoilt::Whole(Bytes::new()) }
}

pub(super) fn refuse(status: StatusCode, code: &str) -> Answer {
    let body = json!({"errors": [{"code": code, "message": "says the test registry"}]}).to_string();
    let head = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    Answer { head: head.body(()).expect("an answer"), body: Spoilt::Whole(body.into()) }
}

pub(super) fn blob_answer(blob: &Bytes, range: Option<&str>) -> Answer {
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match start {
        None => Answer { head: Response::new(()), body: Spoilt::Whole(blob.clone()) },
        Some(start) if start >= blob.len() => refuse(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID"),
        Some(start) => {
            let head = Response::builder()
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{}", blob.len() - 1, blob.len()));
            Answer { head: head.body(()).expect("an answer"), body: Spoilt::Whole(blob.slice(start..)) }
        }
    }
}
