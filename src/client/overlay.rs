//! Bytes that a program changes after it has written them, such as the in-use flag of a binary log:
//! delivered, and hashed, as they were first read.
//!
//! A byte of a volatile range is durably stored before anybody sees it, so whatever is sent,
//! recorded or compared, in this run or a later one, has that byte. With an error of the store
//! nothing is read.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::index::IndexError;
use crate::index::client::{ClientChange, ClientIndex, Stretch};
use crate::types::{ByteRange, FileId, Offset};

/// The first-read bytes of one generation. Any thread may call; calls block.
pub(super) struct Overlay {
    index: Arc<ClientIndex>,
    id: FileId,
    /// In ascending order, none touching another.
    known: Mutex<Vec<Stretch>>,
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Overlay").field(&self.id).finish()
    }
}

impl Overlay {
    /// Of the generation `id`, of which `known` is stored.
    pub(super) fn new(index: Arc<ClientIndex>, id: FileId, known: Vec<Stretch>) -> Self {
        Self {
            index,
            id,
            known: Mutex::new(known),
        }
    }

    /// What is stored.
    pub(super) fn known(&self) -> Vec<Stretch> {
        self.lock().clone()
    }

    /// Puts the bytes that were first read over those that were read now, from `at` on. What of
    /// `ranges` was never read before is stored first.
    pub(super) fn apply(
        &self,
        ranges: &[ByteRange],
        at: Offset,
        bytes: &mut [u8],
    ) -> io::Result<()> {
        let mut known = self.lock();
        let fresh = fresh(&known, ranges, at, bytes);
        if !fresh.is_empty() {
            let all = merged(known.iter().cloned().chain(fresh).collect());
            self.store(&all)?;
            *known = all;
        }
        for stretch in &*known {
            lay_over(stretch, at, bytes);
        }
        Ok(())
    }

    /// The file was cut to `size` while nothing behind that was confirmed: what comes there is new.
    pub(super) fn cut(&self, size: Offset) -> Result<(), IndexError> {
        let mut known = self.lock();
        if known.iter().all(|stretch| stretch.end() <= size) {
            return Ok(());
        }
        let mut rest = known.clone();
        rest.retain(|stretch| stretch.at < size);
        for stretch in &mut rest {
            let most = usize::try_from(size.since(stretch.at)).unwrap_or(usize::MAX);
            stretch.bytes.truncate(most);
        }
        let change = ClientChange::Volatile(self.id, rest.clone());
        self.index.commit(&[change])?;
        *known = rest;
        Ok(())
    }

