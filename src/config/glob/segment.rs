//! One segment of a pattern, translated for the `glob` crate: minimatch knows escapes and
//! `[^a]`, the crate does not.

use std::fmt;

use glob::{MatchOptions, Pattern};

use super::BadGlob;

const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// What a segment of a path is matched against.
#[derive(Debug, Clone)]
pub(super) enum Segment {
    /// `**`: any number of segments that do not begin with a dot; at least one at the end.
    Any,
    Literal(Vec<u8>),
    Wild(Pattern),
}

impl Segment {
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Any => !name.is_empty() && !name.starts_with(b"."),
            Self::Literal(literal) => literal == name,
            Self::Wild(pattern) => {
                // The crate lets an empty `*` stand before a leading dot.
                let hidden = name.starts_with(b".") && !pattern.as_str().starts_with('.');
                !name.is_empty()
                    && !hidden
                    && pattern.matches_with(&String::from_utf8_lossy(name), OPTIONS)
            }
        }
    }
}

/// Compiles a segment, which holds no slash.
pub(super) fn segment(text: &str) -> Result<Segment, BadGlob> {
    match text {
        "**" => return Ok(Segment::Any),
        ".." => return Err(BadGlob::Detour),
        _ => {}
    }
    let Translated {
        pattern,
        literal,
        wild,
    } = translate(text)?;
    if !wild {
        return Ok(Segment::Literal(literal.into_bytes()));
    }
    // Every construct was written by `translate`, which writes only what the crate takes.
    Pattern::new(&pattern)
        .map(Segment::Wild)
        .map_err(|_| BadGlob::Range(text.to_owned()))
}

/// A segment in the words of the `glob` crate, and as plain text for when nothing in it is wild.
#[derive(Default)]
struct Translated {
    pattern: String,
    literal: String,
    wild: bool,
}

impl Translated {
    fn push(&mut self, character: char) {
        self.literal.push(character);
        if matches!(character, '*' | '?' | '[' | ']') {
            self.pattern.push('[');
            self.pattern.push(character);
            self.pattern.push(']');
        } else {
            self.pattern.push(character);
        }
    }

    fn push_wild(&mut self, pattern: &str) {
        self.pattern.push_str(pattern);
        self.wild = true;
    }
}

fn translate(text: &str) -> Result<Translated, BadGlob> {
    let mut translated = Translated::default();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\\' => {
                let escaped = rest.chars().next().unwrap_or('\\');
                rest = rest.strip_prefix(escaped).unwrap_or(rest);
                translated.push(escaped);
            }
            // `**` within a segment is no more than `*`.
            '*' => {
                rest = rest.trim_start_matches('*');
                translated.push_wild("*");
            }
            '?' => translated.push_wild("?"),
            '[' => {
                let (class, behind) = Class::parse(rest)?;
                rest = behind;
                match class.as_literal() {
                    Some(literal) => translated.push(literal),
                    None => translated.push_wild(&class.to_string()),
                }
            }
            _ => translated.push(character),
        }
    }
    Ok(translated)
}

/// A bracket expression.
#[derive(Default)]
struct Class {
    negated: bool,
    singles: Vec<char>,
    ranges: Vec<(char, char)>,
}

impl Class {
    /// The class whose opening bracket stands right before `text`, and what follows it.
    fn parse(text: &str) -> Result<(Self, &str), BadGlob> {
        let inner = text.strip_prefix(['!', '^']).unwrap_or(text);
        let mut class = Self {
            negated: inner.len() < text.len(),
            ..Self::default()
        };
        let mut members: Vec<(char, bool)> = Vec::new();
        let mut characters = inner.char_indices();
        while let Some((index, character)) = characters.next() {
            match character {
                ']' if index > 0 => {
                    class.fill(&members)?;
                    return Ok((class, &inner[index + 1..]));
                }
                '[' if inner[index + 1..].starts_with(':') => return Err(BadGlob::CharacterClass),
                '\\' => match characters.next() {
                    Some((_, escaped)) => members.push((escaped, true)),
                    None => break,
                },
                _ => members.push((character, false)),
            }
        }
        Err(BadGlob::Unclosed('['))
    }

    /// Sorts the members, each with whether it was escaped, into single ones and ranges.
    fn fill(&mut self, members: &[(char, bool)]) -> Result<(), BadGlob> {
        let mut rest = members;
        loop {
            match rest {
                [] => return Ok(()),
                [(from, _), ('-', false), (to, _), behind @ ..] => {
                    let plain = |end: &char| !matches!(end, '-' | ']' | '!');
                    if from > to || !plain(from) || !plain(to) {
                        return Err(BadGlob::Range(format!("{from}-{to}")));
                    }
                    self.ranges.push((*from, *to));
                    rest = behind;
                }
                [(single, _), behind @ ..] => {
                    if !self.singles.contains(single) {
                        self.singles.push(*single);
                    }
                    rest = behind;
                }
            }
        }
    }

    /// A class of one character is that character, a dot aside: a leading dot in brackets is not
    /// one that is written out.
    fn as_literal(&self) -> Option<char> {
        match self.singles[..] {
            [single] if !self.negated && self.ranges.is_empty() && single != '.' => Some(single),
            _ => None,
        }
    }
}

/// The class in the `glob` crate's words, which know no escapes: `]` must stand first, `-` last,
/// and `!` not first.
impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain: String = self
            .singles
            .iter()
            .filter(|single| !matches!(single, ']' | '-' | '!'))
            .collect();
        let special = |character: char, text: &'static str| {
            if self.singles.contains(&character) {
                text
            } else {
                ""
            }
        };
        let (bracket, bang, dash) = (special(']', "]"), special('!', "!"), special('-', "-"));
        f.write_str(if self.negated { "[!" } else { "[" })?;
        f.write_str(bracket)?;
        for (from, to) in &self.ranges {
            write!(f, "{from}-{to}")?;
        }
        f.write_str(&plain)?;
        if bracket.is_empty() && self.ranges.is_empty() && plain.is_empty() {
            write!(f, "{dash}{bang}]")
        } else {
            write!(f, "{bang}{dash}]")
        }
    }
}
