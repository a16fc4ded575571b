//! Taking new files into the catalogue: link -> fsync of the directories -> commit -> active.
//!
//! Many links share one fsync a directory and one commit. A crash before the commit leaves links
//! without rows: orphans of the next start, which the scan that finds their inode brings in under
//! the name that the link has. An error leaves the same, in this very run.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use super::{Catalogue, DIRECTORY_MODE, Holding, lock, new_event};
use crate::config::rename::NameError;
use crate::index::client::{ClientChange, ClientState, NewFile, Times};
use crate::index::{EventKind, IndexError};
use crate::limits::ADOPT_BATCH;
use crate::sys::clock;
use crate::sys::dir::Dir;
use crate::sys::file::{File, FileStat};
use crate::types::{FileId, Inode, Shown, StableName};

/// `EPERM`, which the standard library does not tell from `EACCES`.
const EPERM: i32 = 1;

/// A file that a pattern selects and that is not in the catalogue.
pub struct Candidate {
    /// Where it was found.
    pub path: Vec<u8>,
    /// Name of the pattern.
    pub pattern: String,
    /// What it should be called.
    pub wanted: StableName,
    /// The file itself, opened.
    pub file: Arc<File>,
    /// What `file` is; from before it is linked, which changes ctime.
    pub stat: FileStat,
}

/// Why a file could not be taken in. It is tried again with each scan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// Not readable for us.
    #[error("cannot open: {0}; a client that is not root needs CAP_DAC_READ_SEARCH")]
    Unreadable(String),
    /// No name comes out.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Its path is no name that a destination takes.
    #[error("cannot be delivered under its path: {0}")]
    Path(String),
    /// EXDEV.
    #[error(
        "lies on another filesystem (or bind mount) than the datadir and cannot be linked; a second client with its datadir there can deliver it"
    )]
    OtherFilesystem,
    /// Two filesystems, one of them a copy of the other.
    #[error(
        "has the inode number and birth time of a file on another filesystem (a snapshot, or one without birth times) and cannot be told from it; deliver it to a directory of its own"
    )]
    SameInode,
    /// EMLINK.
    #[error("has as many links as its filesystem allows")]
    TooManyLinks,
    /// EPERM.
    #[error(
        "may not be linked: with fs.protected_hardlinks=1 a client that is not root needs CAP_FOWNER, and a file with chattr +a or +i cannot be linked at all"
    )]
    NotPermitted,
    /// Linking failed otherwise.
    #[error("cannot link: {0}")]
    Link(String),
    /// Making the link durable failed.
    #[error("cannot make its link durable: {0}")]
    Sync(String),
    /// The database.
    #[error("cannot record it: {0}")]
    Index(String),
    /// It vanished while it was looked at.
    #[error("is gone again")]
    Gone,
}

impl From<IndexError> for AdoptError {
    fn from(error: IndexError) -> Self {
        Self::Index(error.to_string())
    }
}

impl AdoptError {
    #[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
    fn of_link(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::CrossesDevices => Self::OtherFilesystem,
            io::ErrorKind::TooManyLinks => Self::TooManyLinks,
            _ if error.raw_os_error() == Some(EPERM) => Self::NotPermitted,
            _ => Self::Link(error.to_string()),
        }
    }
}

/// What became of one candidate.
pub struct Outcome {
    /// Where it was found.
    pub path: Vec<u8>,
    /// Name of the pattern.
    pub pattern: String,
    /// Its number, or why it has none.
    pub result: Result<FileId, AdoptError>,
}

impl Outcome {
    pub(super) fn of(candidate: Candidate, result: Result<FileId, AdoptError>) -> Self {
        Self {
            path: candidate.path,
            pattern: candidate.pattern,
            result,
        }
    }
}

/// What may be linked without a row.
pub(in crate::client) struct Orphan {
    /// Its inode.
    pub(in crate::client) inode: Inode,
    /// Where its source was found; empty for nowhere.
    pub(in crate::client) path: Vec<u8>,
    /// Name of the pattern.
    pub(in crate::client) pattern: String,
}

impl Orphan {
    /// One that no scan has found.
    pub(in crate::client) fn without_source(inode: Inode) -> Self {
        Self {
            inode,
            path: Vec::new(),
            pattern: String::new(),
        }
    }
}

/// A candidate with its link.
struct Linked {
    path: Vec<u8>,
    pattern: String,
    stat: FileStat,
    name: StableName,
    quiet: bool,
}

impl Catalogue {
    /// Takes a batch of candidates in. Whatever fails, the others go on; what a candidate lacks
    /// is tried again when it is found again.
    pub fn adopt(&self, batch: Vec<Candidate>) -> Vec<Outcome> {
        match &self.holding {
            Holding::Links(datadir, _) => self.adopt_linked(datadir, batch),
            Holding::Open { .. } => self.adopt_held(batch),
        }
    }

