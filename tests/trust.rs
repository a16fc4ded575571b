//! Trust: who may come in, by which certificate, and what is theirs. The real programs, with good
//! and bad certificates between them.

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

mod trust {
    pub mod authority;
    pub mod certificates;
    pub mod commands;
    pub mod directories;
    pub mod expiry;
    pub mod handshakes;
    pub mod identities;
    pub mod limits;
    pub mod modes;
    pub mod own_users;
    pub mod plain;
    pub mod privileges;
    pub mod quotas;
    pub mod renewal;
    pub mod speaker;
    pub mod strangers;
    pub mod tools;
}
