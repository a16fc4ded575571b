//! Globs over absolute paths, as the original's minimatch reads them.
//!
//! Braces are expanded first; each alternative is then matched segment by segment, so that `*`
//! never crosses a slash, a leading dot must be written out, `**` alone in a segment stands for
//! any number of directories, and a walk can ask which directories to enter. Names are bytes:
//! what is not UTF-8 is matched as U+FFFD, one for each faulty sequence.

mod braces;
mod segment;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use segment::{Segment, segment};

/// Why a text is no glob of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadGlob {
    /// Nothing there.
    #[error("the pattern is empty")]
    Empty,
    /// A relative path.
    #[error("expected a pattern of absolute paths, beginning with /")]
    Relative,
    /// A path in `exclude` that can match nothing.
    #[error("expected a file name without slash, or a pattern that begins with / or **/")]
    RelativeExclude,
    /// `!pattern`.
    #[error("a leading ! is not supported: name what is wanted, and use `exclude` for the rest")]
    Negated,
    /// `#pattern`.
    #[error("a leading # would make the pattern a comment: write \\# if the name begins so")]
    Comment,
    /// `+(a|b)` and its kin.
    #[error("`{0}(...)` is not supported: write alternatives in braces, as in {{a,b}}")]
    Extended(char),
    /// `[[:alpha:]]`.
    #[error("character classes such as [:alpha:] are not supported: write ranges, as in [a-zA-Z]")]
    CharacterClass,
    /// `[a` and `{a,b`, which the original's minimatch took literally: whoever writes that means a
    /// class or a list, and would never hear of the files that are not found.
    #[error("`{0}` is never closed in its part of the path: close it, or write \\{0} for itself")]
    Unclosed(char),
    /// `[z-a]` and ranges to and from special characters.
    #[error("the range `{0}` is not understood")]
    Range(String),
    /// `/a/../b`.
    #[error("the pattern goes through `..`: write the path without detours")]
    Detour,
    /// `/var/log/`.
    #[error("the pattern names a directory: add what files to take, as in /* or /**")]
    Directory,
    /// Braces without bound.
    #[error(
        "the pattern's braces expand to more than 1000 alternatives, or it is longer than 4095 bytes"
    )]
    TooMany,
}

/// A compiled pattern of absolute paths.
#[derive(Debug, Clone)]
pub struct Glob {
    source: String,
    alternatives: Vec<Vec<Segment>>,
}

impl Glob {
    /// Compiles `pattern`, which must be absolute.
    pub fn parse(pattern: &str) -> Result<Self, BadGlob> {
        check_beginning(pattern)?;
        let mut alternatives = Vec::new();
        for alternative in braces::expand(pattern)? {
            let path = alternative.strip_prefix('/').ok_or(BadGlob::Relative)?;
            alternatives.push(segments(path)?);
        }
        Ok(Self {
            source: pattern.to_owned(),
            alternatives,
        })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Into how many alternatives its braces expand.
    pub(super) fn alternatives(&self) -> usize {
        self.alternatives.len()
    }

    /// True when the absolute path of a file matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.alternatives
            .iter()
            .any(|segments| States::after(segments, path).done)
    }

    /// True when a path below the absolute path `directory` may match: what a walk enters.
    pub fn may_descend(&self, directory: &[u8]) -> bool {
        self.alternatives
            .iter()
            .any(|segments| States::after(segments, directory).alive())
    }

    /// Directories, none below another, below which every match lies: where walks begin. They
    /// need not exist.
    pub fn roots(&self) -> Vec<PathBuf> {
        let mut roots: Vec<PathBuf> = self.alternatives.iter().map(|it| root(it)).collect();
        roots.sort();
        // Sorted by components, a directory stands before all that lies below it.
        roots.dedup_by(|below, above| below.starts_with(above));
        roots
    }

    /// True when `**` stands before any directory is named: the walk would be over `/proc` too.
    pub fn spans_the_machine(&self) -> bool {
        self.alternatives.iter().any(|segments| {
            segments
                .iter()
                .take_while(|segment| !matches!(segment, Segment::Literal(_)))
                .any(|segment| matches!(segment, Segment::Any))
        })
    }

    /// True when no match holds a segment that begins with a dot.
    pub fn is_dotless(&self) -> bool {
        self.alternatives
            .iter()
            .flatten()
            .all(|segment| match segment {
                Segment::Any => true,
                Segment::Literal(name) => !name.starts_with(b"."),
                Segment::Wild(pattern) => !pattern.as_str().starts_with('.'),
            })
    }

    /// True when every path below `directory` matches, those with a dot name in them aside.
    fn covers(&self, directory: &[u8]) -> bool {
        self.alternatives.iter().any(|segments| {
            matches!(segments.last(), Some(Segment::Any))
                && States::after(segments, directory).at.last() == Some(&true)
        })
    }
}

