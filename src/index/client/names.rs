//! Which stable names are taken, and finding one that is not.
//!
//! A name is a path below the datadir. It is taken when a file has it, when it is a directory on
//! the way to a taken one, or when a directory on its own way is a taken name: a server that keeps
//! files could not hold both.

use std::collections::BTreeSet;
use std::ops::Bound;

use redb::ReadableTable;

use crate::index::codec::{Bytes, Rows};
use crate::index::error::Problem;
use crate::limits::SEGMENT_BYTES;
use crate::types::{FileId, StableName};

/// What a prefix of a name's segments is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Free,
    File,
    Directory,
}

/// Names in the database, and names about to be.
pub(super) struct Taken<'a, T> {
    pub(super) rows: &'a Rows<T, StableName, FileId>,
    pub(super) also: &'a BTreeSet<StableName>,
}

impl<T: ReadableTable<Bytes, Bytes>> Taken<'_, T> {
    fn place(&self, name: &StableName) -> Result<Place, Problem> {
        if self.also.contains(name) || self.rows.get(name)?.is_some() {
            return Ok(Place::File);
        }
        let mut inside = name.as_bytes().to_vec();
        inside.push(b'/');
        let below = |found: &StableName| found.as_bytes().starts_with(&inside);
        // No name ends with a slash, so the first one behind `inside` tells.
        let stored = self.rows.page(Bound::Excluded(&inside), 1)?;
        let pending = self
            .also
            .range::<[u8], _>((Bound::Excluded(&inside[..]), Bound::Unbounded))
            .next();
        let is_directory =
            stored.iter().any(|(found, _)| below(found)) || pending.is_some_and(below);
        Ok(if is_directory {
            Place::Directory
        } else {
            Place::Free
        })
    }

    /// Whether no file has `name`, as its own or on its way.
    pub(super) fn is_free(&self, name: &StableName) -> Result<bool, Problem> {
        for parent in parents(name) {
            if self.place(&parent)? == Place::File {
                return Ok(false);
            }
        }
        Ok(self.place(name)? == Place::Free)
    }

    /// `wanted`, or the first of `wanted.1`, `wanted.2`... that is free; a segment on the way that
    /// is a file's name gets the number instead.
    pub(super) fn free_name(&self, wanted: &StableName) -> Result<StableName, Problem> {
        let no_name = || Problem::NoFreeName(wanted.clone());
        let mut path: Vec<u8> = Vec::new();
        let mut segments = wanted.as_bytes().split(|&byte| byte == b'/').peekable();
        while let Some(segment) = segments.next() {
            let last = segments.peek().is_none();
            let mut number = 0_u64;
            path = loop {
                let candidate = join(&path, segment, number).ok_or_else(no_name)?;
                let name = StableName::parse(candidate.clone()).map_err(|_| no_name())?;
                match self.place(&name)? {
                    Place::Free => break candidate,
                    Place::Directory if !last => break candidate,
                    _ => number += 1,
                }
            };
        }
        StableName::parse(path).map_err(|_| no_name())
    }
}

/// The names of the directories on the way to `name`, outermost first.
fn parents(name: &StableName) -> impl Iterator<Item = StableName> {
    let bytes = name.as_bytes();
    bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .filter_map(|(end, _)| StableName::parse(&bytes[..end]).ok())
}

/// `path/segment.number`, the segment cut so that the number fits; no number for 0.
fn join(path: &[u8], segment: &[u8], number: u64) -> Option<Vec<u8>> {
    let suffix = match number {
        0 => String::new(),
        number => format!(".{number}"),
    };
    let room = SEGMENT_BYTES.checked_sub(suffix.len())?;
    let mut keep = segment.len().min(room);
    // Never through the middle of a character.
    while keep < segment.len() && keep > 0 && segment[keep] & 0xc0 == 0x80 {
        keep -= 1;
    }
    let mut joined = path.to_vec();
    if !joined.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(&segment[..keep]);
    joined.extend_from_slice(suffix.as_bytes());
    Some(joined)
}
