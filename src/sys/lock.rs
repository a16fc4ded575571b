//! One process a datadir.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::limits::PRIVATE_DIR;

/// The lock on a datadir, held as long as this lives, by the kernel and so never stale.
#[derive(Debug)]
pub struct DatadirLock {
    _file: File,
}

/// Why a datadir could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else is at work there.
    #[error("{datadir} is in use by another process{}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Held {
        /// The datadir.
        datadir: PathBuf,
        /// The holder's process id, if it has written it down yet.
        pid: Option<u32>,
    },
    /// The lock file cannot be made.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl DatadirLock {
    /// Locks `datadir`, making its private directory (mode 0700) when missing. Every process that
    /// opens a database of the datadir for writing takes this first.
    pub fn acquire(datadir: &Path) -> Result<Self, LockError> {
        let path = datadir.join(PRIVATE_DIR).join("lock");
        let failed = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        make_private_dir(datadir).map_err(failed)?;
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(LockError::Held {
                    datadir: datadir.to_owned(),
                    pid: holder(&mut file),
                });
            }
            Err(error) => return Err(failed(error.into())),
        }
        write_pid(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn make_private_dir(datadir: &Path) -> io::Result<()> {
    match DirBuilder::new()
        .mode(0o700)
        .create(datadir.join(PRIVATE_DIR))
    {
        Ok(()) => super::durable::sync_dir(datadir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_the_first_ones_pid() {
        let datadir = tempfile::tempdir().unwrap();
        let held = DatadirLock::acquire(datadir.path()).unwrap();
        match DatadirLock::acquire(datadir.path()) {
            Err(LockError::Held { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(held);
        DatadirLock::acquire(datadir.path()).unwrap();
    }
}
