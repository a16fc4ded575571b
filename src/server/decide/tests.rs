//! The table row by row, and a property: whatever is asked, carrying out the verdict leaves a
//! server that has kept its promises.

use proptest::prelude::*;

use super::*;

const ROTATED: &[u8] = b"one line and then another, of which the last bytes are a tail";

fn offset(bytes: usize) -> Offset {
    Offset::new(bytes as u64).unwrap()
}

fn hash(bytes: &[u8]) -> PrefixHash {
    PrefixHash(*blake3::hash(bytes).as_bytes())
}

fn prefix(bytes: &[u8]) -> Prefix {
    Prefix {
        length: offset(bytes.len()),
        hash: hash(bytes),
    }
}

impl Standing {
    /// A path of which nothing is there.
    pub(in crate::server) fn absent() -> Self {
        Self {
            vouched: Prefix::empty(),
            size: Offset::ZERO,
            state: ServerState::Vouched,
            has_row: false,
            has_file: false,
            conditional: false,
        }
    }
}

/// A path with `vouched` bytes of [`ROTATED`] and a tail up to `size`.
fn standing(vouched: usize, size: usize) -> Standing {
    Standing {
        vouched: prefix(&ROTATED[..vouched]),
        size: offset(size),
        has_row: true,
        has_file: true,
        ..Standing::absent()
    }
}

fn unproven(size: usize) -> Standing {
    Standing {
        state: ServerState::Unproven,
        ..standing(size, size)
    }
}

const OPEN: Policy = Policy {
    allow_unconditional: false,
    disk_low: false,
};
const LOW: Policy = Policy {
    disk_low: true,
    ..OPEN
};

/// `a..end` of a file with `total` bytes, unconditional.
fn bytes(start: usize, end: usize, total: usize) -> Append {
    Append {
        range: ByteRange::new(offset(start), offset(end)).unwrap(),
        total: offset(total),
        condition: None,
        digest: None,
    }
}

fn after(content: &[u8], append: Append) -> Append {
    Append {
        condition: Some(Condition::Prefix(hash(content))),
        ..append
    }
}

fn digested(append: Append) -> Append {
    Append {
        digest: Some(hash(b"whatever")),
        ..append
    }
}

fn judge(append: Append, at: &Standing) -> Verdict {
    put(&Put::Append(append), at, &[], OPEN)
}

fn ask(length: usize, condition: Option<Condition>, at: &Standing, known: &[Prefix]) -> Verdict {
    let length = offset(length);
    put(
        &Put::Confirm(Confirm { length, condition }),
        at,
        known,
        OPEN,
    )
}

#[expect(clippy::unnecessary_wraps, reason = "as requests have it")]
fn claim(content: &[u8]) -> Option<Condition> {
    Some(Condition::Prefix(hash(content)))
}

fn on(content: &[u8]) -> Verdict {
    Verdict::Append(Base {
        prefix: prefix(content),
        creates: false,
    })
}

#[test]
fn row_3_diverged_and_retired_take_nothing() {
    for (state, problem) in [
        (ServerState::Diverged, Problem::Diverged),
        (ServerState::Retired, Problem::Retired),
    ] {
        let at = Standing {
            state,
            ..standing(10, 10)
        };
        assert_eq!(judge(bytes(10, 20, 20), &at), Verdict::Refuse(problem));
        assert_eq!(ask(0, None, &at, &[]), Verdict::Refuse(problem));
        assert_eq!(head(None, &at, &[]), HeadVerdict::Refuse(problem));
    }
}

#[test]
fn row_4_a_confirm_of_nothing_makes_what_is_missing() {
    let made = Verdict::Vouch(Vouch {
        prefix: Prefix::empty(),
        quarantine_rest: false,
        creates: true,
    });
    let absent = Standing::absent();
    let only_file = Standing {
        has_row: false,
        ..standing(0, 9)
    };
    let only_row = Standing {
        has_file: false,
        ..standing(0, 0)
    };
    for condition in [None, Some(Condition::Nothing), claim(b"")] {
        assert_eq!(ask(0, condition, &absent, &[]), made);
        assert_eq!(ask(0, condition, &only_file, &[]), made);
        assert_eq!(ask(0, condition, &only_row, &[]), made);
        assert_eq!(ask(0, condition, &standing(9, 12), &[]), Verdict::Holds);
        assert_eq!(ask(0, condition, &unproven(9), &[]), Verdict::Holds);
    }
    assert_eq!(
        ask(0, claim(b"x"), &absent, &[]),
        Verdict::Refuse(Problem::Condition)
    );
}

