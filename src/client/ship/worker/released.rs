//! Files that this client has let go of, and closed generations: after a server said that it may not
//! have kept all, it is asked whether it still has them. A confirm vouches again for what is still on
//! its disk; what is not there is lost, which is said once.

use std::cmp::Ordering;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::{BUSY, Failure, LEAST_PAUSE, Lost, Question, Worker, exchange};
use crate::client::http::Payload;
use crate::client::plan::{Asked, FileError, Heard, Holding, Remote, Trust, heard};
use crate::client::ship::schedule::{Ended, Job};
use crate::index::client::{ClientState, Progress, ProgressState};
use crate::index::{EventKind, IndexError, NewEvent};
use crate::sys::clock;
use crate::types::{FileId, Offset, Prefix, StableName};
use crate::wire::Condition;

/// A file of which nothing is held here.
struct Released {
    name: StableName,
    progress: Progress,
    /// All of it was confirmed: nothing of ours lies behind that.
    is_whole: bool,
}

/// What a destination has of a closed generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kept {
    /// All that it had confirmed.
    All,
    /// As many bytes, of which it vouches for less: a confirm would prove them.
    Unproven,
    /// Less.
    Less,
    /// Others, or more, of which a HEAD does not tell what they begin with.
    Unknown,
}

/// A confirm would have a server set aside what lies behind C, which may be all that there is of it:
/// hence the HEAD before it.
fn kept(holding: &Holding, confirmed: Prefix) -> Kept {
    let at_end = holding.tail.map(|tail| tail.size);
    match holding.length.cmp(&confirmed.length) {
        Ordering::Equal if holding.hash == Some(confirmed.hash) => Kept::All,
        Ordering::Equal | Ordering::Greater => Kept::Unknown,
        Ordering::Less if at_end == Some(confirmed.length) => Kept::Unproven,
        Ordering::Less => Kept::Less,
    }
}

/// Whether the destination has taken something of a closed generation, and did not contradict it:
/// that may be why it was closed.
pub(in crate::client::ship) fn was_taken(progress: &Progress) -> bool {
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
        if !released.is_whole {
            let (heard, holds) = match self.put_to(job, &released, Asked::Head).await {
                Ok(answered) => answered,
                Err(ended) => return ended,
            };
            let Heard::Told(Remote::Holds(holding)) = heard else {
                return self.judge(job.id, &released, heard, holds);
            };
            match kept(&holding, confirmed) {
                Kept::All => self.found_again(job.id, &released, ProgressState::Current),
                Kept::Less => self.missed(job.id, &released, holding.length),
                Kept::Unknown => {}
                Kept::Unproven => return self.confirm(job, &released).await,
            }
            return Ended::Done;
        }
        self.confirm(job, &released).await
    }

    async fn confirm(&mut self, job: Job, released: &Released) -> Ended {
        let asked = Asked::Confirm(released.progress.confirmed);
        match self.put_to(job, released, asked).await {
            Ok((heard, holds)) => self.judge(job.id, released, heard, holds),
            Err(ended) => ended,
        }
    }

    /// What the destination answers, and for how much it vouches.
    async fn put_to(
        &mut self,
        job: Job,
        released: &Released,
        asked: Asked,
    ) -> Result<(Heard, Offset), Ended> {
        let condition = match asked {
            Asked::Confirm(confirmed) => Some(Condition::of(confirmed)),
            _ => None,
        };
        let question = Question {
            asked,
            condition,
            total: Offset::ZERO,
            payload: Payload::Empty,
        };
        let trust = Trust::Verified;
        let (shared, name) = (Arc::clone(&self.shared), released.name.clone());
        let exchanged = exchange(shared, self.connection.take(), trust, name, question).await;
        self.connection = exchanged.open;
        match self.answer(exchanged.answer).await {
            Ok(reply) => {
                let confirmed = released.progress.confirmed.length;
                self.shared.progressed(job.id, confirmed);
                let answer = reply.answer();
                let holds = answer.about.map_or(Offset::ZERO, |about| about.length);
                Ok((heard(trust, &asked, &answer), holds))
            }
            Err(Lost::Unsent) => Err(Ended::Untried { long: false }),
            Err(Lost::Stale) => Err(Ended::Later(clock::monotonic())),
            Err(Lost::Failed) => Err(Ended::Later(self.shared.put_off(job.id))),
        }
    }

    /// The rows of a file that was let go of, if that is what a sweep asks about. An unverified
    /// destination proves nothing, and could take a confirm for an upload of nothing.
    async fn released(&self, job: Job) -> Result<Option<Released>, IndexError> {
        if !job.unsure || self.shared.setting(false).trust != Trust::Verified {
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
            let is_whole = row.state == ClientState::Released;
            Ok(progress
                .filter(|it| is_whole || was_taken(it))
                .map(|progress| Released {
                    name: row.name,
                    progress,
                    is_whole,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PrefixHash;
    use crate::wire::Tail;

    #[test]
    fn only_as_many_bytes_as_were_confirmed_are_worth_a_confirm() {
        let offset = |bytes| Offset::new(bytes).unwrap();
        let hash = |byte| Some(PrefixHash([byte; 32]));
        let confirmed = Prefix {
            length: offset(10),
            hash: PrefixHash([1; 32]),
        };
        let case = |length, byte, tail: Option<u64>| {
            let tail = tail.map(|size| Tail {
                size: offset(size),
                hash: None,
            });
            let holding = Holding {
                exists: true,
                length: offset(length),
                hash: hash(byte),
                tail,
            };
            kept(&holding, confirmed)
        };
        assert_eq!(case(10, 1, None), Kept::All);
        assert_eq!(case(10, 1, Some(12)), Kept::All);
        assert_eq!(case(10, 2, None), Kept::Unknown);
        assert_eq!(case(11, 1, None), Kept::Unknown);
        assert_eq!(case(0, 1, Some(10)), Kept::Unproven);
        // Behind them lies what a confirm would have set aside.
        assert_eq!(case(0, 1, Some(11)), Kept::Less);
        assert_eq!(case(4, 1, Some(9)), Kept::Less);
        assert_eq!(kept(&Holding::nothing(), confirmed), Kept::Less);
    }
}
