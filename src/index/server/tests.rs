//! The server's index from outside.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::index::{EventKind, Problem};
use crate::limits::EVENT_ROWS;
use crate::prefix::PrefixHasher;
use crate::types::Inode;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn path(text: &str) -> WirePath {
    WirePath::decode(text).unwrap()
}

pub(crate) fn row(id: FileId, content: &[u8], second: i64) -> ServerFile {
    let mut hasher = PrefixHasher::new();
    hasher.update(content);
    ServerFile {
        id,
        vouched: hasher.prefix(),
        hasher: hasher.state(),
        high_water: None,
        footprint: Footprint {
            inode: Inode {
                number: 7,
                born: Some(1),
            },
            mtime_ns: 2,
            ctime_ns: 3,
        },
        writer: "alpha".to_owned(),
        state: ServerState::Vouched,
        conditional: true,
        updated: at(second),
    }
}

pub(crate) struct Fixture {
    pub(crate) directory: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let fixture = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        ServerIndex::create(&fixture.file()).unwrap();
        fixture
    }

    pub(crate) fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("server.redb")
    }

    pub(crate) fn open(&self) -> ServerIndex {
        open(&self.file())
    }
}

/// Opens an index as soon as nobody holds it. A test beside this one that starts a process passes on
/// our descriptors to it, and with them the locks of what was closed meanwhile, until it executes.
pub(crate) fn open(path: &Path) -> ServerIndex {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match ServerIndex::open(path, at(0)) {
            Err(error) if matches!(error.problem, Problem::Locked) && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(2));
            }
            opened => return opened.unwrap(),
        }
    }
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let file = row(index.allocate(), b"one\n", 10);
    let number = index
        .commit(&[ServerChange::put(path("/a"), file.clone())])
        .unwrap();
    assert_eq!(index.number(), number);
    assert_eq!(index.file(&path("/a")).unwrap().as_ref(), Some(&file));
    let (store, boot) = (index.store(), index.boot());
    drop(index);

    let index = fixture.open();
    assert!(!index.unclean());
    assert_eq!(index.store(), store);
    assert_ne!(index.boot(), boot);
    assert_eq!(index.number(), CommitNumber(number.0 + 1));
    assert_eq!(index.file(&path("/a")).unwrap(), Some(file));
    assert_eq!(index.file(&path("/b")).unwrap(), None);
    assert_eq!(index.allocate(), FileId(2));
}

fn seen(boot: BootId, highest: u64, swept: u64) -> Seen {
    Seen {
        boot,
        highest: CommitNumber(highest),
        swept: CommitNumber(swept),
    }
}

#[test]
fn a_restart_keeps_what_was_seen_and_a_restore_does_not() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let old = index.boot();
    let put = |index: &ServerIndex, content: &[u8]| {
        let file = row(FileId(1), content, 10);
        index
            .commit(&[ServerChange::put(path("/a"), file)])
            .unwrap()
            .0
    };
    let backed_up = put(&index, b"1");
    drop(index);
    let backup = std::fs::read(fixture.file()).unwrap();

    let index = ServerIndex::open(&fixture.file(), at(1)).unwrap();
    let lost = index.boot();
    let number = put(&index, b"12");
    assert!(index.kept(&seen(old, backed_up, 0)));
    assert!(index.kept(&seen(lost, number, 0)));
    assert!(!index.kept(&seen(lost, number + 1, 0)));
    assert!(!index.kept(&seen(old, backed_up + 1, 0)));
    assert!(!index.kept(&seen(BootId([9; 16]), 0, 0)));
    drop(index);

    std::fs::write(fixture.file(), backup).unwrap();
    let index = fixture.open();
    assert!(index.kept(&seen(old, backed_up, 0)));
    assert!(!index.kept(&seen(lost, number, 0)));
}

