//! How alike two spellings are, to suggest what was meant.

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
