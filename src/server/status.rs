//! The status line.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::info;

use super::core::Core;

/// Says how things stand, every `interval`, for ever.
pub(super) async fn report(core: Arc<Core>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        info!("{}", line(&core));
    }
}

fn line(core: &Core) -> String {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let traffic = &core.traffic;
    format!(
        "status: {} connections, {} requests ({} refused), {} appends with {} bytes since the \
         start, {} files at hand, commit {}",
        count(&traffic.connections),
        count(&traffic.requests),
        count(&traffic.refusals),
        count(&traffic.appends),
        count(&traffic.bytes),
        core.files.len(),
        core.index.number().0,
    )
}
