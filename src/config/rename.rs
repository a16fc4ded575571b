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
    source: String,
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
        let source = template.unwrap_or(DEFAULT_TEMPLATE);
        let naming = Self {
            regex: None,
            source: source.to_owned(),
            parts: parse(name, source, None)?,
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
            source: to.to_owned(),
            parts,
        })
    }

    /// The regular expression as it was written, if there is one.
    pub fn regex_from(&self) -> Option<&str> {
        self.regex.as_ref().map(Regex::as_str)
    }

    /// The template as it was written: `regex_to` with a regular expression, else `rename`.
    pub fn source(&self) -> &str {
        &self.source
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::bytes::RegexBuilder;

    const FACTS: FileFacts = FileFacts {
        time: 1,
        atime: 2,
        mtime: 3,
        ctime: -4,
        ino: 5,
        dev: 6,
    };

    fn regex(from: &str) -> Regex {
        RegexBuilder::new(from).unicode(false).build().unwrap()
    }

    fn named(from: &str, to: &str, path: &str) -> String {
        let naming = Naming::regex("p", regex(from), to).unwrap();
        naming.name(path.as_bytes(), &FACTS).unwrap().to_string()
    }

    #[test]
    fn templates() {
        for (template, name) in [
            (None, "p.3"),
            (Some("{name}.{mtime}"), "p.3"),
            (
                Some("{time}-{atime}-{mtime}-{ctime}-{ino}-{dev}"),
                "1-2-3--4-5-6",
            ),
            (Some("{{name}.{{{ino}}"), "{name}.{5}"),
            (Some("/x//{name}/y/"), "x/p/y"),
            (Some("$1$$"), "$1$$"),
        ] {
            let naming = Naming::template("p", template).unwrap();
            assert_eq!(
                naming.name(b"/a", &FACTS).unwrap().to_string(),
                name,
                "{template:?}"
            );
        }
        // A brace in the pattern's name is no substitution.
        let naming = Naming::template("{ino}", None).unwrap();
        assert_eq!(naming.name(b"/a", &FACTS).unwrap().to_string(), "{ino}.3");
    }

    #[test]
    fn templates_that_name_no_file() {
        for (template, problem) in [
            ("{host}", BadNaming::Substitution("host".to_owned())),
            ("{}", BadNaming::Substitution(String::new())),
            ("a{name", BadNaming::Unclosed),
            ("", BadNaming::Path(BadPath::EmptySegment)),
            ("//", BadNaming::Path(BadPath::EmptySegment)),
            ("../{name}", BadNaming::Path(BadPath::DotSegment)),
            (".shaftlog/{name}", BadNaming::Path(BadPath::Private)),
        ] {
            let error = Naming::template("p", Some(template)).unwrap_err();
            assert_eq!(error, problem, "{template}");
        }
        assert!(Naming::template("..", Some("{name}")).is_err());
    }

    #[test]
    fn regular_expressions() {
        for (from, to, path, name) in [
            (
                "^/var/log/sudo-io/(.*)",
                "sudo-io/$1",
                "/var/log/sudo-io/00/log",
                "sudo-io/00/log",
            ),
            ("log", "LOG", "/var/log/log", "var/LOG/log"),
            ("nothing", "x", "/var/log/a", "var/log/a"),
            ("^/(v)(a)(r)", "$3$2$1", "/var/x", "rav/x"),
            ("a", "<$&>", "/a/b", "<a>/b"),
            ("b", "[$`|$']", "/abc", "a[/a|c]c"),
            ("a", "$$1", "/a", "$1"),
            ("(a)", "$1_x", "/a", "a_x"),
            ("(a)", "$10", "/a", "a0"),
            ("(a)", "$01", "/a", "a"),
            ("(a)", "$2$0$00$", "/a", "$2$0$00$"),
            ("(a)|(b)", "x$2", "/a", "x"),
            (
                "(a)(b)(c)(d)(e)(f)(g)(h)(i)(j)",
                "$10$11",
                "/abcdefghij",
                "ja1",
            ),
            ("^/", "{name}/{ino}/{{", "/a", "p/5/{a"),
            // Text of the path is no substitution.
            ("^/(.*)", "$1.{ino}", "/{ino}$1", "{ino}$1.5"),
            // Unicode off: a dot is a byte.
            ("^/.", "x", "/\u{e4}b", "x%A4b"),
        ] {
            assert_eq!(named(from, to, path), name, "{from} {to} {path}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_is_the_files_error() {
        let naming = Naming::regex("p", regex("^/a/(.*)$"), "$1").unwrap();
        let error = naming.name(b"/a/../x", &FACTS).unwrap_err();
        assert_eq!(error.problem, BadPath::DotSegment);
        assert_eq!(
            naming.name(b"/a/", &FACTS).unwrap_err().problem,
            BadPath::EmptySegment
        );
        let long = [b"/a/".to_vec(), vec![b'x'; 256]].concat();
        assert_eq!(
            naming.name(&long, &FACTS).unwrap_err().problem,
            BadPath::SegmentTooLong
        );
        assert_eq!(naming.name(b"/a/\xff", &FACTS).unwrap().as_bytes(), b"\xff");
    }

    #[test]
    fn times_before_1970_are_floored_as_in_javascript() {
        let directory = tempfile::tempdir().unwrap();
        let mut stat = crate::sys::file::stat_path(directory.path()).unwrap();
        (stat.atime, stat.mtime, stat.ctime) = (1_999_999, 1_000_000, -1);
        let facts = FileFacts::of(&stat, 9);
        assert_eq!(
            (facts.time, facts.atime, facts.mtime, facts.ctime),
            (9, 1, 1, -1)
        );
        assert_eq!(facts.ino, stat.inode.number);
    }

    /// ECMA-262's words, character by character, over a matched path of ASCII.
    fn model(
        to: &str,
        path: &str,
        whole: std::ops::Range<usize>,
        groups: &[Option<&str>],
    ) -> String {
        let to: Vec<char> = to.chars().collect();
        let digit = |index: usize| to.get(index).and_then(|digit| digit.to_digit(10));
        let mut result = path[..whole.start].to_owned();
        let mut index = 0;
        while index < to.len() {
            let next = to.get(index + 1);
            let one = digit(index + 1).map(|group| group as usize);
            let two = one
                .zip(digit(index + 2))
                .map(|(tens, ones)| tens * 10 + ones as usize);
            let exists = |group: &usize| (1..=groups.len()).contains(group);
            let mut used = 2;
            match (to[index], next) {
                ('$', Some('$')) => result.push('$'),
                ('$', Some('&')) => result.push_str(&path[whole.clone()]),
                ('$', _) if two.as_ref().is_some_and(exists) => {
                    result.push_str(groups[two.unwrap() - 1].unwrap_or(""));
                    used = 3;
                }
                ('$', _) if one.as_ref().is_some_and(exists) => {
                    result.push_str(groups[one.unwrap() - 1].unwrap_or(""));
                }
                (other, _) => {
                    result.push(other);
                    used = 1;
                }
            }
            index += used;
        }
        result + &path[whole.end..]
    }

    proptest! {
        #[test]
        fn replacing_equals_the_model(
            to in "x[$&0-9ab/_]{0,12}",
            path in "/[a-c]{1,8}",
            from in prop::sample::select(vec![
                "(a)|(b)", "b+", "(a*)(b*)(c*)", "^/(.)", "(.)(.)?(.)?(.)?(.)?(.)?(.)?(.)?(.)?(.)?(.)?$",
            ]),
        ) {
            let regex = regex(from);
            let naming = Naming::regex("p", regex.clone(), &to).unwrap();
            let expected = match regex.captures(path.as_bytes()) {
                None => path.clone(),
                Some(captures) => {
                    let groups: Vec<_> = captures
                        .iter()
                        .skip(1)
                        .map(|group| group.map(|group| &path[group.range()]))
                        .collect();
                    model(&to, &path, captures.get_match().range(), &groups)
                }
            };
            let name = naming.name(path.as_bytes(), &FACTS).unwrap();
            prop_assert_eq!(name.as_bytes(), relative(expected.as_bytes()));
        }

        #[test]
        fn takes_any_template(template in r"[{}$&`'0-9a-z/.]{0,20}", path: Vec<u8>) {
            let _ = Naming::template("p", Some(&template));
            if let Ok(naming) = Naming::regex("p", regex("(a)(b)?"), &template) {
                let _ = naming.name(&path, &FACTS);
            }
        }
    }
}
