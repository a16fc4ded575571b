//! Both daemons as users of their own, with what their units give them, over mutual TLS: everything
//! that they do for root works.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::certificates::Guarded;
use super::privileges::{CAPABILITIES, as_user};
use crate::common::{self, Client, program, said, wait_until, yaml};

/// The users of the daemons, and one more whose logs are delivered.
const CLIENT: u32 = 65533;
const SERVER: u32 = 65532;
const APP: u32 = 65531;

/// A machine with logs of root and of others, closed to everybody else.
struct Stage {
    guarded: Guarded,
    client: Client,
    logs: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let mut guarded = Guarded::start("scrub: {period: 300ms}\n");
        guarded.server.terminate();
        let home = guarded.home.path().to_owned();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
        give(&guarded.server.datadir, SERVER);
        give(&home.join("own.key"), SERVER);
        let words = as_user(SERVER, &[]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        guarded.server.wrap(&words);
        guarded.server.restart();

        let logs = home.join("logs");
        fs::create_dir(&logs).unwrap();
        fs::set_permissions(&logs, fs::Permissions::from_mode(0o700)).unwrap();
        let (cert, key) = guarded.authority.certify("hosta").put(&home, "client");
        chown(&key, Some(CLIENT), None).unwrap();
        let settings = format!(
            "scan_interval: 300ms\nstatus_interval: 1s\nrelease_after: 500ms\nscan_paths:\n\
             - {{name: logs, pattern: {}, owner: [0, {APP}], regex_from: '^.*/', regex_to: ''}}\n\
             destinations:\n- url: https://localhost:{}/hosta/\n  \
             tls: {{ca: {}, cert: {}, key: {}}}\n",
            yaml(&logs.join("*.log*")),
            guarded.server.port,
            yaml(&home.join("ca.pem")),
            yaml(&cert),
            yaml(&key),
        );
        let mut client = Client::configure(&home.join("client"), &settings);
        fs::create_dir(&client.datadir).unwrap();
        give(&client.datadir, CLIENT);
        client.wrapper = as_user(CLIENT, &CAPABILITIES);
        Self {
            guarded,
            client,
            logs,
        }
    }

    /// A new log of this user, which nobody else may read.
    fn log(&self, name: &str, owner: u32, text: &str) -> File {
        let new = self.logs.join("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&new, Some(owner), Some(owner)).unwrap();
        fs::rename(&new, self.logs.join(name)).unwrap();
        let log = File::options().append(true).open(self.logs.join(name));
        log.unwrap()
    }

    fn arrives(&self, name: &str, text: &str) {
        let path = format!("hosta/{name}");
        wait_until(&path, || self.guarded.server.holds(&path, text.as_bytes()));
    }

    /// What an operator says to a daemon, as its own user.
    fn operate(user: &[String], args: &[&str], config: &Path) -> Output {
        let (first, words) = user.split_first().unwrap();
        let mut command = Command::new(first);
        command.args(words).arg(program()).args(args);
        let output = command.arg("-f").arg(config).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        output
    }

    fn operate_server(&self, args: &[&str]) -> Output {
        Self::operate(&as_user(SERVER, &[]), args, &self.guarded.server.config())
    }

    fn operate_client(&self, args: &[&str]) -> Output {
        Self::operate(&self.client.wrapper, args, &self.client.config())
    }

    /// The state of a row, if there is one.
    fn state(datadir: &Path, key: &str, name: &str) -> Option<String> {
        let rows = common::rows(datadir, "files");
        let row = rows.into_iter().rev().find(|row| row[key] == name)?;
        Some(row["state"].as_str()?.to_owned())
    }
}

/// Gives a file, or a directory with all that is in it, to a user.
fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), user);
        }
    }
}

/// Every file and directory below `path`.
fn everything(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            all.extend(everything(&entry.unwrap().path()));
        }
    }
    all
}

#[test]
#[ignore = "needs root"]
fn both_daemons_do_everything_as_users_of_their_own() {
    let mut stage = Stage::new();
    let mut log = stage.log("app.log", 0, "one\n");
    stage.log("theirs.log", APP, "theirs\n");
    stage.client.restart();
    stage.arrives("app.log", "one\n");
    stage.arrives("theirs.log", "theirs\n");

    // Rotation, as logrotate does it, with the writer still at the old file.
    fs::rename(stage.logs.join("app.log"), stage.logs.join("app.log.1")).unwrap();
    log.write_all(b"two\n").unwrap();
    stage.log("app.log", 0, "next\n");
    stage.arrives("app.log", "one\ntwo\n");
    stage.arrives("app.log.1", "next\n");

    // Each starts again.
    assert!(stage.guarded.server.terminate().success());
    log.write_all(b"three\n").unwrap();
    stage.guarded.server.restart();
    stage.arrives("app.log", "one\ntwo\nthree\n");
    assert!(stage.client.terminate().success());
    log.write_all(b"four\n").unwrap();
    stage.client.restart();
    stage.arrives("app.log", "one\ntwo\nthree\nfour\n");
    stage.operate_client(&["verify", "--remote"]);
    stage.operate_server(&["verify"]);

    // The source is gone, and so is the link in the end.
    drop(log);
    fs::remove_file(stage.logs.join("app.log.1")).unwrap();
    wait_until("the link is released", || {
        Stage::state(&stage.client.datadir, "name", "app.log").as_deref() == Some("released")
    });
    assert!(!stage.client.datadir.join("app.log").exists());

    // A byte rots at the server: found, set aside, delivered anew.
    let copy = stage.guarded.server.datadir.join("hosta/theirs.log");
    let rotten = File::options().write(true).open(&copy).unwrap();
    rotten.write_all_at(b"T", 0).unwrap();
    wait_until("the scrub finds it", || {
        let datadir = &stage.guarded.server.datadir;
        Stage::state(datadir, "path", "/hosta/theirs.log").as_deref() == Some("diverged")
    });
    stage.operate_server(&["quarantine", "/hosta/theirs.log"]);
    stage.arrives("theirs.log", "theirs\n");
    stage.operate_server(&["retire", "/hosta/app.log", "--older-than", "1ms"]);
    assert!(stage.guarded.server.file("hosta/app.log").is_none());
    stage.operate_server(&["verify"]);

    assert!(stage.client.terminate().success());
    stage.operate_client(&["sync"]);
    assert!(stage.guarded.server.terminate().success());
    let client = fs::read_to_string(stage.client.datadir.with_extension("out")).unwrap();
    for output in [client, stage.guarded.server.output()] {
        for word in ["denied", "not permitted", "CAP_"] {
            assert!(!output.contains(word), "{word}: {output}");
        }
    }
    // What each has made is its own, and nobody else's to write.
    for path in everything(&stage.guarded.server.datadir) {
        let stat = fs::symlink_metadata(&path).unwrap();
        assert_eq!(
            (stat.uid(), stat.mode() & 0o022),
            (SERVER, 0),
            "{}",
            path.display()
        );
    }
    // A log is what it was, with one name more.
    let theirs = fs::metadata(stage.logs.join("theirs.log")).unwrap();
    assert_eq!(
        (theirs.uid(), theirs.mode() & 0o777, theirs.nlink()),
        (APP, 0o600, 2)
    );
}
