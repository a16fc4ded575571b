//! Reading every held file again, slowly: does it still hash to what each destination confirmed?
//!
//! Says nothing itself: a file in which other bytes are found is doubted, its destinations are asked
//! about it, and `plan` judges it as it would any day, which names the chunk and ends the generation.
//! Where no destination can be asked, that happens without the chunk. How far the scrub has come is
//! stored, file by file.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep, timeout_at};

use super::catalogue::{Catalogue, Closing};
use super::plan::Closed;
use super::reading;
use super::ship::Ship;
use super::source::ReadError;
use crate::index::IndexError;
use crate::index::client::Scrubbed;
use crate::limits::SCRUB_LOCATE;
use crate::sys::clock;
use crate::types::{FileId, Offset, Prefix};

/// How often it is looked whether a doubted file was judged.
const LOOK: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct Scrub {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) ships: Vec<Arc<Ship>>,
    pub(super) period: Duration,
    /// Bytes a second.
    pub(super) rate: u64,
}

impl Scrub {
    /// Reads, round after round; returns only when a thread of it panicked.
    pub(super) async fn run(self) -> JoinError {
        let mut at = match self.position().await {
            Ok(at) => at,
            Err(error) => return error,
        };
        loop {
            if let Some(id) = self.next(at.file) {
                if let Err(error) = self.scrub(id).await {
                    return error;
                }
                at.file = id;
            } else {
                sleep(self.rest(&at)).await;
                at = Scrubbed {
                    file: FileId(0),
                    began: clock::now(),
                };
            }
            self.catalogue.scrubbed(at);
        }
    }

    /// Where an earlier run was.
    async fn position(&self) -> Result<Scrubbed, JoinError> {
        let catalogue = Arc::clone(&self.catalogue);
        let stored = spawn_blocking(move || catalogue.index().scrubbed()).await?;
        let stored = stored.unwrap_or_else(|error: IndexError| {
            tracing::warn!("the scrub begins anew: {error}");
            None
        });
        Ok(stored.unwrap_or_else(|| Scrubbed {
            file: FileId(0),
            began: clock::now(),
        }))
    }

    /// The first file behind `after`.
    fn next(&self, after: FileId) -> Option<FileId> {
        let mut active = self.catalogue.active();
        active.retain(|id| *id > after);
        active.into_iter().min()
    }

    /// How long until the next round.
    fn rest(&self, at: &Scrubbed) -> Duration {
        let took = clock::now().duration_since(at.began);
        let took = Duration::try_from(took).unwrap_or(Duration::ZERO);
        self.period
            .saturating_sub(took)
            .max(Duration::from_millis(100))
    }

    async fn scrub(&self, id: FileId) -> Result<(), JoinError> {
        let confirmed = self.confirmed(id);
        if confirmed.is_empty() {
            return Ok(());
        }
        let catalogue = Arc::clone(&self.catalogue);
        let Ok(source) = spawn_blocking(move || catalogue.open(id)).await? else {
            return Ok(());
        };
        let lengths: Vec<Offset> = confirmed.iter().map(|prefix| prefix.length).collect();
        match reading::prefixes(&source, &lengths, Some(self.rate)).await {
            Ok(found) if found == confirmed => return Ok(()),
            // Shorter than what was confirmed: that, too, is for `plan` to judge.
            Ok(_) | Err(ReadError::Short { .. }) => {}
            Err(error) => {
                if let Some(tracked) = self.catalogue.tracked(id) {
                    tracing::warn!("{}: the scrub cannot read it: {error}", tracked.name);
                }
                return Ok(());
            }
        }
        drop(source);
        // Not one that was recorded anew meanwhile, shorter or by another destination.
        if self.confirmed(id) == confirmed {
            self.doubt(id).await?;
        }
        Ok(())
    }

    /// What the destinations have confirmed, in ascending order, each length once.
    fn confirmed(&self, id: FileId) -> Vec<Prefix> {
        let destinations = self.catalogue.destinations().iter();
        let progress = destinations.filter_map(|(it, _)| self.catalogue.progress(*it, id));
        let confirmed = progress.map(|progress| progress.confirmed);
        let mut confirmed: Vec<_> = confirmed
            .filter(|prefix| prefix.length > Offset::ZERO)
            .collect();
        confirmed.sort_unstable_by_key(|prefix| prefix.length);
        confirmed.dedup();
        confirmed
    }

    async fn doubt(&self, id: FileId) -> Result<(), JoinError> {
        self.catalogue.doubt(id);
        for ship in &self.ships {
            ship.ask(id);
        }
        let judged = async {
            while self.catalogue.is_doubted(id) {
                sleep(LOOK).await;
            }
        };
        if timeout_at(Instant::now() + SCRUB_LOCATE, judged)
            .await
            .is_ok()
        {
            return Ok(());
        }
        let catalogue = Arc::clone(&self.catalogue);
        let closed = spawn_blocking(move || {
            let why = Closed::Rewritten { chunk: None }.to_string();
            catalogue.supersede(id, Closing::Changed, &why, None)
        });
        if let Err(error) = closed.await? {
            tracing::warn!("a changed file's generation cannot be closed: {error}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::catalogue::tests::Bench;

    #[tokio::test(start_paused = true)]
    async fn a_file_takes_as_long_as_the_rate_says() {
        let bench = Bench::new();
        let run = bench.start();
        let file = run.adopt(&bench.write("a", &"x".repeat(5000)), "a");
        // What one destination has confirmed is read on the way to what the other has.
        run.confirm(0, file.id, 1500);
        run.confirm(1, file.id, 5000);
        let scrub = Scrub {
            catalogue: Arc::new(run.catalogue),
            ships: Vec::new(),
            period: Duration::from_secs(1),
            rate: 1000,
        };
        let begun = Instant::now();
        scrub.scrub(file.id).await.unwrap();
        // The last piece may be free.
        assert!(
            begun.elapsed() >= Duration::from_secs(4),
            "{:?}",
            begun.elapsed()
        );
        assert!(!scrub.catalogue.is_doubted(file.id));
    }
}
