//! What the connections of one destination share: whose turn it is, what the destination is known
//! to be, whether it can be reached. Every change is made here, under one lock that is never held
//! across anything that waits; one log line for each change of state, none for a retry.

mod cursors;
mod gate;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use self::cursors::Cursors;
use self::gate::Gate;
use super::Mode;
use super::anew::Anew;
use super::cursor::Cursor;
use super::expected::Expected;
use super::pace::{backoff, piece_after, piece_after_cut};
use super::piece::Ending;
use super::pipeline::{Errand, Lent, Places};
use super::schedule::{Ended, Job, Schedule};
use super::session::{Cause, Refused, Session};
use super::visit::{Certainty, Question, Setting};
use crate::client::catalogue::{Catalogue, Tracked};
use crate::client::dirty::Queue;
use crate::client::http::{Buffers, Connector, Reply};
use crate::client::plan::{FileError, Trust};
use crate::config;
use crate::index::IndexError;
use crate::index::client::{Destination, DestinationId};
use crate::limits::{ERROR_RETRY, PIECE_START};
use crate::sys::clock;
use crate::types::words::span;
use crate::types::{BootId, FileId, Inode, Offset, StableName};
use crate::wire::Seen;

/// For how long a destination's word that closed a generation counts against its next.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How many generations of one inode a destination's word may close in a day. A file that is truncated
/// while answers are lost needs some; one that lies would have it delivered anew without end.
const CLOSED_A_DAY: u32 = 4;

/// Why a destination does not serve.
pub(super) struct Failure {
    pub(super) why: String,
    /// How long that took to find out, at least.
    pub(super) took: Duration,
    /// For how long it asks to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    /// It says so itself.
    pub(super) fn said(why: String, retry_after: Option<Duration>) -> Self {
        Self {
            why,
            took: Duration::ZERO,
            retry_after,
        }
    }
}

/// See the module.
pub(super) struct Shared {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) destination: DestinationId,
    pub(super) target: config::Destination,
    /// What the destination is called for people.
    pub(super) called: Arc<str>,
    pub(super) connector: Connector,
    mode: Mode,
    pub(super) marks: Arc<Queue>,
    /// The schedule or the gate changed.
    pub(super) changed: Notify,
    /// A sweep began, or a file was swept.
    pub(super) sweep: Notify,
    /// What is expected may have been delivered.
    pub(super) delivered: Notify,
    /// A file was confirmed anew.
    pub(super) reconfirmed: Notify,
    /// Held while the row is being stored, which goes on when the task that asked for it ends.
    pub(super) storing: Arc<tokio::sync::Mutex<()>>,
    pub(super) ending: Ending,
    buffers: Buffers,
    places: Places,
    piece: AtomicU64,
    sent: AtomicU64,
    connections: AtomicU64,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) schedule: Schedule,
    errands: VecDeque<Errand>,
    pub(super) session: Session,
    /// Files that the sweep under way has not seen yet.
    pub(super) unswept: HashSet<FileId>,
    pub(super) expected: Expected,
    pub(super) anew: Anew,
    pub(super) last_progress: Option<Instant>,
    /// Why nothing can be delivered; what was last said of it in the log.
    pub(super) fault: Option<String>,
    /// What the last failure was, said or not; none since it last took something.
    pub(super) last_failure: Option<String>,
    /// It was said in the log that it is delivered to.
    announced: bool,
    gate: Gate,
    /// Failures in a row without progress.
    failures: u32,
    /// When the first of them was.
    failing_since: Instant,
    /// Files that an unverified destination was asked about in this run.
    asked: HashSet<FileId>,
    cursors: Cursors,
    /// Inodes of which generations were closed on this destination's word, when last and how often.
    closed: HashMap<Inode, (Instant, u32)>,
    /// The file whose loss stopped the destination.
    pub(super) culprit: Option<FileId>,
}

/// What a connection is to do next.
pub(super) enum Todo {
    /// Open the connection if there is none, and send a heartbeat.
    Meet,
    File(Job),
    /// Send a piece for another connection.
    Errand(Errand),
    /// Nothing before this time, unless something changes.
    Wait(Option<Instant>),
    /// Nobody is there any more to work for.
    End,
}

