//! Rows by themselves: each table has its kind of rows, and what the indexes write is written so
//! again.

use std::collections::BTreeSet;
use std::path::Path;

use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition, TableHandle as _};

use crate::index::Kind;
use crate::index::client::tests::{Fixture as ClientFixture, new_file};
use crate::index::engine::builder;
use crate::index::server::ServerChange;
use crate::index::server::tests::{Fixture as ServerFixture, event, path, row};
use crate::index::stored::{RowKind, row_kinds};
use crate::types::FileId;

/// Rewrites every row of a database; gives their number.
fn rewrite_all(file: &Path, kind: Kind) -> usize {
    let kinds: Vec<RowKind> = row_kinds(kind).collect();
    let database = builder().open(file).unwrap();
    let transaction = database.begin_read().unwrap();
    let tables = transaction.list_tables().unwrap();
    let tables: BTreeSet<String> = tables.map(|table| table.name().to_owned()).collect();
    let known: BTreeSet<String> = kinds.iter().map(|kind| kind.table.to_owned()).collect();
    assert_eq!(tables, known);
    let mut number = 0;
    for table in &tables {
        let definition = TableDefinition::<&[u8], &[u8]>::new(table);
        for row in transaction.open_table(definition).unwrap().iter().unwrap() {
            let (key, value) = row.unwrap();
            let (key, value) = (key.value().to_vec(), value.value().to_vec());
            let kind = kinds.iter().find(|kind| {
                kind.table == table && kind.key.is_none_or(|own| own.as_bytes() == key)
            });
            let kind = kind.unwrap_or_else(|| panic!("no kind of {table} {key:?}"));
            let again = kind.rewrite(&key, &value).unwrap();
            assert_eq!(again, (key.clone(), value.clone()), "{kind:?}");
            let error = kind.rewrite(&key, &value[1..]).unwrap_err().to_string();
            assert!(error.contains(table.as_str()), "{error}");
            number += 1;
        }
    }
    number
}

#[test]
fn every_row_of_a_server_can_be_rewritten() {
    let fixture = ServerFixture::new();
    let index = fixture.open();
    let file = ServerChange::put(path("/log/a"), row(FileId(1), b"abc", 0));
    index.commit(&[file, event(1, "x")]).unwrap();
    drop(index);
    assert!(rewrite_all(&fixture.file(), Kind::Server) >= 6);
}

#[test]
fn every_row_of_a_client_can_be_rewritten() {
    let fixture = ClientFixture::new();
    let index = fixture.open();
    index.adopt(&[new_file(9, "host/log")]).unwrap();
    index.destination("http://h/").unwrap();
    drop(index);
    assert!(rewrite_all(&fixture.file(), Kind::Client) >= 5);
}
