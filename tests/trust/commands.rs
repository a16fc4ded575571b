//! `shaftlog tls`: from nothing to mutual TLS in three commands.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use tempfile::TempDir;

use super::privileges::NOBODY;
use crate::common::{self, Client, Server, deliver, run, said, wait_until, yaml};

/// Runs `shaftlog tls` with `--dir`.
pub fn tls(directory: &Path, args: &[&str]) -> std::process::Output {
    let mut words = vec!["tls"];
    words.extend(args);
    words.extend(["--dir", directory.to_str().unwrap()]);
    run(words)
}

/// What a command printed that has to have succeeded.
pub fn done(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn three_commands_make_mutual_tls() {
    let home = TempDir::new().unwrap();
    let (pki, logs) = (home.path().join("pki"), home.path().join("logs"));
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("log"), "one\n").unwrap();
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let commands = readme
        .lines()
        .filter_map(|line| line.strip_prefix("shaftlog tls "));
    let commands: Vec<Vec<&str>> = commands.map(|line| line.split(' ').collect()).collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    let printed: Vec<_> = commands.iter().map(|args| done(&tls(&pki, args))).collect();
    // What it prints is what the server's configuration needs.
    let printed = &printed[1];

    let server = Server::start(&home.path().join("server"), printed);
    let url = format!("https://localhost:{}/web1.example.net/", server.port);
    let (ca, cert) = (pki.join("ca.pem"), pki.join("web1.example.net.pem"));
    let tls = format!(
        "  tls:\n    server_name: logs.example.net\n    ca: {}\n    cert: {}\n    key: {}\n",
        yaml(&ca),
        yaml(&cert),
        yaml(&cert.with_extension("key"))
    );
    let config = deliver(&[("logs", &logs.join("*"))], &[&url]) + &tls;
    let mut client = Client::configure(&home.path().join("client"), &config);
    for config in [server.config(), client.config()] {
        let checked = run(["check", "-f", config.to_str().unwrap()]);
        assert!(done(&checked).contains("good until"), "{}", said(&checked));
    }
    let output = client.sync(&[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(server.holds("web1.example.net/logs/log", b"one\n"));
    let rows = common::rows(&server.datadir, "files");
    assert_eq!(rows[0]["writer"], "web1.example.net", "{rows:?}");

    // The daemon does the same.
    fs::write(logs.join("log"), "one\ntwo\n").unwrap();
    client.restart();
    wait_until("the daemon delivers", || {
        server.holds("web1.example.net/logs/log", b"one\ntwo\n")
    });
}

#[test]
fn keys_are_their_owners_and_nothing_is_overwritten() {
    let home = TempDir::new().unwrap();
    let pki = home.path().join("a/b");
    let missing = tls(&pki, &["issue", "a"]);
    assert_eq!(missing.status.code(), Some(1), "{}", said(&missing));
    assert!(
        said(&missing).contains("shaftlog tls init"),
        "{}",
        said(&missing)
    );

    done(&tls(&pki, &["init"]));
    done(&tls(&pki, &["issue", "Web1.Example.NET", "--days", "1"]));
    done(&tls(&pki, &["issue", "192.0.2.7"]));
    for key in ["ca.key", "web1.example.net.key", "192.0.2.7.key"] {
        let mode = fs::metadata(pki.join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{key}");
    }
    let before = common::tree(&pki);
    for args in [
        &["init"][..],
        &["issue", "web1.example.net"],
        &["issue", "WEB1.example.net"],
        &["issue", "192.0.2.7"],
        &["issue", "ca"],
    ] {
        let refused = tls(&pki, args);
        assert_eq!(
            refused.status.code(),
            Some(1),
            "{args:?}: {}",
            said(&refused)
        );
        assert!(
            said(&refused).contains("is there already"),
            "{}",
            said(&refused)
        );
    }
    for name in [
        "",
        "*.example.net",
        "../x",
        "a b",
        "a/b",
        ".",
        "spiffe://x/y",
    ] {
        let refused = tls(&pki, &["issue", name]);
        assert_eq!(refused.status.code(), Some(2), "{name}: {}", said(&refused));
    }
    assert_eq!(common::tree(&pki), before);
    // A certificate that is gone, or that a crash has not let come about, is made for its key.
    let key = fs::read(pki.join("192.0.2.7.key")).unwrap();
    fs::remove_file(pki.join("192.0.2.7.pem")).unwrap();
    done(&tls(&pki, &["issue", "192.0.2.7"]));
    assert_eq!(fs::read(pki.join("192.0.2.7.key")).unwrap(), key);
}

#[test]
#[ignore = "needs root"]
fn the_ca_s_key_is_nobody_else_s_and_a_host_s_may_be_its_daemon_s() {
    let home = TempDir::new().unwrap();
    let pki = home.path().join("pki");
    done(&tls(&pki, &["init"]));
    done(&tls(&pki, &["issue", "a"]));
    let (ca, host) = (pki.join("ca.key"), pki.join("a.key"));
    // Whoever removes a certificate gets a new one for the same key.
    chown(&host, Some(NOBODY), None).unwrap();
    fs::remove_file(pki.join("a.pem")).unwrap();
    done(&tls(&pki, &["issue", "a"]));
    for (args, again) in [(&["issue", "b"][..], "b.pem"), (&["init"], "ca.pem")] {
        let _ = fs::remove_file(pki.join(again));
        chown(&ca, Some(NOBODY), None).unwrap();
        let refused = tls(&pki, args);
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        let words = format!("{}: belongs to user {NOBODY}", ca.display());
        assert!(said(&refused).contains(&words), "{}", said(&refused));
        assert!(!pki.join(again).exists());
        chown(&ca, Some(0), None).unwrap();
        done(&tls(&pki, args));
    }
}
