//! `shaftlog db rebuild`: a lost database made anew from the files in its datadir.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::args::RebuildArgs;
use crate::cli::datadir::{Datadir, State};
use crate::cli::exit::{Exit, Failure};
use crate::cli::load;
use crate::cli::out;
use crate::cli::progress;
use crate::cli::table::{Column, count, plain, render};
use crate::config::{PatternSettings, Settings};
use crate::index::Kind;
use crate::types::Shown;
use crate::verify::figures::Figures;
use crate::{client, server, sys};

/// Rebuilds the one database that `args` mean.
pub(in crate::cli) fn run(args: &RebuildArgs) -> Result<Exit, Failure> {
    let target = Target::read(args)?;
    let datadir = Datadir::take_existing(&target.datadir)?;
    let kind = match target.kind {
        Some(kind) => kind,
        None => kind_of(&datadir)?,
    };
    let database = datadir.database(kind);
    if datadir.state(kind)? == State::Present {
        return Err(anyhow::anyhow!(
            "{} is there: a database is never replaced; move it away first if it is damaged",
            database.display()
        )
        .into());
    }
    match kind {
        Kind::Client => rebuild_client(&datadir, &target.patterns),
        Kind::Server => rebuild_server(&datadir),
    }
}

/// What is to be rebuilt.
struct Target {
    datadir: PathBuf,
    /// Whose it is, where that is known.
    kind: Option<Kind>,
    /// A client's patterns, by which sources are found.
    patterns: Arc<[PatternSettings]>,
}

impl Target {
    fn read(args: &RebuildArgs) -> Result<Self, Failure> {
        let of = |datadir, kind, patterns: Vec<PatternSettings>| Self {
            datadir,
            kind,
            patterns: patterns.into(),
        };
        match (&args.target.datadir, &args.target.config) {
            (Some(datadir), _) => Ok(of(datadir.clone(), None, Vec::new())),
            (None, Some(config)) => Ok(match load::either(config)? {
                Settings::Client(it) => of(it.datadir, Some(Kind::Client), it.patterns),
                Settings::Server(it) => of(it.datadir, Some(Kind::Server), Vec::new()),
            }),
            (None, None) => Err(Failure::usage(
                "say which database: -f CONFIG, or --datadir DIR",
            )),
        }
    }
}

/// Whose datadir it is, by its files: a client's are links of files that lie elsewhere.
fn kind_of(datadir: &Datadir) -> Result<Kind, Failure> {
    let linked = sys::datadir::holds_links(&datadir.dir)?;
    Ok(if linked { Kind::Client } else { Kind::Server })
}

fn rebuild_client(datadir: &Datadir, patterns: &Arc<[PatternSettings]>) -> Result<Exit, Failure> {
    let database = datadir.database(Kind::Client);
    let rebuilt = client::rebuild::rebuild(datadir.dir.path(), &database, patterns)?;
    let mut made = vec![format!(
        "{} links, {} of them with a source that no pattern finds now",
        count(rebuilt.files),
        count(rebuilt.without_source)
    )];
    if rebuilt.reunited > 0 {
        let reunited = count(rebuilt.reunited);
        made.push(format!(
            "{reunited} sources had been restored apart from their links"
        ));
    }
    if rebuilt.apart > 0 {
        let apart = count(rebuilt.apart);
        made.push(format!(
            "{apart} may have been, and get names of their own (see `shaftlog db events`)"
        ));
    }
    let made = made.join("; ");
    let left_out = rebuilt.left_out.iter();
    report(
        &database,
        &made,
        left_out.map(|(path, why)| (path.as_slice(), plain(why))),
    )
}

fn rebuild_server(datadir: &Datadir) -> Result<Exit, Failure> {
    let database = datadir.database(Kind::Server);
    let figures = Figures::default();
    let label = Shown(datadir.dir.path().as_os_str().as_encoded_bytes()).to_string();
    let rebuilt = progress::during(&label, &figures, || {
        server::rebuild::rebuild(&datadir.dir, &database, &figures)
    })?;
    let made = format!(
        "{} files, {} bytes",
        count(rebuilt.files),
        count(rebuilt.bytes)
    );
    let left_out = rebuilt.left_out.iter();
    report(
        &database,
        &made,
        left_out.map(|left_out| (left_out.path.as_slice(), left_out.why.to_string())),
    )
}

/// Prints what a database was made from, and what has no row in it.
fn report<'a>(
    database: &Path,
    made: &str,
    left_out: impl Iterator<Item = (&'a [u8], String)>,
) -> Result<Exit, Failure> {
    let shown = Shown(database.as_os_str().as_encoded_bytes());
    let mut text = format!("{shown}: made from {made}\n");
    let rows: Vec<_> = left_out
        .map(|(path, why)| vec![Shown(path).to_string(), why])
        .collect();
    let exit = if rows.is_empty() {
        Exit::Done
    } else {
        text.push('\n');
        text.push_str(&render(
            &[Column::Text("left out"), Column::Text("why")],
            rows,
        ));
        Exit::Incomplete
    };
    out::print(&text)?;
    Ok(exit)
}
