//! From a path to what is known of it: row and file are compared before the first answer, and
//! again whenever the path does not look as this process left it.
//!
//! What was found after a crash or somebody's hands:
//!
//! | found | done |
//! |---|---|
//! | file as its row says | the hasher goes on; its hash has to be the recorded one |
//! | another inode, size, mtime or ctime | all of 0..L is hashed, at each length on record, and synced; equal: go on, what is behind L is a tail |
//! | shorter than L, and right as far as it goes | `regressed`: see [`evidence`] |
//! | no file, and L is 0 | an empty file is all that was vouched for: it is made again |
//! | a hash differs | `diverged`: see [`evidence`] |
//! | a file without a row | a tail from 0 |
//! | a retired file that is still there | removed |
//!
//! Hashing holds the path's claim; others wait for a while or are told `hashing`.

use std::io;
use std::sync::Arc;

use hyper::StatusCode;
use tokio::sync::SemaphorePermit;
use tracing::{error, info};

use super::answer::Answer;
use super::commit::{Epoch, Uncommitted};
use super::core::{Core, Making};
use super::data::DataFile;
use super::evidence;
use super::files::{Claim, FileState};
use super::retire;
use crate::index::server::{Footprint, ServerChange, ServerFile, ServerState};
use crate::index::{EventKind, IndexError, NewEvent};
use crate::limits::{IO_CHUNK, SHORT_HASH_BYTES, TAIL_HASH_BYTES};
use crate::prefix::{HasherState, PrefixHasher};
use crate::sys::dir::Access;
use crate::sys::file::{self, File, FileKind, FileStat};
use crate::types::{Offset, WirePath};
use crate::verify::hashes::Difference;
use crate::verify::server::recorded;
use crate::wire::Problem;

