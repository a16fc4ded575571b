//! The stat pass: after each start every row is compared with what its path is now, without
//! reading, newest first, in the background. What differs is marked, so that the heartbeat tells
//! the clients to look at their files again; a file that is shorter than its row or gone is
//! reported as when somebody asks for it. A longer file is what a crash of ours leaves, and is
//! hashed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::spawn_blocking;
use tracing::{debug, error, warn};

use super::commit::Uncommitted;
use super::core::Core;
use super::files::{Claim, Work};
use super::recover::{self, Trouble};
use super::retire;
use crate::index::IndexError;
use crate::index::server::{ServerChange, ServerFile};
use crate::limits::{PASS_NEWEST, PASS_ROWS, REOPEN_MAX};
use crate::sys::file::FileStat;
use crate::types::{Offset, WirePath};

/// Compares all of them.
pub(super) async fn pass(core: &Arc<Core>) {
    loop {
        let epoch = core.commits.epoch();
        match compare_all(core).await {
            Ok(0) => return,
            Ok(odd) => {
                return warn!(
                    "{odd} files do not look as they were left; clients are told to look at theirs"
                );
            }
            Err(Undone::Index(failure)) if failure.needs_reopen() => core.commits.reopen(epoch),
            Err(failure) => {
                return error!("not all files were compared with the index: {failure}");
            }
        }
        tokio::time::sleep(REOPEN_MAX).await;
    }
}

/// The newest rows first, newest to oldest, then all others by their paths; how many were marked.
async fn compare_all(core: &Arc<Core>) -> Result<usize, Undone> {
    let newest = blocking(core, newest).await?;
    let mut suspects = 0;
    for page in newest.chunks(PASS_ROWS) {
        let paths = page.iter().map(|(_, path)| path.clone()).collect();
        suspects += compare(core, paths).await?;
    }
    let oldest = newest.last().map(|(updated, _)| *updated);
    // A full list may have left something out.
    if let Some(oldest) = oldest.filter(|_| newest.len() == PASS_NEWEST) {
        suspects += compare_older(core, oldest).await?;
    }
    Ok(suspects)
}

/// All rows that are not newer than `until`, by their paths.
async fn compare_older(core: &Arc<Core>, until: Timestamp) -> Result<usize, Undone> {
    let (mut suspects, mut after) = (0, None::<Vec<u8>>);
    while !core.is_stopping() {
        let page = blocking(core, move |core| {
            core.index.survey_files(after.as_deref(), PASS_ROWS)
        })
        .await?;
        let Some(last) = page.last else { break };
        after = Some(last);
        let older = page
            .rows
            .into_iter()
            .filter(|(_, row)| row.updated <= until);
        suspects += compare(core, older.map(|(path, _)| path).collect()).await?;
    }
    Ok(suspects)
}

/// The paths of the newest rows, newest first, no more of them than memory allows.
fn newest(core: &Core) -> Result<Vec<(Timestamp, WirePath)>, IndexError> {
    let mut newest = BinaryHeap::new();
    let mut after: Option<Vec<u8>> = None;
    while !core.is_stopping() {
        let page = core.index.survey_files(after.as_deref(), PASS_ROWS)?;
        for damage in page.damaged {
            error!("a file is not compared with the index: {damage}");
        }
        let Some(last) = page.last else { break };
        after = Some(last);
        for (path, row) in page.rows {
            newest.push(Reverse((row.updated, path)));
            if newest.len() > PASS_NEWEST {
                newest.pop();
            }
        }
    }
    let sorted = newest.into_sorted_vec();
    Ok(sorted.into_iter().map(|Reverse(row)| row).collect())
}

/// Compares these rows with their files; how many differ in a way that only reading explains.
async fn compare(core: &Arc<Core>, paths: Vec<WirePath>) -> Result<usize, Undone> {
    let differing = blocking(core, move |core| {
        let differs = |path: &WirePath| Ok(found(core, path)? != Found::AsLeft);
        let mut differing = Vec::new();
        for path in paths {
            if !core.is_stopping() && differs(&path)? {
                differing.push(path);
            }
        }
        Ok::<_, IndexError>(differing)
    })
    .await?;
    let mut suspects = 0;
    for path in differing {
        // Whoever holds the path looks, or has looked, for himself.
        let Ok(claim) = core.files.claim(&path, Work::Looking).await else {
            continue;
        };
        suspects += usize::from(blocking(core, move |core| examine(core, claim)).await?);
    }
    if suspects > 0 {
        suspect(core).await;
    }
    Ok(suspects)
}

/// How a path stands against its row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// As this server left it, or nothing that could be missed.
    AsLeft,
    /// Shorter, gone, or longer as a crash leaves it: to be looked at like for a request.
    Plain,
    /// Another inode or other times: perhaps restored, perhaps changed.
    Odd,
}

fn found(core: &Core, path: &WirePath) -> Result<Found, IndexError> {
    let Some(row) = core.index.file(path)? else {
        return Ok(Found::AsLeft);
    };
    Ok(match recover::regular(core, path) {
        Ok(stat) => judge(&row, stat.as_ref()),
        Err(Trouble::Path(_)) => Found::Odd,
        Err(trouble) => {
            debug!("{path}: {trouble}");
            Found::AsLeft
        }
    })
}

