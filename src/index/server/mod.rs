//! The server's index: what it vouches for, by path.
//!
//! One commit is one durable transaction for as many files as wait for it (group commit). The
//! number of commits, the boot that made them and the store they are in let a client tell a
//! restart from a restore.

mod boots;
mod history;
mod ledger;
mod rows;

use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use redb::{ReadTransaction, WriteTransaction};

use self::boots::Boots;
use self::ledger::Ledger;
#[cfg(test)]
pub(crate) use self::ledger::Owner;
pub use self::ledger::{Charge, Usage, account};
pub(crate) use self::ledger::{OWNERS, USAGE, vouched};
pub(crate) use self::rows::REBUILT;
pub(crate) use self::rows::{BOOTS, Counters, FILES, HISTORY, QUARANTINE, ROWS};
pub use self::rows::{
    BootRow, Footprint, HistoryRow, Quarantined, ScrubPosition, ServerFile, ServerState,
};
use self::rows::{COUNTERS, COUNTERS_KEY, MOVING, MOVING_KEY, SCRUB, SCRUB_KEY, STORE, STORE_KEY};
use super::engine::Engine;
use super::error::{IndexError, Problem};
use super::event::{self, Event, Log, NewEvent};
use super::schema::Kind;
use crate::limits::QUARANTINE_ROWS;
use crate::sys::host::random_bytes;
use crate::types::{BootId, CommitNumber, FileId, Offset, StoreId, WirePath};
use crate::wire::Seen;

/// Changes that are held in memory while an index is filled.
const BATCH: usize = 1024;

/// One change of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerChange {
    /// Inserts or replaces the row of a path; what was there goes into its history. A file that
    /// becomes regressed or diverged, or shorter, counts as [suspected](Self::Suspect).
    Put {
        /// Whose row.
        path: WirePath,
        /// The row.
        file: Box<ServerFile>,
    },
    /// Ends this life of a path: its row becomes history. Its file, if there is one, is due to be
    /// moved into quarantine under the name `moving`.
    Close {
        /// Whose row.
        path: WirePath,
        /// A name that [`Quarantine`](Self::Quarantine) gives a row.
        moving: Option<String>,
    },
    /// What was due to be moved is.
    Moved,
    /// Inserts or replaces the row of a copy in quarantine.
    Quarantine {
        /// The copy's name.
        name: String,
        /// The row.
        row: Box<Quarantined>,
    },
    /// The file of a path has bytes behind its vouched length, or no row yet: they are charged for
    /// too. After a [`Put`](Self::Put) of the same path, which says that there are none.
    Occupied {
        /// Whose file.
        path: WirePath,
        /// Its size on the disk.
        size: Offset,
        /// Who pays for a path that nobody pays for yet.
        writer: String,
    },
    /// Remembers how far the scrub is.
    Scrubbed(Box<ScrubPosition>),
    /// Records an event.
    Event(NewEvent),
    /// Something was found that clients have to look at: those that saw less than this commit
    /// are told `Shaftlog-Kept: no`.
    Suspect,
}

impl ServerChange {
    /// The change that makes `file` the row of `path`.
    pub fn put(path: WirePath, file: ServerFile) -> Self {
        Self::Put {
            path,
            file: Box::new(file),
        }
    }
}

/// Some rows of files, each read for itself.
#[derive(Debug, Default)]
pub struct Survey {
    /// Those that are as they were written.
    pub rows: Vec<(WirePath, ServerFile)>,
    /// What is wrong with the others, in words.
    pub damaged: Vec<String>,
    /// The key behind which to go on; `None` at the end.
    pub last: Option<Vec<u8>>,
}

/// The open index. Any thread may call; calls block.
pub struct ServerIndex {
    engine: Engine,
    store: StoreId,
    boot: BootId,
    /// Newest commit, for those who do not want to wait for one under way.
    number: AtomicU64,
    /// The newest commit in which a file was found regressed or changed.
    suspected: AtomicU64,
    next_file: AtomicU64,
    boots: Boots,
    /// Held through each commit.
    writer: Mutex<Log>,
}

