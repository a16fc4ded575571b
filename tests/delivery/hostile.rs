//! Servers that lie, redirect, drown or stall: none harms the client, which stays small, says in its
//! log what is wrong, serves its other destination meanwhile, and delivers once a good server is
//! there.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::faults::{Answering, Said};
use crate::authority::{Authority, put};
use crate::common::{self, Client, Server, append, deliver, wait_until, wait_within, yaml};

/// What every file here holds at first, and later.
const FIRST: &str = "the first line\n";
const BOTH: &str = "the first line\nthe second line\n";

/// The peak memory of a client that has met a hostile server, in KiB: far more than it needs, far
/// less than what any of them would have it hold.
const MEMORY_KIB: u64 = 64 * 1024;

/// How long a stalled request may take to be given up: a minute without a byte, and some.
const STALL: Duration = Duration::from_secs(150);

/// What a server says to a request of which it gets the head.
type Script = Box<dyn Fn(&str) -> Said + Send + Sync>;

/// A server that is none.
struct Hostile {
    name: &'static str,
    /// What the client says of it in its log.
    told: &'static str,
    script: Script,
    /// Whether the client speaks TLS to it, which it does not know itself.
    by_tls: bool,
}

fn row(name: &'static str, told: &'static str, script: Script) -> Hostile {
    Hostile {
        name,
        told,
        script,
        by_tls: false,
    }
}

/// The same to every request: an answer that ends with its head.
fn says(head: &str) -> Script {
    let head = format!("HTTP/1.1 {head}");
    Box::new(move |_| Said::Head(head.clone()))
}

/// These answers to a PUT and to all others.
fn put_and_head(put: &str, head: &str) -> Script {
    let (put, head) = (format!("HTTP/1.1 {put}"), format!("HTTP/1.1 {head}"));
    Box::new(move |request| {
        let is_put = request.starts_with("PUT ");
        Said::Head(if is_put { &put } else { &head }.clone())
    })
}

/// The heartbeat is answered as a shaftlog server does, all else by `script`.
fn verified(script: Script) -> Script {
    let beat = format!("HTTP/1.1 200 OK\r\n{}\r\nContent-Length: 0", store(1));
    Box::new(move |request| {
        if request.starts_with("HEAD / ") {
            Said::Head(beat.clone())
        } else {
            script(request)
        }
    })
}

/// The header of a shaftlog server with this store.
fn store(id: u8) -> String {
    let id = format!("{id:02x}").repeat(16);
    format!("Shaftlog-Store: {id}/{id}/7")
}

/// The headers of a shaftlog server that has so much, with the hash of `prefix`.
fn about(length: u64, prefix: &str) -> String {
    let hash = blake3::hash(prefix.as_bytes()).to_hex();
    format!(
        "{}\r\nShaftlog-Length: {length}\r\nETag: \"blake3:{hash}\"",
        store(1)
    )
}

/// `first`, and then `again` for ever.
fn endless(first: &str, again: &str) -> Script {
    let (first, again) = (first.to_owned(), again.to_owned());
    Box::new(move |_| Said::Endless(first.clone(), again.clone()))
}

/// `first`, and then nothing.
fn silent(first: &str) -> Script {
    let first = first.to_owned();
    Box::new(move |_| Said::Silence(first.clone()))
}

/// No file is so long, nor anybody so patient.
const HUGE: u64 = 1_000_000_000_000_000_000;

/// Lengths that no file has, or that change.
fn lengths() -> Vec<Hostile> {
    let shrinking = AtomicU64::new(16);
    vec![
        row(
            "HEAD of 10^18",
            "more than the",
            put_and_head(
                "204 No Content",
                &format!("200 OK\r\nContent-Length: {HUGE}"),
            ),
        ),
        row(
            "HEAD of 10^18 with our headers",
            "answer makes no sense: a HEAD of a prefix",
            verified(put_and_head(
                &format!("416 No\r\n{}\r\nContent-Length: 0", about(HUGE, "other")),
                &format!(
                    "200 OK\r\n{}\r\nContent-Length: {HUGE}",
                    about(HUGE, "other")
                ),
            )),
        ),
        row(
            "all of ours and 10^18 more",
            "has 1000000000000000000 bytes, more than the",
            verified(Box::new(|request| {
                let answer = if request.starts_with("PUT ") {
                    format!("416 No\r\n{}\r\nContent-Length: 0", about(HUGE, "other"))
                } else if request.contains("?length=15 ") {
                    format!("200 OK\r\n{}\r\nContent-Length: 15", about(HUGE, FIRST))
                } else if request.contains("?length=31 ") {
                    format!("200 OK\r\n{}\r\nContent-Length: 31", about(HUGE, BOTH))
                } else {
                    format!(
                        "200 OK\r\n{}\r\nContent-Length: {HUGE}",
                        about(HUGE, "other")
                    )
                };
                Said::Head(format!("HTTP/1.1 {answer}"))
            })),
        ),
        row(
            "no Content-Length",
            "no progress: bytes are accepted and not kept",
            put_and_head("204 No Content", "200 OK"),
        ),
        row(
            "shrinking length",
            "stopped, gets no more: it replaces or loses",
            Box::new(move |request| {
                if request.starts_with("PUT ") {
                    return Said::Head("HTTP/1.1 204 No Content".to_owned());
                }
                let length = if request.starts_with("HEAD / ") {
                    0
                } else {
                    // Nothing at first, then all, then less and less.
                    let at = shrinking.fetch_sub(1, Ordering::Relaxed);
                    if at >= 16 { 0 } else { at.min(15) }
                };
                Said::Head(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}"))
            }),
        ),
    ]
}

