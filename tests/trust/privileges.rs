//! Least privilege: the units that we ship, judged by systemd, and the daemons with no more than
//! the units give them.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{getgid, getuid};
use tempfile::TempDir;

use super::authority::{Authority, put};
use crate::common::{self, Client, Server, deliver, program, said, wait_until, yaml};

/// Any user that owns nothing.
pub const NOBODY: u32 = 65534;
/// What the client's unit gives it.
pub const CAPABILITIES: [&str; 3] = ["fowner", "dac_read_search", "lease"];

fn unit(name: &str) -> String {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd");
    fs::read_to_string(Path::new(directory).join(name)).unwrap()
}

fn analyze(args: &[&str]) -> Output {
    let mut command = Command::new("systemd-analyze");
    command.args(args).env("SYSTEMD_PAGER", "cat");
    command.output().unwrap()
}

#[test]
#[ignore = "needs systemd-analyze"]
fn systemd_accepts_the_units_and_finds_little_to_expose() {
    let home = TempDir::new().unwrap();
    for name in ["shaftlog-client.service", "shaftlog-server.service"] {
        let path = home.path().join(name);
        // What is not installed is no fault of the unit.
        let text = unit(name).replace("/usr/bin/shaftlog", program().to_str().unwrap());
        fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let verified = analyze(&["verify", path]);
        assert!(verified.status.success(), "{}", said(&verified));
        assert!(verified.stderr.is_empty(), "{}", said(&verified));
        // An exposure of 3.0 at most.
        let judged = analyze(&["security", "--offline=yes", "--threshold=30", path]);
        assert!(judged.status.success(), "{}", said(&judged));
    }
    let users = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/packaging/systemd/sysusers.conf"
    );
    let made = Command::new("systemd-sysusers")
        .args(["--dry-run", users])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", said(&made));
}

/// The system calls that a unit's filter lets pass.
fn allowed(unit: &str) -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    for line in unit
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="))
    {
        let (removes, names) = match line.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, line),
        };
        for name in names.split(' ').flat_map(members) {
            if removes {
                calls.remove(&name);
            } else {
                calls.insert(name);
            }
        }
    }
    calls
}

/// The calls of a group, and of the groups in it.
fn members(name: &str) -> Vec<String> {
    if !name.starts_with('@') {
        return vec![name.to_owned()];
    }
    let listed = analyze(&["syscall-filter", name]);
    assert!(listed.status.success(), "{}", said(&listed));
    let text = String::from_utf8(listed.stdout).unwrap();
    let lines = text.lines().skip(1).map(str::trim);
    let names = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    names.flat_map(members).collect()
}

