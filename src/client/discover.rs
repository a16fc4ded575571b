//! Finding new files: at once by notifications of their directories, in any case by the scan that
//! comes with every `scan_interval`.
//!
//! A directory is watched before it is read, so that what appears in between is told of. A
//! notification is nothing but a path to look at, by the same walk that a scan is; when
//! notifications were lost, everything is scanned. Where there are no watches to be had, the scan
//! is all there is: a watcher that polls would be a second scan.

mod finder;
mod mail;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::{RecursiveMode, Watcher as _};

use self::finder::{Count, Finder};
pub use self::mail::Mail;
use self::mail::Post;
use super::catalogue::{AdoptError, Catalogue};
use super::skips::{Skip, Skips};
use super::walk::{Tally, Walker};
use crate::config::PatternSettings;
use crate::sys::way;
use crate::types::Shown;

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
    /// Regular files that patterns select and take.
    pub files: u64,
    /// What patterns select and was passed over.
    pub skipped: Skips,
    /// Files that should be delivered and cannot be taken in, and directories that cannot be read.
    pub failed: u64,
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

/// Asks a discovery, from any thread, to leave off soon.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// What is being scanned is left as it is; nothing more is taken in.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
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
    /// Of what kind something was passed over and said so, by pattern.
    said: HashSet<(usize, Skip)>,
    stop: Stop,
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
            said: HashSet::new(),
            stop: Stop::default(),
            scanned: false,
        }
    }

    /// By what it is stopped.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
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
        if self.stop.is_asked() {
            // Half a scan tells nothing of what it has not seen.
            return;
        }
        self.say_skipped(&tally.skipped);
        self.sum_up(tally, &counts);
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
            tally.skipped.extend(looked.skipped);
        }
        finder.finish(&tally);
        self.say_skipped(&tally.skipped);
        self.watch_missing_roots();
    }

    /// Whether there are patterns, and none of them can be linked.
    pub fn nothing_can_be_linked(&self) -> bool {
        let wholly = self.report.unlinkable.iter().filter(|it| it.wholly);
        let patterns = self.walker.patterns().len();
        patterns > 0 && wholly.count() == patterns
    }

    /// Says of what kind something is passed over, once for each pattern; a run that ends has it in
    /// its summary.
    fn say_skipped(&mut self, skipped: &Skips) {
        if self.directories.is_none() {
            return;
        }
        for (number, skip, met) in skipped.iter() {
            if self.said.insert((number, skip)) {
                let pattern = &self.walker.patterns()[number].name;
                let ([what, _], first) = (skip.words(), Shown(&met.first));
                tracing::warn!(
                    "pattern {pattern}: {first} is passed over, a {what}; more like it are only counted, in the status line"
                );
            }
        }
    }

    fn sum_up(&mut self, tally: Tally, counts: &HashMap<String, Count>) {
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
            skipped: tally.skipped,
            failed: counts.values().map(|count| count.failed).sum::<u64>()
                + tally.unreadable.len() as u64,
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
            .filter_map(|(root, _)| way::open_dir(root).ok()?.dir.stat_root().ok())
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
    way::open_dir(path).is_ok()
}

#[cfg(test)]
mod tests;
