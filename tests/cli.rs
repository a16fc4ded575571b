//! The command line as scripts see it: exit codes, refusals, names of the program, and what
//! `db inspect` and `db rebuild` print.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Client, Daemon, Server, deliver, program, rows, run, said, shaftlog, wait_until};
use tempfile::TempDir;

/// Fails unless the program ended with `code` and said `text` on stderr.
fn assert_refused(output: &Output, code: i32, text: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    assert!(stderr.contains(text), "no {text:?} in:\n{}", said(output));
}

#[test]
fn what_is_not_built_is_refused_with_a_clear_line() {
    for line in [
        "status --json",
        "doctor",
        "completions bash",
        "man /tmp",
        "sync -f x -b y",
    ] {
        let output = run(line.split(' '));
        assert_refused(&output, 2, "is not available in version");
        assert!(output.stdout.is_empty(), "{}", said(&output));
    }
}

#[test]
fn a_wrong_command_line_exits_2() {
    for line in [
        "frobnicate",
        "server --frobnicate",
        "sync",
        "sync --pattern a",
        "db",
        "db inspect a b",
    ] {
        let output = run(line.split(' '));
        assert_eq!(output.status.code(), Some(2), "{line}: {}", said(&output));
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for line in ["--help", "--version", "sync --help", "db inspect -h"] {
        let output = run(line.split(' '));
        assert!(output.status.success(), "{line}: {}", said(&output));
        assert!(!output.stdout.is_empty(), "{line}: {}", said(&output));
        assert!(output.stderr.is_empty(), "{line}: {}", said(&output));
    }
}

#[test]
fn a_bad_configuration_exits_78_under_every_name() {
    let home = TempDir::new().unwrap();
    let config = home.path().join("bad.yaml");
    fs::write(&config, "datadir: /x\nlisten_prot: 1\n").unwrap();
    for name in ["shaftlog-server", "shaftlog-client"] {
        let link = home.path().join(name);
        symlink(program(), &link).unwrap();
        let output = Command::new(&link)
            .arg("-dsf")
            .arg(&config)
            .output()
            .unwrap();
        let place = format!("{}:2", config.display());
        if name == "shaftlog-server" {
            assert_refused(&output, 78, &place);
        } else {
            assert_refused(&output, 78, "bad.yaml");
        }
        let version = Command::new(&link).arg("--version").output().unwrap();
        assert!(version.status.success(), "{}", said(&version));
    }
    let missing = home.path().join("missing.yaml");
    for command in ["server", "client", "sync", "check"] {
        let output = shaftlog()
            .args([command, "-f"])
            .arg(&missing)
            .output()
            .unwrap();
        assert_refused(&output, 78, "missing.yaml");
    }
}

/// A datadir as a server without a database has it, with names that are hard to print.
fn delivered() -> TempDir {
    let home = TempDir::new().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"host/odd \x1b[31m\xff%\n.log");
    fs::create_dir(home.path().join("host")).unwrap();
    fs::write(home.path().join(name), "odd").unwrap();
    fs::write(home.path().join("host/a.log"), "hello\n").unwrap();
    home
}

fn rebuild(datadir: &Path) -> Output {
    shaftlog()
        .args(["db", "rebuild", "--datadir"])
        .arg(datadir)
        .output()
        .unwrap()
}

#[test]
fn a_rebuilt_database_says_what_b3sum_says() {
    let home = delivered();
    let output = rebuild(home.path());
    assert!(output.status.success(), "{}", said(&output));

    let files = rows(home.path(), "files");
    let paths: Vec<_> = files
        .iter()
        .map(|row| row["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["/host/a.log", "/host/odd %1B[31m%FF%25%0A.log"]);
    let row = &files[0];
    assert_eq!(row["blake3"], blake3::hash(b"hello\n").to_hex().as_str());
    assert_eq!(row["length"], 6);
    assert_eq!(row["state"], "unproven");
    for key in ["high_water", "writer", "updated"] {
        assert!(row.get(key).is_some(), "no {key} in {row}");
    }
    let events = rows(home.path(), "events");
    assert_eq!(events[0]["kind"], "rebuilt");
    for key in ["sequence", "at", "detail"] {
        assert!(events[0].get(key).is_some(), "no {key} in {}", events[0]);
    }

    let again = rebuild(home.path());
    assert_refused(&again, 1, "never replaced");
}

#[test]
fn tables_never_talk_to_the_terminal() {
    let home = delivered();
    rebuild(home.path());
    let output = shaftlog()
        .args(["db", "inspect", "--datadir"])
        .arg(home.path())
        .arg("*odd*")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("/host/odd %1B[31m%FF%25%0A.log"), "{text}");
    assert!(!text.contains("a.log"), "{text}");
    assert!(
        !text.contains(|c: char| c.is_control() && c != '\n'),
        "{text:?}"
    );
}

#[test]
fn a_reader_that_goes_is_no_error() {
    let home = TempDir::new().unwrap();
    // More than a pipe holds.
    for number in 0..400 {
        fs::write(home.path().join(format!("{number:0200}")), "").unwrap();
    }
    assert!(rebuild(home.path()).status.success());
    for form in [&["--json"][..], &[]] {
        let mut child = shaftlog()
            .args(["db", "inspect", "--datadir"])
            .arg(home.path())
            .args(form)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 10];
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut first).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert!(output.stderr.is_empty(), "{}", said(&output));
    }
}

