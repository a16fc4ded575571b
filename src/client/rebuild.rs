//! Making a lost catalogue anew from the links in the datadir: how one upgrades from the original,
//! and what remains when the database is gone.
//!
//! Needs no network: what is confirmed is unknown then and found by asking in normal work. Every
//! link keeps its name; whose sources a scan of the patterns still finds get their path and
//! pattern. After a restore without hard links a link and its source are two files: they become one
//! again when their contents leave no doubt. A crash leaves no database: it gets its name only when
//! every row is in it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalogue::{Catalogue, Orphan, Outcome, StartError};
use super::dirty::Dirty;
use super::skips::Skip;
use super::walk::{Found, Visitor, Walker};
use super::watch::Watches;
use crate::config::PatternSettings;
use crate::index::client::{ClientChange, ClientIndex};
use crate::index::{EventKind, IndexError, NewEvent};
use crate::limits::ADOPT_BATCH;
use crate::sys::dir::Dir;
use crate::sys::{clock, durable};
use crate::types::Shown;

/// What a rebuild brought.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// Rows in the new database.
    pub files: u64,
    /// Those of them whose source no pattern finds.
    pub without_source: u64,
    /// Sources that were restored apart from their links, and have their names again.
    pub reunited: u64,
    /// Files that may have been such sources: each is delivered under a name of its own.
    pub apart: u64,
    /// Names in the datadir that got no row, with the reason.
    pub left_out: Vec<(Vec<u8>, String)>,
}

/// Why nothing was rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The links could not be read.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The new database.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// It could not be put in its place.
    #[error("cannot write {path}: {source}")]
    Publish {
        /// The database.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes the database `database` of a locked `datadir` from the links in it; there must be none.
/// `patterns` may be empty.
pub fn rebuild(
    datadir: &Path,
    database: &Path,
    patterns: &Arc<[PatternSettings]>,
) -> Result<Rebuilt, RebuildError> {
    let publish = |source| RebuildError::Publish {
        path: database.to_owned(),
        source,
    };
    let temporary = database.with_extension("rebuilding");
    durable::remove_leftover(&temporary).map_err(publish)?;
    ClientIndex::create(&temporary)?;
    let rebuilt = fill(datadir, &temporary, patterns)?;
    durable::publish(&temporary, database).map_err(publish)?;
    Ok(rebuilt)
}

fn fill(
    datadir: &Path,
    database: &Path,
    patterns: &Arc<[PatternSettings]>,
) -> Result<Rebuilt, RebuildError> {
    let dir = Dir::open(datadir).map_err(|source| StartError::Datadir {
        datadir: datadir.to_owned(),
        source,
    })?;
    let dirty = Arc::new(Dirty::default());
    let watches = Arc::new(Watches::none(Arc::clone(&dirty)));
    let index = ClientIndex::open(database)?;
    let catalogue = Catalogue::with_links(dir, index, &[], dirty, watches)?;
    let mut finder = Finder {
        catalogue: &catalogue,
        patterns,
        batch: Vec::new(),
        unlinked: Vec::new(),
        rebuilt: Rebuilt::default(),
    };
    Walker::new(Arc::clone(patterns)).walk(&mut finder);
    finder.adopt();
    finder.reunite()?;
    let mut rebuilt = finder.rebuilt;
    for batch in catalogue.orphans().chunks(ADOPT_BATCH) {
        let batch = batch.iter().map(|inode| Orphan::without_source(*inode));
        for outcome in catalogue.adopt_links(batch.collect(), true) {
            rebuilt.without_source += u64::from(outcome.result.is_ok());
            rebuilt.count(outcome);
        }
    }
    let event = rebuilt_event(b"", format!("{} files", rebuilt.files));
    catalogue.index().commit(&[event])?;
    Ok(rebuilt)
}

fn rebuilt_event(subject: &[u8], detail: String) -> ClientChange {
    ClientChange::Event(NewEvent {
        at: clock::now(),
        kind: EventKind::Rebuilt,
        subject: subject.to_vec(),
        detail,
    })
}

/// Has the links adopted whose inodes a walk meets.
struct Finder<'a> {
    catalogue: &'a Catalogue,
    patterns: &'a [PatternSettings],
    batch: Vec<Orphan>,
    /// What the walk met that no link holds.
    unlinked: Vec<Orphan>,
    rebuilt: Rebuilt,
}

