//! From an answer's head to plain values. Whatever does not parse is as if it were not there; what
//! that means, `plan` says.

use std::time::Duration;

use hyper::ext::ReasonPhrase;
use hyper::header::{CONTENT_LENGTH, ETAG, HeaderMap, RETRY_AFTER};
use hyper::http::response::Parts;

use crate::client::plan::{About, Answer};
use crate::limits::{REASON_CHARS, RETRY_AFTER_MAX};
use crate::wire::{ETag, Stamp, decimal_offset, header};

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The reason phrase, where it is not the usual one.
    reason: Option<ReasonPhrase>,
    headers: HeaderMap,
}

impl Reply {
    pub(super) fn new(mut head: Parts) -> Self {
        Self {
            status: head.status.as_u16(),
            reason: head.extensions.remove(),
            headers: head.headers,
        }
    }

    /// Whether a header of ours is there at all.
    fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Shaftlog-Store`: what makes a destination a verified one.
    pub fn stamp(&self) -> Option<Stamp> {
        self.text(header::STORE)?.parse().ok()
    }

    /// How a server of ours turns a connection away that has not come as far as the store: status and
    /// reason, for people.
    pub fn turned_away(&self) -> Option<String> {
        self.text(header::PROBLEM)
            .filter(|_| self.stamp().is_none())?;
        let reason = self.reason.as_ref().map(|reason| {
            let words = String::from_utf8_lossy(reason.as_bytes());
            let words: String = words.chars().take(REASON_CHARS).collect();
            format!(": {}", words.escape_debug())
        });
        Some(format!(
            "status {}{}",
            self.status,
            reason.unwrap_or_default()
        ))
    }

    /// `Shaftlog-Kept` of a heartbeat's answer; anything but `yes` and `no` is no word.
    pub fn kept(&self) -> Option<bool> {
        match self.text(header::KEPT)? {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        }
    }

    /// What `plan` judges.
    pub fn answer(&self) -> Answer {
        let length = self.text(header::LENGTH).and_then(decimal_offset);
        let tail = self.text(header::TAIL).and_then(|tail| tail.parse().ok());
        let tag: Option<ETag> = self.text(ETAG.as_str()).and_then(|tag| tag.parse().ok());
        let content_length = self.text(CONTENT_LENGTH.as_str()).and_then(decimal_offset);
        Answer {
            status: self.status,
            problem: self
                .text(header::PROBLEM)
                .and_then(|token| token.parse().ok()),
            about: length.map(|length| About { length, tail }),
            content_length,
            tag: tag.map(|tag| tag.0),
            retry_after: self.retry_after(),
        }
    }

    /// Retry-After in seconds (RFC 9110 section 10.2.3); a date is not honoured, our own pause
    /// does as well.
    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.text(RETRY_AFTER.as_str())?.parse().ok()?;
        Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
    }
}

#[cfg(test)]
mod tests {
    use hyper::Response;

    use super::*;
    use crate::types::{Offset, PrefixHash};
    use crate::wire::Problem;

    fn reply(headers: &[(&'static str, &str)]) -> Reply {
        let mut response = Response::builder().status(416);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        Reply::new(response.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn everything_said_is_read() {
        let empty = ETag(PrefixHash::of_nothing()).to_string();
        let tail = format!("9; {empty}");
        let reply = reply(&[
            ("shaftlog-store", &format!("{:032x}/{:032x}/7", 1, 2)),
            ("shaftlog-kept", "no"),
            ("shaftlog-length", "5"),
            ("shaftlog-tail", &tail),
            ("etag", &empty),
            ("content-length", "12"),
            ("shaftlog-problem", "gap"),
            ("retry-after", "2"),
        ]);
        assert_eq!(reply.stamp().unwrap().number.0, 7);
        assert_eq!(reply.kept(), Some(false));
        assert_eq!(reply.turned_away(), None);
        let answer = reply.answer();
        let about = answer.about.unwrap();
        assert_eq!(about.length, Offset::new(5).unwrap());
        assert_eq!(about.tail.unwrap().size, Offset::new(9).unwrap());
        assert_eq!(answer.tag, Some(PrefixHash::of_nothing()));
        assert_eq!(answer.content_length, Offset::new(12));
        assert_eq!(answer.problem, Some(Problem::Gap));
        assert_eq!(answer.retry_after, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_reason_is_shown_and_does_no_harm() {
        let mut reply = reply(&[("shaftlog-problem", "method")]);
        assert_eq!(reply.turned_away().unwrap(), "status 416");
        let long = [b"use\t\xff ".as_slice(), &[b'x'; 1000]].concat();
        reply.reason = Some(ReasonPhrase::try_from(long).unwrap());
        let said = reply.turned_away().unwrap();
        assert!(said.starts_with("status 416: use\\t\u{fffd} xxx"), "{said}");
        assert!(said.len() < 300, "{said}");
    }

    #[test]
    fn nonsense_is_not_there() {
        let reply = reply(&[
            ("shaftlog-store", "1/2/3"),
            ("shaftlog-kept", "maybe"),
            ("shaftlog-length", "18446744073709551616"),
            ("etag", "\"abc\""),
            ("shaftlog-problem", "whatever"),
            ("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT"),
        ]);
        assert_eq!(reply.stamp(), None);
        assert_eq!(reply.kept(), None);
        let answer = reply.answer();
        assert_eq!((answer.about, answer.tag), (None, None));
        assert_eq!((answer.problem, answer.retry_after), (None, None));
    }
}
