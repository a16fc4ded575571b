//! Reading a database of either kind without changing a byte of it: beside the process that
//! writes it, at rest, or as a killed process left it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{
    ConcurrencyMode, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase,
    StorageBackend,
};

use super::engine::{builder, guarded};
use super::error::Problem;
use super::schema::{self, Kind};
use crate::sys::database_file::{self, Access, Stamp, Underlay};

/// An open database that is only read.
pub(crate) enum Reader {
    /// At rest, or in use: commits become visible with each new read.
    Clean(ReadOnlyDatabase),
    /// Left by a killed process, or of an older schema. redb wants to repair the first, and the
    /// second is brought up to date: in memory alone.
    Overlaid {
        database: Database,
        file: Underlay,
        stamp: Stamp,
    },
}

impl Reader {
    /// Opens the database at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, Problem> {
        let file = Underlay::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Problem::Missing,
            _ => error.into(),
        })?;
        let stamp = file.stamp()?;
        if file.size()? == 0 {
            return Err(Problem::NotOurs("it is empty".to_owned()));
        }
        let backend = FileBackend::new(database_file::open(path, Access::Read)?)?;
        let clean = guarded(|| match builder().open_read_only_with_backend(backend) {
            Ok(database) => Ok(Some(database)),
            Err(DatabaseError::RepairAborted) => Ok(None),
            Err(error) => Err(unreadable(error)),
        })?;
        if let Some(database) = clean {
            return Ok(Self::Clean(database));
        }
        Self::overlaid(path, file, stamp, |_| Ok(()))
    }

    /// Opens a database of any kind, with all tables that the newest schema has.
    pub(crate) fn open_up_to_date(path: &Path) -> Result<(Self, Kind), Problem> {
        let reader = Self::open(path)?;
        let found = reader.read(|transaction| {
            let found = schema::read(transaction)?;
            schema::check(transaction, found.kind)
        })?;
        if found.version == schema::newest(found.kind) {
            return Ok((reader, found.kind));
        }
        let file = Underlay::open(path)?;
        let stamp = file.stamp()?;
        let reader = Self::overlaid(path, file, stamp, |database| {
            let transaction = database.begin_write()?;
            schema::migrate(&transaction, found.kind, found.version)?;
            Ok(transaction.commit()?)
        })?;
        Ok((reader, found.kind))
    }

    /// Opens the file under an overlay and has it prepared there; `file` and `stamp` are from
    /// before.
    fn overlaid(
        path: &Path,
        file: Underlay,
        stamp: Stamp,
        prepare: impl FnOnce(&mut Database) -> Result<(), Problem>,
    ) -> Result<Self, Problem> {
        let overlay = Overlay::new(Underlay::open(path)?)?;
        let database = guarded(|| {
            let mut database = builder()
                .set_concurrency_mode(ConcurrencyMode::ExclusiveWriter)
                .create_with_backend(overlay)
                .map_err(unreadable)?;
            prepare(&mut database)?;
            Ok(database)
        });
        if file.stamp()? != stamp {
            return Err(Problem::Changed);
        }
        Ok(Self::Overlaid {
            database: database?,
            file,
            stamp,
        })
    }

    /// Runs `body` on a snapshot. Keep it short when a daemon may be writing.
    pub(crate) fn read<T>(
        &self,
        body: impl FnOnce(&ReadTransaction) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        match self {
            Self::Clean(database) => guarded(|| body(&database.begin_read()?)),
            Self::Overlaid {
                database,
                file,
                stamp,
            } => {
                let result = guarded(|| body(&database.begin_read()?));
                // A daemon that starts now changes the file under this snapshot.
                if file.stamp()? == *stamp {
                    result
                } else {
                    Err(Problem::Changed)
                }
            }
        }
    }
}

/// Verifies every page of the database at `path`, changing nothing: a repair would stay in memory.
/// Whether all is well; `Changed` when somebody writes to it.
pub(crate) fn check_pages(path: &Path) -> Result<bool, Problem> {
    let file = Underlay::open(path)?;
    let stamp = file.stamp()?;
    let mut whole = false;
    Reader::overlaid(path, file, stamp, |database| {
        whole = database.check_integrity()?;
        Ok(())
    })?;
    Ok(whole)
}

/// A file that redb cannot make sense of is most likely none of redb's.
fn unreadable(error: DatabaseError) -> Problem {
    match error {
        DatabaseError::Storage(redb::StorageError::Corrupted(text)) => Problem::NotOurs(text),
        DatabaseError::Storage(redb::StorageError::Io(error))
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Problem::NotOurs(error.to_string())
        }
        error => error.into(),
    }
}

