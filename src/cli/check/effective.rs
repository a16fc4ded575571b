//! Settings as a configuration that says everything: what is in force, in the words of the file.

use std::path::Path;
use std::time::Duration;

use regex::bytes::Regex;
use serde::Serialize;

use crate::config::access::{self, Network};
use crate::config::tls::{self, ClientAuth};
use crate::config::{self, ClientSettings, NEVER, PatternSettings, ServerSettings, Unconditional};
use crate::types::Offset;
use crate::types::words::span;

/// A client's settings as YAML.
pub(super) fn client(settings: &ClientSettings) -> Result<String, serde_yaml::Error> {
    let client = Client {
        datadir: &settings.datadir,
        logfile: settings.logfile.as_deref(),
        scan_interval: span(settings.scan_interval),
        status_interval: span(settings.status_interval),
        periodic_trigger_interval: span(settings.periodic_trigger_interval),
        connections: settings.connections,
        release_after: period_or_never(settings.upkeep.release_after),
        release_unverified: settings.upkeep.release_unverified,
        scrub: Scrub::of(settings.upkeep.scrub),
        warn_free: size(settings.upkeep.warn_free),
        scan_paths: settings.patterns.iter().map(ScanPath::of).collect(),
        destinations: settings
            .destinations
            .iter()
            .map(|destination| Destination {
                url: destination.to_string(),
                tls: destination.tls().map(DestinationTls::of),
            })
            .collect(),
    };
    Ok(format!(
        "# A client's settings in force.\n{}",
        serde_yaml::to_string(&client)?
    ))
}

/// A server's settings as YAML.
pub(super) fn server(settings: &ServerSettings) -> Result<String, serde_yaml::Error> {
    let server = Server {
        datadir: &settings.datadir,
        validate_regex: settings.validate_regex.as_ref().map(Regex::as_str),
        logfile: settings.logfile.as_deref(),
        listen_port: settings.listen_port,
        bind_address: settings.bind_address.to_string(),
        idle_timeout: span(settings.idle_timeout),
        status_interval: span(settings.status_interval),
        min_free: size(settings.min_free),
        unconditional: match settings.unconditional {
            Unconditional::Allow => "allow",
            Unconditional::Refuse => "refuse",
        },
        scrub: Scrub::of(settings.scrub),
        quarantine: Quarantine {
            size: size(settings.quarantine_size),
            keep: span(settings.quarantine_keep),
        },
        tls: settings.tls.as_ref().map(ServerTls::of),
        authorize: settings.authorize.iter().map(Rule::of).collect(),
        allow: settings
            .allow
            .as_ref()
            .map(|allow| allow.iter().map(Network::to_string).collect()),
        limits: Limits::of(settings.limits),
        quota: Quota::of(settings.quota),
        files: Files::of(&settings.delivered),
        append_only: AppendOnly::of(settings.append_only),
    };
    Ok(format!(
        "# A server's settings in force.\n{}",
        serde_yaml::to_string(&server)?
    ))
}

#[derive(Serialize)]
struct Client<'a> {
    datadir: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    logfile: Option<&'a Path>,
    scan_interval: String,
    status_interval: String,
    periodic_trigger_interval: String,
    connections: usize,
    release_after: String,
    release_unverified: bool,
    scrub: Scrub,
    warn_free: String,
    scan_paths: Vec<ScanPath<'a>>,
    destinations: Vec<Destination<'a>>,
}

#[derive(Serialize)]
struct ScanPath<'a> {
    name: &'a str,
    pattern: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    exclude: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    owner: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rename: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    regex_from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    regex_to: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volatile: Vec<Volatile>,
}

#[derive(Serialize)]
struct Volatile {
    offset: u64,
    length: u64,
}

