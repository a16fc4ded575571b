//! What inspection shows: the keys of the JSON are a promise to scripts.

use serde_json::{Value, json};

use crate::index::client::tests::{Fixture as ClientFixture, new_file, progress};
use crate::index::client::{ClientChange, Hold, ProgressState, Stretch, Times};
use crate::index::inspect::Inspection;
use crate::index::server::tests::{Fixture as ServerFixture, at, event, row};
use crate::index::server::{Quarantined, ServerChange, ServerState};
use crate::index::{EventKind, Kind, NewEvent};
use crate::types::{FileId, Offset, Prefix, WirePath};

fn shown(inspection: &Inspection) -> Vec<Value> {
    let mut rows = Vec::new();
    inspection
        .rows(|row| {
            rows.push(serde_json::to_value(row).unwrap());
            true
        })
        .unwrap();
    rows
}

fn stretch(at: u64, bytes: &[u8]) -> Stretch {
    Stretch {
        at: Offset::new(at).unwrap(),
        bytes: bytes.to_vec(),
    }
}

fn hold() -> Hold {
    Hold {
        quiet: 90,
        size: Offset::new(12).unwrap(),
        times: Times::default(),
        at: at(6),
    }
}

#[test]
fn a_server_s_rows_show_under_their_stable_keys() {
    let fixture = ServerFixture::new();
    let index = fixture.open();
    let mut file = row(FileId(1), b"abc", 5);
    file.state = ServerState::Regressed;
    file.high_water = Some(Prefix::empty());
    let name = WirePath::from_disk(&b"log/\xff\n%"[..]).unwrap();
    let kept = |name: &str, id, gone| ServerChange::Quarantine {
        name: name.to_owned(),
        row: Box::new(Quarantined {
            path: b"log/b".to_vec(),
            id,
            start: Offset::ZERO,
            end: Offset::new(3).unwrap(),
            recorded: id.map(|_| Prefix::empty()),
            found: None,
            inode: None,
            at: at(4),
            gone,
        }),
    };
    index
        .commit(&[
            ServerChange::put(name, file),
            kept("1-file", Some(FileId(9)), false),
            kept("2-tail", None, true),
            event(6, "log/a"),
        ])
        .unwrap();
    let inspection = Inspection::open(&fixture.file()).unwrap();
    let lengths = |name: &str| inspection.history(&WirePath::from_disk(name).unwrap());
    assert_eq!(lengths("log/b").unwrap(), []);
    assert_eq!(inspection.kind(), Kind::Server);
    assert_eq!(inspection.store().unwrap(), Some(index.store()));
    let expected = json!([
        {
            "table": "files",
            "path": "/log/%FF%0A%25",
            "length": 3,
            "blake3": blake3::hash(b"abc").to_hex().as_str(),
            "state": "regressed",
            "high_water": {
                "length": 0,
                "blake3": blake3::hash(b"").to_hex().as_str(),
            },
            "writer": "alpha",
            "updated": "1970-01-01T00:00:05Z",
        },
        {
            "table": "boots",
            "boot": index.boot().to_string(),
            "first": 1,
            "at": "1970-01-01T00:00:00Z",
        },
        {
            "table": "quarantine",
            "copy": "1-file",
            "path": "/log/b",
            "life": 9,
            "start": 0,
            "end": 3,
            "recorded": {
                "length": 0,
                "blake3": blake3::hash(b"").to_hex().as_str(),
            },
            "found": null,
            "state": "kept",
            "at": "1970-01-01T00:00:04Z",
        },
        {
            "table": "quarantine",
            "copy": "2-tail",
            "path": "/log/b",
            "life": null,
            "start": 0,
            "end": 3,
            "recorded": null,
            "found": null,
            "state": "gone",
            "at": "1970-01-01T00:00:04Z",
        },
        {"table": "usage", "client": "alpha", "files": 1, "bytes": 3},
        {
            "table": "events",
            "sequence": 1,
            "at": "1970-01-01T00:00:06Z",
            "kind": "regressed",
            "path": "/log/a",
            "detail": "was 3, is 2",
            "times": 1,
        },
    ]);
    assert_eq!(Value::from(shown(&inspection)), expected);
}

