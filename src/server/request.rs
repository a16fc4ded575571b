//! From the head of an HTTP request to what it asks for, or the refusal of row 1: framing, method,
//! headers and path are judged before anything is looked at. Pure.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, StatusCode, Version};

use super::core::Rules;
use super::decide::{Append, Confirm, Put};
use crate::types::{Offset, WirePath};
use crate::wire::{
    BadHeader, Condition, ContentRange, Problem, ReprDigest, Seen, decimal_offset, header as ours,
};

/// Why a request is refused as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) problem: Problem,
    pub(super) status: StatusCode,
    /// For people.
    pub(super) detail: String,
}

impl Refusal {
    /// With the status that usually goes with the problem.
    pub(super) fn usual(problem: Problem, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(problem.status());
        Self {
            problem,
            status: status.unwrap_or(StatusCode::BAD_REQUEST),
            detail: detail.into(),
        }
    }

    /// Whoever asks must not.
    pub(super) fn forbidden(detail: String) -> Self {
        Self::usual(Problem::Forbidden, detail)
    }

    /// 400, whatever the problem.
    pub(super) fn malformed(problem: Problem, detail: impl Into<String>) -> Self {
        Self::with(StatusCode::BAD_REQUEST, problem, detail)
    }

    /// With a status of its own.
    pub(super) fn with(status: StatusCode, problem: Problem, detail: impl Into<String>) -> Self {
        Self {
            problem,
            status,
            detail: detail.into(),
        }
    }
}

/// What a request asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// HEAD of a path that ends with a slash; what the client says it saw.
    Heartbeat(Option<Result<Seen, BadHeader>>),
    /// HEAD of a file, or with a length of its prefix.
    Head(WirePath, Option<Offset>),
    /// PUT.
    Put(WirePath, Put),
}

impl Asked {
    /// The file that it is about; a heartbeat is about none.
    pub(super) fn path(&self) -> Option<&WirePath> {
        match self {
            Self::Heartbeat(_) => None,
            Self::Head(path, _) | Self::Put(path, _) => Some(path),
        }
    }
}

/// Whether the client waits for `100 Continue` before it sends the body.
pub(super) fn awaits_continue(headers: &HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
}

/// Reads the head.
pub(super) fn parse(parts: &Parts, rules: &Rules) -> Result<Asked, Refusal> {
    match parts.method {
        Method::HEAD => {
            common(parts)?;
            head(parts, rules)
        }
        Method::PUT => {
            common(parts)?;
            let put = put(&parts.headers, rules.file_size)?;
            if parts.uri.query().is_some() {
                return Err(Refusal::malformed(
                    Problem::Path,
                    "a PUT's path has no query",
                ));
            }
            Ok(Asked::Put(path(parts, rules)?, put))
        }
        // Its target is an authority (RFC 9112 section 3.2.3), never a file.
        Method::CONNECT => Err(no_path()),
        _ => Err(Refusal::usual(Problem::Method, "HEAD and PUT are served")),
    }
}

fn no_path() -> Refusal {
    Refusal::malformed(Problem::Path, "the request target is not a path")
}

/// What every request must be.
fn common(parts: &Parts) -> Result<(), Refusal> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    // RFC 9112 section 3.2.
    let is_right = match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_host(host),
        (None, _) => parts.version < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    };
    if !is_right {
        return Err(Refusal::malformed(
            Problem::Path,
            "expected one Host: `name`, or `name:port`",
        ));
    }
    if parts.uri.scheme().is_some() || parts.uri.authority().is_some() {
        return Err(no_path());
    }
    let mut expected = parts.headers.get_all(header::EXPECT).iter();
    if !expected.all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        let words = "only 100-continue can be expected";
        let status = StatusCode::EXPECTATION_FAILED;
        return Err(Refusal::with(status, Problem::Method, words));
    }
    Ok(())
}

/// `host[:port]`, or nothing (RFC 9110 section 7.2).
fn is_host(value: &HeaderValue) -> bool {
    let is_authority =
        |value| Authority::try_from(value).is_ok_and(|it| !it.as_str().contains('@'));
    value.is_empty() || is_authority(value.as_bytes())
}

