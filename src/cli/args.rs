//! The command line as it is written. What it means is decided by each subcommand.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;

use crate::index::EventKind;
use crate::index::inspect::Row;
use crate::limits;
use crate::sys::clock;
use crate::tls::issue::MOST_DAYS;
use crate::types::PrefixHash;
use crate::types::words::span;

/// Where the original's client looked for its configuration, and ours does.
pub(super) const CLIENT_CONFIG: &str = "/etc/shaftlog-client-config.yaml";
/// Where the original's server looked for its configuration, and ours does.
pub(super) const SERVER_CONFIG: &str = "/etc/shaftlog-server-config.yaml";

/// Delivers append-only log files, byte for byte, to one or more servers.
#[derive(Debug, Parser)]
#[command(
    name = "shaftlog",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 not everything delivered or evidence \
    missing, 4 diverged or conflict, 5 database or datadir locked by another process, 78 bad configuration."
)]
pub(super) struct Line {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Find log files and deliver every byte appended to them (daemon)
    Client(ClientArgs),
    /// Take deliveries over HTTP and append them durably (daemon)
    Server(ServerArgs),
    /// Deliver what is there now, and end when it is durably confirmed
    Sync(SyncArgs),
    /// Validate a configuration and print its effective settings, touching nothing
    Check(CheckArgs),
    /// Check files against the evidence, changing nothing
    Verify(VerifyArgs),
    /// Look at a database, check it or rebuild it
    #[command(subcommand)]
    Db(DbCommand),
    #[command(hide = true, disable_help_flag = true)]
    Status(Unbuilt),
    /// On a server: move a delivered file aside, so that it is delivered anew
    Quarantine(QuarantineArgs),
    /// On a server: delete old delivered files and keep their evidence
    Retire(RetireArgs),
    #[command(hide = true, disable_help_flag = true)]
    Doctor(Unbuilt),
    /// Make a private CA and certificates, for TLS between clients and servers
    #[command(subcommand)]
    Tls(TlsCommand),
    #[command(hide = true, disable_help_flag = true)]
    Completions(Unbuilt),
    #[command(hide = true, disable_help_flag = true)]
    Man(Unbuilt),
}

/// Flags of both daemons; the letters combine, as in `-dsf FILE`.
#[derive(Debug, Args)]
pub(super) struct DaemonFlags {
    /// Log debug messages too, on stdout: never in the logfile, which may itself be delivered
    #[arg(short, long)]
    pub(super) debug: bool,
    /// Log to stdout instead of the logfile
    #[arg(short, long)]
    pub(super) stdout: bool,
}

/// `shaftlog client`.
#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    /// The client's configuration
    #[arg(short = 'f', long, value_name = "FILE", default_value = CLIENT_CONFIG)]
    pub(super) config: PathBuf,
    #[command(flatten)]
    pub(super) flags: DaemonFlags,
}

/// `shaftlog server`.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// The server's configuration
    #[arg(short = 'f', long, value_name = "FILE", default_value = SERVER_CONFIG)]
    pub(super) config: PathBuf,
    #[command(flatten)]
    pub(super) flags: DaemonFlags,
}

/// `shaftlog sync`.
#[derive(Debug, Args)]
#[command(override_usage = "shaftlog sync -f CLIENT-CONFIG\n       \
        shaftlog sync --pattern GLOB... --to DIR\n       \
        shaftlog sync --pattern GLOB... --to URL --datadir DIR")]
pub(super) struct SyncArgs {
    /// Deliver what a client's configuration names
    #[arg(
        short = 'f',
        long,
        value_name = "FILE",
        required_unless_present = "pattern"
    )]
    pub(super) config: Option<PathBuf>,
    /// Deliver the files that a glob matches; quote it, so that the shell leaves it alone. One that
    /// matches no file, and never did, ends with exit code 3; when none does, nothing is made
    #[arg(
        long,
        value_name = "GLOB",
        num_args = 1..,
        conflicts_with = "config",
        requires = "to"
    )]
    pub(super) pattern: Vec<String>,
    /// A directory (delivered by a server in this process), or a server's URL
    #[arg(long, value_name = "DIR|URL", requires = "pattern")]
    pub(super) to: Option<OsString>,
    /// With a URL: where the client keeps its links and its database
    #[arg(long, value_name = "DIR", requires = "to")]
    pub(super) datadir: Option<PathBuf>,
    /// Give a destination up for this run when it makes no progress for so long
    #[arg(long, value_name = "TIME", value_parser = duration,
          default_value_t = Span(limits::PATIENCE))]
    pub(super) patience: Span,
    /// Exit 0 also when a destination cannot confirm what it holds
    #[arg(long)]
    pub(super) accept_unverified: bool,
    /// Log debug messages to stderr
    #[arg(short, long)]
    pub(super) debug: bool,
    #[arg(short, value_name = "BASE", hide = true)]
    pub(super) base: Option<OsString>,
}

