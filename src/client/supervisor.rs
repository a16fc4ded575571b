//! The client as a whole: opened, scanned, delivering until it is asked to end.
//!
//! Owns every task; each of them ends before [`run`] returns. Order of the start: rows and links
//! brought together -> delivery of what is known, and the first scan, with directories watched.
//! Order of the end: no more discovery -> delivery, which gets a bounded time -> progress written.
//! A crash anywhere leaves what the catalogue's start repairs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::catalogue::{Catalogue, StartError};
use super::dirty::Dirty;
use super::discover::{Discovery, Report};
use super::http::Connector;
use super::logrotate;
use super::release::{Held, Releaser};
use super::scrub::Scrub;
use super::ship::{Mode, Ship};
use super::status;
use super::watch::{Round, Watches};
use crate::config::{ClientSettings, Destination};
use crate::index::IndexError;
use crate::index::client::ClientIndex;
use crate::limits::FLUSH_INTERVAL;
use crate::sys;
use crate::sys::dir::Dir;
use crate::tls::{Follow, follow};

/// Why a client ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Rows and links could not be brought together.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The database.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// No pattern has a file that could be linked (exit code 78).
    #[error(
        "nothing can be delivered: the files of every pattern lie on other filesystems (or bind mounts) than the datadir; put the datadir on the filesystem of the log files, one client for each"
    )]
    NothingLinkable,
    /// A defect: a task ended that never should.
    #[error("a part of the client ended: {0}")]
    Task(#[from] JoinError),
}

/// What is there before anything is delivered.
struct Opened {
    catalogue: Arc<Catalogue>,
    dirty: Arc<Dirty>,
    watches: Arc<Watches>,
    discovery: Discovery,
}

/// Brings rows and links together. Blocks.
fn open(settings: &ClientSettings, datadir: Dir, index: ClientIndex) -> Result<Opened, RunError> {
    let dirty = Arc::new(Dirty::default());
    let watches = Arc::new(Watches::new(Arc::clone(&dirty)));
    let (marks, watching) = (Arc::clone(&dirty), Arc::clone(&watches));
    let catalogue = Catalogue::with_links(datadir, index, &settings.destinations, marks, watching)?;
    let catalogue = Arc::new(catalogue.with_volatile(&settings.patterns));
    let patterns = settings.patterns.clone().into();
    let discovery = Discovery::watching(patterns, Arc::clone(&catalogue));
    Ok(Opened {
        catalogue,
        dirty,
        watches,
        discovery,
    })
}

/// Runs the client of a locked datadir until `asked` is done, then ends it in order. The destinations
/// of `settings` are reached by `connectors`, in their order; `again` (SIGHUP) asks for a scan, for
/// another try at whatever is in error, and for the certificates to be read again.
pub async fn run(
    settings: ClientSettings,
    datadir: Dir,
    index: ClientIndex,
    connectors: Vec<Connector>,
    again: Arc<Notify>,
    asked: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let settings = Arc::new(settings);
    let certificates: Vec<_> = connectors
        .iter()
        .filter_map(Connector::certificates)
        .map(|certificates| certificates as Arc<dyn Follow>)
        .collect();
    let opening = Arc::clone(&settings);
    warn_of_plain_http(&settings);
    warn_of_hard_links(&settings);
    if let Some(warning) = logrotate::warning() {
        tracing::warn!("{warning}");
    }
    let opened = spawn_blocking(move || open(&opening, datadir, index)).await??;
    let ships = ship(&opened, &settings, connectors)?;
    let catalogue = Arc::clone(&opened.catalogue);
    let (report, stop) = (Arc::default(), opened.discovery.stop());
    let (rescan, reread) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut tasks = JoinSet::new();
    start_tasks(&mut tasks, opened, &settings, &report, &rescan);
    let following = follow(certificates, Arc::clone(&reread));
    tasks.spawn(async move {
        following.await;
        std::future::pending().await
    });
    let held = Arc::default();
    start_upkeep(&mut tasks, &catalogue, &ships, &settings, &held)?;
    let mut status = ticks(settings.status_interval);
    tokio::pin!(asked);
    let ended = loop {
        tokio::select! {
            () = &mut asked => break Ok(()),
            () = again.notified() => {
                rescan.notify_one();
                reread.notify_one();
                for ship in &ships {
                    ship.ask_again();
                }
            }
            _ = status.tick() => {
                let report = report.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let held = *held.lock().unwrap_or_else(PoisonError::into_inner);
                say_status(&catalogue, &ships, report, held).await?;
            }
            // None of them ends before it is told to, unless there is nothing to do for this client or
            // something in it panicked.
            Some(ended) = tasks.join_next() => {
                break Err(ended.unwrap_or_else(RunError::Task));
            }
        }
    };
    stop.ask();
    tasks.shutdown().await;
    end(ships, catalogue).await?;
    ended
}

