//! Where files are delivered: a URL, taken apart once, its substitutions filled in.

use std::net::Ipv6Addr;
use std::path::Path;
use std::{fmt, io};

use rustls::pki_types::ServerName;

use super::client::Environment;
use super::tls::DestinationTls;
use crate::types::{StableName, WirePath, percent_encode};

/// A place that takes files. Two destinations are the same place exactly when they are shown the
/// same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// How its server is made sure of; `None` is plain HTTP.
    tls: Option<Box<DestinationTls>>,
    host: String,
    port: u16,
    /// Percent-encoded, with a slash at both ends.
    base: String,
    /// What people know it as, when that is not its URL.
    known_as: Option<Box<str>>,
}

impl Destination {
    /// Takes `url` apart (RFC 3986), after the substitutions were filled in. A missing final slash
    /// is added; host and path are brought into their normal form.
    pub fn parse(url: &str) -> Result<Self, BadUrl> {
        let (scheme, rest) = url.split_once("://").ok_or(BadUrl::NoScheme)?;
        let is_secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(BadUrl::NoScheme),
        };
        if url.contains(['?', '#']) {
            return Err(BadUrl::Query);
        }
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        if authority.contains('@') {
            return Err(BadUrl::Userinfo);
        }
        let (host, port) = split_authority(authority)?;
        let mut destination = Self {
            tls: None,
            host,
            port: port.unwrap_or(if is_secure { HTTPS_PORT } else { HTTP_PORT }),
            base: normal_base(path)?,
            known_as: None,
        };
        if is_secure {
            destination.tls = Some(Box::new(DestinationTls {
                ca: None,
                own: None,
                server_name: destination.server_name()?,
            }));
        }
        Ok(destination)
    }

    /// The same, known to people by another name than its URL, which says nothing to them.
    pub fn known_as(self, name: &str) -> Self {
        Self {
            known_as: Some(name.into()),
            ..self
        }
    }

    /// What people know it as.
    pub fn name(&self) -> String {
        match &self.known_as {
            Some(name) => name.to_string(),
            None => self.to_string(),
        }
    }

    /// The host as certificates name it.
    fn server_name(&self) -> Result<ServerName<'static>, BadUrl> {
        ServerName::try_from(self.host().to_owned()).map_err(|_| BadUrl::Host)
    }

    /// The destination of a URL as it is written, with `{hostname}` and `{machine}` filled in.
    pub fn from_template(
        template: &str,
        datadir: &Path,
        environment: &Environment,
    ) -> Result<Self, BadTemplate> {
        let url = substitute(template, |name| match name {
            "hostname" => Ok(Some(environment.hostname.clone())),
            "machine" => (environment.machine_id)(datadir)
                .map(Some)
                .map_err(BadTemplate::MachineId),
            _ => Ok(None),
        })?;
        Ok(Self::parse(&url)?)
    }

    /// How its server is made sure of; `None` for plain HTTP.
    pub fn tls(&self) -> Option<&DestinationTls> {
        self.tls.as_deref()
    }

    /// The same, its server being made sure of by what `read` makes of the name in the URL; plain
    /// HTTP stays plain.
    pub(super) fn secured<E>(
        mut self,
        read: impl FnOnce(ServerName<'static>) -> Result<DestinationTls, E>,
    ) -> Result<Self, E> {
        if let Some(tls) = self.tls.take() {
            self.tls = Some(Box::new(read(tls.server_name)?));
        }
        Ok(self)
    }

    /// Host name or address to connect to; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(&self.host)
    }

    /// Port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What a request's Host header says (RFC 9110 section 7.2): no port when it is the scheme's.
    pub fn authority(&self) -> String {
        if self.port == self.usual_port() {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn usual_port(&self) -> u16 {
        if self.tls.is_some() {
            HTTPS_PORT
        } else {
            HTTP_PORT
        }
    }

    /// The URL's path, percent-encoded, with a final slash: the heartbeat's request target.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The request target of a file.
    pub fn target(&self, name: &StableName) -> String {
        format!("{}{}", self.base, name.encode())
    }

    /// True when nothing sent there leaves this machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.base)
    }
}

/// The ports that URLs do not name (RFC 9110 section 4.2).
const HTTP_PORT: u16 = 80;
/// See [`HTTP_PORT`].
const HTTPS_PORT: u16 = 443;

/// Host and port, the port being `None` when it is the scheme's.
fn split_authority(authority: &str) -> Result<(String, Option<u16>), BadUrl> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(BadUrl::Host)?;
        let address: Ipv6Addr = address.parse().map_err(|_| BadUrl::Host)?;
        (format!("[{address}]"), port)
    } else {
        let (host, port) = match authority.find(':') {
            Some(colon) => authority.split_at(colon),
            None => (authority, ""),
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || !host.bytes().all(allowed) {
            return Err(BadUrl::Host);
        }
        (host.to_ascii_lowercase(), port)
    };
    match port {
        "" | ":" => Ok((host, None)),
        _ => {
            let digits = port.strip_prefix(':').ok_or(BadUrl::Host)?;
            let decimal =
                digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
            match digits.parse() {
                Ok(port) if decimal => Ok((host, Some(port))),
                _ => Err(BadUrl::Port),
            }
        }
    }
}

fn normal_base(path: &str) -> Result<String, BadUrl> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok("/".to_owned());
    }
    let mut base = WirePath::decode(path)?.encode();
    base.push('/');
    Ok(base)
}