/// What is acknowledged and not so.
fn lies() -> Vec<Hostile> {
    let sent = AtomicU64::new(0);
    vec![
        row(
            "200 without storing",
            "no progress: bytes are accepted and not kept",
            put_and_head(
                "200 OK\r\nContent-Length: 0",
                "404 Not Found\r\nContent-Length: 0",
            ),
        ),
        row(
            "200 without storing, with our header",
            "acknowledged without length and hash",
            verified(says(&format!(
                "200 OK\r\n{}\r\nContent-Length: 0",
                store(1)
            ))),
        ),
        row(
            "200 for less than was sent",
            "an append acknowledged and not held",
            verified(says(&format!(
                "200 OK\r\n{}\r\nContent-Length: 0",
                about(3, "the")
            ))),
        ),
        row(
            "200 with another hash",
            "another writer's bytes",
            verified(Box::new(move |request| {
                let range = request.split("content-range: ").nth(1);
                let length = match range.and_then(|range| range.split(['/', '\r']).nth(1)) {
                    Some(total) => total.parse().unwrap(),
                    None => sent.load(Ordering::Relaxed),
                };
                sent.store(length, Ordering::Relaxed);
                let body = if range.is_some() { 0 } else { length };
                let about = about(length, "other");
                Said::Head(format!(
                    "HTTP/1.1 200 OK\r\n{about}\r\nContent-Length: {body}"
                ))
            })),
        ),
    ]
}

/// Who answers, and when to come again.
fn stamps() -> Vec<Hostile> {
    let turn = AtomicU64::new(0);
    vec![
        row(
            "two servers in turn",
            "stopped, gets no more: two servers",
            Box::new(move |_| {
                // Every second request is the heartbeat of a new connection.
                let id = u8::try_from(turn.fetch_add(1, Ordering::Relaxed) / 2 % 2).unwrap();
                Said::End(format!(
                    "HTTP/1.1 200 OK\r\n{}\r\nShaftlog-Kept: yes\r\nContent-Length: 0\r\n\r\n",
                    store(id + 1)
                ))
            }),
        ),
        row(
            "another store mid-way",
            "another run of the server answers",
            verified(says(&format!("204 No\r\n{}", store(2)))),
        ),
        row(
            "no store mid-way",
            "its answers lack Shaftlog-Store",
            verified(says("204 No Content")),
        ),
        row(
            "a store that is none mid-way",
            "its answers lack Shaftlog-Store",
            verified(says("204 No Content\r\nShaftlog-Store: 1/2/3")),
        ),
        row(
            "Retry-After of 10^18",
            "status 503",
            says(&format!(
                "503 No\r\nRetry-After: {HUGE}\r\nContent-Length: 0"
            )),
        ),
        row(
            "Retry-After of 2^64 with our headers",
            "status 503",
            verified(says(&format!(
                "503 No\r\n{}\r\nRetry-After: 18446744073709551616\r\nContent-Length: 0",
                store(1)
            ))),
        ),
    ]
}

