//! The append task: the one place that writes delivered bytes.
//!
//! The task owns the claim on the path, and with it file and hasher. The handler of the request
//! only feeds it, and may be dropped at any moment (hyper does so when the peer goes): the task
//! then ends in order, and what was received stays as a tail.
//!
//! In order: look at row, path and file; decide; take the body, writing and hashing; check the
//! digest; then [`vouch`]: fdatasync, a look at the path, directories, commit,
//! answer. What a crash leaves: up to the commit a tail, after it the whole append. A confirm is
//! the same without a body.
//!
//! Disk calls block, so the task runs on a blocking thread as long as its body flows, and gives
//! the thread back when nothing comes.

mod body;
mod feed;
mod writer;

use std::sync::Arc;

use super::answer::Answer;
use super::core::Core;
use super::decide::{self, Append, Base, Put, Verdict, Vouch};
use super::files::{Claim, FileState};
use super::quarantine;
use super::quota::{self, Hold};
use super::recover::{self, Trouble};
use super::reply::Reply;
use super::vouch::{self, Vouching};
use crate::index::server::ServerState;
use crate::limits::{BODY_GATHER, IO_CHUNK};
use crate::prefix::PrefixHasher;
use crate::types::{ByteRange, Offset};
use crate::wire::Problem;
use body::Running;
pub(super) use feed::{End, Fed, Feed, Intake, channel};

/// A PUT that has not begun.
pub(super) struct Task {
    pub(super) core: Arc<Core>,
    pub(super) claim: Claim,
    pub(super) put: Put,
    /// Whose request.
    pub(super) writer: String,
    pub(super) reply: Reply,
}

/// A PUT that has the path, and what came of its body. A small body is taken whole before the
/// append begins, so that it needs one trip to a blocking thread.
///
/// Dropped before [`go`](Self::go), its handler is gone, and what came is still written: a line
/// that breaks again and again makes progress by that.
pub(super) struct Start {
    task: Option<Task>,
    first: Vec<Fed>,
    bytes: usize,
}

impl Start {
    pub(super) fn new(task: Task) -> Self {
        Self {
            task: Some(task),
            first: Vec::new(),
            bytes: 0,
        }
    }

    /// Whether more of the body is worth waiting for.
    pub(super) fn wants_more(&self) -> bool {
        self.bytes < IO_CHUNK && !self.has_end()
    }

    pub(super) fn take(&mut self, fed: Fed) {
        self.bytes += length(&fed);
        self.first.push(fed);
    }

    /// Begins the append, which goes on by itself; the way to feed it, if more is to come.
    pub(super) fn go(mut self) -> Option<Feed> {
        self.begin()
    }

    fn has_end(&self) -> bool {
        matches!(self.first.last(), Some(Fed::End(_)))
    }

    fn begin(&mut self) -> Option<Feed> {
        let task = self.task.take()?;
        let core = Arc::clone(&task.core);
        let (feed, intake) = channel(&core.budget);
        let is_whole = self.has_end();
        let first = std::mem::take(&mut self.first);
        if is_whole {
            // With its end at hand it is never parked.
            let begin = move || drop(task.begin(first, intake));
            core.tasks.spawn_blocking(begin);
            return None;
        }
        core.tasks.spawn(run(task, first, intake));
        Some(feed)
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        if !self.first.is_empty() {
            // The feed goes too, which ends the body as broken.
            self.begin();
        }
    }
}

/// Runs the task to its end; `first` is what came of its body.
async fn run(task: Task, first: Vec<Fed>, intake: Intake) {
    let mut step = tokio::task::spawn_blocking(move || task.begin(first, intake));
    // An error is a panic on the thread: the claim was dropped, and the request is told.
    while let Ok(Some(mut parked)) = step.await {
        let next = parked.next().await;
        step = tokio::task::spawn_blocking(move || parked.go_on(next));
    }
}

fn length(fed: &Fed) -> usize {
    match fed {
        Fed::Bytes(part, _) => part.len(),
        Fed::End(_) => IO_CHUNK,
    }
}

/// What comes of a body in a moment behind `first`, up to one write or its end.
async fn gather(intake: &mut Intake, mut first: Vec<Fed>) -> Vec<Fed> {
    let mut bytes: usize = first.iter().map(length).sum();
    let deadline = tokio::time::Instant::now() + BODY_GATHER;
    while bytes < IO_CHUNK {
        let Ok(fed) = tokio::time::timeout_at(deadline, intake.next()).await else {
            break;
        };
        bytes += length(&fed);
        first.push(fed);
    }
    first
}

/// What a decision comes to.
enum Decision {
    Answer(Answer),
    Vouch(Vouch, Hold),
    /// Take the body; with a base to append it there, without to compare only.
    Take(Append, Option<Base>, Hold),
}

impl Task {
    /// Looks, decides and goes on with the body; something when that is parked.
    fn begin(mut self, first: Vec<Fed>, intake: Intake) -> Option<Box<Running>> {
        let decision = self.decide();
        self.claim.show();
        match decision {
            // Not said to be decided first: that would invite the body (RFC 9110 section 10.1.1).
            Err(trouble) => {
                self.end(trouble.to_put());
                None
            }
            Ok(Decision::Answer(answer)) => {
                // What is in flight was judged by, and is not durable.
                let shown = self.claim.shown();
                self.end(answer.about(shown));
                None
            }
            _ if !self.reply.decided() => None,
            Ok(Decision::Vouch(vouch, hold)) => {
                self.confirm(vouch, hold);
                None
            }
            Ok(Decision::Take(append, base, hold)) => {
                let running = Running::new(self, append, base, hold, intake)?;
                Box::new(running).go_on(first)
            }
        }
    }

