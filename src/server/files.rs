//! The paths that are being worked on: who may touch a file now, what is known of it, and what a
//! HEAD may say meanwhile.
//!
//! At most one [`Claim`] exists for a path. Its holder owns the open file, the hasher and all that
//! was derived from row and file; dropping it, in whatever way, gives them back. Paths that nobody
//! works on are forgotten, least recently used first, beyond a bound.
//!
//! What a claim has written and not committed is in [`flight`](super::flight): until it has landed,
//! only the PUT that continues it gets the path.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::commit::Epoch;
use super::data::DataFile;
use super::decide::Standing;
use super::flight::Flight;
use super::recover::Trouble;
use crate::index::server::{Charge, ServerFile, ServerState};
use crate::limits::{HASHING_WAIT, PIPELINE_WAIT};
use crate::prefix::PrefixHasher;
use crate::sys::file::FileStat;
use crate::types::{ByteRange, Offset, Prefix, WirePath};
use crate::wire::Tail;

/// What a claim is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// A PUT receives a body with this range; others are refused meanwhile, but for the one that
    /// continues it, which waits.
    Receiving(ByteRange),
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
    /// Who pays for the path, and for how much, where anybody has a quota.
    pub(crate) charge: Option<Charge>,
    /// The file, open for reading and writing, if the path names one.
    pub(crate) file: Option<Arc<DataFile>>,
    /// What the path was when this process last looked at it or wrote to it.
    pub(crate) seen: Option<FileStat>,
    /// The hasher at L.
    pub(crate) vouched: PrefixHasher,
    /// Hashers at places of the tail, the one at S among them if the tail was hashed.
    pub(crate) ahead: Vec<PrefixHasher>,
    /// Hashes of shorter prefixes that somebody asked for.
    pub(crate) asked: Vec<Prefix>,
}

/// Hashes and hashers that are kept of one path beyond those at L and S.
const REMEMBERED: usize = 4;

