//! What a server does beside requests, none of which waits for it: history and
//! quarantine are thinned, and an index that was not closed in order is read once in full.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{error, info};

use super::core::Core;
use super::quarantine;
use crate::index::IndexError;
use crate::index::server::ServerIndex;
use crate::limits::THINNING;
use crate::sys::clock;

/// Does it, for ever. What is under way when this is dropped ends by itself.
pub(super) async fn run(core: Arc<Core>) {
    if core.index.unclean() {
        info!("the index was not closed in order: reading all of it");
        if on_index(&core, ServerIndex::check_rows).await {
            info!("every row of the index is as it was written");
        }
    }
    tokio::join!(thin_history(&core), thin_quarantine(&core));
}

async fn thin_history(core: &Core) {
    loop {
        on_index(core, |index| index.thin_history(clock::now()).map(drop)).await;
        sleep(THINNING).await;
    }
}

/// Sooner than its time too, when as much has come as may stay: a client that breaks its bodies off and
/// begins anew would else fill the disk.
async fn thin_quarantine(core: &Arc<Core>) {
    loop {
        let thinning = Arc::clone(core);
        if let Ok(Err(failure)) = spawn_blocking(move || quarantine::thin(&thinning)).await {
            error!("the quarantine could not be thinned: {failure}");
        }
        tokio::select! {
            () = sleep(THINNING) => {}
            () = core.quarantine.filled() => {}
        }
    }
}

/// Whether `work` succeeded; else it is said why not.
async fn on_index<W>(core: &Core, work: W) -> bool
where
    W: FnOnce(&ServerIndex) -> Result<(), IndexError> + Send + 'static,
{
    let epoch = core.commits.epoch();
    let index = Arc::clone(&core.index);
    match spawn_blocking(move || work(&index)).await {
        Ok(Ok(())) => true,
        Ok(Err(failure)) => {
            error!("in the background: {failure}; files whose rows are whole are served");
            if failure.needs_reopen() {
                core.commits.reopen(epoch);
            }
            false
        }
        // It panicked, which was said where it did.
        Err(_) => false,
    }
}
