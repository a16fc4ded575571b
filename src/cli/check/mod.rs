//! `shaftlog check`: validate a configuration and print its effective settings, touching nothing.

mod certificates;
mod effective;
mod sources;

use std::io::ErrorKind;
use std::path::Path;

use super::args::CheckArgs;
use super::exit::{Exit, Failure};
use super::{load, out};
use crate::client::logrotate;
use crate::config::{self, ClientSettings, ConfigError, Place, Settings};
use crate::sys::dir::Dir;
use certificates::Certificates;
use sources::Sources;

/// Checks the configuration that `args` name. What it prints is itself a configuration, with
/// every default in it and what was found on the machine as comments.
pub(super) fn run(args: &CheckArgs) -> Result<Exit, Failure> {
    let file = args.config.as_path();
    let settings = load::either(file)?;
    out::print(&in_force(&settings)?)?;
    match settings {
        Settings::Server(server) => {
            let certificates = Certificates::of_server(file, &server);
            out::print(&certificates.comments)?;
            let mut faults = check_datadir(file, &server.datadir);
            faults.extend(certificates.faults);
            faults.extend(load::ownership(file, &server.delivered).err());
            finish(faults)
        }
        Settings::Client(client) => {
            let certificates = Certificates::of_client(file, &client);
            out::print(&certificates.comments)?;
            let mut faults = check_datadir(file, &client.datadir);
            if faults.is_empty() {
                faults = check_sources(file, &client)?;
            }
            faults.extend(certificates.faults);
            finish(faults)
        }
    }
}

/// Settings as the text of a configuration that says everything.
pub fn in_force(settings: &Settings) -> Result<String, serde_yaml::Error> {
    match settings {
        Settings::Server(server) => effective::server(server),
        Settings::Client(client) => effective::client(client),
    }
}

/// All faults are told, each with its line.
fn finish(mut faults: Vec<ConfigError>) -> Result<Exit, Failure> {
    let Some(last) = faults.pop() else {
        return Ok(Exit::Done);
    };
    for fault in faults {
        out::complain(&fault.into());
    }
    Err(Failure::new(Exit::BadConfig, last))
}

/// A datadir may be missing (it is made at the start) or closed to whoever checks.
fn check_datadir(file: &Path, datadir: &Path) -> Vec<ConfigError> {
    match Dir::open(datadir) {
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            let problem = format!("{} is not a directory", datadir.display());
            let hint = "name a directory, or one that does not exist yet";
            vec![config::fault_at(file, Place::Datadir, &problem, hint)]
        }
        _ => Vec::new(),
    }
}

fn check_sources(file: &Path, client: &ClientSettings) -> Result<Vec<ConfigError>, Failure> {
    let sources = Sources::look(client)?;
    out::print(&sources.comments())?;
    if let Some(warning) = logrotate::warning() {
        out::print(&format!("# Warning: {warning}\n"))?;
    }
    let faults = sources.unlinkable().map(|(index, problem)| {
        let hint = "a second client, with its datadir over there, can deliver them";
        config::fault_at(file, Place::Pattern(index), &problem, hint)
    });
    Ok(faults.collect())
}
