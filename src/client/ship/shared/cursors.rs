//! Where files were left at the end of their last turns, as many as are kept.

use std::collections::{BTreeMap, HashMap};

use crate::client::ship::cursor::Cursor;
use crate::limits::CURSORS;
use crate::types::FileId;

/// Cursors by file.
#[derive(Default)]
pub(super) struct Cursors {
    by_file: HashMap<FileId, (u64, Cursor)>,
    /// The same files, the one unused for longest first.
    by_use: BTreeMap<u64, FileId>,
    clock: u64,
}

impl Cursors {
    /// Keeps a cursor for the file's next turn, and forgets the one unused for longest when there
    /// are too many.
    pub(super) fn keep(&mut self, id: FileId, cursor: Cursor) {
        self.take(id);
        self.clock += 1;
        self.by_file.insert(id, (self.clock, cursor));
        self.by_use.insert(self.clock, id);
        if self.by_file.len() > CURSORS
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.by_file.remove(&oldest);
        }
    }

    pub(super) fn take(&mut self, id: FileId) -> Option<Cursor> {
        let (used, cursor) = self.by_file.remove(&id)?;
        self.by_use.remove(&used);
        Some(cursor)
    }
}
