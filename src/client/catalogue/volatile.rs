//! Which bytes of which files are delivered as they were first read.

use std::sync::Arc;

use super::Catalogue;
use super::state::State;
use crate::client::overlay::Overlay;
use crate::client::source::Source;
use crate::config::PatternSettings;
use crate::index::IndexError;
use crate::index::client::Stretch;
use crate::types::{FileId, Offset};

impl Catalogue {
    /// The catalogue with what these patterns say of their files' volatile bytes. To be called
    /// before anything is read.
    pub fn with_volatile(mut self, patterns: &[PatternSettings]) -> Self {
        let ranges = patterns.iter().filter(|it| !it.volatile.is_empty());
        self.volatile = ranges
            .map(|pattern| (pattern.name.clone(), pattern.volatile.clone().into()))
            .collect();
        self
    }

    /// Brings what earlier runs have stored into the memory.
    pub(super) fn load_volatile(&self) -> Result<(), IndexError> {
        let rows = self.index.volatile()?;
        let mut state = self.state();
        for (id, known) in rows {
            self.know_volatile(&mut state, id, known);
        }
        Ok(())
    }

    fn know_volatile(&self, state: &mut State, id: FileId, known: Vec<Stretch>) -> Arc<Overlay> {
        let overlay = Arc::new(Overlay::new(Arc::clone(&self.index), id, known));
        state.overlays.insert(id, Arc::clone(&overlay));
        overlay
    }

    /// The source with its volatile bytes as they were first read: those that the pattern names
    /// now, and those that were stored whatever it named then.
    pub(super) fn overlaid(&self, source: Source, id: FileId, pattern: &str) -> Source {
        let ranges = self.volatile.get(pattern).cloned();
        let mut state = self.state();
        let overlay = match state.overlays.get(&id) {
            Some(overlay) => Arc::clone(overlay),
            None if ranges.is_none() => return source,
            None => self.know_volatile(&mut state, id, Vec::new()),
        };
        source.overlaid(ranges.unwrap_or_default(), overlay)
    }

    /// What was first read of a file's volatile bytes.
    pub(super) fn volatile_of(&self, id: FileId) -> Vec<Stretch> {
        let overlay = self.state().overlays.get(&id).cloned();
        overlay.map_or(Vec::new(), |overlay| overlay.known())
    }

    /// The generation `new` has the same bytes as the one before it, and they are stored.
    pub(super) fn inherit_volatile(&self, new: FileId, known: Vec<Stretch>) {
        if !known.is_empty() {
            self.know_volatile(&mut self.state(), new, known);
        }
    }

    /// The file was cut to `size`, and nothing behind that was confirmed.
    pub(super) fn cut_volatile(&self, id: FileId, size: Offset) -> Result<(), IndexError> {
        let overlay = self.state().overlays.get(&id).cloned();
        overlay.map_or(Ok(()), |overlay| overlay.cut(size))
    }
}