/// Why a URL is no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Neither http nor https.
    #[error("expected a URL that begins with https:// or http://")]
    NoScheme,
    /// `user:password@`.
    #[error("the URL holds a user name or password, which would lie readable in logs")]
    Userinfo,
    /// `?` or `#`.
    #[error("the URL holds `?` or `#`: expected a path only")]
    Query,
    /// No host, or characters that none has.
    #[error("the URL has no valid host name or address")]
    Host,
    /// Beyond 65535, 0, or no decimal number.
    #[error("the URL's port is not a number from 1 to 65535")]
    Port,
    /// Its path could not be served.
    #[error("the URL's path does not do: {0}")]
    Path(#[from] crate::types::BadPath),
    /// `{something}`.
    #[error("unknown substitution `{{{0}}}`")]
    Substitution(String),
}

/// Why a URL with substitutions is no destination.
#[derive(Debug, thiserror::Error)]
pub enum BadTemplate {
    /// It is no URL of ours.
    #[error(transparent)]
    Url(#[from] BadUrl),
    /// What `{machine}` stands for is not to be had.
    #[error("cannot fill in {{machine}}: {0}")]
    MachineId(#[source] io::Error),
}

/// Fills in `{hostname}` and `{machine}`, percent-encoded, so that no value can reach beyond its
/// path segment. `value` says what stands for a name, `None` for one that is not known.
fn substitute<E: From<BadUrl>>(
    template: &str,
    mut value: impl FnMut(&str) -> Result<Option<String>, E>,
) -> Result<String, E> {
    let mut url = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        url.push_str(before);
        let (name, after) = after
            .split_once('}')
            .ok_or_else(|| BadUrl::Substitution(after.to_owned()))?;
        let value = value(name)?.ok_or_else(|| BadUrl::Substitution(name.to_owned()))?;
        url.push_str(&percent_encode(value.as_bytes(), b""));
        rest = after;
    }
    url.push_str(rest);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::BadPath;

    #[test]
    fn urls_have_one_normal_form() {
        for (url, shown) in [
            (
                "http://Log1.Example.net:10655/h",
                "http://log1.example.net:10655/h/",
            ),
            ("HTTP://a", "http://a/"),
            ("http://a:80/", "http://a/"),
            ("http://a:/x/", "http://a/x/"),
            ("http://a:443/", "http://a:443/"),
            ("HTTPS://A:443", "https://a/"),
            ("https://a:80/x", "https://a:80/x/"),
            ("https://[::1]/", "https://[::1]/"),
            ("http://[::0:1]:1/x/", "http://[::1]:1/x/"),
            ("http://a/%7Ex/%e4/", "http://a/~x/%E4/"),
            ("http://a/x+y:z/", "http://a/x%2By%3Az/"),
        ] {
            let destination = Destination::parse(url).unwrap();
            assert_eq!(destination.to_string(), shown);
            assert_eq!(Destination::parse(shown).unwrap(), destination);
        }
    }

    #[test]
    fn what_is_no_destination() {
        for (url, problem) in [
            ("log1:10655/", BadUrl::NoScheme),
            ("ftp://a/", BadUrl::NoScheme),
            ("https://1.2.3/", BadUrl::Host),
            ("http://u:p@a/", BadUrl::Userinfo),
            ("http://a/?x", BadUrl::Query),
            ("http://a/#x", BadUrl::Query),
            ("http:///x", BadUrl::Host),
            ("http://a b/", BadUrl::Host),
            ("http://[::1/", BadUrl::Host),
            ("http://[::1]x/", BadUrl::Host),
            ("http://a:70000/", BadUrl::Port),
            ("http://a:0/", BadUrl::Port),
            ("http://a:010655/", BadUrl::Port),
            ("http://a:+80/", BadUrl::Port),
            ("http://a//x/", BadUrl::Path(BadPath::EmptySegment)),
            ("http://a/../x/", BadUrl::Path(BadPath::DotSegment)),
            ("http://a/x y/", BadUrl::Path(BadPath::Encoding)),
        ] {
            assert_eq!(Destination::parse(url), Err(problem), "{url}");
        }
    }

    #[test]
    fn substitutions_stay_in_their_segment() {
        let fill = |template: &str| {
            substitute::<BadUrl>(template, |name| {
                Ok((name == "hostname").then(|| "a/b%".to_owned()))
            })
        };
        assert_eq!(fill("http://x/{hostname}/").unwrap(), "http://x/a%2Fb%25/");
        assert_eq!(fill("{host}"), Err(BadUrl::Substitution("host".to_owned())));
        assert_eq!(
            fill("{hostname"),
            Err(BadUrl::Substitution("hostname".to_owned()))
        );
    }

    #[test]
    fn names_are_put_behind_the_base() {
        let destination = Destination::parse("http://[::1]:8/a/").unwrap();
        let name = StableName::parse("b c/d").unwrap();
        assert_eq!(destination.target(&name), "/a/b%20c/d");
        assert_eq!(destination.host(), "::1");
    }

    #[test]
    fn loopback_is_told_from_the_way_out_however_it_is_written() {
        for (host, expected) in [
            ("[::1]", true),
            ("127.9.9.9", true),
            ("localhost", true),
            ("[::ffff:127.0.0.1]", true),
            ("[::ffff:192.0.2.1]", false),
            ("192.0.2.1", false),
            ("localhost.example", false),
        ] {
            let destination = Destination::parse(&format!("http://{host}/")).unwrap();
            assert_eq!(destination.is_loopback(), expected, "{host}");
        }
    }
}
