//! Where both sides differ: the first chunk, found by comparing prefixes of half the length, and
//! half of that. One question each, some forty for the longest file; the search begins where it was
//! when a turn has to end, for a server takes its time to hash.

use super::{Closed, Facts, FileError, Remote, Step, Trust, View};
use crate::types::{ByteRange, Offset, Prefix, PrefixHash};
use crate::verify::bisect::Bisect;

/// What a visit has found out, for the next: worth something only while both sides' prefixes are
/// those that it was about, which their hashes tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Search {
    /// What the destination held.
    held: Prefix,
    /// Its prefixes.
    theirs: Vec<Prefix>,
    /// Prefixes of the local file, the longest of which covers the others.
    ours: Vec<Prefix>,
}

impl Facts {
    /// What is worth keeping of a search.
    pub fn searched(&self) -> Option<Search> {
        let held = self.held?;
        let (mut theirs, mut ours) = (self.theirs.clone(), self.proven.clone());
        if let Some(before) = self.search() {
            theirs.extend(&before.theirs);
            let longest = ours.iter().max_by_key(|prefix| prefix.length);
            if longest.is_some_and(|it| hash_at(&before.ours, it.length) == Some(it.hash)) {
                ours.extend(&before.ours);
            }
        }
        (!theirs.is_empty()).then_some(Search { held, theirs, ours })
    }

    fn search(&self) -> Option<&Search> {
        let search = self.search.as_ref()?;
        (Some(search.held) == self.held).then_some(search)
    }
}

fn hash_at(prefixes: &[Prefix], length: Offset) -> Option<PrefixHash> {
    super::hash_at(prefixes, length)
}