    fn store(&self, all: &[Stretch]) -> io::Result<()> {
        let change = ClientChange::Volatile(self.id, all.to_vec());
        self.index.commit(&[change]).map_err(io::Error::other)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Stretch>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of `ranges` that were read for the first time.
fn fresh(known: &[Stretch], ranges: &[ByteRange], at: Offset, bytes: &[u8]) -> Vec<Stretch> {
    let end = at.plus(bytes.len() as u64).unwrap_or(Offset::MAX);
    let mut fresh = Vec::new();
    for range in ranges {
        let (mut from, to) = (range.start().max(at), range.end().min(end));
        let mut push = |from: Offset, to: Offset| {
            if from < to {
                let bytes = bytes[index(from, at)..index(to, at)].to_vec();
                fresh.push(Stretch { at: from, bytes });
            }
        };
        for stretch in known {
            push(from, to.min(stretch.at));
            from = from.max(stretch.end());
        }
        push(from, to);
    }
    fresh
}

/// In order, what touches joined.
fn merged(mut stretches: Vec<Stretch>) -> Vec<Stretch> {
    stretches.sort_unstable_by_key(|stretch| stretch.at);
    let mut merged: Vec<Stretch> = Vec::new();
    for stretch in stretches {
        match merged.last_mut() {
            Some(last) if last.end() == stretch.at => last.bytes.extend(stretch.bytes),
            _ => merged.push(stretch),
        }
    }
    merged
}

/// Puts what of a stretch lies among `bytes`, which begin at `at`, over them.
pub(super) fn lay_over(stretch: &Stretch, at: Offset, bytes: &mut [u8]) {
    let end = at.plus(bytes.len() as u64).unwrap_or(Offset::MAX);
    let (from, to) = (stretch.at.max(at), stretch.end().min(end));
    if from < to {
        let first = &stretch.bytes[index(from, stretch.at)..index(to, stretch.at)];
        bytes[index(from, at)..index(to, at)].copy_from_slice(first);
    }
}

/// Position of `offset` in a buffer that begins at `start`.
fn index(offset: Offset, start: Offset) -> usize {
    usize::try_from(offset.since(start)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offset(bytes: usize) -> Offset {
        Offset::new(bytes as u64).unwrap()
    }

    fn ranges(of: &[(usize, usize)]) -> Vec<ByteRange> {
        of.iter()
            .map(|(start, end)| ByteRange::new(offset(*start), offset(*end)).unwrap())
            .collect()
    }

    fn index(directory: &tempfile::TempDir) -> Arc<ClientIndex> {
        let path = directory.path().join("client.redb");
        if !path.exists() {
            ClientIndex::create(&path).unwrap();
        }
        Arc::new(ClientIndex::open(&path).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever is read in whatever order while the file changes, each volatile byte stays what
        /// it was when it was first read, in a later run too, and no other byte is touched.
        #[test]
        fn volatile_bytes_are_what_was_first_read(
            reads in prop::collection::vec((0..40_usize, 1..20_usize, any::<bool>()), 1..20),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let ranges = ranges(&[(3, 4), (10, 16), (16, 20)]);
            let volatile = |at: usize| (3..4).contains(&at) || (10..20).contains(&at);
            let mut store = index(&directory);
            let mut overlay = Overlay::new(Arc::clone(&store), FileId(7), Vec::new());
            let mut first = [None; 64];
            for (version, (at, length, again)) in reads.into_iter().enumerate() {
                if again {
                    drop(overlay);
                    drop(store);
                    store = index(&directory);
                    let known = store.volatile().unwrap().pop().map_or(Vec::new(), |row| row.1);
                    overlay = Overlay::new(Arc::clone(&store), FileId(7), known);
                }
                let now = u8::try_from(version).unwrap();
                let mut bytes = vec![now; length];
                overlay.apply(&ranges, offset(at), &mut bytes).unwrap();
                for (index, byte) in (at..).zip(bytes) {
                    let expected = if volatile(index) { *first[index].get_or_insert(now) } else { now };
                    prop_assert_eq!(byte, expected, "byte {}", index);
                }
            }
        }
    }

    #[test]
    fn what_was_cut_off_is_read_anew() {
        let directory = tempfile::tempdir().unwrap();
        let store = index(&directory);
        let overlay = Overlay::new(Arc::clone(&store), FileId(7), Vec::new());
        let ranges = ranges(&[(2, 6)]);
        overlay.apply(&ranges, offset(0), &mut [1; 8]).unwrap();
        overlay.cut(offset(4)).unwrap();
        let stored = |bytes| {
            vec![(
                FileId(7),
                vec![Stretch {
                    at: offset(2),
                    bytes,
                }],
            )]
        };
        assert_eq!(store.volatile().unwrap(), stored(vec![1; 2]));
        let mut bytes = [2; 8];
        overlay.apply(&ranges, offset(0), &mut bytes).unwrap();
        assert_eq!(bytes, [2, 2, 1, 1, 2, 2, 2, 2]);
        assert_eq!(store.volatile().unwrap(), stored(vec![1, 1, 2, 2]));
        overlay.cut(offset(0)).unwrap();
        assert_eq!(store.volatile().unwrap(), []);
    }
}
