//! Delivery end to end: the real client and the real server, with bad networks, bad destinations,
//! rotation, restarts and odd files between them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by panicking, and prints its figures"
)]

mod common;

#[path = "trust/authority.rs"]
#[allow(dead_code, reason = "bad certificates are tried elsewhere")]
mod authority;

mod delivery {
    pub mod destinations;
    pub mod discovery;
    pub mod faults;
    pub mod files;
    pub mod hostile;
    pub mod manners;
    pub mod network;
    pub mod odd;
    pub mod original;
    pub mod scale;
    pub mod upgrade;
}
