//! The settings of a server: the keys of its file, checked once, with every default filled in.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::Regex;

use super::access::{self, Network, Rule};
use super::append_only;
use super::delivered::{self, Delivered};
use super::error::Problem;
use super::fields::Fields;
use super::keys;
use super::quota::{self, Quota};
use super::scrub::{self, Scrub};
use super::tls::{self, ClientAuth, ServerTls};
use super::yaml::Node;
use crate::limits;
use crate::types::Offset;

/// Settings of a server.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Directory of the delivered files, absolute.
    pub datadir: PathBuf,
    /// What the path of a request must match, in the percent-encoded form in which it came, with
    /// its leading slash; `None` lets every valid path pass.
    pub validate_regex: Option<Regex>,
    /// File for messages, absolute; without it they go to standard output.
    pub logfile: Option<PathBuf>,
    /// Port to listen on; 0 lets the system choose one.
    pub listen_port: u16,
    /// Address to listen on.
    pub bind_address: IpAddr,
    /// How long a connection may lie idle between two requests.
    pub idle_timeout: Duration,
    /// Time between two status lines.
    pub status_interval: Duration,
    /// Free bytes of the disk below which no append is taken.
    pub min_free: u64,
    /// How it reads its files again.
    pub scrub: Scrub,
    /// Bytes that are kept in quarantine.
    pub quarantine_size: u64,
    /// How long a copy is kept there.
    pub quarantine_keep: Duration,
    /// What becomes of an unconditional append to a path that was once written conditionally.
    pub unconditional: Unconditional,
    /// Certificates; without, it speaks plain HTTP.
    pub tls: Option<ServerTls>,
    /// What clients may do by their certificates; empty without client certificates.
    pub authorize: Vec<Rule>,
    /// From where clients without certificates may come; `None` lets them come from anywhere.
    pub allow: Option<Vec<Network>>,
    /// How much clients may ask of it.
    pub limits: Limits,
    /// What each client may fill, unless `authorize` says otherwise.
    pub quota: Quota,
    /// How delivered files are made.
    pub delivered: Delivered,
    /// How long a delivered file has to be quiet before it becomes append-only; `None` for never.
    pub append_only: Option<Duration>,
}

/// How much clients may ask of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, as far as the descriptors go that files do not need.
    pub connections: usize,
    /// Connections of one address (for IPv6, of one /64 network); `None` keeps a share of all for
    /// the others.
    pub connections_per_peer: Option<usize>,
    /// Requests about files at once.
    pub requests: usize,
    /// Longest file.
    pub file_size: Offset,
}

/// Whether an append without a condition may follow conditional ones on the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unconditional {
    /// It is taken, as from an original client.
    Allow,
    /// It is answered 428.
    Refuse,
}

pub(super) fn read(text: &str, node: &Node) -> Result<ServerSettings, Problem> {
    let fields = Fields::of(text, Vec::new(), node, keys::SERVER, "a server")?;
    let port = fields.integer("listen_port", 0, u16::MAX.into())?;
    let choices = [
        ("allow", Unconditional::Allow),
        ("refuse", Unconditional::Refuse),
    ];
    let tls = tls::server(&fields)?;
    let (authorize, allow) = access(text, &fields, tls.as_ref())?;
    let scrub = Scrub {
        rate: limits::SERVER_SCRUB_RATE,
        period: Some(limits::SERVER_SCRUB_PERIOD),
    };
    let quarantine = fields.mapping("quarantine", keys::QUARANTINE, "a quarantine")?;
    let size = |of: &Option<Fields<'_>>, key| of.as_ref().map_or(Ok(None), |of| of.size(key));
    let period = |of: &Option<Fields<'_>>, key| of.as_ref().map_or(Ok(None), |of| of.duration(key));
    Ok(ServerSettings {
        scrub: scrub::read(&fields, scrub)?,
        quarantine_size: size(&quarantine, "size")?.unwrap_or(limits::QUARANTINE_SIZE),
        quarantine_keep: period(&quarantine, "keep")?.unwrap_or(limits::QUARANTINE_KEEP),
        tls,
        authorize,
        allow,
        limits: limits(&fields)?,
        quota: quota::read(&fields)?,
        delivered: delivered::read(&fields)?,
        append_only: append_only::read(&fields)?,
        datadir: fields.path("datadir")?.unwrap_or_default(),
        validate_regex: validate_regex(&fields)?,
        logfile: fields.path("logfile")?,
        listen_port: port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(limits::LISTEN_PORT),
        bind_address: fields
            .address("bind_address")?
            .unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        idle_timeout: fields
            .duration("idle_timeout")?
            .unwrap_or(limits::IDLE_TIMEOUT),
        status_interval: fields
            .duration("status_interval")?
            .unwrap_or(limits::STATUS_INTERVAL),
        min_free: fields.size("min_free")?.unwrap_or(limits::MIN_FREE),
        unconditional: fields
            .choice("unconditional", &choices)?
            .unwrap_or(Unconditional::Refuse),
    })
}

fn limits(fields: &Fields<'_>) -> Result<Limits, Problem> {
    let mut limits = Limits {
        connections: limits::SERVER_CONNECTIONS,
        connections_per_peer: None,
        requests: limits::SERVER_REQUESTS,
        file_size: Offset::MAX,
    };
    let Some(fields) = fields.mapping("limits", keys::LIMITS, "a server's `limits`")? else {
        return Ok(limits);
    };
    let count = |key| {
        let count = fields.integer(key, 1, 1_000_000)?;
        Ok::<_, Problem>(count.and_then(|count| usize::try_from(count).ok()))
    };
    limits.connections = count("connections")?.unwrap_or(limits.connections);
    limits.connections_per_peer = count("connections_per_peer")?;
    limits.requests = count("requests")?.unwrap_or(limits.requests);
    if let Some(bytes) = fields.size("file_size")? {
        let size = Offset::new(bytes).filter(|size| *size > Offset::ZERO);
        let problem = || fields.problem("file_size", "expected a size that a file can have");
        limits.file_size = size.ok_or_else(problem)?;
    }
    Ok(limits)
}

/// Reads `authorize` and `allow`; refuses what would let nobody in, and what would be of no use.
fn access(
    text: &str,
    fields: &Fields<'_>,
    tls: Option<&ServerTls>,
) -> Result<(Vec<Rule>, Option<Vec<Network>>), Problem> {
    let authorize = access::authorize(text, fields)?;
    let allow = access::allow(fields)?;
    let clients = tls.map_or(&ClientAuth::None, |tls| &tls.clients);
    match clients {
        ClientAuth::None if !authorize.is_empty() => {
            let words = "without `tls` and its `client_ca` no client has an identity";
            Err(fields
                .problem("authorize", words)
                .hint("`allow` is for clients without certificates"))
        }
        ClientAuth::Required(_) if authorize.is_empty() => {
            let words = "every client needs a certificate, but no `authorize` gives it a path";
            Err(fields
                .problem("tls", words)
                .hint("add `authorize: [{identity: \"*\", paths: [\"/{identity}/\"]}]`"))
        }
        ClientAuth::Required(_) if allow.is_some() => {
            let words = "`allow` is for clients without certificates, and every client needs one";
            Err(fields.problem("allow", words).hint("leave it out"))
        }
        _ => Ok((authorize, allow)),
    }
}

fn validate_regex(fields: &Fields<'_>) -> Result<Option<Regex>, Problem> {
    let Some(source) = fields.text("validate_regex")? else {
        return Ok(None);
    };
    super::regex(source)
        .map(Some)
        .map_err(|refusal| fields.refused("validate_regex", refusal))
}
