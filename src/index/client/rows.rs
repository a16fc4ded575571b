//! The client's rows, as they are stored.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::index::codec::{self, FixedWidth, Table, TableKey};
use crate::index::stored::RowKind;
use crate::prefix::HasherState;
use crate::types::{BootId, CommitNumber, FileId, Inode, Offset, Prefix, StableName, StoreId};

/// How a file stands at the client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClientState {
    /// Linked under its name, and shipped.
    Active,
    /// A new generation of an inode whose link still has the name `from`, or already its own:
    /// [`finish_rename`](super::ClientIndex::finish_rename) ends this.
    Renaming {
        /// Name of the generation before, which loses the link.
        from: StableName,
    },
    /// Closed: its copies get no more bytes.
    Superseded {
        /// The generation that follows it.
        by: FileId,
    },
    /// Its link is gone while bytes were unconfirmed.
    Lost,
    /// Delivered everywhere, and let go of.
    Released,
    /// Its link is about to be removed: if it is still there after a crash, nothing has happened.
    Releasing,
}

impl ClientState {
    /// Whether nothing of it is held here any more.
    pub const fn has_ended(&self) -> bool {
        matches!(self, Self::Superseded { .. } | Self::Lost | Self::Released)
    }

    /// The state in one word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Renaming { .. } => "renaming",
            Self::Superseded { .. } => "superseded",
            Self::Lost => "lost",
            Self::Released => "released",
            Self::Releasing => "releasing",
        }
    }
}

/// What tells, of a file that no link holds, that its content may have changed. Nanoseconds since
/// 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Times {
    /// Last change of the content.
    pub mtime: i64,
    /// Last change of the inode.
    pub ctime: i64,
}

/// One generation of one inode.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientFile {
    /// Its inode.
    pub inode: Inode,
    /// 1 for the first life of the inode, then counting.
    pub generation: u32,
    /// The name under which it is linked and delivered, for ever.
    pub name: StableName,
    /// Path of the source when it was last seen.
    pub source: Vec<u8>,
    /// Name of the pattern that found it; empty when none has yet.
    pub pattern: String,
    /// When it was found.
    #[serde(with = "codec::time")]
    pub discovered: Timestamp,
    /// The last size that was recorded, in bytes.
    pub length: Offset,
    /// From before anything of it was read.
    pub times: Times,
    /// How it stands.
    pub state: ClientState,
}

/// A file to be taken into the catalogue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewFile {
    /// Its inode.
    pub inode: Inode,
    /// 1 for the first life of the inode.
    pub generation: u32,
    /// A free name, from [`free_name`](super::ClientIndex::free_name).
    pub name: StableName,
    /// Path of the source.
    pub source: Vec<u8>,
    /// Name of the pattern that found it; empty for none.
    pub pattern: String,
    /// When it was found.
    pub discovered: Timestamp,
    /// Its size, in bytes.
    pub length: Offset,
    /// From before anything of it is read.
    pub times: Times,
}

impl NewFile {
    pub(crate) fn into_row(self, state: ClientState) -> ClientFile {
        ClientFile {
            inode: self.inode,
            generation: self.generation,
            name: self.name,
            source: self.source,
            pattern: self.pattern,
            discovered: self.discovered,
            length: self.length,
            times: self.times,
            state,
        }
    }
}

/// Number of a destination.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DestinationId(pub u32);

impl fmt::Display for DestinationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a destination is served.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DestinationState {
    /// It is.
    Active,
    /// It gets no PUT until a person has looked.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// A destination and what is known of its server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Destination {
    /// The URL after substitution, with its final slash.
    pub url: String,
    /// The store that answered last.
    pub store: Option<StoreId>,
    /// The run of it that answered last.
    pub boot: Option<BootId>,
    /// The highest commit number in any answer of that run.
    pub number: CommitNumber,
    /// The number of the last heartbeat answer after which nothing was left to look at.
    pub swept: CommitNumber,
    /// Whether an answer ever carried `Shaftlog-Store`.
    pub verified: bool,
    /// Whether it is served.
    pub state: DestinationState,
    /// Whether all files there have to be looked at again.
    pub sweep_pending: bool,
    /// Files from this one on were discovered while it was configured.
    pub since: FileId,
}

/// What a truncated or rewritten file betrays itself by, see
/// [`SEAM_HEAD`](crate::limits::SEAM_HEAD) and [`SEAM_TAIL`](crate::limits::SEAM_TAIL).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seam {
    /// BLAKE3 of the first min(C, 1 KiB).
    pub head: [u8; 32],
    /// BLAKE3 of the last min(C, 4 KiB) before C.
    pub tail: [u8; 32],
}

