//! How a task that works on blocking threads answers the request that began it, which may be gone
//! or tired of waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use super::answer::Answer;
use crate::limits::HASHING_WAIT;
use crate::wire::Problem;

/// The task's end.
#[derive(Debug)]
pub(crate) struct Reply {
    decided: Option<oneshot::Sender<()>>,
    answer: oneshot::Sender<Answer>,
    abandoned: Arc<AtomicBool>,
}

/// The request's end.
#[derive(Debug)]
pub(crate) struct Awaited {
    decided: Option<oneshot::Receiver<()>>,
    answer: oneshot::Receiver<Answer>,
    abandoned: Arc<AtomicBool>,
    deadline: tokio::time::Instant,
}

/// What an [`Awaited`] comes to first.
#[derive(Debug)]
pub(crate) enum Event {
    /// The request is accepted: the rest takes as long as disk and line take.
    Decided,
    /// The answer.
    Answer(Answer),
}

/// Both ends.
pub(crate) fn pair() -> (Reply, Awaited) {
    let (decide, decided) = oneshot::channel();
    let (send, answer) = oneshot::channel();
    let abandoned = Arc::new(AtomicBool::new(false));
    let reply = Reply {
        decided: Some(decide),
        answer: send,
        abandoned: Arc::clone(&abandoned),
    };
    let awaited = Awaited {
        decided: Some(decided),
        answer,
        abandoned,
        deadline: tokio::time::Instant::now() + HASHING_WAIT,
    };
    (reply, awaited)
}

impl Reply {
    /// Says that nothing is left to be hashed before the decision.
    pub(crate) fn decided(&mut self) {
        if let Some(decided) = self.decided.take() {
            // A request that is gone needs no news.
            let _ = decided.send(());
        }
    }

    /// Answers.
    pub(crate) fn send(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }

    /// Whether the request was answered `hashing` before the decision fell: nothing more must
    /// come of it. (One whose connection broke is not abandoned.)
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }
}

impl Awaited {
    /// The next event. Before the decision it takes [`HASHING_WAIT`] at most, and is then an
    /// answer `hashing`. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Event {
        let Some(decided) = &mut self.decided else {
            return Event::Answer(self.answer().await);
        };
        tokio::select! {
            biased;
            answer = &mut self.answer => Event::Answer(answer.unwrap_or_else(|_| lost())),
            decided = decided => {
                self.decided = None;
                match decided {
                    Ok(()) => Event::Decided,
                    Err(_) => Event::Answer(self.answer().await),
                }
            }
            () = tokio::time::sleep_until(self.deadline) => {
                self.abandoned.store(true, Ordering::Release);
                Event::Answer(Answer::refusal(Problem::Hashing, "the file is being hashed"))
            }
        }
    }

    /// The answer itself.
    pub(crate) async fn finish(mut self) -> Answer {
        loop {
            if let Event::Answer(answer) = self.next().await {
                return answer;
            }
        }
    }

    async fn answer(&mut self) -> Answer {
        let answer = (&mut self.answer).await;
        answer.unwrap_or_else(|_| lost())
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
        let (reply, awaited) = pair();
        let answer = awaited.finish().await;
        assert_eq!(answer.problem(), Some(Problem::Hashing));
        assert!(reply.is_abandoned());

        let (mut reply, mut awaited) = pair();
        reply.decided();
        assert!(matches!(awaited.next().await, Event::Decided));
        let late = tokio::spawn(async move {
            tokio::time::sleep(HASHING_WAIT * 10).await;
            assert!(!reply.is_abandoned());
            reply.send(Answer::done(false));
        });
        assert_eq!(awaited.finish().await, Answer::done(false));
        late.await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_dies_is_answered_for() {
        let (reply, awaited) = pair();
        drop(reply);
        assert_eq!(awaited.finish().await.problem(), Some(Problem::Busy));
    }
}