/// Answers that are none, or have no end.
fn framing() -> Vec<Hostile> {
    let line = "x".repeat(8000);
    let header = |name: &str| format!("{name}: {line}\r\n");
    vec![
        row(
            "endless header lines",
            "message head is too large",
            endless("HTTP/1.1 200 OK\r\n", &header("X")),
        ),
        row(
            "endless header line",
            "message head is too large",
            endless("HTTP/1.1 200 OK\r\nX: ", &line),
        ),
        row(
            "a hundred and one header lines",
            "message head is too large",
            says(&format!("200 OK{}", "\r\nX: y".repeat(101))),
        ),
        row(
            "endless body of an error",
            "status 507",
            Box::new({
                let line = line.clone();
                move |request| {
                    let head = "HTTP/1.1 507 No\r\n\r\n".to_owned();
                    if request.starts_with("PUT ") {
                        Said::Endless(head, line.clone())
                    } else {
                        Said::Head("HTTP/1.1 404 No\r\nContent-Length: 0".to_owned())
                    }
                }
            }),
        ),
        row(
            "a body behind the answer to a HEAD",
            "the connection was closed",
            endless("HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n", &line),
        ),
        row(
            "endless chunks",
            "the connection was closed",
            endless(
                "HTTP/1.1 507 No\r\nTransfer-Encoding: chunked\r\n\r\n",
                &format!("1f40\r\n{line}\r\n"),
            ),
        ),
        row(
            "two lengths",
            "invalid content-length",
            says("200 OK\r\nContent-Length: 1\r\nContent-Length: 2"),
        ),
        row(
            "a length below zero",
            "invalid content-length",
            says("200 OK\r\nContent-Length: -1"),
        ),
        row(
            "no HTTP",
            "invalid HTTP version",
            Box::new(|_| Said::End("SSH-2.0-OpenSSH_9.6\r\n".to_owned())),
        ),
        row(
            "no answer",
            "closed before message completed",
            Box::new(|_| Said::End(String::new())),
        ),
    ]
}

/// Answers that do not come. Each takes the client a minute.
fn stalls() -> Vec<Hostile> {
    vec![
        row("stalled", "nothing moved for 60 s", silent("")),
        row(
            "stalled in the head",
            "nothing moved for 60 s",
            silent("HTTP/1.1 200 OK\r\nContent-"),
        ),
        row(
            "endless 1xx",
            "nothing moved for 60 s",
            endless("", "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n"),
        ),
        row(
            "stalled at a PUT",
            "nothing moved for 60 s",
            verified(silent("HTTP/1.1 100 Continue\r\n\r\n")),
        ),
        row(
            "a body that never comes",
            "refused with status 400",
            verified(says(&format!(
                "400 No\r\n{}\r\nContent-Length: 9000000",
                store(1)
            ))),
        ),
    ]
}

/// Handshakes that come to nothing.
fn handshakes() -> Vec<Hostile> {
    // A record's type, version and length (RFC 8446 section 5.1), then a message's type and length
    // (section 4), of which not all comes.
    let (half, more) = (
        "\x16\x03\x03\x00\x7a\x02\0\0\x76\x03\x03half",
        "x".repeat(8000),
    );
    let rows = vec![
        row(
            "stalled in the handshake",
            "no connection within",
            silent(""),
        ),
        row(
            "stalled in the middle of a ServerHello",
            "no connection within",
            silent(half),
        ),
        row(
            "plain HTTP to a ClientHello",
            "cannot connect: received corrupt message",
            says("400 Bad Request\r\nConnection: close\r\nContent-Length: 0"),
        ),
        row(
            "closed in the middle of a ServerHello",
            "cannot connect: tls handshake eof",
            Box::new(move |_| Said::End(half.to_owned())),
        ),
        row(
            "a ServerHello without end",
            "cannot connect: received corrupt message",
            endless(
                "\x16\x03\x03\0\x04\x02\x7f\x7f\x7f",
                &format!("\x16\x03\x03\x1f\x40{more}"),
            ),
        ),
    ];
    let by_tls = |row| Hostile {
        by_tls: true,
        ..row
    };
    rows.into_iter().map(by_tls).collect()
}

/// Redirects to a port that nobody may come to.
fn redirects(elsewhere: u16) -> Vec<Hostile> {
    let to = format!("Location: http://127.0.0.1:{elsewhere}/in/\r\nContent-Length: 0");
    let mut rows = Vec::new();
    for (name, told, status) in [
        (
            "301 elsewhere",
            "refused with status 301",
            "301 Moved Permanently",
        ),
        ("302 elsewhere", "refused with status 302", "302 Found"),
        ("303 elsewhere", "refused with status 303", "303 See Other"),
        (
            "307 elsewhere",
            "refused with status 307",
            "307 Temporary Redirect",
        ),
        (
            "308 elsewhere",
            "refused with status 308",
            "308 Permanent Redirect",
        ),
    ] {
        rows.push(row(name, told, says(&format!("{status}\r\n{to}"))));
    }
    rows.push(row(
        "301 elsewhere with our headers",
        "refused with status 301",
        verified(says(&format!(
            "301 Moved Permanently\r\n{}\r\n{to}",
            store(1)
        ))),
    ));
    rows
}

