//! Things that stand between a client and a server, or in a server's place, and misbehave.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::common;

/// What a proxy does to its connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// Each connection ends when the bytes sent through it reach a multiple of this.
    CutEvery(u64),
    /// Each read passes on at most this many bytes.
    Dribble(usize),
    /// Each connection's requests are sent a second time when it ends.
    Duplicate,
    /// After this many bytes of a connection nothing moves any more, nor ends.
    StallAfter(u64),
    /// Every connection is closed at once.
    Refuse,
}

/// A TCP proxy on a free loopback port.
pub struct Proxy {
    /// The port to connect to.
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: u16,
    fault: Mutex<Fault>,
    /// Another fault, or the end.
    changed: Condvar,
    accepted: AtomicU64,
    open: AtomicU64,
    most_open: AtomicU64,
    ended: AtomicU64,
    sent: AtomicU64,
    bodies: AtomicU64,
    over: AtomicBool,
}

impl Proxy {
    /// Starts one in front of 127.0.0.1:`target`.
    pub fn start(target: u16, fault: Fault) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        if let Fault::StallAfter(_) = fault {
            // Or the kernel takes whole bodies before anything stalls.
            rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 16 * 1024)
                .expect("a listening socket");
        }
        let shared = Arc::new(Shared {
            target,
            fault: Mutex::new(fault),
            changed: Condvar::new(),
            accepted: AtomicU64::new(0),
            open: AtomicU64::new(0),
            most_open: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            bodies: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.over.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&serving);
                thread::spawn(move || shared.connection(&stream));
            }
        });
        Self { port, shared }
    }

    /// The URL of what stands behind it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Changes what it does to connections from now on.
    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().expect("no panic") = fault;
        self.shared.changed.notify_all();
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// The most connections that were open at once.
    pub fn most_open(&self) -> u64 {
        self.shared.most_open.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Connections that have ended, by whichever side.
    pub fn ended(&self) -> u64 {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// Bytes sent towards the server so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Those of them that are bytes of files.
    pub fn bodies(&self) -> u64 {
        self.shared.bodies.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Under the lock, lest somebody look just before and wait for ever. A panicking test's is
        // poisoned.
        let fault = self.shared.fault.lock();
        self.shared.over.store(true, Ordering::Relaxed);
        drop(fault);
        self.shared.changed.notify_all();
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Shared {
    fn connection(self: &Arc<Self>, client: &TcpStream) {
        let fault = *self.fault.lock().expect("no panic");
        self.accepted.fetch_add(1, Ordering::Relaxed);
        if fault == Fault::Refuse {
            return;
        }
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_open.fetch_max(open, Ordering::Relaxed);
        if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.target)) {
            let _ = self.pump(client, &server, fault);
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Moves bytes both ways until one side ends or the fault strikes.
    fn pump(
        self: &Arc<Self>,
        mut client: &TcpStream,
        mut server: &TcpStream,
        fault: Fault,
    ) -> io::Result<()> {
        let (mut back_from, mut back_to) = (server.try_clone()?, client.try_clone()?);
        let shared = Arc::clone(self);
        let backwards = thread::spawn(move || {
            let _ = io::copy(&mut back_from, &mut back_to);
            if let Fault::StallAfter(_) = fault {
                shared.stall();
            }
            let _ = back_to.shutdown(Shutdown::Both);
        });
        let mut requests = Vec::new();
        let mut bodies = Bodies::default();
        let mut buffer = vec![0; 64 * 1024];
        let mut through = 0;
        loop {
            let room = match fault {
                Fault::CutEvery(period) => {
                    usize::try_from(period - through % period).expect("small")
                }
                Fault::Dribble(bytes) => bytes,
                _ => buffer.len(),
            };
            let room = room.min(buffer.len());
            let read = client.read(&mut buffer[..room])?;
            if read == 0 {
                break;
            }
            server.write_all(&buffer[..read])?;
            through += read as u64;
            self.sent.fetch_add(read as u64, Ordering::Relaxed);
            let bytes = bodies.pass(&buffer[..read]);
            self.bodies.fetch_add(bytes, Ordering::Relaxed);
            match fault {
                Fault::CutEvery(period) if through % period == 0 => break,
                Fault::StallAfter(bytes) if through >= bytes => self.stall(),
                Fault::Duplicate => requests.extend_from_slice(&buffer[..read]),
                _ => {}
            }
        }
        if fault == Fault::Duplicate {
            self.replay(&requests)?;
        }
        client.shutdown(Shutdown::Both)?;
        server.shutdown(Shutdown::Both)?;
        let _ = backwards.join();
        Ok(())
    }

    fn stall(&self) {
        let fault = self.fault.lock().expect("no panic");
        let stalls = |fault: &mut Fault| {
            !self.over.load(Ordering::Relaxed) && matches!(*fault, Fault::StallAfter(_))
        };
        drop(self.changed.wait_while(fault, stalls).expect("no panic"));
    }

    fn replay(&self, requests: &[u8]) -> io::Result<()> {
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, self.target))?;
        let mut answers = server.try_clone()?;
        let reader = thread::spawn(move || io::copy(&mut answers, &mut io::sink()));
        server.write_all(requests)?;
        server.shutdown(Shutdown::Write)?;
        let _ = reader.join();
        Ok(())
    }
}

/// Tells the bodies in a stream of requests from their heads.
#[derive(Default)]
struct Bodies {
    head: Vec<u8>,
    left: u64,
}

impl Bodies {
    /// How many of the stream's next bytes are of bodies.
    fn pass(&mut self, mut bytes: &[u8]) -> u64 {
        let mut passed = 0;
        while !bytes.is_empty() {
            let body = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            passed += body as u64;
            self.left -= body as u64;
            bytes = &bytes[body..];
            let Some((first, rest)) = bytes.split_first() else {
                break;
            };
            self.head.push(*first);
            bytes = rest;
            if self.head.ends_with(b"\r\n\r\n") {
                let head = std::mem::take(&mut self.head);
                self.left = read_head(&mut &head[..]).map_or(0, |(_, length)| length);
            }
        }
        passed
    }
}

/// What a scripted server says to one request.
pub enum Said {
    /// Status line and headers, without the final blank line.
    Head(String),
    /// This first, then this again and again.
    Endless(String, String),
    /// This, and nothing more; nor does the connection end.
    Silence(String),
    /// This, and the end of the connection.
    End(String),
}

impl From<String> for Said {
    fn from(head: String) -> Self {
        Self::Head(head)
    }
}

/// A server that reads each request and answers it by a script, which gets the request's head; or,
/// when it does not speak HTTP, whatever comes, of which the script gets nothing.
pub struct Answering {
    /// The port to connect to.
    pub port: u16,
    shared: Arc<Script>,
}

struct Script {
    speaks_http: bool,
    answer: Box<dyn Fn(&str) -> Said + Send + Sync>,
    open: Mutex<Vec<TcpStream>>,
    /// Where a good server listens by now, which connections are led to.
    good: AtomicU16,
    over: AtomicBool,
}

impl Answering {
    /// Starts one on a free loopback port.
    pub fn start<S: Into<Said>>(answer: impl Fn(&str) -> S + Send + Sync + 'static) -> Self {
        Self::start_with(true, answer)
    }

    /// Starts one to which something else than HTTP is spoken.
    pub fn start_deaf<S: Into<Said>>(answer: impl Fn(&str) -> S + Send + Sync + 'static) -> Self {
        Self::start_with(false, answer)
    }

    fn start_with<S: Into<Said>>(
        speaks_http: bool,
        answer: impl Fn(&str) -> S + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Script {
            speaks_http,
            answer: Box::new(move |head| answer(head).into()),
            open: Mutex::default(),
            good: AtomicU16::new(0),
            over: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.over.load(Ordering::Relaxed) {
                    return;
                }
                let copy = stream.try_clone().expect("a descriptor");
                serving.open.lock().expect("no panic").push(copy);
                let script = Arc::clone(&serving);
                thread::spawn(move || script.connection(&stream));
            }
        });
        Self { port, shared }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Ends all connections; every later one leads to the good server on `port`.
    pub fn give_way_to(&self, port: u16) {
        self.shared.good.store(port, Ordering::SeqCst);
        self.shared.close();
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        self.shared.close();
    }
}

