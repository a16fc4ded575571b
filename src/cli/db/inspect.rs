//! `shaftlog db inspect`: the rows of either database, as tables for people or as JSON lines.

use std::collections::HashSet;
use std::path::Path;

use super::tables::Tables;
use crate::cli::args::InspectArgs;
use crate::cli::datadir::{Found, database_failed, databases};
use crate::cli::exit::{Exit, Failure};
use crate::cli::load;
use crate::cli::out::Out;
use crate::index::inspect::{Inspection, Row};

/// Prints the rows of every database that `args` mean.
pub(in crate::cli) fn run(args: &InspectArgs) -> Result<Exit, Failure> {
    let filter = Filter::new(args.pattern.as_deref())?;
    let databases = databases(&load::datadirs(&args.target)?, Exit::Failed)?;
    let mut printer = if args.json {
        Printer::Json(Out::new())
    } else {
        Printer::Tables(Tables::new())
    };
    for Found { path: database, .. } in databases {
        let inspection = Inspection::open(&database).map_err(database_failed)?;
        let mut filter = filter.clone();
        let mut trouble = None;
        if !printer.begin(&database, &inspection)? {
            break;
        }
        inspection
            .rows(|row| {
                if !filter.lets_pass(&row) {
                    return true;
                }
                printer.row(&row).unwrap_or_else(|error| {
                    trouble = Some(error);
                    false
                })
            })
            .map_err(database_failed)?;
        if let Some(error) = trouble {
            return Err(error);
        }
    }
    printer.end()?;
    Ok(Exit::Done)
}

/// Lets the rows pass that are about files which the pattern matches.
#[derive(Clone)]
struct Filter {
    pattern: Option<glob::Pattern>,
    /// Stable names of files of which the source matched.
    named: HashSet<Vec<u8>>,
}

impl Filter {
    fn new(pattern: Option<&str>) -> Result<Self, Failure> {
        let pattern = match pattern.map(glob::Pattern::new).transpose() {
            Ok(pattern) => pattern,
            Err(error) => return Err(Failure::usage(format!("not a pattern: {error}"))),
        };
        let named = HashSet::new();
        Ok(Self { pattern, named })
    }

    fn lets_pass(&mut self, row: &Row) -> bool {
        let Some(pattern) = &self.pattern else {
            return true;
        };
        let Some(subject) = row.subject() else {
            return false;
        };
        if pattern.matches(&String::from_utf8_lossy(&subject)) || self.named.contains(&subject) {
            return true;
        }
        let by_source = matches!(row, Row::ClientFile(file) if pattern.matches(&file.source));
        if by_source {
            self.named.insert(subject);
        }
        by_source
    }
}

enum Printer {
    Json(Out),
    Tables(Tables),
}

impl Printer {
    /// Announces the next database. Like all below: false when nobody reads any more.
    fn begin(&mut self, path: &Path, inspection: &Inspection) -> Result<bool, Failure> {
        match self {
            Self::Json(_) => Ok(true),
            Self::Tables(tables) => tables.begin(path, inspection),
        }
    }

    fn row(&mut self, row: &Row) -> Result<bool, Failure> {
        match self {
            Self::Json(out) => {
                let mut line = serde_json::to_string(row)?;
                line.push('\n');
                Ok(out.write(&line)?)
            }
            Self::Tables(tables) => tables.row(row),
        }
    }

    fn end(self) -> Result<(), Failure> {
        match self {
            Self::Json(out) => Ok(out.end()?),
            Self::Tables(tables) => tables.end(),
        }
    }
}
