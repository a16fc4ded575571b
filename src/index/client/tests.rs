//! The catalogue from outside.

use jiff::Timestamp;
use proptest::prelude::*;
use redb::TableDefinition;

use super::*;
use crate::index::EventKind;
use crate::index::engine::builder;
use crate::prefix::PrefixHasher;

pub(crate) fn name(text: &str) -> StableName {
    StableName::parse(text.as_bytes()).unwrap()
}

pub(crate) fn new_file(inode: u64, stable: &str) -> NewFile {
    NewFile {
        inode: Inode {
            number: inode,
            born: Some(-5),
        },
        generation: 1,
        name: name(stable),
        source: b"/var/log/\xff".to_vec(),
        pattern: "logs".to_owned(),
        discovered: Timestamp::from_second(1_700_000_000).unwrap(),
        length: Offset::new(12).unwrap(),
        times: Times {
            mtime: 1,
            ctime: -1,
        },
    }
}

pub(crate) fn progress(content: &[u8]) -> Progress {
    let mut hasher = PrefixHasher::new();
    hasher.update(content);
    Progress {
        confirmed: hasher.prefix(),
        hasher: hasher.state(),
        seam: Seam {
            head: [1; 32],
            tail: [2; 32],
        },
        confirmed_at: Timestamp::from_second(1_700_000_001).unwrap(),
        state: ProgressState::Pending,
        verified: true,
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
        ClientIndex::create(&fixture.file()).unwrap();
        fixture
    }

    pub(crate) fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("client.redb")
    }

    pub(crate) fn open(&self) -> ClientIndex {
        ClientIndex::open(&self.file()).unwrap()
    }
}

#[test]
fn what_was_recorded_is_there_after_a_restart() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let ids = index
        .adopt(&[new_file(1, "host/a"), new_file(2, "host/b")])
        .unwrap();
    let (there, mut known) = index.destination("http://x/").unwrap();
    let here = progress(b"twelve bytes");
    index.record([(there, ids[1], here.clone())]).unwrap();
    known.verified = true;
    known.store = Some(crate::types::StoreId([3; 16]));
    known.state = DestinationState::Stopped {
        reason: "two servers".to_owned(),
    };
    index
        .commit(&[ClientChange::Destination(there, known.clone())])
        .unwrap();
    drop(index);

    let index = fixture.open();
    let file = index.file(ids[0]).unwrap().unwrap();
    assert_eq!(file, new_file(1, "host/a").into_row(ClientState::Active));
    assert_eq!(index.by_name(&name("host/b")).unwrap(), Some(ids[1]));
    assert_eq!(
        index.by_inode(&new_file(2, "x").inode).unwrap(),
        Some(ids[1])
    );
    assert_eq!(index.progress(there, ids[0]).unwrap(), None);
    assert_eq!(index.progress(there, ids[1]).unwrap(), Some(here.clone()));
    assert_eq!(
        index.progress_page(there, None, 10).unwrap(),
        [(ids[1], here)]
    );
    assert_eq!(index.destination("http://x/").unwrap(), (there, known));
    assert_eq!(index.allocate(), FileId(3));
    assert_eq!(index.files(Some(ids[0]), 10).unwrap()[0].0, ids[1]);
}

#[test]
fn a_birth_time_is_part_of_an_inode() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let file = new_file(1, "a");
    index.adopt(std::slice::from_ref(&file)).unwrap();
    for born in [None, Some(-4)] {
        let other = Inode {
            number: file.inode.number,
            born,
        };
        assert_eq!(index.by_inode(&other).unwrap(), None);
    }
}

#[test]
fn progress_pages_stay_at_their_destination() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let ids = index.adopt(&[new_file(1, "a"), new_file(2, "b")]).unwrap();
    let (one, _) = index.destination("http://1/").unwrap();
    let (two, row) = index.destination("http://2/").unwrap();
    assert_eq!(row.since, FileId(3));
    let all = [(one, ids[0]), (one, ids[1]), (two, ids[0])];
    index
        .record(all.map(|(there, id)| (there, id, progress(b"x"))))
        .unwrap();
    let page = |there, after| -> Vec<FileId> {
        let page = index.progress_page(there, after, 10).unwrap();
        page.into_iter().map(|(id, _)| id).collect()
    };
    assert_eq!(page(one, None), ids);
    assert_eq!(page(one, Some(ids[0])), [ids[1]]);
    assert_eq!(page(one, Some(ids[1])), []);
    assert_eq!(page(two, None), [ids[0]]);
}

#[test]
fn a_generation_ends_and_the_next_begins_in_one_step() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let old = index.adopt(&[new_file(1, "log")]).unwrap()[0];
    let mut next = new_file(1, "log.1");
    next.generation = 2;
    let new = index.supersede(old, next).unwrap();

    let state = |id| index.file(id).unwrap().unwrap().state;
    assert_eq!(state(old), ClientState::Superseded { by: new });
    assert_eq!(state(new), ClientState::Renaming { from: name("log") });
    assert_eq!(index.by_inode(&new_file(1, "x").inode).unwrap(), Some(new));
    assert_eq!(index.by_name(&name("log")).unwrap(), Some(old));
    index.finish_rename(new).unwrap();
    assert_eq!(state(new), ClientState::Active);
    index.finish_rename(old).unwrap();
    assert_eq!(state(old), ClientState::Superseded { by: new });
}

