//! The clocks: wall time for evidence, monotonic time for everything that waits.

use std::time::Instant;

use jiff::Timestamp;

/// Wall-clock time now. May jump; goes into rows, events and names, never into a decision of how
/// long to wait.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Monotonic time now.
pub fn monotonic() -> Instant {
    Instant::now()
}
