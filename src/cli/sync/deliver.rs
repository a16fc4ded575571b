//! One run of delivery: everything that is there now, to every destination, until it has arrived,
//! waiting is in vain, or a signal comes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::summary::{Delivery, Summary, Trouble, What};
use crate::cli::daemon::Signals;
use crate::cli::exit::Failure;
use crate::cli::progress::{Progress, Standing};
use crate::client::catalogue::Catalogue;
use crate::client::dirty::Dirty;
use crate::client::discover::Discovery;
use crate::client::http::Connector;
use crate::client::plan::FileError;
use crate::client::ship::{Missing, Ship, Status};
use crate::config::{Destination, PatternSettings};
use crate::sys;
use crate::types::{FileId, Offset, Shown};

/// How often the standing is looked at and shown.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is to be delivered whereto.
pub(super) struct Job {
    pub(super) patterns: Arc<[PatternSettings]>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) dirty: Arc<Dirty>,
    pub(super) targets: Vec<Target>,
    /// Connections to each.
    pub(super) connections: usize,
    /// How long a destination may make no progress.
    pub(super) patience: Duration,
}

/// One destination.
pub(super) struct Target {
    /// What it is called for people, safe for a terminal.
    pub(super) label: String,
    pub(super) destination: Destination,
    pub(super) connector: Connector,
}

/// The files that were there at the start, each with its length then.
type Files = Arc<[(FileId, Offset)]>;

/// Delivers, showing `progress`, until all is done or in vain, or a signal comes.
pub(super) async fn run(job: Job, mut progress: Progress) -> Result<Summary, Failure> {
    let mut signals = Signals::take()?;
    let (catalogue, patterns) = (Arc::clone(&job.catalogue), Arc::clone(&job.patterns));
    let found = tokio::task::spawn_blocking(move || find(patterns, &catalogue));
    let (files, troubles) = tokio::select! {
        found = found => found?,
        _ = signals.asked() => return Ok(interrupted_while_looking(&job.targets)),
    };
    let mut summary = Summary {
        troubles,
        ..Summary::default()
    };
    let catalogue = Arc::clone(&job.catalogue);
    let board: Board = Arc::default();
    let (stop, stopped) = watch::channel(false);
    let mut followers = JoinSet::new();
    for (place, target) in job.targets.into_iter().enumerate() {
        let ship = Ship::start(
            &catalogue,
            &job.dirty,
            target.destination,
            target.connector,
            job.connections,
        )?;
        let follower = Follower::new(ship, target.label, place, &files, &board, job.patience);
        followers.spawn(follower.run(stopped.clone()));
    }
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ends = Vec::new();
    loop {
        tokio::select! {
            end = followers.join_next() => match end {
                Some(end) => ends.push(end?),
                None => break,
            },
            _ = tick.tick() => progress.show(&read(&board)),
            _ = signals.asked(), if !summary.interrupted => {
                summary.interrupted = true;
                stop.send_replace(true);
            }
        }
    }
    progress.end();
    ends.sort_by_key(|end| end.place);
    for end in ends {
        summary.destinations.push(end.delivery);
        summary.troubles.extend(end.troubles);
    }
    // What was confirmed and is not on disk here is found again by asking, the next time.
    tokio::task::spawn_blocking(move || catalogue.flush()).await??;
    Ok(summary)
}

/// Finds what is there, and takes it in; gives every file with its length, and what cannot be
/// delivered.
fn find(patterns: Arc<[PatternSettings]>, catalogue: &Arc<Catalogue>) -> (Files, Vec<Trouble>) {
    let mut discovery = Discovery::once(patterns, Arc::clone(catalogue));
    discovery.scan();
    let mut troubles: Vec<Trouble> = discovery
        .failures()
        .iter()
        .map(|(path, error)| Trouble::file(&Shown(path), None, error))
        .collect();
    let mut files = Vec::new();
    for id in catalogue.active() {
        match catalogue.open(id).map(|source| source.size()) {
            Ok(Ok(size)) => files.push((id, size)),
            Ok(Err(error)) => troubles.push(trouble_with(catalogue, id, &error)),
            Err(error) => troubles.push(trouble_with(catalogue, id, &error)),
        }
    }
    troubles.sort_by(|one, other| one.what.cmp(&other.what));
    (files.into(), troubles)
}

fn trouble_with(catalogue: &Catalogue, id: FileId, error: &dyn std::fmt::Display) -> Trouble {
    match catalogue.tracked(id) {
        Some(tracked) => Trouble::file(&tracked.name, None, error),
        None => Trouble::file(&id, None, error),
    }
}

fn interrupted_while_looking(targets: &[Target]) -> Summary {
    let nothing = |target: &Target| Delivery {
        destination: target.label.clone(),
        ..Delivery::default()
    };
    Summary {
        destinations: targets.iter().map(nothing).collect(),
        troubles: Vec::new(),
        interrupted: true,
    }
}

/// How far the destinations are, in their order.
type Board = Arc<Mutex<Vec<Standing>>>;

fn read(board: &Board) -> Vec<Standing> {
    board.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Watches over the delivery to one destination.
struct Follower {
    ship: Ship,
    place: usize,
    board: Board,
    patience: Duration,
    begun: Instant,
    standing: Standing,
}

/// How the delivery to one destination ended.
struct End {
    place: usize,
    delivery: Delivery,
    troubles: Vec<Trouble>,
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
    fn new(
        ship: Ship,
        label: String,
        place: usize,
        files: &Files,
        board: &Board,
        patience: Duration,
    ) -> Self {
        ship.expect(files);
        let standing = Standing {
            label,
            files: files.len() as u64,
            bytes: files.iter().map(|(_, size)| size.bytes()).sum(),
            ..Standing::default()
        };
        let mut all = board.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(standing.clone());
        drop(all);
        Self {
            ship,
            place,
            board: Arc::clone(board),
            patience,
            begun: sys::clock::monotonic(),
            standing,
        }
    }

    async fn run(mut self, mut stopped: watch::Receiver<bool>) -> End {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = board.get_mut(self.place) {
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
        (waited >= self.patience).then(|| {
            let patience = humantime::format_duration(self.patience);
            match &status.fault {
                Some(fault) => format!("no progress for {patience}: {fault}"),
                None => format!("no progress for {patience}"),
            }
        })
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
            verified: status.verified.unwrap_or(false) || self.standing.files == 0,
        };
        let troubles = troubles(&self.standing.label, missing, &why);
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
fn troubles(label: &str, missing: Vec<Missing>, why: &Why) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    let mut others = 0;
    for file in missing {
        let name = match &file.name {
            Some(name) => name.to_string(),
            None => format!("file {}", file.id),
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
            destination: Some(label.to_owned()),
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
    let given_up = matches!(why, Why::InVain(_)) && troubles.is_empty();
    if others > 0 || given_up {
        troubles.push(Trouble {
            what: What::Files(others),
            destination: Some(label.to_owned()),
            reason,
            conflict: false,
        });
    }
    troubles
}

/// What is said of a file whose generation ended in the middle of the run.
const CLOSED: &str =
    "it was truncated, rewritten or replaced meanwhile; what it holds now goes by another name";

fn is_conflict(error: &FileError) -> bool {
    matches!(
        error,
        FileError::Differs { .. }
            | FileError::OtherWriter { .. }
            | FileError::Longer { .. }
            | FileError::Diverged
    )
}
