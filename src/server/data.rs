//! A delivered file that is open for appending. All that changes its length goes through here, so
//! that its size can be judged while somebody writes.

use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::file::{self, File};
use crate::types::Offset;

/// See the module.
#[derive(Debug)]
pub(crate) struct DataFile {
    file: File,
    /// The size that this process has made, or more when something is being cut off...
    least: AtomicU64,
    /// ...or less while something is being written.
    most: AtomicU64,
}

impl DataFile {
    /// A file of this size.
    pub(crate) fn new(file: File, size: Offset) -> Self {
        Self {
            file,
            least: AtomicU64::new(size.bytes()),
            most: AtomicU64::new(size.bytes()),
        }
    }

    /// Writes at the end, which is to be at `end` then. At the end, wherever that is: should
    /// somebody else have changed the file, its size will tell, and nothing of it was overwritten.
    pub(crate) fn append(&self, bytes: &[u8], end: Offset) -> io::Result<()> {
        self.most.store(end.bytes(), Ordering::SeqCst);
        file::append_all(&self.file, bytes)?;
        self.least.store(end.bytes(), Ordering::SeqCst);
        Ok(())
    }

    /// Cuts it off at `end`.
    pub(crate) fn cut(&self, end: Offset) -> io::Result<()> {
        self.least.store(end.bytes(), Ordering::SeqCst);
        file::cut(&self.file, end)?;
        self.most.store(end.bytes(), Ordering::SeqCst);
        Ok(())
    }

    /// Whether the size that `look` finds is this process's own work; what it found, if so.
    pub(crate) fn check_size<T, E>(
        &self,
        look: impl FnOnce() -> Result<Option<T>, E>,
        size: impl FnOnce(&T) -> Offset,
    ) -> Result<Option<T>, E> {
        let least = self.least.load(Ordering::SeqCst);
        let found = look()?;
        let most = self.most.load(Ordering::SeqCst);
        Ok(found.filter(|found| (least..=most).contains(&size(found).bytes())))
    }
}

impl Deref for DataFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}
