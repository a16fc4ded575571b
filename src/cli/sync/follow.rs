//! Watching over the delivery to one destination: how far it is, and when to stop waiting.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::summary::{Delivery, Trouble, What};
use crate::cli::progress::Standing;
use crate::client::catalogue::Catalogue;
use crate::client::plan::FileError;
use crate::client::ship::{Missing, Ship, Status};
use crate::sys;
use crate::types::words::span;
use crate::types::{FileId, Offset};

/// How often the standing is looked at and shown.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The files that were there at the start, each with its length then.
pub(super) type Files = Arc<[(FileId, Offset)]>;

/// A tick every `period`, the first at once.
pub(super) fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// How far the destinations are, in their order; shared by those who watch over them.
#[derive(Clone, Default)]
pub(super) struct Board(Arc<Mutex<Vec<Standing>>>);

impl Board {
    /// How far they are now.
    pub(super) fn read(&self) -> Vec<Standing> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What those who watch over the destinations share.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) files: Files,
    pub(super) board: Board,
    /// How long a destination may make no progress.
    pub(super) patience: Duration,
}

/// Watches over the delivery to one destination.
pub(super) struct Follower {
    ship: Ship,
    place: usize,
    run: Run,
    begun: Instant,
    standing: Standing,
}

/// How the delivery to one destination ended.
pub(super) struct End {
    /// Its place among the destinations.
    pub(super) place: usize,
    pub(super) delivery: Delivery,
    pub(super) troubles: Vec<Trouble>,
}

/// Why a follower stops following.
enum Why {
    /// All has arrived that can.
    Delivered,
    /// No progress for too long, or never again.
    InVain(String),
    /// A signal.
    Interrupted,
}

impl Follower {
    /// Begins to expect the run's files of `ship`, which is the `place`th destination.
    pub(super) fn new(ship: Ship, label: String, place: usize, run: Run) -> Self {
        ship.expect(&run.files);
        let standing = Standing {
            label,
            files: run.files.len() as u64,
            bytes: run.files.iter().map(|(_, size)| size.bytes()).sum(),
            ..Standing::default()
        };
        run.board.lock().push(standing.clone());
        Self {
            ship,
            place,
            run,
            begun: sys::clock::monotonic(),
            standing,
        }
    }

    /// Waits until all has arrived, waiting is in vain, or `stopped` becomes true.
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) -> End {
        if self.standing.files == 0 {
            return self.end(Why::Delivered).await;
        }
        let mut tick = ticks(LOOK_EVERY);
        let why = loop {
            tokio::select! {
                () = self.ship.delivered() => break Why::Delivered,
                _ = stopped.wait_for(|stopped| *stopped) => break Why::Interrupted,
                _ = tick.tick() => {}
            }
            let status = self.ship.status();
            self.post(&status);
            if let Some(reason) = self.in_vain(&status) {
                break Why::InVain(reason);
            }
        };
        self.end(why).await
    }

    fn post(&mut self, status: &Status) {
        self.standing.files_done = self.standing.files - status.expected.files as u64;
        self.standing.bytes_done = self.standing.bytes.saturating_sub(status.expected.bytes);
        if let Some(place) = self.run.board.lock().get_mut(self.place) {
            place.clone_from(&self.standing);
        }
    }

    /// Why waiting any longer is in vain, if it is.
    fn in_vain(&self, status: &Status) -> Option<String> {
        if let Some(reason) = &status.stopped {
            return Some(reason.clone());
        }
        let last = status
            .last_progress
            .map_or(self.begun, |at| at.max(self.begun));
        let waited = sys::clock::monotonic().duration_since(last);
        (waited >= self.run.patience).then(|| {
            let patience = span(self.run.patience);
            match &status.last_failure {
                Some(fault) => format!("no progress for {patience}: {fault}"),
                None => format!("no progress for {patience}"),
            }
        })
    }

    /// What a file is called whose generation was closed.
    fn closed_name(&self, id: FileId) -> String {
        match self.run.catalogue.index().file(id) {
            Ok(Some(row)) => row.name.to_string(),
            _ => format!("file {id}"),
        }
    }

    async fn end(mut self, why: Why) -> End {
        let status = self.ship.status();
        self.post(&status);
        let missing = self.ship.missing();
        let delivery = Delivery {
            destination: self.standing.label.clone(),
            files: self.standing.files,
            delivered: self.standing.files.saturating_sub(missing.len() as u64),
            sent: status.bytes_sent,
            already: self.standing.bytes_done.saturating_sub(status.bytes_sent),
            // One that was never met is incomplete, not unverified.
            verified: status.verified != Some(false),
        };
        let troubles = troubles(&self.standing, missing, &why, |id| self.closed_name(id));
        if let Why::Delivered = why {
            self.ship.stop().await;
        }
        End {
            place: self.place,
            delivery,
            troubles,
        }
    }
}

