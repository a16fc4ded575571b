//! Files that were restored from a copy: the name in the datadir shows an inode that its row does
//! not know. When its content hashes to what was confirmed, the row gets that inode and delivery
//! goes on. Otherwise the row's file is gone, and what is there is a new one.
//!
//! A restore without hard links makes two copies, one under the source's path. That one is the file
//! that a program goes on writing: the name is given to it, if it has all that the other has.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use super::state::Entry;
use super::{Catalogue, Holding, disk};
use crate::client::source::{ReadError, Source};
use crate::index::client::{ClientChange, ClientFile};
use crate::index::{EventKind, IndexError};
use crate::sys::dir::{Access, Dir};
use crate::sys::file::{self, File, FileKind};
use crate::sys::way;
use crate::types::{FileId, Inode, Offset, Prefix, Shown, StableName};

/// The name that a link has while it takes another's place; discovery and start pass over dot
/// names.
const TEMPORARY: &[u8] = b".tmp.rebind";

impl Catalogue {
    /// Binds rows to the restored copies of their files, and takes those out of `missing`.
    pub(super) fn rebind(&self, missing: &mut HashSet<FileId>) -> Result<(), IndexError> {
        let Holding::Links(datadir, _) = &self.holding else {
            return Ok(());
        };
        let mut ids: Vec<FileId> = missing.iter().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(row) = self.index.file(id)? else {
                continue;
            };
            let confirmed = self.longest_recorded(id)?;
            match self.copy_of(datadir, id, &row, confirmed) {
                Ok(Some(inode)) => {
                    self.bind(id, row, inode)?;
                    missing.remove(&id);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!("{}: {error}", row.name),
            }
        }
        Ok(())
    }

    fn bind(&self, id: FileId, mut row: ClientFile, inode: Inode) -> Result<(), IndexError> {
        let detail = format!(
            "restored from a copy: inode {} is {} now",
            row.inode.number, inode.number
        );
        tracing::warn!("{} ({}): {detail}", row.name, Shown(&row.source));
        let event = super::new_event(EventKind::Rebuilt, &row.name, detail);
        self.commit(&[ClientChange::Rebind(id, inode), ClientChange::Event(event)])?;
        let mut state = self.state();
        state.forget(id);
        row.inode = inode;
        state.by_inode.insert(inode, id);
        state.files.insert(id, Entry::recalled(id, row));
        Ok(())
    }

    /// The longest prefix that any destination has confirmed, in whatever run.
    fn longest_recorded(&self, id: FileId) -> Result<Prefix, IndexError> {
        let mut longest = Prefix::empty();
        for (destination, _) in &self.destinations {
            if let Some(progress) = self.index.progress(*destination, id)?
                && progress.confirmed.length > longest.length
            {
                longest = progress.confirmed;
            }
        }
        Ok(longest)
    }

    /// The inode under the row's name, or under its source's path, that has what was confirmed.
    fn copy_of(
        &self,
        datadir: &Dir,
        id: FileId,
        row: &ClientFile,
        confirmed: Prefix,
    ) -> Result<Option<Inode>, ReadError> {
        let Ok(linked) = datadir.open_file(row.name.as_bytes(), Access::Read) else {
            return Ok(None);
        };
        let Some((linked, inode)) = self.regular(id, row, linked)? else {
            return Ok(None);
        };
        if let Some((source, file, original)) = self.at_its_source(id, row)?
            && original != inode
            // A file of somebody else is not what the row was made of.
            && source.stat()?.uid == linked.stat()?.uid
            && hashes_to(&source, confirmed)?
            && is_prefix(&linked, &source)?
        {
            if let Err(error) = take_place(datadir, &row.name, &file) {
                // Such as another filesystem: what the datadir has goes on by itself.
                let source = Shown(&row.source);
                tracing::warn!("{}: {source} cannot take its place: {error}", row.name);
            }
            if disk::shows(datadir, &row.name, original)? {
                return Ok(Some(original));
            }
        }
        Ok(hashes_to(&linked, confirmed)?.then_some(inode))
    }

    /// The file at the source's path, if no other row has it.
    fn at_its_source(
        &self,
        id: FileId,
        row: &ClientFile,
    ) -> Result<Option<(Source, File, Inode)>, ReadError> {
        let path = Path::new(OsStr::from_bytes(&row.source));
        let Ok(file) = way::open_file(path) else {
            return Ok(None);
        };
        let again = file.try_clone()?;
        let found = self.regular(id, row, file)?;
        Ok(found
            .filter(|(_, inode)| !self.state().by_inode.contains_key(inode))
            .map(|(source, inode)| (source, again, inode)))
    }

    fn regular(
        &self,
        id: FileId,
        row: &ClientFile,
        file: File,
    ) -> Result<Option<(Source, Inode)>, ReadError> {
        let stat = file::stat(&file)?;
        if stat.kind != FileKind::Regular {
            return Ok(None);
        }
        let source = Source::checked(Arc::new(file), stat.inode)
            .map_err(|error| io::Error::other(error.to_string()))?;
        // First-read bytes are not known yet of the copy; those that are stored count.
        Ok(Some((self.overlaid(source, id, &row.pattern), stat.inode)))
    }
}

fn hashes_to(source: &Source, prefix: Prefix) -> Result<bool, ReadError> {
    if source.size()? < prefix.length {
        return Ok(false);
    }
    Ok(source.hash_prefix(None, prefix.length)?.prefix() == prefix)
}

/// Whether all of one file is what the other begins with.
pub(super) fn is_prefix(shorter: &Source, longer: &Source) -> Result<bool, ReadError> {
    let length: Offset = shorter.size()?;
    let whole = shorter.hash_prefix(None, length)?.prefix();
    hashes_to(longer, whole)
}

/// Gives `name` in the datadir to `file`; the copy that had it goes. After an error the name shows
/// the one or the other.
pub(super) fn take_place(datadir: &Dir, name: &StableName, file: &File) -> io::Result<()> {
    match datadir.unlink(TEMPORARY) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    datadir.link_file(file, TEMPORARY)?;
    datadir.rename_over(TEMPORARY, name.as_bytes())?;
    datadir.sync_chain(name.as_bytes())
}
