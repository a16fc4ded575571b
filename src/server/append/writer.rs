//! Takes a body's bytes in order: compares them with what is there, hashes them, writes what is
//! new.
//!
//! A body `a..=b` on a base of length B, in a file of size S, falls into three parts:
//!
//! * below B: has to equal the file; anything else is refused, nothing was written yet;
//! * B..S, the tail: equal bytes are taken as they are; from the first difference on the rest of
//!   the tail goes to quarantine;
//! * from S on: written.

use super::super::append_only;
use super::super::core::Core;
use super::super::files::FileState;
use super::super::quarantine;
use super::super::recover::{self, Trouble};
use crate::limits::IO_CHUNK;
use crate::prefix::PrefixHasher;
use crate::sys::file;
use crate::types::{ByteRange, Offset, WirePath};

/// Why a byte was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// It differs from one that is vouched for.
    Differs,
    /// The disk or the index failed.
    Trouble(Trouble),
}

impl<E: Into<Trouble>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Trouble(error.into())
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    /// Where the next byte belongs.
    at: Offset,
    /// B.
    base: Offset,
    /// S, as this process has made it.
    size: Offset,
    /// H(`at`), from B on.
    hasher: PrefixHasher,
    /// Where this request's own bytes begin, and the hasher there.
    own: Option<(Offset, PrefixHasher)>,
    /// Whether bytes of the tail were taken as they are, or one was moved aside.
    adopts: bool,
    quarantined: bool,
    made_file: bool,
    buffer: Vec<u8>,
}

impl Writer {
    /// Takes bytes from `start` on; `hasher` is at the base.
    pub(super) fn new(
        start: Offset,
        base: Offset,
        hasher: PrefixHasher,
        state: &FileState,
    ) -> Self {
        Self {
            at: start,
            base,
            size: state.size(),
            hasher,
            own: None,
            adopts: base > state.length(),
            quarantined: false,
            made_file: false,
            buffer: Vec::new(),
        }
    }

    /// Takes nothing, only compares.
    pub(super) fn comparing(range: ByteRange, state: &FileState) -> Self {
        let nothing = PrefixHasher::new();
        Self::new(range.start(), range.end(), nothing, state)
    }

    /// The end of what was taken.
    pub(super) fn at(&self) -> Offset {
        self.at
    }

    /// S as it is now.
    pub(super) fn size(&self) -> Offset {
        self.size
    }

    /// The hasher at the end of what was taken, once that lies behind the base.
    pub(super) fn hasher(&self) -> &PrefixHasher {
        &self.hasher
    }

    /// See [`hasher`](Self::hasher).
    pub(super) fn into_hasher(self) -> PrefixHasher {
        self.hasher
    }

    /// Whether bytes of a tail are vouched for together with the body.
    pub(super) fn adopts(&self) -> bool {
        self.adopts
    }

    /// Whether the file on disk is another than before.
    pub(super) fn has_changed_file(&self) -> bool {
        self.own.is_some() || self.quarantined || self.made_file
    }

    /// Gives back memory until it is needed again.
    pub(super) fn forget_buffer(&mut self) {
        self.buffer = Vec::new();
    }

    /// Takes the next bytes, no more than the range has left.
    pub(super) fn take(
        &mut self,
        core: &Core,
        path: &WirePath,
        state: &mut FileState,
        mut bytes: &[u8],
    ) -> Result<(), Refused> {
        while !bytes.is_empty() {
            let there = self.base.max(self.size);
            let until = if self.at < self.base {
                self.base
            } else {
                there
            };
            let taken = if self.at < until {
                let most = bytes.len().min(IO_CHUNK);
                let part = &bytes[..most.min(at_most(until.since(self.at)))];
                self.meet(core, path, state, part)?
            } else {
                let part = &bytes[..bytes.len().min(IO_CHUNK)];
                self.write(core, path, state, part)?;
                part.len()
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Compares with bytes that are there; how many of the body's bytes are done with.
    fn meet(
        &mut self,
        core: &Core,
        path: &WirePath,
        state: &mut FileState,
        bytes: &[u8],
    ) -> Result<usize, Refused> {
        let Some(open) = &state.file else {
            return Err(Trouble::Busy("the file is gone").into());
        };
        self.buffer.resize(bytes.len(), 0);
        let read = file::read_at(open, self.at, &mut self.buffer)?;
        let equal = bytes
            .iter()
            .zip(&self.buffer[..read])
            .take_while(|(one, other)| one == other)
            .count();
        if self.at < self.base {
            if equal < bytes.len() {
                return Err(Refused::Differs);
            }
            self.at = further(self.at, equal)?;
            return Ok(equal);
        }
        self.hasher.update(&bytes[..equal]);
        self.at = further(self.at, equal)?;
        self.adopts |= equal > 0;
        if equal < bytes.len()
            && let Some(rest) = ByteRange::new(self.at, self.size)
        {
            quarantine::set_aside(core, path, state.epoch, open, rest, quarantine::DIFFER)?;
            self.quarantined = true;
            self.size = self.at;
            state.ahead.retain(|kept| kept.length() <= self.at);
        }
        Ok(equal)
    }

    /// Writes new bytes at the end.
    fn write(
        &mut self,
        core: &Core,
        path: &WirePath,
        state: &mut FileState,
        bytes: &[u8],
    ) -> Result<(), Refused> {
        if state.file.is_none() {
            state.file = Some(recover::make_file(core, path)?);
            self.made_file = true;
        }
        let Some(open) = &state.file else {
            return Err(Trouble::Busy("the file is gone").into());
        };
        if self.own.is_none() {
            self.own = Some((self.at, self.hasher.clone()));
        }
        let end = further(self.at, bytes.len())?;
        let cut = |file: &file::File, end| {
            append_only::lift(core, path, file)?;
            file::cut(file, end)
        };
        match open.append(bytes, self.at, end, cut) {
            Ok(true) => {}
            Ok(false) => return Err(Trouble::Busy("the file was changed meanwhile").into()),
            Err(error) => {
                // Part of it may be there: the file has to end where the hasher is.
                append_only::cut(core, path, open, self.at)?;
                return Err(error.into());
            }
        }
        self.hasher.update(bytes);
        self.at = end;
        self.size = end;
        // One body may be longer than all that was free when it began, and so may many together.
        let is_low = || core.policy().map(|policy| policy.disk_low);
        if !core.room.is_left_after(bytes.len(), is_low)? {
            return Err(Trouble::Full.into());
        }
        Ok(())
    }

    /// Cuts this request's own bytes off again; the hasher is then where they began. A file that
    /// this request made goes altogether.
    pub(super) fn take_back(
        &mut self,
        core: &Core,
        path: &WirePath,
        state: &mut FileState,
    ) -> Result<(), Trouble> {
        let (Some((from, hasher)), Some(open)) = (self.own.clone(), &state.file) else {
            return Ok(());
        };
        append_only::cut(core, path, open, from)?;
        self.at = from;
        self.size = from;
        self.hasher = hasher;
        let is_there = |stat: Option<file::FileStat>, ours: file::FileStat| {
            stat.is_some_and(|stat| stat.inode == ours.inode)
        };
        if self.made_file
            && from == Offset::ZERO
            && is_there(recover::regular(core, path)?, file::stat(open)?)
        {
            core.dir.unlink(path.as_bytes())?;
            state.file = None;
        }
        Ok(())
    }
}

fn further(at: Offset, bytes: usize) -> Result<Offset, Trouble> {
    at.plus(bytes as u64).ok_or(Trouble::Full)
}

fn at_most(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
