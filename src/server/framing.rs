//! The requests of one connection as bytes: where each begins and ends, and whether its head is one
//! that nobody can misread. hyper parses the same bytes afterwards; it takes a lone LF for the end
//! of a line and two equal lengths for one, never sees a fragment, and answers what it refuses by
//! itself, without a word of ours. Pure.

use hyper::header::{self, HeaderName};
use hyper::{Method, StatusCode, Uri};

use super::request::Refusal;
use crate::limits::{HEAD_BYTES, HEADER_LINES, TARGET_BYTES};
use crate::types::Offset;
use crate::wire::{Problem, decimal_offset};

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Framing {
    at: At,
    head: Progress,
    /// What has come of the present line.
    line: Vec<u8>,
}

/// What the next byte is a part of.
#[derive(Debug, Default)]
enum At {
    /// A request line, or an empty line in front of it (RFC 9112 section 2.2).
    #[default]
    Start,
    /// A header line, or the empty one behind them.
    Fields,
    /// A body of which so many bytes are to come.
    Body(u64),
}

/// The present head as far as it has come.
#[derive(Debug, Default)]
struct Progress {
    bytes: usize,
    fields: usize,
    to_head: bool,
    length: Option<Offset>,
}

/// A head that is refused. Nothing behind it can be trusted to be what it seems.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    /// How many of the bytes belong to what is in front of it.
    pub(super) before: usize,
    /// Whether it is that of a HEAD, to which an answer has no body.
    pub(super) to_head: bool,
    pub(super) refusal: Refusal,
}

