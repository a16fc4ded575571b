//! Accounts from outside: after whatever sequence of changes, what each pays is what its files have.

use std::collections::BTreeMap;

use proptest::prelude::*;
use redb::TableDefinition;

use super::account;
use crate::index::engine::builder;
use crate::index::inspect::Inspection;
use crate::index::server::tests::{Fixture, path, row};
use crate::index::server::{REBUILT, ServerChange, ServerFile, ServerIndex, ServerState, Usage};
use crate::types::{FileId, Offset};

fn by(writer: &str, id: u64, content: &[u8]) -> ServerFile {
    ServerFile {
        writer: writer.to_owned(),
        ..row(FileId(id), content, 0)
    }
}

fn usage(index: &ServerIndex, account: &str) -> (u64, u64) {
    let Usage { files, bytes } = index.usage(account).unwrap();
    (files, bytes)
}

fn commit(index: &ServerIndex, change: ServerChange) {
    index.commit(&[change]).unwrap();
}

#[test]
fn an_address_pays_for_its_network_and_a_rebuild_for_nothing() {
    for (writer, expected) in [
        ("192.0.2.7", Some("192.0.2.7")),
        ("::ffff:192.0.2.7", Some("192.0.2.7")),
        ("2001:db8:1:2:3::4", Some("2001:db8:1:2::/64")),
        ("web1.example.net", Some("web1.example.net")),
        (REBUILT, None),
    ] {
        assert_eq!(account(writer).as_deref(), expected, "{writer}");
    }
}

#[test]
fn who_wrote_first_pays_until_the_path_is_given_up() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let put = |writer, content| ServerChange::put(path("/a"), by(writer, 1, content));
    commit(&index, put("one", b"1234"));
    commit(&index, put("two", b"123456"));
    assert_eq!(usage(&index, "one"), (1, 6));
    assert_eq!(usage(&index, "two"), (0, 0));
    commit(&index, put("two", b"12"));
    assert_eq!(usage(&index, "one"), (1, 2));
    drop(index);

    let index = fixture.open();
    assert_eq!(usage(&index, "one"), (1, 2));
    let retired = ServerFile {
        state: ServerState::Retired,
        ..by("one", 1, b"12")
    };
    commit(&index, ServerChange::put(path("/a"), retired));
    assert_eq!(usage(&index, "one"), (0, 0));
    let close = ServerChange::Close {
        path: path("/a"),
        moving: None,
    };
    commit(&index, close);
    commit(&index, ServerChange::put(path("/a"), by("two", 2, b"123")));
    assert_eq!(usage(&index, "two"), (1, 3));
}

#[test]
fn what_a_rebuild_found_is_charged_to_who_proves_it() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let put = |writer| ServerChange::put(path("/a"), by(writer, 1, b"1234"));
    commit(&index, put(REBUILT));
    assert_eq!(index.charge(&path("/a")).unwrap(), None);
    commit(&index, put("one"));
    assert_eq!(usage(&index, "one"), (1, 4));
}

#[test]
fn a_path_whose_account_is_damaged_is_charged_anew_and_takes_its_bytes() {
    let fixture = Fixture::new();
    let index = fixture.open();
    for (id, name) in [(1, "/a"), (2, "/c"), (3, "/e")] {
        commit(&index, ServerChange::put(path(name), by("one", id, b"123")));
    }
    drop(index);
    for key in [b"c", b"e"] {
        let database = builder().open(fixture.file()).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction
            .open_table(TableDefinition::<&[u8], &[u8]>::new("owners"))
            .unwrap()
            .insert(&key[..], &b"damaged"[..])
            .unwrap();
        transaction.commit().unwrap();
    }
    let index = fixture.open();
    assert_eq!(index.charge(&path("/c")).unwrap(), None);
    // One beside them, and one of them.
    commit(&index, ServerChange::put(path("/d"), by("one", 4, b"1")));
    commit(&index, ServerChange::put(path("/c"), by("two", 2, b"1234")));
    assert_eq!(usage(&index, "one"), (2, 4), "nobody pays for the other");
    assert_eq!(usage(&index, "two"), (1, 4));
    let close = ServerChange::Close {
        path: path("/e"),
        moving: None,
    };
    commit(&index, close);
    assert_eq!(usage(&index, "one"), (2, 4));
    assert_eq!(usage(&index, "two"), (1, 4));
}

