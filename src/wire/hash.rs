//! The headers that carry prefix hashes: entity tags and conditions (RFC 9110 sections 8.8.3 and
//! 13.1), Repr-Digest (RFC 9530 section 3) and our tail.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{BadHeader, decimal_offset};
use crate::types::{Offset, Prefix, PrefixHash};

/// `"blake3:<64 hex>"`, quotes included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ETag(pub PrefixHash);

impl FromStr for ETag {
    type Err = BadHeader;

    fn from_str(text: &str) -> Result<Self, BadHeader> {
        text.strip_prefix("\"blake3:")
            .and_then(|rest| rest.strip_suffix('"'))
            .and_then(|hex| hex.parse().ok())
            .map(Self)
            .ok_or(BadHeader {
                header: "ETag",
                expected: "\"blake3:<64 lower-case hex digits>\"",
            })
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"blake3:{}\"", self.0)
    }
}

/// What a PUT demands of the prefix before its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// `If-Match: "blake3:H"`: that prefix hashes to H.
    Prefix(PrefixHash),
    /// `If-None-Match: *`: nothing is vouched for yet.
    Nothing,
}

impl Condition {
    /// The condition that a request's two headers make; both at once are refused.
    pub fn parse(
        if_match: Option<&str>,
        if_none_match: Option<&str>,
    ) -> Result<Option<Self>, BadHeader> {
        match (if_match, if_none_match) {
            (None, None) => Ok(None),
            (Some(tag), None) => match tag.parse() {
                Ok(ETag(hash)) => Ok(Some(Self::Prefix(hash))),
                Err(BadHeader { expected, .. }) => Err(BadHeader {
                    header: "If-Match",
                    expected,
                }),
            },
            (None, Some("*")) => Ok(Some(Self::Nothing)),
            (None, Some(_)) => Err(BadHeader {
                header: "If-None-Match",
                expected: "`*`",
            }),
            (Some(_), Some(_)) => Err(BadHeader {
                header: "If-None-Match",
                expected: "either this header or If-Match, not both",
            }),
        }
    }

    /// That the prefix before the range is exactly this.
    pub fn of(prefix: Prefix) -> Self {
        match prefix.length {
            Offset::ZERO => Self::Nothing,
            _ => Self::Prefix(prefix.hash),
        }
    }

    /// Name and value of the header that says this.
    pub fn header(&self) -> (&'static str, String) {
        match self {
            Self::Prefix(hash) => ("if-match", ETag(*hash).to_string()),
            Self::Nothing => ("if-none-match", "*".to_owned()),
        }
    }
}

/// `blake3=:<base64>:`, the prefix hash after the append (RFC 9530; the value is an RFC 8941
/// dictionary with that one member).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReprDigest(pub PrefixHash);

impl FromStr for ReprDigest {
    type Err = BadHeader;

    fn from_str(text: &str) -> Result<Self, BadHeader> {
        text.strip_prefix("blake3=:")
            .and_then(|rest| rest.strip_suffix(':'))
            .and_then(|base64| STANDARD.decode(base64).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .map(|hash| Self(PrefixHash(hash)))
            .ok_or(BadHeader {
                header: "Repr-Digest",
                expected: "`blake3=:<base64 of the 32-byte prefix hash>:`",
            })
    }
}

impl fmt::Display for ReprDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3=:{}:", STANDARD.encode(self.0.0))
    }
}

/// `S; "blake3:H(S)"`, or `S` while the hash is unknown: the bytes up to S lie on the server's
/// disk but were never vouched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tail {
    /// S, the size on disk.
    pub size: Offset,
    /// H(S), if it is known.
    pub hash: Option<PrefixHash>,
}

impl FromStr for Tail {
    type Err = BadHeader;

    fn from_str(text: &str) -> Result<Self, BadHeader> {
        let parse = || match text.split_once("; ") {
            None => Some(Self {
                size: decimal_offset(text)?,
                hash: None,
            }),
            Some((size, tag)) => {
                let ETag(hash) = tag.parse().ok()?;
                Some(Self {
                    size: decimal_offset(size)?,
                    hash: Some(hash),
                })
            }
        };
        parse().ok_or(BadHeader {
            header: "Shaftlog-Tail",
            expected: "`size` or `size; \"blake3:<64 hex digits>\"`",
        })
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hash {
            Some(hash) => write!(f, "{}; {}", self.size, ETag(hash)),
            None => self.size.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn tags_are_strong_quoted_and_lower_case() {
        let tag: ETag = format!("\"blake3:{HEX}\"").parse().unwrap();
        assert_eq!(tag.0, PrefixHash::of_nothing());
        assert_eq!(tag.to_string(), format!("\"blake3:{HEX}\""));
        for bad in [
            format!("blake3:{HEX}"),
            format!("W/\"blake3:{HEX}\""),
            format!("\"blake3:{}\"", HEX.to_uppercase()),
            format!("\"blake3:{}\"", &HEX[1..]),
            format!("\"blake3:{HEX}\", \"x\""),
            "*".to_owned(),
        ] {
            assert!(bad.parse::<ETag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_request_has_one_condition_or_none() {
        let tag = format!("\"blake3:{HEX}\"");
        assert_eq!(Condition::parse(None, None), Ok(None));
        assert_eq!(
            Condition::parse(None, Some("*")),
            Ok(Some(Condition::Nothing))
        );
        assert!(matches!(
            Condition::parse(Some(&tag), None),
            Ok(Some(Condition::Prefix(_)))
        ));
        assert!(Condition::parse(Some(&tag), Some("*")).is_err());
        assert!(Condition::parse(None, Some(&tag)).is_err());
    }

    #[test]
    fn digests_survive() {
        let digest = ReprDigest(PrefixHash::of_nothing());
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for bad in [
            "sha-256=:AAAA:",
            "blake3=:AAAA:",
            "blake3=AAAA",
            "blake3=:AAAA",
        ] {
            assert!(bad.parse::<ReprDigest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tails_survive() {
        for hash in [None, Some(PrefixHash::of_nothing())] {
            let tail = Tail {
                size: Offset::new(7).unwrap(),
                hash,
            };
            assert_eq!(tail.to_string().parse(), Ok(tail));
        }
    }
}
