//! Finding new files: at once by notifications of their directories, in any case by the scan that
//! comes with every `scan_interval`.
//!
//! A directory is watched before it is read, so that what appears in between is told of. A
//! notification is nothing but a path to look at, by the same walk that a scan is; when
//! notifications were lost, everything is scanned. Where there are no watches to be had, the scan
//! is all there is: a watcher that polls would be a second scan.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::catalogue::{AdoptError, Candidate, Catalogue, Outcome, Sighting};
use super::walk::{Found, Tally, Visitor, Walker};
use crate::config::PatternSettings;
use crate::config::rename::FileFacts;
use crate::limits::{ADOPT_BATCH, KEPT_FAILURES, MAIL_PATHS};
use crate::sys::file::{self, FileKind};
use crate::sys::{clock, dir, host};
use crate::types::{Shown, StableName};

/// Paths that notifications tell of, until they are looked at. Bounded: too many of them are a
/// scan of everything.
#[derive(Default)]
pub struct Mail {
    post: Mutex<Post>,
    arrived: Notify,
}

#[derive(Default)]
struct Post {
    paths: BTreeSet<PathBuf>,
    everything: bool,
}

impl Mail {
    /// Returns when there may be something to look at.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn heard(&self, event: notify::Result<notify::Event>) {
        match event {
            Ok(event) if event.need_rescan() => self.put(Vec::new(), true),
            Ok(event) if tells_of_names(event.kind) => self.put(event.paths, false),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "directory notifications failed; scanning");
                self.put(Vec::new(), true);
            }
        }
    }

    fn put(&self, paths: Vec<PathBuf>, everything: bool) {
        let mut post = self.post.lock().unwrap_or_else(PoisonError::into_inner);
        post.paths.extend(paths);
        post.everything |= everything || post.paths.len() > MAIL_PATHS;
        if post.everything {
            post.paths.clear();
        }
        drop(post);
        self.arrived.notify_one();
    }

    fn take(&self) -> Post {
        std::mem::take(&mut *self.post.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a name appeared: what is written to known files is no news here.
fn tells_of_names(kind: EventKind) -> bool {
    match kind {
        EventKind::Create(_) => true,
        EventKind::Modify(ModifyKind::Name(mode)) => mode != RenameMode::From,
        _ => false,
    }
}

/// The watches of source directories.
struct Directories {
    /// `None` when there is no queue to be had.
    watcher: Option<notify::RecommendedWatcher>,
}

impl Directories {
    fn new(mail: Arc<Mail>, catalogue: &Catalogue) -> Self {
        let watcher = notify::recommended_watcher(move |event| mail.heard(event));
        if let Err(error) = &watcher {
            exhausted(error, catalogue);
        }
        Self {
            watcher: watcher.ok(),
        }
    }

    fn watch(&mut self, path: &Path, catalogue: &Catalogue) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
            if matches!(error.kind, notify::ErrorKind::MaxFilesWatch) {
                exhausted(&error, catalogue);
            } else {
                tracing::debug!(%error, path = %path.display(), "no watch");
            }
        }
    }
}

fn exhausted(error: &notify::Error, catalogue: &Catalogue) {
    tracing::debug!("{error}");
    if let Some(watches) = catalogue.watches() {
        watches.exhausted();
    }
}

/// What the last whole scan has left.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// Regular files that patterns select.
    pub files: u64,
    /// Symbolic links that were passed over.
    pub symlinks: u64,
    /// FIFOs, sockets and devices that were passed over.
    pub special: u64,
    /// What lies on other filesystems than the datadir.
    pub unlinkable: Vec<Unlinkable>,
}

/// Files of a pattern that cannot be linked where they lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlinkable {
    /// The pattern's name.
    pub pattern: String,
    /// How many were found; none while only its directories are there.
    pub files: u64,
    /// Whether no file of the pattern can be linked.
    pub wholly: bool,
}

impl fmt::Display for Unlinkable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pattern, files, .. } = self;
        write!(f, "pattern {pattern}: ")?;
        match files {
            0 => f.write_str("its directories lie"),
            files if self.wholly => write!(f, "none of its {files} files is delivered, they lie"),
            files => write!(f, "{files} of its files are not delivered, they lie"),
        }?;
        f.write_str(" on another filesystem (or bind mount) than the datadir")
    }
}