fn head(parts: &Parts, rules: &Rules) -> Result<Asked, Refusal> {
    let text = parts.uri.path();
    if text.starts_with('/') && text.ends_with('/') {
        let seen = single(
            &parts.headers,
            HeaderName::from_static(ours::SEEN),
            "Shaftlog-Seen",
        )
        .map_err(|bad| malformed(Problem::Path, &bad))?;
        return Ok(Asked::Heartbeat(seen.map(str::parse)));
    }
    let length = match parts.uri.query() {
        None => None,
        Some(query) => {
            let length = query.strip_prefix("length=").and_then(decimal_offset);
            let wrong = || Refusal::malformed(Problem::Path, "expected no query, or ?length=N");
            Some(length.ok_or_else(wrong)?)
        }
    };
    Ok(Asked::Head(path(parts, rules)?, length))
}

/// Ranges, conditions, lengths and codings of a PUT, in the order in which row 1 names them.
fn put(headers: &HeaderMap, most: Offset) -> Result<Put, Refusal> {
    let range = content_range(headers)?;
    let condition = condition(headers)?;
    let digest = single(
        headers,
        HeaderName::from_static(ours::REPR_DIGEST),
        "Repr-Digest",
    )
    .and_then(|text| text.map(str::parse::<ReprDigest>).transpose())
    .map_err(|bad| malformed(Problem::Digest, &bad))?;
    let length = content_length(headers)?;
    if let ContentRange::Bytes { range, .. } = range
        && range.end() > most
    {
        let words = format!("files may have {most} bytes here");
        return Err(Refusal::usual(Problem::TooLarge, words));
    }
    if headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|coding| coding != "identity")
    {
        let words = "bytes are taken as they are, without Content-Encoding";
        return Err(Refusal::usual(Problem::Coding, words));
    }
    let (put, expected) = match range {
        ContentRange::Bytes { range, total } => (
            Put::Append(Append {
                range,
                total,
                condition,
                digest: digest.map(|ReprDigest(hash)| hash),
            }),
            range.len(),
        ),
        ContentRange::Length(length) => (Put::Confirm(Confirm { length, condition }), 0),
    };
    if length != expected {
        let words = format!("Content-Length is {length}, the range has {expected} bytes");
        return Err(Refusal::malformed(Problem::Length, words));
    }
    Ok(put)
}

fn content_range(headers: &HeaderMap) -> Result<ContentRange, Refusal> {
    let text = single(headers, header::CONTENT_RANGE, "Content-Range")
        .map_err(|bad| malformed(Problem::Range, &bad))?;
    let missing = "a PUT needs a Content-Range: `bytes first-last/total` or `bytes */total`";
    let text = text.ok_or_else(|| Refusal::malformed(Problem::Range, missing))?;
    text.parse()
        .map_err(|bad: BadHeader| malformed(Problem::Range, &bad))
}

fn condition(headers: &HeaderMap) -> Result<Option<Condition>, Refusal> {
    let read = || {
        let if_match = single(headers, header::IF_MATCH, "If-Match")?;
        let if_none_match = single(headers, header::IF_NONE_MATCH, "If-None-Match")?;
        Condition::parse(if_match, if_none_match)
    };
    read().map_err(|bad| malformed(Problem::Condition, &bad))
}

/// The announced length; [`framing`](super::framing) has seen that it comes once, and uncoded.
fn content_length(headers: &HeaderMap) -> Result<u64, Refusal> {
    let text = single(headers, header::CONTENT_LENGTH, "Content-Length")
        .map_err(|bad| malformed(Problem::Length, &bad))?;
    let missing = || Refusal::usual(Problem::Length, "a PUT needs a Content-Length");
    let odd = || Refusal::malformed(Problem::Length, "an odd Content-Length");
    let length = decimal_offset(text.ok_or_else(missing)?).ok_or_else(odd)?;
    Ok(length.bytes())
}

fn path(parts: &Parts, rules: &Rules) -> Result<WirePath, Refusal> {
    let text = parts.uri.path();
    let path =
        WirePath::decode(text).map_err(|bad| Refusal::malformed(Problem::Path, bad.to_string()))?;
    match &rules.validate {
        Some(regex) if !regex.is_match(text.as_bytes()) => Err(Refusal::malformed(
            Problem::Path,
            "the path is not one that validate_regex lets pass",
        )),
        _ => Ok(path),
    }
}

/// A header that may come once.
fn single<'h>(
    headers: &'h HeaderMap,
    name: HeaderName,
    shown: &'static str,
) -> Result<Option<&'h str>, BadHeader> {
    let mut values = headers.get_all(name).iter();
    let bad = |expected| BadHeader {
        header: shown,
        expected,
    };
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(bad("visible ASCII characters")),
        },
        (Some(_), Some(_)) => Err(bad("one such header, not several")),
    }
}

