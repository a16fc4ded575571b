//! Letting go of links, so that the disk does not fill up with what is delivered.
//!
//! A link goes only when every destination has, by a confirmation asked for just now, all of the
//! file's bytes; the whole file was hashed again; nobody else has a link to it, or has it open for
//! writing; and it has been quiet for `release_after`. Everything of that is [`may_go`], which is
//! pure. How long it has been quiet is counted by the monotonic clock while this client runs, from
//! when the source was gone, and stored now and then: a crash loses minutes of it, a pause adds at
//! most an hour.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::catalogue::{Catalogue, is_untouched};
use super::reading;
use super::ship::{Ship, Word};
use super::source::{ReadError, SourceError};
use crate::config::Upkeep;
use crate::index::IndexError;
use crate::index::client::{DestinationId, Hold, Progress, ProgressState, Times};
use crate::limits::{HOLD_WRITE, RELEASE_BATCH, RELEASE_CONFIRM, RELEASE_LOOK, RESTART_QUIET};
use crate::sys::clock;
use crate::sys::file::FileStat;
use crate::sys::writers::{Leases, Writers};
use crate::types::{FileId, Prefix};

/// What is known of a file that may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Names that lead to it, ours included.
    pub links: u64,
    /// All of it, hashed just now.
    pub whole: Prefix,
    /// Every destination's row says that it has confirmed just that.
    pub recorded: bool,
    /// Somebody may write to it.
    pub open: bool,
    /// How long nothing of it has changed.
    pub quiet: Duration,
}

/// The rule's two settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// How long it has to be quiet.
    pub after: Duration,
    /// What an unverified destination took counts.
    pub unverified: bool,
}

/// Why a link stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stays {
    /// Another name leads to the file.
    Linked,
    /// Somebody may write to it.
    Open,
    /// It was changed not long ago.
    Recent,
    /// A destination has not confirmed all of it just now, or there is none.
    Unconfirmed,
    /// A destination has confirmed it without proof.
    Unproven,
}

/// May this link go? `words` are what each configured destination has said since it was asked, none
/// for one that said nothing.
pub fn may_go(claim: &Claim, words: &[Option<Word>], rule: Rule) -> Result<(), Stays> {
    if claim.links != 1 {
        return Err(Stays::Linked);
    }
    if claim.open {
        return Err(Stays::Open);
    }
    if claim.quiet < rule.after {
        return Err(Stays::Recent);
    }
    if words.is_empty() || !claim.recorded {
        return Err(Stays::Unconfirmed);
    }
    for word in words {
        let word = word.ok_or(Stays::Unconfirmed)?;
        if word.retired && word.confirmed.length > claim.whole.length {
            // It had more, of which nobody can be asked any longer: the row has to do.
            continue;
        }
        if word.confirmed != claim.whole {
            return Err(Stays::Unconfirmed);
        }
        if !word.retired && !word.verified && !rule.unverified {
            return Err(Stays::Unproven);
        }
    }
    Ok(())
}

/// What our links hold, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    /// Files to which no name but ours leads, and their bytes.
    pub(super) alone: (u64, u64),
    /// Files that have other names, none of which a pattern finds.
    pub(super) elsewhere: u64,
    /// Free bytes where they lie.
    pub(super) free: u64,
}

/// How long a file has been quiet.
struct Quiet {
    time: Duration,
    seen: FileStat,
    /// When it was seen so last.
    at: Instant,
}

/// See the module. Runs as long as the client does.
pub(super) struct Releaser {
    catalogue: Arc<Catalogue>,
    upkeep: Upkeep,
    held: Arc<Mutex<Held>>,
    quiet: HashMap<FileId, Quiet>,
    /// What earlier runs have stored, until the file is seen.
    stored: HashMap<FileId, Hold>,
    /// Files that could not go, and when they are worth another try.
    refused: HashMap<FileId, Instant>,
    written: Instant,
    short_of_space: bool,
    /// Without, the quiet time has to do.
    leases: Option<Arc<Leases>>,
}

