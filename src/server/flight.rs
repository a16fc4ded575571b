//! What is written to a path and not committed yet: landings, one after the other. While one is in
//! fdatasync and commit, the PUT that continues it (and no other request) gets the path, is judged
//! by what is written, and becomes the next landing.
//!
//! Promised: landings of a path are synced and committed in the order in which they were written,
//! and each is answered after the commit that covers it. One that fails takes those behind it
//! along: their bytes stay as a tail, which whoever comes next finds. A crash leaves the same.

use std::collections::VecDeque;

use super::vouch::Landing;
use crate::types::Offset;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// W, where the next PUT may go on; `None` when nobody may.
    end: Option<Offset>,
    is_under_way: bool,
    /// Those that wait for the one under way.
    queue: VecDeque<Landing>,
    has_failed: bool,
}

impl Flight {
    /// W, where the next PUT may go on.
    pub(super) fn end(&self) -> Option<Offset> {
        self.end
    }

    /// Whether a landing failed that whoever holds the path now was judged by.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// A further landing, written up to `end`; given back to be begun now if none is under way.
    pub(super) fn add(&mut self, landing: Landing, end: Offset) -> Option<Landing> {
        self.end = Some(end);
        if std::mem::replace(&mut self.is_under_way, true) {
            self.queue.push_back(landing);
            return None;
        }
        Some(landing)
    }

    /// Whoever held the path gave it back, written up to `end` if that is known. `false`: the
    /// flight is over.
    pub(super) fn go_on_from(&mut self, end: Option<Offset>) -> bool {
        self.end = end;
        !self.has_failed
    }

    /// The landing under way has landed: the next.
    pub(super) fn landed(&mut self) -> Option<Landing> {
        let next = self.queue.pop_front();
        self.is_under_way = next.is_some();
        next
    }

    /// A landing failed: all that wait for it, which fail too. Whoever holds the path learns of it
    /// at its end.
    pub(super) fn fail(&mut self) -> VecDeque<Landing> {
        self.has_failed = true;
        self.end = None;
        std::mem::take(&mut self.queue)
    }
}
