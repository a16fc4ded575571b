//! Modes and owners of what is delivered: as the operator says, whoever started the server.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use tempfile::TempDir;

use super::identities::plain;
use super::privileges::{NOBODY, as_user};
use crate::common::{Server, run, said};

/// Appends `bytes` behind the first `from` of `/host/log`.
fn put(server: &Server, from: usize, bytes: &str) -> String {
    let (last, length) = (from + bytes.len() - 1, bytes.len());
    let total = last + 1;
    plain(
        server.port,
        &format!(
            "PUT /host/log HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Range: bytes {from}-{last}/{total}\r\nContent-Length: {length}\r\n\r\n{bytes}"
        ),
    )
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn modes_are_exact_whatever_the_umask() {
    for (umask, files, expected) in [
        ("077", "", (0o640, 0o750)),
        ("000", "", (0o640, 0o750)),
        (
            "077",
            "files: {mode: 0664, directory_mode: 0o775}\n",
            (0o664, 0o775),
        ),
        (
            "000",
            "files: {mode: '0600', directory_mode: 0700}\n",
            (0o600, 0o700),
        ),
    ] {
        let home = TempDir::new().unwrap();
        let mut server = Server::start(&home.path().join("server"), files);
        let umask = format!("umask {umask}; exec \"$0\" \"$@\"");
        server.wrap(&["sh", "-c", &umask]);
        server.terminate();
        // Made anew, by the server with that umask.
        fs::remove_dir_all(&server.datadir).unwrap();
        server.restart();
        assert!(put(&server, 0, "hello").starts_with("HTTP/1.1 201 "));
        let host = server.datadir.join("host");
        assert_eq!((mode(&host.join("log")), mode(&host)), expected, "{files}");
        let output = run([
            "quarantine".as_ref(),
            "/host/log".as_ref(),
            "--from".as_ref(),
            "3".as_ref(),
            "--config".as_ref(),
            server.config().as_os_str(),
        ]);
        assert!(output.status.success(), "{}", said(&output));
        // What is the server's own is nobody else's, whatever is delivered is.
        let own = server.datadir.join(".shaftlog");
        assert_eq!(mode(&own), 0o700);
        assert_eq!(mode(&own.join("server.redb")), 0o600);
        assert_eq!(mode(&own.join("quarantine")), 0o700);
        let copies: Vec<_> = fs::read_dir(own.join("quarantine")).unwrap().collect();
        assert_eq!(copies.len(), 1);
        assert_eq!(mode(&copies[0].as_ref().unwrap().path()), 0o600);
    }
}

#[test]
#[ignore = "needs root"]
fn what_is_delivered_is_given_to_whom_the_operator_names() {
    let home = TempDir::new().unwrap();
    let files = format!("files: {{owner: {NOBODY}, group: adm}}\n");
    let mut server = Server::start(&home.path().join("server"), &files);
    assert!(put(&server, 0, "hello").starts_with("HTTP/1.1 201 "));
    let groups = fs::read_to_string("/etc/group").unwrap();
    let adm = groups.lines().find_map(|line| line.strip_prefix("adm:x:"));
    let adm: u32 = adm.unwrap().split(':').next().unwrap().parse().unwrap();
    let host = server.datadir.join("host");
    for path in [host.join("log"), host] {
        let stat = fs::metadata(&path).unwrap();
        assert_eq!(
            (stat.uid(), stat.gid()),
            (NOBODY, adm),
            "{}",
            path.display()
        );
    }
    // It goes on, after a restart too.
    assert!(put(&server, 5, " again").starts_with("HTTP/1.1 204 "));
    server.terminate();
    server.restart();
    assert!(put(&server, 11, "!").starts_with("HTTP/1.1 204 "));
    assert!(server.holds("host/log", b"hello again!"));
}

#[test]
#[ignore = "needs root"]
fn an_owner_that_it_cannot_give_files_to_is_told_at_the_start() {
    let home = TempDir::new().unwrap();
    let mut server = Server::start(&home.path().join("server"), "");
    server.terminate();
    chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    for entry in ["server", "server/.shaftlog"] {
        chown(home.path().join(entry), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::remove_dir_all(server.datadir.join(".shaftlog")).unwrap();
    server.reconfigure("files: {owner: root}\n");
    let words = as_user(NOBODY, &[]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    server.wrap(&words);
    assert!(!server.try_start());
    let output = server.output();
    assert!(
        output.contains("files.owner") && output.contains("CAP_CHOWN"),
        "{output}"
    );
    // Its own it may give them to.
    server.reconfigure(&format!("files: {{owner: {NOBODY}, group: {NOBODY}}}\n"));
    server.restart();
    assert!(put(&server, 0, "hello").starts_with("HTTP/1.1 201 "));
    assert!(
        fs::read_dir(server.datadir.join(".shaftlog"))
            .unwrap()
            .all(|entry| {
                !entry
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with(".tmp")
            })
    );
}

#[test]
fn names_that_nobody_has_are_bad_configuration() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("server.yaml");
    let datadir = home.path().join("server");
    for (key, of) in [("owner", "/etc/passwd"), ("group", "/etc/group")] {
        let text = format!(
            "datadir: {}\nfiles:\n  {key}: no-such-name\n",
            datadir.display()
        );
        fs::write(&file, text).unwrap();
        for command in ["server", "check"] {
            let output = run([command.as_ref(), "--config".as_ref(), file.as_os_str()]);
            assert_eq!(output.status.code(), Some(78), "{}", said(&output));
            let words = said(&output);
            let place = format!("server.yaml:3: files.{key}: \"no-such-name\"");
            assert!(words.contains(&place) && words.contains(of), "{words}");
        }
    }
    assert!(!datadir.exists());
}
