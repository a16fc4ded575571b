//! Closing a generation: the same inode goes on under a new number and the next free name.
//!
//! Order: commit (old closed, new number, intended name) -> rename the link -> fsync -> commit
//! (rename done) -> active. A crash before the first commit leaves the old generation, whose
//! change is found again; one behind it leaves a row that says `Renaming`, which the next start
//! finishes whether or not the link has moved.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::disk::shows;
use super::{Catalogue, Holding, Tracked, lock, new_event};
use crate::index::client::{ClientChange, ClientFile, ClientState, DestinationId, NewFile, Times};
use crate::index::{EventKind, IndexError};
use crate::sys::clock;
use crate::sys::dir::Dir;
use crate::types::{FileId, Inode, Offset, Shown, StableName};

/// Why a generation ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closing {
    /// The file is not any more what was confirmed of it: what a destination lacks is lost.
    Changed,
    /// The file is whole, but somebody else's bytes stand at its name: all of it is delivered
    /// under the next name, and nothing is lost.
    NameTaken,
}

/// Why a generation could not be closed; to be tried again.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The file is neither active nor was followed by another generation.
    #[error("no active file {0}")]
    Unknown(FileId),
    /// The database.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The link could not be moved to its new name.
    #[error("cannot rename the link {from} to {to}: {source}")]
    Rename {
        /// Name of the generation that ends.
        from: StableName,
        /// Name of the one that follows.
        to: StableName,
        /// What the system said.
        source: io::Error,
    },
}

impl Catalogue {
    /// Closes the active generation `id` for all destinations; `why` is for people. Gives the
    /// generation that follows, which is active and marked dirty everywhere when this returns;
    /// when somebody else was faster, theirs. `told` is what the destination that closes it says.
    pub fn supersede(
        &self,
        id: FileId,
        closing: Closing,
        why: &str,
        told: Option<Told>,
    ) -> Result<FileId, GenerationError> {
        let _naming = lock(&self.naming);
        let row = self.index.file(id)?.ok_or(GenerationError::Unknown(id))?;
        let Some(old) = self.tracked(id) else {
            return match row.state {
                ClientState::Superseded { by } => Ok(by),
                _ => Err(GenerationError::Unknown(id)),
            };
        };
        let new = match row.state {
            // An earlier attempt came as far as its commit.
            ClientState::Superseded { by } => by,
            _ => self.close(&old, closing, why, told)?,
        };
        self.hand_over(&old, new)?;
        Ok(new)
    }

    /// What follows the commit that closed `old`. After an error it is to be called again.
    pub(super) fn hand_over(&self, old: &Tracked, new: FileId) -> Result<(), GenerationError> {
        let row = self.index.file(new)?.ok_or(GenerationError::Unknown(new))?;
        self.move_link(&old.name, &row.name, row.inode)?;
        self.commit(&[ClientChange::FinishRename(new)])?;
        self.replace(old.id, new, row);
        Ok(())
    }

    /// The commit that ends `old`; the number of what follows.
    fn close(
        &self,
        old: &Tracked,
        closing: Closing,
        why: &str,
        told: Option<Told>,
    ) -> Result<FileId, GenerationError> {
        let name = self.next_name(old)?;
        let detail = format!("{why}; goes on as {name}");
        let mut changes = vec![ClientChange::Event(new_event(
            EventKind::Superseded,
            &old.name,
            detail.as_str(),
        ))];
        let lost = match closing {
            Closing::Changed => self.lacking(old.id, told),
            Closing::NameTaken => Vec::new(),
        };
        changes.extend(lost.iter().map(|lack| {
            ClientChange::Event(new_event(EventKind::Lost, &old.name, lack.to_string()))
        }));
        let id = self.index.allocate();
        changes.push(ClientChange::Supersede {
            old: old.id,
            id,
            file: NewFile {
                inode: old.inode,
                generation: old.generation.saturating_add(1),
                name,
                source: old.source.clone(),
                pattern: old.pattern.clone(),
                discovered: clock::now(),
                length: Offset::ZERO,
                times: Times::default(),
            },
        });
        // The same bytes under another name.
        let volatile = match closing {
            Closing::Changed => Vec::new(),
            Closing::NameTaken => self.volatile_of(old.id),
        };
        if !volatile.is_empty() {
            changes.push(ClientChange::Volatile(id, volatile.clone()));
        }
        self.commit(&changes)?;
        self.inherit_volatile(id, volatile);
        let mut line = vec![detail];
        line.extend(lost.iter().map(|lack| format!("lost: {lack}")));
        tracing::warn!("{} ({}): {}", old.name, Shown(&old.source), line.join("; "));
        Ok(id)
    }

