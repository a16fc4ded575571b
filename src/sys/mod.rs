//! The only door to disk and clock.
//!
//! Two of the program's three seams are here (the third, how client and server get a byte stream,
//! is in `client::http` and `server::accept`): nothing outside this module makes a file-system or
//! clock call, so that a simulated disk and clock could take its place. Calls block; callers on
//! async threads wrap them.
//!
//! What may be relied on, per Linux's manual pages and ARCHITECTURE.md's "Assumptions":
//! [`file::sync_data`] returns after the file's bytes and size are on stable storage;
//! [`dir::Dir::sync_chain`] after every name on the way to a file is; a rename is atomic.
//! With the feature `no-sync-for-tests` the syncs do nothing, which the power-cut tests must notice.

pub mod clock;
pub mod database_file;
pub mod datadir;
pub mod dir;
pub mod durable;
pub mod file;
pub mod host;
pub mod inotify;
pub mod lock;
pub mod socket;
pub mod way;
pub mod writers;

/// Calls a sync, or nothing in the build that the power-cut tests expect to lose data.
fn sync(call: impl FnOnce() -> rustix::io::Result<()>) -> std::io::Result<()> {
    if cfg!(feature = "no-sync-for-tests") {
        Ok(())
    } else {
        Ok(call()?)
    }
}
