//! Every row of a database looked at, and what rows say of each other: all that is wrong is named,
//! not only the first.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;

use redb::ReadTransaction;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Inspection, as_slice};
use crate::index::client::{self, ClientState};
use crate::index::codec::{Table, TableKey, raw_rows};
use crate::index::error::{IndexError, Problem};
use crate::index::event::EVENTS;
use crate::index::reader;
use crate::index::schema::{Kind, META};
use crate::index::server::{self, Usage, newest_commit};
use crate::limits::INSPECT_ROWS;
use crate::types::WirePath;

/// Something wrong with a row; serialises to one JSON object with the key `table`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "table", rename = "check")]
pub struct Fault {
    /// Name of the table.
    #[serde(rename = "in")]
    pub table: &'static str,
    /// The row's key, shown.
    pub key: String,
    /// What is wrong.
    pub fault: String,
}

impl Fault {
    /// Something wrong with the row of `key`.
    pub fn new(
        table: &'static str,
        key: &(impl ToString + ?Sized),
        fault: impl Into<String>,
    ) -> Self {
        Self {
            table,
            key: key.to_string(),
            fault: fault.into(),
        }
    }
}

/// What was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// Number of rows, whole or not.
    pub rows: u64,
    /// Whether every page of the store was verified, which needs a database that nobody writes.
    pub pages: bool,
}

type Each<'a> = dyn FnMut(Fault) + 'a;

impl Inspection {
    /// Looks at every row of every table, and at the store's pages when nobody writes. Faults are
    /// given to `each`; an error is a database that cannot be read any further.
    pub fn check(&self, mut each: impl FnMut(Fault)) -> Result<Checked, IndexError> {
        let each: &mut Each<'_> = &mut each;
        let mut checked = Checked::default();
        match reader::check_pages(&self.path) {
            Ok(true) => checked.pages = true,
            Ok(false) => {
                checked.pages = true;
                each(Fault::new(
                    "(store)",
                    "(pages)",
                    "a page of the store is damaged",
                ));
            }
            Err(Problem::Changed | Problem::Locked) => {}
            Err(problem) => each(Fault::new("(store)", "(pages)", problem.to_string())),
        }
        checked.rows += self.meta(each)?;
        checked.rows += match self.kind {
            Kind::Client => self.client_tables(each)?,
            Kind::Server => self.server_tables(each)?,
        };
        checked.rows += self.whole(&EVENTS, each, |_, _, _| Ok(None))?;
        Ok(checked)
    }

    fn client_tables(&self, each: &mut Each<'_>) -> Result<u64, IndexError> {
        let mut rows = self.whole(&client::FILES, each, |transaction, id, file| {
            let name = client::NAMES.read(transaction)?.get(&file.name)?;
            if name != Some(*id) {
                return Ok(Some(format!("its name {} is not its own", file.name)));
            }
            // The inode's row speaks of its newest generation.
            let newest = client::INODES.read(transaction)?.get(&file.inode)?;
            let open = matches!(
                file.state,
                ClientState::Active | ClientState::Renaming { .. }
            );
            Ok((open && newest != Some(*id))
                .then(|| "its inode belongs to another file".to_owned()))
        })?;
        rows += self.whole(&client::NAMES, each, |transaction, _, id| {
            let file = client::FILES.read(transaction)?.get(id)?;
            Ok(file.is_none().then(|| format!("there is no file {id}")))
        })?;
        rows += self.whole(&client::INODES, each, |transaction, _, id| {
            let file = client::FILES.read(transaction)?.get(id)?;
            Ok(file.is_none().then(|| format!("there is no file {id}")))
        })?;
        rows += self.whole(&client::DESTINATIONS, each, |_, _, _| Ok(None))?;
        rows += self.whole(
            &client::PROGRESS,
            each,
            |transaction, (to, id), progress| {
                if client::FILES.read(transaction)?.get(id)?.is_none() {
                    return Ok(Some(format!("there is no file {id}")));
                }
                if client::DESTINATIONS.read(transaction)?.get(to)?.is_none() {
                    return Ok(Some(format!("there is no destination {to}")));
                }
                let same = progress.hasher.length() == progress.confirmed.length;
                Ok((!same).then(|| "its hasher stands at another length".to_owned()))
            },
        )?;
        rows += self.whole(&client::VOLATILE, each, |transaction, id, stretches| {
            if client::FILES.read(transaction)?.get(id)?.is_none() {
                return Ok(Some(format!("there is no file {id}")));
            }
            let in_order = stretches.windows(2).all(|pair| pair[0].end() <= pair[1].at);
            Ok((!in_order).then(|| "its ranges overlap".to_owned()))
        })?;
        rows += self.whole(&client::HOLDS, each, |transaction, id, _| {
            let file = client::FILES.read(transaction)?.get(id)?;
            Ok(file.is_none().then(|| format!("there is no file {id}")))
        })?;
        Ok(rows)
    }