fn judge(row: &ServerFile, stat: Option<&FileStat>) -> Found {
    let length = row.vouched.length;
    match stat {
        // To be removed.
        _ if retire::is_left_over(row, stat) => Found::Plain,
        _ if row.state.is_frozen() => Found::AsLeft,
        None if length == Offset::ZERO && !recover::is_whole_without_bytes(row) => Found::AsLeft,
        None => Found::Plain,
        Some(stat) if stat.size < length => Found::Plain,
        Some(stat) if stat.size > length && stat.inode == row.footprint.inode => Found::Plain,
        Some(stat) if stat.size == length && recover::footprint(stat) == row.footprint => {
            Found::AsLeft
        }
        Some(_) => Found::Odd,
    }
}

/// Once more, with the claim in hand: nobody appends meanwhile. Whether it is to be marked.
fn examine(core: &Core, mut claim: Claim) -> Result<bool, IndexError> {
    let stat = recover::regular(core, claim.path()).ok().flatten();
    let known = claim.state.as_deref();
    if known.is_some_and(|state| state.is_as_seen(stat.as_ref())) {
        // Looked at already, by a request.
        return Ok(false);
    }
    let found = found(core, claim.path())?;
    if found == Found::Plain
        && let Err(trouble) = recover::look(core, &mut claim)
    {
        // What is wrong with the file is reported already.
        debug!("{}: {trouble}", claim.path());
    }
    Ok(found == Found::Odd)
}

/// Has it committed that clients have to look again, however often the index fails.
async fn suspect(core: &Arc<Core>) {
    let commit = |core: &Core| {
        let epoch = core.commits.epoch();
        let changes = vec![ServerChange::Suspect];
        core.commits.submit_and_wait(epoch, changes)
    };
    while !core.is_stopping() && blocking(core, commit).await.is_err() {
        tokio::time::sleep(REOPEN_MAX).await;
    }
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undone {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Commit(#[from] Uncommitted),
    #[error("it was given up")]
    GivenUp,
}

/// Does `work` where it may block.
pub(super) async fn blocking<T, E>(
    core: &Arc<Core>,
    work: impl FnOnce(&Core) -> Result<T, E> + Send + 'static,
) -> Result<T, Undone>
where
    T: Send + 'static,
    E: Into<Undone> + Send + 'static,
{
    let core = Arc::clone(core);
    let done = spawn_blocking(move || work(&core)).await;
    done.map_err(|_| Undone::GivenUp)?.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::server::{Footprint, ServerState};
    use crate::prefix::PrefixHasher;
    use crate::types::{FileId, Inode};

    const INODE: Inode = Inode {
        number: 7,
        born: Some(1),
    };

    fn row(length: usize) -> ServerFile {
        let mut hasher = PrefixHasher::new();
        hasher.update(&vec![b'x'; length]);
        ServerFile {
            id: FileId(1),
            vouched: hasher.prefix(),
            hasher: hasher.state(),
            high_water: None,
            footprint: Footprint {
                inode: INODE,
                mtime_ns: 10,
                ctime_ns: 20,
            },
            writer: String::new(),
            state: ServerState::Vouched,
            conditional: true,
            updated: Timestamp::UNIX_EPOCH,
        }
    }

    fn stat(size: u64) -> FileStat {
        FileStat::regular(INODE, Offset::new(size).unwrap(), 10, 20)
    }

    #[test]
    fn what_differs_is_told_from_what_a_crash_leaves() {
        let other = Inode { number: 8, ..INODE };
        for (found, stat) in [
            (Found::AsLeft, Some(stat(5))),
            (Found::Plain, Some(stat(4))),
            (Found::Plain, Some(stat(6))),
            (Found::Plain, None),
            (
                Found::Odd,
                Some(FileStat {
                    mtime: 11,
                    ..stat(5)
                }),
            ),
            (
                Found::Odd,
                Some(FileStat {
                    ctime: 21,
                    ..stat(5)
                }),
            ),
            (
                Found::Odd,
                Some(FileStat {
                    inode: other,
                    ..stat(5)
                }),
            ),
            (
                Found::Odd,
                Some(FileStat {
                    inode: other,
                    ..stat(6)
                }),
            ),
        ] {
            assert_eq!(judge(&row(5), stat.as_ref()), found, "{stat:?}");
        }
    }

    #[test]
    fn what_is_known_to_be_gone_is_no_news() {
        let emptied = ServerFile {
            high_water: Some(row(5).vouched),
            ..row(0)
        };
        assert_eq!(judge(&emptied, None), Found::AsLeft);
        assert_eq!(judge(&row(0), None), Found::Plain, "it is made again");
        for state in [ServerState::Retired, ServerState::Diverged] {
            let row = ServerFile { state, ..row(5) };
            assert_eq!(judge(&row, None), Found::AsLeft);
            assert_eq!(judge(&row, Some(&stat(3))), Found::AsLeft);
        }
    }
}
