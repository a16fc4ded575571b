//! A filesystem that can take snapshots of itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::common::said;

/// A btrfs in an image, unmounted when dropped.
pub struct Btrfs {
    at: PathBuf,
    _scratch: TempDir,
}

impl Btrfs {
    /// Makes one and mounts it.
    pub fn mount() -> Self {
        let scratch = TempDir::new().unwrap();
        let (image, at) = (scratch.path().join("disk.img"), scratch.path().join("mnt"));
        fs::create_dir(&at).unwrap();
        File::create(&image).unwrap().set_len(1 << 30).unwrap();
        done(Command::new("mkfs.btrfs").arg("-q").arg(&image));
        done(
            Command::new("mount")
                .args(["-o", "loop"])
                .args([&image, &at]),
        );
        Self {
            at,
            _scratch: scratch,
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}
