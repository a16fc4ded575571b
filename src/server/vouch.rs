//! The way by which a length becomes vouched, whoever asked for it: fdatasync of the file and, when
//! it is new, fsync of the directories on the way to it; a look at the path; commit; answer.
//!
//! What a crash leaves: before the commit, bytes behind L that are a tail to whoever comes next;
//! after it, all of it. An error of the fdatasync is never retried, since the next one would
//! succeed over lost pages: all that was known of the file is derived again from what the disk has.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::warn;

use super::answer::Answer;
use super::core::Core;
use super::files::{Claim, FileState};
use super::recover::{self, Trouble};
use super::reply::Reply;
use crate::index::server::{ServerChange, ServerFile, ServerState};
use crate::index::{EventKind, NewEvent};
use crate::prefix::PrefixHasher;
use crate::sys::clock;
use crate::sys::file::{self, FileStat};
use crate::types::{Offset, WirePath};
use crate::wire::Problem;

/// What is to be vouched for.
#[derive(Clone)]
pub(crate) struct Vouching {
    /// The hasher at the new L.
    pub(crate) hasher: PrefixHasher,
    /// S: what this process has made the file's size.
    pub(crate) size: Offset,
    /// How the path stands then.
    pub(crate) state: ServerState,
    /// Whether the row now says that the path was written conditionally.
    pub(crate) conditional: bool,
    /// Whether this request made the row or the file.
    pub(crate) creates: bool,
    /// Whether bytes of a tail are among what becomes vouched for.
    pub(crate) adopts: bool,
    /// Whose request.
    pub(crate) writer: String,
}

/// Makes it durable, has it committed and answers. Blocks until the change waits for its commit.
pub(crate) fn vouch(core: &Arc<Core>, mut claim: Claim, vouching: Vouching, reply: Reply) {
    let Some(mut state) = claim.state.take() else {
        return reply.send(Answer::refusal(Problem::Busy, "the file is unknown"));
    };
    let stat = match make_durable(core, claim.path(), &state, &vouching) {
        Ok(stat) => stat,
        Err(trouble) => {
            drop(claim);
            return reply.send(trouble.to_put());
        }
    };
    let row = row(core, &state, &vouching, &stat);
    let changes = changes(claim.path(), &row, vouching.adopts);
    let core_after = Arc::clone(core);
    let epoch = state.epoch;
    let done = move |committed: Result<_, _>| {
        if committed.is_err() {
            drop(claim);
            let answer = Answer::refusal(Problem::Store, "the index could not be written");
            return reply.send(answer);
        }
        let gained = row.vouched.length.since(state.length());
        let traffic = &core_after.traffic;
        traffic.appends.fetch_add(1, Ordering::Relaxed);
        traffic.bytes.fetch_add(gained, Ordering::Relaxed);
        advance(&mut state, row, vouching.hasher, stat);
        let answer = Answer::done(vouching.creates).about(Some(state.shown()));
        claim.state = Some(state);
        // First the path is free, then the client learns of it.
        drop(claim);
        reply.send(answer);
    };
    core.commits.submit(epoch, changes, Box::new(done));
}

/// The same without an answer: waits for the commit, and the claim goes on from it.
pub(crate) fn vouch_and_wait(
    core: &Core,
    claim: &mut Claim,
    vouching: Vouching,
) -> Result<(), Trouble> {
    let path = claim.path().clone();
    let state = claim.known()?;
    let stat = make_durable(core, &path, state, &vouching)?;
    let row = row(core, state, &vouching, &stat);
    let changes = changes(&path, &row, vouching.adopts);
    core.commits
        .submit_and_wait(state.epoch, changes)
        .map_err(|_| Trouble::Busy("the index could not be written"))?;
    advance(state, row, vouching.hasher, stat);
    Ok(())
}

/// fdatasync, then the path still has to name the file that was written, and nothing else's.
fn make_durable(
    core: &Core,
    path: &WirePath,
    state: &FileState,
    vouching: &Vouching,
) -> Result<FileStat, Trouble> {
    let Some(open) = &state.file else {
        return Err(Trouble::Busy("the file is gone"));
    };
    // Directories meanwhile: neither sync waits for the other.
    let is_new = state.row.is_none() || vouching.creates;
    let way = is_new.then(|| core.ways.sync(path));
    recover::sync(core, path, state.epoch, open)?;
    if let Some(way) = way {
        way.wait()?;
    }
    let ours = file::stat(open)?;
    let stat = recover::regular(core, path)?
        .filter(|stat| stat.inode == ours.inode && stat.links > 0 && stat.size == vouching.size);
    let Some(stat) = stat else {
        warn!("{path} was moved, replaced or changed while it was written: not acknowledged");
        return Err(Trouble::Busy("the file was moved or changed meanwhile"));
    };
    Ok(stat)
}

fn row(core: &Core, state: &FileState, vouching: &Vouching, stat: &FileStat) -> ServerFile {
    let old = state.row.as_ref();
    let vouched = vouching.hasher.prefix();
    ServerFile {
        id: old.map_or_else(|| core.index.allocate(), |old| old.id),
        vouched,
        hasher: vouching.hasher.state(),
        high_water: old
            .and_then(|old| old.high_water)
            .filter(|mark| mark.length > vouched.length),
        footprint: recover::footprint(stat),
        writer: vouching.writer.clone(),
        state: vouching.state,
        conditional: vouching.conditional,
        updated: clock::now(),
    }
}

fn changes(path: &WirePath, row: &ServerFile, adopts: bool) -> Vec<ServerChange> {
    let mut changes = vec![ServerChange::put(path.clone(), row.clone())];
    if adopts {
        // Always the same words, so that a bad line is one event that counts.
        let detail = "bytes that were received but not acknowledged were proven and kept";
        let event = NewEvent::now(EventKind::TailAdopted, path.as_bytes(), detail);
        changes.push(ServerChange::Event(event));
    }
    changes
}

/// What is known after the commit.
fn advance(state: &mut FileState, row: ServerFile, hasher: PrefixHasher, stat: FileStat) {
    let shrinks = hasher.length() < state.length();
    state.row = Some(row);
    state.seen = Some(stat);
    state.vouched = hasher;
    let (length, size) = (state.length(), state.size());
    state
        .ahead
        .retain(|kept| kept.length() > length && kept.length() <= size && !shrinks);
    state.asked.retain(|prefix| prefix.length < length);
}
