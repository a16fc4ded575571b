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

    /// Writes `start..end` at the end, which is to be at `start`. `false` when it was not: nothing
    /// of it is there, and nothing of what others did to the file was overwritten. `cut`: see
    /// [`file::append_at`].
    pub(crate) fn append(
        &self,
        bytes: &[u8],
        start: Offset,
        end: Offset,
        cut: impl FnOnce(&File, Offset) -> io::Result<()>,
    ) -> io::Result<bool> {
        self.most.store(end.bytes(), Ordering::SeqCst);
        let is_there = file::append_at(&self.file, bytes, start, cut)?;
        if is_there {
            self.least.store(end.bytes(), Ordering::SeqCst);
        }
        Ok(is_there)
    }

    /// Cuts it off at `end`; see [`append_only::cut`](super::append_only::cut).
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sys::dir::{Access, Dir};

    #[test]
    fn nothing_is_left_where_it_does_not_belong() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Dir::open(scratch.path()).unwrap();
        let offset = |bytes| Offset::new(bytes).unwrap();
        let path = scratch.path().join("a");
        for others in [&b"0123"[..], b"", b"0123456789and others"] {
            fs::write(&path, b"0123456789").unwrap();
            let file = dir.open_file(b"a", Access::Append).unwrap();
            let data = DataFile::new(file, offset(10));
            assert!(
                data.append(b"ab", offset(10), offset(12), file::cut)
                    .unwrap()
            );
            assert_eq!(fs::read(&path).unwrap(), b"0123456789ab");
            // The same inode: a copy over it, or a truncation.
            fs::write(&path, others).unwrap();
            assert!(
                !data
                    .append(b"cdef", offset(12), offset(16), file::cut)
                    .unwrap()
            );
            assert_eq!(fs::read(&path).unwrap(), others);
        }
    }
}
