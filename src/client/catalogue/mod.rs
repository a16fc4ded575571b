//! What the client knows of its files: compact records in memory, the durable rows behind them.
//!
//! Owns the stable names and the links in the datadir. Promises that a file is shown here only
//! after its link and its row are durable, that a generation once closed stays closed, and that no
//! two share a name. Progress is visible at once and written in batches ([`Catalogue::flush`]): a
//! crash loses at most the last of them, which the next HEAD brings back.
//!
//! A source is held in one of two ways: by a hard link in the datadir (`Holding::Links`: the
//! daemon, and `sync` with a datadir), or by an open descriptor for the time of one run
//! (`Holding::Open`: `sync --to DIR`). Calls that touch the disk block.

mod adopt;
mod disk;
mod generation;
mod held;
mod rebind;
mod release;
mod reunite;
mod sight;
mod start;
mod state;
mod volatile;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use self::state::{Entry, State};
use super::dirty::Dirty;
use super::source::{Source, SourceError};
use super::watch::Watches;
use crate::index::client::{
    ClientChange, ClientFile, ClientIndex, Destination, DestinationId, Progress, Scrubbed,
};
use crate::index::{EventKind, IndexError, NewEvent};
use crate::sys::clock;
use crate::sys::dir::{Access, Dir};
use crate::sys::file::File;
use crate::types::{ByteRange, FileId, Inode, Offset, Shown, StableName};

pub(super) use self::adopt::Orphan;
pub use self::adopt::{AdoptError, Candidate, Outcome};
pub use self::generation::{Closing, GenerationError, Told};
pub(super) use self::release::is_untouched;
pub use self::release::{LinkSeen, ReleaseError};
pub use self::sight::Sighting;
pub use self::start::StartError;

/// Mode of directories in the datadir of a client, which holds what only its owner may read.
const DIRECTORY_MODE: u32 = 0o700;

/// One active generation of one inode. Never changes; a source that got another path is shown
/// anew by the next [`Catalogue::tracked`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tracked {
    /// Its number.
    pub id: FileId,
    /// The name under which it is held and delivered.
    pub name: StableName,
    /// Path of the source when it was last seen; empty while no scan has found it.
    pub source: Vec<u8>,
    /// Name of the pattern that found it; empty for none.
    pub pattern: String,
    /// Its inode.
    pub inode: Inode,
    /// 1 for the first life of the inode.
    pub generation: u32,
    /// When it was found.
    pub discovered: Timestamp,
}

/// How sources are kept from vanishing.
enum Holding {
    /// By a link under the stable name below this directory, watched for writes.
    Links(Dir, Arc<Watches>),
    /// By descriptors; files beyond the first `most` are opened in turn, by their paths.
    Open {
        held: Mutex<HashMap<FileId, Arc<File>>>,
        most: usize,
    },
}

/// See the module. Any thread may call.
pub struct Catalogue {
    index: Arc<ClientIndex>,
    holding: Holding,
    dirty: Arc<Dirty>,
    /// Configured destinations, with what they are called in messages.
    destinations: Vec<(DestinationId, String)>,
    /// First file of which each destination may be new: below it, files are older than it.
    since: HashMap<DestinationId, FileId>,
    state: Mutex<State>,
    /// Volatile ranges by the names of patterns.
    volatile: HashMap<String, Arc<[ByteRange]>>,
    /// Held while names are given: by adoption and by the closing of generations.
    naming: Mutex<()>,
    /// Held while a batch is on its way: an older one never overtakes a newer.
    flushing: Mutex<()>,
}

impl Catalogue {
    /// Every active file, in no order.
    pub fn active(&self) -> Vec<FileId> {
        self.state().files.keys().copied().collect()
    }

    /// An active file.
    pub fn tracked(&self, id: FileId) -> Option<Arc<Tracked>> {
        let state = self.state();
        state.files.get(&id).map(|entry| Arc::clone(&entry.tracked))
    }

    /// Opens an active file and makes sure that it is the inode it was. A link that was removed
    /// or replaced under us ends the file.
    pub fn open(&self, id: FileId) -> Result<Source, SourceError> {
        let tracked = self.tracked(id).ok_or(SourceError::Unknown(id))?;
        let opened = self.open_held(&tracked);
        if self.holds_links()
            && matches!(
                opened,
                Err(SourceError::Gone | SourceError::Replaced { .. })
            )
            && let Err(error) = self.end_without_link(id)
        {
            tracing::error!("{}: its link is gone, but: {error}", tracked.name);
        }
        opened
    }

