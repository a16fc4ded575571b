//! The client's catalogue: which inode has which stable name, and what every destination has
//! confirmed of it.
//!
//! Rows are never removed: a stable name is used once, for ever. A row alone proves nothing about
//! the disk; a known inode is one whose link exists and shows that inode now.

mod names;
mod rows;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::WriteTransaction;

use self::names::Taken;
pub use self::rows::{
    ClientFile, ClientState, Destination, DestinationId, DestinationState, Hold, NewFile, Progress,
    ProgressState, Scrubbed, Seam, Stretch, Times,
};
pub(crate) use self::rows::{DESTINATIONS, FILES, HOLDS, INODES, NAMES, PROGRESS, ROWS, VOLATILE};
use self::rows::{SCRUBBED, SCRUBBED_KEY};
use super::engine::Engine;
use super::error::{IndexError, Problem};
use super::event::{self, Event, Log, NewEvent};
use super::schema::Kind;
use crate::types::{CommitNumber, FileId, Inode, Offset, StableName};

/// One change of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientChange {
    /// A new file, whose name must be free; its inode is from now on this file.
    Adopt {
        /// From [`ClientIndex::allocate`].
        id: FileId,
        /// The file.
        file: NewFile,
    },
    /// Closes the generation `old` and opens `id` for the same inode, whose link still has the old
    /// name ([`ClientState::Renaming`]).
    Supersede {
        /// The generation that ends.
        old: FileId,
        /// From [`ClientIndex::allocate`].
        id: FileId,
        /// The one that begins, under a free name.
        file: NewFile,
    },
    /// The link of a [`Renaming`](ClientState::Renaming) file has its own name now: it is active.
    FinishRename(FileId),
    /// Another state.
    State(FileId, ClientState),
    /// The size that the file has now, in bytes.
    Length(FileId, Offset),
    /// The times that the file has now.
    Times(FileId, Times),
    /// The source is found under another path.
    Source {
        /// Whose.
        id: FileId,
        /// The path.
        source: Vec<u8>,
    },
    /// The pattern that a scan has found for the file.
    Pattern {
        /// Whose.
        id: FileId,
        /// Its name.
        pattern: String,
    },
    /// What a destination has confirmed of a file.
    Progress(DestinationId, FileId, Box<Progress>),
    /// What is known of a destination.
    Destination(DestinationId, Destination),
    /// Another inode has the file's content and its link: it was restored from a copy.
    Rebind(FileId, Inode),
    /// All bytes of volatile ranges as they were first read; none when there are none.
    Volatile(FileId, Vec<Stretch>),
    /// How long the file has been quiet; `None` when something else holds it, or nothing.
    Hold(FileId, Option<Hold>),
    /// How far the scrub has come.
    Scrubbed(Scrubbed),
    /// Records an event.
    Event(NewEvent),
}

/// The open catalogue. Any thread may call; calls block.
pub struct ClientIndex {
    engine: Engine,
    next_file: AtomicU64,
    /// Held through each commit.
    writer: Mutex<Log>,
}

impl ClientIndex {
    /// Creates an empty catalogue, whole or not at all.
    pub fn create(path: &Path) -> Result<(), IndexError> {
        Engine::create(path, Kind::Client, |_| Ok(()))
    }

