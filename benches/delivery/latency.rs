//! From the append of a line to its visibility in the target file, a line every 10 ms.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use crate::{Contender, Result, Run, floor, ours, rsync};

const PERIOD: Duration = Duration::from_millis(10);
const LINE: usize = 100;

/// Latency of `lines` lines with `contender` delivering.
pub fn measure(contender: Contender, source: &Path, target: &Path, lines: usize) -> Result<Run> {
    fs::create_dir_all(target)?;
    let log = source.join("00000.log");
    let copy = target.join("00000.log");
    // The first line sets everything up and is not counted.
    let mut file = File::create(&log)?;
    append(&mut file)?;
    let memory = match contender {
        Contender::Floor => {
            let _follower = floor::Follower::start(&log, &copy)?;
            return observe(file, &copy, lines, || Ok(None));
        }
        Contender::Rsync => {
            let _loop = rsync::Loop::start(source, target)?;
            return observe(file, &copy, lines, || Ok(None));
        }
        Contender::Shaftlog => ours::Pair::start(source, target)?,
    };
    observe(file, &copy, lines, || memory.peak_memory().map(Some))
}

fn observe(
    mut file: File,
    copy: &Path,
    lines: usize,
    memory: impl Fn() -> Result<Option<(u64, u64)>>,
) -> Result<Run> {
    wait_for_length(copy, LINE)?;
    let watch = Watch::new(copy)?;
    let (sender, appended) = mpsc::channel();
    let writer = thread::spawn(move || -> io::Result<()> {
        let start = Instant::now();
        for number in 1..=lines {
            let due = start + PERIOD * u32::try_from(number).unwrap_or(u32::MAX);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send(Instant::now()).is_err() {
                break;
            }
            append(&mut file)?;
        }
        Ok(())
    });
    let mut latencies = Vec::new();
    let mut last = Instant::now();
    while latencies.len() < lines {
        let visible = usize::try_from(fs::metadata(copy)?.len())? / LINE - 1;
        let now = Instant::now();
        while latencies.len() < visible {
            latencies.push(now - appended.recv()?);
            last = now;
        }
        if last.elapsed() > Duration::from_secs(30) {
            return Err("no line arrived for 30 s".into());
        }
        watch.wait()?;
    }
    writer.join().map_err(|_| "the writer panicked")??;
    latencies.sort_unstable();
    Ok(Run {
        time: latencies[lines / 2],
        slow: Some(latencies[lines * 99 / 100]),
        memory: memory()?,
    })
}

fn append(file: &mut File) -> io::Result<()> {
    let mut line = [b'x'; LINE];
    line[LINE - 1] = b'\n';
    file.write_all(&line)
}

fn wait_for_length(path: &Path, length: usize) -> Result<()> {
    let start = Instant::now();
    while fs::metadata(path).map_or(0, |stat| stat.len()) < length as u64 {
        if start.elapsed() > Duration::from_secs(30) {
            return Err("the first line does not arrive".into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Tells when a file was written, at the cost of one system call rather than of a busy core.
pub struct Watch(OwnedFd);

impl Watch {
    /// Watches `file` from now on.
    pub fn new(file: &Path) -> io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let fd = inotify::init(flags)?;
        inotify::add_watch(&fd, file, inotify::WatchFlags::MODIFY)?;
        Ok(Self(fd))
    }

    /// Returns after a write, or after 20 ms.
    pub fn wait(&self) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout))?;
        let mut buffer = [0; 4096];
        while rustix::io::read(&self.0, &mut buffer).is_ok_and(|read| read > 0) {}
        Ok(())
    }
}
