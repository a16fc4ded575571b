//! Where two files begin to differ, from the hashes of their prefixes alone.
//!
//! Pure: says which prefix to compare next, and is told whether it is the same.

use crate::types::{ByteRange, Offset};

/// Bytes of a BLAKE3 chunk: differences are told to one of these.
pub const CHUNK: u64 = 1024;

/// A search for the first chunk that differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bisect {
    /// The longest prefix known to be the same.
    same: Offset,
    /// The shortest one known to differ; longer than `same`.
    differs: Offset,
}

impl Bisect {
    /// A search between the length of a prefix that is the same (0 will do) and that of one that
    /// differs; `None` when the second is not the longer one.
    pub fn between(same: Offset, differs: Offset) -> Option<Self> {
        (same < differs).then_some(Self { same, differs })
    }

    /// The length of the prefix to compare next; `None` when one chunk is left.
    pub fn question(&self) -> Option<Offset> {
        let first = self.same.bytes() / CHUNK;
        let last = (self.differs.bytes() - 1) / CHUNK;
        let middle = first + (last - first).div_ceil(2);
        // Below `differs`, which is an offset.
        (first < last).then(|| Offset::new(middle * CHUNK).unwrap_or(self.same))
    }

    /// Tells whether the prefixes of length `at` are the same.
    pub fn answer(&mut self, at: Offset, same: bool) {
        if self.same < at && at < self.differs {
            if same {
                self.same = at;
            } else {
                self.differs = at;
            }
        }
    }

    /// The bytes among which the first difference is.
    pub fn range(&self) -> ByteRange {
        // `same` is below `differs` from the beginning, and `answer` keeps it so.
        ByteRange::new(self.same, self.differs)
            .unwrap_or_else(|| unreachable!("the prefix that is the same is the shorter one"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offset(bytes: u64) -> Offset {
        Offset::new(bytes).unwrap()
    }

    #[test]
    fn a_prefix_that_is_the_same_is_no_longer_than_one_that_differs() {
        assert_eq!(Bisect::between(offset(5), offset(5)), None);
        assert_eq!(Bisect::between(offset(6), offset(5)), None);
    }

    #[test]
    fn one_chunk_needs_no_question() {
        let bisect = Bisect::between(offset(1024), offset(2048)).unwrap();
        assert_eq!(bisect.question(), None);
        let range = bisect.range();
        assert_eq!((range.start(), range.end()), (offset(1024), offset(2048)));
    }

    proptest! {
        /// Two files that differ at `at` first, compared by prefixes, whatever was known before.
        #[test]
        fn the_chunk_with_the_first_difference_is_found(
            at in prop_oneof![0..5000_u64, 0..Offset::MAX.bytes()],
            before in any::<u64>(),
            behind in any::<u64>(),
        ) {
            let same = before % (at + 1);
            let differs = at + 1 + behind % (Offset::MAX.bytes() - at);
            let mut bisect = Bisect::between(offset(same), offset(differs)).unwrap();
            let mut questions = 0;
            while let Some(length) = bisect.question() {
                prop_assert!(bisect.range().start() < length && length < bisect.range().end());
                bisect.answer(length, length.bytes() <= at);
                questions += 1;
            }
            prop_assert!(questions <= 53, "{questions} questions");
            let range = bisect.range();
            prop_assert!(range.start().bytes() <= at && at < range.end().bytes());
            prop_assert_eq!(range.start().bytes() / CHUNK, at / CHUNK);
            prop_assert_eq!((range.end().bytes() - 1) / CHUNK, at / CHUNK);
        }
    }
}
