//! The catalogue's memory.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use super::Tracked;
use crate::client::overlay::Overlay;
use crate::index::NewEvent;
use crate::index::client::{
    ClientChange, ClientFile, Destination, DestinationId, Progress, Scrubbed, Times,
};
use crate::sys::file::{File, FileStat};
use crate::sys::way;
use crate::types::{FileId, Inode, Offset, StableName};

/// Most changes of one transaction of [`flush`](super::Catalogue::flush).
const BATCH: usize = 2048;

/// Most events that wait to be written.
const EVENTS: usize = 4096;

#[derive(Default)]
pub(super) struct State {
    pub(super) files: HashMap<FileId, Entry>,
    /// The active generation of each inode.
    pub(super) by_inode: HashMap<Inode, FileId>,
    /// Where the files of this run lie that are held by descriptors: a snapshot of a filesystem has
    /// its inodes.
    pub(super) devices: HashMap<Inode, u64>,
    /// Links of the datadir that have no row yet.
    pub(super) orphans: HashMap<Inode, StableName>,
    /// Files in which the scrub has read other bytes than were confirmed.
    pub(super) doubted: HashSet<FileId>,
    /// What is known of files with volatile bytes.
    pub(super) overlays: HashMap<FileId, Arc<Overlay>>,
    pub(super) unwritten: Unwritten,
}

impl State {
    /// Gives an active file another source; what it was before.
    pub(super) fn set_source(&mut self, id: FileId, source: &[u8]) -> Option<Arc<Tracked>> {
        let entry = self.files.get_mut(&id)?;
        let before = Arc::clone(&entry.tracked);
        let mut tracked = Tracked::clone(&before);
        tracked.source = source.to_vec();
        entry.tracked = Arc::new(tracked);
        self.unwritten.sources.insert(id, source.to_vec());
        Some(before)
    }

    /// Says which pattern finds an active file.
    pub(super) fn set_pattern(&mut self, id: FileId, pattern: &str) {
        if let Some(entry) = self.files.get_mut(&id) {
            let mut tracked = Tracked::clone(&entry.tracked);
            pattern.clone_into(&mut tracked.pattern);
            entry.tracked = Arc::new(tracked);
            self.unwritten.patterns.insert(id, pattern.to_owned());
        }
    }

    /// Takes a file out.
    pub(super) fn forget(&mut self, id: FileId) {
        self.doubted.remove(&id);
        if let Some(entry) = self.files.remove(&id)
            && self.by_inode.get(&entry.tracked.inode) == Some(&id)
        {
            self.by_inode.remove(&entry.tracked.inode);
        }
    }
}

/// What tells that a file may have changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    size: Offset,
    mtime: i64,
    ctime: i64,
}

impl Look {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            size: stat.size,
            mtime: stat.mtime,
            ctime: stat.ctime,
        }
    }
}

/// An active file.
pub(super) struct Entry {
    pub(super) tracked: Arc<Tracked>,
    pub(super) looked: Option<Look>,
    /// Bytes that this generation is known to have had.
    pub(super) length: Offset,
    /// Its row is older than this run.
    recalled: bool,
    progress: Vec<Recorded>,
}

/// What a destination has confirmed.
struct Recorded {
    destination: DestinationId,
    progress: Arc<Progress>,
    /// In an earlier run: it may have confirmed more since, which nobody has written down.
    recalled: bool,
}

impl Entry {
    pub(super) fn new(id: FileId, row: ClientFile) -> Self {
        Self {
            tracked: Arc::new(Tracked {
                id,
                name: row.name,
                source: row.source,
                pattern: row.pattern,
                inode: row.inode,
                generation: row.generation,
                discovered: row.discovered,
            }),
            looked: None,
            length: row.length,
            recalled: false,
            progress: Vec::new(),
        }
    }

    /// One whose row an earlier run has left.
    pub(super) fn recalled(id: FileId, row: ClientFile) -> Self {
        Self {
            recalled: true,
            ..Self::new(id, row)
        }
    }

    fn recorded(&self, destination: DestinationId) -> Option<&Recorded> {
        let mut all = self.progress.iter();
        all.find(|recorded| recorded.destination == destination)
    }

    pub(super) fn progress(&self, destination: DestinationId) -> Option<&Arc<Progress>> {
        self.recorded(destination)
            .map(|recorded| &recorded.progress)
    }

