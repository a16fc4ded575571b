//! What the integration tests share: the real program as server and as client, its signals, the
//! one loop that waits, and looking at what was delivered.
//!
//! ```ignore
//! let home = TempDir::new()?;
//! let mut server = Server::start(&home.path().join("server"), "");
//! let mut client = Client::start(&home.path().join("client"), &pattern_to(&logs, &server));
//! wait_until("the line arrives", || server.holds("/a.log", b"line\n"));
//! server.kill();          // SIGKILL, as a power cut of the process
//! server.restart();       // the same port, datadir and configuration
//! ```
#![allow(dead_code, reason = "each test program uses its own part of this")]
#![allow(
    unreachable_pub,
    reason = "each test program has this as a private module"
)]
#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says why"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a test waits for what must happen before it fails. Far above what a busy machine
/// with one core needs: it is a bound, not a measure.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives a value; panics, naming `what`, when [`DEADLINE`] has passed.
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, what, condition)
}

/// Appends to a log, as a program does that writes one; makes it when it is not there.
pub fn append(log: &Path, bytes: impl AsRef<[u8]>) {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .expect("a log to write to");
    file.write_all(bytes.as_ref()).expect("room for a line");
}

/// [`wait_for`] for a condition that is only true or false.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// [`wait_for`] with a deadline of its own: the one place where a test polls.
pub fn wait_within<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        let waited = start.elapsed();
        assert!(waited < deadline, "not within {deadline:?}: {what}");
        // Some conditions are dear: the longer it takes, the less often we look.
        let pause = waited / 20;
        std::thread::sleep(pause.clamp(Duration::from_millis(2), Duration::from_millis(100)));
    }
}

/// Lets time pass for its own sake: the pace of a load, the moment of a blow. Never to wait for
/// something: that is [`wait_for`].
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The program under test, ready for arguments.
pub fn shaftlog() -> Command {
    Command::new(program())
}

/// `program` behind the command `wrapper`, or by itself when that is empty.
fn wrapped(wrapper: &[String], program: &Path) -> Command {
    let mut words = wrapper.iter();
    let Some(first) = words.next() else {
        return Command::new(program);
    };
    let mut command = Command::new(first);
    command.args(words).arg(program);
    command
}

/// Path of the program under test.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_shaftlog"))
}

/// Runs the program to its end.
pub fn run<I>(args: I) -> Output
where
    I: IntoIterator,
    I::Item: AsRef<std::ffi::OsStr>,
{
    shaftlog()
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

/// What a finished program said, for a failure's message.
pub fn said(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The rows of every database in `datadir`, as `db inspect --json` prints them.
pub fn inspect(datadir: &Path) -> Vec<serde_json::Value> {
    let args: [&std::ffi::OsStr; 5] = [
        "db".as_ref(),
        "inspect".as_ref(),
        "--json".as_ref(),
        "--datadir".as_ref(),
        datadir.as_ref(),
    ];
    let output = run(args);
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}")))
        .collect()
}

/// The rows of one table of [`inspect`].
pub fn rows(datadir: &Path, table: &str) -> Vec<serde_json::Value> {
    let mut all = inspect(datadir);
    all.retain(|row| row["table"] == table);
    all
}

/// A running daemon. Dropping it kills it; a panicking test shows the end of its log.
pub struct Daemon {
    child: Child,
    output: PathBuf,
}

impl Daemon {
    /// Starts `command`; what it prints goes to the file `output`, after what is there.
    pub fn spawn(mut command: Command, output: &Path) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(output)
            .expect("a file for the daemon's output");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second descriptor"))
            .stderr(file)
            .spawn()
            .expect("the daemon starts");
        Self {
            child,
            output: output.to_owned(),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Sends one signal to this process alone.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
            kill_process(pid.expect("a process id"), signal).expect("a child of ours");
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("a child of ours");
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        wait_for("the daemon ends after SIGTERM", || self.ended())
    }

    /// Everything it has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid()));
        open.expect("running").count()
    }

    /// A field of `/proc/PID/status` in KiB, such as `VmHWM`, its peak memory.
    pub fn memory_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("running");
        let line = status.lines().find(|l| l.starts_with(field));
        let value = line.and_then(|l| l.split_whitespace().nth(1));
        value.expect(field).parse().expect("a number")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            let end = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- end of {}\n{}", self.output.display(), end.join("\n"));
        }
    }
}

