//! Rows: typed keys and values over a store that does not notice when its bits change.
//!
//! A value is stored as 8 bytes of BLAKE3 over table, key and payload, followed by the payload in
//! postcard's encoding. Keys are byte strings whose order is the order of what they stand for. A
//! lookup that finds nothing looks at both neighbours: a damaged key, or a search that went down
//! the wrong branch, then shows as an error and not as an absent row.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ops::Bound;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Problem;
use super::stored::Stored;
use crate::types::{FileId, Shown, StableName, WirePath};

/// What redb is given for keys and values alike.
pub(crate) type Bytes = &'static [u8];

const CHECK: usize = 8;

/// A key of a table; `decode` inverts `encode`, and the bytes sort as the keys do.
pub(crate) trait TableKey: Sized {
    fn encode(&self) -> Vec<u8>;
    fn decode(bytes: &[u8]) -> Option<Self>;
    /// The key for people.
    fn show(&self) -> String;
}

/// Name, key and value of a table.
pub(crate) struct Table<K, V> {
    pub(crate) name: &'static str,
    marker: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Table<K, V> {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            marker: PhantomData,
        }
    }

    /// The row that `key` and `value` are, as they are stored.
    pub(crate) fn decode(&self, key: &[u8], value: &[u8]) -> Result<(K, V), Problem>
    where
        K: TableKey,
        V: DeserializeOwned,
    {
        let value = decode_value::<K, V>(self.name, key, value)?;
        Ok((decode_key(self.name, key)?, value))
    }

    /// The same row as this program writes it.
    pub(crate) fn rewrite(&self, key: &[u8], value: &[u8]) -> Result<Stored, Problem>
    where
        K: TableKey,
        V: Serialize + DeserializeOwned,
    {
        let (key, row) = self.decode(key, value)?;
        let key = key.encode();
        let value = seal_row(self.name, &key, &row)?;
        Ok((key, value))
    }

    fn definition(&self) -> TableDefinition<'static, Bytes, Bytes> {
        TableDefinition::new(self.name)
    }

    /// The table in a read transaction.
    pub(crate) fn read(
        &self,
        transaction: &ReadTransaction,
    ) -> Result<Rows<ReadOnlyTable<Bytes, Bytes>, K, V>, Problem> {
        Ok(Rows {
            table: transaction.open_table(self.definition())?,
            name: self.name,
            marker: PhantomData,
        })
    }

    /// The table in a write transaction.
    pub(crate) fn write<'txn>(
        &self,
        transaction: &'txn WriteTransaction,
    ) -> Result<Rows<redb::Table<'txn, Bytes, Bytes>, K, V>, Problem> {
        Ok(Rows {
            table: transaction.open_table(self.definition())?,
            name: self.name,
            marker: PhantomData,
        })
    }
}

/// An open table.
pub(crate) struct Rows<T, K, V> {
    table: T,
    name: &'static str,
    marker: PhantomData<fn() -> (K, V)>,
}