/// What a scan met of one pattern.
#[derive(Default, Clone, Copy)]
struct Count {
    taken: u64,
    elsewhere: u64,
    failed: u64,
}

/// Finds files and has them adopted. Calls block; the owner makes one at a time.
pub struct Discovery {
    walker: Arc<Walker>,
    catalogue: Arc<Catalogue>,
    mail: Arc<Mail>,
    /// `None` for a run that ends when everything was found once.
    directories: Option<Directories>,
    failures: HashMap<Vec<u8>, AdoptError>,
    report: Report,
    scanned: bool,
}

impl Discovery {
    /// Discovery for a daemon: also by notifications, which begin with the first scan.
    pub fn watching(patterns: Arc<[PatternSettings]>, catalogue: Arc<Catalogue>) -> Self {
        let mut discovery = Self::once(patterns, catalogue);
        let mail = Arc::clone(&discovery.mail);
        discovery.directories = Some(Directories::new(mail, &discovery.catalogue));
        discovery
    }

    /// Discovery by scans alone.
    pub fn once(patterns: Arc<[PatternSettings]>, catalogue: Arc<Catalogue>) -> Self {
        Self {
            walker: Arc::new(Walker::new(patterns)),
            catalogue,
            mail: Arc::default(),
            directories: None,
            failures: HashMap::new(),
            report: Report::default(),
            scanned: false,
        }
    }

    /// Where notifications arrive.
    pub fn mail(&self) -> Arc<Mail> {
        Arc::clone(&self.mail)
    }

    /// What the last whole scan has left.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What could not be taken in, by path, each with the reason; at most some thousands.
    pub fn failures(&self) -> &HashMap<Vec<u8>, AdoptError> {
        &self.failures
    }

    /// Scans everything.
    pub fn scan(&mut self) {
        let before = std::mem::take(&mut self.failures);
        let walker = Arc::clone(&self.walker);
        let mut finder = Finder::new(self, before);
        let tally = walker.walk(&mut finder);
        let counts = finder.finish(&tally);
        self.sum_up(&tally, &counts);
        self.watch_missing_roots();
        if !std::mem::replace(&mut self.scanned, true) {
            self.catalogue.adopt_orphans();
        }
    }

    /// Looks at what notifications have told of.
    pub fn catch_up(&mut self) {
        let Post { paths, everything } = self.mail.take();
        if everything {
            return self.scan();
        }
        let walker = Arc::clone(&self.walker);
        let mut finder = Finder::new(self, HashMap::new());
        let mut tally = Tally::default();
        for path in &paths {
            let looked = walker.look_at(path, &mut finder);
            tally.unreadable.extend(looked.unreadable);
        }
        finder.finish(&tally);
        self.watch_missing_roots();
    }

    /// Whether there are patterns, and none of them can be linked.
    pub fn nothing_can_be_linked(&self) -> bool {
        let wholly = self.report.unlinkable.iter().filter(|it| it.wholly);
        let patterns = self.walker.patterns().len();
        patterns > 0 && wholly.count() == patterns
    }

    fn sum_up(&mut self, tally: &Tally, counts: &HashMap<String, Count>) {
        let mut unlinkable = Vec::new();
        for (number, pattern) in self.walker.patterns().iter().enumerate() {
            let count = counts.get(&pattern.name).copied().unwrap_or_default();
            let found = count.taken + count.failed + count.elsewhere;
            if count.elsewhere > 0 || (found == 0 && self.lies_elsewhere(number)) {
                unlinkable.push(Unlinkable {
                    pattern: pattern.name.clone(),
                    files: count.elsewhere,
                    wholly: count.taken == 0,
                });
            }
        }
        let known = |pattern: &String| {
            self.report
                .unlinkable
                .iter()
                .any(|it| it.pattern == *pattern)
        };
        for it in unlinkable.iter().filter(|it| !known(&it.pattern)) {
            tracing::error!("{it}; a second client with its datadir there can deliver them");
        }
        self.report = Report {
            files: tally.files,
            symlinks: tally.symlinks,
            special: tally.special,
            unlinkable,
        };
    }