fn malformed(problem: Problem, bad: &BadHeader) -> Refusal {
    Refusal::malformed(problem, bad.to_string())
}

#[cfg(test)]
mod tests {
    use hyper::Request;
    use regex::bytes::Regex;

    use super::*;
    use crate::server::access::Access;

    fn rules() -> Rules {
        Rules {
            validate: None,
            min_free: 0,
            allow_unconditional: false,
            scrub: None,
            quarantine: crate::server::Quarantine::default(),
            access: Access::default(),
            requests: 1,
            file_size: Offset::new(1 << 40).unwrap(),
            quotas: crate::server::Quotas::default(),
            making: crate::server::Making::default(),
            append_only: None,
        }
    }

    fn asked(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Asked, u16> {
        asked_under(&rules(), method, target, headers)
    }

    fn asked_under(
        rules: &Rules,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Asked, u16> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers.iter().chain(&[("host", "x")]) {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        parse(&parts, rules).map_err(|refusal| refusal.status.as_u16())
    }

    const RANGE: (&str, &str) = ("content-range", "bytes 0-4/5");
    const LENGTH: (&str, &str) = ("content-length", "5");

    #[test]
    fn a_plain_put_is_read() {
        let Ok(Asked::Put(path, Put::Append(append))) = asked("PUT", "/a%20b", &[RANGE, LENGTH])
        else {
            panic!("refused");
        };
        assert_eq!(path.as_bytes(), b"a b");
        assert_eq!((append.range.len(), append.condition), (5, None));
    }

    #[test]
    fn framing_and_headers_are_judged_in_order() {
        for (status, headers) in [
            (400, &[LENGTH][..]),
            (400, &[LENGTH, ("content-range", "bytes 0-9/5")]),
            (400, &[LENGTH, RANGE, RANGE]),
            (411, &[RANGE]),
            (400, &[RANGE, ("content-length", "4")]),
            (400, &[RANGE, ("content-length", "9223372036854775808")]),
            (415, &[RANGE, LENGTH, ("content-encoding", "gzip")]),
            (400, &[RANGE, LENGTH, ("if-match", "\"x\"")]),
            (400, &[RANGE, LENGTH, ("repr-digest", "sha-256=:AAAA:")]),
            (400, &[RANGE, LENGTH, ("host", "another")]),
            (417, &[RANGE, LENGTH, ("expect", "a miracle")]),
            (400, &[("content-range", "bytes */5"), LENGTH]),
        ] {
            assert_eq!(asked("PUT", "/a", headers), Err(status), "{headers:?}");
        }
        assert_eq!(asked("GET", "/a", &[]), Err(405));
        assert_eq!(asked("CONNECT", "x:80", &[]), Err(400));
        assert_eq!(asked("PUT", "/a?length=5", &[RANGE, LENGTH]), Err(400));
        assert_eq!(asked("PUT", "/../a", &[RANGE, LENGTH]), Err(400));
        assert_eq!(asked("PUT", "http://x/a", &[RANGE, LENGTH]), Err(400));
    }

    #[test]
    fn heads_ask_for_a_file_a_prefix_or_a_heartbeat() {
        assert!(matches!(asked("HEAD", "/a", &[]), Ok(Asked::Head(_, None))));
        let Ok(Asked::Head(_, Some(length))) = asked("HEAD", "/a?length=7", &[]) else {
            panic!("refused");
        };
        assert_eq!(length.bytes(), 7);
        for query in ["length=", "length=+7", "length=7&x", "size=7", ""] {
            assert_eq!(
                asked("HEAD", &format!("/a?{query}"), &[]),
                Err(400),
                "{query}"
            );
        }
        assert_eq!(asked("HEAD", "/", &[]), Ok(Asked::Heartbeat(None)));
        assert_eq!(asked("HEAD", "/a//", &[]), Ok(Asked::Heartbeat(None)));
        assert!(matches!(
            asked("HEAD", "/", &[("shaftlog-seen", "x")]),
            Ok(Asked::Heartbeat(Some(Err(_))))
        ));
    }

    #[test]
    fn the_rule_is_tried_on_the_encoded_path_and_not_on_heartbeats() {
        let rules = Rules {
            validate: Some(Regex::new("^/[a-z%0-9]+$").unwrap()),
            ..rules()
        };
        let tried = |target| asked_under(&rules, "HEAD", target, &[]);
        assert!(tried("/a%20b").is_ok());
        assert_eq!(tried("/A"), Err(400));
        assert_eq!(tried("/A/"), Ok(Asked::Heartbeat(None)));
    }
}
