//! One connection of a destination, and the turns that go over it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

use super::piece::Piece;
use super::schedule::{Ended, Job};
use super::session::Refused;
use super::shared::{Fault, Shared, Todo};
use super::visit::{Question, Setting, Turn, Visit};
use crate::client::http::{Line, LineError, Payload, Reply};
use crate::client::plan::{After, Asked, FileError, Heard, Remote, Trust, heard};
use crate::index::client::Progress;
use crate::limits::{HEARTBEAT, IO_CHUNK, PIECE_MIN, PIECE_START};
use crate::sys::clock;
use crate::types::{BootId, FileId, Offset, StableName};
use crate::wire::{ContentRange, ReprDigest, header};

/// A connection unused for so long may have been closed by the other side without our fault.
const STALE: Duration = Duration::from_secs(1);
/// How long a busy file waits when the destination does not say.
const BUSY: Duration = Duration::from_secs(1);
/// And at least, when it says at once.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Worker {
    shared: Arc<Shared>,
    /// Keeps up with an idle destination, for all.
    first: bool,
    stop: watch::Receiver<bool>,
    connection: Option<Connection>,
    /// When the next heartbeat is due; `None` before the first was answered, or after a failure.
    beat: Option<Instant>,
}

/// An open connection whose heartbeat was answered.
struct Connection {
    line: Line,
    serial: u64,
    boot: Option<BootId>,
    trust: Trust,
    used: Instant,
    /// It has answered to more than a heartbeat.
    proven: bool,
}

