//! HTTP/1.1 as bytes on a socket: what is sent is exactly what the test says, good or bad, and
//! what comes back is read strictly (RFC 9112).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};

use crate::answer::parse_head;
pub use crate::answer::{Answer, Asked};
use crate::common::DEADLINE;

/// One connection, the requests on it that are not answered yet, and the bytes read ahead.
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
    /// What was asked, oldest first: an answer to HEAD has no body.
    asked: VecDeque<Asked>,
}

impl Connection {
    pub fn open(port: u16) -> Self {
        Self::try_open(port).expect("the server accepts")
    }

    /// A connection, unless nobody listens.
    pub fn try_open(port: u16) -> Option<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a read timeout");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("a write timeout");
        stream.set_nodelay(true).expect("no delay");
        Some(Self {
            stream,
            read: Vec::new(),
            asked: VecDeque::new(),
        })
    }

    /// Sends bytes as they are. A peer that has closed already is no error here: what it said
    /// before is still to be read.
    pub fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(error) if gone(error.kind()) => {}
            Err(error) => panic!("sending: {error}"),
        }
    }

    /// Sends bytes one by one, a few a second, until the server has something to say about it.
    #[allow(dead_code, reason = "not every test program has the patience")]
    pub fn drip(&mut self, bytes: &[u8]) {
        let pace = std::time::Duration::from_millis(50);
        self.stream
            .set_read_timeout(Some(pace))
            .expect("a read timeout");
        for byte in bytes {
            self.send(&[*byte]);
            match self.stream.peek(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => break,
            }
        }
        self.stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a read timeout");
    }

    /// Remembers what was asked, so that its answer is read as one to that.
    pub fn expect(&mut self, asked: Asked) {
        self.asked.push_back(asked);
    }

    /// The next answer, with what it answers; `None` when the server closed instead. Interim
    /// answers (1xx) are answers too, and leave the request open.
    pub fn answer(&mut self) -> Result<Option<(Asked, Answer)>, String> {
        let Some(head) = self.head()? else {
            return Ok(None);
        };
        let mut answer = parse_head(&head)?;
        if answer.status < 200 {
            let asked = self.asked.front().cloned().unwrap_or_default();
            return Ok(Some((asked, answer)));
        }
        let asked = self.asked.pop_front().unwrap_or_default();
        if asked.method != "HEAD" && answer.status != 204 {
            answer.body = self.body(&answer)?;
        }
        Ok(Some((asked, answer)))
    }

    /// Whether the server has ended the connection; waits for it to do so.
    pub fn ended(&mut self) -> Result<(), String> {
        match self.more() {
            Ok(false) => Ok(()),
            Ok(true) => Err(format!(
                "expected the connection to end, got {:?}",
                String::from_utf8_lossy(&self.read)
            )),
            Err(error) => Err(format!("expected the connection to end: {error}")),
        }
    }

    /// Ends our side: a FIN behind the bytes that were sent.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset: what the server has not read yet is lost.
    pub fn reset(self) {
        let linger = rustix::net::sockopt::set_socket_linger;
        linger(&self.stream, Some(std::time::Duration::ZERO)).expect("a socket of ours");
    }

    fn head(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                return Ok(Some(self.read.drain(..end + 4).collect()));
            }
            if !self.more().map_err(|e| format!("no answer: {e}"))? {
                return if self.read.is_empty() {
                    Ok(None)
                } else {
                    Err(format!("an answer cut short: {:?}", self.shown()))
                };
            }
        }
    }

    fn body(&mut self, answer: &Answer) -> Result<Vec<u8>, String> {
        if let Some(coding) = answer.header("transfer-encoding") {
            return Err(format!("an answer with Transfer-Encoding: {coding}"));
        }
        let Some(length) = answer.header("content-length") else {
            while self.more().map_err(|e| format!("body to the end: {e}"))? {}
            return Ok(std::mem::take(&mut self.read));
        };
        let length: usize = length.parse().map_err(|_| format!("length {length}"))?;
        while self.read.len() < length {
            if !self.more().map_err(|e| format!("the answer's body: {e}"))? {
                return Err(format!("a body of {length} cut short: {:?}", self.shown()));
            }
        }
        Ok(self.read.drain(..length).collect())
    }

    /// Reads what comes next; false at the end of the connection, orderly or not.
    fn more(&mut self) -> std::io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.read.extend_from_slice(&buffer[..count]);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => self.more(),
            Err(error) if gone(error.kind()) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}

fn gone(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
    )
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
