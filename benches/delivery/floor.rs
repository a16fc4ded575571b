//! The floor: plain threads and blocking calls. A sender reads 256 KiB and writes them to a
//! loopback connection; a receiver fills 256 KiB, writes them, fdatasyncs each file at its end
//! and only then says so. No index, no hash, no directory sync: nothing that delivers can be
//! faster and still have the bytes on disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::latency::Watch;
use crate::{Result, Run};

/// As many as shaftlog has by default.
const CONNECTIONS: usize = 4;
const CHUNK: usize = 256 * 1024;

/// Delivers every file of `source`, spread over the connections.
pub fn bulk(source: &Path, target: &Path) -> Result<Run> {
    fs::create_dir_all(target)?;
    let mut shares = vec![Vec::new(); CONNECTIONS];
    for (index, entry) in fs::read_dir(source)?.enumerate() {
        shares[index % CONNECTIONS].push(entry?.path());
    }
    shares.retain(|share| !share.is_empty());

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let start = Instant::now();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for share in &shares {
            let stream = TcpStream::connect(address)?;
            let (peer, _) = listener.accept()?;
            threads.push(scope.spawn(move || send(share, stream)));
            threads.push(scope.spawn(move || receive(peer, target)));
        }
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| panicked())?)
    })?;
    Ok(Run::timed(start.elapsed()))
}

fn panicked() -> io::Error {
    io::Error::other("a thread of the floor panicked")
}

/// Each file: 8 bytes of number, 8 of length, the bytes. Ends when the last one is durable.
fn send(files: &[PathBuf], mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; CHUNK];
    for path in files {
        let mut file = File::open(path)?;
        let mut left = file.metadata()?.len();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let number: u64 = stem.and_then(|s| s.parse().ok()).unwrap_or_default();
        stream.write_all(&number.to_le_bytes())?;
        stream.write_all(&left.to_le_bytes())?;
        while left > 0 {
            let read = file.read(&mut buffer)?;
            stream.write_all(&buffer[..read])?;
            left -= read as u64;
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut acknowledged = Vec::new();
    stream.read_to_end(&mut acknowledged)?;
    if acknowledged.len() == files.len() {
        Ok(())
    } else {
        Err(io::Error::other("the receiver stopped early"))
    }
}

fn receive(mut stream: TcpStream, target: &Path) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    while let Some(number) = read_number(&mut stream)? {
        let length = read_number(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut file = File::create(target.join(format!("{number:05}.log")))?;
        let mut body = (&mut stream).take(length);
        while body.limit() > 0 {
            let filled = fill(&mut body, &mut buffer)?;
            file.write_all(&buffer[..filled])?;
        }
        file.sync_data()?;
        stream.write_all(b"y")?;
    }
    Ok(())
}

/// The next 8 bytes, or nothing at the stream's end.
fn read_number(stream: &mut TcpStream) -> io::Result<Option<u64>> {
    let mut bytes = [0; 8];
    match fill(stream, &mut bytes) {
        Ok(8) => Ok(Some(u64::from_le_bytes(bytes))),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads until `buffer` is full or the input ends; an error if there was nothing at all.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..])? {
            0 if filled == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Follows the one file `source` and delivers what is appended to it, until dropped.
pub struct Follower {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Follower {
    /// Starts both ends.
    pub fn start(source: &Path, target: &Path) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let sender = TcpStream::connect(listener.local_addr()?)?;
        let (receiver, _) = listener.accept()?;
        sender.set_nodelay(true)?;
        let stop = Arc::default();
        let watch = Watch::new(source)?;
        let file = File::open(source)?;
        let copy = File::create(target)?;
        let stopped = Arc::clone(&stop);
        Ok(Self {
            stop,
            threads: vec![
                thread::spawn(move || follow(file, &watch, sender, &stopped)),
                thread::spawn(move || write_and_sync(receiver, copy)),
            ],
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if !matches!(thread.join(), Ok(Ok(()))) {
                eprintln!("the floor's follower failed");
            }
        }
    }
}

fn follow(
    mut file: File,
    watch: &Watch,
    mut stream: TcpStream,
    stop: &AtomicBool,
) -> io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        if io::copy(&mut file, &mut stream)? == 0 {
            watch.wait()?;
        }
    }
    Ok(())
}

fn write_and_sync(mut stream: TcpStream, mut copy: File) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => copy.write_all(&buffer[..read])?,
        }
        copy.sync_data()?;
    }
}
