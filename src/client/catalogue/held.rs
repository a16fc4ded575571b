//! Files held by open descriptors for the time of one run, where nothing may be linked.
//!
//! Between two runs nothing pins an inode, so a row is believed only after a look at the file:
//! inode and birth time equal, size not below C, head and seam as they were; and where that cannot
//! tell (the times moved while the size is C, or the path is another), the whole prefix hashed
//! again. A file that is not what its row says is a new generation, or a new file.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::adopt::{AdoptError, Candidate, Outcome, times};
use super::state::Entry;
use super::{Catalogue, Closing, Holding, lock, new_event};
use crate::client::source::{ReadError, Source};
use crate::index::EventKind;
use crate::index::client::{ClientChange, ClientFile, ClientState, NewFile};
use crate::sys::clock;
use crate::sys::file::{File, FileStat};
use crate::types::{FileId, Shown, StableName};

impl Catalogue {
    /// Takes candidates in for this run, each under the number that it had or a new one.
    pub(super) fn adopt_held(&self, batch: Vec<Candidate>) -> Vec<Outcome> {
        let mut inodes = HashSet::new();
        let (mut outcomes, mut new) = (Vec::new(), Vec::new());
        for candidate in batch {
            let (inode, device) = (candidate.stat.inode, candidate.stat.device);
            let first = *self.state().devices.entry(inode).or_insert(device);
            if first != device {
                let error = Err(AdoptError::SameInode);
                outcomes.push(Outcome::of(candidate, error));
                continue;
            }
            // A second name of the same inode is no second file.
            if !inodes.insert(candidate.stat.inode) {
                continue;
            }
            let result = match self.row_of(&candidate.stat) {
                Ok(None) => {
                    new.push(candidate);
                    continue;
                }
                Ok(Some((id, row))) => self.hold_known(&candidate, id, row),
                Err(error) => Err(error),
            };
            // Known or refused, the descriptor was cloned if it is needed.
            outcomes.push(Outcome::of(candidate, result));
        }
        outcomes.extend(self.hold_new(new));
        outcomes
    }

    /// New files: one commit for all of them.
    fn hold_new(&self, new: Vec<Candidate>) -> Vec<Outcome> {
        let _naming = lock(&self.naming);
        let (mut outcomes, mut named) = (Vec::new(), Vec::new());
        let (mut taken, mut changes) = (BTreeSet::new(), Vec::new());
        for candidate in new {
            match self.free_path(&candidate, &taken) {
                Ok(name) => {
                    taken.insert(name.clone());
                    let id = self.index.allocate();
                    let detail = Shown(&candidate.path).to_string();
                    let event = new_event(EventKind::Discovered, &name, detail);
                    let file = new_row(&candidate, name);
                    changes.push(ClientChange::Adopt { id, file });
                    changes.push(ClientChange::Event(event));
                    named.push((id, candidate));
                }
                Err(error) => outcomes.push(Outcome::of(candidate, Err(error))),
            }
        }
        let committed = self.commit(&changes).map_err(AdoptError::from);
        for (id, candidate) in named {
            let result = committed.clone().and_then(|()| {
                let row = self.index.file(id)?.ok_or(AdoptError::Gone)?;
                self.keep(id, Arc::clone(&candidate.file));
                self.activate(id, row, None);
                Ok(id)
            });
            outcomes.push(Outcome::of(candidate, result));
        }
        outcomes
    }

