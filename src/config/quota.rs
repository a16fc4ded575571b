//! How much may be kept for one client.

use super::error::Problem;
use super::fields::Fields;
use super::keys;

/// What one client may fill; `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Files.
    pub files: Option<u64>,
    /// Bytes in all of them.
    pub bytes: Option<u64>,
}

impl Quota {
    /// Whether it bounds anything.
    pub fn is_bound(self) -> bool {
        self != Self::default()
    }

    /// The same where it says something, else what `general` says.
    pub fn or(self, general: Self) -> Self {
        Self {
            files: self.files.or(general.files),
            bytes: self.bytes.or(general.bytes),
        }
    }
}

/// Reads the key `quota`.
pub(super) fn read(fields: &Fields<'_>) -> Result<Quota, Problem> {
    let Some(quota) = fields.mapping("quota", keys::QUOTA, "a `quota`")? else {
        return Ok(Quota::default());
    };
    let read = Quota {
        files: quota.integer("files", 1, u32::MAX.into())?,
        bytes: quota.size("bytes")?,
    };
    if read.bytes == Some(0) {
        return Err(quota.problem("bytes", "expected at least 1 byte"));
    }
    if !read.is_bound() {
        return Err(fields
            .problem("quota", "it bounds nothing")
            .hint("as in {files: 10000, bytes: 100GiB}"));
    }
    Ok(read)
}
