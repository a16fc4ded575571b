//! What `sync` waits for: files, each with the length that it has to reach. Pure.

use std::collections::{HashMap, HashSet};

use crate::client::plan::FileError;
use crate::index::client::{Progress, ProgressState};
use crate::types::{FileId, Offset};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// File to the length it has to reach and the length it has.
    files: HashMap<FileId, (Offset, Offset)>,
    /// Those that have not arrived.
    left: HashSet<FileId>,
    /// Bytes that they lack.
    bytes: u64,
    /// Files whose generation was closed meanwhile.
    closed: Vec<FileId>,
}

impl Expected {
    /// Waits for a file to reach a length.
    pub(super) fn add(&mut self, id: FileId, wanted: Offset, had: Offset) {
        self.forget(id);
        self.files.insert(id, (wanted, had));
        self.left.insert(id);
        self.bytes += wanted.since(had);
    }

    /// The file has this length now, which may be less than it was.
    pub(super) fn reached(&mut self, id: FileId, length: Offset) {
        let Some((wanted, had)) = self.files.get_mut(&id) else {
            return;
        };
        if self.left.contains(&id) {
            self.bytes -= wanted.since(*had);
        }
        *had = length;
        if length < *wanted {
            self.bytes += wanted.since(length);
            self.left.insert(id);
        } else {
            self.left.remove(&id);
        }
    }

    /// Nothing is left to do with it: it has arrived, was retired there, or was cut off here before
    /// all of it was delivered.
    pub(super) fn done(&mut self, id: FileId, progress: Option<&Progress>) {
        let Some((wanted, _)) = self.files.get(&id).copied() else {
            return;
        };
        let has_it = |progress: &Progress| {
            progress.confirmed.length >= wanted || progress.state == ProgressState::Retired
        };
        if wanted == Offset::ZERO || progress.is_some_and(has_it) {
            self.arrived(id);
        } else {
            self.close(id);
        }
    }

    fn arrived(&mut self, id: FileId) {
        if self.left.remove(&id)
            && let Some((wanted, had)) = self.files.get(&id)
        {
            self.bytes -= wanted.since(*had);
        }
    }

    /// It is active no more; whether it was expected.
    fn forget(&mut self, id: FileId) -> bool {
        self.arrived(id);
        self.files.remove(&id).is_some()
    }

    /// Its generation was closed.
    pub(super) fn close(&mut self, id: FileId) {
        if self.forget(id) {
            self.closed.push(id);
        }
    }

    /// Files that have not arrived, with the length they have.
    pub(super) fn left(&self) -> impl Iterator<Item = (FileId, Offset)> {
        let had = |id: &FileId| self.files.get(id).map_or(Offset::ZERO, |(_, had)| *had);
        self.left.iter().map(move |id| (*id, had(id)))
    }

    /// Number of files and bytes that have not arrived.
    pub(super) fn count(&self) -> (usize, u64) {
        (self.left.len(), self.bytes)
    }

    /// Whether only such files are left.
    pub(super) fn only(&self, known: &HashMap<FileId, FileError>) -> bool {
        self.left.len() <= known.len() && self.left.iter().all(|id| known.contains_key(id))
    }

    /// Files whose generation was closed meanwhile.
    pub(super) fn closed(&self) -> &[FileId] {
        &self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(bytes: u64) -> Offset {
        Offset::new(bytes).unwrap()
    }

    #[test]
    fn what_arrived_and_was_lost_again_is_expected_again() {
        let mut expected = Expected::default();
        expected.add(FileId(1), offset(100), offset(40));
        expected.add(FileId(2), offset(10), offset(0));
        assert_eq!(expected.count(), (2, 70));
        expected.reached(FileId(1), offset(90));
        assert_eq!(expected.count(), (2, 20));
        expected.reached(FileId(1), offset(120));
        assert_eq!(expected.count(), (1, 10));
        expected.reached(FileId(1), offset(30));
        assert_eq!(expected.count(), (2, 80));
        expected.add(FileId(1), offset(100), offset(30));
        assert_eq!(expected.count(), (2, 80));
        assert!(expected.forget(FileId(1)));
        expected.arrived(FileId(2));
        assert_eq!(expected.count(), (0, 0));
        assert!(!expected.forget(FileId(3)));
    }
}