#[test]
fn who_has_not_swept_since_a_file_regressed_is_told_so() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let mut file = row(FileId(1), b"123", 10);
    let put = |file: &ServerFile| {
        let change = ServerChange::put(path("/a"), file.clone());
        index.commit(&[change]).unwrap().0
    };
    let first = put(&file);
    assert!(index.kept(&seen(index.boot(), first, 0)));
    file.state = ServerState::Regressed;
    let regressed = put(&file);
    assert!(!index.kept(&seen(index.boot(), first, first)));
    assert!(index.kept(&seen(index.boot(), regressed, regressed)));
    let refilled = put(&file);
    assert!(index.kept(&seen(index.boot(), refilled, regressed)));
    index.commit(&[ServerChange::Suspect]).unwrap();
    assert!(!index.kept(&seen(index.boot(), refilled, refilled)));

    let boot = index.boot();
    drop(index);
    let index = fixture.open();
    assert!(!index.kept(&seen(boot, refilled, refilled)));
}

#[test]
fn pages_of_files_come_in_order_and_end() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let names: Vec<_> = (0..10).map(|n| path(&format!("/log/{n}"))).collect();
    let changes: Vec<_> = names
        .iter()
        .rev()
        .map(|name| ServerChange::put(name.clone(), row(index.allocate(), b"x", 0)))
        .collect();
    index.commit(&changes).unwrap();
    let mut found = Vec::new();
    loop {
        let page = index.files(found.last(), 3).unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page.into_iter().map(|(path, _)| path));
    }
    assert_eq!(found, names);
}

pub(crate) fn event(second: i64, subject: &str) -> ServerChange {
    ServerChange::Event(NewEvent {
        at: at(second),
        kind: EventKind::Regressed,
        subject: subject.as_bytes().to_vec(),
        detail: "was 3, is 2".to_owned(),
    })
}

#[test]
fn an_event_that_repeats_within_an_hour_is_counted() {
    let fixture = Fixture::new();
    let index = fixture.open();
    index.commit(&[event(0, "a"), event(0, "b")]).unwrap();
    index.commit(&[event(3599, "a")]).unwrap();
    index.commit(&[event(3600, "a")]).unwrap();
    let events = index.events(0, 10).unwrap();
    let found: Vec<_> = events
        .iter()
        .map(|(sequence, event)| (*sequence, &event.subject[..], event.times))
        .collect();
    assert_eq!(found, [(1, &b"a"[..], 2), (2, b"b", 1), (3, b"a", 1)]);
    assert_eq!(index.events(3, 10).unwrap().len(), 1);
}

#[test]
fn the_oldest_events_give_way() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let many: Vec<_> = (0..=EVENT_ROWS).map(|n| event(0, &n.to_string())).collect();
    index.commit(&many).unwrap();
    let (first, _) = index.events(0, 1).unwrap().remove(0);
    assert_eq!(first, 2);
    index.commit(&[event(0, "last")]).unwrap();
    let rest = index.events(EVENT_ROWS, 10).unwrap();
    let numbers: Vec<_> = rest.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [EVENT_ROWS, EVENT_ROWS + 1, EVENT_ROWS + 2]);
    assert_eq!(index.events(0, 1).unwrap()[0].0, 3);
}

