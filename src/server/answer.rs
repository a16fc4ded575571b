//! Answers: what a request comes to, and how HTTP says it (RFC 9110, RFC 9457).

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use super::files::Shown;
use super::request::Refusal;
use crate::types::{CommitNumber, Prefix};
use crate::wire::{ContentRange, ETag, Problem, Stamp, header as ours};

/// What a request comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    problem: Option<(Problem, String)>,
    /// What is said of the file that the request is about.
    shown: Option<Shown>,
    /// The prefix that a HEAD asked for.
    content: Option<Prefix>,
    /// Whether all was kept, up to this commit.
    kept: Option<(bool, CommitNumber)>,
    /// The connection cannot go on: part of the body is unread.
    closes: bool,
}

impl Answer {
    fn with(status: StatusCode) -> Self {
        Self {
            status,
            problem: None,
            shown: None,
            content: None,
            kept: None,
            closes: false,
        }
    }

    /// 200 to a HEAD of a file.
    pub(crate) fn content(prefix: Prefix) -> Self {
        Self {
            content: Some(prefix),
            ..Self::with(StatusCode::OK)
        }
    }

    /// 404: neither row nor file.
    pub(crate) fn not_found() -> Self {
        Self::with(StatusCode::NOT_FOUND)
    }

    /// 201 or 204: it is done and durable.
    pub(crate) fn done(created: bool) -> Self {
        Self::with(if created {
            StatusCode::CREATED
        } else {
            StatusCode::NO_CONTENT
        })
    }

    /// The heartbeat's answer; `kept` if the client said what it saw, with the commit before that was
    /// looked up: what comes to light in between is no part of the word.
    pub(crate) fn heartbeat(kept: Option<(bool, CommitNumber)>) -> Self {
        Self {
            kept,
            ..Self::with(StatusCode::OK)
        }
    }

    /// A refusal with the problem's own status; `detail` tells a person more.
    pub(crate) fn refusal(problem: Problem, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(problem.status());
        Self {
            problem: Some((problem, detail.into())),
            ..Self::with(status.unwrap_or(StatusCode::BAD_REQUEST))
        }
    }

    /// A refusal of something malformed: 400 whatever the problem.
    pub(crate) fn malformed(problem: Problem, detail: impl Into<String>) -> Self {
        Self::refusal(problem, detail).status(StatusCode::BAD_REQUEST)
    }

    /// The same with another status.
    pub(crate) fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same, saying how the file stands.
    pub(crate) fn about(self, shown: Option<Shown>) -> Self {
        Self { shown, ..self }
    }

    /// The same, after which the connection closes.
    pub(crate) fn closing(self) -> Self {
        Self {
            closes: true,
            ..self
        }
    }

    /// The problem's token, for the debug log.
    pub(crate) fn problem(&self) -> Option<Problem> {
        self.problem.as_ref().map(|(problem, _)| *problem)
    }

    /// The answer as HTTP has it.
    pub(crate) fn into_response(self, stamp: &Stamp, to_head: bool) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = self.status;
        let mut set = |name: &'static str, value: &str| {
            // All values are made of digits, hex and tokens.
            if let Ok(value) = HeaderValue::from_str(value) {
                let name = HeaderName::from_static(name);
                response.headers_mut().insert(name, value);
            }
        };
        let number = self.kept.map_or(stamp.number, |(_, number)| number);
        let stamp = Stamp { number, ..*stamp };
        set(ours::STORE, &stamp.to_string());
        self.say_file(&mut set);
        if let Some((kept, _)) = self.kept {
            set(ours::KEPT, if kept { "yes" } else { "no" });
        }
        if let Some((problem, _)) = &self.problem {
            set(ours::PROBLEM, problem.token());
            if let Some(seconds) = retry_after(self.status) {
                set(header::RETRY_AFTER.as_str(), seconds);
            }
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            set(header::ALLOW.as_str(), "HEAD, PUT");
        }
        if self.closes {
            set(header::CONNECTION.as_str(), "close");
        }
        if let Some((problem, detail)) = &self.problem
            && !to_head
        {
            set(header::CONTENT_TYPE.as_str(), "application/problem+json");
            *response.body_mut() = Full::from(document(self.status, *problem, detail));
        }
        response
    }

    /// The answer as bytes, for a connection on which hyper cannot speak.
    pub(crate) fn into_bytes(self, stamp: &Stamp, to_head: bool, now: Timestamp) -> Vec<u8> {
        let response = self.into_response(stamp, to_head);
        let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
        let mut say = |name: &str, value: &[u8]| {
            bytes.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        };
        for (name, value) in response.headers() {
            say(name.as_str(), value.as_bytes());
        }
        // RFC 9110 section 6.6.1; a time beyond the year 9999 has no such form.
        if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&now) {
            say("date", date.as_bytes());
        }
        let body = response.into_body().into_inner().unwrap_or_default();
        say("content-length", body.len().to_string().as_bytes());
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&body);
        bytes
    }

    fn say_file(&self, set: &mut impl FnMut(&'static str, &str)) {
        if let Some(prefix) = self.content {
            set(header::CONTENT_LENGTH.as_str(), &prefix.length.to_string());
            set(header::ETAG.as_str(), &ETag(prefix.hash).to_string());
        }
        let Some(shown) = &self.shown else { return };
        let vouched = shown.standing.vouched;
        set(ours::LENGTH, &vouched.length.to_string());
        if self.content.is_none() {
            set(header::ETAG.as_str(), &ETag(vouched.hash).to_string());
        }
        if let Some(tail) = shown.tail {
            set(ours::TAIL, &tail.to_string());
        }
        if self.status == StatusCode::RANGE_NOT_SATISFIABLE {
            let range = ContentRange::Length(vouched.length);
            set(header::CONTENT_RANGE.as_str(), &range.to_string());
        }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::refusal(refusal.problem, refusal.detail).status(refusal.status)
    }
}