impl<'a> ScanPath<'a> {
    fn of(pattern: &'a PatternSettings) -> Self {
        let naming = &pattern.naming;
        let (rename, regex_to) = match naming.regex_from() {
            None => (Some(naming.source()), None),
            Some(_) => (None, Some(naming.source())),
        };
        let volatile = pattern.volatile.iter().map(|range| Volatile {
            offset: range.start().bytes(),
            length: range.len(),
        });
        Self {
            name: &pattern.name,
            pattern: pattern.glob.as_str(),
            exclude: pattern.exclude.sources(),
            owner: pattern.owners.written().collect(),
            rename,
            regex_from: naming.regex_from(),
            regex_to,
            volatile: volatile.collect(),
        }
    }
}

#[derive(Serialize)]
struct Destination<'a> {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<DestinationTls<'a>>,
}

#[derive(Serialize)]
struct DestinationTls<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cert: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a Path>,
    server_name: String,
}

impl<'a> DestinationTls<'a> {
    fn of(tls: &'a tls::DestinationTls) -> Self {
        Self {
            ca: tls.ca.as_deref(),
            cert: tls.own.as_ref().map(|own| own.cert.as_path()),
            key: tls.own.as_ref().map(|own| own.key.as_path()),
            server_name: tls.server_name.to_str().into_owned(),
        }
    }
}

#[derive(Serialize)]
struct Server<'a> {
    datadir: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    validate_regex: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logfile: Option<&'a Path>,
    listen_port: u16,
    bind_address: String,
    idle_timeout: String,
    status_interval: String,
    min_free: String,
    unconditional: &'static str,
    scrub: Scrub,
    quarantine: Quarantine,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<ServerTls<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authorize: Vec<Rule<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<Vec<String>>,
    limits: Limits,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<Quota>,
    files: Files<'a>,
    append_only: AppendOnly,
}

#[derive(Serialize)]
#[serde(untagged)]
enum AppendOnly {
    Never(bool),
    Quiet { after: String },
}

impl AppendOnly {
    fn of(after: Option<Duration>) -> Self {
        after.map_or(Self::Never(false), |after| Self::Quiet {
            after: span(after),
        })
    }
}

#[derive(Serialize)]
struct Files<'a> {
    mode: String,
    directory_mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
}

impl<'a> Files<'a> {
    fn of(delivered: &'a config::Delivered) -> Self {
        Self {
            mode: format!("{:04o}", delivered.mode),
            directory_mode: format!("{:04o}", delivered.directory_mode),
            owner: delivered.owner.as_deref(),
            group: delivered.group.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct Quota {
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

impl Quota {
    fn of(quota: config::Quota) -> Option<Self> {
        quota.is_bound().then(|| Self {
            files: quota.files,
            bytes: quota.bytes.map(size),
        })
    }
}

#[derive(Serialize)]
struct Limits {
    connections: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections_per_peer: Option<usize>,
    requests: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_size: Option<String>,
}

impl Limits {
    fn of(limits: config::Limits) -> Self {
        Self {
            connections: limits.connections,
            connections_per_peer: limits.connections_per_peer,
            requests: limits.requests,
            file_size: (limits.file_size < Offset::MAX).then(|| size(limits.file_size.bytes())),
        }
    }
}

#[derive(Serialize)]
struct ServerTls<'a> {
    cert: &'a Path,
    key: &'a Path,
    client_auth: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ca: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crl: Option<&'a Path>,
}

impl<'a> ServerTls<'a> {
    fn of(tls: &'a tls::ServerTls) -> Self {
        let ca = tls.clients.ca();
        Self {
            cert: &tls.own.cert,
            key: &tls.own.key,
            client_auth: match tls.clients {
                ClientAuth::None => "none",
                ClientAuth::Optional(_) => "optional",
                ClientAuth::Required(_) => "required",
            },
            client_ca: ca.map(|ca| ca.ca.as_path()),
            crl: ca.and_then(|ca| ca.crl.as_deref()),
        }
    }
}

#[derive(Serialize)]
struct Rule<'a> {
    identity: &'a str,
    paths: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<Quota>,
}

impl<'a> Rule<'a> {
    fn of(rule: &'a access::Rule) -> Self {
        Self {
            identity: rule.identity(),
            paths: rule.paths().collect(),
            quota: Quota::of(rule.quota()),
        }
    }
}

#[derive(Serialize)]
struct Scrub {
    rate: String,
    period: String,
}

impl Scrub {
    fn of(scrub: config::Scrub) -> Self {
        Self {
            rate: size(scrub.rate),
            period: period_or_never(scrub.period),
        }
    }
}

#[derive(Serialize)]
struct Quarantine {
    size: String,
    keep: String,
}

fn period_or_never(length: Option<Duration>) -> String {
    length.map_or_else(|| NEVER.to_owned(), span)
}

/// Bytes in the largest unit that shows them exactly.
fn size(bytes: u64) -> String {
    let units = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    units
        .into_iter()
        .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit))
        .map_or_else(
            || bytes.to_string(),
            |(unit, name)| format!("{}{name}", bytes / unit),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse_client, parse_server};

