//! Plain values, parsed once and valid ever after: offsets, ranges, hashes, paths and names.
//!
//! Nothing here does I/O. A function that takes one of these types need not check it again.

mod identity;
mod plain;
pub mod words;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use identity::{Identity, NoIdentity};
pub use plain::plain;
use plain::talks_to_terminal;

use crate::limits::{PATH_BYTES, PATH_SEGMENTS, PRIVATE_DIR, SEGMENT_BYTES};

/// A position in a file, or the length of a prefix, in bytes; never beyond what a file can have
/// (2^63 - 1, POSIX `off_t`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Offset(u64);

impl Offset {
    /// The start of a file.
    pub const ZERO: Self = Self(0);
    /// The last position that a file can have.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The offset `bytes`, unless no file can have it.
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes <= Self::MAX.0 {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// The number of bytes before this position.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The position `bytes` further on, unless no file can have it.
    pub const fn plus(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Self::new(sum),
            None => None,
        }
    }

    /// Bytes from `earlier` to here; 0 when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The position `bytes` before this one, or the start of the file.
    pub const fn minus(self, bytes: u64) -> Self {
        Self(self.0.saturating_sub(bytes))
    }
}

impl TryFrom<u64> for Offset {
    type Error = OutOfRange;
    fn try_from(bytes: u64) -> Result<Self, OutOfRange> {
        Self::new(bytes).ok_or(OutOfRange)
    }
}

impl From<Offset> for u64 {
    fn from(offset: Offset) -> u64 {
        offset.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number that is no offset of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an offset of a file: beyond 2^63 - 1")]
pub struct OutOfRange;

/// A non-empty stretch of a file: from `start` up to, not including, `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteRange {
    start: Offset,
    end: Offset,
}

impl ByteRange {
    /// The range from `start` to `end`, unless it is empty or reversed.
    pub fn new(start: Offset, end: Offset) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// Position of the first byte.
    pub const fn start(self) -> Offset {
        self.start
    }

    /// Position after the last byte.
    pub const fn end(self) -> Offset {
        self.end
    }

    /// Number of bytes, never 0.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(self) -> u64 {
        self.end.since(self.start)
    }
}

/// H(n): the BLAKE3 hash of a file's first n bytes, as `head -c n FILE | b3sum` prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PrefixHash(pub [u8; 32]);

impl PrefixHash {
    /// H(0).
    pub fn of_nothing() -> Self {
        Self(*blake3::hash(b"").as_bytes())
    }
}

impl fmt::Display for PrefixHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for PrefixHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PrefixHash {
    type Err = BadHash;
    /// Takes exactly 64 lower-case hex digits.
    fn from_str(text: &str) -> Result<Self, BadHash> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(BadHash);
        }
        blake3::Hash::from_hex(text)
            .map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| BadHash)
    }
}

/// Text that is no prefix hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a BLAKE3 hash: expected 64 lower-case hex digits")]
pub struct BadHash;

/// A prefix of a file: its length and its hash. The pair on which everything turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Prefix {
    /// Length in bytes.
    pub length: Offset,
    /// H(length).
    pub hash: PrefixHash,
}

impl Prefix {
    /// The prefix of length 0.
    pub fn empty() -> Self {
        Self {
            length: Offset::ZERO,
            hash: PrefixHash::of_nothing(),
        }
    }
}

/// Number of a row in a table of files; never used twice in one database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct FileId(pub u64);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What tells one inode from every other on a filesystem as long as one of its links is held.
/// Device numbers change between boots and are no identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Inode {
    /// `st_ino`.
    pub number: u64,
    /// Birth time in nanoseconds since 1970; `None` on filesystems that have none.
    pub born: Option<i64>,
}

/// Identity of a server's index, made once with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoreId(pub [u8; 16]);

/// Identity of one run of a server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BootId(pub [u8; 16]);

/// Number of a server's commit; grows by one with each.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct CommitNumber(pub u64);

macro_rules! hex_identity {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadIdentity;
            /// Takes exactly 32 lower-case hex digits.
            fn from_str(text: &str) -> Result<Self, BadIdentity> {
                let digits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                if text.len() != 32 || !text.bytes().all(digits) {
                    return Err(BadIdentity);
                }
                let number = u128::from_str_radix(text, 16).map_err(|_| BadIdentity)?;
                Ok(Self(number.to_be_bytes()))
            }
        }
    )*};
}
hex_identity!(StoreId, BootId);

/// Text that is no store or boot id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an identity: expected 32 lower-case hex digits")]
pub struct BadIdentity;

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

/// Bytes for people and for JSON: UTF-8 as it is; `%`, control characters and bytes that are not
/// UTF-8 percent-encoded, so that no name can play tricks with a terminal and none is ambiguous.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character == '%' || talks_to_terminal(character) {
                    let mut buffer = [0; 4];
                    for byte in character.encode_utf8(&mut buffer).bytes() {
                        write!(f, "%{byte:02X}")?;
                    }
                } else {
                    write!(f, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
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
    fn offsets_end_where_files_do() {
        assert_eq!(Offset::new(1 << 63), None);
        assert_eq!(Offset::new((1 << 63) - 1), Some(Offset::MAX));
        assert_eq!(Offset::MAX.plus(1), None);
        assert_eq!(Offset::ZERO.plus(u64::MAX), None);
    }

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

    #[test]
    fn control_characters_never_reach_a_terminal() {
        assert_eq!(
            Shown(b"a\n\x1b[31m\xff%\xe2\x80\xae").to_string(),
            "a%0A%1B[31m%FF%25%E2%80%AE"
        );
        assert_eq!(Shown("Zürich".as_bytes()).to_string(), "Zürich");
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