/// The servers that are as they should be.
struct Good {
    /// Stands in the hostile server's place in the end.
    instead: Server,
    /// So does this one, where TLS is spoken, by a certificate of the CA in the file beside it.
    secured: (Server, PathBuf),
    /// Stands beside it.
    beside: Server,
}

/// Whether a server has just these bytes of the file, under whatever name below `row`: a lie may end a
/// generation before the other destination is connected.
fn holds(server: &Server, row: &str, bytes: &str) -> bool {
    let bytes = blake3::hash(bytes.as_bytes());
    let mut files = delivered(server, row).into_iter();
    files.any(|(_, (_, hash))| hash == bytes)
}

/// What a server has below `row`.
fn delivered(server: &Server, row: &str) -> BTreeMap<PathBuf, (u64, blake3::Hash)> {
    let mut files = common::tree(&server.datadir);
    files.retain(|path, _| path.starts_with(row));
    files
}

/// A client between the hostile server and a good one.
fn meets(home: &Path, good: &Good, number: usize, hostile: Hostile) {
    let Hostile {
        name,
        told,
        script,
        by_tls,
    } = hostile;
    let row = format!("row{number}");
    let logs = home.join(&row);
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("log"), FIRST).unwrap();
    let (hostile, url, tls, instead) = if by_tls {
        let hostile = Answering::start_deaf(script);
        let url = format!("https://localhost:{}/", hostile.port);
        let (instead, ca) = &good.secured;
        (
            hostile,
            url,
            format!("  tls: {{ca: {}}}\n", yaml(ca)),
            instead,
        )
    } else {
        let hostile = Answering::start(script);
        let url = hostile.url();
        (hostile, url, String::new(), &good.instead)
    };
    let urls = [&*good.beside.url(), &*url];
    let config = deliver(&[(&row, &logs.join("*"))], &urls) + &tls;
    let mut client = Client::start(&home.join(format!("client{number}")), &config);

    wait_until(&format!("{name}: the other has the file"), || {
        holds(&good.beside, &row, FIRST)
    });
    append(&logs.join("log"), &BOTH[FIRST.len()..]);
    wait_until(&format!("{name}: the other is served on"), || {
        holds(&good.beside, &row, BOTH)
    });
    let is_told = |line: &str| {
        let is_of_it = line.contains(&url) && line.contains(told);
        is_of_it && (line.contains("WARN") || line.contains("ERROR"))
    };
    let what = format!("{name}: the client says: {told}");
    wait_within(STALL, &what, || {
        let output = client.process().output();
        output.lines().any(is_told).then_some(())
    });
    let memory = client.process().memory_kib("VmHWM");
    assert!(memory < MEMORY_KIB, "{name}: {memory} KiB");
    assert!(delivered(instead, &row).is_empty(), "{name}");
    // A lie may end a generation, four times a day.
    let files = delivered(&good.beside, &row);
    assert!(files.len() <= 5, "{name}: {files:?}");

    hostile.give_way_to(instead.port);
    client.process().signal(Signal::HUP);
    wait_until(&format!("{name}: the good server has the file"), || {
        holds(instead, &row, BOTH)
    });
    assert!(client.terminate().success(), "{name}");
}

#[test]
fn no_hostile_server_harms_the_client_or_holds_up_another() {
    let home = TempDir::new().unwrap();
    let ca = home.path().join("ca.pem");
    let authority = Authority::new("CA");
    put(&ca, authority.pem(), 0o644);
    let (cert, key) = authority.certify("localhost").put(home.path(), "own");
    let tls = format!("tls: {{cert: {}, key: {}}}\n", yaml(&cert), yaml(&key));
    let good = Good {
        instead: Server::start(&home.path().join("instead"), ""),
        secured: (Server::start(&home.path().join("secured"), &tls), ca),
        beside: Server::start(&home.path().join("beside"), ""),
    };
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let port = elsewhere.local_addr().unwrap().port();
    let groups = [
        lengths(),
        lies(),
        stamps(),
        framing(),
        stalls(),
        handshakes(),
        redirects(port),
    ];
    let rows: Vec<_> = groups.into_iter().flatten().collect();
    let count = rows.len();
    // Some take a minute, and nothing meanwhile.
    thread::scope(|scope| {
        for (number, hostile) in rows.into_iter().enumerate() {
            let (home, good) = (home.path(), &good);
            scope.spawn(move || meets(home, good, number, hostile));
        }
    });
    assert!(elsewhere.accept().is_err(), "somebody came elsewhere");
    assert_eq!(count, 41);
    println!("{count} hostile servers");
}
