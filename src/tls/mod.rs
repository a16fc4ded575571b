//! TLS for both sides: certificates, keys, CAs and revocation lists read from their files, read
//! again when they change, and made into what rustls needs.
//!
//! * [`Acceptor`]: a server's side of a handshake, and who the client is by its certificate;
//!   [`Connector`]: a client's side.
//! * [`issue`]: a private CA and certificates for a first set-up.
//!
//! TLS 1.2 and 1.3 by aws-lc-rs; no early data, which could be replayed, and no resumption, by
//! which a certificate that was revoked meanwhile would not be looked at again. Files that change
//! for the worse leave what was read before in force, and people are told. A handshake knows no
//! more than one reading of all files, so a reload is never half of one; connections that are open
//! stay as they are.

mod accept;
mod certificate;
mod connect;
mod error;
mod files;
mod follow;
pub mod issue;
mod reload;

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};

pub use accept::{Accepted, Acceptor, NotAccepted};
pub use connect::Connector;
pub use error::{Flaw, TlsError};
pub use files::{Purpose, Term};
pub use follow::{Follow, follow};

/// What both sides speak.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// The only protocol inside: whoever wants another one is told so by the handshake (RFC 7301).
fn protocols() -> Vec<Vec<u8>> {
    vec![b"http/1.1".to_vec()]
}

/// Who does the cryptography.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
