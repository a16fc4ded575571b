//! What lengths a path had, when, by whom: thinned as it ages.
//!
//! The newest length of a file is in its `files` row. When it is replaced in a later minute, it
//! becomes a row of the history; within the same minute it is forgotten. So an append costs one
//! row a minute and file. [`superfluous`] finds what older rows may go: of those in one hour when
//! they are older than a day, in one day when older than a month, only the last stays.

use std::ops::Bound;

use jiff::Timestamp;
use redb::{ReadTransaction, WriteTransaction};

use super::rows::{FILES, HISTORY, HistoryKey, HistoryRow, ServerFile, ServerState};
use crate::index::codec::{Bytes, Rows};
use crate::index::error::Problem;
use crate::types::{FileId, Offset, WirePath};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const MONTH: i64 = 30 * DAY;

type Past<'txn> = Rows<redb::Table<'txn, Bytes, Bytes>, HistoryKey, HistoryRow>;

/// Records `old`, which `new` replaces, unless it says nothing that `new` does not say.
pub(super) fn push(past: &mut Past<'_>, old: &ServerFile, new: &ServerFile) -> Result<(), Problem> {
    let row = row_of(old, is_odd(old, new));
    // A row that is frozen takes the time of that: when its length came would be told nowhere else.
    let same_length = old.id == new.id && old.vouched == new.vouched && !new.state.is_frozen();
    let same_minute = old.id == new.id && bucket(row.at, MINUTE) == bucket(new.updated, MINUTE);
    if same_length || (same_minute && !row.odd) {
        return Ok(());
    }
    keep(past, old, &row)
}

/// Records the last row of a life that has ended.
pub(super) fn close(past: &mut Past<'_>, last: &ServerFile) -> Result<(), Problem> {
    keep(past, last, &row_of(last, true))
}

/// Odd evidence of a length stays as it was first recorded.
fn keep(past: &mut Past<'_>, of: &ServerFile, row: &HistoryRow) -> Result<(), Problem> {
    let key = (of.id, of.vouched.length);
    match past.get(&key) {
        Ok(Some(kept)) if kept.odd => return Ok(()),
        // A damaged row stays for whoever checks, and hinders nobody; nor does one beside.
        Err(Problem::Row { .. }) if past.has(&key)? => return Ok(()),
        Ok(_) | Err(Problem::Row { .. }) => {}
        Err(other) => return Err(other),
    }
    past.put(&key, row).map(|_| ())
}

/// Whether `old` is evidence of more than an append that went on.
fn is_odd(old: &ServerFile, new: &ServerFile) -> bool {
    let ordinary = [old.state, new.state]
        .iter()
        .all(|state| *state == ServerState::Vouched);
    !ordinary || old.id != new.id || new.vouched.length < old.vouched.length
}

fn row_of(file: &ServerFile, odd: bool) -> HistoryRow {
    HistoryRow {
        hash: file.vouched.hash,
        at: file.updated,
        writer: file.writer.clone(),
        odd,
    }
}

fn bucket(at: Timestamp, size: i64) -> i64 {
    at.as_second().div_euclid(size)
}

/// Width in seconds of the buckets for rows of this age, of which each keeps its last row.
fn width(at: Timestamp, now: Timestamp) -> i64 {
    match now.as_second() - at.as_second() {
        age if age > MONTH => DAY,
        age if age > DAY => HOUR,
        _ => MINUTE,
    }
}

/// All lengths of `path`, the present one last.
pub(super) fn of(
    transaction: &ReadTransaction,
    path: &WirePath,
) -> Result<Vec<(Offset, HistoryRow)>, Problem> {
    let Some(file) = FILES.read(transaction)?.get(path)? else {
        return Ok(Vec::new());
    };
    let mut rows = past_of(transaction, file.id)?;
    let mut present = row_of(&file, false);
    if file.state.is_frozen() {
        let length = file.vouched.length;
        // The row has the time at which it was frozen; this is when its length was vouched for.
        let when_it_came = rows.extract_if(.., |(kept, row)| {
            *kept == length && row.hash == present.hash
        });
        present = when_it_came.last().map_or(present, |(_, row)| row);
    }
    rows.push((file.vouched.length, present));
    Ok(rows)
}

/// The lengths that one life of a path had before its present one, shortest first.
pub(super) fn past_of(
    transaction: &ReadTransaction,
    of: FileId,
) -> Result<Vec<(Offset, HistoryRow)>, Problem> {
    let mut rows = Vec::new();
    HISTORY
        .read(transaction)?
        .visit_from(&(of, Offset::ZERO), |(id, length), row| {
            if id == of {
                rows.push((length, row));
            }
            Ok(id == of)
        })?;
    Ok(rows)
}

/// Rows that one look at the table goes through.
const LOOK: usize = 4096;

/// The rows behind `after` that may go, of a bounded stretch of the table; and where to go on.
pub(super) fn superfluous(
    transaction: &ReadTransaction,
    after: Option<HistoryKey>,
    now: Timestamp,
) -> Result<(Vec<HistoryKey>, Option<HistoryKey>), Problem> {
    let rows = HISTORY.read(transaction)?;
    let page = match &after {
        Some(key) => rows.page_after(key, LOOK)?,
        None => rows.page(Bound::Unbounded, LOOK)?,
    };
    let gone = page
        .windows(2)
        .filter(|pair| is_superfluous(&pair[0], &pair[1], now))
        .map(|pair| pair[0].0)
        .collect();
    // The last row of a full stretch is judged again, with the row behind it.
    let next = match &page[..] {
        [.., (before_last, _), _] if page.len() == LOOK => Some(*before_last),
        _ => None,
    };
    Ok((gone, next))
}

/// Whether `row` may go because the `next` one of the same file speaks for its time too.
fn is_superfluous(
    (key, row): &(HistoryKey, HistoryRow),
    (next_key, next): &(HistoryKey, HistoryRow),
    now: Timestamp,
) -> bool {
    let width = width(row.at, now);
    key.0 == next_key.0 && !row.odd && bucket(row.at, width) == bucket(next.at, width)
}

/// Removes rows; gives their number.
pub(super) fn remove(transaction: &WriteTransaction, keys: &[HistoryKey]) -> Result<u64, Problem> {
    let mut rows = HISTORY.write(transaction)?;
    let mut gone = 0;
    for key in keys {
        gone += u64::from(rows.remove(key)?);
    }
    Ok(gone)
}
