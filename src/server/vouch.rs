//! The way by which a length becomes vouched, whoever asked for it: fdatasync of the file; a look at
//! the path; fsync of the directories on the way to it when it is new; commit; answer.
//!
//! What a crash leaves: before the commit, bytes behind L that are a tail to whoever comes next;
//! after it, all of it. An error of the fdatasync is never retried, since the next one would
//! succeed over lost pages: all that was known of the file is derived again from what the disk has.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::warn;

use super::answer::Answer;
use super::commit::{Epoch, Uncommitted};
use super::core::Core;
use super::data::DataFile;
use super::evidence;
use super::files::{Claim, Entry, FileState, Shown};
use super::flight::Flight;
use super::quarantine;
use super::quota::{self, Hold};
use super::recover::{self, Trouble};
use super::reply::Reply;
use crate::index::server::{ServerChange, ServerFile, ServerState};
use crate::index::{EventKind, NewEvent};
use crate::limits::IO_CHUNK;
use crate::prefix::PrefixHasher;
use crate::sys::clock;
use crate::sys::file::{self, FileStat};
use crate::types::{ByteRange, Offset, WirePath};

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

/// Makes it durable, has it committed and answers. Blocks until the change waits for its commit, or
/// another landing of the path is before it. Meanwhile the path goes to the PUT that continues this
/// one.
pub(crate) fn vouch(
    core: &Arc<Core>,
    mut claim: Claim,
    vouching: Vouching,
    hold: Hold,
    reply: Reply,
) {
    if let Err(trouble) = evidence::reach(core, &mut claim, &vouching.hasher) {
        let answer = trouble.to_put().about(claim.shown());
        drop(claim);
        return reply.send(answer);
    }
    let start = claim.hand_over(|entry, slot, state| {
        let state = match &slot.flight {
            Some(flight) if flight.has_failed() => None,
            _ => state,
        };
        let Some(mut state) = state else {
            slot.keep_state(None);
            return Err((
                Trouble::Busy("what it continues could not be made durable"),
                reply,
            ));
        };
        let landing = Landing::new(core, entry, &mut state, vouching, hold, reply)
            .inspect_err(|_| slot.keep_state(None))?;
        let end = state.length();
        slot.state = Some(state);
        let flight = slot.flight.get_or_insert_default();
        Ok(flight.add(landing, end))
    });
    match start {
        Ok(Some(landing)) => landing.land(core),
        Ok(None) => {}
        Err((trouble, reply)) => reply.send(trouble.to_put()),
    }
}

/// The same for less than the file has, without an answer, at once: the bytes of `rest`, behind it,
/// go into quarantine. Waits for the commit, and the claim goes on from it.
///
/// Row and copy are committed together, and before the cut: a crash never leaves fewer bytes than
/// are vouched for, nor a life of the path that nothing tells of. The name of the copy.
pub(crate) fn vouch_and_cut(
    core: &Core,
    claim: &mut Claim,
    vouching: Vouching,
    rest: ByteRange,
    why: &str,
) -> Result<String, Trouble> {
    let path = claim.path().clone();
    let state = claim.known()?;
    let stat = written(core, &path, state, vouching.size)?;
    let row = row(core, state, &vouching, &stat);
    let file = state.file.clone();
    let file = file.ok_or(Trouble::Busy("the file is gone"))?;
    make_durable(core, &path, state.epoch, &file)?;
    core.dir.sync_chain(path.as_bytes())?;
    let cut = Vouching {
        size: rest.start(),
        ..vouching.clone()
    };
    let mut changes = changes(core, &path, state.row.as_ref(), &row, &cut);
    let ended = state.row.as_ref().filter(|old| old.id != row.id);
    let name = quarantine::set_aside_with(core, &path, &file, rest, why, ended, |copied| {
        changes.extend(copied);
        core.commits.submit_and_wait(state.epoch, changes)
    })?;
    advance(state, row, vouching.hasher, stat);
    Ok(name)
}

/// Bytes that are written, and the row that vouches for them, on their way to being durable. One that
/// is dropped on that way (somebody panicked) has failed: its path must not stay busy.
#[derive(Debug)]
pub(super) struct Landing {
    entry: Arc<Entry>,
    file: Arc<DataFile>,
    epoch: Epoch,
    changes: Vec<ServerChange>,
    is_new: bool,
    /// What is known after the commit.
    shown: Shown,
    gained: u64,
    /// The answer if all goes well, what is held of a quota until then, and who waits; `None` once
    /// that is answered.
    waiting: Option<(Answer, Hold, Reply)>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.fail(&Trouble::Busy("it was broken off before it was durable"));
    }
}

