//! A directory and what lies beneath it. Every path goes through `openat2(2)` with
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS`: no name and no link planted by
//! somebody else leads out of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir as Listing, Mode, OFlags, RenameFlags, ResolveFlags, chownat, linkat, mkdirat,
    open, openat2, renameat, renameat_with, statx, unlinkat,
};
use rustix::io::Errno;

use super::file::{FileKind, FileStat, Ownership, STAT_MASK};

/// For what a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading anywhere, writing at the end only, wherever that is then.
    Append,
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The name's bytes.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
}

/// An open directory that nothing escapes from. Relative paths are bytes parted by `/`.
#[derive(Debug)]
pub struct Dir {
    root: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens an existing directory; the path to it may hold symbolic links.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::of(open(path, flags, Mode::empty())?, path))
    }

    /// The open directory `root`, which `path` led to.
    pub(super) fn of(root: OwnedFd, path: &Path) -> Self {
        let path = path.to_owned();
        Self { root, path }
    }

    /// Opens a directory, making it and its missing parents durably first, with `mode` less the
    /// umask.
    pub fn create(path: &Path, mode: u32) -> io::Result<Self> {
        match Self::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let absolute = std::path::absolute(path)?;
        if let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) {
            let parent = Self::create(parent, mode)?;
            ignore_exists(mkdirat(&parent.root, name, Mode::from_raw_mode(mode)))?;
            parent.sync_root()?;
        }
        Self::open(path)
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens an existing file; the last segment is not followed and does not block.
    pub fn open_file(&self, relative: &[u8], access: Access) -> io::Result<File> {
        let mode = match access {
            Access::Read => OFlags::RDONLY,
            Access::Append => OFlags::RDWR | OFlags::APPEND,
        };
        let flags = mode | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(File::from(self.resolve(relative, flags, 0)?))
    }

    /// Makes a new file for [`Access::Append`]; an existing name is an error
    /// (`ErrorKind::AlreadyExists`).
    pub fn create_file(&self, relative: &[u8], mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::NOCTTY;
        Ok(File::from(self.resolve(relative, flags, mode)?))
    }

    /// Makes the missing directories on the way to `relative`, whose last segment is left alone.
    /// Not durable before [`sync_chain`](Self::sync_chain).
    pub fn create_parents(&self, relative: &[u8], mode: u32) -> io::Result<()> {
        self.create_parents_of(relative, mode, Ownership::default())
    }

    /// The same, given to `ownership` as they are made.
    pub fn create_parents_of(
        &self,
        relative: &[u8],
        mode: u32,
        ownership: Ownership,
    ) -> io::Result<()> {
        for (end, _) in relative
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
        {
            let (parent, name) = split(&relative[..end]);
            let parent = self.directory(parent)?;
            match mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
                Ok(()) if ownership != Ownership::default() => {
                    let (user, group) = ownership.raw();
                    chownat(&parent, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
                }
                other => ignore_exists(other)?,
            }
        }
        Ok(())
    }

    /// What the path names, a symbolic link being itself; `None` when there is nothing, or when a
    /// directory on the way is something else.
    pub fn stat(&self, relative: &[u8]) -> io::Result<Option<FileStat>> {
        let handle = match self.resolve(relative, OFlags::PATH | OFlags::NOFOLLOW, 0) {
            Ok(handle) => handle,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        FileStat::from_raw(&statx(handle, "", AtFlags::EMPTY_PATH, STAT_MASK)?).map(Some)
    }

    /// What the directory itself is.
    pub fn stat_root(&self) -> io::Result<FileStat> {
        FileStat::from_raw(&statx(&self.root, "", AtFlags::EMPTY_PATH, STAT_MASK)?)
    }

    /// fsyncs every directory from the root down to the one that holds `relative`'s last segment:
    /// after it, the whole way to the file is on stable storage.
    pub fn sync_chain(&self, relative: &[u8]) -> io::Result<()> {
        self.sync_root()?;
        for (end, _) in relative
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
        {
            self.sync_dir(&relative[..end])?;
        }
        Ok(())
    }

    /// fsyncs one directory, the empty path being the root.
    pub fn sync_dir(&self, relative: &[u8]) -> io::Result<()> {
        if relative.is_empty() {
            return self.sync_root();
        }
        let directory = self.resolve(relative, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        super::sync(|| rustix::fs::fsync(directory))
    }

    /// Bytes that an unprivileged process may still write on the directory's filesystem.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::fstatvfs(&self.root)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// fsyncs the directory itself.
    pub fn sync_root(&self) -> io::Result<()> {
        super::sync(|| rustix::fs::fsync(&self.root))
    }

    /// Gives the open file's inode, and no other, the further name `relative`: no race with
    /// whoever renames or replaces the path it was opened by.
    pub fn link_file(&self, file: &File, relative: &[u8]) -> io::Result<()> {
        use std::os::fd::AsRawFd as _;
        let (parent, name) = split(relative);
        let parent = self.directory(parent)?;
        // AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH; the way through /proc does not.
        let inode = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(linkat(
            rustix::fs::CWD,
            inode,
            parent,
            name,
            AtFlags::SYMLINK_FOLLOW,
        )?)
    }

    /// Renames beneath the root; a target that exists is an error (`ErrorKind::AlreadyExists`).
    pub fn rename_noreplace(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        let ((from_parent, from_name), (to_parent, to_name)) = (split(from), split(to));
        let (from_parent, to_parent) = (self.directory(from_parent)?, self.directory(to_parent)?);
        Ok(renameat_with(
            from_parent,
            from_name,
            to_parent,
            to_name,
            RenameFlags::NOREPLACE,
        )?)
    }

    /// Renames beneath the root; a file that has the name already is replaced.
    pub fn rename_over(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        let ((from_parent, from_name), (to_parent, to_name)) = (split(from), split(to));
        let (from_parent, to_parent) = (self.directory(from_parent)?, self.directory(to_parent)?);
        Ok(renameat(from_parent, from_name, to_parent, to_name)?)
    }

    /// Removes a name that is no directory.
    pub fn unlink(&self, relative: &[u8]) -> io::Result<()> {
        let (parent, name) = split(relative);
        Ok(unlinkat(self.directory(parent)?, name, AtFlags::empty())?)
    }

    /// The names in a directory, the empty path being the root, without `.` and `..`.
    pub fn list(&self, relative: &[u8]) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.visit(relative, |entry| entries.push(entry))?;
        Ok(entries)
    }

    /// As [`list`](Self::list), one name at a time: the memory does not grow with the directory.
    pub fn visit(&self, relative: &[u8], mut visit: impl FnMut(Entry)) -> io::Result<()> {
        let directory = self.directory(relative)?;
        for entry in Listing::read_from(directory.as_fd())? {
            let entry = entry?;
            let name = entry.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = match entry.file_type() {
                rustix::fs::FileType::Unknown => {
                    match statx(&directory, &name[..], AtFlags::SYMLINK_NOFOLLOW, STAT_MASK) {
                        Ok(raw) => FileStat::from_raw(&raw)?.kind,
                        // Removed since it was listed.
                        Err(Errno::NOENT) => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
                known => FileKind::from_raw(known),
            };
            visit(Entry { name, kind });
        }
        Ok(())
    }

    /// A handle of a directory beneath, the empty path being the root.
    fn directory(&self, relative: &[u8]) -> rustix::io::Result<OwnedFd> {
        let relative = if relative.is_empty() {
            &b"."[..]
        } else {
            relative
        };
        self.resolve(relative, OFlags::RDONLY | OFlags::DIRECTORY, 0)
    }

    fn resolve(&self, relative: &[u8], flags: OFlags, mode: u32) -> rustix::io::Result<OwnedFd> {
        let beneath =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mode = Mode::from_raw_mode(mode);
        rustix::io::retry_on_intr(|| {
            openat2(&self.root, relative, flags | OFlags::CLOEXEC, mode, beneath)
        })
    }
}

/// Whether the error is that a symbolic link stood in the way, of those that nothing here follows.
pub fn met_a_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// The directory part, empty for the root, and the last segment.
fn split(relative: &[u8]) -> (&[u8], &[u8]) {
    match relative.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&relative[..slash], &relative[slash + 1..]),
        None => (b"", relative),
    }
}

fn ignore_exists(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file;

    fn scratch() -> (tempfile::TempDir, Dir) {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Dir::create(&scratch.path().join("a/b"), 0o750).unwrap();
        (scratch, dir)
    }

    #[test]
    fn makes_links_renames_and_removes() {
        let (_scratch, dir) = scratch();
        dir.create_parents(b"x/y/f", 0o750).unwrap();
        let made = dir.create_file(b"x/y/f", 0o640).unwrap();
        file::append_all(&made, b"hello").unwrap();
        dir.sync_chain(b"x/y/f").unwrap();
        dir.link_file(&made, b"g").unwrap();
        let stat = dir.stat(b"g").unwrap().unwrap();
        assert_eq!((stat.links, stat.size.bytes()), (2, 5));
        assert_eq!(stat.inode, file::stat(&made).unwrap().inode);
        let taken = dir.rename_noreplace(b"g", b"x/y/f").unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        dir.rename_noreplace(b"g", b"x/h").unwrap();
        dir.unlink(b"x/h").unwrap();
        assert_eq!(dir.stat(b"x/h").unwrap(), None);
        assert_eq!(
            dir.list(b"").unwrap(),
            [Entry {
                name: b"x".to_vec(),
                kind: FileKind::Directory
            }]
        );
    }

    #[test]
    fn no_symbolic_link_leads_anywhere() {
        let (scratch, dir) = scratch();
        std::fs::write(scratch.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(scratch.path(), dir.path().join("up")).unwrap();
        std::os::unix::fs::symlink(scratch.path().join("secret"), dir.path().join("s")).unwrap();
        assert!(dir.open_file(b"up/secret", Access::Read).is_err());
        assert!(dir.open_file(b"s", Access::Append).is_err());
        assert!(dir.open_file(b"../../secret", Access::Read).is_err());
        assert!(dir.create_file(b"up/new", 0o640).is_err());
        assert_eq!(dir.stat(b"s").unwrap().unwrap().kind, FileKind::Symlink);
    }

    #[test]
    fn a_fifo_does_not_block() {
        let (_scratch, dir) = scratch();
        let kind = rustix::fs::FileType::Fifo;
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(&dir.root, "fifo", kind, mode, 0).unwrap();
        let fifo = dir.open_file(b"fifo", Access::Read).unwrap();
        assert_eq!(file::stat(&fifo).unwrap().kind, FileKind::Other);
        assert!(file::open_nofollow(&dir.path().join("fifo")).is_ok());
    }
}