/// Why a request has no answer that could be used.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, first: bool, stop: watch::Receiver<bool>) -> Self {
        Self {
            shared,
            first,
            stop,
            connection: None,
            beat: None,
        }
    }

    /// Works until told to stop; a turn under way is finished.
    pub(super) async fn run(mut self) {
        while !*self.stop.borrow() {
            match self.next().await {
                Todo::Meet => self.meet().await,
                Todo::File(job) => self.turn(job).await,
                Todo::Wait(_) => {}
                Todo::End => return,
            }
        }
    }

    /// What to do, once there is something; `Todo::Wait` when that has to be looked at again.
    async fn next(&mut self) -> Todo {
        let shared = Arc::clone(&self.shared);
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if self
            .connection
            .as_ref()
            .is_some_and(|open| !open.line.is_fit())
        {
            self.connection = None;
        }
        let until = match shared.todo(self.first, self.beat_due()) {
            Todo::Wait(until) => until,
            todo => return todo,
        };
        let closed = async {
            match &mut self.connection {
                Some(open) => open.line.closed().await,
                None => std::future::pending().await,
            }
        };
        let due = async {
            match until {
                Some(until) => sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = shared.marks.filled() => {}
            () = closed => {}
            () = due => {}
            told = self.stop.changed() => if told.is_err() { return Todo::End },
        }
        Todo::Wait(None)
    }

    /// When the next heartbeat is due. An idle connection that the other side closed is not opened
    /// before; only the first connection keeps up with a destination that gets nothing.
    fn beat_due(&self) -> Option<Instant> {
        let open = self.connection.is_some();
        self.beat.filter(|_| open || self.first)
    }

    /// Opens the connection if there is none and sends the heartbeat; the gate follows.
    async fn meet(&mut self) {
        let stopped = self.shared.state().session.stopped().is_some();
        if stopped {
            self.shared.state().session.forgive();
            self.connection = None;
        }
        let met = match self.connection.take() {
            Some(open) => match self.beat_over(open).await {
                // The other side may close what was idle.
                Err(NoAnswer::Line(_)) => self.connect().await,
                met => met,
            },
            None => self.connect().await,
        };
        match met {
            Ok(()) if stopped => self.probe().await,
            Ok(()) => self.shared.open_gate(),
            Err(error) => self.failed(true, &error).await,
        }
    }

    async fn beat_over(&mut self, mut open: Connection) -> Result<(), NoAnswer> {
        let reply = heartbeat(&self.shared, &mut open.line).await?;
        open.boot = self.shared.met(open.serial, &reply).await?;
        self.beaten(open);
        Ok(())
    }

    /// The heartbeat was answered.
    fn beaten(&mut self, mut open: Connection) {
        let now = clock::monotonic();
        open.trust = self.shared.state().session.trust();
        open.used = now;
        self.connection = Some(open);
        self.beat = Some(now + HEARTBEAT);
    }

    async fn connect(&mut self) -> Result<(), NoAnswer> {
        self.connection = None;
        let serial = self.shared.next_connection();
        let mut line = Line::open(&self.shared.connector, &self.shared.target).await?;
        let reply = heartbeat(&self.shared, &mut line).await?;
        let boot = self.shared.met(serial, &reply).await?;
        self.beaten(Connection {
            line,
            serial,
            boot,
            trust: Trust::Unverified,
            used: clock::monotonic(),
            proven: false,
        });
        Ok(())
    }

    /// The connection is of no use, or the destination is not.
    async fn failed(&mut self, meeting: bool, error: &NoAnswer) {
        self.connection = None;
        self.beat = None;
        if let NoAnswer::Fault(Fault::Refused(Refused::Stop(reason))) = error {
            self.shared.stop(*reason, None).await;
        } else {
            self.shared.shut_gate(meeting, &error.to_string(), None);
        }
    }

    /// Asks a stopped destination whether it is well again.
    async fn probe(&mut self) {
        match self.is_well().await {
            Ok(true) => {
                self.shared.resume().await;
                self.shared.open_gate();
            }
            Ok(false) => self.shared.stay_stopped(),
            Err(_) => {
                self.connection = None;
                self.shared.stay_stopped();
            }
        }
    }

    /// A verified destination is when one and the same run answers on several connections, an
    /// unverified one when it has what it was given.
    async fn is_well(&mut self) -> Result<bool, NoAnswer> {
        if self.shared.state().session.trust() == Trust::Verified {
            for _ in 0..3 {
                self.connect().await?;
            }
            return Ok(true);
        }
        let Some((id, name, progress)) = self.witness() else {
            return Ok(true);
        };
        let Some(open) = &mut self.connection else {
            return Ok(false);
        };
        let target = self.shared.target.target(&name);
        let reply = open
            .line
            .ask(Method::HEAD, &target, [], Payload::Empty)
            .await?;
        self.shared.state().schedule.ask(id);
        let held = match heard(Trust::Unverified, &Asked::Head, &reply.answer()) {
            Heard::Told(Remote::Holds(holding)) => holding.length,
            _ => return Ok(false),
        };
        Ok(held >= progress.confirmed.length)
    }

    /// The file by which a stopped destination is judged: the one that stopped it, or the newest
    /// of which it should have something.
    fn witness(&self) -> Option<(FileId, StableName, Arc<Progress>)> {
        let catalogue = &self.shared.catalogue;
        let culprit = self.shared.state().culprit;
        let find = |id| {
            let progress = catalogue.progress(self.shared.destination, id)?;
            let name = catalogue.tracked(id)?.name.clone();
            (progress.confirmed.length > Offset::ZERO).then_some((id, name, progress))
        };
        culprit.and_then(find).or_else(|| {
            let mut ids = catalogue.active();
            ids.sort_unstable();
            ids.into_iter().rev().find_map(find)
        })
    }

    async fn turn(&mut self, job: Job) {
        if self.connection.is_none()
            && let Err(error) = self.connect().await
        {
            self.failed(false, &error).await;
            let long = job.long;
            self.shared.end(job, Ended::Untried { long }, None);
            return;
        }
        let (ended, visit) = self.serve(job).await;
        let cursor = visit.and_then(Visit::into_cursor);
        self.shared.end(job, ended, cursor);
    }

    /// One file's turn, up to a standstill or a piece when others wait.
    async fn serve(&mut self, job: Job) -> (Ended, Option<Visit>) {
        let setting = self.shared.setting(job.long);
        let (mut visit, mut turn) = match begin(&self.shared, &setting, job).await {
            Ok(Some(begun)) => begun,
            Ok(None) => {
                self.shared.forget(job.id);
                return (Ended::Done, None);
            }
            Err(error) => {
                if let Some(tracked) = setting.catalogue.tracked(job.id) {
                    self.shared.tell_failure(&tracked, &error);
                }
                return (self.shared.in_error(job.id, error), None);
            }
        };
        loop {
            if visit.take_moved() {
                self.moved(&visit);
            }
            let question = match turn {
                Turn::Ask(question) => *question,
                other => {
                    let ended = self.standstill(&setting, &mut visit, job, other).await;
                    return (ended, Some(visit));
                }
            };
            if let Some(ended) = self.ask(&setting, &mut visit, job, question).await {
                if ended != Ended::Done {
                    visit.observed(&setting);
                }
                return (ended, Some(visit));
            }
            (visit, turn) = match advance(visit, &self.shared.setting(job.long)).await {
                Ok(next) => next,
                Err(ended) => return (ended, None),
            };
        }
    }

    fn moved(&self, visit: &Visit) {
        if let Some(confirmed) = visit.confirmed() {
            self.shared.progressed(visit.tracked.id, confirmed.length);
        }
    }

    async fn standstill(
        &self,
        setting: &Setting,
        visit: &mut Visit,
        job: Job,
        turn: Turn,
    ) -> Ended {
        match turn {
            Turn::Long => Ended::Untried { long: true },
            Turn::Ending => Ended::Untried { long: job.long },
            Turn::Fail(error) => self.fail(setting, visit, error),
            Turn::Stop(reason) => {
                self.shared.stop(reason, Some(job.id)).await;
                Ended::Later(clock::monotonic())
            }
            Turn::Gone(why) => {
                if why.is_some_and(|why| !why.is_local()) {
                    self.shared.close_on_word(&visit.tracked);
                }
                self.shared.forget(job.id);
                Ended::Done
            }
            Turn::Done | Turn::Ask(_) => Ended::Done,
        }
    }

    fn fail(&self, setting: &Setting, visit: &mut Visit, error: FileError) -> Ended {
        self.shared.tell_failure(&visit.tracked, &error);
        visit.fail(setting, &error);
        self.shared.in_error(visit.tracked.id, error)
    }

    /// Puts a question and takes the answer in; how the turn ends, if it does.
    async fn ask(
        &mut self,
        setting: &Setting,
        visit: &mut Visit,
        job: Job,
        question: Question,
    ) -> Option<Ended> {
        let asked = question.asked;
        let began = clock::monotonic();
        let ahead = Ahead::start(visit, &asked, setting);
        let answer = self.put(setting, visit, question).await;
        visit.keep_ahead(ahead.finish(answer.is_ok()).await);
        let reply = match answer {
            Ok(reply) => reply,
            Err(Lost::Unsent) => return Some(Ended::Untried { long: job.long }),
            Err(lost) => {
                visit.course.lost(&asked, setting.trust);
                if let Asked::Append { range, .. } = asked {
                    self.shared.cut(range.len());
                }
                let until = match lost {
                    Lost::Failed => self.shared.put_off(job.id),
                    Lost::Stale | Lost::Unsent => clock::monotonic(),
                };
                return Some(Ended::Later(until));
            }
        };
        if let Asked::Append { range, .. } = asked
            && reply.status == 413
            && range.len() > PIECE_MIN
        {
            // Larger than it, or a proxy on the way, takes in one request.
            self.shared.cut(range.len());
            return Some(Ended::Later(clock::monotonic()));
        }
        let heard = heard(setting.trust, &asked, &reply.answer());
        let looks = heard == Heard::Look;
        match visit.course.hear(&asked, heard, visit.confirmed()) {
            After::Again => {
                if looks {
                    visit.sent(&asked);
                    self.carried(&asked, began);
                }
                None
            }
            After::Record(prefix) => {
                visit.record(setting, prefix);
                self.carried(&asked, began);
                self.recorded(visit)
            }
            After::Wait(time) => {
                let pause = time.unwrap_or(BUSY).max(LEAST_PAUSE);
                Some(Ended::Later(clock::monotonic() + pause))
            }
            After::Pause(time, why) => {
                self.shared.shut_gate(false, &why, time);
                Some(Ended::Later(self.shared.put_off(job.id)))
            }
            After::Fail(_) if asked == Asked::Head && visit.does_without(setting) => None,
            After::Fail(error) => Some(self.fail(setting, visit, error)),
        }
    }

    fn carried(&self, asked: &Asked, began: Instant) {
        if let Asked::Append { range, .. } = asked {
            let time = clock::monotonic().duration_since(began);
            self.shared.carried(range.len(), time);
        }
    }

    /// After a confirmation: whether the turn ends here, to the good of others.
    fn recorded(&self, visit: &mut Visit) -> Option<Ended> {
        if visit.take_moved() {
            self.moved(visit);
        }
        let behind = visit.behind();
        if behind == 0 {
            // A write since the file was looked at has marked it again.
            return (visit.course.remote == Remote::Agreed).then_some(Ended::Done);
        }
        let due = self.beat.is_none_or(|beat| beat <= clock::monotonic());
        let yield_to_others =
            due || *self.stop.borrow() || self.shared.state().schedule.has_waiting();
        yield_to_others.then_some(Ended::More {
            long: behind > PIECE_START,
        })
    }

    /// Sends a question over the connection.
    async fn put(
        &mut self,
        setting: &Setting,
        visit: &Visit,
        question: Question,
    ) -> Result<Reply, Lost> {
        let trust = setting.trust;
        let serves =
            |open: &Connection| self.shared.serves(open.boot, trust) && open.trust == trust;
        let Some(mut open) = self.connection.take().filter(serves) else {
            return Err(Lost::Unsent);
        };
        let idle = clock::monotonic().duration_since(open.used);
        let mut target = self.shared.target.target(&visit.tracked.name);
        let method = match question.asked {
            Asked::Head => Method::HEAD,
            Asked::HeadPrefix(length) => {
                target = format!("{target}?length={length}");
                Method::HEAD
            }
            Asked::Append { .. } | Asked::Confirm(_) => Method::PUT,
        };
        let headers = headers(trust, &question);
        let answer = open.line.ask(method, &target, headers, question.payload);
        let result = match answer.await {
            Ok(reply) => match self.shared.note(open.boot, &reply) {
                Ok(()) => {
                    open.used = clock::monotonic();
                    open.proven = true;
                    self.connection = Some(open);
                    return Ok(reply);
                }
                Err(fault) => NoAnswer::from(fault),
            },
            Err(error) => NoAnswer::from(error),
        };
        match &result {
            NoAnswer::Line(LineError::Closed) if open.proven => return Err(Lost::Unsent),
            NoAnswer::Line(_) if idle >= STALE => return Err(Lost::Stale),
            _ => {}
        }
        self.failed(false, &result).await;
        Err(Lost::Failed)
    }
}

