//! Files that the operator gives up: the row stays as evidence, the file goes.
//!
//! First the row is committed, then the file removed. A crash between leaves a retired row with its
//! file, which whoever looks at the path next removes, the stat pass at the latest.

use super::append_only;
use super::core::Core;
use super::recover::Trouble;
use crate::index::server::{ServerFile, ServerState};
use crate::sys::file::FileStat;
use crate::types::WirePath;

/// Whether this is the file of a retired row: not one that somebody else has put there since.
pub(super) fn is_left_over(row: &ServerFile, stat: Option<&FileStat>) -> bool {
    let is_its_own =
        |stat: &FileStat| stat.inode == row.footprint.inode && stat.size == row.vouched.length;
    row.state == ServerState::Retired && stat.is_some_and(is_its_own)
}

/// Removes the file of a retired row, durably.
pub(super) fn remove(core: &Core, path: &WirePath) -> Result<(), Trouble> {
    append_only::lift_of(core, path)?;
    core.dir.unlink(path.as_bytes())?;
    Ok(core.dir.sync_chain(path.as_bytes())?)
}
