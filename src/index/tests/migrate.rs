//! Databases of every older version, as the code of that version made them: opened, they are of
//! the newest version and hold every row they held; a power cut meanwhile leaves one that opens.
//!
//! `golden/` has their files: what [`write_server`] and [`write_client`] wrote in that version.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::index::client::tests::{name, new_file, progress};
use crate::index::client::{
    ClientChange, ClientFile, ClientIndex, ClientState, Destination, DestinationState, Progress,
    ProgressState,
};
use crate::index::engine::{bring_up_to_date, builder};
use crate::index::inspect::{Fault, Inspection, Row};
use crate::index::reader::Reader;
use crate::index::schema::{self, Schema};
use crate::index::server::tests::{at, path, row};
use crate::index::server::{Quarantined, ServerChange, ServerFile, ServerIndex, ServerState};
use crate::index::tests::crash::Cuttable;
use crate::index::{EventKind, Kind, NewEvent};
use crate::types::{BootId, CommitNumber, FileId, Offset, Prefix, StoreId, WirePath};

/// What was in the server's golden database, by the last change of each path.
fn server_rows() -> Vec<(WirePath, ServerFile)> {
    let mut rows = vec![
        (path("/host/a"), row(FileId(1), b"one\ntwo\n", 120)),
        (path("/host/b%FF"), row(FileId(2), &[b'x'; 200_000], 60)),
        (path("/host/c"), row(FileId(3), b"", 61)),
        (path("/host/d"), row(FileId(4), b"gone", 62)),
        (path("/host/e"), row(FileId(5), b"rebuilt", 63)),
    ];
    rows[1].1.state = ServerState::Regressed;
    rows[1].1.high_water = Some(Prefix::empty());
    rows[2].1.state = ServerState::Diverged;
    rows[3].1.state = ServerState::Retired;
    rows[4].1.state = ServerState::Unproven;
    rows[4].1.conditional = false;
    rows
}

fn write_server(file: &Path) {
    ServerIndex::create(file).unwrap();
    let index = ServerIndex::open(file, at(1)).unwrap();
    let first = ServerChange::put(path("/host/a"), row(FileId(1), b"one\n", 0));
    index.commit(&[first]).unwrap();
    let mut changes: Vec<_> = server_rows()
        .into_iter()
        .map(|(path, file)| ServerChange::put(path, file))
        .collect();
    changes.push(ServerChange::Event(NewEvent {
        at: at(62),
        kind: EventKind::Diverged,
        subject: b"host/c".to_vec(),
        detail: "was something else".to_owned(),
    }));
    index.commit(&changes).unwrap();
}

/// What version 2 held beside that: a file that two wrote, the later one by far the most, one that
/// `db rebuild` found, and a copy in quarantine.
fn server_2_rows() -> Vec<(WirePath, ServerFile)> {
    let mut shared = (path("/host/f"), row(FileId(6), b"six\nseven\n", 300));
    shared.1.writer = "beta".to_owned();
    let mut found = (path("/host/g"), row(FileId(7), b"found", 301));
    found.1.state = ServerState::Unproven;
    found.1.writer = "db rebuild".to_owned();
    server_rows().into_iter().chain([shared, found]).collect()
}

fn write_server_2(file: &Path) {
    write_server(file);
    let index = ServerIndex::open(file, at(200)).unwrap();
    let mut first = row(FileId(6), b"six\n", 200);
    first.writer = "2001:db8::7".to_owned();
    index
        .commit(&[ServerChange::put(path("/host/f"), first)])
        .unwrap();
    let mut changes: Vec<_> = server_2_rows()
        .split_off(server_rows().len())
        .into_iter()
        .map(|(path, file)| ServerChange::put(path, file))
        .collect();
    changes.push(ServerChange::Quarantine {
        name: "1-0000000000000001.tail".to_owned(),
        row: Box::new(quarantined()),
    });
    index.commit(&changes).unwrap();
}

fn quarantined() -> Quarantined {
    Quarantined {
        path: b"host/a".to_vec(),
        id: None,
        start: Offset::ZERO,
        end: Offset::ZERO,
        recorded: None,
        found: None,
        inode: None,
        at: at(301),
        gone: true,
    }
}

fn client_rows() -> Vec<ClientFile> {
    let states = [
        ClientState::Superseded { by: FileId(2) },
        ClientState::Renaming {
            from: name("host/a"),
        },
        ClientState::Active,
        ClientState::Lost,
        ClientState::Released,
    ];
    let names = ["host/a", "host/a.1", "host/c", "host/d", "host/e"];
    let mut rows: Vec<_> = (1..)
        .zip(states)
        .zip(names)
        .map(|((inode, state), name)| new_file(inode, name).into_row(state))
        .collect();
    rows[1].inode = rows[0].inode;
    rows[1].generation = 2;
    rows
}

