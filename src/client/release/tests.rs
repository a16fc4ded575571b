use proptest::prelude::*;

use super::*;
use crate::types::{Offset, PrefixHash};

/// A world with some destinations and one file, in which everything happens in any order.
#[derive(Clone, Debug)]
enum Happens {
    /// The program writes.
    Append,
    /// Somebody changes a byte that is there.
    Rewrite,
    /// The source's name goes, or another comes.
    Unlink,
    Link,
    /// A writer opens it, or closes it.
    Open,
    Close,
    /// Time passes.
    Pass(u64),
    /// A destination takes all there is now.
    Deliver(usize),
    /// It is restored from a backup that has only this much.
    Restore(usize, usize),
    /// Its operator gives the file up.
    Retire(usize),
    /// Its operator has given up a longer file of that name.
    Foreign(usize),
    /// The releaser asks it.
    Ask(usize),
    /// This process ends, and forgets what it was told; the quiet time is stored.
    Crash,
    /// The releaser hashes the file and decides.
    Decide,
}

#[derive(Default)]
struct Destination {
    has: Vec<u8>,
    /// What the client has on record of it.
    row: Option<Prefix>,
    retired: bool,
    verified: bool,
    word: Option<Word>,
}

struct World {
    file: Vec<u8>,
    links: u64,
    writers: u32,
    quiet: u64,
    destinations: Vec<Destination>,
}

const RULE: Rule = Rule {
    after: Duration::from_secs(100),
    unverified: false,
};

fn prefix(bytes: &[u8]) -> Prefix {
    Prefix {
        length: Offset::new(bytes.len() as u64).unwrap(),
        hash: PrefixHash(*blake3::hash(bytes).as_bytes()),
    }
}

impl World {
    fn new(verified: &[bool]) -> Self {
        let destination = |verified: &bool| Destination {
            verified: *verified,
            ..Destination::default()
        };
        Self {
            file: Vec::new(),
            links: 2,
            writers: 0,
            quiet: 0,
            destinations: verified.iter().map(destination).collect(),
        }
    }

    fn changed(&mut self) {
        self.quiet = 0;
        // The releaser compares size and times with those before it asked: what it heard is void.
        self.forget();
    }

    fn forget(&mut self) {
        for destination in &mut self.destinations {
            destination.word = None;
        }
    }

    fn decide(&self) -> Result<(), Stays> {
        let claim = Claim {
            links: self.links,
            whole: prefix(&self.file),
            recorded: self
                .destinations
                .iter()
                .all(|it| it.row == Some(prefix(&self.file))),
            open: self.writers > 0,
            quiet: Duration::from_secs(self.quiet),
        };
        let words: Vec<_> = self.destinations.iter().map(|it| it.word).collect();
        may_go(&claim, &words, RULE)
    }

    /// Whether the link may go by everything that is true, whatever anybody has said.
    fn is_safe(&self) -> bool {
        let has_all = |it: &Destination| it.has == self.file && (it.retired || it.verified);
        self.links == 1
            && self.writers == 0
            && self.quiet >= RULE.after.as_secs()
            && self.destinations.iter().all(has_all)
    }

