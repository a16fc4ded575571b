//! (being built)

pub mod source;
