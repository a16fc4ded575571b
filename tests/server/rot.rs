//! Bits that rot on the disk: no time of the file tells, and the bytes are other ones.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::common::{self, Server, wait_for};
use crate::http::{Asked, Connection};

/// A small filesystem in a file, mounted as long as this lives.
struct Image {
    file: PathBuf,
    at: PathBuf,
}

impl Image {
    fn make(home: &Path) -> Self {
        let image = Self {
            file: home.join("image"),
            at: home.join("data"),
        };
        fs::create_dir(&image.at).expect("a mount point");
        let file = fs::File::create(&image.file).expect("an image");
        file.set_len(32 * 1024 * 1024).expect("room");
        run("mkfs.ext4", &["-q".as_ref(), &image.file]);
        image.mount();
        image
    }

    fn mount(&self) {
        run(
            "mount",
            &["-o".as_ref(), "loop".as_ref(), &self.file, &self.at],
        );
    }

    fn unmount(&self) {
        run("umount", &[&self.at]);
    }

    /// Flips a bit of what lies on the disk as `bytes`.
    fn rot(&self, bytes: &[u8]) {
        self.unmount();
        let image = fs::read(&self.file).expect("the image");
        let place = image.windows(bytes.len()).position(|there| there == bytes);
        let place = place.expect("the bytes are on the disk");
        let file = fs::File::options().write(true).open(&self.file);
        let file = file.expect("the image");
        file.write_all_at(&[bytes[0] ^ 1], place as u64)
            .expect("one byte");
        self.mount();
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn run(program: &str, arguments: &[&Path]) {
    let status = Command::new(program).args(arguments).status();
    assert!(status.expect(program).success(), "{program} {arguments:?}");
}

fn ask(server: &Server, method: &str, path: &str, head: &str, body: &[u8]) -> u16 {
    let mut connection = Connection::open(server.port);
    connection.expect(Asked {
        method: method.to_owned(),
        target: path.to_owned(),
        ..Asked::default()
    });
    let line = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n");
    connection.send(&[line.as_bytes(), body].concat());
    let answered = connection.answer().expect("HTTP");
    answered.expect("an answer").1.status
}

fn put(server: &Server, path: &str, body: &[u8]) {
    let head = format!(
        "Content-Range: bytes 0-{}/{}\r\nContent-Length: {}\r\nIf-None-Match: *\r\n",
        body.len() - 1,
        body.len(),
        body.len()
    );
    assert_eq!(ask(server, "PUT", path, &head, body), 201);
}

/// A file that cannot be read, and a row that cannot, keep nobody from what lies behind them.
#[test]
fn rule_10_the_scrub_goes_on_behind_what_it_cannot_read() {
    let home = TempDir::new().expect("a temporary directory");
    let extra = "scrub: {rate: 100MiB, period: 1s}";
    let mut server = Server::start(&home.path().join("data"), extra);
    for (path, body) in [("/a", "something"), ("/b", "another"), ("/c", "changed")] {
        put(&server, path, body.as_bytes());
    }
    server.terminate();
    let place = |name: &str| server.datadir.join(name);
    fs::remove_file(place("a")).expect("a file");
    fs::create_dir(place("a")).expect("a directory in its place");
    let index = place(".shaftlog/server.redb");
    let mut bytes = fs::read(&index).expect("the index");
    let hash = blake3::hash(b"another");
    let mut hits = 0;
    for at in 0..bytes.len() - 32 {
        if bytes[at..].starts_with(hash.as_bytes()) {
            bytes[at] ^= 1;
            hits += 1;
        }
    }
    assert!(hits > 0, "the row of /b is in the index");
    fs::write(&index, bytes).expect("the index");
    fs::write(place("c"), "CHANGED").expect("other bytes");

    server.restart();
    wait_for("what is behind them is found", || {
        let events = server.output();
        (events.contains("ERROR") && events.contains("/c: it differs")).then_some(())
    });
    assert_eq!(ask(&server, "HEAD", "/c", "", b""), 409);
    let output = server.output();
    for told in ["/a cannot be read", "row /b of table `files` is damaged"] {
        assert!(output.contains(told), "{told}: {output}");
    }
    server.terminate();
}

#[test]
#[ignore = "needs rsync"]
fn rule_10_rsync_in_place_is_betrayed_by_the_ctime_alone() {
    let home = TempDir::new().expect("a temporary directory");
    let server = Server::start(&home.path().join("data"), "");
    let head = "Content-Range: bytes 0-4/5\r\nContent-Length: 5\r\nIf-None-Match: *\r\n";
    assert_eq!(ask(&server, "PUT", "/a", head, b"hello"), 201);
    let (file, source) = (server.datadir.join("a"), home.path().join("source"));
    let before = fs::metadata(&file).expect("the file");
    fs::write(&source, "jello").expect("a source");
    let opened = fs::File::options().write(true).open(&source);
    let modified = before.modified().expect("a time");
    opened
        .and_then(|opened| opened.set_modified(modified))
        .expect("the same time");
    let options = ["--inplace", "-t", "--checksum"].map(Path::new);
    run("rsync", &[&options[..], &[&source, &file]].concat());
    let after = fs::metadata(&file).expect("the file");
    let print = |stat: &fs::Metadata| (stat.ino(), stat.len(), stat.mtime(), stat.mtime_nsec());
    assert_eq!(print(&before), print(&after));
    assert_eq!(fs::read(&file).expect("the file"), b"jello");

    let head = "Content-Range: bytes 5-5/6\r\nContent-Length: 1\r\n";
    let append = || ask(&server, "PUT", "/a", head, b"!");
    let status = wait_for("a verdict", || {
        Some(append()).filter(|status| *status != 503)
    });
    assert_eq!(status, 409);
    assert_eq!(fs::read(&file).expect("the file"), b"jello");
}

#[test]
#[ignore = "needs root"]
fn rule_10_the_scrub_finds_a_bit_that_rotted() {
    let home = TempDir::new().expect("a temporary directory");
    let image = Image::make(home.path());
    let mut server = Server::start(&image.at, "min_free: 0\nscrub: {rate: 100MiB, period: 1s}");
    let part = |name: &str| {
        blake3::hash(name.as_bytes())
            .to_hex()
            .to_string()
            .repeat(2000)
    };
    for name in ["/good", "/bad"] {
        let body = part(name);
        let head = format!(
            "Content-Range: bytes 0-{}/{}\r\nContent-Length: {}\r\nIf-None-Match: *\r\n",
            body.len() - 1,
            body.len(),
            body.len()
        );
        assert_eq!(ask(&server, "PUT", name, &head, body.as_bytes()), 201);
    }
    server.terminate();
    image.rot(&part("/bad").as_bytes()[..4096]);

    // A start that reads nothing, and nobody who asks.
    server.restart();
    wait_for("it is found", || {
        let events = common::rows(&server.datadir, "events");
        events
            .iter()
            .any(|event| event["kind"] == "diverged" && event["path"] == "/bad")
            .then_some(())
    });
    assert_eq!(ask(&server, "HEAD", "/bad", "", b""), 409);
    assert_eq!(ask(&server, "HEAD", "/good", "", b""), 200);
    let output = server.output();
    let errors: Vec<_> = output
        .lines()
        .filter(|line| line.contains("ERROR"))
        .collect();
    assert!(errors.len() == 1 && errors[0].contains("/bad"), "{output}");
    server.terminate();
}
