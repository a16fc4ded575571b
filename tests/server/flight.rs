//! What can happen while a file's bytes are written and not durable yet, and others were judged by
//! them: its fdatasync takes seconds here.
//!
//! `cargo test --test server flight -- --ignored` runs these; they need strace.

use std::fs;

use tempfile::TempDir;

use crate::common::{Server, wait_for, wait_until};
use crate::data::{digest, etag};
use crate::http::{Answer, Asked, Connection};

const BYTES: &[u8] = b"one two three four five six seven";

/// A server that takes its time to make `/a` durable.
struct Flight {
    server: Server,
    _home: TempDir,
}

impl Flight {
    /// With what strace is to do at each fdatasync of `/a`.
    fn new(inject: &str) -> Self {
        let home = TempDir::new().expect("a temporary directory");
        let mut server = Server::start(&home.path().join("data"), "");
        let file = server.datadir.join("a");
        let file = file.to_str().expect("UTF-8");
        let inject = format!("inject=fdatasync:{inject}");
        let strace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", file];
        let filter = ["-e", "trace=fdatasync", "-e", &inject];
        server.wrap(&[&strace[..], &filter].concat());
        let mut flight = Self {
            server,
            _home: home,
        };
        flight.restart();
        flight
    }

    fn restart(&mut self) {
        self.server.kill();
        assert!(self.server.try_start(), "it does not start");
    }

    /// After the death of the server: as any other.
    fn restart_unhindered(&mut self) {
        self.server.wrap(&[]);
        self.restart();
    }

    /// Sends `bytes[start..end]`, of which the last `back` bytes are kept.
    fn send(&self, start: usize, end: usize, back: usize) -> Connection {
        let condition = etag(&blake3::hash(&BYTES[..start]));
        let mut connection = Connection::open(self.server.port);
        connection.expect(Asked {
            method: "PUT".to_owned(),
            target: "/a".to_owned(),
            ..Asked::default()
        });
        let head = format!(
            "PUT /a HTTP/1.1\r\nHost: x\r\nContent-Range: bytes {start}-{}/{}\r\n\
             Content-Length: {}\r\nIf-Match: {condition}\r\nRepr-Digest: {}\r\n\r\n",
            end - 1,
            BYTES.len(),
            end - start,
            digest(&blake3::hash(&BYTES[..end])),
        );
        connection.send(&[head.as_bytes(), &BYTES[start..end - back]].concat());
        connection
    }

    /// The same, and waits until all that was sent is written.
    fn write(&self, start: usize, end: usize, back: usize) -> Connection {
        let connection = self.send(start, end, back);
        wait_until("it is written", || self.size() == end - back);
        connection
    }

    fn size(&self) -> usize {
        self.server.file("/a").map_or(0, |file| file.len())
    }

