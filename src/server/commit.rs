//! Group commit: one thread gathers the changes that wait and makes them durable in one
//! transaction of the index.
//!
//! The same thread makes the ways to new files durable before: whatever waits together shares that
//! too.
//!
//! Promised: a change's completion runs after the commit that holds it, with its number; or with
//! an error, and then nobody may be told that the change is there. After an error of the index
//! itself nobody knows whether it is: the epoch moves on, which tells everyone that holds state
//! from before to derive it again, and the index is reopened with back-off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{error, info};

use super::ways::Ways;
use crate::index::IndexError;
use crate::index::server::{ServerChange, ServerIndex};
use crate::limits::{COMMIT_GROUP, COMMIT_WAIT, REOPEN_MAX, REOPEN_START};
use crate::types::{CommitNumber, WirePath};

/// Grows when the index has failed: what was derived from it in an older epoch is worth nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Epoch(u64);

/// Why changes were not committed, as far as anybody knows.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Uncommitted {
    /// The index failed, or has since the changes were derived.
    #[error("the index could not be written")]
    Index,
    /// The index does not take them: a row that they change is damaged, say.
    #[error("{0}")]
    Refused(String),
    /// A directory on the way to the file could not be synced.
    #[error("the way to the file could not be made durable")]
    Way,
}

/// What happens after the commit; runs on the committing thread and must be quick.
pub(crate) type Completion = Box<dyn FnOnce(Result<CommitNumber, Uncommitted>) + Send>;

/// Changes that belong together, with what happens after them.
struct Job {
    epoch: Epoch,
    /// The file whose way has to be durable before.
    new_file: Option<WirePath>,
    changes: Vec<ServerChange>,
    done: Completion,
}

/// The way to the committing thread.
#[derive(Debug)]
pub(crate) struct Committer {
    jobs: Sender<Job>,
    epoch: Arc<AtomicU64>,
    expected: Arc<AtomicUsize>,
}

/// A change that comes soon; until this is dropped, a commit waits a moment for it.
pub(crate) struct Expected(Arc<AtomicUsize>);

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Committer {
    /// Starts the thread. It ends, after all that waits, when the committer is dropped.
    pub(crate) fn start(
        index: Arc<ServerIndex>,
        ways: Ways,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, waiting) = mpsc::channel();
        let epoch = Arc::new(AtomicU64::new(0));
        let expected = Arc::default();
        let mut thread = Thread {
            index,
            ways,
            waiting,
            epoch: Arc::clone(&epoch),
            expected: Arc::clone(&expected),
        };
        let builder = std::thread::Builder::new().name("commit".to_owned());
        let handle = builder.spawn(move || thread.run())?;
        let committer = Self {
            jobs,
            epoch,
            expected,
        };
        Ok((committer, handle))
    }

    /// The present epoch. Take it before anything is read from the index.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Announces a change: drop it just before the change is submitted.
    pub(crate) fn expect(&self) -> Expected {
        self.expected.fetch_add(1, Ordering::Relaxed);
        Expected(Arc::clone(&self.expected))
    }

    /// Has `changes`, derived from what the index said in `epoch`, committed, and then `done` run.
    pub(crate) fn submit(&self, epoch: Epoch, changes: Vec<ServerChange>, done: Completion) {
        self.send(Job {
            epoch,
            new_file: None,
            changes,
            done,
        });
    }

    /// As [`submit`](Self::submit); before the commit the way to `file` is made durable, once for
    /// all new files in one directory.
    pub(crate) fn submit_new(
        &self,
        epoch: Epoch,
        file: WirePath,
        changes: Vec<ServerChange>,
        done: Completion,
    ) {
        self.send(Job {
            epoch,
            new_file: Some(file),
            changes,
            done,
        });
    }

    fn send(&self, job: Job) {
        if let Err(mpsc::SendError(job)) = self.jobs.send(job) {
            (job.done)(Err(Uncommitted::Index));
        }
    }

    /// Has an index reopened that failed in `epoch`, when it was read: nothing else notices.
    pub(crate) fn reopen(&self, epoch: Epoch) {
        self.submit(epoch, Vec::new(), Box::new(|_| ()));
    }

    /// As [`submit`](Self::submit), and waits. For threads that may block.
    pub(crate) fn submit_and_wait(
        &self,
        epoch: Epoch,
        changes: Vec<ServerChange>,
    ) -> Result<CommitNumber, Uncommitted> {
        let (tell, told) = mpsc::sync_channel(1);
        let done = move |result| {
            // Nobody listens any more only if the waiting thread is gone.
            let _ = tell.send(result);
        };
        self.submit(epoch, changes, Box::new(done));
        told.recv().unwrap_or(Err(Uncommitted::Index))
    }
}

