//! The file of a database: opened without following links, published whole or not at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, RenameFlags};

use super::durable::sync_dir;

/// What an open file is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// It is not changed.
    Read,
    /// It is changed.
    Write,
}

/// Opens the regular file at `path`, which must exist; `InvalidInput` for a symbolic link, a
/// directory or anything else.
pub fn open(path: &Path, access: Access) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(access == Access::Write)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .map_err(|error| match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::LOOP | rustix::io::Errno::ISDIR) => not_a_file(),
            _ => error,
        })?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(not_a_file())
    }
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file")
}

/// A file of which only bytes and size are looked at.
#[derive(Debug)]
pub struct Underlay(File);

/// Changes when the file does. Two changes within one tick of the kernel's clock have the same
/// time, so it holds the beginning of the file too, where a store keeps what it committed last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamp {
    size: u64,
    modified: (i64, i64),
    beginning: Vec<u8>,
}

const BEGINNING: u64 = 4096;

impl Underlay {
    /// Opens the regular file at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        open(path, Access::Read).map(Self)
    }

    /// Its size in bytes.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.size())
    }

    /// Fills `bytes` from `offset` on; `UnexpectedEof` when the file is shorter.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    /// What changes when somebody writes to the file.
    pub fn stamp(&self) -> io::Result<Stamp> {
        let status = self.0.metadata()?;
        let mut beginning = vec![0; usize::try_from(status.size().min(BEGINNING)).unwrap_or(0)];
        self.read_at(&mut beginning, 0)?;
        Ok(Stamp {
            size: status.size(),
            modified: (status.mtime(), status.mtime_nsec()),
            beginning,
        })
    }
}

/// A new database under a temporary name beside its final one; removed again unless published.
#[derive(Debug)]
pub struct Unpublished {
    temporary: PathBuf,
    path: PathBuf,
    file: File,
    published: bool,
}

impl Unpublished {
    /// Makes an empty file, mode 0600, that will become `path`. What an earlier attempt left
    /// under the temporary name goes.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        Ok(Self {
            temporary,
            path: path.to_owned(),
            file,
            published: false,
        })
    }

    /// The empty file, under an open file description of its own: closing it drops its locks.
    pub fn open(&self) -> io::Result<File> {
        open(&self.temporary, Access::Write)
    }

    /// fsync, rename without replacing, fsync of the directory: the database is there.
    pub fn publish(mut self) -> io::Result<()> {
        super::file::sync_all(&self.file)?;
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            &self.temporary,
            rustix::fs::CWD,
            &self.path,
            RenameFlags::NOREPLACE,
        )?;
        self.published = true;
        match self.path.parent() {
            Some(parent) if parent != Path::new("") => sync_dir(parent),
            _ => sync_dir(Path::new(".")),
        }
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        if !self.published {
            // What stays is removed by the next attempt.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}