impl Finder<'_> {
    fn adopt(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        for outcome in self.catalogue.adopt_links(batch, true) {
            self.rebuilt.count(outcome);
        }
    }

    /// Has the sources adopted that were restored apart from their links. Each is an event, and so
    /// is each that may have been one.
    fn reunite(&mut self) -> Result<(), IndexError> {
        let reunited = self.catalogue.reunite(std::mem::take(&mut self.unlinked));
        let mut events = Vec::new();
        for (source, name) in &reunited.joined {
            let detail = format!("restored from a copy: {} again", Shown(&source.path));
            tracing::warn!("{name}: {detail}");
            events.push(rebuilt_event(name.as_bytes(), detail));
        }
        for (source, name, why) in &reunited.apart {
            let source = Shown(&source.path);
            let detail = format!("maybe a copy of {source}, but {why}: that gets another name");
            tracing::warn!("{name}: {detail}");
            events.push(rebuilt_event(name.as_bytes(), detail));
        }
        self.rebuilt.reunited = reunited.joined.len() as u64;
        self.rebuilt.apart = reunited.apart.len() as u64;
        for (source, _) in reunited.joined {
            self.batch.push(source);
            if self.batch.len() >= ADOPT_BATCH {
                self.adopt();
            }
        }
        self.adopt();
        self.catalogue.index().commit(&events)
    }
}

impl Visitor for Finder<'_> {
    fn directory(&mut self, _: &Path) {}

    fn file(&mut self, found: Found<'_>) -> Option<Skip> {
        let admitted = found.admits(&found.stat);
        let pattern = self.patterns[found.pattern].name.clone();
        let orphan = Orphan {
            inode: found.stat.inode,
            path: found.path,
            pattern,
        };
        if !self.catalogue.is_linked(orphan.inode) {
            // A link would be given to it: only what may be delivered can have one.
            if admitted.is_ok() {
                self.unlinked.push(orphan);
            }
            return admitted.err();
        }
        self.batch.push(orphan);
        if self.batch.len() >= ADOPT_BATCH {
            self.adopt();
        }
        None
    }
}

