//! Making a lost index anew from the files in the datadir: how one upgrades from the original,
//! and what remains when the database is gone.
//!
//! Every file is hashed whole and synced, so that the index vouches for nothing that this process
//! has not made durable; what nobody has confirmed is `unproven`. A crash leaves no index: it gets
//! its name only when every row is in it.

use std::io;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use super::recover::footprint;
use crate::index::server::{REBUILT, ServerChange, ServerFile, ServerIndex, ServerState};
use crate::index::{EventKind, IndexError, NewEvent};
use crate::limits::IO_CHUNK;
use crate::prefix::PrefixHasher;
use crate::sys;
use crate::sys::datadir;
use crate::sys::dir::{Access, Dir};
use crate::sys::file::{FileKind, FileStat};
use crate::types::{BadPath, FileId, Offset, WirePath};
use crate::verify::figures::Figures;

/// Hashed rows that wait to be written.
const QUEUE: usize = 256;

/// What a rebuild brought.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// Rows in the new index.
    pub files: u64,
    /// Bytes in their files.
    pub bytes: u64,
    /// Files without a row, with the reason.
    pub left_out: Vec<LeftOut>,
}

/// A file that got no row.
#[derive(Debug)]
pub struct LeftOut {
    /// Its path below the datadir.
    pub path: Vec<u8>,
    /// Why.
    pub why: WhyLeftOut,
}

