//! Opening what lies at an absolute path that a person has written, where others may have planted
//! symbolic links on the way.
//!
//! A link of root's, or of the user that this process runs as, is what its administrator has set
//! up, and followed. A link of anybody else leads to what that user may see: it is followed, and
//! whoever asked is told whose it was, so that nothing is taken there that is not theirs.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat, statx};
use rustix::io::Errno;

use super::dir::{Access, Dir};
use super::file::{self, File, FileKind, FileStat, STAT_MASK};
use super::host;

/// Symbolic links that one path may lead through, as in the kernel.
const LINKS: usize = 40;

/// A directory and who led to it.
#[derive(Debug)]
pub struct Reached {
    /// The directory.
    pub dir: Dir,
    /// The user whose symbolic link led there, if it is neither root nor ours.
    pub led_by: Option<u32>,
}

/// Opens the directory at an absolute path. Links of two users on one way are
/// `ErrorKind::PermissionDenied`.
pub fn open_dir(path: &Path) -> io::Result<Reached> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let direct = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = rustix::io::retry_on_intr(|| openat2(CWD, path, flags, Mode::empty(), direct));
    let (root, led_by) = match opened {
        Ok(root) => (root, None),
        Err(Errno::LOOP) => {
            let (way, led_by) = follow(path)?;
            (openat(&way, ".", flags, Mode::empty())?, led_by)
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Reached {
        dir: Dir::of(root, path),
        led_by,
    })
}

/// Opens the file at an absolute path for reading, its last segment not being followed and not
/// blocking. One that another user's link led to, and that is not theirs, is
/// `ErrorKind::PermissionDenied`.
pub fn open_file(path: &Path) -> io::Result<File> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    let Reached { dir, led_by } = open_dir(parent)?;
    let opened = dir.open_file(name.as_bytes(), Access::Read)?;
    match led_by {
        Some(user) if file::stat(&opened)?.uid != user => Err(denied(&format!(
            "a symbolic link of user {user} leads to it, and it is not theirs"
        ))),
        _ => Ok(opened),
    }
}

/// Goes through the path name by name: each is looked at, and followed, by its own descriptor, so
/// that nobody can exchange what was looked at.
fn follow(path: &Path) -> io::Result<(OwnedFd, Option<u32>)> {
    let handle = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = || openat(CWD, "/", handle, Mode::empty());
    let mut at = root()?;
    let (mut led_by, mut links) = (None, 0);
    let mut rest = names(path);
    while let Some(name) = rest.pop() {
        let next = openat(&at, &name[..], handle, Mode::empty())?;
        let stat = FileStat::from_raw(&statx(&next, "", AtFlags::EMPTY_PATH, STAT_MASK)?)?;
        if stat.kind != FileKind::Symlink {
            at = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(Errno::LOOP.into());
        }
        if !host::is_trusted(stat.uid) && *led_by.get_or_insert(stat.uid) != stat.uid {
            return Err(denied("symbolic links of two users lead to it"));
        }
        let target = readlinkat(&next, "", Vec::new())?;
        let target = Path::new(OsStr::from_bytes(target.to_bytes()));
        if target.is_absolute() {
            at = root()?;
        }
        rest.extend(names(target));
    }
    Ok((at, led_by))
}

/// The names of a path, the first one last.
fn names(path: &Path) -> Vec<Vec<u8>> {
    let name = |component: Component<'_>| match component {
        Component::Normal(_) | Component::ParentDir => {
            Some(component.as_os_str().as_bytes().to_vec())
        }
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    let mut names: Vec<_> = path.components().filter_map(name).collect();
    names.reverse();
    names
}

fn denied(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn our_own_links_are_followed_wherever_they_lead() {
        let scratch = tempfile::tempdir().unwrap();
        let home = scratch.path().canonicalize().unwrap();
        fs::create_dir_all(home.join("real/deep")).unwrap();
        fs::write(home.join("real/deep/log"), "x").unwrap();
        symlink(home.join("real"), home.join("absolute")).unwrap();
        symlink("absolute/deep/..", home.join("relative")).unwrap();
        symlink("loop", home.join("loop")).unwrap();
        for way in ["real/deep", "absolute/deep", "relative/deep"] {
            let reached = open_dir(&home.join(way)).unwrap();
            assert_eq!(reached.led_by, None);
            assert_eq!(reached.dir.list(b"").unwrap().len(), 1, "{way}");
            assert!(open_file(&home.join(way).join("log")).is_ok(), "{way}");
        }
        symlink("log", home.join("real/deep/link")).unwrap();
        for refused in [
            "loop/log",
            "real/deep/link",
            "absolute/gone",
            "real/deep/log/x",
        ] {
            assert!(open_file(&home.join(refused)).is_err(), "{refused}");
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn behind_another_users_link_only_what_is_theirs_is_opened() {
        use std::os::unix::fs::{chown, lchown};

        let scratch = tempfile::tempdir().unwrap();
        let home = scratch.path().canonicalize().unwrap();
        fs::create_dir(home.join("real")).unwrap();
        for (name, owner) in [("theirs", 1234), ("ours", 0)] {
            fs::write(home.join("real").join(name), "x").unwrap();
            chown(home.join("real").join(name), Some(owner), None).unwrap();
        }
        symlink("real", home.join("link")).unwrap();
        lchown(home.join("link"), Some(1234), None).unwrap();
        assert_eq!(open_dir(&home.join("link")).unwrap().led_by, Some(1234));
        assert!(open_file(&home.join("link/theirs")).is_ok());
        let refused = open_file(&home.join("link/ours")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);

        symlink("link", home.join("second")).unwrap();
        lchown(home.join("second"), Some(1235), None).unwrap();
        let refused = open_file(&home.join("second/theirs")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }
}
