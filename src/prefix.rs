//! The prefix hasher: BLAKE3 of a growing file's first n bytes, at every n, across restarts.
//!
//! `blake3::Hasher` cannot be stored. What is stored instead are the chaining values of the
//! complete subtrees to the left of the last block ([`HasherState`], under 1 KiB up to 1 TiB); the
//! last block itself, 1 to 65,536 bytes, is read back from the file. So resuming costs one small
//! read however long the file is, and that read is checked: [`PrefixHasher::resume`] followed by
//! [`PrefixHasher::prefix`] gives the recorded hash only if the block is what it was.
//!
//! The tree is BLAKE3's own (the BLAKE3 paper, section 2.1): a subtree is merged with its left
//! sibling as soon as a byte beyond it exists, never before, since the root is merged differently.
//!
//! Pure: no I/O. A value is equal to `head -c n FILE | b3sum` at every length.

use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use serde::{Deserialize, Serialize};

use crate::types::{Offset, Prefix, PrefixHash};

/// Bytes of the blocks whose chaining values are kept. A power of two of chunks, large enough for
/// the widest SIMD, small enough to read back without a thought.
pub const BLOCK: u64 = 64 * 1024;

/// What is stored of a hasher.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HasherState {
    length: Offset,
    subtrees: Vec<ChainingValue>,
}

impl HasherState {
    /// The state after no bytes.
    pub fn empty() -> Self {
        Self {
            length: Offset::ZERO,
            subtrees: Vec::new(),
        }
    }

    /// Length of the prefix that was hashed, in bytes.
    pub fn length(&self) -> Offset {
        self.length
    }

    /// Where the bytes begin that have to be read back, up to [`length`](Self::length); at most
    /// [`BLOCK`] of them.
    pub fn open_block(&self) -> Offset {
        self.length
            .minus(self.length.bytes() - closed_blocks(self.length) * BLOCK)
    }
}

/// Blocks that are complete and have a byte behind them.
fn closed_blocks(length: Offset) -> u64 {
    length.bytes().saturating_sub(1) / BLOCK
}

/// Hashes a growing prefix; see the module.
#[derive(Clone, Debug)]
pub struct PrefixHasher {
    length: Offset,
    /// Roots of the complete subtrees left of the open block, largest first.
    subtrees: Vec<ChainingValue>,
    open: blake3::Hasher,
    open_length: u64,
}

impl Default for PrefixHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl PrefixHasher {
    /// A hasher of the empty prefix.
    pub fn new() -> Self {
        Self {
            length: Offset::ZERO,
            subtrees: Vec::new(),
            open: blake3::Hasher::new(),
            open_length: 0,
        }
    }

    /// Goes on from a stored state; `open_block` are the file's bytes from
    /// [`HasherState::open_block`] up to [`HasherState::length`].
    pub fn resume(state: &HasherState, open_block: &[u8]) -> Result<Self, BadState> {
        let closed = closed_blocks(state.length);
        if state.subtrees.len() as u64 != u64::from(closed.count_ones()) {
            return Err(BadState::Subtrees);
        }
        if open_block.len() as u64 != state.length.since(state.open_block()) {
            return Err(BadState::OpenBlock {
                expected: state.length.since(state.open_block()),
                got: open_block.len(),
            });
        }
        let mut open = block_hasher(closed);
        open.update(open_block);
        Ok(Self {
            length: state.length,
            subtrees: state.subtrees.clone(),
            open,
            open_length: open_block.len() as u64,
        })
    }

    /// What to store so that [`resume`](Self::resume) goes on from here.
    pub fn state(&self) -> HasherState {
        HasherState {
            length: self.length,
            subtrees: self.subtrees.clone(),
        }
    }

    /// Length of the prefix so far, in bytes.
    pub fn length(&self) -> Offset {
        self.length
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    ///
    /// When the prefix would become longer than a file can be, which nothing read from one does.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.open_length == BLOCK {
                self.close_block();
            }
            let room = usize::try_from(BLOCK - self.open_length).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.open.update(now);
            self.open_length += now.len() as u64;
            #[expect(clippy::expect_used, reason = "documented: no file is that long")]
            let length = self
                .length
                .plus(now.len() as u64)
                .expect("prefix beyond 2^63 - 1 bytes");
            self.length = length;
            bytes = later;
        }
    }

    /// A byte behind the full open block is coming: merge what is complete.
    fn close_block(&mut self) {
        let closed = closed_blocks(self.length) + 1;
        let mut node = self.open.finalize_non_root();
        for _ in 0..closed.trailing_zeros() {
            if let Some(left) = self.subtrees.pop() {
                node = merge_subtrees_non_root(&left, &node, Mode::Hash);
            }
        }
        self.subtrees.push(node);
        self.open = block_hasher(closed);
        self.open_length = 0;
    }

    /// H(length).
    pub fn hash(&self) -> PrefixHash {
        let Some((root_left, inner)) = self.subtrees.split_first() else {
            return PrefixHash(*self.open.finalize().as_bytes());
        };
        let mut node = self.open.finalize_non_root();
        for left in inner.iter().rev() {
            node = merge_subtrees_non_root(left, &node, Mode::Hash);
        }
        PrefixHash(*merge_subtrees_root(root_left, &node, Mode::Hash).as_bytes())
    }

    /// The pair (length, H(length)).
    pub fn prefix(&self) -> Prefix {
        Prefix {
            length: self.length,
            hash: self.hash(),
        }
    }
}

