//! Reading either database for people and scripts: live, at rest, or as a killed process left it,
//! without changing a byte of it.
//!
//! Rows come as values that serialise to the JSON objects of `shaftlog db inspect --json`; the
//! keys written there are stable. Each page of rows is one snapshot.

mod check;
mod evidence;
mod rows;

use std::collections::HashMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use redb::ReadTransaction;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::check::{Checked, Fault};
pub use self::rows::{
    BootRowShown, CertificateRow, ClientFileRow, DestinationRow, EventRow, HistoryRowShown,
    HoldRow, PrefixShown, ProgressRow, QuarantineRow, Row, ServerFileRow, UsageRow, VolatileRow,
};
use self::rows::{
    boot_row, client_file, destination_row, event_row, hold_row, progress_row, quarantine_row,
    server_file, usage_row, volatile_row,
};
use super::client::{self, DestinationId, Stretch};
use super::codec::{Table, TableKey};
use super::error::{IndexError, Problem};
use super::event::EVENTS;
use super::reader::Reader;
use super::schema::Kind;
use super::server;
use crate::limits::{EMBEDDED_URL, INSPECT_ROWS};
use crate::types::{FileId, Shown, StableName, StoreId, WirePath};

/// A database opened for reading.
pub struct Inspection {
    path: PathBuf,
    kind: Kind,
    reader: Reader,
}

impl Inspection {
    /// Opens the database at `path`, of either kind. A newer schema is refused; an older one is
    /// brought up to date in memory.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        // A daemon that is just starting changes the file of its killed predecessor.
        let (reader, kind) = again(|| Reader::open_up_to_date(path))
            .map_err(|problem| IndexError::new(path, problem))?;
        Ok(Self {
            path: path.to_owned(),
            kind,
            reader,
        })
    }

    /// Whose database it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Identity of a server's store.
    pub fn store(&self) -> Result<Option<StoreId>, IndexError> {
        match self.kind {
            Kind::Client => Ok(None),
            Kind::Server => self.read(server::store_id).map(Some),
        }
    }

    /// What a destination is called for people: its URL, or the directory of `sync --to DIR`, whose
    /// server has no address.
    pub fn called(&self, url: &str) -> String {
        // The database is <datadir>/.shaftlog/client.redb.
        match self.path.ancestors().nth(2) {
            Some(datadir) if url == EMBEDDED_URL => {
                Shown(datadir.as_os_str().as_encoded_bytes()).to_string()
            }
            _ => url.to_owned(),
        }
    }

    /// Visits every row, table by table, until `each` says false.
    pub fn rows(&self, mut each: impl FnMut(Row) -> bool) -> Result<(), IndexError> {
        let each: &mut dyn FnMut(Row) -> bool = &mut each;
        let go_on = match self.kind {
            Kind::Client => self.client_rows(each)?,
            Kind::Server => {
                self.table(&server::FILES, |path, file| server_file(path, &file), each)?
                    && self.boots(each)?
                    && self.table(
                        &server::QUARANTINE,
                        |copy, row| quarantine_row(copy, &row),
                        each,
                    )?
                    && self.table(&server::USAGE, usage_row, each)?
            }
        };
        if go_on {
            self.events(0, each)?;
        }
        Ok(())
    }

    /// Visits the runs of a server in their order: their identities, which are the keys, have none.
    fn boots(&self, each: &mut dyn FnMut(Row) -> bool) -> Result<bool, IndexError> {
        let rows = self.read(|transaction| {
            server::BOOTS
                .read(transaction)?
                .page(Bound::Unbounded, usize::MAX)
        });
        let mut rows = rows?;
        rows.sort_unstable_by_key(|(_, row)| row.first);
        Ok(rows
            .into_iter()
            .map(|(boot, row)| boot_row(boot, row))
            .all(each))
    }

    /// Visits the events from number `from` on until `each` says false.
    pub fn events(&self, from: u64, mut each: impl FnMut(Row) -> bool) -> Result<bool, IndexError> {
        self.table_from(
            &EVENTS,
            Some(from.encode()).filter(|_| from > 0),
            |sequence, event| event_row(self.kind, sequence, event),
            &mut each,
        )
    }

    /// Every length that a server's `path` has or had, oldest first: those of the lives that
    /// quarantine has ended, and of the present one, whose present length is the last.
    pub fn history(&self, path: &WirePath) -> Result<Vec<HistoryRowShown>, IndexError> {
        if self.kind == Kind::Client {
            return Ok(Vec::new());
        }
        self.read(|transaction| {
            let mut rows = Vec::new();
            for life in server::closed_lives(transaction, path)? {
                let past = server::past_of(transaction, life)?.into_iter();
                rows.extend(past.map(|(length, row)| rows::history_row(path, life, length, row)));
            }
            if let Some(file) = server::FILES.read(transaction)?.get(path)? {
                let lengths = server::history_of(transaction, path)?.into_iter();
                rows.extend(
                    lengths.map(|(length, row)| rows::history_row(path, file.id, length, row)),
                );
                if let Some(last) = rows.last_mut() {
                    last.present = true;
                }
            }
            Ok(rows)
        })
    }

    /// Reads every row of every table; the first damaged one is the error.
    pub fn check_rows(&self) -> Result<(), IndexError> {
        check_rows(self.kind, |page| self.read(|transaction| page(transaction)))
    }

    fn client_rows(&self, each: &mut dyn FnMut(Row) -> bool) -> Result<bool, IndexError> {
        let mut urls: HashMap<DestinationId, String> = HashMap::new();
        let go_on = self.table(&client::FILES, client_file, each)?
            && self.table(
                &client::DESTINATIONS,
                |id, row| {
                    let called = self.called(&row.url);
                    urls.insert(id, called.clone());
                    destination_row(called, row)
                },
                each,
            )?;
        let progress = |(destination, _), row, name: &StableName| {
            // One that was added since the destinations were read.
            let url = urls.get(&destination).cloned().unwrap_or_default();
            vec![progress_row(url, row, name.clone())]
        };
        let volatile = |_, stretches: Vec<Stretch>, name: &StableName| {
            let rows = stretches.iter().map(|stretch| volatile_row(stretch, name));
            rows.collect()
        };
        let hold = |_, row, name: &StableName| vec![hold_row(&row, name.clone())];
        Ok(go_on
            && self.named(&client::PROGRESS, |(_, id)| *id, progress, each)?
            && self.named(&client::VOLATILE, |id| *id, volatile, each)?
            && self.named(&client::HOLDS, |id| *id, hold, each)?)
    }

    /// Visits the rows of a table about a client's files, each with the name of its file.
    fn named<K: TableKey, V: Serialize + DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        file_of: impl Fn(&K) -> FileId,
        mut show: impl FnMut(K, V, &StableName) -> Vec<Row>,
        each: &mut dyn FnMut(Row) -> bool,
    ) -> Result<bool, IndexError> {
        let mut start = Bound::Unbounded;
        loop {
            let page = self.read(|transaction| {
                let files = client::FILES.read(transaction)?;
                let page = table
                    .read(transaction)?
                    .page(as_slice(&start), INSPECT_ROWS)?;
                page.into_iter()
                    .map(|(key, row)| {
                        let id = file_of(&key);
                        let file = files.get(&id)?.ok_or(Problem::NoSuchFile(id))?;
                        Ok((key, row, file.name))
                    })
                    .collect::<Result<Vec<_>, Problem>>()
            })?;
            let Some((key, ..)) = page.last() else {
                return Ok(true);
            };
            start = Bound::Excluded(key.encode());
            for (key, row, name) in page {
                if !show(key, row, &name).into_iter().all(&mut *each) {
                    return Ok(false);
                }
            }
        }
    }

    fn table<K: TableKey, V: Serialize + DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        show: impl FnMut(K, V) -> Row,
        each: &mut dyn FnMut(Row) -> bool,
    ) -> Result<bool, IndexError> {
        self.table_from(table, None, show, each)
    }

    /// Visits the rows of a table from `start` on, page by page; whether `each` let it come to the
    /// end.
    fn table_from<K: TableKey, V: Serialize + DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        start: Option<Vec<u8>>,
        mut show: impl FnMut(K, V) -> Row,
        each: &mut dyn FnMut(Row) -> bool,
    ) -> Result<bool, IndexError> {
        let mut start = start.map_or(Bound::Unbounded, Bound::Included);
        loop {
            let page = self.read(|transaction| {
                table
                    .read(transaction)?
                    .page(as_slice(&start), INSPECT_ROWS)
            })?;
            let Some((key, _)) = page.last() else {
                return Ok(true);
            };
            start = Bound::Excluded(key.encode());
            for (key, value) in page {
                if !each(show(key, value)) {
                    return Ok(false);
                }
            }
        }
    }

    fn read<T>(
        &self,
        body: impl FnOnce(&ReadTransaction) -> Result<T, Problem>,
    ) -> Result<T, IndexError> {
        self.reader
            .read(body)
            .map_err(|problem| IndexError::new(&self.path, problem))
    }
}

