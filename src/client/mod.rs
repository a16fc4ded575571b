//! (being built)

pub mod source;
pub mod plan;