/// `shaftlog quarantine`.
#[derive(Debug, Args)]
pub(super) struct QuarantineArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// Only the bytes from this one on: the torn end of a file
    #[arg(long, value_name = "N")]
    pub(super) from: Option<u64>,
    /// The path of the delivered file below the server's datadir, as `db inspect` shows it
    #[arg(value_name = "PATH")]
    pub(super) path: OsString,
}

/// `shaftlog retire`.
#[derive(Debug, Args)]
pub(super) struct RetireArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// Only files to which nothing was delivered for so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) older_than: Span,
    /// The paths as they are shown, as a glob with a leading slash in which `*` stops at the next one;
    /// quote it, so that the shell leaves it alone
    #[arg(value_name = "PATTERN")]
    pub(super) pattern: String,
}

/// `shaftlog check`.
#[derive(Debug, Args)]
#[command(override_usage = "shaftlog check -f FILE")]
pub(super) struct CheckArgs {
    /// The configuration, a client's or a server's
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(super) config: PathBuf,
}

/// `shaftlog db`.
#[derive(Debug, Subcommand)]
pub(super) enum DbCommand {
    /// Print the rows of either database, of a running daemon or at rest
    Inspect(InspectArgs),
    /// Make a lost database again from the files in its datadir
    Rebuild(RebuildArgs),
    /// Which lengths and hashes a delivered file had, when, and from whom
    History(HistoryArgs),
    /// What happened, oldest first
    Events(EventsArgs),
    /// Look at every row and compare it with the others and with the files
    Check(DbCheckArgs),
}

/// Which database: that of a configuration's datadir, or that of a directory.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The configuration whose datadir is meant [default: the default files that exist]
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "datadir")]
    pub(super) config: Option<PathBuf>,
    /// The datadir itself
    #[arg(long, value_name = "DIR")]
    pub(super) datadir: Option<PathBuf>,
}

/// A span of time that rows are from.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Times {
    /// Only what is not older: RFC 3339 (2026-11-25T19:30:00Z), a date, or 2h for 2 hours ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) since: Option<Timestamp>,
    /// Only what is not newer
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) until: Option<Timestamp>,
}

/// Which rows are shown.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Filters {
    /// Only what is in this state
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(Row::STATES))]
    pub(super) state: Option<String>,
    /// Only what is about a destination with this text in its URL
    #[arg(long, value_name = "URL")]
    pub(super) destination: Option<String>,
    #[command(flatten)]
    pub(super) times: Times,
    /// Only files whose path, stable name or source matches this glob
    #[arg(value_name = "PATTERN")]
    pub(super) pattern: Option<String>,
}

/// `shaftlog db inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// One JSON object a line
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) filters: Filters,
}

/// `shaftlog db history`.
#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// One JSON object a line
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) times: Times,
    /// The path of the delivered file below the server's datadir
    #[arg(value_name = "PATH")]
    pub(super) path: OsString,
}

impl HistoryArgs {
    /// The filters that it has.
    pub(super) fn filters(&self) -> Filters {
        Filters {
            times: self.times,
            ..Filters::default()
        }
    }
}

/// `shaftlog db events`.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// One JSON object a line
    #[arg(long)]
    pub(super) json: bool,
    /// Only events of this kind
    #[arg(long, value_name = "KIND",
          value_parser = PossibleValuesParser::new(EventKind::WORDS).try_map(event_kind))]
    pub(super) kind: Option<EventKind>,
    #[command(flatten)]
    pub(super) times: Times,
    /// Only files whose path or stable name matches this glob
    #[arg(value_name = "PATTERN")]
    pub(super) pattern: Option<String>,
}

impl EventsArgs {
    /// The filters that it has beside the kind.
    pub(super) fn filters(&self) -> Filters {
        Filters {
            times: self.times,
            pattern: self.pattern.clone(),
            ..Filters::default()
        }
    }
}

/// `shaftlog db check`.
#[derive(Debug, Args)]
pub(super) struct DbCheckArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// One JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

/// `shaftlog db rebuild`.
#[derive(Debug, Args)]
pub(super) struct RebuildArgs {
    #[command(flatten)]
    pub(super) target: Target,
}

/// `shaftlog verify`.
#[derive(Debug, Args)]
#[command(
    override_usage = "shaftlog verify [-f FILE | --datadir DIR] [--remote] [PATTERN]\n       \
        shaftlog verify --file FILE --length N --blake3 HASH"
)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// One JSON object a line, for every file
    #[arg(long)]
    pub(super) json: bool,
    /// List the files that are right, too
    #[arg(long)]
    pub(super) all: bool,
    /// On a client: ask each destination what it holds now, and name the first difference
    #[arg(long)]
    pub(super) remote: bool,
    /// Check this prefix of this file, without any database
    #[arg(
        long,
        value_name = "FILE",
        requires = "length",
        requires = "blake3",
        conflicts_with_all = ["config", "datadir", "remote", "pattern"]
    )]
    pub(super) file: Option<PathBuf>,
    /// Length of the prefix in bytes
    #[arg(long, value_name = "N", requires = "file")]
    pub(super) length: Option<u64>,
    /// Its hash, as `head -c N FILE | b3sum` prints it
    #[arg(long, value_name = "HASH", requires = "file")]
    pub(super) blake3: Option<PrefixHash>,
    /// Only files whose path, stable name or source matches this glob
    #[arg(value_name = "PATTERN")]
    pub(super) pattern: Option<String>,
}

