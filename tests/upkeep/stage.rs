//! A directory of logs, and looking at what became of them.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::common::{deliver, rows};

/// A scratch directory with `logs` in it.
pub struct Home {
    directory: TempDir,
}

impl Home {
    pub fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("logs")).unwrap();
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.path("logs").join(name)
    }

    /// Delivers every log to these destinations, with more lines in the configuration.
    pub fn config(&self, urls: &[&str], extra: &str) -> String {
        let pattern = self.path("logs").join("*");
        format!("{extra}\n{}", deliver(&[("logs", &pattern)], urls))
    }
}

/// `length` bytes that are nowhere the same.
pub fn content(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Puts a byte over one that is there, as somebody would who hides it: the times stay.
pub fn put_byte(path: &Path, at: usize, byte: u8) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(&[byte], at as u64).unwrap();
    file.set_modified(modified).unwrap();
}

/// The details of a datadir's events of one kind about one file.
pub fn events(datadir: &Path, kind: &str, name: &str) -> Vec<String> {
    let of = |event: &serde_json::Value| {
        let subject = event["name"].as_str().or(event["path"].as_str());
        event["kind"] == kind && subject.is_some_and(|it| it.trim_start_matches('/') == name)
    };
    let detail = |event: serde_json::Value| event["detail"].as_str().unwrap().to_owned();
    let rows = rows(datadir, "events").into_iter();
    rows.filter(of).map(detail).collect()
}

/// The state of a client's file.
pub fn state(datadir: &Path, name: &str) -> String {
    let rows = rows(datadir, "files");
    let row = rows.iter().find(|row| row["name"] == name);
    row.map_or(String::new(), |row| {
        row["state"].as_str().unwrap().to_owned()
    })
}

/// Whether everything of the file that has this name is confirmed by every destination.
pub fn is_confirmed(datadir: &Path, name: &str, length: usize) -> bool {
    if !datadir.join(".shaftlog/client.redb").exists() {
        // It has only just started.
        return false;
    }
    let progress = rows(datadir, "progress");
    let mut rows = progress.iter().filter(|row| row["name"] == name).peekable();
    rows.peek().is_some() && rows.all(|row| row["confirmed"] == length && row["state"] == "current")
}
