//! What a file is called at its destinations: its stable name, made from a template or by a
//! regular expression over its path, as the original made it.
//!
//! Text that comes from the file's own path is never searched for substitutions: a file called
//! `{ino}` keeps its name.

use regex::bytes::{Captures, Regex};

use crate::sys::file::FileStat;
use crate::types::{BadPath, Shown, StableName};

/// The original's default for `rename`.
pub const DEFAULT_TEMPLATE: &str = "{name}.{mtime}";

/// What the substitutions say of a file. Times are milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileFacts {
    /// When it was discovered.
    pub time: i64,
    /// Its last access.
    pub atime: i64,
    /// Its last modification.
    pub mtime: i64,
    /// The last change of its inode, from before we linked it.
    pub ctime: i64,
    /// Its inode number.
    pub ino: u64,
    /// The number of its device.
    pub dev: u64,
}

/// How the files of one pattern are called.
#[derive(Debug, Clone)]
pub struct Naming {
    regex: Option<Regex>,
    parts: Vec<Part>,
}

/// A piece of a template; the pattern's `{name}` has become a literal.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Fact(Fact),
    /// `$1` to `$99`; a group that took no part is empty. `$&` is group 0.
    Group(usize),
    /// `` $` ``
    Before,
    /// `$'`
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    Time,
    Atime,
    Mtime,
    Ctime,
    Ino,
    Dev,
}

impl Fact {
    const ALL: [(&'static str, Self); 6] = [
        ("time", Self::Time),
        ("atime", Self::Atime),
        ("mtime", Self::Mtime),
        ("ctime", Self::Ctime),
        ("ino", Self::Ino),
        ("dev", Self::Dev),
    ];
}

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNaming {
    /// `{something}`.
    #[error("unknown substitution `{{{0}}}`")]
    Substitution(String),
    /// `{` without `}`.
    #[error("a `{{` without its `}}`")]
    Unclosed,
    /// No file could be called that.
    #[error("no file can be called so: {0}")]
    Path(#[from] BadPath),
}

impl BadNaming {
    /// What to do about it.
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Substitution(_) => Some(
                "there are {name}, {time}, {atime}, {mtime}, {ctime}, {ino} and {dev}; a brace is written {{",
            ),
            Self::Unclosed => Some("a brace is written {{"),
            Self::Path(_) => None,
        }
    }
}

/// A name that came out for a file and cannot be used; the file cannot be delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("would be called \"{shown}\": {problem}; change `rename` or `regex_to` of its pattern")]
pub struct NameError {
    /// What came out, fit for a terminal.
    pub shown: String,
    /// Why it cannot be a name.
    pub problem: BadPath,
}

impl Naming {
    /// Names from a template (`rename`), by default `{name}.{mtime}`; `name` is the pattern's.
    pub fn template(name: &str, template: Option<&str>) -> Result<Self, BadNaming> {
        let naming = Self {
            regex: None,
            parts: parse(name, template.unwrap_or(DEFAULT_TEMPLATE), None)?,
        };
        // Its fixed text is the same for every file: what is wrong with it is known now.
        let example = naming.render(&FileFacts::default(), None);
        StableName::parse(relative(&example))?;
        Ok(naming)
    }

    /// Names by replacing the first match of `regex` in the file's path with `to`, in which
    /// JavaScript's `$1` to `$99`, `$&`, `` $` ``, `$'` and `$$` stand for what they do there.
    /// A path without a match stays as it is.
    pub fn regex(name: &str, regex: Regex, to: &str) -> Result<Self, BadNaming> {
        let parts = parse(name, to, Some(regex.captures_len() - 1))?;
        Ok(Self {
            regex: Some(regex),
            parts,
        })
    }

    /// The stable name of the file found at `source_path` (absolute), before any suffix that
    /// tells it from another file of that name.
    pub fn name(&self, source_path: &[u8], facts: &FileFacts) -> Result<StableName, NameError> {
        let name = match &self.regex {
            None => self.render(facts, None),
            Some(regex) => match regex.captures(source_path) {
                None => source_path.to_vec(),
                Some(captures) => {
                    let whole = captures.get_match();
                    let mut name = source_path[..whole.start()].to_vec();
                    name.extend(self.render(facts, Some((&captures, source_path))));
                    name.extend_from_slice(&source_path[whole.end()..]);
                    name
                }
            },
        };
        StableName::parse(relative(&name)).map_err(|problem| NameError {
            shown: Shown(&name).to_string(),
            problem,
        })
    }