impl Landing {
    /// What has to be done for `vouching`; `state` is then what it will be.
    fn new(
        core: &Core,
        entry: &Arc<Entry>,
        state: &mut FileState,
        vouching: Vouching,
        hold: Hold,
        reply: Reply,
    ) -> Result<Self, (Trouble, Reply)> {
        let prepared = written(core, entry.path(), state, vouching.size).and_then(|stat| {
            let file = state.file.clone();
            Ok((stat, file.ok_or(Trouble::Busy("the file is gone"))?))
        });
        let (stat, file) = match prepared {
            Ok(prepared) => prepared,
            Err(trouble) => return Err((trouble, reply)),
        };
        let row = row(core, state, &vouching, &stat);
        let is_new = state.row.is_none() || vouching.creates;
        let gained = row.vouched.length.since(state.length());
        let old = state.row.as_ref();
        let changes = changes(core, entry.path(), old, &row, &vouching);
        advance(state, row, vouching.hasher, stat);
        Ok(Self {
            entry: Arc::clone(entry),
            file,
            epoch: state.epoch,
            changes,
            is_new,
            shown: state.shown(),
            gained,
            waiting: Some((
                Answer::done(vouching.creates).about(Some(state.shown())),
                hold,
                reply,
            )),
        })
    }

    /// See [`vouch`].
    fn land(mut self, core: &Arc<Core>) {
        let path = self.entry.path().clone();
        // A small one is durable soon: whoever is before it at the commit waits for it.
        let expected = (self.gained <= IO_CHUNK as u64).then(|| core.commits.expect());
        let durable = make_durable(core, &path, self.epoch, &self.file);
        drop(expected);
        if let Err(trouble) = durable {
            return self.fail(&trouble);
        }
        let changes = std::mem::take(&mut self.changes);
        let (epoch, is_new) = (self.epoch, self.is_new);
        let core_after = Arc::clone(core);
        let done = Box::new(move |committed: Result<_, Uncommitted>| match committed {
            Ok(_) => self.landed(&core_after),
            Err(failure) => self.fail(&Trouble::Uncommitted(failure)),
        });
        if is_new {
            core.commits.submit_new(epoch, path, changes, done);
        } else {
            core.commits.submit(epoch, changes, done);
        }
    }

    /// First the path goes on, then the client learns of it.
    fn landed(mut self, core: &Arc<Core>) {
        let traffic = &core.traffic;
        traffic.appends.fetch_add(1, Ordering::Relaxed);
        traffic.bytes.fetch_add(self.gained, Ordering::Relaxed);
        let mut slot = self.entry.slot();
        slot.shown = Some(self.shown);
        let next = slot.flight.as_mut().and_then(Flight::landed);
        if next.is_none() {
            slot.flight = None;
        }
        drop(slot);
        self.entry.notify();
        if let Some(next) = next {
            let core_after = Arc::clone(core);
            core.tasks.spawn_blocking(move || next.land(&core_after));
        }
        if let Some((answer, hold, reply)) = self.waiting.take() {
            // Or a client that goes on at once would be counted twice.
            drop(hold);
            reply.send(answer);
        }
    }

    /// Nobody knows what the file holds now, nor do those who were judged by it.
    fn fail(&mut self, trouble: &Trouble) {
        let Some((_, hold, reply)) = self.waiting.take() else {
            return;
        };
        drop(hold);
        let mut slot = self.entry.slot();
        let behind = slot.flight.as_mut().map(Flight::fail);
        if !slot.is_claimed() {
            slot.keep_state(None);
        }
        drop(slot);
        self.entry.notify();
        reply.send(trouble.to_put());
        for mut landing in behind.unwrap_or_default() {
            if let Some((_, hold, reply)) = landing.waiting.take() {
                drop(hold);
                let busy = Trouble::Busy("what it continues could not be made durable");
                reply.send(busy.to_put());
            }
        }
    }
}

/// fdatasync, then the path still has to name the file that was written, and nothing else's.
fn make_durable(
    core: &Core,
    path: &WirePath,
    epoch: Epoch,
    file: &DataFile,
) -> Result<(), Trouble> {
    recover::sync(core, path, epoch, file)?;
    let ours = file::stat(file)?;
    let found = file.check_size(|| recover::regular(core, path), |stat| stat.size)?;
    match found.filter(|stat| stat.inode == ours.inode && stat.links > 0) {
        Some(_) => Ok(()),
        None => Err(changed_meanwhile(path)),
    }
}

/// The file that was written, as the path shows it.
fn written(
    core: &Core,
    path: &WirePath,
    state: &FileState,
    size: Offset,
) -> Result<FileStat, Trouble> {
    let Some(file) = &state.file else {
        return Err(Trouble::Busy("the file is gone"));
    };
    let ours = file::stat(file)?;
    recover::regular(core, path)?
        .filter(|stat| stat.inode == ours.inode && stat.links > 0 && stat.size == size)
        .ok_or_else(|| changed_meanwhile(path))
}