    /// Whether what is known of the destination is from an earlier run.
    pub(super) fn is_recalled(&self, destination: DestinationId) -> bool {
        self.recorded(destination)
            .map_or(self.recalled, |recorded| recorded.recalled)
    }

    /// What the destination has confirmed in this run.
    pub(super) fn set_progress(&mut self, destination: DestinationId, progress: Arc<Progress>) {
        self.put(Recorded {
            destination,
            progress,
            recalled: false,
        });
    }

    /// What an earlier run has recorded.
    pub(super) fn recall(&mut self, destination: DestinationId, progress: Arc<Progress>) {
        self.put(Recorded {
            destination,
            progress,
            recalled: true,
        });
    }

    fn put(&mut self, new: Recorded) {
        let mut all = self.progress.iter_mut();
        match all.find(|old| old.destination == new.destination) {
            Some(old) => *old = new,
            None => self.progress.push(new),
        }
    }

    /// The longest confirmed prefix, and whose.
    pub(super) fn largest(&self) -> Option<(DestinationId, &Arc<Progress>)> {
        let all = self.progress.iter();
        all.max_by_key(|recorded| recorded.progress.confirmed.length)
            .map(|recorded| (recorded.destination, &recorded.progress))
    }

    /// Up to where a destination has it, or had it when its operator gave it up.
    pub(super) fn confirmed(&self, destination: DestinationId) -> Offset {
        self.progress(destination)
            .map_or(Offset::ZERO, |progress| progress.confirmed.length)
    }
}

/// A row that is to be written, and what is to be told of the changes that led to it: in one
/// transaction, so that no crash leaves one without the other.
pub(super) struct Recording {
    row: Arc<Progress>,
    told: Vec<NewEvent>,
}

/// Most events that wait with one row.
const TOLD: usize = 8;

/// What the rows do not say yet.
#[derive(Default)]
pub(super) struct Unwritten {
    pub(super) destinations: HashMap<DestinationId, Destination>,
    progress: HashMap<(DestinationId, FileId), Recording>,
    pub(super) lengths: HashMap<FileId, Offset>,
    pub(super) times: HashMap<FileId, Times>,
    pub(super) sources: HashMap<FileId, Vec<u8>>,
    pub(super) patterns: HashMap<FileId, String>,
    pub(super) scrubbed: Option<Scrubbed>,
    pub(super) events: Vec<NewEvent>,
}

impl Unwritten {
    /// Adds an event; with a database that cannot be written for long, the oldest go.
    pub(super) fn push(&mut self, event: NewEvent) {
        if self.events.len() >= EVENTS {
            self.events.remove(0);
        }
        self.events.push(event);
    }

    /// Records a row with the event that tells of the change.
    pub(super) fn record(
        &mut self,
        key: (DestinationId, FileId),
        row: Arc<Progress>,
        event: Option<NewEvent>,
    ) {
        let recording = self.progress.entry(key).or_insert_with(|| Recording {
            row: Arc::clone(&row),
            told: Vec::new(),
        });
        recording.row = row;
        if recording.told.len() >= TOLD {
            recording.told.remove(0);
        }
        recording.told.extend(event);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.destinations.is_empty()
            && self.progress.is_empty()
            && self.lengths.is_empty()
            && self.times.is_empty()
            && self.sources.is_empty()
            && self.patterns.is_empty()
            && self.scrubbed.is_none()
            && self.events.is_empty()
    }

    /// Takes out as much as one transaction should hold.
    pub(super) fn take(&mut self) -> Self {
        Self {
            destinations: std::mem::take(&mut self.destinations),
            progress: take(&mut self.progress),
            lengths: take(&mut self.lengths),
            times: take(&mut self.times),
            sources: take(&mut self.sources),
            patterns: take(&mut self.patterns),
            scrubbed: self.scrubbed.take(),
            events: self.events.drain(..self.events.len().min(BATCH)).collect(),
        }
    }

    /// Puts back what could not be written, newer values excepted.
    pub(super) fn put_back(&mut self, old: Self) {
        put_back(&mut self.destinations, old.destinations);
        for (key, mut before) in old.progress {
            if let Some(newer) = self.progress.remove(&key) {
                before.row = newer.row;
                before.told.extend(newer.told);
            }
            self.progress.insert(key, before);
        }
        put_back(&mut self.lengths, old.lengths);
        put_back(&mut self.times, old.times);
        put_back(&mut self.sources, old.sources);
        put_back(&mut self.patterns, old.patterns);
        self.scrubbed = self.scrubbed.or(old.scrubbed);
        self.events.splice(..0, old.events);
        let excess = self.events.len().saturating_sub(EVENTS);
        self.events.drain(..excess);
    }

