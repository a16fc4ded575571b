//! The end of a tail that differs from what is delivered now is moved aside, never lost: copied
//! below `.shaftlog/quarantine`, made durable and recorded, and only then cut off the file.
//!
//! A crash leaves the copy, the tail, or both.

use std::io;

use tracing::warn;

use super::commit::Epoch;
use super::core::Core;
use super::data::DataFile;
use super::recover::Trouble;
use crate::index::server::ServerChange;
use crate::index::{EventKind, NewEvent};
use crate::limits::{IO_CHUNK, PRIVATE_DIR};
use crate::sys::file::{self, File};
use crate::sys::{clock, host};
use crate::types::{ByteRange, WirePath};

/// Mode of the quarantine and of what lies in it: it may be anybody's log.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Moves the bytes of `range`, the end of `file`, into quarantine; the file ends where they began.
pub(crate) fn set_aside(
    core: &Core,
    path: &WirePath,
    epoch: Epoch,
    file: &DataFile,
    range: ByteRange,
) -> Result<(), Trouble> {
    let name = save(core, file, range)?;
    let detail = format!(
        "bytes {} to {} differ from what was delivered there; kept as {name}",
        range.start(),
        range.end(),
    );
    warn!("{path}: {detail}");
    let event = NewEvent::now(EventKind::TailQuarantined, path.as_bytes(), detail);
    core.commits
        .submit_and_wait(epoch, vec![ServerChange::Event(event)])
        .map_err(|_| Trouble::Busy("the index could not be written"))?;
    Ok(file.cut(range.start())?)
}

/// Copies the bytes to a new file in quarantine, durably; its name there. The name says nothing of
/// the path: the event does. A copy that fails goes again, lest each retry fill the disk further.
fn save(core: &Core, file: &File, range: ByteRange) -> io::Result<String> {
    let random: [u8; 8] = host::random_bytes()?;
    let seconds = clock::now().as_second();
    let name = format!("{seconds}-{:016x}.tail", u64::from_be_bytes(random));
    let relative = format!("{PRIVATE_DIR}/quarantine/{name}").into_bytes();
    core.dir.create_parents(&relative, DIR_MODE)?;
    let target = core.dir.create_file(&relative, FILE_MODE)?;
    if let Err(failure) = copy(file, range, &target) {
        core.dir.unlink(&relative)?;
        return Err(failure);
    }
    core.dir.sync_chain(&relative)?;
    Ok(name)
}

fn copy(file: &File, range: ByteRange, target: &File) -> io::Result<()> {
    let mut buffer = vec![0; IO_CHUNK];
    let mut copied: u64 = 0;
    while let Some(at) = range.start().plus(copied).filter(|at| *at < range.end()) {
        let left = range.end().since(at).min(IO_CHUNK as u64);
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
