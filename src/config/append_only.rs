//! Whether delivered files become append-only, and when.

use std::time::Duration;

use super::error::Problem;
use super::fields::Fields;
use super::keys;
use crate::limits::APPEND_ONLY_AFTER;

const KEY: &str = "append_only";

/// Reads the key `append_only`: how long a file has to be quiet before; `None` for never.
pub(super) fn read(fields: &Fields<'_>) -> Result<Option<Duration>, Problem> {
    if let Ok(flag) = fields.flag(KEY) {
        return Ok(flag.and_then(|flag| flag.then_some(APPEND_ONLY_AFTER)));
    }
    if matches!(fields.text(KEY), Ok(Some(_))) {
        let problem = "expected true, false, or a period as in {after: 10m}";
        return Err(fields.problem(KEY, problem));
    }
    let given = fields.mapping(KEY, keys::APPEND_ONLY, "an `append_only`")?;
    let after = given.map(|given| given.duration("after")).transpose()?;
    Ok(Some(after.flatten().unwrap_or(APPEND_ONLY_AFTER)))
}
