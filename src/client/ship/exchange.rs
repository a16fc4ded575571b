//! One request over one open connection, and why an answer may be missing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;

use super::shared::{Fault, Shared};
use super::visit::Question;
use crate::client::http::{Line, LineError, Payload, Reply};
use crate::client::plan::{Asked, Trust};
use crate::limits::{ANSWER_TIME, CONNECT_TIME};
use crate::sys::clock;
use crate::types::{BootId, StableName};
use crate::wire::{ContentRange, ReprDigest, header};

/// A connection unused for so long may have been closed by the other side without our fault.
const STALE: Duration = Duration::from_secs(1);

/// An open connection whose heartbeat was answered.
pub(super) struct Connection {
    pub(super) line: Line,
    pub(super) serial: u64,
    pub(super) boot: Option<BootId>,
    pub(super) trust: Trust,
    pub(super) used: Instant,
    /// It has answered to more than a heartbeat.
    pub(super) proven: bool,
}

/// Why a request has no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl NoAnswer {
    /// How long it took to find out, at least.
    pub(super) fn took(&self) -> Duration {
        match self {
            Self::Line(LineError::Stalled) => ANSWER_TIME,
            Self::Line(LineError::ConnectTime) => CONNECT_TIME,
            Self::Line(_) | Self::Fault(_) => Duration::ZERO,
        }
    }
}

/// Why there is no answer.
pub(super) enum Lost {
    /// Nothing was sent: the connection is of no use any more.
    Unsent,
    /// It may have been served; the destination may have closed an idle connection, as it may.
    Stale,
    /// The destination failed.
    Failed,
}

/// What became of a request.
pub(super) struct Exchanged {
    /// The connection, if it is of further use.
    pub(super) open: Option<Connection>,
    pub(super) answer: Result<Reply, Missing>,
}

/// Why there is no answer, and whether the destination has to hear of it.
pub(super) enum Missing {
    Lost(Lost),
    /// The connection is of no use, or the destination is not.
    Failed(NoAnswer),
}

/// Sends a question about the file `name` over the connection and waits for its answer.
pub(super) async fn exchange(
    shared: Arc<Shared>,
    open: Option<Connection>,
    trust: Trust,
    name: StableName,
    question: Question,
) -> Exchanged {
    let serves = |open: &Connection| shared.serves(open.boot, trust) && open.trust == trust;
    let Some(mut open) = open.filter(serves) else {
        return Exchanged {
            open: None,
            answer: Err(Missing::Lost(Lost::Unsent)),
        };
    };
    let idle = clock::monotonic().duration_since(open.used);
    let mut target = shared.target.target(&name);
    let method = match question.asked {
        Asked::Head => Method::HEAD,
        Asked::HeadPrefix(length) => {
            target = format!("{target}?length={length}");
            Method::HEAD
        }
        Asked::Append { .. } | Asked::Confirm(_) => Method::PUT,
    };
    let headers = headers(trust, &question);
    let answer = open.line.ask(method, &target, headers, question.payload);
    let failure = match answer.await {
        Ok(reply) => match shared.note(open.boot, &reply) {
            Ok(()) => {
                open.used = clock::monotonic();
                open.proven = true;
                return Exchanged {
                    open: Some(open),
                    answer: Ok(reply),
                };
            }
            Err(fault) => NoAnswer::from(fault),
        },
        Err(error) => NoAnswer::from(error),
    };
    let missing = match failure {
        NoAnswer::Line(LineError::Closed) if open.proven => Missing::Lost(Lost::Unsent),
        NoAnswer::Line(_) if idle >= STALE => Missing::Lost(Lost::Stale),
        failure => Missing::Failed(failure),
    };
    Exchanged {
        open: None,
        answer: Err(missing),
    }
}

pub(super) async fn heartbeat(shared: &Shared, line: &mut Line) -> Result<Reply, LineError> {
    let seen = shared.seen_header();
    let seen = seen.map(|seen| (header::SEEN, seen.to_string()));
    line.ask(Method::HEAD, shared.target.base(), seen, Payload::Empty)
        .await
}

/// The headers of a question (RFC 9110 sections 13.1 and 14.4, RFC 9530); an unverified
/// destination gets a range and nothing else.
fn headers(trust: Trust, question: &Question) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    match question.asked {
        Asked::Head | Asked::HeadPrefix(_) => {}
        Asked::Append { range, end } => {
            let total = question.total;
            let range = ContentRange::Bytes { range, total };
            headers.push(("content-range", range.to_string()));
            if trust == Trust::Verified {
                headers.push((header::REPR_DIGEST, ReprDigest(end).to_string()));
            }
        }
        Asked::Confirm(prefix) => {
            let range = ContentRange::Length(prefix.length);
            headers.push(("content-range", range.to_string()));
        }
    }
    headers.extend(question.condition.map(|condition| condition.header()));
    headers
}
