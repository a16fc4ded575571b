//! Noticing that known files were written: one watch an active inode, and a round of looks for
//! what watches do not tell.
//!
//! Nothing happens here but marking files dirty. A watch sees writes through every name of its
//! inode, also after rotation and removal. It does not see writes through `mmap(2)`; notices may be
//! lost when the queue overflows; and there may be no more watches to be had: then a look at size
//! and times, in turn, finds what changed.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::unix::AsyncFd;

use super::catalogue::Catalogue;
use super::dirty::Dirty;
use crate::limits::{ROUND_TICKS, UNWATCHED_LOOKS};
use crate::sys::inotify::{Inotify, Notice, Watch, WatchError};
use crate::types::FileId;

/// The watches of all active files. Calls do not block for long.
pub struct Watches {
    /// `None` when there is no queue to be had.
    inotify: Option<Arc<Inotify>>,
    dirty: Arc<Dirty>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: HashMap<Watch, FileId>,
    watches: HashMap<FileId, Watch>,
    /// Whether the one warning was given.
    warned: bool,
}

impl Watches {
    /// No watches yet; without any to be had, one warning says so, now or later.
    pub fn new(dirty: Arc<Dirty>) -> Self {
        let mut state = State::default();
        let inotify = match Inotify::new() {
            Ok(inotify) => Some(Arc::new(inotify)),
            Err(error) => {
                tracing::debug!("{error}");
                state.warn();
                None
            }
        };
        Self {
            inotify,
            dirty,
            state: Mutex::new(state),
        }
    }

    /// No watches, now or later, and nothing to be said of it: for a run that ends by itself.
    pub fn none(dirty: Arc<Dirty>) -> Self {
        Self {
            inotify: None,
            dirty,
            state: Mutex::default(),
        }
    }

    /// Watches the inode that `path` shows as the file `id`; a generation before it on the same
    /// inode is not told of any more.
    pub fn add(&self, id: FileId, path: &Path) {
        let Some(inotify) = &self.inotify else {
            return;
        };
        // Within the lock: two generations of one inode share the watch.
        let mut state = self.state();
        match inotify.add(path) {
            Ok(watch) => {
                if let Some(before) = state.files.insert(watch, id) {
                    state.watches.remove(&before);
                }
                state.watches.insert(id, watch);
            }
            Err(WatchError::Exhausted) => state.warn(),
            Err(WatchError::Io(error)) => {
                tracing::debug!(%error, path = %path.display(), "no watch");
            }
        }
    }

    /// Says, once for files and directories alike, that there are no more watches to be had.
    pub(super) fn exhausted(&self) {
        self.state().warn();
    }

    /// Ends the watch of a file.
    pub fn remove(&self, id: FileId) {
        let mut state = self.state();
        if let (Some(watch), Some(inotify)) = (state.watches.remove(&id), &self.inotify) {
            state.files.remove(&watch);
            if let Err(error) = inotify.remove(watch) {
                tracing::debug!(%error, "a watch could not be removed");
            }
        }
    }

    /// Those of the files whose writes nobody tells of.
    fn without(&self, mut files: Vec<FileId>) -> Vec<FileId> {
        let state = self.state();
        files.retain(|id| !state.watches.contains_key(id));
        files
    }

    /// Turns notices into marks for as long as it is polled; to be dropped at the end.
    pub async fn run<T>(&self) -> T {
        if let Some(inotify) = &self.inotify
            && let Err(error) = self.listen(inotify).await
        {
            tracing::error!(%error, "no more notices of writes: files are looked at in turn");
            self.state().watches.clear();
        }
        std::future::pending().await
    }

