//! `shaftlog db inspect`: the rows of either database, as tables for people or as JSON lines.

use super::filter::Filter;
use super::printer::Printer;
use crate::cli::args::InspectArgs;
use crate::cli::datadir::{Found, database_failed, databases};
use crate::cli::exit::{Exit, Failure};
use crate::cli::load;
use crate::index::IndexError;
use crate::index::inspect::{Inspection, Row};

/// Prints the rows of every database that `args` mean.
pub(in crate::cli) fn run(args: &InspectArgs) -> Result<Exit, Failure> {
    let filter = Filter::new(&args.filters)?;
    let databases = databases(&load::datadirs(&args.target)?, Exit::Failed)?;
    print(args.json, &filter, &databases, |inspection, each| {
        inspection.rows(each)
    })?;
    Ok(Exit::Done)
}

/// Prints those of the rows that `visit` finds in each database which `filter` lets pass.
pub(super) fn print(
    json: bool,
    filter: &Filter,
    databases: &[Found],
    visit: impl Fn(&Inspection, &mut dyn FnMut(Row) -> bool) -> Result<(), IndexError>,
) -> Result<(), Failure> {
    let mut printer = Printer::new(json);
    for found in databases {
        let inspection = Inspection::open(&found.path).map_err(database_failed)?;
        let mut filter = filter.clone();
        let mut trouble = None;
        if !printer.begin(&found.path, &inspection)? {
            break;
        }
        visit(&inspection, &mut |row| {
            !filter.lets_pass(&row)
                || printer.row(&row).unwrap_or_else(|error| {
                    trouble = Some(error);
                    false
                })
        })
        .map_err(database_failed)?;
        if let Some(error) = trouble {
            return Err(error);
        }
    }
    printer.end()
}
