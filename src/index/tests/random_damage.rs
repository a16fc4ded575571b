//! Flipped bits, cuts and zeroed pages at random, and a cut at every 4 KiB, in either kind of
//! database: every answer is the right one, or an error that names the place. 400 random damages
//! each; 2,000 with `SHAFTLOG_LONG=1`.

use std::collections::BTreeMap;
use std::fs;
use std::ops::AddAssign;
use std::path::Path;

use serde_json::Value;

use crate::index::client::tests::{Fixture as ClientFixture, name, new_file, progress};
use crate::index::client::{ClientChange, ClientIndex, Hold, Stretch, Times};
use crate::index::inspect::Inspection;
use crate::index::server::tests::{Fixture as ServerFixture, at, event, path, row};
use crate::index::server::{Quarantined, ServerChange, ServerIndex};
use crate::index::{EventKind, IndexError, NewEvent};
use crate::types::{FileId, Offset};

const FILES: usize = 60;

/// What was asked, and the answer; the same question has the same answer for ever.
type Answers = BTreeMap<String, Value>;

/// Answers that came, and questions that were answered by an error.
#[derive(Default, Debug, Clone, Copy)]
struct Tally {
    right: usize,
    errors: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.right += other.right;
        self.errors += other.errors;
    }
}

/// Asks everything there is to ask.
struct Questions<'a> {
    /// `None` while the right answers are collected.
    expected: Option<&'a Answers>,
    answers: Answers,
    tally: Tally,
}

impl Questions<'_> {
    fn ask<T: std::fmt::Debug>(&mut self, question: &str, answer: Result<T, IndexError>) {
        match (answer, self.expected) {
            (Err(error), _) => {
                assert!(error.to_string().contains("redb"), "no place in: {error}");
                self.tally.errors += 1;
            }
            (Ok(answer), None) => {
                let answer = Value::from(format!("{answer:?}"));
                assert!(self.answers.insert(question.to_owned(), answer).is_none());
            }
            (Ok(answer), Some(expected)) => {
                let right = expected[question].as_str().unwrap();
                assert_eq!(format!("{answer:?}"), right, "a wrong answer to {question}");
                self.tally.right += 1;
            }
        }
    }
}

fn server() -> ServerFixture {
    let fixture = ServerFixture::new();
    let index = fixture.open();
    for round in 1..=3 {
        let changes: Vec<_> = (0..FILES)
            .flat_map(|n| {
                let content = vec![b'x'; n * 500 * round];
                let second = 60 * i64::try_from(round).unwrap();
                let id = FileId(n as u64 + 1);
                let file = row(id, &content, second);
                let name = format!("/var/log/{n:03}");
                [ServerChange::put(path(&name), file), event(second, &name)]
            })
            .collect();
        index.commit(&changes).unwrap();
    }
    let kept = |n: usize| ServerChange::Quarantine {
        name: format!("{n:03}"),
        row: Box::new(Quarantined {
            path: format!("var/log/{n:03}").into_bytes(),
            id: Some(FileId(1000 + n as u64)),
            start: Offset::ZERO,
            end: Offset::ZERO,
            recorded: None,
            found: None,
            inode: None,
            at: at(60),
            gone: false,
        }),
    };
    let kept: Vec<_> = (0..FILES).map(kept).collect();
    index.commit(&kept).unwrap();
    drop(index);
    fixture
}

fn ask_server(file: &Path, questions: &mut Questions<'_>) {
    let inspection = Inspection::open(file);
    if let Some(inspection) = opened(inspection, questions) {
        for n in 0..FILES {
            let path = path(&format!("/var/log/{n:03}"));
            questions.ask(&format!("row {n}"), inspection.server_file(&path));
            questions.ask(&format!("history {n}"), inspection.history(&path));
        }
        let mut rows = Vec::new();
        let visited = inspection.rows(|row| {
            rows.push(row);
            true
        });
        questions.ask("all rows", visited.map(|()| rows));
    }
    let index = ServerIndex::open(file, at(0));
    if let Some(index) = opened(index, questions) {
        for n in 0..FILES {
            let path = path(&format!("/var/log/{n:03}"));
            questions.ask(&format!("file {n}"), index.file(&path));
            questions.ask(&format!("past {n}"), index.history(&path));
        }
        questions.ask("no file", index.file(&path("/var/log/none")));
        questions.ask("files", index.files(None, 1000));
        questions.ask("events", index.events(0, 1000));
    }
}

fn client() -> ClientFixture {
    let fixture = ClientFixture::new();
    let index = fixture.open();
    let files: Vec<_> = (0..FILES as u64)
        .map(|n| new_file(n, &format!("host/{n:03}")))
        .collect();
    let ids = index.adopt(&files).unwrap();
    let (there, _) = index.destination("http://host/").unwrap();
    for round in 1..=3 {
        let batch = ids.iter().map(|id| {
            let content = vec![b'x'; usize::try_from(id.0).unwrap() * 500 * round];
            (there, *id, progress(&content))
        });
        index.record(batch).unwrap();
        let happened = NewEvent {
            at: at(60),
            kind: EventKind::Discovered,
            subject: b"host/000".to_vec(),
            detail: round.to_string(),
        };
        index.commit(&[ClientChange::Event(happened)]).unwrap();
    }
    let kept = |id: FileId| {
        let stretch = Stretch {
            at: Offset::new(id.0).unwrap(),
            bytes: id.0.to_be_bytes().to_vec(),
        };
        let hold = Hold {
            quiet: id.0,
            size: Offset::new(12).unwrap(),
            times: Times::default(),
            at: at(60),
        };
        [
            ClientChange::Volatile(id, vec![stretch]),
            ClientChange::Hold(id, Some(hold)),
        ]
    };
    let kept: Vec<_> = ids.into_iter().flat_map(kept).collect();
    index.commit(&kept).unwrap();
    drop(index);
    fixture
}

