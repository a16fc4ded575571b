//! Hostile log directories: what does not belong there is passed over, counted and told of, and
//! nobody who may write there has anything delivered that they may not read.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use crate::common::{Client, Server, deliver, run, said, wait_until};

/// A server, and a directory of logs.
struct Place {
    home: TempDir,
    logs: PathBuf,
    server: Server,
}

impl Place {
    fn new() -> Self {
        let home = TempDir::new().unwrap();
        let logs = home.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let server = Server::start(&home.path().join("server"), "");
        Self { home, logs, server }
    }

    /// The settings of a client that delivers everything here, with these lines added.
    fn config(&self, extra: &str) -> String {
        extra.to_owned() + &deliver(&[("logs", &self.logs.join("**"))], &[&self.server.url()])
    }

    fn client(&self) -> PathBuf {
        self.home.path().join("client")
    }
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

#[test]
fn what_is_no_log_is_counted_and_told_of_once() {
    let place = Place::new();
    let logs = &place.logs;
    fs::write(logs.join("a.log"), "a\n").unwrap();
    for n in 0..20 {
        symlink("a.log", logs.join(format!("link{n}"))).unwrap();
    }
    for n in 0..5 {
        fifo(&logs.join(format!("fifo{n}")));
    }
    let extra = "scan_interval: 100\nstatus_interval: 100\n";
    let mut client = Client::start(&place.client(), &place.config(extra));
    let mut told = |what: &str| {
        wait_until(what, || client.process().output().contains(what));
        client.process().output()
    };
    told("passed over: 20 symbolic links, 5 special files\n");
    symlink("a.log", logs.join("one-more")).unwrap();
    let output = told("passed over: 21 symbolic links, 5 special files\n");
    let warnings: Vec<_> = output
        .lines()
        .filter(|line| line.contains(" is passed over, a "))
        .collect();
    let [first, second] = warnings.as_slice() else {
        panic!("{warnings:?}");
    };
    assert!(
        first.contains("pattern logs: ") && first.contains("symbolic link"),
        "{first}"
    );
    assert!(
        second.contains("/logs/fifo") && second.contains("special file"),
        "{second}"
    );
    wait_until("the log arrives", || {
        place.server.holds("logs/a.log", b"a\n")
    });
    assert_eq!(
        fs::read_dir(place.server.datadir.join("logs"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn files_of_other_owners_are_rows_of_the_summary_and_no_failure() {
    let place = Place::new();
    fs::write(place.logs.join("a.log"), "a\n").unwrap();
    fs::write(place.logs.join("b.log"), "b\n").unwrap();
    symlink("a.log", place.logs.join("link")).unwrap();
    let ours = fs::metadata(&place.logs).unwrap().uid();
    let client = Client::configure(
        &place.client(),
        &place.config(&format!("owner: {}\n", ours + 1)),
    );
    let output = client.sync(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for row in [
        "          1  symbolic link                               logs     ",
        "          2  files of owners that `owner` does not name  logs     ",
    ] {
        assert!(text.contains(row), "{text}");
    }
    assert!(place.server.file("logs/a.log").is_none());

    let checked = run([Path::new("check"), Path::new("-f"), &client.config()]);
    assert!(checked.status.success(), "{}", said(&checked));
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    for line in [
        &format!("  owner:\n  - '{}'\n", ours + 1),
        "#   logs: 0\n",
        "# Passed over: logs: 1 symbolic link (",
        "# Passed over: logs: 2 files of owners that `owner` does not name (one is ",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }

    client.reconfigure(&place.config(&format!("owner: {ours}\n")));
    let output = client.sync(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(place.server.holds("logs/a.log", b"a\n"));
    assert!(place.server.holds("logs/b.log", b"b\n"));
}
