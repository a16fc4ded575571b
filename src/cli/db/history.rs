//! `shaftlog db history`: which length and hash a delivered file had when, and from whom.

use std::cell::Cell;
use std::os::unix::ffi::OsStrExt as _;

use super::filter::Filter;
use super::inspect::print;
use crate::cli::args::HistoryArgs;
use crate::cli::datadir::databases;
use crate::cli::exit::{Exit, Failure};
use crate::cli::load;
use crate::index::Kind;
use crate::index::inspect::Row;
use crate::types::WirePath;

/// Prints the history of the path that `args` mean.
pub(in crate::cli) fn run(args: &HistoryArgs) -> Result<Exit, Failure> {
    let paths = readings(args.path.as_bytes());
    let filter = Filter::new(&args.filters())?;
    let mut databases = databases(&load::datadirs(&args.target)?, Exit::Failed)?;
    databases.retain(|found| found.kind == Kind::Server);
    if databases.is_empty() {
        return Err(Failure::usage(
            "only a server's database has a history; what each destination has confirmed last, \
             a client's `shaftlog db inspect` shows",
        ));
    }
    let known = Cell::new(false);
    print(args.json, &filter, &databases, |inspection, each| {
        for path in &paths {
            let rows = inspection.history(path)?;
            if !rows.is_empty() {
                known.set(true);
                let _ = rows.into_iter().map(Row::History).all(each);
                return Ok(());
            }
        }
        Ok(())
    })?;
    if known.get() {
        Ok(Exit::Done)
    } else {
        let error = anyhow::anyhow!(
            "no delivered file has the path {}; `shaftlog db inspect` lists them",
            args.path.display()
        );
        Err(Failure::new(Exit::Incomplete, error))
    }
}

/// What a path on the command line may mean: its bytes as they are, or as they are shown, with
/// odd bytes percent-encoded.
fn readings(text: &[u8]) -> Vec<WirePath> {
    let relative = text.strip_prefix(b"/").unwrap_or(text);
    let plain = WirePath::from_disk(relative).ok();
    let shown = str::from_utf8(relative).ok();
    let shown = shown.and_then(|text| WirePath::from_shown(text).ok());
    plain.into_iter().chain(shown).collect()
}
