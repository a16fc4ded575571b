//! A server's datadir after each kind of damage.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::*;
use crate::index::server::tests::{at, path, row};
use crate::index::server::{ServerChange, ServerIndex};
use crate::types::{ByteRange, FileId, PrefixHash};

fn past(entries: &[(u64, i64)]) -> Vec<(Offset, HistoryRow)> {
    let row = |second| HistoryRow {
        hash: PrefixHash::of_nothing(),
        at: at(second),
        writer: String::new(),
        odd: false,
    };
    entries
        .iter()
        .map(|&(length, second)| (Offset::new(length).unwrap(), row(second)))
        .collect()
}

fn lengths(past: &[(Offset, HistoryRow)], row: &ServerFile) -> Vec<u64> {
    let recorded = recorded(past, row);
    recorded
        .iter()
        .map(|prefix| prefix.length.bytes())
        .collect()
}

#[test]
fn a_later_shorter_length_makes_longer_ones_void_but_not_the_high_water() {
    let mut row = row(FileId(1), b"four", 100);
    let ordinary = past(&[(1, 10), (2, 20), (3, 30)]);
    assert_eq!(lengths(&ordinary, &row), [1, 2, 3, 4]);
    // Unproven at 9, then proven at 2: what lay behind 2 was set aside.
    let shortened = past(&[(1, 10), (2, 60), (9, 50)]);
    assert_eq!(lengths(&shortened, &row), [1, 2, 4]);
    row.high_water = Some(Prefix {
        length: Offset::new(9).unwrap(),
        hash: PrefixHash::of_nothing(),
    });
    row.state = ServerState::Regressed;
    assert_eq!(lengths(&past(&[(1, 10), (9, 50)]), &row), [1, 4, 9]);
}

/// A datadir with one file, recorded at 1000, 3000 and 5000 bytes in three minutes.
struct Place {
    home: tempfile::TempDir,
    index: ServerIndex,
}

const LENGTHS: [usize; 3] = [1000, 3000, 5000];

fn content() -> Vec<u8> {
    (0..5000_u32).map(|n| n.to_be_bytes()[3]).collect()
}

impl Place {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join(".shaftlog")).unwrap();
        fs::create_dir_all(home.path().join("log")).unwrap();
        fs::write(home.path().join("log/a"), content()).unwrap();
        let database = home.path().join(".shaftlog/server.redb");
        ServerIndex::create(&database).unwrap();
        let index = ServerIndex::open(&database, at(0)).unwrap();
        let place = Self { home, index };
        for (minute, length) in (1..).zip(LENGTHS) {
            place.put(row(FileId(1), &content()[..length], 60 * minute));
        }
        place
    }

    fn put(&self, row: ServerFile) {
        let change = ServerChange::put(path("/log/a"), row);
        self.index.commit(&[change]).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("log/a")
    }

    fn open(&self) -> File {
        OpenOptions::new().write(true).open(self.file()).unwrap()
    }

    fn verify(&self) -> Vec<Finding> {
        let datadir = Dir::open(self.home.path()).unwrap();
        let database = self.home.path().join(".shaftlog/server.redb");
        let index = Inspection::open(&database).unwrap();
        let figures = Figures::default();
        let verify = Verify {
            datadir: &datadir,
            index: &index,
            wanted: &|_| true,
            figures: &figures,
        };
        let mut findings = Vec::new();
        verify
            .run(|finding| {
                findings.push(finding);
                true
            })
            .unwrap();
        assert_eq!(figures.files.load(Ordering::Relaxed), 1);
        assert_eq!(figures.files_done.load(Ordering::Relaxed), 1);
        findings
    }

    fn finding(&self) -> Finding {
        let mut findings = self.verify();
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings.remove(0)
    }
}

fn range(start: u64, end: u64) -> Option<ByteRange> {
    ByteRange::new(Offset::new(start)?, Offset::new(end)?)
}

#[test]
fn a_file_as_it_was_received_is_right_at_every_recorded_length() {
    let finding = Place::new().finding();
    assert_eq!(finding.verdict, Verdict::Right, "{finding:?}");
    assert_eq!(finding.compared, 3);
    assert_eq!(finding.length.bytes(), 5000);
    assert_eq!(finding.beyond, 0);
}

