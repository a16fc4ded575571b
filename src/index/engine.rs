//! The store itself: one redb file, opened, created, read, written and reopened.
//!
//! What a crash leaves: creation happens in a temporary file that gets its name only when it is
//! whole and durable; a transaction is there or not there. A commit that failed leaves nobody
//! knowing which: everything is refused from then on until [`Engine::reopen`].

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{
    Builder, ConcurrencyMode, Database, ReadTransaction, ReadableDatabase, WriteTransaction,
};

use super::error::{IndexError, Problem};
use super::event::{EventKind, Log, NewEvent};
use super::reader::Reader;
use super::schema::{self, Kind, Schema};
use crate::limits::INDEX_CACHE;
use crate::sys::database_file;

/// An open database. All calls block; any thread may make them.
pub(crate) struct Engine {
    path: PathBuf,
    kind: Kind,
    /// `None` after a failed reopen.
    database: RwLock<Option<Database>>,
    failed: AtomicBool,
    unclean: bool,
}

/// How every database of ours is opened.
pub(crate) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .set_cache_size(INDEX_CACHE)
        // Lets `db inspect` read beside the daemon; commits are always two-phase in it.
        .set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}

impl Engine {
    /// Creates the database whole: with all tables and whatever `fill` adds, or not at all.
    pub(crate) fn create(
        path: &Path,
        kind: Kind,
        fill: impl FnOnce(&WriteTransaction) -> Result<(), Problem>,
    ) -> Result<(), IndexError> {
        let make = || -> Result<(), Problem> {
            if path.symlink_metadata().is_ok() {
                return Err(Problem::Exists);
            }
            let temporary = database_file::Unpublished::create(path)?;
            let backend = FileBackend::new(temporary.open()?)?;
            let database = guarded(|| Ok(builder().create_with_backend(backend)?))?;
            guarded(|| {
                let transaction = database.begin_write()?;
                schema::migrate(&transaction, kind, 0)?;
                fill(&transaction)?;
                transaction.commit()?;
                Ok(database.close()?)
            })?;
            temporary.publish()?;
            Ok(())
        };
        make().map_err(|problem| IndexError::new(path, problem))
    }

    /// Opens an existing database of `kind`; brings an older schema up to date.
    pub(crate) fn open(path: &Path, kind: Kind) -> Result<Self, IndexError> {
        let (database, unclean) =
            open(path, kind).map_err(|problem| IndexError::new(path, problem))?;
        Ok(Self {
            path: path.to_owned(),
            kind,
            database: RwLock::new(Some(database)),
            failed: AtomicBool::new(false),
            unclean,
        })
    }

    /// An engine over a database that a test has opened in its own way.
    #[cfg(test)]
    pub(crate) fn over(database: Database, kind: Kind) -> Self {
        Self {
            path: PathBuf::from("in memory"),
            kind,
            database: RwLock::new(Some(database)),
            failed: AtomicBool::new(false),
            unclean: false,
        }
    }

    /// Whether the last process did not close it.
    pub(crate) fn unclean(&self) -> bool {
        self.unclean
    }

    /// Runs `body` on a snapshot. Keep it short: pages that a snapshot sees are not reused.
    pub(crate) fn read<T>(
        &self,
        body: impl FnOnce(&ReadTransaction) -> Result<T, Problem>,
    ) -> Result<T, IndexError> {
        self.run(Problem::spoils_reads, |database| {
            body(&database.begin_read()?)
        })
    }

    /// Runs `body` in a transaction and makes it durable; an error leaves nothing of it, except
    /// one of the commit itself, after which nobody knows.
    pub(crate) fn write<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<T, Problem>,
    ) -> Result<T, IndexError> {
        self.run(Problem::spoils_writes, |database| {
            let mut transaction = database.begin_write()?;
            // Else whoever opens the database after a crash walks all of it first.
            transaction.set_quick_repair(true);
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    fn run<T>(
        &self,
        spoils: fn(&Problem) -> bool,
        body: impl FnOnce(&Database) -> Result<T, Problem>,
    ) -> Result<T, IndexError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let result = match database.as_ref() {
            Some(database) if !self.failed.load(Ordering::Acquire) => guarded(|| body(database)),
            _ => Err(Problem::NeedsReopen),
        };
        result.map_err(|problem| self.error(problem, spoils))
    }

    fn error(&self, problem: Problem, spoils: fn(&Problem) -> bool) -> IndexError {
        let refuse = spoils(&problem);
        let error = IndexError::new(&self.path, problem);
        if refuse {
            self.failed.store(true, Ordering::Release);
            error.and_refuse()
        } else {
            error
        }
    }

    /// Closes the file and opens it again: the way back after an error.
    pub(crate) fn reopen(&self) -> Result<(), IndexError> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Closed before it is opened: the two would lock each other out. What closing has to
        // complain about is no news.
        if let Some(old) = database.take() {
            let _ = guarded(|| Ok(old.close()?));
        }
        let (new, _) = open(&self.path, self.kind)
            .map_err(|problem| IndexError::new(&self.path, problem).and_refuse())?;
        *database = Some(new);
        self.failed.store(false, Ordering::Release);
        Ok(())
    }

    /// Verifies every page; repairs what can be. Nothing else runs meanwhile. Whether all was
    /// well.
    pub(crate) fn check_integrity(&self) -> Result<bool, IndexError> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let result = match database.as_mut() {
            Some(database) => guarded(|| Ok(database.check_integrity()?)),
            None => Err(Problem::NeedsReopen),
        };
        // A check that fails has thrown away what it needs to go on.
        result.map_err(|problem| self.error(problem, Problem::spoils_writes))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let database = self
            .database
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = database.take() {
            // Closing after an error fails again, and a panic here would end the process.
            let _ = guarded(|| Ok(database.close()?));
        }
    }
}

/// Opens for writing, after a look that touches nothing; whether nobody had closed it.
fn open(path: &Path, kind: Kind) -> Result<(Database, bool), Problem> {
    let reader = Reader::open(path)?;
    let found = reader.read(|transaction| schema::check(transaction, kind))?;
    let unclean = matches!(reader, Reader::Overlaid { .. });
    drop(reader);
    let backend = FileBackend::new(database_file::open(path, database_file::Access::Write)?)?;
    let database = guarded(|| Ok(builder().create_with_backend(backend)?))?;
    if found.version < schema::newest(kind) {
        bring_up_to_date(&database, found)?;
    }
    Ok((database, unclean))
}

/// Runs the steps that a database lacks, in one transaction, and records that as an event.
pub(super) fn bring_up_to_date(database: &Database, found: Schema) -> Result<(), Problem> {
    guarded(|| {
        let transaction = database.begin_write()?;
        schema::migrate(&transaction, found.kind, found.version)?;
        let newest = schema::newest(found.kind);
        let detail = format!("from schema version {} to {newest}", found.version);
        let event = NewEvent::now(EventKind::Migrated, b"", detail);
        Log::default().append(&transaction, [&event])?;
        Ok(transaction.commit()?)
    })
}

thread_local! {
    /// Whether a panic of this thread becomes an error.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body`; a panic in it becomes an error, and is not told as one: people who read of a panic
/// and a backtrace do not read on to what is wrong with which file.
pub(crate) fn guarded<T>(body: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if GUARDED.get() {
                tracing::debug!("in the store: {panic}");
            } else {
                tell(panic);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(body));
    GUARDED.set(outer);
    result.unwrap_or_else(|panic| Err(Problem::Panicked(message(panic.as_ref()))))
}

fn message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panicked".to_owned())
}
