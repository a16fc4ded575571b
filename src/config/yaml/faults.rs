//! The parser's errors in our words: the line first, and a hint for the mistakes that people make.

use super::{BOMB, editors_line, fault, is_blank};
use crate::config::error::Fault;

/// The parser's error as a fault: its line, its words without their positions, and a hint for the
/// mistakes that people make.
pub(super) fn fault_of(text: &str, error: &serde_yaml::Error) -> Fault {
    let words = error.to_string();
    let Some(location) = error.location() else {
        return fault_without_location(text, &words);
    };
    // An open quote or bracket is noticed at the end of the file: it begins elsewhere.
    let line = match words.rsplit_once("while scanning a quoted scalar at line ") {
        Some((_, position)) => leading_number(position).unwrap_or(location.line()),
        None => location.line(),
    };
    let line = editors_line(text, line).min(text.lines().count().max(1));
    let written = text.lines().nth(line - 1).unwrap_or_default();
    let found = fault(line, without_positions(&words));
    match hint(&found.problem, written) {
        Some(hint) => found.with(hint),
        None => found,
    }
}

/// What to do about the parser's words over the line as it was `written`.
fn hint(words: &str, written: &str) -> Option<&'static str> {
    let says = |part| words.contains(part);
    let value = written
        .split_once(": ")
        .map_or("", |(_, value)| value.trim());
    if says(BOMB) || says("recursion limit") {
        Some("no configuration needs that")
    } else if says("scanning an alias") || says("unknown anchor") {
        Some("a value that begins with * must stand in quotes")
    } else if says("invalid type: enum") {
        Some("a value that begins with ! must stand in quotes")
    } else if says("tab character")
        || says("cannot start any token") && indented_with_a_tab(written)
    {
        Some("YAML is indented with spaces, not with tabs")
    } else if says("cannot start any token") {
        Some("a value that begins with a special character must stand in quotes")
    } else if says("quoted scalar") {
        Some("a quote that opens here is never closed")
    } else if says("expected key") && value.starts_with(['{', '[']) {
        Some("a value that begins with { or [ must stand in quotes")
    } else if says("mapping values are not allowed") {
        Some("a value with a colon in it must stand in quotes")
    } else {
        None
    }
}

/// Whether a tab stands where the line, or the value in it, begins.
fn indented_with_a_tab(written: &str) -> bool {
    let value = written.split_once(": ").map_or("", |(_, value)| value);
    [written, value]
        .iter()
        .any(|text| text.trim_start_matches(' ').starts_with('\t'))
}

fn leading_number(text: &str) -> Option<usize> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    text[..digits].parse().ok()
}

/// Two of the parser's errors come without a location.
fn fault_without_location(text: &str, words: &str) -> Fault {
    let line_where =
        |test: &dyn Fn(&str) -> bool| text.lines().position(test).map_or(1, |index| index + 1);
    if words.contains("repetition limit") {
        let has_alias = |line: &str| [" *", "[*", ",*"].iter().any(|sign| line.contains(sign));
        return fault(line_where(&has_alias), BOMB).with("no configuration needs that");
    }
    if words.contains("more than one document") {
        let first = line_where(&|line| !is_blank(line));
        let line = text
            .lines()
            .enumerate()
            .skip(first)
            .find(|(_, line)| line.starts_with("---"))
            .map_or(first, |(index, _)| index + 1);
        return fault(line, "a second document begins here").with("one file is one configuration");
    }
    fault(1, words)
}

/// libyaml's words hold ` at line 3 column 7`, sometimes twice; ours say the line first.
fn without_positions(words: &str) -> String {
    let mut rest = words;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once(" at line ") {
        kept.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
        if let Some(column) = rest.strip_prefix(" column ") {
            rest = column.trim_start_matches(|c: char| c.is_ascii_digit());
        }
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_cut_from_the_parsers_words() {
        assert_eq!(
            without_positions("did not find x at line 3 column 1, while y at line 2 column 7"),
            "did not find x, while y"
        );
    }
}
