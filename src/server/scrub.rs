//! The scrub: every file is read against all that is on record of it, again and again, at a rate
//! that leaves the disk to others. It finds what no stat betrays: bits that rotted.
//!
//! It holds no claim while it reads: bytes below L never change, so no request waits for it. What
//! looks wrong is read again with the claim in hand, by the code that reads a file which looks
//! touched, and that falls the verdict.
//!
//! How far it is stands in the index, also within a file: a crash costs what was read since the
//! last note, and a round ends however often the server is restarted. Each round begins with a
//! stat pass.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use super::core::Core;
use super::files::Work;
use super::pass;
use super::recover::{self, Trouble};
use crate::index::server::{ScrubPosition, ServerChange, ServerFile, Survey};
use crate::index::{EventKind, NewEvent};
use crate::limits::{IO_CHUNK, SCRUB_FILE, SCRUB_NOTE, SCRUB_REST, TOLD_PATHS};
use crate::prefix::PrefixHasher;
use crate::sys::clock;
use crate::sys::dir::Access;
use crate::sys::file::{self, File};
use crate::types::{Offset, Prefix, WirePath};
use crate::verify::server::recorded;

/// How fast, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrub {
    /// Bytes a second.
    pub rate: u64,
    /// From the beginning of one round to that of the next, at least.
    pub period: Duration,
}

/// Passes and scrubs for as long as the server lives.
pub(super) async fn run(core: Arc<Core>, mut ending: watch::Receiver<bool>) {
    tokio::select! {
        () = rounds(&core) => {}
        // An error means that the server is gone.
        _ = ending.wait_for(|ending| *ending) => {}
    }
}

async fn rounds(core: &Arc<Core>) {
    pass::pass(core).await;
    let Some(scrub) = core.rules.scrub else {
        return;
    };
    let mut reader = Reader {
        core: Arc::clone(core),
        rate: scrub.rate.max(1),
        due: Instant::now(),
        noted: 0,
        position: ScrubPosition::begin(clock::now()),
        tails: HashMap::new(),
    };
    let mut told = String::new();
    loop {
        let epoch = core.commits.epoch();
        let done = match blocking(core, |core| Ok(core.index.scrubbed()?)).await {
            Ok(Some(position)) if position.has_ended && !is_due(&position, scrub.period) => {
                sleep(SCRUB_REST.min(scrub.period)).await;
                continue;
            }
            Ok(Some(position)) if !position.has_ended => {
                reader.position = position;
                reader.round().await
            }
            Ok(last) => {
                if last.is_some() {
                    pass::pass(core).await;
                }
                reader.position = ScrubPosition::begin(clock::now());
                reader.round().await
            }
            Err(trouble) => Err(trouble),
        };
        if let Err(trouble) = done {
            if let Trouble::Index(failure) = &trouble
                && failure.needs_reopen()
            {
                core.commits.reopen(epoch);
            }
            let words = trouble.to_string();
            if words != told {
                error!("the scrub cannot go on just now: {words}");
                told = words;
            }
            sleep(SCRUB_REST).await;
        }
    }
}

fn is_due(position: &ScrubPosition, period: Duration) -> bool {
    let age = clock::now().duration_since(position.began);
    // A clock that was set back must not stop it for ever.
    age.is_negative() || age.unsigned_abs() >= period
}

/// Whether other files can be read all the same: a bad sector, another thing in its place, a row of
/// its history that is damaged.
fn is_of_one_file(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Path(_) | Trouble::Disk(_) | Trouble::Unsynced => true,
        Trouble::Index(failure) => !failure.needs_reopen(),
        _ => false,
    }
}

/// What reading a file brought.
enum Found {
    /// It holds what is on record.
    Whole,
    /// And more behind that.
    WithTail,
    /// It does not, or looks as if.
    Odd,
}

struct Reader {
    core: Arc<Core>,
    rate: u64,
    /// When the next bytes may be read.
    due: Instant,
    /// Bytes read since the position was noted.
    noted: u64,
    position: ScrubPosition,
    /// How long files with a tail were when that was told.
    tails: HashMap<WirePath, Offset>,
}

impl Reader {
    /// Reads what is left of a round.
    async fn round(&mut self) -> Result<(), Trouble> {
        while let Some(next) = self.next().await? {
            for damage in next.damaged {
                error!("a file is not read: {damage}");
            }
            for (path, row) in next.rows {
                self.check(&path, &row).await?;
            }
            self.position.after = next.last;
            self.position.part = None;
            self.note(SCRUB_FILE).await?;
        }
        self.position.has_ended = true;
        self.note(SCRUB_NOTE).await
    }

