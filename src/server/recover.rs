//! From a path to what is known of it: row and file are compared before the first answer, and
//! again whenever the path does not look as this process left it.
//!
//! What was found after a crash or somebody's hands:
//!
//! | found | done |
//! |---|---|
//! | file as its row says | the hasher goes on; its hash has to be the recorded one |
//! | another inode, size, mtime or ctime | all of 0..L is hashed and synced; equal: go on, what is behind L is a tail |
//! | hash differs, or the file is shorter than L | left alone: 503 `hashing`, one line, one event |
//! | a file without a row | a tail from 0 |
//!
//! Hashing holds the path's claim; others wait for a while or are told `hashing`.

use std::io;
use std::sync::Arc;

use hyper::StatusCode;
use tracing::{error, info};

use super::answer::Answer;
use super::commit::{Epoch, Uncommitted};
use super::core::Core;
use super::data::DataFile;
use super::files::{Claim, FileState};
use crate::index::server::{Footprint, ServerChange, ServerFile};
use crate::index::{EventKind, IndexError, NewEvent};
use crate::limits::{IO_CHUNK, SHORT_HASH_BYTES, TAIL_HASH_BYTES};
use crate::prefix::PrefixHasher;
use crate::sys::dir::Access;
use crate::sys::file::{self, File, FileKind, FileStat};
use crate::types::{Offset, WirePath};
use crate::wire::Problem;

/// Why nothing can be done with a path now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The path names something that is no file of ours.
    #[error("{0}")]
    Path(&'static str),
    /// The file is not what its row vouches for.
    #[error("the file is not what was vouched for; an operator has been told")]
    Faulty,
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
            Self::Faulty => Answer::refusal(Problem::Hashing, words),
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
        let found = load(core, claim.path(), epoch, stat)?;
        claim.state = Some(Box::new(found));
    }
    match &claim.state {
        Some(state) if state.faulty => Err(Trouble::Faulty),
        _ => Ok(()),
    }
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
) -> Result<FileState, Trouble> {
    let row = core.index.file(path)?;
    let mut state = FileState {
        row,
        seen: stat,
        ..FileState::absent(epoch)
    };
    let Some(stat) = stat else {
        if let Some(row) = &state.row
            && row.vouched.length > Offset::ZERO
        {
            report(core, path, epoch, EventKind::Regressed, "the file is gone");
            state.faulty = true;
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
    if let Some(row) = state.row.clone() {
        match compare(core, path, epoch, &file, &row, &stat)? {
            Ok(hasher) => {
                state.vouched = hasher;
                if stat.size == row.vouched.length {
                    note_footprint(core, path, epoch, &mut state);
                }
            }
            Err((kind, detail)) => {
                report(core, path, epoch, kind, &detail);
                state.faulty = true;
            }
        }
    }
    state.file = Some(Arc::new(DataFile::new(file, stat.size)));
    Ok(state)
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
        Trouble::Faulty
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

/// The hasher at L if the file holds what the row says; else what is wrong with it.
fn compare(
    core: &Core,
    path: &WirePath,
    epoch: Epoch,
    file: &File,
    row: &ServerFile,
    stat: &FileStat,
) -> Result<Result<PrefixHasher, (EventKind, String)>, Trouble> {
    let (size, vouched) = (stat.size, row.vouched);
    if size < vouched.length {
        let detail = format!(
            "{size} bytes are there, {} were vouched for",
            vouched.length
        );
        return Ok(Err((EventKind::Regressed, detail)));
    }
    if size == vouched.length
        && footprint(stat) == row.footprint
        && let Some(hasher) = resume(file, row)?
    {
        return Ok(Ok(hasher));
    }
    let hasher = hash_on(core, file, PrefixHasher::new(), vouched.length)?;
    if hasher.prefix() != vouched {
        let detail = format!(
            "the first {} bytes hash to {}, not to {}",
            vouched.length,
            hasher.hash(),
            vouched.hash
        );
        return Ok(Err((EventKind::Diverged, detail)));
    }
    // Whoever put these bytes here, we vouch for them from now on.
    sync(core, path, epoch, file)?;
    core.dir.sync_chain(path.as_bytes())?;
    Ok(Ok(hasher))
}

/// The stored hasher, if with the bytes of its open block it gives the recorded hash.
fn resume(file: &File, row: &ServerFile) -> io::Result<Option<PrefixHasher>> {
    if row.hasher.length() != row.vouched.length {
        return Ok(None);
    }
    let start = row.hasher.open_block();
    let length = usize::try_from(row.hasher.length().since(start)).unwrap_or(usize::MAX);
    let mut open_block = vec![0; length];
    if file::read_at(file, start, &mut open_block)? < length {
        return Ok(None);
    }
    let hasher = PrefixHasher::resume(&row.hasher, &open_block).ok();
    Ok(hasher.filter(|hasher| hasher.prefix() == row.vouched))
}

/// Hashes on from where `hasher` is up to `end`.
pub(crate) fn hash_on(
    core: &Core,
    file: &File,
    mut hasher: PrefixHasher,
    end: Offset,
) -> Result<PrefixHasher, Trouble> {
    // Many large files at once must not take every thread that the others need.
    let is_long = end.since(hasher.length()) > SHORT_HASH_BYTES;
    let _turn = match is_long.then(|| core.hashing.try_acquire()) {
        Some(Err(_)) => return Err(Trouble::Busy("many other files are being hashed")),
        turn => turn,
    };
    let mut buffer = vec![0; IO_CHUNK];
    while hasher.length() < end {
        if core.is_stopping() {
            return Err(Trouble::Busy("the server ends"));
        }
        let left = end.since(hasher.length()).min(IO_CHUNK as u64);
        let wanted = usize::try_from(left).unwrap_or(IO_CHUNK);
        let read = file::read_at(file, hasher.length(), &mut buffer[..wanted])?;
        if read == 0 {
            return Err(Trouble::Busy("the file became shorter while it was read"));
        }
        hasher.update(&buffer[..read]);
    }
    Ok(hasher)
}

/// Finds H(`length`), at most S, and keeps it.
pub(crate) fn find_hash(core: &Core, state: &mut FileState, length: Offset) -> Result<(), Trouble> {
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
    let hasher = hash_on(core, file, from, length)?;
    if length > state.length() {
        state.keep_ahead(hasher);
    } else {
        state.keep_asked(hasher.prefix());
    }
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

/// Somebody touched the file and changed nothing: remember how it looks now, so that the next
/// start need not hash it.
fn note_footprint(core: &Core, path: &WirePath, epoch: Epoch, state: &mut FileState) {
    let (Some(row), Some(stat)) = (&mut state.row, &state.seen) else {
        return;
    };
    if row.footprint == footprint(stat) {
        return;
    }
    row.footprint = footprint(stat);
    info!("{path} was touched by somebody else; its bytes are what they were");
    let change = ServerChange::put(path.clone(), row.clone());
    // Should it fail, the next start hashes once more.
    core.commits.submit(epoch, vec![change], Box::new(|_| ()));
}

/// One line, one event, however often it is found; clients are told to look at their files again.
fn report(core: &Core, path: &WirePath, epoch: Epoch, kind: EventKind, detail: &str) {
    if !core.told.is_news(path, detail) {
        return;
    }
    error!("{path}: {detail}; nothing is written to it until that is cured");
    let event = NewEvent::now(kind, path.as_bytes(), detail);
    let changes = vec![ServerChange::Event(event), ServerChange::Suspect];
    core.commits.submit(epoch, changes, Box::new(|_| ()));
}
