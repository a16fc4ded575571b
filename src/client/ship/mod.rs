//! Delivery to one destination: its connections, whose turn it is, and what is known of it. Each
//! destination is a tree of tasks of its own, so that a failing or slow one delays no other.
//!
//! A mark puts a file into the [`schedule`]; a [`worker`] takes its turn; the [`visit`] asks
//! `plan` what to do, on a thread that may block, until there is a question; the worker puts it;
//! the answer goes back into the visit. Nothing is given up, ever: errors of a file put that file
//! off, failures of the destination put all off, with a pause that grows.
//!
//! A crash here loses nothing: what is confirmed and not yet stored is found again by asking, and
//! the destination's row is stored before what depends on it ([`session`]).

mod anew;
mod cursor;
mod exchange;
mod expected;
mod pace;
mod piece;
mod pipeline;
mod schedule;
mod session;
mod shared;
mod sweep;
#[cfg(test)]
mod tests;
mod visit;
mod worker;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::anew::Word;
use self::shared::Shared;
use self::worker::Worker;
use super::catalogue::Catalogue;
use super::dirty::Dirty;
use super::http::Connector;
use super::plan::{FileError, Trust};
use crate::config;
use crate::index::IndexError;
use crate::limits::SHUTDOWN_TIME;
use crate::types::{FileId, Offset, StableName};

/// The delivery to one destination; see the module. Dropping it ends it at once.
pub struct Ship {
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
}

/// For how long files are delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Until it is asked to end.
    Daemon,
    /// Until what is there has arrived.
    Once,
}

/// How a destination stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// What it is called: its URL, or a directory.
    pub called: String,
    /// It was met and can be reached.
    pub connected: bool,
    /// Its answers prove what they say; `None` before it was ever met.
    pub verified: Option<bool>,
    /// Why it gets no more, if it does not.
    pub stopped: Option<String>,
    /// What is wrong with it, if it does not take anything.
    pub fault: Option<String>,
    /// What the last failure was, even a single one; none since it last took something.
    pub last_failure: Option<String>,
    /// Every file there is being looked at again.
    pub sweeping: bool,
    /// Files that wait.
    pub files_behind: usize,
    /// Bytes sent and taken since the start.
    pub bytes_sent: u64,
    /// Of what [`Ship::expect`] named: files and bytes that have not arrived.
    pub expected: Left,
    /// When it last confirmed something.
    pub last_progress: Option<Instant>,
    /// Files in error, with the reason.
    pub errors: Vec<(FileId, FileError)>,
}

/// What has not arrived yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Left {
    /// Files.
    pub files: usize,
    /// Bytes.
    pub bytes: u64,
}

/// An expected file that has not arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    /// Its number.
    pub id: FileId,
    /// Its name; `None` when its generation was closed meanwhile.
    pub name: Option<StableName>,
    /// What was confirmed of it, in bytes.
    pub confirmed: Offset,
    /// Why, when it is known.
    pub error: Option<FileError>,
}

impl Ship {
    /// Starts delivering every active file of the catalogue to `target`, and what is marked later,
    /// over at most so many connections. To be called within a runtime; reads the database.
    pub fn start(
        catalogue: &Arc<Catalogue>,
        dirty: &Dirty,
        target: config::Destination,
        connector: Connector,
        (mode, connections): (Mode, usize),
    ) -> Result<Self, IndexError> {
        let marks = dirty.queue();
        for id in catalogue.active() {
            marks.mark(id);
        }
        let row = catalogue.index().destination(&target.to_string())?;
        let shared = Arc::new(Shared::new(
            Arc::clone(catalogue),
            row,
            target,
            connector,
            (mode, connections),
            marks,
        ));
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for index in 0..connections.max(1) {
            let worker = Worker::new(Arc::clone(&shared), index == 0, stopped.clone());
            tasks.spawn(worker.run());
        }
        tasks.spawn(until(stopped, sweep::run(Arc::clone(&shared))));
        Ok(Self {
            tasks,
            shared,
            stop,
        })
    }

