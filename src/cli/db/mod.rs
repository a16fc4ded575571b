//! `shaftlog db`: looking at the databases, and making them anew.

mod check;
mod events;
mod certificates;
mod filter;
mod history;
mod inspect;
mod printer;
mod rebuild;
mod tables;

pub(super) use check::run as check;
pub(super) use events::run as events;
pub(super) use history::run as history;
pub(super) use inspect::run as inspect;
pub(super) use rebuild::run as rebuild;
