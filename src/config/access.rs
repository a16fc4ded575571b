//! Who may write where: the rules of `authorize` and the addresses of `allow`, as they match. What
//! follows from a match, the server says.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use glob::{MatchOptions, Pattern};

use super::error::{Problem, Step};
use super::fields::Fields;
use super::keys;
use super::quota::{self, Quota};
use super::yaml::Node;
use crate::types::{Identity, WirePath};

/// What stands for the identity in a path.
const IDENTITY: &str = "{identity}";

/// An entry of `authorize`: the identities that a pattern matches, and the paths that are theirs.
#[derive(Debug, Clone)]
pub struct Rule {
    pattern: Pattern,
    paths: Vec<PathPrefix>,
    quota: Quota,
}

impl Rule {
    /// Whether it gives `path` to `identity`.
    pub fn covers(&self, identity: &Identity, path: &WirePath) -> bool {
        self.is_about(identity)
            && self
                .paths
                .iter()
                .any(|prefix| prefix.covers(identity, path))
    }

    /// Whether `identity` is one of those that it is about.
    pub fn is_about(&self, identity: &Identity) -> bool {
        let options = MatchOptions {
            case_sensitive: !identity.is_dns(),
            require_literal_separator: false,
            require_literal_leading_dot: false,
        };
        self.pattern.matches_with(identity.as_str(), options)
    }

    /// What each of them may fill.
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// The pattern of its identities.
    pub fn identity(&self) -> &str {
        self.pattern.as_str()
    }

    /// Its prefixes as they were written.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(|prefix| prefix.source.as_str())
    }
}

/// The first segments of paths.
#[derive(Debug, Clone)]
struct PathPrefix {
    source: String,
    segments: Vec<Vec<u8>>,
}

impl PathPrefix {
    /// Reads `/a/{identity}/`, percent-encoded as in a URL; the final slash means nothing.
    fn parse(source: &str) -> Result<Self, String> {
        let path = source.strip_suffix('/').unwrap_or(source);
        let segments = if path.is_empty() && !source.is_empty() {
            Vec::new()
        } else {
            let path = WirePath::decode(path).map_err(|bad| bad.to_string())?;
            let segments = path.as_bytes().split(|&byte| byte == b'/');
            segments.map(<[u8]>::to_vec).collect()
        };
        for segment in &segments {
            let rest = String::from_utf8_lossy(segment).replace(IDENTITY, "");
            if rest.contains(['{', '}']) {
                return Err(format!("unknown substitution in `{source}`"));
            }
        }
        Ok(Self {
            source: source.to_owned(),
            segments,
        })
    }

    /// Whether the path's first segments are these, `{identity}` filled in. A name with a slash in
    /// it, as URIs have, is no segment and fills in to what no path has.
    fn covers(&self, identity: &Identity, path: &WirePath) -> bool {
        let mut theirs = path.as_bytes().split(|&byte| byte == b'/');
        self.segments.iter().all(|segment| {
            theirs
                .next()
                .is_some_and(|theirs| fills_in_to(segment, identity.as_str().as_bytes(), theirs))
        })
    }
}

/// Whether `segment` is what `template` becomes with the identity filled in.
fn fills_in_to(mut template: &[u8], identity: &[u8], mut segment: &[u8]) -> bool {
    let mark = IDENTITY.as_bytes();
    while let Some(at) = template.windows(mark.len()).position(|part| part == mark) {
        let Some(rest) = segment
            .strip_prefix(&template[..at])
            .and_then(|rest| rest.strip_prefix(identity))
        else {
            return false;
        };
        (template, segment) = (&template[at + mark.len()..], rest);
    }
    template == segment
}

/// An address, or all those with the same first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether `address` is in it; an IPv4 address that came over IPv6 is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => same_bits(
                u128::from(ours.to_bits()) << 96,
                u128::from(theirs.to_bits()) << 96,
                self.bits,
            ),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                same_bits(ours.to_bits(), theirs.to_bits(), self.bits)
            }
            _ => false,
        }
    }
}

fn same_bits(one: u128, other: u128, bits: u8) -> bool {
    (one ^ other).leading_zeros() >= u32::from(bits)
}

impl FromStr for Network {
    type Err = ();

