//! The append-only flag of files that have been quiet (`append_only`): then nobody, root included,
//! can change, shorten, remove or rename them by mistake. An append needs no lift. What has to cut,
//! move or remove a file lifts it first, with an event, whether or not the setting is on: a run before
//! may have set it.
//!
//! The flag changes the ctime, so the row's footprint is written anew under the same claim. A crash
//! between costs one hashing of the file; a flag that is missing is set at the next walk.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::core::Core;
use super::data::DataFile;
use super::files::{Claim, Work};
use super::pass::{Undone, blocking};
use super::recover::{self, Trouble};
use crate::index::server::{ServerChange, ServerFile, ServerState};
use crate::index::{EventKind, IndexError, NewEvent};
use crate::limits::{APPEND_ONLY_WALK, PASS_ROWS};
use crate::sys::dir::Access;
use crate::sys::file::{self, File, FileStat};
use crate::sys::{clock, host};
use crate::types::{Offset, WirePath};

/// Lifts the flag of an open file, if it is set.
pub(super) fn lift(core: &Core, path: &WirePath, file: &File) -> io::Result<()> {
    // Where nothing can be asked of it, there is none.
    if !file::is_append_only(file).unwrap_or(false) {
        return Ok(());
    }
    file::set_append_only(file, false).inspect_err(|failure| {
        let words = format!("it is append-only, and the flag cannot be lifted: {failure}");
        if core.told.is_news(path, &words) {
            warn!("{path}: {words}; see `append_only`, or use chattr -a");
        }
    })?;
    info!("{path} is no longer append-only: it has to be cut, moved or removed");
    // Always the same words, so that repeats are one event that counts.
    let detail = "it had to be cut, moved or removed";
    let event = NewEvent::now(EventKind::AppendOnlyLifted, path.as_bytes(), detail);
    let changes = vec![ServerChange::Event(event)];
    core.commits
        .submit(core.commits.epoch(), changes, Box::new(|_| ()));
    Ok(())
}

/// The same for whatever `path` names; nothing when it cannot be opened, which then shows in what it
/// was to be lifted for.
pub(super) fn lift_of(core: &Core, path: &WirePath) -> io::Result<()> {
    let open = || core.dir.open_file(path.as_bytes(), Access::Read);
    match recover::with_descriptors(core, open) {
        Ok(file) => lift(core, path, &file),
        Err(_) => Ok(()),
    }
}

/// Cuts a file off at `end`, whatever flag it has.
pub(super) fn cut(core: &Core, path: &WirePath, file: &DataFile, end: Offset) -> io::Result<()> {
    lift(core, path, file)?;
    file.cut(end)
}

/// Sets the flag of files that have been quiet, for ever. What is under way when this is dropped ends
/// by itself.
pub(super) async fn run(core: Arc<Core>) {
    if let Some(after) = core.rules.append_only {
        let mut walk = Walk {
            core: Arc::clone(&core),
            after,
            told: false,
            is_allowed: true,
        };
        while walk.is_allowed {
            if let Err(undone) = walk.walk().await {
                debug!("not all quiet files were made append-only: {undone}");
            }
            sleep(APPEND_ONLY_WALK).await;
        }
    }
    std::future::pending::<()>().await;
}

struct Walk {
    core: Arc<Core>,
    after: Duration,
    /// Whether it was said that a flag cannot be set: once a run.
    told: bool,
    /// Whether this process may set it at all.
    is_allowed: bool,
}

impl Walk {
    /// Looks at every row once.
    async fn walk(&mut self) -> Result<(), Undone> {
        let (after, mut last) = (self.after, None::<Vec<u8>>);
        while self.is_allowed && !self.core.is_stopping() {
            let page = blocking(&self.core, move |core| {
                core.index.survey_files(last.as_deref(), PASS_ROWS)
            });
            let page = page.await?;
            let Some(next) = page.last else { break };
            last = Some(next);
            let quiet = blocking(&self.core, move |core| {
                let rows = page.rows.into_iter();
                let looked = rows.map(|(path, row)| {
                    let found = quiet(core, &path, &row, after);
                    (path, found.map(|found| found.is_some()))
                });
                Ok::<_, IndexError>(looked.collect::<Vec<_>>())
            });
            for (path, found) in quiet.await? {
                match found {
                    Ok(true) => self.set(path).await?,
                    Ok(false) => {}
                    Err(why) => self.tell(&path, why),
                }
            }
        }
        Ok(())
    }

    /// Whoever works on the file now leaves it as it is.
    async fn set(&mut self, path: WirePath) -> Result<(), Undone> {
        let Ok(claim) = self.core.files.claim(&path, Work::Looking).await else {
            return Ok(());
        };
        let after = self.after;
        let set = blocking(&self.core, move |core| {
            Ok::<_, IndexError>(set(core, claim, after))
        });
        if let Err(why) = set.await? {
            self.tell(&path, why);
        }
        Ok(())
    }

