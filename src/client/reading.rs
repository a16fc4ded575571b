//! Reading a whole file for its own sake, in steps between which others, and the end of the process,
//! have their turn.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::source::{ReadError, Source};
use crate::limits::IO_CHUNK;
use crate::prefix::PrefixHasher;
use crate::types::{Offset, Prefix};

/// Bytes of one step at full speed.
const STEP: u64 = 16 * 1024 * 1024;

/// The file's prefixes of these lengths, ascending, at no more than `rate` bytes a second.
pub(super) async fn prefixes(
    source: &Source,
    lengths: &[Offset],
    rate: Option<u64>,
) -> Result<Vec<Prefix>, ReadError> {
    let step = rate.map_or(STEP, |rate| rate.clamp(1, IO_CHUNK as u64));
    let mut hasher = PrefixHasher::new();
    let mut prefixes = Vec::new();
    for length in lengths {
        while hasher.length() < *length {
            let from = hasher.length();
            let to = from.plus(step).unwrap_or(*length).min(*length);
            let source = source.clone();
            let read = spawn_blocking(move || {
                let state = hasher.state();
                source.hash_prefix(Some(&state), to)
            });
            // A thread that did not finish: the process is ending.
            hasher = read.await.map_err(std::io::Error::other)??;
            if let Some(rate) = rate {
                sleep(time_of(to.since(from), rate)).await;
            }
        }
        prefixes.push(hasher.prefix());
    }
    Ok(prefixes)
}

/// How long so many bytes take at this rate.
fn time_of(bytes: u64, rate: u64) -> Duration {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}
