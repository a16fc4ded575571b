//! The databases: what a client and a server know, durably; the only importer of redb.
//!
//! * [`server::ServerIndex`]: paths, vouched lengths and rolling hashes, history, boots, events.
//! * [`client::ClientIndex`]: files, stable names, inodes, destinations, progress, events.
//! * [`inspect`]: the rows of either, live, at rest or as a killed process left it, for reading.
//! * [`stored`]: one row as its bytes, outside of a database.
//!
//! Promised: a database is created whole or not at all; a commit is durable before it returns, and
//! atomic; every row carries a check over table, key and value, so that a flipped bit is an error
//! that names the row, never a wrong answer; a newer schema is refused untouched. A crash leaves
//! the last commit that returned, or the one that was under way.
//!
//! Calls block, for as long as the disk takes.

mod codec;
mod engine;
mod error;
mod event;
mod reader;
mod schema;

pub mod client;
pub mod inspect;
pub mod server;
pub mod stored;

pub use error::{IndexError, Problem};
pub use event::{Event, EventKind, NewEvent};
pub use schema::Kind;

#[cfg(test)]
mod tests;
