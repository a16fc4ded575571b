//! How often and how fast a client or a server reads its files again.

use std::time::Duration;

use super::error::Problem;
use super::fields::Fields;
use super::keys;
use super::upkeep::period_or_never;
use crate::limits;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scrub {
    /// Bytes a second that this reads at most.
    pub rate: u64,
    /// A client's: time in which every held file is read once. A server's: from the beginning of one
    /// round to that of the next, at least. `None` for never.
    pub period: Option<Duration>,
}

/// Reads the key `scrub`.
pub(super) fn read(fields: &Fields<'_>, default: Scrub) -> Result<Scrub, Problem> {
    let Some(fields) = fields.mapping("scrub", keys::SCRUB, "a scrub")? else {
        return Ok(default);
    };
    let rate = fields.size("rate")?;
    if rate.is_some_and(|rate| rate < limits::SCRUB_RATE_MIN) {
        let least = limits::SCRUB_RATE_MIN;
        let problem = format!("expected at least {least} bytes a second");
        return Err(fields
            .problem("rate", problem)
            .hint("`period: never` turns it off"));
    }
    Ok(Scrub {
        rate: rate.unwrap_or(default.rate),
        period: period_or_never(&fields, "period", default.period)?,
    })
}