impl ServerIndex {
    /// Creates an empty index with a new store id, whole or not at all.
    pub fn create(path: &Path) -> Result<(), IndexError> {
        Self::create_with(path, std::iter::empty())
    }

    /// Creates an index with a new store id that holds `changes` from the start: whole, or, when
    /// one of them is an error, not at all.
    pub fn create_with(
        path: &Path,
        changes: impl IntoIterator<Item = io::Result<ServerChange>>,
    ) -> Result<(), IndexError> {
        let store = random_bytes().map_err(|error| IndexError::new(path, error))?;
        Engine::create(path, Kind::Server, |transaction| {
            STORE
                .write(transaction)?
                .put(&STORE_KEY.to_owned(), &StoreId(store))?;
            let counters = Counters {
                number: CommitNumber(0),
                suspected: CommitNumber(0),
                next_file: FileId(1),
            };
            put_counters(transaction, &counters)?;
            let mut log = Log::default();
            let mut changes = changes.into_iter().peekable();
            while changes.peek().is_some() {
                let batch = changes
                    .by_ref()
                    .take(BATCH)
                    .collect::<io::Result<Vec<_>>>()?;
                apply(transaction, &batch, &mut log)?;
            }
            Ok(())
        })
    }

    /// Opens the index for a new run of the server: it gets a boot id, recorded durably.
    pub fn open(path: &Path, now: Timestamp) -> Result<Self, IndexError> {
        let boot = BootId(random_bytes().map_err(|error| IndexError::new(path, error))?);
        Self::start(Engine::open(path, Kind::Server)?, boot, now)
    }

    /// Begins the run `boot`.
    pub(super) fn start(engine: Engine, boot: BootId, now: Timestamp) -> Result<Self, IndexError> {
        let (store, counters) = engine.write(|transaction| {
            let store = STORE
                .write(transaction)?
                .get(&STORE_KEY.to_owned())?
                .ok_or_else(no_store)?;
            let mut counters = counters(transaction)?;
            counters.number.0 += 1;
            let row = BootRow {
                first: counters.number,
                at: now,
            };
            BOOTS.write(transaction)?.put(&boot, &row)?;
            put_counters(transaction, &counters)?;
            Ok((store, counters))
        })?;
        let boots = engine.read(|transaction| Boots::load(transaction, boot))?;
        Ok(Self {
            engine,
            store,
            boot,
            boots,
            number: AtomicU64::new(counters.number.0),
            suspected: AtomicU64::new(counters.suspected.0),
            next_file: AtomicU64::new(counters.next_file.0),
            writer: Mutex::default(),
        })
    }

    /// Identity of this index.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// Identity of this run.
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// The newest commit.
    pub fn number(&self) -> CommitNumber {
        CommitNumber(self.number.load(Ordering::Acquire))
    }

    /// Whether the last process did not close the index; then [`check_rows`](Self::check_rows)
    /// is due.
    pub fn unclean(&self) -> bool {
        self.engine.unclean()
    }

    /// A number for a new file, or for a new life of a path.
    pub fn allocate(&self) -> FileId {
        FileId(self.next_file.fetch_add(1, Ordering::Relaxed))
    }

    /// The row of `path`.
    pub fn file(&self, path: &WirePath) -> Result<Option<ServerFile>, IndexError> {
        self.engine
            .read(|transaction| FILES.read(transaction)?.get(path))
    }

    /// Looks at no more than `limit` rows behind the key `after` in the order of their paths, from
    /// one short snapshot. A damaged one hides none behind it.
    pub fn survey_files(&self, after: Option<&[u8]>, limit: usize) -> Result<Survey, IndexError> {
        self.engine.read(|transaction| {
            let mut survey = Survey::default();
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            let table = FILES.read(transaction)?;
            survey.last = table.survey(start, limit, |row| match row {
                Ok(row) => survey.rows.push(row),
                Err(problem) => survey.damaged.push(problem.to_string()),
            })?;
            Ok(survey)
        })
    }

