//! (being built)

pub mod catalogue;
pub mod dirty;
pub mod plan;
pub mod source;
pub mod walk;