    async fn next(&self) -> Result<Option<Survey>, Trouble> {
        let after = self.position.after.clone();
        let next = blocking(&self.core, move |core| {
            Ok(core.index.survey_files(after.as_deref(), 1)?)
        });
        Ok(Some(next.await?).filter(|next| next.last.is_some()))
    }

    /// Reads a file, and has it looked at when it is not what it should be. What is wrong with one
    /// file alone is told, and keeps nobody from those behind it.
    async fn check(&mut self, path: &WirePath, row: &ServerFile) -> Result<(), Trouble> {
        let is_empty = row.vouched.length == Offset::ZERO;
        if row.state.is_frozen() || (is_empty && !recover::is_whole_without_bytes(row)) {
            return Ok(());
        }
        let checked = match self.file(path, row).await {
            Ok(Found::Whole) => {
                self.tails.remove(path);
                Ok(())
            }
            Ok(Found::WithTail) => self.tell_of_tail(path).await,
            Ok(Found::Odd) => {
                info!("{path} does not read as it should: it is read again");
                self.examine(path).await
            }
            Err(trouble) => Err(trouble),
        };
        match checked {
            Err(trouble) if is_of_one_file(&trouble) => {
                if self.core.told.is_news(path, &trouble.to_string()) {
                    error!("{path} cannot be read to its end: {trouble}");
                }
                Ok(())
            }
            // The verdict has been told.
            Err(Trouble::Diverged) => Ok(()),
            checked => checked,
        }
    }

    /// Reads a file at its rate. One that cannot be read as it stands is left to a look.
    async fn file(&mut self, path: &WirePath, row: &ServerFile) -> Result<Found, Trouble> {
        let (name, id) = (path.clone(), row.id);
        let part = self.position.part.take().filter(|(of, _)| *of == id);
        let row = row.clone();
        let opened = blocking(&self.core, move |core| {
            let Some(stat) = recover::regular(core, &name)? else {
                return Ok(None);
            };
            // What looks odd is looked at like for a request, which remembers how it looks then.
            let now = recover::footprint(&stat);
            let is_odd = match stat.size.cmp(&row.vouched.length) {
                Ordering::Less => true,
                Ordering::Equal => now != row.footprint,
                Ordering::Greater => now.inode != row.footprint.inode,
            };
            if is_odd {
                return Ok(None);
            }
            let open = || core.dir.open_file(name.as_bytes(), Access::Read);
            let file = Arc::new(recover::with_descriptors(core, open)?);
            // What the disk has, not what memory has.
            file::drop_cache(&file)?;
            let recorded = recorded(&core.index.past_of(id)?, &row);
            let hasher = part.and_then(|(_, state)| recover::resume_at(&file, &state).ok()?);
            let found = if stat.size > row.vouched.length {
                Found::WithTail
            } else {
                Found::Whole
            };
            Ok(Some((
                file,
                recorded,
                hasher.unwrap_or_default(),
                row.vouched.length,
                found,
            )))
        });
        let Some((file, recorded, mut hasher, length, found)) = opened.await? else {
            return Ok(Found::Odd);
        };
        let ahead = |prefix: &Prefix| prefix.length <= length;
        for expected in recorded.into_iter().filter(ahead) {
            if expected.length < hasher.length() {
                continue;
            }
            while hasher.length() < expected.length {
                hasher = self.read(&file, hasher, expected.length).await?;
                self.position.part = Some((id, hasher.state()));
                self.note(0).await?;
            }
            if hasher.prefix() != expected {
                return Ok(Found::Odd);
            }
        }
        Ok(found)
    }