/// Why nothing can be done with a path now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The path names something that is no file of ours.
    #[error("{0}")]
    Path(&'static str),
    /// The disk refused to make the file's bytes durable.
    #[error("the disk failed; the file is read again")]
    Unsynced,
    /// The file is frozen.
    #[error("the file is not what was vouched for; an operator has been told")]
    Diverged,
    /// Somebody changed the file while we looked, or the server ends.
    #[error("{0}")]
    Busy(&'static str),
    /// The index failed.
    #[error("{0}")]
    Index(#[from] IndexError),
    /// The disk failed.
    #[error("the disk failed: {0}")]
    Disk(io::Error),
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// What is on disk could not be recorded.
    #[error("{0}")]
    Uncommitted(#[from] Uncommitted),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::NotADirectory => Self::Path("a file stands where a directory should"),
            io::ErrorKind::IsADirectory => Self::Path("the path names a directory"),
            io::ErrorKind::InvalidFilename => Self::Path("a name is too long for this disk"),
            io::ErrorKind::AlreadyExists => Self::Busy("somebody else made the file"),
            _ if error.raw_os_error() == Some(ELOOP) => {
                Self::Path("a symbolic link stands on the way")
            }
            _ if is_out_of_descriptors(&error) => Self::Busy("no free file descriptors"),
            _ => Self::Disk(error),
        }
    }
}

impl Trouble {
    /// What a PUT is answered.
    pub(crate) fn to_put(&self) -> Answer {
        let words = self.to_string();
        match self {
            Self::Path(_) => Answer::malformed(Problem::Path, words),
            Self::Unsynced => Answer::refusal(Problem::Hashing, words),
            Self::Diverged => Answer::refusal(Problem::Diverged, words),
            Self::Busy(_) => Answer::refusal(Problem::Busy, words),
            Self::Index(_) | Self::Disk(_) | Self::Uncommitted(_) => {
                Answer::refusal(Problem::Store, words)
            }
            Self::Full => Answer::refusal(Problem::Full, words),
        }
    }

    /// What a HEAD is answered: it needs no room, so a failure is one of now.
    pub(crate) fn to_head(&self) -> Answer {
        match self {
            Self::Index(_) | Self::Disk(_) | Self::Full | Self::Uncommitted(_) => {
                self.to_put().status(StatusCode::SERVICE_UNAVAILABLE)
            }
            _ => self.to_put(),
        }
    }
}

/// errno(3), Linux: kinds that `io::ErrorKind` does not have.
const ELOOP: i32 = 40;
/// See [`ELOOP`].
const ENFILE: i32 = 23;
/// See [`ELOOP`].
const EMFILE: i32 = 24;

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Brings what the claim knows up to what row and file are now. What keeps it from that is told
/// once, until a look succeeds.
pub(crate) fn look(core: &Core, claim: &mut Claim) -> Result<(), Trouble> {
    let epoch = core.commits.epoch();
    let result = look_closer(core, claim, epoch);
    let path = claim.path();
    match &result {
        Ok(()) => core.told.forget(path),
        // The committing thread reopens it, and says so.
        Err(Trouble::Index(failure)) if failure.needs_reopen() => core.commits.reopen(epoch),
        Err(trouble @ (Trouble::Index(_) | Trouble::Disk(_))) => {
            if core.told.is_news(path, &trouble.to_string()) {
                error!("{path} cannot be served: {trouble}");
            }
        }
        Err(_) => {}
    }
    result
}

fn look_closer(core: &Core, claim: &mut Claim, epoch: Epoch) -> Result<(), Trouble> {
    let stat = regular(core, claim.path())?;
    let is_current = claim
        .state
        .as_ref()
        .is_some_and(|state| state.epoch == epoch && state.is_as_seen(stat.as_ref()));
    if !is_current {
        if claim.is_in_flight() {
            return Err(Trouble::Busy(
                "the file was changed while it was made durable",
            ));
        }
        claim.state = None;
        let found = load(core, claim.path(), epoch, stat, Trust::Footprint)?;
        claim.state = Some(Box::new(found));
    }
    Ok(())
}

/// The same with every byte read, whatever the file looks like.
pub(super) fn look_through(core: &Core, claim: &mut Claim) -> Result<(), Trouble> {
    let epoch = core.commits.epoch();
    let stat = regular(core, claim.path())?;
    if claim.is_in_flight() {
        return Err(Trouble::Busy("something is being delivered"));
    }
    claim.state = None;
    let found = load(core, claim.path(), epoch, stat, Trust::Bytes)?;
    claim.state = Some(Box::new(found));
    Ok(())
}

/// What the path names, if that is nothing or a regular file.
pub(crate) fn regular(core: &Core, path: &WirePath) -> Result<Option<FileStat>, Trouble> {
    match with_descriptors(core, || core.dir.stat(path.as_bytes()))? {
        Some(stat) if stat.kind != FileKind::Regular => {
            Err(Trouble::Path("the path names something that is no file"))
        }
        stat => Ok(stat),
    }
}

fn load(
    core: &Core,
    path: &WirePath,
    epoch: Epoch,
    stat: Option<FileStat>,
    trust: Trust,
) -> Result<FileState, Trouble> {
    let row = core.index.file(path)?;
    let charge = if core.rules.quotas.any() {
        core.index.charge(path)?
    } else {
        None
    };
    let mut state = FileState {
        row,
        charge,
        seen: stat,
        ..FileState::absent(epoch)
    };
    if let Some(row) = &state.row
        && state.is_frozen()
    {
        if retire::is_left_over(row, stat.as_ref()) {
            retire::remove(core, path)?;
            state.seen = None;
        }
        return Ok(state);
    }
    let Some(stat) = stat else {
        match &mut state.row {
            Some(row) if row.vouched.length > Offset::ZERO => {
                *row = evidence::regress(core, path, epoch, row, &PrefixHasher::new(), None)?;
            }
            Some(row) if is_whole_without_bytes(row) => {
                let file = make_file(core, path)?;
                core.dir.sync_chain(path.as_bytes())?;
                let stat = file::stat(&file)?;
                *row = evidence::made_again(core, path, epoch, row, &stat)?;
                state.seen = Some(stat);
                state.file = Some(file);
            }
            _ => {}
        }
        return Ok(state);
    };
    if state.row.is_none() && stat.links > 1 {
        return Err(Trouble::Path("the file has another name elsewhere"));
    }
    let open = || core.dir.open_file(path.as_bytes(), Access::Append);
    let file = with_descriptors(core, open)?;
    if file::stat(&file)?.inode != stat.inode {
        return Err(Trouble::Busy("the file was replaced while it was opened"));
    }
    if state.row.is_some() {
        compare(core, path, &file, &mut state, trust)?;
    }
    state.file = Some(Arc::new(DataFile::new(file, stat.size)));
    Ok(state)
}

/// Whether an empty file is all that the row vouches for, and all that it ever did.
pub(super) fn is_whole_without_bytes(row: &ServerFile) -> bool {
    row.state == ServerState::Vouched
        && row.vouched.length == Offset::ZERO
        && row.high_water.is_none()
}

/// Makes the file that a path names, and the directories on the way.
pub(crate) fn make_file(core: &Core, path: &WirePath) -> Result<Arc<DataFile>, Trouble> {
    let Making {
        mode,
        directory_mode,
        ownership,
    } = core.rules.making;
    let create = || core.dir.create_file(path.as_bytes(), mode);
    let make = || match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            core.dir
                .create_parents_of(path.as_bytes(), directory_mode, ownership)?;
            create()
        }
        made => made,
    };
    let file = with_descriptors(core, make)?;
    if let Err(refused) = file::give(&file, ownership) {
        core.dir.unlink(path.as_bytes())?;
        return Err(refused.into());
    }
    Ok(Arc::new(DataFile::new(file, Offset::ZERO)))
}

