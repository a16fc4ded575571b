//! Rows against what the files are now, without reading them: whether they are there, which inode
//! they are, how long.

use std::io;

use crate::index::client::{ClientFile, ClientState, DestinationId};
use crate::index::inspect::{Fault, Inspection};
use crate::index::server::{Quarantined, ServerFile, ServerState};
use crate::index::{IndexError, Kind};
use crate::limits::{EMBEDDED_URL, PRIVATE_DIR, VERIFY_AGAIN};
use crate::sys::dir::Dir;
use crate::sys::file::{FileKind, FileStat};
use crate::types::{FileId, WirePath};

/// Compares every row about a file with that file; tells `each` what does not fit. Damaged rows
/// are passed over.
pub fn check(
    datadir: &Dir,
    index: &Inspection,
    mut each: impl FnMut(Fault),
) -> Result<(), IndexError> {
    match index.kind() {
        Kind::Server => {
            index.server_files(|row| {
                if let Ok((path, row)) = row
                    && let Some(what) = server_file(datadir, index, &path, row)
                {
                    each(Fault::new("files", &path, what));
                }
                true
            })?;
            index.quarantined(|row| {
                if let Ok((copy, row)) = row
                    && let Some(what) = quarantined(datadir, index, &copy, &row)
                {
                    each(Fault::new("quarantine", &copy, what));
                }
                true
            })
        }
        Kind::Client => {
            let destinations = index.destinations()?;
            if destinations.iter().any(|(_, row)| row.url == EMBEDDED_URL) {
                // Nothing is linked: the files are held for the time of a run only, and are free
                // to go in between.
                return Ok(());
            }
            let ids: Vec<_> = destinations.into_iter().map(|(id, _)| id).collect();
            index.client_files(|row| {
                if let Ok((id, row)) = row
                    && let Some(what) = client_file(datadir, index, &ids, id, &row)
                {
                    each(Fault::new("files", &format!("{id} ({})", row.name), what));
                }
                true
            })
        }
    }
}

/// What does not fit; looked at again when the row has changed meanwhile.
fn server_file(
    datadir: &Dir,
    index: &Inspection,
    path: &WirePath,
    mut row: ServerFile,
) -> Option<String> {
    for _ in 0..VERIFY_AGAIN {
        let what = against_server(&row, datadir.stat(path.as_bytes()))?;
        match index.server_file(path) {
            Ok(Some(now)) if now != row => row = now,
            _ => return Some(what),
        }
    }
    against_server(&row, datadir.stat(path.as_bytes()))
}

fn against_server(row: &ServerFile, stat: io::Result<Option<FileStat>>) -> Option<String> {
    let length = row.vouched.length;
    match stat {
        Err(error) => Some(format!("its file cannot be looked at: {error}")),
        Ok(None) if row.state == ServerState::Retired => None,
        Ok(None) => Some(format!("there is no such file, and was {length} long")),
        Ok(Some(stat)) if stat.kind != FileKind::Regular => Some("is no regular file".to_owned()),
        Ok(Some(stat)) if stat.size < length => Some(format!(
            "its file is {} long, shorter than the {length} that are vouched for",
            stat.size
        )),
        Ok(Some(stat)) if stat.inode != row.footprint.inode => Some(format!(
            "its file is inode {}, and was {} (restored, or replaced): `shaftlog verify` reads it",
            stat.inode.number, row.footprint.inode.number
        )),
        Ok(Some(_)) => None,
    }
}

/// What does not fit of a copy in quarantine; a row that says meanwhile that the copy is gone, or is
/// not yet there, is right.
fn quarantined(datadir: &Dir, index: &Inspection, copy: &str, row: &Quarantined) -> Option<String> {
    if row.gone {
        return None;
    }
    let length = row.end.since(row.start);
    let stat = datadir.stat(format!("{PRIVATE_DIR}/quarantine/{copy}").as_bytes());
    let what = match stat {
        Err(error) => format!("the copy cannot be looked at: {error}"),
        Ok(None) => format!("there is no such copy, and was {length} long"),
        Ok(Some(stat)) if stat.size.bytes() < length => {
            format!("the copy is {} long, and was {length}", stat.size)
        }
        Ok(Some(_)) => return None,
    };
    match index.quarantine_of(copy) {
        Ok(Some((now, is_due))) if now.gone || is_due => None,
        _ => Some(what),
    }
}

fn client_file(
    datadir: &Dir,
    index: &Inspection,
    destinations: &[DestinationId],
    id: FileId,
    row: &ClientFile,
) -> Option<String> {
    if row.state != ClientState::Active {
        return None;
    }
    let stat = match datadir.stat(row.name.as_bytes()) {
        Ok(Some(stat)) => stat,
        // A row that has changed since it was read says why.
        _ if !matches!(index.client_file(id), Ok(Some(now)) if now.state == row.state) => {
            return None;
        }
        Ok(None) => return Some("its link is gone".to_owned()),
        Err(error) => return Some(format!("its link cannot be looked at: {error}")),
    };
    if stat.inode != row.inode {
        return Some(format!(
            "its link shows inode {} instead of {}",
            stat.inode.number, row.inode.number
        ));
    }
    let confirmed = destinations
        .iter()
        .filter_map(|&to| index.progress(to, id).ok().flatten())
        .map(|progress| progress.confirmed.length)
        .max()?;
    (stat.size < confirmed).then(|| {
        format!(
            "it is {} long, shorter than the {confirmed} that were confirmed",
            stat.size
        )
    })
}
