//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Puts `bytes` at `path` in one step: temporary file beside it, fsync, rename over whatever is
/// there, fsync of the directory. After a crash at any line the path shows the old file, the new
/// one, or nothing, never a part; a left-over temporary file is overwritten by the next attempt.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        std::path::PathBuf::from(name)
    };
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(bytes)?;
    super::file::sync_all(&file)?;
    publish(&temporary, path)
}

/// The last two steps of [`write_file`] for a temporary file that its maker has fsynced.
pub fn publish(temporary: &Path, path: &Path) -> io::Result<()> {
    fs::rename(temporary, path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

/// Removes what an interrupted attempt may have left; nothing there is as good.
pub fn remove_leftover(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// fsyncs a directory: after it, the names in it are on stable storage.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    super::file::sync_all(&File::open(path)?)
}
