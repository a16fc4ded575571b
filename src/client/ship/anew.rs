//! What is asked of a destination beyond what a file's own course asks: to confirm anew all that it
//! has before our link goes, to look again at what the scrub doubts; and what is remembered from turn
//! to turn of where a file differs.

use std::collections::{HashMap, HashSet};

use super::Ship;
use super::shared::Shared;
use super::visit::{Remembered, Visit};
use crate::client::plan::{Remote, Search};
use crate::limits::SEARCHES;
use crate::types::{FileId, Prefix};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Anew {
    wanted: HashSet<FileId>,
    heard: HashMap<FileId, Word>,
    searches: HashMap<FileId, Search>,
}

/// What a destination has just said of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// It durably has this, or had when it was retired.
    pub confirmed: Prefix,
    /// It proved that, rather than only telling a length.
    pub verified: bool,
    /// Its operator gave the file up: what it had counts as delivered.
    pub retired: bool,
}

impl Ship {
    /// Has the destination confirm these files anew; what it said before counts no more.
    pub fn reconfirm(&self, ids: &[FileId]) {
        let mut state = self.shared.state();
        state.anew.wanted = ids.iter().copied().collect();
        state.anew.heard.clear();
        for id in ids {
            state.schedule.ask(*id);
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Returns when the destination has said something of all of them.
    pub async fn reconfirmed(&self) {
        loop {
            let heard = self.shared.reconfirmed.notified();
            tokio::pin!(heard);
            heard.as_mut().enable();
            if self.shared.state().anew.wanted.is_empty() {
                return;
            }
            heard.await;
        }
    }

    /// What it has said of them since; nothing is asked any more.
    pub fn words(&self) -> HashMap<FileId, Word> {
        let mut state = self.shared.state();
        state.anew.wanted.clear();
        std::mem::take(&mut state.anew.heard)
    }

    /// Asks about a file now.
    pub fn ask(&self, id: FileId) {
        self.shared.state().schedule.ask(id);
        self.shared.changed.notify_waiters();
    }
}

impl Shared {
    /// A turn has come to its end with nothing left to do.
    pub(super) fn settled(&self, visit: &Visit) {
        if !visit.is_confirmed_anew() {
            return;
        }
        let id = visit.tracked.id;
        let row = self.catalogue.progress(self.destination, id);
        let retired = match visit.course.remote {
            Remote::Retired(was) => Some(was),
            _ => None,
        };
        let word = row.map(|row| Word {
            confirmed: retired.unwrap_or(row.confirmed),
            verified: row.verified,
            retired: retired.is_some(),
        });
        let mut state = self.state();
        if let Some(word) = word
            && state.anew.wanted.remove(&id)
        {
            state.anew.heard.insert(id, word);
            drop(state);
            self.reconfirmed.notify_waiters();
        }
    }

    /// What a turn of the file begins with.
    pub(super) fn remembered(&self, id: FileId) -> Remembered {
        let mut state = self.state();
        Remembered {
            search: state.anew.searches.remove(&id),
            error: state.schedule.errors().get(&id).cloned(),
            reconfirm: state.anew.wanted.contains(&id),
        }
    }

    /// Keeps how far a search has come; of one too many, it begins anew.
    pub(super) fn keep_search(&self, id: FileId, search: Option<Search>) {
        let Some(search) = search else {
            return;
        };
        let searches = &mut self.state().anew.searches;
        if searches.len() < SEARCHES {
            searches.insert(id, search);
        }
    }
}
