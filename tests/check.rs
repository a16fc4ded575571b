//! `shaftlog check`: what it prints, what it refuses and with which words, and that it touches
//! nothing.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints its figures"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Daemon, program, run, said, shaftlog, wait_for, yaml};
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

    /// Runs `command` with the configuration; its exit code and its words. It has to end: whoever
    /// opens a FIFO as if it were a file waits for ever.
    fn bounded(&self, command: &str) -> (Option<i32>, String) {
        let output = self.path("said");
        let _ = fs::remove_file(&output);
        let mut program = shaftlog();
        program.args([command, "-f"]).arg(self.config());
        let mut running = Daemon::spawn(program, &output);
        let ended = wait_for("it ends by itself", || running.ended());
        (ended.code(), running.output())
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
fn a_logrotate_that_would_skip_the_logs_is_told_of() {
    let home = Home::new();
    fs::create_dir_all(home.path("etc/logrotate.d")).unwrap();
    fs::create_dir(home.path("sbin")).unwrap();
    fs::write(home.path("sbin/logrotate"), "").unwrap();
    let mounts = "mount --bind etc /etc; mount --bind sbin /usr/sbin";
    let warns = || {
        let output = home.check_after(mounts);
        assert!(output.status.success(), "{}", said(&output));
        said(&output).contains("# Warning: logrotate skips files")
    };
    assert!(warns());
    let snippet = home.path("etc/logrotate.d/00-shaftlog");
    fs::write(snippet, "allowhardlink\n").unwrap();
    assert!(!warns());
}

/// What is done to a configuration that cannot be used.
struct Bad {
    name: &'static str,
    /// Who reads it.
    commands: &'static [&'static str],
    /// `DATA` and `HOME` stand for the datadir and the directory above it.
    text: String,
    /// What stands behind the file's name: line, key, problem and hint, as far as they matter.
    /// Nothing for what is no fault.
    told: &'static [&'static str],
}

/// The configurations of "Bad inputs", one a row.
fn bad_configurations() -> Vec<Bad> {
    let row = |name, commands, text: &str, told| Bad {
        name,
        commands,
        text: text.to_owned(),
        told,
    };
    let any =
        |name, text: &str, told| row(name, &["check", "server", "client", "sync"], text, told);
    let server = |name, lines: &str, told| {
        let text = format!("datadir: DATA\n{lines}\n");
        row(name, &["check", "server"], &text, told)
    };
    let of_client = |name, text: &str, told| row(name, &["check", "client", "sync"], text, told);
    let pattern = |name, pattern, told| of_client(name, &client(pattern, "http://h/"), told);
    let url = |name, url, told| of_client(name, &client("/none/*", url), told);
    let tls = "tls: {cert: HOME/pki/a.pem, key: HOME/pki/a.key}";
    vec![
        any("empty", "", &[":1: the configuration is empty"]),
        any(
            "alias bomb",
            &aliases(),
            &[":1: ", "multiply without bound"],
        ),
        server("deep nesting", &nested(3000), &[":2: ", "recursion limit"]),
        server(
            "duplicate key",
            "listen_port: 1\nlisten_port: 1",
            &[":3: the key `listen_port` stands here a second time"],
        ),
        server(
            "unknown key",
            "listenport: 1",
            &[":2: listenport: unknown key", "`listen_port`"],
        ),
        server("tab", "x:\n\t- a", &[":3: ", "with spaces, not with tabs"]),
        // YAML allows it, and editors write it unasked.
        row(
            "byte order mark",
            &["check"],
            "\u{feff}datadir: DATA\nlisten_port: 1\n",
            &[],
        ),
        server(
            "`no` for a path",
            "logfile: no",
            &[":2: logfile: ", "absolute path"],
        ),
        of_client(
            "`no` for a truth value",
            &(client("/none/*", "http://h/") + "release_unverified: no\n"),
            &[":7: release_unverified: ", "expected true or false"],
        ),
        server(
            "octal port",
            "listen_port: 010655",
            &[":2: listen_port: ", "leading zero"],
        ),
        server(
            "octal port of YAML 1.2",
            "listen_port: 0o24637",
            &[":2: listen_port: ", "not written in decimal"],
        ),
        server(
            "port 70000",
            "listen_port: 70000",
            &[":2: listen_port: ", "found the number 70000"],
        ),
        pattern("unquoted *.log", "*.log", &[":4: ", "must stand in quotes"]),
        pattern(
            "** over /",
            "/**",
            &[":4: scan_paths[0].pattern: ", "the whole machine"],
        ),
        pattern(
            "unclosed [",
            "'/none/a[0-9'",
            &[
                ":4: scan_paths[0].pattern: `[` is never closed",
                r"or write \[",
            ],
        ),
        pattern(
            "unclosed {",
            "'/none/{a,b'",
            &[
                ":4: scan_paths[0].pattern: `{` is never closed",
                r"or write \{",
            ],
        ),
        pattern(
            "datadir inside a glob",
            "HOME/*/*",
            &[":4: scan_paths[0].pattern: ", "into the datadir", "DATA/**"],
        ),
        url(
            "the same URL twice",
            "http://h/\n- url: http://h/",
            &[":7: destinations[1].url: ", "in line 6 already"],
        ),
        url(
            "http with client key",
            "http://h/\n  tls: {cert: HOME/pki/a.pem, key: HOME/pki/a.key}",
            &[":7: destinations[0].tls: ", "plain HTTP", "https://"],
        ),
        server(
            "key of mode 0644",
            tls,
            &[":2: tls.key: ", "0644", "chmod 600"],
        ),
        url(
            "key of mode 0644 at a client",
            &format!("https://h/\n  {tls}"),
            &[":7: destinations[0].tls.key: ", "0644", "chmod 600"],
        ),
        url(
            "userinfo in the URL",
            "http://u:p@h/",
            &[":6: destinations[0].url: ", "user name or password"],
        ),
        any(
            "FIFO",
            FIFO,
            &[": cannot read the configuration: is not a regular file"],
        ),
    ]
}

