//! Bits that change on disk: an error that names the row, or the right answer, never a wrong one.

use std::fs;

use redb::{ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};

use crate::index::codec::{open_row, seal_row};
use crate::index::engine::builder;
use crate::index::event::Log;
use crate::index::inspect::Inspection;
use crate::index::server::tests::{Fixture, at, event, path, row};
use crate::index::server::{ServerChange, ServerFile, ServerIndex, ServerState};
use crate::types::{FileId, WirePath};

type Raw<'name> = TableDefinition<'name, &'static [u8], &'static [u8]>;

#[test]
fn a_flipped_bit_of_a_row_is_noticed() {
    let key = b"log/a";
    let value = seal_row("files", key, &row(FileId(3), b"content", 5)).unwrap();
    let opens = |table: &str, key: &[u8], value: &[u8]| open_row(table, key, value).is_some();
    assert!(opens("files", key, &value));
    assert!(!opens("history", key, &value));
    assert!(!opens("files", &key[..4], &value));
    assert!(!opens("files", key, &value[..7]));
    assert!(!opens("files", key, b""));
    assert!(!opens("file", b"slog/a", &value));
    for bit in 0..value.len() * 8 {
        let mut damaged = value.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(!opens("files", key, &damaged), "bit {bit}");
    }
}

/// Replaces row `key` of a table by what `change` makes of it, behind the codec's back.
fn tamper(
    fixture: &Fixture,
    table: &str,
    key: &[u8],
    change: impl FnOnce(Vec<u8>, Vec<u8>) -> (Vec<u8>, Vec<u8>),
) {
    let database = builder().open(fixture.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(Raw::new(table)).unwrap();
        let old = table.remove(key).unwrap().unwrap().value().to_vec();
        let (key, value) = change(key.to_vec(), old);
        table.insert(&key[..], &value[..]).unwrap();
    }
    transaction.commit().unwrap();
}

fn three_files() -> Fixture {
    let fixture = Fixture::new();
    let index = fixture.open();
    let changes: Vec<_> = ["/log/a", "/log/b", "/log/c"]
        .iter()
        .map(|name| ServerChange::put(path(name), row(index.allocate(), b"x", 0)))
        .collect();
    index.commit(&changes).unwrap();
    fixture
}

#[test]
fn a_damaged_row_is_an_error_that_names_it_and_spares_the_others() {
    let fixture = three_files();
    tamper(&fixture, "files", b"log/b", |key, mut value| {
        *value.last_mut().unwrap() ^= 1;
        (key, value)
    });
    let index = fixture.open();
    let error = index.file(&path("/log/b")).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`files`") && text.contains("/log/b") && text.contains("server.redb"),
        "{text}"
    );
    assert!(!error.needs_reopen());
    assert!(index.file(&path("/log/a")).unwrap().is_some());
    assert!(index.check_rows().is_err());
    // Nothing is written over evidence, either.
    let change = ServerChange::put(path("/log/b"), row(FileId(2), b"xy", 1));
    assert!(index.commit(&[change]).is_err());
    drop(index);
    let inspection = Inspection::open(&fixture.file()).unwrap();
    assert!(inspection.rows(|_| true).is_err());
}

#[test]
fn a_damaged_key_does_not_make_its_row_absent() {
    let fixture = three_files();
    let bytes = fs::read(fixture.file()).unwrap();
    for bit in 0..8 {
        let mut damaged = bytes.clone();
        let mut hits = 0;
        for at in 0..damaged.len() - 5 {
            if damaged[at..].starts_with(b"log/b") {
                damaged[at + 4] ^= 1 << bit;
                hits += 1;
            }
        }
        assert!(hits > 0);
        fs::write(fixture.file(), damaged).unwrap();
        let index = fixture.open();
        let found = index.file(&path("/log/b"));
        assert!(matches!(&found, Err(error) if error.to_string().contains("`files`")));
        assert!(index.check_rows().is_err());
    }
}

