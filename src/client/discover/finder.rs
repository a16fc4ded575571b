//! From what a walk meets to what the catalogue adopts.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use super::{Directories, Discovery, Stop};
use crate::client::catalogue::{AdoptError, Candidate, Catalogue, Outcome, Sighting};
use crate::client::skips::Skip;
use crate::client::walk::{Found, Tally, Visitor};
use crate::config::PatternSettings;
use crate::config::rename::FileFacts;
use crate::limits::{ADOPT_BATCH, KEPT_FAILURES};
use crate::sys::dir;
use crate::sys::file::{self, FileKind};
use crate::sys::{clock, host};
use crate::types::{Shown, StableName};

/// What a scan met of one pattern.
#[derive(Default, Clone, Copy)]
pub(super) struct Count {
    pub(super) taken: u64,
    pub(super) elsewhere: u64,
    pub(super) failed: u64,
}

/// Why a file is not taken in.
enum Refusal {
    /// It is none of its pattern's.
    Skip(Skip),
    /// It should be.
    Error(AdoptError),
}

impl From<Skip> for Refusal {
    fn from(skip: Skip) -> Self {
        Self::Skip(skip)
    }
}

impl<E: Into<AdoptError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Has what a walk meets adopted.
pub(super) struct Finder<'a> {
    patterns: &'a [PatternSettings],
    catalogue: &'a Catalogue,
    directories: &'a mut Option<Directories>,
    failures: &'a mut HashMap<Vec<u8>, AdoptError>,
    /// What has been said already.
    before: HashMap<Vec<u8>, AdoptError>,
    batch: Vec<Candidate>,
    most: usize,
    counts: HashMap<String, Count>,
    stop: Stop,
}

impl<'a> Finder<'a> {
    pub(super) fn new(discovery: &'a mut Discovery, before: HashMap<Vec<u8>, AdoptError>) -> Self {
        Self {
            patterns: discovery.walker.patterns(),
            catalogue: &discovery.catalogue,
            directories: &mut discovery.directories,
            failures: &mut discovery.failures,
            before,
            batch: Vec::new(),
            most: ADOPT_BATCH.min(host::descriptors() / 8).max(1),
            counts: HashMap::new(),
            stop: discovery.stop.clone(),
        }
    }

    pub(super) fn finish(mut self, tally: &Tally) -> HashMap<String, Count> {
        self.adopt();
        for (path, error) in &tally.unreadable {
            let error = AdoptError::Unreadable(error.to_string());
            self.failed(path.as_os_str().as_bytes(), error);
        }
        self.counts
    }

    /// The number of a known file, a candidate for a new one.
    fn meet(&self, found: &Found<'_>) -> Result<Option<Candidate>, Refusal> {
        let pattern = &self.patterns[found.pattern];
        let sight = |stat| self.catalogue.sight(&found.path, &pattern.name, stat);
        if let Sighting::Known(_) = sight(&found.stat)? {
            return Ok(None);
        }
        found.admits(&found.stat)?;
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => AdoptError::Gone,
            _ if dir::met_a_link(&error) => AdoptError::Gone,
            _ => AdoptError::Unreadable(error.to_string()),
        };
        let file = found.open().map_err(unreadable)?;
        let stat = file::stat(&file).map_err(unreadable)?;
        // The path may show something else by now.
        if stat.kind != FileKind::Regular {
            return Err(AdoptError::Gone.into());
        }
        if stat.inode != found.stat.inode && sight(&stat)? != Sighting::New {
            return Ok(None);
        }
        found.admits(&stat)?;
        let wanted = self.name(pattern, &found.path, &FileFacts::of(&stat, now()))?;
        Ok(Some(Candidate {
            path: found.path.clone(),
            pattern: pattern.name.clone(),
            wanted,
            file: Arc::new(file),
            stat,
        }))
    }

    fn name(
        &self,
        pattern: &PatternSettings,
        path: &[u8],
        facts: &FileFacts,
    ) -> Result<StableName, AdoptError> {
        if self.catalogue.holds_links() {
            return Ok(pattern.naming.name(path, facts)?);
        }
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        StableName::parse(relative).map_err(|problem| AdoptError::Path(problem.to_string()))
    }

    fn adopt(&mut self) {
        for outcome in self.catalogue.adopt(std::mem::take(&mut self.batch)) {
            let Outcome {
                path,
                pattern,
                result,
            } = outcome;
            self.came_out(&path, &pattern, result.map(|_| ()));
        }
    }

    fn came_out(&mut self, path: &[u8], pattern: &str, result: Result<(), AdoptError>) {
        let count = self.counts.entry(pattern.to_owned()).or_default();
        let error = match result {
            Ok(()) => {
                count.taken += 1;
                self.failures.remove(path);
                return;
            }
            Err(AdoptError::Gone) => return,
            Err(error) => error,
        };
        if error == AdoptError::OtherFilesystem {
            count.elsewhere += 1;
        } else {
            count.failed += 1;
        }
        self.failed(path, error);
    }

    /// Keeps a failure, and says it if it is a new one.
    fn failed(&mut self, path: &[u8], error: AdoptError) {
        let said = [&self.before, &*self.failures].map(|known| known.get(path));
        // A run that ends has them in its summary, and what lies elsewhere is said once for the
        // whole pattern.
        let for_the_log = self.directories.is_some() && error != AdoptError::OtherFilesystem;
        if for_the_log && !said.contains(&Some(&error)) {
            tracing::warn!("{}: not delivered: {error}", Shown(path));
        }
        if self.failures.len() < KEPT_FAILURES || self.failures.contains_key(path) {
            self.failures.insert(path.to_vec(), error);
        }
    }
}

impl Visitor for Finder<'_> {
    fn directory(&mut self, path: &Path) {
        if let Some(directories) = self.directories {
            directories.watch(path, self.catalogue);
        }
    }

    fn wants_more(&self) -> bool {
        !self.stop.is_asked()
    }

    fn file(&mut self, found: Found<'_>) -> Option<Skip> {
        let pattern = &self.patterns[found.pattern].name;
        match self.meet(&found) {
            Ok(Some(candidate)) => self.batch.push(candidate),
            Ok(None) => self.came_out(&found.path, pattern, Ok(())),
            Err(Refusal::Error(error)) => self.came_out(&found.path, pattern, Err(error)),
            Err(Refusal::Skip(skip)) => return Some(skip),
        }
        if self.batch.len() >= self.most {
            self.adopt();
        }
        None
    }
}

/// Milliseconds since 1970.
fn now() -> i64 {
    clock::now().as_millisecond()
}
