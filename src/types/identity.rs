//! Who a client is, by its certificate.

use std::fmt;
use std::net::IpAddr;

/// Longest DNS name, as RFC 1035 section 3.1 counts it without the final dot.
const DNS_BYTES: usize = 253;
/// Longest URI taken for an identity (SPIFFE allows 2048 bytes).
const URI_BYTES: usize = 2048;

/// The one DNS or URI name of a client's certificate, in its normal form: a DNS name in lower
/// case, a URI as it is. Holds visible ASCII only, so that it can be shown and stored.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Identity {
    text: String,
    is_dns: bool,
}

impl Identity {
    /// The identity that a DNS name stands for. Wildcards and what looks like an address are none.
    pub fn dns(name: &str) -> Result<Self, NoIdentity> {
        let text = name.to_ascii_lowercase();
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(letter);
        if text.contains('*') {
            return Err(NoIdentity::Wildcard);
        }
        if text.len() > DNS_BYTES || !text.split('.').all(label) || text.parse::<IpAddr>().is_ok() {
            return Err(NoIdentity::Malformed);
        }
        Ok(Self { text, is_dns: true })
    }

    /// The identity that an absolute URI stands for.
    pub fn uri(uri: &str) -> Result<Self, NoIdentity> {
        let has_scheme = uri.split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && !rest.is_empty()
        });
        let visible = uri.bytes().all(|byte| byte.is_ascii_graphic());
        if has_scheme && visible && uri.len() <= URI_BYTES {
            Ok(Self {
                text: uri.to_owned(),
                is_dns: false,
            })
        } else {
            Err(NoIdentity::Malformed)
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is a DNS name, in which case does not count.
    pub fn is_dns(&self) -> bool {
        self.is_dns
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a certificate gives no identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoIdentity {
    /// It has none, whatever its common name says.
    #[error("the certificate has no DNS or URI name (its common name does not count)")]
    None,
    /// Nobody could tell which of them speaks.
    #[error("the certificate has {0} DNS and URI names instead of one")]
    Several(usize),
    /// It stands for many.
    #[error("the certificate's name is a wildcard")]
    Wildcard,
    /// It is no name that a host or service can have.
    #[error("the certificate's name is no valid DNS name or URI")]
    Malformed,
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Certificate,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_normal_form() {
        assert_eq!(
            Identity::dns("Web1.Example.NET").unwrap().as_str(),
            "web1.example.net"
        );
        let uri = Identity::uri("spiffe://Example/Web").unwrap();
        assert_eq!(
            (uri.as_str(), uri.is_dns()),
            ("spiffe://Example/Web", false)
        );
    }

    #[test]
    fn what_is_no_identity() {
        for name in [
            "", ".", "a.", ".a", "a..b", "a b", "a/b", "a\n", "ä", "..", "10.0.0.1",
        ] {
            assert_eq!(Identity::dns(name), Err(NoIdentity::Malformed), "{name:?}");
        }
        let long = "a.".repeat(126) + "aa";
        assert_eq!(Identity::dns(&long), Err(NoIdentity::Malformed));
        assert_eq!(Identity::dns("*.example.net"), Err(NoIdentity::Wildcard));
        for uri in ["", "web", ":x", "1:x", "a:", "a:b c", "a:\u{1b}"] {
            assert_eq!(Identity::uri(uri), Err(NoIdentity::Malformed), "{uri:?}");
        }
    }
}
