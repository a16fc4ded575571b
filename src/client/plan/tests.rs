//! The rows of the design's tables, one by one; what answers are taken to mean is in `answers`.

mod answers;

use super::*;

fn offset(bytes: u64) -> Offset {
    Offset::new(bytes).unwrap()
}

/// The local file of these tests: `length` bytes that differ at every place.
fn file(length: u64) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from((at * 7 + at / 256) % 253).unwrap())
        .collect()
}

/// The prefix of `length` bytes of our file.
fn ours(length: u64) -> Prefix {
    Prefix {
        length: offset(length),
        hash: PrefixHash(*blake3::hash(&file(length)).as_bytes()),
    }
}

/// A hash that is none of ours.
fn other(length: u64) -> Prefix {
    Prefix {
        length: offset(length),
        hash: PrefixHash([7; 32]),
    }
}

/// Fewer bytes than a chunk, of which the first one that differs is one.
#[expect(clippy::unnecessary_wraps, reason = "as the error has it")]
fn chunk(length: u64) -> Option<ByteRange> {
    Some(ByteRange::new(Offset::ZERO, offset(length)).unwrap())
}

fn holds(prefix: Prefix, tail: Option<(u64, Option<PrefixHash>)>) -> Remote {
    Remote::Holds(Holding {
        exists: true,
        length: prefix.length,
        hash: Some(prefix.hash),
        tail: tail.map(|(size, hash)| Tail {
            size: offset(size),
            hash,
        }),
    })
}

/// A verified destination and a local file of `size` bytes.
struct Case {
    trust: Trust,
    size: u64,
    confirmed: Option<Prefix>,
    elsewhere: Option<Prefix>,
    remote: Remote,
    facts: Facts,
    had: u64,
    fresh: bool,
    unsure: bool,
    closed_today: bool,
}

fn case(size: u64, confirmed: Option<u64>, remote: Remote) -> Case {
    Case {
        trust: Trust::Verified,
        size,
        confirmed: confirmed.map(ours),
        elsewhere: None,
        remote,
        facts: Facts::default(),
        had: 0,
        fresh: false,
        unsure: false,
        closed_today: false,
    }
}

impl Case {
    fn elsewhere(mut self, length: u64) -> Self {
        self.elsewhere = Some(ours(length));
        self
    }
    fn unverified(mut self) -> Self {
        self.trust = Trust::Unverified;
        self
    }
    fn proven(mut self, prefixes: &[Prefix]) -> Self {
        self.facts.proven = prefixes.to_vec();
        self
    }
    fn continued(mut self, length: u64) -> Self {
        self.facts.continued = vec![ours(length)];
        self
    }
    fn refused(mut self, length: u64) -> Self {
        self.facts.refused = Some(ours(length));
        self
    }
    fn sent(mut self, from: u64, to: u64) -> Self {
        self.facts.sent = ByteRange::new(offset(from), offset(to));
        self
    }
    fn had(mut self, length: u64) -> Self {
        self.had = length;
        self
    }
    fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }
    fn unsure(mut self) -> Self {
        self.unsure = true;
        self
    }
    fn closed_today(mut self) -> Self {
        self.closed_today = true;
        self
    }
    #[track_caller]
    fn gives(&self, step: impl Into<Step>) {
        let view = View {
            trust: self.trust,
            size: offset(self.size),
            confirmed: self.confirmed,
            elsewhere: self.elsewhere,
            remote: self.remote,
            facts: &self.facts,
            had: offset(self.had),
            fresh: self.fresh,
            unsure: self.unsure,
            closed_today: self.closed_today,
            piece: 50,
        };
        assert_eq!(next(&view), step.into());
    }
}

fn append(base: u64, end: u64) -> Step {
    let condition = match base {
        0 => Condition::Nothing,
        _ => Condition::Prefix(ours(base).hash),
    };
    Step::Append {
        base: ours(base),
        range: ByteRange::new(offset(base), offset(end)).unwrap(),
        condition: Some(condition),
    }
}

fn append_bare(base: u64, end: u64) -> Step {
    Step::Append {
        base: ours(base),
        range: ByteRange::new(offset(base), offset(end)).unwrap(),
        condition: None,
    }
}

#[test]
fn steady_state_needs_no_asking() {
    case(100, Some(100), Remote::Agreed).gives(Step::Idle);
    case(130, Some(100), Remote::Agreed).gives(append(100, 130));
    case(300, Some(100), Remote::Agreed).gives(append(100, 150));
    case(30, None, Remote::Agreed).gives(append(0, 30));
    case(0, None, Remote::Agreed).gives(Step::Confirm(Prefix::empty()));
    case(0, Some(0), Remote::Agreed).gives(Step::Idle);
    case(100, None, Remote::Unasked).gives(Step::Head);
}

