//! `shaftlog db inspect`: the rows of either database, as tables for people or as JSON lines.

use super::certificates;
use super::filter::Filter;
use super::printer::Printer;
use crate::cli::args::InspectArgs;
use crate::cli::datadir::{Found, database_failed, databases};
use crate::cli::exit::{Exit, Failure};
use crate::cli::table::plain;
use crate::cli::{load, out};
use crate::index::inspect::{Inspection, Row};
use crate::index::{IndexError, Kind};

/// Prints the rows of every database that `args` mean.
pub(in crate::cli) fn run(args: &InspectArgs) -> Result<Exit, Failure> {
    let filter = Filter::new(&args.filters)?;
    let aims = load::aims(&args.target)?;
    let datadirs: Vec<_> = aims.iter().map(|aim| aim.datadir.clone()).collect();
    let databases = databases(&datadirs, Exit::Failed)?;
    if let Some(wanted) = &args.filters.destination {
        refuse_unknown(wanted, &databases)?;
    }
    let settings = aims.iter().filter_map(|aim| aim.settings.as_ref());
    let certificates: Vec<_> = settings.map(certificates::rows).collect();
    let shown = print(args.json, &filter, &databases, |inspection, each| {
        inspection.rows(&mut *each)?;
        let own = |kind: &Kind| *kind == inspection.kind();
        let mut rows = certificates.iter().filter(|(kind, _)| own(kind));
        // Whether anybody reads on is nothing to be told.
        let _ = rows.all(|(_, rows)| rows.iter().cloned().all(&mut *each));
        Ok(())
    })?;
    if !shown {
        note_nothing("row", &filter, &databases);
    }
    Ok(Exit::Done)
}

/// Refuses a destination that no client has.
fn refuse_unknown(wanted: &str, databases: &[Found]) -> Result<(), Failure> {
    let mut known = Vec::new();
    for found in databases.iter().filter(|found| found.kind == Kind::Client) {
        let inspection = Inspection::open(&found.path).map_err(database_failed)?;
        let rows = inspection.destinations().map_err(database_failed)?;
        known.extend(rows.iter().map(|(_, row)| inspection.called(&row.url)));
    }
    if known.iter().any(|url| url.contains(wanted)) {
        return Ok(());
    }
    Err(Failure::usage(if known.is_empty() {
        "--destination: only a client's database has destinations, and there is none with any"
            .to_owned()
    } else {
        format!(
            "--destination {}: no destination has that in its URL; known: {}",
            plain(wanted),
            plain(&known.join(", "))
        )
    }))
}

/// Prints those of the rows that `visit` finds in each database which `filter` lets pass; whether
/// there were any.
pub(super) fn print(
    json: bool,
    filter: &Filter,
    databases: &[Found],
    visit: impl Fn(&Inspection, &mut dyn FnMut(Row) -> bool) -> Result<(), IndexError>,
) -> Result<bool, Failure> {
    let mut printer = Printer::new(json);
    let mut shown = false;
    for found in databases {
        let inspection = Inspection::open(&found.path).map_err(database_failed)?;
        let mut filter = filter.clone();
        let mut trouble = None;
        let mut begun = false;
        let mut show = |row: &Row| {
            // A heading stands over rows, or not at all.
            let wanted = begun || printer.begin(&found.path, &inspection)?;
            begun = true;
            Ok(wanted && printer.row(row)?)
        };
        visit(&inspection, &mut |row| {
            !filter.lets_pass(&row)
                || show(&row).unwrap_or_else(|error| {
                    trouble = Some(error);
                    false
                })
        })
        .map_err(database_failed)?;
        shown |= begun;
        if let Some(error) = trouble {
            return Err(error);
        }
    }
    printer.end()?;
    Ok(shown)
}

/// Says that no `what` is there which `filter` lets pass: no output at all would leave open whether
/// anything was looked at.
pub(super) fn note_nothing(what: &str, filter: &Filter, databases: &[Found]) {
    let paths = databases
        .iter()
        .map(|found| found.path.display().to_string());
    let paths = plain(&paths.collect::<Vec<_>>().join(", "));
    out::note(&format!("shaftlog: no {what}{filter} in {paths}\n"));
}
