//! Reading a source: every byte of a log file that is hashed, compared or sent comes through
//! [`Source::read_at`], and through nothing else.

use std::io;
use std::sync::Arc;

use super::overlay::Overlay;
use crate::index::client::Seam;
use crate::limits::{IO_CHUNK, SEAM_HEAD, SEAM_TAIL};
use crate::prefix::{BadState, HasherState, PrefixHasher};
use crate::sys::file::{self, File, FileStat};
use crate::sys::writers::{Leases, Writers};
use crate::types::{ByteRange, FileId, Inode, Offset};

/// One open generation of one inode. Cheap to clone; calls block.
#[derive(Clone, Debug)]
pub struct Source {
    file: Arc<File>,
    volatile: Option<Volatile>,
}

/// What is delivered as it was first read.
#[derive(Clone, Debug)]
struct Volatile {
    ranges: Arc<[ByteRange]>,
    overlay: Arc<Overlay>,
}

/// Why a prefix could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file is shorter than what was asked for.
    #[error("the file ends at {size}, before {wanted}")]
    Short {
        /// Bytes that are there.
        size: Offset,
        /// Bytes that were to be there.
        wanted: Offset,
    },
    /// Reading failed.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// The stored hasher state cannot be gone on from.
    #[error(transparent)]
    State(#[from] BadState),
}

impl Source {
    /// The open file as a source, if it is the inode that it should be.
    pub fn checked(file: Arc<File>, inode: Inode) -> Result<Self, SourceError> {
        let stat = file::stat(&file)?;
        if stat.inode == inode {
            Ok(Self {
                file,
                volatile: None,
            })
        } else {
            Err(SourceError::Replaced {
                found: stat.inode.number,
                expected: inode.number,
            })
        }
    }

    /// The source with the bytes of `ranges`, and those that `overlay` knows, as they were first
    /// read.
    pub(in crate::client) fn overlaid(
        self,
        ranges: Arc<[ByteRange]>,
        overlay: Arc<Overlay>,
    ) -> Self {
        let volatile = Some(Volatile { ranges, overlay });
        Self { volatile, ..self }
    }

    /// Length now, in bytes.
    pub fn size(&self) -> io::Result<Offset> {
        self.stat().map(|stat| stat.size)
    }

    /// What the inode is now.
    pub fn stat(&self) -> io::Result<FileStat> {
        file::stat(&self.file)
    }

    /// Who may write to it.
    pub(in crate::client) fn writers(&self, leases: &Leases) -> io::Result<Writers> {
        leases.writers(&self.file)
    }

    /// Reads from `at` until the buffer is full or the file ends; the number of bytes read.
    pub fn read_at(&self, at: Offset, buffer: &mut [u8]) -> io::Result<usize> {
        let read = file::read_at(&self.file, at, buffer)?;
        if let Some(Volatile { ranges, overlay }) = &self.volatile {
            overlay.apply(ranges, at, &mut buffer[..read])?;
        }
        Ok(read)
    }

    /// The seam before `at`. Look at it *after* the bytes behind `at` were read: a truncation
    /// during that read is then seen.
    pub fn seam(&self, at: Offset) -> Result<Seam, ReadError> {
        let head_end = Offset::ZERO.plus(SEAM_HEAD).unwrap_or(at).min(at);
        Ok(Seam {
            head: self.hash_range(Offset::ZERO, head_end)?,
            tail: self.hash_range(at.minus(SEAM_TAIL), at)?,
        })
    }

    /// H(to), as a hasher that can go on: hashed from `state`, which must not lie beyond `to`, or
    /// from the start. The bytes behind a state are not looked at again, except those of its open
    /// block.
    pub fn hash_prefix(
        &self,
        from: Option<&HasherState>,
        to: Offset,
    ) -> Result<PrefixHasher, ReadError> {
        let mut hasher = match from {
            Some(state) => {
                let block = self.range(state.open_block(), state.length())?;
                PrefixHasher::resume(state, &block)?
            }
            None => PrefixHasher::new(),
        };
        let mut buffer = vec![0; chunk(hasher.length(), to)];
        while hasher.length() < to {
            let want = chunk(hasher.length(), to);
            let read = self.read_at(hasher.length(), &mut buffer[..want])?;
            if read == 0 {
                return Err(self.short(to));
            }
            hasher.update(&buffer[..read]);
        }
        Ok(hasher)
    }

