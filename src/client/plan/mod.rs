//! What to do next with one file at one destination. Pure: plain values in, one [`Step`] out.
//!
//! The effects ([`ship`](super::ship)) carry the step out, put what they learnt into the next
//! [`View`] and ask again, until the step is [`Step::Idle`]. Nothing is remembered here, so
//! start-up, steady state and recovery are the same function, and whatever was lost on the way
//! (an answer, a connection, this process) is found again by asking.
//!
//! The words: **C** is what the destination last confirmed ([`View::confirmed`]), **L** what it
//! vouches for and **S** what lies on its disk ([`Holding`]). The generation rules:
//!
//! 1. the local file no longer is what was confirmed (shorter, or other bytes): the generation is
//!    closed. Judged against the largest C of any destination, and against L where C may be out of
//!    date;
//! 2. it is, but the destination holds other bytes below C: a conflict there;
//! 3. both agree on C and the destination has more: equal bytes are adopted, others were written
//!    by somebody else: the generation is closed, unless another destination has confirmed more
//!    than was compared, or it happens for the second time in a day: then a conflict there.

mod answer;
mod course;
mod locate;
#[cfg(test)]
pub(in crate::client) mod model;
mod reasons;
#[cfg(test)]
mod tests;

use crate::types::{ByteRange, Offset, Prefix, PrefixHash};
use crate::wire::{Condition, Tail};

pub use answer::{About, Answer, Asked, Heard, heard};
pub use course::{After, Course};
pub use locate::Search;
pub use reasons::{Closed, FileError, StopReason};

/// What one destination holds of a file, as it answered to a HEAD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holding {
    /// Whether there is such a file at all.
    pub exists: bool,
    /// L, the vouched length.
    pub length: Offset,
    /// H(L); an unverified destination says none.
    pub hash: Option<PrefixHash>,
    /// What lies behind L, unvouched.
    pub tail: Option<Tail>,
}

impl Holding {
    /// Of a file that is not there.
    pub fn nothing() -> Self {
        Self {
            exists: false,
            length: Offset::ZERO,
            hash: Some(PrefixHash::of_nothing()),
            tail: None,
        }
    }
}

/// What is known about the file at the destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remote {
    /// Nothing since the last failure, or ever: it has to be asked.
    Unasked,
    /// It was not asked in this run, and is not before there is something to send.
    Recorded,
    /// It holds what is confirmed; nothing says otherwise.
    Agreed,
    /// It answered to a HEAD.
    Holds(Holding),
    /// It found that its bytes are not those that it vouched for, which were these (409), and takes
    /// nothing; it says how its prefixes hash.
    Diverged(Prefix),
    /// The operator there retired the file (410) when it was this: that counts as delivered, and it
    /// takes no more of it.
    Retired(Prefix),
}

impl Remote {
    /// What is known when a file's turn comes and nothing was heard before: an append is
    /// conditional, so a recorded C needs no asking, nor does a file that is new to both sides.
    /// An unverified destination knows no conditions and is asked.
    pub fn at_first(trust: Trust, confirmed: Option<Prefix>, fresh: bool) -> Self {
        match (trust, confirmed) {
            (Trust::Verified, Some(_)) => Self::Agreed,
            (Trust::Verified, None) if fresh => Self::Agreed,
            (Trust::Unverified, Some(_)) => Self::Recorded,
            (_, None) => Self::Unasked,
        }
    }
}

/// Whether the destination proves what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// It speaks our headers.
    Verified,
    /// It never did: no conditions, no digests, no confirms.
    Unverified,
}

/// What was found out during this visit, by reading the local file or by asking. Forgotten when
/// the file makes progress.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Prefixes of the local file, every byte read again for this.
    pub proven: Vec<Prefix>,
    /// Prefixes of the local file, hashed from C on.
    pub continued: Vec<Prefix>,
    /// The bytes that were recorded around C are no longer there.
    pub seam_broken: bool,
    /// What the destination says of prefixes shorter than L (`HEAD ?length=`).
    pub theirs: Vec<Prefix>,
    /// What an earlier visit has found out of where both sides differ.
    pub search: Option<Search>,
    /// The prefix that the destination said it vouches for, which a search is about.
    pub held: Option<Prefix>,
    /// What an earlier visit left the file in error for.
    pub before: Option<FileError>,
    /// The destination does not say how its prefixes hash.
    pub unlocatable: bool,
    /// What the visit is to see to.
    pub charge: Charge,
    /// The prefix that the destination refused to confirm.
    pub refused: Option<Prefix>,
    /// The destination was asked, and would not say what it has.
    pub unheard: bool,
    /// The range last sent to an unverified destination, not yet looked after.
    pub sent: Option<ByteRange>,
}

