//! Arguments, exit codes and everything that prints; one file a subcommand.
//!
//! Owns the process: parses the arguments, runs one subcommand and turns what it says into an exit
//! code. Nothing below this layer prints or exits. A crash here leaves nothing of its own: the
//! layers below are durable by themselves.

mod args;
mod check;
mod client;
mod datadir;
mod daemon;
mod db;
mod exit;
mod load;
mod logging;
mod operator;
mod out;
mod progress;
mod server;
mod sync;
mod table;
mod tls;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

pub use check::in_force;

use args::{Command, DbCommand, Line, TlsCommand};
use exit::{Exit, Failure};

use crate::sys::host;

/// Parses the arguments and runs the subcommand they name.
pub fn main() -> ExitCode {
    let line = match Line::try_parse_from(args::with_name_as_subcommand(std::env::args_os())) {
        Ok(line) => line,
        Err(answer) => {
            // Help and version come this way too. Nobody is left to tell when printing fails.
            let _ = answer.print();
            let exit = if answer.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            return exit.into();
        }
    };
    if only_looks(&line.command) {
        host::give_way();
    }
    match run(line.command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            out::complain(&failure.error);
            failure.exit.into()
        }
    }
}

/// Whether a command reads what a daemon may be working on: looking must not slow it down.
fn only_looks(command: &Command) -> bool {
    use DbCommand::{Check, Events, History, Inspect};
    matches!(
        command,
        Command::Verify(_) | Command::Db(Inspect(_) | History(_) | Events(_) | Check(_))
    )
}

fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Check(args) => check::run(&args),
        Command::Client(args) => client::run(&args),
        Command::Server(args) => server::run(&args),
        Command::Sync(args) => sync::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Db(DbCommand::Inspect(args)) => db::inspect(&args),
        Command::Db(DbCommand::Rebuild(args)) => db::rebuild(&args),
        Command::Db(DbCommand::History(args)) => db::history(&args),
        Command::Db(DbCommand::Events(args)) => db::events(&args),
        Command::Db(DbCommand::Check(args)) => db::check(&args),
        Command::Status(_) => Err(unavailable("status")),
        Command::Quarantine(args) => operator::quarantine(&args),
        Command::Retire(args) => operator::retire(&args),
        Command::Doctor(_) => Err(unavailable("doctor")),
        Command::Tls(TlsCommand::Init(args)) => tls::init(&args),
        Command::Tls(TlsCommand::Issue(args)) => tls::issue(&args),
        Command::Completions(_) => Err(unavailable("completions")),
        Command::Man(_) => Err(unavailable("man")),
    }
}

/// The refusal of what the design has and this version has not.
fn unavailable(what: &str) -> Failure {
    Failure::usage(format!(
        "`shaftlog {what}` is not available in version {}",
        env!("CARGO_PKG_VERSION")
    ))
}