    fn render(&self, facts: &FileFacts, found: Option<(&Captures<'_>, &[u8])>) -> Vec<u8> {
        let mut name = Vec::new();
        for part in &self.parts {
            match (part, found) {
                (Part::Literal(text), _) => name.extend_from_slice(text),
                (Part::Fact(fact), _) => name.extend_from_slice(facts.show(*fact).as_bytes()),
                (Part::Group(group), Some((captures, _))) => {
                    name.extend_from_slice(captures.get(*group).map_or(b"", |it| it.as_bytes()));
                }
                (Part::Before, Some((captures, path))) => {
                    name.extend_from_slice(&path[..captures.get_match().start()]);
                }
                (Part::After, Some((captures, path))) => {
                    name.extend_from_slice(&path[captures.get_match().end()..]);
                }
                // Only a template over a regular expression has these.
                (Part::Group(_) | Part::Before | Part::After, None) => {}
            }
        }
        name
    }
}

impl FileFacts {
    /// What `stat` says of a file discovered at `time` (milliseconds since 1970).
    pub fn of(stat: &FileStat, time: i64) -> Self {
        let milliseconds = |nanoseconds: i64| nanoseconds.div_euclid(1_000_000);
        Self {
            time,
            atime: milliseconds(stat.atime),
            mtime: milliseconds(stat.mtime),
            ctime: milliseconds(stat.ctime),
            ino: stat.inode.number,
            dev: stat.device_number(),
        }
    }

    fn show(&self, fact: Fact) -> String {
        match fact {
            Fact::Time => self.time.to_string(),
            Fact::Atime => self.atime.to_string(),
            Fact::Mtime => self.mtime.to_string(),
            Fact::Ctime => self.ctime.to_string(),
            Fact::Ino => self.ino.to_string(),
            Fact::Dev => self.dev.to_string(),
        }
    }
}

/// The name as a path beneath the datadir, as the original's path.join took it: without slashes
/// in front, doubled or at its end.
fn relative(name: &[u8]) -> Vec<u8> {
    let segments: Vec<&[u8]> = name
        .split(|&byte| byte == b'/')
        .filter(|segment| !segment.is_empty())
        .collect();
    segments.join(&b'/')
}

/// `name` with the suffix `.number`, for when `name` itself is taken.
pub fn with_suffix(name: &StableName, number: u64) -> Result<StableName, BadPath> {
    StableName::parse([name.as_bytes(), format!(".{number}").as_bytes()].concat())
}

/// Takes a template apart. `groups` is the number of the regular expression's groups; without one
/// `$` is a character like any other.
fn parse(name: &str, template: &str, groups: Option<usize>) -> Result<Vec<Part>, BadNaming> {
    let mut parts = Parts(Vec::new());
    let mut rest = template;
    while let Some(character) = rest.chars().next() {
        let after = &rest[character.len_utf8()..];
        rest = match (character, groups) {
            ('{', _) => parts.substitution(name, after)?,
            ('$', Some(groups)) => parts.reference(after, groups),
            _ => {
                parts.literal(&rest[..character.len_utf8()]);
                after
            }
        };
    }
    Ok(parts.0)
}

/// The parts so far; each method takes the text behind its first character and returns the rest.
struct Parts(Vec<Part>);

impl Parts {
    fn literal(&mut self, text: &str) {
        if let Some(Part::Literal(last)) = self.0.last_mut() {
            last.extend_from_slice(text.as_bytes());
        } else {
            self.0.push(Part::Literal(text.as_bytes().to_vec()));
        }
    }

    fn substitution<'a>(&mut self, name: &str, after: &'a str) -> Result<&'a str, BadNaming> {
        if let Some(rest) = after.strip_prefix('{') {
            self.literal("{");
            return Ok(rest);
        }
        let (wanted, rest) = after.split_once('}').ok_or(BadNaming::Unclosed)?;
        if wanted == "name" {
            self.literal(name);
            return Ok(rest);
        }
        match Fact::ALL.into_iter().find(|(known, _)| *known == wanted) {
            Some((_, fact)) => self.0.push(Part::Fact(fact)),
            None => return Err(BadNaming::Substitution(wanted.to_owned())),
        }
        Ok(rest)
    }

    /// ECMA-262, `GetSubstitution`: two digits when there is such a group, else one; what names no
    /// group stays as it is.
    fn reference<'a>(&mut self, after: &'a str, groups: usize) -> &'a str {
        for (sign, part) in [
            ("$", Part::Literal(b"$".to_vec())),
            ("&", Part::Group(0)),
            ("`", Part::Before),
            ("'", Part::After),
        ] {
            if let Some(rest) = after.strip_prefix(sign) {
                self.0.push(part);
                return rest;
            }
        }
        for digits in [2, 1] {
            let group = after
                .get(..digits)
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|text| text.parse().ok())
                .filter(|group| (1..=groups).contains(group));
            if let Some(group) = group {
                self.0.push(Part::Group(group));
                return &after[digits..];
            }
        }
        self.literal("$");
        after
    }
}
