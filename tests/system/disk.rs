//! Disks whose power can be cut. The filesystem under test lies in an image on an XFS with
//! reflinks: a reflink copy of the live image is, block for block, what a disk would hold if the
//! power went at that moment. Whatever was not written to the device by then is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::wait_until;
use crate::done;

/// The outer filesystem that holds the images.
pub struct Shelf {
    mount: Mount,
}

impl Shelf {
    /// Makes it below `home`; sparse, so that only what is written takes room.
    pub fn new(home: &Path) -> Self {
        let image = home.join("shelf.img");
        make_image(&image, "16G");
        done(
            Command::new("mkfs.xfs")
                .args(["-q", "-m", "reflink=1"])
                .arg(&image),
        );
        Self {
            mount: Mount::new(&image, &home.join("shelf")),
        }
    }
}

/// A mounted ext4 on a shelf.
pub struct Disk<'a> {
    shelf: &'a Shelf,
    image: PathBuf,
    mount: Mount,
    cuts: usize,
}

impl<'a> Disk<'a> {
    /// A fresh one, mounted at `at`.
    pub fn new(shelf: &'a Shelf, at: &Path) -> Self {
        let image = shelf.mount.at.join("disk.img");
        make_image(&image, "2G");
        done(Command::new("mkfs.ext4").arg("-q").arg(&image));
        let mount = Mount::new(&image, at);
        Self {
            shelf,
            image,
            mount,
            cuts: 0,
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount.at
    }

    /// What the disk holds at this moment.
    pub fn snapshot(&mut self) -> Snapshot {
        self.cuts += 1;
        let image = self.shelf.mount.at.join(format!("cut-{}.img", self.cuts));
        done(
            Command::new("cp")
                .arg("--reflink=always")
                .args([&self.image, &image]),
        );
        Snapshot(image)
    }

    /// The power is back: the snapshot is the disk from now on, mounted at the same place.
    /// Whoever had files open on the old one has to be gone.
    pub fn power_on(&mut self, snapshot: Snapshot) {
        self.mount.unmount();
        fs::remove_file(&self.image).expect("our image");
        self.image = snapshot.0;
        self.mount.mount(&self.image);
    }
}

/// What a disk held at one moment.
#[must_use]
pub struct Snapshot(PathBuf);

/// One mount, undone when dropped.
pub struct Mount {
    at: PathBuf,
    mounted: bool,
}

impl Mount {
    /// Mounts `image` at `at`, which it creates.
    pub fn new(image: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).expect("a mount point");
        let mut mount = Self {
            at: at.to_owned(),
            mounted: false,
        };
        mount.mount(image);
        mount
    }

    fn mount(&mut self, image: &Path) {
        done(
            Command::new("mount")
                .args(["-o", "loop"])
                .args([image, &self.at]),
        );
        self.mounted = true;
    }

    fn unmount(&mut self) {
        let at = &self.at;
        wait_until("the disk is no longer in use", || {
            let output = Command::new("umount").arg(at).output();
            output.is_ok_and(|output| output.status.success())
        });
        self.mounted = false;
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted {
            // A failed test may have left something open: detach, the kernel does the rest.
            let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        }
    }
}

/// A sparse file of `size`.
pub fn make_image(path: &Path, size: &str) {
    done(Command::new("truncate").args(["-s", size]).arg(path));
}

#[test]
#[ignore = "needs root, loop mounts, xfsprogs"]
fn a_cut_keeps_what_was_synced_and_only_that() {
    use std::fs::File;
    use std::io::Write as _;

    crate::need(&["mkfs.xfs", "mkfs.ext4", "mount"]);
    let home = crate::scratch();
    let shelf = Shelf::new(home.path());
    let mut disk = Disk::new(&shelf, &home.path().join("disk"));
    let write = |name: &str, sync: bool| {
        let mut file = File::create(disk.path().join(name)).expect("a file");
        file.write_all(&[b'x'; 10_000]).expect("room");
        if sync {
            file.sync_all().expect("synced");
            let dir = File::open(disk.path()).expect("a directory");
            dir.sync_all().expect("synced");
        }
    };
    write("synced", true);
    write("not", false);
    let snapshot = disk.snapshot();
    disk.power_on(snapshot);
    let length = |name: &str| fs::metadata(disk.path().join(name)).map_or(0, |s| s.len());
    assert_eq!((length("synced"), length("not")), (10_000, 0));
}