    /// What each configured destination lacks of an active file, as far as it is known.
    pub(super) fn lacking(&self, id: FileId, told: Option<Told>) -> Vec<Lack> {
        let state = self.state();
        let Some(entry) = state.files.get(&id) else {
            return Vec::new();
        };
        let end = entry.largest().map_or(entry.length, |(_, progress)| {
            entry.length.max(progress.confirmed.length)
        });
        let lacks = self.destinations.iter().map(|(destination, url)| {
            let told = told.filter(|told| told.destination == *destination);
            let confirmed = entry.confirmed(*destination);
            Lack {
                url: url.clone(),
                from: told.map_or(confirmed, |told| told.holds.max(confirmed)),
                end,
                told: told.is_some(),
            }
        });
        lacks.filter(|lack| lack.from < lack.end).collect()
    }

    /// The next free name: the first generation's with a number.
    fn next_name(&self, old: &Tracked) -> Result<StableName, GenerationError> {
        let wanted = match old.generation {
            0 | 1 => old.name.clone(),
            _ => without_number(&old.name),
        };
        let mut taken = BTreeSet::new();
        loop {
            let name = self.index.free_name(&wanted, &taken)?;
            if let Holding::Links(datadir, _) = &self.holding {
                let there = datadir.stat(name.as_bytes());
                let there = there.map_err(|source| GenerationError::Rename {
                    from: old.name.clone(),
                    to: name.clone(),
                    source,
                })?;
                if there.is_some() {
                    taken.insert(name);
                    continue;
                }
            }
            return Ok(name);
        }
    }

    /// Brings the link from its old name to its new one, durably, if it is not there already.
    pub(super) fn move_link(
        &self,
        from: &StableName,
        to: &StableName,
        inode: Inode,
    ) -> Result<(), GenerationError> {
        let Holding::Links(datadir, _) = &self.holding else {
            return Ok(());
        };
        rename(datadir, from, to, inode).map_err(|source| GenerationError::Rename {
            from: from.clone(),
            to: to.clone(),
            source,
        })
    }

    /// The one step that everybody sees.
    fn replace(&self, old: FileId, new: FileId, row: ClientFile) {
        if let Holding::Open { held, .. } = &self.holding {
            let mut held = lock(held);
            if let Some(file) = held.remove(&old) {
                held.insert(new, Arc::clone(&file));
            }
        }
        self.activate(new, row, Some(old));
    }
}

/// Renames durably; done already is done. Nothing is ever replaced.
fn rename(datadir: &Dir, from: &StableName, to: &StableName, inode: Inode) -> io::Result<()> {
    if !shows(datadir, to, inode)? {
        if !shows(datadir, from, inode)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        datadir.create_parents(to.as_bytes(), super::DIRECTORY_MODE)?;
        datadir.rename_noreplace(from.as_bytes(), to.as_bytes())?;
    }
    datadir.sync_chain(to.as_bytes())?;
    datadir.sync_chain(from.as_bytes())
}

/// What a destination said when it was asked how much it has of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// Which.
    pub destination: DestinationId,
    /// Bytes that it vouches for.
    pub holds: Offset,
}

/// Bytes that one destination never got, or of which nobody knows that it did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lack {
    url: String,
    from: Offset,
    end: Offset,
    /// The destination was asked.
    told: bool,
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            url,
            from,
            end,
            told,
        } = self;
        // What is on its way, or was confirmed just before a crash, may be there all the same.
        let verdict = if *told {
            "never reached"
        } else {
            "were never confirmed by"
        };
        write!(f, "bytes {from} to {end} {verdict} {url}")
    }
}

/// The name before a generation's number was added to it.
fn without_number(name: &StableName) -> StableName {
    let bytes = name.as_bytes();
    let digits = bytes.iter().rev().take_while(|byte| byte.is_ascii_digit());
    let end = bytes.len() - digits.count();
    let base = match bytes[..end] {
        [ref base @ .., b'.'] if end < bytes.len() => base,
        _ => bytes,
    };
    StableName::parse(base).unwrap_or_else(|_| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_number_is_taken_off_again() {
        for (name, base) in [
            ("log.1700.1", "log.1700"),
            ("log.12", "log"),
            ("log", "log"),
            ("log.", "log."),
            ("12", "12"),
            ("a/.1", "a/.1"),
        ] {
            let name = StableName::parse(name).unwrap();
            assert_eq!(without_number(&name), StableName::parse(base).unwrap());
        }
    }
}
