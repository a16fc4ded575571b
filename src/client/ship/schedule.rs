//! Whose turn it is: the files of one destination that wait, run, or are put off. Pure; holds ids
//! and nothing else, so a destination that is dead for weeks costs a few words a file.
//!
//! Fair between a file with gigabytes to go and files with a line each: a turn is one piece, files
//! with much to go wait in a queue of their own, and one connection of several never takes from
//! it. A single connection takes from both in turn.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Instant;

use crate::client::plan::FileError;
use crate::types::FileId;

/// A file's turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Job {
    pub(super) id: FileId,
    /// It has much to go.
    pub(super) long: bool,
    /// What was last heard of it is not to be relied on: ask.
    pub(super) unsure: bool,
}

/// How a turn ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// Nothing is left to do.
    Done,
    /// It made progress, and there is more.
    More {
        /// Much more.
        long: bool,
    },
    /// Nothing was tried: it waits again, in the queue of files with much to go if so.
    Untried {
        /// It has much to go.
        long: bool,
    },
    /// It has to be asked about again, not before this time.
    Later(Instant),
    /// It is in error, and asked about again then.
    Failed(FileError, Instant),
}

/// What the end of a turn leaves to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Settled {
    /// The file was asked about, and needs no more asking.
    pub(super) asked: bool,
    /// Nothing is left to do with it, and nothing came meanwhile.
    pub(super) done: bool,
}

/// What came for a file during its turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Meanwhile {
    Nothing,
    Mark,
    Ask,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Connections that may serve files with much to go at once.
    most_long: usize,
    short: VecDeque<FileId>,
    long: VecDeque<FileId>,
    waiting: HashSet<FileId>,
    /// Files under way, and what came for them meanwhile.
    running: HashMap<FileId, Meanwhile>,
    long_running: usize,
    last_was_long: bool,
    deferred: HashMap<FileId, Instant>,
    by_time: BTreeSet<(Instant, FileId)>,
    unsure: HashSet<FileId>,
    errors: HashMap<FileId, FileError>,
    /// Turns in a row that brought a file nowhere.
    vain: HashMap<FileId, u32>,
}

impl Schedule {
    pub(super) fn new(connections: usize) -> Self {
        Self {
            most_long: connections.saturating_sub(1).max(1),
            short: VecDeque::new(),
            long: VecDeque::new(),
            waiting: HashSet::new(),
            running: HashMap::new(),
            long_running: 0,
            last_was_long: false,
            deferred: HashMap::new(),
            by_time: BTreeSet::new(),
            unsure: HashSet::new(),
            errors: HashMap::new(),
            vain: HashMap::new(),
        }
    }

    /// Something may be to do. One that is put off stays so.
    pub(super) fn mark(&mut self, id: FileId) {
        if let Some(meanwhile) = self.running.get_mut(&id) {
            *meanwhile = (*meanwhile).max(Meanwhile::Mark);
        } else if !self.deferred.contains_key(&id) {
            self.enqueue(id, false);
        }
    }

    /// The file has to be asked about, put off or not.
    pub(super) fn ask(&mut self, id: FileId) {
        if let Some(meanwhile) = self.running.get_mut(&id) {
            *meanwhile = Meanwhile::Ask;
        } else {
            self.unsure.insert(id);
            self.undefer(id);
            self.enqueue(id, false);
        }
    }

    /// Everything that is put off is due now.
    pub(super) fn ask_deferred(&mut self) {
        let ids: Vec<FileId> = self.deferred.keys().copied().collect();
        for id in ids {
            self.ask(id);
        }
    }

    fn enqueue(&mut self, id: FileId, long: bool) {
        if self.waiting.insert(id) {
            let queue = if long {
                &mut self.long
            } else {
                &mut self.short
            };
            queue.push_back(id);
        }
    }

    fn undefer(&mut self, id: FileId) {
        if let Some(until) = self.deferred.remove(&id) {
            self.by_time.remove(&(until, id));
        }
    }

    /// The next turn; so many connections are `lent` to files with much to go.
    pub(super) fn take(&mut self, now: Instant, lent: usize) -> Option<Job> {
        while let Some(&(until, id)) = self.by_time.first()
            && until <= now
        {
            self.ask(id);
        }
        let long = self.long_is_next(lent);
        let queue = if long {
            &mut self.long
        } else {
            &mut self.short
        };
        let id = queue.pop_front()?;
        self.waiting.remove(&id);
        self.running.insert(id, Meanwhile::Nothing);
        self.long_running += usize::from(long);
        self.last_was_long = long;
        Some(Job {
            id,
            long,
            unsure: self.unsure.contains(&id),
        })
    }

