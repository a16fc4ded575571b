//! Walking the source directories: from each pattern's literal prefix, only where a match may lie.
//!
//! Names are bytes. Symbolic links are not followed, except in the literal prefix, which a person
//! wrote: an ordinary user's link there leads to that user's files only. What is no regular file is
//! counted and left alone; a directory that holds `.shaftlog` is somebody's datadir and never
//! entered. Everything below a prefix is reached without following links that are planted meanwhile.
//! The memory grows with the directories still to be entered, not with the files.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::skips::{Skip, Skips};
use crate::config::PatternSettings;
use crate::limits::PRIVATE_DIR;
use crate::sys::dir::{self, Access, Dir, Entry};
use crate::sys::file::{File, FileKind, FileStat};
use crate::sys::way::{self, Reached};

/// Most unreadable directories and files that one walk names.
const UNREADABLE: usize = 100;

/// What a walk meets.
pub trait Visitor {
    /// A directory that is about to be read.
    fn directory(&mut self, path: &Path);
    /// A regular file that a pattern selects; why it is passed over, if it is.
    fn file(&mut self, found: Found<'_>) -> Option<Skip>;
    /// Whether the walk is to go on.
    fn wants_more(&self) -> bool {
        true
    }
}

/// A regular file that a pattern selects.
pub struct Found<'a> {
    /// Its absolute path.
    pub path: Vec<u8>,
    /// Number of the first pattern that selects it.
    pub pattern: usize,
    /// What it is.
    pub stat: FileStat,
    settings: &'a PatternSettings,
    root: &'a Reached,
    relative: Vec<u8>,
}

impl Found<'_> {
    /// Whether the pattern takes the file that `stat` tells of, which was found here.
    pub fn admits(&self, stat: &FileStat) -> Result<(), Skip> {
        if self.root.led_by.is_some_and(|user| user != stat.uid) {
            return Err(Skip::Led);
        }
        if !self.settings.owners.admit(stat.uid) {
            return Err(Skip::Owner);
        }
        Ok(())
    }

    /// Opens whatever has the path now, for reading; not necessarily what [`stat`](Self::stat)
    /// tells of.
    pub fn open(&self) -> io::Result<File> {
        self.root.dir.open_file(&self.relative, Access::Read)
    }
}

/// What a walk counted.
#[derive(Debug, Default)]
pub struct Tally {
    /// Regular files that a pattern selects and takes.
    pub files: u64,
    /// What patterns select and was passed over.
    pub skipped: Skips,
    /// What could not be looked at, the first hundred of them.
    pub unreadable: Vec<(PathBuf, io::Error)>,
}

/// Where to look for which patterns.
pub struct Walker {
    patterns: Arc<[PatternSettings]>,
    roots: Vec<Root>,
}

struct Root {
    path: PathBuf,
    patterns: Vec<usize>,
}

impl Walker {
    /// A walker for these patterns.
    pub fn new(patterns: Arc<[PatternSettings]>) -> Self {
        let mut roots: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
        for (number, pattern) in patterns.iter().enumerate() {
            for root in pattern.glob.roots() {
                roots.entry(root).or_default().push(number);
            }
        }
        let roots = roots
            .into_iter()
            .map(|(path, patterns)| Root { path, patterns })
            .collect();
        Self { patterns, roots }
    }

    /// The patterns.
    pub fn patterns(&self) -> &[PatternSettings] {
        &self.patterns
    }

    /// Directories where walks begin, each with the patterns that it is for. They need not exist.
    pub fn roots(&self) -> impl Iterator<Item = (&Path, &[usize])> {
        self.roots
            .iter()
            .map(|root| (root.path.as_path(), root.patterns.as_slice()))
    }

    /// Walks everything.
    pub fn walk(&self, visitor: &mut dyn Visitor) -> Tally {
        let mut tally = Tally::default();
        for root in &self.roots {
            self.walk_root(root, visitor, &mut tally);
        }
        tally
    }

