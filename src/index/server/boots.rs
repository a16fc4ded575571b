//! The runs of a server and the commits that each made: what tells a restart from a restore.

use std::collections::HashMap;
use std::ops::Bound;

use redb::ReadTransaction;

use super::rows::{BOOTS, BootRow};
use crate::index::error::Problem;
use crate::types::{BootId, CommitNumber};

/// The last commit of each earlier run. A restored index knows the runs up to its backup, and
/// those no further than they had come by then.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Boots {
    ends: HashMap<BootId, CommitNumber>,
}

impl Boots {
    /// Reads the runs before `present`.
    ///
    /// A damaged row makes all of them unknown, which costs each client one sweep; it is no
    /// reason not to start.
    pub(super) fn load(transaction: &ReadTransaction, present: BootId) -> Result<Self, Problem> {
        let mut runs: Vec<(CommitNumber, BootId)> = Vec::new();
        let visited =
            BOOTS
                .read(transaction)?
                .visit(Bound::Unbounded, |boot, BootRow { first, .. }| {
                    runs.push((first, boot));
                    Ok(true)
                });
        match visited {
            Err(damage @ Problem::Row { .. }) => {
                tracing::error!("clients will look at all their files again: {damage}");
                return Ok(Self::default());
            }
            visited => visited?,
        }
        runs.sort_unstable_by_key(|(first, _)| *first);
        let ends = runs
            .windows(2)
            .map(|pair| (pair[0].1, CommitNumber(pair[1].0.0.saturating_sub(1))))
            .filter(|(boot, _)| *boot != present)
            .collect();
        Ok(Self { ends })
    }

    /// The last commit of an earlier run; `None` for one that this index does not know.
    pub(super) fn end(&self, boot: BootId) -> Option<CommitNumber> {
        self.ends.get(&boot).copied()
    }
}