    /// How it stands now.
    pub fn status(&self) -> Status {
        let connected = self.shared.is_open();
        let state = self.shared.state();
        let known = state.session.met() || state.session.row().verified;
        let errors = state.schedule.errors();
        let waiting = state.schedule.pending();
        let (files, bytes) = state.expected.count();
        Status {
            called: self.shared.called.to_string(),
            connected,
            verified: known.then(|| state.session.trust() == Trust::Verified),
            stopped: state.session.stopped().map(str::to_owned),
            fault: state.fault.clone(),
            last_failure: state.last_failure.clone(),
            sweeping: state.session.row().sweep_pending,
            files_behind: waiting.count(),
            bytes_sent: self.shared.sent(),
            expected: Left { files, bytes },
            last_progress: state.last_progress,
            errors: errors
                .iter()
                .map(|(id, error)| (*id, error.clone()))
                .collect(),
        }
    }

    /// Bytes of the files that wait, as far as they can be read. Opens each of them: it blocks.
    pub fn bytes_behind(&self) -> u64 {
        let waiting: Vec<FileId> = self.shared.state().schedule.pending().collect();
        let catalogue = &self.shared.catalogue;
        let behind = |id: FileId| {
            let size = catalogue.open(id).ok()?.size().ok()?;
            let progress = catalogue.progress(self.shared.destination, id);
            let confirmed = progress.map_or(Offset::ZERO, |progress| progress.confirmed.length);
            Some(size.since(confirmed))
        };
        waiting.into_iter().filter_map(behind).sum()
    }

    /// Expects these files to arrive up to these lengths; [`delivered`](Self::delivered) waits for
    /// them.
    pub fn expect(&self, files: &[(FileId, Offset)]) {
        let confirmed = |id: FileId| {
            let progress = self.shared.catalogue.progress(self.shared.destination, id);
            progress.map_or(Offset::ZERO, |progress| progress.confirmed.length)
        };
        let rows: Vec<_> = files
            .iter()
            .map(|(id, size)| (*id, (*size, confirmed(*id))))
            .collect();
        let mut state = self.shared.state();
        for (id, (size, had)) in rows {
            state.expected.add(id, size, had);
            state.schedule.mark(id);
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Returns when all that is expected is durably confirmed by a destination that was met and
    /// has nothing left to be looked at, or when only files in error are left. It never gives up;
    /// patience is the caller's, by [`Status::last_progress`].
    pub async fn delivered(&self) {
        loop {
            let delivered = self.shared.delivered.notified();
            tokio::pin!(delivered);
            delivered.as_mut().enable();
            if self.shared.state().is_delivered() {
                return;
            }
            delivered.await;
        }
    }

    /// What is expected and has not arrived, with what is known of why; closed generations too.
    pub fn missing(&self) -> Vec<Missing> {
        let catalogue = &self.shared.catalogue;
        let rows: Vec<_> = {
            let state = self.shared.state();
            let errors = state.schedule.errors();
            let left = state.expected.left();
            let left = left.map(|(id, had)| (id, had, errors.get(&id).cloned()));
            let closed = state.expected.closed().iter();
            left.chain(closed.map(|id| (*id, Offset::ZERO, None)))
                .collect()
        };
        rows.into_iter()
            .map(|(id, confirmed, error)| Missing {
                id,
                name: catalogue.tracked(id).map(|tracked| tracked.name.clone()),
                confirmed,
                error,
            })
            .collect()
    }

    /// Asks now about whatever is in error, put off or stopped (SIGHUP).
    pub fn ask_again(&self) {
        self.shared.ask_again();
    }

    /// Ends it in order: no new turn begins, those under way get [`SHUTDOWN_TIME`]. What they had
    /// confirmed is in the catalogue, to be flushed by the caller.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        self.shared.ending.begin();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(SHUTDOWN_TIME, ended).await.is_err() {
            tracing::debug!("{}: a request was broken off", self.shared.called);
        }
        drop(self.shared.storing.lock().await);
    }
}

/// Runs a task until told to stop.
async fn until(mut stop: watch::Receiver<bool>, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}
