//! What each client may fill: its own quota, to the last byte and no further, and nobody else's.

use std::io::Write as _;
use std::net::TcpStream;
use std::{fs, thread};

use tempfile::TempDir;

use super::certificates::Guarded;
use super::handshakes::connect;
use super::limits::head;
use crate::common::{Client, Server, deliver, rows, run, said, wait_until};

#[test]
fn each_identity_has_a_quota_of_its_own() {
    let guarded = Guarded::start(
        "- {identity: big, paths: /big/, quota: {bytes: 30}}\nquota: {files: 2, bytes: 10}",
    );
    let put = |name: &str, path: &str, bytes: usize| {
        let own = guarded.authority.certify(name);
        let said = guarded.meet(&own).put(path, &vec![b'x'; bytes]).unwrap();
        if said.status == 507 {
            assert!(said.text.contains("shaftlog-problem: full"), "{said:?}");
            assert!(said.text.contains("retry-after: "), "{said:?}");
        }
        said.status
    };
    assert_eq!(put("small", "/small/a", 11), 507);
    assert_eq!(put("small", "/small/a", 10), 201);
    assert_eq!(put("small", "/small/b", 1), 507);
    // What one has filled is no concern of the others.
    assert_eq!(put("other", "/other/a", 10), 201);
    assert_eq!(put("big", "/big/a", 20), 201);
    assert_eq!(put("big", "/big/b", 11), 507);
    assert_eq!(put("big", "/big/b", 10), 201);
    // What its entry leaves open, the general one says.
    assert_eq!(put("big", "/big/c", 1), 507);
    let usage: Vec<_> = rows(&guarded.server.datadir, "usage")
        .iter()
        .map(|row| format!("{} {} {}", row["client"], row["files"], row["bytes"]))
        .collect();
    assert_eq!(usage, ["\"big\" 2 30", "\"other\" 1 10", "\"small\" 1 10"]);
}

/// Bodies that all fit alone, and not together.
#[test]
fn appends_at_the_same_time_do_not_exceed_it_together() {
    const CLIENTS: usize = 24;
    const FIT: usize = 10;
    let home = TempDir::new().unwrap();
    let server = Server::start(&home.path().join("server"), "quota: {bytes: 100}\n");
    let send_half = |number: usize| {
        let mut stream = connect(server.port);
        let put = format!(
            "PUT /log{number} HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-9/10\r\n\
             Content-Length: 10\r\n\r\nhello"
        );
        stream.write_all(put.as_bytes()).unwrap();
        stream
    };
    let mut streams: Vec<TcpStream> = (0..CLIENTS).map(send_half).collect();
    let begun = || {
        let number = (0..CLIENTS).filter(|number| {
            server
                .file(&format!("log{number}"))
                .is_some_and(|file| file == b"hello")
        });
        number.count()
    };
    wait_until("as many as fit are being received", || begun() == FIT);
    let finish = |stream: &mut TcpStream| {
        // One that was refused may be gone.
        let _ = stream.write_all(b"world");
        head(stream)[9..12].to_owned()
    };
    let answers: Vec<String> = thread::scope(|scope| {
        let finishing: Vec<_> = streams
            .iter_mut()
            .map(|stream| scope.spawn(move || finish(stream)))
            .collect();
        let ends = finishing.into_iter().map(|thread| thread.join().unwrap());
        ends.collect()
    });
    let count = |status: &str| answers.iter().filter(|answer| *answer == status).count();
    assert_eq!(
        (count("201"), count("507")),
        (FIT, CLIENTS - FIT),
        "{answers:?}"
    );
    let usage = &rows(&server.datadir, "usage")[0];
    assert_eq!(
        (&usage["files"], &usage["bytes"]),
        (&10.into(), &100.into())
    );
}

/// A client whose quota is used up waits as for a disk that is full, and delivers all when there is
/// room again.
#[test]
fn a_client_waits_until_there_is_room_and_loses_nothing() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("old"), b"old\n").unwrap();
    let mut server = Server::start(&home.path().join("server"), "quota: {files: 1}\n");
    let config = deliver(&[("logs", &logs.join("*"))], &[&server.url()]);
    let mut client = Client::start(&home.path().join("client"), &config);
    wait_until("the first is there", || server.holds("logs/old", b"old\n"));
    fs::write(logs.join("new"), b"new\n").unwrap();
    wait_until("the second is refused", || {
        server.output().contains("has used up its quota: ")
    });
    // What is charged already still grows.
    fs::write(logs.join("old"), b"old\nolder\n").unwrap();
    wait_until("the first has grown", || {
        server.holds("logs/old", b"old\nolder\n")
    });
    assert_eq!(server.file("logs/new"), None);
    assert!(!client.process().output().contains("ERROR"));
    let output = run([
        "quarantine".as_ref(),
        "/logs/old".as_ref(),
        "--config".as_ref(),
        server.config().as_os_str(),
    ]);
    assert!(output.status.success(), "{}", said(&output));
    server.reconfigure("quota: {files: 2}\n");
    server.terminate();
    server.restart();
    wait_until("both are there", || {
        server.holds("logs/old", b"old\nolder\n") && server.holds("logs/new", b"new\n")
    });
}
