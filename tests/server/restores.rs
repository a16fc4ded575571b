//! Files truncated, deleted, changed and restored, the index restored, kills in between, and a
//! client that goes on all the time. Whatever happens: what the server vouches for is what was
//! delivered; a byte that was acknowledged and is gone is an event; a file that diverged stays as it
//! is until the operator moves it aside; and in the end everything is there. `PROPTEST_CASES=1000`
//! for a long run.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use crate::common::{self, Server};
use crate::contract;
use crate::data::{digest, etag};
use crate::http::{Answer, Asked, Connection};
use crate::play::{answered, plays, request};
use crate::said::stream;

const PATHS: [&str; 2] = ["/one", "/dir/two"];

proptest! {
    #![proptest_config(plays(200))]

    #[test]
    fn no_acknowledged_byte_is_lost_silently(steps in prop::collection::vec(step(), 1..40)) {
        let mut play = Play::new();
        for step in &steps {
            play.perform(step);
        }
        play.finish();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Deliver { path: usize, length: usize },
    Look { path: usize },
    Truncate { path: usize, to: usize },
    Delete { path: usize },
    Flip { path: usize, at: usize },
    SaveFile { path: usize },
    RestoreFile { path: usize },
    SaveIndex,
    RestoreIndex,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    let length = || prop_oneof![8 => 1..40_usize, 1 => 60_000..140_000_usize];
    prop_oneof![
        12 => (path(), length()).prop_map(|(path, length)| Step::Deliver { path, length }),
        3 => path().prop_map(|path| Step::Look { path }),
        2 => (path(), any::<usize>()).prop_map(|(path, to)| Step::Truncate { path, to }),
        1 => path().prop_map(|path| Step::Delete { path }),
        1 => (path(), any::<usize>()).prop_map(|(path, at)| Step::Flip { path, at }),
        2 => path().prop_map(|path| Step::SaveFile { path }),
        2 => path().prop_map(|path| Step::RestoreFile { path }),
        1 => Just(Step::SaveIndex),
        1 => Just(Step::RestoreIndex),
        2 => Just(Step::Kill),
    ]
}

struct Play {
    server: Server,
    home: TempDir,
    files: [File; PATHS.len()],
}

/// What the client and this test know of one path.
#[derive(Clone, Default)]
struct File {
    /// Bytes that were acknowledged, since the index is what it is.
    acknowledged: usize,
    /// Somebody has changed a byte of the file, or put one back in which a byte was changed.
    flipped: bool,
    saved: Option<(Vec<u8>, bool)>,
}

impl Play {
    fn new() -> Self {
        let home = TempDir::new().expect("a temporary directory");
        Self {
            server: Server::start(&home.path().join("data"), ""),
            home,
            files: Default::default(),
        }
    }

    fn perform(&mut self, step: &Step) {
        match *step {
            Step::Deliver { path, length } => {
                self.deliver(path, length);
            }
            Step::Look { path } => {
                self.look(path);
            }
            Step::Truncate { path, to } => {
                if let Some(bytes) = self.on_disk(path).filter(|bytes| !bytes.is_empty()) {
                    let size = to % bytes.len();
                    let file = fs::File::options().write(true).open(self.place(path));
                    file.and_then(|file| file.set_len(size as u64))
                        .expect("cut");
                }
            }
            Step::Delete { path } => {
                let _ = fs::remove_file(self.place(path));
            }
            Step::Flip { path, at } => self.flip(path, at),
            Step::SaveFile { path } => {
                let flipped = self.files[path].flipped;
                self.files[path].saved = self.on_disk(path).map(|bytes| (bytes, flipped));
            }
            Step::RestoreFile { path } => self.restore_file(path),
            Step::SaveIndex => {
                self.server.terminate();
                fs::copy(self.index(), self.saved_index()).expect("an index");
                self.server.restart();
            }
            Step::RestoreIndex => self.restore_index(),
            Step::Kill => self.server.restart(),
        }
    }

    fn place(&self, path: usize) -> PathBuf {
        self.server.datadir.join(&PATHS[path][1..])
    }

    fn index(&self) -> PathBuf {
        self.server.datadir.join(".shaftlog/server.redb")
    }

    fn saved_index(&self) -> PathBuf {
        self.home.path().join("index")
    }

    fn on_disk(&self, path: usize) -> Option<Vec<u8>> {
        self.server.file(PATHS[path])
    }

    fn flip(&mut self, path: usize, at: usize) {
        let Some(mut bytes) = self.on_disk(path).filter(|bytes| !bytes.is_empty()) else {
            return;
        };
        let at = at % bytes.len();
        bytes[at] ^= 1;
        fs::write(self.place(path), bytes).expect("written");
        self.files[path].flipped = true;
    }

    /// As `cp` does it: another inode.
    fn restore_file(&mut self, path: usize) {
        let Some((bytes, flipped)) = self.files[path].saved.clone() else {
            return;
        };
        let copy = self.home.path().join("copy");
        fs::write(&copy, bytes).expect("a copy");
        let place = self.place(path);
        fs::create_dir_all(place.parent().expect("a directory")).expect("it");
        fs::rename(&copy, place).expect("put back");
        self.files[path].flipped |= flipped;
    }

    fn restore_index(&mut self) {
        if !self.saved_index().exists() {
            return;
        }
        self.server.kill();
        fs::copy(self.saved_index(), self.index()).expect("put back");
        for file in &mut self.files {
            // It knows nothing of what was acknowledged since.
            file.acknowledged = 0;
        }
        self.server.restart();
    }

    /// What HEAD says, held against what may be: L, or nothing while the path takes nothing.
    fn look(&mut self, path: usize) -> Option<usize> {
        let answer = self.ask("HEAD", path, "", b"");
        let file = &self.files[path];
        let told = |kind: &str| {
            let events = common::rows(&self.server.datadir, "events");
            let mut events = events.iter();
            events.any(|event| event["kind"] == kind && event["path"] == PATHS[path])
        };
        match answer.status {
            404 => {
                assert_eq!(file.acknowledged, 0, "{} is forgotten", PATHS[path]);
                Some(0)
            }
            409 => {
                assert_eq!(answer.header("shaftlog-problem"), Some("diverged"));
                assert!(file.flipped, "{}: nobody has changed a byte", PATHS[path]);
                assert!(told("diverged"), "{}: no event", PATHS[path]);
                None
            }
            200 => {
                let length = answer.number("shaftlog-length").expect("L");
                let length = usize::try_from(length).expect("small");
                assert!(
                    length >= file.acknowledged || told("regressed"),
                    "{}: {} were acknowledged, L = {length}, and no event",
                    PATHS[path],
                    file.acknowledged
                );
                let right = etag(&blake3::hash(&stream(PATHS[path], 0, length)));
                if answer.header("etag") == Some(right.as_str()) {
                    return Some(length);
                }
                // Changed and cut off between two lengths on record: the client's hash tells.
                assert!(file.flipped && told("regressed"), "{}", answer.shown());
                None
            }
            _ => panic!("{}", answer.shown()),
        }
    }

    /// What a client does: asks, sends what comes next; whether it is acknowledged.
    fn deliver(&mut self, path: usize, length: usize) -> bool {
        let Some(start) = self.look(path) else {
            return false;
        };
        let end = start + length;
        let bytes = stream(PATHS[path], 0, end);
        let head = format!(
            "Content-Range: bytes {start}-{}/{end}\r\nContent-Length: {length}\r\nIf-Match: {}\r\nRepr-Digest: {}\r\n",
            end - 1,
            etag(&blake3::hash(&bytes[..start])),
            digest(&blake3::hash(&bytes)),
        );
        let answer = self.ask("PUT", path, &head, &bytes[start..]);
        if answer.status == 409 {
            let file = &self.files[path];
            assert!(file.flipped, "{}", answer.shown());
            return false;
        }
        assert!(matches!(answer.status, 201 | 204), "{}", answer.shown());
        let file = &mut self.files[path];
        file.acknowledged = file.acknowledged.max(end);
        let on_disk = self.on_disk(path).unwrap_or_default();
        assert!(on_disk[..end] == bytes, "{}: other bytes", PATHS[path]);
        true
    }

    /// The operator moves aside what is frozen; in the end all is there, and the index says so.
    fn finish(&mut self) {
        for (path, name) in PATHS.iter().enumerate() {
            let frozen = self.on_disk(path);
            if !self.deliver(path, 1) {
                if self.ask("HEAD", path, "", b"").status == 409 {
                    let now = self.on_disk(path);
                    let before = frozen.unwrap_or_default();
                    assert!(now.unwrap_or_default().starts_with(&before));
                }
                let config = self.server.config();
                let config = config.to_str().expect("UTF-8");
                let output = common::run(["quarantine", name, "--config", config]);
                assert!(output.status.success(), "{}", common::said(&output));
                self.files[path] = File::default();
            }
            self.deliver(path, 2_000_000);
        }
        self.server.restart();
        let rows = common::rows(&self.server.datadir, "files");
        for (path, name) in PATHS.iter().enumerate() {
            let length = self.look(path).expect("it goes on");
            let row = rows.iter().find(|row| row["path"] == *name);
            let row = row.unwrap_or_else(|| panic!("no row of {name}"));
            assert_eq!(row["state"], "vouched", "{row}");
            assert!(
                self.on_disk(path) == Some(stream(PATHS[path], 0, length)),
                "{name}"
            );
        }
    }

    fn ask(&self, method: &str, path: usize, head: &str, body: &[u8]) -> Answer {
        answered(|| {
            let mut connection = Connection::open(self.server.port);
            connection.expect(Asked {
                method: method.to_owned(),
                target: PATHS[path].to_owned(),
                ..Asked::default()
            });
            connection.send(&request(method, PATHS[path], head, body));
            let (asked, answer) = connection.answer().expect("HTTP").expect("an answer");
            let checked = contract::check(&asked, &answer, Some(&self.place(path)));
            checked.unwrap_or_else(|problem| panic!("{problem}\n{head}\n{}", answer.shown()));
            answer
        })
    }
}
