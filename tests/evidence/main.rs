//! Looking at the evidence through the program itself: `verify`, `db history`, `db events` and
//! `db check`, on databases at rest, of running daemons, and as a kill leaves them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints its figures"
)]

mod client;
#[path = "../common/mod.rs"]
mod common;
mod databases;
mod db;
mod quarantine;
mod retire;
mod verify;
mod walk;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{Client, Server, deliver, rows, run, said, wait_until};
use serde_json::Value;
use shaftlog::types::Shown;
use tempfile::TempDir;

/// A client that has delivered to a server; both run.
struct Pair {
    _home: TempDir,
    logs: PathBuf,
    server: Server,
    client: Client,
}

impl Pair {
    /// Delivers files of these names and contents, as `/x/NAME`.
    fn new(files: &[(&str, &[u8])]) -> Self {
        let home = TempDir::new().unwrap();
        let logs = home.path().join("logs");
        fs::create_dir(&logs).unwrap();
        for (name, content) in files {
            fs::write(logs.join(name), content).unwrap();
        }
        let server = Server::start(&home.path().join("server"), "");
        let settings = deliver(&[("x", &logs.join("*"))], &[&server.url()]);
        let client = Client::start(&home.path().join("client"), &settings);
        let pair = Self {
            _home: home,
            logs,
            server,
            client,
        };
        for (name, content) in files {
            pair.wait_confirmed(name, content.len());
        }
        pair
    }

    /// Waits until the client has written down that `length` bytes are confirmed.
    fn wait_confirmed(&self, name: &str, length: usize) {
        let name = Shown(format!("x/{name}").as_bytes()).to_string();
        let catalogue = self.client.datadir.join(".shaftlog/client.redb");
        wait_until("the client knows that all arrived", || {
            catalogue.exists()
                && rows(&self.client.datadir, "progress")
                    .iter()
                    .any(|row| row["name"] == *name && row["confirmed"] == length)
        });
    }

    /// The server's copy.
    fn copy(&self, name: &str) -> PathBuf {
        self.server.datadir.join("x").join(name)
    }
}

/// Runs the program with `words` and the datadir; its exit code and the JSON lines it printed.
fn json(words: &[&str], datadir: &Path) -> (Option<i32>, Vec<Value>) {
    let output = told(words, datadir, &["--json"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let lines = text.lines().map(parse).collect();
    assert!(output.stderr.is_empty(), "{}", said(&output));
    (output.status.code(), lines)
}

fn told(words: &[&str], datadir: &Path, more: &[&str]) -> Output {
    let words = words.iter().map(OsStr::new);
    let datadir = [OsStr::new("--datadir"), datadir.as_os_str()];
    run(words.chain(datadir).chain(more.iter().map(OsStr::new)))
}
