//! `shaftlog db check`: every row for itself, against the others, and against what the files are
//! now, without reading them.

use crate::cli::args::DbCheckArgs;
use crate::cli::datadir::{Found, database_failed, databases};
use crate::cli::exit::{Exit, Failure};
use crate::cli::load;
use crate::cli::out::Out;
use crate::cli::table::{Column, count, plain, render};
use crate::index::inspect::{Checked, Fault, Inspection};
use crate::sys::dir::Dir;
use crate::verify::stat;

/// Checks every database that `args` mean.
pub(in crate::cli) fn run(args: &DbCheckArgs) -> Result<Exit, Failure> {
    let mut out = Out::new();
    let mut exit = Exit::Done;
    for (number, found) in databases(&load::datadirs(&args.target)?, Exit::Failed)?
        .iter()
        .enumerate()
    {
        let (checked, faults) = check(found)?;
        if !faults.is_empty() {
            exit = Exit::Incomplete;
        }
        let text = if args.json {
            lines(&faults)?
        } else {
            let gap = if number > 0 { "\n" } else { "" };
            format!("{gap}{}", table(found, checked, &faults))
        };
        if !out.write(&text)? {
            break;
        }
    }
    out.end()?;
    Ok(exit)
}

fn check(found: &Found) -> Result<(Checked, Vec<Fault>), Failure> {
    let inspection = Inspection::open(&found.path).map_err(database_failed)?;
    let datadir = Dir::open(&found.datadir).map_err(|error| {
        let context = format!("cannot open the datadir {}", found.datadir.display());
        anyhow::Error::new(error).context(context)
    })?;
    let mut faults = Vec::new();
    let checked = inspection
        .check(|fault| faults.push(fault))
        .map_err(database_failed)?;
    stat::check(&datadir, &inspection, |fault| faults.push(fault)).map_err(database_failed)?;
    Ok((checked, faults))
}

fn lines(faults: &[Fault]) -> Result<String, Failure> {
    let mut text = String::new();
    for fault in faults {
        text.push_str(&serde_json::to_string(fault)?);
        text.push('\n');
    }
    Ok(text)
}

fn table(found: &Found, checked: Checked, faults: &[Fault]) -> String {
    let what = match faults.len() {
        0 => "nothing is wrong".to_owned(),
        1 => "1 thing is wrong".to_owned(),
        number => format!("{} things are wrong", count(number as u64)),
    };
    let pages = if checked.pages {
        "and the store's pages"
    } else {
        "(not the store's pages: it is being written)"
    };
    let head = format!(
        "{}: {} database, {} rows {pages}: {what}\n",
        plain(&found.path.display().to_string()),
        found.kind,
        count(checked.rows),
    );
    if faults.is_empty() {
        return head;
    }
    let columns = ["table", "row", "fault"].map(Column::Text);
    let rows = faults.iter().map(|fault| {
        vec![
            fault.table.to_owned(),
            plain(&fault.key),
            plain(&fault.fault),
        ]
    });
    format!("{head}\n{}", render(&columns, rows))
}