impl Script {
    fn close(&self) {
        for stream in self.open.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn connection(&self, stream: &TcpStream) -> Option<()> {
        match self.good.load(Ordering::SeqCst) {
            0 => self.answer_all(stream),
            good => {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, good)).ok()?;
                let (mut from, mut to) = (server.try_clone().ok()?, stream.try_clone().ok()?);
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
                let _ = io::copy(&mut &*stream, &mut &server);
                server.shutdown(Shutdown::Both).ok()
            }
        }
    }

    fn answer_all(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = io::BufReader::new(stream);
        loop {
            let head = if self.speaks_http {
                let (head, length) = read_head(&mut reader)?;
                io::copy(&mut (&mut reader).take(length), &mut io::sink()).ok()?;
                head
            } else {
                let came = io::BufRead::fill_buf(&mut reader).ok()?.len();
                if came == 0 {
                    return None;
                }
                io::BufRead::consume(&mut reader, came);
                String::new()
            };
            let mut stream = stream;
            match (self.answer)(&head) {
                Said::Head(head) => stream
                    .write_all(format!("{head}\r\n\r\n").as_bytes())
                    .ok()?,
                Said::End(text) => {
                    stream.write_all(text.as_bytes()).ok()?;
                    stream.shutdown(Shutdown::Both).ok()?;
                }
                Said::Silence(text) => stream.write_all(text.as_bytes()).ok()?,
                Said::Endless(first, again) => {
                    stream.write_all(first.as_bytes()).ok()?;
                    loop {
                        stream.write_all(again.as_bytes()).ok()?;
                        common::pause(Duration::from_millis(5));
                    }
                }
            }
        }
    }
}

/// A request's head, and its Content-Length.
fn read_head(reader: &mut impl io::BufRead) -> Option<(String, u64)> {
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim_end().is_empty() {
            return Some((head, length));
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
}