fn ask_client(file: &Path, questions: &mut Questions<'_>) {
    let inspection = Inspection::open(file);
    if let Some(inspection) = opened(inspection, questions) {
        let mut rows = Vec::new();
        let visited = inspection.rows(|row| {
            rows.push(row);
            true
        });
        questions.ask("all rows", visited.map(|()| rows));
    }
    let index = ClientIndex::open(file);
    let Some(index) = opened(index, questions) else {
        return;
    };
    let destinations = index.destinations();
    let there = destinations.as_ref().map(|all| all[0].0).ok();
    questions.ask("destinations", destinations);
    for n in 0..FILES as u64 {
        let id = FileId(n + 1);
        let file = new_file(n, "x");
        questions.ask(&format!("file {n}"), index.file(id));
        let stable = name(&format!("host/{n:03}"));
        questions.ask(&format!("name {n}"), index.by_name(&stable));
        questions.ask(&format!("inode {n}"), index.by_inode(&file.inode));
        if let Some(there) = there {
            questions.ask(&format!("progress {n}"), index.progress(there, id));
        }
    }
    questions.ask("volatile", index.volatile());
    questions.ask("holds", index.holds());
    questions.ask("no name", index.by_name(&name("host/none")));
    questions.ask("files", index.files(None, 1000));
    questions.ask("events", index.events(0, 1000));
}

fn opened<T>(result: Result<T, IndexError>, questions: &mut Questions<'_>) -> Option<T> {
    match result {
        Ok(opened) => Some(opened),
        Err(error) => {
            questions.ask::<()>("open", Err(error));
            None
        }
    }
}

/// xorshift: the same damages in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

/// Damages a copy of `bytes`, and says how.
fn damage(random: &mut Random, bytes: &[u8], used: &[usize]) -> (String, Vec<u8>) {
    let mut damaged = bytes.to_vec();
    let how = match random.below(6) {
        0 => {
            let length = random.below(bytes.len());
            damaged.truncate(length);
            format!("cut to {length}")
        }
        1 => {
            let page = used[random.below(used.len())] / 4096 * 4096;
            let end = damaged.len().min(page + 4096);
            damaged[page..end].fill(0);
            format!("the page at {page} zeroed")
        }
        kind => {
            // Most of the file is empty; the first page decides over all the others.
            let at = match kind {
                2 => random.below(bytes.len()),
                3 => random.below(512),
                _ => used[random.below(used.len())],
            };
            let bit = random.below(8);
            damaged[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
    };
    (how, damaged)
}

/// So many random damages of a database as the test has time for.
fn at_random(file: &Path) -> impl Iterator<Item = (String, Vec<u8>)> {
    let bytes = fs::read(file).unwrap();
    let used: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
    let rounds = if std::env::var_os("SHAFTLOG_LONG").is_some() {
        2000
    } else {
        400
    };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    (0..rounds).map(move |_| damage(&mut random, &bytes, &used))
}

/// The database cut at every 4 KiB.
fn cuts(file: &Path) -> impl Iterator<Item = (String, Vec<u8>)> {
    let bytes = fs::read(file).unwrap();
    let lengths = (0..bytes.len()).step_by(4096);
    lengths.map(move |length| (format!("cut to {length}"), bytes[..length].to_vec()))
}

fn never_wrong(
    file: &Path,
    ask: fn(&Path, &mut Questions<'_>),
    damages: impl Iterator<Item = (String, Vec<u8>)>,
) -> Tally {
    let mut right = Questions {
        expected: None,
        answers: Answers::new(),
        tally: Tally::default(),
    };
    ask(file, &mut right);
    assert_eq!(right.tally.errors, 0);
    let mut all = Tally::default();
    for (round, (how, damaged)) in damages.enumerate() {
        fs::write(file, damaged).unwrap();
        let tally = std::panic::catch_unwind(|| {
            let mut questions = Questions {
                expected: Some(&right.answers),
                answers: Answers::new(),
                tally: Tally::default(),
            };
            ask(file, &mut questions);
            questions.tally
        });
        match tally {
            Ok(tally) => all += tally,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map_or("", String::as_str);
                panic!("damage {round}: {how}: {text}");
            }
        }
    }
    all
}

#[test]
fn no_damage_of_a_server_s_database_gives_a_wrong_answer() {
    let fixture = server();
    let all = never_wrong(&fixture.file(), ask_server, at_random(&fixture.file()));
    assert!(all.right > 0 && all.errors > 0, "{all:?}");
}

#[test]
fn no_damage_of_a_client_s_database_gives_a_wrong_answer() {
    let fixture = client();
    let all = never_wrong(&fixture.file(), ask_client, at_random(&fixture.file()));
    assert!(all.right > 0 && all.errors > 0, "{all:?}");
}

#[test]
fn a_server_s_database_cut_at_any_4_kib_gives_no_wrong_answer() {
    let fixture = server();
    let all = never_wrong(&fixture.file(), ask_server, cuts(&fixture.file()));
    assert!(all.errors > 20, "{all:?}");
}

#[test]
fn a_client_s_database_cut_at_any_4_kib_gives_no_wrong_answer() {
    let fixture = client();
    let all = never_wrong(&fixture.file(), ask_client, cuts(&fixture.file()));
    assert!(all.errors > 20, "{all:?}");
}
