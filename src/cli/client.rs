//! `shaftlog client`: the daemon that finds files and delivers them.

use super::args::ClientArgs;
use super::daemon::{self, Log};
use super::datadir::{Datadir, State, database_failed};
use super::exit::{Exit, Failure};
use super::{load, unavailable};
use crate::index::Kind;
use crate::index::client::ClientIndex;

/// Runs the client that `args` name until it is asked to end.
pub(super) fn run(args: &ClientArgs) -> Result<Exit, Failure> {
    let settings = load::client(&args.config)?;
    // Nothing is opened, linked or written before the datadir is ours alone.
    let datadir = Datadir::take(&settings.datadir, Kind::Client)?;
    let log = Log::start(settings.logfile.as_deref(), &args.flags)?;
    let database = datadir.database(Kind::Client);
    if datadir.refuse_lost(Kind::Client, &args.config)? == State::New {
        ClientIndex::create(&database).map_err(database_failed)?;
    }
    let index = ClientIndex::open(&database).map_err(database_failed)?;
    daemon::run(&log, async |_asked| {
        drop(index);
        Err::<(), _>(unavailable("client"))
    })?;
    Ok(Exit::Done)
}
