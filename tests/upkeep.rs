//! What the client does with files that are delivered, and with those that are no longer what they
//! were: links that are released, volatile bytes, the scrub, conflicts, a client that was rolled back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

mod upkeep {
    pub mod changed;
    pub mod damaged;
    pub mod mariadb;
    pub mod release;
    pub mod rollback;
    pub mod stage;
    pub mod volatile;
}