#[test]
fn a_retired_file_is_delivered_up_to_where_it_was_retired() {
    let retired = |length| Remote::Retired(ours(length));
    let failed = |at| Step::Fail(FileError::Retired { at: offset(at) });
    case(100, Some(100), retired(100)).gives(Step::Idle);
    case(0, None, retired(0)).gives(Step::Idle);
    // Nobody can compare it any longer with more than there is: only what is confirmed is known.
    case(100, Some(100), retired(120)).gives(Step::Idle);
    case(100, None, retired(120)).gives(Step::Supersede(Closed::NameTaken));
    case(100, Some(60), retired(120)).gives(Step::Fail(FileError::Differs {
        at: offset(120),
        chunk: None,
    }));
    // The evidence there is a confirmation, if it is of our bytes.
    case(100, Some(60), retired(100)).gives(Step::Hash(offset(100)));
    case(100, Some(60), retired(100))
        .continued(100)
        .gives(Step::Adopt(ours(100)));
    case(100, None, retired(70)).gives(Step::Hash(offset(70)));
    // What came later is nowhere there, nor what was lost before.
    case(200, Some(100), retired(100)).gives(failed(100));
    case(5, None, retired(0)).gives(failed(0));
    case(100, Some(100), retired(40)).gives(failed(40));
    // What an earlier run has recorded is asked about when there is more.
    case(100, Some(100), Remote::Recorded).gives(Step::Idle);
    case(200, Some(100), Remote::Recorded).gives(Step::Head);
    // Not our file: this one goes by another name. Or what we had confirmed: nobody knows.
    let foreign = || case(100, None, Remote::Retired(other(70))).continued(70);
    foreign().gives(Step::Supersede(Closed::NameTaken));
    let differs = Step::Fail(FileError::Differs {
        at: offset(70),
        chunk: None,
    });
    foreign().closed_today().gives(differs.clone());
    case(100, Some(70), Remote::Retired(other(70))).gives(Step::Prove(vec![offset(70)]));
    case(100, Some(70), Remote::Retired(other(70)))
        .proven(&[ours(70)])
        .gives(differs);
}

#[test]
fn only_new_or_recorded_files_at_verified_destinations_go_unasked() {
    let first = Remote::at_first;
    assert_eq!(first(Trust::Verified, None, true), Remote::Agreed);
    assert_eq!(first(Trust::Verified, Some(ours(1)), false), Remote::Agreed);
    assert_eq!(first(Trust::Verified, None, false), Remote::Unasked);
    assert_eq!(first(Trust::Unverified, None, true), Remote::Unasked);
    assert_eq!(
        first(Trust::Unverified, Some(ours(1)), true),
        Remote::Recorded
    );
}

#[test]
fn equal_lengths_are_compared_by_hash() {
    case(130, Some(100), holds(ours(100), None)).gives(append(100, 130));
    let differs = || case(130, Some(100), holds(other(100), None));
    differs().gives(Step::Prove(vec![offset(100)]));
    differs()
        .proven(&[ours(100)])
        .gives(Step::Fail(FileError::Differs {
            at: offset(100),
            chunk: chunk(100),
        }));
    // The local file is what changed: rule 1 before rule 2.
    differs()
        .proven(&[other(100)])
        .gives(Step::Supersede(Closed::Rewritten { chunk: None }));
}

#[test]
fn rule_1_is_judged_against_the_largest_confirmation() {
    case(99, Some(100), Remote::Agreed).gives(Step::Supersede(Closed::Shrunk));
    case(99, None, Remote::Agreed)
        .elsewhere(100)
        .gives(Step::Supersede(Closed::Shrunk));
    case(99, Some(10), Remote::Agreed)
        .elsewhere(100)
        .gives(Step::Supersede(Closed::Shrunk));
    let mut broken = case(200, Some(10), Remote::Agreed).elsewhere(100);
    broken.facts.seam_broken = true;
    broken.gives(Step::Supersede(Closed::Rewritten { chunk: None }));
    // Nothing was confirmed anywhere: there is nothing that could have changed.
    let mut unconfirmed = case(20, None, Remote::Agreed);
    unconfirmed.facts.seam_broken = true;
    unconfirmed.gives(append(0, 20));
    // Even a retired file's change is a change of the generation.
    case(99, Some(100), Remote::Retired(ours(100))).gives(Step::Supersede(Closed::Shrunk));
    // The proof covers the largest, though this destination has less.
    case(200, Some(10), holds(other(10), None))
        .elsewhere(100)
        .gives(Step::Prove(vec![offset(100)]));
}