fn destination_row() -> Destination {
    Destination {
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
    }
}

fn progress_rows() -> Vec<(FileId, Progress)> {
    let mut rows = vec![
        (FileId(1), progress(b"one")),
        (FileId(3), progress(&[b'x'; 200_000])),
        (FileId(4), progress(b"")),
        (FileId(5), progress(b"all")),
    ];
    rows[0].1.state = ProgressState::Conflict;
    rows[2].1.state = ProgressState::Error {
        text: "400 path".to_owned(),
    };
    rows[3].1.state = ProgressState::Retired;
    rows
}

fn write_client(file: &Path) {
    ClientIndex::create(file).unwrap();
    let index = ClientIndex::open(file).unwrap();
    let rows = client_rows();
    let files = ["host/a", "host/c", "host/d", "host/e"];
    let adopted = [1, 3, 4, 5].into_iter().zip(files);
    let adopted: Vec<_> = adopted.map(|(inode, name)| new_file(inode, name)).collect();
    index.adopt(&adopted[..1]).unwrap();
    let mut next = new_file(1, "host/a.1");
    next.generation = 2;
    index.supersede(FileId(1), next).unwrap();
    index.adopt(&adopted[1..]).unwrap();
    for (id, row) in [3, 4, 5].into_iter().zip(&rows[2..]) {
        let state = ClientChange::State(FileId(id), row.state.clone());
        index.commit(&[state]).unwrap();
    }
    let (destination, _) = index.destination("http://host:1/").unwrap();
    index
        .commit(&[ClientChange::Destination(destination, destination_row())])
        .unwrap();
    let progress = progress_rows();
    index
        .record(progress.into_iter().map(|(id, row)| (destination, id, row)))
        .unwrap();
    index
        .commit(&[ClientChange::Event(NewEvent {
            at: at(62),
            kind: EventKind::Lost,
            subject: b"host/d".to_vec(),
            detail: "3..12".to_owned(),
        })])
        .unwrap();
}

/// A version's database of a kind, its check and its file.
struct Golden {
    kind: Kind,
    version: u32,
    file: &'static [u8],
    write: fn(&Path),
    holds_every_row: fn(&Path),
}

const GOLDEN: [Golden; 3] = [
    Golden {
        kind: Kind::Server,
        version: 1,
        file: include_bytes!("golden/server-1.redb"),
        write: write_server,
        holds_every_row: server_holds_every_row,
    },
    Golden {
        kind: Kind::Server,
        version: 2,
        file: include_bytes!("golden/server-2.redb"),
        write: write_server_2,
        holds_every_row: server_2_holds_every_row,
    },
    Golden {
        kind: Kind::Client,
        version: 1,
        file: include_bytes!("golden/client-1.redb"),
        write: write_client,
        holds_every_row: client_holds_every_row,
    },
];

fn server_holds_every_row(file: &Path) {
    let index = ServerIndex::open(file, at(9)).unwrap();
    assert_eq!(index.files(None, 100).unwrap(), server_rows());
    holds_what_both_versions_held(&index);
    // The rebuilt one counts, since its writer is known; the retired one does not.
    assert_eq!(usage(&index, "alpha"), (4, 200_015));
    adds_up(file, index);
}

fn server_2_holds_every_row(file: &Path) {
    let index = ServerIndex::open(file, at(9)).unwrap();
    assert_eq!(index.files(None, 100).unwrap(), server_2_rows());
    holds_what_both_versions_held(&index);
    let kept = index.quarantined("1-0000000000000001.tail").unwrap();
    assert_eq!(kept, Some(quarantined()));
    assert_eq!(usage(&index, "alpha"), (4, 200_015));
    // Who wrote first, and not who wrote last.
    assert_eq!(usage(&index, "2001:db8::/64"), (1, 10));
    assert_eq!(usage(&index, "beta"), (0, 0));
    assert_eq!(index.charge(&path("/host/g")).unwrap(), None);
    adds_up(file, index);
}

fn usage(index: &ServerIndex, account: &str) -> (u64, u64) {
    let usage = index.usage(account).unwrap();
    (usage.files, usage.bytes)
}

fn adds_up(file: &Path, index: ServerIndex) {
    drop(index);
    // Of the rows themselves some are odd, for the sake of the format.
    let each = |fault: Fault| assert_ne!(fault.table, "usage", "{fault:?}");
    Inspection::open(file).unwrap().check(each).unwrap();
}