    const FILE: &str = "x.yaml";

    fn environment() -> Environment {
        Environment {
            hostname: "h".to_owned(),
            machine_id: |_| Ok("m".to_owned()),
            user_id: |name| Ok((name == "app").then_some(7)),
        }
    }

    #[test]
    fn a_clients_settings_can_be_read_again() {
        let text = r#"
datadir: /srv/c
scan_interval: 1m 30s
connections: 7
release_after: never
release_unverified: true
scrub: {rate: 3MiB}
scan_paths:
- {name: "no", pattern: "/v/*", exclude: ["*.gz", "/v/#x"], owner: [app, 1000]}
- {name: b, pattern: '/v/\*"x', regex_from: '^/v/(\d+): ', regex_to: "$1 # {ino}"}
- {name: "1", pattern: /v/y, rename: "{name}", volatile: [{offset: 21, length: 1}]}
destinations:
- url: "http://{hostname}/{machine}"
- url: https://h/
- {url: "https://h:1/", tls: {ca: /ca, cert: /c, key: /k, server_name: "::1"}}
"#;
        let read = |text: &str| parse_client(Path::new(FILE), text.as_bytes(), &environment());
        let settings = read(text).unwrap();
        let printed = client(&settings).unwrap();
        let again = read(&printed).unwrap();
        assert_eq!(format!("{again:?}"), format!("{settings:?}"), "{printed}");
        for line in [
            "status_interval: 5m\n",
            "- app\n  - '1000'\n",
            "rename: '{name}.{mtime}'\n",
            "url: http://h/m/\n",
            "server_name: h\n",
        ] {
            assert!(printed.contains(line), "{line}: {printed}");
        }
    }

    #[test]
    fn a_servers_settings_can_be_read_again() {
        let text = r"
datadir: /srv/s
logfile: /srv/s.log
validate_regex: '^/[a-z]: \\'
bind_address: '::'
min_free: 1073741825
scrub: {rate: 5000, period: 3d}
quarantine: {size: 1GiB, keep: 1d 2h}
unconditional: allow
tls: {cert: /c, key: /k, client_ca: /ca, client_auth: optional, crl: /crl}
authorize: [{identity: '*.[a-c]', paths: ['/{identity}/%20', '/']}, {identity: x, paths: /x, quota: {bytes: 1TiB}}]
allow: [192.0.2.7, '2001:db8::/32']
limits: {connections: 100, connections_per_peer: 10, requests: 7, file_size: 1.5GiB}
quota: {files: 10000, bytes: 100GiB}
files: {mode: 0644, directory_mode: 0o755, owner: 12, group: adm}
append_only: {after: 90s}
";
        let read = |text: &str| parse_server(Path::new(FILE), text.as_bytes());
        let settings = read(text).unwrap();
        let printed = server(&settings).unwrap();
        let again = read(&printed).unwrap();
        assert_eq!(format!("{again:?}"), format!("{settings:?}"), "{printed}");
        let defaults = server(&read("datadir: /srv/s\n").unwrap()).unwrap();
        assert!(defaults.contains("min_free: 256MiB\n"), "{defaults}");
    }
}
