//! Rows of both databases: any bytes as key and value are an error fit for a terminal. Bytes whose
//! check holds, whoever wrote them, are an error or a row whose key is written as it was, and that
//! written again is the same for ever. A row with any bit flipped, in its key or its value, and a
//! row in another table, is always an error.
//!
//! The input: the kind of row, the flipped bit, the length of the key, then key and payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shaftlog::index::stored::{RowKind, row_kinds};
use shaftlog::index::{Kind, Problem};

fuzz_target!(|data: &[u8]| {
    let Some(([which, low, high, length], rest)) = data
        .split_first_chunk::<4>()
        .map(|(head, rest)| (*head, rest))
    else {
        return;
    };
    let kinds: Vec<_> = [Kind::Client, Kind::Server]
        .into_iter()
        .flat_map(row_kinds)
        .collect();
    let kind = kinds[usize::from(which) % kinds.len()];
    let (key, payload) = match kind.key {
        Some(own) => (own.as_bytes(), rest),
        None => rest.split_at(usize::from(length).min(rest.len())),
    };
    refused(&kind, key, payload);

    let value = sealed(kind.table, key, payload);
    let (again, rewritten) = match kind.rewrite(key, &value) {
        Ok(row) => row,
        Err(problem) => return is_fit(&problem),
    };
    assert_eq!(again, key);
    // A number may have been written with more bytes than it needs, but not by us.
    assert!(rewritten.len() <= value.len(), "{kind:?}");
    assert_eq!(
        kind.rewrite(key, &rewritten).ok(),
        Some((again, rewritten.clone()))
    );

    let bit = usize::from(u16::from_le_bytes([low, high])) % ((key.len() + rewritten.len()) * 8);
    let mut bytes = [key, &rewritten].concat();
    bytes[bit / 8] ^= 1 << (bit % 8);
    let (flipped_key, flipped_value) = bytes.split_at(key.len());
    refused(&kind, flipped_key, flipped_value);
    refused(&kind, key, &rewritten[..bit / 8 % rewritten.len()]);
    for other in kinds.iter().filter(|other| other.table != kind.table) {
        refused(other, key, &rewritten);
    }
});

fn refused(kind: &RowKind, key: &[u8], value: &[u8]) {
    match kind.rewrite(key, value) {
        Ok(row) => panic!("{kind:?} takes {key:?} {value:?} for {row:?}"),
        Err(problem) => is_fit(&problem),
    }
}

fn is_fit(problem: &Problem) {
    let said = problem.to_string();
    assert!(!said.chars().any(char::is_control), "{said:?}");
}

/// A value as it is stored: the check over table, key and payload, and the payload.
fn sealed(table: &str, key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    for part in [table.as_bytes(), key] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(payload);
    [&hasher.finalize().as_bytes()[..8], payload].concat()
}
