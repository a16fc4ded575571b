//! Plan against a model of the server's table, with everything going wrong that can: answers
//! lost, bodies cut, the server restored from older states, files newer than the index.

use proptest::prelude::*;

use super::*;
use crate::wire::Problem;

/// What a server holds of one file. The first `vouched` bytes of `disk` are vouched for.
#[derive(Clone, Debug, Default)]
pub(in crate::client) struct Server {
    pub(in crate::client) disk: Vec<u8>,
    pub(in crate::client) vouched: usize,
    pub(in crate::client) known: bool,
    pub(in crate::client) tail_hashed: bool,
    /// Bytes of bodies that were taken.
    pub(in crate::client) received: usize,
}

fn hash(bytes: &[u8]) -> PrefixHash {
    PrefixHash(*blake3::hash(bytes).as_bytes())
}

fn offset(bytes: usize) -> Offset {
    Offset::new(bytes as u64).unwrap()
}

fn index(offset: Offset) -> usize {
    usize::try_from(offset.bytes()).unwrap()
}

impl Server {
    pub(in crate::client) fn answer(&self, status: u16, problem: Option<Problem>) -> Answer {
        let length = self.vouched;
        let tail = (self.disk.len() > length).then(|| Tail {
            size: offset(self.disk.len()),
            hash: self.tail_hashed.then(|| hash(&self.disk)),
        });
        Answer {
            status,
            problem,
            about: Some(About {
                length: offset(length),
                tail,
            }),
            content_length: Some(offset(length)),
            tag: Some(hash(&self.disk[..length])),
            retry_after: None,
        }
    }

    pub(in crate::client) fn refuse(&self, problem: Problem) -> Answer {
        self.answer(problem.status(), Some(problem))
    }

    pub(in crate::client) fn head(&self) -> Answer {
        if self.known || !self.disk.is_empty() {
            self.answer(200, None)
        } else {
            Answer {
                about: None,
                content_length: None,
                tag: None,
                ..self.answer(404, None)
            }
        }
    }

    pub(in crate::client) fn head_prefix(&self, length: usize) -> Answer {
        if length > self.vouched {
            return self.refuse(Problem::Range);
        }
        Answer {
            content_length: Some(offset(length)),
            tag: Some(hash(&self.disk[..length])),
            ..self.answer(200, None)
        }
    }

    pub(in crate::client) fn confirm(&mut self, prefix: Prefix) -> Answer {
        let length = index(prefix.length);
        if length > self.disk.len() {
            return self.refuse(Problem::Gap);
        }
        if length > 0 && hash(&self.disk[..length]) != prefix.hash {
            self.tail_hashed = true;
            return self.refuse(Problem::Condition);
        }
        self.known = true;
        self.vouched = self.vouched.max(length);
        self.answer(204, None)
    }

    /// Rows 5 to 10 for a body of which only the first bytes may have come.
    pub(in crate::client) fn append(
        &mut self,
        start: usize,
        body: &[u8],
        whole: usize,
        total: usize,
        condition: Option<Condition>,
        end: PrefixHash,
    ) -> Answer {
        if total < self.vouched {
            return self.refuse(Problem::Shrunk);
        }
        if start > self.vouched {
            let proven = start <= self.disk.len()
                && condition == Some(Condition::Prefix(hash(&self.disk[..start])));
            if !proven {
                return self.refuse(Problem::Gap);
            }
            self.vouched = start;
        }
        let known = (self.vouched - start).min(body.len());
        if self.disk[start..start + known] != body[..known] {
            return self.refuse(Problem::Differs);
        }
        if start + whole <= self.vouched {
            return self.answer(204, None);
        }
        if start == self.vouched {
            let holds = match condition {
                Some(Condition::Prefix(prefix)) => prefix == hash(&self.disk[..start]),
                Some(Condition::Nothing) => start == 0,
                None => true,
            };
            if !holds {
                return self.refuse(Problem::Condition);
            }
        }
        self.received += body.len();
        let reached = start + body.len();
        let shared = reached.min(self.disk.len());
        let same = |at: usize| self.disk[at] == body[at - start];
        let equal = (start..shared).take_while(|at| same(*at)).count();
        if start + equal < shared || reached > self.disk.len() {
            self.disk.truncate(start + equal);
            self.disk.extend_from_slice(&body[equal..]);
        }
        self.known = true;
        self.tail_hashed = true;
        if body.len() < whole {
            return self.refuse(Problem::Timeout);
        }
        if hash(&self.disk[..reached]) != end {
            self.disk.truncate(self.vouched);
            return self.refuse(Problem::Digest);
        }
        self.vouched = reached;
        self.answer(204, None)
    }
}

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// The request never arrived.
    Unsent,
    /// It was served, the answer lost.
    LostAnswer,
    /// The body was cut at this share of 255, the answer lost.
    Cut(u8),
    /// The answer was 503 `busy`.
    Busy,
    /// Before it, the server restarts and does not remember its tail's hash.
    Restart,
    /// Before it, files and index go back to this share of what they were.
    Restore(u8),
    /// Before it, the index alone does.
    IndexBack(u8),
    /// Before it, the local file grows by so many bytes.
    Grow(u8),
}

