//! Writers whose every line says who wrote it and which one it is, and the check that what
//! arrived is exactly that.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::common::pause;

/// Bytes of one line with its end.
pub const LINE: usize = 80;

/// Line `number` of `stream`: no two streams or numbers share more than a few bytes.
pub fn line(stream: &str, number: u64) -> [u8; LINE] {
    let noise = blake3::hash(format!("{stream}/{number}").as_bytes());
    let text = format!("{number:012} {stream:.<16} {}", noise.to_hex());
    let mut line = [b'\n'; LINE];
    line[..LINE - 1].copy_from_slice(&text.as_bytes()[..LINE - 1]);
    line
}

/// The numbers of the lines that `bytes` consists of: first, and one after the last. An error
/// when a line is not what its writer wrote, or not the successor of the one before it. A last
/// line cut short must be the beginning of the right one.
pub fn numbers(stream: &str, bytes: &[u8]) -> Result<(u64, u64), String> {
    let first = bytes.get(..12).and_then(|n| std::str::from_utf8(n).ok());
    let first: u64 = first
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| format!("no line of {stream} begins {:?}", shown(bytes)))?;
    let mut next = first;
    for (index, got) in bytes.chunks(LINE).enumerate() {
        if !line(stream, next).starts_with(got) {
            return Err(format!(
                "at byte {} expected line {next} of {stream}, found {:?}",
                index * LINE,
                shown(got)
            ));
        }
        next += u64::from(got.len() == LINE);
    }
    Ok((first, next))
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(LINE)]).into_owned()
}

/// How fast lines come: `lines` at once, then a pause.
#[derive(Clone, Copy)]
pub struct Pace {
    pub lines: u64,
    pub pause: Duration,
}

impl Pace {
    /// Some thousand lines a second.
    pub const STEADY: Self = Self {
        lines: 10,
        pause: Duration::from_millis(2),
    };
}

/// Appends numbered lines to a file like a daemon that keeps it open and reopens it when told.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    reopen: AtomicBool,
    next: AtomicU64,
    /// Numbers of the lines that stand first in a life of the file.
    lives: Mutex<BTreeSet<u64>>,
}

impl Writer {
    /// Writes from line `first` on.
    pub fn start(path: &Path, stream: &str, first: u64, pace: Pace) -> Self {
        let shared = Arc::new(Shared {
            next: AtomicU64::new(first),
            ..Shared::default()
        });
        let (theirs, path, stream) = (Arc::clone(&shared), path.to_owned(), stream.to_owned());
        let thread = thread::spawn(move || theirs.write(&path, &stream, pace));
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// From now on lines go to whatever file has the path; what postrotate does to a daemon.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
    }

    /// The number of the next line: how many were written, when it began at 0.
    pub fn written(&self) -> u64 {
        self.shared.next.load(Ordering::Relaxed)
    }

    /// First lines of the lives that the file had, as far as the writer saw them.
    pub fn lives(&self) -> BTreeSet<u64> {
        self.shared.lives.lock().expect("no panic").clone()
    }

    /// Ends the writing; the number of the line that would have been next.
    pub fn stop(&mut self) -> u64 {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the writer wrote");
        }
        self.written()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn write(&self, path: &Path, stream: &str, pace: Pace) {
        let open = || File::options().create(true).append(true).open(path);
        let mut file = open().expect("a log");
        while !self.stop.load(Ordering::Relaxed) {
            if self.reopen.swap(false, Ordering::Relaxed) {
                file = open().expect("a log");
            }
            for _ in 0..pace.lines {
                let number = self.next.load(Ordering::Relaxed);
                file.write_all(&line(stream, number)).expect("room");
                let size = file.metadata().expect("stat").len();
                // Nobody else writes: the size says at which line this life began, unless the
                // file was truncated just now.
                if size > 0 {
                    let life = number + 1 - size / LINE as u64;
                    self.lives.lock().expect("no panic").insert(life);
                }
                self.next.store(number + 1, Ordering::Relaxed);
            }
            pause(pace.pause);
        }
    }
}