    /// Reads `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`. Bits behind the prefix must be 0: who
    /// writes them means something else.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let (most, value) = match address {
            IpAddr::V4(address) => (32, u128::from(address.to_bits()) << 96),
            IpAddr::V6(address) => (128, address.to_bits()),
        };
        let bits = match bits {
            None => most,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| ())?
            }
            Some(_) => return Err(()),
        };
        let beyond = value.checked_shl(u32::from(bits)).unwrap_or(0);
        if bits > most || beyond != 0 {
            return Err(());
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Reads `authorize`; none when it is missing.
pub(super) fn authorize(text: &str, fields: &Fields<'_>) -> Result<Vec<Rule>, Problem> {
    let rules = fields.list("authorize")?;
    rules
        .into_iter()
        .map(|(steps, node)| rule(text, steps, node))
        .collect()
}

fn rule(text: &str, steps: Vec<Step>, node: &Node) -> Result<Rule, Problem> {
    let whose = "an entry of `authorize`";
    let fields = Fields::of(text, steps, node, keys::AUTHORIZE, whose)?;
    let identity = fields.text("identity")?.unwrap_or_default();
    let pattern = Pattern::new(identity).map_err(|error| {
        let words = format!("not a pattern: {}", error.msg);
        fields.problem("identity", words)
    })?;
    let paths = fields.texts("paths")?;
    if paths.is_empty() {
        return Err(fields.problem("paths", "the list is empty"));
    }
    let paths = paths
        .into_iter()
        .map(PathPrefix::parse)
        .collect::<Result<_, _>>()
        .map_err(|words| {
            fields
                .problem("paths", words)
                .hint("as in /{identity}/ or /shared/audit/")
        })?;
    Ok(Rule {
        pattern,
        paths,
        quota: quota::read(&fields)?,
    })
}

/// Reads `allow`; `None` lets every address in.
pub(super) fn allow(fields: &Fields<'_>) -> Result<Option<Vec<Network>>, Problem> {
    let networks = fields.texts("allow")?;
    if networks.is_empty() {
        return if fields.has("allow") {
            Err(fields.problem("allow", "the list is empty"))
        } else {
            Ok(None)
        };
    }
    let read = |text: &str| {
        text.parse().map_err(|()| {
            let words = format!(
                "expected an IP address or a network, found \"{}\"",
                text.escape_debug()
            );
            fields
                .problem("allow", words)
                .hint("as in 192.0.2.7, 192.0.2.0/24 or \"2001:db8::/32\"")
        })
    };
    networks
        .into_iter()
        .map(read)
        .collect::<Result<_, _>>()
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(prefix: &str, identity: &str, path: &str) -> bool {
        let rule = Rule {
            pattern: Pattern::new("*").unwrap(),
            quota: Quota::default(),
            paths: vec![PathPrefix::parse(prefix).unwrap()],
        };
        let identity = Identity::dns(identity)
            .or_else(|_| Identity::uri(identity))
            .unwrap();
        rule.covers(&identity, &WirePath::decode(path).unwrap())
    }

    #[test]
    fn prefixes_are_whole_segments() {
        for (prefix, path, expected) in [
            ("/{identity}/", "/a/x", true),
            ("/{identity}", "/a/x/y", true),
            ("/{identity}", "/%61/x", true),
            ("/{identity}", "/a", true),
            ("/{identity}", "/ab/x", false),
            ("/{identity}", "/A/x", false),
            ("/{identity}", "/b/x", false),
            ("/{identity}", "/b/a/x", false),
            ("/{identity}", "/%2561/x", false),
            ("/logs/{identity}.d/", "/logs/a.d/x", true),
            ("/logs/{identity}.d/", "/logs/a.dx/x", false),
            ("/logs/{identity}.d/", "/logs", false),
            ("/{identity}{identity}/", "/aa/x", true),
            ("/%20/", "/%20/x", true),
            ("/", "/b/x", true),
        ] {
            assert_eq!(covers(prefix, "a", path), expected, "{prefix} {path}");
        }
        assert!(!covers("/{identity}", "spiffe://x/a", "/spiffe:/x"));
        assert!(covers("/{identity}", "urn:x:a", "/urn:x:a/log"));
    }

    #[test]
    fn what_is_no_prefix() {
        for prefix in [
            "",
            "a",
            "{identity}",
            "/..",
            "/a//b",
            "//",
            "/{host}",
            "/{identity",
            "/%zz",
        ] {
            assert!(PathPrefix::parse(prefix).is_err(), "{prefix}");
        }
    }

    #[test]
    fn patterns_of_names_know_no_case_and_those_of_uris_do() {
        let rule = |pattern: &str| Rule {
            pattern: Pattern::new(pattern).unwrap(),
            quota: Quota::default(),
            paths: vec![PathPrefix::parse("/").unwrap()],
        };
        let path = WirePath::decode("/x").unwrap();
        let dns = Identity::dns("web1.Example.net").unwrap();
        let uri = Identity::uri("spiffe://x/Web").unwrap();
        assert!(rule("WEB?.*").covers(&dns, &path));
        assert!(!rule("web?.example").covers(&dns, &path));
        assert!(rule("spiffe://x/*").covers(&uri, &path));
        assert!(!rule("spiffe://x/web").covers(&uri, &path));
    }

    #[test]
    fn networks() {
        for (network, address, expected) in [
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.0/24", "::ffff:192.0.2.1", true),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::/0", "::1", true),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(
                network.contains(address.parse().unwrap()),
                expected,
                "{network} {address}"
            );
        }
        for text in [
            "",
            "x",
            "192.0.2.1/24",
            "192.0.2.0/33",
            "::1/64",
            "::/129",
            "1.2.3.4/+8",
            "1.2.3",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
