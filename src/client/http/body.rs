//! Request bodies: nothing, a piece in memory, or a range read from its source while it is sent.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use crate::client::source::Source;
use crate::limits::{CHUNKS_AHEAD, CONNECTIONS, IO_CHUNK};
use crate::types::{ByteRange, Offset};

/// Chunks read ahead of the line; with the one being read and the one being written these are the
/// buffers of one connection.
const READ_AHEAD: usize = 2;

/// What is read at once where chunks are scarce, and the size of the small ones.
const SMALL: usize = IO_CHUNK / 4;

/// The longest piece that has memory of its own: a line of text must not keep that of a chunk.
const LINE: usize = 4 * 1024;

/// A body is nearly out when this part of it is left. A piece is at most what the line carries in
/// 2 s, and a server holds the one behind it for 1 s.
const NEARLY_OUT: u64 = 8;

/// The body of a request.
#[derive(Debug)]
pub enum Payload {
    /// No bytes.
    Empty,
    /// These bytes.
    Whole(Bytes),
    /// A range of a file.
    Streamed(Streamed),
}

/// A body that is read while it is sent.
#[derive(Debug)]
pub struct Streamed {
    chunks: Receiver<io::Result<Bytes>>,
    left: u64,
    /// Whom to tell when no more than so many bytes are left.
    nearly_out: Option<(u64, oneshot::Sender<()>)>,
}

impl Streamed {
    fn passed(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
        if let Some((_, tell)) = self.nearly_out.take_if(|(left, _)| self.left <= *left) {
            // Nobody may want to know any more.
            let _ = tell.send(());
        }
    }
}

impl Payload {
    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Streamed(streamed) => streamed.left,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells when the body is nearly out, if it is one that is read while it is sent.
    pub fn nearly_out(&mut self) -> Option<oneshot::Receiver<()>> {
        let Self::Streamed(streamed) = self else {
            return None;
        };
        let (tell, told) = oneshot::channel();
        streamed.nearly_out = Some((streamed.left / NEARLY_OUT, tell));
        Some(told)
    }

    /// A body that brings `range` of `source`, read by a thread of its own for as long as the body
    /// lives. A source that ends too early, or fails, breaks the request off.
    pub fn stream(source: Source, range: ByteRange, buffers: Buffers) -> Self {
        let (sender, chunks) = channel(READ_AHEAD);
        tokio::task::spawn_blocking(move || read_range(&source, range, &buffers, &sender));
        Self::Streamed(Streamed {
            chunks,
            left: range.len(),
            nearly_out: None,
        })
    }
}

fn read_range(
    source: &Source,
    range: ByteRange,
    buffers: &Buffers,
    sender: &Sender<io::Result<Bytes>>,
) {
    let runtime = Handle::current();
    let mut at = range.start();
    while at < range.end() {
        let mut want = usize::try_from(range.end().since(at)).unwrap_or(IO_CHUNK);
        if buffers.are_scarce() {
            // The line has to have taken what was read before.
            if runtime.block_on(sender.reserve_many(READ_AHEAD)).is_err() {
                return;
            }
            want = want.min(SMALL);
        }
        let chunk = match buffers.read(source, at, want) {
            Ok(chunk) if chunk.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        let read = chunk.as_ref().ok().map(Bytes::len);
        let next = read.and_then(|read| at.plus(read as u64));
        let failed = sender.blocking_send(chunk).is_err();
        match next {
            Some(next) if !failed => at = next,
            _ => return,
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Streamed(streamed) => {
                let chunk = ready!(streamed.chunks.poll_recv(context));
                if let Some(Ok(bytes)) = &chunk {
                    streamed.passed(bytes.len() as u64);
                }
                Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

/// The chunks of one destination, used again and again.
#[derive(Clone, Default, Debug)]
pub struct Buffers(Arc<Mutex<Pool>>);

#[derive(Default, Debug)]
struct Pool {
    free: Vec<Box<[u8]>>,
    /// Small ones, for the one piece of many a file: what one thread allocates and another frees
    /// leaves an allocator with holes.
    free_small: Vec<Box<[u8]>>,
    /// How many chunks are under way, small ones aside.
    out: usize,
}

impl Buffers {
    /// What the source holds of the `length` bytes from `at` on, at most [`IO_CHUNK`] of them.
    pub fn read(&self, source: &Source, at: Offset, length: usize) -> io::Result<Bytes> {
        if length <= LINE {
            let mut bytes = vec![0; length];
            let read = source.read_at(at, &mut bytes)?;
            bytes.truncate(read);
            return Ok(bytes.into());
        }
        let mut chunk = self.take(length <= SMALL);
        let length = length.min(chunk.bytes.len());
        let read = source.read_at(at, &mut chunk.bytes[..length])?;
        Ok(Bytes::from_owner(chunk).slice(..read))
    }

    /// Whether so many chunks are under way that nobody should read ahead.
    fn are_scarce(&self) -> bool {
        self.pool().out >= CHUNKS_AHEAD
    }

    fn take(&self, small: bool) -> Chunk {
        let mut pool = self.pool();
        let (bytes, size) = if small {
            (pool.free_small.pop(), SMALL)
        } else {
            pool.out += 1;
            (pool.free.pop(), IO_CHUNK)
        };
        drop(pool);
        Chunk {
            bytes: bytes.unwrap_or_else(|| vec![0; size].into_boxed_slice()),
            home: self.clone(),
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One chunk; goes home when it has been sent, unless enough of them are there.
struct Chunk {
    bytes: Box<[u8]>,
    home: Buffers,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut pool = self.home.pool();
        if bytes.len() == SMALL {
            if pool.free_small.len() < CONNECTIONS {
                pool.free_small.push(bytes);
            }
            return;
        }
        pool.out -= 1;
        if pool.free.len() < CHUNKS_AHEAD {
            pool.free.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::sys::file;

    #[tokio::test(flavor = "multi_thread")]
    async fn many_bodies_that_nobody_takes_hold_few_chunks_and_all_come_whole() {
        const BODIES: usize = 40;
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..=250).cycle().take(5 * IO_CHUNK + 1).collect();
        let path = dir.path().join("log");
        fs::write(&path, &content).unwrap();
        let log = Arc::new(File::open(&path).unwrap());
        let inode = file::stat(&log).unwrap().inode;
        let range = ByteRange::new(Offset::ZERO, Offset::new(content.len() as u64).unwrap());
        let buffers = Buffers::default();

        let mut bodies: Vec<Payload> = (0..BODIES)
            .map(|_| {
                let source = Source::checked(log.clone(), inode).unwrap();
                Payload::stream(source, range.unwrap(), buffers.clone())
            })
            .collect();
        let mut first = Vec::new();
        for body in &mut bodies {
            first.push(body.frame().await.unwrap().unwrap().into_data().unwrap());
        }

        let out = buffers.pool().out;
        // One more for each that had looked before the last was taken.
        assert!(out <= CHUNKS_AHEAD + BODIES, "{out}");
        for (body, first) in bodies.into_iter().zip(first) {
            let rest = body.collect().await.unwrap().to_bytes();
            assert!([&first[..], &rest].concat() == content);
        }
    }
}
