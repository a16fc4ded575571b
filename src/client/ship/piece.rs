//! Reading a piece: hashed by small reads, and kept only when it is small; a large one is read
//! again to be sent, and its digest tells if that reading saw other bytes.

use bytes::Bytes;

use super::cursor::Cursor;
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

/// Moves the cursor on to `to`; false when the file ends before.
pub(super) fn read_on(source: &Source, cursor: &mut Cursor, to: Offset) -> Result<bool, ReadError> {
    let most = usize::try_from(to.since(cursor.length())).unwrap_or(IO_CHUNK);
    let mut buffer = vec![0; most.min(IO_CHUNK)];
    while cursor.length() < to {
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
}

impl ReadAhead {
    /// `None` when the file cannot be read so far: the turn finds out why.
    pub(super) fn run(self) -> Option<Piece> {
        Piece::read(&self.source, self.cursor, self.range).ok()?
    }
}

impl Piece {
    /// Reads a range behind the cursor; `None` when the file ends before, or no longer is what the
    /// cursor has seen.
    pub(super) fn read(
        source: &Source,
        mut cursor: Cursor,
        range: ByteRange,
    ) -> Result<Option<Self>, ReadError> {
        let before = cursor.clone();
        let few = usize::try_from(range.len())
            .ok()
            .filter(|length| *length <= IO_CHUNK);
        let (complete, bytes) = match few {
            Some(length) => {
                let mut bytes = vec![0; length];
                let complete = source.read_at(range.start(), &mut bytes)? == length;
                cursor.update(&bytes);
                (complete, Some(Bytes::from(bytes)))
            }
            None => (read_on(source, &mut cursor, range.end())?, None),
        };
        let intact = complete && before.holds(source)?;
        Ok(intact.then_some(Self {
            range,
            end: cursor,
            bytes,
        }))
    }
}
