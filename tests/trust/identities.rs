//! What is whose: nobody reads or writes what is another's, however its path is spelt.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use super::authority::{Authority, put, uri};
use super::certificates::Guarded;
use super::speaker::{Said, Speaker};
use crate::common::{self, Client, Server, append, deliver, run, said, yaml};

/// Ways of saying `/hostb/log`, or of coming near it, for somebody who is `hosta`.
const SPELLINGS: &[&str] = &[
    "/hostb/log",
    "/hostb",
    "/hostb/",
    "/%68ostb/log",
    "/%68%6f%73%74%62/log",
    "/%68%6F%73%74%62/%6c%6f%67",
    "/hostb%2flog",
    "/hostb%2Flog",
    "//hostb/log",
    "///hostb/log",
    "/hosta/../hostb/log",
    "/hosta/..%2fhostb/log",
    "/hosta/%2e%2e/hostb/log",
    "/hosta/%2E./hostb/log",
    "/hosta/.%2e/hostb/log",
    "/hosta%2f..%2f..%2fhostb/log",
    "/hosta/%252e%252e/hostb/../../hostb/log",
    "/./hostb/log",
    "/%2e/hostb/log",
    "/hosta/./../hostb/log",
    "/hosta\\..\\hostb\\log",
    "/hosta%5c..%5chostb/log",
    "/hosta%00/../hostb/log",
    "/hostb%00/log",
    "/HOSTB/log",
    "/HOSTA/log",
    "/hostaB/log",
    "/hosta.hostb/log",
    "/hosta%2flog",
    "/hosta%20/log",
    "/hosta;/hostb/log",
    "/hosta;hostb/log",
    "hostb/log",
    "http://localhost/hostb/log",
    "http://hosta/hostb/log",
    "https://localhost:1/hosta/../hostb/log",
    "*",
    "/hostb/log?length=1",
    "/hostb/log#/hosta/",
    "/hosta/log/../../hostb/log",
    "/.shaftlog/server.redb",
    "/hosta/../.shaftlog/server.redb",
    "/%ff/log",
    "/host\u{430}/log",
];

#[test]
fn identity_a_reaches_nothing_of_bs_by_any_spelling() {
    let guarded = Guarded::start("");
    let (a, b) = (
        guarded.authority.certify("hosta"),
        guarded.authority.certify("hostb"),
    );
    assert_eq!(
        guarded.meet(&b).put("/hostb/log", b"b's").unwrap().status,
        201
    );
    assert_eq!(
        guarded.meet(&a).put("/hosta/log", b"a's").unwrap().status,
        201
    );
    let before = common::tree(&guarded.server.datadir);
    let rows = common::rows(&guarded.server.datadir, "files");
    assert!(SPELLINGS.len() >= 30);
    for target in SPELLINGS {
        let path = target.split(['?', '#']).next().unwrap();
        let check = |method: &str, said: std::io::Result<Said>| match said {
            // A path that ends with a slash is a heartbeat's: it is about no file.
            Ok(said) if method == "HEAD" && path.ends_with('/') => {
                assert_eq!(said.status, 200, "{target}: {said:?}");
                assert!(!said.text.contains("shaftlog-length"), "{said:?}");
            }
            Ok(said) => {
                assert!(
                    matches!(said.status, 400 | 403),
                    "{method} {target}: {said:?}"
                );
                assert!(!said.text.contains("shaftlog-length"), "{said:?}");
                assert!(!said.text.contains("etag"), "{said:?}");
            }
            Err(error) => panic!("{method} {target}: {error}"),
        };
        check("HEAD", guarded.meet(&a).ask("HEAD", target, "", b""));
        check("PUT", guarded.meet(&a).put(target, b"a's bytes"));
        let confirm = "Content-Range: bytes */0\r\nContent-Length: 0\r\nIf-None-Match: *\r\n";
        check("PUT", guarded.meet(&a).ask("PUT", target, confirm, b""));
    }
    assert_eq!(common::tree(&guarded.server.datadir), before);
    assert_eq!(common::rows(&guarded.server.datadir, "files"), rows);
    // On one connection too, what is asked next is judged by itself.
    let mut speaker = guarded.meet(&a);
    for _ in 0..2 {
        assert_eq!(
            speaker.ask("HEAD", "/hosta/log", "", b"").unwrap().status,
            200
        );
        assert_eq!(
            speaker.ask("HEAD", "/hostb/log", "", b"").unwrap().status,
            403
        );
    }
    let said = speaker.put("/hostb/log", b"x").unwrap();
    assert!(
        said.text.contains("shaftlog-problem: forbidden"),
        "{said:?}"
    );
    assert!(said.text.contains("/hostb/log is not hosta's"), "{said:?}");
}

#[test]
fn the_writer_is_the_identity() {
    let guarded = Guarded::start("");
    let own = guarded.authority.certify("Web1.Example.net");
    let said = guarded
        .meet(&own)
        .put("/web1.example.net/log", b"x")
        .unwrap();
    assert_eq!(said.status, 201, "{said:?}");
    let rows = common::rows(&guarded.server.datadir, "files");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["writer"], "web1.example.net", "{rows:?}");
}