    fn open_held(&self, tracked: &Tracked) -> Result<Source, SourceError> {
        let file = match &self.holding {
            Holding::Links(datadir, _) => {
                Arc::new(datadir.open_file(tracked.name.as_bytes(), Access::Read)?)
            }
            Holding::Open { held, .. } => {
                let held = lock(held).get(&tracked.id).map(Arc::clone);
                match held {
                    Some(file) => file,
                    None => Arc::new(state::reopen(&tracked.source)?),
                }
            }
        };
        let source = Source::checked(file, tracked.inode)?;
        Ok(self.overlaid(source, tracked.id, &tracked.pattern))
    }

    /// The configured destinations, each with what it is called.
    pub fn destinations(&self) -> &[(DestinationId, String)] {
        &self.destinations
    }

    /// Whether the file was discovered while this destination was configured: only then nobody
    /// else can have put it there, and its first append needs no HEAD.
    pub fn fresh(&self, destination: DestinationId, id: FileId) -> bool {
        self.since
            .get(&destination)
            .is_some_and(|since| id >= *since)
    }

    /// What a destination has confirmed of an active file; `None` before anything was.
    pub fn progress(&self, destination: DestinationId, id: FileId) -> Option<Arc<Progress>> {
        let state = self.state();
        state.files.get(&id)?.progress(destination).cloned()
    }

    /// Records what a destination has confirmed: visible at once, durable with the next
    /// [`flush`](Self::flush). What comes for a closed generation is kept in its row only.
    pub fn record(
        &self,
        destination: DestinationId,
        id: FileId,
        progress: impl Into<Arc<Progress>>,
    ) {
        self.record_telling(destination, id, progress.into(), None);
    }

    /// The same with an event that tells of it, in one transaction.
    pub fn record_telling(
        &self,
        destination: DestinationId,
        id: FileId,
        progress: Arc<Progress>,
        event: Option<NewEvent>,
    ) {
        let mut state = self.state();
        if let Some(entry) = state.files.get_mut(&id) {
            let length = progress.confirmed.length;
            entry.set_progress(destination, Arc::clone(&progress));
            if length > entry.length {
                entry.length = length;
                state.unwritten.lengths.insert(id, length);
            }
        }
        state.unwritten.record((destination, id), progress, event);
    }

    /// Whether what is known of an active file at a destination is from an earlier run: what was
    /// confirmed at its very end may not have been written down.
    pub fn is_recalled(&self, destination: DestinationId, id: FileId) -> bool {
        let state = self.state();
        let entry = state.files.get(&id);
        entry.is_some_and(|entry| entry.is_recalled(destination))
    }

    /// The longest prefix that any destination has confirmed of an active file.
    pub fn largest_confirmed(&self, id: FileId) -> Option<(DestinationId, Arc<Progress>)> {
        let state = self.state();
        let largest = state.files.get(&id)?.largest()?;
        Some((largest.0, Arc::clone(largest.1)))
    }

    /// Says that this generation has had this many bytes. To be called when the seam has shown
    /// that they are its own: what is lost when it is closed is counted by it.
    pub fn observed(&self, id: FileId, length: Offset) {
        let mut state = self.state();
        if let Some(entry) = state.files.get_mut(&id)
            && length > entry.length
        {
            entry.length = length;
            state.unwritten.lengths.insert(id, length);
        }
    }

    /// Bytes that this generation is known to have had.
    pub fn length(&self, id: FileId) -> Offset {
        let state = self.state();
        state
            .files
            .get(&id)
            .map_or(Offset::ZERO, |entry| entry.length)
    }

    /// Says that an active file which had `had` bytes was found with only `size`. What was
    /// confirmed of it may be whole, so it goes on; what was cut off and is held nowhere is lost.
    pub fn shortened(&self, id: FileId, had: Offset, size: Offset, told: Option<Told>) {
        if let Err(error) = self.cut_volatile(id, size) {
            // Found shorter again at the next look.
            tracing::error!("the file was cut, but that cannot be recorded: {error}");
            return;
        }
        let lacks = self.lacking(id, told);
        let mut state = self.state();
        let Some(entry) = state.files.get_mut(&id).filter(|entry| entry.length == had) else {
            return;
        };
        entry.length = size;
        let tracked = Arc::clone(&entry.tracked);
        state.unwritten.lengths.insert(id, size);
        for lack in lacks {
            let detail = format!("{lack}: the file was cut from {had} to {size} bytes");
            tracing::warn!("{} ({}): {detail}", tracked.name, Shown(&tracked.source));
            let event = new_event(EventKind::Lost, &tracked.name, detail);
            state.unwritten.push(event);
        }
    }