/// Tries a few times what fails because the file changes just now.
fn again<T>(mut attempt: impl FnMut() -> Result<T, Problem>) -> Result<T, Problem> {
    for _ in 0..8 {
        match attempt() {
            Err(Problem::Changed) => std::thread::yield_now(),
            result => return result,
        }
    }
    attempt()
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// A look at a database through a snapshot.
type Look<'a> = dyn FnMut(&ReadTransaction) -> Result<(), Problem> + 'a;

/// Reads every row of every table of a database of `kind`, in pages that `read` gives a snapshot
/// for.
pub(super) fn check_rows(
    kind: Kind,
    read: impl Fn(&mut Look<'_>) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    match kind {
        Kind::Client => {
            check_table(&client::FILES, &read)?;
            check_table(&client::NAMES, &read)?;
            check_table(&client::INODES, &read)?;
            check_table(&client::DESTINATIONS, &read)?;
            check_table(&client::PROGRESS, &read)?;
            check_table(&client::VOLATILE, &read)?;
            check_table(&client::HOLDS, &read)?;
        }
        Kind::Server => {
            check_table(&server::FILES, &read)?;
            check_table(&server::HISTORY, &read)?;
            check_table(&server::BOOTS, &read)?;
            check_table(&server::QUARANTINE, &read)?;
            check_table(&server::OWNERS, &read)?;
            check_table(&server::USAGE, &read)?;
        }
    }
    check_table(&EVENTS, &read)
}

fn check_table<K: TableKey, V: Serialize + DeserializeOwned>(
    table: &Table<K, V>,
    read: &impl Fn(&mut Look<'_>) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    let mut start = Some(Bound::Unbounded);
    while let Some(from) = start.take() {
        read(&mut |transaction| {
            let page = table
                .read(transaction)?
                .page(as_slice(&from), INSPECT_ROWS)?;
            start = page.last().map(|(key, _)| Bound::Excluded(key.encode()));
            Ok(())
        })?;
    }
    Ok(())
}
