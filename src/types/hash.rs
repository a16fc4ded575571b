//! Prefixes of files and their hashes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Offset;

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
