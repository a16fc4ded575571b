//! A client's side.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::{Flaw, TlsError};
use super::files::{Named, Own, Purpose, Reading, Term};
use super::follow::Follow;
use super::reload::{Made, Reloaded};
use crate::config::tls::DestinationTls;

/// Makes TLS connections to one destination.
pub struct Connector {
    name: ServerName<'static>,
    reloaded: Reloaded<ClientConfig>,
}

impl Connector {
    /// Reads the files that `settings` name; `destination` is what messages call it. Blocks.
    pub fn load(
        destination: String,
        settings: &DestinationTls,
        purpose: Purpose,
    ) -> Result<Self, TlsError> {
        let mut files = Vec::new();
        files.extend(settings.ca.as_deref().map(|ca| Named::new("ca", ca)));
        if let Some(own) = &settings.own {
            files.push(Named::new("cert", &own.cert));
            files.push(Named::secret(&own.key, purpose));
        }
        let is_known = settings.own.is_some();
        let make = move |reading| make(reading, is_known);
        Ok(Self {
            name: settings.server_name.clone(),
            reloaded: Reloaded::load(destination, files, Box::new(make))?,
        })
    }

    /// Shakes hands on `stream`; unbounded in time. The server's certificate was issued by a CA that
    /// is believed, for the name that was asked for, and is valid. Whether the server takes ours
    /// shows only when it is read from (RFC 8446 section 4.4.2.4).
    pub async fn connect<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(self.reloaded.current());
        connector.connect(self.name.clone(), stream).await
    }

    /// Looks whether the files have changed, unless somebody has just looked. Blocks.
    pub fn look_after_failure(&self) {
        self.reloaded.look_after_failure();
    }

    /// How long the certificates in force are good.
    pub fn terms(&self) -> Vec<Term> {
        self.reloaded.terms()
    }
}

impl Follow for Connector {
    fn look(&self) {
        self.reloaded.look();
    }

    fn reload(&self) {
        self.reloaded.reload();
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector").field(&self.name).finish()
    }
}

fn make(mut reading: Reading, is_known: bool) -> Result<Made<ClientConfig>, TlsError> {
    let mut terms = Vec::new();
    let platform = Named::new("ca", Path::new("the platform's CAs"));
    let refused = |error: rustls::Error| platform.error(Flaw::Platform(error.to_string()));
    let builder = ClientConfig::builder_with_provider(super::provider())
        .with_protocol_versions(super::VERSIONS)
        .map_err(refused)?;
    let builder = if let Some(ca) = reading.take("ca")? {
        terms.extend(Term::of_roots(&ca)?);
        builder.with_root_certificates(ca.roots()?)
    } else {
        let verifier = Verifier::new(super::provider()).map_err(refused)?;
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
    };
    let mut config = if is_known {
        let own = Own::of(&mut reading)?;
        terms.extend(own.term());
        let (cert, key) = own.files();
        builder
            .with_client_auth_cert(own.chain, own.private)
            .map_err(|error| Own::refused(&cert, &key, &error))?
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = super::protocols();
    config.resumption = Resumption::disabled();
    Ok(Made {
        config,
        terms,
        oddity: None,
    })
}
