//! Files that no log should be, and things that happen to logs while they are read: each is delivered
//! byte for byte, or left alone and told of, and the others go on.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use tempfile::TempDir;

use super::faults::{Fault, Proxy};
use crate::common::{self, Client, Server, append, deliver, said, wait_until};

/// A server, a line to it that can be made bad, and logs.
struct Stage {
    home: TempDir,
    logs: PathBuf,
    server: Server,
    proxy: Proxy,
}

impl Stage {
    fn new(fault: Fault) -> Self {
        let home = TempDir::new().unwrap();
        let logs = home.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let server = Server::start(&home.path().join("server"), "");
        let proxy = Proxy::start(server.port, fault);
        Self {
            home,
            logs,
            server,
            proxy,
        }
    }

    /// Puts a file among the logs.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.logs.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A client of all logs, not yet started.
    fn client(&self, settings: &str) -> Client {
        let config = deliver(&[("logs", &self.logs.join("**"))], &[&self.proxy.url()]);
        let config = format!("scan_interval: 200\nstatus_interval: 100\n{settings}{config}");
        Client::configure(&self.home.path().join("client"), &config)
    }

    /// The same, running.
    fn started(&self, settings: &str) -> Client {
        let mut client = self.client(settings);
        client.restart();
        client
    }

    fn wait_holds(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = format!("logs/{name}");
        wait_until(&format!("{path} arrives"), || {
            self.server.holds(&path, bytes.as_ref())
        });
    }

    /// What has been delivered, by name.
    fn delivered(&self) -> BTreeSet<PathBuf> {
        let delivered = self.server.datadir.join("logs");
        common::tree(&delivered).into_keys().collect()
    }
}

/// Bytes that repeat nowhere soon.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// A FIFO or a device.
fn node(path: &Path, kind: FileType, device: u64) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device).unwrap();
}

/// How an odd file is made, and the bytes that arrive, if any do.
type Odd = (&'static str, &'static [u8], fn(&Path) -> Option<Vec<u8>>);

/// The odd files, by what they are and their name.
const ODD: [Odd; 12] = [
    ("symlink loop", b"loop", |path| {
        symlink("loop", path).unwrap();
        None
    }),
    ("loop of two symlinks", b"one", |path| {
        symlink("other", path).unwrap();
        symlink("one", path.with_file_name("other")).unwrap();
        None
    }),
    ("symlink to the directory that it is in", b"here", |path| {
        symlink(".", path).unwrap();
        None
    }),
    ("symlink to another's file", b"passwd", |path| {
        symlink("/etc/passwd", path).unwrap();
        None
    }),
    ("symlink to nothing", b"nothing", |path| {
        symlink("/nonexistent", path).unwrap();
        None
    }),
    ("symlink to /dev/zero", b"zero", |path| {
        symlink("/dev/zero", path).unwrap();
        None
    }),
    ("FIFO", b"fifo", |path| {
        node(path, FileType::Fifo, 0);
        None
    }),
    ("socket", b"socket", |path| {
        // It stays there when nobody listens any more.
        UnixListener::bind(path).unwrap();
        None
    }),
    ("hole", b"hole", |path| {
        let length = 3 << 20;
        let file = File::create(path).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"end", length).unwrap();
        let whole = fs::read(path).unwrap();
        assert_eq!(whole.len() as u64, length + 3);
        Some(whole)
    }),
    ("nothing but a hole", b"hollow", |path| {
        File::create(path).unwrap().set_len(300_000).unwrap();
        Some(vec![0; 300_000])
    }),
    ("name that is not UTF-8", b"\xff\xfe.log", |path| {
        fs::write(path, "no text").unwrap();
        Some(b"no text".to_vec())
    }),
    ("name with a newline and ESC", b"a\n\x1b[2J", |path| {
        fs::write(path, "on a terminal").unwrap();
        Some(b"on a terminal".to_vec())
    }),
];

