//! The paths that are being worked on: who may touch a file now, what is known of it, and what a
//! HEAD may say meanwhile.
//!
//! At most one [`Claim`] exists for a path. Its holder owns the open file, the hasher and all that
//! was derived from row and file; dropping it, in whatever way, gives them back. Paths that nobody
//! works on are forgotten, least recently used first, beyond a bound.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::commit::Epoch;
use super::decide::Standing;
use super::recover::Trouble;
use crate::index::server::{ServerFile, ServerState};
use crate::limits::HASHING_WAIT;
use crate::prefix::PrefixHasher;
use crate::sys::file::{File, FileStat};
use crate::types::{Offset, Prefix, WirePath};
use crate::wire::Tail;

/// What a claim is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// A PUT receives a body; others are refused meanwhile.
    Receiving,
    /// Looking at the file, hashing perhaps; others wait for a while.
    Looking,
}

/// What was derived from a path's row and file.
#[derive(Debug)]
pub(crate) struct FileState {
    /// The epoch of the index in which the row was read.
    pub(crate) epoch: Epoch,
    /// The committed row.
    pub(crate) row: Option<ServerFile>,
    /// The file, open for reading and writing, if the path names one.
    pub(crate) file: Option<File>,
    /// What the path was when this process last looked at it or wrote to it.
    pub(crate) seen: Option<FileStat>,
    /// The hasher at L.
    pub(crate) vouched: PrefixHasher,
    /// Hashers at places of the tail, the one at S among them if the tail was hashed.
    pub(crate) ahead: Vec<PrefixHasher>,
    /// Hashes of shorter prefixes that somebody asked for.
    pub(crate) asked: Vec<Prefix>,
    /// The file does not hold what the row vouches for; it is left alone until it changes.
    pub(crate) faulty: bool,
}

/// Hashes and hashers that are kept of one path beyond those at L and S.
const REMEMBERED: usize = 4;

impl FileState {
    /// A path without row and file.
    pub(crate) fn absent(epoch: Epoch) -> Self {
        Self {
            epoch,
            row: None,
            file: None,
            seen: None,
            vouched: PrefixHasher::new(),
            ahead: Vec::new(),
            asked: Vec::new(),
            faulty: false,
        }
    }

    /// L.
    pub(crate) fn length(&self) -> Offset {
        self.vouched.length()
    }

    /// S, at least L.
    pub(crate) fn size(&self) -> Offset {
        self.seen
            .map_or(Offset::ZERO, |stat| stat.size)
            .max(self.length())
    }

    /// Whether the path still is what it was.
    pub(crate) fn is_as_seen(&self, now: Option<&FileStat>) -> bool {
        match (&self.seen, now) {
            (None, None) => true,
            (Some(then), Some(now)) => {
                let print = |stat: &FileStat| (stat.inode, stat.size, stat.mtime, stat.ctime);
                print(then) == print(now) && now.links > 0
            }
            _ => false,
        }
    }

    /// The plain values that decisions are made from.
    pub(crate) fn standing(&self) -> Standing {
        let row = self.row.as_ref();
        Standing {
            vouched: self.vouched.prefix(),
            size: self.size(),
            state: row.map_or(ServerState::Vouched, |row| row.state),
            has_row: row.is_some(),
            has_file: self.seen.is_some(),
            conditional: row.is_some_and(|row| row.conditional),
        }
    }

    /// The hashes that are known without reading.
    pub(crate) fn known(&self) -> Vec<Prefix> {
        let ahead = self.ahead.iter().map(PrefixHasher::prefix);
        self.asked.iter().copied().chain(ahead).collect()
    }

    /// Keeps a hasher somewhere in the tail.
    pub(crate) fn keep_ahead(&mut self, hasher: PrefixHasher) {
        let size = self.size();
        if hasher.length() <= self.length() || hasher.length() > size {
            return;
        }
        self.ahead.retain(|kept| kept.length() != hasher.length());
        if self.ahead.len() >= REMEMBERED {
            let other = self.ahead.iter().position(|kept| kept.length() != size);
            self.ahead.remove(other.unwrap_or(0));
        }
        self.ahead.push(hasher);
    }

