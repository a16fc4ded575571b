//! A writer that is killed with SIGKILL, and looking at its database before and after.

use std::cell::Cell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::rc::Rc;

use crate::index::engine::builder;
use crate::index::inspect::{Inspection, Row};
use crate::index::server::ServerChange;
use crate::index::server::tests::{Fixture, open, path, row};
use crate::types::FileId;

const DATABASE: &str = "SHAFTLOG_TEST_DATABASE";

/// Not a test of its own: what [`Writer`] runs. Commits a longer and longer file, and says so.
#[test]
#[ignore = "run by the other tests of this module, in a process that they kill"]
fn writer() {
    let Some(file) = std::env::var_os(DATABASE) else {
        return;
    };
    let index = open(&PathBuf::from(file));
    for length in 1.. {
        let content = vec![b'x'; length];
        let file = row(FileId(1), &content, 60 * i64::try_from(length).unwrap());
        index
            .commit(&[ServerChange::put(path("/log"), file)])
            .unwrap();
        writeln!(std::io::stdout(), "committed {length}").unwrap();
    }
}

struct Writer {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    last: u64,
}

impl Writer {
    fn start(fixture: &Fixture) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "index::tests::kill::writer"])
            .args(["--ignored", "--nocapture"])
            .env(DATABASE, fixture.file())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            lines,
            last: 0,
        }
    }

    /// Waits for the next acknowledged length.
    fn acknowledged(&mut self) -> Option<u64> {
        self.last = self.lines.by_ref().find_map(|line| {
            line.ok()?
                .strip_prefix("committed ")
                .and_then(|length| length.parse().ok())
        })?;
        Some(self.last)
    }

    /// Kills the writer; the last length that it acknowledged.
    fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        while self.acknowledged().is_some() {}
        self.last
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Killed already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shown_length(inspection: &Inspection) -> u64 {
    let mut shown = None;
    inspection
        .rows(|row| {
            if let Row::ServerFile(file) = row {
                assert_eq!(file.path, "/log");
                shown = Some(file.length.bytes());
            }
            true
        })
        .unwrap();
    shown.expect("no row of /log")
}

#[test]
fn a_database_is_inspected_while_it_is_written_and_after_a_kill() {
    let fixture = Fixture::new();
    let mut writer = Writer::start(&fixture);
    let first = writer.acknowledged().unwrap();
    let live = Inspection::open(&fixture.file()).unwrap();
    let mut seen = shown_length(&live);
    assert!(seen >= first);
    for _ in 0..20 {
        let acknowledged = writer.acknowledged().unwrap();
        let now = shown_length(&live);
        assert!(now >= acknowledged && now >= seen, "{now} after {seen}");
        seen = now;
    }
    drop(live);
    let acknowledged = writer.kill();

    let before = std::fs::read(fixture.file()).unwrap();
    let killed = Inspection::open(&fixture.file()).unwrap();
    let length = shown_length(&killed);
    assert!(
        length == acknowledged || length == acknowledged + 1,
        "{length} after {acknowledged}"
    );
    killed.check_rows().unwrap();
    assert_eq!(killed.history(&path("/log")).unwrap().len() as u64, length);
    drop(killed);
    assert_eq!(std::fs::read(fixture.file()).unwrap(), before, "touched");

    // Nor does opening it take longer, the more there is in it.
    let copy = fixture.file().with_extension("copy");
    std::fs::write(&copy, before).unwrap();
    let walked = Rc::new(Cell::new(false));
    let told = Rc::clone(&walked);
    builder()
        .set_repair_callback(move |_| told.set(true))
        .open(copy)
        .unwrap();
    assert!(!walked.get());

    let index = fixture.open();
    assert!(index.unclean());
    let file = index.file(&path("/log")).unwrap().unwrap();
    assert_eq!(file.vouched.length.bytes(), length);
    assert!(index.check_integrity().unwrap());
    drop(index);
    assert!(!fixture.open().unclean());
}

#[test]
fn an_inspection_notices_that_a_daemon_starts_on_a_killed_database() {
    let fixture = Fixture::new();
    let mut writer = Writer::start(&fixture);
    writer.acknowledged().unwrap();
    writer.kill();
    let killed = Inspection::open(&fixture.file()).unwrap();
    let index = fixture.open();
    index
        .commit(&[ServerChange::put(path("/log"), row(FileId(1), b"", 0))])
        .unwrap();
    let error = killed.rows(|_| true).unwrap_err();
    assert!(error.to_string().contains("try again"), "{error}");
    assert_eq!(shown_length(&Inspection::open(&fixture.file()).unwrap()), 0);
}
