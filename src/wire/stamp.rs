//! Which store spoke, in which of its runs, after which commit; and what a client saw of that.

use std::fmt;
use std::str::FromStr;

use super::{BadHeader, decimal};
use crate::types::{BootId, CommitNumber, StoreId};

/// `Shaftlog-Store: <store>/<boot>/<commit number>`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The index that answered.
    pub store: StoreId,
    /// Its present run.
    pub boot: BootId,
    /// Its newest commit at the time of the answer.
    pub number: CommitNumber,
}

impl FromStr for Stamp {
    type Err = BadHeader;

    fn from_str(text: &str) -> Result<Self, BadHeader> {
        let parse = || {
            let [store, boot, number] = fields(text)?;
            Some(Self {
                store: store.parse().ok()?,
                boot: boot.parse().ok()?,
                number: decimal(number).map(CommitNumber)?,
            })
        };
        parse().ok_or(BadHeader {
            header: "Shaftlog-Store",
            expected: "`<store id>/<boot id>/<commit number>`",
        })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.store, self.boot, self.number.0)
    }
}

/// `Shaftlog-Seen: <boot>/<highest number in any answer>/<swept>`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Seen {
    /// The run that the numbers are of.
    pub boot: BootId,
    /// The highest number in any of its answers.
    pub highest: CommitNumber,
    /// The number of the last heartbeat answer after which nothing was left to look at.
    pub swept: CommitNumber,
}

impl FromStr for Seen {
    type Err = BadHeader;

    fn from_str(text: &str) -> Result<Self, BadHeader> {
        let parse = || {
            let [boot, highest, swept] = fields(text)?;
            Some(Self {
                boot: boot.parse().ok()?,
                highest: decimal(highest).map(CommitNumber)?,
                swept: decimal(swept).map(CommitNumber)?,
            })
        };
        parse().ok_or(BadHeader {
            header: "Shaftlog-Seen",
            expected: "`<boot id>/<highest number>/<swept number>`",
        })
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.boot, self.highest.0, self.swept.0)
    }
}

/// Exactly three fields parted by slashes.
fn fields(text: &str) -> Option<[&str; 3]> {
    let mut parts = text.split('/');
    let fields = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_survive_and_nothing_else_passes() {
        let stamp = Stamp {
            store: StoreId([1; 16]),
            boot: BootId([0xab; 16]),
            number: CommitNumber(77),
        };
        let text = stamp.to_string();
        assert_eq!(text.parse(), Ok(stamp));
        for bad in [
            text.to_uppercase(),
            format!("{text}/1"),
            text.replace("/77", "/+77"),
            text.replace("/77", ""),
            text[1..].to_owned(),
        ] {
            assert!(bad.parse::<Stamp>().is_err(), "{bad}");
        }
        let seen = Seen {
            boot: stamp.boot,
            highest: CommitNumber(9),
            swept: CommitNumber(3),
        };
        assert_eq!(seen.to_string().parse(), Ok(seen));
    }
}
