//! Nothing is cut off or moved away before it is kept below `.shaftlog/quarantine`, with a row and
//! an event that say what it is.
//!
//! The end of a file, be it a tail that differs from what is delivered now, is copied, made durable
//! and recorded, and only then cut off: a crash leaves the copy, the tail, or both. A whole file is
//! renamed, see [`close`], or copied where another filesystem is mounted on the way to it. [`thin`]
//! keeps the quarantine within its bounds.

use std::io;

use tracing::warn;

use super::append_only;
use super::commit::{Epoch, Uncommitted};
use super::core::Core;
use super::data::DataFile;
use super::recover::{self, Trouble};
use crate::index::server::{Quarantined, ServerChange, ServerFile};
use crate::index::{EventKind, NewEvent};
use crate::limits::{IO_CHUNK, PRIVATE_DIR, QUARANTINE_COPIES};
use crate::prefix::PrefixHasher;
use crate::sys::dir::Access;
use crate::sys::file::{self, File, FileKind, FileStat};
use crate::sys::{clock, host};
use crate::types::words::span;
use crate::types::{ByteRange, CommitNumber, Offset, Prefix, Shown, WirePath};

/// Mode of the quarantine and of what lies in it: it may be anybody's log.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Why bytes are set aside that do not equal those a client sends.
pub(crate) const DIFFER: &str = "differ from what was delivered there";

/// Moves the bytes of `range`, the end of `file`, into quarantine; the file ends where they began.
/// `why` goes on from "bytes M to N" in the event. The name of the copy.
pub(crate) fn set_aside(
    core: &Core,
    path: &WirePath,
    epoch: Epoch,
    file: &DataFile,
    range: ByteRange,
    why: &str,
) -> Result<String, Trouble> {
    set_aside_with(core, path, file, range, why, None, |changes| {
        core.commits.submit_and_wait(epoch, changes)
    })
}

/// The same when a life of the path ends by it, whose row was `ended`; `commit` has what is said of
/// the copy committed together with the row that follows.
pub(super) fn set_aside_with(
    core: &Core,
    path: &WirePath,
    file: &DataFile,
    range: ByteRange,
    why: &str,
    ended: Option<&ServerFile>,
    commit: impl FnOnce(Vec<ServerChange>) -> Result<CommitNumber, Uncommitted>,
) -> Result<String, Trouble> {
    // What hinders the cut had better show before there is a copy: each retry would leave one more.
    append_only::lift(core, path, file)?;
    let _unthinned = core.quarantine.enter();
    let name = save(core, file, range)?;
    let detail = format!(
        "bytes {} to {} {why}; kept as {name}",
        range.start(),
        range.end(),
    );
    warn!("{path}: {detail}");
    let event = NewEvent::now(EventKind::TailQuarantined, path.as_bytes(), detail);
    let kept = Quarantined {
        path: path.as_bytes().to_vec(),
        id: ended.map(|row| row.id),
        start: range.start(),
        end: range.end(),
        recorded: ended.map(|row| row.vouched),
        found: None,
        inode: None,
        at: clock::now(),
        gone: false,
    };
    let kept = ServerChange::Quarantine {
        name: name.clone(),
        row: Box::new(kept),
    };
    if let Err(failure) = commit(vec![kept, ServerChange::Event(event)]) {
        // The tail is where it was: each retry would leave one more copy of it.
        core.dir.unlink(&relative(&name))?;
        return Err(failure.into());
    }
    core.quarantine.entered(range.len(), core.rules.quarantine);
    append_only::cut(core, path, file, range.start())?;
    Ok(name)
}

/// Copies the bytes to a new file in quarantine, durably; its name there. A copy that fails goes
/// again, lest each retry fill the disk further.
fn save(core: &Core, file: &File, range: ByteRange) -> io::Result<String> {
    let name = new_name("tail")?;
    let relative = relative(&name);
    core.dir.create_parents(&relative, DIR_MODE)?;
    copy_to(core, file, range.start(), range.end(), &relative)?;
    Ok(name)
}

/// A new file with the bytes `start..end` of another, durable, or none.
fn copy_to(core: &Core, file: &File, start: Offset, end: Offset, name: &[u8]) -> io::Result<()> {
    let target = core.dir.create_file(name, FILE_MODE)?;
    if let Err(failure) = copy(file, start, end, &target) {
        core.dir.unlink(name)?;
        return Err(failure);
    }
    core.dir.sync_chain(name)
}