/// What a visit is to see to, beyond bytes that wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Charge {
    /// The scrub has read other bytes than were confirmed: all of them are read again.
    pub doubted: bool,
    /// All is to be confirmed anew, before our link goes.
    pub reconfirm: bool,
}

impl Facts {
    fn proven(&self, length: Offset) -> Option<PrefixHash> {
        if length == Offset::ZERO {
            return Some(PrefixHash::of_nothing());
        }
        hash_at(&self.proven, length)
    }

    fn local(&self, length: Offset) -> Option<PrefixHash> {
        let continued = || hash_at(&self.continued, length);
        self.proven(length).or_else(continued)
    }
}

fn hash_at(prefixes: &[Prefix], length: Offset) -> Option<PrefixHash> {
    let known = prefixes.iter().find(|prefix| prefix.length == length);
    known.map(|prefix| prefix.hash)
}

/// All that a decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Whether the destination is verified.
    pub trust: Trust,
    /// The local file's size now.
    pub size: Offset,
    /// C and H(C); `None` when this destination never confirmed anything of the file.
    pub confirmed: Option<Prefix>,
    /// The largest C of any other destination.
    pub elsewhere: Option<Prefix>,
    /// What is known about the destination's side.
    pub remote: Remote,
    /// What was found out on the way.
    pub facts: &'a Facts,
    /// The most bytes that this generation is known to have had.
    pub had: Offset,
    /// Found while the destination was configured: what it has under the name came from here.
    pub fresh: bool,
    /// C may be out of date, or there is none, because nothing was heard since it was recorded.
    pub unsure: bool,
    /// This destination's word has closed as many generations of this inode within a day as it may.
    pub closed_today: bool,
    /// Most bytes of one append.
    pub piece: u64,
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing: the destination has all there is.
    Idle,
    /// Ask what it holds.
    Head,
    /// Ask for its hash of a shorter prefix; the answer goes into [`Facts::theirs`].
    HeadPrefix(Offset),
    /// Read the local file again from its first byte and hash it at these lengths, ascending, into
    /// [`Facts::proven`].
    Prove(Vec<Offset>),
    /// Hash the local file on from C up to this length, into [`Facts::continued`].
    Hash(Offset),
    /// It holds more of ours than was recorded: this is C now. No request.
    Adopt(Prefix),
    /// It lost bytes, and what it still has is ours: this is C now, the rest is sent again.
    Restore(Prefix),
    /// Send these bytes behind `base`.
    Append {
        /// The prefix before the range.
        base: Prefix,
        /// What to send.
        range: ByteRange,
        /// The condition; none for an unverified destination, which gets no digest either.
        condition: Option<Condition>,
    },
    /// Ask whether it durably holds exactly this.
    Confirm(Prefix),
    /// Close the generation; the inode gets a new id and is delivered from 0.
    Supersede(Closed),
    /// Leave the file in error here and ask again later.
    Fail(FileError),
    /// The destination replaces or loses what it was given: it gets no more.
    Stop(StopReason),
}

/// Decides; see the module.
pub fn next(view: &View) -> Step {
    let local_change = view.local_change();
    if (local_change.is_some() || view.size < view.had) && view.unsure {
        // Only the destination knows what arrived of the bytes that are gone here.
        return Step::Head;
    }
    if let Some(why) = local_change {
        return view.close(why);
    }
    // Asked before: it may have to say where.
    if view.facts.charge.doubted
        && !matches!(view.remote, Remote::Unasked | Remote::Recorded)
        && let Some(prove) = view.proof(None)
    {
        return prove;
    }
    match (view.remote, view.trust) {
        (Remote::Retired(was), _) => view.retired(was),
        (Remote::Diverged(_), _) => view.diverged(),
        (Remote::Recorded, _) if view.behind() == 0 => Step::Idle,
        // An empty file counts as delivered there.
        (Remote::Unasked, Trust::Unverified) if view.size == Offset::ZERO => view.forward(),
        (Remote::Unasked | Remote::Recorded, _) => Step::Head,
        (Remote::Agreed, _) => view.forward(),
        (Remote::Holds(holding), Trust::Verified) => view.compare(&holding),
        (Remote::Holds(holding), Trust::Unverified) => view.unverified(&holding),
    }
}