impl<T, K, V> Rows<T, K, V>
where
    T: ReadableTable<Bytes, Bytes>,
    K: TableKey,
    V: Serialize + DeserializeOwned,
{
    /// The row of `key`.
    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, Problem> {
        let key = key.encode();
        match self.table.get(&key[..])? {
            Some(value) => self.decode(&key, value.value()).map(Some),
            None => self.absent(&key).map(|()| None),
        }
    }

    /// Proves that no row of `key` hides behind a damaged one.
    fn absent(&self, key: &[u8]) -> Result<(), Problem> {
        let before = self.table.range::<&[u8]>(..key)?.next_back().transpose()?;
        let after = self
            .table
            .range::<&[u8]>((Bound::Excluded(key), Bound::Unbounded))?
            .next()
            .transpose()?;
        for (found, expected) in [(before, Ordering::Less), (after, Ordering::Greater)] {
            if let Some((found, value)) = found {
                open_row(self.name, found.value(), value.value())
                    .ok_or_else(|| self.damaged(found.value(), "its check fails"))?;
                if found.value().cmp(key) != expected {
                    return Err(self.damaged(found.value(), "it is out of order"));
                }
            }
        }
        Ok(())
    }

    /// Proves that a search for `start` was not led astray past rows that lie behind it: then the
    /// row in front of where it ended is one of them, or, in a page that tells of fewer rows than
    /// it has, does not pass its check.
    fn prove_start(&self, start: Bound<&[u8]>) -> Result<(), Problem> {
        let end = match start {
            Bound::Unbounded => return Ok(()),
            Bound::Included(key) => Bound::Excluded(key),
            Bound::Excluded(key) => Bound::Included(key),
        };
        let mut rows = self.table.range::<&[u8]>((Bound::Unbounded, end))?;
        if let Some((found, value)) = rows.next_back().transpose()? {
            let found = found.value();
            open_row(self.name, found, value.value())
                .ok_or_else(|| self.damaged(found, "its check fails"))?;
            let is_before = match start {
                Bound::Included(key) => found < key,
                Bound::Excluded(key) => found <= key,
                Bound::Unbounded => true,
            };
            if !is_before {
                return Err(self.damaged(found, "it is out of order"));
            }
        }
        Ok(())
    }

    /// At most `limit` rows from `start` on, in the order of their keys.
    pub(crate) fn page(&self, start: Bound<&[u8]>, limit: usize) -> Result<Vec<(K, V)>, Problem> {
        let mut rows = Vec::new();
        self.visit(start, |key, value| {
            rows.push((key, value));
            Ok(rows.len() < limit)
        })?;
        Ok(rows)
    }

    /// At most `limit` rows from `key` on.
    pub(crate) fn page_from(&self, key: &K, limit: usize) -> Result<Vec<(K, V)>, Problem> {
        self.page(Bound::Included(&key.encode()), limit)
    }

    /// At most `limit` rows behind `key`.
    pub(crate) fn page_after(&self, key: &K, limit: usize) -> Result<Vec<(K, V)>, Problem> {
        self.page(Bound::Excluded(&key.encode()), limit)
    }

    /// Visits the rows from `key` on until `visit` says false.
    pub(crate) fn visit_from(
        &self,
        key: &K,
        visit: impl FnMut(K, V) -> Result<bool, Problem>,
    ) -> Result<(), Problem> {
        self.visit(Bound::Included(&key.encode()), visit)
    }

    /// Visits the rows from `start` on until `visit` says false.
    pub(crate) fn visit(
        &self,
        start: Bound<&[u8]>,
        mut visit: impl FnMut(K, V) -> Result<bool, Problem>,
    ) -> Result<(), Problem> {
        self.prove_start(start)?;
        let mut last: Option<Vec<u8>> = None;
        for row in self.table.range::<&[u8]>((start, Bound::Unbounded))? {
            let (key, value) = row?;
            let key = key.value();
            // Whoever reads page by page would go in circles.
            let is_before = match start {
                Bound::Included(start) => key < start,
                Bound::Excluded(start) => key <= start,
                Bound::Unbounded => false,
            };
            if is_before || last.as_deref().is_some_and(|last| last >= key) {
                return Err(self.damaged(key, "it is out of order"));
            }
            let value = self.decode(key, value.value())?;
            let typed = decode_key(self.name, key)?;
            last = Some(key.to_vec());
            if !visit(typed, value)? {
                break;
            }
        }
        Ok(())
    }

    /// Looks at up to `limit` rows from `start` on, each for itself: a damaged one does not hide
    /// those behind it. Gives the greatest key, to go on behind it.
    pub(crate) fn survey(
        &self,
        start: Bound<&[u8]>,
        limit: usize,
        mut each: impl FnMut(Result<(K, V), Problem>),
    ) -> Result<Option<Vec<u8>>, Problem> {
        if let Err(astray) = self.prove_start(start) {
            each(Err(astray));
        }
        let mut greatest: Option<Vec<u8>> = None;
        let rows = self.table.range::<&[u8]>((start, Bound::Unbounded))?;
        for row in rows.take(limit) {
            let (key, value) = row?;
            let key = key.value();
            if greatest.as_deref().is_some_and(|before| before >= key) {
                each(Err(self.damaged(key, "it is out of order")));
                continue;
            }
            greatest = Some(key.to_vec());
            each(
                self.decode(key, value.value())
                    .and_then(|value| Ok((decode_key(self.name, key)?, value))),
            );
        }
        // A search that damage has led astray ends here rather than going in circles.
        let on = |greatest: &Vec<u8>| match start {
            Bound::Included(start) | Bound::Excluded(start) => &greatest[..] > start,
            Bound::Unbounded => true,
        };
        Ok(greatest.filter(on))
    }

    /// The greatest key, whatever has become of its row.
    pub(crate) fn last_key(&self) -> Result<Option<K>, Problem> {
        let last = self.table.last()?;
        let key = last.map(|(key, _)| {
            let key = key.value();
            K::decode(key).ok_or_else(|| self.damaged(key, "its key is malformed"))
        });
        key.transpose()
    }

    /// Whether there is a row, damaged or not.
    pub(crate) fn has(&self, key: &K) -> Result<bool, Problem> {
        Ok(self.table.get(&key.encode()[..])?.is_some())
    }

    /// The row with the greatest key.
    pub(crate) fn last(&self) -> Result<Option<(K, V)>, Problem> {
        let Some((key, value)) = self.table.last()? else {
            return Ok(None);
        };
        let value = self.decode(key.value(), value.value())?;
        Ok(Some((decode_key(self.name, key.value())?, value)))
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> Result<u64, Problem> {
        Ok(self.table.len()?)
    }

    fn decode(&self, key: &[u8], value: &[u8]) -> Result<V, Problem> {
        decode_value::<K, V>(self.name, key, value)
    }

    fn damaged(&self, key: &[u8], what: &'static str) -> Problem {
        damaged::<K>(self.name, key, what)
    }
}

impl<K, V> Rows<redb::Table<'_, Bytes, Bytes>, K, V>
where
    K: TableKey,
    V: Serialize + DeserializeOwned,
{
    /// Inserts or replaces a row; gives the row that was there.
    pub(crate) fn put(&mut self, key: &K, row: &V) -> Result<Option<V>, Problem> {
        let key = key.encode();
        let value = seal_row(self.name, &key, row)?;
        let old = self
            .table
            .insert(&key[..], &value[..])?
            .map(|old| old.value().to_vec());
        old.map(|old| self.decode(&key, &old)).transpose()
    }

    /// Removes a row, damaged or not; whether there was one.
    pub(crate) fn remove(&mut self, key: &K) -> Result<bool, Problem> {
        Ok(self.table.remove(&key.encode()[..])?.is_some())
    }

    /// Removes the row with the smallest key, damaged or not; whether there was one.
    pub(crate) fn remove_first(&mut self) -> Result<bool, Problem> {
        Ok(self.table.pop_first()?.is_some())
    }
}

fn decode_key<K: TableKey>(table: &'static str, key: &[u8]) -> Result<K, Problem> {
    K::decode(key).ok_or_else(|| damaged::<K>(table, key, "its key is malformed"))
}

fn decode_value<K: TableKey, V: DeserializeOwned>(
    table: &'static str,
    key: &[u8],
    value: &[u8],
) -> Result<V, Problem> {
    let payload =
        open_row(table, key, value).ok_or_else(|| damaged::<K>(table, key, "its check fails"))?;
    match postcard::take_from_bytes(payload) {
        Ok((row, [])) => Ok(row),
        _ => Err(damaged::<K>(table, key, "its value is malformed")),
    }
}

fn damaged<K: TableKey>(table: &'static str, key: &[u8], what: &'static str) -> Problem {
    Problem::Row {
        table,
        key: K::decode(key).map_or_else(|| hex(key), |key| key.show()),
        what,
    }
}

/// Looks at every row of the table `name`, whose values are of several types; `each` is told of
/// the damaged ones. Gives their number.
pub(crate) fn raw_rows(
    transaction: &ReadTransaction,
    name: &'static str,
    mut each: impl FnMut(Problem),
) -> Result<u64, Problem> {
    let table = transaction.open_table(TableDefinition::<Bytes, Bytes>::new(name))?;
    let mut number = 0;
    for row in table.range::<&[u8]>(..)? {
        let (key, value) = row?;
        number += 1;
        if open_row(name, key.value(), value.value()).is_none() {
            each(Problem::Row {
                table: name,
                key: Shown(key.value()).to_string(),
                what: "its check fails",
            });
        }
    }
    Ok(number)
}

/// The check of a row and its payload, as they are stored.
pub(crate) fn seal_row<V: Serialize>(
    table: &'static str,
    key: &[u8],
    row: &V,
) -> Result<Vec<u8>, Problem> {
    let mut value = postcard::to_extend(row, vec![0; CHECK]).map_err(|_| Problem::Row {
        table,
        key: hex(key),
        what: "its value cannot be encoded",
    })?;
    let check = check(table, key, &value[CHECK..]);
    value[..CHECK].copy_from_slice(&check);
    Ok(value)
}

/// The payload of a stored value whose check holds.
pub(crate) fn open_row<'v>(table: &str, key: &[u8], value: &'v [u8]) -> Option<&'v [u8]> {
    let (found, payload) = value.split_at_checked(CHECK)?;
    (found == check(table, key, payload)).then_some(payload)
}

