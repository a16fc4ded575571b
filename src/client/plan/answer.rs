//! What an answer means for the file it is about. No state is derived from a status code alone:
//! after anything but 2xx, and after a lost answer, the file is asked about with a HEAD.

use std::time::Duration;

use super::{FileError, Holding, Remote, Trust};
use crate::types::{ByteRange, Offset, Prefix, PrefixHash};
use crate::wire::{Problem, Tail};

/// What was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// HEAD.
    Head,
    /// HEAD of the prefix of this length.
    HeadPrefix(Offset),
    /// PUT of these bytes.
    Append {
        /// The bytes.
        range: ByteRange,
        /// H(range's end).
        end: PrefixHash,
    },
    /// PUT of nothing: is exactly this held?
    Confirm(Prefix),
}

/// What an answer says, read but not believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Shaftlog-Problem`, if it is a token that we know.
    pub problem: Option<Problem>,
    /// `Shaftlog-Length` with what belongs to it.
    pub about: Option<About>,
    /// Content-Length; its own meaning only in the answer to a HEAD.
    pub content_length: Option<Offset>,
    /// The entity tag, where it is one of ours.
    pub tag: Option<PrefixHash>,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// What a verified destination says about the file in every answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct About {
    /// L.
    pub length: Offset,
    /// What lies behind it.
    pub tail: Option<Tail>,
}

/// What follows from an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It durably holds the prefix, which is C now, and maybe more.
    Confirmed(Prefix, Remote),
    /// This is known of it now.
    Told(Remote),
    /// The answer to [`Asked::HeadPrefix`].
    ToldPrefix(Prefix),
    /// It does not hold the prefix that it was asked to confirm.
    NotHeld(Prefix),
    /// An unverified destination took the bytes, or says so: look.
    Look,
    /// It refused; asked about again at once, and in error when that brings it nowhere.
    Refused(String),
    /// Somebody is at work on this file, or it is being hashed: this file waits.
    Wait(Option<Duration>),
    /// The destination cannot serve now, whatever the file.
    Pause(Option<Duration>, String),
    /// This file is in error.
    Failed(FileError),
}

/// Judges one answer.
pub fn heard(trust: Trust, asked: &Asked, answer: &Answer) -> Heard {
    match answer.status {
        200..=299 => accepted(trust, asked, answer),
        404 if *asked == Asked::Head => Heard::Told(Remote::Holds(Holding::nothing())),
        _ => refused(trust, asked, answer),
    }
}

fn accepted(trust: Trust, asked: &Asked, answer: &Answer) -> Heard {
    match (trust, asked) {
        (Trust::Unverified, Asked::Head) => Heard::Told(Remote::Holds(Holding {
            exists: true,
            // A file without bytes is answered without the header by some servers.
            length: answer.content_length.unwrap_or(Offset::ZERO),
            hash: None,
            tail: None,
        })),
        (Trust::Unverified, _) => Heard::Look,
        (Trust::Verified, Asked::Head) => match (answer.about, answer.tag) {
            (Some(about), Some(hash)) => Heard::Told(Remote::Holds(Holding {
                exists: true,
                length: about.length,
                hash: Some(hash),
                tail: about.tail,
            })),
            _ => nonsense("a HEAD answered without length and hash"),
        },
        (Trust::Verified, Asked::HeadPrefix(length)) => match (answer.content_length, answer.tag) {
            (Some(told), Some(hash)) if told == *length => Heard::ToldPrefix(Prefix {
                length: *length,
                hash,
            }),
            _ => nonsense("a HEAD of a prefix answered without its length and hash"),
        },
        (Trust::Verified, Asked::Confirm(prefix)) => {
            Heard::Confirmed(*prefix, more(prefix, answer))
        }
        (Trust::Verified, Asked::Append { range, end }) => appended(range.end(), *end, answer),
    }
}

/// A 2xx to an append is believed only if it says that the server's prefix is ours: a range that
/// was there already is acknowledged whatever stands before it.
fn appended(length: Offset, hash: PrefixHash, answer: &Answer) -> Heard {
    let (Some(about), Some(theirs)) = (answer.about, answer.tag) else {
        return nonsense("an append acknowledged without length and hash");
    };
    if about.length < length {
        return nonsense("an append acknowledged and not held");
    }
    if about.length == length && theirs == hash {
        let prefix = Prefix { length, hash };
        return Heard::Confirmed(prefix, more(&prefix, answer));
    }
    Heard::Told(Remote::Holds(Holding {
        exists: true,
        length: about.length,
        hash: Some(theirs),
        tail: about.tail,
    }))
}

/// What is known after `confirmed` was: bytes behind it need not be sent again if they are ours.
fn more(confirmed: &Prefix, answer: &Answer) -> Remote {
    match (answer.about, answer.tag) {
        (Some(About { length, tail }), Some(hash))
            if length > confirmed.length || tail.is_some() =>
        {
            Remote::Holds(Holding {
                exists: true,
                length,
                hash: Some(hash),
                tail,
            })
        }
        _ => Remote::Agreed,
    }
}

/// What a destination that takes nothing more of a file says of it.
fn vouched(answer: &Answer, is: impl Fn(Prefix) -> Remote) -> Heard {
    match (answer.about, answer.tag) {
        (Some(About { length, .. }), Some(hash)) => Heard::Told(is(Prefix { length, hash })),
        _ => nonsense("a refusal for a file's state without its length and hash"),
    }
}

fn nonsense(what: &'static str) -> Heard {
    Heard::Failed(FileError::Nonsense(what))
}

fn refused(trust: Trust, asked: &Asked, answer: &Answer) -> Heard {
    // Only a verified destination's tokens mean anything.
    let problem = answer.problem.filter(|_| trust == Trust::Verified);
    let text = || {
        let token = problem.map_or_else(String::new, |problem| format!(" `{problem}`"));
        format!("status {}{token}", answer.status)
    };
    match (answer.status, problem) {
        (409, Some(Problem::Diverged)) => vouched(answer, Remote::Diverged),
        (410, Some(Problem::Retired)) => vouched(answer, Remote::Retired),
        (503, Some(Problem::Busy | Problem::Hashing)) => Heard::Wait(answer.retry_after),
        (408 | 429 | 502 | 503 | 504 | 507, _) => Heard::Pause(answer.retry_after, text()),
        (409 | 412 | 416, _) | (400, Some(Problem::Digest)) => match asked {
            Asked::Confirm(prefix) => Heard::NotHeld(*prefix),
            _ => Heard::Refused(text()),
        },
        (status, problem) => Heard::Failed(FileError::Refused { status, problem }),
    }
}