#[test]
fn a_changed_byte_is_found_between_two_recorded_lengths() {
    for (changed, from, to) in [
        (0, 0, 1000),
        (999, 0, 1000),
        (1000, 1000, 3000),
        (4999, 3000, 5000),
    ] {
        let place = Place::new();
        let byte = [content()[changed] ^ 0x10];
        place.open().write_all_at(&byte, changed as u64).unwrap();
        let finding = place.finding();
        assert_eq!(finding.verdict, Verdict::Differs, "{changed}: {finding:?}");
        assert_eq!(finding.first_difference, range(from, to), "{changed}");
        assert_eq!(finding.name, "/log/a");
    }
}

#[test]
fn what_is_missing_is_never_a_pass() {
    type Damage = fn(&Place);
    let damages: [(Damage, Verdict); 5] = [
        (
            |place| fs::remove_file(place.file()).unwrap(),
            Verdict::Missing,
        ),
        (|place| place.open().set_len(4999).unwrap(), Verdict::Short),
        (|place| place.open().set_len(0).unwrap(), Verdict::Short),
        (
            |place| {
                fs::rename(place.file(), place.home.path().join(".shaftlog/a")).unwrap();
                std::os::unix::fs::symlink("../.shaftlog/a", place.file()).unwrap();
            },
            Verdict::Replaced,
        ),
        (
            |place| {
                let mut row = row(FileId(1), &content(), 180);
                row.state = ServerState::Unproven;
                place.put(row);
            },
            Verdict::Unproven,
        ),
    ];
    for (damage, verdict) in damages {
        let place = Place::new();
        damage(&place);
        let finding = place.finding();
        assert_eq!(finding.verdict, verdict, "{finding:?}");
        assert_eq!(finding.verdict.severity(), Severity::Missing);
    }
}

#[test]
fn a_shorter_file_with_a_changed_byte_differs() {
    let place = Place::new();
    place.open().set_len(4000).unwrap();
    place.open().write_all_at(b"!", 2000).unwrap();
    let finding = place.finding();
    assert_eq!(finding.first_difference, range(1000, 3000), "{finding:?}");
}

#[test]
fn bytes_behind_the_vouched_ones_are_shown_and_no_failure() {
    let place = Place::new();
    place.open().write_all_at(b"tail", 5000).unwrap();
    let finding = place.finding();
    assert_eq!((finding.verdict, finding.beyond), (Verdict::Right, 4));
}

#[test]
fn a_file_without_a_row_is_missing_evidence() {
    let place = Place::new();
    fs::write(place.home.path().join("log/b\n"), "foreign").unwrap();
    fs::write(place.home.path().join(".tmp.1"), "the original's").unwrap();
    let findings = place.verify();
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert_eq!(findings[1].verdict, Verdict::NoRow);
    assert_eq!(findings[1].name, "/log/b%0A");
    assert_eq!(findings[1].beyond, 7);
}

#[test]
fn states_of_a_row_are_told() {
    for (state, there, verdict) in [
        (ServerState::Retired, true, Verdict::Retired),
        (ServerState::Retired, false, Verdict::Retired),
        (ServerState::Diverged, true, Verdict::Diverged),
        (ServerState::Diverged, false, Verdict::Missing),
        (ServerState::Regressed, true, Verdict::Right),
    ] {
        let place = Place::new();
        let mut row = row(FileId(1), &content(), 180);
        row.state = state;
        place.put(row);
        if !there {
            fs::remove_file(place.file()).unwrap();
        }
        assert_eq!(place.finding().verdict, verdict, "{state:?}, {there}");
    }
}

#[test]
fn a_file_found_shorter_is_short_of_its_high_water() {
    let place = Place::new();
    place.open().set_len(1000).unwrap();
    let mut row = row(FileId(1), &content()[..1000], 200);
    row.state = ServerState::Regressed;
    row.high_water = Some(Prefix {
        length: Offset::new(5000).unwrap(),
        hash: PrefixHash(*blake3::hash(&content()).as_bytes()),
    });
    place.put(row);
    let finding = place.finding();
    assert_eq!(finding.verdict, Verdict::Short, "{finding:?}");
    assert_eq!(finding.detail, "it ends at 1000, and was 5000 long");
}