fn check(table: &str, key: &[u8], payload: &[u8]) -> [u8; CHECK] {
    let mut hasher = blake3::Hasher::new();
    // Lengths in front, so that no two rows are the same sequence of bytes.
    for part in [table.as_bytes(), key] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(payload);
    let mut check = [0; CHECK];
    hasher.finalize_xof().fill(&mut check);
    check
}

/// Two digits a byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl TableKey for u64 {
    fn encode(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_be_bytes(bytes.try_into().ok()?))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl TableKey for FileId {
    fn encode(&self) -> Vec<u8> {
        self.0.encode()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        u64::decode(bytes).map(Self)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl TableKey for WirePath {
    fn encode(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        Self::from_disk(bytes).ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl TableKey for StableName {
    fn encode(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        Self::parse(bytes).ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl<A: TableKey, B: TableKey> TableKey for (A, B)
where
    A: FixedWidth,
{
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.0.encode();
        bytes.extend(self.1.encode());
        bytes
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (first, second) = bytes.split_at_checked(A::WIDTH)?;
        Some((A::decode(first)?, B::decode(second)?))
    }
    fn show(&self) -> String {
        format!("{}/{}", self.0.show(), self.1.show())
    }
}

/// A key that always takes the same number of bytes, and so may stand in front of another.
pub(crate) trait FixedWidth {
    const WIDTH: usize;
}

impl FixedWidth for FileId {
    const WIDTH: usize = 8;
}

impl TableKey for String {
    fn encode(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
    fn show(&self) -> String {
        Shown(self.as_bytes()).to_string()
    }
}

/// Times as nanoseconds since 1970: jiff's own form is text, three times as long.
pub(crate) mod time {
    use jiff::Timestamp;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i128(time.as_nanosecond())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        Timestamp::from_nanosecond(i128::deserialize(from)?).map_err(D::Error::custom)
    }
}
