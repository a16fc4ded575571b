//! `shaftlog client`: the daemon that finds files and delivers them.

use std::sync::Arc;

use super::args::ClientArgs;
use super::daemon::{self, Log};
use super::datadir::{Datadir, State, database_failed, quoted};
use super::exit::{Exit, Failure};
use super::load;
use crate::client::catalogue::StartError;
use crate::client::{self, RunError};
use crate::index::Kind;
use crate::index::client::ClientIndex;
use crate::sys;
use crate::sys::dir::Dir;

/// Runs the client that `args` name until it is asked to end.
pub(super) fn run(args: &ClientArgs) -> Result<Exit, Failure> {
    let settings = load::client(&args.config)?;
    let connectors = load::connectors(Some(&args.config), &settings)?;
    sys::host::set_umask();
    // Nothing is opened, linked or written before the datadir is ours alone.
    let datadir = Datadir::take(&settings.datadir, Kind::Client)?;
    let log = Log::start(settings.logfile.as_deref(), &args.flags)?;
    let rebuild = format!("-f {}", quoted(&args.config));
    let database = datadir.database(Kind::Client);
    if datadir.refuse_lost(Kind::Client, &rebuild)? == State::New {
        ClientIndex::create(&database).map_err(database_failed)?;
    }
    let index = ClientIndex::open(&database).map_err(database_failed)?;
    let links = Dir::open(datadir.dir.path())?;
    let again = Arc::clone(&log.hangup);
    let connections = settings.all_connections();
    daemon::run(&log, connections, async |asked| {
        let asked = async {
            // Asked, or nobody is left who could.
            let _ = asked.await;
        };
        let running = client::run(settings, links, index, connectors, again, asked);
        running.await.map_err(failed)
    })?;
    Ok(Exit::Done)
}

/// A client's failure with its exit code.
fn failed(error: RunError) -> Failure {
    match error {
        RunError::NothingLinkable => Failure::new(Exit::BadConfig, error),
        RunError::Index(error) | RunError::Start(StartError::Index(error)) => {
            database_failed(error)
        }
        error => error.into(),
    }
}