fn changed_meanwhile(path: &WirePath) -> Trouble {
    warn!("{path} was moved, replaced or changed while it was written: not acknowledged");
    Trouble::Busy("the file was moved or changed meanwhile")
}

fn row(core: &Core, state: &FileState, vouching: &Vouching, stat: &FileStat) -> ServerFile {
    let old = state.row.as_ref();
    let vouched = vouching.hasher.prefix();
    let high_water = old
        .and_then(|old| old.high_water)
        .filter(|mark| mark.length > vouched.length);
    ServerFile {
        // A length that is given up is of another life: what was recorded of it binds no longer.
        id: old
            .filter(|old| old.vouched.length <= vouched.length)
            .map_or_else(|| core.index.allocate(), |old| old.id),
        vouched,
        hasher: vouching.hasher.state(),
        high_water,
        footprint: recover::footprint(stat),
        writer: vouching.writer.clone(),
        state: match (high_water, vouching.state) {
            (Some(_), _) => ServerState::Regressed,
            (None, ServerState::Regressed) => ServerState::Vouched,
            (None, state) => state,
        },
        conditional: vouching.conditional,
        updated: clock::now(),
    }
}

fn changes(
    core: &Core,
    path: &WirePath,
    old: Option<&ServerFile>,
    row: &ServerFile,
    vouching: &Vouching,
) -> Vec<ServerChange> {
    let mut changes = vec![ServerChange::put(path.clone(), row.clone())];
    if vouching.size > row.vouched.length && core.rules.quotas.any() {
        changes.push(ServerChange::Occupied {
            path: path.clone(),
            size: vouching.size,
            writer: row.writer.clone(),
        });
    }
    changes.extend(evidence::refilled(path, old, row));
    if vouching.adopts {
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
    quota::advance(state, stat.size, &row.writer);
    state.row = Some(row);
    state.seen = Some(stat);
    state.vouched = hasher;
    let (length, size) = (state.length(), state.size());
    state
        .ahead
        .retain(|kept| kept.length() > length && kept.length() <= size && !shrinks);
    state.asked.retain(|prefix| prefix.length < length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::files::{Files, Work};
    use crate::server::reply::{self, Awaited, Event};
    use crate::sys::dir::Dir;
    use crate::wire::Problem;

    /// Writes this range, as it were; what is to be begun of it, and who waits for its answer.
    async fn write(
        files: &Files,
        path: &WirePath,
        file: &Arc<DataFile>,
        range: ByteRange,
    ) -> (Option<Landing>, Awaited) {
        let claim = files.claim(path, Work::Receiving(range)).await.unwrap();
        let (reply, awaited) = reply::pair(false);
        let begun = claim.hand_over(|entry, slot, _| {
            let state = FileState::absent(Epoch::default());
            let landing = Landing {
                entry: Arc::clone(entry),
                file: Arc::clone(file),
                epoch: Epoch::default(),
                changes: Vec::new(),
                is_new: false,
                shown: state.shown(),
                gained: range.len(),
                waiting: Some((Answer::done(false), Hold::default(), reply)),
            };
            slot.state = Some(Box::new(state));
            let flight = slot.flight.get_or_insert_default();
            flight.add(landing, range.end())
        });
        (begun, awaited)
    }

    #[tokio::test(start_paused = true)]
    async fn a_landing_that_breaks_off_leaves_its_path_free() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Dir::open(scratch.path()).unwrap();
        let file = dir.create_file(b"a", 0o600).unwrap();
        let file = Arc::new(DataFile::new(file, Offset::ZERO));
        let (files, path) = (Files::new(4), WirePath::decode("/a").unwrap());
        let range = |start, end| {
            let offset = |at| Offset::new(at).unwrap();
            ByteRange::new(offset(start), offset(end)).unwrap()
        };
        let (first, one) = write(&files, &path, &file, range(0, 5)).await;
        let (second, other) = write(&files, &path, &file, range(5, 9)).await;
        assert!(second.is_none(), "it waits for the first");
        let landing = first.unwrap();
        let thread = std::thread::spawn(move || {
            let _landing = landing;
            std::panic::resume_unwind(Box::new("in the middle of it"));
        });
        thread.join().unwrap_err();
        for mut awaited in [one, other] {
            let Event::Answer(answer) = awaited.next().await else {
                panic!("nothing was to be decided");
            };
            assert_eq!(answer.problem(), Some(Problem::Busy));
        }
        let claim = files.claim(&path, Work::Looking).await.unwrap();
        assert!(claim.state.is_none() && !claim.is_in_flight());
    }
}