/// `shaftlog tls`.
#[derive(Debug, Subcommand)]
pub(super) enum TlsCommand {
    /// Make a private CA
    Init(TlsInitArgs),
    /// Make a certificate for a host, by that CA, for its server as for its client
    Issue(TlsIssueArgs),
}

/// `shaftlog tls init`.
#[derive(Debug, Args)]
pub(super) struct TlsInitArgs {
    #[command(flatten)]
    pub(super) place: TlsPlace,
}

/// `shaftlog tls issue`.
#[derive(Debug, Args)]
pub(super) struct TlsIssueArgs {
    /// The host's DNS name, or for a server that is reached by one, its IP address
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// For how many days the certificate is good
    #[arg(long, value_name = "N", default_value_t = 730,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_DAYS)))]
    pub(super) days: u32,
    #[command(flatten)]
    pub(super) place: TlsPlace,
}

/// Where certificates lie.
#[derive(Debug, Args)]
pub(super) struct TlsPlace {
    /// The directory of the CA, its certificates and their keys
    #[arg(long, value_name = "DIR", default_value = "/etc/shaftlog-tls")]
    pub(super) dir: PathBuf,
}

/// Arguments of what this version does not have.
#[derive(Debug, Args)]
pub(super) struct Unbuilt {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

/// A length of time as people write it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span(pub(super) Duration);

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        span(self.0).fmt(f)
    }
}

fn duration(text: &str) -> Result<Span, String> {
    match humantime::parse_duration(text) {
        Ok(span) if span.is_zero() => Err("must be longer than nothing".into()),
        Ok(span) => Ok(Span(span)),
        Err(error) => Err(format!("{error}; write it like 2s, 5m or 1h")),
    }
}

/// A moment as people write it: a time, a day (its first moment, UTC), or how long ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    let day = || {
        let day: jiff::civil::Date = text.parse().ok()?;
        Some(day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    };
    let ago = || {
        let ago = humantime::parse_duration(text).ok()?;
        clock::now().checked_sub(ago).ok()
    };
    let time = text.parse().ok().or_else(day).or_else(ago);
    time.ok_or_else(|| "write it like 2026-11-25T19:30:00Z, 2026-11-25, or 2h (ago)".into())
}

fn event_kind(word: String) -> Result<EventKind, serde_json::Error> {
    serde_json::from_value(word.into())
}

/// The arguments with the subcommand put in that the program's name stands for: as
/// `shaftlog-client` and `shaftlog-server` it is that subcommand.
pub(super) fn with_name_as_subcommand(
    arguments: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments
        .first()
        .and_then(|name| Path::new(name).file_name());
    let subcommand = match name.and_then(OsStr::to_str) {
        Some("shaftlog-client") => "client",
        Some("shaftlog-server") => "server",
        _ => return arguments,
    };
    arguments.insert(1, subcommand.into());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = with_name_as_subcommand(line.split(' ').map(OsString::from));
        Line::try_parse_from(words).map(|line| line.command)
    }

    #[test]
    fn the_definition_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn the_originals_letters_combine() {
        for line in [
            "shaftlog server -dsf x.yaml",
            "/usr/sbin/shaftlog-server -dsf x.yaml",
            "shaftlog server --debug --stdout --config x.yaml",
        ] {
            let Ok(Command::Server(args)) = parse(line) else {
                panic!("{line}");
            };
            assert!(args.flags.debug && args.flags.stdout, "{line}");
            assert_eq!(args.config, Path::new("x.yaml"), "{line}");
        }
        let Ok(Command::Client(args)) = parse("shaftlog-client") else {
            panic!("no client");
        };
        assert_eq!(args.config, Path::new(CLIENT_CONFIG));
    }

    #[test]
    fn sync_takes_a_file_or_patterns() {
        assert!(parse("shaftlog sync -f x.yaml").is_ok());
        assert!(parse("shaftlog sync --pattern a b --pattern c --to d").is_ok());
        for line in [
            "shaftlog sync",
            "shaftlog sync --to d",
            "shaftlog sync --pattern a",
            "shaftlog sync -f x.yaml --pattern a --to d",
            "shaftlog sync -f x.yaml --patience 2",
            "shaftlog sync -f x.yaml --patience 0s",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