    /// At most `limit` rows behind `after` in the order of their paths; a damaged one is the error.
    #[cfg(test)]
    pub fn files(
        &self,
        after: Option<&WirePath>,
        limit: usize,
    ) -> Result<Vec<(WirePath, ServerFile)>, IndexError> {
        self.engine.read(|transaction| {
            let rows = FILES.read(transaction)?;
            match after {
                Some(path) => rows.page_after(path, limit),
                None => rows.page(Bound::Unbounded, limit),
            }
        })
    }

    /// What `path` is charged for; `None` when to nobody.
    pub fn charge(&self, path: &WirePath) -> Result<Option<Charge>, IndexError> {
        self.engine
            .read(|transaction| ledger::charge(transaction, path))
    }

    /// What is charged to an account.
    pub fn usage(&self, account: &str) -> Result<Usage, IndexError> {
        self.engine
            .read(|transaction| ledger::usage(transaction, account))
    }

    /// Makes all of `changes` durable in one transaction, in their order.
    ///
    /// After an error of the engine ([`IndexError::needs_reopen`]) nobody knows whether they are
    /// there.
    pub fn commit(&self, changes: &[ServerChange]) -> Result<CommitNumber, IndexError> {
        let mut log = self.lock();
        let result = self
            .engine
            .write(|transaction| apply(transaction, changes, &mut log));
        match &result {
            Ok(counters) => self.publish(counters),
            Err(_) => log.forget(),
        }
        result.map(|counters| counters.number)
    }

    /// Whether nothing that `seen` speaks of can have been lost, nor changed since it was looked
    /// at: its boot is known here and reached that number, and no file was found regressed or
    /// changed in a later commit than `swept`.
    pub fn kept(&self, seen: &Seen) -> bool {
        let suspected = CommitNumber(self.suspected.load(Ordering::Acquire));
        self.has_reached(seen) && suspected <= seen.swept
    }

    /// Whether the boot that `seen` speaks of is known here and reached that number. If not, this
    /// index is older than it was, or was never the one that was seen.
    pub fn has_reached(&self, seen: &Seen) -> bool {
        let end = if seen.boot == self.boot {
            Some(self.number())
        } else {
            self.boots.end(seen.boot)
        };
        end.is_some_and(|end| seen.highest <= end)
    }

    /// Every length of `path` that is on record, the present one last.
    pub fn history(&self, path: &WirePath) -> Result<Vec<(Offset, HistoryRow)>, IndexError> {
        self.engine
            .read(|transaction| history::of(transaction, path))
    }

    /// The lengths on record of one life of a path, shortest first, without the present one.
    pub fn past_of(&self, id: FileId) -> Result<Vec<(Offset, HistoryRow)>, IndexError> {
        self.engine
            .read(|transaction| history::past_of(transaction, id))
    }

    /// What is due to be moved into quarantine: its name there, and its row.
    pub fn moving(&self) -> Result<Option<(String, Quarantined)>, IndexError> {
        self.engine.read(|transaction| {
            let Some(name) = moving(transaction)? else {
                return Ok(None);
            };
            let row = QUARANTINE.read(transaction)?.get(&name)?;
            Ok(row.map(|row| (name, row)))
        })
    }

    /// The row of a copy in quarantine.
    pub fn quarantined(&self, name: &str) -> Result<Option<Quarantined>, IndexError> {
        self.engine
            .read(|transaction| QUARANTINE.read(transaction)?.get(&name.to_owned()))
    }

    /// How far the scrub was when that was last remembered.
    pub fn scrubbed(&self) -> Result<Option<ScrubPosition>, IndexError> {
        self.engine
            .read(|transaction| SCRUB.read(transaction)?.get(&SCRUB_KEY.to_owned()))
    }

