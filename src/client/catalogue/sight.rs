//! Seeing files that are known already: by a scan under a path, or by a look at the link itself.

use super::state::Look;
use super::{Catalogue, Holding, disk, lock, new_event};
use crate::index::client::{ClientChange, ClientState};
use crate::index::{EventKind, IndexError};
use crate::sys::file::{self, FileStat};
use crate::types::{FileId, Shown};

/// What a found file is to the catalogue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sighting {
    /// An active file.
    Known(FileId),
    /// None yet: to be opened and adopted.
    New,
}

impl Catalogue {
    /// What the file that a scan has found at `path` is. A known one that changed since it was
    /// last seen is marked dirty; one whose source has moved (rotation) gets its new path.
    pub fn sight(
        &self,
        path: &[u8],
        pattern: &str,
        stat: &FileStat,
    ) -> Result<Sighting, IndexError> {
        let Some(id) = self.state().by_inode.get(&stat.inode).copied() else {
            return Ok(Sighting::New);
        };
        let Some(tracked) = self.tracked(id) else {
            return Ok(Sighting::New);
        };
        let device = self.state().devices.get(&stat.inode).copied();
        if device.is_some_and(|device| device != stat.device) {
            return Ok(Sighting::New);
        }
        if let Holding::Links(datadir, _) = &self.holding
            && matches!(disk::shows(datadir, &tracked.name, stat.inode), Ok(false))
        {
            // Removed from the datadir under us: a row alone proves nothing.
            self.end_without_link(id)?;
            return Ok(Sighting::New);
        }
        if tracked.source != path && !is_at(&tracked.source, stat) {
            self.moved(id, path);
        }
        if tracked.pattern.is_empty() {
            self.state().set_pattern(id, pattern);
        }
        self.look(id, stat);
        Ok(Sighting::Known(id))
    }

    /// Compares an active file with what it was when it was last looked at, and marks it dirty if
    /// it changed: what a lost or never sent notification would have done.
    pub(super) fn look(&self, id: FileId, stat: &FileStat) {
        let look = Look::of(stat);
        let mut state = self.state();
        let Some(entry) = state.files.get_mut(&id) else {
            return;
        };
        // The first look cannot know what happened since the file was opened last.
        let changed = entry.looked != Some(look);
        entry.looked = Some(look);
        drop(state);
        if changed {
            self.dirty.mark(id);
        }
    }

    /// Looks at the link of an active file, as [`sight`](Self::sight) does.
    pub fn look_again(&self, id: FileId) {
        let (Some(tracked), Holding::Links(datadir, _)) = (self.tracked(id), &self.holding) else {
            return;
        };
        if let Ok(Some(stat)) = datadir.stat(tracked.name.as_bytes())
            && stat.inode == tracked.inode
        {
            self.look(id, &stat);
        }
    }

    /// The source has another path now.
    pub(super) fn moved(&self, id: FileId, path: &[u8]) {
        let mut state = self.state();
        let Some(tracked) = state.set_source(id, path) else {
            return;
        };
        // One that no scan had found so far did not move.
        if !tracked.source.is_empty() {
            let (from, to) = (Shown(&tracked.source), Shown(path));
            let detail = format!("{from} is now {to}");
            tracing::info!("{}: {detail}", tracked.name);
            let event = new_event(EventKind::RenamedSource, &tracked.name, detail);
            state.unwritten.push(event);
        }
    }

    /// Ends a file whose link is gone; it is lost if a destination lacks bytes of it.
    pub(super) fn end_without_link(&self, id: FileId) -> Result<(), IndexError> {
        // A generation that is being closed has no link for a moment.
        let _naming = lock(&self.naming);
        let (Some(tracked), Holding::Links(datadir, watches)) = (self.tracked(id), &self.holding)
        else {
            return Ok(());
        };
        if !matches!(
            disk::shows(datadir, &tracked.name, tracked.inode),
            Ok(false)
        ) {
            return Ok(());
        }
        let row = self.index.file(id)?;
        if let Some(ClientState::Superseded { by }) = row.map(|row| row.state) {
            // Closed already; the link has moved, and an error came before the rest was done.
            if let Err(error) = self.hand_over(&tracked, by) {
                tracing::warn!("{}: {error}", tracked.name);
            }
            return Ok(());
        }
        let lacks = self.lacking(id, None);
        let end = if lacks.is_empty() {
            ClientState::Released
        } else {
            ClientState::Lost
        };
        let mut changes = vec![ClientChange::State(id, end)];
        for lack in &lacks {
            let detail = format!("its link is gone from the datadir; {lack}");
            tracing::error!("{}: {detail}", tracked.name);
            let event = new_event(EventKind::Lost, &tracked.name, detail);
            changes.push(ClientChange::Event(event));
        }
        self.commit(&changes)?;
        self.state().forget(id);
        watches.remove(id);
        Ok(())
    }
}

/// Whether the path still shows this inode.
pub(super) fn is_at(path: &[u8], stat: &FileStat) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
    file::stat_path(path).is_ok_and(|there| there.inode == stat.inode)
}
