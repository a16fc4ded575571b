//! What all requests of one server share.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use regex::bytes::Regex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::access::Access;
use super::commit::Committer;
use super::decide::Policy;
use super::denials::Denials;
use super::files::Files;
use super::peers::{self, Peers};
use super::quota::{Held, Quotas};
use super::scrub::Scrub;
use crate::config::Delivered;
use crate::index::server::ServerIndex;
use crate::limits::{
    BODY_BUDGET, BODY_SEATS, LONG_HASHES, QUARANTINE_COPIES, QUARANTINE_KEEP, QUARANTINE_SIZE,
    ROOM_CHECK, TOLD_PATHS,
};
use crate::sys::dir::Dir;
use crate::sys::file::Ownership;
use crate::types::{Offset, WirePath};
use crate::wire::Stamp;

/// What the operator decided.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What the path of a request must match, encoded as it came; `None` lets all pass.
    pub validate: Option<Regex>,
    /// Free bytes of the disk below which no append is taken.
    pub min_free: u64,
    /// How fast and how often files are read again; `None`: never.
    pub scrub: Option<Scrub>,
    /// How much is kept in quarantine, and how long.
    pub quarantine: Quarantine,
    /// Whether unconditional appends may follow conditional ones.
    pub allow_unconditional: bool,
    /// Who may do what.
    pub access: Access,
    /// Requests about files at once.
    pub requests: usize,
    /// Longest file.
    pub file_size: Offset,
    /// What each client may fill.
    pub quotas: Quotas,
    /// How delivered files are made.
    pub making: Making,
    /// How long a file has to be quiet before it becomes append-only; `None`: never.
    pub append_only: Option<Duration>,
}

/// How delivered files, and the directories on the way to them, are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Making {
    /// Mode of files, less the umask.
    pub mode: u32,
    /// Mode of directories, less the umask.
    pub directory_mode: u32,
    /// To whom both are given.
    pub ownership: Ownership,
}

impl Default for Making {
    fn default() -> Self {
        let Delivered {
            mode,
            directory_mode,
            ..
        } = Delivered::default();
        Self {
            mode,
            directory_mode,
            ownership: Ownership::default(),
        }
    }
}

/// The bounds of the quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quarantine {
    /// Bytes.
    pub size: u64,
    /// How long a copy stays.
    pub keep: Duration,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self {
            size: QUARANTINE_SIZE,
            keep: QUARANTINE_KEEP,
        }
    }
}

/// What all requests of one server share.
pub(crate) struct Core {
    pub(crate) rules: Rules,
    pub(crate) dir: Arc<Dir>,
    pub(crate) index: Arc<ServerIndex>,
    pub(crate) commits: Committer,
    pub(crate) files: Files,
    pub(crate) told: Told,
    /// What clients are just filling of their quotas.
    pub(crate) held: Held,
    pub(super) denials: Denials,
    /// Whether it is on record that this index is older than what a client has seen.
    pub(crate) is_known_restored: AtomicBool,
    pub(crate) room: Room,
    /// Bytes received and not yet written.
    pub(crate) budget: Arc<Semaphore>,
    /// Requests about files that may be worked on.
    pub(crate) requests: Semaphore,
    /// And those of each peer.
    pub(super) requesters: Arc<Peers>,
    /// Threads that may wait for the next bytes of a body.
    pub(crate) seats: Semaphore,
    /// Threads that may read long stretches of files to hash them.
    pub(crate) hashing: Semaphore,
    /// Held by the operator's command that is under way.
    pub(crate) operator: tokio::sync::Mutex<()>,
    /// Who makes copies in quarantine, and who removes some.
    pub(crate) quarantine: Gate,
    pub(crate) tasks: Tasks,
    pub(crate) traffic: Traffic,
    /// Set when the server ends: long hashing gives up.
    pub(crate) stopping: AtomicBool,
}

impl Core {
    pub(crate) fn new(
        rules: Rules,
        dir: Arc<Dir>,
        index: Arc<ServerIndex>,
        commits: Committer,
        open_files: usize,
    ) -> Self {
        Self {
            requests: Semaphore::new(rules.requests.min(Semaphore::MAX_PERMITS)),
            requesters: Peers::new(peers::share(rules.requests)),
            rules,
            operator: tokio::sync::Mutex::default(),
            quarantine: Gate::default(),
            dir,
            index,
            commits,
            files: Files::new(open_files),
            told: Told::default(),
            held: Held::default(),
            denials: Denials::default(),
            is_known_restored: AtomicBool::new(false),
            room: Room::default(),
            budget: Arc::new(Semaphore::new(BODY_BUDGET)),
            seats: Semaphore::new(BODY_SEATS),
            hashing: Semaphore::new(LONG_HASHES),
            tasks: Tasks::new(),
            traffic: Traffic::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// `Shaftlog-Store` as of now.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            store: self.index.store(),
            boot: self.index.boot(),
            number: self.index.number(),
        }
    }

