//! Events: changes of state, for people and auditors. Thinned (a repeat within an hour is counted
//! on the row of the first) and capped, oldest first.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use redb::{ReadTransaction, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::codec::{self, Table};
use super::error::Problem;
use crate::limits::{EVENT_ROWS, EVENT_THINNING};
use crate::sys::clock;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A client found and linked a new file.
    Discovered,
    /// A file's source has another path now.
    RenamedSource,
    /// A generation was closed; its inode goes on under another name.
    Superseded,
    /// Bytes exist nowhere any more, or not at one destination.
    Lost,
    /// A server holds something else than this client.
    Conflict,
    /// A server came back older than it was.
    ServerRestored,
    /// A file came back shorter than its row.
    Regressed,
    /// A regressed file reached its old length again, with the old hash.
    Refilled,
    /// Bytes behind the vouched length were proven and kept.
    TailAdopted,
    /// Bytes behind the vouched length were set aside.
    TailQuarantined,
    /// A file does not have the bytes that its row vouches for.
    Diverged,
    /// A file was moved aside by the operator.
    Quarantined,
    /// A file was given up by the operator.
    Retired,
    /// A client let go of a delivered file.
    Released,
    /// The schema was brought up to date.
    Migrated,
    /// The database was made anew from the files.
    Rebuilt,
    /// The disk refused to make bytes durable.
    SyncFailed,
    /// A copy in quarantine was removed, to stay within the operator's bounds.
    Discarded,
    /// A client has used up its quota.
    QuotaReached,
    /// A file's append-only flag was lifted: it has to be cut, moved or removed.
    AppendOnlyLifted,
    /// Bytes lie behind what a server vouches for, and nobody is sending any.
    Extended,
}

impl EventKind {
    /// The words that kinds have in JSON and on the command line.
    pub const WORDS: [&'static str; 21] = [
        "discovered",
        "renamed_source",
        "superseded",
        "lost",
        "conflict",
        "server_restored",
        "regressed",
        "refilled",
        "tail_adopted",
        "tail_quarantined",
        "diverged",
        "quarantined",
        "retired",
        "released",
        "migrated",
        "rebuilt",
        "sync_failed",
        "discarded",
        "quota_reached",
        "append_only_lifted",
        "extended",
    ];
}

/// An event to be recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewEvent {
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// Path (without leading slash) or stable name of the file it is about; empty for none.
    pub subject: Vec<u8>,
    /// The rest, in words.
    pub detail: String,
}

impl NewEvent {
    /// One that happens now.
    pub fn now(kind: EventKind, subject: &[u8], detail: impl Into<String>) -> Self {
        Self {
            at: clock::now(),
            kind,
            subject: subject.to_vec(),
            detail: detail.into(),
        }
    }
}

/// A recorded event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// When it happened, for the first time.
    #[serde(with = "codec::time")]
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// Path (without leading slash) or stable name of the file it is about; empty for none.
    pub subject: Vec<u8>,
    /// The rest, in words.
    pub detail: String,
    /// How often, within an hour of the first.
    pub times: u32,
}

/// Sequence number to event.
pub(crate) const EVENTS: Table<u64, Event> = Table::new("events");

/// Appends events; remembers what could be repeated.
#[derive(Default)]
pub(crate) struct Log {
    recent: HashMap<(EventKind, Vec<u8>, String), (u64, Timestamp)>,
}

impl Log {
    /// Writes `events` behind those that are there, damaged ones too: what happens to a row that was
    /// written must not keep from being told what happens now. When the transaction then fails,
    /// [`forget`](Self::forget) has to follow.
    pub(crate) fn append<'e>(
        &mut self,
        transaction: &WriteTransaction,
        events: impl IntoIterator<Item = &'e NewEvent>,
    ) -> Result<(), Problem> {
        let mut events = events.into_iter().peekable();
        if events.peek().is_none() {
            return Ok(());
        }
        let mut rows = EVENTS.write(transaction)?;
        let last = rows.last_key()?;
        let mut next = last.map_or(1, |sequence| sequence.saturating_add(1));
        for event in events {
            let first = match self.repeated(event) {
                Some(sequence) => match rows.get(&sequence) {
                    Err(Problem::Row { .. }) => None,
                    first => first?.map(|first| (sequence, first)),
                },
                None => None,
            };
            if let Some((sequence, mut first)) = first {
                first.times = first.times.saturating_add(1);
                rows.put(&sequence, &first)?;
                continue;
            }
            rows.put(&next, &Event::first(event))?;
            self.remember(event, next);
            next = next.saturating_add(1);
        }
        while rows.len()? > EVENT_ROWS {
            rows.remove_first()?;
        }
        Ok(())
    }

    /// Drops what is remembered of events that may not have been committed.
    pub(crate) fn forget(&mut self) {
        self.recent.clear();
    }

    fn repeated(&self, event: &NewEvent) -> Option<u64> {
        let key = (event.kind, event.subject.clone(), event.detail.clone());
        let &(sequence, first) = self.recent.get(&key)?;
        within(first, event.at, EVENT_THINNING).then_some(sequence)
    }

    fn remember(&mut self, event: &NewEvent, sequence: u64) {
        if self.recent.len() >= REMEMBERED {
            self.recent
                .retain(|_, (_, first)| within(*first, event.at, EVENT_THINNING));
            if self.recent.len() >= REMEMBERED {
                self.recent.clear();
            }
        }
        let key = (event.kind, event.subject.clone(), event.detail.clone());
        self.recent.insert(key, (sequence, event.at));
    }
}

/// Bounds the memory of [`Log`]; forgetting only costs a row.
const REMEMBERED: usize = 1024;

fn within(first: Timestamp, now: Timestamp, span: Duration) -> bool {
    now.duration_since(first).unsigned_abs() < span
}

impl Event {
    fn first(event: &NewEvent) -> Self {
        Self {
            at: event.at,
            kind: event.kind,
            subject: event.subject.clone(),
            detail: event.detail.clone(),
            times: 1,
        }
    }
}

/// At most `limit` events from number `from` on, oldest first.
pub(crate) fn page(
    transaction: &ReadTransaction,
    from: u64,
    limit: usize,
) -> Result<Vec<(u64, Event)>, Problem> {
    EVENTS.read(transaction)?.page_from(&from, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_all_kinds() {
        let unknown = serde_json::from_value::<EventKind>("".into()).unwrap_err();
        let unknown = unknown.to_string();
        let (_, listed) = unknown.split_once("expected one of ").unwrap();
        let listed: Vec<_> = listed
            .split(", ")
            .map(|word| word.trim_matches('`'))
            .collect();
        assert_eq!(listed, EventKind::WORDS);
    }
}