    /// Takes in the links without a row that no scan has found: their sources are gone or lie
    /// where no pattern looks, but what they hold may be delivered nowhere. For the end of the
    /// first whole scan.
    pub fn adopt_orphans(&self) {
        for batch in self.orphans().chunks(ADOPT_BATCH) {
            let batch = batch.iter().map(|inode| Orphan::without_source(*inode));
            for outcome in self.adopt_links(batch.collect(), false) {
                if let Err(error) = outcome.result {
                    tracing::warn!("a link in the datadir is not delivered: {error}");
                }
            }
        }
    }

    /// The inodes that are linked without a row.
    pub(in crate::client) fn orphans(&self) -> Vec<Inode> {
        self.state().orphans.keys().copied().collect()
    }

    /// Whether a link shows this inode, with a row or without.
    pub(in crate::client) fn is_linked(&self, inode: Inode) -> bool {
        let state = self.state();
        state.orphans.contains_key(&inode) || state.by_inode.contains_key(&inode)
    }

    /// Takes in those of the batch that are linked without a row; `quiet` for files that are no
    /// news.
    pub(in crate::client) fn adopt_links(&self, batch: Vec<Orphan>, quiet: bool) -> Vec<Outcome> {
        let Holding::Links(datadir, _) = &self.holding else {
            return Vec::new();
        };
        let _naming = lock(&self.naming);
        let mut taken = BTreeSet::new();
        let link = |orphan: Orphan| {
            let name = self.orphan(datadir, orphan.inode, &mut taken).ok()??;
            let stat = datadir.stat(name.as_bytes()).ok()??;
            Some(Linked {
                path: orphan.path,
                pattern: orphan.pattern,
                stat,
                name,
                quiet,
            })
        };
        let linked = batch.into_iter().filter_map(link).collect();
        self.take_in(datadir, linked)
    }

    fn adopt_linked(&self, datadir: &Dir, batch: Vec<Candidate>) -> Vec<Outcome> {
        let _naming = lock(&self.naming);
        let (mut linked, mut outcomes) = (Vec::new(), Vec::new());
        let mut inodes = HashSet::new();
        let mut taken = BTreeSet::new();
        for candidate in batch {
            // A second name of the same inode is no second file.
            if !inodes.insert(candidate.stat.inode) {
                continue;
            }
            // Taken in since it was met, as a generation that was being closed then.
            let known = self.state().by_inode.get(&candidate.stat.inode).copied();
            if let Some(id) = known {
                outcomes.push(Outcome::of(candidate, Ok(id)));
                continue;
            }
            match self.link(datadir, &candidate, &mut taken) {
                Ok(name) => linked.push(Linked {
                    path: candidate.path,
                    pattern: candidate.pattern,
                    stat: candidate.stat,
                    name,
                    quiet: false,
                }),
                Err(error) => outcomes.push(Outcome::of(candidate, Err(error))),
            }
        }
        outcomes.extend(self.take_in(datadir, linked));
        outcomes
    }

    /// Links a candidate under its name, or finds the link that an earlier attempt has left.
    fn link(
        &self,
        datadir: &Dir,
        candidate: &Candidate,
        taken: &mut BTreeSet<StableName>,
    ) -> Result<StableName, AdoptError> {
        if let Some(name) = self.orphan(datadir, candidate.stat.inode, taken)? {
            return Ok(name);
        }
        loop {
            let name = self.index.free_name(&candidate.wanted, taken)?;
            taken.insert(name.clone());
            let made = datadir.create_parents(name.as_bytes(), DIRECTORY_MODE);
            made.map_err(AdoptError::of_link)?;
            match datadir.link_file(&candidate.file, name.as_bytes()) {
                Ok(()) => return Ok(name),
                // A name on disk that no row knows: the next one.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(AdoptError::of_link(error)),
            }
        }
    }

    /// The name under which this inode is linked without a row.
    fn orphan(
        &self,
        datadir: &Dir,
        inode: Inode,
        taken: &mut BTreeSet<StableName>,
    ) -> Result<Option<StableName>, AdoptError> {
        let Some(name) = self.state().orphans.get(&inode).cloned() else {
            return Ok(None);
        };
        let there = datadir.stat(name.as_bytes());
        let there = there.map_err(AdoptError::of_link)?;
        if there.is_none_or(|stat| stat.inode != inode) {
            self.state().orphans.remove(&inode);
            return Ok(None);
        }
        // The name, or a directory on its way, may be that of another file, of long ago.
        let free = self.index.free_name(&name, taken)?;
        if free != name && self.recorded(&name, inode)?.is_none() {
            datadir
                .create_parents(free.as_bytes(), DIRECTORY_MODE)
                .and_then(|()| datadir.rename_noreplace(name.as_bytes(), free.as_bytes()))
                .map_err(AdoptError::of_link)?;
            self.state().orphans.insert(inode, free.clone());
            taken.insert(free.clone());
            return Ok(Some(free));
        }
        taken.insert(name.clone());
        Ok(Some(name))
    }