    /// Whether the directories of a pattern are there, on another filesystem than the datadir.
    fn lies_elsewhere(&self, pattern: usize) -> bool {
        let Some(device) = self.catalogue.device() else {
            return false;
        };
        let mut devices = self
            .walker
            .roots()
            .filter(|(_, patterns)| patterns.contains(&pattern))
            .filter_map(|(root, _)| dir::Dir::open(root).ok()?.stat_root().ok())
            .map(|stat| stat.device)
            .peekable();
        devices.peek().is_some() && devices.all(|root| root != device)
    }

    /// Watches the way to roots that do not exist yet.
    fn watch_missing_roots(&mut self) {
        if self.directories.is_none() {
            return;
        }
        let roots: Vec<PathBuf> = self
            .walker
            .roots()
            .map(|(root, _)| root.to_owned())
            .collect();
        for root in roots.iter().filter(|root| !is_directory(root)) {
            let mut last = None;
            // Until nothing was made between the look and the watch.
            while let Some(way) = root.ancestors().find(|way| is_directory(way))
                && last != Some(way)
            {
                if let Some(directories) = &mut self.directories {
                    directories.watch(way, &self.catalogue);
                }
                last = Some(way);
            }
            if last == Some(root.as_path()) {
                self.mail.put(vec![root.clone()], false);
            }
        }
    }
}

fn is_directory(path: &Path) -> bool {
    dir::Dir::open(path).is_ok()
}

/// Has what a walk meets adopted.
struct Finder<'a> {
    patterns: &'a [PatternSettings],
    catalogue: &'a Catalogue,
    directories: &'a mut Option<Directories>,
    failures: &'a mut HashMap<Vec<u8>, AdoptError>,
    /// What has been said already.
    before: HashMap<Vec<u8>, AdoptError>,
    batch: Vec<Candidate>,
    most: usize,
    counts: HashMap<String, Count>,
}

impl<'a> Finder<'a> {
    fn new(discovery: &'a mut Discovery, before: HashMap<Vec<u8>, AdoptError>) -> Self {
        Self {
            patterns: discovery.walker.patterns(),
            catalogue: &discovery.catalogue,
            directories: &mut discovery.directories,
            failures: &mut discovery.failures,
            before,
            batch: Vec::new(),
            most: ADOPT_BATCH.min(host::descriptors() / 8).max(1),
            counts: HashMap::new(),
        }
    }

    fn finish(mut self, tally: &Tally) -> HashMap<String, Count> {
        self.adopt();
        for (path, error) in &tally.unreadable {
            let error = AdoptError::Unreadable(error.to_string());
            self.failed(path.as_os_str().as_bytes(), error);
        }
        self.counts
    }

    /// The number of a known file, a candidate for a new one.
    fn meet(&self, found: &Found<'_>) -> Result<Option<Candidate>, AdoptError> {
        let pattern = &self.patterns[found.pattern];
        let sight = |stat| self.catalogue.sight(&found.path, &pattern.name, stat);
        if let Sighting::Known(_) = sight(&found.stat)? {
            return Ok(None);
        }
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => AdoptError::Gone,
            _ => AdoptError::Unreadable(error.to_string()),
        };
        let file = found.open().map_err(unreadable)?;
        let stat = file::stat(&file).map_err(unreadable)?;
        // The path may show something else by now.
        if stat.kind != FileKind::Regular {
            return Err(AdoptError::Gone);
        }
        if stat.inode != found.stat.inode && sight(&stat)? != Sighting::New {
            return Ok(None);
        }
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

    fn file(&mut self, found: Found<'_>) {
        let pattern = &self.patterns[found.pattern].name;
        match self.meet(&found) {
            Ok(Some(candidate)) => self.batch.push(candidate),
            Ok(None) => self.came_out(&found.path, pattern, Ok(())),
            Err(error) => self.came_out(&found.path, pattern, Err(error)),
        }
        if self.batch.len() >= self.most {
            self.adopt();
        }
    }
}

/// Milliseconds since 1970.
fn now() -> i64 {
    clock::now().as_millisecond()
}

#[cfg(test)]
mod tests;