/// Sends numbered lines to a syslog socket, and waits when the daemon does not keep up.
pub struct Logger {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Logger {
    /// Sends to `socket`.
    pub fn start(socket: &Path, stream: &str, pace: Pace) -> Self {
        let shared = Arc::new(Shared::default());
        let (theirs, socket, stream) = (Arc::clone(&shared), socket.to_owned(), stream.to_owned());
        let thread = thread::spawn(move || {
            let to = UnixDatagram::unbound().expect("a socket");
            to.connect(&socket).expect("rsyslogd listens");
            while !theirs.stop.load(Ordering::Relaxed) {
                for _ in 0..pace.lines {
                    let number = theirs.next.fetch_add(1, Ordering::Relaxed);
                    let mut message = b"<13>Nov 22 12:00:00 numbered: ".to_vec();
                    message.extend_from_slice(&line(&stream, number)[..LINE - 1]);
                    to.send(&message).expect("rsyslogd takes it");
                }
                pause(pace.pause);
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Ends the sending; how many lines were sent.
    pub fn stop(&mut self) -> u64 {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the logger sent");
        }
        self.shared.next.load(Ordering::Relaxed)
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Every regular file of a directory of delivered files; none when it is not there yet.
pub fn delivered(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("readable entry").path());
    paths.filter(|path| path.is_file()).collect()
}

/// Bytes in all files of `dir`.
pub fn delivered_bytes(dir: &Path) -> u64 {
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |stat| stat.size());
    delivered(dir).iter().map(size).sum()
}

/// The stretches of lines in the files of `dir`, ordered: number of the first line, and of the
/// line after the last. Empty files hold none.
pub fn stretches(dir: &Path, stream: &str) -> Result<Vec<(u64, u64)>, String> {
    let mut found = Vec::new();
    for path in delivered(dir) {
        let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        if !bytes.is_empty() {
            let stretch = numbers(stream, &bytes);
            found.push(stretch.map_err(|e| format!("{}: {e}", path.display()))?);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether the files of `dir` hold every line below `count` exactly once, each file in order.
pub fn exactly_once(dir: &Path, stream: &str, count: u64) -> Result<(), String> {
    let mut next = 0;
    for (first, after) in stretches(dir, stream)? {
        if first != next {
            return Err(format!(
                "{stream}: after line {next} comes line {first}: {}",
                if first < next { "twice" } else { "lost" }
            ));
        }
        next = after;
    }
    if next == count {
        Ok(())
    } else {
        Err(format!("{stream}: ends with line {next} of {count}"))
    }
}

/// Random numbers that a seed repeats (splitmix64).
pub struct Random(u64);

impl Random {
    /// From `SHAFTLOG_SEED`, or from the clock; prints it, for the test that fails.
    pub fn new() -> Self {
        let given = std::env::var("SHAFTLOG_SEED").ok();
        let seed = given.map_or_else(
            || std::process::id().into(),
            |text| text.parse().expect("SHAFTLOG_SEED is a number"),
        );
        eprintln!("SHAFTLOG_SEED={seed}");
        Self(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// Waits a random time up to `most`: a load's pace, or the moment of a blow.
    pub fn pause(&mut self, most: Duration) {
        let micros = u64::try_from(most.as_micros()).expect("a short time");
        pause(Duration::from_micros(self.below(micros + 1)));
    }
}

#[test]
fn a_lost_a_repeated_and_a_foreign_line_are_noticed() {
    let dir = tempfile::tempdir().expect("a directory");
    let put = |name: &str, lines: &[[u8; LINE]]| {
        fs::write(dir.path().join(name), lines.concat()).expect("a file");
    };
    let check = |count| exactly_once(dir.path(), "s", count);
    put("a", &[line("s", 0), line("s", 1)]);
    put("b", &[line("s", 2)]);
    put("empty", &[]);
    assert_eq!(check(3), Ok(()));
    assert!(check(4).is_err(), "a lost end");
    put("b", &[line("s", 3)]);
    assert!(check(4).is_err(), "a lost line between files");
    put("b", &[line("s", 1), line("s", 2)]);
    assert!(check(3).is_err(), "a repeated line");
    put("b", &[line("s", 2), line("s", 4)]);
    assert!(check(5).is_err(), "a lost line inside a file");
    put("b", &[line("t", 2)]);
    assert!(check(3).is_err(), "a line of another stream");
    fs::write(dir.path().join("b"), &line("s", 2)[..40]).expect("a file");
    assert!(check(3).is_err(), "a line cut short");
    assert_eq!(stretches(dir.path(), "s"), Ok(vec![(0, 2), (2, 2)]));
}