/// Why a file got no row.
#[derive(Debug, thiserror::Error)]
pub enum WhyLeftOut {
    /// No request could name it.
    #[error(transparent)]
    Path(#[from] BadPath),
    /// It is no regular file (any more).
    #[error("not a regular file")]
    NotAFile,
    /// Somebody writes to it.
    #[error("it changed while it was hashed: end whatever writes to it, and rebuild again")]
    Changed,
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why nothing was rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The directories cannot be read.
    #[error("cannot read the datadir: {0}")]
    Walk(#[source] io::Error),
    /// The index cannot be made.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Makes the index `path` from the files in `datadir`, whose lock the caller holds. An index that
/// is there already is an error.
pub fn rebuild(datadir: &Dir, path: &Path, progress: &Figures) -> Result<Rebuilt, RebuildError> {
    let found = walk(datadir, progress).map_err(RebuildError::Walk)?;
    let (sender, receiver) = sync_channel(QUEUE);
    let next = AtomicUsize::new(0);
    let mut rebuilt = Rebuilt::default();
    thread::scope(|scope| {
        for _ in 0..workers(found.len()) {
            let sender = sender.clone();
            let (found, next) = (&found, &next);
            scope.spawn(move || work(datadir, found, next, progress, &sender));
        }
        drop(sender);
        let rows = receiver.iter().filter_map(|hashed| match hashed {
            Ok((path, mut file)) => {
                rebuilt.files += 1;
                file.id = FileId(rebuilt.files);
                rebuilt.bytes += file.vouched.length.bytes();
                Some(ServerChange::put(path, file))
            }
            Err(left_out) => {
                rebuilt.left_out.push(left_out);
                None
            }
        });
        let event = std::iter::once_with(|| {
            let detail = format!("from {} files", found.len());
            ServerChange::Event(NewEvent::now(EventKind::Rebuilt, b"", detail))
        });
        ServerIndex::create_with(path, rows.chain(event).map(Ok))
    })?;
    Ok(rebuilt)
}

/// A regular file found, and what it was.
struct Found {
    path: Vec<u8>,
    stat: FileStat,
}

/// Finds the files, and makes the way to each durable.
fn walk(datadir: &Dir, progress: &Figures) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    datadir.sync_root()?;
    datadir::visit(datadir, |path, kind| {
        if kind == FileKind::Directory {
            datadir.sync_dir(path)?;
        } else if kind == FileKind::Regular
            && let Some(stat) = datadir.stat(path)?
        {
            progress.found(stat.size.bytes());
            let path = path.to_vec();
            found.push(Found { path, stat });
        }
        Ok(true)
    })?;
    // The largest first: no core is left alone with it at the end.
    found.sort_by_key(|found| std::cmp::Reverse(found.stat.size));
    Ok(found)
}

fn workers(files: usize) -> usize {
    thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(files)
}

type Hashed = Result<(WirePath, ServerFile), LeftOut>;

/// Hashes files until there are no more, or nobody wants them.
fn work(
    datadir: &Dir,
    found: &[Found],
    next: &AtomicUsize,
    progress: &Figures,
    rows: &SyncSender<Hashed>,
) {
    while let Some(file) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
        let hashed = hash(datadir, &file.path, progress).map_err(|why| LeftOut {
            path: file.path.clone(),
            why,
        });
        progress.done();
        if rows.send(hashed).is_err() {
            return;
        }
    }
}

/// Hashes and syncs one file; its row.
fn hash(
    datadir: &Dir,
    relative: &[u8],
    progress: &Figures,
) -> Result<(WirePath, ServerFile), WhyLeftOut> {
    let path = WirePath::from_disk(relative)?;
    let file = datadir.open_file(relative, Access::Read)?;
    let before = sys::file::stat(&file)?;
    if before.kind != FileKind::Regular {
        return Err(WhyLeftOut::NotAFile);
    }
    let mut hasher = PrefixHasher::new();
    let mut buffer = vec![0; chunk(before.size)];
    loop {
        let read = sys::file::read_at(&file, hasher.length(), &mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        progress.read(read as u64);
    }
    sys::file::sync_data(&file)?;
    let after = datadir.stat(relative)?;
    let unchanged = after.is_some_and(|after| footprint(&after) == footprint(&before));
    if hasher.length() != before.size || !unchanged {
        return Err(WhyLeftOut::Changed);
    }
    let row = ServerFile {
        // Given where rows come together.
        id: FileId(0),
        vouched: hasher.prefix(),
        hasher: hasher.state(),
        high_water: None,
        footprint: footprint(&before),
        writer: REBUILT.to_owned(),
        state: ServerState::Unproven,
        conditional: false,
        updated: sys::clock::now(),
    };
    Ok((path, row))
}

/// Bytes of one read: no buffer of 256 KiB for a file of one line.
fn chunk(size: Offset) -> usize {
    usize::try_from(size.bytes())
        .unwrap_or(IO_CHUNK)
        .clamp(4096, IO_CHUNK)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::index::server::ServerIndex;

    #[test]
    fn every_delivered_file_gets_an_unproven_row() {
        let home = tempfile::tempdir().unwrap();
        let datadir = Dir::open(home.path()).unwrap();
        let long = vec![7; 3 * IO_CHUNK + 1];
        for (path, bytes) in [
            ("host/a.log", &b"hello"[..]),
            ("host/deep/long", &long),
            ("empty", b""),
            (".tmp.1", b"half a file"),
            (".machine-id", b"0123"),
            ("lost+found/#1", b"from fsck"),
            (".shaftlog/lock", b"1"),
        ] {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        std::os::unix::fs::symlink("host/a.log", home.path().join("link")).unwrap();

        let path = home.path().join(".shaftlog/server.redb");
        let progress = Figures::default();
        let rebuilt = rebuild(&datadir, &path, &progress).unwrap();
        assert!(rebuilt.left_out.is_empty(), "{:?}", rebuilt.left_out);
        assert_eq!((rebuilt.files, rebuilt.bytes), (3, long.len() as u64 + 5));
        assert_eq!(progress.bytes_done.into_inner(), rebuilt.bytes);

        let index = ServerIndex::open(&path, sys::clock::now()).unwrap();
        let rows = index.files(None, 10).unwrap();
        let names: Vec<_> = rows.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(names, ["/empty", "/host/a.log", "/host/deep/long"]);
        for (path, row) in rows {
            let bytes = fs::read(home.path().join(path.to_string().trim_start_matches('/')));
            let hash = blake3::hash(&bytes.unwrap());
            assert_eq!(row.vouched.hash.0, *hash.as_bytes(), "{path}");
            assert_eq!(row.hasher.length(), row.vouched.length, "{path}");
            assert_eq!(row.state, ServerState::Unproven, "{path}");
        }
        assert_eq!(index.events(0, 9).unwrap().len(), 1);
    }

    #[test]
    fn an_index_that_is_there_is_not_replaced() {
        let home = tempfile::tempdir().unwrap();
        let datadir = Dir::open(home.path()).unwrap();
        fs::write(home.path().join("a"), "a").unwrap();
        let path = home.path().join("server.redb");
        ServerIndex::create(&path).unwrap();
        let before = fs::read(&path).unwrap();
        rebuild(&datadir, &path, &Figures::default()).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}