#[test]
fn odd_files_arrive_byte_for_byte_or_are_left_alone() {
    let stage = Stage::new(Fault::None);
    stage.write("good", "line\n");
    let mut expected = BTreeSet::from([PathBuf::from("good")]);
    let made = ODD.map(|(what, name, make)| {
        let name = OsStr::from_bytes(name);
        let bytes = make(&stage.logs.join(name));
        if bytes.is_some() {
            expected.insert(name.into());
        }
        (what, name, bytes)
    });
    let mut client = stage.started("");
    for (what, name, bytes) in &made {
        let Some(bytes) = bytes else { continue };
        let path = stage.server.datadir.join("logs").join(name);
        wait_until(&format!("{what}: it arrives"), || {
            fs::read(&path).is_ok_and(|there| there == *bytes)
        });
    }
    stage.wait_holds("good", "line\n");
    // Seven are symbolic links, two are special.
    wait_until("what is passed over is told", || {
        let output = client.process().output();
        output.contains("7 symbolic links") && output.contains("2 special files")
    });
    // The next good one is taken.
    append(&stage.logs.join("good"), b"next\n");
    stage.wait_holds("good", "line\nnext\n");
    assert!(client.terminate().success());
    assert_eq!(stage.delivered(), expected);
    println!("{} odd files", made.len());
}

#[test]
#[ignore = "needs root"]
fn devices_among_the_logs_are_left_alone() {
    let stage = Stage::new(Fault::None);
    for (name, kind, major, minor) in [
        ("zero", FileType::CharacterDevice, 1, 5),
        ("full", FileType::CharacterDevice, 1, 7),
        ("tty", FileType::CharacterDevice, 5, 0),
        ("disk", FileType::BlockDevice, 7, 250),
    ] {
        node(&stage.logs.join(name), kind, makedev(major, minor));
    }
    stage.write("good", "line\n");
    let mut client = stage.started("");
    stage.wait_holds("good", "line\n");
    wait_until("what is passed over is told", || {
        client.process().output().contains("4 special files")
    });
    assert!(client.terminate().success());
    assert_eq!(stage.delivered(), BTreeSet::from(["good".into()]));
}

/// What happens while a file is delivered or has been, and what is there in the end.
const EVENTS: [(&str, fn()); 6] = [
    ("truncation while reading", truncated_while_reading),
    ("unlink while reading", unlinked_while_reading),
    ("inode reuse", inode_used_again),
    ("rename onto a tracked file", renamed_onto_a_tracked_file),
    ("unreadable", unreadable),
    ("growth faster than the link", growth_faster_than_the_link),
];

#[test]
fn what_happens_to_files_splices_and_loses_nothing() {
    for (what, happens) in EVENTS {
        println!("{what}");
        happens();
    }
    println!("{} events", EVENTS.len());
}

/// A stage on which a good part of `log` is under way, and nothing moves.
fn under_way(bytes: &[u8]) -> (Stage, Client) {
    let stage = Stage::new(Fault::StallAfter(200_000));
    stage.write("log", bytes);
    let client = stage.started("");
    wait_until("a part is under way", || stage.proxy.sent() >= 200_000);
    (stage, client)
}

fn truncated_while_reading() {
    let first = noise(24 << 20);
    let (stage, client) = under_way(&first);
    // The same inode, as copytruncate does it.
    stage.write("log", "the second life\n");
    stage.proxy.set(Fault::None);
    // Under the file's own name, if nothing of the first life was confirmed.
    let second = b"the second life\n";
    wait_until("the second life arrives", || {
        stage.server.holds("logs/log", second) || stage.server.holds("logs/log.1", second)
    });
    // What arrived of the first is that, and nothing else; what did not is told.
    let there = stage.server.file("logs/log").unwrap();
    assert!(there == second || first.starts_with(&there), "spliced");
    assert!(
        there.len() < first.len(),
        "it was not cut while it was read"
    );
    wait_until("what is lost is told", || {
        let events = common::rows(&client.datadir, "events");
        events.iter().any(|event| event["kind"] == "lost")
    });
}

fn unlinked_while_reading() {
    let bytes = noise(24 << 20);
    let (stage, _client) = under_way(&bytes);
    fs::remove_file(stage.logs.join("log")).unwrap();
    stage.proxy.set(Fault::None);
    stage.wait_holds("log", &bytes);
    stage.write("good", "line\n");
    stage.wait_holds("good", "line\n");
}