/// What stands for a configuration that is none, but a FIFO that nobody writes to.
const FIFO: &str = "FIFO";

#[test]
fn every_bad_configuration_is_refused_by_all_with_file_line_and_key() {
    let home = Home::new();
    let (pki, data) = (home.path("pki"), home.path("data"));
    for args in [&["init"][..], &["issue", "a"]] {
        let made = run(["tls"]
            .iter()
            .chain(args)
            .copied()
            .chain(["--dir", pki.to_str().unwrap()]));
        assert!(made.status.success(), "{}", said(&made));
    }
    fs::set_permissions(pki.join("a.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let fill = |text: &str| {
        let text = text.replace("DATA", data.to_str().unwrap());
        text.replace("HOME", home.dir.path().to_str().unwrap())
    };
    fs::remove_file(home.config()).unwrap();
    let before = common::tree(home.dir.path());

    let rows = bad_configurations();
    for row in &rows {
        let Bad {
            name,
            commands,
            text,
            told,
        } = row;
        let _ = fs::remove_file(home.config());
        if text == FIFO {
            let made = Command::new("mkfifo").arg(home.config()).status();
            assert!(made.expect("mkfifo starts").success());
        } else {
            home.configure(&fill(text));
        }
        for command in *commands {
            let (code, all) = home.bounded(command);
            let expected = if told.is_empty() { 0 } else { 78 };
            assert_eq!(code, Some(expected), "{name}: {command}: {all}");
            if let Some((place, words)) = told.split_first() {
                let place = format!("{}{place}", home.config().display());
                assert!(all.contains(&place), "{name}: {command}: {place}: {all}");
                for words in words.iter().map(|words| fill(words)) {
                    assert!(all.contains(&words), "{name}: {command}: {words}: {all}");
                }
            }
        }
    }
    assert_eq!(rows.len(), 23);
    println!("{} bad configurations", rows.len());

    // Nothing was made or changed, and the next good one is taken.
    let mut after = common::tree(home.dir.path());
    after.remove(Path::new("said"));
    assert_eq!(after, before);
    assert!(!data.exists());
    fs::remove_file(home.config()).unwrap();
    home.configure(&fill(&client("/none/*", "http://h/")));
    let (code, all) = home.bounded("check");
    assert_eq!(code, Some(0), "{all}");
}

/// A client's configuration, each of its values on a line of its own.
fn client(pattern: &str, url: &str) -> String {
    format!(
        "datadir: DATA\nscan_paths:\n- name: a\n  pattern: {pattern}\ndestinations:\n- url: {url}\n"
    )
}

fn nested(levels: usize) -> String {
    format!("scan_paths: {}", "[".repeat(levels))
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