    /// Keeps a hash below L.
    pub(crate) fn keep_asked(&mut self, prefix: Prefix) {
        if self.asked.len() >= REMEMBERED {
            self.asked.remove(0);
        }
        self.asked.push(prefix);
    }

    /// What a HEAD says.
    pub(crate) fn shown(&self) -> Shown {
        let size = self.size();
        let at_end = self.ahead.iter().find(|hasher| hasher.length() == size);
        Shown {
            epoch: self.epoch,
            standing: self.standing(),
            tail: (size > self.length()).then(|| Tail {
                size,
                hash: at_end.map(PrefixHasher::hash),
            }),
        }
    }
}

/// What an answer says of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shown {
    /// When it was derived.
    pub(crate) epoch: Epoch,
    /// How the path stands.
    pub(crate) standing: Standing,
    /// What lies behind the vouched length.
    pub(crate) tail: Option<Tail>,
}

/// A path and whoever works on it.
#[derive(Debug)]
struct Entry {
    path: WirePath,
    slot: Mutex<Slot>,
    released: Notify,
    used: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    work: Option<Work>,
    state: Option<Box<FileState>>,
    shown: Option<Shown>,
}

impl Entry {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to work on a path.
#[derive(Debug)]
pub(crate) struct Claim {
    entry: Arc<Entry>,
    /// What is known; `None` has to be derived from row and file. Whoever cannot tell any more
    /// what the file holds leaves `None`.
    pub(crate) state: Option<Box<FileState>>,
}

impl Claim {
    /// Whose path.
    pub(crate) fn path(&self) -> &WirePath {
        &self.entry.path
    }

    /// What is known, which a [`look`](super::recover::look) has found.
    pub(crate) fn known(&mut self) -> Result<&mut FileState, Trouble> {
        self.state
            .as_deref_mut()
            .ok_or(Trouble::Busy("the file is not known"))
    }

    /// Lets HEADs see what is known now, while the work goes on.
    pub(crate) fn show(&self) {
        self.entry.slot().shown = self.shown();
    }

    /// What is known now.
    pub(crate) fn shown(&self) -> Option<Shown> {
        let state = self.state.as_ref()?;
        (!state.faulty).then(|| state.shown())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Whatever was half done is derived again.
            self.state = None;
        }
        let shown = self.shown();
        let mut slot = self.entry.slot();
        *slot = Slot {
            work: None,
            state: self.state.take(),
            shown,
        };
        drop(slot);
        self.entry.released.notify_waiters();
    }
}

/// Why a path cannot be worked on now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Occupied {
    /// A PUT receives its body; what a HEAD may say, if that is known.
    Receiving(Option<Shown>),
    /// It was being hashed for longer than one waits.
    Hashing,
}

/// All paths that are being worked on, or lately were.
#[derive(Debug)]
pub(crate) struct Files {
    entries: Mutex<HashMap<WirePath, Arc<Entry>>>,
    capacity: usize,
    tick: AtomicU64,
}

impl Files {
    /// Remembers up to `capacity` paths that nobody works on, each with an open file.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: Mutex::default(),
            capacity,
            tick: AtomicU64::new(0),
        }
    }

    /// Claims a path; waits while somebody only looks at it, up to [`HASHING_WAIT`].
    pub(crate) async fn claim(&self, path: &WirePath, work: Work) -> Result<Claim, Occupied> {
        let entry = self.entry(path);
        let deadline = tokio::time::Instant::now() + HASHING_WAIT;
        loop {
            let released = entry.released.notified();
            match try_claim(&entry, work) {
                Err(Occupied::Hashing) => {}
                other => return other,
            }
            if tokio::time::timeout_at(deadline, released).await.is_err() {
                return try_claim(&entry, work);
            }
        }
    }

    /// Number of paths that are remembered.
    pub(crate) fn len(&self) -> usize {
        self.entries().len()
    }

    /// Forgets, and so closes, all files that nobody works on: descriptors have run out.
    pub(crate) fn forget_idle(&self) {
        self.entries().retain(|_, entry| !is_idle(entry));
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<WirePath, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, path: &WirePath) -> Arc<Entry> {
        let now = self.tick.fetch_add(1, Ordering::Relaxed);
        let mut entries = self.entries();
        if let Some(entry) = entries.get(path) {
            entry.used.store(now, Ordering::Relaxed);
            return Arc::clone(entry);
        }
        if entries.len() >= self.capacity {
            evict(&mut entries);
        }
        let entry = Arc::new(Entry {
            path: path.clone(),
            slot: Mutex::default(),
            released: Notify::new(),
            used: AtomicU64::new(now),
        });
        entries.insert(path.clone(), Arc::clone(&entry));
        entry
    }
}

