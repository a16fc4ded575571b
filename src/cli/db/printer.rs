//! Rows on stdout: as tables for people, or as JSON lines.

use std::path::Path;

use super::tables::Tables;
use crate::cli::exit::Failure;
use crate::cli::out::Out;
use crate::index::inspect::{Inspection, Row};

/// Prints rows in the order in which they come.
pub(super) enum Printer {
    Json(Out),
    Tables(Tables),
}

impl Printer {
    pub(super) fn new(json: bool) -> Self {
        if json {
            Self::Json(Out::new())
        } else {
            Self::Tables(Tables::new())
        }
    }

    /// Announces the next database. Like all below: false when nobody reads any more.
    pub(super) fn begin(&mut self, path: &Path, inspection: &Inspection) -> Result<bool, Failure> {
        match self {
            Self::Json(_) => Ok(true),
            Self::Tables(tables) => tables.begin(path, inspection),
        }
    }

    pub(super) fn row(&mut self, row: &Row) -> Result<bool, Failure> {
        match self {
            Self::Json(out) => {
                let mut line = serde_json::to_string(row)?;
                line.push('\n');
                Ok(out.write(&line)?)
            }
            Self::Tables(tables) => tables.row(row),
        }
    }

    pub(super) fn end(self) -> Result<(), Failure> {
        match self {
            Self::Json(out) => Ok(out.end()?),
            Self::Tables(tables) => tables.end(),
        }
    }
}
