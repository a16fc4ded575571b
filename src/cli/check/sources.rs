//! What a client's patterns find on this machine now, and what of it no link can be made to.

use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::client::skips::Skip;
use crate::client::walk::{Found, Tally, Visitor, Walker};
use crate::config::ClientSettings;
use crate::sys::file::{Mount, mount_of};
use crate::types::Shown;

/// What was found.
pub(super) struct Sources {
    datadir: String,
    patterns: Vec<Seen>,
    tally: Tally,
}

/// What was found for one pattern.
#[derive(Default)]
struct Seen {
    name: String,
    files: u64,
    /// Files of them on another filesystem or mount than the datadir.
    elsewhere: u64,
    /// One that lies elsewhere; a directory where files would, when there are none.
    example: Option<String>,
}

impl Sources {
    /// Looks for the files of every pattern.
    pub(super) fn look(client: &ClientSettings) -> io::Result<Self> {
        let walker = Walker::new(Arc::from(client.patterns.clone()));
        let mut looking = Looking {
            home: mount_of_what_exists(&client.datadir)?,
            patterns: client
                .patterns
                .iter()
                .map(|pattern| Seen {
                    name: pattern.name.clone(),
                    ..Seen::default()
                })
                .collect(),
        };
        let tally = walker.walk(&mut looking);
        for (root, numbers) in walker.roots() {
            looking.look_at_root(root, numbers);
        }
        Ok(Self {
            datadir: Shown(client.datadir.as_os_str().as_bytes()).to_string(),
            patterns: looking.patterns,
            tally,
        })
    }

    /// What was found, as the comments of a YAML file.
    pub(super) fn comments(&self) -> String {
        let mut text = "# Files found now:\n".to_owned();
        // Writing to a String cannot fail.
        for seen in &self.patterns {
            let name = Shown(seen.name.as_bytes());
            let _ = writeln!(text, "#   {name}: {}", seen.files);
        }
        for (number, skip, met) in self.tally.skipped.iter() {
            let name = Shown(self.patterns[number].name.as_bytes());
            let ([one, many], first) = (skip.words(), Shown(&met.first));
            let _ = match met.count {
                1 => writeln!(text, "# Passed over: {name}: 1 {one} ({first})"),
                count => writeln!(
                    text,
                    "# Passed over: {name}: {count} {many} (one is {first})"
                ),
            };
        }
        for (path, error) in &self.tally.unreadable {
            let path = Shown(path.as_os_str().as_bytes());
            let _ = writeln!(text, "# Cannot be read: {path}: {error}");
        }
        text
    }

    /// The numbers of the patterns with files to which no link can be made, and why.
    pub(super) fn unlinkable(&self) -> impl Iterator<Item = (usize, String)> {
        let patterns = self.patterns.iter().enumerate();
        patterns.filter_map(|(index, seen)| {
            let example = seen.example.as_ref()?;
            let what = match seen.elsewhere {
                0 => format!("{example} lies"),
                1 => format!("1 of {} files ({example}) lies", seen.files),
                many => format!("{many} of {} files (one is {example}) lie", seen.files),
            };
            let datadir = &self.datadir;
            Some((
                index,
                format!(
                    "{what} on another filesystem or mount than the datadir {datadir}: \
                     no hard link can be made"
                ),
            ))
        })
    }
}

struct Looking {
    home: Mount,
    patterns: Vec<Seen>,
}

impl Looking {
    /// `None` for what is gone again or closed to us: nothing is known of it.
    fn is_elsewhere(&self, path: &Path) -> Option<bool> {
        mount_of(path).ok().map(|mount| mount != self.home)
    }

    /// Where nothing is found yet, the directory tells where files will lie.
    fn look_at_root(&mut self, root: &Path, numbers: &[usize]) {
        if self.is_elsewhere(root) != Some(true) {
            return;
        }
        for &number in numbers {
            let seen = &mut self.patterns[number];
            if seen.files == 0 {
                seen.example = Some(Shown(root.as_os_str().as_bytes()).to_string());
            }
        }
    }
}

impl Visitor for Looking {
    fn directory(&mut self, _path: &Path) {}

    fn file(&mut self, found: Found<'_>) -> Option<Skip> {
        if let Err(skip) = found.admits(&found.stat) {
            return Some(skip);
        }
        let path = Path::new(std::ffi::OsStr::from_bytes(&found.path));
        let is_elsewhere = self.is_elsewhere(path) == Some(true);
        let seen = &mut self.patterns[found.pattern];
        seen.files += 1;
        if is_elsewhere {
            seen.elsewhere += 1;
            seen.example
                .get_or_insert_with(|| Shown(&found.path).to_string());
        }
        None
    }
}

/// Where `path` lies or, when it is missing, will lie.
fn mount_of_what_exists(path: &Path) -> io::Result<Mount> {
    let mut path = path;
    loop {
        match (mount_of(path), path.parent()) {
            (Err(error), Some(parent)) if error.kind() == ErrorKind::NotFound => path = parent,
            (mount, _) => return mount,
        }
    }
}