fn copy(file: &File, start: Offset, end: Offset, target: &File) -> io::Result<()> {
    let mut buffer = vec![0; IO_CHUNK];
    let mut copied: u64 = 0;
    while let Some(at) = start.plus(copied).filter(|at| *at < end) {
        let left = end.since(at).min(IO_CHUNK as u64);
        let wanted = usize::try_from(left).unwrap_or(IO_CHUNK);
        let read = file::read_at(file, at, &mut buffer[..wanted])?;
        if read == 0 {
            break;
        }
        file::append_all(target, &buffer[..read])?;
        copied += read as u64;
    }
    file::sync_all(target)
}

/// Ends this life of a path: its row becomes history, its file goes into quarantine, and the next
/// delivery begins anew. The name under which the file is kept; `None` when there was none.
///
/// First what will be is committed, with the move as still due; then the file is moved; then that
/// is recorded. A crash between leaves a move that [`finish`] finds at the next start.
pub(super) fn close(
    core: &Core,
    path: &WirePath,
    epoch: Epoch,
    row: Option<&ServerFile>,
    stat: Option<&FileStat>,
) -> Result<Option<String>, Trouble> {
    finish(core)?;
    let name = stat.map(|_| new_name("file")).transpose()?;
    let mut changes = vec![
        ServerChange::Close {
            path: path.clone(),
            moving: name.clone(),
        },
        ServerChange::Suspect,
    ];
    let mut kept = Quarantined {
        path: path.as_bytes().to_vec(),
        id: row.map(|row| row.id),
        start: Offset::ZERO,
        end: stat.map_or(Offset::ZERO, |stat| stat.size),
        recorded: row.map(|row| row.vouched),
        found: None,
        inode: stat.map(|stat| stat.inode),
        at: clock::now(),
        gone: stat.is_none(),
    };
    let mut detail = "there was no file".to_owned();
    if let (Some(name), Some(stat)) = (&name, stat) {
        // What hinders the move had better show before the commit.
        core.dir.create_parents(&relative(name), DIR_MODE)?;
        append_only::lift_of(core, path)?;
        kept.found = row
            .map(|row| hash_found(core, path, row, stat))
            .transpose()?;
        detail = in_words(name, &kept);
    }
    if row.is_some() || stat.is_some() {
        // Without a copy too: it tells which life of the path has ended.
        changes.push(ServerChange::Quarantine {
            name: name.clone().map_or_else(|| new_name("file"), Ok)?,
            row: Box::new(kept),
        });
    }
    warn!("{path}: moved aside by the operator: {detail}");
    let event = NewEvent::now(EventKind::Quarantined, path.as_bytes(), detail);
    changes.push(ServerChange::Event(event));
    core.commits.submit_and_wait(epoch, changes)?;
    finish(core)?;
    Ok(name)
}

/// What as many bytes of the file as are vouched for, or as there are, hash to.
fn hash_found(
    core: &Core,
    path: &WirePath,
    row: &ServerFile,
    stat: &FileStat,
) -> Result<Prefix, Trouble> {
    let file = core.dir.open_file(path.as_bytes(), Access::Read)?;
    let end = stat.size.min(row.vouched.length);
    let hasher = recover::hash_on(core, &file, PrefixHasher::new(), end)?;
    Ok(hasher.prefix())
}

fn in_words(name: &str, kept: &Quarantined) -> String {
    let mut words = format!("{} bytes, kept as {name}", kept.end);
    for (what, prefix) in [("vouched for", kept.recorded), ("found", kept.found)] {
        if let Some(prefix) = prefix {
            let Prefix { length, hash } = prefix;
            words += &[
                "; ",
                what,
                ": ",
                &format!("{length} bytes with hash {hash}"),
            ]
            .concat();
        }
    }
    words
}

/// Does a move that is still due, be it of a process before.
pub(super) fn finish(core: &Core) -> Result<(), Trouble> {
    let epoch = core.commits.epoch();
    let Some((name, kept)) = core.index.moving()? else {
        return Ok(());
    };
    if let Ok(path) = WirePath::from_disk(&kept.path[..]) {
        // Somebody may have removed it since.
        core.dir.create_parents(&relative(&name), DIR_MODE)?;
        let stat = recover::regular(core, &path)?;
        let stat = stat.filter(|stat| Some(stat.inode) == kept.inode);
        if let Some(stat) = stat
            && core.index.file(&path)?.is_none()
        {
            take_away(core, &path, &stat, &relative(&name))?;
        }
        // Moved, maybe, by a process that died over it.
        core.dir.sync_chain(path.as_bytes())?;
        core.dir.sync_chain(&relative(&name))?;
    }
    core.commits
        .submit_and_wait(epoch, vec![ServerChange::Moved])?;
    Ok(())
}

