//! Numbers and identities: of files, inodes, stores, runs of a server and its commits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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
