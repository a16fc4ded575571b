//! From notifications to paths that are worth a look.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use notify::event::{EventKind, ModifyKind, RenameMode};
use tokio::sync::Notify;

use crate::limits::MAIL_PATHS;

/// Paths that notifications tell of, until they are looked at. Bounded: too many of them are a
/// scan of everything.
#[derive(Default)]
pub struct Mail {
    pub(super) post: Mutex<Post>,
    arrived: Notify,
}

#[derive(Default)]
pub(super) struct Post {
    pub(super) paths: BTreeSet<PathBuf>,
    pub(super) everything: bool,
}

impl Mail {
    /// Returns when there may be something to look at.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    pub(super) fn heard(&self, event: notify::Result<notify::Event>) {
        match event {
            Ok(event) if event.need_rescan() => self.put(Vec::new(), true),
            Ok(event) if tells_of_names(event.kind) => self.put(event.paths, false),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "directory notifications failed; scanning");
                self.put(Vec::new(), true);
            }
        }
    }

    pub(super) fn put(&self, paths: Vec<PathBuf>, everything: bool) {
        let mut post = self.post.lock().unwrap_or_else(PoisonError::into_inner);
        post.paths.extend(paths);
        post.everything |= everything || post.paths.len() > MAIL_PATHS;
        if post.everything {
            post.paths.clear();
        }
        drop(post);
        self.arrived.notify_one();
    }

    pub(super) fn take(&self) -> Post {
        std::mem::take(&mut *self.post.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a name appeared: what is written to known files is no news here.
fn tells_of_names(kind: EventKind) -> bool {
    match kind {
        EventKind::Create(_) => true,
        EventKind::Modify(ModifyKind::Name(mode)) => mode != RenameMode::From,
        _ => false,
    }
}
