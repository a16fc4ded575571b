//! What is kept in quarantine: within its bounds, which are told, and across filesystems.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::common::{self, Server, said, wait_for};
use crate::http::{Asked, Connection};

fn put(server: &Server, path: &str, body: &[u8]) -> u16 {
    let mut connection = begin(server, path, body, body.len());
    let answered = connection.answer().expect("HTTP");
    answered.expect("an answer").1.status
}

/// A PUT of which only so much has been sent.
fn begin(server: &Server, path: &str, body: &[u8], sent: usize) -> Connection {
    let mut connection = Connection::open(server.port);
    connection.expect(Asked {
        method: "PUT".to_owned(),
        target: path.to_owned(),
        ..Asked::default()
    });
    let (last, length) = (body.len() - 1, body.len());
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-{last}/{length}\r\n\
         Content-Length: {length}\r\nIf-None-Match: *\r\n\r\n"
    );
    connection.send(&[head.as_bytes(), &body[..sent]].concat());
    connection
}

/// Whether a PUT is receiving on the path: then even a confirm that says nothing is told `busy`.
fn is_receiving(server: &Server, path: &str) -> bool {
    let mut connection = Connection::open(server.port);
    connection.expect(Asked {
        method: "PUT".to_owned(),
        target: path.to_owned(),
        ..Asked::default()
    });
    let head = "HTTP/1.1\r\nHost: x\r\nContent-Range: bytes */99\r\nContent-Length: 0\r\n\r\n";
    connection.send(format!("PUT {path} {head}").as_bytes());
    let answered = connection.answer().expect("HTTP");
    answered.expect("an answer").1.status == 503
}

fn quarantine(server: &Server, path: &str) {
    let output = try_quarantine(server, path);
    assert!(output.status.success(), "{}", said(&output));
}

fn try_quarantine(server: &Server, path: &str) -> Output {
    let config = server.config();
    let args = ["quarantine", path, "--config"].map(Path::new);
    common::run(args.into_iter().chain([config.as_path()]))
}

/// What lies in quarantine.
fn kept(server: &Server) -> BTreeSet<Vec<u8>> {
    let kept = fs::read_dir(server.datadir.join(".shaftlog/quarantine")).expect("the quarantine");
    kept.map(|entry| fs::read(entry.expect("a name").path()).expect("a copy"))
        .collect()
}

/// The paths of the events of this kind, each as often as it happened.
fn told(server: &Server, kind: &str) -> Vec<String> {
    let events = common::rows(&server.datadir, "events");
    let events = events.iter().filter(|event| event["kind"] == kind);
    let mut paths: Vec<_> = events.map(|event| event["path"].to_string()).collect();
    paths.sort();
    paths
}

#[test]
fn rule_10_what_quarantine_has_no_room_for_is_told_once_before_it_goes() {
    let home = TempDir::new().expect("a temporary directory");
    let mut server = Server::start(&home.path().join("data"), "quarantine: {size: 20}");
    let bodies = ["/a", "/b", "/c", "/d"].map(|path| (path, format!("{path} is 8")));
    for (path, body) in &bodies {
        assert_eq!(put(&server, path, body.as_bytes()), 201);
        quarantine(&server, path);
    }
    assert_eq!(kept(&server).len(), 4);
    // Somebody else's, and no copy.
    let note = server.datadir.join(".shaftlog/quarantine/why");
    fs::write(&note, "the disk of May").expect("a note");

    server.terminate();
    server.restart();
    wait_for("only two have room", || {
        (kept(&server).len() == 3).then_some(())
    });
    server.terminate();
    server.restart();
    assert_eq!(put(&server, "/a", b"again"), 201);
    quarantine(&server, "/a");
    server.terminate();
    server.restart();
    wait_for("the next start has thinned", || {
        let kept = kept(&server);
        (kept.contains(&b"again"[..]) && told(&server, "discarded").len() > 1).then_some(())
    });
    assert!(note.exists());
    let here = kept(&server);
    let gone = |(path, body): &&(&str, String)| {
        told(&server, "discarded").contains(&format!("\"{path}\""))
            != here.contains(body.as_bytes())
    };
    assert_eq!(bodies.iter().filter(gone).count(), 4, "{here:?}");
    let discarded = told(&server, "discarded");
    let once: BTreeSet<_> = discarded.iter().collect();
    assert_eq!(once.len(), discarded.len(), "{discarded:?}");
    server.terminate();
}

/// A client that breaks its bodies off and begins anew with others must not fill the disk.
#[test]
fn tails_that_differ_are_kept_within_the_bounds_at_any_time() {
    let home = TempDir::new().expect("a temporary directory");
    let server = Server::start(&home.path().join("data"), "quarantine: {size: 20}");
    for number in 0..10 {
        // What a broken body leaves.
        let tail = server.datadir.join(number.to_string());
        fs::write(&tail, format!("ten bytes{number}")).expect("a tail");
        assert_eq!(put(&server, &format!("/{number}"), b"another"), 201);
    }
    wait_for("there are at most twice as many as may stay", || {
        (kept(&server).len() <= 4).then_some(())
    });
    let gone = told(&server, "discarded");
    assert!(gone.len() >= 6, "{gone:?}");
}

#[test]
fn rule_1_a_move_that_is_due_waits_for_whoever_writes_to_its_path() {
    let home = TempDir::new().expect("a temporary directory");
    let mut server = Server::start(&home.path().join("data"), "min_free: 0");
    for path in ["/a", "/b"] {
        assert_eq!(put(&server, path, b"some bytes"), 201);
    }
    let obstacle = server.datadir.join(".shaftlog/quarantine");
    fs::write(&obstacle, "no directory").expect("an obstacle");
    let output = try_quarantine(&server, "/a");
    assert!(!output.status.success(), "{}", said(&output));
    fs::remove_file(&obstacle).expect("it goes");

    // The path begins anew, with its old bytes as a tail.
    let mut connection = begin(&server, "/a", b"some bytes more", 12);
    wait_for("it has the path", || {
        is_receiving(&server, "/a").then_some(())
    });
    let output = try_quarantine(&server, "/b");
    assert!(said(&output).contains("try again"), "{}", said(&output));
    connection.send(b"ore");
    let answered = connection.answer().expect("HTTP");
    assert_eq!(answered.expect("an answer").1.status, 201);
    quarantine(&server, "/b");
    assert_eq!(server.file("/a").as_deref(), Some(&b"some bytes more"[..]));
    assert_eq!(server.file("/b"), None);
    server.terminate();
}

/// A filesystem that is mounted inside the datadir as long as this lives.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn at(place: std::path::PathBuf) -> Self {
        fs::create_dir(&place).expect("a mount point");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "none"]).arg(&place);
        assert!(mount.status().expect("mount").success());
        Self(place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs root"]
fn a_file_of_another_filesystem_is_moved_aside_and_the_next_one_too() {
    let home = TempDir::new().expect("a temporary directory");
    let mut server = Server::start(&home.path().join("data"), "min_free: 0");
    let mounted = Mounted::at(server.datadir.join("host"));
    for (path, body) in [("/host/a", "on another disk"), ("/b", "on this one")] {
        assert_eq!(put(&server, path, body.as_bytes()), 201);
    }
    for path in ["/host/a", "/b"] {
        quarantine(&server, path);
        assert_eq!(server.file(path), None, "{path} is gone");
    }
    let copies = [&b"on another disk"[..], b"on this one"].map(<[u8]>::to_vec);
    assert_eq!(kept(&server), BTreeSet::from(copies));
    assert_eq!(put(&server, "/host/a", b"begun anew"), 201);
    server.terminate();
    drop(mounted);
}