/// A server on a free loopback port. Its configuration and output lie beside its datadir.
pub struct Server {
    /// The program that runs; [`program`] unless a test chose another build of it.
    pub program: PathBuf,
    /// Where it stores what it receives.
    pub datadir: PathBuf,
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The running process, unless it was stopped.
    pub daemon: Option<Daemon>,
    extra: String,
    wrapper: Vec<String>,
}

impl Server {
    /// Starts one with the lines `extra` added to its configuration, and waits until it accepts.
    pub fn start(datadir: &Path, extra: &str) -> Self {
        Self::start_program(program(), datadir, extra)
    }

    /// [`Self::start`] with another build of the program.
    pub fn start_program(program: &Path, datadir: &Path, extra: &str) -> Self {
        let mut server = Self {
            program: program.to_owned(),
            datadir: datadir.to_owned(),
            port: 0,
            daemon: None,
            extra: extra.to_owned(),
            wrapper: Vec::new(),
        };
        // A free port may be taken again before the server binds it.
        loop {
            server.port = free_port();
            if server.try_start() {
                return server;
            }
            let output = fs::read_to_string(server.beside("out")).unwrap_or_default();
            let last = output.lines().last().unwrap_or("");
            assert!(
                last.contains("in use"),
                "the server does not start:\n{output}"
            );
        }
    }

    /// Runs it behind this command from the next start on, such as `strace -D`; behind none when
    /// it is empty. The command has to become the server: signals go to the process it starts as.
    pub fn wrap(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
    }

    /// Starts it again with the same port, datadir and configuration.
    pub fn restart(&mut self) {
        assert!(
            self.try_start(),
            "the server does not start again:\n{}",
            fs::read_to_string(self.beside("out")).unwrap_or_default()
        );
    }

    /// Starts it (again); false when it ended instead.
    pub fn try_start(&mut self) -> bool {
        self.daemon = None;
        let config = self.write_config();
        let mut command = wrapped(&self.wrapper, &self.program);
        command.args(["server", "--stdout", "--config"]).arg(config);
        let before = self.output().len();
        let mut daemon = Daemon::spawn(command, &self.beside("out"));
        let up = wait_for("the server accepts connections", || {
            // Its word counts: another process may have the port.
            let listens = daemon.output()[before..].contains("listening on");
            let accepts = listens && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
            match daemon.ended() {
                Some(_) => Some(false),
                None => accepts.then_some(true),
            }
        });
        self.daemon = up.then_some(daemon);
        up
    }

    fn write_config(&self) -> PathBuf {
        let text = format!(
            "datadir: {}\nlogfile: {}\nlisten_port: {}\nbind_address: 127.0.0.1\n{}\n",
            yaml(&self.datadir),
            yaml(&self.beside("log")),
            self.port,
            self.extra
        );
        let path = self.beside("yaml");
        fs::write(&path, text).expect("a place for the configuration");
        path
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        beside(&self.datadir, suffix)
    }

    /// The URL that a client sends to, with its final slash.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Path of its configuration file.
    pub fn config(&self) -> PathBuf {
        self.beside("yaml")
    }

    /// Takes the lines `extra` instead of the present ones from the next start on.
    pub fn reconfigure(&mut self, extra: &str) {
        extra.clone_into(&mut self.extra);
    }

