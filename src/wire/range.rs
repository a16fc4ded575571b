//! Content-Range (RFC 9110 section 14.4).

use std::fmt;
use std::str::FromStr;

use super::{BadHeader, decimal_offset};
use crate::types::{ByteRange, Offset};

/// The two forms of Content-Range that are spoken here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContentRange {
    /// `bytes a-b/t`: these bytes, of a file that now has t > b bytes at the client.
    Bytes {
        /// The bytes a..=b.
        range: ByteRange,
        /// t, at least the range's end.
        total: Offset,
    },
    /// `bytes */N`: no bytes; in a request a confirm of the prefix of N bytes, in a 416 the length.
    Length(Offset),
}

const BAD: BadHeader = BadHeader {
    header: "Content-Range",
    expected: "`bytes first-last/total` or `bytes */total`",
};

impl FromStr for ContentRange {
    type Err = BadHeader;

    fn from_str(text: &str) -> Result<Self, BadHeader> {
        parse(text).ok_or(BAD)
    }
}

fn parse(text: &str) -> Option<ContentRange> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let total = decimal_offset(total)?;
    if range == "*" {
        return Some(ContentRange::Length(total));
    }
    let (first, last) = range.split_once('-')?;
    let range = ByteRange::new(decimal_offset(first)?, decimal_offset(last)?.plus(1)?)?;
    (range.end() <= total).then_some(ContentRange::Bytes { range, total })
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes { range, total } => {
                write!(
                    f,
                    "bytes {}-{}/{total}",
                    range.start(),
                    range.end().minus(1)
                )
            }
            Self::Length(length) => write!(f, "bytes */{length}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms() {
        let range: ContentRange = "bytes 5-9/12".parse().unwrap();
        let bytes = ByteRange::new(Offset::new(5).unwrap(), Offset::new(10).unwrap()).unwrap();
        assert_eq!(
            range,
            ContentRange::Bytes {
                range: bytes,
                total: Offset::new(12).unwrap()
            }
        );
        assert_eq!(range.to_string(), "bytes 5-9/12");
        assert_eq!("bytes */0".parse(), Ok(ContentRange::Length(Offset::ZERO)));
    }

    #[test]
    fn refuses_everything_else() {
        for bad in [
            "",
            "bytes",
            "bytes 5-4/9",
            "bytes 0-9/5",
            "bytes 0-9/9",
            "bytes 0-9/*",
            "bytes */*",
            "lines 0-9/10",
            "bytes 0-1,2-3/9",
            "bytes +0-9/10",
            "bytes 0x0-9/10",
            "bytes  0-9/10",
            "bytes 0 - 9/10",
            "bytes 0-9/10 ",
            "bytes 0-9223372036854775807/9223372036854775808",
            "bytes 0-18446744073709551616/18446744073709551617",
            "bytes -9/10",
            "bytes 0-/10",
            "Bytes=0-9/10",
        ] {
            assert_eq!(bad.parse::<ContentRange>(), Err(BAD), "{bad:?}");
        }
    }
}
