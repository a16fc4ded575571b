//! A server and its datadir, in memory where there is /dev/shm, used for many conversations: each
//! has directories of its own in it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use shaftlog::index::Kind;
use shaftlog::index::inspect::{Inspection, Row};
use shaftlog::index::server::ServerIndex;
use shaftlog::server::Server;
use shaftlog::sys::clock;
use shaftlog::sys::dir::Dir;
use tokio::runtime::{Builder, Runtime};

use crate::line::Line;

/// Conversations after which a server is replaced, so that neither its index nor its files grow
/// without end.
const WORN: usize = 500;

/// See the module.
pub struct Site {
    server: Server,
    runtime: Runtime,
    home: Home,
    conversations: usize,
    /// What the last HEAD of a path said: L and its entity tag.
    told: HashMap<String, (u64, String)>,
}

impl Site {
    pub fn new() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let home = Home::new();
        let datadir = home.datadir();
        let database = database(&datadir);
        ServerIndex::create(&database).expect("a new index");
        let index = ServerIndex::open(&database, clock::now()).expect("the new index");
        let server = runtime.block_on(async {
            let dir = Dir::open(&datadir).expect("the datadir");
            Server::embedded(index, dir).expect("a server")
        });
        Self {
            server,
            runtime,
            home,
            conversations: 0,
            told: HashMap::new(),
        }
    }

    pub fn is_worn(&self) -> bool {
        self.conversations >= WORN
    }

    /// A name for what belongs to this conversation; as long as every other.
    pub fn begin(&mut self) -> String {
        self.conversations += 1;
        format!("{:06}", self.conversations)
    }

    /// Runs a conversation on this thread.
    pub fn run<T>(&self, conversation: impl Future<Output = T>) -> T {
        self.runtime.block_on(conversation)
    }

    /// A connection that holds so many bytes on their way; within [`run`](Self::run).
    pub fn connect(&self, capacity: usize) -> Line {
        let (ours, theirs) = tokio::io::duplex(capacity);
        let serving = self.server.serve_stream(theirs, "fuzz".to_owned());
        Line::new(ours, tokio::spawn(serving))
    }

    /// Where the file of a path lies; the path with its slash in front.
    pub fn file(&self, path: &str) -> PathBuf {
        self.home.datadir().join(&path[1..])
    }

    /// Remembers what the last HEAD said.
    pub fn tell(&mut self, path: &str, length: u64, tag: &str) {
        self.told.insert(path.to_owned(), (length, tag.to_owned()));
    }

    /// Nothing lies beside the datadir.
    pub fn stays_inside(&self) {
        let beside = fs::read_dir(&self.home.0).expect("our own directory");
        let names: Vec<_> = beside.flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["data"], "something has left the datadir");
    }

    /// Ends the server, and holds its index against what the HEADs said.
    pub fn close(self) {
        self.stays_inside();
        self.runtime.block_on(self.server.stop());
        drop(self.runtime);
        let index = Inspection::open(&database(&self.home.datadir())).expect("the closed index");
        let mut told = self.told;
        let each = |row: Row| {
            let row = serde_json::to_value(&row).expect("rows are JSON");
            let path = row["path"].as_str().filter(|_| row["table"] == "files");
            if let Some((length, tag)) = path.and_then(|path| told.remove(path)) {
                let hash = row["blake3"].as_str().unwrap_or_default();
                assert_eq!(row["length"], length, "{row}");
                assert_eq!(format!("\"blake3:{hash}\""), tag, "{row}");
            }
            true
        };
        index.rows(each).expect("every row can be read");
        assert!(told.is_empty(), "no row of {told:?}");
    }
}

fn database(datadir: &Path) -> PathBuf {
    datadir.join(".shaftlog").join(Kind::Server.file_name())
}

/// A directory of its own, removed with it.
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let shared = Path::new("/dev/shm");
        let parent = if shared.is_dir() {
            shared.to_owned()
        } else {
            std::env::temp_dir()
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            remove_left(&parent);
        }
        let home = Self(parent.join(format!("{PREFIX}{}-{number}", std::process::id())));
        fs::create_dir_all(home.datadir().join(".shaftlog")).expect("a directory in memory");
        home
    }

    fn datadir(&self) -> PathBuf {
        self.0.join("data")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PREFIX: &str = "shaftlog-fuzz-";

/// Removes what runs have left behind that crashed.
fn remove_left(parent: &Path) {
    let is_left = |name: &str| {
        let process = name.strip_prefix(PREFIX)?.split_once('-')?.0;
        Some(!Path::new("/proc").join(process).exists())
    };
    let entries = fs::read_dir(parent).expect("a directory for temporary files");
    for entry in entries.flatten() {
        if entry.file_name().to_str().and_then(is_left) == Some(true) {
            // Another run may be at it too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
