//! Step 3: to whom each of a server's files is charged, and what that comes to. Frozen: later steps
//! change what this made, nobody changes this.
//!
//! A file is charged to who wrote first, as far as its history goes back. A row that is damaged is
//! not charged, nor is one that `db rebuild` made, or one that was retired.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use redb::{Error, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

type Raw = TableDefinition<'static, &'static [u8], &'static [u8]>;

const FILES: Raw = TableDefinition::new("files");
const HISTORY: Raw = TableDefinition::new("history");
const OWNERS: Raw = TableDefinition::new("owners");
const USAGE: Raw = TableDefinition::new("usage");

type Hash = [u8; 32];
type Prefix = (u64, Hash);
/// Identity, vouched prefix, hasher, high-water mark, inode with birth time, mtime, ctime, writer,
/// state, whether conditional, time.
type FileRow = (
    u64,
    Prefix,
    (u64, Vec<Hash>),
    Option<Prefix>,
    (u64, Option<i64>),
    i64,
    i64,
    String,
    u32,
    bool,
    i128,
);
/// Hash, time, writer, whether odd.
type HistoryRow = (Hash, i128, String, bool);

const RETIRED: u32 = 4;

/// The server's tables.
pub(super) fn server(transaction: &WriteTransaction) -> Result<(), Error> {
    let files = transaction.open_table(FILES)?;
    let history = transaction.open_table(HISTORY)?;
    let mut owners = transaction.open_table(OWNERS)?;
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in files.iter()? {
        let (path, value) = row?;
        let Some(file) = open::<FileRow>("files", path.value(), value.value()) else {
            continue;
        };
        let (id, (length, _), .., last_writer, state, _, _) = file;
        let first = history.range(&id.to_be_bytes()[..]..)?.next().transpose()?;
        let first = first.and_then(|(key, value)| {
            let row = open::<HistoryRow>("history", key.value(), value.value())?;
            key.value().starts_with(&id.to_be_bytes()).then_some(row.2)
        });
        let Some(account) = account(&first.unwrap_or(last_writer)) else {
            continue;
        };
        if state == RETIRED {
            continue;
        }
        let owner = seal("owners", path.value(), &(&account, 0_u64));
        owners.insert(path.value(), &owner[..])?;
        let sum = sums.entry(account).or_default();
        *sum = (sum.0 + 1, sum.1.saturating_add(length));
    }
    let mut usage = transaction.open_table(USAGE)?;
    for (account, sum) in sums {
        let value = seal("usage", account.as_bytes(), &sum);
        usage.insert(account.as_bytes(), &value[..])?;
    }
    Ok(())
}

/// Whom a writer's files are charged to: of an IPv6 address, its /64 network.
fn account(writer: &str) -> Option<String> {
    match writer
        .parse::<IpAddr>()
        .map(|address| address.to_canonical())
    {
        _ if writer == "db rebuild" => None,
        Ok(IpAddr::V6(address)) => {
            let network = Ipv6Addr::from_bits(address.to_bits() >> 64 << 64);
            Some(format!("{network}/64"))
        }
        Ok(address @ IpAddr::V4(_)) => Some(address.to_string()),
        Err(_) => Some(writer.to_owned()),
    }
}

/// A row whose check holds.
fn open<V: DeserializeOwned>(table: &str, key: &[u8], value: &[u8]) -> Option<V> {
    let (found, payload) = value.split_at_checked(8)?;
    let (row, rest) = postcard::take_from_bytes(payload).ok()?;
    (found == check(table, key, payload) && rest.is_empty()).then_some(row)
}

fn seal(table: &str, key: &[u8], row: &impl Serialize) -> Vec<u8> {
    // Texts and numbers can always be encoded.
    let payload = postcard::to_extend(row, Vec::new()).unwrap_or_default();
    [&check(table, key, &payload)[..], &payload].concat()
}

fn check(table: &str, key: &[u8], payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for part in [table.as_bytes(), key] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut check = [0; 8];
    hasher.update(payload).finalize_xof().fill(&mut check);
    check
}
