//! Death and failure of the client at every system call: strace kills it, or lets the call fail,
//! at the first, the second, the third ... such call, until there is none left. After each the
//! plain program finishes the work, and nothing arrived twice, spliced or unproven.
//! (`tests/server/faults.rs` does the same to the server.)

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::acks::Acks;
use crate::common::{self, Client, Server, said};
use crate::{amount, need, scratch};

/// Sources, a server and a client in one directory, nothing delivered yet.
struct Site {
    _home: tempfile::TempDir,
    logs: PathBuf,
    server: Server,
    acks: Acks,
    client: Client,
}

impl Site {
    fn new() -> Self {
        let home = scratch();
        let logs = home.path().join("logs");
        fs::create_dir_all(logs.join("deep/er")).expect("a directory");
        for (name, length) in [("a", 300_000), ("deep/b", 100), ("deep/er/c", 0)] {
            let text = format!("a line of {name}\n").repeat(length / 10);
            fs::write(logs.join(format!("{name}.log")), text).expect("a file");
        }
        let server = Server::start(&home.path().join("server"), "");
        let acks = Acks::start(server.port);
        let settings = format!(
            "scan_paths:\n- name: logs\n  pattern: {}\n  regex_from: '^.*/logs/'\n  \
             regex_to: 'logs/'\ndestinations:\n- url: {}",
            common::yaml(&logs.join("**/*.log")),
            acks.url()
        );
        let client = Client::configure(&home.path().join("client"), &settings);
        Self {
            _home: home,
            logs,
            server,
            acks,
            client,
        }
    }

    /// The plain program delivers the rest, and what is appended only now; every file has one
    /// copy, and what was promised on the way still holds.
    fn all_arrives(&self, after: &str) {
        common::append(&self.logs.join("a.log"), [b'+'; 5_000]);
        let output = self.client.sync(&[]);
        let what = format!("after {after}: {}", said(&output));
        assert_eq!(output.status.code(), Some(0), "{what}");
        common::assert_same_tree(&self.logs, &self.server.datadir.join("logs"));
        for row in common::rows(&self.client.datadir, "progress") {
            assert_eq!(row["verified"], true, "{what}\n{row:#}");
        }
        for (path, promise) in self.acks.promises() {
            let file = self.server.datadir.join(path.trim_start_matches('/'));
            let hash = common::prefix_hash(&file, promise.length);
            assert_eq!(promise.etag, format!("\"blake3:{hash}\""), "{what}\n{path}");
        }
    }
}

fn strace(calls: &str, fault: &str, nth: usize) -> Vec<String> {
    common::strace(calls, fault, nth, Path::new("/dev/null"))
}

/// Whether a signal ended it, and not the program itself.
fn was_killed(output: &Output) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    output.status.signal().is_some()
}

#[test]
#[ignore = "needs strace"]
fn the_client_may_die_at_any_call() {
    need(&["strace"]);
    let most = amount(4, 1_000);
    let mut met = BTreeMap::new();
    for calls in [
        "fdatasync",
        "fsync",
        "linkat",
        "mkdirat",
        "rename,renameat,renameat2",
        "write,writev,pwrite64,sendto",
    ] {
        let dies = |nth: &usize| {
            let site = Site::new();
            let wrapper = strace(calls, "signal=KILL", *nth);
            let dies = was_killed(&site.client.sync_wrapped(&wrapper, &[]));
            if dies {
                // It may die again while it recovers.
                site.client.sync_wrapped(&wrapper, &["--patience", "1s"]);
            }
            site.all_arrives(&format!("death at {calls} {nth}"));
            dies
        };
        met.insert(calls, (1..=most).take_while(dies).count());
    }
    eprintln!("died at: {met:?}");
    assert!(met["linkat"] > 1 && met["fdatasync"] > 1, "{met:?}");
}

#[test]
#[ignore = "needs strace"]
fn a_link_or_a_sync_that_fails_is_told_and_made_good() {
    need(&["strace"]);
    for (call, error) in [
        ("linkat", "EMLINK"),
        ("linkat", "EIO"),
        ("linkat", "ENOSPC"),
        ("fdatasync", "EIO"),
        ("fsync", "EIO"),
    ] {
        let site = Site::new();
        let wrapper = strace(call, &format!("error={error}"), 1);
        let output = site.client.sync_wrapped(&wrapper, &["--patience", "2s"]);
        let what = format!("{error} of {call}: {}", said(&output));
        assert!(!was_killed(&output), "{what}");
        // What it could not do it must not call done.
        if output.status.success() {
            common::assert_same_tree(&site.logs, &site.server.datadir.join("logs"));
        }
        site.all_arrives(&what);
    }
}

#[test]
#[ignore = "needs strace"]
fn the_harness_notices_a_death() {
    need(&["strace"]);
    let wrapper = strace("openat", "signal=KILL", 1);
    let mut command = Command::new(&wrapper[0]);
    let output = command.args(&wrapper[1..]).arg("true").output();
    let output = output.expect("strace runs");
    assert!(was_killed(&output), "{}", said(&output));
}
