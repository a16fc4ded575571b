//! The restore matrix: a server that comes back as it was at an earlier moment, in part or as a
//! whole, to a client in each of the states that it can be in.
//!
//! One run has files in each state that a moment can find: not yet there, half delivered, all but
//! delivered, in the middle of an append. What is restored and how the client stands are the two
//! other dimensions. The copies are made of a killed server's directory, as `cp -a` does, or of a
//! running server under load, by a snapshot of the filesystem. A whole client that comes back is in
//! `machine`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by panicking, and prints its figures"
)]

mod common;
#[path = "delivery/faults.rs"]
mod faults;

mod restore {
    pub mod load;
    pub mod machine;
    pub mod matrix;
    pub mod snapshots;
    pub mod stage;
}