    /// Looks at one absolute path: the file, or the directory with all below it.
    pub fn look_at(&self, path: &Path, visitor: &mut dyn Visitor) -> Tally {
        let mut tally = Tally::default();
        for root in &self.roots {
            if root.path.starts_with(path) {
                // The root itself, or a directory on the way to it.
                self.walk_root(root, visitor, &mut tally);
            } else if let Ok(relative) = path.strip_prefix(&root.path) {
                self.look_below(root, relative, visitor, &mut tally);
            }
        }
        tally
    }

    fn walk_root(&self, root: &Root, visitor: &mut dyn Visitor, tally: &mut Tally) {
        match way::open_dir(&root.path) {
            Ok(reached) => self.descend(root, &reached, Vec::new(), visitor, tally),
            Err(error) => tally.unreadable(&root.path, error),
        }
    }

    fn look_below(
        &self,
        root: &Root,
        relative: &Path,
        visitor: &mut dyn Visitor,
        tally: &mut Tally,
    ) {
        let relative = relative.as_os_str().as_bytes();
        let looked = way::open_dir(&root.path).and_then(|reached| {
            let stat = reached.dir.stat(relative)?;
            Ok((reached, stat))
        });
        let (reached, kind) = match looked {
            Ok((reached, Some(stat))) => (reached, stat.kind),
            Ok((_, None)) => return,
            Err(error) => return tally.unreadable_below(&absolute(root, relative), error),
        };
        let path = absolute(root, relative);
        if is_beneath_private(&reached.dir, relative) {
            return;
        }
        if kind != FileKind::Directory {
            self.meet(root, &reached, relative.to_vec(), kind, visitor, tally);
        } else if self.may_descend(root, path.as_os_str().as_bytes()) {
            self.descend(root, &reached, relative.to_vec(), visitor, tally);
        }
    }

    fn descend(
        &self,
        root: &Root,
        reached: &Reached,
        from: Vec<u8>,
        visitor: &mut dyn Visitor,
        tally: &mut Tally,
    ) {
        let mut directories = vec![from];
        while let Some(directory) = directories.pop() {
            if is_private(&reached.dir, &directory) || !visitor.wants_more() {
                continue;
            }
            let path = absolute(root, &directory);
            visitor.directory(&path);
            let read = reached.dir.visit(&directory, |Entry { name, kind }| {
                if !visitor.wants_more() {
                    return;
                }
                let relative = join(&directory, &name);
                if kind != FileKind::Directory {
                    self.meet(root, reached, relative, kind, visitor, tally);
                } else if self.may_descend(root, absolute(root, &relative).as_os_str().as_bytes()) {
                    directories.push(relative);
                }
            });
            if let Err(error) = read {
                tally.unreadable_below(&path, error);
            }
        }
    }

    /// Something that is no directory.
    fn meet(
        &self,
        root: &Root,
        reached: &Reached,
        relative: Vec<u8>,
        kind: FileKind,
        visitor: &mut dyn Visitor,
        tally: &mut Tally,
    ) {
        let path = absolute(root, &relative).into_os_string();
        let path = path.as_bytes();
        let selects = |number: &usize| self.patterns[*number].selects(path);
        if !root.patterns.iter().any(selects) {
            return;
        }
        let Some(pattern) = (0..self.patterns.len()).find(selects) else {
            return;
        };
        let skip = match kind {
            FileKind::Symlink => Some(Skip::Symlink),
            FileKind::Other | FileKind::Directory => Some(Skip::Special),
            FileKind::Regular => {
                let stat = match reached.dir.stat(&relative) {
                    Ok(Some(stat)) if stat.kind == FileKind::Regular => stat,
                    // Gone again, or something else by now.
                    Ok(_) => return,
                    Err(error) => {
                        return tally.unreadable_below(Path::new(OsStr::from_bytes(path)), error);
                    }
                };
                visitor.file(Found {
                    path: path.to_vec(),
                    pattern,
                    stat,
                    settings: &self.patterns[pattern],
                    root: reached,
                    relative,
                })
            }
        };
        match skip {
            Some(skip) => tally.skipped.add(pattern, skip, path),
            None => tally.files += 1,
        }
    }

