//! Files that got shorter, and generations that end: what is lost with the bytes that are gone here,
//! their destination is asked, not the rows. After a crash they do not tell its last confirmations.

use super::{Setting, Turn, Visit};
use crate::client::catalogue::{Closing, Told};
use crate::client::plan::{Closed, FileError, Remote};
use crate::types::Offset;

impl Visit {
    /// Whether the destination may hold more than is known here.
    pub(super) fn is_unsure(&self, setting: &Setting) -> bool {
        match self.course.remote {
            Remote::Holds(_) | Remote::Retired(_) | Remote::Diverged(_) => false,
            _ if self.course.facts.unheard => false,
            Remote::Unasked => true,
            Remote::Agreed | Remote::Recorded => {
                let id = self.tracked.id;
                setting.catalogue.is_recalled(setting.destination, id)
            }
        }
    }

    /// The longest that any destination has confirmed.
    fn largest_confirmed(&self) -> Offset {
        let rows = [&self.progress, &self.elsewhere].into_iter().flatten();
        let lengths = rows.map(|progress| progress.confirmed.length);
        lengths.max().unwrap_or(Offset::ZERO)
    }

    /// Says what is lost when bytes are gone behind those that were confirmed: the file goes on. Not
    /// where the destination has more than the file; `plan` looks into that.
    pub(super) fn note_cut(&self, setting: &Setting) {
        let had = setting.catalogue.length(self.tracked.id);
        if self.size >= had || self.size < self.largest_confirmed() || self.is_unsure(setting) {
            return;
        }
        let told = self.told(setting);
        if told.is_none_or(|told| told.holds <= self.size) {
            let id = self.tracked.id;
            setting.catalogue.shortened(id, had, self.size, told);
        }
    }

    /// The destination does not say how much it has of a file that is no longer what it was: then
    /// that is judged without it. Once; `false` where it changes nothing.
    pub(in crate::client::ship) fn does_without(&mut self, setting: &Setting) -> bool {
        let id = self.tracked.id;
        let cut = self.size < setting.catalogue.length(id)
            || self.size < self.largest_confirmed()
            || self.course.facts.seam_broken;
        cut && !std::mem::replace(&mut self.course.facts.unheard, true)
    }

    /// Closes the generation.
    pub(super) fn supersede(&mut self, setting: &Setting, why: Closed) -> Turn {
        let (catalogue, id) = (&setting.catalogue, self.tracked.id);
        let told = self.told(setting);
        let (closing, text) = match why {
            Closed::Shrunk | Closed::ShorterThanHeld | Closed::Rewritten { .. } => {
                (Closing::Changed, why.to_string())
            }
            Closed::OtherWriter | Closed::NameTaken => {
                let had = catalogue.length(id);
                if self.size < had {
                    catalogue.shortened(id, had, self.size, told);
                }
                (Closing::NameTaken, format!("{why} ({})", setting.called))
            }
        };
        match catalogue.supersede(id, closing, &text, told) {
            Ok(_) => Turn::Gone(Some(why)),
            Err(error) => Turn::Fail(FileError::Unreadable(error.to_string())),
        }
    }

    /// What the destination said. Of a file that it had before this catalogue knew of it, that says
    /// nothing about ours.
    fn told(&self, setting: &Setting) -> Option<Told> {
        let length = match self.course.remote {
            Remote::Holds(holding) => holding.length,
            Remote::Retired(was) | Remote::Diverged(was) => was.length,
            _ => return None,
        };
        let confirmed = self
            .confirmed()
            .map_or(Offset::ZERO, |prefix| prefix.length);
        let fresh = setting
            .catalogue
            .fresh(setting.destination, self.tracked.id);
        let ours = fresh || confirmed > Offset::ZERO;
        Some(Told {
            destination: setting.destination,
            holds: if ours { length } else { confirmed },
        })
    }
}