/// The calls that a trace of strace shows, less those that come before the daemon itself.
fn called(trace: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(trace).unwrap();
    let name = |line: &str| {
        let call = line.split_whitespace().nth(1)?;
        let (name, _) = call.split_once('(')?;
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        (is_name && !name.is_empty()).then(|| name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

#[test]
#[ignore = "needs strace and systemd-analyze"]
fn the_filters_let_pass_what_the_daemons_call() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("log"), "one\n").unwrap();
    let traces: Vec<PathBuf> = ["server", "client"]
        .map(|name| home.path().join(name).with_extension("trace"))
        .into();
    let strace = |trace: &Path| {
        let words = ["strace", "-D", "-f", "-qq", "-o", trace.to_str().unwrap()];
        words.map(str::to_owned)
    };
    let authority = Authority::new("CA");
    let ca = home.path().join("ca.pem");
    put(&ca, authority.pem(), 0o644);
    let tls = |name: &str, ca_key: &str| {
        let (cert, key) = authority.certify(name).put(home.path(), name);
        let (cert, key, ca) = (yaml(&cert), yaml(&key), yaml(&ca));
        format!("tls: {{cert: {cert}, key: {key}, {ca_key}: {ca}}}\n")
    };
    // To itself it may give files whoever it is, and does so by the same calls.
    let config = format!(
        "{}authorize: [{{identity: web1, paths: /}}]\nfiles: {{owner: {}, group: {}}}\n",
        tls("localhost", "client_ca"),
        getuid().as_raw(),
        getgid().as_raw()
    );
    let mut server = Server::start(&home.path().join("server"), &config);
    let words = strace(&traces[0]);
    server.wrap(&words.each_ref().map(String::as_str));
    server.restart();
    let url = format!("https://localhost:{}/", server.port);
    let config = deliver(&[("logs", &logs.join("*"))], &[&url]) + "  " + &tls("web1", "ca");
    let client = Client::configure(&home.path().join("client"), &config);
    let mut command = Command::new(&strace(&traces[1])[0]);
    command.args(&strace(&traces[1])[1..]).arg(program());
    command
        .args(["client", "--stdout", "--config"])
        .arg(client.config());
    let output = home.path().join("client.out");
    let mut daemon = common::Daemon::spawn(command, &output);
    wait_until("the line arrives", || server.holds("logs/log", b"one\n"));
    fs::rename(logs.join("log"), logs.join("log.1")).unwrap();
    fs::write(logs.join("log"), "two\n").unwrap();
    wait_until("the next file arrives", || {
        common::tree(&server.datadir).len() == 2
    });
    daemon.terminate();
    server.terminate();
    for (trace, name, needed) in [
        (&traces[0], "shaftlog-server.service", "fchown"),
        (&traces[1], "shaftlog-client.service", "linkat"),
    ] {
        let (called, allowed) = (called(trace), allowed(&unit(name)));
        assert!(
            called.contains("openat2") && called.contains(needed) && called.len() > 20,
            "{called:?}"
        );
        let refused: Vec<_> = called.difference(&allowed).collect();
        assert!(refused.is_empty(), "{name} refuses {refused:?}");
    }
}

/// The words that make a process that of this user, with these capabilities only.
pub fn as_user(user: u32, capabilities: &[&str]) -> Vec<String> {
    let set = |prefix: &str| {
        let given = capabilities.iter().map(|name| format!("{prefix}{name}"));
        ["-all".to_owned()]
            .into_iter()
            .chain(given)
            .collect::<Vec<_>>()
            .join(",")
    };
    [
        "setpriv".to_owned(),
        format!("--reuid={user}"),
        format!("--regid={user}"),
        "--clear-groups".to_owned(),
        format!("--inh-caps={}", set("+")),
        format!("--ambient-caps={}", set("+")),
        format!("--bounding-set={}", set("+")),
        "--no-new-privs".to_owned(),
    ]
    .into()
}

#[test]
#[ignore = "needs root"]
fn a_client_with_its_three_capabilities_delivers_what_is_not_its_own() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("secret.log"), "one\n").unwrap();
    fs::set_permissions(logs.join("secret.log"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&logs, fs::Permissions::from_mode(0o700)).unwrap();
    // Where it is 0, anybody may link anything, and nothing is shown.
    let protected = fs::read_to_string("/proc/sys/fs/protected_hardlinks").unwrap();
    let server = Server::start(&home.path().join("server"), "");
    let config = deliver(&[("logs", &logs.join("*"))], &[&server.url()]);
    let client = Client::configure(&home.path().join("client"), &config);
    fs::create_dir(&client.datadir).unwrap();
    chown(&client.datadir, Some(NOBODY), Some(NOBODY)).unwrap();

    let reads = as_user(NOBODY, &["dac_read_search"]);
    let output = client.sync_wrapped(&reads, &["--patience", "1s"]);
    if protected.trim() == "1" {
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        assert!(server.file("logs/secret.log").is_none());
    }
    let all = as_user(NOBODY, &CAPABILITIES);
    let output = client.sync_wrapped(&all, &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(server.holds("logs/secret.log", b"one\n"));
    let stat = fs::metadata(logs.join("secret.log")).unwrap();
    assert_eq!(stat.permissions().mode() & 0o7777, 0o600, "it is as it was");
}

/// Whether somebody else still writes a file of root's is asked with a lease, which is what the third
/// capability is for; no look at other processes would do, which the unit hides.
#[test]
#[ignore = "needs root"]
fn the_third_capability_shows_who_still_writes_a_file() {
    for (capabilities, tells) in [(&CAPABILITIES[..], true), (&CAPABILITIES[..2], false)] {
        let home = TempDir::new().unwrap();
        let logs = home.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let log = |name: &str| logs.join(name);
        fs::write(log("written"), "one\n").unwrap();
        fs::write(log("other"), "two\n").unwrap();
        let writer = OpenOptions::new()
            .append(true)
            .open(log("written"))
            .unwrap();
        let server = Server::start(&home.path().join("server"), "");
        let config = deliver(&[("logs", &log("*"))], &[&server.url()]);
        let config = format!("release_after: 200ms\nscan_interval: 300ms\n{config}");
        let mut client = Client::configure(&home.path().join("client"), &config);
        fs::create_dir(&client.datadir).unwrap();
        chown(&client.datadir, Some(NOBODY), Some(NOBODY)).unwrap();
        client.wrapper = as_user(NOBODY, capabilities);
        client.restart();
        wait_until("both arrive", || {
            server.holds("logs/written", b"one\n") && server.holds("logs/other", b"two\n")
        });
        let released = |name: &str| {
            let events = common::rows(&client.datadir, "events");
            let found = events
                .iter()
                .find(|event| event["kind"] == "released" && event["name"] == *name);
            found.map(|event| event["detail"].as_str().unwrap().to_owned())
        };
        fs::remove_file(log("written")).unwrap();
        fs::remove_file(log("other")).unwrap();
        wait_until("one is let go of", || released("logs/other").is_some());
        let said = released("logs/other").unwrap();
        let words = if tells {
            "open nowhere for writing"
        } else {
            "could not be told"
        };
        assert!(said.contains(words), "{said}");
        if tells {
            assert!(client.datadir.join("logs/written").exists());
            drop(writer);
        }
        wait_until("so is the other", || released("logs/written").is_some());
    }
}
