//! What checking a file brought, for people and as JSON.

use serde::{Serialize, Serializer};

use super::hashes::Difference;
use crate::index::Problem;
use crate::types::{ByteRange, Offset, Prefix, PrefixHash};

/// How bad a finding is; the worst decides how a check ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Severity {
    /// The evidence is there, and the file is what it says; or there is nothing to check.
    #[default]
    Fine,
    /// Evidence or bytes are missing.
    Missing,
    /// Bytes are there that the evidence contradicts.
    Differs,
}

/// What a check came to. The words are those of `--json` and are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every recorded prefix holds.
    Right,
    /// A recorded prefix does not hold.
    Differs,
    /// The index says that the file's bytes differ from what it vouched for.
    Diverged,
    /// The other side holds something else.
    Conflict,
    /// There is no such file.
    Missing,
    /// The name shows something else than the file that is on record.
    Replaced,
    /// The file is shorter than what is on record.
    Short,
    /// The prefixes hold, but nobody has confirmed them since the database was rebuilt.
    Unproven,
    /// A file that the index knows nothing of.
    NoRow,
    /// The row is damaged.
    DamagedRow,
    /// The file cannot be read.
    Unreadable,
    /// Given up by the operator: counts as delivered.
    Retired,
    /// A closed generation: its copies get no more bytes.
    Superseded,
    /// Delivered, and let go of: no bytes are here.
    Released,
    /// A file that was held for one run only, and is no longer where it was.
    Gone,
    /// Its bytes were lost before they were confirmed everywhere.
    Lost,
    /// The destination has confirmed nothing of it.
    Unconfirmed,
    /// The destination took it, but cannot vouch for what it holds.
    Unverified,
    /// The destination refuses it.
    Refused,
    /// The destination holds less than it once confirmed.
    Behind,
    /// The destination cannot be asked.
    Unreachable,
}

impl Verdict {
    /// How bad it is.
    pub fn severity(self) -> Severity {
        match self {
            Self::Right | Self::Retired | Self::Superseded | Self::Released | Self::Gone => {
                Severity::Fine
            }
            Self::Differs | Self::Diverged | Self::Conflict => Severity::Differs,
            Self::Missing
            | Self::Replaced
            | Self::Short
            | Self::Unproven
            | Self::NoRow
            | Self::DamagedRow
            | Self::Unreadable
            | Self::Lost
            | Self::Unconfirmed
            | Self::Unverified
            | Self::Refused
            | Self::Behind
            | Self::Unreachable => Severity::Missing,
        }
    }

    /// The word for people: that of the JSON, with spaces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Differs => "differs",
            Self::Diverged => "diverged",
            Self::Conflict => "conflict",
            Self::Missing => "missing",
            Self::Replaced => "replaced",
            Self::Short => "short",
            Self::Unproven => "unproven",
            Self::NoRow => "no row",
            Self::DamagedRow => "damaged row",
            Self::Unreadable => "unreadable",
            Self::Retired => "retired",
            Self::Superseded => "superseded",
            Self::Released => "released",
            Self::Gone => "gone",
            Self::Lost => "lost",
            Self::Unconfirmed => "unconfirmed",
            Self::Unverified => "unverified",
            Self::Refused => "refused",
            Self::Behind => "behind",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Whose copy of a file was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The server's.
    Server,
    /// The client's.
    Client,
    /// A file that was named on the command line.
    File,
}

/// What checking one file, or one file at one destination, brought; serialises to one JSON object
/// with the key `table`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "table", rename = "verify")]
pub struct Finding {
    /// Whose copy.
    pub side: Side,
    /// Path at a server (leading slash), stable name at a client; shown.
    #[serde(rename = "file")]
    pub name: String,
    /// Path of a client's source, shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// URL of the destination that the finding is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// What it came to.
    pub verdict: Verdict,
    /// The longest prefix on record, in bytes.
    pub length: Offset,
    /// Its hash on record.
    #[serde(serialize_with = "hex")]
    pub blake3: Option<PrefixHash>,
    /// Number of recorded prefixes that were compared.
    pub compared: usize,
    /// Bytes of the file behind that prefix, for which nobody vouches (yet).
    pub beyond: u64,
    /// The bytes among which the first difference is: `start` the first, `end` behind the last.
    #[serde(serialize_with = "range", skip_serializing_if = "Option::is_none")]
    pub first_difference: Option<ByteRange>,
    /// The rest, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Finding {
    /// A finding about a file of which nothing is known yet.
    pub fn new(side: Side, name: String, verdict: Verdict) -> Self {
        Self {
            side,
            name,
            source: None,
            destination: None,
            verdict,
            length: Offset::ZERO,
            blake3: None,
            compared: 0,
            beyond: 0,
            first_difference: None,
            detail: String::new(),
        }
    }

    /// A row that cannot be used.
    pub fn of_damage(side: Side, problem: &Problem) -> Self {
        let name = match problem {
            Problem::Row { key, .. } => key.clone(),
            _ => String::new(),
        };
        Self::new(side, name, Verdict::DamagedRow).but(Verdict::DamagedRow, problem.to_string())
    }

    /// The same with another verdict, and why.
    pub fn but(mut self, verdict: Verdict, detail: impl Into<String>) -> Self {
        self.verdict = verdict;
        self.detail = detail.into();
        self
    }

    /// The same for a recorded prefix that does not hold.
    pub fn differing(mut self, difference: &Difference) -> Self {
        let Difference {
            expected, found, ..
        } = difference;
        self.first_difference = difference.range();
        let source = match self.side {
            Side::File => "was asked for",
            Side::Server | Side::Client => "is on record",
        };
        let Prefix { length, hash } = expected;
        self.but(
            Verdict::Differs,
            format!("its first {length} bytes hash to {found}; {hash} {source}"),
        )
    }
}

#[expect(clippy::ref_option, reason = "serde hands out the field as it is")]
fn hex<S: Serializer>(hash: &Option<PrefixHash>, to: S) -> Result<S::Ok, S::Error> {
    match hash {
        Some(hash) => to.collect_str(hash),
        None => to.serialize_none(),
    }
}

#[expect(clippy::ref_option, reason = "serde hands out the field as it is")]
fn range<S: Serializer>(range: &Option<ByteRange>, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Range {
        start: Offset,
        end: Offset,
    }
    range
        .map(|range| Range {
            start: range.start(),
            end: range.end(),
        })
        .serialize(to)
}