    /// What disk and operator allow now.
    pub(crate) fn policy(&self) -> io::Result<Policy> {
        Ok(Policy {
            allow_unconditional: self.rules.allow_unconditional,
            disk_low: self.dir.free_bytes()? < self.rules.min_free,
        })
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// Bytes that all bodies together have written since somebody saw that the disk has room.
#[derive(Debug, Default)]
pub(crate) struct Room(AtomicU64);

impl Room {
    /// Counts bytes that were written, and looks whether there is room for more when [`ROOM_CHECK`]
    /// has come together. When there is none, whoever writes next looks again.
    pub(crate) fn is_left_after<E>(
        &self,
        bytes: usize,
        is_low: impl FnOnce() -> Result<bool, E>,
    ) -> Result<bool, E> {
        let bytes = bytes as u64;
        if bytes + self.0.fetch_add(bytes, Ordering::Relaxed) < ROOM_CHECK {
            return Ok(true);
        }
        // What others write during the look counts for the next.
        self.0.store(0, Ordering::Relaxed);
        let is_low = is_low();
        if !matches!(is_low, Ok(false)) {
            self.0.fetch_add(ROOM_CHECK, Ordering::Relaxed);
        }
        is_low.map(|is_low| !is_low)
    }
}

/// The way into the quarantine and out of it.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// A lock on nothing that memory holds: a panic under it leaves nothing half done.
    lock: RwLock<()>,
    /// Bytes and copies that came since the quarantine was last thinned.
    bytes: AtomicU64,
    copies: AtomicUsize,
    full: Notify,
}

impl Gate {
    /// For whoever makes a copy, until its row is committed: beside others.
    pub(crate) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.lock.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of so many bytes is there. Whoever thins is called when as much has come as may stay.
    pub(crate) fn entered(&self, bytes: u64, bounds: Quarantine) {
        let bytes = bytes + self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let copies = 1 + self.copies.fetch_add(1, Ordering::Relaxed);
        if bytes > bounds.size || copies > QUARANTINE_COPIES {
            self.full.notify_one();
        }
    }

    /// For whoever removes copies: alone.
    pub(crate) fn thin(&self) -> RwLockWriteGuard<'_, ()> {
        let alone = self.lock.write().unwrap_or_else(PoisonError::into_inner);
        self.bytes.store(0, Ordering::Relaxed);
        self.copies.store(0, Ordering::Relaxed);
        alone
    }

    /// Returns when there is something to be removed, most likely.
    pub(crate) async fn filled(&self) {
        self.full.notified().await;
    }
}

/// What people were told of paths that cannot be served: once, not at each request.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<HashMap<WirePath, String>>);

impl Told {
    /// Whether `what` was not yet told of `path`; now it is.
    pub(crate) fn is_news(&self, path: &WirePath, what: &str) -> bool {
        let mut told = self.lock();
        if told.get(path).is_some_and(|before| before == what) {
            return false;
        }
        if told.len() >= TOLD_PATHS {
            told.clear();
        }
        told.insert(path.clone(), what.to_owned());
        true
    }

    /// The path is well: whatever comes next is news.
    pub(crate) fn forget(&self, path: &WirePath) {
        self.lock().remove(path);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WirePath, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tasks that outlive the requests that began them.
#[derive(Debug)]
pub(crate) struct Tasks {
    set: Mutex<JoinSet<()>>,
    runtime: Handle,
}

impl Tasks {
    /// To be called in the runtime that runs them.
    fn new() -> Self {
        Self {
            set: Mutex::default(),
            runtime: Handle::current(),
        }
    }

    /// Runs `task` to its end, which [`finish`](Self::finish) waits for.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.set().spawn_on(task, &self.runtime);
    }

    /// The same for one that blocks.
    pub(crate) fn spawn_blocking(&self, task: impl FnOnce() + Send + 'static) {
        self.set().spawn_blocking_on(task, &self.runtime);
    }

    /// Without those that have ended.
    fn set(&self) -> MutexGuard<'_, JoinSet<()>> {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        while set.try_join_next().is_some() {}
        set
    }

    /// Waits until all have ended.
    pub(crate) async fn finish(&self) {
        loop {
            let mut set = std::mem::take(&mut *self.set());
            if set.is_empty() {
                return;
            }
            while set.join_next().await.is_some() {}
        }
    }
}

/// What the status line counts.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Open connections.
    pub(crate) connections: AtomicU64,
    /// Requests that were answered.
    pub(crate) requests: AtomicU64,
    /// Requests that were refused.
    pub(crate) refusals: AtomicU64,
    /// Acknowledged appends.
    pub(crate) appends: AtomicU64,
    /// Bytes that became vouched for.
    pub(crate) bytes: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_looked_at_by_all_bodies_together() {
        let room = Room::default();
        let unseen = || panic!("nobody needs to look");
        let half = usize::try_from(ROOM_CHECK / 2).unwrap();
        let write = |is_low: bool| {
            room.is_left_after(half, || Ok::<_, io::Error>(is_low))
                .unwrap()
        };
        assert!(room.is_left_after::<io::Error>(half, unseen).unwrap());
        assert!(write(false), "another body's half");
        assert!(room.is_left_after::<io::Error>(half, unseen).unwrap());
        for _ in 0..3 {
            assert!(!write(true), "each looks while there is none");
        }
        let failed = room.is_left_after(1, || Err(io::Error::other("no answer")));
        assert!(failed.is_err());
        assert!(!write(true), "nobody has seen any room");
        assert!(write(false));
        assert!(room.is_left_after::<io::Error>(half, unseen).unwrap());
    }

    #[tokio::test]
    async fn tasks_that_others_begin_are_waited_for_too() {
        let tasks = Arc::new(Tasks::new());
        let ended = Arc::new(AtomicU64::new(0));
        let (outer, count) = (Arc::clone(&tasks), Arc::clone(&ended));
        tasks.spawn(async move {
            let inner = Arc::clone(&count);
            outer.spawn(async move {
                tokio::task::yield_now().await;
                inner.fetch_add(1, Ordering::Relaxed);
            });
            count.fetch_add(1, Ordering::Relaxed);
        });
        tasks.finish().await;
        assert_eq!(ended.load(Ordering::Relaxed), 2);
    }
}