impl FileState {
    /// A path without row and file.
    pub(crate) fn absent(epoch: Epoch) -> Self {
        Self {
            epoch,
            row: None,
            charge: None,
            file: None,
            seen: None,
            vouched: PrefixHasher::new(),
            ahead: Vec::new(),
            asked: Vec::new(),
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

    /// Whether the path takes nothing: its row alone says how it stands, and its file is not read.
    pub(crate) fn is_frozen(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.state.is_frozen())
    }

    /// The plain values that decisions are made from.
    pub(crate) fn standing(&self) -> Standing {
        let row = self.row.as_ref();
        Standing {
            vouched: match row {
                Some(row) if self.is_frozen() => row.vouched,
                _ => self.vouched.prefix(),
            },
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
            tail: (size > self.length() && !self.is_frozen()).then(|| Tail {
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
pub(super) struct Entry {
    path: WirePath,
    slot: Mutex<Slot>,
    released: Notify,
    used: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    work: Option<Work>,
    /// A PUT waits for the one that is receiving.
    continued: bool,
    pub(super) state: Option<Box<FileState>>,
    /// What is durable.
    pub(super) shown: Option<Shown>,
    pub(super) flight: Option<Flight>,
}

impl Slot {
    /// What is known after a claim; nothing when nobody knows what the file holds. Then what is in
    /// flight lands, but nothing goes on from it.
    pub(super) fn keep_state(&mut self, state: Option<Box<FileState>>) {
        let end = state.as_deref().map(FileState::length);
        match self.flight.as_mut().map(|flight| flight.go_on_from(end)) {
            None => {
                self.shown = state.as_deref().map(FileState::shown);
                self.state = state;
            }
            Some(true) => self.state = state,
            Some(false) => {
                self.flight = None;
                self.shown = None;
                self.state = None;
            }
        }
    }

    /// Whether somebody holds the claim.
    pub(super) fn is_claimed(&self) -> bool {
        self.work.is_some()
    }
}

impl Entry {
    pub(super) fn path(&self) -> &WirePath {
        &self.path
    }

    pub(super) fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits for the path.
    pub(super) fn notify(&self) {
        self.released.notify_waiters();
    }
}

/// The right to work on a path.
#[derive(Debug)]
pub(crate) struct Claim {
    entry: Arc<Entry>,
    /// What is known; `None` has to be derived from row and file. Whoever cannot tell any more
    /// what the file holds leaves `None`.
    pub(crate) state: Option<Box<FileState>>,
    is_held: bool,
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
        let mut slot = self.entry.slot();
        if slot.flight.is_none() {
            slot.shown = self.state.as_deref().map(FileState::shown);
        }
    }

    /// What is known now and durable.
    pub(crate) fn shown(&self) -> Option<Shown> {
        let slot = self.entry.slot();
        match slot.flight {
            Some(_) => slot.shown,
            None => self.state.as_deref().map(FileState::shown),
        }
    }

    /// Whether what is known depends on what has not landed: it cannot be derived again yet.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.entry.slot().flight.is_some()
    }

    /// Gives the claim up for `use_slot`, which leaves the path to whoever comes next.
    pub(super) fn hand_over<T>(
        mut self,
        use_slot: impl FnOnce(&Arc<Entry>, &mut Slot, Option<Box<FileState>>) -> T,
    ) -> T {
        let state = self.state.take();
        let entry = Arc::clone(&self.entry);
        let mut slot = entry.slot();
        slot.work = None;
        self.is_held = false;
        let result = use_slot(&entry, &mut slot, state);
        drop(slot);
        entry.notify();
        result
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_held {
            return;
        }
        if std::thread::panicking() {
            // Whatever was half done is derived again.
            self.state = None;
        }
        let mut slot = self.entry.slot();
        slot.work = None;
        slot.keep_state(self.state.take());
        drop(slot);
        self.entry.notify();
    }
}

/// Why a path cannot be worked on now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Occupied {
    /// A PUT receives its body; what a HEAD may say, if that is known.
    Receiving(Option<Shown>),
    /// It was being hashed, or made durable, for longer than one waits.
    Hashing,
}

/// Why a path is not to be had at once.
enum Taken {
    Occupied(Occupied),
    /// The PUT before this one receives its body.
    Continued(Option<Shown>),
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

    /// Claims a path; waits while somebody only looks at it or makes it durable, up to
    /// [`HASHING_WAIT`]. The one PUT that continues a body which is being received waits for its
    /// end, up to [`PIPELINE_WAIT`].
    pub(crate) async fn claim(&self, path: &WirePath, work: Work) -> Result<Claim, Occupied> {
        let entry = self.entry(path);
        let begun = tokio::time::Instant::now();
        let mut place = None;
        loop {
            let released = entry.released.notified();
            let (deadline, occupied) = match try_claim(&entry, work, place.is_some()) {
                Ok(claim) => return Ok(claim),
                Err(Taken::Occupied(Occupied::Hashing)) => (HASHING_WAIT, Occupied::Hashing),
                Err(Taken::Occupied(occupied)) => return Err(occupied),
                Err(Taken::Continued(shown)) => {
                    place.get_or_insert_with(|| Place(&entry));
                    (PIPELINE_WAIT, Occupied::Receiving(shown))
                }
            };
            let until = begun + deadline;
            if tokio::time::timeout_at(until, released).await.is_err() {
                return match try_claim(&entry, work, place.is_some()) {
                    Ok(claim) => Ok(claim),
                    Err(_) => Err(occupied),
                };
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
        let excess = (entries.len() + 1).saturating_sub(self.capacity);
        if excess > 0 {
            evict(&mut entries, excess);
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

/// Forgets up to `excess` paths that nobody works on: there may be many after a time in which all were
/// worked on.
fn evict(entries: &mut HashMap<WirePath, Arc<Entry>>, excess: usize) {
    let used = |entry: &Arc<Entry>| entry.used.load(Ordering::Relaxed);
    let idle = entries.values().filter(|entry| is_idle(entry));
    let mut idle: Vec<u64> = idle.map(used).collect();
    let Some(last) = excess.min(idle.len()).checked_sub(1) else {
        return;
    };
    // No two were used at the same tick.
    let (_, newest, _) = idle.select_nth_unstable(last);
    entries.retain(|_, entry| !is_idle(entry) || used(entry) > *newest);
}

/// The place of the one PUT that waits for the one before it.
struct Place<'e>(&'e Entry);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.slot().continued = false;
    }
}

/// `waits`: it has the place of the one that waits for the receiving PUT.
fn try_claim(entry: &Arc<Entry>, work: Work, waits: bool) -> Result<Claim, Taken> {
    let mut slot = entry.slot();
    let continues = |end| matches!(work, Work::Receiving(range) if range.start() == end);
    match (slot.work, &mut slot.flight) {
        (Some(Work::Looking), _) => return Err(Taken::Occupied(Occupied::Hashing)),
        (Some(Work::Receiving(range)), _) => {
            if continues(range.end()) && (waits || !slot.continued) {
                slot.continued = true;
                return Err(Taken::Continued(slot.shown));
            }
            return Err(Taken::Occupied(Occupied::Receiving(slot.shown)));
        }
        (None, Some(flight)) if !flight.end().is_some_and(continues) => {
            return Err(Taken::Occupied(Occupied::Hashing));
        }
        (None, _) => {}
    }
    slot.work = Some(work);
    Ok(Claim {
        entry: Arc::clone(entry),
        state: slot.state.take(),
        is_held: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiving(start: u64, end: u64) -> Work {
        let offset = |at| Offset::new(at).unwrap();
        Work::Receiving(ByteRange::new(offset(start), offset(end)).unwrap())
    }

    fn path(text: &str) -> WirePath {
        WirePath::decode(text).unwrap()
    }

    #[tokio::test]
    async fn a_path_has_one_claim() {
        let files = Files::new(4);
        let claim = files.claim(&path("/a"), receiving(0, 9)).await.unwrap();
        let refused = files.claim(&path("/a"), Work::Looking).await.unwrap_err();
        assert_eq!(refused, Occupied::Receiving(None));
        files.claim(&path("/b"), receiving(0, 9)).await.unwrap();
        drop(claim);
        files.claim(&path("/a"), receiving(0, 9)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_waited_for_and_not_for_ever() {
        let files = Arc::new(Files::new(4));
        let claim = files.claim(&path("/a"), Work::Looking).await.unwrap();
        let waiting = {
            let files = Arc::clone(&files);
            tokio::spawn(async move { files.claim(&path("/a"), receiving(0, 9)).await })
        };
        tokio::task::yield_now().await;
        drop(claim);
        let claim = waiting.await.unwrap().unwrap();
        drop(claim);

        let _looking = files.claim(&path("/a"), Work::Looking).await.unwrap();
        let refused = files.claim(&path("/a"), receiving(0, 9)).await.unwrap_err();
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

    #[tokio::test]
    async fn many_paths_at_once_are_forgotten_down_to_the_bound() {
        let files = Files::new(4);
        let mut claims = Vec::new();
        for number in 0..20 {
            let path = path(&format!("/{number}"));
            claims.push(files.claim(&path, Work::Looking).await.unwrap());
        }
        assert_eq!(files.len(), 20, "each is worked on");
        let busy = claims.swap_remove(0);
        for claim in &mut claims {
            claim.state = Some(Box::new(FileState::absent(Epoch::default())));
        }
        drop(claims);
        drop(files.claim(&path("/new"), Work::Looking).await.unwrap());
        assert_eq!(files.len(), 4, "one is worked on, three are idle");
        for (number, is_kept) in [(18, true), (19, true), (17, false)] {
            let path = path(&format!("/{number}"));
            let claim = files.claim(&path, Work::Looking).await.unwrap();
            assert_eq!(claim.state.is_some(), is_kept, "/{number}");
        }
        drop(busy);
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

    #[tokio::test(start_paused = true)]
    async fn the_one_that_continues_a_body_waits_and_no_other_does() {
        let files = Arc::new(Files::new(4));
        let first = files.claim(&path("/a"), receiving(0, 5)).await.unwrap();
        let continuing = |start, end| {
            let files = Arc::clone(&files);
            tokio::spawn(async move { files.claim(&path("/a"), receiving(start, end)).await })
        };
        let second = continuing(5, 9);
        tokio::task::yield_now().await;
        for other in [continuing(5, 9), continuing(4, 9), continuing(6, 9)] {
            assert_eq!(other.await.unwrap().unwrap_err(), Occupied::Receiving(None));
        }
        drop(first);
        let second = second.await.unwrap().unwrap();

        let third = continuing(9, 12).await.unwrap();
        assert_eq!(
            third.unwrap_err(),
            Occupied::Receiving(None),
            "after a second"
        );
        drop(second);
        continuing(12, 13).await.unwrap().unwrap();
    }
}