struct Thread {
    index: Arc<ServerIndex>,
    ways: Ways,
    waiting: Receiver<Job>,
    epoch: Arc<AtomicU64>,
    expected: Arc<AtomicUsize>,
}

impl Thread {
    fn run(&mut self) {
        while let Ok(first) = self.waiting.recv() {
            let group = self.gather(first);
            if let Err(failure) = self.commit(group) {
                self.recover(&failure);
            }
        }
    }

    /// What waits, and what is expected, for a moment.
    fn gather(&self, first: Job) -> Vec<Job> {
        let until = crate::sys::clock::monotonic() + COMMIT_WAIT;
        let mut group = vec![first];
        while group.len() < COMMIT_GROUP {
            let next = self.waiting.try_recv().ok().or_else(|| {
                if self.expected.load(Ordering::Relaxed) == 0 {
                    return None;
                }
                let left = until.saturating_duration_since(crate::sys::clock::monotonic());
                self.waiting.recv_timeout(left).ok()
            });
            match next {
                Some(job) => group.push(job),
                None => break,
            }
        }
        group
    }

    /// Commits a group; an error means that the index has to be reopened.
    fn commit(&mut self, group: Vec<Job>) -> Result<(), IndexError> {
        let now = self.epoch.load(Ordering::Acquire);
        let (group, stale): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|job| job.epoch == Epoch(now));
        refuse(stale);
        let group = self.make_ways(group);
        if group.is_empty() {
            return Ok(());
        }
        let changes: Vec<_> = group
            .iter()
            .flat_map(|job| job.changes.iter().cloned())
            .collect();
        match self.index.commit(&changes) {
            Ok(number) => {
                for job in group {
                    (job.done)(Ok(number));
                }
                Ok(())
            }
            Err(failure) if failure.needs_reopen() => {
                self.epoch.fetch_add(1, Ordering::AcqRel);
                refuse(group);
                Err(failure)
            }
            Err(failure) => self.commit_singly(group, &failure),
        }
    }

    /// Makes the ways to the group's new files durable; refuses those to which none can be.
    fn make_ways(&mut self, group: Vec<Job>) -> Vec<Job> {
        let paths = group.iter().filter_map(|job| job.new_file.as_ref());
        let mut synced = self.ways.sync(paths).into_iter();
        let mut durable = Vec::with_capacity(group.len());
        for mut job in group {
            let way = job
                .new_file
                .take()
                .and_then(|path| Some((path, synced.next()?)));
            match way {
                Some((path, Err(failure))) => {
                    error!("{path}: a directory on the way to it cannot be synced: {failure}");
                    (job.done)(Err(Uncommitted::Way));
                }
                _ => durable.push(job),
            }
        }
        durable
    }

    /// One change cannot be made (its old row is damaged, say): the others must not suffer.
    fn commit_singly(&mut self, group: Vec<Job>, failure: &IndexError) -> Result<(), IndexError> {
        if group.len() == 1 {
            error!("a change of the index was refused: {failure}");
            for job in group {
                (job.done)(Err(Uncommitted::Refused(failure.to_string())));
            }
            return Ok(());
        }
        let mut group = group.into_iter();
        for job in group.by_ref() {
            if let Err(failure) = self.commit(vec![job]) {
                refuse(group.collect());
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Reopens the index. Whoever asks for a commit meanwhile is refused at once.
    fn recover(&self, failure: &IndexError) {
        error!("the index failed, nothing is acknowledged until it is reopened: {failure}");
        let mut pause = REOPEN_START;
        while !self.refuse_for(pause) {
            match self.index.reopen() {
                Ok(()) => {
                    // Once more: states derived while it was closed know nothing.
                    self.epoch.fetch_add(1, Ordering::AcqRel);
                    info!("the index is open again");
                    return;
                }
                Err(_) => pause = (pause * 2).min(REOPEN_MAX),
            }
        }
    }

    /// Refuses what comes within `pause`; whether nothing will come any more.
    fn refuse_for(&self, pause: Duration) -> bool {
        let until = crate::sys::clock::monotonic() + pause;
        loop {
            let left = until.saturating_duration_since(crate::sys::clock::monotonic());
            match self.waiting.recv_timeout(left) {
                Ok(job) => refuse(vec![job]),
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }
}

fn refuse(jobs: Vec<Job>) {
    for job in jobs {
        (job.done)(Err(Uncommitted::Index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{EventKind, NewEvent};
    use crate::sys::clock;
    use crate::sys::dir::Dir;

    struct Fixture {
        directory: tempfile::TempDir,
        index: Arc<ServerIndex>,
        commits: Committer,
        thread: JoinHandle<()>,
    }

    fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("server.redb");
        ServerIndex::create(&file).unwrap();
        let index = Arc::new(ServerIndex::open(&file, clock::now()).unwrap());
        let dir = Arc::new(Dir::open(directory.path()).unwrap());
        let (commits, thread) = Committer::start(Arc::clone(&index), Ways::new(dir)).unwrap();
        Fixture {
            directory,
            index,
            commits,
            thread,
        }
    }

    fn event(detail: &str) -> Vec<ServerChange> {
        let event = NewEvent::now(EventKind::Rebuilt, b"", detail.to_owned());
        vec![ServerChange::Event(event)]
    }

    #[test]
    fn all_that_waits_is_committed_and_then_told() {
        let fixture = fixture();
        let epoch = fixture.commits.epoch();
        let before = fixture.index.number();
        let (tell, told) = mpsc::channel();
        for number in 0..50 {
            let (tell, index) = (tell.clone(), Arc::clone(&fixture.index));
            let done = move |committed: Result<CommitNumber, Uncommitted>| {
                let is_visible = committed.is_ok_and(|number| index.number() >= number);
                tell.send((number, is_visible)).unwrap();
            };
            let changes = event(&number.to_string());
            fixture.commits.submit(epoch, changes, Box::new(done));
        }
        drop((tell, fixture.commits));
        let told: Vec<_> = told.iter().collect();
        assert_eq!(
            told,
            (0..50).map(|number| (number, true)).collect::<Vec<_>>()
        );
        fixture.thread.join().unwrap();
        assert_eq!(fixture.index.events(0, 100).unwrap().len(), 50);
        assert!(fixture.index.number() > before);
    }

    #[test]
    fn what_was_derived_before_a_failure_is_refused() {
        let fixture = fixture();
        let before = fixture.commits.epoch();
        fixture.commits.epoch.fetch_add(1, Ordering::AcqRel);
        let refused = fixture.commits.submit_and_wait(before, event("old"));
        assert_eq!(refused, Err(Uncommitted::Index));
        let now = fixture.commits.epoch();
        fixture.commits.submit_and_wait(now, event("new")).unwrap();
        assert_eq!(fixture.index.events(0, 100).unwrap().len(), 1);
    }

    #[test]
    fn a_group_that_was_refused_is_tried_one_by_one() {
        let fixture = fixture();
        let epoch = fixture.commits.epoch();
        let dir = Arc::new(Dir::open(fixture.directory.path()).unwrap());
        let mut thread = Thread {
            index: Arc::clone(&fixture.index),
            ways: Ways::new(dir),
            waiting: mpsc::channel().1,
            epoch: Arc::clone(&fixture.commits.epoch),
            expected: Arc::default(),
        };
        let (tell, told) = mpsc::channel();
        let group = ["one", "two"].map(|detail| {
            let tell = tell.clone();
            Job {
                epoch,
                new_file: None,
                changes: event(detail),
                done: Box::new(move |result| tell.send(result.is_ok()).unwrap()),
            }
        });
        thread.commit_singly(group.into(), &never_mind()).unwrap();
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [true, true]);

        // One alone is told why.
        let (tell, told) = mpsc::channel();
        let job = Job {
            epoch,
            new_file: None,
            changes: event("three"),
            done: Box::new(move |result| tell.send(result).unwrap()),
        };
        let failure = never_mind();
        thread.commit_singly(vec![job], &failure).unwrap();
        let expected = Err(Uncommitted::Refused(failure.to_string()));
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [expected]);
    }

    /// Some error of an index.
    fn never_mind() -> IndexError {
        let nowhere = std::path::Path::new("/nonexistent/server.redb");
        ServerIndex::create(nowhere).unwrap_err()
    }
}
