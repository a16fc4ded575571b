//! Words for people: how many, how long, and what was meant.

use std::time::Duration;

/// Seconds of a day.
const DAY: u64 = 24 * 3600;

/// So many of what is called `one` when it is one, and otherwise has an `s` behind it.
pub fn counted(number: u64, one: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {one}{ending}")
}

/// A length of time as a configuration has it; whole days as days, since months and years are no
/// whole number of days.
pub fn span(time: Duration) -> String {
    let (days, rest) = (time.as_secs() / DAY, time.as_secs() % DAY);
    if days > 1 && rest == 0 && time.subsec_nanos() == 0 {
        return format!("{days}days");
    }
    humantime::format_duration(time).to_string()
}

/// Letters of a spelling that are looked at, behind what both begin with: nobody's misspelling is
/// longer, and the rest of a longer one would only cost time.
const LETTERS: usize = 64;

/// Levenshtein's distance: letters to insert, remove or replace. Case does not count.
pub fn distance(one: &str, other: &str) -> usize {
    let letters = |text: &str| -> Vec<char> { text.to_lowercase().chars().collect() };
    let (one, other) = (letters(one), letters(other));
    let pairs = one.iter().zip(&other);
    let common = pairs.take_while(|(a, b)| a == b).count();
    let rest = |letters: &[char]| -> Vec<char> {
        letters.iter().skip(common).take(LETTERS).copied().collect()
    };
    let (one, other) = (rest(&one), rest(&other));
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_days_read_well() {
        assert_eq!(counted(0, "file"), "0 files");
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(counted(2, "file"), "2 files");
        assert_eq!(span(Duration::from_secs(90 * DAY)), "90days");
        assert_eq!(span(Duration::from_secs(DAY)), "1day");
        assert_eq!(span(Duration::from_secs(DAY + 60)), "1day 1m");
        assert_eq!(span(Duration::from_millis(1500)), "1s 500ms");
    }

    #[test]
    fn letters_are_inserted_removed_and_replaced() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("Datadir", "datadir"), 0);
        let long = "/var/log/".repeat(20);
        assert_eq!(
            distance(&format!("{long}syslog"), &format!("{long}syslg")),
            1
        );
    }
}
