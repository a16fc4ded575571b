//! `shaftlog quarantine` and `shaftlog retire`: through the control socket of the running server, or
//! in its place when none runs.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::args::{QuarantineArgs, RetireArgs, Target};
use super::datadir::{Datadir, State, database_failed, databases};
use super::exit::{Exit, Failure};
use super::{load, out};
use crate::control::{self, Answer, Request};
use crate::index::Kind;
use crate::index::server::ServerIndex;
use crate::server::Server;
use crate::sys;
use crate::types::WirePath;

/// Moves the file that `args` name aside.
pub(super) fn quarantine(args: &QuarantineArgs) -> Result<Exit, Failure> {
    let relative = args.path.as_bytes();
    let relative = relative.strip_prefix(b"/").unwrap_or(relative);
    // As it is shown, or as it lies there.
    let shown = str::from_utf8(relative).ok();
    let shown = shown.and_then(|text| WirePath::from_shown(text).ok());
    let path = match shown {
        Some(path) => path,
        None => WirePath::from_disk(relative)
            .map_err(|error| Failure::usage(format!("{}: {error}", args.path.display())))?,
    };
    let request = Request::Quarantine {
        path: path.to_string(),
        from: args.from,
    };
    ask(&args.target, request)
}

/// Gives up the files that `args` name.
pub(super) fn retire(args: &RetireArgs) -> Result<Exit, Failure> {
    let request = Request::Retire {
        pattern: args.pattern.clone(),
        older_than: args.older_than.0.as_secs(),
    };
    ask(&args.target, request)
}

fn ask(target: &Target, request: Request) -> Result<Exit, Failure> {
    let mut found = databases(&load::datadirs(target)?, Exit::Failed)?;
    found.retain(|found| found.kind == Kind::Server);
    let [found] = &found[..] else {
        return Err(Failure::usage(
            "this is for a server: name its configuration with -f, or its datadir with --datadir",
        ));
    };
    let answer = match control::ask(&found.datadir, &request)? {
        Some(answer) => answer,
        None => alone(&found.datadir, request)?,
    };
    match answer {
        Answer::Done(lines) => {
            out::print(&(lines.join("\n") + "\n"))?;
            Ok(Exit::Done)
        }
        Answer::Refused(why) => Err(Failure::new(Exit::Failed, anyhow::Error::msg(why))),
    }
}

/// Does it in this process: no server runs.
fn alone(datadir: &Path, request: Request) -> Result<Answer, Failure> {
    let datadir = Datadir::take_existing(datadir)?;
    if datadir.state(Kind::Server)? != State::Present {
        return Err(Failure::new(
            Exit::Incomplete,
            anyhow::anyhow!("no server database"),
        ));
    }
    let database = datadir.database(Kind::Server);
    let index = ServerIndex::open(&database, sys::clock::now()).map_err(database_failed)?;
    // The lock stays behind, and is held to the end.
    let dir = datadir.dir;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let server = Server::embedded(index, dir)?;
        let answer = server.command(request).await;
        server.stop().await;
        Ok(answer)
    })
}
