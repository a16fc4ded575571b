//! Making the ways to new files durable, before the commit that makes the files known: each
//! directory is fsynced once for all new files in it that wait for the same commit.
//!
//! A directory on the way is fsynced when it, or the one below it, is new to this process; the one
//! that holds the file always is.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crate::limits::DURABLE_DIRS;
use crate::sys::dir::Dir;
use crate::types::{Inode, WirePath};

/// See the module.
#[derive(Debug)]
pub(crate) struct Ways {
    dir: Arc<Dir>,
    /// Directories whose name is durable in the one above.
    known: HashMap<Vec<u8>, Inode>,
}

impl Ways {
    pub(crate) fn new(dir: Arc<Dir>) -> Self {
        Self {
            dir,
            known: HashMap::new(),
        }
    }

    /// Makes the ways to `paths` durable, whoever made them; says of each whether it is.
    pub(crate) fn sync<'p>(
        &mut self,
        paths: impl IntoIterator<Item = &'p WirePath>,
    ) -> Vec<io::Result<()>> {
        let mut synced: HashMap<&[u8], io::Result<()>> = HashMap::new();
        let sync = |path: &'p WirePath| {
            let parent = parent(path);
            copy(
                synced
                    .entry(parent)
                    .or_insert_with(|| self.sync_way(parent)),
            )
        };
        paths.into_iter().map(sync).collect()
    }

    fn sync_way(&mut self, parent: &[u8]) -> io::Result<()> {
        let ends = parent.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let ends: Vec<usize> = ends.map(|(end, _)| end).chain([parent.len()]).collect();
        let mut above: &[u8] = b"";
        for end in ends.into_iter().filter(|end| *end > 0) {
            let below = &parent[..end];
            let inode = self.dir.stat(below)?.map(|stat| stat.inode);
            if inode.is_none() || self.known.get(below).copied() != inode {
                self.dir.sync_dir(above)?;
                self.learn(below, inode);
            }
            above = below;
        }
        self.dir.sync_dir(parent)
    }

    fn learn(&mut self, relative: &[u8], inode: Option<Inode>) {
        if self.known.len() >= DURABLE_DIRS {
            self.known.clear();
        }
        if let Some(inode) = inode {
            self.known.insert(relative.to_vec(), inode);
        }
    }
}

/// The directory that holds the file, empty for the datadir.
fn parent(path: &WirePath) -> &[u8] {
    let relative = path.as_bytes();
    let slash = relative.iter().rposition(|byte| *byte == b'/');
    &relative[..slash.unwrap_or(0)]
}

fn copy(result: &io::Result<()>) -> io::Result<()> {
    result
        .as_ref()
        .copied()
        .map_err(|error| match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> WirePath {
        WirePath::decode(text).unwrap()
    }

    #[test]
    fn a_way_is_known_until_a_directory_on_it_is_another() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Arc::new(Dir::open(scratch.path()).unwrap());
        dir.create_parents(b"a/b/f", 0o750).unwrap();
        let mut ways = Ways::new(Arc::clone(&dir));
        let inode = |relative: &[u8]| dir.stat(relative).unwrap().map(|stat| stat.inode);
        ways.sync_way(b"a/b").unwrap();
        assert_eq!(ways.known.get(&b"a"[..]).copied(), inode(b"a"));
        assert_eq!(ways.known.get(&b"a/b"[..]).copied(), inode(b"a/b"));

        dir.rename_noreplace(b"a/b", b"a/c").unwrap();
        dir.create_parents(b"a/b/f", 0o750).unwrap();
        assert_ne!(ways.known.get(&b"a/b"[..]).copied(), inode(b"a/b"));
        ways.sync_way(b"a/b").unwrap();
        assert_eq!(ways.known.get(&b"a/b"[..]).copied(), inode(b"a/b"));
    }

    #[test]
    fn each_way_is_answered_for_and_a_missing_one_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Arc::new(Dir::open(scratch.path()).unwrap());
        dir.create_parents(b"a/f", 0o750).unwrap();
        let mut ways = Ways::new(dir);
        let paths = [path("/f"), path("/a/f"), path("/b/g"), path("/a/g")];
        let kinds = ways
            .sync(&paths)
            .into_iter()
            .map(|synced| synced.map_err(|error| error.kind()));
        let missing = Err(io::ErrorKind::NotFound);
        assert_eq!(kinds.collect::<Vec<_>>(), [Ok(()), Ok(()), missing, Ok(())]);
    }
}
