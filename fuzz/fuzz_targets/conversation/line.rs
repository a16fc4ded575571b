//! One connection to the server: bytes as they are, and answers read strictly.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

use crate::answer::{Answer, parse_head};

/// Longer than anything that the server may wait for.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// See the module.
pub struct Line {
    stream: DuplexStream,
    read: Vec<u8>,
    serving: JoinHandle<()>,
}

impl Line {
    pub fn new(stream: DuplexStream, serving: JoinHandle<()>) -> Self {
        Self {
            stream,
            read: Vec::new(),
            serving,
        }
    }

    /// Sends `bytes` in so many pieces. A server that has closed is no error here: what it said
    /// before is still to be read.
    pub async fn send(&mut self, bytes: &[u8], pieces: usize) {
        let size = bytes.len().div_ceil(pieces.max(1)).max(1);
        for piece in bytes.chunks(size) {
            let sending = timeout(PATIENCE, self.stream.write_all(piece));
            if sending.await.expect("the server takes bytes").is_err() {
                return;
            }
            for _ in 0..8 {
                yield_now().await;
            }
        }
    }

    /// The next final answer, to a HEAD or to something else; `None` when the server closed instead.
    pub async fn answer(&mut self, is_head: bool) -> Option<Answer> {
        let answering = timeout(PATIENCE, self.read_answer(is_head));
        answering.await.expect("the server answers")
    }

    async fn read_answer(&mut self, is_head: bool) -> Option<Answer> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|end| end == b"\r\n\r\n") {
                break end + 4;
            }
            if !self.more().await {
                assert!(self.read.is_empty(), "{:?}", self.read);
                return None;
            }
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        let mut answer = parse_head(&head).expect("an answer");
        let length = answer.number("content-length").unwrap_or(0) as usize;
        if !is_head && answer.status != 204 {
            while self.read.len() < length {
                assert!(self.more().await, "a body cut short: {}", answer.shown());
            }
            answer.body = self.read.drain(..length).collect();
        }
        Some(answer)
    }

    async fn more(&mut self) -> bool {
        self.stream.read_buf(&mut self.read).await.unwrap_or(0) > 0
    }

    /// Ends our side, reads all that is still said, and waits for the server to have done with it.
    pub async fn finish(mut self) -> Vec<u8> {
        let finishing = async move {
            // It may have closed.
            let _ = self.stream.shutdown().await;
            while self.more().await {}
            self.serving
                .await
                .expect("a connection ends without a panic");
            self.read
        };
        timeout(PATIENCE, finishing)
            .await
            .expect("the connection ends")
    }

    /// Sends `bytes` in pieces of these sizes, over and over, reading meanwhile whatever comes; then
    /// as [`finish`](Self::finish).
    pub async fn pour(self, bytes: &[u8], mut sizes: impl Iterator<Item = usize>) -> Vec<u8> {
        let (mut read, mut write) = tokio::io::split(self.stream);
        let mut said = self.read;
        let sending = async {
            let mut rest = bytes;
            while !rest.is_empty() {
                let size = sizes.next().unwrap_or(rest.len()).clamp(1, rest.len());
                let (piece, later) = rest.split_at(size);
                if write.write_all(piece).await.is_err() {
                    break;
                }
                rest = later;
                for _ in 0..4 {
                    yield_now().await;
                }
            }
            // It may have closed.
            let _ = write.shutdown().await;
        };
        let reading = async { while read.read_buf(&mut said).await.unwrap_or(0) > 0 {} };
        let pouring = async {
            tokio::join!(sending, reading);
            self.serving
                .await
                .expect("a connection ends without a panic");
        };
        timeout(PATIENCE, pouring)
            .await
            .expect("the connection ends");
        said
    }
}
