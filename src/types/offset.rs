//! Positions in files, lengths, and stretches of bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_end_where_files_do() {
        assert_eq!(Offset::new(1 << 63), None);
        assert_eq!(Offset::new((1 << 63) - 1), Some(Offset::MAX));
        assert_eq!(Offset::MAX.plus(1), None);
        assert_eq!(Offset::ZERO.plus(u64::MAX), None);
    }
}