fn inode_used_again() {
    let stage = Stage::new(Fault::None);
    let log = stage.write("log", "the first of its inode\n");
    let inode = fs::metadata(&log).unwrap().ino();
    let client = stage.started("release_after: 200ms\n");
    stage.wait_holds("log", "the first of its inode\n");
    fs::remove_file(&log).unwrap();
    // Our link pins the inode for as long as anything of it may have to be sent.
    wait_until("the link is let go", || {
        !client.datadir.join("logs/log").exists()
    });
    let mut again = false;
    for number in 0..32 {
        let name = format!("next{number}");
        let path = stage.write(&name, format!("{name}\n"));
        again |= fs::metadata(&path).unwrap().ino() == inode;
    }
    for number in 0..32 {
        stage.wait_holds(&format!("next{number}"), format!("next{number}\n"));
    }
    assert!(stage.server.holds("logs/log", b"the first of its inode\n"));
    println!("the filesystem has used the inode again: {again}");
}

fn renamed_onto_a_tracked_file() {
    let stage = Stage::new(Fault::None);
    stage.write("log", "old\n");
    let _client = stage.started("");
    stage.wait_holds("log", "old\n");
    // A leading dot hides it from the pattern until it has its name.
    let new = stage.write(".log.tmp", "new\n");
    fs::rename(&new, stage.logs.join("log")).unwrap();
    stage.wait_holds("log.1", "new\n");
    assert!(stage.server.holds("logs/log", b"old\n"));
    assert_eq!(
        stage.delivered(),
        BTreeSet::from(["log".into(), "log.1".into()])
    );
}

fn unreadable() {
    let stage = Stage::new(Fault::None);
    stage.write("good", "line\n");
    let secret = stage.write("secret", "secret\n");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    let client = stage.client("");
    // Root without its capabilities is anybody who owns the files.
    let mut anybody: Vec<String> = Vec::new();
    if rustix::process::geteuid().is_root() {
        let words = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"];
        anybody.extend(words.map(str::to_owned));
    }
    let output = client.sync_wrapped(&anybody, &["--patience", "1s"]);
    let words = said(&output);
    assert_eq!(output.status.code(), Some(3), "{words}");
    assert!(
        words.contains("secret") && words.contains("Permission denied"),
        "{words}"
    );
    assert_eq!(stage.delivered(), BTreeSet::from(["good".into()]));
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let output = client.sync_wrapped(&anybody, &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(stage.server.holds("logs/secret", b"secret\n"));
}

fn growth_faster_than_the_link() {
    const LENGTH: usize = 48 << 20;
    // What a client has at most that holds none of it, and less than one that holds all.
    const MEMORY_KIB: u64 = 56 << 10;
    let stage = Stage::new(Fault::Dribble(512));
    let bytes = noise(LENGTH);
    let log = stage.write("log", b"");
    let mut client = stage.started("");
    stage.wait_holds("log", b"");
    append(&log, &bytes);
    assert!(stage.proxy.bodies() < LENGTH as u64, "the link was faster");
    stage.wait_holds("log", &bytes);
    let memory = client.process().memory_kib("VmHWM");
    assert!(memory < MEMORY_KIB, "{memory} KiB");
}

/// Lets the file be removed in the end.
struct Immutable(PathBuf);

impl Immutable {
    fn new(path: PathBuf) -> Self {
        let set = Command::new("chattr").arg("+i").arg(&path).status();
        assert!(set.unwrap().success());
        Self(path)
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs root and chattr"]
fn an_immutable_file_is_told_of_and_holds_up_nobody() {
    let stage = Stage::new(Fault::None);
    stage.write("good", "line\n");
    let fixed = Immutable::new(stage.write("fixed", "fixed\n"));
    let mut client = stage.started("");
    stage.wait_holds("good", "line\n");
    wait_until("it is told of", || {
        let output = client.process().output();
        let is_of_it = |line: &str| line.contains("fixed") && line.contains("chattr +a or +i");
        output.lines().any(is_of_it)
    });
    assert_eq!(stage.delivered(), BTreeSet::from(["good".into()]));
    drop(fixed);
    stage.wait_holds("fixed", "fixed\n");
}
