//! The shared test support is tried before it is trusted.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::Daemon;

#[test]
fn trees_differ_by_name_length_and_content() {
    let home = tempfile::tempdir().expect("a directory");
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    for dir in [&a, &b] {
        fs::create_dir_all(dir.join("deep/.shaftlog")).expect("a directory");
        fs::write(dir.join("deep/log"), "one").expect("a file");
    }
    fs::write(a.join("deep/.shaftlog/server.redb"), "ours").expect("a file");
    common::assert_same_tree(&a, &b);
    let differs = |what| {
        let same = std::panic::catch_unwind(|| common::assert_same_tree(&a, &b));
        assert!(same.is_err(), "{what} went unnoticed");
    };
    fs::write(b.join("deep/log"), "two").expect("a file");
    differs("other bytes");
    fs::write(b.join("deep/log"), "one").expect("a file");
    fs::write(b.join("deep/more"), "").expect("a file");
    differs("one file too many");
    fs::write(a.join("deep/more"), "").expect("a file");
    common::assert_same_tree(&a, &b);
    fs::remove_file(b.join("deep/log")).expect("removed");
    differs("a missing file");
}

#[test]
fn a_prefix_hash_is_that_of_the_prefix() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("log");
    fs::write(&file, "a line\nanother\n").expect("a file");
    let expected = blake3::hash(b"a line\n").to_hex().to_string();
    assert_eq!(common::prefix_hash(&file, 7), expected);
}

#[test]
fn waiting_ends_with_the_condition_or_at_the_deadline() {
    let mut calls = 0;
    let got = common::wait_for("three calls", || {
        calls += 1;
        (calls == 3).then_some("done")
    });
    assert_eq!((got, calls), ("done", 3));
    let short = Duration::from_millis(20);
    let never =
        std::panic::catch_unwind(|| common::wait_within(short, "never", || -> Option<()> { None }));
    assert!(never.is_err());
}

#[test]
fn a_daemon_is_signalled_and_its_output_kept() {
    let home = tempfile::tempdir().expect("a directory");
    let output = home.path().join("out");
    // The pause ends by itself: a signal that comes just before a read would not end that one.
    let script = "trap 'echo ended; exit 7' TERM; echo up; \
        while :; do read -r -t 0.1 x <> <(:); done";
    let start = || {
        let mut bash = Command::new("bash");
        bash.args(["-c", script]);
        let daemon = Daemon::spawn(bash, &output);
        common::wait_until("it is up", || daemon.output().ends_with("up\n"));
        daemon
    };
    let mut daemon = start();
    assert!(daemon.memory_kib("VmHWM") > 0);
    assert_eq!(daemon.terminate().code(), Some(7));
    assert_eq!(daemon.output(), "up\nended\n");
    let mut daemon = start();
    daemon.kill();
    assert!(daemon.ended().is_some_and(|status| status.code().is_none()));
}
