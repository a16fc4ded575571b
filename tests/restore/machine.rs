//! A whole client machine restored file by file, from an archive without hard links: each link in
//! the datadir and its source are two files then.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::stage::Stage;
use crate::common::{Client, Server, append, deliver, rows, run, said, tree, wait_until};
use crate::faults::{Fault, Proxy};

/// Length of a long log: many times what heads of requests and heartbeats come to.
const LONG: usize = 400_000;

/// Request heads, confirms and heartbeats of a run.
const OVERHEAD: u64 = 60_000;

/// Stable name below `x/`, and the name of the source when the archive is made.
const LOGS: [(&str, &str); 4] = [
    ("growing", "growing"),
    ("rotated", "rotated.1"),
    ("lagging", "lagging"),
    ("small", "small"),
];

/// Bytes of their own for each log.
fn content(name: &str) -> Vec<u8> {
    let length = if name == "small" { 10 } else { LONG };
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn tar(words: &[&str], machine: &Path) {
    let output = Command::new("tar")
        .args(words)
        .current_dir(machine.parent().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// A server that has all logs, and the restored machine of its client, which is stopped.
struct Restored {
    server: Server,
    proxy: Proxy,
    client: Client,
    machine: PathBuf,
    /// What is to be sent yet.
    missing: u64,
    _home: TempDir,
}

impl Restored {
    fn new() -> Self {
        let home = TempDir::new().unwrap();
        let machine = home.path().join("machine");
        let logs = machine.join("logs");
        fs::create_dir_all(&logs).unwrap();
        for (name, _) in LOGS {
            fs::write(logs.join(name), content(name)).unwrap();
        }
        let lagging = content("lagging");
        fs::write(logs.join("lagging"), &lagging[..LONG / 2]).unwrap();
        let server = Server::start(&home.path().join("server"), "");
        let proxy = Proxy::start(server.port, Fault::None);
        let settings = deliver(&[("x", &logs.join("*"))], &[&proxy.url()]);
        let settings = format!("scan_interval: 300ms\nwarn_free: 1MiB\n{settings}");
        let mut client = Client::start(&machine.join("client"), &settings);
        for (name, _) in LOGS {
            wait_until(name, || server.file(&format!("x/{name}")).is_some());
        }
        fs::rename(logs.join("rotated"), logs.join("rotated.1")).unwrap();
        wait_until("all is confirmed, and the rename seen", || {
            let progress = rows(&client.datadir, "progress");
            let whole = |row: &serde_json::Value| {
                let name = row["name"].as_str().unwrap().trim_start_matches("x/");
                let there = if name == "lagging" {
                    LONG / 2
                } else {
                    content(name).len()
                };
                row["confirmed"] == there
            };
            let files = rows(&client.datadir, "files");
            let renamed =
                |row: &serde_json::Value| row["source"].as_str().unwrap().ends_with("/rotated.1");
            progress.len() == LOGS.len() && progress.iter().all(whole) && files.iter().any(renamed)
        });
        assert!(client.terminate().success());
        append(&logs.join("lagging"), &lagging[LONG / 2..]);

        tar(&["-cf", "tar", "--hard-dereference", "machine"], &machine);
        fs::rename(&machine, home.path().join("old")).unwrap();
        tar(&["-xf", "tar"], &machine);
        let restored = Self {
            server,
            proxy,
            client,
            machine,
            missing: (LONG / 2) as u64,
            _home: home,
        };
        for (name, source) in LOGS {
            assert_ne!(
                restored.inodes(name, source)[0],
                restored.inodes(name, source)[1]
            );
        }
        restored
    }

    /// Those of a link and of its source.
    fn inodes(&self, name: &str, source: &str) -> [u64; 2] {
        let paths = [format!("client/x/{name}"), format!("logs/{source}")];
        paths.map(|path| fs::metadata(self.machine.join(path)).unwrap().ino())
    }

    /// Starts the client, has the logs grow on, and looks at what came of it.
    fn goes_on(&mut self) {
        let before = self.proxy.sent();
        self.client.restart();
        let more = content("more");
        append(&self.machine.join("logs/growing"), &more);
        append(&self.machine.join("logs/small"), b"more");
        self.missing += more.len() as u64 + 4;
        for (name, source) in LOGS {
            let log = fs::read(self.machine.join("logs").join(source)).unwrap();
            wait_until(name, || self.server.holds(&format!("x/{name}"), &log));
            let [link, source] = self.inodes(name, source);
            assert_eq!(link, source, "{name}");
        }
        // A scan of the patterns has come upon every source before.
        fs::write(self.machine.join("logs/new"), "new").unwrap();
        wait_until("the scan is over", || self.server.holds("x/new", b"new"));
        let names = tree(&self.server.datadir).into_keys();
        let foreign: Vec<_> = names
            .filter(|path| {
                let name = path.strip_prefix("x").unwrap().to_str().unwrap();
                name != "new" && LOGS.iter().all(|(log, _)| *log != name)
            })
            .collect();
        assert_eq!(foreign, [""; 0].map(PathBuf::from));
        let sent = self.proxy.sent() - before;
        let missing = self.missing;
        assert!(
            sent <= missing + OVERHEAD,
            "{sent} bytes sent, {missing} were missing"
        );

        let events = Stage::events(&self.client.datadir, 0);
        for (name, _) in LOGS {
            let name = format!("x/{name}");
            let rebuilt = |(kind, of): &&(String, String)| kind == "rebuilt" && *of == name;
            assert_eq!(
                events.iter().filter(rebuilt).count(),
                1,
                "{name}: {events:?}"
            );
        }
        let alarms = ["superseded", "conflict", "lost", "diverged"];
        assert!(
            events
                .iter()
                .all(|(kind, _)| !alarms.contains(&kind.as_str())),
            "{events:?}"
        );
    }
}

#[test]
fn a_client_restored_without_hard_links_goes_on() {
    Restored::new().goes_on();
}

#[test]
fn so_does_one_that_came_back_without_its_database() {
    let mut restored = Restored::new();
    fs::remove_file(restored.client.datadir.join(".shaftlog/client.redb")).unwrap();
    let config = restored.client.config();
    let output = run(["db", "rebuild", "-f", config.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("4 sources had been restored apart from their links"),
        "{}",
        said(&output)
    );
    restored.goes_on();
}