    async fn listen(&self, inotify: &Arc<Inotify>) -> io::Result<()> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe; ours cannot be closed early"
        )]
        let queue = AsyncFd::new(Arc::clone(inotify))?;
        loop {
            let mut ready = queue.readable().await?;
            match ready.try_io(|queue| queue.get_ref().read(|notice| self.heard(notice))) {
                Ok(read) => read?,
                Err(_empty) => {}
            }
        }
    }

    fn heard(&self, notice: Notice) {
        match notice {
            Notice::Written(watch) => {
                let id = self.state().files.get(&watch).copied();
                if let Some(id) = id {
                    self.dirty.mark(id);
                }
            }
            Notice::Dropped(watch) => {
                let mut state = self.state();
                if let Some(id) = state.files.remove(&watch) {
                    state.watches.remove(&id);
                }
            }
            Notice::Overflow => {
                tracing::debug!("notices of writes were lost; looking at every file");
                let all: Vec<FileId> = self.state().watches.keys().copied().collect();
                for id in all {
                    self.dirty.mark(id);
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The looks in turn: at each tick some of the watched files, so that all had their turn after
/// [`ROUND_TICKS`], and all that have no watch, within bounds.
#[derive(Default)]
pub struct Round {
    waiting: Vec<FileId>,
    share: usize,
    unwatched: Vec<FileId>,
}

impl Round {
    /// Looks at the files whose turn it is.
    pub fn tick(&mut self, catalogue: &Catalogue, watches: &Watches) {
        if self.waiting.is_empty() {
            self.waiting = catalogue.active();
            self.share = self.waiting.len().div_ceil(ROUND_TICKS);
        }
        look(catalogue, &mut self.waiting, self.share);
        if self.unwatched.is_empty() {
            self.unwatched = watches.without(catalogue.active());
        }
        look(catalogue, &mut self.unwatched, UNWATCHED_LOOKS);
    }
}

fn look(catalogue: &Catalogue, waiting: &mut Vec<FileId>, most: usize) {
    let rest = waiting.len().saturating_sub(most);
    for id in waiting.drain(rest..) {
        catalogue.look_again(id);
    }
}

impl State {
    fn warn(&mut self) {
        if !self.warned {
            self.warned = true;
            tracing::warn!(
                "no more inotify watches to be had: new files are found by the scan every scan_interval, writes by a look every periodic_trigger_interval; raise fs.inotify.max_user_watches or fs.inotify.max_user_instances"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;
    use crate::client::dirty::Queue;

    /// How long a test waits for what must happen before it calls it missing.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Lets the watches tell until `queue` has a mark.
    async fn marked(watches: &Watches, queue: &Queue) -> FileId {
        let told = async {
            tokio::select! {
                never = watches.run::<std::convert::Infallible>() => match never {},
                id = async {
                    loop {
                        if let Some(id) = queue.take() {
                            return Some(id);
                        }
                        queue.filled().await;
                    }
                } => id,
            }
        };
        let told = tokio::time::timeout(PATIENCE, told).await;
        told.expect("a mark in time").unwrap()
    }

    #[tokio::test]
    async fn a_write_through_any_name_marks_the_newest_generation() {
        let scratch = tempfile::tempdir().unwrap();
        let [source, link] = ["source", "link"].map(|name| scratch.path().join(name));
        let mut writer = fs::File::create(&source).unwrap();
        fs::hard_link(&source, &link).unwrap();
        let dirty = Arc::new(Dirty::default());
        let queue = dirty.queue();
        let watches = Watches::new(dirty);
        watches.add(FileId(1), &link);
        writer.write_all(b"a line\n").unwrap();
        assert_eq!(marked(&watches, &queue).await, FileId(1));

        let renamed = scratch.path().join("link.1");
        fs::rename(&link, &renamed).unwrap();
        watches.add(FileId(2), &renamed);
        fs::remove_file(&source).unwrap();
        writer.write_all(b"another\n").unwrap();
        assert_eq!(marked(&watches, &queue).await, FileId(2));
        assert_eq!(watches.without(vec![FileId(1), FileId(2)]), [FileId(1)]);

        watches.remove(FileId(2));
        writer.write_all(b"a third\n").unwrap();
        let other = scratch.path().join("other");
        fs::write(&other, "").unwrap();
        watches.add(FileId(3), &other);
        fs::write(&other, "x").unwrap();
        assert_eq!(marked(&watches, &queue).await, FileId(3));
    }

    #[test]
    fn an_overflow_marks_every_watched_file() {
        let scratch = tempfile::tempdir().unwrap();
        let dirty = Arc::new(Dirty::default());
        let queue = dirty.queue();
        let watches = Watches::new(dirty);
        for id in 1..=3 {
            let path = scratch.path().join(id.to_string());
            fs::write(&path, "").unwrap();
            watches.add(FileId(id), &path);
        }
        watches.heard(Notice::Overflow);
        let mut marked: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        marked.sort();
        assert_eq!(marked, [1, 2, 3].map(FileId));
    }
}