impl View<'_> {
    /// The chunk in which the first difference is of both sides' first `differs` bytes; none where
    /// it cannot be found out. An error is the step that brings the search on.
    pub(super) fn locate(&self, differs: Offset) -> Result<Option<ByteRange>, Step> {
        if self.trust == Trust::Unverified || self.facts.unlocatable {
            return Ok(None);
        }
        let Some(mut bisect) = Bisect::between(Offset::ZERO, differs) else {
            return Ok(None);
        };
        while let Some(at) = bisect.question() {
            let theirs = self.theirs(at).ok_or(Step::HeadPrefix(at))?;
            let ours = self.ours(at, differs);
            let ours = ours.ok_or_else(|| Step::Prove(vec![at]))?;
            bisect.answer(at, ours == theirs);
        }
        Ok(Some(bisect.range()))
    }

    /// Where a file has diverged at the destination: not below C, if that still is what it was.
    pub(super) fn diverged(&self) -> Step {
        match self.divergence() {
            Ok(chunk) => Step::Fail(FileError::Diverged { chunk }),
            Err(step) => step,
        }
    }

    fn divergence(&self) -> Result<Option<ByteRange>, Step> {
        let base = self.base();
        if let Some(FileError::Diverged { chunk }) = self.facts.before {
            return Ok(chunk);
        }
        if base.length == Offset::ZERO || self.facts.unlocatable {
            return Ok(None);
        }
        if let Some(prove) = self.proof(Some(base.length)) {
            return Err(prove);
        }
        let theirs = self.theirs(base.length);
        if theirs.ok_or(Step::HeadPrefix(base.length))? == base.hash {
            return Ok(None);
        }
        self.locate(base.length)
    }

    fn theirs(&self, at: Offset) -> Option<PrefixHash> {
        let searched = || hash_at(&self.facts.search()?.theirs, at);
        hash_at(&self.facts.theirs, at).or_else(searched)
    }

    fn ours(&self, at: Offset, whole: Offset) -> Option<PrefixHash> {
        let searched = || {
            let search = self.facts.search()?;
            let covered = hash_at(&search.ours, whole)? == self.facts.proven(whole)?;
            covered.then(|| hash_at(&search.ours, at)).flatten()
        };
        self.facts.proven(at).or_else(searched)
    }

    /// Rule 1: the generation ends. Where bytes were changed below C, the destination, which still
    /// has those that were confirmed, shows which.
    pub(super) fn close(&self, why: Closed) -> Step {
        let base = self.base();
        let other = |hash| hash != base.hash;
        let found_by_reading = !self.facts.seam_broken
            && why.is_local()
            && self.facts.proven(base.length).is_some_and(other);
        if !found_by_reading || !self.holds_base() {
            return Step::Supersede(why);
        }
        match self.locate(base.length) {
            Ok(chunk) => Step::Supersede(Closed::Rewritten { chunk }),
            Err(step) => step,
        }
    }

    /// Whether the destination says that it has what it confirmed, or more.
    fn holds_base(&self) -> bool {
        let base = self.base();
        let Remote::Holds(holding) = self.remote else {
            return false;
        };
        holding.length > base.length
            || (holding.length == base.length && holding.hash == Some(base.hash))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::client::plan::{Asked, Course, Heard, Holding, next};

    fn prefix(bytes: &[u8], length: usize) -> Prefix {
        Prefix {
            length: Offset::new(length as u64).unwrap(),
            hash: PrefixHash(*blake3::hash(&bytes[..length]).as_bytes()),
        }
    }

    fn index(offset: Offset) -> usize {
        usize::try_from(offset.bytes()).unwrap()
    }

    /// A delivered file that is not the same on both sides any more, and what was asked of it.
    struct World<'a> {
        local: &'a [u8],
        remote: &'a [u8],
        confirmed: Prefix,
        questions: usize,
        /// The destination has found out by itself.
        diverged: bool,
    }

    impl World<'_> {
        fn holding(&self) -> Remote {
            if self.diverged {
                return Remote::Diverged(self.confirmed);
            }
            let held = prefix(self.remote, self.remote.len());
            Remote::Holds(Holding {
                exists: true,
                length: held.length,
                hash: Some(held.hash),
                tail: None,
            })
        }

        /// One visit, which after `most` questions has to wait for the destination; how it ended, and
        /// what it has found out.
        fn visit(&mut self, search: Option<Search>, most: usize) -> (Option<Step>, Option<Search>) {
            let mut course = Course::new(Remote::Unasked);
            course.facts.search = search;
            course.facts.charge.doubted = true;
            let mut questions = 0;
            loop {
                let step = next(&View {
                    trust: Trust::Verified,
                    size: Offset::new(self.local.len() as u64).unwrap(),
                    confirmed: Some(self.confirmed),
                    elsewhere: None,
                    remote: course.remote,
                    facts: &course.facts,
                    had: Offset::ZERO,
                    fresh: false,
                    unsure: false,
                    closed_today: false,
                    piece: 64,
                });
                match step {
                    Step::Head => {
                        let told = Heard::Told(self.holding());
                        course.hear(&Asked::Head, told, Some(self.confirmed));
                    }
                    Step::HeadPrefix(at) if questions == most => {
                        let asked = Asked::HeadPrefix(at);
                        course.hear(&asked, Heard::Wait(None), Some(self.confirmed));
                        return (None, course.facts.searched());
                    }
                    Step::HeadPrefix(at) => {
                        questions += 1;
                        self.questions += 1;
                        let told = Heard::ToldPrefix(prefix(self.remote, index(at)));
                        course.hear(&Asked::HeadPrefix(at), told, Some(self.confirmed));
                    }
                    Step::Prove(lengths) => {
                        let hashed = lengths.iter().map(|at| prefix(self.local, index(*at)));
                        course.facts.proven.extend(hashed);
                    }
                    other => return (Some(other), None),
                }
            }
        }

        /// Visits until it is known.
        fn locate(&mut self, most: usize) -> Step {
            let mut search = None;
            for _ in 0..64 {
                let (step, found_out) = self.visit(search, most);
                if let Some(step) = step {
                    return step;
                }
                search = found_out;
            }
            panic!("not found out");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A byte is flipped on one side: that side is told, and the chunk, with few questions,
        /// however often the visits are broken off on the way.
        #[test]
        fn the_side_and_the_chunk_are_named(
            length in 1..100_000_usize,
            at in any::<prop::sample::Index>(),
            at_the_server in any::<bool>(),
            diverged in any::<bool>(),
            most in 1..40_usize,
        ) {
            let whole: Vec<u8> = (0..=250).cycle().take(length).collect();
            let mut changed = whole.clone();
            let at = at.index(length);
            changed[at] ^= 1;
            let (local, remote) = if at_the_server { (&whole, &changed) } else { (&changed, &whole) };
            let confirmed = prefix(&whole, length);
            let diverged = diverged && at_the_server;
            let mut world = World { local, remote, confirmed, questions: 0, diverged };
            let chunk = match world.locate(most) {
                Step::Fail(FileError::Diverged { chunk }) if diverged => chunk,
                Step::Fail(FileError::Differs { chunk, .. }) if at_the_server => chunk,
                Step::Supersede(Closed::Rewritten { chunk }) if !at_the_server => chunk,
                other => panic!("{other:?}"),
            };
            let chunk = chunk.unwrap();
            prop_assert!(chunk.start().bytes() <= at as u64 && (at as u64) < chunk.end().bytes());
            prop_assert!(chunk.len() <= 1024);
            // Of a file that has diverged it is asked first whether it does so below C.
            let most = 8 + usize::from(diverged);
            prop_assert!(world.questions <= most, "{} questions", world.questions);
        }
    }

    /// What was found out of one content says nothing about another.
    #[test]
    fn a_search_ends_with_what_it_was_about() {
        let whole: Vec<u8> = (0..=250).cycle().take(50_000).collect();
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        };
        let confirmed = prefix(&whole, whole.len());
        let (first, second) = (flipped(40_000), flipped(3));
        let world = |remote| World {
            local: &whole,
            remote,
            confirmed,
            questions: 0,
            diverged: false,
        };
        let (_, search) = world(&first).visit(None, 3);
        assert!(search.is_some());
        let (step, _) = world(&second).visit(search, 40);
        let Some(Step::Fail(FileError::Differs { chunk, .. })) = step else {
            panic!("{step:?}");
        };
        assert_eq!(chunk.unwrap().start(), Offset::ZERO);
    }
}
