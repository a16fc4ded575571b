//! `shaftlog check`: what it prints, what it refuses and with which words, and that it touches
//! nothing.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{program, run, said, yaml};
use tempfile::TempDir;

/// A home with `logs/a.log`, `logs/b.log` and a client's configuration for them.
struct Home {
    dir: TempDir,
}

impl Home {
    fn new() -> Self {
        let dir = TempDir::new().expect("a scratch directory");
        let home = Self { dir };
        fs::create_dir(home.path("logs")).unwrap();
        fs::write(home.path("logs/a.log"), "a\n").unwrap();
        fs::write(home.path("logs/b.log"), "b\n").unwrap();
        let pattern = yaml(&home.path("logs/*.log"));
        let datadir = yaml(&home.path("client"));
        home.configure(&format!(
            "datadir: {datadir}\nscan_paths:\n- name: web\n  pattern: {pattern}\n\
             destinations:\n- url: http://localhost:1/{{hostname}}\n"
        ));
        home
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    fn config(&self) -> PathBuf {
        self.path("x.yaml")
    }

    fn configure(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    fn check(&self) -> Output {
        run([Path::new("check"), Path::new("-f"), &self.config()])
    }

    /// The check in a mount namespace of its own, after `mounts` (a shell script in the home).
    fn check_after(&self, mounts: &str) -> Output {
        Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-ec"])
            .arg(format!("{mounts}\nexec \"$0\" check -f x.yaml"))
            .arg(program())
            .current_dir(self.dir.path())
            .output()
            .expect("unshare (util-linux) starts")
    }
}

fn assert_refused(output: &Output, words: &[&str]) {
    assert_eq!(output.status.code(), Some(78), "{}", said(output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    for words in words {
        assert!(stderr.contains(words), "{words}: {}", said(output));
    }
}

#[test]
fn a_sound_configuration_is_printed_and_nothing_touched() {
    let home = Home::new();
    let before = common::tree(home.dir.path());
    let output = home.check();
    assert!(output.status.success(), "{}", said(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    for line in [
        "scan_interval: 30s\n",
        "connections: 32\n",
        "  rename: '{name}.{mtime}'\n",
        "#   web: 2\n",
    ] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    assert_eq!(common::tree(home.dir.path()), before);
    assert!(!home.path("client").exists());

    // What was printed says the same again.
    home.configure(&printed);
    let again = home.check();
    assert_eq!(String::from_utf8(again.stdout).unwrap(), printed);
}

#[test]
fn a_bad_configuration_is_told_with_file_line_and_key() {
    let home = Home::new();
    let file = home.config();
    for (text, told) in [
        ("", ":1: the configuration is empty"),
        ("datadir: /x\n\nlisten_port: 70000\n", ":3: listen_port: "),
        (
            "datadir: /x\nlistenport: 1\n",
            ":2: listenport: unknown key",
        ),
        ("datadir: /x\nbind_address: *\n", ":2: "),
        ("datadir: /x\ndatadir: /x\n", ":2: the key `datadir`"),
        ("\u{feff}datadir: /x\n", ":1: the file begins with a byte"),
        ("datadir: /x\nx:\n\t- a\n", ":3: "),
        ("datadir: /x\nlogfile: no\n", ":2: logfile: "),
        ("datadir: /x\nlisten_port: 0o17\n", ":2: listen_port: "),
        ("datadir: /x\nlisten_port: 010655\n", ":2: listen_port: "),
        (&nested(3000), ":2: recursion limit"),
        (&aliases(), ":1: "),
        (&client("*.log", "http://h/"), ":4: "),
        (&client("/**", "http://h/"), ":4: scan_paths[0].pattern: "),
        (&client("/x/*", "http://h/"), ":4: scan_paths[0].pattern: "),
        (
            &client("/y/*", "http://u:p@h/"),
            ":6: destinations[0].url: ",
        ),
        (
            &client("/y/*", "http://h/\n- url: http://h/"),
            ":7: destinations[1].url: ",
        ),
    ] {
        home.configure(text);
        let words = format!("{}{told}", file.display());
        assert_refused(&home.check(), &[&words]);
    }
}

/// A client's configuration, each of its values on a line of its own.
fn client(pattern: &str, url: &str) -> String {
    format!(
        "datadir: /x\nscan_paths:\n- name: a\n  pattern: {pattern}\ndestinations:\n- url: {url}\n"
    )
}

fn nested(levels: usize) -> String {
    format!("datadir: /x\nscan_paths: {}\n", "[".repeat(levels))
}

/// Some kilobytes that stand for a billion values.
fn aliases() -> String {
    let line = |(name, before): (char, char)| {
        let nine = vec![format!("*{before}"); 9].join(",");
        format!("{name}: &{name} [{nine}]\n")
    };
    let lines = ('b'..'j').zip('a'..).map(line);
    let first = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    first + &lines.collect::<String>()
}

#[test]
fn a_fifo_is_no_configuration_and_is_not_waited_for() {
    let home = Home::new();
    fs::remove_file(home.config()).unwrap();
    let made = Command::new("mkfifo").arg(home.config()).status();
    assert!(made.expect("mkfifo starts").success());
    assert_refused(&home.check(), &["x.yaml", "regular file"]);
}

#[test]
fn a_datadir_that_is_a_file_is_refused() {
    let home = Home::new();
    fs::write(home.path("client"), "").unwrap();
    assert_refused(&home.check(), &["x.yaml:1: datadir: ", "not a directory"]);
}

#[test]
fn files_on_another_filesystem_or_mount_are_refused_before_the_start() {
    let home = Home::new();
    let line = "x.yaml:4: scan_paths[0].pattern: ";
    for (mounts, words) in [
        (
            "mount -t tmpfs none logs; echo x > logs/c.log",
            "1 of 1 files",
        ),
        ("mount -t tmpfs none logs", "logs lies on another"),
        ("mount --bind logs logs", "2 of 2 files"),
        ("touch c; mount --bind c logs/b.log", "1 of 2 files"),
        ("mkdir client; mount -t tmpfs none client", "2 of 2 files"),
    ] {
        let output = home.check_after(mounts);
        assert_refused(&output, &[line, words, "a second client"]);
    }
    let output = home.check_after("mount --bind . .; cd \"$PWD\"");
    assert!(output.status.success(), "{}", said(&output));
}