impl Rebuilt {
    fn count(&mut self, outcome: Outcome) {
        match outcome.result {
            Ok(_) => self.files += 1,
            Err(error) => self.left_out.push((outcome.path, error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::config::glob::{Exclude, Glob};
    use crate::config::owner::Owners;
    use crate::config::rename::Naming;

    fn all_of(log: &Path) -> PatternSettings {
        PatternSettings {
            name: "p".to_owned(),
            glob: Glob::parse(&format!("{}/*", log.display())).unwrap(),
            exclude: Exclude::default(),
            owners: Owners::Any,
            naming: Naming::template("p", None).unwrap(),
            volatile: Vec::new(),
        }
    }

    #[test]
    fn links_keep_their_names_and_find_their_sources_again() {
        let scratch = tempfile::tempdir().unwrap();
        let (datadir, log) = (scratch.path().join("data"), scratch.path().join("log"));
        for directory in [&datadir.join(".shaftlog"), &datadir.join("sub"), &log] {
            fs::create_dir_all(directory).unwrap();
        }
        for (source, link) in [("a", "a.1700"), ("b", "sub/b.1700")] {
            fs::write(log.join(source), source).unwrap();
            fs::hard_link(log.join(source), datadir.join(link)).unwrap();
        }
        fs::write(log.join("new"), "not linked yet").unwrap();
        fs::write(datadir.join("gone.1700"), "its source was removed").unwrap();
        fs::write(datadir.join(".machine-id"), "0123").unwrap();
        fs::write(datadir.join(".tmp.77"), "").unwrap();
        let pattern = all_of(&log);
        let database = datadir.join(".shaftlog/client.redb");
        // What an interrupted attempt leaves.
        fs::write(database.with_extension("rebuilding"), "half").unwrap();

        let rebuilt = rebuild(&datadir, &database, &[pattern].into()).unwrap();
        assert_eq!((rebuilt.files, rebuilt.without_source), (3, 1));
        assert!(rebuilt.left_out.is_empty());
        assert_eq!(fs::metadata(log.join("new")).unwrap().nlink(), 1);
        let index = ClientIndex::open(&database).unwrap();
        let mut rows: Vec<_> = index
            .files(None, 10)
            .unwrap()
            .into_iter()
            .map(|(_, row)| (row.name.to_string(), row.source, row.pattern))
            .collect();
        rows.sort();
        let source = |name: &str| log.join(name).into_os_string().into_encoded_bytes();
        let expected = [
            ("a.1700", source("a"), "p"),
            ("gone.1700", Vec::new(), ""),
            ("sub/b.1700", source("b"), "p"),
        ];
        let expected =
            expected.map(|(name, source, pattern)| (name.to_owned(), source, pattern.to_owned()));
        assert_eq!(rows, expected);
        // No destination may take them for new files.
        let (_, destination) = index.destination("http://one/").unwrap();
        assert!(
            index
                .files(None, 10)
                .unwrap()
                .iter()
                .all(|(id, _)| *id < destination.since)
        );
        let events = index.events(0, 10).unwrap();
        let kinds: Vec<_> = events.iter().map(|(_, event)| event.kind).collect();
        assert_eq!(kinds, [EventKind::Rebuilt]);
    }

    #[test]
    fn a_source_of_an_owner_whom_the_pattern_does_not_name_gets_no_link() {
        let scratch = tempfile::tempdir().unwrap();
        let (datadir, log) = (scratch.path().join("data"), scratch.path().join("log"));
        for directory in [&datadir.join(".shaftlog"), &log] {
            fs::create_dir_all(directory).unwrap();
        }
        let content = "a line\n".repeat(1_000);
        fs::write(datadir.join("a.1700"), &content).unwrap();
        fs::write(log.join("a"), &content).unwrap();
        let owned_by = |uid: u32| {
            let text = format!(
                "datadir: /d\nscan_paths:\n- {{name: p, pattern: '{}/*', owner: {uid}}}\n\
                 destinations:\n- url: http://h/\n",
                log.display()
            );
            let here = crate::config::Environment::here();
            let read = crate::config::parse_client(Path::new("x"), text.as_bytes(), &here);
            read.unwrap().patterns.into()
        };
        let ours = fs::metadata(log.join("a")).unwrap().uid();
        let links = || fs::metadata(log.join("a")).unwrap().nlink();
        let database = datadir.join(".shaftlog/client.redb");
        let rebuilt = rebuild(&datadir, &database, &owned_by(ours + 1)).unwrap();
        assert_eq!((rebuilt.files, rebuilt.reunited, links()), (1, 0, 1));
        fs::remove_file(&database).unwrap();
        let rebuilt = rebuild(&datadir, &database, &owned_by(ours)).unwrap();
        assert_eq!((rebuilt.files, rebuilt.reunited, links()), (1, 1, 2));
    }

    #[test]
    fn a_source_gets_its_link_s_name_only_without_a_doubt() {
        let scratch = tempfile::tempdir().unwrap();
        let (datadir, log) = (scratch.path().join("data"), scratch.path().join("log"));
        for directory in [&datadir.join(".shaftlog"), &log] {
            fs::create_dir_all(directory).unwrap();
        }
        let head = "a line that many files have\n".repeat(100);
        let second = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        let write = |path: PathBuf, content: &str| {
            fs::write(&path, content).unwrap();
            let file = fs::File::options().append(true).open(path).unwrap();
            file.set_modified(second).unwrap();
        };
        for (link, content) in [
            // Both begin `grown`; it is the longer one.
            ("short.1700", head.clone()),
            ("grown.1700", head.clone() + "one\n"),
            // Which one is whose?
            ("twin.1700", head.clone() + "two\n"),
            ("twin.1800", head.clone() + "two\n"),
            // Two files may have been this one.
            ("either.1700", head.clone() + "three\n"),
            // So short a file proves something only with its time, and as a whole.
            ("heading.1700", "# heading\n".to_owned()),
            ("tiny.1700", "tiny\n".to_owned()),
        ] {
            write(datadir.join(link), &content);
        }
        for (source, content) in [
            ("grown", head.clone() + "one\nand more\n"),
            ("twin", head.clone() + "two\n"),
            ("either", head.clone() + "three\n"),
            ("or", head + "three\nand more\n"),
            ("other", "# heading\nof another file\n".to_owned()),
            ("tiny", "tiny\n".to_owned()),
        ] {
            write(log.join(source), &content);
        }
        let database = datadir.join(".shaftlog/client.redb");
        let rebuilt = rebuild(&datadir, &database, &[all_of(&log)].into()).unwrap();
        assert_eq!((rebuilt.files, rebuilt.without_source), (7, 5));
        assert_eq!((rebuilt.reunited, rebuilt.apart), (2, 3));
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        let mut apart = 0;
        let index = ClientIndex::open(&database).unwrap();
        for (_, row) in index.files(None, 10).unwrap() {
            let source = match row.name.as_bytes() {
                b"grown.1700" => "grown",
                b"tiny.1700" => "tiny",
                _ => {
                    assert_eq!(row.source, b"");
                    apart += 1;
                    continue;
                }
            };
            let name = datadir.join(row.name.to_string());
            assert_eq!(inode(name), inode(log.join(source)));
            assert_eq!(row.inode.number, inode(log.join(source)));
            assert_eq!(
                row.length.bytes(),
                fs::metadata(log.join(source)).unwrap().len()
            );
        }
        assert_eq!(apart, 5);
        let events = index.events(0, 10).unwrap();
        let told = |name: &str, what: &str| {
            events.iter().any(|(_, event)| {
                event.kind == EventKind::Rebuilt
                    && event.subject == name.as_bytes()
                    && event.detail.contains(what)
            })
        };
        assert!(told("grown.1700", "again") && told("tiny.1700", "again"));
        assert!(told("either.1700", "another file begins with its bytes"));
        assert!(told("twin.1700", "several names") || told("twin.1800", "several names"));
        assert_eq!(events.len(), 6);
    }
}
