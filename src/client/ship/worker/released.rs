//! Files that this client has let go of, and closed generations: after a server said that it may not have kept all, it is
//! asked whether it still has them. A confirm vouches again for what is still on its disk; what is
//! not there is lost, which is said once.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::{BUSY, Failure, LEAST_PAUSE, Lost, Question, Worker, exchange};
use crate::client::http::Payload;
use crate::client::plan::{Asked, FileError, Heard, Remote, heard};
use crate::client::ship::schedule::{Ended, Job};
use crate::index::client::{ClientState, Progress, ProgressState};
use crate::index::{EventKind, IndexError, NewEvent};
use crate::sys::clock;
use crate::types::{FileId, Offset, StableName};
use crate::wire::Condition;

/// A file of which nothing is held here.
struct Released {
    name: StableName,
    progress: Progress,
}

/// Whether the destination has taken something of a closed generation, and did not contradict it:
/// that may be why it was closed.
fn was_taken(progress: &Progress) -> bool {
    let is_well = matches!(
        progress.state,
        ProgressState::Current | ProgressState::Retired | ProgressState::Lost
    );
    is_well && progress.confirmed.length > Offset::ZERO
}

impl Worker {
    /// The turn of a file that is active no more.
    pub(super) async fn absent(&mut self, job: Job) -> Ended {
        let released = match self.released(job).await {
            Ok(Some(released)) => released,
            Ok(None) => {
                self.shared.forget(job.id);
                return Ended::Done;
            }
            Err(error) => {
                let error = FileError::Unreadable(error.to_string());
                return self.shared.in_error(job.id, error);
            }
        };
        let confirmed = released.progress.confirmed;
        let question = Question {
            asked: Asked::Confirm(confirmed),
            condition: Some(Condition::of(confirmed)),
            total: Offset::ZERO,
            payload: Payload::Empty,
        };
        let trust = self.shared.setting(false).trust;
        let asked = question.asked;
        let (shared, name) = (Arc::clone(&self.shared), released.name.clone());
        let exchanged = exchange(shared, self.connection.take(), trust, name, question).await;
        self.connection = exchanged.open;
        match self.answer(exchanged.answer).await {
            Ok(reply) => {
                let answer = reply.answer();
                let holds = answer.about.map_or(Offset::ZERO, |about| about.length);
                self.judge(job.id, &released, heard(trust, &asked, &answer), holds)
            }
            Err(Lost::Unsent) => Ended::Untried { long: false },
            Err(Lost::Stale) => Ended::Later(clock::monotonic()),
            Err(Lost::Failed) => Ended::Later(self.shared.put_off(job.id)),
        }
    }

    /// The rows of a file that was let go of, if that is what a sweep asks about.
    async fn released(&self, job: Job) -> Result<Option<Released>, IndexError> {
        if !job.unsure {
            return Ok(None);
        }
        let (shared, id) = (Arc::clone(&self.shared), job.id);
        let read = spawn_blocking(move || {
            let index = shared.catalogue.index();
            let row = index.file(id)?;
            let Some(row) = row.filter(|row| row.state.has_ended()) else {
                return Ok(None);
            };
            // What an earlier turn has recorded may not be written yet.
            shared.catalogue.flush()?;
            let progress = index.progress(shared.destination, id)?;
            Ok(progress
                .filter(|it| row.state == ClientState::Released || was_taken(it))
                .map(|progress| Released {
                    name: row.name,
                    progress,
                }))
        });
        // A thread that did not finish: the process is ending.
        read.await.unwrap_or(Ok(None))
    }

    fn judge(&self, id: FileId, released: &Released, heard: Heard, holds: Offset) -> Ended {
        match heard {
            Heard::Confirmed(..) => self.found_again(id, released, ProgressState::Current),
            Heard::Told(Remote::Retired(was)) => {
                if was.length < released.progress.confirmed.length {
                    self.missed(id, released, was.length);
                } else {
                    self.found_again(id, released, ProgressState::Retired);
                }
            }
            Heard::NotHeld(_) => self.missed(id, released, holds),
            Heard::Wait(time) => {
                let pause = time.unwrap_or(BUSY).max(LEAST_PAUSE);
                return Ended::Later(clock::monotonic() + pause);
            }
            Heard::Pause(time, why) => {
                self.shared.shut_gate(false, &Failure::said(why, time));
                return Ended::Later(self.shared.put_off(id));
            }
            Heard::Told(Remote::Diverged(_)) => {
                // The bytes that would tell where are no longer here.
                let error = FileError::Diverged { chunk: None };
                let told = (
                    EventKind::Diverged,
                    format!("{}: {error}", self.shared.called),
                );
                self.change(id, released, ProgressState::Conflict, Some(told));
                return self.shared.in_error(id, error);
            }
            Heard::Failed(error) => return self.shared.in_error(id, error),
            Heard::Told(_) | Heard::ToldPrefix(_) | Heard::Look | Heard::Refused(_) => {
                return Ended::Later(self.shared.put_off(id));
            }
        }
        Ended::Done
    }

    fn found_again(&self, id: FileId, released: &Released, state: ProgressState) {
        let told = (released.progress.state == ProgressState::Lost).then(|| {
            let detail = format!("{} has all of it again", self.shared.called);
            (EventKind::Refilled, detail)
        });
        self.change(id, released, state, told);
    }

    fn missed(&self, id: FileId, released: &Released, holds: Offset) {
        let length = released.progress.confirmed.length;
        let detail = format!(
            "{} vouches for {} of the {length} bytes that it had confirmed, and this client no longer holds them",
            self.shared.called,
            holds.min(length)
        );
        let told = Some((EventKind::Lost, detail));
        self.change(id, released, ProgressState::Lost, told);
    }

    /// Records another state, with what is to be told of the change.
    fn change(
        &self,
        id: FileId,
        released: &Released,
        state: ProgressState,
        told: Option<(EventKind, String)>,
    ) {
        if released.progress.state == state {
            return;
        }
        let (shared, name) = (&self.shared, &released.name);
        let told = told.map(|(kind, detail)| {
            if kind == EventKind::Refilled {
                tracing::info!("{name}: {detail}");
            } else {
                tracing::error!("{name}: {detail}");
            }
            NewEvent::now(kind, name.as_bytes(), detail)
        });
        let progress = Arc::new(Progress {
            state,
            ..released.progress.clone()
        });
        let catalogue = &shared.catalogue;
        catalogue.record_telling(shared.destination, id, progress, told);
    }
}