/// The rows of an index whose file was damaged: right ones, or an error.
fn read_all(fixture: &Fixture, expected: &[(WirePath, ServerFile)]) -> Result<bool, String> {
    let index = ServerIndex::open(&fixture.file(), at(0)).map_err(|error| error.to_string())?;
    let mut good = true;
    for (name, file) in expected {
        match index.file(name) {
            Ok(Some(found)) => assert_eq!(&found, file, "a wrong answer for {name}"),
            Ok(None) => panic!("{name} is absent"),
            Err(_) => good = false,
        }
    }
    Ok(good)
}

fn sample() -> (Fixture, Vec<(WirePath, ServerFile)>, Vec<u8>) {
    let fixture = Fixture::new();
    let index = fixture.open();
    let rows: Vec<_> = (0..60)
        .map(|n| {
            let name = path(&format!("/var/log/{n:03}"));
            (name, row(index.allocate(), &vec![b'x'; n * 5000], 0))
        })
        .collect();
    let changes: Vec<_> = rows
        .iter()
        .map(|(name, file)| ServerChange::put(name.clone(), file.clone()))
        .collect();
    index.commit(&changes).unwrap();
    drop(index);
    let bytes = fs::read(fixture.file()).unwrap();
    (fixture, rows, bytes)
}

#[test]
fn no_flipped_bit_of_the_file_gives_a_wrong_answer() {
    let (fixture, rows, bytes) = sample();
    // Where rows are; most of the file is allocated and empty.
    let used: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
    let mut noticed = 0;
    let flips = 200;
    for flip in 0..flips {
        let mut damaged = bytes.clone();
        damaged[used[flip * used.len() / flips]] ^= 1 << (flip % 8);
        fs::write(fixture.file(), &damaged).unwrap();
        noticed += usize::from(read_all(&fixture, &rows) != Ok(true));
    }
    assert!(noticed > 0, "no flip hit anything");
}

/// What the operator does about a file must not be hindered by what has become of older rows.
#[test]
fn damaged_evidence_keeps_nothing_from_being_recorded() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let last = row(FileId(1), b"ab", 0);
    let frozen = ServerFile {
        state: ServerState::Diverged,
        updated: at(60),
        ..last.clone()
    };
    for file in [last, frozen] {
        index
            .commit(&[ServerChange::put(path("/a"), file), event(0, "a")])
            .unwrap();
    }
    drop(index);
    let flip = |key: Vec<u8>, mut value: Vec<u8>| {
        *value.last_mut().unwrap() ^= 1;
        (key, value)
    };
    tamper(&fixture, "events", &1_u64.to_be_bytes(), flip);
    let key = [1_u64.to_be_bytes(), 2_u64.to_be_bytes()].concat();
    tamper(&fixture, "history", &key, flip);

    let index = fixture.open();
    let close = ServerChange::Close {
        path: path("/a"),
        moving: None,
    };
    index.commit(&[close, event(60, "a")]).unwrap();
    assert_eq!(index.file(&path("/a")).unwrap(), None);
    // They are not repaired either.
    let text = |error: crate::index::IndexError| error.to_string();
    assert!(text(index.events(0, 10).unwrap_err()).contains("`events`"));
    assert!(text(index.past_of(FileId(1)).unwrap_err()).contains("`history`"));
    drop(index);
    tamper(&fixture, "events", &1_u64.to_be_bytes(), flip);
    assert_eq!(fixture.open().events(0, 10).unwrap().len(), 2);
}

#[test]
fn an_event_whose_first_row_is_damaged_is_told_anew() {
    let fixture = Fixture::new();
    let index = fixture.open();
    index.commit(&[event(0, "a")]).unwrap();
    drop(index);
    let mut log = Log::default();
    let database = builder().open(fixture.file()).unwrap();
    let append = |log: &mut Log, damage: bool| {
        let transaction = database.begin_write().unwrap();
        let ServerChange::Event(event) = event(0, "b") else {
            panic!("no event")
        };
        log.append(&transaction, [&event]).unwrap();
        if damage {
            let mut rows = transaction.open_table(Raw::new("events")).unwrap();
            rows.insert(&2_u64.to_be_bytes()[..], &b"damaged"[..])
                .unwrap();
        }
        transaction.commit().unwrap();
    };
    append(&mut log, true);
    append(&mut log, false);
    let transaction = database.begin_read().unwrap();
    let rows = transaction.open_table(Raw::new("events")).unwrap();
    assert_eq!(rows.len().unwrap(), 3);
}
