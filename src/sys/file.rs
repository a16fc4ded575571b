//! Open files: what they are, reading, writing, and making bytes durable.

use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{
    Advice, AtFlags, FileType, Gid, IFlags, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, Uid,
    fadvise, fchown, fdatasync, fstatvfs, fsync, ftruncate, ioctl_getflags, ioctl_setflags,
    makedev, open, statx, tell,
};

use crate::types::{Inode, Offset};

/// An open file, for the functions here.
pub use std::fs::File;

/// What kind of thing a path names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file, the only kind that is delivered.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link, never followed.
    Symlink,
    /// FIFO, socket or device.
    Other,
}

impl FileKind {
    pub(super) fn from_raw(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::Regular,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            _ => Self::Other,
        }
    }
}

/// What `statx(2)` says of a file. Times are nanoseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileStat {
    /// Inode number and birth time.
    pub inode: Inode,
    /// Bytes in the file.
    pub size: Offset,
    /// Last change of the content.
    pub mtime: i64,
    /// Last change of the inode.
    pub ctime: i64,
    /// Last access.
    pub atime: i64,
    /// Number of hard links.
    pub links: u64,
    /// Device, good for comparing within one boot only.
    pub device: u64,
    /// Kind of file.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
}

impl FileStat {
    pub(super) fn from_raw(raw: &Statx) -> io::Result<Self> {
        let has_birth = raw.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok(Self {
            inode: Inode {
                number: raw.stx_ino,
                born: has_birth.then(|| nanoseconds(&raw.stx_btime)),
            },
            size: Offset::new(raw.stx_size).ok_or(io::ErrorKind::FileTooLarge)?,
            mtime: nanoseconds(&raw.stx_mtime),
            ctime: nanoseconds(&raw.stx_ctime),
            atime: nanoseconds(&raw.stx_atime),
            links: u64::from(raw.stx_nlink),
            device: u64::from(raw.stx_dev_major) << 32 | u64::from(raw.stx_dev_minor),
            kind: FileKind::from_raw(FileType::from_raw_mode(u32::from(raw.stx_mode))),
            mode: u32::from(raw.stx_mode) & 0o7777,
            uid: raw.stx_uid,
        })
    }
}

#[cfg(test)]
impl FileStat {
    /// A regular file of one name, for tests of what is decided by it.
    pub(crate) fn regular(inode: Inode, size: Offset, mtime: i64, ctime: i64) -> Self {
        Self {
            inode,
            size,
            mtime,
            ctime,
            atime: 0,
            links: 1,
            device: 0,
            kind: FileKind::Regular,
            mode: 0,
            uid: 0,
        }
    }
}

impl FileStat {
    /// The device's number as `st_dev` of `stat(2)` has it.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes the two halves apart"
    )]
    pub fn device_number(&self) -> u64 {
        makedev((self.device >> 32) as u32, self.device as u32)
    }
}

/// Nanoseconds since 1970; saturates beyond the year 2262.
fn nanoseconds(time: &StatxTimestamp) -> i64 {
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(time.tv_nsec))
}

/// What is asked of `statx`.
pub(super) const STAT_MASK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// What the open file is.
pub fn stat(file: &File) -> io::Result<FileStat> {
    FileStat::from_raw(&statx(file, "", AtFlags::EMPTY_PATH, STAT_MASK)?)
}

/// What the path names, a symbolic link being itself.
pub fn stat_path(path: &Path) -> io::Result<FileStat> {
    FileStat::from_raw(&statx(
        rustix::fs::CWD,
        path,
        AtFlags::SYMLINK_NOFOLLOW,
        STAT_MASK,
    )?)
}

/// Where a file lies, as far as hard links care: they cross neither filesystems nor mounts, not even
/// two mounts of one filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mount {
    device: (u32, u32),
    /// `None` before Linux 5.8.
    id: Option<u64>,
}

/// Where the file lies that `path` leads to, through symbolic links if need be.
pub fn mount_of(path: &Path) -> io::Result<Mount> {
    let mask = STAT_MASK.union(StatxFlags::MNT_ID);
    let raw = statx(rustix::fs::CWD, path, AtFlags::empty(), mask)?;
    let has_id = raw.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    Ok(Mount {
        device: (raw.stx_dev_major, raw.stx_dev_minor),
        id: has_id.then_some(raw.stx_mnt_id),
    })
}

/// Opens what may be anything, for reading: a symbolic link is refused, a FIFO does not block, a
/// terminal does not become ours. Look at [`stat`] before reading.
pub fn open_nofollow(path: &Path) -> io::Result<File> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(open(path, flags, Mode::empty())?))
}

/// Opens a file that a person names, for reading: symbolic links are followed, a FIFO does not
/// block. Look at [`stat`] before reading.
pub fn open_named(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(open(path, flags, Mode::empty())?))
}

/// The bytes of a small regular file that people write; links to it are followed. Anything else is
/// `InvalidInput`, more than `most` bytes `FileTooLarge`.
pub fn read_small(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    read_small_and_stat(path, most).map(|(bytes, _)| bytes)
}

