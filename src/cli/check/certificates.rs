//! Whether the certificates that a configuration names can be used, and how long.

use std::fmt::Write as _;
use std::path::Path;

use crate::cli::load::tls_fault;
use crate::client::http::Connector;
use crate::config::{ClientSettings, ConfigError, Place, ServerSettings};
use crate::sys::clock;
use crate::tls::{Acceptor, Purpose, Term};

/// What was found: comments for whoever reads, and faults of the configuration `file`.
#[derive(Default)]
pub(super) struct Certificates {
    pub(super) comments: String,
    pub(super) faults: Vec<ConfigError>,
}

impl Certificates {
    /// Reads those of a server.
    pub(super) fn of_server(file: &Path, server: &ServerSettings) -> Self {
        let mut found = Self::default();
        if let Some(tls) = &server.tls {
            match Acceptor::load(tls, Purpose::Look) {
                Ok(acceptor) => {
                    found.comment("", &acceptor.terms());
                    if let Some(oddity) = acceptor.oddity() {
                        // Writing to a String cannot fail.
                        let _ = writeln!(found.comments, "# {oddity}");
                    }
                }
                Err(error) => {
                    let place = Place::ServerTls(error.key);
                    found.faults.push(tls_fault(file, place, &error));
                }
            }
        }
        found
    }

    /// Reads those of a client for each of its destinations.
    pub(super) fn of_client(file: &Path, client: &ClientSettings) -> Self {
        let mut found = Self::default();
        for (number, destination) in client.destinations.iter().enumerate() {
            match Connector::Tcp.secured(destination, Purpose::Look) {
                Ok(connector) => {
                    if let Some(certificates) = connector.certificates() {
                        found.comment(&format!("{destination}: "), &certificates.terms());
                    }
                }
                Err(error) => {
                    let place = Place::DestinationTls(number, error.key);
                    found.faults.push(tls_fault(file, place, &error));
                }
            }
        }
        found
    }

    fn comment(&mut self, whose: &str, terms: &[Term]) {
        for term in terms {
            let words = match term.worry(clock::now()) {
                Some(worry) => worry,
                None => format!("good until {}", term.until),
            };
            let (key, file) = (term.key, term.file.display());
            // Writing to a String cannot fail.
            let _ = writeln!(self.comments, "# {whose}tls.{key}: {file}: {words}");
        }
    }
}
