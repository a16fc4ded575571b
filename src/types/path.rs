//! Paths: of a server's files as they come over the wire, and the stable names of a client's.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Shown;
use crate::limits::{PATH_BYTES, PATH_SEGMENTS, PRIVATE_DIR, SEGMENT_BYTES};

/// The segments of a relative path, valid under our datadir: at least one, none empty, `.`, `..`,
/// `.shaftlog`, longer than [`SEGMENT_BYTES`], or holding `/` or NUL. Any other bytes go.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
struct Segments(Vec<u8>);

impl Segments {
    fn parse(bytes: Vec<u8>) -> Result<Self, BadPath> {
        if bytes.len() > PATH_BYTES {
            return Err(BadPath::TooLong);
        }
        let mut count = 0;
        for segment in bytes.split(|&byte| byte == b'/') {
            count += 1;
            check_segment(segment)?;
        }
        if count > PATH_SEGMENTS {
            Err(BadPath::TooDeep)
        } else {
            Ok(Self(bytes))
        }
    }
}

fn check_segment(segment: &[u8]) -> Result<(), BadPath> {
    match segment {
        b"" => Err(BadPath::EmptySegment),
        b"." | b".." => Err(BadPath::DotSegment),
        _ if segment == PRIVATE_DIR.as_bytes() => Err(BadPath::Private),
        _ if segment.len() > SEGMENT_BYTES => Err(BadPath::SegmentTooLong),
        _ if segment.contains(&0) => Err(BadPath::Nul),
        _ if segment.contains(&b'/') => Err(BadPath::Slash),
        _ => Ok(()),
    }
}

impl TryFrom<Vec<u8>> for Segments {
    type Error = BadPath;
    fn try_from(bytes: Vec<u8>) -> Result<Self, BadPath> {
        Self::parse(bytes)
    }
}

impl From<Segments> for Vec<u8> {
    fn from(segments: Segments) -> Vec<u8> {
        segments.0
    }
}

/// Why bytes are no path that we would touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// `//`, a trailing slash, or nothing at all.
    #[error("a path segment is empty")]
    EmptySegment,
    /// `.` or `..`.
    #[error("a path segment is `.` or `..`")]
    DotSegment,
    /// `.shaftlog`.
    #[error("a path segment is `.shaftlog`, which is ours alone")]
    Private,
    /// Beyond 255 bytes.
    #[error("a path segment is longer than 255 bytes")]
    SegmentTooLong,
    /// Beyond 4095 bytes.
    #[error("the path is longer than 4095 bytes")]
    TooLong,
    /// More than 128 segments.
    #[error("the path has more than 128 segments")]
    TooDeep,
    /// `%00`.
    #[error("a path segment holds a NUL byte")]
    Nul,
    /// `%2f`.
    #[error("a path segment holds an encoded slash")]
    Slash,
    /// `%zz`, a lone `%`, or a byte that has to be percent-encoded.
    #[error("the path is not a valid percent-encoded path")]
    Encoding,
    /// No slash in front.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
}

/// The path of a delivered file: what a URL's path says, decoded. Shown and stored with a slash
/// in front; on disk it lies under the datadir.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WirePath(Segments);

impl WirePath {
    /// Decodes the path of a request target (RFC 3986 section 3.3), segment by segment and once.
    pub fn decode(encoded: &str) -> Result<Self, BadPath> {
        let relative = encoded.strip_prefix('/').ok_or(BadPath::NotAbsolute)?;
        let mut bytes = Vec::with_capacity(relative.len());
        for (index, segment) in relative.split('/').enumerate() {
            if index > 0 {
                bytes.push(b'/');
            }
            let decoded = percent_decode(segment)?;
            check_segment(&decoded)?;
            bytes.extend_from_slice(&decoded);
        }
        Segments::parse(bytes).map(Self)
    }

    /// A path from decoded bytes without the leading slash, as it lies on disk.
    pub fn from_disk(relative: impl Into<Vec<u8>>) -> Result<Self, BadPath> {
        Segments::parse(relative.into()).map(Self)
    }

    /// A path without the leading slash as it is shown to people ([`Shown`]): what is
    /// percent-encoded there is decoded, all else is taken as it is.
    pub fn from_shown(relative: &str) -> Result<Self, BadPath> {
        let mut bytes = Vec::with_capacity(relative.len());
        let mut rest = relative.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(if byte == b'%' {
                let mut digit = || rest.next().and_then(hex_digit).ok_or(BadPath::Encoding);
                digit()? << 4 | digit()?
            } else {
                byte
            });
        }
        Segments::parse(bytes).map(Self)
    }

    /// The decoded bytes without a leading slash: the path beneath the datadir.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.0
    }

    /// The path as it goes into a request, every byte encoded that is not unreserved.
    pub fn encode(&self) -> String {
        encode_absolute(self.as_bytes())
    }
}