#[test]
fn a_client_s_rows_show_under_their_stable_keys() {
    let fixture = ClientFixture::new();
    let index = fixture.open();
    let id = index.adopt(&[new_file(9, "host/log")]).unwrap()[0];
    let (there, _) = index.destination("http://server/").unwrap();
    let mut refused = progress(b"abc");
    refused.state = ProgressState::Error {
        text: "400 path".to_owned(),
    };
    index.record([(there, id, refused)]).unwrap();
    index
        .commit(&[
            ClientChange::Volatile(id, vec![stretch(1, b"\x00\xff"), stretch(9, b"a")]),
            ClientChange::Hold(id, Some(hold())),
            ClientChange::Event(NewEvent {
                at: at(7),
                kind: EventKind::Discovered,
                subject: b"host/log".to_vec(),
                detail: String::new(),
            }),
        ])
        .unwrap();
    let inspection = Inspection::open(&fixture.file()).unwrap();
    let mut faults = Vec::new();
    inspection.check(|fault| faults.push(fault)).unwrap();
    assert_eq!(faults, []);
    assert_eq!(inspection.kind(), Kind::Client);
    assert_eq!(inspection.store().unwrap(), None);
    let expected = json!([
        {
            "table": "files",
            "name": "host/log",
            "source": "/var/log/%FF",
            "pattern": "logs",
            "inode": 9,
            "generation": 1,
            "length": 12,
            "state": "active",
            "discovered": "2023-11-14T22:13:20Z",
            "id": 1,
        },
        {
            "table": "destinations",
            "destination": "http://server/",
            "verified": false,
            "state": "active",
            "store": null,
            "number": 0,
            "sweep_pending": false,
        },
        {
            "table": "progress",
            "destination": "http://server/",
            "name": "host/log",
            "confirmed": 3,
            "blake3": blake3::hash(b"abc").to_hex().as_str(),
            "verified": true,
            "state": "error",
            "error": "400 path",
            "confirmed_at": "2023-11-14T22:13:21Z",
        },
        {
            "table": "volatile",
            "name": "host/log",
            "offset": 1,
            "length": 2,
            "bytes": "00ff",
        },
        {
            "table": "volatile",
            "name": "host/log",
            "offset": 9,
            "length": 1,
            "bytes": "61",
        },
        {
            "table": "holds",
            "name": "host/log",
            "quiet": 90,
            "size": 12,
            "at": "1970-01-01T00:00:06Z",
        },
        {
            "table": "events",
            "sequence": 1,
            "at": "1970-01-01T00:00:07Z",
            "kind": "discovered",
            "name": "host/log",
            "detail": "",
            "times": 1,
        },
    ]);
    assert_eq!(Value::from(shown(&inspection)), expected);
}

#[test]
fn more_rows_than_one_snapshot_takes_all_show() {
    let fixture = ServerFixture::new();
    let index = fixture.open();
    let count = 2 * crate::limits::INSPECT_ROWS + 1;
    let changes: Vec<_> = (0..count)
        .map(|n| {
            let name = WirePath::from_disk(format!("{n:05}")).unwrap();
            ServerChange::put(name, row(index.allocate(), b"", 0))
        })
        .collect();
    index.commit(&changes).unwrap();
    let inspection = Inspection::open(&fixture.file()).unwrap();
    let mut subjects = Vec::new();
    inspection
        .rows(|row| {
            subjects.extend(row.subject());
            true
        })
        .unwrap();
    assert_eq!(subjects.len(), count);
    assert!(subjects.is_sorted());
    assert_eq!(subjects[0], b"/00000");
    let mut visited = 0;
    inspection
        .rows(|_| {
            visited += 1;
            visited < 10
        })
        .unwrap();
    assert_eq!(visited, 10);
    assert_eq!(
        inspection
            .events(0, |_| true)
            .map_err(|error| error.to_string()),
        Ok(true)
    );
}

#[test]
fn a_check_names_rows_that_contradict_others_in_every_table() {
    let fixture = ClientFixture::new();
    let index = fixture.open();
    let id = index.adopt(&[new_file(9, "host/log")]).unwrap()[0];
    index
        .commit(&[
            ClientChange::Volatile(id, vec![stretch(0, b"four"), stretch(3, b"x")]),
            ClientChange::Volatile(FileId(77), vec![stretch(0, b"x")]),
            ClientChange::Hold(FileId(77), Some(hold())),
        ])
        .unwrap();
    let found = |file: &std::path::Path| {
        let mut found = Vec::new();
        let inspection = Inspection::open(file).unwrap();
        inspection
            .check(|fault| found.push((fault.table, fault.fault)))
            .unwrap();
        found
    };
    let nothing = "there is no file 77".to_owned();
    assert_eq!(
        found(&fixture.file()),
        [
            ("volatile", "its ranges overlap".to_owned()),
            ("volatile", nothing.clone()),
            ("holds", nothing),
        ]
    );

    let fixture = ServerFixture::new();
    let index = fixture.open();
    let kept = |end| ServerChange::Quarantine {
        name: format!("{end}"),
        row: Box::new(Quarantined {
            path: b"log/a".to_vec(),
            id: Some(FileId(1)),
            start: Offset::new(2).unwrap(),
            end: Offset::new(end).unwrap(),
            recorded: None,
            found: None,
            inode: None,
            at: at(4),
            gone: false,
        }),
    };
    let file = ServerChange::put(
        WirePath::from_disk("log/a").unwrap(),
        row(FileId(1), b"", 0),
    );
    index.commit(&[file, kept(1), kept(3)]).unwrap();
    assert_eq!(
        found(&fixture.file()),
        [
            ("quarantine", "it ends before its start".to_owned()),
            (
                "quarantine",
                "the life that it ended goes on at /log/a".to_owned()
            ),
        ]
    );
}
