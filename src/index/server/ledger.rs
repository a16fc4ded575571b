//! To whom each file is charged, and what that comes to for each account: kept in the same
//! transaction as the rows, so that the sums are right after any crash and cost nothing at a start.
//!
//! A file is charged to whoever wrote to its path first, until the path is retired or moved into
//! quarantine: with its vouched length, and with the tail behind it as far as that is known. What
//! `db rebuild` found is charged to whoever first proves it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use redb::{ReadTransaction, ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::rows::{FILES, REBUILT, ServerFile, ServerState};
use crate::index::codec::{Bytes, Rows, Table};
use crate::index::error::Problem;
use crate::types::{Offset, WirePath};

/// Who pays for a path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) account: String,
    /// Bytes behind the vouched length.
    pub(crate) tail: u64,
}

/// What is charged to an account.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// Paths.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// What a path is charged for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Charge {
    /// To whom.
    pub account: String,
    /// Bytes.
    pub bytes: u64,
}

pub(crate) const OWNERS: Table<WirePath, Owner> = Table::new("owners");
pub(crate) const USAGE: Table<String, Usage> = Table::new("usage");

/// The account of a writer: itself, or the /64 network of an IPv6 address, the smallest that anybody
/// is given. `None` for a row that nobody wrote.
pub fn account(writer: &str) -> Option<String> {
    match writer
        .parse::<IpAddr>()
        .map(|address| address.to_canonical())
    {
        _ if writer == REBUILT => None,
        Ok(IpAddr::V6(address)) => {
            let network = Ipv6Addr::from_bits(address.to_bits() >> 64 << 64);
            Some(format!("{network}/64"))
        }
        Ok(address @ IpAddr::V4(_)) => Some(address.to_string()),
        Err(_) => Some(writer.to_owned()),
    }
}

/// The changes of one transaction.
pub(super) struct Ledger<'txn> {
    owners: Rows<redb::Table<'txn, Bytes, Bytes>, WirePath, Owner>,
    /// By account: files and bytes, more or less.
    turnover: BTreeMap<String, (i128, i128)>,
    /// A damaged row was met: nobody knows whose sum it was part of.
    is_off: bool,
}

impl<'txn> Ledger<'txn> {
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, Problem> {
        Ok(Self {
            owners: OWNERS.write(transaction)?,
            turnover: BTreeMap::new(),
            is_off: false,
        })
    }

    /// The row of `path`, which was `old`, becomes `new`: its file then has no tail.
    pub(super) fn put(
        &mut self,
        path: &WirePath,
        old: Option<&ServerFile>,
        new: &ServerFile,
    ) -> Result<(), Problem> {
        if new.state == ServerState::Retired {
            return self.close(path, old);
        }
        self.charge(path, old, vouched(Some(new)), 0, &new.writer)
    }

    /// The file of `path`, whose row is `row`, has `size` bytes on the disk.
    pub(super) fn occupy(
        &mut self,
        path: &WirePath,
        row: Option<&ServerFile>,
        size: Offset,
        writer: &str,
    ) -> Result<(), Problem> {
        let vouched = vouched(row);
        let tail = size.bytes().saturating_sub(vouched);
        self.charge(path, row, vouched, tail, writer)
    }

    /// The path is charged to nobody any more.
    pub(super) fn close(
        &mut self,
        path: &WirePath,
        old: Option<&ServerFile>,
    ) -> Result<(), Problem> {
        if let Some(owner) = self.owner(path)? {
            self.owners.remove(path)?;
            let bytes = i128::from(vouched(old)) + i128::from(owner.tail);
            self.turn(owner.account, -1, -bytes);
        }
        Ok(())
    }

    /// Who pays for a path. Of a damaged row that is unknown: whoever writes next does, since a file
    /// must not wait for its bill.
    fn owner(&mut self, path: &WirePath) -> Result<Option<Owner>, Problem> {
        match self.owners.get(path) {
            Err(damage @ Problem::Row { .. }) => {
                if self.owners.remove(path)? {
                    tracing::error!("{path} is charged anew: {damage}");
                    self.is_off = true;
                }
                Ok(None)
            }
            owner => owner,
        }
    }

    fn charge(
        &mut self,
        path: &WirePath,
        old: Option<&ServerFile>,
        length: u64,
        tail: u64,
        writer: &str,
    ) -> Result<(), Problem> {
        let bytes = i128::from(length) + i128::from(tail);
        let Some(owner) = self.owner(path)? else {
            let Some(account) = account(writer) else {
                return Ok(());
            };
            let owner = Owner { account, tail };
            self.owners.put(path, &owner)?;
            self.turn(owner.account, 1, bytes);
            return Ok(());
        };
        let before = i128::from(vouched(old)) + i128::from(owner.tail);
        if owner.tail != tail {
            let account = owner.account.clone();
            self.owners.put(path, &Owner { account, tail })?;
        }
        self.turn(owner.account, 0, bytes - before);
        Ok(())
    }

