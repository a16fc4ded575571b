//! What the connections of one destination share: whose turn it is, what the destination is known
//! to be, whether it can be reached. Every change is made here, under one lock that is never held
//! across anything that waits; one log line for each change of state, none for a retry.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::cursor::Cursor;
use super::schedule::{Ended, Job, Schedule};
use super::session::{Met, Refused, Session};
use super::visit::{Certainty, Setting};
use crate::client::catalogue::{Catalogue, Tracked};
use crate::client::dirty::Queue;
use crate::client::http::{Buffers, Connector, Reply};
use crate::client::plan::{FileError, StopReason, Trust};
use crate::config;
use crate::index::IndexError;
use crate::index::client::{Destination, DestinationId};
use crate::limits::{
    BACKOFF_MAX, BACKOFF_START, CURSORS, PIECE_MAX, PIECE_MIN, PIECE_START, PIECE_TIME,
    STOPPED_RETRY,
};
use crate::sys::{clock, host};
use crate::types::{BootId, FileId, Inode, Offset};
use crate::wire::Seen;

/// For how long a destination's word that closed a generation counts against its next.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// See the module.
pub(super) struct Shared {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) destination: DestinationId,
    pub(super) target: config::Destination,
    pub(super) url: Arc<str>,
    pub(super) connector: Connector,
    pub(super) marks: Arc<Queue>,
    /// The schedule or the gate changed.
    pub(super) changed: Notify,
    /// A sweep began, or a file was swept.
    pub(super) sweep: Notify,
    /// What is expected may have been delivered.
    pub(super) delivered: Notify,
    /// Held while the row is being stored, which goes on when the task that asked for it ends.
    pub(super) storing: Arc<tokio::sync::Mutex<()>>,
    buffers: Buffers,
    piece: AtomicU64,
    sent: AtomicU64,
    connections: AtomicU64,
    state: Mutex<State>,
}

/// Whether requests about files may be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gate {
    Open,
    /// Not before the first connection has met the destination again, which tries then.
    Shut(Instant),
}

pub(super) struct State {
    pub(super) schedule: Schedule,
    pub(super) session: Session,
    /// Files that the sweep under way has not seen yet.
    pub(super) unswept: HashSet<FileId>,
    pub(super) expected: Expected,
    pub(super) last_progress: Option<Instant>,
    /// Why nothing can be delivered; what was last said of it in the log.
    pub(super) fault: Option<String>,
    /// It was said in the log that it is delivered to.
    announced: bool,
    gate: Gate,
    /// Failures in a row without progress.
    failures: u32,
    /// Files that an unverified destination was asked about in this run.
    asked: HashSet<FileId>,
    cursors: HashMap<FileId, (u64, Cursor)>,
    cursor_clock: u64,
    /// Inodes of which a generation was closed on this destination's word.
    closed: HashMap<Inode, Instant>,
    /// The file whose loss stopped the destination.
    pub(super) culprit: Option<FileId>,
}

/// What `sync` waits for.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// File to the length it has to reach and the length it has.
    files: HashMap<FileId, (Offset, Offset)>,
    /// Those that have not arrived.
    left: HashSet<FileId>,
    /// Bytes that they lack.
    bytes: u64,
    /// Files whose generation was closed meanwhile.
    closed: Vec<FileId>,
}

impl Expected {
    /// Waits for a file to reach a length.
    pub(super) fn add(&mut self, id: FileId, wanted: Offset, had: Offset) {
        self.forget(id);
        self.files.insert(id, (wanted, had));
        self.left.insert(id);
        self.bytes += wanted.since(had);
    }

    /// The file has this length now, which may be less than it was.
    fn reached(&mut self, id: FileId, length: Offset) {
        let Some((wanted, had)) = self.files.get_mut(&id) else {
            return;
        };
        if self.left.contains(&id) {
            self.bytes -= wanted.since(*had);
        }
        *had = length;
        if length < *wanted {
            self.bytes += wanted.since(length);
            self.left.insert(id);
        } else {
            self.left.remove(&id);
        }
    }

    /// Nothing is left to do with it.
    fn arrived(&mut self, id: FileId) {
        if self.left.remove(&id)
            && let Some((wanted, had)) = self.files.get(&id)
        {
            self.bytes -= wanted.since(*had);
        }
    }

    fn forget(&mut self, id: FileId) -> bool {
        self.arrived(id);
        self.files.remove(&id).is_some()
    }

