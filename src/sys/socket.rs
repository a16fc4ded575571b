//! The address of a daemon's control socket, in its datadir's private directory.
//!
//! It is reached through an open directory: a socket's address has 108 bytes at most, a datadir's
//! path may have more.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::limits::PRIVATE_DIR;

const NAME: &str = "control";

/// Listens there, mode 0600, in place of a socket that a killed process left. The caller holds the
/// datadir's lock.
pub fn bind(datadir: &Path) -> io::Result<UnixListener> {
    let (_directory, path) = address(datadir)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to whoever listens there; `None` when nobody does.
pub fn connect(datadir: &Path) -> io::Result<Option<UnixStream>> {
    let connected = address(datadir).and_then(|(_directory, path)| UnixStream::connect(path));
    match connected {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(error),
        },
    }
}

/// The address, good as long as the directory is open.
fn address(datadir: &Path) -> io::Result<(File, String)> {
    let directory = File::open(datadir.join(PRIVATE_DIR))?;
    let path = format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd());
    Ok((directory, path))
}