impl Releaser {
    pub(super) fn new(
        catalogue: Arc<Catalogue>,
        upkeep: Upkeep,
        held: Arc<Mutex<Held>>,
    ) -> Result<Self, IndexError> {
        let stored = catalogue.index().holds()?.into_iter().collect();
        Ok(Self {
            catalogue,
            upkeep,
            held,
            quiet: HashMap::new(),
            stored,
            refused: HashMap::new(),
            written: clock::monotonic(),
            short_of_space: false,
            leases: None,
        })
    }

    /// Looks and releases. No thread that blocks holds the `ships`, which end in their own time.
    pub(super) async fn run(mut self, ships: Vec<Arc<Ship>>) -> JoinError {
        let after = self.upkeep.release_after.unwrap_or(RELEASE_LOOK * 4);
        let pause = RELEASE_LOOK.min(after / 4).max(Duration::from_millis(50));
        self.leases = Leases::new().ok().map(Arc::new);
        loop {
            let looked = spawn_blocking(move || {
                self.look();
                self
            });
            self = match looked.await {
                Ok(back) => back,
                Err(error) => return error,
            };
            let ready = self.ready();
            for batch in ready.chunks(RELEASE_BATCH) {
                if !self.try_release(&ships, batch).await {
                    // Nor will it answer for the next ones, and the links want to be looked at.
                    break;
                }
            }
            sleep(pause).await;
        }
    }

