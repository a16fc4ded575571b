//! What becomes of a file that does not hold what its row vouches for. Both verdicts are rows, so
//! they outlive the process, and both tell the clients to look again.
//!
//! * Shorter, and right as far as it goes: `regressed`. L is what is there, durably; what was
//!   vouched for stays as the high-water mark, and has to be reached again with its old hash.
//! * Anything else: `diverged`. The file takes nothing until an operator moves it aside.
//!
//! A crash before the commit leaves the old row, from which the same is found again.
//!
//! An index that is older than what a client has seen of it is told of as well: `server_restored`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::access::Peer;
use super::commit::{Epoch, Uncommitted};
use super::core::Core;
use super::files::{Claim, FileState};
use super::recover::{self, Trouble};
use crate::index::server::{ServerChange, ServerFile, ServerState};
use crate::index::{EventKind, NewEvent};
use crate::prefix::PrefixHasher;
use crate::sys::clock;
use crate::sys::file::FileStat;
use crate::types::{Prefix, PrefixHash, WirePath};
use crate::verify::hashes::Difference;
use crate::wire::Seen;

/// Makes the row say what is there: the bytes that `hasher` has seen, which are on stable storage,
/// of a file that is `stat` now, if it is there at all.
pub(super) fn regress(
    core: &Core,
    path: &WirePath,
    epoch: Epoch,
    row: &ServerFile,
    hasher: &PrefixHasher,
    stat: Option<&FileStat>,
) -> Result<ServerFile, Trouble> {
    let there = hasher.length();
    let was = row.vouched;
    let detail = match stat {
        None => format!("the file is gone, {} bytes were vouched for", was.length),
        Some(_) => format!("{there} bytes are there, {} were vouched for", was.length),
    };
    let mark = row.high_water.filter(|mark| mark.length > was.length);
    // Nobody has vouched for what `db rebuild` found.
    let is_unproven = row.state == ServerState::Unproven;
    let new = ServerFile {
        vouched: hasher.prefix(),
        hasher: hasher.state(),
        high_water: (!is_unproven).then_some(mark.unwrap_or(was)),
        footprint: stat.map_or(row.footprint, recover::footprint),
        state: if is_unproven {
            ServerState::Unproven
        } else {
            ServerState::Regressed
        },
        updated: clock::now(),
        ..row.clone()
    };
    record(core, path, epoch, &new, EventKind::Regressed, &detail)?;
    error!("{path}: {detail}; it goes on from there");
    Ok(new)
}

/// An empty file that was gone is there again, and looks like `stat`.
pub(super) fn made_again(
    core: &Core,
    path: &WirePath,
    epoch: Epoch,
    row: &ServerFile,
    stat: &FileStat,
) -> Result<ServerFile, Trouble> {
    let new = ServerFile {
        footprint: recover::footprint(stat),
        ..row.clone()
    };
    let detail = "the file, which was empty, was gone, and was made again";
    record(core, path, epoch, &new, EventKind::Refilled, detail)?;
    warn!("{path}: {detail}");
    Ok(new)
}

/// Freezes the file: the row keeps what was vouched for.
pub(super) fn diverge(
    core: &Core,
    path: &WirePath,
    epoch: Epoch,
    row: &ServerFile,
    detail: &str,
) -> Result<ServerFile, Trouble> {
    let new = ServerFile {
        state: ServerState::Diverged,
        updated: clock::now(),
        ..row.clone()
    };
    record(core, path, epoch, &new, EventKind::Diverged, detail)?;
    error!(
        "{path}: {detail}; nothing is written to it until `shaftlog quarantine {path}` has moved it aside"
    );
    Ok(new)
}

fn record(
    core: &Core,
    path: &WirePath,
    epoch: Epoch,
    row: &ServerFile,
    kind: EventKind,
    detail: &str,
) -> Result<(), Trouble> {
    let changes = vec![
        ServerChange::put(path.clone(), row.clone()),
        ServerChange::Event(NewEvent::now(kind, path.as_bytes(), detail)),
    ];
    core.commits
        .submit_and_wait(epoch, changes)
        .map_err(|_| Trouble::Busy("the index could not be written"))?;
    Ok(())
}

