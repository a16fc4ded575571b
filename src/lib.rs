//! shaftlog delivers append-only log files byte for byte to one or more servers, and can prove it.
//!
//! The modules stand in layer order: each imports only those declared above it, and `client` and
//! `server` never import each other (`tests/house.rs` checks both against this file). A reader who
//! wants to know *what happens next with a file* reads `client::plan` and `server::decide`, which
//! are pure; who wants to know *what a crash leaves* reads `server::append` and ARCHITECTURE.md.

pub mod limits;
pub mod types;
pub mod prefix;
pub mod wire;
pub mod sys;
pub mod config;
pub mod index;
pub mod verify;
pub mod control;
pub mod tls;
pub mod client;
pub mod server;
pub mod cli;
