//! A server's files against its index and history.
//!
//! Every row is read before its file; several files are read at the same time. At the end the
//! datadir is searched for files that no row speaks of.

use std::collections::{BTreeSet, HashSet};
use std::io;

use super::crew;
use super::figures::Figures;
use super::finding::{Finding, Severity, Side, Verdict};
use super::hashes::Hashes;
use crate::index::IndexError;
use crate::index::inspect::Inspection;
use crate::index::server::{HistoryRow, ServerFile, ServerState};
use crate::limits::VERIFY_AGAIN;
use crate::sys::datadir;
use crate::sys::dir::{Access, Dir};
use crate::sys::file::{self, FileKind};
use crate::types::{Offset, Prefix, Shown, WirePath};

/// Why the rest could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The index cannot be read any further.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The directories cannot be read.
    #[error("cannot search the datadir for files without a row: {0}")]
    Walk(#[source] io::Error),
}

/// A server's datadir, its index, and which of its files are wanted.
pub struct Verify<'a> {
    /// Where the files are.
    pub datadir: &'a Dir,
    /// What is known of them.
    pub index: &'a Inspection,
    /// Whether a file is to be checked.
    pub wanted: &'a (dyn Fn(&WirePath) -> bool + Sync),
    /// How far it is.
    pub figures: &'a Figures,
}

