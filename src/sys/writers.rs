//! Who has a file open for writing, as `/proc` tells it.
//!
//! `F_SETLEASE` would tell it too, but a lease is broken by a signal that ends the process, and there
//! is no way to ask for one without `unsafe`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// `PROC_PID_INIT_INO` of the kernel: the namespace in which every process of the machine is seen.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// What could be found out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Writers {
    /// Those of the inodes that somebody may write to.
    pub open: BTreeSet<u64>,
    /// Every process of the machine was looked at. Without the right to do so, or in a container,
    /// there may be writers that are not seen.
    pub complete: bool,
}

/// Which of `inodes` are open for writing, or mapped for it, in some process. The filesystem is not
/// looked at: a file elsewhere with the same number counts as well.
pub fn of(inodes: &BTreeSet<u64>) -> io::Result<Writers> {
    let mut writers = Writers {
        complete: true,
        ..Writers::default()
    };
    let mut sees_first = false;
    for process in fs::read_dir("/proc")? {
        let process = process?;
        let name = process.file_name();
        if name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            sees_first |= name == "1";
            look_at(&process.path(), inodes, &mut writers);
        }
    }
    // `hidepid` hides the processes of others without a word.
    writers.complete &= sees_first && sees_all();
    Ok(writers)
}

fn sees_all() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|it| it.ino() == FIRST_PID_NAMESPACE)
}

/// One process; that it ends meanwhile is no fault. What cannot be looked at hides nothing else.
///
/// Each of its threads is looked at: one may have a table of descriptors of its own, and when the
/// first has ended, what `/proc/PID` itself shows is empty.
fn look_at(process: &Path, inodes: &BTreeSet<u64>, writers: &mut Writers) {
    let looked = threads(process, inodes, writers);
    writers.complete &= looked.as_ref().map_or_else(has_ended, |()| true);
}

fn threads(process: &Path, inodes: &BTreeSet<u64>, writers: &mut Writers) -> io::Result<()> {
    // Their memory is one.
    let mut is_mapped = false;
    for thread in fs::read_dir(process.join("task"))? {
        let thread = thread?.path();
        let descriptors = descriptors(&thread, inodes, writers);
        writers.complete &= descriptors.as_ref().map_or_else(has_ended, |()| true);
        if !is_mapped {
            match mappings(&thread, inodes, &mut writers.open) {
                Ok(some) => is_mapped = some,
                Err(error) => writers.complete &= has_ended(&error),
            }
        }
    }
    Ok(())
}

fn descriptors(thread: &Path, inodes: &BTreeSet<u64>, writers: &mut Writers) -> io::Result<()> {
    for descriptor in fs::read_dir(thread.join("fd"))? {
        let descriptor = descriptor?;
        // Through the link: to what is open. A dead filesystem does not say what that is.
        let inode = match fs::metadata(descriptor.path()) {
            Ok(stat) => stat.ino(),
            Err(error) => {
                writers.complete &= has_ended(&error);
                continue;
            }
        };
        if inodes.contains(&inode) && !writers.open.contains(&inode) {
            let info = thread.join("fdinfo").join(descriptor.file_name());
            if fs::read_to_string(info).map_or(true, |info| is_writing(&info)) {
                writers.open.insert(inode);
            }
        }
    }
    Ok(())
}

/// Whether the flags of `/proc/PID/fdinfo/N`, which are octal, say more than `O_RDONLY`.
fn is_writing(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_none_or(|flags| flags & 0o3 != 0)
}

/// Whether there were any.
fn mappings(thread: &Path, inodes: &BTreeSet<u64>, open: &mut BTreeSet<u64>) -> io::Result<bool> {
    let maps = fs::read(thread.join("maps"))?;
    for line in String::from_utf8_lossy(&maps).lines() {
        // address perms offset dev inode path
        let mut fields = line.split_ascii_whitespace().skip(1);
        let shared = fields
            .next()
            .is_some_and(|perms| perms.contains('w') && perms.ends_with('s'));
        let inode = fields.nth(2).and_then(|inode| inode.parse().ok());
        if let Some(inode) = inode.filter(|inode| shared && inodes.contains(inode)) {
            open.insert(inode);
        }
    }
    Ok(!maps.is_empty())
}

/// `ENOENT`, or `ESRCH` from a process that is ending.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_seen_and_a_reader_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let writer = fs::File::create(&path).unwrap();
        let inode = writer.metadata().unwrap().ino();
        let open = || of(&BTreeSet::from([inode, 1])).unwrap().open;
        assert!(open().contains(&inode));
        drop(writer);
        let reader = fs::File::open(&path).unwrap();
        assert!(!open().contains(&inode));
        drop(reader);
    }

    /// A process as `/proc` shows it, of whose second thread's descriptors some lie on a filesystem
    /// that has died.
    #[test]
    fn what_cannot_be_looked_at_hides_no_writer() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let inode = fs::File::create(&log).unwrap().metadata().unwrap().ino();
        // The first thread has ended.
        for thread in ["7", "8"] {
            for name in ["fd", "fdinfo"] {
                let path = directory.path().join("task").join(thread).join(name);
                fs::create_dir_all(path).unwrap();
            }
            let maps = directory.path().join("task").join(thread).join("maps");
            fs::write(maps, "").unwrap();
        }
        let thread = &directory.path().join("task/8");
        let descriptor = |number: u32, to: &Path| {
            std::os::unix::fs::symlink(to, thread.join(format!("fd/{number}"))).unwrap();
            fs::write(thread.join(format!("fdinfo/{number}")), "flags:\t0100001\n").unwrap();
        };
        // In whatever order they are read: a loop is an error that is no end.
        for number in (0..50).filter(|number| *number != 25) {
            descriptor(number, &thread.join(format!("fd/{number}")));
        }
        descriptor(25, &log);
        let mut writers = Writers {
            complete: true,
            ..Writers::default()
        };
        look_at(directory.path(), &BTreeSet::from([inode]), &mut writers);
        assert_eq!(writers.open, BTreeSet::from([inode]));
        assert!(!writers.complete);
    }

    #[test]
    fn flags_tell() {
        assert!(is_writing("pos:\t0\nflags:\t0100001\nmnt_id:\t26\n"));
        assert!(is_writing("flags:\t02\n"));
        assert!(!is_writing("pos:\t0\nflags:\t0100000\n"));
        assert!(is_writing(""));
    }
}
