//! (being built)

pub mod catalogue;
pub mod dirty;
pub mod discover;
pub mod http;
pub mod plan;
pub mod rebuild;
pub mod ship;
pub mod source;
pub mod walk;
pub mod watch;
