//! Configuration files: YAML, read once, into settings that need no further checking.
//!
//! Every key, default and substitution of the original's two files keeps its meaning. What is
//! wrong is an error with file, line, key, what was expected and what to do; nothing is guessed
//! and no key is ignored. Parsing is pure: what a configuration wants to know of its machine comes in
//! as an [`Environment`], and only the `load` functions read a file.

pub mod access;
mod append_only;
mod client;
mod delivered;
mod destination;
mod error;
mod fields;
pub mod glob;
mod keys;
pub mod owner;
mod quota;
pub mod rename;
mod scrub;
mod server;
pub mod tls;
mod upkeep;
mod yaml;

use std::path::Path;

use regex::bytes::{Regex, RegexBuilder};

pub use client::{ClientSettings, Environment, PatternSettings};
pub use delivered::Delivered;
pub use destination::{BadTemplate, BadUrl, Destination};
pub use error::{ConfigError, Fault};
pub use quota::Quota;
pub use scrub::Scrub;
pub use server::{Limits, ServerSettings, Unconditional};
pub use upkeep::{NEVER, Upkeep};

use crate::limits::{CONFIG_BYTES, REGEX_BYTES};
use crate::sys;
use error::{Problem, Step};
use keys::Key;
use yaml::Node;

/// Whose configuration a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It says which files to deliver, and where.
    Client,
    /// It says where to keep and how to take them.
    Server,
}

/// The settings of either kind.
#[derive(Debug, Clone)]
pub enum Settings {
    /// A client's.
    Client(ClientSettings),
    /// A server's.
    Server(Box<ServerSettings>),
}

/// Reads the configuration `file` as what it is.
pub fn load(file: &Path, environment: &Environment) -> Result<Settings, ConfigError> {
    parse(file, &read(file)?, environment)
}

/// Reads the configuration `file`, which must be a client's.
pub fn load_client(file: &Path, environment: &Environment) -> Result<ClientSettings, ConfigError> {
    parse_client(file, &read(file)?, environment)
}

/// Reads the configuration `file`, which must be a server's.
pub fn load_server(file: &Path) -> Result<ServerSettings, ConfigError> {
    parse_server(file, &read(file)?)
}