    fn may_descend(&self, root: &Root, path: &[u8]) -> bool {
        let mut numbers = root.patterns.iter();
        numbers.any(|number| self.patterns[*number].may_descend(path))
    }
}

impl Tally {
    /// Below a root, a link where a directory was is gone like anything that is exchanged.
    fn unreadable_below(&mut self, path: &Path, error: io::Error) {
        if !dir::met_a_link(&error) {
            self.unreadable(path, error);
        }
    }

    /// What is missing is nothing that could not be read.
    fn unreadable(&mut self, path: &Path, error: io::Error) {
        let missing = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
        if !missing.contains(&error.kind()) && self.unreadable.len() < UNREADABLE {
            self.unreadable.push((path.to_owned(), error));
        }
    }
}

fn absolute(root: &Root, relative: &[u8]) -> PathBuf {
    if relative.is_empty() {
        root.path.clone()
    } else {
        root.path.join(OsStr::from_bytes(relative))
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        return name.to_vec();
    }
    [directory, name].join(&b'/')
}

/// Whether the directory is a datadir.
fn is_private(dir: &Dir, directory: &[u8]) -> bool {
    let inside = join(directory, PRIVATE_DIR.as_bytes());
    matches!(dir.stat(&inside), Ok(Some(_)))
}

/// Whether a directory on the way to `relative` is a datadir.
fn is_beneath_private(dir: &Dir, relative: &[u8]) -> bool {
    let ends = relative
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/');
    is_private(dir, b"")
        || ends
            .into_iter()
            .any(|(end, _)| is_private(dir, &relative[..end]))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStringExt as _;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::config::glob::{Exclude, Glob};
    use crate::config::owner::Owners;
    use crate::config::rename::Naming;

    #[derive(Default)]
    struct Seen {
        directories: Vec<PathBuf>,
        paths: Vec<Vec<u8>>,
        files: Vec<(String, usize)>,
    }

    impl Visitor for Seen {
        fn directory(&mut self, path: &Path) {
            self.directories.push(path.to_owned());
        }
        fn file(&mut self, found: Found<'_>) -> Option<Skip> {
            assert!(found.open().is_ok());
            let path = String::from_utf8_lossy(&found.path).into_owned();
            self.files.push((path, found.pattern));
            self.paths.push(found.path);
            None
        }
    }

    struct Tree {
        scratch: tempfile::TempDir,
        walker: Walker,
    }

    impl Tree {
        /// Patterns and paths are relative to a scratch directory.
        fn new(patterns: &[&str], files: &[&str]) -> Self {
            let scratch = tempfile::tempdir().unwrap();
            let at = |relative: &str| format!("{}/{relative}", scratch.path().display());
            let patterns = patterns.iter().map(|pattern| PatternSettings {
                name: "p".to_owned(),
                glob: Glob::parse(&at(pattern)).unwrap(),
                exclude: Exclude::parse(["*.gz"]).unwrap(),
                owners: Owners::Any,
                naming: Naming::template("p", None).unwrap(),
                volatile: Vec::new(),
            });
            let walker = Walker::new(patterns.collect());
            for file in files {
                let path = scratch.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "x").unwrap();
            }
            Self { scratch, walker }
        }

        fn path(&self, relative: &str) -> PathBuf {
            self.scratch.path().join(relative)
        }

        fn walk(&self) -> (Vec<(String, usize)>, Tally) {
            self.relative(|walker, seen| walker.walk(seen))
        }

        fn look_at(&self, relative: &str) -> (Vec<(String, usize)>, Tally) {
            let path = self.path(relative);
            self.relative(|walker, seen| walker.look_at(&path, seen))
        }

        fn relative(
            &self,
            walk: impl FnOnce(&Walker, &mut Seen) -> Tally,
        ) -> (Vec<(String, usize)>, Tally) {
            let mut seen = Seen::default();
            let tally = walk(&self.walker, &mut seen);
            let prefix = format!("{}/", self.scratch.path().display());
            let cut = |(path, pattern): (String, usize)| (path.replacen(&prefix, "", 1), pattern);
            let mut files: Vec<_> = seen.files.into_iter().map(cut).collect();
            files.sort();
            (files, tally)
        }
    }

    fn paths(found: &[(String, usize)]) -> Vec<&str> {
        found.iter().map(|(path, _)| path.as_str()).collect()
    }

    #[test]
    fn finds_what_patterns_select_and_enters_nothing_else() {
        let tree = Tree::new(
            &["log/*.log", "log/app/**/*.log", "log/a*"],
            &[
                "log/a.log",
                "log/b.log.gz",
                "log/app/x/y/z.log",
                "log/other/no.log",
                "a.log",
            ],
        );
        let (found, tally) = tree.walk();
        let expected = [
            ("log/a.log".to_owned(), 0),
            ("log/app/x/y/z.log".to_owned(), 1),
        ];
        assert_eq!(found, expected);
        assert_eq!((tally.files, tally.unreadable.len()), (2, 0));

        let mut seen = Seen::default();
        tree.walker.walk(&mut seen);
        assert!(!seen.directories.contains(&tree.path("log/other")));
        assert!(seen.directories.contains(&tree.path("log/app/x")));
    }

    #[test]
    fn never_follows_links_nor_opens_what_is_no_file() {
        let tree = Tree::new(&["log/**/*.log"], &["log/a.log", "secret/s.log"]);
        symlink(tree.path("secret"), tree.path("log/dir")).unwrap();
        symlink(tree.path("secret/s.log"), tree.path("log/s.log")).unwrap();
        symlink("loop.log", tree.path("log/loop.log")).unwrap();
        let _socket = UnixListener::bind(tree.path("log/socket.log")).unwrap();
        let (found, tally) = tree.walk();
        assert_eq!(paths(&found), ["log/a.log"]);
        let met = |skip| tally.skipped.count(skip);
        assert_eq!((met(Skip::Symlink), met(Skip::Special)), (2, 1));
        assert_eq!(tree.look_at("log/dir/s.log").0, []);
        let tally = tree.look_at("log/s.log").1;
        assert_eq!(tally.skipped.count(Skip::Symlink), 1);
    }

    #[test]
    fn a_link_in_the_literal_prefix_is_followed() {
        let tree = Tree::new(&["log/*.log"], &["real/a.log"]);
        symlink(tree.path("real"), tree.path("log")).unwrap();
        assert_eq!(paths(&tree.walk().0), ["log/a.log"]);
        assert_eq!(paths(&tree.look_at("log/a.log").0), ["log/a.log"]);
    }

    #[test]
    fn a_datadir_is_never_entered() {
        let tree = Tree::new(
            &["log/**"],
            &[
                "log/a",
                "log/data/.shaftlog/lock",
                "log/data/sub/b",
                "log/data/c",
            ],
        );
        assert_eq!(paths(&tree.walk().0), ["log/a"]);
        for inside in ["log/data", "log/data/sub", "log/data/sub/b", "log/data/c"] {
            assert_eq!(tree.look_at(inside).0, [], "{inside}");
        }
    }

    #[test]
    fn looks_at_a_file_a_directory_or_what_leads_to_a_root() {
        let tree = Tree::new(
            &["log/deep/**/*.log"],
            &["log/deep/a.log", "log/deep/x/b.log"],
        );
        assert_eq!(paths(&tree.look_at("log/deep/a.log").0), ["log/deep/a.log"]);
        assert_eq!(paths(&tree.look_at("log/deep/x").0), ["log/deep/x/b.log"]);
        assert_eq!(tree.look_at("log").0.len(), 2);
        assert_eq!(tree.look_at("log/deep/gone").0, []);
        assert_eq!(tree.look_at("elsewhere").0, []);
    }

    #[test]
    fn names_are_bytes() {
        let tree = Tree::new(&["log/*"], &["log/a"]);
        let name = std::ffi::OsString::from_vec(b"log/\xff\n ?#%.log".to_vec());
        fs::write(tree.scratch.path().join(&name), "x").unwrap();
        let mut seen = Seen::default();
        tree.walker.walk(&mut seen);
        assert_eq!(seen.files.len(), 2);
        assert!(
            seen.paths
                .iter()
                .any(|path| path.ends_with(name.as_bytes()))
        );
    }
}