    /// Thins what has become old enough; for the background, once in a while. Gives the number of
    /// rows that went.
    pub fn thin_history(&self, now: Timestamp) -> Result<u64, IndexError> {
        let mut after = None;
        let mut gone = 0;
        loop {
            let (rows, next) = self
                .engine
                .read(|transaction| history::superfluous(transaction, after, now))?;
            if !rows.is_empty() {
                let _writer = self.lock();
                gone += self
                    .engine
                    .write(|transaction| history::remove(transaction, &rows))?;
            }
            match next {
                Some(key) => after = Some(key),
                None => return Ok(gone),
            }
        }
    }

    /// At most `limit` events from number `from` on.
    pub fn events(&self, from: u64, limit: usize) -> Result<Vec<(u64, Event)>, IndexError> {
        self.engine
            .read(|transaction| event::page(transaction, from, limit))
    }

    /// Reads every row of every table, in short snapshots, beside normal work: the first damaged
    /// one is the error.
    pub fn check_rows(&self) -> Result<(), IndexError> {
        super::inspect::check_rows(Kind::Server, |page| {
            self.engine.read(|transaction| page(transaction))
        })
    }

    /// Verifies every page of the store, while nothing else runs; whether all was well.
    pub fn check_integrity(&self) -> Result<bool, IndexError> {
        self.engine.check_integrity()
    }

    /// Closes and opens the file: the way back after an error of the engine. Rows held in memory
    /// are to be read again.
    pub fn reopen(&self) -> Result<(), IndexError> {
        let mut log = self.lock();
        log.forget();
        self.engine.reopen()?;
        let counters = self.engine.read(|transaction| {
            COUNTERS
                .read(transaction)?
                .get(&COUNTERS_KEY.to_owned())?
                .ok_or_else(no_counters)
        })?;
        self.publish(&counters);
        Ok(())
    }