/// What proves that a file is as its row says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// That it looks as this server left it.
    Footprint,
    /// Its bytes alone.
    Bytes,
}

/// Brings row and hasher of `state` up to what `file` holds.
fn compare(
    core: &Core,
    path: &WirePath,
    file: &File,
    state: &mut FileState,
    trust: Trust,
) -> Result<(), Trouble> {
    let epoch = state.epoch;
    let (Some(row), Some(stat)) = (&mut state.row, state.seen) else {
        return Ok(());
    };
    if trust == Trust::Footprint
        && stat.size == row.vouched.length
        && footprint(&stat) == row.footprint
        && let Some(hasher) = resume(file, row)?
    {
        state.vouched = hasher;
        return Ok(());
    }
    let there = stat.size.min(row.vouched.length);
    let hasher = match hash_recorded(core, file, row, there)? {
        Ok(hasher) => hasher,
        Err(difference) => {
            let detail = evidence::in_words(&difference);
            *row = evidence::diverge(core, path, epoch, row, &detail)?;
            return Ok(());
        }
    };
    // Whoever put these bytes here, we vouch for them from now on.
    sync(core, path, epoch, file)?;
    core.dir.sync_chain(path.as_bytes())?;
    if there < row.vouched.length {
        *row = evidence::regress(core, path, epoch, row, &hasher, Some(&stat))?;
    } else if stat.size == there || stat.inode != row.footprint.inode {
        note_footprint(core, path, epoch, row, &stat);
    }
    state.vouched = hasher;
    Ok(())
}

/// Runs `open`, which needs a descriptor; when they have run out, those of idle paths are given
/// back first.
pub(crate) fn with_descriptors<T>(core: &Core, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match open() {
        Err(error) if is_out_of_descriptors(&error) => {
            core.files.forget_idle();
            open()
        }
        other => other,
    }
}

/// fdatasync; a failure is told, and means that the file has to be read again.
pub(crate) fn sync(core: &Core, path: &WirePath, epoch: Epoch, file: &File) -> Result<(), Trouble> {
    file::sync_data(file).map_err(|failure| {
        error!("{path}: the disk failed to make bytes durable: {failure}; it is read again");
        let event = NewEvent::now(EventKind::SyncFailed, path.as_bytes(), failure.to_string());
        let changes = vec![ServerChange::Event(event)];
        core.commits.submit(epoch, changes, Box::new(|_| ()));
        Trouble::Unsynced
    })
}

/// What a row remembers of a stat.
pub(crate) fn footprint(stat: &FileStat) -> Footprint {
    Footprint {
        inode: stat.inode,
        mtime_ns: stat.mtime,
        ctime_ns: stat.ctime,
    }
}

/// The hasher at `end` if all that is on record of the bytes before it holds.
fn hash_recorded(
    core: &Core,
    file: &File,
    row: &ServerFile,
    end: Offset,
) -> Result<Result<PrefixHasher, Difference>, Trouble> {
    let past = core.index.past_of(row.id)?;
    let recorded = recorded(&past, row);
    let _turn = turn(core, end.bytes())?;
    let (mut hasher, mut same) = (PrefixHasher::new(), Offset::ZERO);
    for expected in recorded.into_iter().filter(|prefix| prefix.length <= end) {
        hasher = read_on(core, file, hasher, expected.length)?;
        if hasher.prefix() != expected {
            return Ok(Err(Difference {
                same,
                expected,
                found: hasher.hash(),
            }));
        }
        same = expected.length;
    }
    Ok(Ok(read_on(core, file, hasher, end)?))
}

/// The stored hasher, if with the bytes of its open block it gives the recorded hash.
fn resume(file: &File, row: &ServerFile) -> io::Result<Option<PrefixHasher>> {
    if row.hasher.length() != row.vouched.length {
        return Ok(None);
    }
    let hasher = resume_at(file, &row.hasher)?;
    Ok(hasher.filter(|hasher| hasher.prefix() == row.vouched))
}

/// The hasher of a stored state, with the bytes of its open block read back.
pub(super) fn resume_at(file: &File, state: &HasherState) -> io::Result<Option<PrefixHasher>> {
    let start = state.open_block();
    let length = usize::try_from(state.length().since(start)).unwrap_or(usize::MAX);
    let mut open_block = vec![0; length];
    if file::read_at(file, start, &mut open_block)? < length {
        return Ok(None);
    }
    Ok(PrefixHasher::resume(state, &open_block).ok())
}

/// Hashes on from where `hasher` is up to `end`.
pub(crate) fn hash_on(
    core: &Core,
    file: &File,
    hasher: PrefixHasher,
    end: Offset,
) -> Result<PrefixHasher, Trouble> {
    let _turn = turn(core, end.since(hasher.length()))?;
    read_on(core, file, hasher, end)
}

