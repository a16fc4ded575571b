//! What a client does with files that are delivered: how long it keeps its links, how it reads them
//! again; and which bytes of a file it delivers as they were first read.

use std::time::Duration;

use super::client::PatternSettings;
use super::error::{Problem, Step};
use super::fields::Fields;
use super::keys;
use super::scrub::{self, Scrub};
use crate::limits;
use crate::types::{ByteRange, Offset};

/// The word for a period that never ends.
pub const NEVER: &str = "never";

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upkeep {
    /// How long a delivered file whose source is gone has to be quiet before its link goes; `None`
    /// for ever.
    pub release_after: Option<Duration>,
    /// Whether what an unverified destination took counts as delivered.
    pub release_unverified: bool,
    /// How it reads the files that it holds again.
    pub scrub: Scrub,
    /// Free bytes of the datadir's filesystem below which a warning is due.
    pub warn_free: u64,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            release_after: Some(limits::RELEASE_AFTER),
            release_unverified: false,
            scrub: Scrub {
                rate: limits::SCRUB_RATE,
                period: Some(limits::SCRUB_PERIOD),
            },
            warn_free: limits::WARN_FREE,
        }
    }
}

pub(super) fn read(fields: &Fields<'_>) -> Result<Upkeep, Problem> {
    let default = Upkeep::default();
    Ok(Upkeep {
        release_after: period_or_never(fields, "release_after", default.release_after)?,
        release_unverified: fields
            .flag("release_unverified")?
            .unwrap_or(default.release_unverified),
        scrub: scrub::read(fields, default.scrub)?,
        warn_free: fields.size("warn_free")?.unwrap_or(default.warn_free),
    })
}

pub(super) fn period_or_never(
    fields: &Fields<'_>,
    key: &str,
    default: Option<Duration>,
) -> Result<Option<Duration>, Problem> {
    if matches!(fields.text(key), Ok(Some(NEVER))) {
        return Ok(None);
    }
    Ok(fields.duration(key)?.or(default))
}

/// The ranges of the key `volatile` of a pattern.
pub(super) fn volatile(text: &str, pattern: &Fields<'_>) -> Result<Vec<ByteRange>, Problem> {
    let mut ranges: Vec<ByteRange> = Vec::new();
    for (steps, node) in pattern.list("volatile")? {
        let whose = "an entry of `volatile`";
        let fields = Fields::of(text, steps, node, keys::VOLATILE, whose)?;
        let offset = fields.integer("offset", 0, limits::VOLATILE_END - 1)?;
        let length = fields.integer("length", 1, limits::VOLATILE_BYTES)?;
        let (offset, length) = (offset.unwrap_or_default(), length.unwrap_or_default());
        let start = Offset::new(offset).unwrap_or(Offset::MAX);
        let end = start.plus(length).unwrap_or(Offset::MAX);
        let Some(range) = ByteRange::new(start, end) else {
            return Err(fields.problem("offset", "the range lies beyond any file"));
        };
        let overlaps = |other: &&ByteRange| other.start() < end && start < other.end();
        if let Some(other) = ranges.iter().find(overlaps) {
            let problem = format!(
                "bytes {start} to {end} overlap the entry of bytes {} to {}",
                other.start(),
                other.end()
            );
            return Err(fields
                .problem("offset", problem)
                .hint("name each byte once"));
        }
        ranges.push(range);
        if ranges.len() > limits::VOLATILE_RANGES {
            let problem = format!("more than {} entries", limits::VOLATILE_RANGES);
            return Err(pattern.problem("volatile", problem));
        }
    }
    ranges.sort_unstable_by_key(|range| range.start());
    Ok(ranges)
}

/// A file's row says by name which pattern has found it: two patterns of one name have the same
/// volatile bytes.
pub(super) fn one_volatile_a_name(
    known: &[PatternSettings],
    new: &PatternSettings,
    steps: &[Step],
) -> Result<(), Problem> {
    let mut known = known.iter();
    if known.all(|it| it.name != new.name || it.volatile == new.volatile) {
        return Ok(());
    }
    let mut steps = steps.to_vec();
    steps.push(Step::Key("name".to_owned()));
    let problem = format!(
        "another pattern is called \"{}\" and has other `volatile` bytes",
        new.name.escape_debug()
    );
    Err(Problem::new(steps, problem).hint("give it a name of its own"))
}