impl Framing {
    /// Takes the next bytes. After an error it must not be asked again.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        let mut rest = bytes;
        let mut before = 0;
        while !rest.is_empty() {
            let taken = if let At::Body(left) = &mut self.at {
                let taken = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                *left -= taken as u64;
                if *left == 0 {
                    self.at = At::Start;
                }
                taken
            } else {
                let line_end = rest.iter().position(|byte| *byte == b'\n');
                let taken = line_end.map_or(rest.len(), |end| end + 1);
                self.take(&rest[..taken], line_end.is_some())
                    .map_err(|refusal| Bad {
                        before,
                        to_head: self.head.to_head || self.line.starts_with(HEAD),
                        refusal,
                    })?;
                taken
            };
            rest = &rest[taken..];
            if !self.is_in_head() {
                before = bytes.len() - rest.len();
            }
        }
        Ok(())
    }

    fn is_in_head(&self) -> bool {
        !matches!(self.at, At::Body(_)) && self.head.bytes > 0
    }

    /// The next part of a line, or its end.
    fn take(&mut self, part: &[u8], ends: bool) -> Result<(), Refusal> {
        self.head.bytes += part.len();
        self.line.extend_from_slice(part);
        // Said at once: whoever speaks another protocol may wait for an answer to half a line.
        if part.iter().any(|byte| is_control(*byte)) || self.line.first() >= Some(&0x80) {
            return Err(no_http("this is not HTTP"));
        }
        if matches!(self.at, At::Start) && self.line.len() > TARGET_BYTES {
            if !self.line.contains(&b' ') {
                return Err(no_http("an odd method"));
            }
            let words = format!("a request line has {TARGET_BYTES} bytes at most");
            let status = StatusCode::URI_TOO_LONG;
            return Err(Refusal::with(status, Problem::Path, words));
        }
        if self.head.bytes > HEAD_BYTES {
            let words = format!("a head has {HEAD_BYTES} bytes at most");
            return Err(too_large(words));
        }
        if !ends {
            return self.unfinished(part.len());
        }
        let line = std::mem::take(&mut self.line);
        match line.strip_suffix(b"\r\n") {
            Some(line) if !line.contains(&b'\r') => self.line(line)?,
            _ => return Err(no_http(LINE_END)),
        }
        if line.capacity() <= KEPT {
            self.line = line;
            self.line.clear();
        }
        Ok(())
    }

    /// Judges what has come of a line, the last `new` bytes of it just now: what hyper would refuse
    /// without waiting for the line's end is refused here.
    fn unfinished(&self, new: usize) -> Result<(), Refusal> {
        let (old, part) = self.line.split_at(self.line.len() - new);
        let (last, but_last) = part.split_last().unwrap_or((&0, b""));
        if old.last() == Some(&b'\r') || but_last.contains(&b'\r') {
            return Err(no_http(LINE_END));
        }
        // Only its LF is still to come.
        let whole = self.line.strip_suffix(b"\r");
        match (&self.at, whole) {
            (At::Start, None) => request_line_begins(&self.line),
            (At::Start, Some(b"")) => Ok(()),
            (At::Start, Some(line)) => request_line(line),
            _ if old.contains(&b':') => Ok(()),
            (_, Some(line)) if !line.is_empty() && !line.contains(&b':') => {
                Err(no_http(HEADER_NAME))
            }
            _ => {
                let part = if *last == b'\r' { but_last } else { part };
                let name = part.split(|byte| *byte == b':').next().unwrap_or_default();
                let is_odd = !name.is_empty() && HeaderName::from_bytes(name).is_err();
                if is_odd || self.line.starts_with(b":") {
                    return Err(no_http(HEADER_NAME));
                }
                Ok(())
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        match (&self.at, line) {
            (At::Start, b"") => {}
            (At::Start, line) => {
                self.head.to_head = line.starts_with(HEAD);
                request_line(line)?;
                self.at = At::Fields;
            }
            (_, b"") => {
                let length = std::mem::take(&mut self.head).length;
                self.at = match length.map_or(0, Offset::bytes) {
                    0 => At::Start,
                    length => At::Body(length),
                };
            }
            (_, line) => self.field(line)?,
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.head.fields += 1;
        if self.head.fields > HEADER_LINES {
            let words = format!("a head has {HEADER_LINES} header lines at most");
            return Err(too_large(words));
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = colon
            .map(|colon| (&line[..colon], line[colon + 1..].trim_ascii()))
            .ok_or_else(|| no_http("a header line without a colon"))?;
        // A name with a space in front of its colon, or a folded line, is none.
        let name = HeaderName::from_bytes(name).map_err(|_| no_http(HEADER_NAME))?;
        if name == header::TRANSFER_ENCODING {
            let words = "a body comes with its Content-Length, not coded";
            return Err(Refusal::usual(Problem::Length, words));
        }
        if name == header::CONTENT_LENGTH {
            let odd = || Refusal::malformed(Problem::Length, "expected one decimal Content-Length");
            let length = str::from_utf8(value).ok().and_then(decimal_offset);
            let length = length.ok_or_else(odd)?;
            if self.head.length.replace(length).is_some() {
                return Err(odd());
            }
        }
        Ok(())
    }
}

/// What the request line of a HEAD begins with.
const HEAD: &[u8] = b"HEAD ";

/// Room for lines that is kept from one to the next.
const KEPT: usize = 4 * 1024;

const LINE_END: &str = "lines end with CR LF, and CR stands nowhere else";
const HEADER_NAME: &str = "an odd header name";

/// Whether `line` can be the beginning of a request line.
fn request_line_begins(line: &[u8]) -> Result<(), Refusal> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    if !line.is_empty() && Method::from_bytes(method).is_err() {
        return Err(no_http("an odd method"));
    }
    let versions = [&b"HTTP/1.1"[..], b"HTTP/1.0"];
    match (words.next(), words.next()) {
        (Some(b""), Some(_)) => Err(no_http("an odd request target")),
        (Some(target), _) if target.contains(&b'\t') => Err(no_http("an odd request target")),
        (_, Some(version)) if !versions.iter().any(|it| it.starts_with(version)) => {
            Err(no_http("HTTP/1.1 is spoken here"))
        }
        (Some(target), Some(_)) => request_target(target),
        _ => Ok(()),
    }
}

/// `method SP target SP version` (RFC 9112 section 3).
fn request_line(line: &[u8]) -> Result<(), Refusal> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(no_http("HTTP/1.1 is spoken here"));
    };
    Method::from_bytes(method).map_err(|_| no_http("an odd method"))?;
    request_target(target)
}

fn request_target(target: &[u8]) -> Result<(), Refusal> {
    if target.contains(&b'#') {
        let words = "a request target has no fragment";
        return Err(Refusal::malformed(Problem::Path, words));
    }
    let odd = |_| Refusal::malformed(Problem::Path, "an odd request target");
    Uri::try_from(target).map(drop).map_err(odd)
}

