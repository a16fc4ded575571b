//! Rows as they are shown: what each serialises to is the JSON object of
//! `shaftlog db inspect --json`, and its keys are stable.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::index::client::{
    self, ClientFile, Destination, DestinationState, Hold, Progress, Stretch,
};
use crate::index::codec;
use crate::index::event::{Event, EventKind};
use crate::index::schema::Kind;
use crate::index::server::{BootRow, HistoryRow, Quarantined, ServerFile, ServerState, Usage};
use crate::types::{
    BootId, CommitNumber, FileId, Offset, Prefix, PrefixHash, Shown, StableName, WirePath,
};

/// A row as it is shown; serialises to one JSON object with the key `table`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "table", rename_all = "snake_case")]
pub enum Row {
    /// A client's file.
    #[serde(rename = "files")]
    ClientFile(ClientFileRow),
    /// What a destination has confirmed.
    Progress(ProgressRow),
    /// A destination of a client.
    Destinations(DestinationRow),
    /// Bytes of a volatile range as they were first read.
    Volatile(VolatileRow),
    /// A file that only our link holds.
    Holds(HoldRow),
    /// A server's file.
    #[serde(rename = "files")]
    ServerFile(ServerFileRow),
    /// A length that a server's path has or had.
    History(HistoryRowShown),
    /// A run of a server.
    Boots(BootRowShown),
    /// What is charged to a server's client.
    Usage(UsageRow),
    /// How long a certificate or list is good that the configuration names.
    Certificates(CertificateRow),
    /// What a server moved aside.
    Quarantine(QuarantineRow),
    /// An event of either.
    Events(EventRow),
}

/// A file of a client's catalogue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ClientFileRow {
    /// Stable name, shown.
    pub name: String,
    /// Path of the source, shown.
    pub source: String,
    /// Pattern that found it.
    pub pattern: String,
    /// Inode number.
    pub inode: u64,
    /// Generation of that inode, from 1.
    pub generation: u32,
    /// The last size recorded, in bytes.
    pub length: Offset,
    /// `active`, `renaming`, `superseded`, `lost`, `releasing` or `released`.
    pub state: &'static str,
    /// When it was found.
    pub discovered: Timestamp,
    /// Number of the file.
    pub id: FileId,
    /// The stable name itself, for matching.
    #[serde(skip)]
    pub stable_name: StableName,
}

/// What a destination has confirmed of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ProgressRow {
    /// The destination's URL, or the directory of `sync --to DIR`.
    pub destination: String,
    /// Stable name of the file, shown.
    pub name: String,
    /// Confirmed length in bytes.
    pub confirmed: Offset,
    /// Hash of that prefix.
    #[serde(serialize_with = "hex")]
    pub blake3: PrefixHash,
    /// Whether the server vouched for the hash.
    pub verified: bool,
    /// `pending`, `current`, `conflict`, `error`, `retired` or `lost`.
    pub state: &'static str,
    /// When it was confirmed.
    pub confirmed_at: Timestamp,
    /// What the server said, in state `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The stable name itself, for matching.
    #[serde(skip)]
    pub stable_name: StableName,
}

/// A destination.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DestinationRow {
    /// Its URL, or the directory of `sync --to DIR`.
    pub destination: String,
    /// Whether it has proved to be a server of ours.
    pub verified: bool,
    /// `active` or `stopped`.
    pub state: &'static str,
    /// Why it was stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Identity of its store.
    pub store: Option<String>,
    /// Highest commit number it has answered with.
    pub number: CommitNumber,
    /// Whether all files there are to be looked at again.
    pub sweep_pending: bool,
}

/// Bytes of a client's file that are delivered as they were first read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct VolatileRow {
    /// Stable name of the file, shown.
    pub name: String,
    /// Where in the file.
    pub offset: Offset,
    /// How many bytes.
    pub length: u64,
    /// The bytes, in hex.
    pub bytes: String,
    /// The stable name itself, for matching.
    #[serde(skip)]
    pub stable_name: StableName,
}