fn holds_what_both_versions_held(index: &ServerIndex) {
    let history = index.history(&path("/host/a")).unwrap();
    let hashes: Vec<_> = history.iter().map(|(_, row)| row.hash.0).collect();
    let expected = [&b"one\n"[..], b"one\ntwo\n"].map(|content| *blake3::hash(content).as_bytes());
    assert_eq!(hashes, expected);
    // The boot and the two commits of then, and this boot.
    assert!(index.number() >= CommitNumber(4));
    let (_, event) = &index.events(0, 9).unwrap()[0];
    assert_eq!(
        (event.kind, &event.subject[..]),
        (EventKind::Diverged, &b"host/c"[..])
    );
    index.check_rows().unwrap();
    assert!(index.check_integrity().unwrap());
}

fn client_holds_every_row(file: &Path) {
    let index = ClientIndex::open(file).unwrap();
    let rows = index.files(None, 100).unwrap();
    assert_eq!(
        rows,
        (1..).map(FileId).zip(client_rows()).collect::<Vec<_>>()
    );
    for (id, row) in rows {
        assert_eq!(index.by_name(&row.name).unwrap(), Some(id));
    }
    let newest = index.by_inode(&client_rows()[0].inode).unwrap();
    assert_eq!(newest, Some(FileId(2)));
    let destinations = index.destinations().unwrap();
    assert_eq!(destinations[0].1, destination_row());
    let progress = index.progress_page(destinations[0].0, None, 100).unwrap();
    assert_eq!(progress, progress_rows());
    assert_eq!(index.events(0, 9).unwrap()[0].1.kind, EventKind::Lost);
    index.check_rows().unwrap();
    assert!(index.check_integrity().unwrap());
}

/// A scratch directory with `bytes` as the database.
fn lay(kind: Kind, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(kind.file_name());
    fs::write(&file, bytes).unwrap();
    (directory, file)
}

/// How often a database says that it was brought up to date.
fn migrations(file: &Path) -> usize {
    let mut found = 0;
    let each = |row| {
        found +=
            usize::from(matches!(row, Row::Events(event) if event.kind == EventKind::Migrated));
        true
    };
    Inspection::open(file).unwrap().events(0, each).unwrap();
    found
}

fn version(file: &Path) -> u32 {
    let reader = Reader::open(file).unwrap();
    reader.read(schema::read).unwrap().version
}

#[test]
fn a_database_of_an_older_version_is_brought_up_to_date_with_every_row() {
    for golden in &GOLDEN {
        let (_directory, file) = lay(golden.kind, golden.file);
        assert_eq!(version(&file), golden.version);
        (golden.holds_every_row)(&file);
        assert_eq!(version(&file), schema::newest(golden.kind));
        assert_eq!(migrations(&file), 1);
        (golden.holds_every_row)(&file);
        assert_eq!(migrations(&file), 1);
    }
}

#[test]
fn what_the_golden_databases_hold_is_what_is_written_today() {
    let directory = tempfile::tempdir().unwrap();
    for golden in &GOLDEN {
        let name = format!("{}-{}", golden.kind, golden.version);
        let file = directory.path().join(name);
        (golden.write)(&file);
        (golden.holds_every_row)(&file);
        assert_eq!(migrations(&file), 0);
    }
}

#[test]
fn looking_at_an_older_version_changes_nothing_of_it() {
    for golden in &GOLDEN {
        let (_directory, file) = lay(golden.kind, golden.file);
        let inspection = Inspection::open(&file).unwrap();
        let mut rows = 0;
        inspection
            .rows(|_| {
                rows += 1;
                true
            })
            .unwrap();
        assert!(rows >= 7, "{rows} rows");
        inspection.check_rows().unwrap();
        assert_eq!(fs::read(&file).unwrap(), golden.file);
    }
}

#[test]
fn a_power_cut_in_a_migration_leaves_the_old_version_or_the_new() {
    for golden in &GOLDEN {
        let disk = Cuttable::holding(golden.file.to_vec());
        let database = builder().create_with_backend(disk.clone()).unwrap();
        let found = Schema {
            kind: golden.kind,
            version: golden.version,
        };
        bring_up_to_date(&database, found).unwrap();
        let cuts = std::mem::take(&mut disk.disk.lock().unwrap().cuts);
        let mut versions = BTreeSet::new();
        for (left, _) in cuts {
            let (_directory, file) = lay(golden.kind, &left);
            versions.insert(version(&file));
            (golden.holds_every_row)(&file);
        }
        assert_eq!(
            versions,
            [golden.version, schema::newest(golden.kind)].into()
        );
    }
}