    fn publish(&self, counters: &Counters) {
        // In this order: who sees the number sees the suspicion that came with it.
        self.suspected
            .store(counters.suspected.0, Ordering::Release);
        self.number.store(counters.number.0, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes `changes` into the transaction, with the number that the commit will have.
fn apply(
    transaction: &WriteTransaction,
    changes: &[ServerChange],
    log: &mut Log,
) -> Result<Counters, Problem> {
    let mut counters = counters(transaction)?;
    counters.number.0 += 1;
    let mut suspect = false;
    {
        let mut files = FILES.write(transaction)?;
        let mut past = HISTORY.write(transaction)?;
        let mut ledger = Ledger::open(transaction)?;
        for change in changes {
            match change {
                ServerChange::Put { path, file } => {
                    let old = files.put(path, file)?;
                    if let Some(old) = &old {
                        history::push(&mut past, old, file)?;
                    }
                    ledger.put(path, old.as_ref(), file)?;
                    suspect |= suspicious(old.as_ref(), file);
                    counters.next_file.0 = counters.next_file.0.max(file.id.0 + 1);
                }
                ServerChange::Close { path, .. } => {
                    let old = files.get(path)?;
                    ledger.close(path, old.as_ref())?;
                    if let Some(old) = old {
                        history::close(&mut past, &old)?;
                        files.remove(path)?;
                    }
                }
                ServerChange::Occupied { path, size, writer } => {
                    ledger.occupy(path, files.get(path)?.as_ref(), *size, writer)?;
                }
                ServerChange::Suspect => suspect = true,
                _ => {}
            }
        }
        ledger.settle(transaction, &files)?;
    }
    changes
        .iter()
        .try_for_each(|change| apply_beside(transaction, change))?;
    if suspect {
        counters.suspected = counters.number;
    }
    let events = changes.iter().filter_map(|change| match change {
        ServerChange::Event(event) => Some(event),
        _ => None,
    });
    log.append(transaction, events)?;
    put_counters(transaction, &counters)?;
    Ok(counters)
}

/// Writes what stands beside files and history.
fn apply_beside(transaction: &WriteTransaction, change: &ServerChange) -> Result<(), Problem> {
    let moving = |moving: &Option<String>| {
        let mut rows = MOVING.write(transaction)?;
        rows.put(&MOVING_KEY.to_owned(), moving).map(|_| ())
    };
    match change {
        ServerChange::Close { moving: name, .. } => moving(name),
        ServerChange::Moved => moving(&None),
        ServerChange::Quarantine { name, row } => {
            let mut rows = QUARANTINE.write(transaction)?;
            rows.put(name, row)?;
            while rows.len()? > QUARANTINE_ROWS {
                rows.remove_first()?;
            }
            Ok(())
        }
        ServerChange::Scrubbed(position) => {
            let mut rows = SCRUB.write(transaction)?;
            rows.put(&SCRUB_KEY.to_owned(), position).map(|_| ())
        }
        ServerChange::Put { .. }
        | ServerChange::Occupied { .. }
        | ServerChange::Event(_)
        | ServerChange::Suspect => Ok(()),
    }
}

/// Whether clients have to look at a file that changed like this.
fn suspicious(old: Option<&ServerFile>, new: &ServerFile) -> bool {
    let Some(old) = old else { return false };
    let turned = old.state != new.state
        && matches!(new.state, ServerState::Regressed | ServerState::Diverged);
    turned || new.vouched.length < old.vouched.length || new.id != old.id
}

/// Every length of `path` that is on record, the present one last.
pub(super) fn history_of(
    transaction: &ReadTransaction,
    path: &WirePath,
) -> Result<Vec<(Offset, HistoryRow)>, Problem> {
    history::of(transaction, path)
}

/// The lengths on record of one life of a path, shortest first, without the present one.
pub(super) fn past_of(
    transaction: &ReadTransaction,
    id: FileId,
) -> Result<Vec<(Offset, HistoryRow)>, Problem> {
    history::past_of(transaction, id)
}

/// The lives of `path` that quarantine has ended, oldest first.
pub(super) fn closed_lives(
    transaction: &ReadTransaction,
    path: &WirePath,
) -> Result<Vec<FileId>, Problem> {
    let mut lives = Vec::new();
    QUARANTINE
        .read(transaction)?
        .visit(Bound::Unbounded, |_, row| {
            if row.path == path.as_bytes() {
                lives.extend(row.id);
            }
            Ok(true)
        })?;
    lives.sort_unstable();
    Ok(lives)
}

/// Name of the copy whose file is not moved yet.
pub(super) fn moving(transaction: &ReadTransaction) -> Result<Option<String>, Problem> {
    let moving = MOVING.read(transaction)?.get(&MOVING_KEY.to_owned())?;
    Ok(moving.flatten())
}

/// Number of the newest commit.
pub(super) fn newest_commit(transaction: &ReadTransaction) -> Result<CommitNumber, Problem> {
    let counters = COUNTERS.read(transaction)?.get(&COUNTERS_KEY.to_owned())?;
    counters
        .map(|counters| counters.number)
        .ok_or_else(no_counters)
}

/// Identity of the index.
pub(super) fn store_id(transaction: &ReadTransaction) -> Result<StoreId, Problem> {
    STORE
        .read(transaction)?
        .get(&STORE_KEY.to_owned())?
        .ok_or_else(no_store)
}

fn no_store() -> Problem {
    Problem::NotOurs("it has no store id".to_owned())
}

fn counters(transaction: &WriteTransaction) -> Result<Counters, Problem> {
    COUNTERS
        .write(transaction)?
        .get(&COUNTERS_KEY.to_owned())?
        .ok_or_else(no_counters)
}

fn put_counters(transaction: &WriteTransaction, counters: &Counters) -> Result<(), Problem> {
    COUNTERS
        .write(transaction)?
        .put(&COUNTERS_KEY.to_owned(), counters)?;
    Ok(())
}

fn no_counters() -> Problem {
    Problem::NotOurs("it has no counters".to_owned())
}

#[cfg(test)]
pub(crate) mod tests;
