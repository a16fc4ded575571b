//! The server's index from outside.

use jiff::Timestamp;

use super::*;
use crate::prefix::PrefixHasher;
use crate::types::Inode;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn path(text: &str) -> WirePath {
    WirePath::decode(text).unwrap()
}

pub(crate) fn row(id: FileId, content: &[u8], second: i64) -> ServerFile {
    let mut hasher = PrefixHasher::new();
    hasher.update(content);
    ServerFile {
        id,
        vouched: hasher.prefix(),
        hasher: hasher.state(),
        high_water: None,
        footprint: Footprint {
            inode: Inode {
                number: 7,
                born: Some(1),
            },
            mtime_ns: 2,
            ctime_ns: 3,
        },
        writer: "alpha".to_owned(),
        state: ServerState::Vouched,
        conditional: true,
        updated: at(second),
    }
}

pub(crate) struct Fixture {
    pub(crate) directory: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let fixture = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        ServerIndex::create(&fixture.file()).unwrap();
        fixture
    }

    pub(crate) fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("server.redb")
    }

    pub(crate) fn open(&self) -> ServerIndex {
        ServerIndex::open(&self.file(), at(0)).unwrap()
    }
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let file = row(index.allocate(), b"one\n", 10);
    let number = index
        .commit(&[ServerChange::put(path("/a"), file.clone())])
        .unwrap();
    assert_eq!(index.number(), number);
    assert_eq!(index.file(&path("/a")).unwrap().as_ref(), Some(&file));
    let (store, boot) = (index.store(), index.boot());
    drop(index);

    let index = fixture.open();
    assert!(!index.unclean());
    assert_eq!(index.store(), store);
    assert_ne!(index.boot(), boot);
    assert_eq!(index.number(), CommitNumber(number.0 + 1));
    assert_eq!(index.file(&path("/a")).unwrap(), Some(file));
    assert_eq!(index.file(&path("/b")).unwrap(), None);
    assert_eq!(index.allocate(), FileId(2));
}