/// A file below, and over it in memory whatever was written since. It takes no locks: it changes
/// nothing that anybody could see.
#[derive(Debug)]
struct Overlay {
    under: Underlay,
    over: Mutex<Over>,
}

#[derive(Debug)]
struct Over {
    length: u64,
    /// Up to here the file below is still visible.
    visible: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

const PAGE: u64 = 4096;

impl Overlay {
    fn new(under: Underlay) -> io::Result<Self> {
        let length = under.size()?;
        Ok(Self {
            under,
            over: Mutex::new(Over {
                length,
                visible: length,
                pages: BTreeMap::new(),
            }),
        })
    }

    /// The bytes of a page that was not written: from the file, zeros behind its end.
    fn below(&self, page: u64, visible: u64) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; PAGE_BYTES].into_boxed_slice();
        let start = page * PAGE;
        let there = visible.saturating_sub(start).min(PAGE);
        let there = usize::try_from(there).unwrap_or(PAGE_BYTES);
        self.under.read_at(&mut bytes[..there], start)?;
        Ok(bytes)
    }

    /// Calls `each` with page number, offset in the page and length, for a stretch.
    fn pages(
        offset: u64,
        length: usize,
        mut each: impl FnMut(u64, usize, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let within = usize::try_from(at % PAGE).unwrap_or(0);
            let count = (PAGE_BYTES - within).min(length - done);
            each(at / PAGE, within, done..done + count)?;
            done += count;
        }
        Ok(())
    }
}

const PAGE_BYTES: usize = 4096;

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(over.length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if offset.saturating_add(out.len() as u64) > over.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::pages(offset, out.len(), |page, within, range| {
            let to = &mut out[range];
            match over.pages.get(&page) {
                Some(bytes) => to.copy_from_slice(&bytes[within..within + to.len()]),
                None => {
                    to.copy_from_slice(&self.below(page, over.visible)?[within..within + to.len()]);
                }
            }
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let last = length / PAGE;
        let within = usize::try_from(length % PAGE).unwrap_or(0);
        over.pages.retain(|&page, _| page <= last);
        if let Some(bytes) = over.pages.get_mut(&last) {
            bytes[within..].fill(0);
        }
        over.visible = over.visible.min(length);
        over.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let visible = over.visible;
        Self::pages(offset, data.len(), |page, within, range| {
            let from = &data[range];
            let bytes = match over.pages.entry(page) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(self.below(page, visible)?)
                }
            };
            bytes[within..within + from.len()].copy_from_slice(from);
            Ok(())
        })?;
        over.length = over.length.max(offset + data.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Length(u64),
        Read(u64, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = prop::collection::vec(1_u8.., 0..9000);
        prop_oneof![
            (0_u64..30_000, bytes).prop_map(|(at, bytes)| Step::Write(at, bytes)),
            (0_u64..30_000).prop_map(Step::Length),
            (0_u64..30_000, 0_usize..9000).prop_map(|(at, length)| Step::Read(at, length)),
        ]
    }

    proptest! {
        #[test]
        fn an_overlay_reads_like_a_file_and_leaves_the_file_alone(
            under in prop::collection::vec(1_u8.., 0..20_000),
            steps in prop::collection::vec(step(), 1..20),
        ) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &under).unwrap();
            let overlay = Overlay::new(Underlay::open(file.path()).unwrap()).unwrap();
            let mut model = under.clone();
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        overlay.write(at, &bytes).unwrap();
                        let start = usize::try_from(at).unwrap();
                        let end = start + bytes.len();
                        model.resize(model.len().max(end), 0);
                        model[start..end].copy_from_slice(&bytes);
                    }
                    Step::Length(length) => {
                        overlay.set_len(length).unwrap();
                        model.resize(usize::try_from(length).unwrap(), 0);
                    }
                    Step::Read(at, length) => {
                        let mut found = vec![0; length];
                        let start = usize::try_from(at).unwrap();
                        let expected = model.get(start..start + length);
                        let read = overlay.read(at, &mut found);
                        prop_assert_eq!(read.is_ok(), expected.is_some());
                        if let Some(expected) = expected {
                            prop_assert_eq!(&found, expected);
                        }
                    }
                }
                prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
            }
            prop_assert_eq!(std::fs::read(file.path()).unwrap(), under);
        }
    }
}
