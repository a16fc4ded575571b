//! Which kind a database is, its schema version, and the steps from one version to the next.
//!
//! The steps lie in `migrations/`, numbered and frozen; creation runs all of them. Whatever the
//! steps still missing, they run in one transaction: a crash leaves the old version or the new.

use std::fmt;

use redb::{ReadTransaction, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::codec::Table;
use super::error::Problem;

#[path = "../../migrations/0001_first_tables.rs"]
mod first_tables;
#[path = "../../migrations/0002_evidence.rs"]
mod evidence;
#[path = "../../migrations/0003_quotas.rs"]
mod quotas;

/// Whose database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// The catalogue of a client, `client.redb`.
    Client,
    /// The index of a server, `server.redb`.
    Server,
}

impl Kind {
    /// Name of its file below `.shaftlog`.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Client => "client.redb",
            Self::Server => "server.redb",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// The one row whose form is the same in every version for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Schema {
    pub(crate) kind: Kind,
    pub(crate) version: u32,
}

/// The table of rows that are alone in their kind.
pub(crate) const META: &str = "meta";
pub(crate) const SCHEMA: Table<String, Schema> = Table::new(META);
pub(crate) const SCHEMA_KEY: &str = "schema";

type Step = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// What brings each kind from version n to n + 1, in order.
fn steps(kind: Kind) -> &'static [Step] {
    match kind {
        Kind::Client => &[first_tables::client, evidence::client],
        Kind::Server => &[first_tables::server, evidence::server, quotas::server],
    }
}

/// The version that this program reads and writes.
pub(crate) fn newest(kind: Kind) -> u32 {
    u32::try_from(steps(kind).len()).unwrap_or(u32::MAX)
}

/// Reads the schema row and refuses what this program cannot handle.
pub(crate) fn check(transaction: &ReadTransaction, expected: Kind) -> Result<Schema, Problem> {
    let schema = read(transaction)?;
    let known = newest(expected);
    if schema.kind != expected {
        Err(Problem::WrongKind {
            found: schema.kind,
            expected,
        })
    } else if schema.version > known {
        Err(Problem::Newer {
            found: schema.version,
            known,
        })
    } else {
        Ok(schema)
    }
}

/// The schema row of a database of any kind.
pub(crate) fn read(transaction: &ReadTransaction) -> Result<Schema, Problem> {
    let rows = match SCHEMA.read(transaction) {
        Err(Problem::Engine(error)) => {
            return Err(match *error {
                redb::Error::TableDoesNotExist(_) | redb::Error::TableTypeMismatch { .. } => {
                    Problem::NotOurs("it has no schema version".to_owned())
                }
                error => error.into(),
            });
        }
        rows => rows?,
    };
    rows.get(&SCHEMA_KEY.to_owned())?
        .ok_or_else(|| Problem::NotOurs("it has no schema version".to_owned()))
}

/// Runs the steps after version `from` and records the newest.
pub(crate) fn migrate(
    transaction: &WriteTransaction,
    kind: Kind,
    from: u32,
) -> Result<(), Problem> {
    let done = usize::try_from(from).unwrap_or(usize::MAX);
    for step in steps(kind).iter().skip(done) {
        step(transaction)?;
    }
    let version = newest(kind);
    SCHEMA
        .write(transaction)?
        .put(&SCHEMA_KEY.to_owned(), &Schema { kind, version })?;
    Ok(())
}
