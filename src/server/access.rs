//! Who speaks on a connection, and what it may do there. Pure.

use std::fmt;
use std::net::IpAddr;

use super::request::Refusal;
use crate::config::ServerSettings;
use crate::config::access::{Network, Rule};
use crate::types::{Identity, NoIdentity, WirePath};

/// Who speaks on a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Peer {
    /// The program that this server is a part of, under the name that it gives itself.
    Own(String),
    /// Whoever has this address.
    Address(IpAddr),
    /// Whoever has the key of a certificate with this identity.
    Certified(Identity),
    /// Whoever has the key of a certificate that says nothing of use.
    Unidentified(IpAddr, NoIdentity),
}

/// The name under which it is recorded as a writer.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(name) => f.write_str(name),
            Self::Address(address) | Self::Unidentified(address, _) => address.fmt(f),
            Self::Certified(identity) => identity.fmt(f),
        }
    }
}

/// What the operator lets clients do.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// What identities may do; empty lets them do everything.
    authorize: Vec<Rule>,
    /// Addresses from which clients without certificates may come; `None` stands for all.
    allow: Option<Vec<Network>>,
}

impl From<&ServerSettings> for Access {
    fn from(settings: &ServerSettings) -> Self {
        Self {
            authorize: settings.authorize.clone(),
            allow: settings.allow.clone(),
        }
    }
}

impl Access {
    /// Refuses what is not `peer`'s: a request for `path`, or a heartbeat when that is `None`.
    pub(super) fn judge(&self, peer: &Peer, path: Option<&WirePath>) -> Result<(), Refusal> {
        match peer {
            Peer::Own(_) => Ok(()),
            Peer::Address(address) => match &self.allow {
                Some(networks) if !networks.iter().any(|it| it.contains(*address)) => Err(
                    Refusal::forbidden(format!("{address} may not deliver here")),
                ),
                _ => Ok(()),
            },
            Peer::Certified(identity) => match path {
                Some(path) if !self.gives(identity, path) => {
                    Err(Refusal::forbidden(format!("{path} is not {identity}'s")))
                }
                _ => Ok(()),
            },
            Peer::Unidentified(_, why) => Err(Refusal::forbidden(why.to_string())),
        }
    }

    fn gives(&self, identity: &Identity, path: &WirePath) -> bool {
        self.authorize.is_empty()
            || self
                .authorize
                .iter()
                .any(|rule| rule.covers(identity, path))
    }
}
