//! How far a long reading is; to be looked at from another thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// Files and bytes to be read, and those that were.
#[derive(Debug, Default)]
pub struct Figures {
    /// Files found.
    pub files: AtomicU64,
    /// Bytes in them.
    pub bytes: AtomicU64,
    /// Files read.
    pub files_done: AtomicU64,
    /// Bytes read.
    pub bytes_done: AtomicU64,
}

impl Figures {
    /// Counts a file that is to be read.
    pub fn found(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that were read.
    pub fn read(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a file that was read.
    pub fn done(&self) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
    }
}
