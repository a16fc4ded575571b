//! Why a generation ended, a file is in error or a destination gets no more: as values, and as the
//! words that events, log lines and summaries have for them.

use std::fmt;

use crate::types::{ByteRange, Offset};
use crate::wire::Problem;

/// Why a generation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// The local file is shorter than what was confirmed.
    Shrunk,
    /// The local file is shorter than what the destination holds of it.
    ShorterThanHeld,
    /// The local file's confirmed bytes are others now.
    Rewritten {
        /// The first of them are among these, if it could be found out.
        chunk: Option<ByteRange>,
    },
    /// Somebody else wrote behind the confirmed bytes at the destination.
    OtherWriter,
    /// Nothing was confirmed anywhere, and other content lies under the name.
    NameTaken,
}

impl Closed {
    /// Whether the local file says so, rather than a destination.
    pub fn is_local(self) -> bool {
        matches!(self, Self::Shrunk | Self::Rewritten { .. })
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shrunk | Self::ShorterThanHeld => {
                "the local file is shorter than what was delivered"
            }
            Self::Rewritten { chunk } => {
                f.write_str("the local file's delivered bytes have changed")?;
                return among(f, *chunk);
            }
            Self::OtherWriter => "another writer's bytes follow ours at the destination",
            Self::NameTaken => "the destination has other content under this name",
        })
    }
}

/// Why a file is in error at a destination. It is asked for again every
/// [`ERROR_RETRY`](crate::limits::ERROR_RETRY).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FileError {
    /// Rule 2.
    #[error("conflict: the destination's first {at} bytes differ from ours{}", Among(*.chunk))]
    Differs {
        /// The compared length.
        at: Offset,
        /// The first difference is among these bytes, if it could be found out.
        chunk: Option<ByteRange>,
    },
    /// Rule 3, with other destinations that confirmed more, or more often than its word may end a
    /// generation in a day.
    #[error(
        "conflict: another writer's bytes lie within the destination's first {at} bytes{}",
        Among(*.chunk)
    )]
    OtherWriter {
        /// The compared length.
        at: Offset,
        /// The first difference is among these bytes, if it could be found out.
        chunk: Option<ByteRange>,
    },
    /// An unverified destination has more than we have, or more than we sent; or a verified one says
    /// so more often than its word may end a generation in a day.
    #[error("conflict: the destination has {theirs} bytes, more than the {ours} of ours")]
    Longer {
        /// Its length.
        theirs: Offset,
        /// Ours.
        ours: Offset,
    },
    /// It was retired there, and grew.
    #[error(
        "it was retired there with {at} bytes: what was appended since is not there, and is not taken any more"
    )]
    Retired {
        /// Its length there.
        at: Offset,
    },
    /// The destination says so of itself.
    #[error("diverged: the destination's bytes differ from its own index{}", Among(*.chunk))]
    Diverged {
        /// The first difference is among these bytes, if it could be found out.
        chunk: Option<ByteRange>,
    },
    /// It refused, and asking again the same way will not help.
    #[error("refused with status {status}{}", token(*.problem))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its token, if it sent one.
        problem: Option<Problem>,
    },
    /// Several requests in a row brought the file nowhere.
    #[error("no progress: {0}")]
    Stuck(String),
    /// The answer contradicts itself or the protocol.
    #[error("the destination's answer makes no sense: {0}")]
    Nonsense(&'static str),
    /// The local copy could not be read.
    #[error("cannot read the local copy: {0}")]
    Unreadable(String),
}

/// Where the first difference is, as the end of a sentence.
struct Among(Option<ByteRange>);

impl fmt::Display for Among {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        among(f, self.0)
    }
}

fn among(f: &mut fmt::Formatter<'_>, chunk: Option<ByteRange>) -> fmt::Result {
    match chunk {
        Some(chunk) => write!(
            f,
            ", the first of them among bytes {} to {}",
            chunk.start(),
            chunk.end()
        ),
        None => Ok(()),
    }
}

fn token(problem: Option<Problem>) -> String {
    problem.map_or_else(String::new, |problem| format!(" `{problem}`"))
}

/// Why a destination gets no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// An unverified destination has less than it had.
    Loses {
        /// What it had.
        had: Offset,
        /// What it has.
        has: Offset,
    },
    /// Two servers answer under one URL.
    TwoServers,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loses { had, has } => write!(
                f,
                "it replaces or loses what it is given: a file had {had} bytes there and has {has}"
            ),
            Self::TwoServers => f.write_str("two servers answer under this URL in turn"),
        }
    }
}
