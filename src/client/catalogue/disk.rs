//! What lies in the datadir.

use std::io;

use crate::sys::dir::Dir;
use crate::types::{Inode, StableName};

/// Whether the link `name` shows this inode now.
pub(super) fn shows(datadir: &Dir, name: &StableName, inode: Inode) -> io::Result<bool> {
    let there = datadir.stat(name.as_bytes())?;
    Ok(there.is_some_and(|stat| stat.inode == inode))
}
