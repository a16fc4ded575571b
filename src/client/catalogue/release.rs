//! Letting go of a link: mark -> unlink -> fsync -> finish.
//!
//! A crash behind the mark leaves a row that says `Releasing`. Where its link is still there,
//! nothing has happened and the file is active again; where it is gone, all that was to happen has.
//! The row stays for ever, and with it the name.

use std::io;

use super::{Catalogue, Holding, lock, new_event};
use crate::index::client::{ClientChange, ClientFile, ClientState, Hold};
use crate::index::{EventKind, IndexError};
use crate::sys::file::FileStat;
use crate::types::{FileId, StableName};

/// Why a link could not be let go of; it is still there, or gone with its row saying so.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The database.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The datadir.
    #[error("cannot remove the link {name}: {source}")]
    Unlink {
        /// The link.
        name: StableName,
        /// What the system said.
        source: io::Error,
    },
}

/// How the name of an active file stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkSeen {
    /// What the link shows.
    pub stat: FileStat,
    /// The source is still where it was last seen.
    pub source_there: bool,
}

impl Catalogue {
    /// What the link of an active file shows, if it still shows that file.
    pub fn see_link(&self, id: FileId) -> Option<LinkSeen> {
        let (tracked, Holding::Links(datadir, _)) = (self.tracked(id)?, &self.holding) else {
            return None;
        };
        let stat = datadir.stat(tracked.name.as_bytes()).ok()??;
        if stat.inode != tracked.inode {
            return None;
        }
        let source_there = stat.links > 1 && super::sight::is_at(&tracked.source, &stat);
        Some(LinkSeen { stat, source_there })
    }

    /// Bytes that may still be written where the links lie.
    pub fn free_bytes(&self) -> io::Result<u64> {
        match &self.holding {
            Holding::Links(datadir, _) => datadir.free_bytes(),
            Holding::Open { .. } => Ok(u64::MAX),
        }
    }

    /// Removes the link of an active file of which every destination has everything, and forgets
    /// the file; `detail` says on what grounds. False when it is not any more what `seen` says.
    pub fn release(&self, id: FileId, seen: &FileStat, detail: &str) -> Result<bool, ReleaseError> {
        let _naming = lock(&self.naming);
        let (Some(tracked), Holding::Links(datadir, watches)) = (self.tracked(id), &self.holding)
        else {
            return Ok(false);
        };
        let name = tracked.name.as_bytes();
        let unlink = |source| ReleaseError::Unlink {
            name: tracked.name.clone(),
            source,
        };
        let now = datadir.stat(name).map_err(unlink)?;
        let same = now.is_some_and(|now| now.links == 1 && is_untouched(&now, seen));
        if !same {
            return Ok(false);
        }
        // What was confirmed is durable before the bytes are gone.
        self.flush()?;
        self.commit(&[ClientChange::State(id, ClientState::Releasing)])?;
        if let Err(source) = datadir.unlink(name) {
            self.commit(&[ClientChange::State(id, ClientState::Active)])?;
            return Err(unlink(source));
        }
        datadir.sync_chain(name).map_err(unlink)?;
        self.commit(&released(id, &tracked.name, detail))?;
        self.state().forget(id);
        watches.remove(id);
        tracing::info!("{}: released: {detail}", tracked.name);
        Ok(true)
    }

    /// Stores how long files have been quiet.
    pub fn hold(&self, holds: Vec<(FileId, Option<Hold>)>) -> Result<(), IndexError> {
        let changes: Vec<_> = holds
            .into_iter()
            .map(|(id, hold)| ClientChange::Hold(id, hold))
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        self.commit(&changes)
    }

    /// The files whose copies are all that there is of them: those that were let go of, and closed
    /// generations.
    pub fn ended(&self) -> Result<Vec<FileId>, IndexError> {
        const PAGE: usize = 1024;
        let mut ended = Vec::new();
        let mut after = None;
        loop {
            let page = self.index.files(after, PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(ended);
            };
            after = Some(*last);
            let rows = page.into_iter();
            ended.extend(
                rows.filter(|(_, row)| row.state.has_ended())
                    .map(|(id, _)| id),
            );
        }
    }
}

/// Whether the file is as it was seen: any write and any change of its names moves a time.
pub(in crate::client) fn is_untouched(now: &FileStat, seen: &FileStat) -> bool {
    now.inode == seen.inode
        && now.size == seen.size
        && now.mtime == seen.mtime
        && now.ctime == seen.ctime
}

/// What a start makes of a row that says `Releasing`.
pub(super) fn after_a_crash(id: FileId, row: &ClientFile, held: bool) -> Vec<ClientChange> {
    if held {
        vec![ClientChange::State(id, ClientState::Active)]
    } else {
        released(id, &row.name, "finished after a crash")
    }
}

fn released(id: FileId, name: &StableName, detail: &str) -> Vec<ClientChange> {
    vec![
        ClientChange::State(id, ClientState::Released),
        ClientChange::Hold(id, None),
        ClientChange::Event(new_event(EventKind::Released, name, detail)),
    ]
}