/// Nobody claims it or is about to: the map alone holds it, and only the map hands it out.
fn is_idle(entry: &Arc<Entry>) -> bool {
    Arc::strong_count(entry) == 1
}

fn evict(entries: &mut HashMap<WirePath, Arc<Entry>>) {
    let oldest = entries
        .values()
        .filter(|entry| is_idle(entry))
        .min_by_key(|entry| entry.used.load(Ordering::Relaxed))
        .map(|entry| entry.path.clone());
    if let Some(path) = oldest {
        entries.remove(&path);
    }
}

fn try_claim(entry: &Arc<Entry>, work: Work) -> Result<Claim, Occupied> {
    let mut slot = entry.slot();
    match slot.work {
        Some(Work::Receiving) => Err(Occupied::Receiving(slot.shown)),
        Some(Work::Looking) => Err(Occupied::Hashing),
        None => {
            slot.work = Some(work);
            Ok(Claim {
                entry: Arc::clone(entry),
                state: slot.state.take(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> WirePath {
        WirePath::decode(text).unwrap()
    }

    #[tokio::test]
    async fn a_path_has_one_claim() {
        let files = Files::new(4);
        let claim = files.claim(&path("/a"), Work::Receiving).await.unwrap();
        let refused = files.claim(&path("/a"), Work::Looking).await.unwrap_err();
        assert_eq!(refused, Occupied::Receiving(None));
        files.claim(&path("/b"), Work::Receiving).await.unwrap();
        drop(claim);
        files.claim(&path("/a"), Work::Receiving).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_waited_for_and_not_for_ever() {
        let files = Arc::new(Files::new(4));
        let claim = files.claim(&path("/a"), Work::Looking).await.unwrap();
        let waiting = {
            let files = Arc::clone(&files);
            tokio::spawn(async move { files.claim(&path("/a"), Work::Receiving).await })
        };
        tokio::task::yield_now().await;
        drop(claim);
        let claim = waiting.await.unwrap().unwrap();
        drop(claim);

        let _looking = files.claim(&path("/a"), Work::Looking).await.unwrap();
        let refused = files.claim(&path("/a"), Work::Receiving).await.unwrap_err();
        assert_eq!(refused, Occupied::Hashing);
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_recently_used_idle_path_is_forgotten() {
        let files = Files::new(2);
        let remember = async |text: &str| {
            let mut claim = files.claim(&path(text), Work::Looking).await.unwrap();
            let known = claim.state.is_some();
            claim.state = Some(Box::new(FileState::absent(Epoch::default())));
            (claim, known)
        };
        let (busy, _) = remember("/busy").await;
        drop(remember("/a").await);
        drop(remember("/b").await);
        assert_eq!(files.len(), 2, "/a went for /b, /busy stayed");
        assert!(remember("/b").await.1);
        assert!(!remember("/a").await.1);
        assert!(matches!(
            files.claim(&path("/busy"), Work::Looking).await,
            Err(Occupied::Hashing)
        ));
        drop(busy);
        files.forget_idle();
        assert_eq!(files.len(), 0);
    }

    #[test]
    fn hashers_of_the_tail_are_kept_within_bounds() {
        let mut state = FileState::absent(Epoch::default());
        let hasher_at = |length: usize| {
            let mut hasher = PrefixHasher::new();
            hasher.update(&vec![7; length]);
            hasher
        };
        state.keep_ahead(hasher_at(3));
        assert!(state.ahead.is_empty(), "behind S nothing is known");
        state.keep_ahead(hasher_at(0));
        assert!(state.ahead.is_empty(), "nor at L anything new");
    }
}
