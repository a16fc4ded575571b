//! Keeping up with the files of a `tls` as long as a daemon runs.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::limits::TLS_LOOK;

/// What follows its files when it is told to look.
pub trait Follow: Send + Sync {
    /// Puts into force what has changed. Blocks.
    fn look(&self);
    /// As [`look`](Self::look), whether anything has changed or not. Blocks.
    fn reload(&self);
}

/// Lets `all` look at their files now and then, and whenever `asked` says so; never ends.
pub async fn follow(all: Vec<Arc<dyn Follow>>, asked: Arc<Notify>) {
    let all: Arc<[_]> = all.into();
    let mut ticks = interval(TLS_LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_asked = tokio::select! {
            () = asked.notified() => true,
            _ = ticks.tick(), if !all.is_empty() => false,
        };
        let all = Arc::clone(&all);
        let looking = spawn_blocking(move || {
            for one in &*all {
                if is_asked {
                    one.reload();
                } else {
                    one.look();
                }
            }
        });
        // One that panicked has said so; the next look is another one.
        let _ = looking.await;
    }
}