/// How a file stands at a destination.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ProgressState {
    /// Bytes wait to be sent.
    Pending,
    /// All that was there is confirmed.
    Current,
    /// The server holds something else.
    Conflict,
    /// The server refuses this file.
    Error {
        /// What it said.
        text: String,
    },
    /// The operator there gave it up; it counts as delivered.
    Retired,
    /// The server lost it after this client had let go of it.
    Lost,
}

impl ProgressState {
    /// The state in one word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Current => "current",
            Self::Conflict => "conflict",
            Self::Error { .. } => "error",
            Self::Retired => "retired",
            Self::Lost => "lost",
        }
    }
}

/// What a destination has confirmed of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// C and H(C).
    pub confirmed: Prefix,
    /// The hasher at C.
    pub hasher: HasherState,
    /// The file's bytes around the ends of C.
    pub seam: Seam,
    /// When it was confirmed.
    #[serde(with = "codec::time")]
    pub confirmed_at: Timestamp,
    /// How it stands.
    pub state: ProgressState,
    /// Whether the server vouched for the hash, rather than only taking the bytes.
    pub verified: bool,
}

/// Bytes of a volatile range as they were first read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stretch {
    /// Where in the file.
    pub at: Offset,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Stretch {
    /// Where it ends.
    pub fn end(&self) -> Offset {
        self.at.plus(self.bytes.len() as u64).unwrap_or(Offset::MAX)
    }
}

/// How long a file that only our link holds has been quiet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// Seconds, by the monotonic clock of one run after the other.
    pub quiet: u64,
    /// The file's size all that time.
    pub size: Offset,
    /// Its times.
    pub times: Times,
    /// When this was written.
    #[serde(with = "codec::time")]
    pub at: Timestamp,
}

/// How far the scrub has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Scrubbed {
    /// The last file that was read; 0 before the first of a round.
    pub file: FileId,
    /// When the round began.
    #[serde(with = "codec::time")]
    pub began: Timestamp,
}

pub(crate) type ProgressKey = (DestinationId, FileId);

pub(crate) const FILES: Table<FileId, ClientFile> = Table::new("files");
pub(crate) const NAMES: Table<StableName, FileId> = Table::new("names");
pub(crate) const INODES: Table<Inode, FileId> = Table::new("inodes");
pub(crate) const DESTINATIONS: Table<DestinationId, Destination> = Table::new("destinations");
pub(crate) const PROGRESS: Table<ProgressKey, Progress> = Table::new("progress");
pub(crate) const VOLATILE: Table<FileId, Vec<Stretch>> = Table::new("volatile");
pub(crate) const HOLDS: Table<FileId, Hold> = Table::new("holds");
/// Beside the schema's row.
pub(crate) const SCRUBBED: Table<String, Scrubbed> = Table::new("meta");
pub(crate) const SCRUBBED_KEY: &str = "scrubbed";

/// All kinds of rows, one a table or a key.
pub(crate) const ROWS: [RowKind; 8] = [
    RowKind {
        table: FILES.name,
        key: None,
        rewrite: |key, value| FILES.rewrite(key, value),
    },
    RowKind {
        table: NAMES.name,
        key: None,
        rewrite: |key, value| NAMES.rewrite(key, value),
    },
    RowKind {
        table: INODES.name,
        key: None,
        rewrite: |key, value| INODES.rewrite(key, value),
    },
    RowKind {
        table: DESTINATIONS.name,
        key: None,
        rewrite: |key, value| DESTINATIONS.rewrite(key, value),
    },
    RowKind {
        table: PROGRESS.name,
        key: None,
        rewrite: |key, value| PROGRESS.rewrite(key, value),
    },
    RowKind {
        table: VOLATILE.name,
        key: None,
        rewrite: |key, value| VOLATILE.rewrite(key, value),
    },
    RowKind {
        table: HOLDS.name,
        key: None,
        rewrite: |key, value| HOLDS.rewrite(key, value),
    },
    RowKind {
        table: SCRUBBED.name,
        key: Some(SCRUBBED_KEY),
        rewrite: |key, value| SCRUBBED.rewrite(key, value),
    },
];

impl TableKey for DestinationId {
    fn encode(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self(u32::from_be_bytes(bytes.try_into().ok()?)))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl FixedWidth for DestinationId {
    const WIDTH: usize = 4;
}

impl TableKey for Inode {
    /// The number, then the birth time when there is one.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.number.encode();
        bytes.extend(self.born.iter().flat_map(|born| born.to_be_bytes()));
        bytes
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (number, born) = bytes.split_at_checked(8)?;
        Some(Self {
            number: u64::decode(number)?,
            born: match born {
                [] => None,
                born => Some(i64::from_be_bytes(born.try_into().ok()?)),
            },
        })
    }
    fn show(&self) -> String {
        match self.born {
            Some(born) => format!("{} (born {born})", self.number),
            None => self.number.to_string(),
        }
    }
}
