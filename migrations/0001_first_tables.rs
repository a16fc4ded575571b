//! Step 1: the first tables of both kinds of database. Frozen: later steps change what this made,
//! nobody changes this.

use redb::{Error, TableDefinition, WriteTransaction};

type Raw = TableDefinition<'static, &'static [u8], &'static [u8]>;

const META: Raw = TableDefinition::new("meta");
const FILES: Raw = TableDefinition::new("files");
const EVENTS: Raw = TableDefinition::new("events");

const CLIENT: [Raw; 4] = [
    TableDefinition::new("names"),
    TableDefinition::new("inodes"),
    TableDefinition::new("destinations"),
    TableDefinition::new("progress"),
];

const SERVER: [Raw; 2] = [
    TableDefinition::new("history"),
    TableDefinition::new("boots"),
];

/// The client's tables.
pub(super) fn client(transaction: &WriteTransaction) -> Result<(), Error> {
    create(transaction, &CLIENT)
}

/// The server's tables.
pub(super) fn server(transaction: &WriteTransaction) -> Result<(), Error> {
    create(transaction, &SERVER)
}

fn create(transaction: &WriteTransaction, own: &[Raw]) -> Result<(), Error> {
    for table in [META, FILES, EVENTS].iter().chain(own) {
        transaction.open_table(*table)?;
    }
    Ok(())
}