#[test]
fn a_client_with_a_uri_delivers_what_is_its_own_and_is_the_writer() {
    const URI: &str = "spiffe://example.net/Web/1";
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let authority = Authority::new("CA");
    let (cert, key) = authority.certify("localhost").put(home.path(), "own");
    let ca = home.path().join("ca.pem");
    put(&ca, authority.pem(), 0o644);
    let (tls, ca) = (
        format!("cert: {}, key: {}", yaml(&cert), yaml(&key)),
        yaml(&ca),
    );
    let rules = "authorize: [{identity: 'spiffe://example.net/Web/*', paths: /web}]";
    let config = format!("tls: {{{tls}, client_ca: {ca}}}\n{rules}\n");
    let server = Server::start(&home.path().join("server"), &config);
    let own = authority.certify_with(|params| params.subject_alt_names = vec![uri(URI)]);
    let (cert, key) = own.put(home.path(), "client");
    let url = format!("https://localhost:{}/web/", server.port);
    let config = format!(
        "{}  tls: {{ca: {ca}, cert: {}, key: {}}}\n",
        deliver(&[("logs", &logs.join("*"))], &[&url]),
        yaml(&cert),
        yaml(&key)
    );
    let client = Client::configure(&home.path().join("client"), &config);
    for lines in ["one\n", "two\n"] {
        append(&logs.join("log"), lines);
        let output = client.sync(&[]);
        assert!(output.status.success(), "{}", said(&output));
    }
    assert!(server.holds("web/logs/log", b"one\ntwo\n"));
    let rows = common::rows(&server.datadir, "files");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["writer"], URI, "{rows:?}");
    // In the evidence too, of what is there and of what was.
    for is_present in [true, false] {
        let output = run([
            "db".as_ref(),
            "history".as_ref(),
            "/web/logs/log".as_ref(),
            "--json".as_ref(),
            "--datadir".as_ref(),
            server.datadir.as_os_str(),
        ]);
        assert!(output.status.success(), "{}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let rows = text.lines().map(|row| serde_json::from_str(row).unwrap());
        let rows: Vec<Value> = rows.collect();
        let last = rows.last().unwrap();
        assert_eq!(
            (&last["length"], &last["present"]),
            (&8.into(), &is_present.into())
        );
        assert!(rows.iter().all(|row| row["writer"] == URI), "{text}");
        if is_present {
            let output = run([
                "quarantine".as_ref(),
                "/web/logs/log".as_ref(),
                "--config".as_ref(),
                server.config().as_os_str(),
            ]);
            assert!(output.status.success(), "{}", said(&output));
        }
    }
    // By its case it is another one, which has nothing.
    let other = URI.to_ascii_lowercase();
    let other = authority.certify_with(|params| params.subject_alt_names = vec![uri(&other)]);
    let mut other = Speaker::meet(server.port, &authority, Some(&other)).unwrap();
    let said = other.ask("HEAD", "/web/logs/log", "", b"").unwrap();
    assert_eq!(said.status, 403, "{said:?}");
}

#[test]
fn rules_give_shared_paths_and_patterns() {
    let home = TempDir::new().unwrap();
    let authority = Authority::new("CA");
    let (cert, key) = authority.certify("localhost").put(home.path(), "own");
    let ca = home.path().join("ca.pem");
    put(&ca, authority.pem(), 0o644);
    let config = format!(
        "tls: {{cert: {}, key: {}, client_ca: {}}}\nauthorize:\n\
         - {{identity: '*.web.example', paths: ['/web/{{identity}}/', /shared]}}\n\
         - {{identity: auditor, paths: /}}\n",
        yaml(&cert),
        yaml(&key),
        yaml(&ca)
    );
    let server = Server::start(&home.path().join("server"), &config);
    let status = |name: &str, path: &str| {
        let own = authority.certify(name);
        let mut speaker = Speaker::meet(server.port, &authority, Some(&own)).unwrap();
        speaker.ask("HEAD", path, "", b"").unwrap().status
    };
    for (name, path, expected) in [
        ("a.web.example", "/web/a.web.example/log", 404),
        ("a.web.example", "/web/b.web.example/log", 403),
        ("a.web.example", "/shared/x/y", 404),
        ("a.web.example", "/shared", 404),
        ("a.web.example", "/sharedx", 403),
        ("web.example", "/shared/x", 403),
        ("auditor", "/web/a.web.example/log", 404),
        ("nobody", "/nobody/log", 403),
    ] {
        assert_eq!(status(name, path), expected, "{name} {path}");
    }
}

#[test]
fn who_shows_no_certificate_is_asked_where_it_comes_from() {
    for (allow, expected) in [("127.0.0.0/8", 404), ("192.0.2.0/24", 403)] {
        let guarded = Guarded::start(&format!("  client_auth: optional\nallow: {allow}\n"));
        let mut stranger = Speaker::meet(guarded.server.port, &guarded.authority, None).unwrap();
        let status = stranger.ask("HEAD", "/x/log", "", b"").unwrap().status;
        assert_eq!(status, expected, "{allow}");
        let beat = stranger.ask("HEAD", "/", "", b"").unwrap().status;
        assert_eq!(beat, if expected == 404 { 200 } else { 403 }, "{allow}");
        // A certificate stands for itself, wherever it comes from, and binds who shows it.
        let mut known = guarded.meet(&guarded.authority.certify("x"));
        assert_eq!(known.ask("HEAD", "/x/log", "", b"").unwrap().status, 404);
        assert_eq!(known.ask("HEAD", "/y/log", "", b"").unwrap().status, 403);
    }
    let home = TempDir::new().unwrap();
    let server = Server::start(&home.path().join("server"), "allow: [192.0.2.7, '::1']\n");
    let answer = plain(
        server.port,
        "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("shaftlog-problem: forbidden"), "{answer}");
    assert_eq!(
        fs::read_dir(&server.datadir).unwrap().count(),
        1,
        "only .shaftlog"
    );
}

/// Sends bytes without TLS and reads to the end.
pub fn plain(port: u16, request: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(common::DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
