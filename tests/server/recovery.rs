//! Death at every system call while a server recovers what somebody cut or deleted, and while the
//! operator moves files aside or retires them: it is found again, or finished, by the next start.
//!
//! `cargo test --test server recovery -- --ignored` runs these; they need strace.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::common::{self, Server, said, wait_for};
use crate::data::{digest, etag};
use crate::http::{Answer, Asked, Connection};

const CONTENT: &[u8] = b"one line\nand another\nand the last\n";

/// A server with some files.
struct Site {
    server: Server,
    _home: TempDir,
}

impl Site {
    fn new() -> Self {
        let home = TempDir::new().expect("a temporary directory");
        let site = Self {
            server: Server::start(&home.path().join("data"), ""),
            _home: home,
        };
        for path in ["/a", "/dir/b", "/dir/sub/c"] {
            assert!(site.refill(path).is_some(), "{path}");
        }
        site
    }

    fn place(&self, path: &str) -> std::path::PathBuf {
        self.server.datadir.join(&path[1..])
    }

    fn row(&self, path: &str) -> Option<serde_json::Value> {
        let rows = common::rows(&self.server.datadir, "files");
        rows.into_iter().find(|row| row["path"] == path)
    }

    fn is_in_quarantine(&self) -> bool {
        let kept = self.server.datadir.join(".shaftlog/quarantine");
        let kept = fs::read_dir(kept).into_iter().flatten().flatten();
        kept.into_iter()
            .any(|entry| fs::read(entry.path()).is_ok_and(|bytes| bytes == CONTENT))
    }

    fn ask(&self, method: &str, path: &str, head: &str, body: &[u8]) -> Option<Answer> {
        let mut connection = Connection::try_open(self.server.port)?;
        connection.expect(Asked {
            method: method.to_owned(),
            target: path.to_owned(),
            ..Asked::default()
        });
        let line = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n");
        connection.send(&[line.as_bytes(), body].concat());
        connection.answer().ok().flatten().map(|(_, answer)| answer)
    }

    /// What a client does, once: from L on to the end. `None`: not yet.
    fn refill(&self, path: &str) -> Option<()> {
        let answer = self.ask("HEAD", path, "", b"")?;
        let start = match answer.status {
            404 => 0,
            200 => usize::try_from(answer.number("shaftlog-length")?).expect("small"),
            503 => return None,
            _ => panic!("{}", answer.shown()),
        };
        let end = CONTENT.len();
        if start == end {
            return Some(());
        }
        let head = format!(
            "Content-Range: bytes {start}-{}/{end}\r\nContent-Length: {}\r\nIf-Match: {}\r\nRepr-Digest: {}\r\n",
            end - 1,
            end - start,
            etag(&blake3::hash(&CONTENT[..start])),
            digest(&blake3::hash(CONTENT)),
        );
        let answer = self.ask("PUT", path, &head, &CONTENT[start..])?;
        matches!(answer.status, 201 | 204).then_some(())
    }

    fn is_whole(&self, what: &str) {
        for path in ["/a", "/dir/b", "/dir/sub/c"] {
            wait_for(&format!("{what}: {path} is filled again"), || {
                self.refill(path)
            });
            let row = self.row(path).expect("a row");
            assert!(fs::read(self.place(path)).unwrap() == CONTENT, "{what}");
            assert_eq!(row["state"], "vouched", "{what}: {row}");
            assert_eq!(row["length"], CONTENT.len(), "{what}: {row}");
            assert!(row["high_water"].is_null(), "{what}: {row}");
        }
    }

    /// The program under strace, which kills it at the `nth` such call.
    fn dying(&self, calls: &str, nth: usize, command: &[&str]) -> Output {
        let wrapper = dying(calls, nth);
        let config = self.server.config();
        let mut program = Command::new(&wrapper[0]);
        program
            .args(&wrapper[1..])
            .arg(common::program())
            .args(command)
            .args([Path::new("--config"), &config]);
        program.output().expect("strace runs")
    }
}

/// strace that kills at the `nth` such call.
fn dying(calls: &str, nth: usize) -> Vec<String> {
    common::strace(calls, "signal=KILL", nth, Path::new("/dev/null"))
}

#[test]
#[ignore = "needs strace, and a minute"]
fn rule_1_death_at_every_system_call_of_a_recovery_loses_nothing() {
    for calls in ["fdatasync", "fsync", "pwrite64", "openat2", "write"] {
        let mut deaths = 0;
        for nth in 1..200 {
            let mut site = Site::new();
            site.server.kill();
            let file = fs::File::options().write(true).open(site.place("/a"));
            file.and_then(|file| file.set_len(5)).expect("cut");
            fs::remove_file(site.place("/dir/b")).expect("deleted");
            let copy = site.server.datadir.join("copy");
            fs::copy(site.place("/dir/sub/c"), &copy).expect("another inode");
            fs::rename(copy, site.place("/dir/sub/c")).expect("put back");

            let wrapper = dying(calls, nth);
            let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
            site.server.wrap(&words);
            let mut has_died = !site.server.try_start();
            for path in ["/a", "/dir/b", "/dir/sub/c"] {
                has_died = has_died || site.ask("HEAD", "/", "", b"").is_none();
                if !has_died {
                    site.refill(path);
                }
            }
            has_died = has_died || site.ask("HEAD", "/", "", b"").is_none();
            site.server.kill();
            site.server.wrap(&[]);
            assert!(site.server.try_start(), "{calls} {nth}");
            site.is_whole(&format!("death at {calls} {nth}"));
            if !has_died {
                break;
            }
            deaths += 1;
        }
        println!("{calls}: died at {deaths} invocations");
        assert!(deaths > 0, "{calls} was never called");
    }
}

#[test]
#[ignore = "needs strace, and a minute"]
fn rule_10_death_at_every_system_call_of_the_operators_commands_keeps_every_byte() {
    let mut deaths = std::collections::BTreeMap::new();
    for calls in [
        "fsync",
        "fdatasync",
        "pwrite64",
        "renameat2",
        "unlinkat",
        "mkdirat",
    ] {
        for command in [
            &["quarantine", "/dir/b"][..],
            &["retire", "/dir/b", "--older-than", "1ms"],
        ] {
            for nth in 1..200 {
                let what = format!("{} and death at {calls} {nth}", command[0]);
                let mut site = Site::new();
                site.server.terminate();
                let output = site.dying(calls, nth, command);
                let has_died = output.status.signal().is_some();
                assert!(has_died || output.status.success(), "{}", said(&output));
                site.server.restart();
                let answer = wait_for("an answer", || site.ask("HEAD", "/dir/b", "", b""));
                let there = fs::read(site.place("/dir/b")).ok();
                match (answer.status, command[0]) {
                    (200, _) => assert!(there.as_deref() == Some(CONTENT), "{what}"),
                    (404, "quarantine") => {
                        assert!(there.is_none() && site.is_in_quarantine(), "{what}");
                    }
                    (410, "retire") => assert!(there.is_none(), "{what}"),
                    _ => panic!("{what}: {}", answer.shown()),
                }
                assert!(has_died || answer.status != 200, "{what}: nothing was done");
                if command[0] == "quarantine" {
                    site.is_whole(&what);
                }
                if !has_died {
                    break;
                }
                *deaths.entry((command[0], calls)).or_insert(0) += 1;
            }
        }
    }
    println!("died at: {deaths:?}");
    for met in [("quarantine", "renameat2"), ("retire", "unlinkat")] {
        assert!(deaths.contains_key(&met), "{met:?} is not among {deaths:?}");
    }
}