/// What is missing at one destination: each file with a reason of its own, the others together.
fn troubles(
    standing: &Standing,
    missing: Vec<Missing>,
    why: &Why,
    closed_name: impl Fn(FileId) -> String,
) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    let mut others = 0;
    for file in missing {
        let name = match &file.name {
            Some(name) => name.to_string(),
            None => closed_name(file.id),
        };
        let (reason, conflict) = match (&file.error, &file.name) {
            (Some(error), _) => (error.to_string(), is_conflict(error)),
            (None, None) => (CLOSED.to_owned(), false),
            (None, Some(_)) => {
                others += 1;
                continue;
            }
        };
        troubles.push(Trouble {
            what: What::File(name),
            destination: Some(standing.label.clone()),
            reason,
            conflict,
        });
    }
    troubles.sort_by(|one, other| one.what.cmp(&other.what));
    let reason = match why {
        Why::InVain(reason) => reason.clone(),
        Why::Interrupted => "interrupted".to_owned(),
        Why::Delivered => "not confirmed".to_owned(),
    };
    if matches!(why, Why::InVain(_)) && troubles.is_empty() && others == 0 {
        // All was confirmed once, and was to be looked at again.
        others = standing.files;
    }
    if others > 0 {
        troubles.push(Trouble {
            what: What::Files(others),
            destination: Some(standing.label.clone()),
            reason,
            conflict: false,
        });
    }
    troubles
}

/// What is said of a file whose generation ended in the middle of the run.
pub(super) const CLOSED: &str =
    "it was truncated, rewritten or replaced meanwhile; what it holds now goes by another name";

fn is_conflict(error: &FileError) -> bool {
    matches!(
        error,
        FileError::Differs { .. }
            | FileError::OtherWriter { .. }
            | FileError::Longer { .. }
            | FileError::Diverged { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::StableName;

    fn missing(id: u64, name: Option<&str>, error: Option<FileError>) -> Missing {
        Missing {
            id: FileId(id),
            name: name.map(|name| StableName::parse(name).unwrap()),
            confirmed: Offset::ZERO,
            error,
        }
    }

    fn closed(id: FileId) -> String {
        format!("closed {id}")
    }

    fn standing() -> Standing {
        Standing {
            label: "http://log1/".to_owned(),
            files: 9,
            ..Standing::default()
        }
    }

    #[test]
    fn what_has_a_reason_of_its_own_has_a_row_of_its_own() {
        let files = vec![
            missing(1, Some("b"), None),
            missing(2, Some("c"), Some(FileError::Diverged { chunk: None })),
            missing(3, None, None),
            missing(4, Some("a"), Some(FileError::Stuck("x".to_owned()))),
            missing(5, Some("d"), None),
        ];
        let why = Why::InVain("no progress for 1m".to_owned());
        let troubles = troubles(&standing(), files, &why, closed);
        let rows: Vec<_> = troubles
            .iter()
            .map(|trouble| (&trouble.what, trouble.reason.as_str(), trouble.conflict))
            .collect();
        let file = |name: &str| What::File(name.to_owned());
        assert_eq!(
            rows,
            [
                (&file("a"), "no progress: x", false),
                (
                    &file("c"),
                    "diverged: the destination's bytes differ from its own index",
                    true
                ),
                (&file("closed 3"), CLOSED, false),
                (&What::Files(2), "no progress for 1m", false),
            ]
        );
    }

    #[test]
    fn a_destination_that_cannot_be_asked_again_is_named() {
        let why = Why::InVain("refused".to_owned());
        let rows = troubles(&standing(), Vec::new(), &why, closed);
        assert_eq!(rows[0].what, What::Files(9));
        assert!(troubles(&standing(), Vec::new(), &Why::Delivered, closed).is_empty());
    }
}
