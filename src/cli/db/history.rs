//! `shaftlog db history`: which length and hash a delivered file had when, and from whom.

use std::cell::Cell;
use std::os::unix::ffi::OsStrExt as _;

use super::filter::Filter;
use super::inspect::{note_nothing, print};
use crate::cli::args::HistoryArgs;
use crate::cli::datadir::{Found, database_failed, databases};
use crate::cli::exit::{Exit, Failure};
use crate::cli::load;
use crate::cli::table::plain;
use crate::index::Kind;
use crate::index::inspect::{Inspection, Row};
use crate::types::WirePath;
use crate::types::words::distance;

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
    let shown = print(args.json, &filter, &databases, |inspection, each| {
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
    if !known.get() {
        let path = plain(&args.path.display().to_string());
        let hint = match nearest(&args.path.to_string_lossy(), &databases)? {
            Some(path) => format!("did you mean {path}?"),
            None => "`shaftlog db inspect` lists those that have one".to_owned(),
        };
        let error = anyhow::anyhow!("there is no history of the path {path}; {hint}");
        return Err(Failure::new(Exit::Incomplete, error));
    }
    if !shown {
        note_nothing(
            &format!("length of {}", plain(&args.path.display().to_string())),
            &filter,
            &databases,
        );
    }
    Ok(Exit::Done)
}

/// Letters in which a path may differ from one that is meant by it.
const MISSPELT: usize = 6;

/// The known path that is most like `typed`, or is the only one with its name; shown.
fn nearest(typed: &str, databases: &[Found]) -> Result<Option<String>, Failure> {
    let typed = format!("/{}", typed.trim_start_matches('/'));
    let name_of = |path: &str| path.rsplit('/').next().map(str::to_owned);
    let name = name_of(&typed);
    let mut like: Option<(usize, String)> = None;
    let (mut namesake, mut namesakes) = (None, 0);
    for found in databases {
        let inspection = Inspection::open(&found.path).map_err(database_failed)?;
        let visited = inspection.server_files(|row| {
            let Ok((path, _)) = row else { return true };
            let path = path.to_string();
            if name_of(&path) == name {
                namesakes += 1;
                namesake = Some(path.clone());
            }
            if path.len().abs_diff(typed.len()) <= MISSPELT {
                let distance = distance(&typed, &path);
                let nearer = like.as_ref().is_none_or(|(least, _)| distance < *least);
                if distance <= MISSPELT && nearer {
                    like = Some((distance, path));
                }
            }
            true
        });
        visited.map_err(database_failed)?;
    }
    let namesake = namesake.filter(|_| namesakes == 1);
    Ok(namesake.or(like.map(|(_, path)| path)))
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