#[test]
fn a_datadir_in_use_exits_5_and_names_the_process() {
    let home = delivered();
    let _held = shaftlog::sys::lock::DatadirLock::acquire(home.path()).unwrap();
    let output = rebuild(home.path());
    assert_refused(&output, 5, &std::process::id().to_string());
    assert!(!home.path().join(".shaftlog/server.redb").exists());
}

#[test]
fn no_database_is_an_error() {
    let home = TempDir::new().unwrap();
    let output = shaftlog()
        .args(["db", "inspect", "--json", "--datadir"])
        .arg(home.path())
        .output()
        .unwrap();
    assert_refused(&output, 1, "no database");
    assert!(output.stdout.is_empty(), "{}", said(&output));
}

#[test]
fn databases_are_shown_live_and_as_a_kill_leaves_them() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("a.log"), "hello\n").unwrap();
    let mut server = Server::start(&home.path().join("server"), "");
    let settings = deliver(&[("x", &logs.join("*.log"))], &[&server.url()]);
    let mut client = Client::start(&home.path().join("client"), &settings);
    let hash = blake3::hash(b"hello\n").to_hex();
    let check = |server: &Path, client: &Path| {
        let files = rows(server, "files");
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(files[0]["path"], "/x/a.log");
        assert_eq!(files[0]["blake3"], hash.as_str());
        let progress = rows(client, "progress");
        assert_eq!(progress.len(), 1, "{progress:?}");
        assert_eq!(progress[0]["name"], "x/a.log");
        assert_eq!(progress[0]["confirmed"], 6);
        assert_eq!(progress[0]["blake3"], hash.as_str());
        let files = rows(client, "files");
        assert_eq!(files[0]["source"], logs.join("a.log").to_str().unwrap());
        for key in [
            "pattern",
            "inode",
            "generation",
            "length",
            "state",
            "discovered",
        ] {
            assert!(files[0].get(key).is_some(), "no {key} in {}", files[0]);
        }
    };
    let catalogue = client.datadir.join(".shaftlog/client.redb");
    wait_until("the client has a database", || catalogue.exists());
    wait_until("the client knows that all arrived", || {
        let progress = rows(&client.datadir, "progress");
        progress.iter().any(|row| row["confirmed"] == 6)
    });
    check(&server.datadir, &client.datadir);
    server.kill();
    client.kill();
    check(&server.datadir, &client.datadir);
    server.restart();
    assert!(server.terminate().success());
    check(&server.datadir, &client.datadir);
}

#[test]
fn two_servers_never_share_a_datadir() {
    let home = TempDir::new().unwrap();
    let mut server = Server::start(&home.path().join("server"), "");
    let output = shaftlog()
        .args(["server", "-sf"])
        .arg(server.config())
        .output()
        .unwrap();
    assert_refused(&output, 5, &server.process().pid().to_string());
}

#[test]
fn a_sync_beside_the_daemon_is_refused() {
    let home = TempDir::new().unwrap();
    let server = Server::start(&home.path().join("server"), "");
    let settings = deliver(&[("x", &home.path().join("*.log"))], &[&server.url()]);
    let mut client = Client::start(&home.path().join("client"), &settings);
    let pid = client.process().pid().to_string();
    let lock = client.datadir.join(".shaftlog/lock");
    wait_until("the client has its datadir", || {
        fs::read_to_string(&lock).is_ok_and(|text| text.trim() == pid)
    });
    assert_refused(&client.sync(&[]), 5, &pid);
}

#[test]
fn a_lost_database_is_never_made_silently() {
    let home = delivered();
    let config = home.path().with_extension("yaml");
    let text = format!("datadir: {}\nlisten_port: 0\n", home.path().display());
    fs::write(&config, text).unwrap();
    let server = |command: &[&str]| {
        let mut program = shaftlog();
        program.args(command).arg(&config).output().unwrap()
    };
    let command = format!("shaftlog db rebuild -f {}", config.display());
    assert_refused(&server(&["server", "-sf"]), 3, &command);
    let output = server(&["db", "rebuild", "-f"]);
    assert!(output.status.success(), "{}", said(&output));
    let mut program = shaftlog();
    program.args(["server", "-sf"]).arg(&config);
    let log = config.with_extension("out");
    let mut daemon = Daemon::spawn(program, &log);
    wait_until("the server listens", || {
        daemon.output().contains("listening")
    });
    assert!(daemon.terminate().success());
    for path in [config, log] {
        fs::remove_file(path).unwrap();
    }
}
