//! A mapping of the document as typed fields: every reader names what it expected, what it found,
//! and the key at which it was.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Problem, Step};
use super::keys::{self, Key, Refusal};
use super::yaml::{self, Node};

/// Longest period or timeout that makes sense, and far below what clocks can add.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The keys of one mapping.
pub(super) struct Fields<'a> {
    text: &'a str,
    steps: Vec<Step>,
    entries: &'a [(String, Node)],
}

impl<'a> Fields<'a> {
    /// The mapping `node`, whose keys must all be among `known`; `whose` says what it describes.
    pub(super) fn of(
        text: &'a str,
        steps: Vec<Step>,
        node: &'a Node,
        known: &[Key],
        whose: &str,
    ) -> Result<Self, Problem> {
        let Node::Map(entries) = node else {
            let expected: Vec<_> = known
                .iter()
                .filter(|key| key.required)
                .map(|key| key.name)
                .collect();
            let problem = format!(
                "expected the keys of {whose} ({}), found {}",
                expected.join(", "),
                node.found()
            );
            return Err(Problem::new(steps, problem));
        };
        let fields = Self {
            text,
            steps,
            entries,
        };
        for (key, value) in entries {
            keys::check(key, known).map_err(|refusal| fields.refused(key, refusal).on_key())?;
            if *value == Node::Null {
                return Err(fields
                    .problem(key, "the key has no value")
                    .hint("give one, or leave the key out"));
            }
        }
        for key in known.iter().filter(|key| key.required) {
            if fields.node(key.name).is_none() {
                let problem = format!("{whose} lacks the key `{}`", key.name);
                return Err(Problem::new(fields.steps.clone(), problem).hint(key.what));
            }
        }
        Ok(fields)
    }

