//! The stream of one connection as hyper sees it: time is taken, and each head judged, before a
//! byte of it gets there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{Bad, Framing};
use super::pace::Pace;

/// A stream that ends where a bad head begins.
pub(super) struct Watched<S> {
    stream: S,
    pace: Arc<Pace>,
    framing: Framing,
    bad: Option<Bad>,
    /// Whether hyper has come as far as the bad head: all in front of it is answered.
    has_ended: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, pace: Arc<Pace>) -> Self {
        Self {
            stream,
            pace,
            framing: Framing::default(),
            bad: None,
            has_ended: false,
        }
    }

    /// The stream itself, and the bad head at which it ended for hyper.
    pub(super) fn into_parts(self) -> (S, Option<Bad>) {
        (self.stream, self.bad.filter(|_| self.has_ended))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bad.is_some() {
            self.has_ended = true;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.pace.received();
            if let Err(bad) = self.framing.follow(&buffer.filled()[before..]) {
                buffer.set_filled(before + bad.before);
                self.has_ended = bad.before == 0;
                self.bad = Some(bad);
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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

    /// Only flushes: the stream outlives this, and is ended by whoever gave it.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
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
