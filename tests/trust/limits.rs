//! More than a server is willing to take: refused in order, and nobody else suffers.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use super::handshakes::connect;
use super::identities::plain;
use crate::common::{self, DEADLINE, Server, wait_until};

/// Sends a request and reads the answer's head.
fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    head(stream)
}

pub fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// A connection from another address of this machine.
fn connect_from(address: Ipv4Addr, port: u16) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrV4::new(address, 0)).unwrap();
    rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
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
fn one_peer_with_silent_bodies_leaves_requests_for_the_others() {
    const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    let home = TempDir::new().unwrap();
    let server = Server::start(&home.path().join("server"), "limits: {requests: 4}\n");
    let put = |name: &str| {
        format!(
            "PUT /{name} HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-4/5\r\n\
             Content-Length: 5\r\n\r\nhel"
        )
    };
    let mut silent: Vec<TcpStream> = (0..3).map(|_| connect(server.port)).collect();
    for (number, stream) in silent.iter_mut().enumerate() {
        stream
            .write_all(put(&number.to_string()).as_bytes())
            .unwrap();
        wait_until("its body is being received", || {
            server.file(&number.to_string()).is_some()
        });
    }
    let mut own = connect(server.port);
    let look = "HEAD /none HTTP/1.1\r\nHost: x\r\n\r\n";
    let said = ask(&mut own, look);
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    assert!(
        said.contains("shaftlog-problem: busy") && said.contains("retry-after: "),
        "{said}"
    );
    assert!(
        ask(&mut own, BEAT).starts_with("HTTP/1.1 200 "),
        "heartbeats cost nothing"
    );

    let mut other = connect_from(OTHER, server.port);
    let said = ask(&mut other, look);
    assert!(said.starts_with("HTTP/1.1 404 "), "{said}");
    let said = ask(&mut other, &(put("other") + "lo"));
    assert!(said.starts_with("HTTP/1.1 201 "), "{said}");

    assert!(ask(&mut silent[0], "lo").starts_with("HTTP/1.1 201 "));
    let said = ask(&mut own, look);
    assert!(said.starts_with("HTTP/1.1 404 "), "given back: {said}");
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

/// Appends on one connection for so long; how many.
fn appends_within(port: u16, name: &str, time: Duration) -> usize {
    let mut stream = connect(port);
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < time {
        let put = format!(
            "PUT /{name} HTTP/1.1\r\nHost: x\r\nContent-Range: bytes {count}-{count}/{}\r\n\
             Content-Length: 1\r\n\r\nx",
            count + 1
        );
        let said = ask(&mut stream, &put);
        assert!(said.starts_with("HTTP/1.1 20"), "{said}");
        count += 1;
    }
    count
}

#[test]
fn heads_that_stop_before_their_end_hold_no_more_than_is_said() {
    const STOPPED: u64 = 200;
    // What a connection holds, the buffer of 128 KiB, and what has come of the line once more.
    const KIB_EACH: u64 = 30 + 128 + 128;
    let home = TempDir::new().unwrap();
    let mut server = Server::start(&home.path().join("server"), "");
    let before = server.process().memory_kib("VmRSS");
    // One line of nearly all that a head may have.
    let head = BEAT.replace("\r\n\r\n", "\r\nX: ") + &"x".repeat(65_000);
    let mut stopped: Vec<TcpStream> = (0..STOPPED).map(|_| connect(server.port)).collect();
    for stream in &mut stopped {
        stream.write_all(head.as_bytes()).unwrap();
    }
    wait_until("all of them have come", || {
        server.process().memory_kib("VmRSS") > before + 60 * STOPPED
    });
    for stream in &mut stopped {
        assert!(ask(stream, "\r\n\r\n").starts_with("HTTP/1.1 200 "));
    }
    let peak = server.process().memory_kib("VmHWM");
    let most = before + KIB_EACH * STOPPED;
    assert!(peak < most, "{peak} KiB of {most}, {before} before");
}

/// Ten thousand connections that say nothing and a thousand that drip a byte a second.
#[test]
#[ignore = "needs 16,000 descriptors"]
fn a_crowd_that_only_connects_is_served_around_and_ended() {
    const SILENT: usize = 10_000;
    const DRIPPING: usize = 1_000;
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let home = TempDir::new().unwrap();
    let config = "idle_timeout: 30s\nlimits: {connections_per_peer: 16384, requests: 1000}\n";
    let mut server = Server::start(&home.path().join("server"), config);
    let port = server.port;
    let time = Duration::from_secs(5);
    let before = appends_within(port, "before", time);

    let mut silent: Vec<TcpStream> = (0..SILENT).map(|_| connect(port)).collect();
    let crowd = (SILENT + DRIPPING) as u64;
    let mut dripping: Vec<TcpStream> = (0..DRIPPING).map(|_| connect(port)).collect();
    let ended = AtomicBool::new(false);
    let meanwhile = thread::scope(|scope| {
        scope.spawn(|| {
            for byte in b"HEAD /drip HTTP/1.1\r\nHost: x\r\nX-Drip: "
                .iter()
                .chain([b'x'; 3600].iter())
            {
                for stream in &mut dripping {
                    // The server has ended it, as it should.
                    let _ = stream.write(&[*byte]);
                }
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                common::pause(Duration::from_secs(1));
            }
        });
        let meanwhile = appends_within(port, "meanwhile", time);
        for stream in &mut silent {
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it is ended");
        }
        ended.store(true, Ordering::Relaxed);
        meanwhile
    });
    for stream in &mut dripping {
        let mut rest = Vec::new();
        // What it sent last may have met a closed connection.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 408 "),
            "{rest:?}"
        );
    }
    let peak = server.process().memory_kib("VmHWM");
    println!(
        "{crowd} connections; appends in 5 s: {before} before, {meanwhile} meanwhile; peak memory {peak} KiB"
    );
    // What the example configuration says, and what the program takes besides.
    assert!(peak < 30 * crowd + 100 * 1024, "{peak} KiB");
}