impl fmt::Display for WirePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", Shown(self.as_bytes()))
    }
}

impl fmt::Debug for WirePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name under which the client holds and delivers one generation of one inode: a relative
/// path below its datadir, never used for another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StableName(Segments);

impl StableName {
    /// The name `bytes`, or why it cannot be one.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, BadPath> {
        Segments::parse(bytes.into()).map(Self)
    }

    /// The raw bytes, segments parted by slashes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.0
    }

    /// The name as it is put behind a destination's URL: every byte encoded that is not
    /// unreserved, no leading slash.
    pub fn encode(&self) -> String {
        encode_absolute(self.as_bytes()).split_off(1)
    }
}

impl std::borrow::Borrow<[u8]> for StableName {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Display for StableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Shown(self.as_bytes()), f)
    }
}

impl fmt::Debug for StableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn percent_decode(segment: &str) -> Result<Vec<u8>, BadPath> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (
                    bytes.next().and_then(hex_digit),
                    bytes.next().and_then(hex_digit),
                );
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(BadPath::Encoding);
                };
                decoded.push(high << 4 | low);
            }
            // RFC 3986 section 3.3 has none of these in a path.
            b'?' | b'#' | 0..=0x20 | 0x7f => return Err(BadPath::Encoding),
            _ => decoded.push(byte),
        }
    }
    Ok(decoded)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// `/` and the bytes, with all but RFC 3986's unreserved characters and slashes encoded.
fn encode_absolute(bytes: &[u8]) -> String {
    format!("/{}", percent_encode(bytes, b"/"))
}

/// The bytes with all percent-encoded but RFC 3986's unreserved characters and those in `kept`.
pub(crate) fn percent_encode(bytes: &[u8], kept: &[u8]) -> String {
    use fmt::Write as _;
    let mut encoded = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_paths_are_told_apart() {
        for (path, problem) in [
            ("a", BadPath::NotAbsolute),
            ("/", BadPath::EmptySegment),
            ("/a//b", BadPath::EmptySegment),
            ("/a/", BadPath::EmptySegment),
            ("/../a", BadPath::DotSegment),
            ("/%2e%2E/a", BadPath::DotSegment),
            ("/a/.", BadPath::DotSegment),
            ("/a%2fb", BadPath::Slash),
            ("/a%00", BadPath::Nul),
            ("/a%zz", BadPath::Encoding),
            ("/a%2", BadPath::Encoding),
            ("/a b", BadPath::Encoding),
            ("/x/.shaftlog/y", BadPath::Private),
            ("/%2eshaftlog", BadPath::Private),
        ] {
            assert_eq!(WirePath::decode(path), Err(problem), "{path}");
        }
        assert_eq!(
            WirePath::decode(&format!("/{}", "x".repeat(256))),
            Err(BadPath::SegmentTooLong)
        );
        assert_eq!(
            WirePath::decode(&"/abc".repeat(1100)),
            Err(BadPath::TooLong)
        );
        assert_eq!(WirePath::decode(&"/a".repeat(500)), Err(BadPath::TooDeep));
    }

    #[test]
    fn decoding_happens_once() {
        let path = WirePath::decode("/%252e%252e").unwrap();
        assert_eq!(path.as_bytes(), b"%2e%2e");
        assert_eq!(path.to_string(), "/%252e%252e");
    }

    #[test]
    fn a_path_as_it_is_shown_is_that_path() {
        let path = WirePath::from_disk(&b"log/\xff a%\n\xc3\xbc"[..]).unwrap();
        let shown = path.to_string();
        assert_eq!(WirePath::from_shown(&shown[1..]), Ok(path));
        assert_eq!(WirePath::from_shown("a%2"), Err(BadPath::Encoding));
        assert_eq!(WirePath::from_shown("%2E."), Err(BadPath::DotSegment));
    }

    proptest! {
        #[test]
        fn every_name_survives_the_wire(segments in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..5)) {
            let bytes = segments.join(&b'/');
            if let Ok(name) = StableName::parse(bytes.clone()) {
                let path = WirePath::decode(&format!("/{}", name.encode())).unwrap();
                prop_assert_eq!(path.as_bytes(), &bytes[..]);
                prop_assert_eq!(WirePath::decode(&path.encode()).unwrap(), path);
            }
        }
    }
}
