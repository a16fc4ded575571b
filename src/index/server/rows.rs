//! The server's rows, as they are stored.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ledger::{OWNERS, USAGE};
use crate::index::codec::{self, FixedWidth, Table, TableKey};
use crate::index::stored::RowKind;
use crate::prefix::HasherState;
use crate::types::{
    BootId, CommitNumber, FileId, Inode, Offset, Prefix, PrefixHash, StoreId, WirePath,
};

/// How a path stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerState {
    /// What the row says was synced and hashed by us.
    Vouched,
    /// Made by `db rebuild`: nobody has confirmed it yet.
    Unproven,
    /// The file is shorter than it was; `high_water` is what it was.
    Regressed,
    /// The file's bytes differ from the row: takes nothing more.
    Diverged,
    /// Given up by the operator: counts as confirmed.
    Retired,
}

impl ServerState {
    /// The state in one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vouched => "vouched",
            Self::Unproven => "unproven",
            Self::Regressed => "regressed",
            Self::Diverged => "diverged",
            Self::Retired => "retired",
        }
    }

    /// Whether the path takes nothing more.
    pub const fn is_frozen(self) -> bool {
        matches!(self, Self::Diverged | Self::Retired)
    }
}

/// What `statx` said of the file after its last sync. Anything else later means that somebody
/// other than this server was at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Footprint {
    /// The inode.
    pub inode: Inode,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Change time in nanoseconds since 1970.
    pub ctime_ns: i64,
}

/// What the server knows of a path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerFile {
    /// Number of this life of the path, from [`ServerIndex::allocate`](super::ServerIndex::allocate).
    pub id: FileId,
    /// L and H(L): durable on disk and here.
    pub vouched: Prefix,
    /// The hasher at L.
    pub hasher: HasherState,
    /// The longest prefix ever vouched for, when that is more than `vouched`.
    pub high_water: Option<Prefix>,
    /// The file after its last sync.
    pub footprint: Footprint,
    /// Who wrote last: a client's identity or address.
    pub writer: String,
    /// How the path stands.
    pub state: ServerState,
    /// Whether a conditional append was ever made to it; then unconditional ones are refused.
    pub conditional: bool,
    /// Server time of the last change.
    #[serde(with = "codec::time")]
    pub updated: Timestamp,
}

/// A length that a path once had.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryRow {
    /// H(length).
    pub hash: PrefixHash,
    /// Server time of the commit.
    #[serde(with = "codec::time")]
    pub at: Timestamp,
    /// Who wrote.
    pub writer: String,
    /// Not in the ordinary course of things: never thinned.
    pub odd: bool,
}

/// What was moved aside, and why. The row stays when the copy is gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Quarantined {
    /// The path that it was at, as bytes below the datadir.
    pub path: Vec<u8>,
    /// The life of the path that ended so, if one did.
    pub id: Option<FileId>,
    /// Where in the file its first byte was.
    pub start: Offset,
    /// Behind its last byte.
    pub end: Offset,
    /// What the row vouched for then.
    pub recorded: Option<Prefix>,
    /// What the file had instead: as many bytes, or as many as there were.
    pub found: Option<Prefix>,
    /// The inode, when the file itself was moved.
    pub inode: Option<Inode>,
    /// When.
    #[serde(with = "codec::time")]
    pub at: Timestamp,
    /// There is no copy: it was removed, to stay within the operator's bounds, or there was no file.
    pub gone: bool,
}

/// How far the scrub is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScrubPosition {
    /// When the round began.
    #[serde(with = "codec::time")]
    pub began: Timestamp,
    /// The path, as bytes, up to which all files were read.
    pub after: Option<Vec<u8>>,
    /// In which file it is then, and where.
    pub part: Option<(FileId, HasherState)>,
    /// All files were read.
    pub has_ended: bool,
}

impl ScrubPosition {
    /// The beginning of a round.
    pub fn begin(now: Timestamp) -> Self {
        Self {
            began: now,
            after: None,
            part: None,
            has_ended: false,
        }
    }
}

/// One run of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BootRow {
    /// Its first commit, the one that recorded it.
    pub first: CommitNumber,
    /// When it started.
    #[serde(with = "codec::time")]
    pub at: Timestamp,
}

/// What grows with each commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Number of the newest commit.
    pub(crate) number: CommitNumber,
    /// The newest commit in which a file was found regressed or changed.
    pub(crate) suspected: CommitNumber,
    /// Number of the next new file.
    pub(crate) next_file: FileId,
}

/// The writer of rows that `db rebuild` made: nobody.
pub(crate) const REBUILT: &str = "db rebuild";

/// Key of a history row: file, then length.
pub(crate) type HistoryKey = (FileId, Offset);

pub(crate) const FILES: Table<WirePath, ServerFile> = Table::new("files");
pub(crate) const HISTORY: Table<HistoryKey, HistoryRow> = Table::new("history");
pub(crate) const BOOTS: Table<BootId, BootRow> = Table::new("boots");
pub(super) const STORE: Table<String, StoreId> = Table::new("meta");
pub(super) const STORE_KEY: &str = "store";
/// By the name of the copy.
pub(crate) const QUARANTINE: Table<String, Quarantined> = Table::new("quarantine");
pub(super) const SCRUB: Table<String, ScrubPosition> = Table::new("meta");
pub(super) const SCRUB_KEY: &str = "scrub";
/// The name of the copy that is due to be moved.
pub(super) const MOVING: Table<String, Option<String>> = Table::new("meta");
pub(super) const MOVING_KEY: &str = "moving";
pub(super) const COUNTERS: Table<String, Counters> = Table::new("meta");
pub(super) const COUNTERS_KEY: &str = "counters";

/// All kinds of rows, one a table or a key.
pub(crate) const ROWS: [RowKind; 10] = [
    RowKind {
        table: FILES.name,
        key: None,
        rewrite: |key, value| FILES.rewrite(key, value),
    },
    RowKind {
        table: HISTORY.name,
        key: None,
        rewrite: |key, value| HISTORY.rewrite(key, value),
    },
    RowKind {
        table: BOOTS.name,
        key: None,
        rewrite: |key, value| BOOTS.rewrite(key, value),
    },
    RowKind {
        table: QUARANTINE.name,
        key: None,
        rewrite: |key, value| QUARANTINE.rewrite(key, value),
    },
    RowKind {
        table: STORE.name,
        key: Some(STORE_KEY),
        rewrite: |key, value| STORE.rewrite(key, value),
    },
    RowKind {
        table: COUNTERS.name,
        key: Some(COUNTERS_KEY),
        rewrite: |key, value| COUNTERS.rewrite(key, value),
    },
    RowKind {
        table: SCRUB.name,
        key: Some(SCRUB_KEY),
        rewrite: |key, value| SCRUB.rewrite(key, value),
    },
    RowKind {
        table: MOVING.name,
        key: Some(MOVING_KEY),
        rewrite: |key, value| MOVING.rewrite(key, value),
    },
    RowKind {
        table: OWNERS.name,
        key: None,
        rewrite: |key, value| OWNERS.rewrite(key, value),
    },
    RowKind {
        table: USAGE.name,
        key: None,
        rewrite: |key, value| USAGE.rewrite(key, value),
    },
];

impl TableKey for BootId {
    fn encode(&self) -> Vec<u8> {
        self.0.to_vec()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl TableKey for Offset {
    fn encode(&self) -> Vec<u8> {
        self.bytes().encode()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        u64::decode(bytes).and_then(Self::new)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl FixedWidth for Offset {
    const WIDTH: usize = 8;
}