/// What stands in no line, TAB excepted, which values may have.
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\r' | b'\n' | b'\t')
}

fn no_http(words: &str) -> Refusal {
    Refusal::malformed(Problem::Method, words)
}

fn too_large(words: String) -> Refusal {
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    Refusal::with(status, Problem::TooLarge, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"\r\nHEAD /a HTTP/1.1\r\nHost: x\r\n\r\n";
    const BODY: &[u8] =
        b"PUT /a HTTP/1.1\r\nContent-Length: 9\r\nX:\ty\xff \r\n\r\nG /\n\n\x00#\r\n\r\n";

    #[test]
    fn requests_are_followed_however_they_are_cut() {
        for size in 1..GOOD.len() + BODY.len() {
            let follow = |bytes: &[u8]| {
                let mut framing = Framing::default();
                bytes.chunks(size).try_for_each(|part| framing.follow(part))
            };
            assert_eq!(follow(&[BODY, GOOD, GOOD, BODY].concat()), Ok(()), "{size}");
            for (status, bad) in [
                (400, &b"HEAD /a HTTP/1.1\nHost: x\r\n\r\n"[..]),
                (400, b"HEAD /a HTTP/1.1\r\nHost: x\n\r\n"),
                (400, b"HEAD /a HTTP/1.1\r\nHost: x\r\n\n"),
                (400, b"HEAD /a#b HTTP/1.1\r\nHost: x\r\n\r\n"),
                (400, b"\x16\x03\x01"),
                (
                    411,
                    b"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                ),
            ] {
                let bad = follow(&[GOOD, BODY, bad, GOOD].concat()).expect_err("it is bad");
                assert_eq!(bad.refusal.status.as_u16(), status, "{size}");
            }
        }
    }

    #[test]
    fn what_is_in_front_of_a_bad_head_is_told_from_it() {
        let bad: &[u8] = b"HEAD /a HTTP/1.1\nHost: x\r\n\r\n";
        let together = Framing::default().follow(&[BODY, GOOD, bad].concat());
        assert_eq!(together.unwrap_err().before, BODY.len() + GOOD.len());
        let mut framing = Framing::default();
        let in_head = [GOOD, &bad[..9]].concat();
        assert_eq!(framing.follow(&in_head), Ok(()));
        assert_eq!(framing.follow(&bad[9..]).unwrap_err().before, 0);
    }

    /// hyper would not, and its answer says nothing of ours.
    #[test]
    fn no_line_is_waited_for_that_can_only_be_bad() {
        for bad in [
            &b"PU)"[..],
            b" HEAD",
            b"HEAD  ",
            b"HEAD /\t",
            b"HEAD /a HTTP/1.1 ",
            b"HEAD /a HTTP/2",
            b"HEAD /a HTTP/\xcf",
            b"HEAD /a\r",
            b"HEAD /a\xc3 ",
            b"HEAD /a HTTP/1.1\r\nHost\r",
            b"HEAD /a HTTP/1.1\rX",
            b"\rX",
            b"HEAD /a HTTP/1.1\r\nHost ",
            b"HEAD /a HTTP/1.1\r\n folded",
            b"HEAD /a HTTP/1.1\r\n:",
            b"HEAD /a HTTP/1.1\r\nHost: x\ry",
        ] {
            for size in 1..=bad.len() {
                let mut framing = Framing::default();
                let refused = bad.chunks(size).try_for_each(|part| framing.follow(part));
                let refused = refused.expect_err("it is bad");
                assert_eq!(refused.refusal.status.as_u16(), 400, "{bad:?}");
            }
        }
    }

    #[test]
    fn what_comes_without_an_end_is_refused_at_its_bound() {
        for (status, start) in [(414, &b"HEAD /"[..]), (431, b"HEAD / HTTP/1.1\r\nX: ")] {
            let mut framing = Framing::default();
            framing.follow(start).unwrap();
            let bad = (0..HEAD_BYTES).find_map(|_| framing.follow(b"x").err());
            let bad = bad.expect("it has a bound");
            assert_eq!((bad.refusal.status.as_u16(), bad.to_head), (status, true));
        }
    }
}
