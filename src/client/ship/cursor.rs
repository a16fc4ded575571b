//! What is known of a file's prefix: its hasher, and the bytes at its two ends that betray a
//! truncated or rewritten file. Moves on with the bytes that are read, so that what is recorded
//! of a prefix was seen in one reading of it.

use crate::client::source::{ReadError, Source};
use crate::index::client::{Progress, Seam};
use crate::limits::{SEAM_HEAD, SEAM_TAIL};
use crate::prefix::{HasherState, PrefixHasher};
use crate::types::{Offset, Prefix};

/// See the module. A few KiB.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    hasher: PrefixHasher,
    /// The prefix's first bytes, at most [`SEAM_HEAD`].
    head: Vec<u8>,
    /// Its last bytes, at most [`SEAM_TAIL`].
    tail: Vec<u8>,
}

impl Cursor {
    /// Of nothing.
    pub(super) fn new() -> Self {
        Self {
            hasher: PrefixHasher::new(),
            head: Vec::new(),
            tail: Vec::new(),
        }
    }

    /// Of what a destination has confirmed; `None` when the bytes that were recorded around its
    /// end are no longer there.
    pub(super) fn resume(source: &Source, progress: &Progress) -> Result<Option<Self>, ReadError> {
        let length = progress.confirmed.length;
        let read = || -> Result<Self, ReadError> {
            let hasher = source.hash_prefix(Some(&progress.hasher), length)?;
            let head_end = length.min(Offset::ZERO.plus(SEAM_HEAD).unwrap_or(length));
            Ok(Self {
                hasher,
                head: source.range(Offset::ZERO, head_end)?,
                tail: source.range(length.minus(SEAM_TAIL), length)?,
            })
        };
        match read() {
            Ok(cursor) => {
                let same = cursor.seam() == progress.seam && cursor.prefix() == progress.confirmed;
                Ok(same.then_some(cursor))
            }
            Err(ReadError::Short { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Goes on over `bytes`.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        let head_room = usize::try_from(SEAM_HEAD).unwrap_or(0) - self.head.len();
        self.head
            .extend_from_slice(&bytes[..head_room.min(bytes.len())]);
        let most = usize::try_from(SEAM_TAIL).unwrap_or(0);
        let new = &bytes[bytes.len().saturating_sub(most)..];
        let old = (self.tail.len() + new.len()).saturating_sub(most);
        self.tail.drain(..old);
        self.tail.extend_from_slice(new);
    }

    /// How far it has come.
    pub(super) fn length(&self) -> Offset {
        self.hasher.length()
    }

    /// Length and hash.
    pub(super) fn prefix(&self) -> Prefix {
        self.hasher.prefix()
    }

    /// The hasher, to be stored.
    pub(super) fn state(&self) -> HasherState {
        self.hasher.state()
    }

    /// The ends, to be stored.
    pub(super) fn seam(&self) -> Seam {
        Seam {
            head: *blake3::hash(&self.head).as_bytes(),
            tail: *blake3::hash(&self.tail).as_bytes(),
        }
    }

    /// Whether the file still has these ends. To be asked *after* the bytes behind them were read:
    /// a truncation during that read is then seen.
    pub(super) fn holds(&self, source: &Source) -> Result<bool, ReadError> {
        holds(source, self.length(), &self.seam())
    }
}

/// Whether the file still has the ends that were recorded of its prefix.
pub(super) fn holds(source: &Source, length: Offset, seam: &Seam) -> Result<bool, ReadError> {
    match source.seam(length) {
        Ok(found) => Ok(found == *seam),
        Err(ReadError::Short { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::index::client::ProgressState;
    use crate::sys::{clock, file};

    fn source(directory: &tempfile::TempDir, content: &[u8]) -> Source {
        let path = directory.path().join("log");
        fs::write(&path, content).unwrap();
        let file = Arc::new(file::open_nofollow(&path).unwrap());
        let inode = file::stat(&file).unwrap().inode;
        Source::checked(file, inode).unwrap()
    }

    fn bytes(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn progress(cursor: &Cursor) -> Progress {
        Progress {
            confirmed: cursor.prefix(),
            hasher: cursor.state(),
            seam: cursor.seam(),
            confirmed_at: clock::now(),
            state: ProgressState::Current,
            verified: true,
        }
    }

    /// In whatever steps it got there, a cursor has seen what a look at the file sees.
    #[test]
    fn the_ends_move_on_with_the_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let content = bytes(200_000);
        let source = source(&directory, &content);
        for steps in [&[1][..], &[700, 1], &[1024, 3071, 2], &[5000, 1, 70_000]] {
            let mut cursor = Cursor::new();
            for step in steps.iter().cycle().take(9) {
                let at = usize::try_from(cursor.length().bytes()).unwrap();
                let end = (at + step).min(content.len());
                cursor.update(&content[at..end]);
                assert_eq!(cursor.seam(), source.seam(cursor.length()).unwrap());
                assert!(cursor.holds(&source).unwrap());
                let resumed = Cursor::resume(&source, &progress(&cursor)).unwrap();
                let resumed = resumed.unwrap();
                assert_eq!(resumed.prefix(), cursor.prefix());
                assert_eq!(resumed.seam(), cursor.seam());
            }
        }
    }

    #[test]
    fn a_changed_or_shorter_file_is_not_gone_on_from() {
        let directory = tempfile::tempdir().unwrap();
        let content = bytes(100_000);
        let mut cursor = Cursor::new();
        cursor.update(&content);
        let progress = progress(&cursor);
        for (at, what) in [(0, "head"), (1023, "head's end"), (99_999, "tail")] {
            let mut changed = content.clone();
            changed[at] ^= 1;
            let source = source(&directory, &changed);
            assert!(!cursor.holds(&source).unwrap(), "{what}");
            let resumed = Cursor::resume(&source, &progress).unwrap();
            assert!(resumed.is_none(), "{what}");
        }
        let source = source(&directory, &content[..99_999]);
        assert!(!cursor.holds(&source).unwrap());
        assert!(Cursor::resume(&source, &progress).unwrap().is_none());
    }
}