    /// Whether files with much to go may have one connection more, besides those `lent` to them.
    pub(super) fn long_is_free(&self, lent: usize) -> bool {
        self.long_running + lent < self.most_long
    }

    fn long_is_next(&self, lent: usize) -> bool {
        if self.long.is_empty() || !self.long_is_free(lent) {
            return false;
        }
        let turn = self.long_running == 0 && !self.last_was_long;
        self.short.is_empty() || turn
    }

    /// A turn ended. What came during it is for another.
    pub(super) fn end(&mut self, job: Job, ended: Ended) -> Settled {
        let meanwhile = self.running.remove(&job.id);
        let meanwhile = meanwhile.unwrap_or(Meanwhile::Nothing);
        self.long_running -= usize::from(job.long);
        let looked_at = matches!(ended, Ended::Done | Ended::More { .. } | Ended::Failed(..));
        let done = ended == Ended::Done;
        match ended {
            Ended::Done => {
                self.settle(job.id);
                if meanwhile == Meanwhile::Mark {
                    self.enqueue(job.id, false);
                }
            }
            Ended::More { long } => {
                self.settle(job.id);
                self.enqueue(job.id, long);
            }
            Ended::Untried { long } => self.enqueue(job.id, long),
            Ended::Later(until) => self.defer(job.id, until),
            Ended::Failed(error, until) => {
                self.errors.insert(job.id, error);
                self.defer(job.id, until);
            }
        }
        if meanwhile == Meanwhile::Ask {
            self.ask(job.id);
        }
        Settled {
            asked: looked_at && job.unsure && meanwhile != Meanwhile::Ask,
            done: done && meanwhile == Meanwhile::Nothing,
        }
    }

    fn settle(&mut self, id: FileId) {
        self.unsure.remove(&id);
        self.errors.remove(&id);
        self.vain.remove(&id);
    }

    fn defer(&mut self, id: FileId, until: Instant) {
        self.unsure.insert(id);
        self.deferred.insert(id, until);
        self.by_time.insert((until, id));
    }

    /// How many turns of the file in a row were in vain, this one included.
    pub(super) fn vain(&mut self, id: FileId) -> u32 {
        let vain = self.vain.entry(id).or_insert(0);
        *vain = vain.saturating_add(1);
        *vain
    }

    /// It made progress.
    pub(super) fn progressed(&mut self, id: FileId) {
        self.vain.remove(&id);
    }

    /// Nothing more is to be done with it, whatever was known.
    pub(super) fn forget(&mut self, id: FileId) {
        self.undefer(id);
        self.settle(id);
    }