/// Starts the delivery to each destination.
fn ship(
    opened: &Opened,
    settings: &ClientSettings,
    connectors: Vec<Connector>,
) -> Result<Vec<Arc<Ship>>, IndexError> {
    let start = |(destination, connector): (&Destination, Connector)| {
        let target = destination.clone();
        let Opened {
            catalogue, dirty, ..
        } = opened;
        let how = (Mode::Daemon, settings.connections);
        Ship::start(catalogue, dirty, target, connector, how).map(Arc::new)
    };
    settings
        .destinations
        .iter()
        .zip(connectors)
        .map(start)
        .collect()
}

/// Delivery gets its bounded time, then what it has confirmed is written.
async fn end(ships: Vec<Arc<Ship>>, catalogue: Arc<Catalogue>) -> Result<(), RunError> {
    let mut stopping = JoinSet::new();
    for ship in ships.into_iter().filter_map(Arc::into_inner) {
        stopping.spawn(ship.stop());
    }
    while let Some(stopped) = stopping.join_next().await {
        stopped?;
    }
    Ok(spawn_blocking(move || catalogue.flush()).await??)
}

/// Starts what goes on as long as the client runs.
fn start_tasks(
    tasks: &mut JoinSet<RunError>,
    opened: Opened,
    settings: &ClientSettings,
    report: &Arc<Mutex<Report>>,
    rescan: &Arc<Notify>,
) {
    let Opened {
        catalogue,
        discovery,
        watches,
        ..
    } = opened;
    let listening = Arc::clone(&watches);
    tasks.spawn(async move { listening.run().await });
    tasks.spawn(look_in_turn(
        Arc::clone(&catalogue),
        watches,
        settings.periodic_trigger_interval,
    ));
    tasks.spawn(flush(Arc::clone(&catalogue)));
    tasks.spawn(check_after_a_crash(catalogue));
    tasks.spawn(discover(
        discovery,
        settings.scan_interval,
        Arc::clone(report),
        Arc::clone(rescan),
    ));
}

/// Starts what is done with files that are delivered.
fn start_upkeep(
    tasks: &mut JoinSet<RunError>,
    catalogue: &Arc<Catalogue>,
    ships: &[Arc<Ship>],
    settings: &ClientSettings,
    held: &Arc<Mutex<Held>>,
) -> Result<(), IndexError> {
    let upkeep = settings.upkeep.clone();
    if let Some(period) = upkeep.scrub.period {
        let scrub = Scrub {
            catalogue: Arc::clone(catalogue),
            ships: ships.to_vec(),
            period,
            rate: upkeep.scrub.rate,
        };
        tasks.spawn(async move { scrub.run().await.into() });
    }
    let (catalogue, ships) = (Arc::clone(catalogue), ships.to_vec());
    let releaser = Releaser::new(catalogue, upkeep, Arc::clone(held))?;
    tasks.spawn(async move { releaser.run(ships).await.into() });
    Ok(())
}