    /// Everything it has printed so far, in all its lives.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.beside("out")).unwrap_or_default()).into_owned()
    }

    /// Its process; panics when it was stopped.
    pub fn process(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("the server was started")
    }

    /// Whether it does not run any more, or was never started.
    pub fn has_ended(&mut self) -> bool {
        match &mut self.daemon {
            Some(daemon) => daemon.ended().is_some(),
            None => true,
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// SIGTERM; how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.daemon
            .take()
            .expect("the server was started")
            .terminate()
    }

    /// The file's bytes under `path` (with or without a leading slash), if it is there.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(self.datadir.join(path.trim_start_matches('/'))).ok()
    }

    /// Whether the file under `path` is exactly `bytes`.
    pub fn holds(&self, path: &str, bytes: &[u8]) -> bool {
        self.file(path).as_deref() == Some(bytes)
    }
}

/// A client daemon. Its configuration and output lie beside its datadir.
pub struct Client {
    /// Where its links and its catalogue lie.
    pub datadir: PathBuf,
    /// The running process, unless it was stopped.
    pub daemon: Option<Daemon>,
    /// A command that the daemon runs behind from the next start on and that becomes it, as with
    /// [`Server::wrap`]; none when it is empty.
    pub wrapper: Vec<String>,
}

impl Client {
    /// Starts one with the lines `extra` (scan paths, destinations) in its configuration.
    pub fn start(datadir: &Path, extra: &str) -> Self {
        let mut client = Self::configure(datadir, extra);
        client.restart();
        client
    }

    /// One with its configuration written but not started: for `sync`, or to start it later.
    pub fn configure(datadir: &Path, extra: &str) -> Self {
        let client = Self {
            datadir: datadir.to_owned(),
            daemon: None,
            wrapper: Vec::new(),
        };
        client.reconfigure(extra);
        client
    }

    /// Writes its configuration anew.
    pub fn reconfigure(&self, extra: &str) {
        let text = format!(
            "datadir: {}\nlogfile: {}\n{extra}\n",
            yaml(&self.datadir),
            yaml(&beside(&self.datadir, "log")),
        );
        fs::write(self.config(), text).expect("a place for the configuration");
    }

    /// Starts the daemon, again if it was stopped.
    pub fn restart(&mut self) {
        self.daemon = None;
        let mut command = wrapped(&self.wrapper, program());
        command
            .args(["client", "--stdout", "--config"])
            .arg(self.config());
        let output = beside(&self.datadir, "out");
        self.daemon = Some(Daemon::spawn(command, &output));
    }

    /// Runs `shaftlog sync` with its configuration.
    pub fn sync(&self, args: &[&str]) -> Output {
        self.sync_wrapped(&[], args)
    }

    /// [`Self::sync`] behind a command that becomes it, as [`Server::wrap`] does for a server.
    pub fn sync_wrapped(&self, wrapper: &[String], args: &[&str]) -> Output {
        let mut command = wrapped(wrapper, program());
        command
            .args(["sync", "--config"])
            .arg(self.config())
            .args(args);
        command
            .stdin(Stdio::null())
            .output()
            .expect("the program starts")
    }

    /// Path of its configuration file.
    pub fn config(&self) -> PathBuf {
        beside(&self.datadir, "yaml")
    }

    /// Its process; panics when it was stopped.
    pub fn process(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("the client was started")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// SIGTERM; how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.daemon
            .take()
            .expect("the client was started")
            .terminate()
    }
}

/// Client settings: each `(name, pattern)` is delivered under the file's own name below `name/`
/// to each URL.
pub fn deliver(patterns: &[(&str, &Path)], urls: &[&str]) -> String {
    let mut text = String::from("scan_paths:\n");
    for (name, pattern) in patterns {
        let pattern = yaml(pattern);
        let rename = yaml(Path::new(&format!("{name}/$1")));
        writeln!(
            text,
            "- {{name: {name}, pattern: {pattern}, regex_from: '^.*/([^/]*)$', regex_to: {rename}}}"
        )
        .expect("writing to a string");
    }
    text.push_str("destinations:\n");
    for url in urls {
        writeln!(text, "- url: {url}").expect("writing to a string");
    }
    text
}