/// How long a file that only our link holds has been quiet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct HoldRow {
    /// Stable name of the file, shown.
    pub name: String,
    /// Seconds without a change, of times in which the client ran.
    pub quiet: u64,
    /// Its size all that time, in bytes.
    pub size: Offset,
    /// When that was written down.
    pub at: Timestamp,
    /// The stable name itself, for matching.
    #[serde(skip)]
    pub stable_name: StableName,
}

/// A file of a server's index.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ServerFileRow {
    /// Path with its leading slash, shown.
    pub path: String,
    /// Vouched length in bytes.
    pub length: Offset,
    /// Hash of that prefix.
    #[serde(serialize_with = "hex")]
    pub blake3: PrefixHash,
    /// How the path stands.
    pub state: ServerState,
    /// The longest prefix ever vouched for, when that is more.
    pub high_water: Option<PrefixShown>,
    /// Who wrote last.
    pub writer: String,
    /// When that was.
    pub updated: Timestamp,
    /// The path itself, for matching.
    #[serde(skip)]
    pub wire_path: WirePath,
}

/// A length with its hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct PrefixShown {
    /// Its length in bytes.
    pub length: Offset,
    /// Its hash.
    #[serde(serialize_with = "hex")]
    pub blake3: PrefixHash,
}

/// A length that a server's path has or had.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct HistoryRowShown {
    /// Path with its leading slash, shown.
    pub path: String,
    /// Number of the life of the path: a file that was set aside is followed by another life.
    pub life: FileId,
    /// Length in bytes.
    pub length: Offset,
    /// Hash of that prefix.
    #[serde(serialize_with = "hex")]
    pub blake3: PrefixHash,
    /// Server time at which it was vouched for.
    pub at: Timestamp,
    /// Who wrote.
    pub writer: String,
    /// Whether it is the present length.
    pub present: bool,
    /// The path itself, for matching.
    #[serde(skip)]
    pub wire_path: WirePath,
}

/// A run of a server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct BootRowShown {
    /// Its identity.
    pub boot: String,
    /// Its first commit.
    pub first: CommitNumber,
    /// When it started.
    pub at: Timestamp,
}

/// What is charged to a server's client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct UsageRow {
    /// Its identity or address; of an IPv6 address the network.
    pub client: String,
    /// Number of its files.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// How long a certificate, the last of a CA's, or a revocation list is good.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CertificateRow {
    /// URL of the client's destination that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The key of `tls` that names the file.
    pub key: &'static str,
    /// The file.
    pub file: String,
    /// Whose certificate it is, or who issued the list.
    pub subject: String,
    /// From when it is good.
    pub not_before: Timestamp,
    /// Until when; for a list, when the next one is due.
    pub not_after: Timestamp,
    /// `good`, `expires_soon`, `expired` or `not_yet_valid`.
    pub state: &'static str,
}

/// What a server moved aside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct QuarantineRow {
    /// Name of the copy below `.shaftlog/quarantine`.
    pub copy: String,
    /// Path that it was at, with its leading slash, shown.
    pub path: String,
    /// The life of the path that ended so; `None` when only bytes that nobody had vouched for were
    /// moved.
    pub life: Option<FileId>,
    /// Where in the file its first byte was.
    pub start: Offset,
    /// Behind its last byte.
    pub end: Offset,
    /// What the server vouched for then.
    pub recorded: Option<PrefixShown>,
    /// What the file had instead: as many bytes, or as many as there were.
    pub found: Option<PrefixShown>,
    /// `kept`, or `gone`: removed, to stay within the bounds of the quarantine, or never there.
    pub state: &'static str,
    /// When it was moved.
    pub at: Timestamp,
    /// The path itself with its leading slash, for matching.
    #[serde(skip)]
    pub subject: Vec<u8>,
}

/// An event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EventRow {
    /// Its number.
    pub sequence: u64,
    /// When it happened first.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// Path of the server's file it is about, with its leading slash, shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Stable name of the client's file it is about, shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The rest, in words.
    pub detail: String,
    /// How often, within an hour of the first.
    pub times: u32,
    /// Path with its leading slash, or stable name, for matching.
    #[serde(skip)]
    pub subject: Option<Vec<u8>>,
}

