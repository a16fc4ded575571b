//! Rows as they are, for whoever compares them with files.

use std::ops::Bound;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Inspection, as_slice};
use crate::index::client::{self, ClientFile, Destination, DestinationId, Progress, Stretch};
use crate::index::codec::{Table, TableKey};
use crate::index::error::{IndexError, Problem};
use crate::index::server::{self, HistoryRow, Quarantined, ServerFile};
use crate::limits::INSPECT_ROWS;
use crate::types::{FileId, Offset, WirePath};

impl Inspection {
    /// Visits every file of a server's index until `each` says false. A damaged row is visited as
    /// what is wrong with it, and hides none behind it.
    pub fn server_files(
        &self,
        each: impl FnMut(Result<(WirePath, ServerFile), Problem>) -> bool,
    ) -> Result<(), IndexError> {
        self.survey(&server::FILES, each)
    }

    /// The row of `path` in a server's index.
    pub fn server_file(&self, path: &WirePath) -> Result<Option<ServerFile>, IndexError> {
        self.read(|transaction| server::FILES.read(transaction)?.get(path))
    }

    /// The lengths on record of one life of a path, shortest first, without the present one, which
    /// is in its row.
    pub fn past_of(&self, id: FileId) -> Result<Vec<(Offset, HistoryRow)>, IndexError> {
        self.read(|transaction| server::past_of(transaction, id))
    }

    /// Visits the row of every copy in a server's quarantine; as
    /// [`server_files`](Self::server_files).
    pub fn quarantined(
        &self,
        each: impl FnMut(Result<(String, Quarantined), Problem>) -> bool,
    ) -> Result<(), IndexError> {
        self.survey(&server::QUARANTINE, each)
    }

    /// The row of a copy in quarantine, and whether it is still due to be moved there.
    pub fn quarantine_of(&self, copy: &str) -> Result<Option<(Quarantined, bool)>, IndexError> {
        self.read(|transaction| {
            let row = server::QUARANTINE
                .read(transaction)?
                .get(&copy.to_owned())?;
            let is_due = server::moving(transaction)?.is_some_and(|moving| moving == copy);
            Ok(row.map(|row| (row, is_due)))
        })
    }

    /// Visits every file of a client's catalogue until `each` says false; as
    /// [`server_files`](Self::server_files).
    pub fn client_files(
        &self,
        each: impl FnMut(Result<(FileId, ClientFile), Problem>) -> bool,
    ) -> Result<(), IndexError> {
        self.survey(&client::FILES, each)
    }

    /// The row of a file in a client's catalogue.
    pub fn client_file(&self, id: FileId) -> Result<Option<ClientFile>, IndexError> {
        self.read(|transaction| client::FILES.read(transaction)?.get(&id))
    }

    /// Every destination in a client's catalogue.
    pub fn destinations(&self) -> Result<Vec<(DestinationId, Destination)>, IndexError> {
        self.read(|transaction| {
            client::DESTINATIONS
                .read(transaction)?
                .page(Bound::Unbounded, usize::MAX)
        })
    }

    /// What a destination has confirmed of a file.
    pub fn progress(
        &self,
        destination: DestinationId,
        id: FileId,
    ) -> Result<Option<Progress>, IndexError> {
        self.read(|transaction| client::PROGRESS.read(transaction)?.get(&(destination, id)))
    }

    /// What was first read of a client's file in its volatile ranges.
    pub fn volatile(&self, id: FileId) -> Result<Vec<Stretch>, IndexError> {
        let stretches = self.read(|transaction| client::VOLATILE.read(transaction)?.get(&id))?;
        Ok(stretches.unwrap_or_default())
    }

    fn survey<K: TableKey, V: Serialize + DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        mut each: impl FnMut(Result<(K, V), Problem>) -> bool,
    ) -> Result<(), IndexError> {
        let mut start = Bound::Unbounded;
        loop {
            let mut rows = Vec::new();
            let last = self.read(|transaction| {
                let table = table.read(transaction)?;
                table.survey(as_slice(&start), INSPECT_ROWS, |row| rows.push(row))
            })?;
            let Some(last) = last else { return Ok(()) };
            start = Bound::Excluded(last);
            for row in rows {
                if !each(row) {
                    return Ok(());
                }
            }
        }
    }
}