/// A path as a quoted YAML value.
pub fn yaml(path: &Path) -> String {
    let text = path.to_str().expect("test paths are UTF-8");
    format!("'{}'", text.replace('\'', "''"))
}

/// `datadir` with `suffix` after its name: files that belong to it but do not lie in it.
fn beside(datadir: &Path, suffix: &str) -> PathBuf {
    datadir.with_extension(suffix)
}

/// A port of 127.0.0.1 that nobody listens on now, another each time. It lies below those that the
/// kernel gives to connections: one of them would else have it when a server comes back to it, be it
/// the connection that asks whether it is back.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at once begin far from one another.
    let start = std::process::id().wrapping_mul(7919);
    let mut ports = std::iter::repeat_with(|| {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        u16::try_from(FIRST + start.wrapping_add(taken) % COUNT).expect("below 2^16")
    });
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.find(is_free).expect("a free port")
}

/// strace that does `fault` (`signal=KILL`, `error=EIO`) at the `nth` of these `calls` of each
/// thread, and writes what it saw to `trace`. It steps aside (`-D`), so that the program is our own
/// child; to be followed by the program.
pub fn strace(calls: &str, fault: &str, nth: usize, trace: &Path) -> Vec<String> {
    let filter = format!("trace={calls}");
    let inject = format!("inject={calls}:{fault}:when={nth}");
    let trace = trace.to_str().expect("test paths are UTF-8");
    let words = [
        "strace", "-D", "-f", "-qq", "-o", trace, "-e", &filter, "-e", &inject,
    ];
    words.map(str::to_owned).into()
}

/// Every regular file below `dir` except our own directory: relative path, length and BLAKE3.
pub fn tree(dir: &Path) -> BTreeMap<PathBuf, (u64, blake3::Hash)> {
    let mut files = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        let entries = fs::read_dir(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display()));
        for entry in entries {
            let path = entry.expect("readable entry").path();
            let kind = fs::symlink_metadata(&path).expect("stat").file_type();
            if kind.is_dir() && path.file_name() != Some(".shaftlog".as_ref()) {
                open.push(path);
            } else if kind.is_file() {
                let mut hasher = blake3::Hasher::new();
                let file = File::open(&path).expect("readable file");
                let length = std::io::copy(&mut &file, &mut hasher).expect("readable file");
                let name = path.strip_prefix(dir).expect("below dir").to_owned();
                files.insert(name, (length, hasher.finalize()));
            }
        }
    }
    files
}

/// Fails, naming what differs, unless both directories hold the same files with the same bytes.
pub fn assert_same_tree(expected: &Path, got: &Path) {
    let (expected, got) = (tree(expected), tree(got));
    let missing: Vec<_> = expected.keys().filter(|k| !got.contains_key(*k)).collect();
    let extra: Vec<_> = got.keys().filter(|k| !expected.contains_key(*k)).collect();
    let differ: Vec<_> = expected
        .iter()
        .filter_map(|(k, v)| Some((k, v.0, got.get(k).filter(|g| *g != v)?.0)))
        .collect();
    assert!(
        missing.is_empty() && extra.is_empty() && differ.is_empty(),
        "missing {missing:?}, too much {extra:?}, different (expected and found length) {differ:?}"
    );
}

/// BLAKE3 of the file's first `length` bytes in hex: `head -c LENGTH FILE | b3sum`.
pub fn prefix_hash(file: &Path, length: u64) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut prefix = File::open(file).expect("readable file").take(length);
    let read = std::io::copy(&mut prefix, &mut hasher).expect("readable file");
    assert_eq!(read, length, "{} is shorter", file.display());
    hasher.finalize().to_hex().to_string()
}
