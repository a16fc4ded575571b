//! Rows whose check holds and which nobody here has written: a path that leads out of the datadir,
//! an offset that no file has. Each is an error that names the row, and hides no other.

use std::path::Path;

use redb::{ReadableTable as _, TableDefinition};
use serde::ser::{Serialize, SerializeTuple as _, Serializer};

use crate::index::client::ClientIndex;
use crate::index::client::tests::{Fixture as ClientFixture, name, new_file};
use crate::index::codec::{TableKey as _, open_row, seal_row};
use crate::index::engine::builder;
use crate::index::inspect::Inspection;
use crate::index::server::ServerChange;
use crate::index::server::tests::{Fixture as ServerFixture, path, row};
use crate::types::FileId;

type Raw = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Bytes as the codec writes them, without a length before them.
struct Payload<'a>(&'a [u8]);

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut tuple = to.serialize_tuple(self.0.len())?;
        self.0
            .iter()
            .try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }
}

/// Puts what `forge` makes of the payload of row `key` under `forged`.
fn forge(
    file: &Path,
    table: &'static str,
    key: &[u8],
    forged: &[u8],
    forge: impl FnOnce(Vec<u8>) -> Vec<u8>,
) {
    let database = builder().open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut rows = transaction.open_table(Raw::new(table)).unwrap();
        let stored = rows.get(key).unwrap().unwrap().value().to_vec();
        let payload = forge(open_row(table, key, &stored).unwrap().to_vec());
        let sealed = seal_row(table, forged, &Payload(&payload)).unwrap();
        rows.insert(forged, &sealed[..]).unwrap();
    }
    transaction.commit().unwrap();
}

/// What a check finds, as table and key.
fn faults(file: &Path) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    let inspection = Inspection::open(file).unwrap();
    inspection
        .check(|fault| faults.push((fault.table, fault.key)))
        .unwrap();
    faults
}

#[test]
fn a_path_that_leads_out_of_the_datadir_is_no_row() {
    for evil in [
        &b"../evil"[..],
        b"a/../../evil",
        b"/etc/passwd",
        b"a//b",
        b"",
    ] {
        let fixture = ServerFixture::new();
        let index = fixture.open();
        let good = row(FileId(1), b"abc", 0);
        let change = ServerChange::put(path("/log/a"), good.clone());
        index.commit(&[change]).unwrap();
        drop(index);
        forge(&fixture.file(), "files", b"log/a", evil, |payload| payload);

        let found = faults(&fixture.file());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "files");
        let index = fixture.open();
        let error = index.files(None, 10).unwrap_err().to_string();
        assert!(
            error.contains("`files`") && error.contains("server.redb"),
            "{error}"
        );
        assert_eq!(index.file(&path("/log/a")).unwrap(), Some(good));
    }
}

#[test]
fn a_stable_name_that_leads_out_of_the_datadir_is_no_row() {
    let fixture = ClientFixture::new();
    let index = fixture.open();
    let ids = index
        .adopt(&[new_file(9, "host/log"), new_file(10, "host/other")])
        .unwrap();
    drop(index);
    let key = ids[0].encode();
    forge(&fixture.file(), "files", &key, &key, |payload| {
        let at = payload
            .windows(8)
            .position(|window| window == b"host/log")
            .unwrap();
        let mut payload = payload;
        payload[at..at + 8].copy_from_slice(b"../../og");
        payload
    });
    let index = ClientIndex::open(&fixture.file()).unwrap();
    let error = index.file(ids[0]).unwrap_err().to_string();
    assert!(error.contains("`files`"), "{error}");
    assert!(index.file(ids[1]).unwrap().is_some());
    assert_eq!(index.by_name(&name("host/log")).unwrap(), Some(ids[0]));
    drop(index);
    let found = faults(&fixture.file());
    assert!(
        found.iter().any(|(table, _)| *table == "files"),
        "{found:?}"
    );
}

#[test]
fn an_offset_that_no_file_has_is_no_row() {
    let fixture = ServerFixture::new();
    let index = fixture.open();
    for content in [&b"abc"[..], b"abcdef"] {
        let file = row(
            FileId(1),
            content,
            60 * i64::try_from(content.len()).unwrap(),
        );
        index
            .commit(&[ServerChange::put(path("/log/a"), file)])
            .unwrap();
    }
    drop(index);
    let key = |length: u64| [1_u64.to_be_bytes(), length.to_be_bytes()].concat();
    forge(&fixture.file(), "history", &key(3), &key(u64::MAX), |row| {
        row
    });
    let found = faults(&fixture.file());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "history");
    let index = fixture.open();
    let error = index.history(&path("/log/a")).unwrap_err().to_string();
    assert!(error.contains("`history`"), "{error}");
}
