//! What a server does beside requests, none of which waits for it: history is thinned, and an
//! index that was not closed in order is read once in full.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tracing::{error, info};

use super::core::Core;
use crate::index::server::ServerIndex;
use crate::limits::HISTORY_THINNING;
use crate::sys::clock;

/// Does it, for ever. What is under way when this is dropped ends by itself.
pub(super) async fn run(core: Arc<Core>) {
    if core.index.unclean() {
        let index = Arc::clone(&core.index);
        // Its outcome is in the log.
        let _ = spawn_blocking(move || check(&index)).await;
    }
    loop {
        let epoch = core.commits.epoch();
        let index = Arc::clone(&core.index);
        let thinned = spawn_blocking(move || index.thin_history(clock::now())).await;
        match thinned {
            Ok(Err(failure)) if failure.needs_reopen() => core.commits.reopen(epoch),
            Ok(Err(failure)) => error!("the history of lengths cannot be thinned: {failure}"),
            Ok(Ok(_)) | Err(_) => {}
        }
        tokio::time::sleep(HISTORY_THINNING).await;
    }
}

fn check(index: &ServerIndex) {
    info!("the index was not closed in order: reading all of it");
    match index.check_rows() {
        Ok(()) => info!("every row of the index is as it was written"),
        Err(failure) => {
            error!("the index is damaged; files without damaged rows are served: {failure}");
        }
    }
}
