//! What to do with a request: the protocol's table as pure functions over plain values.
//!
//! A caller gathers how the path stands ([`Standing`]), asks [`put`] or [`head`], and carries out
//! the verdict. A verdict that depends on the hash of a prefix which is not at hand is
//! [`NeedHash`](Verdict::NeedHash): find that hash, put it into `known` and ask again.
//!
//! Words: L is the vouched length, S the size on disk, the bytes L..S are a tail.

use crate::index::server::ServerState;
use crate::types::{ByteRange, Offset, Prefix, PrefixHash};
use crate::wire::{Condition, Problem};

/// What a PUT asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Put {
    /// `Content-Range: bytes a-b/t`: append these bytes.
    Append(Append),
    /// `Content-Range: bytes */N`: is exactly this prefix there, durably?
    Confirm(Confirm),
}

/// The head of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Append {
    /// The bytes a..=b that the body holds.
    pub(crate) range: ByteRange,
    /// t: the size of the client's file.
    pub(crate) total: Offset,
    /// What the client says of the prefix before the range.
    pub(crate) condition: Option<Condition>,
    /// What the client says of the prefix that ends with the range.
    pub(crate) digest: Option<PrefixHash>,
}

impl Append {
    /// Whether the client says anything of the bytes around the range.
    pub(crate) fn is_conditional(&self) -> bool {
        self.condition.is_some() || self.digest.is_some()
    }
}

/// A confirm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Confirm {
    /// N: the length of the prefix in question.
    pub(crate) length: Offset,
    /// The hash that the client says it has.
    pub(crate) condition: Option<Condition>,
}

/// How a path stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    /// L and H(L).
    pub(crate) vouched: Prefix,
    /// S, never below L; 0 when there is no file.
    pub(crate) size: Offset,
    /// The row's state; [`ServerState::Vouched`] when there is none.
    pub(crate) state: ServerState,
    /// Whether the index has a row.
    pub(crate) has_row: bool,
    /// Whether the path names a file.
    pub(crate) has_file: bool,
    /// Whether a conditional append was ever made.
    pub(crate) conditional: bool,
}

impl Standing {
    fn is_new(&self) -> bool {
        !self.has_row || !self.has_file
    }

    /// The hash of the first `length` bytes, if it is known without reading.
    fn hash(&self, length: Offset, known: &[Prefix]) -> Option<PrefixHash> {
        [Prefix::empty(), self.vouched]
            .iter()
            .chain(known)
            .find(|prefix| prefix.length == length)
            .map(|prefix| prefix.hash)
    }
}

/// What the operator and the disk allow at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Policy {
    /// `unconditional: allow`.
    pub(crate) allow_unconditional: bool,
    /// Fewer than `min_free` bytes are free.
    pub(crate) disk_low: bool,
}

/// What to do with a PUT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Nothing changes; answer with the problem's status.
    Refuse(Problem),
    /// Find H(n), n at most S, and ask again.
    NeedHash(Offset),
    /// Nothing changes: 204.
    Holds,
    /// Make a longer (or, for an unproven row, another) prefix durable and record it.
    Vouch(Vouch),
    /// All of the range lies below L: compare, 204 or 409 `differs`.
    Compare,
    /// Compare what lies below the base, append the rest.
    Append(Base),
}

/// A confirm that changes the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Vouch {
    /// What is to be vouched for.
    pub(crate) prefix: Prefix,
    /// Whether the bytes behind it go to quarantine; else they stay as a tail.
    pub(crate) quarantine_rest: bool,
    /// Whether the row or the file is made: 201 instead of 204.
    pub(crate) creates: bool,
}

/// Where an append stands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Base {
    /// The prefix that is vouched for, or proven by this request's condition. Bytes of the body
    /// below its length have to be equal to the file's.
    pub(crate) prefix: Prefix,
    /// Whether the row or the file is made: 201 instead of 204.
    pub(crate) creates: bool,
}

/// Rows 3 to 10 of the table; the first row that applies answers.
pub(crate) fn put(request: &Put, at: &Standing, known: &[Prefix], policy: Policy) -> Verdict {
    match at.state {
        ServerState::Diverged => Verdict::Refuse(Problem::Diverged),
        ServerState::Retired => Verdict::Refuse(Problem::Retired),
        ServerState::Vouched | ServerState::Unproven | ServerState::Regressed => match request {
            Put::Confirm(confirm) => self::confirm(confirm, at, known, policy),
            Put::Append(append) => self::append(append, at, known, policy),
        },
    }
}