#[test]
fn row_4_a_confirm_needs_the_hash_of_what_it_confirms() {
    let at = standing(10, 20);
    for condition in [None, Some(Condition::Nothing)] {
        let verdict = ask(5, condition, &at, &[]);
        assert_eq!(verdict, Verdict::Refuse(Problem::Unconditional));
    }
    assert_eq!(
        ask(10, claim(&ROTATED[..10]), &at, &[]),
        Verdict::Holds,
        "H(L) is known"
    );
    assert_eq!(
        ask(10, claim(b"x"), &at, &[]),
        Verdict::Refuse(Problem::Condition)
    );
    assert_eq!(
        ask(5, claim(&ROTATED[..5]), &at, &[]),
        Verdict::NeedHash(offset(5))
    );
    let known = [prefix(&ROTATED[..5])];
    assert_eq!(ask(5, claim(&ROTATED[..5]), &at, &known), Verdict::Holds);
    assert_eq!(
        ask(5, claim(b"x"), &at, &known),
        Verdict::Refuse(Problem::Condition)
    );
}

#[test]
fn row_4_a_confirm_vouches_for_a_tail() {
    let at = standing(10, 20);
    let known = [prefix(&ROTATED[..15])];
    assert_eq!(
        ask(15, claim(&ROTATED[..15]), &at, &[]),
        Verdict::NeedHash(offset(15))
    );
    assert_eq!(
        ask(15, claim(&ROTATED[..15]), &at, &known),
        Verdict::Vouch(Vouch {
            prefix: known[0],
            quarantine_rest: false,
            creates: false
        })
    );
    assert_eq!(
        ask(15, claim(b"x"), &at, &known),
        Verdict::Refuse(Problem::Condition)
    );
    assert_eq!(
        ask(21, claim(ROTATED), &at, &known),
        Verdict::Refuse(Problem::Gap)
    );
}

#[test]
fn row_4_a_confirm_proves_a_rebuilt_row_and_sets_the_rest_aside() {
    let known = [prefix(&ROTATED[..15])];
    let vouch = |content: &[u8], quarantine_rest| {
        Verdict::Vouch(Vouch {
            prefix: prefix(content),
            quarantine_rest,
            creates: false,
        })
    };
    let at = unproven(20);
    assert_eq!(
        ask(15, claim(&ROTATED[..15]), &at, &known),
        vouch(&ROTATED[..15], true)
    );
    assert_eq!(
        ask(20, claim(&ROTATED[..20]), &at, &[]),
        vouch(&ROTATED[..20], false)
    );
}

#[test]
fn row_4a_a_full_disk_takes_only_repeats_and_confirms() {
    let at = standing(10, 10);
    let low = |append| put(&Put::Append(append), &at, &[], LOW);
    assert_eq!(low(bytes(10, 20, 20)), Verdict::Refuse(Problem::Full));
    assert_eq!(low(bytes(12, 20, 20)), Verdict::Refuse(Problem::Full));
    assert_eq!(low(bytes(0, 5, 5)), Verdict::Refuse(Problem::Shrunk));
    assert_eq!(low(bytes(0, 10, 10)), Verdict::Compare);
    let confirm = Put::Confirm(Confirm {
        length: offset(10),
        condition: claim(&ROTATED[..10]),
    });
    assert_eq!(put(&confirm, &at, &[], LOW), Verdict::Holds);
    let nothing = Put::Confirm(Confirm {
        length: Offset::ZERO,
        condition: None,
    });
    let only_file = Standing {
        has_file: true,
        ..Standing::absent()
    };
    let only_row = Standing {
        has_row: true,
        ..Standing::absent()
    };
    assert!(matches!(
        put(&nothing, &only_file, &[], LOW),
        Verdict::Vouch(_)
    ));
    for at in [Standing::absent(), only_row] {
        let verdict = put(&nothing, &at, &[], LOW);
        assert_eq!(verdict, Verdict::Refuse(Problem::Full), "it takes a file");
    }
}

#[test]
fn row_5_a_client_whose_file_is_shorter_is_told_so() {
    let at = standing(10, 10);
    assert_eq!(
        judge(bytes(0, 9, 9), &at),
        Verdict::Refuse(Problem::Shrunk),
        "before row 7"
    );
    assert_eq!(judge(bytes(0, 9, 10), &at), Verdict::Compare);
}

#[test]
fn row_6_a_gap_is_refused_unless_the_tail_is_proven() {
    let at = standing(10, 20);
    let gap = Verdict::Refuse(Problem::Gap);
    assert_eq!(judge(bytes(15, 25, 25), &at), gap, "unconditional");
    assert_eq!(judge(digested(bytes(15, 25, 25)), &at), gap, "digest only");
    let beyond = after(ROTATED, bytes(21, 25, 25));
    assert_eq!(judge(beyond, &at), gap, "behind the tail");

    let proven = after(&ROTATED[..15], bytes(15, 25, 25));
    assert_eq!(judge(proven, &at), Verdict::NeedHash(offset(15)));
    let known = [prefix(&ROTATED[..15])];
    assert_eq!(
        put(&Put::Append(proven), &at, &known, OPEN),
        on(&ROTATED[..15])
    );
    let wrong = after(b"x", bytes(15, 25, 25));
    assert_eq!(put(&Put::Append(wrong), &at, &known, OPEN), gap);
}

