//! What both sides say to each other beyond plain HTTP/1.1 (RFC 9110, RFC 9112): parse and print,
//! for client and server alike. Pure; `fuzz/` feeds every parser here.
//!
//! The header names, and who sends them:
//!
//! | header | on | says |
//! |---|---|---|
//! | `Content-Range` | PUT, 416 | which bytes these are ([`ContentRange`]) |
//! | `If-Match`, `If-None-Match` | PUT | the prefix before the range ([`Condition`]) |
//! | `Repr-Digest` | PUT | the prefix after the append ([`ReprDigest`], RFC 9530) |
//! | `ETag` | answers about a file | the hash of what is vouched for ([`ETag`]) |
//! | `Shaftlog-Length` | answers about a file | the vouched length |
//! | `Shaftlog-Tail` | answers about a file with one | what lies behind it, unvouched ([`Tail`]) |
//! | `Shaftlog-Store` | every answer | which store in which boot at which commit ([`Stamp`]) |
//! | `Shaftlog-Seen` | heartbeat | the last stamp the client saw ([`Seen`]) |
//! | `Shaftlog-Kept` | its answer | `yes` when nothing it saw can have been lost, else `no` |
//! | `Shaftlog-Problem` | refusals | why, as one token ([`Problem`]) |

mod hash;
mod problem;
mod range;
mod stamp;

pub use hash::{Condition, ETag, ReprDigest, Tail};
pub use problem::Problem;
pub use range::ContentRange;
pub use stamp::{Seen, Stamp};

/// Header names of ours, in the lower case that HTTP libraries want.
pub mod header {
    /// See the module's table.
    pub const LENGTH: &str = "shaftlog-length";
    /// See the module's table.
    pub const TAIL: &str = "shaftlog-tail";
    /// See the module's table.
    pub const STORE: &str = "shaftlog-store";
    /// See the module's table.
    pub const SEEN: &str = "shaftlog-seen";
    /// See the module's table.
    pub const KEPT: &str = "shaftlog-kept";
    /// See the module's table.
    pub const PROBLEM: &str = "shaftlog-problem";
    /// RFC 9530.
    pub const REPR_DIGEST: &str = "repr-digest";
}

/// A header value that does not say what it must; the message says what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{header}: expected {expected}")]
pub struct BadHeader {
    /// Name of the header as it is usually written.
    pub header: &'static str,
    /// The form it must have.
    pub expected: &'static str,
}

/// A decimal number of at least one digit and nothing else: no sign, no space.
fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A decimal number that is an offset of a file.
pub fn decimal_offset(text: &str) -> Option<crate::types::Offset> {
    decimal(text).and_then(crate::types::Offset::new)
}
