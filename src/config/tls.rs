//! What a configuration says of TLS: which files, and who has to show a certificate.

use std::path::PathBuf;

use rustls::pki_types::ServerName;

use super::error::Problem;
use super::fields::Fields;
use super::keys;

/// A certificate chain and its private key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertifiedKey {
    /// The certificate, and behind it those that lead to the CA's.
    pub cert: PathBuf,
    /// Its key, which nobody but its owner may be able to read.
    pub key: PathBuf,
}

/// `tls` of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Who the server is.
    pub own: CertifiedKey,
    /// Who the clients are.
    pub clients: ClientAuth,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked for one.
    None,
    /// Who shows one is held to it.
    Optional(ClientCa),
    /// Nobody comes in without.
    Required(ClientCa),
}

impl ClientAuth {
    /// By what certificates are judged, if they are asked for.
    pub fn ca(&self) -> Option<&ClientCa> {
        match self {
            Self::None => None,
            Self::Optional(ca) | Self::Required(ca) => Some(ca),
        }
    }
}

/// By what clients' certificates are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCa {
    /// The CAs that are believed.
    pub ca: PathBuf,
    /// Their lists of revoked certificates.
    pub crl: Option<PathBuf>,
}

/// `tls` of a destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DestinationTls {
    /// The CAs that are believed; without, the platform's.
    pub ca: Option<PathBuf>,
    /// Who the client is, for servers that ask.
    pub own: Option<CertifiedKey>,
    /// The name that the server's certificate must have.
    pub server_name: ServerName<'static>,
}

#[derive(Clone, Copy)]
enum Auth {
    None,
    Optional,
    Required,
}

/// Reads `tls` of a server, if it is there.
pub(super) fn server(fields: &Fields<'_>) -> Result<Option<ServerTls>, Problem> {
    let Some(tls) = fields.mapping("tls", keys::SERVER_TLS, "a server's `tls`")? else {
        return Ok(None);
    };
    let choices = [
        ("none", Auth::None),
        ("optional", Auth::Optional),
        ("required", Auth::Required),
    ];
    let auth = tls.choice("client_auth", &choices)?;
    let crl = tls.path("crl")?;
    let clients = match (tls.path("client_ca")?, auth) {
        (Some(ca), None | Some(Auth::Required)) => ClientAuth::Required(ClientCa { ca, crl }),
        (Some(ca), Some(Auth::Optional)) => ClientAuth::Optional(ClientCa { ca, crl }),
        (Some(_), Some(Auth::None)) => {
            let words = "`client_auth: none` asks nobody for a certificate of this CA";
            return Err(tls
                .problem("client_ca", words)
                .hint("leave it out, or write optional or required"));
        }
        (None, Some(Auth::Optional | Auth::Required)) => {
            let words = "`client_auth` needs `client_ca`";
            return Err(tls
                .problem("client_auth", words)
                .hint("name the file of the CA whose certificates are believed"));
        }
        (None, None | Some(Auth::None)) if crl.is_some() => {
            let words = "`crl` needs `client_ca`";
            return Err(tls
                .problem("crl", words)
                .hint("name the file of the CA that revokes"));
        }
        (None, None | Some(Auth::None)) => ClientAuth::None,
    };
    Ok(Some(ServerTls {
        own: CertifiedKey {
            cert: tls.path("cert")?.unwrap_or_default(),
            key: tls.path("key")?.unwrap_or_default(),
        },
        clients,
    }))
}

/// Reads `tls` of a destination whose URL names the server `host`; all of it has a default.
pub(super) fn destination(
    fields: &Fields<'_>,
    host: ServerName<'static>,
) -> Result<DestinationTls, Problem> {
    let Some(tls) = fields.mapping("tls", keys::DESTINATION_TLS, "a destination's `tls`")? else {
        return Ok(DestinationTls {
            ca: None,
            own: None,
            server_name: host,
        });
    };
    let own = match (tls.path("cert")?, tls.path("key")?) {
        (Some(cert), Some(key)) => Some(CertifiedKey { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            return Err(tls
                .problem("cert", "`cert` needs `key`")
                .hint("name the file of its private key"));
        }
        (None, Some(_)) => {
            return Err(tls
                .problem("key", "`key` needs `cert`")
                .hint("name the file of its certificate"));
        }
    };
    Ok(DestinationTls {
        ca: tls.path("ca")?,
        own,
        server_name: server_name(&tls)?.unwrap_or(host),
    })
}

fn server_name(tls: &Fields<'_>) -> Result<Option<ServerName<'static>>, Problem> {
    let Some(text) = tls.text("server_name")? else {
        return Ok(None);
    };
    ServerName::try_from(text.to_owned())
        .map(Some)
        .map_err(|_| {
            let words = format!(
                "expected a host name or address, found \"{}\"",
                text.escape_debug()
            );
            tls.problem("server_name", words)
                .hint("write the name that the server's certificate has")
        })
}
