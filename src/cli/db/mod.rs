//! `shaftlog db`: looking at the databases, and making them anew.

mod inspect;
mod rebuild;
mod tables;

pub(super) use inspect::run as inspect;
pub(super) use rebuild::run as rebuild;