/// Gives the file that `path` names the name `to`. Into another filesystem it is copied, and goes when
/// the copy is durable; what a crash has left of a copy is made anew.
fn take_away(core: &Core, path: &WirePath, stat: &FileStat, to: &[u8]) -> Result<(), Trouble> {
    append_only::lift_of(core, path)?;
    match core.dir.rename_noreplace(path.as_bytes(), to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        renamed => return Ok(renamed?),
    }
    let _unthinned = core.quarantine.enter();
    let file = core.dir.open_file(path.as_bytes(), Access::Read)?;
    match core.dir.unlink(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    copy_to(core, &file, Offset::ZERO, stat.size, to)?;
    let is_as_copied = |now: FileStat| now.inode == stat.inode && now.size == stat.size;
    if !recover::regular(core, path)?.is_some_and(is_as_copied) {
        return Err(Trouble::Busy("the file was changed while it was copied"));
    }
    Ok(core.dir.unlink(path.as_bytes())?)
}

/// Removes the oldest copies while there are more of them, more bytes or older ones than the operator
/// allows; the newest stays. Each is told before it goes, and its row stays.
pub(super) fn thin(core: &Core) -> Result<(), Trouble> {
    // A copy that is being made has no row yet, and its bytes are about to be cut off.
    let _alone = core.quarantine.thin();
    let directory = relative("");
    let directory = directory.strip_suffix(b"/").unwrap_or_default();
    let entries = match core.dir.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    // What somebody else has put there is his.
    let mut names: Vec<String> = entries
        .into_iter()
        .filter(|entry| entry.kind == FileKind::Regular)
        .filter_map(|entry| String::from_utf8(entry.name).ok())
        .filter(|name| made_at(name).is_some())
        .collect();
    names.sort_unstable_by(|one, other| other.cmp(one));
    let now = clock::now().as_second();
    let bounds = core.rules.quarantine;
    let (mut total, mut superfluous) = (0_u64, Vec::new());
    for (place, name) in names.iter().enumerate() {
        let size = core
            .dir
            .stat(&relative(name))?
            .map_or(0, |stat| stat.size.bytes());
        total = total.saturating_add(size);
        let age = made_at(name).map_or(0, |at| now.saturating_sub(at));
        let is_old = u64::try_from(age).is_ok_and(|age| age > bounds.keep.as_secs());
        let is_too_much = total > bounds.size || place >= QUARANTINE_COPIES;
        if place > 0 && (is_old || is_too_much) {
            superfluous.push((name, size));
        }
    }
    for (name, size) in superfluous.into_iter().rev() {
        discard(core, name, size)?;
    }
    Ok(())
}

fn discard(core: &Core, name: &str, size: u64) -> Result<(), Trouble> {
    let epoch = core.commits.epoch();
    let row = core.index.quarantined(name)?;
    if !row.as_ref().is_some_and(|row| row.gone) {
        let detail = format!(
            "{size} bytes, kept as {name}, go: quarantine is limited to {} bytes, {QUARANTINE_COPIES} files and {}",
            core.rules.quarantine.size,
            span(core.rules.quarantine.keep)
        );
        warn!("{detail}");
        let subject = row.as_ref().map_or(&[][..], |row| &row.path);
        let event = NewEvent::now(EventKind::Discarded, subject, detail);
        let mut changes = vec![ServerChange::Event(event)];
        changes.extend(row.clone().map(|row| ServerChange::Quarantine {
            name: name.to_owned(),
            row: Box::new(Quarantined { gone: true, ..row }),
        }));
        core.commits.submit_and_wait(epoch, changes)?;
    }
    Ok(core.dir.unlink(&relative(name))?)
}

/// Where a copy of this name lies, for people: a path that works wherever they are.
pub(super) fn path_of(core: &Core, name: &str) -> String {
    let path = core
        .dir
        .path()
        .join(PRIVATE_DIR)
        .join("quarantine")
        .join(name);
    // Without a current directory it is as good as it gets.
    let path = std::path::absolute(&path).unwrap_or(path);
    Shown(path.as_os_str().as_encoded_bytes()).to_string()
}

/// Where a copy of this name lies, in the datadir.
fn relative(name: &str) -> Vec<u8> {
    format!("{PRIVATE_DIR}/quarantine/{name}").into_bytes()
}

/// Second since 1970 in which the copy of this name was made.
fn made_at(name: &str) -> Option<i64> {
    name.split('-').next()?.parse().ok()
}

/// A name that sorts by time. It says nothing of the path: the row and the event do.
fn new_name(kind: &str) -> io::Result<String> {
    let random: [u8; 8] = host::random_bytes()?;
    let seconds = clock::now().as_second();
    Ok(format!(
        "{seconds}-{:016x}.{kind}",
        u64::from_be_bytes(random)
    ))
}