    fn server_tables(&self, each: &mut Each<'_>) -> Result<u64, IndexError> {
        let mut ids = HashSet::new();
        let mut rows = self.whole(&server::FILES, each, |_, _, file| {
            let length = file.vouched.length;
            Ok(if file.hasher.length() != length {
                Some("its hasher stands at another length".to_owned())
            } else if file.high_water.is_some_and(|mark| mark.length < length) {
                Some("its high-water mark lies below its length".to_owned())
            } else if !ids.insert(file.id) {
                Some(format!("another path has its number {} too", file.id))
            } else {
                None
            })
        })?;
        rows += self.whole(&server::HISTORY, each, |_, _, _| Ok(None))?;
        let mut firsts = HashSet::new();
        rows += self.whole(&server::BOOTS, each, |_, _, boot| {
            let again = !firsts.insert(boot.first);
            Ok(again.then(|| format!("another run began with commit {} too", boot.first.0)))
        })?;
        rows += self.whole(&server::QUARANTINE, each, |transaction, _, row| {
            if row.end < row.start {
                return Ok(Some("it ends before its start".to_owned()));
            }
            let Ok(path) = WirePath::from_disk(&row.path[..]) else {
                return Ok(Some("its path is none".to_owned()));
            };
            let file = server::FILES.read(transaction)?.get(&path)?;
            let lives = row.id.is_some() && file.map(|file| file.id) == row.id;
            Ok(lives.then(|| format!("the life that it ended goes on at {path}")))
        })?;
        rows += self.accounts(each)?;
        Ok(rows)
    }

    /// Who is charged for what, and whether that adds up; which can be told only when every row is
    /// whole and nobody commits meanwhile.
    fn accounts(&self, each: &mut Each<'_>) -> Result<u64, IndexError> {
        let mut sums: HashMap<String, Usage> = HashMap::new();
        let before = self.read(newest_commit)?;
        let (mut damaged_file, mut damaged_row) = (false, false);
        let mut note = |fault| {
            damaged_row = true;
            each(fault);
        };
        let mut rows = self.whole(&server::OWNERS, &mut note, |transaction, path, owner| {
            let row = match server::FILES.read(transaction)?.get(path) {
                Err(Problem::Row { .. }) => {
                    damaged_file = true;
                    return Ok(None);
                }
                row => row?,
            };
            let sum = sums.entry(owner.account.clone()).or_default();
            sum.files += 1;
            sum.bytes += server::vouched(row.as_ref()).saturating_add(owner.tail);
            Ok(None)
        })?;
        let mut wrong = Vec::new();
        rows += self.whole(&server::USAGE, &mut note, |_, account, usage| {
            let sum = sums.remove(account).unwrap_or_default();
            if sum != *usage {
                let Usage { files, bytes } = sum;
                let what = format!("its files add up to {files} with {bytes} bytes");
                wrong.push(Fault::new(server::USAGE.name, account, what));
            }
            Ok(None)
        })?;
        wrong.extend(sums.into_keys().map(|account| {
            Fault::new(
                server::USAGE.name,
                &account,
                "it has files and no sum of them",
            )
        }));
        if !damaged_file && !damaged_row && self.read(newest_commit)? == before {
            wrong.into_iter().for_each(each);
        }
        Ok(rows)
    }

    /// Looks at every row of a table, and has `also` look at those that are whole, from the same
    /// snapshot. Gives the number of rows.
    fn whole<K: TableKey, V: Serialize + DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        each: &mut Each<'_>,
        mut also: impl FnMut(&ReadTransaction, &K, &V) -> Result<Option<String>, Problem>,
    ) -> Result<u64, IndexError> {
        let mut start = Bound::Unbounded;
        let mut number = 0;
        loop {
            let mut faults = Vec::new();
            let last = self.read(|transaction| {
                let rows = table.read(transaction)?;
                rows.survey(as_slice(&start), INSPECT_ROWS, |row| {
                    number += 1;
                    let found = row.and_then(|(key, value)| {
                        let what = also(transaction, &key, &value)?;
                        Ok(what.map(|what| (key.show(), what)))
                    });
                    match found {
                        Ok(None) => {}
                        Ok(Some((key, what))) => faults.push(Fault::new(table.name, &key, what)),
                        Err(problem) => faults.push(damaged(table.name, &problem)),
                    }
                })
            })?;
            faults.into_iter().for_each(&mut *each);
            let Some(last) = last else { return Ok(number) };
            start = Bound::Excluded(last);
        }
    }

    /// The rows of the table that holds one row of a kind of its own.
    fn meta(&self, each: &mut Each<'_>) -> Result<u64, IndexError> {
        let (number, faults) = self.read(|transaction| {
            let mut faults = Vec::new();
            let number = raw_rows(transaction, META, |problem| {
                faults.push(damaged(META, &problem));
            })?;
            Ok((number, faults))
        })?;
        faults.into_iter().for_each(each);
        Ok(number)
    }
}

fn damaged(table: &'static str, problem: &Problem) -> Fault {
    match problem {
        Problem::Row { table, key, what } => Fault::new(table, key, *what),
        other => Fault::new(table, "", other.to_string()),
    }
}