/// What `exclude` leaves out. A pattern without a slash is matched against a file's name, one
/// with a slash against its whole path.
#[derive(Debug, Clone, Default)]
pub struct Exclude {
    sources: Vec<String>,
    names: Vec<Segment>,
    paths: Vec<Glob>,
}

impl Exclude {
    /// Compiles the patterns; none leaves nothing out.
    pub fn parse<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, BadGlob> {
        let mut exclude = Self::default();
        for pattern in patterns {
            check_beginning(pattern)?;
            exclude.sources.push(pattern.to_owned());
            let alternatives = braces::expand(pattern)?;
            for alternative in alternatives {
                if !alternative.contains('/') {
                    // An empty alternative, as of `{a,}`, matches no name.
                    exclude.names.push(segment(&alternative)?);
                } else if let Some(path) = alternative.strip_prefix('/') {
                    exclude.push_path(pattern, path)?;
                } else if alternative.starts_with("**/") {
                    exclude.push_path(pattern, &alternative)?;
                } else {
                    return Err(BadGlob::RelativeExclude);
                }
            }
        }
        Ok(exclude)
    }

    fn push_path(&mut self, source: &str, path: &str) -> Result<(), BadGlob> {
        self.paths.push(Glob {
            source: source.to_owned(),
            alternatives: vec![segments(path)?],
        });
        Ok(())
    }

    /// The patterns as they were written.
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    /// Into how many alternatives the patterns' braces expand.
    pub(super) fn alternatives(&self) -> usize {
        self.names.len() + self.paths.len()
    }

    /// True when the file with this absolute path is left out.
    pub fn matches(&self, path: &[u8]) -> bool {
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        self.names.iter().any(|segment| segment.matches(name))
            || self.paths.iter().any(|glob| glob.matches(path))
    }

    /// True when everything below the absolute path `directory` is left out, paths with a dot name
    /// in them aside.
    pub fn covers(&self, directory: &[u8]) -> bool {
        self.paths.iter().any(|glob| glob.covers(directory))
    }
}

/// Where in a pattern one can be after some segments of a path.
struct States {
    /// `at[i]`: the next segment of the path meets the pattern's segment i.
    at: Vec<bool>,
    /// The pattern is used up.
    done: bool,
}

impl States {
    fn after(segments: &[Segment], path: &[u8]) -> Self {
        let mut states = Self {
            at: vec![false; segments.len()],
            done: false,
        };
        states.enter(segments, 0);
        for name in path
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
        {
            let before = std::mem::replace(&mut states.at, vec![false; segments.len()]);
            states.done = false;
            for (index, segment) in segments.iter().enumerate() {
                if before[index] && segment.matches(name) {
                    if matches!(segment, Segment::Any) {
                        states.enter(segments, index);
                    }
                    states.enter(segments, index + 1);
                }
            }
            if !states.alive() && !states.done {
                break;
            }
        }
        states
    }

    /// Marks `index`, and what lies behind a `**` that may stand for nothing.
    fn enter(&mut self, segments: &[Segment], index: usize) {
        match segments.get(index) {
            None => self.done = true,
            Some(segment) => {
                self.at[index] = true;
                if matches!(segment, Segment::Any) && index + 1 < segments.len() {
                    self.enter(segments, index + 1);
                }
            }
        }
    }

    fn alive(&self) -> bool {
        self.at.contains(&true)
    }
}

fn root(segments: &[Segment]) -> PathBuf {
    let mut path = PathBuf::from("/");
    // The last segment names a file, be it literal.
    for segment in &segments[..segments.len().saturating_sub(1)] {
        let Segment::Literal(name) = segment else {
            break;
        };
        path.push(OsString::from_vec(name.clone()));
    }
    path
}

fn check_beginning(pattern: &str) -> Result<(), BadGlob> {
    match pattern.chars().next() {
        None => return Err(BadGlob::Empty),
        Some('!') => return Err(BadGlob::Negated),
        Some('#') => return Err(BadGlob::Comment),
        Some(_) => {}
    }
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                characters.next();
            }
            '!' | '?' | '*' | '+' | '@' if characters.peek() == Some(&'(') => {
                return Err(BadGlob::Extended(character));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The segments of a pattern without its leading slash.
fn segments(path: &str) -> Result<Vec<Segment>, BadGlob> {
    if path.is_empty() || path.ends_with('/') {
        return Err(BadGlob::Directory);
    }
    let mut segments: Vec<Segment> = Vec::new();
    for text in path.split('/').filter(|text| !matches!(*text, "" | ".")) {
        let segment = segment(text)?;
        // `**/**` is `**`.
        if !matches!(
            (&segment, segments.last()),
            (Segment::Any, Some(Segment::Any))
        ) {
            segments.push(segment);
        }
    }
    if segments.is_empty() {
        Err(BadGlob::Directory)
    } else {
        Ok(segments)
    }
}
