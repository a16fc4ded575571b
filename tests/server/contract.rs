//! What holds for every answer, whatever was asked: checked beside what a script says.

use std::path::Path;

use crate::answer::{Answer, Asked};
use crate::data::etag;

/// `Shaftlog-Store`, taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stamp {
    pub store: String,
    pub boot: String,
    pub number: u64,
}

/// Checks an answer against the contract; gives the stamp that it carries. `file` is where the
/// file asked for lies, when it is known.
pub fn check(asked: &Asked, answer: &Answer, file: Option<&Path>) -> Result<Stamp, String> {
    let stamp = stamp(answer)?;
    if stamp.number < asked.known {
        return Err(format!(
            "commit number {} after {}",
            stamp.number, asked.known
        ));
    }
    check_problem(asked, answer)?;
    check_prefix(answer, file, asked)?;
    if answer.status < 300 && asked.method == "PUT" {
        check_acknowledgement(asked, answer)?;
    }
    if answer.status < 300 && asked.method == "HEAD" && file.is_some() {
        check_length(asked, answer)?;
    }
    Ok(stamp)
}

/// The stamp on an answer.
pub fn stamp(answer: &Answer) -> Result<Stamp, String> {
    let text = answer
        .header("shaftlog-store")
        .ok_or("an answer without Shaftlog-Store")?;
    let fields: Vec<&str> = text.split('/').collect();
    match fields[..] {
        [store, boot, number] if store.len() == 32 && boot.len() == 32 => Ok(Stamp {
            store: store.to_owned(),
            boot: boot.to_owned(),
            number: number.parse().map_err(|_| format!("stamp {text}"))?,
        }),
        _ => Err(format!("stamp {text}")),
    }
}

/// A refusal names its problem, in a header and in a body that says the same; 404 needs none.
fn check_problem(asked: &Asked, answer: &Answer) -> Result<(), String> {
    let token = answer.header("shaftlog-problem");
    if answer.status < 400 || (answer.status == 404 && token.is_none()) {
        return match token {
            Some(token) if answer.status < 400 => Err(format!("a success with problem {token}")),
            _ => Ok(()),
        };
    }
    let token = token.ok_or("a refusal without Shaftlog-Problem")?;
    if matches!(answer.status, 503 | 507) && answer.number("retry-after").is_none() {
        return Err("no Retry-After".into());
    }
    if answer.status == 405 && answer.header("allow").is_none() {
        return Err("405 without Allow (RFC 9110 section 15.5.6)".into());
    }
    if asked.method == "HEAD" {
        return Ok(());
    }
    if answer.header("content-type") != Some("application/problem+json") {
        return Err("a refusal that is not application/problem+json".into());
    }
    let body: serde_json::Value =
        serde_json::from_slice(&answer.body).map_err(|e| format!("the problem's JSON: {e}"))?;
    let says_so = |value: &serde_json::Value| value.as_str().is_some_and(|v| v.ends_with(token));
    let members = body.as_object().ok_or("the problem is no object")?;
    if !members.values().any(says_so) {
        return Err(format!("the problem's body does not say `{token}`: {body}"));
    }
    match body.get("status") {
        Some(status) if *status != answer.status => Err(format!("the body says {status}")),
        _ => Ok(()),
    }
}

/// L and its entity tag go together, and say what `head -c L FILE | b3sum` says.
fn check_prefix(answer: &Answer, file: Option<&Path>, asked: &Asked) -> Result<(), String> {
    let (length, tag) = (answer.number("shaftlog-length"), answer.header("etag"));
    if length.is_some() != tag.is_some() {
        return Err("Shaftlog-Length and ETag come together or not at all".into());
    }
    let problem = answer.header("shaftlog-problem");
    if answer.status == 503 || matches!(problem, Some("diverged" | "retired")) {
        // Somebody else may have been at the file; this is what the index vouches for.
        return Ok(());
    }
    let (Some(mut length), Some(tag), Some(file)) = (length, tag, file) else {
        return Ok(());
    };
    if answer.status == 200 && asked.target.contains("?length=") {
        length = answer.number("content-length").ok_or("no Content-Length")?;
    }
    let bytes = std::fs::read(file).unwrap_or_default();
    let Some(prefix) = usize::try_from(length).ok().and_then(|n| bytes.get(..n)) else {
        return Err(format!(
            "L = {length}, but the file has {} bytes",
            bytes.len()
        ));
    };
    let expected = etag(&blake3::hash(prefix));
    if tag != expected {
        return Err(format!("ETag {tag}, but the file says {expected}"));
    }
    check_tail(answer, length, &bytes)
}

/// Shaftlog-Tail names a size beyond L, and the hash of just that, or none.
fn check_tail(answer: &Answer, length: u64, bytes: &[u8]) -> Result<(), String> {
    let Some(tail) = answer.header("shaftlog-tail") else {
        return Ok(());
    };
    let (size, tag) = match tail.split_once("; ") {
        Some((size, tag)) => (size, Some(tag)),
        None => (tail, None),
    };
    let size: usize = size.parse().map_err(|_| format!("Shaftlog-Tail {tail}"))?;
    if size as u64 <= length {
        return Err(format!("a tail of {size} that ends within L = {length}"));
    }
    match (tag, bytes.get(..size)) {
        (Some(tag), Some(prefix)) if tag != etag(&blake3::hash(prefix)) => {
            Err(format!("Shaftlog-Tail {tail}, which is not the file's"))
        }
        _ => Ok(()),
    }
}

/// A 2xx acknowledges all that was sent or asked about.
fn check_acknowledgement(asked: &Asked, answer: &Answer) -> Result<(), String> {
    let length = answer.number("shaftlog-length");
    match (length, asked.end) {
        (None, _) => Err("a success without Shaftlog-Length".into()),
        (Some(length), Some(end)) if length < end => Err(format!(
            "{} for {end} bytes with L = {length}",
            answer.status
        )),
        _ => Ok(()),
    }
}

/// HEAD's Content-Length is L, unless another prefix was asked for.
fn check_length(asked: &Asked, answer: &Answer) -> Result<(), String> {
    let (length, content) = (
        answer.number("shaftlog-length"),
        answer.number("content-length"),
    );
    if length.is_none() {
        return Err("HEAD without Shaftlog-Length".into());
    }
    if asked.target.contains('?') || length == content {
        Ok(())
    } else {
        Err(format!("Content-Length {content:?}, but L = {length:?}"))
    }
}
