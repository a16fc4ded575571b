//! What can go wrong with an index: always the file, then what is wrong with it.

use std::io;
use std::path::{Path, PathBuf};

use crate::types::{FileId, Shown, StableName};

/// A failure of one database.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", Shown(path.as_os_str().as_encoded_bytes()))]
pub struct IndexError {
    /// The database's file.
    pub path: PathBuf,
    /// What is wrong with it; said in full by `Display`.
    pub problem: Problem,
    needs_reopen: bool,
}

impl IndexError {
    pub(crate) fn new(path: &Path, problem: impl Into<Problem>) -> Self {
        Self {
            path: path.to_owned(),
            problem: problem.into(),
            needs_reopen: false,
        }
    }

    /// The same, of an engine that refuses everything from now on.
    pub(crate) fn and_refuse(mut self) -> Self {
        self.needs_reopen = true;
        self
    }

    /// Whether the engine refuses everything until `reopen`: after an I/O error, and after a
    /// failed commit, whose fate is unknown. Cached states that came from it are worth nothing.
    pub fn needs_reopen(&self) -> bool {
        self.needs_reopen
    }
}

impl Problem {
    /// Whether an engine that fails like this in a read fails in everything; damage that a read
    /// came upon leaves the rest usable.
    pub(crate) fn spoils_reads(&self) -> bool {
        match self {
            Self::NeedsReopen => true,
            Self::Engine(error) => matches!(
                **error,
                redb::Error::Io(_)
                    | redb::Error::PreviousIo
                    | redb::Error::DatabaseClosed
                    | redb::Error::LockPoisoned(_)
            ),
            _ => false,
        }
    }

    /// Whether it leaves a write in doubt, rather than undone.
    pub(crate) fn spoils_writes(&self) -> bool {
        matches!(
            self,
            Self::Engine(_) | Self::Panicked(_) | Self::NeedsReopen
        )
    }
}

/// What is wrong with a database.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is no such file.
    #[error("no such database; one that was lost is made again by `shaftlog db rebuild`")]
    Missing,
    /// Creation never replaces.
    #[error("exists already")]
    Exists,
    /// Another process writes it.
    #[error("in use by another process")]
    Locked,
    /// A later shaftlog wrote it.
    #[error(
        "has schema version {found}, and this program knows none beyond {known}: use the newer program"
    )]
    Newer {
        /// Version in the file.
        found: u32,
        /// Newest version of this program.
        known: u32,
    },
    /// A client's where a server's was expected, or the reverse.
    #[error("is a {found} database, expected a {expected} database")]
    WrongKind {
        /// What it says it is.
        found: super::Kind,
        /// What it was opened as.
        expected: super::Kind,
    },
    /// Not a database, or one whose beginning is gone.
    #[error("is no database of this program: {0}; move it aside and run `shaftlog db rebuild`")]
    NotOurs(String),
    /// A row is not what was written.
    #[error("row {key} of table `{table}` is damaged ({what}); run `shaftlog db rebuild`")]
    Row {
        /// Name of the table.
        table: &'static str,
        /// The row's key, as it is shown to people.
        key: String,
        /// How it shows.
        what: &'static str,
    },
    /// The stable name belongs to another file, as itself or as one of its directories.
    #[error("the stable name {0} is taken")]
    NameTaken(StableName),
    /// No suffix makes the name free and short enough.
    #[error("no free stable name for {0}: the path is too long for a suffix")]
    NoFreeName(StableName),
    /// A change speaks of a file without a row.
    #[error("no row for file {0}")]
    NoSuchFile(FileId),
    /// A change speaks of a destination without a row.
    #[error("no row for destination {0}")]
    NoSuchDestination(super::client::DestinationId),
    /// An earlier error; [`IndexError::needs_reopen`].
    #[error("has to be reopened after an earlier error")]
    NeedsReopen,
    /// The resting file changed under an inspection.
    #[error("changed while it was read (a daemon was started?); try again")]
    Changed,
    /// The store failed; after an I/O error nobody knows what is on disk.
    #[error("{0}")]
    Engine(#[source] Box<redb::Error>),
    /// The store found itself in a state it cannot be in.
    #[error("the store failed: {0}; `shaftlog db check` looks closer")]
    Panicked(String),
    /// Opening, creating or publishing the file failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

macro_rules! from_engine {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for Problem {
            fn from(error: redb::$error) -> Self {
                Self::from(redb::Error::from(error))
            }
        }
    )*};
}
from_engine!(
    StorageError,
    TableError,
    TransactionError,
    CommitError,
    DatabaseError
);

impl From<redb::Error> for Problem {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::Locked,
            error => Self::Engine(Box::new(error)),
        }
    }
}
