//! What lies in the datadir.

use std::io;

use crate::limits::PRIVATE_DIR;
use crate::sys::dir::Dir;
use crate::sys::file::FileKind;
use crate::types::{Inode, StableName};

/// Visits the path of every file that may be a link of ours, in no order, until `visit` says
/// false. Directories that vanish meanwhile are passed over.
pub(super) fn visit_files(datadir: &Dir, mut visit: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut directories = vec![Vec::new()];
    let mut go_on = true;
    while let Some(directory) = directories.pop() {
        let at_root = directory.is_empty();
        let listed = datadir.visit(&directory, |entry| {
            if !go_on || (at_root && is_foreign(&entry.name)) {
                return;
            }
            let mut path = directory.clone();
            if !at_root {
                path.push(b'/');
            }
            path.extend_from_slice(&entry.name);
            match entry.kind {
                FileKind::Regular => go_on = visit(&path),
                FileKind::Directory => directories.push(path),
                FileKind::Symlink | FileKind::Other => {}
            }
        });
        match listed {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !at_root => {}
            other => other?,
        }
        if !go_on {
            break;
        }
    }
    Ok(())
}

/// Names at the datadir's root that are no data: ours, the filesystem's, and what the original
/// leaves beside its links.
fn is_foreign(name: &[u8]) -> bool {
    name == PRIVATE_DIR.as_bytes()
        || name == b"lost+found"
        || name == b".machine-id"
        || name.starts_with(b".tmp.")
}

/// Whether the link `name` shows this inode now.
pub(super) fn shows(datadir: &Dir, name: &StableName, inode: Inode) -> io::Result<bool> {
    let there = datadir.stat(name.as_bytes())?;
    Ok(there.is_some_and(|stat| stat.inode == inode))
}

/// Whether the datadir holds any data.
pub(super) fn has_data(datadir: &Dir) -> io::Result<bool> {
    let mut found = false;
    visit_files(datadir, |_| {
        found = true;
        false
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_the_original_leaves_beside_its_links_is_no_data() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        let datadir = Dir::open(root).unwrap();
        for directory in [".shaftlog", "lost+found", "sudo-io/00"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in [
            ".machine-id",
            ".tmp.123",
            ".shaftlog/client.redb",
            "lost+found/#1",
        ] {
            fs::write(root.join(file), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        assert!(!has_data(&datadir).unwrap());

        fs::write(root.join("sudo-io/00/.tmp.log"), "").unwrap();
        assert!(has_data(&datadir).unwrap());
        let mut found = Vec::new();
        visit_files(&datadir, |path| {
            found.push(path.to_vec());
            true
        })
        .unwrap();
        assert_eq!(found, [b"sudo-io/00/.tmp.log"]);
    }
}
