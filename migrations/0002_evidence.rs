//! Step 2: the tables of what is kept beside files and rows. Frozen: later steps change what this
//! made, nobody changes this.

use redb::{Error, TableDefinition, WriteTransaction};

type Raw = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The client's: bytes of sources as they were first read, and what holds a link back.
pub(super) fn client(transaction: &WriteTransaction) -> Result<(), Error> {
    create(transaction, &["volatile", "holds"])
}

/// The server's: what was set aside.
pub(super) fn server(transaction: &WriteTransaction) -> Result<(), Error> {
    create(transaction, &["quarantine"])
}

fn create(transaction: &WriteTransaction, names: &[&'static str]) -> Result<(), Error> {
    for name in names {
        transaction.open_table(Raw::new(name))?;
    }
    Ok(())
}
