//! How fast: the size of pieces and the length of pauses.

use std::time::Duration;

use crate::limits::{BACKOFF_MAX, BACKOFF_START, PIECE_MAX, PIECE_MIN, PIECE_TIME};
use crate::sys::host;

/// The next piece once one of `bytes` was cut. Little bytes say nothing.
pub(super) fn piece_after_cut(piece: u64, bytes: u64) -> u64 {
    if bytes < PIECE_MIN {
        return piece;
    }
    (piece.min(bytes) / 2).max(PIECE_MIN)
}

/// The next piece after one of `bytes` took so long: what the line carries in [`PIECE_TIME`], but at
/// most twice the last one, so that a line that is cut all the time is not tried out each time.
/// Little bytes say nothing.
pub(super) fn piece_after(piece: u64, bytes: u64, time: Duration) -> u64 {
    if bytes < piece / 2 {
        return piece;
    }
    let carried = u128::from(bytes) * PIECE_TIME.as_micros() / time.as_micros().max(1);
    let carried = u64::try_from(carried).unwrap_or(PIECE_MAX);
    carried
        .min(piece.saturating_mul(2))
        .clamp(PIECE_MIN, PIECE_MAX)
}

/// A pause after so many failures: none after the first, then drawn from 0 to a bound that doubles
/// ("full jitter": clients that failed together do not come back together).
pub(super) fn backoff(failures: u32) -> Duration {
    drawn(failures, BACKOFF_MAX)
}

/// [`backoff`] where the failures began so long ago: no pause is longer than that. A few short pauses
/// drawn in a row would else make a minute of a restart that takes seconds.
pub(super) fn backoff_since(failures: u32, began: Duration) -> Duration {
    drawn(failures, began.clamp(BACKOFF_START, BACKOFF_MAX))
}

fn drawn(failures: u32, most: Duration) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else {
        return Duration::ZERO;
    };
    let bound = BACKOFF_START
        .saturating_mul(1 << doublings.min(16))
        .min(most);
    // Without randomness the whole bound does.
    let random = host::random_bytes::<4>().map_or(u32::MAX, u32::from_be_bytes);
    bound.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_the_line() {
        let mib = 1024 * 1024;
        let second = Duration::from_secs(1);
        // Two seconds' worth, at most twice the last, within bounds.
        assert_eq!(piece_after(4 * mib, 4 * mib, second * 4), 2 * mib);
        assert_eq!(piece_after(4 * mib, 4 * mib, second / 100), 8 * mib);
        assert_eq!(piece_after(4 * mib, 4 * mib, Duration::ZERO), 8 * mib);
        assert_eq!(piece_after(PIECE_MAX, PIECE_MAX, second / 100), PIECE_MAX);
        assert_eq!(piece_after(PIECE_MIN, PIECE_MIN, second * 60), PIECE_MIN);
        assert_eq!(piece_after_cut(8 * mib, 8 * mib), 4 * mib);
        assert_eq!(piece_after_cut(8 * mib, 64 * 1024), 32 * 1024);
        assert_eq!(piece_after_cut(PIECE_MIN, PIECE_MIN), PIECE_MIN);
        // A short append says nothing of the line.
        assert_eq!(piece_after_cut(4 * mib, 100), 4 * mib);
        assert_eq!(piece_after(4 * mib, 100, second), 4 * mib);
    }

    #[test]
    fn pauses_grow_to_a_bound_and_the_first_is_none() {
        assert_eq!(backoff(0), Duration::ZERO);
        for failures in 1..200 {
            let bound = BACKOFF_START.saturating_mul(1 << (failures - 1).min(16));
            assert!(backoff(failures) <= bound.min(BACKOFF_MAX), "{failures}");
            let began = Duration::from_secs(3);
            assert!(backoff_since(failures, began) <= bound.min(began));
            assert!(backoff_since(failures, Duration::ZERO) <= BACKOFF_START);
            assert!(backoff_since(failures, BACKOFF_MAX * 2) <= BACKOFF_MAX);
        }
    }
}
