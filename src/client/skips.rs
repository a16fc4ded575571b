//! What patterns select and is passed over all the same: counted by pattern and reason, never
//! listed, so that nobody who fills a directory with it fills our memory or our log.

use std::collections::BTreeMap;
use std::fmt;

/// Why something that a pattern selects is passed over. None of it is a log file that its pattern
/// means, so it is no failure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Skip {
    /// A symbolic link, which could lead anywhere.
    Symlink,
    /// A FIFO, socket, device or directory.
    Special,
    /// A file of somebody whom the pattern's `owner` does not name.
    Owner,
    /// A file behind a symbolic link in the pattern's fixed part that an ordinary user owns, and not
    /// of that user: they could have led us to what they may not read.
    Led,
}

impl Skip {
    /// What it is, in the singular and the plural.
    pub fn words(self) -> [&'static str; 2] {
        match self {
            Self::Symlink => ["symbolic link", "symbolic links"],
            Self::Special => ["special file", "special files"],
            Self::Owner => [
                "file of an owner that `owner` does not name",
                "files of owners that `owner` does not name",
            ],
            Self::Led => [
                "file behind a symbolic link of a user whose it is not",
                "files behind a symbolic link of a user whose they are not",
            ],
        }
    }
}

/// How many, and the first of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Met {
    /// How many were met.
    pub count: u64,
    /// Path of the first.
    pub first: Vec<u8>,
}

/// All that was passed over.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Skips(BTreeMap<(usize, Skip), Met>);

impl Skips {
    /// Counts what lies at `path`, which the pattern of this number selects.
    pub fn add(&mut self, pattern: usize, skip: Skip, path: &[u8]) {
        let met = self.0.entry((pattern, skip)).or_default();
        if met.count == 0 {
            met.first = path.to_vec();
        }
        met.count += 1;
    }

    /// Counts what somebody else has counted.
    pub fn extend(&mut self, others: Self) {
        for (key, other) in others.0 {
            let met = self.0.entry(key).or_default();
            if met.count == 0 {
                met.first = other.first;
            }
            met.count += other.count;
        }
    }

    /// By number of the pattern and reason.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Skip, &Met)> {
        self.0
            .iter()
            .map(|((pattern, skip), met)| (*pattern, *skip, met))
    }

    /// How many for this reason, over all patterns.
    pub fn count(&self, reason: Skip) -> u64 {
        let these = self.iter().filter(|(_, skip, _)| *skip == reason);
        these.map(|(_, _, met)| met.count).sum()
    }
}

impl fmt::Display for Skips {
    /// `2 symbolic links, 1 special file`; nothing for nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = [Skip::Symlink, Skip::Special, Skip::Owner, Skip::Led];
        let counts = reasons.map(|reason| (reason, self.count(reason)));
        let met = counts.into_iter().filter(|(_, count)| *count > 0);
        for (place, (reason, count)) in met.enumerate() {
            let [one, many] = reason.words();
            let between = if place > 0 { ", " } else { "" };
            let what = if count == 1 { one } else { many };
            write!(f, "{between}{count} {what}")?;
        }
        Ok(())
    }
}