    /// Makes links durable, then their rows, then shows them to everybody.
    fn take_in(&self, datadir: &Dir, linked: Vec<Linked>) -> Vec<Outcome> {
        // Whatever fails from here on, the next scan must find the links that are there.
        let orphans = linked
            .iter()
            .map(|file| (file.stat.inode, file.name.clone()));
        self.state().orphans.extend(orphans);
        let taken_in = sync_directories(datadir, &linked)
            .map_err(|error| AdoptError::Sync(error.to_string()))
            .and_then(|()| Ok(self.commit_rows(&linked)?));
        let mut ids = taken_in.map(Vec::into_iter);
        let outcome = |file: Linked| Outcome {
            result: match &mut ids {
                Ok(ids) => ids.next().ok_or(AdoptError::Gone),
                Err(error) => Err(error.clone()),
            },
            path: file.path,
            pattern: file.pattern,
        };
        linked.into_iter().map(outcome).collect()
    }

    /// One number for each file, in their order.
    fn commit_rows(&self, linked: &[Linked]) -> Result<Vec<FileId>, IndexError> {
        let (mut ids, mut changes) = (Vec::new(), Vec::new());
        for file in linked {
            let recorded = self.recorded(&file.name, file.stat.inode)?;
            let id = if let Some(id) = recorded {
                id
            } else {
                let id = self.index.allocate();
                changes.push(ClientChange::Adopt {
                    id,
                    file: file.row(),
                });
                if !file.quiet {
                    let detail = Shown(&file.path).to_string();
                    let event = new_event(EventKind::Discovered, &file.name, detail);
                    changes.push(ClientChange::Event(event));
                }
                id
            };
            ids.push(id);
        }
        if !changes.is_empty() {
            self.commit(&changes)?;
        }
        for (id, file) in ids.iter().zip(linked) {
            if let Some(row) = self.index.file(*id)? {
                self.state().orphans.remove(&file.stat.inode);
                self.activate(*id, row, None);
                file.announce();
            }
        }
        Ok(ids)
    }

    /// The row of an earlier attempt whose commit succeeded although it said otherwise.
    fn recorded(&self, name: &StableName, inode: Inode) -> Result<Option<FileId>, IndexError> {
        let Some(id) = self.index.by_name(name)? else {
            return Ok(None);
        };
        let row = self.index.file(id)?;
        Ok(row
            .filter(|row| row.inode == inode && row.state == ClientState::Active)
            .map(|_| id))
    }
}

/// The times of a file as they are stored.
pub(super) fn times(stat: &FileStat) -> Times {
    Times {
        mtime: stat.mtime,
        ctime: stat.ctime,
    }
}

impl Linked {
    fn announce(&self) {
        if self.quiet {
            // No news.
        } else if self.path.is_empty() {
            tracing::info!("{}: a link without a known source, delivered", self.name);
        } else {
            tracing::info!("{}: found, delivered as {}", Shown(&self.path), self.name);
        }
    }

    fn row(&self) -> NewFile {
        NewFile {
            inode: self.stat.inode,
            generation: 1,
            name: self.name.clone(),
            source: self.path.clone(),
            pattern: self.pattern.clone(),
            discovered: clock::now(),
            length: self.stat.size,
            times: times(&self.stat),
        }
    }
}

/// fsyncs every directory on the way to the new links once, from the root down.
fn sync_directories(datadir: &Dir, linked: &[Linked]) -> io::Result<()> {
    let mut directories = BTreeSet::new();
    for file in linked {
        let name = file.name.as_bytes();
        let slashes = name.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        directories.extend(slashes.map(|(end, _)| &name[..end]));
    }
    if linked.is_empty() {
        return Ok(());
    }
    datadir.sync_root()?;
    for directory in directories {
        datadir.sync_dir(directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_file_from_being_linked_is_told_apart() {
        let of = |number| AdoptError::of_link(io::Error::from_raw_os_error(number));
        let [eperm, exdev, emlink, eio] = [1, 18, 31, 5].map(of);
        assert_eq!(eperm, AdoptError::NotPermitted);
        assert_eq!(exdev, AdoptError::OtherFilesystem);
        assert_eq!(emlink, AdoptError::TooManyLinks);
        assert!(matches!(eio, AdoptError::Link(_)));
    }
}
