//! One connection of a destination, and the turns that go over it.

mod meeting;
mod released;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::time::sleep_until;

use super::exchange::{Connection, Lost, Missing, exchange};
use super::pipeline::{Errand, Happened, UnderWay};
use super::schedule::{Ended, Job};
use super::shared::{Failure, Shared, Todo};
use super::visit::{Question, Setting, Turn, Visit};
use crate::client::http::Reply;
use crate::client::plan::{After, Asked, FileError, Heard, Remote, Trust, heard};
use crate::limits::{PIECE_MIN, PIECE_START};
use crate::sys::clock;
use crate::wire::Problem;

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
                Todo::Errand(errand) => self.run_errand(errand).await,
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
        let search = visit.as_ref().and_then(Visit::search);
        self.shared.keep_search(job.id, search);
        let cursor = visit.and_then(Visit::into_cursor);
        self.shared.end(job, ended, cursor);
    }

    /// One file's turn, up to a standstill or a piece when others wait.
    async fn serve(&mut self, job: Job) -> (Ended, Option<Visit>) {
        let setting = self.shared.setting(job.long);
        let (mut visit, mut turn) = match begin(&self.shared, &setting, job).await {
            Ok(Some(begun)) => begun,
            Ok(None) => return (self.absent(job).await, None),
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
            Turn::Done | Turn::Ask(_) => {
                self.shared.settled(visit);
                Ended::Done
            }
        }
    }

    fn fail(&self, setting: &Setting, visit: &mut Visit, error: FileError) -> Ended {
        self.shared.tell_failure(&visit.tracked, &error);
        visit.fail(setting, &error);
        self.shared.in_error(visit.tracked.id, error)
    }

    /// Puts a question and takes the answer in; how the turn ends, if it does. A long file's pieces
    /// follow one another meanwhile.
    async fn ask(
        &mut self,
        setting: &Setting,
        visit: &mut Visit,
        job: Job,
        question: Question,
    ) -> Option<Ended> {
        let mut under_way = UnderWay::default();
        self.send(setting, visit, &mut under_way, question);
        // When the destination was free for the oldest request.
        let mut free = clock::monotonic();
        let (ended, wants_more) = loop {
            let may_follow = job.long && under_way.takes_more() && self.may_follow(setting);
            let answered = match under_way.happened(may_follow).await {
                Some(Happened::Ready(piece)) => {
                    if let Some(question) = piece.and_then(|piece| visit.follow(setting, *piece)) {
                        self.follow(setting, visit, &mut under_way, question);
                    }
                    continue;
                }
                Some(Happened::Answered(answered)) => *answered,
                None => break (None, true),
            };
            if answered.open.is_some() {
                self.connection = answered.open;
            }
            let began = answered.began.max(free);
            free = clock::monotonic();
            let asked = answered.asked;
            let reply = match self.answer(answered.answer).await {
                Ok(reply) => reply,
                Err(lost) => break (Some(self.lost(setting, visit, job, &asked, &lost)), false),
            };
            if answered.early && is_early(&reply) {
                // It was judged before the one before it was there: no error, it goes again.
                break (None, false);
            }
            match self.hear(setting, visit, job, &asked, began, &reply) {
                Heed::Confirmed if under_way.is_empty() => break (self.recorded(visit), true),
                Heed::Confirmed => {
                    if visit.take_moved() {
                        self.moved(visit);
                    }
                    // The own connection is free before anybody took the next piece.
                    if let Some(question) = under_way.take_back() {
                        self.send(setting, visit, &mut under_way, question);
                    }
                }
                Heed::Again => break (None, true),
                Heed::End(ended) => break (Some(ended), true),
            }
        };
        if wants_more && under_way.is_empty() {
            visit.keep_ahead(under_way.read_ahead().await);
        } else if !under_way.is_empty() {
            // Whatever becomes of it, only asking tells.
            visit.course.remote = Remote::Unasked;
        }
        ended
    }

    /// Whether a further piece may be sent before the answer to this one.
    fn may_follow(&self, setting: &Setting) -> bool {
        setting.trust == Trust::Verified
            && !self.has_to_yield()
            && (self.connection.is_some() || self.shared.lends())
    }

    /// Sends a question over the own connection.
    fn send(
        &mut self,
        setting: &Setting,
        visit: &Visit,
        under_way: &mut UnderWay,
        mut question: Question,
    ) {
        let asked = question.asked;
        let nearly_out = question.payload.nearly_out();
        let name = visit.tracked.name.clone();
        let shared = Arc::clone(&self.shared);
        let exchange = exchange(
            shared,
            self.connection.take(),
            setting.trust,
            name,
            question,
        );
        under_way.own(asked, clock::monotonic(), exchange);
        read_on(setting, visit, under_way, &asked, nearly_out);
    }

    /// Sends the piece behind the one under way, over whichever connection is free.
    fn follow(
        &mut self,
        setting: &Setting,
        visit: &Visit,
        under_way: &mut UnderWay,
        mut question: Question,
    ) {
        if self.connection.is_some() {
            return self.send(setting, visit, under_way, question);
        }
        let asked = question.asked;
        let nearly_out = question.payload.nearly_out();
        let name = visit.tracked.name.clone();
        let lent = self.shared.lend(setting.trust, name, question);
        under_way.lent(asked, clock::monotonic(), lent);
        read_on(setting, visit, under_way, &asked, nearly_out);
    }

    /// An answer, or its lack once the destination has heard of that.
    async fn answer(&mut self, answer: Result<Reply, Missing>) -> Result<Reply, Lost> {
        match answer {
            Ok(reply) => Ok(reply),
            Err(Missing::Lost(lost)) => Err(lost),
            Err(Missing::Failed(failure)) => {
                self.failed(false, &failure).await;
                Err(Lost::Failed)
            }
        }
    }

    /// Sends a piece for somebody else.
    async fn run_errand(&mut self, mut errand: Errand) {
        let Some(question) = errand.take() else {
            return;
        };
        if self.connection.is_none()
            && let Err(error) = self.connect().await
        {
            self.failed(false, &error).await;
            return errand.answer(Err(Lost::Failed));
        }
        let (trust, name) = (errand.trust, errand.name.clone());
        let shared = Arc::clone(&self.shared);
        let exchange = exchange(shared, self.connection.take(), trust, name, question);
        let exchanged = tokio::select! {
            exchanged = exchange => exchanged,
            // Nobody waits for it: the connection goes, in mid-request.
            () = errand.closed() => return,
        };
        self.connection = exchanged.open;
        let answer = self.answer(exchanged.answer).await;
        errand.answer(answer);
    }

    fn lost(
        &self,
        setting: &Setting,
        visit: &mut Visit,
        job: Job,
        asked: &Asked,
        lost: &Lost,
    ) -> Ended {
        if matches!(lost, Lost::Unsent) {
            return Ended::Untried { long: job.long };
        }
        visit.course.lost(asked, setting.trust);
        if let Asked::Append { range, .. } = asked {
            self.shared.cut(range.len());
        }
        Ended::Later(match lost {
            Lost::Failed => self.shared.put_off(job.id),
            Lost::Stale | Lost::Unsent => clock::monotonic(),
        })
    }

    /// Takes an answer in.
    fn hear(
        &self,
        setting: &Setting,
        visit: &mut Visit,
        job: Job,
        asked: &Asked,
        began: Instant,
        reply: &Reply,
    ) -> Heed {
        if let Asked::Append { range, .. } = asked
            && reply.status == 413
            && range.len() > PIECE_MIN
        {
            // Larger than it, or a proxy on the way, takes in one request.
            self.shared.cut(range.len());
            return Heed::End(Ended::Later(clock::monotonic()));
        }
        let heard = heard(setting.trust, asked, &reply.answer());
        let looks = heard == Heard::Look;
        match visit.course.hear(asked, heard, visit.confirmed()) {
            After::Again => {
                if looks {
                    visit.sent(asked);
                    self.carried(asked, began);
                }
                Heed::Again
            }
            After::Record(prefix) => {
                visit.record(setting, prefix);
                self.carried(asked, began);
                Heed::Confirmed
            }
            After::Wait(time) => {
                let pause = time.unwrap_or(BUSY).max(LEAST_PAUSE);
                Heed::End(Ended::Later(clock::monotonic() + pause))
            }
            After::Pause(time, why) => {
                self.shared.shut_gate(false, &Failure::said(why, time));
                Heed::End(Ended::Later(self.shared.put_off(job.id)))
            }
            After::Fail(_) if *asked == Asked::Head && visit.does_without(setting) => Heed::Again,
            After::Fail(error) => Heed::End(self.fail(setting, visit, error)),
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
            if visit.course.remote != Remote::Agreed {
                return None;
            }
            self.shared.settled(visit);
            return Some(Ended::Done);
        }
        self.has_to_yield().then_some(Ended::More {
            long: behind > PIECE_START,
        })
    }

    fn has_to_yield(&self) -> bool {
        let due = self.beat.is_none_or(|beat| beat <= clock::monotonic());
        due || *self.stop.borrow() || self.shared.state().schedule.has_waiting()
    }
}

/// What follows from an answer.
enum Heed {
    /// C is the end of what was asked about.
    Confirmed,
    /// The next question.
    Again,
    End(Ended),
}

/// Whether a piece was refused because the one before it was not there yet.
fn is_early(reply: &Reply) -> bool {
    matches!(reply.answer().problem, Some(Problem::Gap | Problem::Busy))
}

/// Begins to read what follows a piece of a long file, so that no line waits for it.
fn read_on(
    setting: &Setting,
    visit: &Visit,
    under_way: &mut UnderWay,
    asked: &Asked,
    nearly_out: Option<oneshot::Receiver<()>>,
) {
    if let (Asked::Append { range, .. }, Some(nearly_out)) = (asked, nearly_out)
        && let Some(reading) = visit.read_ahead(setting, *range)
    {
        under_way.read_on(reading, nearly_out);
    }
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
            visit.remember(&setting, shared.remembered(job.id));
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
