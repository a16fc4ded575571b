//! Looking at a busy database again and again does not make its file grow: each look is a short
//! snapshot, whose pages are free again as soon as it is over.

use std::fs;
use std::io::Write as _;

use crate::index::engine::builder;
use crate::index::inspect::Inspection;
use crate::index::server::tests::{Fixture, event, path, row};
use crate::index::server::{ServerChange, ServerIndex};
use crate::types::FileId;

const FILES: u64 = 40;
/// Commits made during each look, in the middle of its rows.
const COMMITS: u64 = 4;

/// What a load left: bytes in the file, and pages that the store has in use.
#[derive(Debug)]
struct Left {
    bytes: u64,
    pages: u64,
}

/// Appends to every file, once.
fn commit(index: &ServerIndex, number: u64) {
    let second = i64::try_from(number).unwrap();
    let changes: Vec<_> = (0..FILES)
        .map(|n| {
            let content = vec![b'x'; usize::try_from(number).unwrap()];
            let file = row(FileId(n + 1), &content, second);
            ServerChange::put(path(&format!("/log/{n:02}")), file)
        })
        .chain([event(second, &number.to_string())])
        .collect();
    index.commit(&changes).unwrap();
}

/// The same commits, with or without somebody who looks at everything all the time.
fn load(looks: u64, looking: bool) -> Left {
    let fixture = Fixture::new();
    let index = fixture.open();
    let mut number = 1;
    commit(&index, number);
    for _ in 0..looks {
        let last = number + COMMITS;
        if looking {
            let inspection = Inspection::open(&fixture.file()).unwrap();
            let mut seen = 0;
            inspection
                .rows(|_| {
                    seen += 1;
                    if seen % 10 == 0 && number < last {
                        number += 1;
                        commit(&index, number);
                    }
                    true
                })
                .unwrap();
            inspection.history(&path("/log/00")).unwrap();
            inspection.events(0, |_| true).unwrap();
            assert_eq!(number, last, "the look saw too little");
        } else {
            for _ in 0..COMMITS {
                number += 1;
                commit(&index, number);
            }
        }
    }
    drop(index);
    let bytes = fs::metadata(fixture.file()).unwrap().len();
    let database = builder().open(fixture.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    let pages = transaction.stats().unwrap().allocated_pages();
    transaction.abort().unwrap();
    Left { bytes, pages }
}

#[test]
fn looking_at_a_busy_database_does_not_make_it_grow() {
    let looks = if std::env::var_os("SHAFTLOG_LONG").is_some() {
        300
    } else {
        60
    };
    let alone = load(looks, false);
    let looked_at = load(looks, true);
    let figures = format!("{looks} looks: {alone:?} alone, {looked_at:?} looked at");
    writeln!(std::io::stdout(), "{figures}").unwrap();
    // The file grows by doubling regions: one step at most.
    assert!(looked_at.bytes <= 2 * alone.bytes, "{figures}");
    // Nothing is held once a look is over; commits still under way may keep a few.
    assert!(
        looked_at.pages <= alone.pages + alone.pages / 4,
        "{figures}"
    );
}
