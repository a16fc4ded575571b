//! Death and errors at every system call that makes something durable. Whatever a client was
//! told is there afterwards, and its next requests bring everything to its end.
//!
//! `cargo test --test server faults -- --ignored` runs these; they need strace.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::common::{self, Server, wait_for, wait_until};
use crate::contract;
use crate::data::{digest, etag};
use crate::http::{Answer, Asked, Connection};
use crate::play::request;
use crate::said::stream;

#[test]
#[ignore = "needs strace, and a minute"]
fn rule_1_death_at_every_system_call_loses_no_acknowledged_byte() {
    for call in [
        "fdatasync",
        "fsync",
        "pwrite64",
        "openat2",
        "mkdirat",
        "ftruncate",
        "statx",
        "write",
    ] {
        for &pipelined in pipelining(call) {
            let hits = each_time(call, "signal=KILL", pipelined, Delivery::has_died);
            println!("{call}: died at {hits} invocations, pipelined: {pipelined}");
        }
    }
}

#[test]
#[ignore = "needs strace, and a minute"]
fn rule_1_errors_at_every_system_call_lose_no_acknowledged_byte() {
    for (call, error) in [
        ("fdatasync", "EIO"),
        ("fsync", "EIO"),
        ("write", "ENOSPC"),
        ("write", "EIO"),
        ("pwrite64", "ENOSPC"),
        ("pwrite64", "EIO"),
        ("openat2", "EMFILE"),
        ("mkdirat", "ENOSPC"),
        ("ftruncate", "EIO"),
        ("statx", "EIO"),
        ("pread64", "EIO"),
    ] {
        for &pipelined in pipelining(call) {
            let hits = each_time(call, &format!("error={error}"), pipelined, |delivery| {
                let trace = fs::read_to_string(&delivery.trace).unwrap_or_default();
                trace.contains("(INJECTED)")
            });
            println!("{call}: {error} at {hits} invocations, pipelined: {pipelined}");
        }
    }
}

#[test]
#[ignore = "needs strace"]
fn rule_10_a_failed_fdatasync_is_an_event_and_the_file_is_read_from_the_disk() {
    let mut delivery = Delivery::new();
    delivery.send_next(0).expect("a sound disk");
    delivery.server.kill();
    // It drops and reads too.
    delivery.server.reconfigure("scrub: {period: never}");
    let mut wrapper = common::strace("fdatasync", "error=EIO", 1, &delivery.trace);
    let file = delivery.on_disk(&delivery.files[0]);
    wrapper.extend(["-e", "trace=fdatasync,fadvise64,pread64", "-P", &file].map(str::to_owned));
    let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    delivery.server.wrap(&words);
    delivery.server.restart();

    // Nobody is told that it is there, and the other files go on.
    assert_eq!(delivery.send_next(0), None);
    assert_eq!(delivery.files[0].acknowledged, 5);
    delivery
        .send_next(1)
        .expect("the other files' disk is sound");
    // The same server comes to its end with it, though each of its threads fails once.
    delivery.deliver(Patience::UntilDone);
    delivery.check_delivered("the disk is sound again");
    let events = common::rows(&delivery.server.datadir, "events");
    let failed: Vec<_> = events
        .iter()
        .filter(|event| event["kind"] == "sync_failed")
        .collect();
    assert_eq!(failed.len(), 1, "{events:?}");
    assert_eq!(failed[0]["path"], "/a");
    let detail = failed[0]["detail"].as_str().expect("a detail");
    assert!(detail.contains("Input/output error"), "{detail}");
    delivery.server.terminate();

    // What the kernel still shows of pages that it could not write is dropped, then the prefix read.
    let trace = fs::read_to_string(&delivery.trace).expect("a trace");
    let mut calls = trace
        .lines()
        .skip_while(|call| !call.contains("(INJECTED)"));
    for next in ["(INJECTED)", "POSIX_FADV_DONTNEED", "pread64("] {
        let call = calls.next().unwrap_or("nothing");
        assert!(call.contains(next), "{call} instead of {next} in\n{trace}");
    }
}

/// With pipelining or without: it matters to what lies between a body's end and its commit.
fn pipelining(call: &str) -> &'static [bool] {
    match call {
        "fdatasync" | "write" | "statx" => &[false, true],
        _ => &[false],
    }
}