struct World {
    server: Server,
    file: Vec<u8>,
    confirmed: Option<Prefix>,
    course: Course,
    restored: usize,
}

enum Outcome {
    Idle,
    Failed(FileError),
    Closed(Closed),
}

impl World {
    fn new(file: Vec<u8>, server: Server, fresh: bool) -> Self {
        Self {
            server,
            file,
            confirmed: None,
            course: Course::new(Remote::at_first(Trust::Verified, None, fresh)),
            restored: 0,
        }
    }

    fn step(&self) -> Step {
        next(&View {
            trust: Trust::Verified,
            size: offset(self.file.len()),
            confirmed: self.confirmed,
            elsewhere: None,
            remote: self.course.remote,
            facts: &self.course.facts,
            had: offset(self.file.len()),
            fresh: false,
            unsure: false,
            closed_today: false,
            piece: 64,
        })
    }

    fn local(&self, length: Offset) -> Prefix {
        Prefix {
            length,
            hash: hash(&self.file[..index(length)]),
        }
    }

    fn record(&mut self, prefix: Prefix) {
        self.course.moved(prefix, self.confirmed);
        self.confirmed = Some(prefix);
    }

    fn disturb(&mut self, fault: Fault) {
        let share = |of: u8, length: usize| length * usize::from(of) / 255;
        let server = &mut self.server;
        match fault {
            Fault::Restart => server.tail_hashed = false,
            Fault::Restore(of) => {
                server.vouched = share(of, server.vouched);
                self.restored += server.disk.len() - server.vouched;
                server.disk.truncate(server.vouched);
            }
            Fault::IndexBack(of) => {
                server.vouched = share(of, server.vouched);
                server.known = server.vouched > 0;
                server.tail_hashed = false;
            }
            Fault::Grow(by) => {
                let from = self.file.len();
                self.file.extend(&content(from + usize::from(by))[from..]);
            }
            _ => {}
        }
    }

    /// Sends one request through the fault; `None` when no answer came.
    fn ask(&mut self, asked: &Asked, condition: Option<Condition>, fault: Fault) -> Option<Answer> {
        let (cut, answered) = match fault {
            Fault::Unsent => return None,
            Fault::Busy => return Some(self.server.refuse(Problem::Busy)),
            Fault::LostAnswer => (255, false),
            Fault::Cut(share) => (share, false),
            _ => (255, true),
        };
        let total = self.file.len();
        let answer = match asked {
            Asked::Head => self.server.head(),
            Asked::HeadPrefix(length) => self.server.head_prefix(index(*length)),
            Asked::Confirm(prefix) => self.server.confirm(*prefix),
            Asked::Append { range, end } => {
                let body = &self.file[index(range.start())..index(range.end())];
                let part = &body[..body.len() * usize::from(cut) / 255];
                let start = index(range.start());
                self.server
                    .append(start, part, body.len(), total, condition, *end)
            }
        };
        answered.then_some(answer)
    }

    /// Runs until the file stands still; every request meets the next fault.
    fn run(&mut self, faults: &mut impl Iterator<Item = Fault>) -> Outcome {
        for _ in 0..5000 {
            let fault = faults.next().unwrap_or(Fault::None);
            self.disturb(fault);
            let (asked, condition) = match self.step() {
                Step::Idle => return Outcome::Idle,
                Step::Fail(error) => return Outcome::Failed(error),
                Step::Supersede(why) => return Outcome::Closed(why),
                Step::Stop(_) => panic!("stopped"),
                Step::Prove(lengths) => {
                    for length in lengths {
                        self.course.facts.proven.push(self.local(length));
                    }
                    continue;
                }
                Step::Hash(length) => {
                    self.course.facts.continued.push(self.local(length));
                    continue;
                }
                Step::Adopt(prefix) | Step::Restore(prefix) => {
                    self.record(prefix);
                    continue;
                }
                Step::Head => (Asked::Head, None),
                Step::HeadPrefix(length) => (Asked::HeadPrefix(length), None),
                Step::Confirm(prefix) => (Asked::Confirm(prefix), None),
                Step::Append {
                    range, condition, ..
                } => {
                    let end = self.local(range.end()).hash;
                    (Asked::Append { range, end }, condition)
                }
            };
            let Some(answer) = self.ask(&asked, condition, fault) else {
                self.course.lost(&asked, Trust::Verified);
                continue;
            };
            let heard = heard(Trust::Verified, &asked, &answer);
            match self.course.hear(&asked, heard, self.confirmed) {
                After::Record(prefix) => self.record(prefix),
                After::Again | After::Wait(_) | After::Pause(..) => {}
                After::Fail(error) => return Outcome::Failed(error),
            }
        }
        panic!("no standstill: {:?}", self.course);
    }