    /// What HEAD says, once it says something.
    fn length(&self) -> u64 {
        wait_for("HEAD", || {
            let mut connection = Connection::open(self.server.port);
            connection.expect(Asked {
                method: "HEAD".to_owned(),
                target: "/a".to_owned(),
                ..Asked::default()
            });
            connection.send(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n");
            let answer = answer(&mut connection)?;
            match answer.status {
                200 => answer.number("shaftlog-length"),
                404 => Some(0),
                _ => None,
            }
        })
    }

    /// Sends all, from where HEAD says that it is, until it is there.
    fn deliver(&self) {
        wait_for("all is delivered", || {
            let length = usize::try_from(self.length()).expect("small");
            if length < BYTES.len() {
                answer(&mut self.send(length, BYTES.len(), 0))?;
                return None;
            }
            Some(())
        });
        assert!(self.server.holds("/a", BYTES));
    }
}

fn answer(connection: &mut Connection) -> Option<Answer> {
    connection.answer().ok().flatten().map(|(_, answer)| answer)
}

fn status(connection: &mut Connection) -> u16 {
    answer(connection).expect("an answer").status
}

#[test]
#[ignore = "needs strace"]
fn rule_3_a_refusal_says_no_more_than_what_is_durable() {
    let mut flight = Flight::new("delay_enter=5000000");
    let _first = flight.write(0, 3, 0);
    let other = etag(&blake3::hash(b"something else"));
    let mut second = Connection::open(flight.server.port);
    second.expect(Asked {
        method: "PUT".to_owned(),
        target: "/a".to_owned(),
        ..Asked::default()
    });
    let head = format!(
        "PUT /a HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 3-3/4\r\nContent-Length: 1\r\n\
         If-Match: {other}\r\n\r\nx"
    );
    second.send(head.as_bytes());
    let refused = answer(&mut second).expect("an answer");
    flight.restart_unhindered();
    assert_eq!(refused.status, 412, "{}", refused.shown());
    let said = refused.number("shaftlog-length").expect("a length");
    let durable = flight.length();
    assert!(
        said <= durable,
        "{durable} were durable: {}",
        refused.shown()
    );
    flight.deliver();
}

#[test]
#[ignore = "needs strace"]
fn rule_1_what_cannot_be_made_durable_takes_along_all_that_was_judged_by_it() {
    let flight = Flight::new("error=EIO:delay_enter=3000000:when=1");
    let mut first = flight.write(0, 3, 0);
    let mut second = flight.write(3, 7, 0);
    let mut third = flight.write(7, 13, 1);
    for judged in [&mut first, &mut second] {
        assert_eq!(status(judged), 503);
    }
    third.send(&BYTES[12..13]);
    assert_eq!(status(&mut third), 503);
    assert_eq!(flight.length(), 0);
    flight.deliver();
}

#[test]
#[ignore = "needs strace"]
fn rule_1_nothing_is_acknowledged_of_a_file_that_was_moved_away_in_mid_flight() {
    let flight = Flight::new("delay_enter=3000000:when=1");
    let mut first = flight.write(0, 3, 0);
    let mut second = flight.write(3, 7, 0);
    let (old, new) = (
        flight.server.datadir.join("a"),
        flight.server.datadir.join("b"),
    );
    fs::rename(&old, &new).expect("a rename");
    assert_eq!(status(&mut first), 503);
    assert_eq!(status(&mut second), 503);
    assert_eq!(flight.length(), 0);
    flight.deliver();
    assert_eq!(fs::read(new).expect("a file"), BYTES[..7]);
}

#[test]
#[ignore = "needs strace"]
fn rule_1_nothing_is_acknowledged_of_a_file_that_was_cut_in_mid_flight() {
    let flight = Flight::new("delay_enter=3000000:when=1");
    let mut first = flight.write(0, 3, 0);
    let mut second = flight.send(3, 13, 1);
    wait_until("it is written", || flight.size() == 12);
    let file = fs::File::options()
        .write(true)
        .open(flight.server.datadir.join("a"))
        .expect("the file");
    file.set_len(1).expect("a shorter file");
    assert_eq!(status(&mut first), 503);
    second.send(&BYTES[12..13]);
    assert_eq!(status(&mut second), 503);
    flight.deliver();
}

#[test]
#[ignore = "needs strace"]
fn what_was_sent_in_full_is_vouched_for_though_its_clients_are_gone() {
    let flight = Flight::new("delay_enter=2000000:when=1");
    let first = flight.write(0, 3, 0);
    let second = flight.write(3, 7, 0);
    first.reset();
    second.reset();
    wait_until("it is vouched for", || flight.length() == 7);
    flight.deliver();
}

#[test]
#[ignore = "needs strace"]
fn rule_1_an_orderly_end_in_mid_flight_loses_nothing_acknowledged() {
    let mut flight = Flight::new("delay_enter=1000000");
    let mut first = flight.write(0, 3, 0);
    let mut second = flight.write(3, 7, 0);
    let ended = flight.server.terminate();
    assert!(ended.success(), "{ended}");
    let mut acknowledged = 0;
    for (connection, end) in [(&mut first, 3), (&mut second, 7)] {
        if answer(connection).is_some_and(|answer| matches!(answer.status, 201 | 204)) {
            acknowledged = end;
        }
    }
    flight.restart_unhindered();
    assert!(flight.length() >= acknowledged);
    flight.deliver();
}
