//! How long the certificates and lists that a configuration names are good, as rows of `db inspect`.

use crate::cli::out;
use crate::client::http::Connector;
use crate::config::Settings;
use crate::index::Kind;
use crate::index::inspect::{CertificateRow, Row};
use crate::sys::clock;
use crate::tls::{Acceptor, Purpose, Term, TlsError};
use crate::types::Shown;

/// Those of a configuration, and whose it is. What cannot be read is told of: whoever may look at
/// the database need not be one who may read the key.
pub(super) fn rows(settings: &Settings) -> (Kind, Vec<Row>) {
    match settings {
        Settings::Server(server) => {
            let loaded = server
                .tls
                .as_ref()
                .map(|tls| Acceptor::load(tls, Purpose::Look));
            let terms = loaded.map(|loaded| loaded.map(|acceptor| acceptor.terms()));
            (
                Kind::Server,
                terms.map_or_else(Vec::new, |terms| of(None, terms)),
            )
        }
        Settings::Client(client) => {
            let rows = client.destinations.iter().flat_map(|destination| {
                let loaded = Connector::Tcp.secured(destination, Purpose::Look);
                let terms = loaded.map(|connector| {
                    let certificates = connector.certificates();
                    certificates.map_or_else(Vec::new, |certificates| certificates.terms())
                });
                of(Some(&destination.to_string()), terms)
            });
            (Kind::Client, rows.collect())
        }
    }
}

fn of(destination: Option<&str>, terms: Result<Vec<Term>, TlsError>) -> Vec<Row> {
    let terms = terms.unwrap_or_else(|error| {
        let problem = anyhow::anyhow!("certificates are not shown: tls.{}: {error}", error.key);
        out::complain(&problem);
        Vec::new()
    });
    let row = |term: Term| {
        Row::Certificates(CertificateRow {
            destination: destination.map(str::to_owned),
            key: term.key,
            file: Shown(term.file.as_os_str().as_encoded_bytes()).to_string(),
            state: term.standing(clock::now()).as_str(),
            subject: term.subject,
            not_before: term.from,
            not_after: term.until,
        })
    };
    terms.into_iter().map(row).collect()
}