#[test]
fn row_7_a_repeat_is_compared_whatever_its_condition() {
    let at = Standing {
        conditional: true,
        ..standing(10, 10)
    };
    for append in [bytes(0, 10, 10), bytes(3, 7, 10), bytes(9, 10, 30)] {
        assert_eq!(judge(append, &at), Verdict::Compare);
        assert_eq!(judge(after(b"x", append), &at), Verdict::Compare);
    }
}

#[test]
fn row_8_an_overlap_needs_a_digest() {
    let at = standing(10, 10);
    assert_eq!(
        judge(bytes(5, 15, 15), &at),
        Verdict::Refuse(Problem::Range)
    );
    let matching = after(&ROTATED[..5], bytes(5, 15, 15));
    assert_eq!(judge(matching, &at), Verdict::Refuse(Problem::Range));
    assert_eq!(judge(digested(bytes(5, 15, 15)), &at), on(&ROTATED[..10]));
}

#[test]
fn row_9_a_false_condition_is_refused() {
    let at = standing(10, 10);
    let append = bytes(10, 20, 20);
    let nothing = Append {
        condition: Some(Condition::Nothing),
        ..append
    };
    for wrong in [after(b"x", append), nothing, digested(nothing)] {
        assert_eq!(judge(wrong, &at), Verdict::Refuse(Problem::Condition));
    }
}

#[test]
fn row_9a_who_once_spoke_conditionally_goes_on_so() {
    let at = Standing {
        conditional: true,
        ..standing(10, 10)
    };
    let append = bytes(10, 20, 20);
    assert_eq!(judge(append, &at), Verdict::Refuse(Problem::Unconditional));
    let allow = Policy {
        allow_unconditional: true,
        ..OPEN
    };
    assert_eq!(
        put(&Put::Append(append), &at, &[], allow),
        on(&ROTATED[..10])
    );
    assert_eq!(judge(digested(append), &at), on(&ROTATED[..10]));
}

#[test]
fn row_10_an_append_at_the_end_is_taken() {
    let at = standing(10, 15);
    let append = bytes(10, 20, 20);
    assert_eq!(judge(append, &at), on(&ROTATED[..10]));
    assert_eq!(
        judge(after(&ROTATED[..10], append), &at),
        on(&ROTATED[..10])
    );

    let first = Append {
        condition: Some(Condition::Nothing),
        ..bytes(0, 5, 5)
    };
    let created = Verdict::Append(Base {
        prefix: Prefix::empty(),
        creates: true,
    });
    assert_eq!(judge(first, &Standing::absent()), created);
    assert_eq!(judge(first, &standing(0, 0)), on(b""));
}

#[test]
fn heads_report_what_is_vouched() {
    assert_eq!(head(None, &Standing::absent(), &[]), HeadVerdict::NotFound);
    let tail_from_nothing = Standing {
        has_row: false,
        ..standing(0, 20)
    };
    let empty = HeadVerdict::Prefix(Prefix::empty());
    assert_eq!(head(None, &tail_from_nothing, &[]), empty);
    let at = standing(10, 20);
    let all = HeadVerdict::Prefix(prefix(&ROTATED[..10]));
    assert_eq!(head(None, &at, &[]), all);
    assert_eq!(head(Some(offset(10)), &at, &[]), all);
    assert_eq!(head(Some(offset(0)), &at, &[]), empty);
    assert_eq!(
        head(Some(offset(11)), &at, &[]),
        HeadVerdict::Refuse(Problem::Gap)
    );
    assert_eq!(
        head(Some(offset(4)), &at, &[]),
        HeadVerdict::NeedHash(offset(4))
    );
    let known = [prefix(&ROTATED[..4])];
    assert_eq!(
        head(Some(offset(4)), &at, &known),
        HeadVerdict::Prefix(known[0])
    );
}

/// A server of which the bytes are known: what a verdict does to it.
#[derive(Clone, Debug)]
struct Model {
    disk: Vec<u8>,
    vouched: usize,
    conditional: bool,
    there: bool,
}

impl Model {
    fn standing(&self) -> Standing {
        Standing {
            vouched: prefix(&self.disk[..self.vouched]),
            size: offset(self.disk.len()),
            has_row: self.there,
            has_file: self.there,
            conditional: self.conditional,
            ..Standing::absent()
        }
    }

