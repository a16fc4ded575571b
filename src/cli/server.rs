//! `shaftlog server`: the daemon that takes deliveries.

use std::sync::Arc;

use super::args::ServerArgs;
use super::daemon::{self, Log};
use super::datadir::{Datadir, State, database_failed, quoted};
use super::exit::{Exit, Failure};
use super::load;
use crate::index::Kind;
use crate::index::server::ServerIndex;
use crate::server;
use crate::sys;

/// Runs the server that `args` name until it is asked to end.
pub(super) fn run(args: &ServerArgs) -> Result<Exit, Failure> {
    let settings = load::server(&args.config)?;
    let acceptor = load::acceptor(&args.config, &settings)?;
    let ownership = load::ownership(&args.config, &settings.delivered).map_err(load::bad)?;
    sys::host::raise_descriptors();
    sys::host::set_umask();
    // Nothing is opened, bound or written before the datadir is ours alone.
    let datadir = Datadir::take(&settings.datadir, Kind::Server)?;
    load::try_ownership(&args.config, &datadir.dir, &settings.delivered, ownership)?;
    let log = Log::start(settings.logfile.as_deref(), &args.flags)?;
    let rebuild = format!("-f {}", quoted(&args.config));
    let database = datadir.database(Kind::Server);
    if datadir.refuse_lost(Kind::Server, &rebuild)? == State::New {
        ServerIndex::create(&database).map_err(database_failed)?;
    }
    let index = ServerIndex::open(&database, sys::clock::now()).map_err(database_failed)?;
    let again = Arc::clone(&log.hangup);
    // The lock stays behind, and is held to the end.
    let dir = datadir.dir;
    daemon::run(&log, 0, async |asked| {
        let asked = async {
            // An error is a daemon that ends too.
            let _ = asked.await;
        };
        let ran = server::run(&settings, index, dir, ownership, acceptor, again, asked).await;
        Ok(ran.map_err(anyhow::Error::new)?)
    })?;
    Ok(Exit::Done)
}
