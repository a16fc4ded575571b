//! Reading the local file again: whether it still is what was confirmed, and where it differs from
//! what the destination has. What comes of it becomes the file's state.

use super::{Setting, Turn, Visit, at};
use crate::client::plan::{Charge, FileError, Remote, Search};
use crate::client::ship::cursor::Cursor;
use crate::client::ship::piece::read_on;
use crate::client::source::ReadError;
use crate::index::client::{Progress, ProgressState};
use crate::index::{EventKind, NewEvent};
use crate::types::Offset;

/// What the destination's tasks remember of a file from one turn to the next.
#[derive(Clone, Debug, Default)]
pub(in crate::client::ship) struct Remembered {
    /// How far the search for a difference has come.
    pub(in crate::client::ship) search: Option<Search>,
    /// What it is in error for.
    pub(in crate::client::ship) error: Option<FileError>,
    /// All is to be confirmed anew.
    pub(in crate::client::ship) reconfirm: bool,
}

impl Visit {
    /// Begins with what earlier turns and the scrub have left.
    pub(in crate::client::ship) fn remember(&mut self, setting: &Setting, with: Remembered) {
        let facts = &mut self.course.facts;
        facts.search = with.search;
        facts.before = with.error;
        facts.charge = Charge {
            doubted: setting.catalogue.is_doubted(self.tracked.id),
            reconfirm: with.reconfirm,
        };
        self.charge = facts.charge;
    }

    /// How far the search for a difference has come.
    pub(in crate::client::ship) fn search(&self) -> Option<Search> {
        self.course.facts.searched()
    }

    /// Hashes the file from its first byte on, going on from where this visit has done so.
    pub(super) fn prove(&mut self, lengths: &[Offset]) -> Result<Option<Turn>, ReadError> {
        for length in lengths {
            let behind = |cursor: &&Cursor| cursor.length() <= *length;
            let before = self.proof.iter().filter(behind);
            let nearest = before.max_by_key(|cursor| cursor.length());
            let mut cursor = nearest.cloned().unwrap_or_else(Cursor::new);
            if !read_on(&self.source, &mut cursor, *length, &self.ending)? {
                // Shorter meanwhile; its size says so now.
                return Ok(None);
            }
            self.course.facts.proven.push(cursor.prefix());
            self.proof.push(cursor.clone());
            self.learn(cursor);
        }
        Ok(None)
    }

    /// The file was read and is what was confirmed, or is known not to be.
    pub(super) fn settle_doubt(&self, setting: &Setting) {
        if self.course.facts.charge.doubted && !self.course.facts.proven.is_empty() {
            setting.catalogue.settle_doubt(self.tracked.id);
        }
    }

    /// Whether the destination has said in this turn that it has all of the file.
    pub(in crate::client::ship) fn is_confirmed_anew(&self) -> bool {
        let asked = matches!(
            self.course.remote,
            Remote::Agreed | Remote::Holds(_) | Remote::Retired(_)
        );
        let refused = self.course.facts.refused.is_some();
        let has_all = self.behind() == 0 || matches!(self.course.remote, Remote::Retired(_));
        self.charge.reconfirm && asked && !refused && has_all
    }

    /// Puts the error into the row, and says that bytes wait.
    pub(in crate::client::ship) fn fail(&mut self, setting: &Setting, error: &FileError) {
        let state = match error {
            FileError::Differs { .. }
            | FileError::OtherWriter { .. }
            | FileError::Longer { .. }
            | FileError::Diverged { .. } => ProgressState::Conflict,
            _ => ProgressState::Error {
                text: error.to_string(),
            },
        };
        let progress = match self.progress.as_deref() {
            Some(progress) if progress.state == state => return,
            Some(progress) => Progress {
                state: state.clone(),
                ..progress.clone()
            },
            None => at(&Cursor::new(), state.clone(), false),
        };
        let kind = match (error, state) {
            (FileError::Diverged { .. }, _) => Some(EventKind::Diverged),
            (FileError::Retired { .. }, _) => Some(EventKind::Retired),
            (_, ProgressState::Conflict) => Some(EventKind::Conflict),
            _ => None,
        };
        self.telling = kind.map(|kind| {
            let detail = format!("{}: {error}", setting.called);
            NewEvent::now(kind, self.tracked.name.as_bytes(), detail)
        });
        self.put(setting, progress);
    }
}
