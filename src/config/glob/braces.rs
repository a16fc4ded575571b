//! Brace expansion, as shells and the original's minimatch do it: `{a,b}`, nested, and ranges
//! `{1..3}`, `{01..10..2}`, `{a..e}`. What is neither a list nor a range stays as it is: `{a}`.
//! A group that is never closed is refused, as [`BadGlob::Unclosed`] says.

use super::BadGlob;
use crate::limits::{GLOB_ALTERNATIVES, PATH_BYTES};

/// Every text that `pattern` stands for, in order. Backslashes are kept.
pub(super) fn expand(pattern: &str) -> Result<Vec<String>, BadGlob> {
    if pattern.len() > PATH_BYTES {
        return Err(BadGlob::TooMany);
    }
    let mut expanded = vec![String::new()];
    let mut rest = pattern;
    while let Some(open) = find(rest, 0, '{') {
        let (before, after) = (&rest[..open], &rest[open + 1..]);
        let close = closing(after).ok_or(BadGlob::Unclosed('{'))?;
        if let Some(items) = items(&after[..close]) {
            expanded = product(&expanded, before, &items?)?;
            rest = &after[close + 1..];
        } else {
            expanded = product(&expanded, &rest[..=open], &[String::new()])?;
            rest = after;
        }
    }
    product(&expanded, rest, &[String::new()])
}

fn product(heads: &[String], middle: &str, tails: &[String]) -> Result<Vec<String>, BadGlob> {
    if heads.len().saturating_mul(tails.len()) > GLOB_ALTERNATIVES {
        return Err(BadGlob::TooMany);
    }
    Ok(heads
        .iter()
        .flat_map(|head| {
            tails
                .iter()
                .map(move |tail| format!("{head}{middle}{tail}"))
        })
        .collect())
}

/// The unescaped `wanted` in `text` at or after `from`.
fn find(text: &str, from: usize, wanted: char) -> Option<usize> {
    let mut characters = text[from..].char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => {
                characters.next();
            }
            _ if character == wanted => return Some(from + index),
            _ => {}
        }
    }
    None
}

/// Where the group ends whose opening brace stands right before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => {
                characters.next();
            }
            '{' => depth += 1,
            '}' if depth == 0 => return Some(index),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// What a group stands for; `None` when it is neither a list nor a range.
fn items(body: &str) -> Option<Result<Vec<String>, BadGlob>> {
    let parts = split(body);
    if parts.len() == 1 {
        return range(body);
    }
    let mut items = Vec::new();
    for part in parts {
        match expand(part) {
            Ok(expanded) => items.extend(expanded),
            Err(error) => return Some(Err(error)),
        }
        if items.len() > GLOB_ALTERNATIVES {
            return Some(Err(BadGlob::TooMany));
        }
    }
    Some(Ok(items))
}

/// Splits at the commas that stand in no inner group.
fn split(body: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0_usize);
    let mut characters = body.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => {
                characters.next();
            }
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&body[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&body[start..]);
    parts
}

/// `first..last` or `first..last..step`, of numbers or of single letters.
fn range(body: &str) -> Option<Result<Vec<String>, BadGlob>> {
    let mut parts = body.split("..");
    let (first, last) = (parts.next()?, parts.next()?);
    let step = match parts.next() {
        None => 1,
        Some(step) => number(step)?.unsigned_abs().max(1),
    };
    if parts.next().is_some() {
        return None;
    }
    if let (Some(from), Some(to)) = (number(first), number(last)) {
        let padded = |text: &str| text.trim_start_matches('-').starts_with('0') && text.len() > 1;
        let width = if padded(first) || padded(last) {
            first.len().max(last.len())
        } else {
            0
        };
        return Some(steps(from, to, step).map(|values| {
            values
                .into_iter()
                .map(|value| format!("{value:0width$}"))
                .collect()
        }));
    }
    let (from, to) = (letter(first)?, letter(last)?);
    Some(steps(from.into(), to.into(), step).map(|values| {
        values
            .into_iter()
            .filter_map(|value| u8::try_from(value).ok())
            .map(|value| char::from(value).to_string())
            .collect()
    }))
}

fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    // Longer ones are no file names, and could overflow.
    let sound =
        (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    sound.then(|| text.parse().ok()).flatten()
}

fn letter(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [letter] if letter.is_ascii_alphabetic() => Some(*letter),
        _ => None,
    }
}

fn steps(from: i64, to: i64, step: u64) -> Result<Vec<i64>, BadGlob> {
    if from.abs_diff(to) / step >= GLOB_ALTERNATIVES as u64 {
        return Err(BadGlob::TooMany);
    }
    let count = from.abs_diff(to) / step;
    let signed = i64::try_from(step).map_err(|_| BadGlob::TooMany)?;
    let signed = if from <= to { signed } else { -signed };
    Ok((0..=count)
        .filter_map(|index| i64::try_from(index).ok())
        .map(|index| from + index * signed)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_shells_do() {
        for (pattern, expanded) in [
            ("a", "a"),
            ("{a,b}", "a b"),
            ("x{a,b}y{c,d}", "xayc xayd xbyc xbyd"),
            ("*.{gz,bz2,xz}", "*.gz *.bz2 *.xz"),
            ("{a}", "{a}"),
            ("{}", "{}"),
            ("a{b,c{d,e}}f", "abf acdf acef"),
            ("x{{a,b}}y", "x{a}y x{b}y"),
            ("{a,}b", "ab b"),
            ("a,b}", "a,b}"),
            ("{a,b}}", "a} b}"),
            (r"\{a,b}", r"\{a,b}"),
            (r"{a\,b,c}", r"a\,b c"),
            ("{1..3}", "1 2 3"),
            ("{3..1}", "3 2 1"),
            ("{-1..1}", "-1 0 1"),
            ("{08..11}", "08 09 10 11"),
            ("{1..10..4}", "1 5 9"),
            ("{a..e..2}", "a c e"),
            ("{1..3,x}", "1..3 x"),
            ("{1..}", "{1..}"),
            ("{1..2..3..4}", "{1..2..3..4}"),
            ("{a..3}", "{a..3}"),
        ] {
            let expected: Vec<_> = expanded.split(' ').map(str::to_owned).collect();
            assert_eq!(expand(pattern).unwrap(), expected, "{pattern}");
        }
    }

    #[test]
    fn never_without_bound() {
        for pattern in [
            "{1..1000000}".to_owned(),
            "{a,b}".repeat(10),
            "{1..100}{1..100}".to_owned(),
            "{-999999999999999..999999999999999}".to_owned(),
            format!("{}a,b{}", "{".repeat(4000), "}".repeat(4000)),
        ] {
            assert_eq!(
                expand(&pattern),
                Err(BadGlob::TooMany),
                "{}",
                &pattern[..12]
            );
        }
    }

    #[test]
    fn never_open() {
        for pattern in ["{a,b", "{{a,b}", "{a,{b}", r"{a\}", &"{".repeat(4000)] {
            assert_eq!(expand(pattern), Err(BadGlob::Unclosed('{')), "{pattern}");
        }
    }

    /// A pattern as a tree, with the texts it stands for: the model.
    fn tree() -> impl Strategy<Value = (String, Vec<String>)> {
        let leaf = "[a-z*./]{0,3}".prop_map(|text| (text.clone(), vec![text]));
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 2..4).prop_map(|items| {
                    let pattern: Vec<_> = items.iter().map(|item| item.0.clone()).collect();
                    let texts = items.into_iter().flat_map(|item| item.1).collect();
                    (format!("{{{}}}", pattern.join(",")), texts)
                }),
                (inner.clone(), inner).prop_map(|(one, other)| {
                    let texts = one
                        .1
                        .iter()
                        .flat_map(|a| other.1.iter().map(move |b| format!("{a}{b}")));
                    (format!("{}{}", one.0, other.0), texts.collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn equals_the_model((pattern, texts) in tree()) {
            prop_assume!(texts.len() <= GLOB_ALTERNATIVES);
            prop_assert_eq!(expand(&pattern).unwrap(), texts);
        }

        #[test]
        fn takes_any_text(pattern in r"[{},.\\0-9a-c-]{0,40}") {
            let _ = expand(&pattern);
        }
    }
}