/// What the history must hold of lengths 1, 2, 3... written at `times`, all but the last.
fn expected_history(times: &[(i64, bool)], now: i64) -> Vec<u64> {
    let width = |time: i64| match now - time {
        age if age > 30 * 86400 => 86400,
        age if age > 86400 => 3600,
        _ => 60,
    };
    let minute_ends: Vec<usize> = (0..times.len() - 1)
        .filter(|&n| times[n].1 || times[n + 1].1 || times[n].0 / 60 != times[n + 1].0 / 60)
        .collect();
    let odd = |n: usize| times[n].1 || times[n + 1].1;
    minute_ends
        .iter()
        .enumerate()
        .filter(|&(rank, &n)| {
            let width = width(times[n].0);
            odd(n)
                || minute_ends
                    .get(rank + 1)
                    .is_none_or(|&later| times[later].0 / width != times[n].0 / width)
        })
        .map(|(_, &n)| n as u64 + 1)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn history_thins_the_same_however_often_it_is_thinned(
        steps in prop::collection::vec((0_i64..90_000, 0_u8..20, any::<bool>()), 2..60),
        slow in any::<bool>(),
    ) {
        let fixture = Fixture::new();
        let index = fixture.open();
        let mut times = Vec::new();
        let mut time = 0;
        for (pause, odd, thin) in steps {
            time += if slow { pause } else { pause / 1000 };
            times.push((time, odd == 0));
            let content = vec![b'x'; times.len()];
            let mut file = row(FileId(1), &content, time);
            if odd == 0 {
                file.state = ServerState::Regressed;
            }
            index.commit(&[ServerChange::put(path("/a"), file)]).unwrap();
            if thin {
                index.thin_history(at(time)).unwrap();
            }
        }
        let now = time + 100_000;
        index.thin_history(at(now)).unwrap();
        let mut found = index.history(&path("/a")).unwrap();
        let newest = found.pop().unwrap();
        prop_assert_eq!(newest.0.bytes(), times.len() as u64);
        let found: Vec<u64> = found.iter().map(|(length, _)| length.bytes()).collect();
        prop_assert_eq!(found, expected_history(&times, now));
    }
}

#[test]
fn thinning_goes_through_more_rows_than_one_look_takes() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let count = 10_000_u64;
    for start in (1..=count).step_by(1000) {
        let changes: Vec<_> = (start..start + 1000)
            .map(|length| {
                let mut file = row(FileId(1), b"", i64::try_from(length * 60).unwrap());
                file.vouched.length = Offset::new(length).unwrap();
                ServerChange::put(path("/a"), file)
            })
            .collect();
        index.commit(&changes).unwrap();
    }
    assert_eq!(index.history(&path("/a")).unwrap().len() as u64, count);
    let gone = index.thin_history(at(100 * 86400)).unwrap();
    // 10,000 minutes from minute 1 touch 7 days; the newest row is not of the history.
    assert_eq!(index.history(&path("/a")).unwrap().len(), 8);
    assert_eq!(gone, count - 8);
}

#[test]
fn another_hash_of_the_same_length_does_not_replace_odd_evidence() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let mut diverged = row(FileId(1), b"abc", 0);
    diverged.state = ServerState::Diverged;
    for file in [
        row(FileId(1), b"abd", 0),
        diverged,
        row(FileId(1), b"xyz", 300),
        row(FileId(1), b"xyz!", 600),
    ] {
        index
            .commit(&[ServerChange::put(path("/a"), file)])
            .unwrap();
    }
    let history = index.history(&path("/a")).unwrap();
    let three: Vec<_> = history
        .iter()
        .filter(|(length, _)| length.bytes() == 3)
        .collect();
    assert_eq!(three[0].1.hash, row(FileId(1), b"abd", 0).vouched.hash);
    assert!(three[0].1.odd);
}

#[test]
fn a_frozen_row_keeps_the_time_at_which_its_length_came() {
    for state in [ServerState::Retired, ServerState::Diverged] {
        let fixture = Fixture::new();
        let index = fixture.open();
        let put = |file: &ServerFile| {
            let change = ServerChange::put(path("/a"), file.clone());
            index.commit(&[change]).unwrap();
        };
        put(&row(FileId(1), b"a", 0));
        let last = row(FileId(1), b"ab", 3600);
        put(&last);
        put(&ServerFile {
            state,
            updated: at(7200),
            ..last
        });
        let times = |index: &ServerIndex| {
            let history = index.history(&path("/a")).unwrap().into_iter();
            let times = history.map(|(length, row)| (length.bytes(), row.at));
            times.collect::<Vec<_>>()
        };
        assert_eq!(times(&index), [(1, at(0)), (2, at(3600))]);
        index.thin_history(at(400 * 86400)).unwrap();
        assert_eq!(times(&index).last(), Some(&(2, at(3600))));
        let close = ServerChange::Close {
            path: path("/a"),
            moving: None,
        };
        index.commit(&[close]).unwrap();
        let past = index.past_of(FileId(1)).unwrap();
        assert_eq!(past.last().unwrap().1.at, at(3600));
    }
}
