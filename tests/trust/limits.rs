//! More than a server is willing to take: refused in order, and nobody else suffers.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use tempfile::TempDir;

use super::identities::plain;
use crate::common::{self, DEADLINE, Server, wait_until};

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Sends a request and reads the answer's head.
fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    head(stream)
}

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

const BEAT: &str = "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn one_connection_more_than_a_peer_may_have_is_told_so() {
    let home = TempDir::new().unwrap();
    let limits = "limits: {connections_per_peer: 2}\n";
    let server = Server::start(&home.path().join("server"), limits);
    let mut open: Vec<TcpStream> = Vec::new();
    // The connection by which the test saw the server start may not be gone yet.
    wait_until("both places are free", || {
        open = (0..2).map(|_| connect(server.port)).collect();
        open.iter_mut()
            .all(|stream| ask(stream, BEAT).starts_with("HTTP/1.1 200 "))
    });
    let mut third = connect(server.port);
    let said = head(&mut third);
    assert!(said.starts_with("HTTP/1.1 429 "), "{said}");
    assert!(said.contains("retry-after: "), "{said}");
    assert_eq!(third.read(&mut [0]).unwrap(), 0, "it is closed");
    assert!(
        ask(&mut open[0], BEAT).starts_with("HTTP/1.1 200 "),
        "the others go on"
    );
    open.pop();
    wait_until("a place that is given back is free", || {
        ask(&mut connect(server.port), BEAT).starts_with("HTTP/1.1 200 ")
    });
}

#[test]
fn one_request_more_than_are_worked_on_comes_again() {
    let home = TempDir::new().unwrap();
    let server = Server::start(&home.path().join("server"), "limits: {requests: 1}\n");
    let mut first = connect(server.port);
    let put = "PUT /log HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-4/5\r\n\
               Content-Length: 5\r\n\r\nhel";
    first.write_all(put.as_bytes()).unwrap();
    wait_until("its body is being received", || {
        server.file("log").is_some()
    });
    let mut second = connect(server.port);
    let said = ask(&mut second, "HEAD /other HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    assert!(
        said.contains("shaftlog-problem: busy") && said.contains("retry-after: "),
        "{said}"
    );
    assert!(
        ask(&mut second, BEAT).starts_with("HTTP/1.1 200 "),
        "heartbeats cost nothing"
    );
    assert!(ask(&mut first, "lo").starts_with("HTTP/1.1 201 "));
    let said = ask(&mut second, "HEAD /other HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 404 "), "{said}");
}

#[test]
fn a_file_grows_to_its_limit_and_no_further() {
    let home = TempDir::new().unwrap();
    let server = Server::start(&home.path().join("server"), "limits: {file_size: 8}\n");
    let put = |from: usize, bytes: &str| {
        let (last, length) = (from + bytes.len() - 1, bytes.len());
        plain(
            server.port,
            &format!(
                "PUT /log HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                 Content-Range: bytes {from}-{last}/100\r\nContent-Length: {length}\r\n\r\n{bytes}"
            ),
        )
    };
    assert!(put(0, "01234").starts_with("HTTP/1.1 201 "));
    let refused = put(5, "5678");
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    assert!(refused.contains("shaftlog-problem: too-large"), "{refused}");
    assert!(server.holds("log", b"01234"));
    assert!(put(5, "567").starts_with("HTTP/1.1 204 "));
    assert!(server.holds("log", b"01234567"));
    assert_eq!(common::rows(&server.datadir, "files")[0]["length"], 8);
}
