//! What lies where a database should be.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::index::client::ClientIndex;
use crate::index::engine::Engine;
use crate::index::error::{IndexError, Problem};
use crate::index::inspect::Inspection;
use crate::index::schema::{SCHEMA, Schema, newest};
use crate::index::server::ServerIndex;
use crate::index::server::tests::{Fixture, at, path, row};
use crate::index::{Kind, server::ServerChange};
use crate::types::FileId;

fn open(file: &Path) -> Result<ServerIndex, IndexError> {
    ServerIndex::open(file, at(0))
}

fn problem<T>(result: Result<T, IndexError>) -> Problem {
    match result {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.problem,
    }
}

#[test]
fn a_database_is_created_private_and_never_twice() {
    let fixture = Fixture::new();
    let mode = fs::metadata(fixture.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(fixture.file()).unwrap();
    let again = ServerIndex::create(&fixture.file());
    assert!(matches!(problem(again), Problem::Exists));
    assert_eq!(fs::read(fixture.file()).unwrap(), before);
    assert_eq!(fs::read_dir(fixture.directory.path()).unwrap().count(), 1);
}

#[test]
fn what_a_killed_creation_left_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.redb");
    fs::write(directory.path().join("server.redb.new"), b"half").unwrap();
    ServerIndex::create(&file).unwrap();
    open(&file).unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn what_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.redb");
    assert!(matches!(problem(open(&file)), Problem::Missing));
    assert!(matches!(problem(Inspection::open(&file)), Problem::Missing));
    assert!(!file.exists());
    for content in [vec![], vec![1], vec![0; 100_000], vec![0xa5; 70_000]] {
        fs::write(&file, &content).unwrap();
        let problem = problem(open(&file));
        assert!(
            matches!(problem, Problem::NotOurs(_)),
            "{} bytes: {problem}",
            content.len()
        );
        assert_eq!(fs::read(&file).unwrap(), content);
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(matches!(problem(open(&file)), Problem::Io(_)));
}

#[test]
fn a_link_is_not_followed() {
    let fixture = Fixture::new();
    let link = fixture.directory.path().join("link.redb");
    std::os::unix::fs::symlink(fixture.file(), &link).unwrap();
    assert!(matches!(problem(open(&link)), Problem::Io(_)));
}

#[test]
fn a_second_writer_is_refused_and_a_reader_is_not() {
    let fixture = Fixture::new();
    let index = fixture.open();
    assert!(matches!(problem(open(&fixture.file())), Problem::Locked));
    let reader = Inspection::open(&fixture.file()).unwrap();
    index
        .commit(&[ServerChange::put(path("/a"), row(FileId(1), b"a", 0))])
        .unwrap();
    let mut rows = 0;
    reader
        .rows(|_| {
            rows += 1;
            true
        })
        .unwrap();
    assert_eq!(rows, 3, "a file, a boot and who pays");
}

#[test]
fn the_other_kind_is_refused() {
    let fixture = Fixture::new();
    assert!(matches!(
        problem(ClientIndex::open(&fixture.file())),
        Problem::WrongKind {
            found: Kind::Server,
            expected: Kind::Client
        }
    ));
}

#[test]
fn another_store_s_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.redb");
    let table = redb::TableDefinition::<&str, &str>::new("meta");
    let database = redb::Database::create(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(problem(open(&file)), Problem::NotOurs(_)));
}

fn write_version(file: &Path, version: u32) {
    let engine = Engine::open(file, Kind::Server).unwrap();
    let row = Schema {
        kind: Kind::Server,
        version,
    };
    engine
        .write(|transaction| {
            SCHEMA
                .write(transaction)?
                .put(&"schema".to_owned(), &row)
                .map(|_| ())
        })
        .unwrap();
}

#[test]
fn a_newer_version_is_refused_untouched() {
    let fixture = Fixture::new();
    write_version(&fixture.file(), newest(Kind::Server) + 1);
    let before = fs::read(fixture.file()).unwrap();
    for problem in [
        problem(open(&fixture.file())),
        problem(Inspection::open(&fixture.file())),
    ] {
        assert!(
            matches!(problem, Problem::Newer { found, known } if found == known + 1),
            "{problem}"
        );
    }
    assert_eq!(fs::read(fixture.file()).unwrap(), before);
}

#[test]
fn a_newer_version_that_was_killed_is_refused_untouched() {
    let fixture = Fixture::new();
    write_version(&fixture.file(), newest(Kind::Server) + 1);
    // What a kill leaves: the file as it is while it is open.
    let copy = fixture.directory.path().join("killed.redb");
    let database = crate::index::engine::builder()
        .open(fixture.file())
        .unwrap();
    fs::copy(fixture.file(), &copy).unwrap();
    drop(database);
    let before = fs::read(&copy).unwrap();
    assert!(matches!(problem(open(&copy)), Problem::Newer { .. }));
    assert_eq!(fs::read(&copy).unwrap(), before);
}

#[test]
fn after_a_write_in_doubt_everything_is_refused_until_reopened() {
    let fixture = Fixture::new();
    let engine = Engine::open(&fixture.file(), Kind::Server).unwrap();
    let read = || engine.read(crate::index::schema::read);
    assert!(read().is_ok());
    let error = engine
        .write::<()>(|_| panic!("as the store might"))
        .unwrap_err();
    assert!(matches!(&error.problem, Problem::Panicked(text) if text == "as the store might"));
    assert!(error.needs_reopen());
    let refused = read().unwrap_err();
    assert!(matches!(refused.problem, Problem::NeedsReopen));
    assert!(refused.needs_reopen());
    engine.reopen().unwrap();
    assert!(read().is_ok());
}

#[test]
fn damage_that_a_read_comes_upon_spares_the_rest() {
    let fixture = Fixture::new();
    let engine = Engine::open(&fixture.file(), Kind::Server).unwrap();
    let error = engine
        .read::<()>(|_| panic!("as on a damaged page"))
        .unwrap_err();
    assert!(!error.needs_reopen(), "{error}");
    assert!(engine.read(crate::index::schema::read).is_ok());
    engine.write(|_| Ok(())).unwrap();
}

#[test]
fn a_reopened_index_goes_on_where_it_was() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let change = || ServerChange::put(path("/a"), row(FileId(1), b"a", 0));
    let number = index.commit(&[change()]).unwrap();
    index.reopen().unwrap();
    assert_eq!(index.number(), number);
    assert_eq!(index.commit(&[change()]).unwrap().0, number.0 + 1);
}