impl View<'_> {
    /// C, or the empty prefix.
    fn base(&self) -> Prefix {
        self.confirmed.unwrap_or_else(Prefix::empty)
    }

    /// Bytes behind C.
    fn behind(&self) -> u64 {
        self.size.since(self.base().length)
    }

    /// The largest C of all destinations.
    fn largest(&self) -> Prefix {
        let elsewhere = self.elsewhere.unwrap_or_else(Prefix::empty);
        if elsewhere.length > self.base().length {
            elsewhere
        } else {
            self.base()
        }
    }

    /// H of the local file's first `length` bytes, if it is known. What C says counts only where
    /// the file was not found to have changed, which rule 1 has seen to.
    fn local(&self, length: Offset) -> Option<PrefixHash> {
        let recorded = || (length == self.base().length).then(|| self.base().hash);
        self.facts.local(length).or_else(recorded)
    }

    /// Rule 1.
    fn local_change(&self) -> Option<Closed> {
        let largest = self.largest();
        if self.size < largest.length {
            return Some(Closed::Shrunk);
        }
        let other_hash = self
            .facts
            .local(largest.length)
            .is_some_and(|hash| hash != largest.hash);
        let changed = other_hash || (self.facts.seam_broken && largest.length > Offset::ZERO);
        changed.then_some(Closed::Rewritten { chunk: None })
    }

    /// Whether the local file was read again and still hashes to the largest C; if not, how to
    /// find out. `also` is hashed on the way.
    fn proof(&self, also: Option<Offset>) -> Option<Step> {
        let largest = self.largest().length;
        let mut lengths: Vec<_> = also.into_iter().chain([largest]).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let known = |length: &Offset| self.facts.proven(*length).is_some();
        (!lengths.iter().all(known)).then_some(Step::Prove(lengths))
    }

    /// Nothing stands in the way: send what is behind C.
    fn forward(&self) -> Step {
        let base = self.base();
        if self.size > base.length {
            return self.append(base);
        }
        let anew = self.facts.charge.reconfirm && self.facts.refused != Some(base);
        match self.confirmed {
            Some(_) if anew && self.trust == Trust::Verified => Step::Confirm(base),
            Some(_) => Step::Idle,
            None if self.trust == Trust::Unverified => Step::Adopt(base),
            None => Step::Confirm(base),
        }
    }

    fn append(&self, base: Prefix) -> Step {
        let end = base.length.plus(self.piece.max(1)).unwrap_or(Offset::MAX);
        let Some(range) = ByteRange::new(base.length, end.min(self.size)) else {
            return Step::Idle;
        };
        let condition = (self.trust == Trust::Verified).then(|| Condition::of(base));
        Step::Append {
            base,
            range,
            condition,
        }
    }

    /// A verified destination said what it holds.
    fn compare(&self, holding: &Holding) -> Step {
        let base = self.base();
        let Some(theirs) = holding.hash else {
            return Step::Fail(FileError::Nonsense("a length without its hash"));
        };
        if holding.length < base.length {
            return self.less(holding.length, theirs);
        }
        if holding.length > base.length {
            return self.more(holding.length, theirs);
        }
        if theirs == base.hash {
            // A restored server may lack the file or its row, and nobody would append to it. One with a
            // tail has the file.
            let has_tail = holding.tail.is_some() || self.facts.refused == Some(base);
            return if self.size == Offset::ZERO && !has_tail {
                Step::Confirm(base)
            } else {
                self.tail(holding.tail)
            };
        }
        self.proof(None)
            .unwrap_or_else(|| self.differs(holding.length))
    }

    /// L < C: was the server restored from a backup? If its files are newer than its index, the
    /// bytes are there all the same, and a confirm finds them.
    fn less(&self, length: Offset, theirs: PrefixHash) -> Step {
        if self.facts.refused != Some(self.base()) {
            return Step::Confirm(self.base());
        }
        if let Some(hash) = self.proof(Some(length)) {
            return hash;
        }
        if self.facts.local(length) == Some(theirs) {
            return Step::Restore(Prefix {
                length,
                hash: theirs,
            });
        }
        self.differs(length)
    }

    /// Rule 2: our file was read and is what was confirmed; the destination's first `at` bytes
    /// are not.
    fn differs(&self, at: Offset) -> Step {
        match self.locate(at) {
            Ok(chunk) => Step::Fail(FileError::Differs { at, chunk }),
            Err(step) => step,
        }
    }

    /// L > C: ours, or another writer's? Rule 3.
    fn more(&self, length: Offset, theirs: PrefixHash) -> Step {
        let common = length.min(self.size);
        let theirs = if length <= self.size {
            theirs
        } else if common == Offset::ZERO {
            PrefixHash::of_nothing()
        } else {
            match hash_at(&self.facts.theirs, common) {
                Some(hash) => hash,
                None => return Step::HeadPrefix(common),
            }
        };
        let Some(ours) = self.local(common) else {
            return Step::Hash(common);
        };
        if ours == theirs
            && length > common
            && let Some(step) = self.was_longer(length)
        {
            return step;
        }
        if ours == theirs {
            let prefix = Prefix {
                length: common,
                hash: ours,
            };
            return match self.confirmed {
                Some(confirmed) if confirmed.length == common => Step::Idle,
                _ => Step::Adopt(prefix),
            };
        }
        self.proof(None)
            .unwrap_or_else(|| self.other_writer(common))
    }

    /// The destination has more than the whole file: were those bytes ours? A client whose power was
    /// cut forgets its last confirmations together with the bytes that nobody had synced. A server's
    /// word does that a few times a day: one that lies would have the file delivered anew without end.
    fn was_longer(&self, theirs: Offset) -> Option<Step> {
        if self.size < self.had {
            return Some(Step::Supersede(Closed::Shrunk));
        }
        let confirmed = self.base().length;
        let followed = Offset::ZERO < confirmed && confirmed < self.size;
        let ours = followed || (self.fresh && self.size > Offset::ZERO);
        if !ours {
            return None;
        }
        Some(if self.closed_today {
            Step::Fail(FileError::Longer {
                theirs,
                ours: self.size,
            })
        } else {
            Step::Supersede(Closed::ShorterThanHeld)
        })
    }

    fn other_writer(&self, compared: Offset) -> Step {
        let elsewhere = self.elsewhere.map_or(Offset::ZERO, |prefix| prefix.length);
        let nothing_here = self.base().length == Offset::ZERO;
        let others_hold_it = elsewhere > compared || (nothing_here && elsewhere > Offset::ZERO);
        if others_hold_it || self.closed_today {
            match self.locate(compared) {
                Ok(chunk) => Step::Fail(FileError::OtherWriter {
                    at: compared,
                    chunk,
                }),
                Err(step) => step,
            }
        } else if nothing_here {
            Step::Supersede(Closed::NameTaken)
        } else {
            Step::Supersede(Closed::OtherWriter)
        }
    }

    /// L = C and equal. Bytes behind it that are ours already need not be sent again.
    fn tail(&self, tail: Option<Tail>) -> Step {
        let base = self.base();
        let Some(tail) = tail.filter(|tail| tail.size > base.length) else {
            return self.forward();
        };
        let size = tail.size.min(self.size);
        if size == base.length {
            return self.forward();
        }
        let Some(hash) = self.local(size) else {
            return Step::Hash(size);
        };
        let ours = Prefix { length: size, hash };
        let known = tail.hash.filter(|_| tail.size <= self.size);
        match known {
            Some(theirs) if theirs != hash => self.forward(),
            // With a byte behind it, the append itself proves the tail.
            Some(_) if size < self.size && self.facts.refused.is_none() => self.append(ours),
            _ if self.facts.refused == Some(ours) => self.forward(),
            _ => Step::Confirm(ours),
        }
    }

    /// The destination keeps no more than the evidence that it had `was`.
    fn retired(&self, was: Prefix) -> Step {
        if was.length > self.size {
            // Nobody can compare any longer: what is not confirmed may be nowhere there.
            return if self.base().length == self.size {
                Step::Idle
            } else {
                self.other_was_retired(was)
            };
        }
        if was.length > self.base().length && self.local(was.length).is_none() {
            return Step::Hash(was.length);
        }
        if self.local(was.length).is_some_and(|ours| ours != was.hash) {
            return self
                .proof(None)
                .unwrap_or_else(|| self.other_was_retired(was));
        }
        if was.length > self.base().length {
            return Step::Adopt(was);
        }
        if was.length < self.size {
            return Step::Fail(FileError::Retired { at: was.length });
        }
        Step::Idle
    }

    /// The retired file was not this one.
    fn other_was_retired(&self, was: Prefix) -> Step {
        let confirmed = self.largest().length > Offset::ZERO;
        if confirmed || self.closed_today {
            return Step::Fail(FileError::Differs {
                at: was.length,
                chunk: None,
            });
        }
        Step::Supersede(Closed::NameTaken)
    }

    /// An unverified destination said how long its file is.
    fn unverified(&self, holding: &Holding) -> Step {
        let base = self.base();
        let length = holding.length;
        if length < base.length {
            return Step::Stop(StopReason::Loses {
                had: base.length,
                has: length,
            });
        }
        let ours = self.facts.sent.map_or(self.size, ByteRange::end);
        if length > ours.min(self.size) {
            return Step::Fail(FileError::Longer {
                theirs: length,
                ours,
            });
        }
        if length == base.length {
            return self.forward();
        }
        match self.local(length) {
            Some(hash) => Step::Adopt(Prefix { length, hash }),
            None => Step::Hash(length),
        }
    }
}