#[test]
fn less_than_confirmed_is_confirmed_first_then_sent_again() {
    let restored = |prefix| case(200, Some(100), holds(prefix, None));
    restored(ours(40)).gives(Step::Confirm(ours(100)));
    restored(ours(40))
        .refused(100)
        .gives(Step::Prove(vec![offset(40), offset(100)]));
    restored(ours(40))
        .refused(100)
        .proven(&[ours(40), ours(100)])
        .gives(Step::Restore(ours(40)));
    restored(other(40))
        .refused(100)
        .proven(&[ours(40), ours(100)])
        .gives(Step::Fail(FileError::Differs {
            at: offset(40),
            chunk: chunk(40),
        }));
    restored(ours(40))
        .refused(100)
        .proven(&[ours(40), other(100)])
        .gives(Step::Supersede(Closed::Rewritten { chunk: None }));
    // A hash that went on from C proves nothing about the bytes before C.
    case(200, Some(50), holds(ours(40), None))
        .elsewhere(100)
        .refused(50)
        .continued(100)
        .gives(Step::Prove(vec![offset(40), offset(100)]));
    restored(Prefix::empty())
        .refused(100)
        .proven(&[ours(100)])
        .gives(Step::Restore(Prefix::empty()));
}

#[test]
fn more_than_confirmed_is_adopted_if_it_is_ours() {
    let more = || case(200, Some(100), holds(ours(150), None));
    more().gives(Step::Hash(offset(150)));
    more().continued(150).gives(Step::Adopt(ours(150)));
    // A rebuilt catalogue: nothing recorded.
    case(200, None, holds(ours(150), None))
        .continued(150)
        .gives(Step::Adopt(ours(150)));
    case(200, None, holds(Prefix::empty(), None)).gives(append(0, 50));
}

#[test]
fn more_than_there_is_locally_is_compared_at_our_end() {
    let longer = || case(120, None, holds(ours(150), None));
    longer().gives(Step::HeadPrefix(offset(120)));
    let mut asked = longer();
    asked.facts.theirs.push(ours(120));
    asked.gives(Step::Hash(offset(120)));
    let mut asked = asked.continued(120);
    asked.gives(Step::Adopt(ours(120)));
    asked.confirmed = Some(ours(120));
    asked.gives(Step::Idle);
    // An old answer about a shorter prefix does not do.
    asked.size = 130;
    asked.gives(Step::HeadPrefix(offset(130)));
    // Nothing is a prefix of anything.
    case(0, None, holds(other(150), None)).gives(Step::Adopt(Prefix::empty()));
}

#[test]
fn what_was_ours_and_is_more_than_there_is_locally_tells_that_the_file_shrank() {
    let longer = |confirmed| {
        let mut case = case(120, confirmed, holds(ours(150), None)).continued(120);
        case.facts.theirs.push(ours(120));
        case
    };
    let (shrunk, told) = (Closed::Shrunk, Closed::ShorterThanHeld);
    let (shrunk, told) = (Step::Supersede(shrunk), Step::Supersede(told));
    longer(None).gives(Step::Adopt(ours(120)));
    longer(None).fresh().gives(told.clone());
    longer(None).had(121).gives(shrunk.clone());
    longer(Some(100)).gives(told);
    // A server that says so again may say so for ever; what is known here is as it is.
    let conflict = Step::Fail(FileError::Longer {
        theirs: offset(150),
        ours: offset(120),
    });
    longer(None).fresh().closed_today().gives(conflict.clone());
    longer(Some(100)).closed_today().gives(conflict);
    longer(None).had(121).closed_today().gives(shrunk.clone());
    // What this one has of an empty file may be anybody's, unless the file was known to be longer.
    let empty = || case(0, None, holds(other(150), None)).fresh();
    empty().gives(Step::Adopt(Prefix::empty()));
    empty().had(1).gives(shrunk);
}

#[test]
fn before_anything_counts_as_lost_the_destination_is_asked() {
    case(99, Some(100), Remote::Agreed)
        .unsure()
        .gives(Step::Head);
    case(110, Some(100), Remote::Agreed)
        .had(120)
        .unsure()
        .gives(Step::Head);
    case(110, Some(100), Remote::Agreed)
        .had(120)
        .gives(append(100, 110));
    case(120, Some(100), Remote::Agreed)
        .had(120)
        .unsure()
        .gives(append(100, 120));
}

