//! logrotate since 3.19 refuses to rotate a file with more than one hard link, and says so only to
//! who runs it by hand.

use std::path::Path;

use crate::sys::dir::Dir;
use crate::sys::file;

/// Most bytes of one of its configuration files that are looked at.
const CONFIGURATION_BYTES: usize = 1024 * 1024;

/// What a person has to know before this machine's logs get links, if it is so.
pub fn warning() -> Option<&'static str> {
    refuses_links(Path::new("/")).then_some(
        "logrotate skips files with more than one hard link, so it does not rotate what the client \
         delivers: put the line `allowhardlink` into /etc/logrotate.d/00-shaftlog",
    )
}

/// Whether the machine below `root` has a logrotate, and none of its configuration files holds the
/// line `allowhardlink`. What cannot be read does not hold it.
fn refuses_links(root: &Path) -> bool {
    let is_there = |path: &str| file::stat_path(&root.join(path)).is_ok();
    let installed = ["usr/sbin/logrotate", "usr/bin/logrotate", "sbin/logrotate"];
    if !installed.into_iter().any(is_there) {
        return false;
    }
    let snippets = root.join("etc/logrotate.d");
    let names = Dir::open(&snippets).and_then(|dir| dir.list(b""));
    let mut files = vec![root.join("etc/logrotate.conf")];
    for entry in names.unwrap_or_default() {
        use std::os::unix::ffi::OsStringExt as _;
        files.push(snippets.join(std::ffi::OsString::from_vec(entry.name)));
    }
    !files.iter().any(|file| allows_links(file))
}

fn allows_links(path: &Path) -> bool {
    let text = file::read_small(path, CONFIGURATION_BYTES).unwrap_or_default();
    let mut lines = text.split(|&byte| byte == b'\n');
    lines.any(|line| line.trim_ascii() == b"allowhardlink")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_line_in_any_of_its_files_is_enough() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        assert!(!refuses_links(root), "no logrotate");
        for directory in ["usr/sbin", "etc/logrotate.d"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("usr/sbin/logrotate"), "").unwrap();
        assert!(refuses_links(root));
        fs::write(root.join("etc/logrotate.conf"), "weekly\n#allowhardlink\n").unwrap();
        assert!(refuses_links(root));
        fs::write(
            root.join("etc/logrotate.d/00-shaftlog"),
            "\tallowhardlink\n",
        )
        .unwrap();
        assert!(!refuses_links(root));
    }
}
