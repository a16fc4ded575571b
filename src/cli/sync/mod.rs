//! `shaftlog sync`: deliver what is there now, end when it is durably confirmed.

mod settings;
mod summary;

use super::args::SyncArgs;
use super::exit::{Exit, Failure};
use super::{load, unavailable};

/// Runs the delivery that `args` ask for.
pub(super) fn run(args: &SyncArgs) -> Result<Exit, Failure> {
    if args.base.is_some() {
        return Err(unavailable("sync -b"));
    }
    if let Some(config) = &args.config {
        load::client(config)?;
    }
    Err(unavailable("sync"))
}