/// Why there is no answer.
enum Lost {
    /// Nothing was sent: the connection is of no use any more.
    Unsent,
    /// It may have been served; the destination may have closed an idle connection, as it may.
    Stale,
    /// The destination failed.
    Failed,
}

async fn heartbeat(shared: &Shared, line: &mut Line) -> Result<Reply, LineError> {
    let seen = shared.seen_header();
    let seen = seen.map(|seen| (header::SEEN, seen.to_string()));
    line.ask(Method::HEAD, shared.target.base(), seen, Payload::Empty)
        .await
}

/// The headers of a question (RFC 9110 sections 13.1 and 14.4, RFC 9530); an unverified
/// destination gets a range and nothing else.
fn headers(trust: Trust, question: &Question) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    match question.asked {
        Asked::Head | Asked::HeadPrefix(_) => {}
        Asked::Append { range, end } => {
            let total = question.total;
            let range = ContentRange::Bytes { range, total };
            headers.push(("content-range", range.to_string()));
            if trust == Trust::Verified {
                headers.push((header::REPR_DIGEST, ReprDigest(end).to_string()));
            }
        }
        Asked::Confirm(prefix) => {
            let range = ContentRange::Length(prefix.length);
            headers.push(("content-range", range.to_string()));
        }
    }
    headers.extend(question.condition.map(|condition| condition.header()));
    headers
}

