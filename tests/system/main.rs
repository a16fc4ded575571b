//! The whole system against real programs, real disks and real power cuts. All of it needs root
//! and Debian packages, hence `cargo test --test system -- --ignored`; `.ci/run` installs them.
//!
//! Each test has a short form, and a long one under `SHAFTLOG_LONG=1`. What is random comes from
//! one seed, which a failure prints and `SHAFTLOG_SEED` sets.
#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says why"
)]
#![allow(unreachable_pub, reason = "a program's modules have no outside")]

#[path = "../common/mod.rs"]
mod common;

mod acks;
mod append_only;
mod dav;
mod deaths;
mod disk;
mod filesystems;
mod load;
mod machine;
mod original;
mod powercut;
mod rotate;

use std::process::Command;

/// `short`, or `long` when the long forms are asked for.
fn amount(short: usize, long: usize) -> usize {
    let asked = std::env::var("SHAFTLOG_LONG").is_ok_and(|value| value == "1");
    if asked { long } else { short }
}

/// Says at once what is missing rather than fail in the middle.
fn need(programs: &[&str]) {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root (mounts, foreign files)"
    );
    for program in programs {
        let found = Command::new("sh")
            .args(["-c", "command -v \"$0\"", program])
            .output()
            .is_ok_and(|output| output.status.success());
        assert!(found, "this test needs `{program}`: see .ci/run");
    }
}

/// Runs a command to its successful end; what it printed.
fn done(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        common::said(&output)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A directory on the disk that also holds the build, removed at the end.
fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("system-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a directory")
}
