//! Many at once: on one connection, on many, on one file.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;

use crate::common::{self, Server};
use crate::contract;
use crate::data::etag;
use crate::http::{Answer, Asked, Connection};

/// Sends one request and reads its answer, which must keep the contract.
fn ask(
    server: &Server,
    connection: &mut Connection,
    method: &str,
    path: &str,
    head: &str,
    body: &[u8],
) -> Answer {
    send(connection, method, path, head, body);
    let (asked, answer) = connection.answer().unwrap().unwrap();
    let file = (method == "HEAD").then(|| server.datadir.join(&path[1..]));
    // Others append while HEAD answers; a prefix of what is there is still what it says.
    contract::check(&asked, &answer, file.as_deref()).unwrap();
    answer
}

fn send(connection: &mut Connection, method: &str, path: &str, head: &str, body: &[u8]) {
    connection.expect(Asked {
        method: method.to_owned(),
        target: path.to_owned(),
        ..Asked::default()
    });
    let length = match method {
        "PUT" => format!("Content-Length: {}\r\n", body.len()),
        _ => String::new(),
    };
    let line = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{length}{head}\r\n");
    connection.send(&[line.as_bytes(), body].concat());
}

#[test]
fn a_thousand_pipelined_appends_are_made_in_their_order() {
    let home = TempDir::new().unwrap();
    let server = Server::start(&home.path().join("data"), "");
    let mut connection = Connection::open(server.port);
    let line = |number: usize| format!("{number:04}\n");
    for number in 0..1000 {
        let start = number * 5;
        let head = format!("Content-Range: bytes {start}-{}/5000\r\n", start + 4);
        send(&mut connection, "PUT", "/a", &head, line(number).as_bytes());
    }
    for number in 0..1000_usize {
        let (_, answer) = connection.answer().unwrap().unwrap();
        let expected = if number == 0 { 201 } else { 204 };
        assert_eq!(answer.status, expected, "{number}: {}", answer.shown());
        assert_eq!(
            answer.number("shaftlog-length"),
            Some(number as u64 * 5 + 5)
        );
    }
    let whole: String = (0..1000).map(line).collect();
    assert!(server.holds("/a", whole.as_bytes()));
}

#[test]
fn idle_connections_are_in_nobodys_way() {
    let home = TempDir::new().unwrap();
    let server = Server::start(&home.path().join("data"), "");
    let mut idle: Vec<Connection> = (0..400).map(|_| Connection::open(server.port)).collect();
    let head = "Content-Range: bytes 0-0/1\r\n";
    let mut connection = Connection::open(server.port);
    let answer = ask(&server, &mut connection, "PUT", "/a", head, b"x");
    assert_eq!(answer.status, 201, "{}", answer.shown());
    let last = idle.last_mut().unwrap();
    assert_eq!(ask(&server, last, "HEAD", "/a", "", b"").status, 200);
}

/// Each writer appends its lines where HEAD says that the end is, under the condition that it
/// still is: however they meet, every line that was acknowledged is there once and whole.
#[test]
fn rule_2_writers_who_race_for_one_file_never_mix() {
    const WRITERS: usize = 6;
    const LINES: usize = 15;
    let home = TempDir::new().unwrap();
    let server = Server::start(&home.path().join("data"), "");
    let refused = AtomicUsize::new(0);
    let write = |writer: usize| {
        let mut connection = Connection::open(server.port);
        let mut number = 0;
        while number < LINES {
            let line = format!("writer {writer} line {number}\n");
            let at = ask(&server, &mut connection, "HEAD", "/race", "", b"");
            let (length, tag) = match at.status {
                404 => (0, etag(&blake3::hash(b""))),
                _ => (
                    at.number("shaftlog-length").unwrap(),
                    at.header("etag").unwrap().to_owned(),
                ),
            };
            let end = length + line.len() as u64;
            let head = format!(
                "Content-Range: bytes {length}-{}/{end}\r\nIf-Match: {tag}\r\n",
                end - 1
            );
            let answer = ask(
                &server,
                &mut connection,
                "PUT",
                "/race",
                &head,
                line.as_bytes(),
            );
            match answer.status {
                201 | 204 => number += 1,
                // Somebody was faster, or is at it; a shorter total or other bytes below L mean
                // that too.
                409 | 412 | 416 | 503 => {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
                _ => panic!("{}", answer.shown()),
            }
        }
    };
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || write(writer));
        }
    });
    let text = String::from_utf8(server.file("/race").unwrap()).unwrap();
    for writer in 0..WRITERS {
        let own = format!("writer {writer} ");
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with(&own)).collect();
        let expected: Vec<_> = (0..LINES).map(|n| format!("{own}line {n}")).collect();
        assert_eq!(lines, expected);
    }
    assert_eq!(text.lines().count(), WRITERS * LINES, "{text}");
}

#[test]
fn appends_to_many_files_share_commits_and_lose_none() {
    let home = TempDir::new().unwrap();
    let server = Server::start(&home.path().join("data"), "");
    let line = b"one line of a log\n";
    let deliver = |writer: usize| {
        let mut connection = Connection::open(server.port);
        for round in 0..4 {
            for file in 0..10 {
                let path = format!("/host{writer}/{file}.log");
                let (start, end) = (round * line.len(), (round + 1) * line.len());
                let head = format!("Content-Range: bytes {start}-{}/{end}\r\n", end - 1);
                let answer = ask(&server, &mut connection, "PUT", &path, &head, line);
                assert!(matches!(answer.status, 201 | 204), "{}", answer.shown());
            }
        }
    };
    thread::scope(|scope| {
        for writer in 0..6 {
            scope.spawn(move || deliver(writer));
        }
    });
    let rows = common::rows(&server.datadir, "files");
    assert_eq!(rows.len(), 60);
    let hash = blake3::hash(&line.repeat(4)).to_hex();
    for row in rows {
        assert_eq!(row["blake3"], hash.as_str(), "{row}");
        assert!(server.holds(row["path"].as_str().unwrap(), &line.repeat(4)));
    }
}
