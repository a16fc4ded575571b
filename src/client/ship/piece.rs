//! Reading a piece: hashed by small reads, and kept only when it is small; a large one is read
//! again to be sent, and its digest tells if that reading saw other bytes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::cursor::Cursor;
use crate::client::http::Buffers;
use crate::client::source::{ReadError, Source};
use crate::limits::IO_CHUNK;
use crate::types::{ByteRange, Offset};

/// A range that was read and hashed.
pub(super) struct Piece {
    pub(super) range: ByteRange,
    pub(super) end: Cursor,
    /// The bytes, if they are few.
    pub(super) bytes: Option<Bytes>,
}

/// Says to readings, which can take minutes, that the process ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending(Arc<AtomicBool>);

impl Ending {
    /// Breaks readings off.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether they were.
    pub(super) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Moves the cursor on to `to`; false when the file ends before.
pub(super) fn read_on(
    source: &Source,
    cursor: &mut Cursor,
    to: Offset,
    ending: &Ending,
) -> Result<bool, ReadError> {
    let most = usize::try_from(to.since(cursor.length())).unwrap_or(IO_CHUNK);
    let mut buffer = vec![0; most.min(IO_CHUNK)];
    while cursor.length() < to {
        if ending.has_begun() {
            return Err(io::Error::from(io::ErrorKind::Interrupted).into());
        }
        let left = usize::try_from(to.since(cursor.length())).unwrap_or(IO_CHUNK);
        let want = left.min(buffer.len());
        let read = source.read_at(cursor.length(), &mut buffer[..want])?;
        if read == 0 {
            return Ok(false);
        }
        cursor.update(&buffer[..read]);
    }
    Ok(true)
}

/// A reading of the next piece, to be run on a thread that may block.
pub(super) struct ReadAhead {
    pub(super) source: Source,
    pub(super) cursor: Cursor,
    pub(super) range: ByteRange,
    pub(super) buffers: Buffers,
    pub(super) ending: Ending,
}

impl ReadAhead {
    /// `None` when the file cannot be read so far: the turn finds out why.
    pub(super) fn run(self) -> Option<Piece> {
        let Self {
            source,
            cursor,
            range,
            buffers,
            ending,
        } = self;
        Piece::read(&source, cursor, range, &buffers, &ending).ok()?
    }
}

impl Piece {
    /// Reads a range behind the cursor; `None` when the file ends before, or no longer is what the
    /// cursor has seen.
    pub(super) fn read(
        source: &Source,
        mut cursor: Cursor,
        range: ByteRange,
        buffers: &Buffers,
        ending: &Ending,
    ) -> Result<Option<Self>, ReadError> {
        let before = cursor.clone();
        let few = usize::try_from(range.len())
            .ok()
            .filter(|length| *length <= IO_CHUNK);
        let (complete, bytes) = match few {
            Some(length) => {
                let bytes = buffers.read(source, range.start(), length)?;
                cursor.update(&bytes);
                (bytes.len() == length, Some(bytes))
            }
            None => (read_on(source, &mut cursor, range.end(), ending)?, None),
        };
        let intact = complete && before.holds(source)?;
        Ok(intact.then_some(Self {
            range,
            end: cursor,
            bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sys::file;

    fn offset(bytes: u64) -> Offset {
        Offset::new(bytes).unwrap()
    }

    #[test]
    fn a_piece_is_what_the_file_holds_behind_an_intact_prefix() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let content: Vec<u8> = (0..=250).cycle().take(3 * IO_CHUNK).collect();
        fs::write(&path, &content).unwrap();
        let file = Arc::new(file::open_nofollow(&path).unwrap());
        let inode = file::stat(&file).unwrap().inode;
        let source = Source::checked(file, inode).unwrap();
        let ending = Ending::default();

        let mut cursor = Cursor::new();
        assert!(read_on(&source, &mut cursor, offset(5000), &ending).unwrap());
        let read = |to: u64| {
            let range = ByteRange::new(offset(5000), offset(to)).unwrap();
            Piece::read(&source, cursor.clone(), range, &Buffers::default(), &ending)
        };
        for (to, kept) in [(5001, true), (content.len(), false)] {
            let piece = read(to as u64).unwrap().unwrap();
            let hash = *blake3::hash(&content[..to]).as_bytes();
            assert_eq!(piece.end.prefix().hash.0, hash);
            assert_eq!(piece.bytes.is_some(), kept);
        }
        assert!(read(content.len() as u64 + 1).unwrap().is_none());

        fs::write(&path, vec![1; content.len()]).unwrap();
        assert!(read(5001).unwrap().is_none());
        ending.begin();
        assert!(read(content.len() as u64).is_err());
    }
}