    /// As a client does with a file in error: later, from the start.
    fn run_to_the_end(&mut self, faults: &mut impl Iterator<Item = Fault>) {
        for _ in 0..200 {
            match self.run(faults) {
                Outcome::Idle => return,
                Outcome::Closed(why) => panic!("closed: {why}"),
                Outcome::Failed(FileError::Stuck(_)) => {
                    self.course = Course::new(Remote::Unasked);
                }
                Outcome::Failed(error) => panic!("{error}"),
            }
        }
        panic!("no end");
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect()
}

fn line_faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault::None),
        1 => Just(Fault::Unsent),
        2 => Just(Fault::LostAnswer),
        2 => any::<u8>().prop_map(Fault::Cut),
        1 => Just(Fault::Busy),
        1 => Just(Fault::Restart),
        1 => any::<u8>().prop_map(Fault::Grow),
    ]
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => line_faults(),
        1 => any::<u8>().prop_map(Fault::Restore),
        1 => any::<u8>().prop_map(Fault::IndexBack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A bad line alone: everything arrives, and no byte is sent twice.
    #[test]
    fn a_bad_line_costs_no_byte_twice(
        length in 0usize..1000,
        fresh in any::<bool>(),
        faults in prop::collection::vec(line_faults(), 0..60),
    ) {
        let mut world = World::new(content(length), Server::default(), fresh);
        world.run_to_the_end(&mut faults.into_iter());
        prop_assert_eq!(&world.server.disk, &world.file);
        prop_assert_eq!(world.server.vouched, world.file.len());
        prop_assert_eq!(world.confirmed, Some(world.local(offset(world.file.len()))));
        prop_assert_eq!(world.server.received, world.file.len());
    }

    /// Restores and indexes that go back: what was lost is found missing once it is looked for,
    /// sent again, and nothing else is.
    #[test]
    fn restored_servers_are_filled_again(
        length in 0usize..1000,
        faults in prop::collection::vec(any_fault(), 0..60),
    ) {
        let mut world = World::new(content(length), Server::default(), true);
        world.run_to_the_end(&mut faults.into_iter());
        // The sweep after `Shaftlog-Kept: no`.
        world.course = Course::new(Remote::Unasked);
        world.run_to_the_end(&mut std::iter::empty());
        prop_assert_eq!(&world.server.disk, &world.file);
        prop_assert_eq!(world.server.vouched, world.file.len());
        prop_assert!(world.server.received <= world.file.len() + world.restored);
    }

    /// Nothing to send, whatever a body that broke off has left there: the client comes to rest, and
    /// where there was no file is one.
    #[test]
    fn an_empty_file_comes_to_rest(
        left in 0usize..400,
        known in any::<bool>(),
        tail_hashed in any::<bool>(),
        confirmed in any::<bool>(),
        fresh in any::<bool>(),
        faults in prop::collection::vec(line_faults().prop_filter("it stays empty", |fault| {
            !matches!(fault, Fault::Grow(_))
        }), 0..20),
    ) {
        let server = Server { disk: content(left), known, tail_hashed, ..Server::default() };
        let mut world = World::new(Vec::new(), server, fresh);
        if confirmed {
            world.confirmed = Some(Prefix::empty());
            world.course = Course::new(Remote::Unasked);
        }
        world.run_to_the_end(&mut faults.into_iter());
        prop_assert_eq!(&world.server.disk, &content(left));
        prop_assert!(world.server.known || left > 0);
        prop_assert_eq!(world.confirmed, Some(Prefix::empty()));
    }

    /// Whatever lies there, and however the way goes: no vouched byte ever changes, and where the
    /// bytes are not ours the file ends as a closed generation or a conflict, never as delivered.
    #[test]
    fn foreign_bytes_are_never_touched(
        ours in 1usize..400,
        common in 0usize..400,
        theirs in 1usize..300,
        faults in prop::collection::vec(line_faults(), 0..20),
    ) {
        let common = common.min(ours);
        let mut disk = content(common);
        disk.extend(std::iter::repeat_n(0xff, theirs));
        let server = Server { vouched: disk.len(), disk: disk.clone(), known: true, ..Server::default() };
        let mut world = World::new(content(ours), server, false);
        let mut faults = faults.into_iter();
        let outcome = loop {
            match world.run(&mut faults) {
                Outcome::Failed(FileError::Stuck(_)) => world.course = Course::new(Remote::Unasked),
                outcome => break outcome,
            }
        };
        prop_assert_eq!(&world.server.disk, &disk);
        prop_assert_eq!(world.server.received, 0);
        match outcome {
            Outcome::Closed(Closed::NameTaken | Closed::OtherWriter) => {}
            // Ours is a prefix of theirs: nothing contradicts until it grows.
            Outcome::Idle => prop_assert_eq!(world.file.len(), common),
            Outcome::Closed(why) => prop_assert!(false, "{}", why),
            Outcome::Failed(error) => prop_assert!(false, "{}", error),
        }
    }
}
