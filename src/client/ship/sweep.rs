//! Looking at every file of a destination again after it said that it may not have kept all: the
//! newest first, at a bounded rate. That it is due is stored; it starts anew after a crash.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::session::Sweep;
use super::shared::Shared;
use crate::index::IndexError;
use crate::index::client::{Progress, ProgressState};
use crate::limits::{FLUSH_INTERVAL, SWEEP_RATE};
use crate::types::{FileId, Offset};

/// Files that are asked about together.
const BATCH: usize = 10;

/// Sweeps whenever one is due; never returns.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let due = shared.state().session.sweeping();
        match due {
            Some(due) => sweep(&shared, due).await,
            None => shared.sweep.notified().await,
        }
    }
}

/// One sweep, unless another begins meanwhile.
async fn sweep(shared: &Arc<Shared>, sweep: Sweep) {
    let due = || shared.state().session.sweeping() == Some(sweep);
    let Some(mut files) = known(shared, sweep.all).await else {
        // Which files were released cannot be read now; the sweep stays pending.
        sleep(FLUSH_INTERVAL).await;
        return;
    };
    files.sort_unstable();
    let count = files.len();
    shared.state().unswept = files.iter().copied().collect();
    let mut asked = Vec::new();
    while !files.is_empty() && due() {
        let batch = files.split_off(files.len().saturating_sub(BATCH));
        {
            let mut state = shared.state();
            for id in batch.iter().rev() {
                state.schedule.ask(*id);
            }
        }
        shared.changed.notify_waiters();
        sleep(Duration::from_secs(1) * u32::try_from(BATCH).unwrap_or(1) / SWEEP_RATE).await;
        asked.extend(batch);
        // A destination that is away is not met with all of them at once.
        while still_unswept(shared, &mut asked) > BATCH && due() {
            shared.sweep.notified().await;
        }
    }
    while !shared.state().unswept.is_empty() && due() {
        shared.sweep.notified().await;
    }
    // What it found is written before it counts as over: not all of it may fit one transaction.
    while due() && shared.store().await.is_err() {
        sleep(FLUSH_INTERVAL).await;
    }
    if !shared.state().session.swept(sweep) {
        return;
    }
    match shared.store().await {
        Ok(()) if count > 0 => tracing::info!("{}: looked at all {count} files", shared.called),
        Ok(()) => {}
        Err(error) => tracing::warn!("{}: {error}", shared.called),
    }
    if shared.state().is_delivered() {
        shared.delivered.notify_waiters();
    }
}

/// Keeps those of the asked files that were not seen yet; how many. Others may be seen before the
/// sweep comes to them: a failure on the way had them asked about.
fn still_unswept(shared: &Shared, asked: &mut Vec<FileId>) -> usize {
    let state = shared.state();
    asked.retain(|id| state.unswept.contains(id));
    asked.len()
}

/// Whether the destination has taken anything of a file, be it that it is empty.
fn has_taken(progress: &Progress) -> bool {
    let refused = matches!(
        progress.state,
        ProgressState::Error { .. } | ProgressState::Conflict
    );
    progress.confirmed.length > Offset::ZERO || !refused
}

/// The files of which the destination should have something, or that it refused: `all` of them, those
/// included that we let go of, or what it took before it was verified.
pub(super) async fn known(shared: &Arc<Shared>, all: bool) -> Option<Vec<FileId>> {
    let shared = Arc::clone(shared);
    let known = spawn_blocking(move || {
        let catalogue = &shared.catalogue;
        let mut files = catalogue.active();
        files.retain(|id| {
            let progress = catalogue.progress(shared.destination, *id);
            progress.is_some_and(|progress| all || (!progress.verified && has_taken(&progress)))
        });
        for id in catalogue.ended()? {
            let progress = catalogue.index().progress(shared.destination, id)?;
            if progress.is_some_and(|progress| all || !progress.verified) {
                files.push(id);
            }
        }
        Ok::<_, IndexError>(files)
    });
    match known.await {
        Ok(Ok(files)) => Some(files),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the files that were released cannot be listed");
            None
        }
        Err(_) => None,
    }
}
