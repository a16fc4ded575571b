//! What lies in a datadir: delivered or linked files, and what is ours or the system's.

use std::io;

use super::dir::{Access, Dir};
use super::file::{self, FileKind, Ownership};
use super::host::random_bytes;
use crate::limits::PRIVATE_DIR;

/// Whether a name at the top of a datadir is data, or holds some: our private directory, what fsck
/// finds and what the original keeps beside its files are none.
pub fn is_data(name: &[u8]) -> bool {
    name != PRIVATE_DIR.as_bytes()
        && name != b"lost+found"
        && name != b".machine-id"
        && !name.starts_with(b".tmp.")
}

/// Visits everything in `datadir` that is data or holds some, a directory before what is in it,
/// with its path below the datadir, until `each` says false.
pub fn visit(
    datadir: &Dir,
    mut each: impl FnMut(&[u8], FileKind) -> io::Result<bool>,
) -> io::Result<()> {
    let mut directories = vec![Vec::new()];
    while let Some(directory) = directories.pop() {
        for entry in datadir.list(&directory)? {
            if directory.is_empty() && !is_data(&entry.name) {
                continue;
            }
            let slash = if directory.is_empty() { &b""[..] } else { b"/" };
            let path = [&directory, slash, &entry.name].concat();
            if !each(&path, entry.kind)? {
                return Ok(());
            }
            if entry.kind == FileKind::Directory {
                directories.push(path);
            }
        }
    }
    Ok(())
}

/// Whether any regular file in `datadir` is data.
pub fn holds_data(datadir: &Dir) -> io::Result<bool> {
    let mut found = false;
    visit(datadir, |_, kind| {
        found = kind == FileKind::Regular;
        Ok(!found)
    })?;
    Ok(found)
}

/// Whether any data file in `datadir` has another name elsewhere, as a client's links have.
pub fn holds_links(datadir: &Dir) -> io::Result<bool> {
    let mut found = false;
    visit(datadir, |path, kind| {
        let stat = if kind == FileKind::Regular {
            datadir.stat(path)?
        } else {
            None
        };
        found = stat.is_some_and(|stat| stat.links > 1);
        Ok(!found)
    })?;
    Ok(found)
}

/// Makes a file below the private directory, which is there, gives it away, and opens it again for
/// writing; whether all of that can be done. The file is gone afterwards.
pub fn try_ownership(datadir: &Dir, mode: u32, ownership: Ownership) -> io::Result<()> {
    if ownership == Ownership::default() {
        return Ok(());
    }
    let random: [u8; 8] = random_bytes()?;
    let name = format!(
        "{PRIVATE_DIR}/.tmp.owner.{:016x}",
        u64::from_be_bytes(random)
    );
    let file = datadir.create_file(name.as_bytes(), mode)?;
    let tried = file::give(&file, ownership)
        .and_then(|()| datadir.open_file(name.as_bytes(), Access::Append));
    datadir.unlink(name.as_bytes())?;
    tried.map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_ours_or_the_originals_is_no_data() {
        let home = tempfile::tempdir().unwrap();
        for path in [".shaftlog/lock", ".tmp.1", ".machine-id", "lost+found/#1"] {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        fs::create_dir_all(home.path().join("a/b")).unwrap();
        let datadir = Dir::open(home.path()).unwrap();
        assert!(!holds_data(&datadir).unwrap());
        fs::write(home.path().join("a/b/.tmp.1"), "x").unwrap();
        assert!(holds_data(&datadir).unwrap());
        assert!(!holds_links(&datadir).unwrap());
        fs::write(home.path().join("a/c"), "x").unwrap();
        fs::hard_link(home.path().join("a/c"), home.path().join("a/d")).unwrap();
        assert!(holds_links(&datadir).unwrap());
    }
}
