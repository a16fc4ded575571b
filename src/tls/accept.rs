//! A server's side.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate;
use super::error::TlsError;
use super::files::{Named, Own, Purpose, Reading, Term};
use super::follow::Follow;
use super::reload::{Made, Reloaded};
use crate::config::tls::{ClientAuth, ServerTls};
use crate::types::{Identity, NoIdentity};

/// Takes TLS connections.
pub struct Acceptor(Reloaded<ServerConfig>);

/// A connection whose handshake is done.
pub struct Accepted<S> {
    /// What goes on inside.
    pub stream: TlsStream<S>,
    /// Who the client is by the certificate that it has shown, if it has; that was issued by a CA
    /// of ours, is valid and not revoked.
    pub client: Option<Result<Identity, NoIdentity>>,
}

/// A handshake that came to nothing.
pub struct NotAccepted<S> {
    /// Why.
    pub error: io::Error,
    /// The connection, on which the client was told.
    pub stream: S,
}

impl Acceptor {
    /// Reads the files that `settings` name. Blocks.
    pub fn load(settings: &ServerTls, purpose: Purpose) -> Result<Self, TlsError> {
        let mut files = vec![
            Named::new("cert", &settings.own.cert),
            Named::secret(&settings.own.key, purpose),
        ];
        if let Some(ca) = settings.clients.ca() {
            files.push(Named::new("client_ca", &ca.ca));
            files.extend(ca.crl.as_deref().map(|crl| Named::new("crl", crl)));
        }
        let is_optional = matches!(settings.clients, ClientAuth::Optional(_));
        let make = move |reading| make(reading, is_optional);
        Reloaded::load("tls".to_owned(), files, Box::new(make)).map(Self)
    }

    /// Shakes hands on `stream`; unbounded in time.
    pub async fn accept<S>(&self, stream: S) -> Result<Accepted<S>, NotAccepted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.0.current());
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let own = certificates.and_then(<[_]>::first);
                let client = own.map(certificate::identity);
                Ok(Accepted { stream, client })
            }
            Err((error, stream)) => Err(NotAccepted { error, stream }),
        }
    }

    /// Looks whether the files have changed, unless somebody has just looked. Blocks.
    pub fn look_after_failure(&self) {
        self.0.look_after_failure();
    }

    /// How long the certificates in force are good.
    pub fn terms(&self) -> Vec<Term> {
        self.0.terms()
    }

    /// What is odd about the files in force.
    pub fn oddity(&self) -> Option<String> {
        self.0.oddity()
    }
}

impl Follow for Acceptor {
    fn look(&self) {
        self.0.look();
    }

    fn reload(&self) {
        self.0.reload();
    }
}

fn make(mut reading: Reading, is_optional: bool) -> Result<Made<ServerConfig>, TlsError> {
    let own = Own::of(&mut reading)?;
    let mut terms: Vec<_> = own.term().into_iter().collect();
    let mut oddity = None;
    let builder = ServerConfig::builder_with_provider(super::provider())
        .with_protocol_versions(super::VERSIONS);
    let (cert, key) = own.files();
    let refused = |error: rustls::Error| Own::refused(&cert, &key, &error);
    let builder = builder.map_err(refused)?;
    let builder = match reading.take("client_ca")? {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            terms.extend(Term::of_roots(&ca)?);
            let roots = Arc::new(ca.roots()?);
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(roots, super::provider());
            let list = reading.take("crl")?;
            if let Some(list) = &list {
                terms.extend(Term::of_lists(list)?);
                oddity = list.strange_lists(&ca)?;
                // Of a CA without a list nothing is revoked: a new CA would otherwise shut all of
                // its clients out until it has one.
                verifier = verifier
                    .with_crls(list.lists()?)
                    .allow_unknown_revocation_status();
            }
            if is_optional {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier
                .build()
                .map_err(|error| list.unwrap_or(ca).unusable(error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(own.chain, own.private)
        .map_err(refused)?;
    config.alpn_protocols = super::protocols();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Made {
        config,
        terms,
        oddity,
    })
}
