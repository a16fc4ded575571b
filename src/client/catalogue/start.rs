//! Opening the catalogue: rows and links brought together again after whatever ended the last run.
//!
//! * A row and its link: active.
//! * A row whose rename is unfinished: finished, whether or not the link has moved.
//! * A row without a link: lost if a destination lacks bytes of it, else let go of.
//! * A link whose row says that it is gone: active again.
//! * A link without a row: kept as an *orphan*, until the first scan has told its pattern.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::generation::GenerationError;
use super::state::{Entry, State};
use super::{Catalogue, Holding, disk, release};
use crate::client::dirty::Dirty;
use crate::client::watch::Watches;
use crate::config::Destination;
use crate::index::IndexError;
use crate::index::client::{ClientChange, ClientFile, ClientIndex, ClientState};
use crate::sys::datadir;
use crate::sys::dir::Dir;
use crate::sys::file::FileKind;
use crate::types::{FileId, Inode, Shown, StableName};

/// Rows read at once.
const PAGE: usize = 1024;

/// Why a catalogue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A rename that a crash had interrupted could not be finished.
    #[error(transparent)]
    Rename(#[from] GenerationError),
    /// The datadir could not be read or written.
    #[error("{}: {source}", Shown(datadir.as_os_str().as_encoded_bytes()))]
    Datadir {
        /// The datadir.
        datadir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn at(datadir: &Dir, source: io::Error) -> StartError {
    StartError::Datadir {
        datadir: datadir.path().to_owned(),
        source,
    }
}

impl Catalogue {
    /// A catalogue that holds its sources by links in a locked `datadir`; `destinations`
    /// are the configured ones. Every active file is watched and marked dirty.
    pub fn with_links(
        datadir: Dir,
        index: ClientIndex,
        destinations: &[Destination],
        dirty: Arc<Dirty>,
        watches: Arc<Watches>,
    ) -> Result<Self, StartError> {
        let holding = Holding::Links(datadir, watches);
        let catalogue = Self::new(holding, index, destinations, dirty)?;
        let mut missing = catalogue.load_rows()?;
        catalogue.rebind(&mut missing)?;
        catalogue.find_orphans()?;
        catalogue.load_progress()?;
        catalogue.give_up(&missing)?;
        for id in catalogue.active() {
            if let Some(tracked) = catalogue.tracked(id) {
                catalogue.watch(id, &tracked.name);
            }
            catalogue.dirty.mark(id);
        }
        Ok(catalogue)
    }

    /// A catalogue that holds its sources by at most `most` open descriptors; `destinations` as
    /// above.
    /// Nothing is active before it is found.
    pub fn with_descriptors(
        index: ClientIndex,
        destinations: &[Destination],
        dirty: Arc<Dirty>,
        most: usize,
    ) -> Result<Self, StartError> {
        let held = Mutex::default();
        Self::new(Holding::Open { held, most }, index, destinations, dirty)
    }

    fn new(
        holding: Holding,
        index: ClientIndex,
        destinations: &[Destination],
        dirty: Arc<Dirty>,
    ) -> Result<Self, StartError> {
        let mut rows = Vec::new();
        let mut since = HashMap::new();
        for destination in destinations {
            let (id, row) = index.destination(&destination.to_string())?;
            rows.push((id, destination.name()));
            since.insert(id, row.since);
        }
        let catalogue = Self {
            index: Arc::new(index),
            holding,
            dirty,
            destinations: rows,
            since,
            state: Mutex::new(State::default()),
            volatile: HashMap::new(),
            naming: Mutex::default(),
            flushing: Mutex::default(),
        };
        catalogue.load_volatile()?;
        Ok(catalogue)
    }

    /// Fills the memory; gives the files whose link is gone.
    fn load_rows(&self) -> Result<HashSet<FileId>, StartError> {
        let mut missing = HashSet::new();
        let mut after = None;
        loop {
            let page = self.index.files(after, PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(missing);
            };
            after = Some(*last);
            for (id, row) in page {
                if !self.is_held(id, &row)? {
                    continue;
                }
                if !self.shows(&row.name, row.inode)? {
                    missing.insert(id);
                }
                let mut state = self.state();
                state.by_inode.insert(row.inode, id);
                state.files.insert(id, Entry::recalled(id, row));
            }
        }
    }

    /// Whether the row says that there is a link; an unfinished rename is finished first.
    fn is_held(&self, id: FileId, row: &ClientFile) -> Result<bool, StartError> {
        match &row.state {
            ClientState::Active => Ok(true),
            ClientState::Renaming { from } => {
                if self.shows(from, row.inode)? || self.shows(&row.name, row.inode)? {
                    self.move_link(from, &row.name, row.inode)?;
                    self.commit(&[ClientChange::FinishRename(id)])?;
                    tracing::info!("{}: finished the rename from {from}", row.name);
                }
                Ok(true)
            }
            ClientState::Releasing => {
                let held = self.shows(&row.name, row.inode)?;
                self.commit(&release::after_a_crash(id, row, held))?;
                Ok(held)
            }
            ClientState::Superseded { .. } | ClientState::Lost | ClientState::Released => Ok(false),
        }
    }

    fn load_progress(&self) -> Result<(), StartError> {
        for (destination, _) in &self.destinations {
            let mut after = None;
            loop {
                let page = self.index.progress_page(*destination, after, PAGE)?;
                let Some((last, _)) = page.last() else {
                    break;
                };
                after = Some(*last);
                let mut state = self.state();
                for (id, progress) in page {
                    if let Some(entry) = state.files.get_mut(&id) {
                        entry.recall(*destination, Arc::new(progress));
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends the files whose link is gone.
    fn give_up(&self, missing: &HashSet<FileId>) -> Result<(), StartError> {
        for &id in missing {
            self.end_without_link(id)?;
        }
        Ok(())
    }

    /// Looks at every link of the datadir for those that no active row explains.
    fn find_orphans(&self) -> Result<(), StartError> {
        let Holding::Links(datadir, _) = &self.holding else {
            return Ok(());
        };
        let mut unexplained = Vec::new();
        let visited = datadir::visit(datadir, |path, kind| {
            if kind == FileKind::Regular
                && let Ok(name) = StableName::parse(path)
            {
                unexplained.extend(self.unexplained(datadir, name));
            }
            Ok(true)
        });
        visited.map_err(|source| at(datadir, source))?;
        for (name, inode) in unexplained {
            self.explain(name, inode)?;
        }
        Ok(())
    }

    /// The name with its inode, unless it is the link of an active file.
    fn unexplained(&self, datadir: &Dir, name: StableName) -> Option<(StableName, Inode)> {
        let inode = datadir.stat(name.as_bytes()).ok()??.inode;
        let state = self.state();
        let known = state.by_inode.get(&inode);
        let owner = known.and_then(|id| state.files.get(id));
        owner
            .is_none_or(|entry| entry.tracked.name != name)
            .then_some((name, inode))
    }

    fn explain(&self, name: StableName, inode: Inode) -> Result<(), StartError> {
        if let Some(owner) = self.owner(inode)? {
            tracing::warn!(
                "{name} in the datadir is a second link of {owner}; not delivered again"
            );
            return Ok(());
        }
        let Some(id) = self.index.by_name(&name)? else {
            self.state().orphans.insert(inode, name);
            return Ok(());
        };
        match self.index.file(id)? {
            Some(row)
                if row.inode == inode
                    && matches!(row.state, ClientState::Lost | ClientState::Released) =>
            {
                tracing::info!("{name}: its link is back");
                self.commit(&[ClientChange::State(id, ClientState::Active)])?;
                let mut state = self.state();
                state.by_inode.insert(inode, id);
                state.files.insert(id, Entry::recalled(id, row));
            }
            _ => {
                tracing::warn!(
                    "{name} in the datadir is not the file that had this name: delivered under the next one"
                );
                self.state().orphans.insert(inode, name);
            }
        }
        Ok(())
    }

    /// The name under which an active file holds this inode.
    fn owner(&self, inode: Inode) -> Result<Option<StableName>, StartError> {
        let id = self.state().by_inode.get(&inode).copied();
        let Some(owner) = id.and_then(|id| self.tracked(id)) else {
            return Ok(None);
        };
        let held = self.shows(&owner.name, inode)?;
        Ok(held.then(|| owner.name.clone()))
    }

    /// Whether the link `name` shows this inode now.
    fn shows(&self, name: &StableName, inode: Inode) -> Result<bool, StartError> {
        match &self.holding {
            Holding::Links(datadir, _) => {
                disk::shows(datadir, name, inode).map_err(|source| at(datadir, source))
            }
            Holding::Open { .. } => Ok(false),
        }
    }
}
