//! The encodings of every schema version, byte for byte. A change here is a change of the format: it
//! needs a migration step, a new version, and its own golden rows beside these. Steps so far only
//! added tables.

use serde::Serialize;

use crate::index::client::tests::{name, new_file, progress};
use crate::index::client::{
    ClientState, Destination, DestinationId, DestinationState, Hold, ProgressState, Scrubbed,
    Stretch, Times,
};
use crate::index::codec::{TableKey, seal_row};
use crate::index::schema::{Kind, Schema};
use crate::index::server::tests::{at, path, row};
use crate::index::server::{
    BootRow, Counters, HistoryRow, Owner, Quarantined, ScrubPosition, ServerState, Usage,
};
use crate::index::{Event, EventKind};
use crate::types::{BootId, CommitNumber, FileId, Inode, Offset, Prefix, StoreId};

/// BLAKE3 of the stored bytes of a row: short enough to be written down here.
fn digest<V: Serialize>(table: &'static str, key: &impl TableKey, value: &V) -> String {
    let stored = seal_row(table, &key.encode(), value).unwrap();
    blake3::hash(&[key.encode(), stored].concat()).to_hex()[..16].to_owned()
}

#[test]
fn a_stored_row_is_check_and_postcard() {
    let schema = Schema {
        kind: Kind::Server,
        version: 1,
    };
    let stored = seal_row("meta", b"schema", &schema).unwrap();
    let mut checked = 4_u64.to_le_bytes().to_vec();
    checked.extend(b"meta");
    checked.extend(6_u64.to_le_bytes());
    checked.extend(b"schema");
    checked.extend([1, 1]);
    let check = blake3::hash(&checked);
    assert_eq!(stored, [&check.as_bytes()[..8], &[1, 1]].concat());
}

#[test]
fn the_server_s_rows_of_version_1_are_what_they_were() {
    let mut regressed = row(FileId(7), &vec![b'x'; 200_000], 86_400);
    regressed.state = ServerState::Regressed;
    regressed.high_water = Some(Prefix::empty());
    let history = HistoryRow {
        hash: regressed.vouched.hash,
        at: at(60),
        writer: "alpha".to_owned(),
        odd: true,
    };
    let boot = BootRow {
        first: CommitNumber(300),
        at: at(-1),
    };
    let event = Event {
        at: at(1),
        kind: EventKind::SyncFailed,
        subject: b"log/a".to_vec(),
        detail: "EIO".to_owned(),
        times: 2,
    };
    let length = Offset::new(200_000).unwrap();
    let found = [
        digest("files", &path("/log/a"), &regressed),
        digest("history", &(FileId(7), length), &history),
        digest("boots", &BootId([9; 16]), &boot),
        digest("events", &300_u64, &event),
        digest("meta", &"store".to_owned(), &StoreId([1; 16])),
    ];
    assert_eq!(
        found,
        [
            "cbc835f00b7b5238",
            "b16a6eb67ba094c7",
            "55bb2ce75761d2a4",
            "0753022eee9f9f91",
            "615567affc837bf5"
        ]
    );
}

#[test]
fn the_server_s_rows_of_version_2_are_what_they_were() {
    let file = row(FileId(7), &vec![b'x'; 200_000], 86_400);
    let counters = Counters {
        number: CommitNumber(300),
        suspected: CommitNumber(299),
        next_file: FileId(8),
    };
    let scrub = ScrubPosition {
        began: at(-1),
        after: Some(b"log/\xff".to_vec()),
        part: Some((FileId(7), file.hasher)),
        has_ended: true,
    };
    let quarantined = Quarantined {
        path: b"log/\xff".to_vec(),
        id: Some(FileId(7)),
        start: Offset::new(300).unwrap(),
        end: Offset::new(200_000).unwrap(),
        recorded: Some(file.vouched),
        found: Some(Prefix::empty()),
        inode: Some(file.footprint.inode),
        at: at(60),
        gone: true,
    };
    let found = [
        digest("meta", &"counters".to_owned(), &counters),
        digest("meta", &"scrub".to_owned(), &scrub),
        digest("meta", &"moving".to_owned(), &Some("copy".to_owned())),
        digest("meta", &"moving".to_owned(), &None::<String>),
        digest("quarantine", &"copy".to_owned(), &quarantined),
    ];
    assert_eq!(
        found,
        [
            "6ea4859d5fe3e912",
            "9b96f9082fa167f0",
            "f4328c35f92a39df",
            "823688c899a213b6",
            "3556550eefb4165e"
        ]
    );
}

#[test]
fn the_server_s_rows_of_version_3_are_what_they_were() {
    let owner = Owner {
        account: "alpha".to_owned(),
        tail: 300,
    };
    let usage = Usage {
        files: 2,
        bytes: 200_000,
    };
    let found = [
        digest("owners", &path("/log/a"), &owner),
        digest("usage", &"alpha".to_owned(), &usage),
    ];
    assert_eq!(found, ["dfdc6ef8414b5b55", "8ab4c97ff6bcbd89"]);
}

#[test]
fn the_client_s_rows_of_version_1_are_what_they_were() {
    let file = |state| new_file(3, "host/log").into_row(state);
    let destination = Destination {
        url: "http://host:1/".to_owned(),
        store: Some(StoreId([1; 16])),
        boot: Some(BootId([2; 16])),
        number: CommitNumber(5),
        swept: CommitNumber(4),
        verified: true,
        state: DestinationState::Stopped {
            reason: "two servers".to_owned(),
        },
        sweep_pending: true,
        since: FileId(1),
    };
    let mut refused = progress(b"content");
    refused.state = ProgressState::Error {
        text: "400 path".to_owned(),
    };
    let inode = Inode {
        number: 3,
        born: Some(-5),
    };
    let renaming = ClientState::Renaming {
        from: name("host/old"),
    };
    let superseded = ClientState::Superseded { by: FileId(2) };
    let found = [
        digest("files", &FileId(1), &file(renaming)),
        digest("files", &FileId(1), &file(superseded)),
        digest("files", &FileId(1), &file(ClientState::Released)),
        digest("names", &name("host/log"), &FileId(1)),
        digest("inodes", &inode, &FileId(1)),
        digest("destinations", &DestinationId(1), &destination),
        digest("progress", &(DestinationId(1), FileId(1)), &refused),
    ];
    assert_eq!(
        found,
        [
            "8908268b7995f772",
            "4ae6445fb12042dd",
            "34809d0502991938",
            "a09828a9ccff6050",
            "9a9a37cba40ffdec",
            "1d3f59db1141a9ef",
            "2fd5626b6291cdcc"
        ]
    );
}

#[test]
fn the_client_s_rows_of_version_2_are_what_they_were() {
    let stretches = vec![
        Stretch {
            at: Offset::new(21).unwrap(),
            bytes: vec![1, 0xff],
        },
        Stretch {
            at: Offset::new(300).unwrap(),
            bytes: Vec::new(),
        },
    ];
    let hold = Hold {
        quiet: 300,
        size: Offset::new(200_000).unwrap(),
        times: Times {
            mtime: 300,
            ctime: -1,
        },
        at: at(60),
    };
    let scrubbed = Scrubbed {
        file: FileId(300),
        began: at(-1),
    };
    let found = [
        digest("volatile", &FileId(1), &stretches),
        digest("holds", &FileId(1), &hold),
        digest("meta", &"scrubbed".to_owned(), &scrubbed),
    ];
    assert_eq!(
        found,
        ["70d52dbbd05f02ab", "2f716dad6760041a", "3063ed68ea85c46b"]
    );
}