/// As [`read_small`], with what the file is that they were read from.
pub fn read_small_and_stat(path: &Path, most: usize) -> io::Result<(Vec<u8>, FileStat)> {
    let file = open_named(path)?;
    let stat = stat(&file)?;
    if stat.kind != FileKind::Regular {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "is not a regular file",
        ));
    }
    let mut bytes = vec![0; most.saturating_add(1)];
    let read = read_at(&file, Offset::ZERO, &mut bytes)?;
    if read > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    bytes.truncate(read);
    Ok((bytes, stat))
}

/// To whom a file is given; `None` leaves it as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ownership {
    /// User id.
    pub user: Option<u32>,
    /// Group id.
    pub group: Option<u32>,
}

impl Ownership {
    pub(super) fn raw(self) -> (Option<Uid>, Option<Gid>) {
        (self.user.map(Uid::from_raw), self.group.map(Gid::from_raw))
    }
}

/// Gives a file to somebody, which for a user needs `CAP_CHOWN`, and for a group that one is in it.
pub fn give(file: &File, ownership: Ownership) -> io::Result<()> {
    if ownership != Ownership::default() {
        let (user, group) = ownership.raw();
        fchown(file, user, group)?;
    }
    Ok(())
}

/// Opens a log file of ours for appending, making it with `mode` less the umask when missing: each
/// write goes behind whatever anybody else has written meanwhile.
pub fn open_append(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(open(path, flags, Mode::from_raw_mode(mode))?))
}

/// Reads from `at` until the buffer is full or the file ends; the number of bytes read.
pub fn read_at(file: &File, at: Offset, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at.bytes() + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes all of `bytes` at `at`.
pub fn write_all_at(file: &File, at: Offset, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, at.bytes())
}

/// Writes all of `bytes` at the end of a file that was opened for
/// [`Access::Append`](super::dir::Access::Append): whatever others do to the file meanwhile,
/// nothing that is there is overwritten.
pub fn append_all(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)
}

/// Writes all of `bytes` at the end of such a file, which is to be at `at`. `false` when it is not,
/// because others have changed the file meanwhile: what was written elsewhere is cut off again, lest
/// it look like what belongs there, by `cut`, which is [`cut`] and whatever has to be done for it.
pub fn append_at(
    mut file: &File,
    mut bytes: &[u8],
    mut at: Offset,
    cut: impl FnOnce(&File, Offset) -> io::Result<()>,
) -> io::Result<bool> {
    while !bytes.is_empty() {
        let written = match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            written => written?,
        };
        let end = at.plus(written as u64);
        // Where this write ended, whatever the file is by now.
        let ended = Offset::new(tell(file)?).ok_or(io::ErrorKind::FileTooLarge)?;
        if Some(ended) != end {
            if stat(file)?.size == ended {
                cut(file, ended.minus(written as u64))?;
            }
            return Ok(false);
        }
        (at, bytes) = (ended, &bytes[written..]);
    }
    Ok(true)
}

/// `fdatasync(2)`: after it, the file's bytes and its size are on stable storage. After an error
/// nothing is known, and a second call may succeed although data is gone: never retry. What the
/// kernel then still shows of lost pages is dropped, so that the next read sees the disk.
pub fn sync_data(file: &File) -> io::Result<()> {
    super::sync(|| fdatasync(file)).inspect_err(|_| {
        // The error at hand is the one to tell.
        let _ = drop_cache(file);
    })
}

/// `fsync(2)`: as [`sync_data`], with all metadata.
pub fn sync_all(file: &File) -> io::Result<()> {
    super::sync(|| fsync(file))
}

/// Cuts the file to `size`; one that is shorter already is an error and stays as it is.
pub fn cut(file: &File, size: Offset) -> io::Result<()> {
    if stat(file)?.size < size {
        return Err(io::Error::other("the file became shorter meanwhile"));
    }
    Ok(ftruncate(file, size.bytes())?)
}

/// Whether the file has the append-only flag (`FS_APPEND_FL`, `ioctl_iflags(2)`). An error where the
/// filesystem knows no flags.
pub fn is_append_only(file: &File) -> io::Result<bool> {
    Ok(ioctl_getflags(file)?.contains(IFlags::APPEND))
}

/// Sets that flag or lifts it, which needs `CAP_LINUX_IMMUTABLE` and changes the ctime; that of
/// somebody else's file needs `CAP_FOWNER` too. With it nobody, root included, can change the file but
/// by appending, nor remove, rename or link it.
pub fn set_append_only(file: &File, is_set: bool) -> io::Result<()> {
    let mut flags = ioctl_getflags(file)?;
    flags.set(IFlags::APPEND, is_set);
    Ok(ioctl_setflags(file, flags)?)
}

/// Drops the file's clean pages, so that the next read sees the disk.
pub fn drop_cache(file: &File) -> io::Result<()> {
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

/// Bytes that an unprivileged process may still write on the file's filesystem.
pub fn free_bytes(file: &File) -> io::Result<u64> {
    let space = fstatvfs(file)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}
