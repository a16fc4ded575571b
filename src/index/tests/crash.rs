//! Power cuts at every sync: whatever subset of the unsynced writes reached the disk, the index
//! holds each commit that had returned, and nothing of one by halves.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use redb::{BackendError, StorageBackend};

use crate::index::Kind;
use crate::index::engine::{Engine, builder};
use crate::index::server::tests::{Fixture, at, event, path, row};
use crate::index::server::{ServerChange, ServerIndex};
use crate::types::{BootId, FileId};

/// A disk with a volatile cache: writes are lost or kept, each for itself, unless synced.
#[derive(Debug, Default)]
pub(super) struct Disk {
    cached: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Write>,
    /// Syncs fail, as on a dying disk.
    failing: bool,
    /// What a power cut may leave, and how many commits had returned by then.
    pub(super) cuts: Vec<(Vec<u8>, u64)>,
    random: u64,
}

#[derive(Debug)]
enum Write {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

impl Write {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(length) => to.resize(*length, 0),
            Self::Bytes(offset, bytes) => {
                let end = offset + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(bytes);
            }
        }
    }
}

impl Disk {
    fn write(&mut self, write: Write) {
        write.apply(&mut self.cached);
        self.unsynced.push(write);
    }

    /// xorshift; the same cuts in every run.
    fn coin(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random & 64 != 0
    }

    /// The power goes just before this sync ends: nothing, everything, or some of it is there.
    fn cut(&mut self, returned: u64) {
        let writes = std::mem::take(&mut self.unsynced);
        for keep in [Some(false), Some(true), None, None] {
            let mut left = self.durable.clone();
            for write in &writes {
                if keep.unwrap_or_else(|| self.coin()) {
                    write.apply(&mut left);
                }
            }
            self.cuts.push((left, returned));
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Cuttable {
    pub(super) disk: Arc<Mutex<Disk>>,
    returned: Arc<AtomicU64>,
}

impl Cuttable {
    /// A disk that holds these bytes, durably.
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        let backend = Self::default();
        {
            let mut disk = backend.disk.lock().unwrap();
            disk.random = 0x9e37_79b9_7f4a_7c15;
            disk.cached.clone_from(&bytes);
            disk.durable = bytes;
        }
        backend
    }
}

impl StorageBackend for Cuttable {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().unwrap().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let disk = self.disk.lock().unwrap();
        out.copy_from_slice(&disk.cached[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap();
        self.disk.lock().unwrap().write(Write::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        if disk.failing {
            return Err(io::Error::other("a dying disk"));
        }
        disk.cut(self.returned.load(Ordering::SeqCst));
        disk.durable = disk.cached.clone();
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let write = Write::Bytes(offset, bytes.to_vec());
        self.disk.lock().unwrap().write(write);
        Ok(())
    }

    // Nobody else has this disk.

    fn try_lock_range(&self, _: Edge, _: Edge) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: Edge, _: Edge) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _: Edge, _: Edge) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _: Edge, _: Edge) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _: Edge, _: Edge) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _: Edge, _: Edge) -> Result<bool, BackendError> {
        Ok(false)
    }
}

type Edge = Bound<u64>;

/// The n-th commit: a longer file, a new one, an event.
fn commit(index: &ServerIndex, n: u64) {
    let length = usize::try_from(n).unwrap();
    let second = i64::try_from(n * 60).unwrap();
    index
        .commit(&[
            ServerChange::put(path("/a"), row(FileId(1), &vec![b'x'; length], second)),
            ServerChange::put(path(&format!("/{n}")), row(index.allocate(), b"y", second)),
            event(second, &n.to_string()),
        ])
        .unwrap();
}

/// Number of the last commit that is there; panics when one is there by halves.
fn found(file: &std::path::Path) -> u64 {
    let index = ServerIndex::open(file, at(0)).unwrap();
    index.check_rows().unwrap();
    let newest = index.file(&path("/a")).unwrap();
    let n = newest.map_or(0, |file| file.vouched.length.bytes());
    assert_eq!(
        index.files(None, 1000).unwrap().len() as u64,
        n + u64::from(n > 0)
    );
    assert_eq!(index.events(0, 1000).unwrap().len() as u64, n);
    assert_eq!(index.history(&path("/a")).unwrap().len() as u64, n);
    // The boot of the writer and that of this look come on top.
    assert_eq!(index.number().0, n + 2);
    n
}

/// A new index on a disk of ours.
fn index() -> (Cuttable, ServerIndex) {
    let fixture = Fixture::new();
    let backend = Cuttable::holding(std::fs::read(fixture.file()).unwrap());
    let database = builder().create_with_backend(backend.clone()).unwrap();
    let engine = Engine::over(database, Kind::Server);
    let index = ServerIndex::start(engine, BootId([1; 16]), at(0)).unwrap();
    (backend, index)
}

#[test]
fn a_commit_that_a_disk_refuses_is_an_error_and_so_is_all_after_it() {
    let (backend, index) = index();
    commit(&index, 1);
    backend.disk.lock().unwrap().failing = true;
    let change = ServerChange::put(path("/b"), row(FileId(9), b"", 0));
    let error = index.commit(std::slice::from_ref(&change)).unwrap_err();
    assert!(error.needs_reopen(), "{error}");
    assert!(error.to_string().contains("a dying disk"), "{error}");
    backend.disk.lock().unwrap().failing = false;
    assert!(index.file(&path("/a")).unwrap_err().needs_reopen());
    assert!(index.commit(&[change]).unwrap_err().needs_reopen());
}

#[test]
fn a_power_cut_at_any_sync_leaves_every_commit_whole_or_absent() {
    let fixture = Fixture::new();
    let (backend, index) = index();
    let opening = backend.disk.lock().unwrap().cuts.len();
    for n in 1..=8 {
        commit(&index, n);
        backend.returned.store(n, Ordering::SeqCst);
    }
    let cuts = std::mem::take(&mut backend.disk.lock().unwrap().cuts);
    assert!(cuts.len() - opening >= 8 * 4, "commits did not sync");
    for (n, (left, returned)) in cuts.into_iter().enumerate().skip(opening) {
        std::fs::write(fixture.file(), left).unwrap();
        let found = found(&fixture.file());
        assert!(
            found == returned || found == returned + 1,
            "cut {n}: {found} commits, {returned} had returned"
        );
    }
}