    /// Tells of bytes that nobody has vouched for, unless a request is about to: those of one that
    /// broke off do not stay, since its client comes again.
    async fn tell_of_tail(&mut self, path: &WirePath) -> Result<(), Trouble> {
        let Ok(claim) = self.core.files.claim(path, Work::Looking).await else {
            return Ok(());
        };
        let told = self.tails.get(path).copied();
        let tell = move |core: &Core| {
            let path = claim.path();
            let row = core.index.file(path)?;
            let stat = recover::regular(core, path)?;
            let (Some(row), Some(stat)) = (row, stat) else {
                return Ok(None);
            };
            let length = row.vouched.length;
            if stat.size <= length {
                return Ok(None);
            }
            if told != Some(stat.size) {
                let beyond = stat.size.since(length);
                let detail = format!("{beyond} bytes lie behind the {length} that are vouched for");
                warn!("{path}: {detail}; they stay until its client proves them or sends others");
                let event = NewEvent::now(EventKind::Extended, path.as_bytes(), detail);
                let epoch = core.commits.epoch();
                let changes = vec![ServerChange::Event(event)];
                core.commits.submit_and_wait(epoch, changes)?;
            }
            Ok(Some(stat.size))
        };
        let size = blocking(&self.core, tell).await?;
        if self.tails.len() >= TOLD_PATHS {
            self.tails.clear();
        }
        match size {
            Some(size) => self.tails.insert(path.clone(), size),
            None => self.tails.remove(path),
        };
        Ok(())
    }

    /// Reads the next bytes of a file when it is time for them.
    async fn read(
        &mut self,
        file: &Arc<File>,
        hasher: PrefixHasher,
        end: Offset,
    ) -> Result<PrefixHasher, Trouble> {
        let bytes = end.since(hasher.length()).min(IO_CHUNK as u64);
        sleep_until(self.due).await;
        let pause = Duration::from_micros(bytes.saturating_mul(1_000_000) / self.rate);
        self.due = self.due.max(Instant::now()) + pause;
        self.noted += bytes;
        let file = Arc::clone(file);
        let end = hasher.length().plus(bytes).unwrap_or(end);
        blocking(&self.core, move |core| {
            recover::read_on(core, &file, hasher, end)
        })
        .await
    }

    /// Writes down how far it is, once enough was read since the last time; `weight` counts as
    /// read too.
    async fn note(&mut self, weight: u64) -> Result<(), Trouble> {
        self.noted += weight;
        if self.noted < SCRUB_NOTE {
            return Ok(());
        }
        self.noted = 0;
        let change = ServerChange::Scrubbed(Box::new(self.position.clone()));
        blocking(&self.core, move |core| {
            let epoch = core.commits.epoch();
            core.commits.submit_and_wait(epoch, vec![change])?;
            Ok(())
        })
        .await
    }

    /// Has a file read with the claim in hand. Requests go first.
    async fn examine(&self, path: &WirePath) -> Result<(), Trouble> {
        loop {
            if let Ok(mut claim) = self.core.files.claim(path, Work::Looking).await {
                let look = move |core: &Core| recover::look_through(core, &mut claim);
                match blocking(&self.core, look).await {
                    Err(Trouble::Busy(_)) => {}
                    looked => return looked,
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Does `work` where it may block.
async fn blocking<T: Send + 'static>(
    core: &Arc<Core>,
    work: impl FnOnce(&Core) -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    let core = Arc::clone(core);
    let done = spawn_blocking(move || work(&core)).await;
    done.unwrap_or(Err(Trouble::Busy("it was given up")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::server::tests::{Fixture, path, row};
    use crate::server::Server;
    use crate::sys::dir::Dir;
    use crate::types::FileId;

    #[tokio::test(start_paused = true)]
    async fn a_round_takes_as_long_as_the_rate_says() {
        const PIECES: usize = 3;
        let fixture = Fixture::new();
        let index = fixture.open();
        for (id, name) in [(FileId(1), "a"), (FileId(2), "b")] {
            let content = vec![b'x'; PIECES * IO_CHUNK];
            let place = fixture.directory.path().join(name);
            std::fs::write(&place, &content).unwrap();
            let row = ServerFile {
                footprint: recover::footprint(&file::stat_path(&place).unwrap()),
                ..row(id, &content, 0)
            };
            let change = ServerChange::put(path(&format!("/{name}")), row);
            index.commit(&[change]).unwrap();
        }
        let datadir = Dir::open(fixture.directory.path()).unwrap();
        let server = Server::embedded(index, datadir).unwrap();
        let begun = Instant::now();
        let mut reader = Reader {
            core: Arc::clone(&server.core),
            rate: IO_CHUNK as u64,
            due: begun,
            noted: 0,
            position: ScrubPosition::begin(clock::now()),
            tails: HashMap::new(),
        };
        reader.round().await.unwrap();
        assert!(reader.position.has_ended);
        // A piece a second; the first is free.
        let least = Duration::from_secs(2 * PIECES as u64 - 1);
        assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
        drop(reader);
        server.stop().await;
    }
}