/// A place in a configuration whose fault shows only on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `datadir`.
    Datadir,
    /// The pattern with this number, counted from 0.
    Pattern(usize),
    /// A key of a server's `files`.
    Files(&'static str),
    /// A key of a server's `tls`.
    ServerTls(&'static str),
    /// A key of the `tls` of the destination with this number, counted from 0.
    DestinationTls(usize, &'static str),
}

/// The error for a fault at `place` of the configuration `file` that showed when its settings met
/// the machine, as when a pattern's files lie where no link can be made.
pub fn fault_at(file: &Path, place: Place, problem: &str, hint: &str) -> ConfigError {
    let key = |name: &str| Step::Key(name.to_owned());
    let steps = match place {
        Place::Datadir => vec![key("datadir")],
        Place::Pattern(index) => vec![key("scan_paths"), Step::Index(index), key("pattern")],
        Place::Files(name) => vec![key("files"), key(name)],
        Place::ServerTls(name) => vec![key("tls"), key(name)],
        Place::DestinationTls(index, name) => {
            let destination = [key("destinations"), Step::Index(index)];
            destination
                .into_iter()
                .chain([key("tls"), key(name)])
                .collect()
        }
    };
    match read(file) {
        Ok(bytes) => Problem::new(steps, problem)
            .hint(hint)
            .in_file(file, &String::from_utf8_lossy(&bytes)),
        Err(error) => error,
    }
}

fn read(file: &Path) -> Result<Vec<u8>, ConfigError> {
    sys::file::read_small(file, CONFIG_BYTES).map_err(|source| ConfigError::Read {
        file: file.to_path_buf(),
        source,
    })
}

/// Reads the configuration in `bytes` as what it is. `file` is only for messages, here and below.
pub fn parse(
    file: &Path,
    bytes: &[u8],
    environment: &Environment,
) -> Result<Settings, ConfigError> {
    let (text, node) = document(file, bytes)?;
    match kind_of(&node) {
        Kind::Client => client::read(text, &node, environment).map(Settings::Client),
        Kind::Server => {
            server::read(text, &node).map(|settings| Settings::Server(Box::new(settings)))
        }
    }
    .map_err(|problem| problem.in_file(file, text))
}

/// Reads the configuration in `bytes`, which must be a client's.
pub fn parse_client(
    file: &Path,
    bytes: &[u8],
    environment: &Environment,
) -> Result<ClientSettings, ConfigError> {
    let (text, node) = document(file, bytes)?;
    expect(Kind::Client, &node)
        .and_then(|()| client::read(text, &node, environment))
        .map_err(|problem| problem.in_file(file, text))
}

/// Reads the configuration in `bytes`, which must be a server's.
pub fn parse_server(file: &Path, bytes: &[u8]) -> Result<ServerSettings, ConfigError> {
    let (text, node) = document(file, bytes)?;
    expect(Kind::Server, &node)
        .and_then(|()| server::read(text, &node))
        .map_err(|problem| problem.in_file(file, text))
}

fn document<'a>(file: &Path, bytes: &'a [u8]) -> Result<(&'a str, Node), ConfigError> {
    let (text, node) = yaml::parse(bytes).map_err(|fault| ConfigError::Content {
        file: file.to_path_buf(),
        fault,
    })?;
    let problem = match &node {
        Node::Map(_) => return Ok((text, node)),
        Node::Null => "the configuration is empty".to_owned(),
        other => format!("expected keys and values, found {}", other.found()),
    };
    Err(ConfigError::Content {
        file: file.to_path_buf(),
        fault: Fault {
            line: 1,
            key: String::new(),
            problem,
            hint: Some("packaging/ holds commented examples for client and server".to_owned()),
        },
    })
}

/// A client's when it has `scan_paths` or `destinations`, or a key that resembles a client's more
/// than a server's.
fn kind_of(node: &Node) -> Kind {
    let Node::Map(entries) = node else {
        return Kind::Server;
    };
    let is_clients = |key: &str| {
        let distance_to = |known| keys::nearest(key, known).map(|(_, distance)| distance);
        distance_to(keys::CLIENT) < distance_to(keys::SERVER)
    };
    if entries.iter().any(|(key, _)| is_clients(key)) {
        Kind::Client
    } else {
        Kind::Server
    }
}

/// Says so when a file was written for the other daemon, rather than which keys it lacks.
fn expect(kind: Kind, node: &Node) -> Result<(), Problem> {
    let Node::Map(entries) = node else {
        return Ok(());
    };
    let (own, other, words) = match kind {
        Kind::Client => (
            keys::CLIENT,
            keys::SERVER,
            "this is a server's configuration, not a client's",
        ),
        Kind::Server => (
            keys::SERVER,
            keys::CLIENT,
            "this is a client's configuration, not a server's",
        ),
    };
    let among = |key: &str, known: &[Key]| known.iter().any(|known| known.name == key);
    let foreign = |(key, _): &&(String, Node)| among(key, other) && !among(key, own);
    match entries.iter().find(foreign) {
        Some((key, _)) if kind_of(node) != kind => {
            Err(Problem::new(vec![Step::Key(key.clone())], words).on_key())
        }
        _ => Ok(()),
    }
}

/// Compiles a regular expression over bytes, Unicode off, as the original's JavaScript did.
fn regex(source: &str) -> Result<Regex, keys::Refusal> {
    RegexBuilder::new(source)
        .unicode(false)
        .size_limit(REGEX_BYTES)
        .build()
        .map_err(|error| {
            let words = error.to_string();
            // The crate draws a picture of several lines; its last one says what is wrong.
            let last = words.lines().last().unwrap_or_default();
            let hint = if last.contains("look-around") {
                Some("write it without lookahead and lookbehind".to_owned())
            } else if last.contains("backreferences") {
                Some("write it without backreferences".to_owned())
            } else {
                None
            };
            keys::Refusal {
                problem: format!(
                    "not a regular expression: {}",
                    last.strip_prefix("error: ").unwrap_or(last)
                ),
                hint,
            }
        })
}

#[cfg(test)]
mod tests;