    /// Opens the catalogue.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let engine = Engine::open(path, Kind::Client)?;
        let last = engine.read(|transaction| FILES.read(transaction)?.last())?;
        let next = last.map_or(1, |(id, _)| id.0 + 1);
        Ok(Self {
            engine,
            next_file: AtomicU64::new(next),
            writer: Mutex::default(),
        })
    }

    /// Whether the last process did not close the catalogue; then
    /// [`check_rows`](Self::check_rows) is due.
    pub fn unclean(&self) -> bool {
        self.engine.unclean()
    }

    /// A number for a new file.
    pub fn allocate(&self) -> FileId {
        FileId(self.next_file.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes all of `changes` durable in one transaction, in their order; with an error none of
    /// them is, except that after one of the engine ([`IndexError::needs_reopen`]) nobody knows.
    pub fn commit(&self, changes: &[ClientChange]) -> Result<(), IndexError> {
        let mut log = self.lock();
        let result = self.engine.write(|transaction| {
            for change in changes {
                apply(transaction, change)?;
            }
            let events = changes.iter().filter_map(|change| match change {
                ClientChange::Event(event) => Some(event),
                _ => None,
            });
            log.append(transaction, events)
        });
        if result.is_err() {
            log.forget();
        }
        result
    }

    /// Takes new files into the catalogue, in one transaction; gives their numbers.
    pub fn adopt(&self, batch: &[NewFile]) -> Result<Vec<FileId>, IndexError> {
        let ids: Vec<FileId> = batch.iter().map(|_| self.allocate()).collect();
        let changes: Vec<_> = ids
            .iter()
            .zip(batch)
            .map(|(&id, file)| ClientChange::Adopt {
                id,
                file: file.clone(),
            })
            .collect();
        self.commit(&changes)?;
        Ok(ids)
    }

    /// Records what destinations confirmed, in one transaction.
    pub fn record(
        &self,
        batch: impl IntoIterator<Item = (DestinationId, FileId, Progress)>,
    ) -> Result<(), IndexError> {
        let changes: Vec<_> = batch
            .into_iter()
            .map(|(destination, id, progress)| {
                ClientChange::Progress(destination, id, Box::new(progress))
            })
            .collect();
        self.commit(&changes)
    }

    /// Closes the generation `old`; gives the number of the `file` that follows it.
    pub fn supersede(&self, old: FileId, file: NewFile) -> Result<FileId, IndexError> {
        let id = self.allocate();
        self.commit(&[ClientChange::Supersede { old, id, file }])?;
        Ok(id)
    }

    /// Records that the link of a renaming file has its own name.
    pub fn finish_rename(&self, id: FileId) -> Result<(), IndexError> {
        self.commit(&[ClientChange::FinishRename(id)])
    }

    /// `wanted`, or the first of `wanted.1`, `wanted.2`... that no file has or ever had, neither
    /// in the catalogue nor in `also_taken`.
    pub fn free_name(
        &self,
        wanted: &StableName,
        also_taken: &BTreeSet<StableName>,
    ) -> Result<StableName, IndexError> {
        self.engine.read(|transaction| {
            Taken {
                rows: &NAMES.read(transaction)?,
                also: also_taken,
            }
            .free_name(wanted)
        })
    }

    /// The row of a file.
    pub fn file(&self, id: FileId) -> Result<Option<ClientFile>, IndexError> {
        self.engine
            .read(|transaction| FILES.read(transaction)?.get(&id))
    }

    /// The file that has, or had, this stable name.
    pub fn by_name(&self, name: &StableName) -> Result<Option<FileId>, IndexError> {
        self.engine
            .read(|transaction| NAMES.read(transaction)?.get(name))
    }

    /// The newest generation of an inode. Whether its link still shows that inode is for the
    /// caller to find out.
    pub fn by_inode(&self, inode: &Inode) -> Result<Option<FileId>, IndexError> {
        self.engine
            .read(|transaction| INODES.read(transaction)?.get(inode))
    }

    /// At most `limit` files behind `after`, in the order of discovery.
    pub fn files(
        &self,
        after: Option<FileId>,
        limit: usize,
    ) -> Result<Vec<(FileId, ClientFile)>, IndexError> {
        self.engine.read(|transaction| {
            let rows = FILES.read(transaction)?;
            match after {
                Some(id) => rows.page_after(&id, limit),
                None => rows.page(Bound::Unbounded, limit),
            }
        })
    }

    /// What `destination` has confirmed of a file; `None` before anything was.
    pub fn progress(
        &self,
        destination: DestinationId,
        id: FileId,
    ) -> Result<Option<Progress>, IndexError> {
        self.engine
            .read(|transaction| PROGRESS.read(transaction)?.get(&(destination, id)))
    }

    /// At most `limit` files behind `after` that have progress at `destination`.
    pub fn progress_page(
        &self,
        destination: DestinationId,
        after: Option<FileId>,
        limit: usize,
    ) -> Result<Vec<(FileId, Progress)>, IndexError> {
        let start = (destination, after.unwrap_or(FileId(0)));
        self.engine.read(|transaction| {
            let rows = PROGRESS.read(transaction)?.page_after(&start, limit)?;
            Ok(rows
                .into_iter()
                .take_while(|((at, _), _)| *at == destination)
                .map(|((_, id), progress)| (id, progress))
                .collect())
        })
    }

    /// The destination with this URL, made when there is none.
    pub fn destination(&self, url: &str) -> Result<(DestinationId, Destination), IndexError> {
        let _writer = self.lock();
        let known = self.destinations()?;
        if let Some(found) = known.iter().find(|(_, row)| row.url == url) {
            return Ok(found.clone());
        }
        let id = DestinationId(known.last().map_or(1, |(id, _)| id.0 + 1));
        let row = Destination {
            url: url.to_owned(),
            store: None,
            boot: None,
            number: CommitNumber(0),
            swept: CommitNumber(0),
            verified: false,
            state: DestinationState::Active,
            sweep_pending: false,
            since: FileId(self.next_file.load(Ordering::Relaxed)),
        };
        self.engine.write(|transaction| {
            DESTINATIONS.write(transaction)?.put(&id, &row)?;
            Ok(())
        })?;
        Ok((id, row))
    }

    /// Has this destination asked about every file before anything of it is sent: what lies there may
    /// be older than the catalogue.
    pub fn ask_before_first_append(&self, url: &str) -> Result<(), IndexError> {
        let (id, row) = self.destination(url)?;
        let since = FileId(u64::MAX);
        self.commit(&[ClientChange::Destination(id, Destination { since, ..row })])
    }

    /// Every destination that there ever was.
    pub fn destinations(&self) -> Result<Vec<(DestinationId, Destination)>, IndexError> {
        self.engine.read(|transaction| {
            DESTINATIONS
                .read(transaction)?
                .page(Bound::Unbounded, usize::MAX)
        })
    }

    /// The files with bytes of volatile ranges as they were first read.
    pub fn volatile(&self) -> Result<Vec<(FileId, Vec<Stretch>)>, IndexError> {
        self.engine.read(|transaction| {
            VOLATILE
                .read(transaction)?
                .page(Bound::Unbounded, usize::MAX)
        })
    }

    /// The files that only our links hold, and for how long.
    pub fn holds(&self) -> Result<Vec<(FileId, Hold)>, IndexError> {
        self.engine
            .read(|transaction| HOLDS.read(transaction)?.page(Bound::Unbounded, usize::MAX))
    }

    /// How far the scrub has come; `None` before it ever began.
    pub fn scrubbed(&self) -> Result<Option<Scrubbed>, IndexError> {
        self.engine
            .read(|transaction| SCRUBBED.read(transaction)?.get(&SCRUBBED_KEY.to_owned()))
    }

    /// At most `limit` events from number `from` on.
    pub fn events(&self, from: u64, limit: usize) -> Result<Vec<(u64, Event)>, IndexError> {
        self.engine
            .read(|transaction| event::page(transaction, from, limit))
    }

    /// Reads every row of every table, in short snapshots, beside normal work: the first damaged
    /// one is the error.
    pub fn check_rows(&self) -> Result<(), IndexError> {
        super::inspect::check_rows(Kind::Client, |page| {
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
        self.engine.reopen()
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(transaction: &WriteTransaction, change: &ClientChange) -> Result<(), Problem> {
    match change {
        ClientChange::Adopt { id, file } => {
            insert(transaction, *id, file.clone(), ClientState::Active)
        }
        ClientChange::Supersede { old, id, file } => {
            let mut from = None;
            update(transaction, *old, |row| {
                from = Some(row.name.clone());
                row.state = ClientState::Superseded { by: *id };
            })?;
            let from = from.ok_or(Problem::NoSuchFile(*old))?;
            let state = ClientState::Renaming { from };
            insert(transaction, *id, file.clone(), state)
        }
        ClientChange::FinishRename(id) => update(transaction, *id, |row| {
            if matches!(row.state, ClientState::Renaming { .. }) {
                row.state = ClientState::Active;
            }
        }),
        ClientChange::State(id, state) => update(transaction, *id, |row| row.state = state.clone()),
        ClientChange::Length(id, length) => update(transaction, *id, |row| row.length = *length),
        ClientChange::Times(id, times) => update(transaction, *id, |row| row.times = *times),
        ClientChange::Source { id, source } => {
            update(transaction, *id, |row| row.source.clone_from(source))
        }
        ClientChange::Pattern { id, pattern } => {
            update(transaction, *id, |row| row.pattern.clone_from(pattern))
        }
        ClientChange::Progress(destination, id, progress) => {
            let key = (*destination, *id);
            match PROGRESS.write(transaction)?.put(&key, progress) {
                // It is replaced all the same: what is confirmed now does not rest on it.
                Err(damage @ Problem::Row { .. }) => {
                    tracing::error!("a row was replaced: {damage}");
                }
                put => drop(put?),
            }
            Ok(())
        }
        ClientChange::Destination(id, row) => {
            let old = DESTINATIONS.write(transaction)?.put(id, row)?;
            old.map(|_| ()).ok_or(Problem::NoSuchDestination(*id))
        }
        ClientChange::Rebind(id, inode) => {
            update(transaction, *id, |row| row.inode = *inode)?;
            INODES.write(transaction)?.put(inode, id)?;
            Ok(())
        }
        ClientChange::Volatile(id, stretches) => {
            let mut rows = VOLATILE.write(transaction)?;
            if stretches.is_empty() {
                rows.remove(id)?;
            } else {
                rows.put(id, stretches)?;
            }
            Ok(())
        }
        ClientChange::Hold(id, hold) => {
            let mut rows = HOLDS.write(transaction)?;
            match hold {
                Some(hold) => rows.put(id, hold).map(|_| ()),
                None => rows.remove(id).map(|_| ()),
            }
        }
        ClientChange::Scrubbed(to) => {
            let mut rows = SCRUBBED.write(transaction)?;
            rows.put(&SCRUBBED_KEY.to_owned(), to)?;
            Ok(())
        }
        // Appended together, behind the other changes.
        ClientChange::Event(_) => Ok(()),
    }
}

/// Gives the name and the inode of a new file to it.
fn insert(
    transaction: &WriteTransaction,
    id: FileId,
    file: NewFile,
    state: ClientState,
) -> Result<(), Problem> {
    let mut names = NAMES.write(transaction)?;
    let taken = Taken {
        rows: &names,
        also: &BTreeSet::new(),
    };
    if !taken.is_free(&file.name)? {
        return Err(Problem::NameTaken(file.name));
    }
    names.put(&file.name, &id)?;
    INODES.write(transaction)?.put(&file.inode, &id)?;
    FILES.write(transaction)?.put(&id, &file.into_row(state))?;
    Ok(())
}

fn update(
    transaction: &WriteTransaction,
    id: FileId,
    change: impl FnOnce(&mut ClientFile),
) -> Result<(), Problem> {
    let mut rows = FILES.write(transaction)?;
    let mut row = rows.get(&id)?.ok_or(Problem::NoSuchFile(id))?;
    change(&mut row);
    rows.put(&id, &row)?;
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