    fn hash_range(&self, start: Offset, end: Offset) -> Result<[u8; 32], ReadError> {
        let bytes = self.range(start, end)?;
        Ok(*blake3::hash(&bytes).as_bytes())
    }

    /// All bytes of a range of at most a few blocks.
    pub(in crate::client) fn range(
        &self,
        start: Offset,
        end: Offset,
    ) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; usize::try_from(end.since(start)).unwrap_or(0)];
        if self.read_at(start, &mut bytes)? < bytes.len() {
            return Err(self.short(end));
        }
        Ok(bytes)
    }

    fn short(&self, wanted: Offset) -> ReadError {
        match self.size() {
            Ok(size) => ReadError::Short { size, wanted },
            Err(error) => error.into(),
        }
    }
}

/// Bytes of the next read on the way to `to`.
fn chunk(at: Offset, to: Offset) -> usize {
    usize::try_from(to.since(at))
        .unwrap_or(IO_CHUNK)
        .min(IO_CHUNK)
}

/// Why a source could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The catalogue knows no such file, or no more.
    #[error("no active file {0}")]
    Unknown(FileId),
    /// Its name is gone.
    #[error("the link is gone")]
    Gone,
    /// The name shows another inode.
    #[error("the name shows inode {found} instead of {expected}")]
    Replaced {
        /// Inode number that is there.
        found: u64,
        /// Inode number that should be.
        expected: u64,
    },
    /// Opening failed.
    #[error("cannot open: {0}")]
    Io(io::Error),
}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            _ => Self::Io(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::path::Path;

    use super::*;
    use crate::types::PrefixHash;

    fn offset(bytes: u64) -> Offset {
        Offset::new(bytes).unwrap()
    }

    fn source(path: &Path) -> Source {
        let file = Arc::new(file::open_nofollow(path).unwrap());
        let inode = file::stat(&file).unwrap().inode;
        Source::checked(file, inode).unwrap()
    }

    fn bytes(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn hashes_are_those_of_the_prefix_from_the_start_and_from_a_state() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("log");
        let content = bytes(3 * IO_CHUNK + 17);
        fs::write(&path, &content).unwrap();
        let source = source(&path);
        for (from, to) in [(0, 0), (0, 5), (1, 70_000), (65_536, 700_000), (17, 17)] {
            let hasher = source.hash_prefix(None, offset(from)).unwrap();
            let state = hasher.state();
            let hasher = source.hash_prefix(Some(&state), offset(to)).unwrap();
            let to = usize::try_from(to).unwrap();
            assert_eq!(hasher.hash().0, *blake3::hash(&content[..to]).as_bytes());
        }
        let beyond = offset(content.len() as u64 + 1);
        match source.hash_prefix(None, beyond) {
            Err(ReadError::Short { size, wanted }) => {
                assert_eq!((size.bytes(), wanted), (content.len() as u64, beyond));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_seam_tells_a_rewritten_file_from_an_appended_one() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("log");
        fs::write(&path, bytes(10_000)).unwrap();
        let source = source(&path);
        let seam = source.seam(offset(10_000)).unwrap();

        let mut log = fs::OpenOptions::new().append(true).open(&path).unwrap();
        log.write_all(b"appended").unwrap();
        assert_eq!(source.seam(offset(10_000)).unwrap(), seam);

        let log = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file::write_all_at(&log, offset(9_999), b"!").unwrap();
        let rewritten = source.seam(offset(10_000)).unwrap();
        assert_eq!(rewritten.head, seam.head);
        assert_ne!(rewritten.tail, seam.tail);

        file::cut(&log, offset(9_000)).unwrap();
        assert!(matches!(
            source.seam(offset(10_000)),
            Err(ReadError::Short { .. })
        ));
        assert_eq!(
            source.seam(Offset::ZERO).unwrap().tail,
            PrefixHash::of_nothing().0
        );
    }

    #[test]
    fn another_inode_is_no_source() {
        let scratch = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| scratch.path().join(name));
        let [a, b] = paths.each_ref().map(|path| {
            fs::write(path, "x").unwrap();
            Arc::new(file::open_nofollow(path).unwrap())
        });
        let inode = file::stat(&a).unwrap().inode;
        assert!(Source::checked(a, inode).is_ok());
        assert!(matches!(
            Source::checked(b, inode),
            Err(SourceError::Replaced { .. })
        ));
    }
}
