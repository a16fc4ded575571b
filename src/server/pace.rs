//! How long a connection may take between two requests: a head that has begun has to come to its
//! end in [`HEAD_TIME`], one that has not may be waited for as long as `idle_timeout` says. (hyper
//! has one timer for both, and closes without an answer.)

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::limits::HEAD_TIME;

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
            Doing::Receiving(since) => Some(since + HEAD_TIME),
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

    fn received(&self) {
        let mut doing = self.doing();
        if matches!(*doing, Doing::Waiting(_)) {
            *doing = Doing::Receiving(Instant::now());
        }
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that tells its [`Pace`] when bytes come.
pub(super) struct Paced<S> {
    pub(super) stream: S,
    pub(super) pace: Arc<Pace>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.pace.received();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn heads_and_idle_connections_have_their_own_time() {
        let idle = HEAD_TIME * 10;
        let pace = Arc::new(Pace::new(idle));
        assert_eq!(pace.deadline(), Some(Instant::now() + idle));
        let (mut peer, stream) = duplex(64);
        let mut stream = Paced {
            stream,
            pace: Arc::clone(&pace),
        };
        tokio::time::advance(HEAD_TIME).await;
        peer.write_all(b"HE").await.unwrap();
        stream.read_u8().await.unwrap();
        let first = Instant::now() + HEAD_TIME;
        tokio::time::advance(HEAD_TIME / 2).await;
        stream.read_u8().await.unwrap();
        assert_eq!(pace.deadline(), Some(first), "a drip gains no time");
        assert!(pace.is_in_head());
        pace.begin();
        assert_eq!(pace.deadline(), None);
        pace.end();
        assert_eq!(pace.deadline(), Some(Instant::now() + idle));
    }
}