impl Row {
    /// The words for how something stands, in any table that has such a word.
    pub const STATES: [&'static str; 22] = [
        // A client's files.
        "active",
        "renaming",
        "superseded",
        "lost",
        "releasing",
        "released",
        // What a destination has of them, where `lost` may stand too.
        "pending",
        "current",
        "conflict",
        "error",
        // A destination, or `active`.
        "stopped",
        // A server's files.
        "vouched",
        "unproven",
        "regressed",
        "diverged",
        "retired",
        // Copies in quarantine.
        "kept",
        "gone",
        // Certificates and lists.
        "good",
        "expires_soon",
        "expired",
        "not_yet_valid",
    ];

    /// The bytes that a pattern is matched with: path (leading slash) or stable name of the file
    /// that the row is about; `None` for rows about no file.
    pub fn subject(&self) -> Option<Vec<u8>> {
        let of_path = |path: &WirePath| [b"/", path.as_bytes()].concat();
        match self {
            Self::ClientFile(row) => Some(row.stable_name.as_bytes().to_vec()),
            Self::Progress(row) => Some(row.stable_name.as_bytes().to_vec()),
            Self::Volatile(row) => Some(row.stable_name.as_bytes().to_vec()),
            Self::Holds(row) => Some(row.stable_name.as_bytes().to_vec()),
            Self::ServerFile(row) => Some(of_path(&row.wire_path)),
            Self::History(row) => Some(of_path(&row.wire_path)),
            Self::Quarantine(row) => Some(row.subject.clone()),
            Self::Events(row) => row.subject.clone(),
            Self::Destinations(_) | Self::Boots(_) | Self::Usage(_) | Self::Certificates(_) => None,
        }
    }

    /// The word for how it stands, of rows that have one.
    pub fn state(&self) -> Option<&'static str> {
        let state = match self {
            Self::ClientFile(row) => Some(row.state),
            Self::Progress(row) => Some(row.state),
            Self::Destinations(row) => Some(row.state),
            Self::ServerFile(row) => Some(row.state.as_str()),
            Self::Quarantine(row) => Some(row.state),
            Self::Certificates(row) => Some(row.state),
            Self::Volatile(_)
            | Self::Holds(_)
            | Self::History(_)
            | Self::Boots(_)
            | Self::Usage(_)
            | Self::Events(_) => None,
        };
        debug_assert!(state.is_none_or(|state| Self::STATES.contains(&state)));
        state
    }

    /// The URL of the destination that it is about.
    pub fn destination(&self) -> Option<&str> {
        match self {
            Self::Progress(row) => Some(&row.destination),
            Self::Destinations(row) => Some(&row.destination),
            Self::Certificates(row) => row.destination.as_deref(),
            _ => None,
        }
    }

    /// When what it says came about.
    pub fn at(&self) -> Option<Timestamp> {
        match self {
            Self::ClientFile(row) => Some(row.discovered),
            Self::Progress(row) => Some(row.confirmed_at),
            Self::Holds(row) => Some(row.at),
            Self::ServerFile(row) => Some(row.updated),
            Self::History(row) => Some(row.at),
            Self::Boots(row) => Some(row.at),
            Self::Quarantine(row) => Some(row.at),
            Self::Events(row) => Some(row.at),
            Self::Destinations(_) | Self::Volatile(_) | Self::Usage(_) | Self::Certificates(_) => {
                None
            }
        }
    }
}

fn hex<S: Serializer>(hash: &PrefixHash, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(hash)
}

fn shown(bytes: &[u8]) -> String {
    Shown(bytes).to_string()
}

pub(super) fn client_file(id: FileId, file: ClientFile) -> Row {
    Row::ClientFile(ClientFileRow {
        name: file.name.to_string(),
        source: shown(&file.source),
        pattern: file.pattern,
        inode: file.inode.number,
        generation: file.generation,
        length: file.length,
        state: file.state.as_str(),
        discovered: file.discovered,
        id,
        stable_name: file.name,
    })
}