    /// A file whose inode has a row.
    fn hold_known(
        &self,
        candidate: &Candidate,
        id: FileId,
        row: ClientFile,
    ) -> Result<FileId, AdoptError> {
        let (path, stat) = (&candidate.path, &candidate.stat);
        let source = Source::checked(Arc::clone(&candidate.file), stat.inode)
            .map_err(|error| AdoptError::Unreadable(error.to_string()))?;
        let source = self.overlaid(source, id, &candidate.pattern);
        if row.state != ClientState::Active {
            self.commit(&[ClientChange::FinishRename(id)])?;
        }
        let moved = row.source != *path;
        let in_doubt = moved || row.times != times(stat);
        let entry = self.known(id, row)?;
        let changed = changed(&source, &entry, in_doubt, moved)?;
        self.keep(id, Arc::clone(&candidate.file));
        {
            let mut state = self.state();
            state.by_inode.insert(stat.inode, id);
            state.files.insert(id, entry);
        }
        if moved {
            self.moved(id, path);
        }
        if let Some(why) = changed {
            let next = self.supersede(id, Closing::Changed, why, None);
            return next.map_err(|error| AdoptError::Index(error.to_string()));
        }
        self.state().unwritten.times.insert(id, times(stat));
        self.dirty.mark(id);
        Ok(id)
    }

    /// The row of the active generation of this inode.
    fn row_of(&self, stat: &FileStat) -> Result<Option<(FileId, ClientFile)>, AdoptError> {
        let Some(id) = self.index.by_inode(&stat.inode)? else {
            return Ok(None);
        };
        let row = self.index.file(id)?;
        Ok(row
            .filter(|row| {
                // No link is to be renamed here: only the last commit of a closing is missing.
                matches!(
                    row.state,
                    ClientState::Active | ClientState::Renaming { .. }
                )
            })
            .map(|row| (id, row)))
    }

    /// The entry of a row, with what is confirmed of it.
    fn known(&self, id: FileId, row: ClientFile) -> Result<Entry, AdoptError> {
        let mut entry = Entry::recalled(id, row);
        for (destination, _) in &self.destinations {
            if let Some(progress) = self.index.progress(*destination, id)? {
                entry.recall(*destination, Arc::new(progress));
            }
        }
        Ok(entry)
    }

    /// The path as a name; for a later inode at a path that had another, with its time.
    fn free_path(
        &self,
        candidate: &Candidate,
        taken: &BTreeSet<StableName>,
    ) -> Result<StableName, AdoptError> {
        let wanted = &candidate.wanted;
        let free = self.index.free_name(wanted, taken)?;
        if free == *wanted {
            return Ok(free);
        }
        let milliseconds = candidate.stat.mtime.div_euclid(1_000_000);
        let mut dated = wanted.as_bytes().to_vec();
        dated.extend(format!(".{milliseconds}").bytes());
        match StableName::parse(dated) {
            Ok(dated) => Ok(self.index.free_name(&dated, taken)?),
            // Too long: a number is shorter.
            Err(_) => Ok(free),
        }
    }

    /// Keeps a descriptor open for this run, as long as there are enough of them.
    fn keep(&self, id: FileId, file: Arc<File>) {
        if let Holding::Open { held, most } = &self.holding {
            let mut held = lock(held);
            if held.len() < *most {
                held.insert(id, file);
            }
        }
    }
}

fn new_row(candidate: &Candidate, name: StableName) -> NewFile {
    NewFile {
        inode: candidate.stat.inode,
        generation: 1,
        name,
        source: candidate.path.clone(),
        pattern: candidate.pattern.clone(),
        discovered: clock::now(),
        length: candidate.stat.size,
        times: times(&candidate.stat),
    }
}

/// How one sees that a file is not any more what was confirmed of it. `in_doubt`: its times or its
/// path moved.
fn changed(
    source: &Source,
    entry: &Entry,
    in_doubt: bool,
    moved: bool,
) -> Result<Option<&'static str>, AdoptError> {
    let Some((_, progress)) = entry.largest() else {
        return Ok(None);
    };
    let length = progress.confirmed.length;
    let look = || -> Result<bool, ReadError> {
        let whole = moved || (in_doubt && source.size()? == length);
        Ok(source.seam(length)? == progress.seam
            && (!whole || source.hash_prefix(None, length)?.hash() == progress.confirmed.hash))
    };
    match look() {
        Ok(true) => Ok(None),
        Ok(false) => Ok(Some("its bytes differ from what was delivered")),
        Err(ReadError::Short { .. }) => Ok(Some("it is shorter than what was delivered")),
        Err(error) => Err(AdoptError::Unreadable(error.to_string())),
    }
}