async fn begin(
    shared: &Arc<Shared>,
    setting: &Setting,
    job: Job,
) -> Result<Option<(Visit, Turn)>, FileError> {
    let (shared, setting) = (Arc::clone(shared), setting.clone());
    let begun = tokio::task::spawn_blocking(move || {
        let (certainty, cursor) = shared.recall(job);
        let Some(tracked) = setting.catalogue.tracked(job.id) else {
            return Ok(None);
        };
        let closed_today = shared.closed_today(&tracked);
        let visit = Visit::begin(&setting, tracked, certainty, cursor, closed_today)?;
        Ok(visit.map(|mut visit| {
            let turn = visit.advance(&setting);
            (visit, turn)
        }))
    });
    begun.await.unwrap_or_else(|_| Err(ending()))
}

async fn advance(mut visit: Visit, setting: &Setting) -> Result<(Visit, Turn), Ended> {
    let setting = setting.clone();
    let advanced = tokio::task::spawn_blocking(move || {
        let turn = visit.advance(&setting);
        (visit, turn)
    });
    advanced
        .await
        .map_err(|_| Ended::Later(clock::monotonic() + BUSY))
}

/// What a thread that did not finish leaves: the process is ending, or it panicked on this file.
fn ending() -> FileError {
    FileError::Unreadable("the reading thread ended".to_owned())
}

/// The next piece of a long file, being hashed while this one is sent, so that the line never
/// waits for it.
struct Ahead(Option<JoinHandle<Option<Piece>>>);

impl Ahead {
    fn start(visit: &Visit, asked: &Asked, setting: &Setting) -> Self {
        let Asked::Append { range, .. } = asked else {
            return Self(None);
        };
        if range.len() <= IO_CHUNK as u64 {
            return Self(None);
        }
        let reading = visit.read_ahead(*range, setting.piece);
        Self(reading.map(|reading| tokio::task::spawn_blocking(move || reading.run())))
    }

    async fn finish(self, wanted: bool) -> Option<Piece> {
        let reading = self.0.filter(|_| wanted)?;
        reading.await.ok().flatten()
    }
}