impl Shared {
    pub(super) fn new(
        catalogue: Arc<Catalogue>,
        (destination, row): (DestinationId, Destination),
        target: config::Destination,
        connector: Connector,
        (mode, connections): (Mode, usize),
        marks: Arc<Queue>,
    ) -> Self {
        Self {
            catalogue,
            destination,
            called: target.name().into(),
            target,
            connector,
            mode,
            marks,
            changed: Notify::new(),
            sweep: Notify::new(),
            delivered: Notify::new(),
            reconfirmed: Notify::new(),
            storing: Arc::default(),
            ending: Ending::default(),
            buffers: Buffers::default(),
            places: Places::default(),
            piece: AtomicU64::new(PIECE_START),
            sent: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            state: Mutex::new(State {
                schedule: Schedule::new(connections),
                errands: VecDeque::new(),
                session: Session::new(row),
                unswept: HashSet::new(),
                expected: Expected::default(),
                anew: Anew::default(),
                last_progress: None,
                fault: None,
                last_failure: None,
                announced: false,
                gate: Gate::Shut(clock::monotonic()),
                failures: 0,
                failing_since: clock::monotonic(),
                asked: HashSet::new(),
                cursors: Cursors::default(),
                closed: HashMap::new(),
                culprit: None,
            }),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do now. `first` is the connection that keeps up with an idle destination; `beat` says
    /// when this one's heartbeat is due, if it is open. Whoever is free first meets a destination
    /// that failed, for all.
    pub(super) fn todo(&self, first: bool, beat: Option<Instant>) -> Todo {
        let now = clock::monotonic();
        let mut state = self.state();
        while let Some(id) = self.marks.take() {
            state.schedule.mark(id);
        }
        match state.gate {
            Gate::Open => {}
            Gate::Shut(until) if now < until => return Todo::Wait(Some(until)),
            Gate::Shut(_) => {
                state.gate = Gate::Meeting;
                return Todo::Meet;
            }
            Gate::Meeting => return Todo::Wait(None),
        }
        if beat.is_some_and(|beat| now >= beat) || (first && beat.is_none()) {
            return Todo::Meet;
        }
        let Some(job) = state.schedule.take(now, self.places.taken()) else {
            if let Some(errand) = state.errands.pop_front() {
                return Todo::Errand(errand);
            }
            let due = state.schedule.next_due();
            return Todo::Wait(due.into_iter().chain(beat).min());
        };
        if state.schedule.has_waiting() {
            self.changed.notify_one();
        }
        Todo::File(job)
    }

    /// Whether another connection may be asked to send a piece: one is kept for short files.
    pub(super) fn lends(&self) -> bool {
        let state = self.state();
        state.schedule.long_is_free(self.places.taken())
    }

    /// Asks another connection to send a piece.
    pub(super) fn lend(&self, trust: Trust, name: StableName, question: Question) -> Lent {
        let (errand, lent) = Errand::new(trust, name, question, self.places.take());
        self.state().errands.push_back(errand);
        self.changed.notify_one();
        lent
    }

    /// What a turn has to know, as things stand.
    pub(super) fn setting(&self, long: bool) -> Setting {
        Setting {
            catalogue: Arc::clone(&self.catalogue),
            destination: self.destination,
            called: Arc::clone(&self.called),
            trust: self.state().session.trust(),
            buffers: self.buffers.clone(),
            piece: self.piece.load(Ordering::Relaxed),
            long,
            ending: self.ending.clone(),
        }
    }

    /// What is remembered of a file from earlier turns.
    pub(super) fn recall(&self, job: Job) -> (Certainty, Option<Cursor>) {
        let mut state = self.state();
        let certainty = if job.unsure {
            Certainty::Unsure
        } else if state.asked.contains(&job.id) {
            Certainty::Asked
        } else {
            Certainty::Recorded
        };
        (certainty, state.cursors.take(job.id))
    }

    /// Whether this destination's word closed as many generations of the inode within a day as it may.
    pub(super) fn closed_today(&self, tracked: &Tracked) -> bool {
        let now = clock::monotonic();
        let mut state = self.state();
        state
            .closed
            .retain(|_, (at, _)| now.duration_since(*at) < DAY);
        let closed = state.closed.get(&tracked.inode);
        closed.is_some_and(|(_, times)| *times >= CLOSED_A_DAY)
    }

    pub(super) fn close_on_word(&self, tracked: &Tracked) {
        let now = clock::monotonic();
        let mut state = self.state();
        let (at, times) = state.closed.entry(tracked.inode).or_insert((now, 0));
        *at = now;
        *times += 1;
    }

    /// A turn ended.
    pub(super) fn end(&self, job: Job, ended: Ended, cursor: Option<Cursor>) {
        let mut state = self.state();
        match &ended {
            Ended::Done | Ended::More { .. } => {
                if state.session.trust() == Trust::Unverified {
                    state.asked.insert(job.id);
                }
                if ended == Ended::Done {
                    self.well(&mut state);
                }
            }
            Ended::Failed(..) | Ended::Later(_) => {
                state.asked.remove(&job.id);
            }
            Ended::Untried { .. } => {}
        }
        if let Some(cursor) = cursor {
            state.cursors.keep(job.id, cursor);
        }
        let put_off = matches!(ended, Ended::Later(_) | Ended::Failed(..));
        let settled = state.schedule.end(job, ended);
        if settled.asked {
            self.seen(&mut state, job.id);
        }
        if settled.done {
            let progress = self.catalogue.progress(self.destination, job.id);
            state.expected.done(job.id, progress.as_deref());
        }
        if state.is_delivered() {
            self.delivered.notify_waiters();
        }
        // Whoever waits has to know of what is due earlier: this connection may be busy then.
        if put_off || state.schedule.has_waiting() {
            self.changed.notify_one();
        }
    }

    /// The sweep has seen the file.
    fn seen(&self, state: &mut State, id: FileId) {
        if state.unswept.remove(&id) {
            self.sweep.notify_one();
        }
    }

    /// Its generation was closed, or it is active no more.
    pub(super) fn forget(&self, id: FileId) {
        let mut state = self.state();
        state.asked.remove(&id);
        state.cursors.take(id);
        state.schedule.forget(id);
        state.expected.close(id);
        self.seen(&mut state, id);
    }

    /// The file's C is `length` now.
    pub(super) fn progressed(&self, id: FileId, length: Offset) {
        let mut state = self.state();
        self.well(&mut state);
        state.last_progress = Some(clock::monotonic());
        state.schedule.progressed(id);
        state.expected.reached(id, length);
        if state.is_delivered() {
            self.delivered.notify_waiters();
        }
    }

    /// Bytes went out whole and were acknowledged.
    pub(super) fn carried(&self, bytes: u64, time: Duration) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        let piece = self.piece.load(Ordering::Relaxed);
        self.piece
            .store(piece_after(piece, bytes, time), Ordering::Relaxed);
    }

    /// A piece was cut.
    pub(super) fn cut(&self, bytes: u64) {
        let piece = self.piece.load(Ordering::Relaxed);
        self.piece
            .store(piece_after_cut(piece, bytes), Ordering::Relaxed);
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// A serial number for a new connection.
    pub(super) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What the next heartbeat says was seen.
    pub(super) fn seen_header(&self) -> Option<Seen> {
        self.state().session.seen()
    }

    /// A heartbeat was answered on the connection with this serial number; gives what the
    /// connection's later answers have to say of themselves. What the row says is durable when
    /// this returns, if it has to be.
    pub(super) async fn met(
        self: &Arc<Self>,
        connection: u64,
        reply: &Reply,
    ) -> Result<Option<BootId>, Fault> {
        if let Some(why) = reply.turned_away() {
            return Err(Fault::TurnedAway(why));
        }
        let (stamp, kept) = (reply.stamp(), reply.kept());
        let cause = {
            let mut state = self.state();
            let cause = state.session.meet(connection, reply.status, stamp, kept)?;
            self.know(&state);
            cause
        };
        if let Some(cause) = cause {
            let stored = self.store().await;
            self.tell(cause);
            // Stored or not, it has begun, and no later answer begins it again.
            self.sweep.notify_one();
            stored?;
        }
        Ok(stamp.map(|stamp| stamp.boot))
    }

    fn tell(&self, cause: Cause) {
        let called = &self.called;
        match cause {
            // That it is connected, and how, is said anyway.
            Cause::New => {}
            Cause::OtherStore => tracing::warn!(
                "{called}: another store answers than before; every file there is looked at again"
            ),
            Cause::Lost => tracing::warn!(
                "{called}: may not have kept all that it acknowledged; every file there is looked at again"
            ),
            Cause::Unfinished => {
                tracing::info!("{called}: going on to look at every file there again");
            }
        }
    }

    /// Has the row stored with whatever is stored next. Under the lock, so that an older row never
    /// follows a newer one.
    fn know(&self, state: &State) {
        let row = state.session.row().clone();
        self.catalogue.know(self.destination, row);
    }

    /// Makes the row durable as it is now.
    pub(super) async fn store(self: &Arc<Self>) -> Result<(), Fault> {
        let shared = Arc::clone(self);
        let storing = Arc::clone(&self.storing).lock_owned().await;
        let stored = tokio::task::spawn_blocking(move || {
            shared.know(&shared.state());
            let stored = shared.catalogue.flush();
            drop(shared);
            drop(storing);
            stored
        });
        match stored.await {
            Ok(stored) => Ok(stored?),
            Err(_) => Err(Fault::Ended),
        }
    }

    /// Any other answer of a connection.
    pub(super) fn note(&self, boot: Option<BootId>, reply: &Reply) -> Result<(), Fault> {
        let mut state = self.state();
        let before = state.session.row().number;
        state.session.note(boot, reply.stamp())?;
        if state.session.row().number != before {
            self.know(&state);
        }
        Ok(())
    }

    /// How long a file waits that brought this turn nowhere.
    pub(super) fn put_off(&self, id: FileId) -> Instant {
        let vain = self.state().schedule.vain(id);
        let pause = backoff(vain - 1);
        tracing::debug!("{}: file {id} waits for {pause:?}", self.called);
        clock::monotonic() + pause
    }

    /// The end of a turn that failed. What our own side could not do may work the next moment; what
    /// the destination says rarely changes.
    pub(super) fn in_error(&self, id: FileId, error: FileError) -> Ended {
        let until = match error {
            FileError::Unreadable(_) => self.put_off(id),
            _ => clock::monotonic() + ERROR_RETRY,
        };
        Ended::Failed(error, until)
    }

    /// One line for a file that was not in error before, or otherwise.
    pub(super) fn tell_failure(&self, tracked: &Tracked, error: &FileError) {
        let known = self.state().schedule.errors().get(&tracked.id) == Some(error);
        if !known {
            let (called, name) = (&self.called, &tracked.name);
            match (self.mode, error) {
                (Mode::Once, _) | (_, FileError::Unreadable(_)) => {
                    tracing::warn!("{called}: {name}: {error}");
                }
                (Mode::Daemon, _) => {
                    let again = span(ERROR_RETRY);
                    tracing::warn!(
                        "{called}: {name}: {error}; asked again in {again}, or at once on SIGHUP"
                    );
                }
            }
        }
    }

    /// Whether a connection led to the run that answers now may be used for a request.
    pub(super) fn serves(&self, boot: Option<BootId>, trust: Trust) -> bool {
        let state = self.state();
        let session = &state.session;
        session.stopped().is_none() && session.row().boot == boot && session.trust() == trust
    }
}

impl State {
    /// Whether all that is expected has arrived, or is in error: only time can change that.
    pub(super) fn is_delivered(&self) -> bool {
        let errors = self.schedule.errors();
        self.session.met() && !self.session.row().sweep_pending && self.expected.only(errors)
    }
}

/// Why an answer, or what had to be stored because of it, is not to be gone on from.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("it turns connections away, {0}")]
    TurnedAway(String),
    #[error("cannot record it: {0}")]
    Index(#[from] IndexError),
    #[error("this process is ending")]
    Ended,
}