    /// Asks until no hash is missing.
    fn judge(&self, request: &Put, policy: Policy) -> Verdict {
        let mut known = Vec::new();
        loop {
            match put(request, &self.standing(), &known, policy) {
                Verdict::NeedHash(length) => {
                    let length = usize::try_from(length.bytes()).unwrap();
                    assert!(
                        length <= self.disk.len(),
                        "the hash of bytes that are not there"
                    );
                    known.push(prefix(&self.disk[..length]));
                    assert!(known.len() < 3, "asks for ever");
                }
                verdict => return verdict,
            }
        }
    }

    /// Whether the request was answered 2xx.
    fn apply(&mut self, append: &Append, body: &[u8], policy: Policy) -> bool {
        let (start, end) = (index(append.range.start()), index(append.range.end()));
        match self.judge(&Put::Append(*append), policy) {
            Verdict::Compare => self.disk[start..end] == *body,
            Verdict::Append(base) => {
                let base = index(base.prefix.length);
                assert!(start <= base && base < end, "base outside the range");
                if self.disk[start..base] != body[..base - start] {
                    return false;
                }
                let mut disk = self.disk.clone();
                disk.truncate(start);
                disk.extend_from_slice(body);
                if self.disk.starts_with(&disk) {
                    disk.clone_from(&self.disk);
                }
                if append
                    .digest
                    .is_some_and(|digest| digest != hash(&disk[..end]))
                {
                    return false;
                }
                self.disk = disk;
                self.vouched = end;
                self.conditional |= append.is_conditional();
                self.there = true;
                true
            }
            _ => false,
        }
    }
}

fn index(offset: Offset) -> usize {
    usize::try_from(offset.bytes()).unwrap()
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    // Two letters: equal and different bytes both happen.
    prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 0..12)
}

prop_compose! {
    fn models()(disk in content(), cut in any::<prop::sample::Index>(), conditional in any::<bool>(), there in any::<bool>())
        -> Model
    {
        let vouched = cut.index(disk.len() + 1);
        let there = there || !disk.is_empty();
        Model { disk, vouched, conditional, there }
    }
}

prop_compose! {
    /// Some stretch of some client's file, honest about itself or not.
    fn appends()(
        file in content().prop_filter("a range has a byte", |file| !file.is_empty()),
        ends in any::<(prop::sample::Index, prop::sample::Index)>(),
        condition in 0..4,
        digest in 0..3,
    ) -> (Append, Vec<u8>, Vec<u8>) {
        let start = ends.0.index(file.len());
        let end = start + 1 + ends.1.index(file.len() - start);
        let append = Append {
            condition: match condition {
                0 => None,
                1 => Some(Condition::Nothing),
                2 => Some(Condition::Prefix(hash(&file[..start]))),
                _ => Some(Condition::Prefix(hash(b"another"))),
            },
            digest: match digest {
                0 => None,
                1 => Some(hash(&file[..end])),
                _ => Some(hash(b"another")),
            },
            ..bytes(start, end, file.len())
        };
        (append, file[start..end].to_vec(), file)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Rules 1, 2 and 6: nothing vouched changes, nothing leaves a gap, a repeat is harmless, and
    /// what was accepted with a digest is the client's own prefix.
    #[test]
    fn promises_are_kept(before in models(), (append, body, file) in appends(), low in any::<bool>(), allow in any::<bool>()) {
        let policy = Policy { disk_low: low, allow_unconditional: allow };
        let mut server = before.clone();
        let accepted = server.apply(&append, &body, policy);
        prop_assert!(server.vouched >= before.vouched);
        prop_assert_eq!(&server.disk[..before.vouched], &before.disk[..before.vouched]);
        prop_assert!(accepted || server.disk == before.disk);
        if accepted {
            let end = index(append.range.end());
            prop_assert!(server.vouched >= end, "acknowledged and not vouched for");
            prop_assert_eq!(&server.disk[index(append.range.start())..end], &body[..]);
            if append.digest.is_some() && server.vouched > before.vouched {
                prop_assert_eq!(&server.disk[..end], &file[..end]);
            }
            let once = server.clone();
            prop_assert!(server.apply(&append, &body, policy), "a repeat was refused");
            prop_assert_eq!(once.disk, server.disk);
            prop_assert_eq!(once.vouched, server.vouched);
        }
    }

    /// An honest client, conditional and with a digest, that starts where HEAD says, is taken or
    /// told that the files differ; so it makes progress.
    #[test]
    fn an_honest_client_gets_on(before in models(), file in content()) {
        let start = before.vouched;
        let mut file = file;
        file.resize(file.len().max(start + 1), b'a');
        let append = Append {
            condition: Some(Condition::Prefix(hash(&file[..start]))),
            digest: Some(hash(&file)),
            ..bytes(start, file.len(), file.len())
        };
        let mut server = before.clone();
        let accepted = server.apply(&append, &file[start..], OPEN);
        prop_assert_eq!(accepted, before.disk[..start] == file[..start]);
    }
}
