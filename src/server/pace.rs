//! How long a connection may take between two requests: a head that has begun has to come to its
//! end in [`HEAD_TIME`], one that has not may be waited for as long as `idle_timeout` says, which
//! bounds the other, too. (hyper has one timer for both, and closes without an answer.)

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::limits::{BODY_STALL, HEAD_TIME};

/// What a connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doing {
    /// Nothing, since then.
    Waiting(Instant),
    /// A head comes, since then.
    Receiving(Instant),
    /// A request is being served; it has its own bounds.
    Serving,
}

/// The state of one connection, shared by its stream and its handler.
#[derive(Debug)]
pub(super) struct Pace {
    doing: Mutex<Doing>,
    idle: Duration,
}

impl Pace {
    /// Of a connection that was just opened.
    pub(super) fn new(idle: Duration) -> Self {
        Self {
            doing: Mutex::new(Doing::Waiting(Instant::now())),
            idle,
        }
    }

    /// How long a body may bring nothing.
    pub(super) fn stall(&self) -> Duration {
        self.idle.min(BODY_STALL)
    }

    /// The head is complete.
    pub(super) fn begin(&self) {
        *self.doing() = Doing::Serving;
    }

    /// The answer is made.
    pub(super) fn end(&self) {
        *self.doing() = Doing::Waiting(Instant::now());
    }

    /// Ready when it has taken too long; keeps `alarm` at the deadline.
    pub(super) fn poll_overdue(
        &self,
        mut alarm: Pin<&mut Sleep>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(deadline) = self.deadline() else {
            return Poll::Pending;
        };
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        alarm.poll(context)
    }

    /// When the connection is to be closed, as things stand.
    fn deadline(&self) -> Option<Instant> {
        match *self.doing() {
            Doing::Waiting(since) => Some(since + self.idle),
            Doing::Receiving(since) => Some(since + self.idle.min(HEAD_TIME)),
            Doing::Serving => None,
        }
    }

    /// Whether that has passed.
    pub(super) fn is_late(&self) -> bool {
        self.deadline()
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Whether a part of a head has come, which deserves an answer.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(*self.doing(), Doing::Receiving(_))
    }

    /// Bytes have come.
    pub(super) fn received(&self) {
        let mut doing = self.doing();
        if matches!(*doing, Doing::Waiting(_)) {
            *doing = Doing::Receiving(Instant::now());
        }
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn heads_and_idle_connections_have_their_own_time() {
        let idle = HEAD_TIME * 10;
        let pace = Pace::new(idle);
        assert_eq!(pace.deadline(), Some(Instant::now() + idle));
        tokio::time::advance(HEAD_TIME).await;
        pace.received();
        let first = Instant::now() + HEAD_TIME;
        tokio::time::advance(HEAD_TIME / 2).await;
        pace.received();
        assert_eq!(pace.deadline(), Some(first), "a drip gains no time");
        assert!(pace.is_in_head());
        pace.begin();
        assert_eq!(pace.deadline(), None);
        pace.end();
        assert_eq!(pace.deadline(), Some(Instant::now() + idle));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_takes_longer_than_an_idle_connection() {
        let pace = Pace::new(HEAD_TIME / 10);
        pace.received();
        assert_eq!(pace.deadline(), Some(Instant::now() + HEAD_TIME / 10));
        assert_eq!(pace.stall(), HEAD_TIME / 10);
    }
}