#[test]
fn a_sum_that_is_damaged_is_added_up_again() {
    let fixture = Fixture::new();
    let index = fixture.open();
    for (id, name) in [(1, "/a"), (2, "/b")] {
        commit(&index, ServerChange::put(path(name), by("one", id, b"123")));
    }
    commit(&index, ServerChange::put(path("/c"), by("two", 3, b"1")));
    drop(index);
    let damage = |value: &[u8]| {
        let database = builder().open(fixture.file()).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction
            .open_table(TableDefinition::<&[u8], &[u8]>::new("usage"))
            .unwrap()
            .insert(&b"one"[..], value)
            .unwrap();
        transaction.commit().unwrap();
    };
    let faults = || {
        let mut faults = Vec::new();
        let inspection = Inspection::open(&fixture.file()).unwrap();
        inspection.check(|fault| faults.push(fault)).unwrap();
        faults
    };
    damage(b"nonsense");
    assert_eq!(faults().len(), 1, "{:?}", faults());
    let index = fixture.open();
    assert_eq!(usage(&index, "one"), (2, 6));
    commit(
        &index,
        ServerChange::put(path("/a"), by("one", 1, b"12345")),
    );
    drop(index);
    assert!(faults().is_empty(), "{:?}", faults());
}

/// What happens to one of a few paths.
#[derive(Clone, Debug)]
enum Step {
    Put(u64, usize, &'static str),
    Occupied(u64, usize, &'static str),
    Retire(u64),
    Close(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let writer = prop_oneof![Just("one"), Just("two"), Just("2001:db8::1"), Just(REBUILT)];
    let put = (0..4_u64, 0..50_usize, writer.clone());
    let step = prop_oneof![
        6 => put.clone().prop_map(|(path, length, writer)| Step::Put(path, length, writer)),
        2 => put.prop_map(|(path, length, writer)| Step::Occupied(path, length, writer)),
        1 => (0..4_u64).prop_map(Step::Retire),
        1 => (0..4_u64).prop_map(Step::Close),
    ];
    prop::collection::vec(step, 1..40)
}

/// What is known of a path: its length, its size, and who pays.
#[derive(Clone, Default)]
struct Known {
    length: Option<u64>,
    size: u64,
    payer: Option<String>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn accounts_add_up_after_any_changes(steps in steps()) {
        let fixture = Fixture::new();
        let index = fixture.open();
        let mut known: BTreeMap<u64, Known> = BTreeMap::new();
        for steps in steps.chunks(3) {
            let mut changes = Vec::new();
            for step in steps {
                let (Step::Put(n, ..) | Step::Occupied(n, ..) | Step::Retire(n) | Step::Close(n)) = step;
                let of = path(&format!("/{n}"));
                let state = known.entry(*n).or_default();
                match step {
                    Step::Put(_, length, writer) => {
                        changes.push(ServerChange::put(of, by(writer, *n, &vec![b'x'; *length])));
                        state.length = Some(*length as u64);
                        state.size = *length as u64;
                        state.payer = state.payer.take().or(account(writer));
                    }
                    Step::Occupied(_, size, writer) => {
                        let size = *size as u64;
                        changes.push(ServerChange::Occupied {
                            path: of,
                            size: Offset::new(size).unwrap(),
                            writer: (*writer).to_owned(),
                        });
                        state.size = size.max(state.length.unwrap_or(0));
                        state.payer = state.payer.take().or(account(writer));
                    }
                    Step::Retire(_) => {
                        let length = usize::try_from(state.length.unwrap_or(0)).unwrap();
                        let file = by("one", *n, &vec![b'x'; length]);
                        let retired = ServerFile { state: ServerState::Retired, ..file };
                        changes.push(ServerChange::put(of.clone(), retired));
                        // A retired path takes nothing more until it is closed.
                        changes.push(ServerChange::Close { path: of, moving: None });
                        *state = Known::default();
                    }
                    Step::Close(_) => {
                        changes.push(ServerChange::Close { path: of, moving: None });
                        *state = Known::default();
                    }
                }
            }
            index.commit(&changes).unwrap();
        }
        let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for state in known.values() {
            if let Some(payer) = &state.payer {
                let sum = sums.entry(payer.clone()).or_default();
                *sum = (sum.0 + 1, sum.1 + state.size);
            }
        }
        for payer in ["one", "two", "2001:db8::/64", REBUILT] {
            prop_assert_eq!(usage(&index, payer), sums.get(payer).copied().unwrap_or_default());
        }
        drop(index);
        let mut faults = Vec::new();
        Inspection::open(&fixture.file()).unwrap().check(|fault| faults.push(fault)).unwrap();
        prop_assert!(faults.is_empty(), "{:?}", faults);
    }
}
