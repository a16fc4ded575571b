//! Links that have lost their sources: restored file by file without hard links, with no database
//! to tell which file each was a link of. Their contents tell.
//!
//! A file that begins with all of one link's bytes, and of no longer link's, is what that link was
//! of: the name is given to it, and delivery goes on where the server's hash says. Where that is not
//! certain the two stay apart, and the file is delivered under a name of its own.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use super::adopt::Orphan;
use super::rebind::{is_prefix, take_place};
use super::{Catalogue, Holding, disk};
use crate::client::source::{ReadError, Source};
use crate::limits::SEAM_HEAD;
use crate::sys::dir::{Access, Dir};
use crate::sys::file::File;
use crate::sys::way;
use crate::types::{Inode, Offset, Shown, StableName};

/// What became of the files that no link holds.
#[derive(Default)]
pub(in crate::client) struct Reunited {
    /// Those that have a link's name now: they are orphans to adopt, each with that name.
    pub(in crate::client) joined: Vec<(Orphan, StableName)>,
    /// Those that may have belonged to the link of that name, and why nobody can say.
    pub(in crate::client) apart: Vec<(Orphan, StableName, &'static str)>,
}

/// What a file and its link have in common for certain; cheap to compare.
#[derive(PartialEq, Eq, Hash)]
struct Likeness {
    /// Hash of the first KiB.
    head: [u8; 32],
    /// Of a file of less than that, which may be but a heading that many have: length, and the
    /// second of its last change, which archives keep.
    small: Option<(Offset, i64)>,
}

/// A link that no known file shows.
struct Link {
    name: StableName,
    inode: Inode,
    size: Offset,
}

impl Catalogue {
    /// Gives the names of links without a source to those of `sources` that they were links of.
    pub(in crate::client) fn reunite(&self, sources: Vec<Orphan>) -> Reunited {
        let mut reunited = Reunited::default();
        let Holding::Links(datadir, _) = &self.holding else {
            return reunited;
        };
        let links = self.links_by_likeness(datadir);
        let mut claims: HashMap<StableName, (&Link, Vec<Orphan>)> = HashMap::new();
        let mut inodes = HashSet::new();
        for source in sources {
            // A second name of the same inode is no second file.
            if !inodes.insert(source.inode) {
                continue;
            }
            let fitting = longest_within(datadir, &links, &source).unwrap_or_else(|error| {
                tracing::warn!("{}: {error}", Shown(&source.path));
                Vec::new()
            });
            match fitting[..] {
                [] => {}
                [link] => {
                    let claim = claims.entry(link.name.clone());
                    claim.or_insert((link, Vec::new())).1.push(source);
                }
                [first, ..] => {
                    let why = "several names in the datadir have the same bytes";
                    reunited.apart.push((source, first.name.clone(), why));
                }
            }
        }
        for (name, (link, mut claimants)) in claims {
            if claimants.len() > 1 {
                let why = "another file begins with its bytes too";
                let apart = claimants
                    .into_iter()
                    .map(|source| (source, name.clone(), why));
                reunited.apart.extend(apart);
            } else if let Some(source) = claimants.pop() {
                if self.join(datadir, link, &source) {
                    reunited.joined.push((source, name));
                } else {
                    let why = "it cannot be linked into the datadir";
                    reunited.apart.push((source, name, why));
                }
            }
        }
        reunited
    }

    /// The links without a source, the longest of each kind first.
    fn links_by_likeness(&self, datadir: &Dir) -> HashMap<Likeness, Vec<Link>> {
        let orphans = self.state().orphans.clone();
        let mut links: HashMap<Likeness, Vec<Link>> = HashMap::new();
        for (inode, name) in orphans {
            let seen = open_link(datadir, &name, inode).and_then(|file| likeness(&file));
            match seen {
                Ok((likeness, size)) => {
                    let link = Link { name, inode, size };
                    links.entry(likeness).or_default().push(link);
                }
                Err(error) => tracing::warn!("{name}: {error}"),
            }
        }
        for alike in links.values_mut() {
            alike.sort_by_key(|link| std::cmp::Reverse(link.size));
        }
        links
    }

    /// Gives the link's name to the file; whether it has it now.
    fn join(&self, datadir: &Dir, link: &Link, source: &Orphan) -> bool {
        let taken =
            open_source(source).and_then(|(_, file)| Ok(take_place(datadir, &link.name, &file)?));
        if let Err(error) = taken {
            tracing::warn!("{}: {error}", Shown(&source.path));
        }
        let joined = disk::shows(datadir, &link.name, source.inode).unwrap_or(false);
        if joined {
            let mut state = self.state();
            state.orphans.remove(&link.inode);
            state.orphans.insert(source.inode, link.name.clone());
        }
        joined
    }
}

/// The links whose bytes are the beginning of this file: the longest, or several of one length.
fn longest_within<'a>(
    datadir: &Dir,
    links: &'a HashMap<Likeness, Vec<Link>>,
    source: &Orphan,
) -> Result<Vec<&'a Link>, ReadError> {
    let (file, _) = open_source(source)?;
    let (likeness, size) = likeness(&file)?;
    let mut fitting: Vec<&Link> = Vec::new();
    for link in links.get(&likeness).into_iter().flatten() {
        if fitting.first().is_some_and(|found| found.size > link.size) {
            break;
        }
        if link.size > size {
            continue;
        }
        let linked = open_link(datadir, &link.name, link.inode)?;
        // The seam first: files of one program may all begin alike.
        if linked.seam(link.size)? == file.seam(link.size)? && is_prefix(&linked, &file)? {
            fitting.push(link);
        }
    }
    Ok(fitting)
}

fn likeness(source: &Source) -> Result<(Likeness, Offset), ReadError> {
    let stat = source.stat()?;
    let head_end = Offset::ZERO.plus(SEAM_HEAD).unwrap_or(stat.size);
    let small = (stat.size < head_end).then(|| {
        let second = stat.mtime.div_euclid(1_000_000_000);
        (stat.size, second)
    });
    let head = source.seam(stat.size.min(head_end))?.head;
    Ok((Likeness { head, small }, stat.size))
}

fn open_link(datadir: &Dir, name: &StableName, inode: Inode) -> Result<Source, ReadError> {
    checked(datadir.open_file(name.as_bytes(), Access::Read)?, inode)
}

fn open_source(source: &Orphan) -> Result<(Source, File), ReadError> {
    let file = way::open_file(Path::new(OsStr::from_bytes(&source.path)))?;
    let again = file.try_clone()?;
    Ok((checked(file, source.inode)?, again))
}

fn checked(file: File, inode: Inode) -> Result<Source, ReadError> {
    let source = Source::checked(Arc::new(file), inode);
    Ok(source.map_err(|error| io::Error::other(error.to_string()))?)
}
