//! Data notifications: a watch on an inode tells of every write through any of its names, also
//! after renames and removals, but not of writes through `mmap(2)`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Bytes read at once: some hundred notices.
const BUFFER: usize = 8 * 1024;

/// A queue of notices, for `tokio::io::unix::AsyncFd`: reading never blocks.
#[derive(Debug)]
pub struct Inotify {
    queue: OwnedFd,
}

/// A watch on one inode; the same inode always gives the same watch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Watch(i32);

/// What the kernel tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The inode was written or truncated.
    Written(Watch),
    /// The kernel dropped the watch: the inode is gone, its filesystem unmounted, or
    /// [`Inotify::remove`] was called.
    Dropped(Watch),
    /// Notices were lost: anything may have been written.
    Overflow,
}

/// Why there is no watch.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A limit of the kernel.
    #[error(
        "no more watches to be had: raise fs.inotify.max_user_watches or fs.inotify.max_user_instances"
    )]
    Exhausted,
    /// This one path cannot be watched.
    #[error(transparent)]
    Io(io::Error),
}

impl From<Errno> for WatchError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOSPC | Errno::MFILE | Errno::NFILE | Errno::NOMEM => Self::Exhausted,
            errno => Self::Io(errno.into()),
        }
    }
}

impl Inotify {
    /// A new, empty queue.
    pub fn new() -> Result<Self, WatchError> {
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { queue })
    }

    /// Watches for writes to what `path` names, a symbolic link being refused.
    pub fn add(&self, path: &Path) -> Result<Watch, WatchError> {
        let flags = WatchFlags::MODIFY | WatchFlags::DONT_FOLLOW;
        Ok(Watch(inotify::add_watch(&self.queue, path, flags)?))
    }

    /// Ends a watch; one that the kernel has dropped already is no error.
    pub fn remove(&self, watch: Watch) -> io::Result<()> {
        match inotify::remove_watch(&self.queue, watch.0) {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Hands the queued notices to `tell`, some hundred at most; an empty queue is
    /// `ErrorKind::WouldBlock`.
    pub fn read(&self, mut tell: impl FnMut(Notice)) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&self.queue, &mut buffer);
        loop {
            let event = reader.next()?;
            let (watch, flags) = (Watch(event.wd()), event.events());
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                tell(Notice::Overflow);
            } else if flags.contains(ReadFlags::IGNORED) {
                tell(Notice::Dropped(watch));
            } else if flags.contains(ReadFlags::MODIFY) {
                tell(Notice::Written(watch));
            }
            if reader.is_buffer_empty() {
                return Ok(());
            }
        }
    }
}

impl AsRawFd for Inotify {
    fn as_raw_fd(&self) -> RawFd {
        self.queue.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    fn read(inotify: &Inotify) -> Vec<Notice> {
        let mut notices = Vec::new();
        while inotify.read(|notice| notices.push(notice)).is_ok() {}
        notices
    }

    #[test]
    fn a_watch_sees_writes_through_every_name_until_it_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let (link, source) = (scratch.path().join("link"), scratch.path().join("source"));
        let mut writer = fs::File::create(&source).unwrap();
        fs::hard_link(&source, &link).unwrap();
        let inotify = Inotify::new().unwrap();
        let watch = inotify.add(&link).unwrap();
        assert_eq!(inotify.add(&source).unwrap(), watch);
        assert_eq!(read(&inotify), []);

        fs::rename(&source, scratch.path().join("rotated")).unwrap();
        writer.write_all(b"a line\n").unwrap();
        assert_eq!(read(&inotify), [Notice::Written(watch)]);

        inotify.remove(watch).unwrap();
        writer.write_all(b"another\n").unwrap();
        assert_eq!(read(&inotify), [Notice::Dropped(watch)]);
        inotify.remove(watch).unwrap();
    }

    #[test]
    fn a_missing_file_is_an_error_of_that_file() {
        let inotify = Inotify::new().unwrap();
        match inotify.add(Path::new("/nonexistent/file")) {
            Err(WatchError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
            other => panic!("{other:?}"),
        }
    }
}
