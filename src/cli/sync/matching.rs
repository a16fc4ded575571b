//! Patterns of the command line that match nothing: a mistake, more often than not.

use std::path::Path;
use std::sync::Arc;

use super::summary::Trouble;
use crate::cli::datadir::{database, database_failed};
use crate::cli::exit::{Exit, Failure};
use crate::client::catalogue::Catalogue;
use crate::client::skips::Skip;
use crate::client::walk::{Found, Visitor, Walker};
use crate::config::PatternSettings;
use crate::index::Kind;
use crate::limits::INSPECT_ROWS;
use crate::sys;
use crate::types::Shown;

/// Refuses patterns of which none matches anything, before the first run makes the database of
/// `kind` in `datadir`.
pub(super) fn refuse_nothing(
    patterns: &[PatternSettings],
    datadir: &Path,
    kind: Kind,
) -> Result<(), Failure> {
    if sys::file::stat_path(&database(datadir, kind)).is_ok() {
        return Ok(());
    }
    let mut any = Any(false);
    let tally = Walker::new(Arc::from(patterns)).walk(&mut any);
    if any.0 || tally.skipped.iter().next().is_some() {
        return Ok(());
    }
    let unreadable = tally.unreadable.iter().map(|(path, error)| {
        let path = Shown(path.as_os_str().as_encoded_bytes());
        format!("{path} cannot be read: {error}")
    });
    let missing = patterns.iter().map(|pattern| {
        let name = Shown(pattern.name.as_bytes());
        format!("no file matches {name}{}", where_not(pattern))
    });
    let reasons: Vec<String> = missing.chain(unreadable).collect();
    let reasons = reasons.join("; ");
    let error = anyhow::anyhow!("{reasons}; nothing was delivered, and nothing was made");
    Err(Failure::new(Exit::Incomplete, error))
}

/// A file is enough.
struct Any(bool);

impl Visitor for Any {
    fn directory(&mut self, _path: &Path) {}

    fn file(&mut self, _found: Found<'_>) -> Option<Skip> {
        self.0 = true;
        None
    }
}

/// A trouble for each pattern that selects no file: none of the `paths` that were found, and none
/// on record. What was there in an earlier run may well be gone.
pub(super) fn never_matched<'p>(
    patterns: &[PatternSettings],
    paths: impl IntoIterator<Item = &'p [u8]>,
    catalogue: &Catalogue,
) -> Result<Vec<Trouble>, Failure> {
    let mut idle: Vec<&PatternSettings> = patterns.iter().collect();
    for path in paths {
        idle.retain(|pattern| !pattern.selects(path));
    }
    let mut after = None;
    while !idle.is_empty() {
        let page = catalogue.index().files(after, INSPECT_ROWS);
        let page = page.map_err(database_failed)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        for (_, file) in &page {
            idle.retain(|pattern| !pattern.selects(&file.source));
        }
    }
    Ok(idle
        .into_iter()
        .map(|pattern| {
            let why = format!("no file matches it{}", where_not(pattern));
            Trouble::pattern(&pattern.name, &why)
        })
        .collect())
}

/// The directory in which a pattern's files would be, when it is not there.
fn where_not(pattern: &PatternSettings) -> String {
    let roots = pattern.glob.roots();
    let mut missing = roots
        .iter()
        .filter(|root| sys::file::stat_path(root).is_err());
    match missing.next() {
        Some(root) => {
            let root = Shown(root.as_os_str().as_encoded_bytes());
            format!(": there is no {root}")
        }
        None => String::new(),
    }
}