#[test]
fn rule_3_closes_unless_others_hold_more_or_it_happened_today() {
    let foreign = || {
        case(200, Some(100), holds(other(150), None))
            .continued(150)
            .proven(&[ours(100)])
    };
    case(200, Some(100), holds(other(150), None))
        .continued(150)
        .gives(Step::Prove(vec![offset(100)]));
    foreign().gives(Step::Supersede(Closed::OtherWriter));
    let conflict = Step::Fail(FileError::OtherWriter {
        at: offset(150),
        chunk: chunk(150),
    });
    foreign().closed_today().gives(conflict.clone());
    foreign()
        .elsewhere(151)
        .proven(&[ours(151)])
        .gives(conflict.clone());
    foreign()
        .elsewhere(150)
        .proven(&[ours(150)])
        .gives(Step::Supersede(Closed::OtherWriter));
    // Nothing of ours is there: another name, unless others know the file by this one.
    let taken = || case(200, None, holds(other(150), None)).continued(150);
    taken().gives(Step::Supersede(Closed::NameTaken));
    taken().closed_today().gives(conflict.clone());
    taken().elsewhere(10).proven(&[ours(10)]).gives(conflict);
}

#[test]
fn tails_are_proven_rather_than_sent_again() {
    let hash = |length| Some(ours(length).hash);
    let tail = |size, at, hash| case(size, Some(100), holds(ours(100), Some((at, hash))));
    tail(200, 150, hash(150)).gives(Step::Hash(offset(150)));
    // A byte follows: the append proves the tail.
    tail(200, 150, hash(150))
        .continued(150)
        .gives(append(150, 200));
    // The last byte is there already.
    tail(150, 150, hash(150))
        .continued(150)
        .gives(Step::Confirm(ours(150)));
    // Not ours: the server compares and moves it aside.
    tail(200, 150, Some(other(150).hash))
        .continued(150)
        .gives(append(100, 150));
    // Of unknown hash, or longer than ours: ask.
    tail(200, 150, None)
        .continued(150)
        .gives(Step::Confirm(ours(150)));
    tail(120, 150, hash(150))
        .continued(120)
        .gives(Step::Confirm(ours(120)));
    tail(200, 150, None)
        .continued(150)
        .refused(150)
        .gives(append(100, 150));
    tail(100, 150, hash(150)).gives(Step::Idle);
}

#[test]
fn unverified_destinations_are_only_counted() {
    let counted = |length| {
        Remote::Holds(Holding {
            exists: true,
            length: offset(length),
            hash: None,
            tail: None,
        })
    };
    let bare = |size, confirmed, remote| case(size, confirmed, remote).unverified();
    bare(0, None, Remote::Unasked).gives(Step::Adopt(Prefix::empty()));
    bare(0, Some(0), Remote::Recorded).gives(Step::Idle);
    bare(100, Some(100), Remote::Recorded).gives(Step::Idle);
    bare(200, Some(100), Remote::Recorded).gives(Step::Head);
    bare(100, Some(100), Remote::Unasked).gives(Step::Head);
    bare(100, None, Remote::Unasked).gives(Step::Head);
    bare(200, Some(100), Remote::Unasked).gives(Step::Head);
    bare(30, None, counted(0)).gives(append_bare(0, 30));
    bare(130, Some(100), counted(100)).gives(append_bare(100, 130));
    // Half of the file is there already.
    bare(100, None, counted(50)).gives(Step::Hash(offset(50)));
    bare(100, None, counted(50))
        .continued(50)
        .gives(Step::Adopt(ours(50)));
    // After a PUT of 100..150: below, within, at its end, above.
    let after = |length| bare(200, Some(100), counted(length)).sent(100, 150);
    after(99).gives(Step::Stop(StopReason::Loses {
        had: offset(100),
        has: offset(99),
    }));
    after(100).gives(append_bare(100, 150));
    after(120).continued(120).gives(Step::Adopt(ours(120)));
    after(150).continued(150).gives(Step::Adopt(ours(150)));
    after(151).gives(Step::Fail(FileError::Longer {
        theirs: offset(151),
        ours: offset(150),
    }));
    bare(100, None, counted(101)).gives(Step::Fail(FileError::Longer {
        theirs: offset(101),
        ours: offset(100),
    }));
}