    /// When the first of those that are put off is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.by_time.first().map(|(until, _)| *until)
    }

    /// Whether another turn could be taken now, or when what is lent comes back.
    pub(super) fn has_waiting(&self) -> bool {
        let long = !self.long.is_empty() && self.long_running < self.most_long;
        long || !self.short.is_empty()
    }

    /// Whether no file waits, runs or is put off other than for an error.
    pub(super) fn is_settled(&self) -> bool {
        let only_errors = || self.deferred.keys().all(|id| self.errors.contains_key(id));
        self.waiting.is_empty() && self.running.is_empty() && only_errors()
    }

    /// Files that wait, run or are put off.
    pub(super) fn pending(&self) -> impl Iterator<Item = FileId> {
        let running = self.running.keys();
        self.waiting
            .iter()
            .chain(running)
            .chain(self.deferred.keys())
            .copied()
    }

    /// Files in error.
    pub(super) fn errors(&self) -> &HashMap<FileId, FileError> {
        &self.errors
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn take(schedule: &mut Schedule, now: Instant) -> Option<(u64, bool)> {
        schedule.take(now, 0).map(|job| (job.id.0, job.long))
    }

    /// Takes a turn that must exist and ends it.
    fn turn(schedule: &mut Schedule, ended: Ended) -> u64 {
        let job = schedule.take(Instant::now(), 0).unwrap();
        schedule.end(job, ended);
        job.id.0
    }

    #[test]
    fn a_mark_during_a_turn_is_not_lost() {
        let mut schedule = Schedule::new(4);
        let now = Instant::now();
        schedule.mark(FileId(1));
        schedule.mark(FileId(1));
        let job = schedule.take(now, 0).unwrap();
        assert_eq!(take(&mut schedule, now), None);
        schedule.mark(FileId(1));
        schedule.end(job, Ended::Done);
        assert_eq!(turn(&mut schedule, Ended::Done), 1);
        assert!(schedule.is_settled());
    }

    #[test]
    fn a_question_during_a_turn_is_put_in_the_next() {
        let mut schedule = Schedule::new(4);
        let now = Instant::now();
        schedule.mark(FileId(1));
        let job = schedule.take(now, 0).unwrap();
        schedule.ask(FileId(1));
        assert!(!schedule.end(job, Ended::Done).done);
        let job = schedule.take(now, 0).unwrap();
        assert!(job.unsure);
        schedule.ask(FileId(1));
        schedule.mark(FileId(1));
        assert!(!schedule.end(job, Ended::Done).asked);
        let job = schedule.take(now, 0).unwrap();
        let settled = schedule.end(job, Ended::Done);
        assert!(settled.asked && settled.done);
        assert!(schedule.is_settled());
    }

    #[test]
    fn a_file_with_more_to_go_has_been_asked_about() {
        let mut schedule = Schedule::new(4);
        let now = Instant::now();
        schedule.ask(FileId(1));
        let job = schedule.take(now, 0).unwrap();
        // Passed on untried it is still to be asked about.
        assert!(!schedule.end(job, Ended::Untried { long: true }).asked);
        let job = schedule.take(now, 0).unwrap();
        assert!(job.unsure && job.long);
        assert!(schedule.end(job, Ended::More { long: true }).asked);
        assert!(!schedule.take(now, 0).unwrap().unsure);
    }

    #[test]
    fn one_of_several_connections_stays_free_of_backlogs() {
        let mut schedule = Schedule::new(3);
        let now = Instant::now();
        for id in 1..=4 {
            schedule.mark(FileId(id));
        }
        let jobs: Vec<Job> = (0..3).filter_map(|_| schedule.take(now, 0)).collect();
        for job in jobs {
            schedule.end(job, Ended::More { long: true });
        }
        // One of the long ones goes first, so that they go on at all.
        assert_eq!(take(&mut schedule, now), Some((1, true)));
        assert_eq!(take(&mut schedule, now), Some((4, false)));
        assert_eq!(take(&mut schedule, now), Some((2, true)));
        assert_eq!(take(&mut schedule, now), None);
        assert!(!schedule.has_waiting());
        schedule.mark(FileId(5));
        assert_eq!(take(&mut schedule, now), Some((5, false)));
    }

    #[test]
    fn what_is_lent_to_backlogs_leaves_one_connection_free_too() {
        let mut schedule = Schedule::new(4);
        let now = Instant::now();
        for id in 1..=3 {
            schedule.mark(FileId(id));
        }
        let jobs: Vec<Job> = (0..3).filter_map(|_| schedule.take(now, 0)).collect();
        for job in jobs {
            schedule.end(job, Ended::More { long: true });
        }
        assert!(schedule.take(now, 0).is_some() && schedule.take(now, 0).is_some());
        assert!(schedule.long_is_free(0));
        // One of the two has a piece on a third connection.
        assert_eq!(schedule.take(now, 1), None);
        assert!(schedule.has_waiting(), "who lends has to yield");
        assert!(schedule.take(now, 0).is_some());
    }

    #[test]
    fn a_single_connection_takes_in_turn() {
        let mut schedule = Schedule::new(1);
        schedule.mark(FileId(1));
        turn(&mut schedule, Ended::More { long: true });
        for id in 2..=9 {
            schedule.mark(FileId(id));
        }
        let order: Vec<u64> = (0..6)
            .map(|_| {
                let job = schedule.take(Instant::now(), 0).unwrap();
                let ended = if job.long {
                    Ended::More { long: true }
                } else {
                    Ended::Done
                };
                schedule.end(job, ended);
                job.id.0
            })
            .collect();
        assert_eq!(order, [1, 2, 1, 3, 1, 4]);
    }

    #[test]
    fn what_is_put_off_waits_out_its_time_whatever_is_marked() {
        let mut schedule = Schedule::new(2);
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        schedule.mark(FileId(1));
        let job = schedule.take(now, 0).unwrap();
        assert!(!job.unsure);
        schedule.end(job, Ended::Later(later));
        schedule.mark(FileId(1));
        assert_eq!(schedule.take(now, 0), None);
        assert_eq!(schedule.next_due(), Some(later));
        assert!(!schedule.is_settled());
        let job = schedule.take(later, 0).unwrap();
        assert!(job.unsure);
        let error = FileError::Diverged { chunk: None };
        schedule.end(job, Ended::Failed(error, later + Duration::from_secs(5)));
        assert!(schedule.is_settled());
        assert_eq!(schedule.errors().len(), 1);
        schedule.ask_deferred();
        assert_eq!(turn(&mut schedule, Ended::Done), 1);
        assert!(schedule.errors().is_empty());
        assert_eq!(schedule.next_due(), None);
    }
}