#[test]
fn a_transaction_that_fails_leaves_nothing() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let id = index.adopt(&[new_file(1, "a")]).unwrap()[0];
    let event = NewEvent {
        at: Timestamp::UNIX_EPOCH,
        kind: EventKind::Discovered,
        subject: b"b".to_vec(),
        detail: String::new(),
    };
    let other = index.allocate();
    let error = index
        .commit(&[
            ClientChange::Event(event.clone()),
            ClientChange::Length(id, Offset::new(99).unwrap()),
            ClientChange::Adopt {
                id: other,
                file: new_file(2, "b"),
            },
            ClientChange::Adopt {
                id: index.allocate(),
                file: new_file(3, "a/b"),
            },
        ])
        .unwrap_err();
    assert!(matches!(error.problem, Problem::NameTaken(_)), "{error}");
    assert!(!error.needs_reopen());
    assert_eq!(index.file(other).unwrap(), None);
    assert_eq!(index.by_name(&name("b")).unwrap(), None);
    assert_eq!(index.file(id).unwrap().unwrap().length.bytes(), 12);
    assert_eq!(index.events(0, 1).unwrap(), []);
    // It is not taken for a repeat of the one that never was.
    index.commit(&[ClientChange::Event(event)]).unwrap();
    assert_eq!(index.events(0, 9).unwrap().len(), 1);

    let stranger = FileId(1000);
    let error = index.finish_rename(stranger).unwrap_err();
    assert!(matches!(error.problem, Problem::NoSuchFile(id) if id == stranger));
}

#[test]
fn names_get_numbers_until_they_are_free() {
    let fixture = Fixture::new();
    let index = fixture.open();
    index
        .adopt(&[
            new_file(1, "host/log"),
            new_file(2, "host/log.1"),
            new_file(3, "host/dir/file"),
            new_file(4, "host/log-x"),
        ])
        .unwrap();
    let pending: BTreeSet<_> = ["host/log.2", "new/dir/file"].map(name).into();
    for (wanted, given) in [
        ("host/other", "host/other"),
        ("host/log", "host/log.3"),
        ("host/dir", "host/dir.1"),
        ("host", "host.1"),
        ("host/log/inside", "host/log.3/inside"),
        ("host/dir/file/x/y", "host/dir/file.1/x/y"),
        ("new/dir", "new/dir.1"),
        ("new", "new.1"),
        ("new/dir/file/deep", "new/dir/file.1/deep"),
        ("hos", "hos"),
        ("host/lo", "host/lo"),
        ("host/log-x/y", "host/log-x.1/y"),
    ] {
        let found = index.free_name(&name(wanted), &pending).unwrap();
        assert_eq!(found, name(given), "{wanted}");
    }
}

#[test]
fn a_number_fits_into_the_longest_name() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let longest = format!("{}é", "x".repeat(253));
    index.adopt(&[new_file(1, &longest)]).unwrap();
    let found = index.free_name(&name(&longest), &BTreeSet::new()).unwrap();
    assert_eq!(found, name(&format!("{}.1", "x".repeat(253))));

    let deep = format!("{}y", "d/".repeat(100)) + &"/x".repeat(20);
    index.adopt(&[new_file(2, &deep)]).unwrap();
    assert!(index.free_name(&name(&deep), &BTreeSet::new()).is_ok());
    let full = vec!["x".repeat(255); 15].join("/") + "/" + &"y".repeat(253) + "/z";
    assert_eq!(full.len(), crate::limits::PATH_BYTES);
    index.adopt(&[new_file(3, &full)]).unwrap();
    let error = index.free_name(&name(&full), &BTreeSet::new()).unwrap_err();
    assert!(matches!(error.problem, Problem::NoFreeName(_)), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_two_files_share_a_name_or_a_way(
        wishes in prop::collection::vec(prop::collection::vec("[ab]{1,2}", 1..4), 1..24),
        split in 0_usize..24,
    ) {
        let fixture = Fixture::new();
        let index = fixture.open();
        let mut stored = Vec::new();
        let mut pending = BTreeSet::new();
        for (inode, wish) in (0..).zip(&wishes) {
            let free = index.free_name(&name(&wish.join("/")), &pending).unwrap();
            if stored.len() < split {
                let mut file = new_file(inode, "x");
                file.name = free.clone();
                index.adopt(&[file]).unwrap();
                stored.push(free);
            } else {
                pending.insert(free);
            }
        }
        let all: Vec<_> = stored.iter().chain(&pending).collect();
        prop_assert_eq!(all.len(), wishes.len());
        for one in &all {
            for other in &all {
                let inside = [one.as_bytes(), b"/"].concat();
                prop_assert!(!other.as_bytes().starts_with(&inside), "{} {}", one, other);
            }
        }
        let distinct: BTreeSet<_> = all.iter().collect();
        prop_assert_eq!(distinct.len(), all.len());
    }
}

#[test]
fn a_damaged_row_of_progress_is_replaced_by_the_next() {
    let fixture = Fixture::new();
    let index = fixture.open();
    let ids = index
        .adopt(&[new_file(1, "host/a"), new_file(2, "host/b")])
        .unwrap();
    let (there, _) = index.destination("http://x/").unwrap();
    let record = |index: &ClientIndex, content: &[u8]| {
        index.record(ids.iter().map(|id| (there, *id, progress(content))))
    };
    record(&index, b"some").unwrap();
    drop(index);
    let database = builder().open(fixture.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let name = TableDefinition::<&[u8], &[u8]>::new("progress");
        let mut table = transaction.open_table(name).unwrap();
        let (key, mut value) = {
            let (key, value) = table.pop_first().unwrap().unwrap();
            (key.value().to_vec(), value.value().to_vec())
        };
        value[0] ^= 1;
        table.insert(&key[..], &value[..]).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);

    let index = fixture.open();
    index.progress(there, ids[0]).unwrap_err();
    record(&index, b"and more").unwrap();
    for id in &ids {
        let found = index.progress(there, *id).unwrap();
        assert_eq!(found, Some(progress(b"and more")));
    }
}