/// When to ask again.
fn retry_after(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => Some("1"),
        StatusCode::INSUFFICIENT_STORAGE => Some("10"),
        _ => None,
    }
}

fn document(status: StatusCode, problem: Problem, detail: &str) -> Bytes {
    let document = serde_json::json!({
        "title": problem.token(),
        "status": status.as_u16(),
        "detail": detail,
    });
    Bytes::from(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::commit::Epoch;
    use super::super::decide::Standing;
    use super::*;
    use crate::types::{BootId, Offset, StoreId};
    use crate::wire::Tail;

    fn shown() -> Shown {
        Shown {
            epoch: Epoch::default(),
            standing: Standing::absent(),
            tail: Some(Tail {
                size: Offset::new(9).unwrap(),
                hash: None,
            }),
        }
    }

    fn said(answer: Answer, name: &str) -> Option<String> {
        let stamp = Stamp {
            store: StoreId([1; 16]),
            boot: BootId([2; 16]),
            number: CommitNumber(3),
        };
        let response = answer.into_response(&stamp, false);
        let value = response.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn every_answer_carries_the_stamp_and_every_refusal_its_token() {
        let refusal = Answer::refusal(Problem::Gap, "").about(Some(shown()));
        assert!(
            said(Answer::done(false), "shaftlog-store")
                .unwrap()
                .ends_with("/3")
        );
        assert_eq!(said(refusal.clone(), "shaftlog-problem").unwrap(), "gap");
        assert_eq!(said(refusal.clone(), "content-range").unwrap(), "bytes */0");
        assert_eq!(said(refusal.clone(), "shaftlog-length").unwrap(), "0");
        assert_eq!(said(refusal, "shaftlog-tail").unwrap(), "9");
        assert_eq!(said(Answer::done(true), "shaftlog-problem"), None);
        let busy = Answer::refusal(Problem::Busy, "");
        assert_eq!(said(busy, "retry-after").unwrap(), "1");
    }

    #[test]
    fn what_is_kept_is_said_of_the_commit_that_was_looked_at() {
        let kept = Answer::heartbeat(Some((true, CommitNumber(2))));
        assert_eq!(said(kept.clone(), "shaftlog-kept").unwrap(), "yes");
        assert!(said(kept, "shaftlog-store").unwrap().ends_with("/2"));
        let asked = Answer::heartbeat(None);
        assert!(said(asked, "shaftlog-store").unwrap().ends_with("/3"));
    }

    #[test]
    fn the_tag_of_a_shorter_prefix_is_not_overwritten_by_the_files() {
        let prefix = Prefix {
            length: Offset::new(4).unwrap(),
            hash: crate::types::PrefixHash([7; 32]),
        };
        let answer = Answer::content(prefix).about(Some(shown()));
        assert_eq!(said(answer.clone(), "content-length").unwrap(), "4");
        assert_eq!(said(answer.clone(), "shaftlog-length").unwrap(), "0");
        assert!(said(answer, "etag").unwrap().contains("0707"));
    }
}