    fn node(&self, key: &str) -> Option<&'a Node> {
        self.entries
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, node)| node)
    }

    /// Whether `key` is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// The keys of the mapping at `key`, which must all be among `known`.
    pub(super) fn mapping(
        &self,
        key: &str,
        known: &[Key],
        whose: &str,
    ) -> Result<Option<Self>, Problem> {
        self.node(key)
            .map(|node| Self::of(self.text, self.at(key), node, known, whose))
            .transpose()
    }

    fn at(&self, key: &str) -> Vec<Step> {
        let mut steps = self.steps.clone();
        steps.push(Step::Key(key.to_owned()));
        steps
    }

    /// A problem with the value of `key`.
    pub(super) fn problem(&self, key: &str, problem: impl Into<String>) -> Problem {
        Problem::new(self.at(key), problem)
    }

    /// The refusal of `key` or its value as a problem.
    pub(super) fn refused(&self, key: &str, refusal: Refusal) -> Problem {
        let mut problem = self.problem(key, refusal.problem);
        problem.hint = refusal.hint;
        problem
    }

    fn expected(&self, key: &str, what: &str, node: &Node) -> Problem {
        self.problem(key, format!("expected {what}, found {}", node.found()))
    }

    /// The line at which the value of `key` stands.
    pub(super) fn line(&self, key: &str) -> usize {
        yaml::locate(self.text, &self.at(key), true).map_or(1, |position| position.line)
    }

    /// Text. Numbers and truth values are not taken for text: what they were written as is lost.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, Problem> {
        match self.node(key) {
            None => Ok(None),
            Some(Node::Text(text)) => Ok(Some(text)),
            Some(node @ (Node::Bool(_) | Node::Integer(_) | Node::Float(_))) => Err(self
                .expected(key, "text", node)
                .hint("put it in quotes if it is meant as text")),
            Some(node @ Node::Map(_)) => Err(self
                .expected(key, "text", node)
                .hint("a value that begins with { must stand in quotes")),
            Some(node) => Err(self.expected(key, "text", node)),
        }
    }

    /// One text or a list of them.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<&'a str>, Problem> {
        let Some(Node::List(nodes)) = self.node(key) else {
            return Ok(self.text(key)?.into_iter().collect());
        };
        nodes
            .iter()
            .map(|node| match node {
                Node::Text(text) => Ok(text.as_str()),
                node => Err(self.expected(key, "a list of texts", node)),
            })
            .collect()
    }

    /// One word or a list of them, where a whole number is a word, too.
    pub(super) fn words(&self, key: &str) -> Result<Vec<String>, Problem> {
        let what = "a word or a whole number, or a list of them";
        let word = |node: &Node| match node {
            Node::Text(text) => Ok(text.clone()),
            Node::Integer(number) => Ok(number.to_string()),
            node => Err(self.expected(key, what, node)),
        };
        match self.node(key) {
            None => Ok(Vec::new()),
            Some(Node::List(nodes)) => nodes.iter().map(word).collect(),
            Some(node) => Ok(vec![word(node)?]),
        }
    }

    /// An absolute path. A relative one would mean another place for each caller.
    pub(super) fn path(&self, key: &str) -> Result<Option<PathBuf>, Problem> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        if text.contains('\0') {
            return Err(self.problem(key, "the path holds a NUL character"));
        }
        if !text.starts_with('/') {
            let problem = format!(
                "expected an absolute path, found \"{}\"",
                text.escape_debug()
            );
            return Err(self
                .problem(key, problem)
                .hint("write the whole path, beginning with /"));
        }
        // Collects the components: no doubled or final slashes.
        let path: PathBuf = Path::new(text).components().collect();
        if text.split('/').any(|segment| segment == "..") {
            return Err(self
                .problem(
                    key,
                    format!("the path \"{}\" goes through `..`", text.escape_debug()),
                )
                .hint("write the path without detours"));
        }
        Ok(Some(path))
    }

    /// A whole number from `least` to `most`, written in decimal.
    pub(super) fn integer(&self, key: &str, least: u64, most: u64) -> Result<Option<u64>, Problem> {
        let what = format!("a whole number from {least} to {most}");
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        let Node::Integer(value) = node else {
            let problem = self.expected(key, &what, node);
            return Err(match node {
                Node::Text(text) if is_number(text) && text.starts_with('0') => {
                    problem.hint("write it in decimal, without a leading zero")
                }
                Node::Text(text) if is_number(text) => problem.hint("write it without quotes"),
                _ => problem,
            });
        };
        self.written_in_decimal(key)?;
        match u64::try_from(*value) {
            Ok(value) if (least..=most).contains(&value) => Ok(Some(value)),
            _ => Err(self.expected(key, &what, node)),
        }
    }

    /// Refuses `0o24637` and `0x299d`: YAML knows them, but who writes them means something else
    /// as often as not.
    fn written_in_decimal(&self, key: &str) -> Result<(), Problem> {
        let written = self.written(key);
        let digits = written.trim_start_matches(['+', '-']);
        let mut two = digits.bytes().take(2);
        if two.next() == Some(b'0') && two.next().is_some_and(|byte| byte.is_ascii_alphabetic()) {
            return Err(self
                .problem(key, "the number is not written in decimal")
                .hint("write it in decimal"));
        }
        Ok(())
    }

    /// A number written in octal, with a leading 0 or `0o`, up to `most`. YAML takes the one for text
    /// and the other for a number; one without either is decimal, and never what was meant.
    pub(super) fn octal(&self, key: &str, most: u32) -> Result<Option<u32>, Problem> {
        let what = format!("an octal number from 0000 to {most:04o}, with its leading 0");
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        let number = match node {
            Node::Text(text) => text
                .strip_prefix("0o")
                .or_else(|| text.strip_prefix('0'))
                .and_then(|digits| u32::from_str_radix(digits, 8).ok()),
            Node::Integer(number) if self.written(key).starts_with("0o") => {
                u32::try_from(*number).ok()
            }
            _ => None,
        };
        match (number.filter(|number| *number <= most), node) {
            (Some(number), _) => Ok(Some(number)),
            (None, Node::Integer(number)) => {
                let problem = self.expected(key, &what, node);
                let value = u32::try_from(*number).ok().filter(|it| *it <= most);
                let digits = u32::from_str_radix(&number.to_string(), 8).ok();
                Err(match (value, digits.filter(|it| *it <= most)) {
                    (Some(value), Some(digits)) => problem.hint(format!(
                        "in octal that is 0{value:o}; write 0{digits:o} if these digits are meant"
                    )),
                    (Some(meant), None) | (None, Some(meant)) => {
                        problem.hint(format!("write 0{meant:o} if that is meant"))
                    }
                    (None, None) => problem,
                })
            }
            (None, node) => Err(self.expected(key, &what, node)),
        }
    }

    /// The value of `key` as it is written, and what follows it.
    fn written(&self, key: &str) -> &'a str {
        yaml::locate(self.text, &self.at(key), false)
            .and_then(|position| self.text.get(position.index..))
            .unwrap_or_default()
    }

    /// A period: milliseconds as a whole number, or text with a unit. Never 0.
    pub(super) fn duration(&self, key: &str) -> Result<Option<Duration>, Problem> {
        let what = "milliseconds as a whole number, or text with a unit such as \"30s\"";
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        let duration = match node {
            Node::Integer(milliseconds) => {
                self.written_in_decimal(key)?;
                u64::try_from(*milliseconds).ok().map(Duration::from_millis)
            }
            Node::Text(text) => humantime::parse_duration(text).ok(),
            _ => None,
        };
        match duration {
            None => Err(self.expected(key, what, node)),
            Some(duration) if duration < Duration::from_millis(1) => {
                Err(self.problem(key, "expected a period of at least 1 millisecond"))
            }
            Some(duration) if duration > LONGEST => {
                Err(self.problem(key, "expected a period of at most 366 days"))
            }
            Some(duration) => Ok(Some(duration)),
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Problem> {
        match self.node(key) {
            None => Ok(None),
            Some(Node::Bool(flag)) => Ok(Some(*flag)),
            Some(node) => Err(self.expected(key, "true or false", node)),
        }
    }

    /// A number of bytes: a whole number, or text with a unit.
    pub(super) fn size(&self, key: &str) -> Result<Option<u64>, Problem> {
        let what = "bytes as a whole number, or text with a unit such as \"256MiB\"";
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        let bytes = match node {
            Node::Integer(bytes) => {
                self.written_in_decimal(key)?;
                u64::try_from(*bytes).ok()
            }
            Node::Text(text) => parse_size(text),
            _ => None,
        };
        match bytes {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(self.expected(key, what, node)),
        }
    }

    /// An address of this machine.
    pub(super) fn address(&self, key: &str) -> Result<Option<IpAddr>, Problem> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        if text == "localhost" {
            return Ok(Some(Ipv4Addr::LOCALHOST.into()));
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        bare.parse().map(Some).map_err(|_| {
            let problem = format!("expected an IP address, found \"{}\"", text.escape_debug());
            self.problem(key, problem).hint(
                "0.0.0.0 stands for every IPv4 address of this machine, \"::\" for all of them",
            )
        })
    }

    /// One of the words in `choices`.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, Problem> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        let chosen = choices
            .iter()
            .find(|(word, _)| matches!(node, Node::Text(text) if text == word));
        let words = || choices.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        chosen
            .map(|(_, choice)| Some(*choice))
            .ok_or_else(|| self.expected(key, &words().join(" or "), node))
    }

    /// The mappings of the list at `key`, which must not be empty.
    pub(super) fn list(&self, key: &str) -> Result<Vec<(Vec<Step>, &'a Node)>, Problem> {
        match self.node(key) {
            Some(Node::List(nodes)) if !nodes.is_empty() => Ok(nodes
                .iter()
                .enumerate()
                .map(|(index, node)| {
                    let mut steps = self.at(key);
                    steps.push(Step::Index(index));
                    (steps, node)
                })
                .collect()),
            Some(Node::List(_)) => Err(self.problem(key, "the list is empty")),
            Some(node) => Err(self
                .expected(key, "a list", node)
                .hint("each entry of a list begins with `- `")),
            None => Ok(Vec::new()),
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Bytes with a unit: `256MiB`, `1.5 GiB`, `10 GB`, `4096`.
fn parse_size(text: &str) -> Option<u64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if !is_number(whole) || fraction.len() > 9 || number.ends_with('.') {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    // At most nine digits: neither product can overflow 128 bits.
    let part = match fraction {
        "" => 0,
        digits => {
            digits.parse::<u128>().ok()? * u128::from(unit)
                / 10_u128.pow(u32::try_from(digits.len()).ok()?)
        }
    };
    whole
        .checked_mul(unit)?
        .checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("256MiB", Some(256 << 20)),
            ("256 MiB", Some(256 << 20)),
            ("1.5G", Some(3 << 29)),
            ("2kB", Some(2000)),
            ("", None),
            (".5G", None),
            ("1.", None),
            ("-1", None),
            ("1 PiB", None),
            ("99999999999T", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }
}