fn block_hasher(index: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(index * BLOCK);
    hasher
}

/// A stored state that cannot be resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadState {
    /// The number of subtrees does not belong to the length: the row is damaged.
    #[error("the stored hasher state is damaged: its subtrees do not add up to its length")]
    Subtrees,
    /// The caller read back something else than the open block.
    #[error("the open block has {expected} bytes, {got} were read back")]
    OpenBlock {
        /// Bytes from [`HasherState::open_block`] to the length.
        expected: u64,
        /// Bytes that were given.
        got: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn resumed(hasher: &PrefixHasher, file: &[u8]) -> PrefixHasher {
        let state = hasher.state();
        let stored = postcard::to_stdvec(&state).unwrap();
        let state: HasherState = postcard::from_bytes(&stored).unwrap();
        let open = usize::try_from(state.open_block().bytes()).unwrap();
        let length = usize::try_from(state.length().bytes()).unwrap();
        PrefixHasher::resume(&state, &file[open..length]).unwrap()
    }

    #[test]
    fn equal_to_blake3_around_every_boundary() {
        let file = data(9 * 65_536 + 2);
        for blocks in 0..=9 {
            for around in [-1025i64, -1024, -1, 0, 1, 2, 1023, 1024, 1025] {
                let Ok(length) = usize::try_from(blocks * 65_536 + around) else {
                    continue;
                };
                if length > file.len() {
                    continue;
                }
                let mut hasher = PrefixHasher::new();
                hasher.update(&file[..length]);
                assert_eq!(
                    hasher.hash().0,
                    *blake3::hash(&file[..length]).as_bytes(),
                    "{length}"
                );
                assert_eq!(
                    resumed(&hasher, &file).hash(),
                    hasher.hash(),
                    "{length} resumed"
                );
            }
        }
    }

    #[test]
    fn every_short_length_equals_blake3() {
        let file = data(5000);
        let mut hasher = PrefixHasher::new();
        for length in 0..=file.len() {
            assert_eq!(
                hasher.hash().0,
                *blake3::hash(&file[..length]).as_bytes(),
                "{length}"
            );
            if let Some(byte) = file.get(length..=length) {
                hasher.update(byte);
            }
        }
    }

    #[test]
    fn a_changed_open_block_changes_the_resumed_hash() {
        let file = data(200_000);
        let mut hasher = PrefixHasher::new();
        hasher.update(&file);
        let state = hasher.state();
        let mut open = file[usize::try_from(state.open_block().bytes()).unwrap()..].to_vec();
        open[0] ^= 1;
        assert_ne!(
            PrefixHasher::resume(&state, &open).unwrap().hash(),
            hasher.hash()
        );
    }

    #[test]
    fn damaged_states_are_refused() {
        let mut hasher = PrefixHasher::new();
        hasher.update(&data(200_000));
        let mut state = hasher.state();
        assert!(matches!(
            PrefixHasher::resume(&state, b"short"),
            Err(BadState::OpenBlock { got: 5, .. })
        ));
        state.subtrees.pop();
        assert_eq!(
            PrefixHasher::resume(&state, b"").unwrap_err(),
            BadState::Subtrees
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]
        /// Any pattern of appends, stored and resumed between them, hashes like the whole.
        #[test]
        fn equal_to_blake3_over_random_appends(
            appends in prop::collection::vec(
                prop_oneof![4 => 0usize..3000, 2 => 60_000usize..70_000, 1 => 0usize..300_000], 1..8),
            resume in any::<u8>(),
        ) {
            let file = data(appends.iter().sum());
            let mut hasher = PrefixHasher::new();
            let mut at = 0;
            for (index, append) in appends.into_iter().enumerate() {
                hasher.update(&file[at..at + append]);
                at += append;
                prop_assert_eq!(hasher.hash().0, *blake3::hash(&file[..at]).as_bytes());
                if resume >> index & 1 == 1 {
                    hasher = resumed(&hasher, &file);
                }
            }
        }
    }
}