/// Leave to hash so many bytes: many large files at once must not take every thread that the
/// others need.
fn turn(core: &Core, bytes: u64) -> Result<Option<SemaphorePermit<'_>>, Trouble> {
    if bytes <= SHORT_HASH_BYTES {
        return Ok(None);
    }
    let turn = core.hashing.try_acquire();
    turn.map(Some)
        .map_err(|_| Trouble::Busy("many other files are being hashed"))
}

pub(super) fn read_on(
    core: &Core,
    file: &File,
    mut hasher: PrefixHasher,
    end: Offset,
) -> Result<PrefixHasher, Trouble> {
    let most = end.since(hasher.length()).min(IO_CHUNK as u64);
    let mut buffer = vec![0; usize::try_from(most).unwrap_or(IO_CHUNK)];
    while hasher.length() < end {
        if core.is_stopping() {
            return Err(Trouble::Busy("the server ends"));
        }
        let left = usize::try_from(end.since(hasher.length())).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let read = file::read_at(file, hasher.length(), &mut buffer[..wanted])?;
        if read == 0 {
            return Err(Trouble::Busy("the file became shorter while it was read"));
        }
        hasher.update(&buffer[..read]);
    }
    Ok(hasher)
}

/// The hasher at `length`, at most S, from the nearest one that is at hand.
pub(crate) fn hash_at(
    core: &Core,
    state: &FileState,
    length: Offset,
) -> Result<PrefixHasher, Trouble> {
    let Some(file) = &state.file else {
        return Err(Trouble::Busy("the file is gone"));
    };
    let from = state
        .ahead
        .iter()
        .chain([&state.vouched])
        .filter(|hasher| hasher.length() <= length)
        .max_by_key(|hasher| hasher.length())
        .cloned()
        .unwrap_or_default();
    hash_on(core, file, from, length)
}

/// Finds H(`length`), at most S, and keeps it.
pub(crate) fn find_hash(core: &Core, state: &mut FileState, length: Offset) -> Result<(), Trouble> {
    let hasher = hash_at(core, state, length)?;
    if length > state.length() {
        state.keep_ahead(hasher);
    } else {
        state.keep_asked(hasher.prefix());
    }
    Ok(())
}

/// Finds H(`length`) of what lies under a path that is frozen, at most S, and keeps it.
pub(crate) fn find_as_it_lies(
    core: &Core,
    path: &WirePath,
    state: &mut FileState,
    length: Offset,
) -> Result<(), Trouble> {
    let open = || core.dir.open_file(path.as_bytes(), Access::Read);
    let file = with_descriptors(core, open)?;
    let stat = file::stat(&file)?;
    if !state.is_as_seen(Some(&stat)) {
        return Err(Trouble::Busy("the file was changed while it was opened"));
    }
    let hasher = hash_on(core, &file, PrefixHasher::new(), length)?;
    state.keep_asked(hasher.prefix());
    Ok(())
}

/// Hashes a short tail, so that a HEAD can tell its hash.
pub(crate) fn hash_short_tail(core: &Core, state: &mut FileState) -> Result<(), Trouble> {
    let size = state.size();
    let length = size.since(state.length());
    let is_known = state.ahead.iter().any(|hasher| hasher.length() == size);
    if length == 0 || length > TAIL_HASH_BYTES || is_known || state.file.is_none() {
        return Ok(());
    }
    find_hash(core, state, size)
}

/// The file was cut at `end` by this server: if that is where its row ends, remember how it looks
/// now.
pub(super) fn note_cut(core: &Core, path: &WirePath, end: Offset) -> Result<(), Trouble> {
    let epoch = core.commits.epoch();
    let row = core.index.file(path)?;
    let stat = regular(core, path)?;
    let (Some(mut row), Some(stat)) = (row, stat) else {
        return Ok(());
    };
    if row.vouched.length == end && stat.size == end && stat.inode == row.footprint.inode {
        row.footprint = footprint(&stat);
        let changes = vec![ServerChange::put(path.clone(), row)];
        core.commits.submit_and_wait(epoch, changes)?;
    }
    Ok(())
}

/// Somebody touched the file and changed nothing: remember how it looks now, so that the next
/// start need not hash it.
fn note_footprint(
    core: &Core,
    path: &WirePath,
    epoch: Epoch,
    row: &mut ServerFile,
    stat: &FileStat,
) {
    if row.footprint == footprint(stat) {
        return;
    }
    row.footprint = footprint(stat);
    info!("{path} was touched by somebody else; its bytes are what they were");
    let change = ServerChange::put(path.clone(), row.clone());
    // Should it fail, the next start hashes once more.
    core.commits.submit(epoch, vec![change], Box::new(|_| ()));
}