/// Row 4, and 4a where there is no file yet.
fn confirm(request: &Confirm, at: &Standing, known: &[Prefix], policy: Policy) -> Verdict {
    let length = request.length;
    let claimed = match request.condition {
        Some(Condition::Prefix(hash)) => hash,
        _ if length == Offset::ZERO => PrefixHash::of_nothing(),
        // `If-None-Match: *` says nothing of these bytes either.
        _ => return Verdict::Refuse(Problem::Unconditional),
    };
    if length > at.size {
        return Verdict::Refuse(Problem::Gap);
    }
    let Some(hash) = at.hash(length, known) else {
        return Verdict::NeedHash(length);
    };
    let is_unproven = at.state == ServerState::Unproven && length > Offset::ZERO;
    if hash != claimed {
        Verdict::Refuse(Problem::Condition)
    } else if length <= at.vouched.length && !is_unproven && !at.is_new() {
        Verdict::Holds
    } else if policy.disk_low && !at.has_file {
        Verdict::Refuse(Problem::Full)
    } else {
        Verdict::Vouch(Vouch {
            prefix: Prefix { length, hash },
            quarantine_rest: is_unproven && length < at.size,
            creates: at.is_new(),
        })
    }
}

/// Rows 4a to 10.
fn append(request: &Append, at: &Standing, known: &[Prefix], policy: Policy) -> Verdict {
    let (start, end) = (request.range.start(), request.range.end());
    let vouched = at.vouched.length;
    let is_repeat = start < vouched && end <= vouched;
    if policy.disk_low && !is_repeat {
        return Verdict::Refuse(Problem::Full);
    }
    if request.total < vouched {
        return Verdict::Refuse(Problem::Shrunk);
    }
    if start > vouched {
        return beyond(request, at, known);
    }
    if is_repeat {
        return Verdict::Compare;
    }
    let base = Verdict::Append(Base {
        prefix: at.vouched,
        creates: at.is_new(),
    });
    if start < vouched {
        match request.digest {
            Some(_) => base,
            None => Verdict::Refuse(Problem::Range),
        }
    } else if !holds(request.condition, at) {
        Verdict::Refuse(Problem::Condition)
    } else if !request.is_conditional() && at.conditional && !policy.allow_unconditional {
        Verdict::Refuse(Problem::Unconditional)
    } else {
        base
    }
}

/// Row 6: the range begins behind L; the condition may prove the tail up to it.
fn beyond(request: &Append, at: &Standing, known: &[Prefix]) -> Verdict {
    let length = request.range.start();
    let Some(Condition::Prefix(claimed)) = request.condition else {
        return Verdict::Refuse(Problem::Gap);
    };
    if length > at.size {
        return Verdict::Refuse(Problem::Gap);
    }
    match at.hash(length, known) {
        None => Verdict::NeedHash(length),
        Some(hash) if hash == claimed => Verdict::Append(Base {
            prefix: Prefix { length, hash },
            creates: at.is_new(),
        }),
        Some(_) => Verdict::Refuse(Problem::Gap),
    }
}

/// Whether a condition on the vouched prefix is absent or true.
fn holds(condition: Option<Condition>, at: &Standing) -> bool {
    match condition {
        None => true,
        Some(Condition::Prefix(hash)) => hash == at.vouched.hash,
        Some(Condition::Nothing) => at.vouched.length == Offset::ZERO,
    }
}

/// What to answer to a HEAD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeadVerdict {
    /// Neither row nor file: 404.
    NotFound,
    /// Answer with the problem's status.
    Refuse(Problem),
    /// Find H(n), n at most L, and ask again.
    NeedHash(Offset),
    /// 200 with this length and its tag.
    Prefix(Prefix),
}

/// HEAD of a path, or with `length` of a prefix of it. Of a diverged file a prefix is what lies there
/// now, for whoever searches the place that differs: it is never what was vouched for.
pub(crate) fn head(length: Option<Offset>, at: &Standing, known: &[Prefix]) -> HeadVerdict {
    let asked = length;
    let length = length.unwrap_or(at.vouched.length);
    match at.state {
        _ if !at.has_row && !at.has_file => HeadVerdict::NotFound,
        ServerState::Retired => HeadVerdict::Refuse(Problem::Retired),
        ServerState::Diverged if asked.is_none() || length > at.vouched.length.min(at.size) => {
            HeadVerdict::Refuse(Problem::Diverged)
        }
        ServerState::Diverged => match known.iter().find(|prefix| prefix.length == length) {
            Some(found) => HeadVerdict::Prefix(*found),
            None => HeadVerdict::NeedHash(length),
        },
        _ if length > at.vouched.length => HeadVerdict::Refuse(Problem::Gap),
        _ => match at.hash(length, known) {
            Some(hash) => HeadVerdict::Prefix(Prefix { length, hash }),
            None => HeadVerdict::NeedHash(length),
        },
    }
}

#[cfg(test)]
mod tests;