pub(super) fn progress_row(destination: String, row: Progress, name: StableName) -> Row {
    Row::Progress(ProgressRow {
        destination,
        name: name.to_string(),
        confirmed: row.confirmed.length,
        blake3: row.confirmed.hash,
        verified: row.verified,
        state: row.state.as_str(),
        confirmed_at: row.confirmed_at,
        error: match row.state {
            client::ProgressState::Error { text } => Some(text),
            _ => None,
        },
        stable_name: name,
    })
}

pub(super) fn destination_row(destination: String, row: Destination) -> Row {
    let (state, reason) = match row.state {
        DestinationState::Active => ("active", None),
        DestinationState::Stopped { reason } => ("stopped", Some(reason)),
    };
    Row::Destinations(DestinationRow {
        destination,
        verified: row.verified,
        state,
        reason,
        store: row.store.map(|store| store.to_string()),
        number: row.number,
        sweep_pending: row.sweep_pending,
    })
}

pub(super) fn volatile_row(stretch: &Stretch, name: &StableName) -> Row {
    Row::Volatile(VolatileRow {
        name: name.to_string(),
        offset: stretch.at,
        length: stretch.bytes.len() as u64,
        bytes: codec::hex(&stretch.bytes),
        stable_name: name.clone(),
    })
}

pub(super) fn hold_row(hold: &Hold, name: StableName) -> Row {
    Row::Holds(HoldRow {
        name: name.to_string(),
        quiet: hold.quiet,
        size: hold.size,
        at: hold.at,
        stable_name: name,
    })
}

pub(super) fn quarantine_row(copy: String, row: &Quarantined) -> Row {
    let subject = [b"/", &row.path[..]].concat();
    Row::Quarantine(QuarantineRow {
        copy,
        path: shown(&subject),
        life: row.id,
        start: row.start,
        end: row.end,
        recorded: row.recorded.map(prefix),
        found: row.found.map(prefix),
        state: if row.gone { "gone" } else { "kept" },
        at: row.at,
        subject,
    })
}

fn prefix(Prefix { length, hash }: Prefix) -> PrefixShown {
    PrefixShown {
        length,
        blake3: hash,
    }
}

pub(super) fn server_file(path: WirePath, file: &ServerFile) -> Row {
    Row::ServerFile(ServerFileRow {
        path: path.to_string(),
        length: file.vouched.length,
        blake3: file.vouched.hash,
        state: file.state,
        high_water: file.high_water.map(prefix),
        writer: file.writer.clone(),
        updated: file.updated,
        wire_path: path,
    })
}

pub(super) fn history_row(
    path: &WirePath,
    life: FileId,
    length: Offset,
    row: HistoryRow,
) -> HistoryRowShown {
    HistoryRowShown {
        path: path.to_string(),
        life,
        length,
        blake3: row.hash,
        at: row.at,
        writer: row.writer,
        present: false,
        wire_path: path.clone(),
    }
}

pub(super) fn usage_row(client: String, usage: Usage) -> Row {
    Row::Usage(UsageRow {
        client,
        files: usage.files,
        bytes: usage.bytes,
    })
}

pub(super) fn boot_row(boot: BootId, row: BootRow) -> Row {
    Row::Boots(BootRowShown {
        boot: boot.to_string(),
        first: row.first,
        at: row.at,
    })
}

pub(super) fn event_row(kind: Kind, sequence: u64, event: Event) -> Row {
    let subject = match kind {
        _ if event.subject.is_empty() => None,
        Kind::Client => Some(event.subject),
        Kind::Server => Some([b"/", &event.subject[..]].concat()),
    };
    let text = subject.as_deref().map(shown);
    let (path, name) = match kind {
        Kind::Client => (None, text),
        Kind::Server => (text, None),
    };
    Row::Events(EventRow {
        sequence,
        at: event.at,
        kind: event.kind,
        path,
        name,
        detail: event.detail,
        times: event.times,
        subject,
    })
}
