//! The catalogue's memory.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use super::Tracked;
use crate::index::NewEvent;
use crate::index::client::{ClientChange, ClientFile, DestinationId, Progress};
use crate::sys::file::{self, File};
use crate::types::{FileId, Inode, Offset, StableName};

/// Most changes of one transaction of [`flush`](super::Catalogue::flush).
const BATCH: usize = 2048;

#[derive(Default)]
pub(super) struct State {
    pub(super) files: HashMap<FileId, Entry>,
    /// The active generation of each inode.
    pub(super) by_inode: HashMap<Inode, FileId>,
    /// Links of the datadir that have no row yet.
    pub(super) orphans: HashMap<Inode, StableName>,
    pub(super) unwritten: Unwritten,
}

/// An active file.
pub(super) struct Entry {
    pub(super) tracked: Arc<Tracked>,
    /// Bytes that this generation is known to have had.
    pub(super) length: Offset,
    progress: Vec<(DestinationId, Arc<Progress>)>,
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
            length: row.length,
            progress: Vec::new(),
        }
    }

    pub(super) fn progress(&self, destination: DestinationId) -> Option<&Arc<Progress>> {
        let found = self.progress.iter().find(|(at, _)| *at == destination);
        found.map(|(_, progress)| progress)
    }

    pub(super) fn set_progress(&mut self, destination: DestinationId, progress: Arc<Progress>) {
        match self.progress.iter_mut().find(|(at, _)| *at == destination) {
            Some((_, old)) => *old = progress,
            None => self.progress.push((destination, progress)),
        }
    }

    /// The longest confirmed prefix.
    pub(super) fn largest(&self) -> Option<&(DestinationId, Arc<Progress>)> {
        self.progress
            .iter()
            .max_by_key(|(_, progress)| progress.confirmed.length)
    }

    /// Bytes confirmed there.
    pub(super) fn confirmed(&self, destination: DestinationId) -> Offset {
        self.progress(destination)
            .map_or(Offset::ZERO, |progress| progress.confirmed.length)
    }
}

/// What the rows do not say yet.
#[derive(Default)]
pub(super) struct Unwritten {
    pub(super) progress: HashMap<(DestinationId, FileId), Arc<Progress>>,
    pub(super) lengths: HashMap<FileId, Offset>,
    pub(super) events: Vec<NewEvent>,
}

impl Unwritten {
    pub(super) fn is_empty(&self) -> bool {
        self.progress.is_empty() && self.lengths.is_empty() && self.events.is_empty()
    }

    /// Takes out as much as one transaction should hold.
    pub(super) fn take(&mut self) -> Self {
        Self {
            progress: take(&mut self.progress),
            lengths: take(&mut self.lengths),
            events: self.events.drain(..self.events.len().min(BATCH)).collect(),
        }
    }

    /// Puts back what could not be written, newer values excepted.
    pub(super) fn put_back(&mut self, old: Self) {
        for (key, progress) in old.progress {
            self.progress.entry(key).or_insert(progress);
        }
        for (id, length) in old.lengths {
            self.lengths.entry(id).or_insert(length);
        }
        self.events.splice(..0, old.events);
    }

    pub(super) fn changes(&self) -> Vec<ClientChange> {
        let progress = self.progress.iter().map(|((destination, id), progress)| {
            ClientChange::Progress(*destination, *id, Box::new(Progress::clone(progress)))
        });
        let lengths = self
            .lengths
            .iter()
            .map(|(id, length)| ClientChange::Length(*id, *length));
        let events = self.events.iter().cloned().map(ClientChange::Event);
        progress.chain(lengths).chain(events).collect()
    }
}

fn take<K: Copy + Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>) -> HashMap<K, V> {
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
    file::open_nofollow(Path::new(std::ffi::OsStr::from_bytes(source)))
}