    /// Looks at every link.
    fn look(&mut self) {
        let mut held = Held {
            free: self.catalogue.free_bytes().unwrap_or(u64::MAX),
            ..Held::default()
        };
        let now = clock::monotonic();
        let mut seen = HashSet::new();
        for id in self.catalogue.active() {
            let Some(link) = self.catalogue.see_link(id) else {
                continue;
            };
            if link.stat.links == 1 {
                held.alone.0 += 1;
                held.alone.1 += link.stat.size.bytes();
                self.see(id, link.stat, now);
                seen.insert(id);
            } else if !link.source_there {
                held.elsewhere += 1;
            }
        }
        self.quiet.retain(|id, _| seen.contains(id));
        self.refused.retain(|id, _| seen.contains(id));
        self.write(&seen, now);
        self.warn(&held);
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    fn see(&mut self, id: FileId, stat: FileStat, now: Instant) {
        let stored = self.stored.remove(&id);
        match self.quiet.get_mut(&id) {
            Some(quiet) if is_untouched(&stat, &quiet.seen) => {
                quiet.time += now.duration_since(quiet.at);
                quiet.at = now;
            }
            _ => {
                let time = stored.map_or(Duration::ZERO, |hold| resumed(&hold, &stat));
                let quiet = Quiet {
                    time,
                    seen: stat,
                    at: now,
                };
                self.quiet.insert(id, quiet);
            }
        }
    }

    /// Stores how long each has been quiet, and removes what is no more.
    fn write(&mut self, seen: &HashSet<FileId>, now: Instant) {
        let gone = std::mem::take(&mut self.stored);
        let due = now.duration_since(self.written) >= HOLD_WRITE;
        let mut changes: Vec<(FileId, Option<Hold>)> = Vec::new();
        changes.extend(gone.into_keys().map(|id| (id, None)));
        if due {
            self.written = now;
            changes.extend(seen.iter().filter_map(|id| {
                let quiet = self.quiet.get(id)?;
                let hold = Hold {
                    quiet: quiet.time.as_secs(),
                    size: quiet.seen.size,
                    times: times(&quiet.seen),
                    at: clock::now(),
                };
                Some((*id, Some(hold)))
            }));
        }
        if let Err(error) = self.catalogue.hold(changes) {
            tracing::warn!("how long files have been quiet is not recorded: {error}");
        }
    }

    /// One line when space becomes short, and one when it is there again.
    fn warn(&mut self, held: &Held) {
        let short = held.free < self.upkeep.warn_free;
        if short == self.short_of_space {
            return;
        }
        self.short_of_space = short;
        let (files, bytes) = held.alone;
        if short {
            tracing::warn!(
                "only {} bytes are free where the links lie, less than warn_free; {bytes} bytes in {files} files are held by our links alone, until every destination has them and they have been quiet for release_after",
                held.free
            );
        } else {
            tracing::info!("{} bytes are free again where the links lie", held.free);
        }
    }

    /// The files of which the rows say that they may go, the longest quiet ones first.
    fn ready(&self) -> Vec<FileId> {
        let Some(after) = self.upkeep.release_after else {
            return Vec::new();
        };
        let now = clock::monotonic();
        let mut ready: Vec<(bool, Duration, FileId)> = self
            .quiet
            .iter()
            .filter(|(id, quiet)| {
                let rested = self.refused.get(id).is_none_or(|until| *until <= now);
                rested && quiet.time >= after && self.is_recorded(**id, &quiet.seen)
            })
            // Those of which no destination would speak must not keep others waiting.
            .map(|(id, quiet)| (!self.refused.contains_key(id), quiet.time, *id))
            .collect();
        ready.sort_unstable_by(|one, other| other.cmp(one));
        ready.into_iter().map(|(.., id)| id).collect()
    }

    /// Whether every destination's row says that it has all of the file: else asking is in vain.
    fn is_recorded(&self, id: FileId, seen: &FileStat) -> bool {
        let has_all = |progress: Arc<Progress>| {
            progress.confirmed.length == seen.size
                && match progress.state {
                    ProgressState::Retired => true,
                    ProgressState::Current => progress.verified || self.upkeep.release_unverified,
                    _ => false,
                }
        };
        let mut destinations = self.catalogue.destinations().iter();
        destinations.all(|(it, _)| self.catalogue.progress(*it, id).is_some_and(has_all))
    }

    /// Whether every destination has answered. What they say is asked for last, right before the links
    /// go: reading the files may take hours, in which a destination may be restored.
    async fn try_release(&mut self, ships: &[Arc<Ship>], batch: &[FileId]) -> bool {
        let first = ask(ships, batch).await;
        let mut read = Vec::new();
        for &id in batch {
            if !first.iter().all(|said| said.contains_key(&id)) {
                // It would be read in vain.
                self.put_off(id);
                continue;
            }
            match self.read(id).await {
                Ok(Some(whole)) => read.push((id, whole)),
                Ok(None) => self.put_off(id),
                Err(error) => self.cannot(id, &error),
            }
        }
        let all_spoke = !first.iter().any(HashMap::is_empty);
        if read.is_empty() {
            return all_spoke;
        }
        let left: Vec<FileId> = read.iter().map(|(id, _)| *id).collect();
        let words = ask(ships, &left).await;
        for (id, whole) in read {
            let words: Vec<Option<Word>> = words.iter().map(|it| it.get(&id).copied()).collect();
            match self.release(id, whole, &words).await {
                Ok(true) => {
                    self.quiet.remove(&id);
                }
                Ok(false) => self.put_off(id),
                Err(error) => self.cannot(id, &error),
            }
        }
        all_spoke
    }

    fn cannot(&mut self, id: FileId, error: &ReleaseError) {
        tracing::warn!("a delivered file's link is not released: {error}");
        self.put_off(id);
    }

    fn put_off(&mut self, id: FileId) {
        let after = self.upkeep.release_after.unwrap_or(HOLD_WRITE);
        let until = clock::monotonic() + after.min(HOLD_WRITE);
        self.refused.insert(id, until);
    }

    /// Whoever has no name to open the file by comes no more once nobody has it.
    async fn writers(&self, id: FileId) -> Result<Writers, ReleaseError> {
        let Some(leases) = self.leases.clone() else {
            return Ok(Writers::Untold);
        };
        let catalogue = Arc::clone(&self.catalogue);
        let ask = move || {
            let source = catalogue.open(id)?;
            source.writers(&leases).map_err(ReleaseError::Lease)
        };
        spawn_blocking(ask).await?
    }

    /// All of a file; `None` when it is no longer what it was.
    async fn read(&self, id: FileId) -> Result<Option<Prefix>, ReleaseError> {
        let Some(quiet) = self.quiet.get(&id) else {
            return Ok(None);
        };
        let catalogue = Arc::clone(&self.catalogue);
        let Ok(source) = spawn_blocking(move || catalogue.open(id)).await? else {
            return Ok(None);
        };
        match reading::prefixes(&source, &[quiet.seen.size], None).await {
            Ok(prefixes) => Ok(Some(
                prefixes.first().copied().unwrap_or_else(Prefix::empty),
            )),
            Err(ReadError::Short { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the link went.
    async fn release(
        &self,
        id: FileId,
        whole: Prefix,
        words: &[Option<Word>],
    ) -> Result<bool, ReleaseError> {
        let (Some(quiet), Some(after)) = (self.quiet.get(&id), self.upkeep.release_after) else {
            return Ok(false);
        };
        let writers = self.writers(id).await?;
        let has_it = |it: DestinationId| {
            let row = self.catalogue.progress(it, id);
            row.is_some_and(|row| row.confirmed == whole)
        };
        let claim = Claim {
            links: quiet.seen.links,
            whole,
            recorded: self
                .catalogue
                .destinations()
                .iter()
                .all(|(it, _)| has_it(*it)),
            open: writers == Writers::Somebody,
            quiet: quiet.time,
        };
        let rule = Rule {
            after,
            unverified: self.upkeep.release_unverified,
        };
        if let Err(stays) = may_go(&claim, words, rule) {
            tracing::debug!(?stays, %id, "a link stays");
            return Ok(false);
        }
        let detail = describe(&claim, words, writers == Writers::Nobody);
        let (catalogue, seen) = (Arc::clone(&self.catalogue), quiet.seen);
        Ok(spawn_blocking(move || catalogue.release(id, &seen, &detail)).await??)
    }
}

/// What each destination says now of the batch: what is not said in time is not said.
async fn ask(ships: &[Arc<Ship>], batch: &[FileId]) -> Vec<HashMap<FileId, Word>> {
    for ship in ships {
        ship.reconfirm(batch);
    }
    let deadline = Instant::now() + RELEASE_CONFIRM;
    let mut words = Vec::new();
    for ship in ships {
        let left = deadline.saturating_duration_since(Instant::now());
        let _ = timeout(left, ship.reconfirmed()).await;
        words.push(ship.words());
    }
    words
}

/// Why a release came to nothing.
#[derive(Debug, thiserror::Error)]
enum ReleaseError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("whether it is open for writing cannot be asked: {0}")]
    Lease(io::Error),
    #[error(transparent)]
    Link(#[from] super::catalogue::ReleaseError),
    #[error("the process is ending")]
    Ending(#[from] JoinError),
}

fn describe(claim: &Claim, words: &[Option<Word>], unwritten: bool) -> String {
    let (retired, confirmed): (Vec<&Word>, Vec<&Word>) =
        words.iter().flatten().partition(|word| word.retired);
    let mut text = format!(
        "{} bytes, blake3 {}, confirmed anew by {} of {} destinations, quiet for {} s",
        claim.whole.length,
        claim.whole.hash,
        confirmed.len(),
        words.len(),
        claim.quiet.as_secs()
    );
    for word in retired {
        let length = word.confirmed.length;
        let given_up = ", given up by a destination's operator, which had ";
        text.extend([given_up, &length.to_string(), " bytes"]);
    }
    text.push_str(if unwritten {
        ", open nowhere for writing"
    } else {
        "; whether it is open for writing could not be told"
    });
    text
}

/// What counts of the time before this run, in which nobody looked.
fn resumed(hold: &Hold, stat: &FileStat) -> Duration {
    if hold.size != stat.size || hold.times != times(stat) {
        return Duration::ZERO;
    }
    let paused = clock::now().duration_since(hold.at);
    let paused = Duration::try_from(paused).unwrap_or(Duration::ZERO);
    Duration::from_secs(hold.quiet) + paused.min(RESTART_QUIET)
}

fn times(stat: &FileStat) -> Times {
    Times {
        mtime: stat.mtime,
        ctime: stat.ctime,
    }
}

#[cfg(test)]
mod tests;
