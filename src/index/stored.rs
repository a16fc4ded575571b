//! One row as it lies in a database, by itself: for a program that has a row's bytes and no
//! database around them, such as a fuzzer.

use super::error::Problem;
use super::event::EVENTS;
use super::schema::{Kind, SCHEMA, SCHEMA_KEY};
use super::{client, server};

/// A row's key and value, as they are stored.
pub type Stored = (Vec<u8>, Vec<u8>);

/// The rows of a table, or the one row of its kind that lies under a key of its own.
#[derive(Clone, Copy, Debug)]
pub struct RowKind {
    /// Name of the table.
    pub table: &'static str,
    /// The key, where the table's rows are of several kinds.
    pub key: Option<&'static str>,
    pub(super) rewrite: fn(&[u8], &[u8]) -> Result<Stored, Problem>,
}

/// All kinds of rows in a database of `kind`.
pub fn row_kinds(kind: Kind) -> impl Iterator<Item = RowKind> {
    let own: &[RowKind] = match kind {
        Kind::Client => &client::ROWS,
        Kind::Server => &server::ROWS,
    };
    SHARED.iter().chain(own).copied()
}

const SHARED: [RowKind; 2] = [
    RowKind {
        table: SCHEMA.name,
        key: Some(SCHEMA_KEY),
        rewrite: |key, value| SCHEMA.rewrite(key, value),
    },
    RowKind {
        table: EVENTS.name,
        key: None,
        rewrite: |key, value| EVENTS.rewrite(key, value),
    },
];

impl RowKind {
    /// Reads a row and writes it again. What is not a whole row of this kind is an error that names
    /// the row.
    pub fn rewrite(&self, key: &[u8], value: &[u8]) -> Result<Stored, Problem> {
        (self.rewrite)(key, value)
    }
}