/// Looks at everything now and every `scan_interval`, and at new names at once.
async fn discover(
    mut discovery: Discovery,
    scan_interval: Duration,
    report: Arc<Mutex<Report>>,
    rescan: Arc<Notify>,
) -> RunError {
    let mail = discovery.mail();
    let mut scans = ticks(scan_interval);
    let mut first = true;
    loop {
        let whole = first
            || tokio::select! {
                () = mail.arrived() => false,
                () = rescan.notified() => true,
                _ = scans.tick() => true,
            };
        let worked = spawn_blocking(move || {
            if whole {
                discovery.scan();
            } else {
                discovery.catch_up();
            }
            discovery
        });
        discovery = match worked.await {
            Ok(back) => back,
            Err(error) => return error.into(),
        };
        if std::mem::take(&mut first) && discovery.nothing_can_be_linked() {
            return RunError::NothingLinkable;
        }
        *report.lock().unwrap_or_else(PoisonError::into_inner) = discovery.report().clone();
    }
}

/// Finds by looking what no watch has told.
async fn look_in_turn(
    catalogue: Arc<Catalogue>,
    watches: Arc<Watches>,
    interval: Duration,
) -> RunError {
    let mut round = Round::default();
    let mut turns = ticks(interval);
    loop {
        turns.tick().await;
        let (catalogue, watches) = (Arc::clone(&catalogue), Arc::clone(&watches));
        let looked = spawn_blocking(move || {
            round.tick(&catalogue, &watches);
            round
        });
        round = match looked.await {
            Ok(back) => back,
            Err(error) => return error.into(),
        };
    }
}

/// Writes progress now and then; says once that it cannot, and once that it can again.
async fn flush(catalogue: Arc<Catalogue>) -> RunError {
    let mut turns = ticks(FLUSH_INTERVAL);
    let mut failing = false;
    loop {
        turns.tick().await;
        let flushing = Arc::clone(&catalogue);
        let flushed = match spawn_blocking(move || flushing.flush()).await {
            Ok(flushed) => flushed,
            Err(error) => return error.into(),
        };
        match &flushed {
            Ok(()) if failing => tracing::info!("the database can be written again"),
            Err(error) if !failing => {
                tracing::error!("progress is not recorded until this is over: {error}");
            }
            _ => {}
        }
        failing = flushed.is_err();
    }
}

/// Reads every row once when the last process did not close the database.
async fn check_after_a_crash(catalogue: Arc<Catalogue>) -> RunError {
    if catalogue.index().unclean() {
        match spawn_blocking(move || catalogue.index().check_rows()).await {
            Ok(Ok(())) => {}
            Ok(Err(damaged)) => tracing::error!("{damaged}"),
            Err(error) => return error.into(),
        }
    }
    std::future::pending().await
}

async fn say_status(
    catalogue: &Arc<Catalogue>,
    ships: &[Arc<Ship>],
    report: Report,
    held: Held,
) -> Result<(), RunError> {
    let (catalogue, ships) = (Arc::clone(catalogue), ships.to_vec());
    let line = spawn_blocking(move || status::line(&catalogue, &ships, &report, held)).await?;
    tracing::info!("{line}");
    Ok(())
}

/// Warns of destinations at which anybody on the way can read along.
pub fn warn_of_plain_http(settings: &ClientSettings) {
    let is_open = |it: &&Destination| it.tls().is_none() && !it.is_loopback();
    for destination in settings.destinations.iter().filter(is_open) {
        tracing::warn!(
            "{destination}: plain HTTP: anybody on the way can read and change the logs"
        );
    }
}

/// Says it where anybody may give a log directory a hard link to what they may not read: then only
/// the owner tells it from a log.
pub fn warn_of_hard_links(settings: &ClientSettings) {
    const ROOT: u32 = 0;
    let mut patterns = settings.patterns.iter();
    if sys::host::protects_hardlinks() == Some(false)
        && patterns.any(|pattern| pattern.owners.admit(ROOT))
    {
        tracing::warn!(
            "fs.protected_hardlinks is 0: whoever may write in a log directory can have files delivered that they may not read; set it to 1, or name the owners of the logs by `owner`"
        );
    }
}

/// Ticks every `period`, the first after one.
fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
