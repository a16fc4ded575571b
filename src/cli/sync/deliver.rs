//! One run of delivery: everything that is there now, to every destination, until it has arrived,
//! waiting is in vain, or a signal comes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Interval;

use super::follow::{Board, CLOSED, Files, Follower, LOOK_EVERY, Run, ticks};
use super::matching::never_matched;
use super::summary::{Delivery, PassedOver, Summary, Trouble};
use crate::cli::daemon::Signals;
use crate::cli::datadir::database_failed;
use crate::cli::exit::Failure;
use crate::cli::progress::Progress;
use crate::client::catalogue::Catalogue;
use crate::client::dirty::Dirty;
use crate::client::discover::Discovery;
use crate::client::http::Connector;
use crate::client::ship::{Mode, Ship};
use crate::config::{Destination, PatternSettings};
use crate::index::IndexError;
use crate::index::client::ClientState;
use crate::limits::FLUSH_INTERVAL;
use crate::types::{FileId, Offset, Shown};

/// What is to be delivered whereto.
pub(super) struct Job {
    pub(super) patterns: Arc<[PatternSettings]>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) dirty: Arc<Dirty>,
    pub(super) targets: Vec<Target>,
    /// Whether the patterns are from the command line, where one that never matched is a mistake.
    pub(super) typed: bool,
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

/// Delivers, showing `progress`, until all is done or in vain, or a signal comes.
pub(super) async fn run(job: Job, mut progress: Progress) -> Result<Summary, Failure> {
    let mut signals = Signals::take()?;
    let catalogue = Arc::clone(&job.catalogue);
    let mut flush = ticks(FLUSH_INTERVAL);
    // What is found is on its way while the rest is still looked for.
    let before = catalogue.active();
    let ships = start(&job)?;
    let found = look(&job, &mut signals, &mut flush).await?;
    let Some(Finding {
        files,
        troubles,
        passed_over,
    }) = found
    else {
        for ship in ships {
            ship.stop().await;
        }
        write_down(&catalogue).await?;
        return Ok(interrupted_while_looking(&job.targets));
    };
    let mut summary = Summary {
        troubles,
        passed_over,
        ..Summary::default()
    };
    let ended = ended_meanwhile(&before, &files, &catalogue);
    summary.troubles.extend(ended.map_err(database_failed)?);
    let board = Board::default();
    let run = Run {
        catalogue: Arc::clone(&catalogue),
        files,
        board: board.clone(),
        patience: job.patience,
    };
    let (stop, stopped) = watch::channel(false);
    let mut followers = JoinSet::new();
    for (place, (ship, target)) in ships.into_iter().zip(job.targets).enumerate() {
        let follower = Follower::new(ship, target.label, place, run.clone());
        followers.spawn(follower.run(stopped.clone()));
    }
    let mut tick = ticks(LOOK_EVERY);
    let mut ends = Vec::new();
    loop {
        tokio::select! {
            end = followers.join_next() => match end {
                Some(end) => ends.push(end?),
                None => break,
            },
            _ = tick.tick() => progress.show(&board.read()),
            // An error shows at the end, if it lasts until then.
            _ = flush.tick() => drop(write_down(&catalogue).await),
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
    write_down(&catalogue).await?;
    Ok(summary)
}

/// Starts the delivery to every destination, in their order.
fn start(job: &Job) -> Result<Vec<Ship>, Failure> {
    let ship = |target: &Target| {
        Ok(Ship::start(
            &job.catalogue,
            &job.dirty,
            target.destination.clone(),
            target.connector.clone(),
            (Mode::Once, job.connections),
        )?)
    };
    job.targets.iter().map(ship).collect()
}

/// Finds what is there; nothing when a signal came first.
async fn look(
    job: &Job,
    signals: &mut Signals,
    flush: &mut Interval,
) -> Result<Option<Finding>, Failure> {
    let (catalogue, patterns) = (Arc::clone(&job.catalogue), Arc::clone(&job.patterns));
    let typed = job.typed;
    let mut found = tokio::task::spawn_blocking(move || find(&patterns, typed, &catalogue));
    loop {
        tokio::select! {
            found = &mut found => return found?.map(Some),
            // An error shows at the end, if it lasts until then.
            _ = flush.tick() => drop(write_down(&job.catalogue).await),
            _ = signals.asked() => return Ok(None),
        }
    }
}

/// Makes durable what was confirmed; what a kill takes of it is found again by asking.
async fn write_down(catalogue: &Arc<Catalogue>) -> Result<(), Failure> {
    let catalogue = Arc::clone(catalogue);
    let written = tokio::task::spawn_blocking(move || catalogue.flush()).await?;
    written.map_err(database_failed)
}

/// What was found.
struct Finding {
    /// Every file with its length.
    files: Files,
    /// What cannot be delivered.
    troubles: Vec<Trouble>,
    /// What is not to be.
    passed_over: Vec<PassedOver>,
}

/// Finds what is there, and takes it in.
fn find(
    patterns: &Arc<[PatternSettings]>,
    typed: bool,
    catalogue: &Arc<Catalogue>,
) -> Result<Finding, Failure> {
    let mut discovery = Discovery::once(Arc::clone(patterns), Arc::clone(catalogue));
    discovery.scan();
    let skipped = discovery.report().skipped.iter();
    let passed_over = skipped.map(|(number, skip, met)| {
        let [one, many] = skip.words();
        PassedOver {
            count: met.count,
            what: if met.count == 1 { one } else { many },
            pattern: Shown(patterns[number].name.as_bytes()).to_string(),
            example: Shown(&met.first).to_string(),
        }
    });
    let passed_over = passed_over.collect();
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
    if typed {
        let failed = discovery.failures().keys().map(Vec::as_slice);
        let skipped = discovery.report().skipped.iter();
        let skipped = skipped.map(|(_, _, met)| &met.first[..]);
        troubles.extend(never_matched(patterns, failed.chain(skipped), catalogue)?);
    }
    troubles.sort_by(|one, other| one.what.cmp(&other.what));
    Ok(Finding {
        files: files.into(),
        troubles,
        passed_over,
    })
}

/// The generations that ended before anybody expected them: those of `before`, and of what was found
/// and is not among the `found`.
fn ended_meanwhile(
    before: &[FileId],
    found: &[(FileId, Offset)],
    catalogue: &Catalogue,
) -> Result<Vec<Trouble>, IndexError> {
    let found: BTreeSet<FileId> = found.iter().map(|(id, _)| *id).collect();
    // Numbers grow, and what follows a generation has a greater one than it.
    let last = |ids: &mut dyn Iterator<Item = &FileId>| ids.max().map_or(0, |id| id.0);
    let new = last(&mut before.iter()) + 1..=last(&mut found.iter());
    let mut troubles = Vec::new();
    for id in before.iter().copied().chain(new.map(FileId)) {
        if found.contains(&id) || catalogue.tracked(id).is_some() {
            continue;
        }
        if let Some(row) = catalogue.index().file(id)?
            && matches!(row.state, ClientState::Superseded { .. })
        {
            troubles.push(Trouble::file(&row.name, None, &CLOSED));
        }
    }
    Ok(troubles)
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
        interrupted: true,
        ..Summary::default()
    }
}
