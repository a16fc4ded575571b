//! Whether anybody has a file open for writing, asked for with a read lease (`F_SETLEASE`, fcntl(2)):
//! the kernel gives one only while nobody has, in whatever process, by descriptor or (but on overlayfs)
//! by mapping. It knows nothing of writers behind a network or on the host of a virtual machine.

use std::io;
use std::os::fd::AsRawFd as _;

use libc::{
    EACCES, EAGAIN, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, F_RDLCK, F_SETLEASE, F_UNLCK, c_int,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::file::File;

/// Who may write to a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writers {
    /// Nobody.
    Nobody,
    /// Some process.
    Somebody,
    /// The kernel does not say: the filesystem has no leases, or the file is somebody else's and
    /// this process lacks `CAP_LEASE`.
    Untold,
}

/// What it takes to ask.
#[derive(Debug)]
pub struct Leases {
    /// Whoever opens a file while it is leased has the kernel send a SIGIO, which would end the
    /// process if nobody took it.
    #[allow(dead_code, reason = "held, and read by a test alone")]
    broken: Signal,
}

impl Leases {
    /// Takes that signal. Needs a runtime.
    pub fn new() -> io::Result<Self> {
        let broken = signal(SignalKind::io())?;
        Ok(Self { broken })
    }

    /// Who may write to a file that is open here for reading only. What is wrong for the moment is an
    /// error, and no answer.
    pub fn writers(&self, file: &File) -> io::Result<Writers> {
        match lease(file, F_RDLCK) {
            Ok(()) => {
                // It ends with the descriptor at the latest.
                let _ = lease(file, F_UNLCK);
                Ok(Writers::Nobody)
            }
            Err(error) => match error.raw_os_error() {
                Some(EAGAIN) => Ok(Writers::Somebody),
                Some(EACCES | EPERM | EINVAL | ENOSYS | EOPNOTSUPP) => Ok(Writers::Untold),
                _ => Err(error),
            },
        }
    }
}

#[expect(unsafe_code, reason = "no library that offers leases is kept up")]
fn lease(file: &File, kind: c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as the file is borrowed, and the command takes a
    // number.
    match unsafe { libc::fcntl(file.as_raw_fd(), F_SETLEASE, kind) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_writer_is_seen_and_a_reader_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "").unwrap();
        let leases = Leases::new().unwrap();
        let file = File::open(&path).unwrap();
        let _reader = File::open(&path).unwrap();
        assert_eq!(leases.writers(&file).unwrap(), Writers::Nobody);
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        let copy = writer.try_clone().unwrap();
        drop(writer);
        assert_eq!(leases.writers(&file).unwrap(), Writers::Somebody);
        drop(copy);
        assert_eq!(leases.writers(&file).unwrap(), Writers::Nobody);
        let null = File::open("/dev/null").unwrap();
        assert_eq!(leases.writers(&null).unwrap(), Writers::Untold);
    }

    #[tokio::test]
    async fn whoever_opens_a_file_in_that_moment_harms_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "").unwrap();
        let mut leases = Leases::new().unwrap();
        let file = File::open(&path).unwrap();
        lease(&file, F_RDLCK).unwrap();
        let open = || {
            let mut options = OpenOptions::new();
            options.append(true).custom_flags(libc::O_NONBLOCK);
            options.open(&path)
        };
        assert_eq!(open().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        leases.broken.recv().await.unwrap();
        lease(&file, F_UNLCK).unwrap();
        open().unwrap();
    }
}
