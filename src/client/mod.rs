//! The client: finds log files, holds them, and delivers every byte to every destination.
//!
//! In the order of what happens: [`walk`] and [`discover`] find a file, [`catalogue`] links it and
//! gives it its name, [`watch`] marks it in [`dirty`] when it is written, [`plan`] decides what to
//! do with it at a destination, and [`ship`] does that over [`http`], reading through [`source`].
//! [`supervisor`] owns all of it; [`rebuild`] makes a lost database anew, [`verify`] checks what is there.

pub mod catalogue;
pub mod dirty;
pub mod discover;
pub mod http;
pub mod logrotate;
mod overlay;
pub mod plan;
mod reading;
pub mod rebuild;
pub mod release;
mod scrub;
pub mod ship;
pub mod skips;
pub mod source;
mod status;
pub mod supervisor;
pub mod verify;
pub mod walk;
pub mod watch;

pub use supervisor::{RunError, run, warn_of_hard_links, warn_of_plain_http};