    fn tell(&mut self, path: &WirePath, why: Unset) {
        match why {
            Unset::Flag(failure) => {
                // With the capability it is this one file that cannot be flagged.
                self.is_allowed &= failure.kind() != io::ErrorKind::PermissionDenied
                    || host::may_flag_append_only();
                if !std::mem::replace(&mut self.told, true) {
                    warn!(
                        "{path} cannot be made append-only: {failure}; `append_only` needs \
                         CAP_LINUX_IMMUTABLE and a filesystem with that flag, such as ext4, XFS or \
                         Btrfs"
                    );
                }
            }
            Unset::Trouble(trouble) => debug!("{path} is not made append-only: {trouble}"),
        }
    }
}

/// Why a file was not made append-only.
#[derive(Debug)]
enum Unset {
    /// The kernel knows or allows no flag there.
    Flag(io::Error),
    /// The file is not to be had.
    Trouble(Trouble),
}

impl<E: Into<Trouble>> From<E> for Unset {
    fn from(error: E) -> Self {
        Self::Trouble(error.into())
    }
}

/// The file of a row, if it is quiet and without the flag.
fn quiet(
    core: &Core,
    path: &WirePath,
    row: &ServerFile,
    after: Duration,
) -> Result<Option<(File, FileStat)>, Unset> {
    let Some(seen) = recover::regular(core, path)? else {
        return Ok(None);
    };
    if !is_due(row, &seen, clock::now(), after) {
        return Ok(None);
    }
    let open = || core.dir.open_file(path.as_bytes(), Access::Read);
    let file = recover::with_descriptors(core, open)?;
    let stat = file::stat(&file)?;
    let is_set = file::is_append_only(&file).map_err(Unset::Flag)?;
    Ok((stat.inode == seen.inode && !is_set).then_some((file, seen)))
}

/// Whether a file is all that its row vouches for, as this server left it, and has not been written
/// to for so long.
fn is_due(row: &ServerFile, stat: &FileStat, now: Timestamp, after: Duration) -> bool {
    let age = now.as_nanosecond() - i128::from(stat.mtime);
    row.state == ServerState::Vouched
        && row.vouched.length > Offset::ZERO
        && stat.size == row.vouched.length
        && recover::footprint(stat) == row.footprint
        // Another name of it is somebody else's.
        && stat.links == 1
        && u128::try_from(age).is_ok_and(|age| age >= after.as_nanos())
}

/// Sets the flag of a file that is still quiet, and has its row remember how it looks now: the claim
/// ends when that is committed.
fn set(core: &Core, mut claim: Claim, after: Duration) -> Result<(), Unset> {
    let epoch = core.commits.epoch();
    let path = claim.path().clone();
    let Some(mut row) = core.index.file(&path)? else {
        return Ok(());
    };
    let Some((file, before)) = quiet(core, &path, &row, after)? else {
        return Ok(());
    };
    // Whoever comes next derives it from the new row.
    claim.state = None;
    file::set_append_only(&file, true).map_err(Unset::Flag)?;
    let now = file::stat(&file)?;
    if (now.size, now.mtime) != (before.size, before.mtime) {
        // Somebody was faster; whoever comes next sees that by the footprint.
        return Ok(());
    }
    row.footprint = recover::footprint(&now);
    let change = ServerChange::put(path, row);
    // Should it fail, the file is hashed once more.
    let done = Box::new(move |_| drop(claim));
    core.commits.submit(epoch, vec![change], done);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix::PrefixHasher;
    use crate::types::{FileId, Inode};

    const MINUTE: i64 = 60_000_000_000;

    fn stat() -> FileStat {
        let inode = Inode {
            number: 7,
            born: None,
        };
        FileStat::regular(inode, Offset::new(5).unwrap(), 10 * MINUTE, 11 * MINUTE)
    }

    fn row(bytes: &[u8], state: ServerState) -> ServerFile {
        let mut hasher = PrefixHasher::new();
        hasher.update(bytes);
        ServerFile {
            id: FileId(1),
            vouched: hasher.prefix(),
            hasher: hasher.state(),
            high_water: None,
            footprint: recover::footprint(&stat()),
            writer: String::new(),
            state,
            conditional: true,
            updated: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn only_what_is_in_order_and_quiet_becomes_append_only() {
        let at = |minute: i64| Timestamp::from_nanosecond((minute * MINUTE).into()).unwrap();
        let due = |row: &ServerFile, stat: FileStat, now| {
            is_due(row, &stat, at(now), Duration::from_secs(600))
        };
        let vouched = row(b"12345", ServerState::Vouched);
        assert!(due(&vouched, stat(), 20));
        assert!(!due(&vouched, stat(), 19), "it was written to lately");
        assert!(!due(&vouched, stat(), 9), "the clock was set back");
        for state in [
            ServerState::Unproven,
            ServerState::Regressed,
            ServerState::Diverged,
            ServerState::Retired,
        ] {
            assert!(!due(&row(b"12345", state), stat(), 20), "{state:?}");
        }
        let shorter = row(b"1234", ServerState::Vouched);
        assert!(!due(&shorter, stat(), 20), "it has a tail");
        for odd in [
            FileStat { links: 2, ..stat() },
            FileStat { ctime: 0, ..stat() },
            FileStat { mtime: 0, ..stat() },
        ] {
            assert!(!due(&vouched, odd, 20), "{odd:?}");
        }
    }
}