    pub(super) fn changes(&self) -> Vec<ClientChange> {
        let mut changes = Vec::new();
        let destinations = self.destinations.iter();
        changes.extend(destinations.map(|(id, row)| ClientChange::Destination(*id, row.clone())));
        changes.extend(self.progress.iter().map(|((destination, id), recording)| {
            let row = Progress::clone(&recording.row);
            ClientChange::Progress(*destination, *id, Box::new(row))
        }));
        let lengths = self.lengths.iter();
        changes.extend(lengths.map(|(id, length)| ClientChange::Length(*id, *length)));
        let times = self.times.iter();
        changes.extend(times.map(|(id, times)| ClientChange::Times(*id, *times)));
        changes.extend(self.sources.iter().map(|(id, source)| {
            let source = source.clone();
            ClientChange::Source { id: *id, source }
        }));
        changes.extend(self.patterns.iter().map(|(id, pattern)| {
            let pattern = pattern.clone();
            ClientChange::Pattern { id: *id, pattern }
        }));
        changes.extend(self.scrubbed.map(ClientChange::Scrubbed));
        let told = self.progress.values().flat_map(|recording| &recording.told);
        let mut events: Vec<NewEvent> = told.chain(&self.events).cloned().collect();
        events.sort_by_key(|event| event.at);
        changes.extend(events.into_iter().map(ClientChange::Event));
        changes
    }
}

fn put_back<K: Eq + Hash, V>(into: &mut HashMap<K, V>, old: HashMap<K, V>) {
    for (key, value) in old {
        into.entry(key).or_insert(value);
    }
}

fn take<K: Copy + Eq + Hash, V>(map: &mut HashMap<K, V>) -> HashMap<K, V> {
    if map.len() <= BATCH {
        return std::mem::take(map);
    }
    let keys: Vec<K> = map.keys().take(BATCH).copied().collect();
    keys.into_iter()
        .filter_map(|key| map.remove_entry(&key))
        .collect()
}

/// Opens a source by its path, of whatever kind it is by now.
pub(super) fn reopen(source: &[u8]) -> io::Result<File> {
    way::open_file(Path::new(std::ffi::OsStr::from_bytes(source)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::catalogue::new_event;
    use crate::index::EventKind;
    use crate::index::client::{ProgressState, Seam};
    use crate::prefix::PrefixHasher;
    use crate::sys::clock;
    use crate::types::{Prefix, StableName};

    fn row() -> Arc<Progress> {
        Arc::new(Progress {
            confirmed: Prefix::empty(),
            hasher: PrefixHasher::new().state(),
            seam: Seam {
                head: [0; 32],
                tail: [0; 32],
            },
            confirmed_at: clock::now(),
            state: ProgressState::Conflict,
            verified: true,
        })
    }

    #[test]
    fn a_row_and_what_is_told_of_it_go_into_one_transaction() {
        let mut unwritten = Unwritten::default();
        let count = 3 * BATCH as u64;
        for number in 0..count {
            let name = StableName::parse(number.to_string()).unwrap();
            let event = new_event(EventKind::Conflict, &name, "");
            unwritten.record((DestinationId(1), FileId(number)), row(), Some(event));
        }
        // One could not be written, and is recorded again meanwhile.
        let failed = unwritten.take();
        for number in 0..count {
            unwritten.record((DestinationId(1), FileId(number)), row(), None);
        }
        unwritten.put_back(failed);
        let mut written = 0;
        loop {
            let batch = unwritten.take();
            if batch.is_empty() {
                break;
            }
            let (mut rows, mut told) = (Vec::new(), Vec::new());
            for change in batch.changes() {
                match change {
                    ClientChange::Progress(_, id, _) => rows.push(id.0.to_string().into_bytes()),
                    ClientChange::Event(event) => told.push(event.subject),
                    other => panic!("{other:?}"),
                }
            }
            written += rows.len() as u64;
            rows.sort_unstable();
            told.sort_unstable();
            assert_eq!(rows, told);
        }
        assert_eq!(written, count);
    }
}