    fn turn(&mut self, account: String, files: i128, bytes: i128) {
        let turnover = self.turnover.entry(account).or_default();
        turnover.0 += files;
        turnover.1 += bytes;
    }

    /// Writes the sums, when everything else is.
    pub(super) fn settle(
        self,
        transaction: &'txn WriteTransaction,
        files: &Rows<redb::Table<'txn, Bytes, Bytes>, WirePath, ServerFile>,
    ) -> Result<(), Problem> {
        let mut sums = USAGE.write(transaction)?;
        if self.is_off {
            while sums.remove_first()? {}
            for (account, usage) in add_up(files, &self.owners)? {
                sums.put(&account, &usage)?;
            }
            return Ok(());
        }
        for (account, (more_files, more_bytes)) in self.turnover {
            if (more_files, more_bytes) == (0, 0) {
                continue;
            }
            let usage = match sums.get(&account) {
                Ok(usage) => {
                    let usage = usage.unwrap_or_default();
                    let add = |sum: u64, more: i128| {
                        u64::try_from((i128::from(sum) + more).max(0)).unwrap_or(u64::MAX)
                    };
                    Usage {
                        files: add(usage.files, more_files),
                        bytes: add(usage.bytes, more_bytes),
                    }
                }
                Err(Problem::Row { .. }) => {
                    // It would not let itself be replaced.
                    sums.remove(&account)?;
                    count(files, &self.owners, &account)?
                }
                Err(problem) => return Err(problem),
            };
            if usage == Usage::default() {
                sums.remove(&account)?;
            } else {
                sums.put(&account, &usage)?;
            }
        }
        Ok(())
    }
}

/// What is charged to an account.
pub(super) fn usage(transaction: &ReadTransaction, account: &str) -> Result<Usage, Problem> {
    match USAGE.read(transaction)?.get(&account.to_owned()) {
        Err(Problem::Row { .. }) => count(
            &FILES.read(transaction)?,
            &OWNERS.read(transaction)?,
            account,
        ),
        usage => Ok(usage?.unwrap_or_default()),
    }
}

/// What a path is charged for.
pub(super) fn charge(
    transaction: &ReadTransaction,
    path: &WirePath,
) -> Result<Option<Charge>, Problem> {
    let owner = match OWNERS.read(transaction)?.get(path) {
        // See `Ledger::owner`.
        Err(Problem::Row { .. }) => None,
        owner => owner?,
    };
    let Some(owner) = owner else {
        return Ok(None);
    };
    let row = FILES.read(transaction)?.get(path)?;
    Ok(Some(Charge {
        account: owner.account,
        bytes: vouched(row.as_ref()).saturating_add(owner.tail),
    }))
}

/// Adds up an account whose sum is damaged.
fn count<T, U>(
    files: &Rows<T, WirePath, ServerFile>,
    owners: &Rows<U, WirePath, Owner>,
    account: &str,
) -> Result<Usage, Problem>
where
    T: ReadableTable<Bytes, Bytes>,
    U: ReadableTable<Bytes, Bytes>,
{
    Ok(add_up(files, owners)?.remove(account).unwrap_or_default())
}

/// What all paths come to, by account. A damaged row counts for nothing: it says neither who pays nor
/// how much.
fn add_up<T, U>(
    files: &Rows<T, WirePath, ServerFile>,
    owners: &Rows<U, WirePath, Owner>,
) -> Result<BTreeMap<String, Usage>, Problem>
where
    T: ReadableTable<Bytes, Bytes>,
    U: ReadableTable<Bytes, Bytes>,
{
    let mut sums = BTreeMap::<String, Usage>::new();
    let mut failed = None;
    owners.survey(std::ops::Bound::Unbounded, usize::MAX, |row| {
        let Ok((path, owner)) = row else { return };
        let length = match files.get(&path) {
            Ok(row) => vouched(row.as_ref()),
            Err(Problem::Row { .. }) => 0,
            Err(problem) => {
                failed.get_or_insert(problem);
                0
            }
        };
        let usage = sums.entry(owner.account).or_default();
        usage.files += 1;
        usage.bytes += length.saturating_add(owner.tail);
    })?;
    failed.map_or(Ok(sums), Err)
}

/// The vouched length of a path, which is 0 without a row.
pub(crate) fn vouched(row: Option<&ServerFile>) -> u64 {
    row.map_or(0, |row| row.vouched.length.bytes())
}

#[cfg(test)]
mod tests;