    fn happens(&mut self, what: &Happens) {
        let count = self.destinations.len();
        match *what {
            Happens::Append => {
                self.file.push(b'a');
                self.changed();
            }
            Happens::Rewrite => {
                if let Some(byte) = self.file.first_mut() {
                    *byte ^= 1;
                }
                self.changed();
            }
            Happens::Unlink => self.links = 1,
            Happens::Link => {
                self.links += 1;
                self.changed();
            }
            Happens::Open => self.writers += 1,
            Happens::Close => self.writers = self.writers.saturating_sub(1),
            Happens::Pass(seconds) => self.quiet += seconds,
            Happens::Deliver(at) => {
                let destination = &mut self.destinations[at % count];
                if !destination.retired {
                    destination.has = self.file.clone();
                    destination.row = Some(prefix(&self.file));
                }
            }
            Happens::Restore(at, length) => {
                let destination = &mut self.destinations[at % count];
                destination.has.truncate(length);
                // It is asked before each release: what it said before the restore is old.
                destination.word = None;
            }
            Happens::Retire(at) => self.destinations[at % count].retired = true,
            Happens::Foreign(at) => {
                self.destinations[at % count] = Destination {
                    has: vec![b'z'; self.file.len() + 1],
                    retired: true,
                    ..Destination::default()
                };
            }
            Happens::Ask(at) => {
                let destination = &mut self.destinations[at % count];
                destination.word = Some(Word {
                    confirmed: prefix(&destination.has),
                    verified: destination.verified,
                    retired: destination.retired,
                });
            }
            Happens::Crash => self.forget(),
            Happens::Decide => {}
        }
    }
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        2 => Just(Happens::Append),
        1 => Just(Happens::Rewrite),
        4 => Just(Happens::Unlink),
        1 => Just(Happens::Link),
        1 => Just(Happens::Open),
        3 => Just(Happens::Close),
        6 => (0..200_u64).prop_map(Happens::Pass),
        8 => (0..2_usize).prop_map(Happens::Deliver),
        1 => (0..2_usize, 0..3_usize).prop_map(|(at, length)| Happens::Restore(at, length)),
        1 => (0..2_usize).prop_map(Happens::Retire),
        1 => (0..2_usize).prop_map(Happens::Foreign),
        12 => (0..2_usize).prop_map(Happens::Ask),
        1 => Just(Happens::Crash),
        8 => Just(Happens::Decide),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Rule 7: whatever happens in whatever order, no link goes while a destination lacks a byte,
    /// while somebody writes, or before its time.
    #[test]
    fn a_link_never_goes_while_a_destination_lacks_a_byte(
        unverified in prop::bool::weighted(0.1),
        steps in prop::collection::vec(happens(), 1..60),
    ) {
        let mut world = World::new(&[true, !unverified]);
        for step in &steps {
            world.happens(step);
            if world.decide().is_ok() {
                prop_assert!(world.is_safe(), "{steps:?}");
            }
        }
    }
}

/// The property is worth something only if links do go.
#[test]
fn a_link_goes_when_all_is_well_and_not_when_one_thing_is_wrong() {
    use Happens::{Append, Ask, Deliver, Pass, Unlink};
    let well = [
        Append,
        Unlink,
        Deliver(0),
        Deliver(1),
        Pass(100),
        Ask(0),
        Ask(1),
    ];
    let run = |steps: &[Happens]| {
        let mut world = World::new(&[true, true]);
        for step in steps {
            world.happens(step);
        }
        world.decide()
    };
    assert_eq!(run(&well), Ok(()));
    let reasons = [
        Stays::Unconfirmed,
        Stays::Linked,
        Stays::Unconfirmed,
        Stays::Unconfirmed,
        Stays::Recent,
        Stays::Unconfirmed,
        Stays::Unconfirmed,
    ];
    // An empty file that everybody has may go as well.
    for (left_out, reason) in reasons.iter().enumerate().skip(1) {
        let mut steps = well.to_vec();
        steps.remove(left_out);
        assert_eq!(run(&steps), Err(*reason), "without {:?}", well[left_out]);
    }
    let mut more = well.to_vec();
    more.push(Happens::Open);
    assert_eq!(run(&more), Err(Stays::Open));
    let claim = Claim {
        links: 1,
        whole: prefix(b""),
        recorded: true,
        open: false,
        quiet: RULE.after,
    };
    assert_eq!(may_go(&claim, &[], RULE), Err(Stays::Unconfirmed));
    let word = Some(Word {
        confirmed: prefix(b""),
        verified: false,
        retired: false,
    });
    assert_eq!(may_go(&claim, &[word], RULE), Err(Stays::Unproven));
    let rule = Rule {
        unverified: true,
        ..RULE
    };
    assert_eq!(may_go(&claim, &[word], rule), Ok(()));
}

/// An operator's word is no confirmation, and the event does not call it one.
#[test]
fn the_event_tells_what_was_confirmed_from_what_was_given_up() {
    let claim = Claim {
        links: 1,
        whole: prefix(b"two lines"),
        recorded: true,
        open: false,
        quiet: Duration::from_secs(100),
    };
    let word = |confirmed: &[u8], retired| {
        Some(Word {
            confirmed: prefix(confirmed),
            verified: true,
            retired,
        })
    };
    let words = [word(b"two lines", false), word(b"two", true)];
    // What came after that is nowhere there.
    assert_eq!(may_go(&claim, &words, RULE), Err(Stays::Unconfirmed));
    let words = [word(b"two lines", false), word(b"two lines", true)];
    assert_eq!(may_go(&claim, &words, RULE), Ok(()));
    let text = describe(&claim, &words, true);
    assert!(
        text.contains("confirmed anew by 1 of 2 destinations"),
        "{text}"
    );
    assert!(text.contains("operator, which had 9 bytes"), "{text}");
}
