//! `shaftlog db events`: what happened, in order.

use super::filter::Filter;
use super::inspect::{note_nothing, print};
use crate::cli::args::EventsArgs;
use crate::cli::datadir::databases;
use crate::cli::exit::{Exit, Failure};
use crate::cli::load;

/// Prints the events of every database that `args` mean.
pub(in crate::cli) fn run(args: &EventsArgs) -> Result<Exit, Failure> {
    let filter = Filter::new(&args.filters())?.of_kind(args.kind);
    let databases = databases(&load::datadirs(&args.target)?, Exit::Failed)?;
    let shown = print(args.json, &filter, &databases, |inspection, each| {
        inspection.events(0, each).map(|_| ())
    })?;
    if !shown {
        note_nothing("event", &filter, &databases);
    }
    Ok(Exit::Done)
}
