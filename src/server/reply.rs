//! How a task that works on blocking threads answers the request that began it, which may be gone
//! or tired of waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::oneshot;

use super::answer::Answer;
use crate::limits::HASHING_WAIT;
use crate::wire::Problem;

/// The task's end.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Whoever waits for the decision before it sends its body.
    decided: Option<oneshot::Sender<()>>,
    answer: oneshot::Sender<Answer>,
    phase: Arc<Phase>,
}

/// The request's end.
#[derive(Debug)]
pub(crate) struct Awaited {
    decided: Option<oneshot::Receiver<()>>,
    answer: oneshot::Receiver<Answer>,
    phase: Arc<Phase>,
    /// When the decision has to have fallen; `None` once it has.
    deadline: Option<tokio::time::Instant>,
}

/// Whether the decision fell before the request was tired of waiting: one of the two came first.
#[derive(Debug, Default)]
struct Phase(AtomicU8);

impl Phase {
    const DECIDED: u8 = 1;
    const ABANDONED: u8 = 2;

    /// Enters a phase from the first one; the phase that it is then.
    fn enter(&self, phase: u8) -> u8 {
        let entered = self
            .0
            .compare_exchange(0, phase, Ordering::AcqRel, Ordering::Acquire);
        entered.map_or_else(|other| other, |_| phase)
    }
}

/// What an [`Awaited`] comes to first.
#[derive(Debug)]
pub(crate) enum Event {
    /// The request is accepted: the rest takes as long as disk and line take.
    Decided,
    /// The answer.
    Answer(Box<Answer>),
}

/// Both ends; `told` if the request wants to know at once when the decision has fallen.
pub(crate) fn pair(told: bool) -> (Reply, Awaited) {
    let (decide, decided) = told.then(oneshot::channel).unzip();
    let (send, answer) = oneshot::channel();
    let phase = Arc::new(Phase::default());
    let reply = Reply {
        decided: decide,
        answer: send,
        phase: Arc::clone(&phase),
    };
    let awaited = Awaited {
        decided,
        answer,
        phase,
        deadline: Some(tokio::time::Instant::now() + HASHING_WAIT),
    };
    (reply, awaited)
}

impl Reply {
    /// Says that nothing is left to be hashed before the decision. `false`: the request was
    /// answered `hashing` before, and nothing more must come of it. (One whose connection broke
    /// goes on.)
    pub(crate) fn decided(&mut self) -> bool {
        if let Some(decided) = self.decided.take() {
            // A request that is gone needs no news.
            let _ = decided.send(());
        }
        self.phase.enter(Phase::DECIDED) == Phase::DECIDED
    }

    /// Answers.
    pub(crate) fn send(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

impl Awaited {
    /// The next event. Before the decision it takes [`HASHING_WAIT`] at most, and is then an
    /// answer `hashing`. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            let deadline = async {
                match self.deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let decided = async {
                match &mut self.decided {
                    Some(decided) => decided.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                answer = &mut self.answer => {
                    return Event::Answer(Box::new(answer.unwrap_or_else(|_| lost())));
                }
                decided = decided => {
                    self.decided = None;
                    self.deadline = None;
                    if decided.is_ok() {
                        return Event::Decided;
                    }
                }
                () = deadline => {
                    self.deadline = None;
                    if self.phase.enter(Phase::ABANDONED) == Phase::ABANDONED {
                        let answer = Answer::refusal(Problem::Hashing, "the file is being hashed");
                        return Event::Answer(Box::new(answer));
                    }
                }
            }
        }
    }

    /// The answer itself.
    pub(crate) async fn finish(mut self) -> Answer {
        loop {
            if let Event::Answer(answer) = self.next().await {
                return *answer;
            }
        }
    }
}

/// The task ended without an answer: it panicked. What it held is derived again.
fn lost() -> Answer {
    Answer::refusal(Problem::Busy, "the request was given up")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn hashing_is_waited_for_for_a_while_and_the_rest_for_ever() {
        let (mut reply, awaited) = pair(false);
        let answer = awaited.finish().await;
        assert_eq!(answer.problem(), Some(Problem::Hashing));
        assert!(!reply.decided(), "too late");

        for told in [false, true] {
            let (mut reply, mut awaited) = pair(told);
            assert!(reply.decided());
            if told {
                assert!(matches!(awaited.next().await, Event::Decided));
            }
            let late = tokio::spawn(async move {
                tokio::time::sleep(HASHING_WAIT * 10).await;
                reply.send(Answer::done(false));
            });
            assert_eq!(awaited.finish().await, Answer::done(false));
            late.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_task_that_dies_is_answered_for() {
        for told in [false, true] {
            let (reply, awaited) = pair(told);
            drop(reply);
            assert_eq!(awaited.finish().await.problem(), Some(Problem::Busy));
        }
    }
}