/// A filesystem of a few MiB of its own, for as long as this lives.
pub(crate) struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).expect("a mount point");
        let disk = Self(at.to_owned());
        disk.command("mount", &["-t", "tmpfs", "-o", options, "none"]);
        disk
    }

    fn command(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        let status = command.args(arguments).arg(&self.0).status();
        assert!(status.expect(program).success(), "{program} {arguments:?}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs root"]
fn a_disk_that_fills_up_in_mid_body_loses_nothing_and_goes_on_when_there_is_room() {
    let home = TempDir::new().expect("a temporary directory");
    let datadir = home.path().join("data");
    // In this order: the disk is unmounted first.
    let (mut delivery, disk) = {
        let disk = SmallDisk::mount(&datadir, "size=12m");
        let server = Server::start(&datadir, "min_free: 0");
        (Delivery::on(server, home), disk)
    };
    delivery.files = vec![
        Source::new("/small", &[1000, 2000]),
        Source::new("/large", &[1000, 20_000_000, 20_001_000]),
    ];
    for file in [0, 1] {
        delivery.send_next(file).expect("there is room");
    }
    // More than there is room for, twice; the connection tells, and nothing is acknowledged.
    for _ in 0..2 {
        let answer = wait_for("an answer", || {
            let length = delivery.ask_length(1)?;
            delivery.put(1, length, 20_000_000)
        });
        assert_eq!(answer.status, 507, "{}", answer.shown());
    }
    delivery.check_acknowledged("the disk is full");

    disk.command("mount", &["-o", "remount,size=64m"]);
    delivery.deliver(Patience::UntilDone);
    delivery.check_delivered("there is room again");
    delivery.server.kill();
}

#[test]
#[ignore = "needs root"]
fn a_disk_that_fills_up_under_the_index_loses_nothing_and_goes_on_when_there_is_room() {
    let home = TempDir::new().expect("a temporary directory");
    let datadir = home.path().join("data");
    let private = datadir.join(".shaftlog");
    // In this order: the disk is unmounted first.
    let (mut delivery, _disk) = {
        let disk = SmallDisk::mount(&private, "size=8m");
        let server = Server::start(&datadir, "min_free: 0");
        (Delivery::on(server, home), disk)
    };
    delivery.send_next(0).expect("there is room");
    let filler = private.join("filler");
    let full = fs::File::create(&filler).and_then(|mut file| {
        let block = [7; 4096];
        std::iter::repeat(&block).try_for_each(|block| file.write_all(block))
    });
    assert!(full.is_err(), "it was not filled");

    // New files until the index has to grow: refused, and whoever asks is told to come back.
    let refused = (0..5000).find_map(|number| {
        let path = format!("/new/{number:04}-{}", "n".repeat(200));
        let head = "Content-Range: bytes 0-0/1\r\nContent-Length: 1\r\nIf-None-Match: *\r\n";
        let answer = delivery
            .ask_path("PUT", &path, head, b"x")
            .expect("an answer");
        (answer.status != 201).then_some(answer)
    });
    let refused = refused.expect("the index never was full");
    assert!(matches!(refused.status, 503 | 507), "{}", refused.shown());
    assert!(matches!(
        delivery
            .ask_path("HEAD", "/a", "", b"")
            .expect("an answer")
            .status,
        200 | 503
    ));
    delivery.check_acknowledged_on_disk("the index is full");

    fs::remove_file(&filler).expect("the filler");
    delivery.deliver(Patience::UntilDone);
    delivery.check_delivered("there is room again");
    delivery.server.kill();
}

/// Lets one invocation of `call` fail after the other, the first, the second and so on, until
/// none was hit; how many were.
fn each_time(
    call: &str,
    fault: &str,
    pipelined: bool,
    was_hit: impl Fn(&mut Delivery) -> bool,
) -> usize {
    let mut hits = 0;
    for invocation in 1..150 {
        let mut delivery = Delivery::new();
        if pipelined {
            delivery.pipeline();
        }
        let what = format!("{call} {invocation}: {fault} (file, length acknowledged)");
        let mut wrapper = common::strace(call, fault, invocation, &delivery.trace);
        if call == "write" {
            // write(2) is much else too: only that of the delivered files may fail.
            let files = delivery.files.iter().map(|file| delivery.on_disk(file));
            wrapper.extend(files.flat_map(|file| ["-P".to_owned(), file]));
        }
        let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        delivery.server.wrap(&words);
        delivery.server.kill();
        if delivery.server.try_start() {
            delivery.deliver(Patience::None);
        }
        let hit = was_hit(&mut delivery);
        delivery.server.kill();
        delivery.server.wrap(&[]);
        assert!(delivery.server.try_start(), "{what}: does not start again");
        delivery.check_acknowledged(&what);
        delivery.deliver(Patience::UntilDone);
        delivery.check_delivered(&what);
        if !hit {
            break;
        }
        hits += 1;
    }
    assert!(hits > 0, "{call} was never called");
    hits
}

/// How often a request that was not acknowledged is asked again.
#[derive(Clone, Copy, PartialEq)]
enum Patience {
    None,
    UntilDone,
}

/// A client that delivers three files piece by piece, asks when it does not know, and remembers
/// what it was told.
struct Delivery {
    server: Server,
    _home: TempDir,
    trace: std::path::PathBuf,
    files: Vec<Source>,
    /// Each piece is followed by the next before its body is complete.
    pipelined: bool,
}

struct Source {
    path: &'static str,
    bytes: Vec<u8>,
    /// Ends of the pieces.
    ends: Vec<usize>,
    acknowledged: usize,
}

impl Source {
    fn new(path: &'static str, ends: &[usize]) -> Self {
        Self {
            path,
            bytes: stream(path, 0, *ends.last().expect("pieces")),
            ends: ends.to_vec(),
            acknowledged: 0,
        }
    }
}

impl Delivery {
    fn new() -> Self {
        let home = TempDir::new().expect("a temporary directory");
        let server = Server::start(&home.path().join("data"), "");
        Self::on(server, home)
    }

    fn on(server: Server, home: TempDir) -> Self {
        Self {
            trace: home.path().join("trace"),
            server,
            files: vec![
                Source::new("/a", &[5, 10, 20]),
                Source::new("/dir/b", &[300_000, 300_010]),
                Source::new("/dir/sub/c", &[1, 2000]),
            ],
            pipelined: false,
            _home: home,
        }
    }

    /// Sends two pieces at once from now on, of files that have more of them.
    fn pipeline(&mut self) {
        self.pipelined = true;
        self.files = vec![
            Source::new("/a", &[5, 10, 20, 25, 30]),
            Source::new("/dir/b", &[300_000, 300_010, 600_000, 600_010]),
            Source::new("/dir/sub/c", &[1, 2000, 2001, 4000]),
        ];
    }

    /// Sends what is missing, in turns; without patience it goes to the next file when something
    /// is refused, and home when the server is gone.
    fn deliver(&mut self, patience: Patience) {
        for round in 0..4 {
            for file in 0..self.files.len() {
                if round == 1 && patience == Patience::None {
                    self.leave_a_tail(file);
                }
                let delivered = match patience {
                    Patience::None => self.send_next(file).is_some(),
                    Patience::UntilDone => {
                        wait_for("the file is delivered", || {
                            self.send_next(file)?;
                            let source = &self.files[file];
                            (source.acknowledged == source.bytes.len()).then_some(())
                        });
                        true
                    }
                };
                if !delivered && self.has_died() {
                    return;
                }
            }
        }
    }

    fn on_disk(&self, source: &Source) -> String {
        let path = self.server.datadir.join(&source.path[1..]);
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Whether nobody answers any more; its end is waited for then.
    fn has_died(&mut self) -> bool {
        let answers = self.server.daemon.is_some() && self.ask_path("HEAD", "/", "", b"").is_some();
        if !answers {
            wait_until("the server has ended", || self.server.has_ended());
        }
        !answers
    }

    /// Bytes behind the vouched ones, as a body cut short leaves them: not those that will come.
    fn leave_a_tail(&self, file: usize) {
        let path = self.server.datadir.join(&self.files[file].path[1..]);
        if let Ok(mut file) = fs::File::options().append(true).open(path) {
            let _ = file.write_all(b"a tail");
        }
    }

    /// One piece, from where the server says that it is.
    fn send_next(&mut self, file: usize) -> Option<()> {
        let length = self.ask_length(file)?;
        let source = &self.files[file];
        assert!(
            length >= source.acknowledged,
            "{}: {} were acknowledged, HEAD says {length}",
            source.path,
            source.acknowledged
        );
        let Some(&end) = source.ends.iter().find(|&&end| end > length) else {
            self.files[file].acknowledged = length;
            return Some(());
        };
        let next = source.ends.iter().find(|&&next| next > end).copied();
        if let Some(next) = next.filter(|_| self.pipelined) {
            return self.send_two(file, [length, end, next]);
        }
        let answer = self.put(file, length, end)?;
        if matches!(answer.status, 201 | 204) {
            self.files[file].acknowledged = end;
            return Some(());
        }
        // Only what a broken disk explains.
        assert!(matches!(answer.status, 503 | 507), "{}", answer.shown());
        None
    }

    /// Sends two pieces that meet, the second on another connection while the first is under way.
    fn send_two(&mut self, file: usize, ends: [usize; 3]) -> Option<()> {
        let path = self.files[file].path;
        let requests = [0, 1].map(|piece| {
            let (start, end) = (ends[piece], ends[piece + 1]);
            let head = self.head(file, start, end);
            request("PUT", path, &head, &self.files[file].bytes[start..end])
        });
        let open = || {
            let mut connection = Connection::try_open(self.server.port)?;
            connection.expect(Asked {
                method: "PUT".to_owned(),
                target: path.to_owned(),
                end: None,
                known: 0,
            });
            Some(connection)
        };
        let (mut first, mut second) = (open()?, open()?);
        let (early, late) = requests[0].split_at(requests[0].len() - 1);
        first.send(early);
        second.send(&requests[1]);
        first.send(late);
        let mut acknowledged = true;
        for (connection, end) in [(&mut first, ends[1]), (&mut second, ends[2])] {
            let answer = connection.answer().ok().flatten().map(|(_, answer)| answer);
            match answer.as_ref().map(|answer| answer.status) {
                Some(201 | 204) => self.files[file].acknowledged = end,
                // The second may have come too early, or the first to nothing.
                None | Some(503 | 507 | 416) => acknowledged = false,
                Some(_) => panic!("{}", answer.unwrap_or_default().shown()),
            }
        }
        acknowledged.then_some(())
    }

    /// Sends the bytes `start..end`.
    fn put(&self, file: usize, start: usize, end: usize) -> Option<Answer> {
        let head = self.head(file, start, end);
        let source = &self.files[file];
        self.ask("PUT", file, &head, &source.bytes[start..end])
    }

    fn head(&self, file: usize, start: usize, end: usize) -> String {
        let source = &self.files[file];
        format!(
            "Content-Range: bytes {start}-{}/{}\r\nContent-Length: {}\r\nIf-Match: {}\r\nRepr-Digest: {}\r\n",
            end - 1,
            source.bytes.len(),
            end - start,
            etag(&blake3::hash(&source.bytes[..start])),
            digest(&blake3::hash(&source.bytes[..end])),
        )
    }

    fn ask_length(&self, file: usize) -> Option<usize> {
        let answer = self.ask("HEAD", file, "", b"")?;
        match answer.status {
            404 => Some(0),
            200 => usize::try_from(answer.number("shaftlog-length")?).ok(),
            503 | 507 => None,
            _ => panic!("{}", answer.shown()),
        }
    }

    fn ask(&self, method: &str, file: usize, head: &str, body: &[u8]) -> Option<Answer> {
        self.ask_path(method, self.files[file].path, head, body)
    }

    /// An answer, unless the server died over it.
    fn ask_path(&self, method: &str, path: &str, head: &str, body: &[u8]) -> Option<Answer> {
        let mut connection = Connection::try_open(self.server.port)?;
        connection.expect(Asked {
            method: method.to_owned(),
            target: path.to_owned(),
            end: None,
            known: 0,
        });
        connection.send(&request(method, path, head, body));
        let (asked, answer) = connection.answer().ok().flatten()?;
        let on_disk = (path != "/").then(|| self.server.datadir.join(&path[1..]));
        if let Err(problem) = contract::check(&asked, &answer, on_disk.as_deref()) {
            panic!("{problem}\n{}", answer.shown());
        }
        Some(answer)
    }

    /// Rule 1, and rule 3: what was acknowledged is on disk, and HEAD says no less.
    fn check_acknowledged(&self, what: &str) {
        for (index, source) in self.files.iter().enumerate() {
            let on_disk = self.server.file(source.path).unwrap_or_default();
            let acknowledged = &source.bytes[..source.acknowledged];
            assert!(on_disk.starts_with(acknowledged), "{what}: {}", source.path);
            let length = wait_for("HEAD", || self.ask_length(index));
            assert!(
                length >= source.acknowledged,
                "{what}: L of {}",
                source.path
            );
            assert!(
                on_disk.get(..length) == source.bytes.get(..length),
                "{what}: {} has other bytes below L = {length}",
                source.path
            );
        }
    }

    /// The first half of [`check_acknowledged`](Self::check_acknowledged).
    fn check_acknowledged_on_disk(&self, what: &str) {
        for source in &self.files {
            let on_disk = self.server.file(source.path).unwrap_or_default();
            let acknowledged = &source.bytes[..source.acknowledged];
            assert!(on_disk.starts_with(acknowledged), "{what}: {}", source.path);
        }
    }

    fn check_delivered(&self, what: &str) {
        let rows = common::rows(&self.server.datadir, "files");
        for source in &self.files {
            let on_disk = self.server.file(source.path);
            assert!(
                on_disk.as_ref() == Some(&source.bytes),
                "{what}: {}",
                source.path
            );
            let row = rows.iter().find(|row| row["path"] == source.path);
            let hash = blake3::hash(&source.bytes).to_hex();
            let row = row.unwrap_or_else(|| panic!("{what}: no row of {}", source.path));
            assert_eq!(row["blake3"], hash.as_str(), "{what}: {row}");
        }
    }
}