    /// Records what is known of a destination, with the next [`flush`](Self::flush) and before any
    /// progress: what was confirmed by a commit is never known without the commit's number.
    pub fn know(&self, destination: DestinationId, row: Destination) {
        self.state().unwritten.destinations.insert(destination, row);
    }

    /// Writes what [`know`](Self::know), [`record`](Self::record) and [`observed`](Self::observed)
    /// have left until now, in transactions of bounded size. What comes meanwhile is for the next call:
    /// under load there is always more, and this would never return. With an error, what was not
    /// written stays for the next call.
    pub fn flush(&self) -> Result<(), IndexError> {
        let _flushing = lock(&self.flushing);
        let mut waiting = std::mem::take(&mut self.state().unwritten);
        loop {
            let batch = waiting.take();
            if batch.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.commit(&batch.changes()) {
                let unwritten = &mut self.state().unwritten;
                unwritten.put_back(waiting);
                unwritten.put_back(batch);
                return Err(error);
            }
        }
    }

    /// The scrub has read other bytes of an active file than were confirmed: whoever looks at it
    /// next reads all of it, and judges.
    pub fn doubt(&self, id: FileId) {
        let mut state = self.state();
        if state.files.contains_key(&id) {
            state.doubted.insert(id);
        }
    }

    /// Whether nobody has judged it since.
    pub fn is_doubted(&self, id: FileId) -> bool {
        self.state().doubted.contains(&id)
    }

    /// It was read, and is what was confirmed.
    pub fn settle_doubt(&self, id: FileId) {
        self.state().doubted.remove(&id);
    }

    /// Records how far the scrub has come, with the next [`flush`](Self::flush).
    pub fn scrubbed(&self, to: Scrubbed) {
        self.state().unwritten.scrubbed = Some(to);
    }

    /// Whether sources are held by links under names that patterns give; otherwise they are held
    /// by descriptors under their paths.
    pub fn holds_links(&self) -> bool {
        matches!(self.holding, Holding::Links(..))
    }

    /// The watches of the files that are held by links.
    pub(super) fn watches(&self) -> Option<&Watches> {
        match &self.holding {
            Holding::Links(_, watches) => Some(watches),
            Holding::Open { .. } => None,
        }
    }

    /// The device of the datadir that holds the links.
    pub fn device(&self) -> Option<u64> {
        match &self.holding {
            Holding::Links(datadir, _) => Some(datadir.stat_root().ok()?.device),
            Holding::Open { .. } => None,
        }
    }

    /// The rows behind: for what is known of destinations, and for inspection.
    pub fn index(&self) -> &ClientIndex {
        &self.index
    }

    /// Commits, and opens the index anew after an error that asks for it, so that the next attempt
    /// can succeed.
    fn commit(&self, changes: &[ClientChange]) -> Result<(), IndexError> {
        let result = self.index.commit(changes);
        if result.as_ref().is_err_and(IndexError::needs_reopen)
            && let Err(error) = self.index.reopen()
        {
            tracing::debug!(%error, "the catalogue's database cannot be opened again yet");
        }
        result
    }

    /// Makes a file with a durable row and link known to everybody, in the place of the
    /// generation before it.
    fn activate(&self, id: FileId, row: ClientFile, before: Option<FileId>) {
        let entry = Entry::new(id, row);
        let mut state = self.state();
        if let Some(before) = before {
            state.files.remove(&before);
            state.doubted.remove(&before);
        }
        state.by_inode.insert(entry.tracked.inode, id);
        let name = entry.tracked.name.clone();
        state.files.insert(id, entry);
        drop(state);
        self.watch(id, &name);
        self.dirty.mark(id);
    }

    /// From here on, writes to the file mark it dirty.
    fn watch(&self, id: FileId, name: &StableName) {
        if let Holding::Links(datadir, watches) = &self.holding {
            watches.add(id, &datadir.path().join(OsStr::from_bytes(name.as_bytes())));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn new_event(kind: EventKind, name: &StableName, detail: impl Into<String>) -> NewEvent {
    NewEvent {
        at: clock::now(),
        kind,
        subject: name.as_bytes().to_vec(),
        detail: detail.into(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests;
