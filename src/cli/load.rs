//! Reading configurations: the file, and what it asks of this machine.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{CLIENT_CONFIG, SERVER_CONFIG, Target};
use super::exit::{Exit, Failure};
use crate::client::http::Connector;
use crate::config::{
    self, ClientSettings, ConfigError, Delivered, Environment, Place, ServerSettings, Settings,
};
use crate::sys;
use crate::sys::dir::Dir;
use crate::sys::file::Ownership;
use crate::tls::{Acceptor, Purpose, TlsError};

/// The settings of the client that is to run with `file`. A machine without an id gets one.
pub(super) fn client(file: &Path) -> Result<ClientSettings, Failure> {
    config::load_client(file, &Environment::here()).map_err(bad)
}

/// The settings of the server that is to run with `file`.
pub(super) fn server(file: &Path) -> Result<ServerSettings, Failure> {
    config::load_server(file).map_err(bad)
}

/// The settings in `file`, whosever they are, for looking only: nothing is made.
pub(super) fn either(file: &Path) -> Result<Settings, Failure> {
    config::load(file, &Environment::here_untouched()).map_err(bad)
}

/// The datadirs that a command about databases is about: see [`aims`].
pub(super) fn datadirs(target: &Target) -> Result<Vec<PathBuf>, Failure> {
    let aims = aims(target)?;
    Ok(aims.into_iter().map(|aim| aim.datadir).collect())
}

/// A datadir, with the settings that named it.
pub(super) struct Aim {
    /// The datadir.
    pub(super) datadir: PathBuf,
    /// None when it was named itself.
    pub(super) settings: Option<Settings>,
}

/// What a command about datadirs is about: the one that was named, that of the configuration that
/// was named, or those of the default configurations that exist.
pub(super) fn aims(target: &Target) -> Result<Vec<Aim>, Failure> {
    if let Some(datadir) = &target.datadir {
        return Ok(vec![Aim {
            datadir: datadir.clone(),
            settings: None,
        }]);
    }
    let files = match &target.config {
        Some(file) => vec![file.as_path()],
        None => default_files()?,
    };
    let aim = |file: &Path| {
        either(file).map(|settings| Aim {
            datadir: match &settings {
                Settings::Client(client) => client.datadir.clone(),
                Settings::Server(server) => server.datadir.clone(),
            },
            settings: Some(settings),
        })
    };
    files.into_iter().map(aim).collect()
}

fn default_files() -> Result<Vec<&'static Path>, Failure> {
    let mut files = vec![Path::new(CLIENT_CONFIG), Path::new(SERVER_CONFIG)];
    files.retain(|file| sys::file::stat_path(file).is_ok());
    if files.is_empty() {
        Err(Failure::usage(format!(
            "neither {CLIENT_CONFIG} nor {SERVER_CONFIG} exists: \
             name a configuration with -f, or a directory with --datadir"
        )))
    } else {
        Ok(files)
    }
}

/// The certificates of the server that is to run with `file`, if it has any.
pub(super) fn acceptor(
    file: &Path,
    settings: &ServerSettings,
) -> Result<Option<Arc<Acceptor>>, Failure> {
    let load = |tls| {
        let loaded = Acceptor::load(tls, Purpose::Use);
        loaded.map_err(|error| bad(tls_fault(file, Place::ServerTls(error.key), &error)))
    };
    Ok(settings.tls.as_ref().map(load).transpose()?.map(Arc::new))
}

/// To whom the server that is to run with `file` gives what is delivered.
pub(super) fn ownership(file: &Path, delivered: &Delivered) -> Result<Ownership, ConfigError> {
    let id = |key, name: &Option<String>, find: fn(&str) -> io::Result<Option<u32>>, of| {
        let Some(name) = name else { return Ok(None) };
        let problem = match name.parse() {
            Ok(id) if id < u32::MAX => return Ok(Some(id)),
            _ => match find(name) {
                Ok(Some(id)) => return Ok(Some(id)),
                Ok(None) => format!("\"{}\" is neither an id nor in {of}", name.escape_debug()),
                Err(error) => format!("cannot read {of}: {error}"),
            },
        };
        let hint = "who is not in there has a number: `id` and `getent group` print it";
        Err(config::fault_at(file, Place::Files(key), &problem, hint))
    };
    Ok(Ownership {
        user: id("owner", &delivered.owner, sys::host::user_id, "/etc/passwd")?,
        group: id("group", &delivered.group, sys::host::group_id, "/etc/group")?,
    })
}

/// Refuses an ownership that this process cannot give to files in `datadir`, or in which it could
/// not write to them any more.
pub(super) fn try_ownership(
    file: &Path,
    datadir: &Dir,
    delivered: &Delivered,
    ownership: Ownership,
) -> Result<(), Failure> {
    sys::datadir::try_ownership(datadir, delivered.mode, ownership).map_err(|error| {
        let key = if ownership.user.is_some() {
            "owner"
        } else {
            "group"
        };
        let problem = format!("the server cannot give files away and go on writing them: {error}");
        let hint = "that needs CAP_CHOWN, and CAP_DAC_OVERRIDE for another user's files; a group \
                    needs neither if the server's user is in it, and no PrivateUsers= hides it";
        bad(config::fault_at(file, Place::Files(key), &problem, hint))
    })
}

/// How each destination of a client is reached, with the certificates that it needs. The settings
/// come from `file`, or from the command line.
pub(super) fn connectors(
    file: Option<&Path>,
    settings: &ClientSettings,
) -> Result<Vec<Connector>, Failure> {
    let destinations = settings.destinations.iter().enumerate();
    let secured = destinations.map(|(number, destination)| {
        Connector::Tcp
            .secured(destination, Purpose::Use)
            .map_err(|error| match file {
                Some(file) => {
                    let place = Place::DestinationTls(number, error.key);
                    bad(tls_fault(file, place, &error))
                }
                None => Failure::usage(format!("{error} ({})", error.hint())),
            })
    });
    secured.collect()
}

/// What is wrong with certificates, with the place in `file` that names them.
pub(super) fn tls_fault(file: &Path, place: Place, error: &TlsError) -> ConfigError {
    config::fault_at(file, place, &error.to_string(), &error.hint())
}

pub(super) fn bad(error: ConfigError) -> Failure {
    Failure::new(Exit::BadConfig, error)
}
