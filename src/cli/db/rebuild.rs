//! `shaftlog db rebuild`: a lost database made anew from the files in its datadir.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::cli::args::RebuildArgs;
use crate::cli::datadir::{Datadir, State};
use crate::cli::exit::{Exit, Failure};
use crate::cli::out;
use crate::cli::progress::{Progress, Standing};
use crate::cli::table::{Column, count, render};
use crate::cli::{load, unavailable};
use crate::config::Settings;
use crate::index::Kind;
use crate::server::rebuild::{RebuildProgress, Rebuilt};
use crate::types::Shown;
use crate::{server, sys};

/// How often the progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// Rebuilds the one database that `args` mean.
pub(in crate::cli) fn run(args: &RebuildArgs) -> Result<Exit, Failure> {
    let (path, kind) = target(args)?;
    let datadir = Datadir::take_existing(&path)?;
    let kind = match kind {
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
        Kind::Client => Err(unavailable("db rebuild (of a client's database)")),
        Kind::Server => rebuild_server(&datadir),
    }
}

/// The datadir, and whose it is where that is known.
fn target(args: &RebuildArgs) -> Result<(PathBuf, Option<Kind>), Failure> {
    match (&args.target.datadir, &args.target.config) {
        (Some(datadir), _) => Ok((datadir.clone(), None)),
        (None, Some(config)) => Ok(match load::either(config)? {
            Settings::Client(client) => (client.datadir, Some(Kind::Client)),
            Settings::Server(server) => (server.datadir, Some(Kind::Server)),
        }),
        (None, None) => Err(Failure::usage(
            "say which database: -f CONFIG, or --datadir DIR",
        )),
    }
}

/// Whose datadir it is, by its files: a client's are links of files that lie elsewhere.
fn kind_of(datadir: &Datadir) -> Result<Kind, Failure> {
    let linked = sys::datadir::holds_links(&datadir.dir)?;
    Ok(if linked { Kind::Client } else { Kind::Server })
}

fn rebuild_server(datadir: &Datadir) -> Result<Exit, Failure> {
    let database = datadir.database(Kind::Server);
    let figures = RebuildProgress::default();
    let rebuilt = thread::scope(|scope| {
        let shower = thread::current();
        let (database, figures) = (&database, &figures);
        let work = scope.spawn(move || {
            let rebuilt = server::rebuild::rebuild(&datadir.dir, database, figures);
            shower.unpark();
            rebuilt
        });
        let mut progress = Progress::new();
        while !work.is_finished() {
            progress.show(&[standing(datadir, figures)]);
            thread::park_timeout(SHOW_EVERY);
        }
        progress.end();
        work.join()
    });
    let rebuilt = match rebuilt {
        Ok(rebuilt) => rebuilt?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    out::print(&report(&database, &rebuilt))?;
    Ok(if rebuilt.left_out.is_empty() {
        Exit::Done
    } else {
        Exit::Incomplete
    })
}

fn standing(datadir: &Datadir, figures: &RebuildProgress) -> Standing {
    Standing {
        label: Shown(datadir.dir.path().as_os_str().as_encoded_bytes()).to_string(),
        files: figures.files.load(Ordering::Relaxed),
        files_done: figures.files_done.load(Ordering::Relaxed),
        bytes: figures.bytes.load(Ordering::Relaxed),
        bytes_done: figures.bytes_done.load(Ordering::Relaxed),
    }
}

fn report(database: &Path, rebuilt: &Rebuilt) -> String {
    let mut text = format!(
        "{}: made from {} files, {} bytes\n",
        Shown(database.as_os_str().as_encoded_bytes()),
        count(rebuilt.files),
        count(rebuilt.bytes)
    );
    if !rebuilt.left_out.is_empty() {
        text.push('\n');
        text.push_str(&render(
            &[Column::Text("left out"), Column::Text("why")],
            rebuilt.left_out.iter().map(|left_out| {
                let path = Shown(&left_out.path).to_string();
                vec![path, left_out.why.to_string()]
            }),
        ));
    }
    text
}
