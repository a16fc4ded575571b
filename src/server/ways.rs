//! Making the ways to new files durable: one thread fsyncs directories, each once for all new
//! files in it that wait, while those are themselves being synced.
//!
//! A directory on the way is fsynced when it, or the one below it, is new to this process; the one
//! that holds the file always is.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::JoinHandle;

use crate::limits::DURABLE_DIRS;
use crate::sys::dir::Dir;
use crate::types::{Inode, WirePath};

/// The way to the thread.
#[derive(Debug)]
pub(crate) struct Ways(Sender<Job>);

struct Job {
    path: WirePath,
    done: SyncSender<io::Result<()>>,
}

/// A way that is being made durable.
#[derive(Debug)]
pub(crate) struct Underway(Receiver<io::Result<()>>);

impl Underway {
    /// Waits; blocks.
    pub(crate) fn wait(self) -> io::Result<()> {
        let gone = |_| {
            Err(io::Error::other(
                "the thread that syncs directories is gone",
            ))
        };
        self.0.recv().unwrap_or_else(gone)
    }
}

impl Ways {
    /// Starts the thread. It ends when this is dropped.
    pub(crate) fn start(dir: Arc<Dir>) -> io::Result<(Self, JoinHandle<()>)> {
        let (jobs, waiting) = mpsc::channel();
        let mut thread = Thread {
            dir,
            known: HashMap::new(),
        };
        let builder = std::thread::Builder::new().name("directories".to_owned());
        let handle = builder.spawn(move || thread.run(&waiting))?;
        Ok((Self(jobs), handle))
    }

    /// Begins to make the way to `path` durable, whoever made it.
    pub(crate) fn sync(&self, path: &WirePath) -> Underway {
        let (done, result) = mpsc::sync_channel(1);
        let path = path.clone();
        // Without a thread the channel is closed, which waiting tells.
        let _ = self.0.send(Job { path, done });
        Underway(result)
    }
}

struct Thread {
    dir: Arc<Dir>,
    /// Directories whose name is durable in the one above.
    known: HashMap<Vec<u8>, Inode>,
}

impl Thread {
    fn run(&mut self, waiting: &Receiver<Job>) {
        while let Ok(first) = waiting.recv() {
            let mut synced: HashMap<Vec<u8>, io::Result<()>> = HashMap::new();
            for job in std::iter::once(first)
                .chain(waiting.try_iter())
                .collect::<Vec<_>>()
            {
                let parent = parent(&job.path);
                let result = synced
                    .entry(parent.to_vec())
                    .or_insert_with(|| self.sync_way(parent));
                // Who asked may be gone.
                let _ = job.done.send(copy(result));
            }
        }
    }

    fn sync_way(&mut self, parent: &[u8]) -> io::Result<()> {
        let ends = parent.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let ends: Vec<usize> = ends.map(|(end, _)| end).chain([parent.len()]).collect();
        let mut above: &[u8] = b"";
        for end in ends.into_iter().filter(|end| *end > 0) {
            let below = &parent[..end];
            let inode = self.dir.stat(below)?.map(|stat| stat.inode);
            if inode.is_none() || self.known.get(below).copied() != inode {
                self.dir.sync_dir(above)?;
                self.learn(below, inode);
            }
            above = below;
        }
        self.dir.sync_dir(parent)
    }

    fn learn(&mut self, relative: &[u8], inode: Option<Inode>) {
        if self.known.len() >= DURABLE_DIRS {
            self.known.clear();
        }
        if let Some(inode) = inode {
            self.known.insert(relative.to_vec(), inode);
        }
    }
}

/// The directory that holds the file, empty for the datadir.
fn parent(path: &WirePath) -> &[u8] {
    let relative = path.as_bytes();
    let slash = relative.iter().rposition(|byte| *byte == b'/');
    &relative[..slash.unwrap_or(0)]
}

fn copy(result: &io::Result<()>) -> io::Result<()> {
    result
        .as_ref()
        .copied()
        .map_err(|error| match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> WirePath {
        WirePath::decode(text).unwrap()
    }

    #[test]
    fn a_way_is_known_until_a_directory_on_it_is_another() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Arc::new(Dir::open(scratch.path()).unwrap());
        dir.create_parents(b"a/b/f", 0o750).unwrap();
        let mut thread = Thread {
            dir: Arc::clone(&dir),
            known: HashMap::new(),
        };
        let inode = |relative: &[u8]| dir.stat(relative).unwrap().map(|stat| stat.inode);
        thread.sync_way(b"a/b").unwrap();
        assert_eq!(thread.known.get(&b"a"[..]).copied(), inode(b"a"));
        assert_eq!(thread.known.get(&b"a/b"[..]).copied(), inode(b"a/b"));

        dir.rename_noreplace(b"a/b", b"a/c").unwrap();
        dir.create_parents(b"a/b/f", 0o750).unwrap();
        assert_ne!(thread.known.get(&b"a/b"[..]).copied(), inode(b"a/b"));
        thread.sync_way(b"a/b").unwrap();
        assert_eq!(thread.known.get(&b"a/b"[..]).copied(), inode(b"a/b"));
    }

    #[test]
    fn each_way_is_answered_and_a_missing_one_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Arc::new(Dir::open(scratch.path()).unwrap());
        dir.create_parents(b"a/f", 0o750).unwrap();
        let (ways, thread) = Ways::start(dir).unwrap();
        let under_way = [path("/f"), path("/a/f"), path("/a/g")].map(|path| ways.sync(&path));
        for way in under_way {
            way.wait().unwrap();
        }
        let missing = ways.sync(&path("/b/f")).wait().unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        drop(ways);
        thread.join().unwrap();
    }
}