    /// Files that have not arrived, with the length they have.
    pub(super) fn left(&self) -> impl Iterator<Item = (FileId, Offset)> {
        let had = |id: &FileId| self.files.get(id).map_or(Offset::ZERO, |(_, had)| *had);
        self.left.iter().map(move |id| (*id, had(id)))
    }

    /// Number of files and bytes that have not arrived.
    pub(super) fn count(&self) -> (usize, u64) {
        (self.left.len(), self.bytes)
    }

    /// Files whose generation was closed meanwhile.
    pub(super) fn closed(&self) -> &[FileId] {
        &self.closed
    }
}

/// What a connection is to do next.
pub(super) enum Todo {
    /// Open the connection if there is none, and send a heartbeat.
    Meet,
    File(Job),
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
        connections: usize,
        marks: Arc<Queue>,
    ) -> Self {
        Self {
            catalogue,
            destination,
            url: target.to_string().into(),
            target,
            connector,
            marks,
            changed: Notify::new(),
            sweep: Notify::new(),
            delivered: Notify::new(),
            storing: Arc::default(),
            buffers: Buffers::default(),
            piece: AtomicU64::new(PIECE_START),
            sent: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            state: Mutex::new(State {
                schedule: Schedule::new(connections),
                session: Session::new(row),
                unswept: HashSet::new(),
                expected: Expected::default(),
                last_progress: None,
                fault: None,
                announced: false,
                gate: Gate::Shut(clock::monotonic()),
                failures: 0,
                asked: HashSet::new(),
                cursors: HashMap::new(),
                cursor_clock: 0,
                closed: HashMap::new(),
                culprit: None,
            }),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do now. `first` is the connection that meets the destination for all; `beat` says
    /// when this one's heartbeat is due, if it is open.
    pub(super) fn todo(&self, first: bool, beat: Option<Instant>) -> Todo {
        let now = clock::monotonic();
        let mut state = self.state();
        while let Some(id) = self.marks.take() {
            state.schedule.mark(id);
        }
        if let Gate::Shut(until) = state.gate {
            return match first {
                true if now >= until => Todo::Meet,
                true => Todo::Wait(Some(until)),
                false => Todo::Wait(None),
            };
        }
        if beat.is_some_and(|beat| now >= beat) || (first && beat.is_none()) {
            return Todo::Meet;
        }
        let Some(job) = state.schedule.take(now) else {
            let due = state.schedule.next_due();
            return Todo::Wait(due.into_iter().chain(beat).min());
        };
        if state.schedule.has_waiting() {
            self.changed.notify_one();
        }
        Todo::File(job)
    }

    /// What a turn has to know, as things stand.
    pub(super) fn setting(&self, long: bool) -> Setting {
        Setting {
            catalogue: Arc::clone(&self.catalogue),
            destination: self.destination,
            url: Arc::clone(&self.url),
            trust: self.state().session.trust(),
            buffers: self.buffers.clone(),
            piece: self.piece.load(Ordering::Relaxed),
            long,
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
        let cursor = state.cursors.remove(&job.id);
        (certainty, cursor.map(|(_, cursor)| cursor))
    }

    /// Whether this destination's word closed a generation of the inode within a day.
    pub(super) fn closed_today(&self, tracked: &Tracked) -> bool {
        let now = clock::monotonic();
        let mut state = self.state();
        state.closed.retain(|_, at| now.duration_since(*at) < DAY);
        state.closed.contains_key(&tracked.inode)
    }

    pub(super) fn close_on_word(&self, tracked: &Tracked) {
        let now = clock::monotonic();
        self.state().closed.insert(tracked.inode, now);
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
            state.keep_cursor(job.id, cursor);
        }
        let settled = state.schedule.end(job, ended);
        if settled.asked {
            self.seen(&mut state, job.id);
        }
        if settled.done {
            state.expected.arrived(job.id);
        }
        if state.is_delivered() {
            self.delivered.notify_waiters();
        }
        if state.schedule.has_waiting() {
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
        state.cursors.remove(&id);
        state.schedule.forget(id);
        if state.expected.forget(id) {
            state.expected.closed.push(id);
        }
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

    /// A piece went out whole and was acknowledged.
    pub(super) fn carried(&self, bytes: u64, time: Duration) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        let piece = self.piece.load(Ordering::Relaxed);
        if bytes < piece / 2 {
            return;
        }
        let per_second = u128::from(bytes) * 1_000_000 / time.as_micros().max(1);
        let carried = per_second * PIECE_TIME.as_millis() / 1000;
        let piece = u64::try_from(carried).unwrap_or(PIECE_MAX);
        self.piece
            .store(piece.clamp(PIECE_MIN, PIECE_MAX), Ordering::Relaxed);
    }

    /// A piece was cut.
    pub(super) fn cut(&self, bytes: u64) {
        let piece = self.piece.load(Ordering::Relaxed).min(bytes.max(PIECE_MIN));
        self.piece
            .store((piece / 2).max(PIECE_MIN), Ordering::Relaxed);
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
        let (stamp, kept) = (reply.stamp(), reply.kept());
        let met = {
            let mut state = self.state();
            let met = state.session.meet(connection, reply.status, stamp, kept)?;
            self.know(&state);
            met
        };
        if met.sweep {
            self.store().await?;
        }
        self.tell(met);
        if met.sweep {
            self.sweep.notify_one();
        }
        Ok(stamp.map(|stamp| stamp.boot))
    }

    fn tell(&self, met: Met) {
        if met.other_store {
            tracing::warn!(
                "{}: another store answers than before; every file there is looked at again",
                self.url
            );
        } else if met.sweep && !met.now_verified {
            tracing::warn!(
                "{}: may not have kept all that it acknowledged; every file there is looked at again",
                self.url
            );
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

    /// The destination can be reached: turns may begin.
    pub(super) fn open_gate(&self) {
        let mut state = self.state();
        // Another connection may have found out meanwhile.
        if state.session.stopped().is_some() {
            return;
        }
        state.gate = Gate::Open;
        // One that fails whatever it is given is well only when it takes something.
        if !state.announced || state.schedule.is_settled() {
            self.well(&mut state);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The destination does what it should.
    fn well(&self, state: &mut State) {
        state.failures = 0;
        if state.announced && state.fault.is_none() {
            return;
        }
        state.announced = true;
        state.fault = None;
        match state.session.trust() {
            Trust::Verified => tracing::info!("{}: connected, verified", self.url),
            Trust::Unverified => tracing::warn!(
                "{}: connected, UNVERIFIED: it is no shaftlog server, and proves nothing",
                self.url
            ),
        }
    }

    /// The destination does not serve: nobody tries before a pause, which grows from failure to
    /// failure until there is progress. Failures of several connections at once count as one;
    /// `meeting` is the attempt to come back.
    pub(super) fn shut_gate(&self, meeting: bool, why: &str, retry_after: Option<Duration>) {
        let mut state = self.state();
        if meeting || state.gate == Gate::Open {
            let pause = backoff(state.failures);
            state.failures = state.failures.saturating_add(1);
            let pause = retry_after.map_or(pause, |after| after + pause);
            state.gate = Gate::Shut(clock::monotonic() + pause);
        }
        // The first failure after progress is no news yet: a bad line has one every second.
        if state.fault.is_none() && state.failures > 1 {
            tracing::warn!("{}: {why}; trying again until it works", self.url);
            state.fault = Some(why.to_owned());
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// How long a file waits that brought this turn nowhere.
    pub(super) fn put_off(&self, id: FileId) -> Instant {
        let vain = self.state().schedule.vain(id);
        clock::monotonic() + backoff(vain - 1)
    }

    /// One line for a file that was not in error before, or otherwise.
    pub(super) fn tell_failure(&self, tracked: &Tracked, error: &FileError) {
        let known = self.state().schedule.errors().get(&tracked.id) == Some(error);
        if !known {
            tracing::warn!("{}: {}: {error}", self.url, tracked.name);
        }
    }

    /// No PUT from now on.
    pub(super) async fn stop(self: &Arc<Self>, reason: StopReason, culprit: Option<FileId>) {
        {
            let mut state = self.state();
            state.gate = Gate::Shut(clock::monotonic() + STOPPED_RETRY);
            state.culprit = culprit.or(state.culprit);
            if state.session.stopped().is_some() {
                return;
            }
            let reason = reason.to_string();
            tracing::error!("{}: stopped, gets no more: {reason}", self.url);
            state.fault = Some(format!("stopped: {reason}"));
            state.session.stop(&reason);
        }
        if let Err(error) = self.store().await {
            tracing::error!("{}: {error}", self.url);
        }
    }

    /// A stopped destination is well again.
    pub(super) async fn resume(self: &Arc<Self>) {
        {
            let mut state = self.state();
            state.session.resume();
            state.culprit = None;
            state.failures = 0;
            tracing::info!("{}: no longer stopped", self.url);
        }
        if let Err(error) = self.store().await {
            tracing::error!("{}: {error}", self.url);
        }
    }

    /// A stopped destination is still not well.
    pub(super) fn stay_stopped(&self) {
        let mut state = self.state();
        state.gate = Gate::Shut(clock::monotonic() + STOPPED_RETRY);
        if state.fault.is_none() {
            let reason = state.session.stopped().unwrap_or_default().to_owned();
            tracing::error!("{}: stopped, gets no more: {reason}", self.url);
            state.fault = Some(format!("stopped: {reason}"));
        }
    }

    /// Whatever is put off, stopped or in error is asked about now.
    pub(super) fn ask_again(&self) {
        let mut state = self.state();
        state.schedule.ask_deferred();
        if let Gate::Shut(until) = &mut state.gate {
            *until = clock::monotonic();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub(super) fn is_open(&self) -> bool {
        self.state().gate == Gate::Open
    }

    /// Whether a connection led to the run that answers now may be used for a request.
    pub(super) fn serves(&self, boot: Option<BootId>, trust: Trust) -> bool {
        let state = self.state();
        let session = &state.session;
        session.stopped().is_none() && session.row().boot == boot && session.trust() == trust
    }
}

impl State {
    /// Keeps a cursor for the file's next turn, and forgets the one unused for longest when there
    /// are too many.
    fn keep_cursor(&mut self, id: FileId, cursor: Cursor) {
        self.cursor_clock += 1;
        self.cursors.insert(id, (self.cursor_clock, cursor));
        if self.cursors.len() > CURSORS {
            let oldest = self.cursors.iter().min_by_key(|(_, (used, _))| *used);
            if let Some((&oldest, _)) = oldest {
                self.cursors.remove(&oldest);
            }
        }
    }

    /// Whether all that is expected has arrived, or is in error: only time can change that.
    pub(super) fn is_delivered(&self) -> bool {
        let errors = self.schedule.errors();
        self.session.met()
            && !self.session.row().sweep_pending
            && self.expected.left.len() <= errors.len()
            && self.expected.left.iter().all(|id| errors.contains_key(id))
    }
}

/// Why an answer, or what had to be stored because of it, is not to be gone on from.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("cannot record it: {0}")]
    Index(#[from] IndexError),
    #[error("this process is ending")]
    Ended,
}

/// A pause after so many failures: none after the first, then drawn from 0 to a bound that doubles
/// ("full jitter": clients that failed together do not come back together).
fn backoff(failures: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else {
        return Duration::ZERO;
    };
    let bound = BACKOFF_START
        .saturating_mul(1 << doublings.min(16))
        .min(BACKOFF_MAX);
    // Without randomness the whole bound does.
    let random = host::random_bytes::<4>().map_or(u32::MAX, u32::from_be_bytes);
    bound.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(bytes: u64) -> Offset {
        Offset::new(bytes).unwrap()
    }

    #[test]
    fn what_arrived_and_was_lost_again_is_expected_again() {
        let mut expected = Expected::default();
        expected.add(FileId(1), offset(100), offset(40));
        expected.add(FileId(2), offset(10), offset(0));
        assert_eq!(expected.count(), (2, 70));
        expected.reached(FileId(1), offset(90));
        assert_eq!(expected.count(), (2, 20));
        expected.reached(FileId(1), offset(120));
        assert_eq!(expected.count(), (1, 10));
        expected.reached(FileId(1), offset(30));
        assert_eq!(expected.count(), (2, 80));
        expected.add(FileId(1), offset(100), offset(30));
        assert_eq!(expected.count(), (2, 80));
        assert!(expected.forget(FileId(1)));
        expected.arrived(FileId(2));
        assert_eq!(expected.count(), (0, 0));
        assert!(!expected.forget(FileId(3)));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_the_first_is_none() {
        assert_eq!(backoff(0), Duration::ZERO);
        for failures in 1..200 {
            let bound = BACKOFF_START.saturating_mul(1 << (failures - 1).min(16));
            assert!(backoff(failures) <= bound.min(BACKOFF_MAX), "{failures}");
        }
    }
}
