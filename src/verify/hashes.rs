//! One reading of a file, hashed at many lengths; and what recorded prefixes say to that.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::limits::IO_CHUNK;
use crate::prefix::PrefixHasher;
use crate::sys::file::{self, File};
use crate::types::{ByteRange, Offset, Prefix, PrefixHash};

/// Bytes that can be read at any offset: those of a file, or of a source with what was first read
/// of its volatile bytes laid over.
pub trait Content {
    /// Reads from `at` until the buffer is full or the content ends; the number of bytes read.
    fn read_at(&self, at: Offset, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Content for File {
    fn read_at(&self, at: Offset, buffer: &mut [u8]) -> io::Result<usize> {
        file::read_at(self, at, buffer)
    }
}

/// The hashes of a file's prefixes, as far as it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hashes {
    at: BTreeMap<Offset, PrefixHash>,
    /// The file ended here, before the greatest length that was asked for.
    ended: Option<Offset>,
}

impl Hashes {
    /// Hashes `content` at each of `lengths` in one reading. `advance` is told of bytes as they
    /// are read.
    pub fn of(
        content: &impl Content,
        lengths: &BTreeSet<Offset>,
        mut advance: impl FnMut(u64),
    ) -> io::Result<Self> {
        let mut found = Self {
            at: BTreeMap::new(),
            ended: None,
        };
        let longest = lengths.last().copied().unwrap_or_default();
        let mut buffer = vec![0; chunk(Offset::ZERO, longest)];
        let mut hasher = PrefixHasher::new();
        for &length in lengths {
            while hasher.length() < length {
                let want = chunk(hasher.length(), length);
                let read = content.read_at(hasher.length(), &mut buffer[..want])?;
                if read == 0 {
                    found.ended = Some(hasher.length());
                    return Ok(found);
                }
                hasher.update(&buffer[..read]);
                advance(read as u64);
            }
            found.at.insert(length, hasher.hash());
        }
        Ok(found)
    }

    /// Where the file ended, when that is before the greatest length that was asked for.
    pub fn ended(&self) -> Option<Offset> {
        self.ended
    }

    /// H(length), if it was asked for and the file is that long.
    pub fn at(&self, length: Offset) -> Option<PrefixHash> {
        self.at.get(&length).copied()
    }

    /// The first of the `recorded` prefixes, shortest first, that the file has, but with another
    /// hash.
    pub fn first_difference<'p>(
        &self,
        recorded: impl IntoIterator<Item = &'p Prefix>,
    ) -> Option<Difference> {
        let mut same = Offset::ZERO;
        for &expected in recorded {
            match self.at(expected.length) {
                Some(found) if found != expected.hash => {
                    return Some(Difference {
                        same,
                        expected,
                        found,
                    });
                }
                Some(_) => same = expected.length,
                None => {}
            }
        }
        None
    }
}

/// A recorded prefix that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The longest recorded prefix before it that does hold.
    pub same: Offset,
    /// What is recorded.
    pub expected: Prefix,
    /// The hash of as many bytes of the file.
    pub found: PrefixHash,
}

impl Difference {
    /// The bytes among which the first difference is; `None` when the record contradicts itself:
    /// two hashes for one length, or another one than BLAKE3's for no bytes.
    pub fn range(&self) -> Option<ByteRange> {
        ByteRange::new(self.same, self.expected.length)
    }
}

/// Bytes of the next read on the way to `to`.
fn chunk(at: Offset, to: Offset) -> usize {
    usize::try_from(to.since(at))
        .unwrap_or(IO_CHUNK)
        .min(IO_CHUNK)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Bytes(Vec<u8>);

    impl Content for Bytes {
        fn read_at(&self, at: Offset, buffer: &mut [u8]) -> io::Result<usize> {
            let start = usize::try_from(at.bytes()).unwrap().min(self.0.len());
            let count = buffer.len().min(self.0.len() - start);
            buffer[..count].copy_from_slice(&self.0[start..start + count]);
            Ok(count)
        }
    }

    fn offset(bytes: usize) -> Offset {
        Offset::new(bytes as u64).unwrap()
    }

    fn prefix(bytes: &[u8], length: usize) -> Prefix {
        Prefix {
            length: offset(length),
            hash: PrefixHash(*blake3::hash(&bytes[..length]).as_bytes()),
        }
    }

    proptest! {
        /// What was recorded of a file, after any byte of it has changed and any have been cut off.
        #[test]
        fn one_reading_tells_what_holds_and_what_does_not(
            size in 0..600_000_usize,
            lengths in prop::collection::btree_set(0..600_000_usize, 1..8),
            changed in prop::option::of(0..600_000_usize),
            cut in prop::option::of(0..600_000_usize),
        ) {
            let before: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let recorded: Vec<Prefix> = lengths
                .iter()
                .filter(|&&length| length <= size)
                .map(|&length| prefix(&before, length))
                .collect();
            let mut after = before;
            after.truncate(cut.unwrap_or(size));
            let changed = changed.filter(|&at| at < after.len());
            if let Some(at) = changed {
                after[at] ^= 1;
            }
            let (size, content) = (after.len(), Bytes(after));
            let asked: BTreeSet<_> = recorded.iter().map(|prefix| prefix.length).collect();
            let mut read = 0;
            let hashes = Hashes::of(&content, &asked, |bytes| read += bytes).unwrap();

            let longest = asked.last().copied().unwrap_or_default();
            prop_assert_eq!(hashes.ended(), (offset(size) < longest).then(|| offset(size)));
            prop_assert_eq!(read, longest.min(offset(size)).bytes());
            let there = recorded.iter().filter(|prefix| prefix.length <= offset(size));
            let expected = there.clone().find(|prefix| {
                changed.is_some_and(|at| offset(at) < prefix.length)
            });
            let found = hashes.first_difference(&recorded);
            prop_assert_eq!(found.map(|found| found.expected), expected.copied());
            if let (Some(found), Some(at)) = (found, changed) {
                let range = found.range().unwrap();
                prop_assert!(range.start() <= offset(at) && offset(at) < range.end());
            }
        }
    }

    #[test]
    fn a_record_that_contradicts_itself_is_a_difference_without_a_place() {
        let content = Bytes(b"abc".to_vec());
        let good = prefix(b"abc", 3);
        let bad = Prefix {
            hash: PrefixHash([0; 32]),
            ..good
        };
        let hashes = Hashes::of(&content, &[good.length].into(), |_| {}).unwrap();
        let found = hashes.first_difference([&good, &bad]).unwrap();
        assert_eq!(found.range(), None);
    }
}