/// Records, once in a run of the server, that a client has seen more than this index has ever said.
/// Whatever else clients claim is no further evidence, and must not crowd out what is. Returns when
/// that is durable: told to look again, the client will not claim it a second time.
pub(super) async fn compare(core: &Arc<Core>, peer: &Peer, seen: &Seen) {
    if core.index.has_reached(seen) || core.is_known_restored.swap(true, Ordering::Relaxed) {
        return;
    }
    let detail = format!(
        "{peer} has seen commit {} of the run {}, of which this index does not know: it is older than it was, or another",
        seen.highest.0, seen.boot
    );
    warn!("{detail}; clients look at all of their files again");
    let event = NewEvent::now(EventKind::ServerRestored, b"", detail);
    let changes = vec![ServerChange::Event(event)];
    let core_after = Arc::clone(core);
    let (tell, told) = oneshot::channel();
    let done = Box::new(move |committed: Result<_, Uncommitted>| {
        if committed.is_err() {
            // Another client may tell it again.
            core_after.is_known_restored.store(false, Ordering::Relaxed);
        }
        // Nobody waits any more when the connection is gone.
        let _ = tell.send(());
    });
    core.commits.submit(core.commits.epoch(), changes, done);
    // An error: the committing thread is gone, and the server ends.
    let _ = told.await;
}

/// What differs, in words.
pub(super) fn in_words(difference: &Difference) -> String {
    let Difference {
        same,
        expected,
        found,
    } = difference;
    differs(
        &format!("between byte {same} and {}", expected.length),
        expected,
        *found,
    )
}

fn differs(place: &str, expected: &Prefix, found: PrefixHash) -> String {
    format!(
        "it differs {place}: the first {} bytes hash to {found}, not to {}",
        expected.length, expected.hash
    )
}

/// Before the prefix that `hasher` has seen becomes vouched for: if it reaches the high-water mark,
/// the bytes up to that have to be those of old. If they are not, the file is frozen.
pub(super) fn reach(core: &Core, claim: &mut Claim, hasher: &PrefixHasher) -> Result<(), Trouble> {
    let path = claim.path().clone();
    let state = claim.known()?;
    let Some((row, mark)) = reached(state, hasher) else {
        return Ok(());
    };
    let found = if mark.length == hasher.length() {
        hasher.hash()
    } else {
        recover::hash_at(core, state, mark.length)?.hash()
    };
    if found == mark.hash {
        info!("{path} holds all of its {} bytes again", mark.length);
        return Ok(());
    }
    let epoch = state.epoch;
    if claim.is_in_flight() {
        // The verdict must not overtake what was vouched for before: the next one tells.
        claim.state = None;
        return Err(Trouble::Busy("what it continues is not durable yet"));
    }
    let detail = differs("from what it was before it was found shorter", &mark, found);
    let row = diverge(core, &path, epoch, &row, &detail)?;
    let seen = recover::regular(core, &path)?;
    claim.state = Some(Box::new(FileState {
        row: Some(row),
        seen,
        ..FileState::absent(epoch)
    }));
    Err(Trouble::Diverged)
}

fn reached(state: &FileState, hasher: &PrefixHasher) -> Option<(ServerFile, Prefix)> {
    let row = state.row.as_ref()?;
    let mark = row.high_water?;
    (mark.length <= hasher.length()).then(|| (row.clone(), mark))
}

/// The change that tells that a row which was `old` has reached its mark.
pub(super) fn refilled(
    path: &WirePath,
    old: Option<&ServerFile>,
    new: &ServerFile,
) -> Option<ServerChange> {
    let mark = old?.high_water?;
    new.high_water.is_none().then(|| {
        let detail = format!(
            "its {} bytes are there again, with the old hash",
            mark.length
        );
        ServerChange::Event(NewEvent::now(EventKind::Refilled, path.as_bytes(), detail))
    })
}
