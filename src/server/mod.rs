//! (being built)

pub mod rebuild;