impl Verify<'_> {
    /// Checks all files that are wanted, in no order; until `each` says false.
    pub fn run(&self, mut each: impl FnMut(Finding) -> bool) -> Result<(), VerifyError> {
        self.index.server_files(|row| {
            if let Some((_, row)) = row.ok().filter(|(path, _)| (self.wanted)(path)) {
                self.figures.found(row.vouched.length.bytes());
            }
            true
        })?;
        let mut damaged = HashSet::new();
        let mut go_on = true;
        self.rows(|finding| {
            if finding.verdict == Verdict::DamagedRow {
                damaged.insert(finding.name.clone());
            }
            go_on = each(finding);
            go_on
        })?;
        if go_on {
            self.without_rows(&damaged, each)?;
        }
        Ok(())
    }

    /// Checks the files that have rows.
    fn rows(&self, each: impl FnMut(Finding) -> bool) -> Result<(), IndexError> {
        crew::work(
            |job, found| {
                self.index.server_files(|row| match row {
                    Ok((path, row)) if (self.wanted)(&path) => job((path, row)),
                    Ok(_) => true,
                    Err(problem) => found(Finding::of_damage(Side::Server, &problem)),
                })
            },
            || {
                |(path, row)| {
                    let finding = self.file(&path, row);
                    self.figures.done();
                    vec![finding]
                }
            },
            each,
        )
    }

    /// Checks one file; again when what was looked for has changed meanwhile.
    fn file(&self, path: &WirePath, mut row: ServerFile) -> Finding {
        for _ in 0..VERIFY_AGAIN {
            let finding = self.once(path, &row);
            if finding.verdict.severity() == Severity::Fine {
                return finding;
            }
            match self.index.server_file(path) {
                Ok(Some(now)) if now != row => row = now,
                _ => return finding,
            }
        }
        self.once(path, &row)
    }

    fn once(&self, path: &WirePath, row: &ServerFile) -> Finding {
        let mut finding = Finding::new(Side::Server, path.to_string(), Verdict::Right);
        finding.length = row.vouched.length;
        finding.blake3 = Some(row.vouched.hash);
        let past = match self.index.past_of(row.id) {
            Ok(past) => past,
            Err(error) => return finding.but(Verdict::DamagedRow, error.to_string()),
        };
        let recorded = recorded(&past, row);
        let (size, hashes) = match self.read(path, &recorded) {
            Ok(Read::File { size, hashes }) => (size, hashes),
            Ok(Read::Nothing) if row.state == ServerState::Retired => {
                return finding.but(Verdict::Retired, "");
            }
            Ok(Read::Nothing) => return finding.but(Verdict::Missing, "there is no such file"),
            Ok(Read::NoFile) => return finding.but(Verdict::Replaced, "is no regular file"),
            Err(error) => return finding.but(Verdict::Unreadable, error.to_string()),
        };
        finding.beyond = size.since(row.vouched.length);
        let held = |prefix: &&Prefix| hashes.at(prefix.length).is_some();
        finding.compared = recorded.iter().filter(held).count();
        if let Some(difference) = hashes.first_difference(&recorded) {
            return finding.differing(&difference);
        }
        if let (Some(end), Some(longest)) = (hashes.ended(), recorded.last()) {
            let detail = format!("it ends at {end}, and was {} long", longest.length);
            return finding.but(Verdict::Short, detail);
        }
        match row.state {
            ServerState::Vouched | ServerState::Regressed => finding,
            ServerState::Retired => finding.but(Verdict::Retired, ""),
            ServerState::Unproven => finding.but(
                Verdict::Unproven,
                "no client has confirmed it since the database was rebuilt",
            ),
            ServerState::Diverged => finding.but(
                Verdict::Diverged,
                "it was found changed; `shaftlog quarantine` moves it aside",
            ),
        }
    }

    fn read(&self, path: &WirePath, recorded: &[Prefix]) -> io::Result<Read> {
        let Some(stat) = self.datadir.stat(path.as_bytes())? else {
            return Ok(Read::Nothing);
        };
        if stat.kind != FileKind::Regular {
            return Ok(Read::NoFile);
        }
        let file = match self.datadir.open_file(path.as_bytes(), Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Nothing),
            opened => opened?,
        };
        let stat = file::stat(&file)?;
        if stat.kind != FileKind::Regular {
            return Ok(Read::NoFile);
        }
        let lengths: BTreeSet<Offset> = recorded.iter().map(|prefix| prefix.length).collect();
        let hashes = Hashes::of(&file, &lengths, |bytes| self.figures.read(bytes))?;
        let size = stat.size;
        Ok(Read::File { size, hashes })
    }

    /// Finds the files that no row speaks of. One that is just being received gets its row
    /// meanwhile: what has none is looked at once more at the end.
    fn without_rows(
        &self,
        damaged: &HashSet<String>,
        mut each: impl FnMut(Finding) -> bool,
    ) -> Result<(), VerifyError> {
        let mut suspects = Vec::new();
        datadir::visit(self.datadir, |relative, kind| {
            if kind == FileKind::Regular && self.has_no_row(relative, damaged) {
                suspects.push(relative.to_vec());
            }
            Ok(true)
        })
        .map_err(VerifyError::Walk)?;
        for relative in suspects {
            let stat = self.datadir.stat(&relative).map_err(VerifyError::Walk)?;
            let Some(stat) = stat.filter(|_| self.has_no_row(&relative, damaged)) else {
                continue;
            };
            let name = format!("/{}", Shown(&relative));
            let mut finding = Finding::new(Side::Server, name, Verdict::NoRow)
                .but(Verdict::NoRow, "the index knows nothing of it");
            finding.beyond = stat.size.bytes();
            if !each(finding) {
                break;
            }
        }
        Ok(())
    }

    fn has_no_row(&self, relative: &[u8], damaged: &HashSet<String>) -> bool {
        let Ok(path) = WirePath::from_disk(relative) else {
            // No request can name it, so no server of ours made it.
            return true;
        };
        (self.wanted)(&path)
            && !damaged.contains(&path.to_string())
            && !matches!(self.index.server_file(&path), Ok(Some(_)))
    }
}

/// What a path led to.
enum Read {
    /// A file, hashed.
    File { size: Offset, hashes: Hashes },
    /// Nothing.
    Nothing,
    /// Something that is no file.
    NoFile,
}

/// The prefixes that a file has to have: those of its history that no later, shorter one has made
/// void, the present one, and what it was before it was found shorter.
pub(crate) fn recorded(past: &[(Offset, HistoryRow)], row: &ServerFile) -> Vec<Prefix> {
    let mut past: Vec<_> = past.iter().collect();
    past.sort_by_key(|(length, row)| (row.at, *length));
    let present = [Some(row.vouched), row.high_water].into_iter().flatten();
    let mut prefixes: Vec<Prefix> = Vec::new();
    for prefix in past
        .into_iter()
        .map(|&(length, HistoryRow { hash, .. })| Prefix { length, hash })
        .chain(present)
    {
        prefixes.retain(|earlier| earlier.length <= prefix.length);
        prefixes.push(prefix);
    }
    prefixes
}

#[cfg(test)]
mod tests;