    fn decide(&mut self) -> Result<Decision, Trouble> {
        let core = &self.core;
        recover::look(core, &mut self.claim)?;
        let path = self.claim.path().clone();
        let state = self.claim.known()?;
        let policy = core.policy()?;
        loop {
            let verdict = decide::put(&self.put, &state.standing(), &state.known(), policy);
            let decision = match (verdict, self.put) {
                (Verdict::NeedHash(length), _) => {
                    recover::find_hash(core, state, length)?;
                    continue;
                }
                (Verdict::Refuse(problem), _) => {
                    Decision::Answer(Answer::refusal(problem, why(problem)))
                }
                (Verdict::Vouch(vouch), _) => {
                    // Bytes that are there already are vouched for, whatever they come to.
                    let room = match state.row {
                        Some(_) => Some(Hold::default()),
                        None => quota::reserve(core, &path, state, Offset::ZERO, &self.writer)?,
                    };
                    room.map_or_else(quota_used_up, |hold| Decision::Vouch(vouch, hold))
                }
                (Verdict::Append(base), Put::Append(append)) => {
                    let end = append.range.end();
                    let room = quota::reserve(core, &path, state, end, &self.writer)?;
                    let take = |hold| Decision::Take(append, Some(base), hold);
                    room.map_or_else(quota_used_up, take)
                }
                (Verdict::Compare, Put::Append(append)) => {
                    Decision::Take(append, None, Hold::default())
                }
                (Verdict::Holds | Verdict::Append(_) | Verdict::Compare, _) => {
                    Decision::Answer(Answer::done(false))
                }
            };
            return Ok(decision);
        }
    }

    /// First the path is free, then the client learns of it.
    fn end(self, answer: Answer) {
        drop(self.claim);
        self.reply.send(answer);
    }

    /// Vouches for what a confirm has proven.
    fn confirm(mut self, vouch: Vouch, hold: Hold) {
        match self.prepare_confirm(&vouch) {
            Ok(vouching) => vouch::vouch(&self.core, self.claim, vouching, hold, self.reply),
            Err(trouble) => {
                self.claim.state = None;
                self.end(trouble.to_put());
            }
        }
    }

    fn prepare_confirm(&mut self, vouch: &Vouch) -> Result<Vouching, Trouble> {
        let core = &self.core;
        let path = self.claim.path().clone();
        let state = self.claim.known()?;
        let length = vouch.prefix.length;
        if state.file.is_none() {
            state.file = Some(recover::make_file(core, &path)?);
        }
        let Some(file) = &state.file else {
            return Err(Trouble::Busy("the file is gone"));
        };
        let hasher = match known_hasher(state, length) {
            Some(hasher) => hasher,
            None => recover::hash_on(core, file, PrefixHasher::new(), length)?,
        };
        let row = state.row.as_ref();
        let proves = length > Offset::ZERO;
        let mut vouching = Vouching {
            adopts: length > state.length(),
            conditional: row.is_some_and(|row| row.conditional),
            state: match row {
                Some(row) if !proves => row.state,
                _ => ServerState::Vouched,
            },
            hasher,
            size: state.size(),
            creates: vouch.creates,
            writer: self.writer.clone(),
        };
        if vouch.quarantine_rest
            && let Some(rest) = ByteRange::new(length, state.size())
        {
            let claim = &mut self.claim;
            vouch::vouch_and_cut(core, claim, vouching.clone(), rest, quarantine::DIFFER)?;
            vouching.size = length;
        }
        Ok(vouching)
    }
}

/// The hasher at `length`, if it is at hand.
fn known_hasher(state: &FileState, length: Offset) -> Option<PrefixHasher> {
    let mut known = state.ahead.iter().chain([&state.vouched]);
    known.find(|kept| kept.length() == length).cloned()
}

fn quota_used_up() -> Decision {
    let words = "the quota of whoever this file is charged to is used up";
    Decision::Answer(Answer::refusal(Problem::Full, words))
}

/// A refusal in words.
fn why(problem: Problem) -> &'static str {
    match problem {
        Problem::Condition => "the prefix before the range is not what the request says",
        Problem::Gap => "the range begins behind what is there",
        Problem::Shrunk => "the client's file is shorter than what was delivered of it",
        Problem::Range => "a range that begins before and ends behind needs a Repr-Digest",
        Problem::Unconditional => "this needs an If-Match with the hash of the prefix",
        Problem::Full => "the disk has less than min_free",
        Problem::Differs => "bytes that are already there differ from these",
        Problem::Digest => "the prefix after the append would not be what Repr-Digest says",
        Problem::Diverged => "the file is not what the server vouched for",
        Problem::Retired => "the file was retired by the operator",
        Problem::Timeout => "the body did not arrive in time; what came is kept as a tail",
        _ => "not now",
    }
}
