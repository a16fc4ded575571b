//! A YAML document as a tree of plain nodes, read with bounds, and the line of any of them.
//!
//! Duplicate keys are refused where they stand. Only a document with a fault is looked at a second
//! time, for the line: the parser itself is led to the node and reports its own position there, so
//! that flow style, anchors and folded text need no scanner of ours.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{Fault, Step};

/// A node of a document. Keys are text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The node in words, for "expected ..., found ...".
    pub(super) fn found(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("the truth value {value}"),
            Self::Integer(value) => format!("the number {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Text(text) => format!("the text \"{}\"", text.escape_debug()),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping of keys".to_owned(),
        }
    }
}

/// A place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Counted from 1.
    pub(super) line: usize,
    /// Bytes from the start.
    pub(super) index: usize,
}

/// Reads one document. `Null` when there is nothing in it.
pub(super) fn parse(bytes: &[u8]) -> Result<(&str, Node), Fault> {
    let text = text_of(bytes)?;
    // A document without aliases has at most one node a byte; one with them may not multiply
    // itself beyond that.
    let budget = Cell::new(text.len() + 1);
    let seed = NodeSeed { budget: &budget };
    match seed.deserialize(serde_yaml::Deserializer::from_str(text)) {
        Ok(node) => Ok((text, node)),
        Err(_) if is_blank(text) => Ok((text, Node::Null)),
        Err(error) => Err(fault_of(text, &error)),
    }
}

fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---" || line == "..."
    })
}

fn text_of(bytes: &[u8]) -> Result<&str, Fault> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(
            fault(1, "the file begins with a byte order mark").with("save it as UTF-8 without BOM")
        );
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = line_at(bytes, error.valid_up_to());
        fault(line, "not UTF-8 text").with("save the file as UTF-8")
    })?;
    match text.bytes().position(|byte| byte == 0) {
        Some(index) => Err(fault(
            line_at(bytes, index),
            "a NUL byte: this is no text file",
        )),
        None => Ok(text),
    }
}

fn line_at(bytes: &[u8], index: usize) -> usize {
    bytes[..index].split(|&byte| byte == b'\n').count()
}

fn fault(line: usize, problem: impl Into<String>) -> Fault {
    Fault {
        line,
        key: String::new(),
        problem: problem.into(),
        hint: None,
    }
}

impl Fault {
    fn with(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

/// The parser's error as a fault: its line, its words without their position, and a hint for the
/// mistakes that people make.
fn fault_of(text: &str, error: &serde_yaml::Error) -> Fault {
    let words = without_positions(&error.to_string());
    let Some(location) = error.location() else {
        return fault_without_location(text, &words);
    };
    let line = location.line().min(text.lines().count().max(1));
    let found = fault(line, words);
    let written = text.lines().nth(line - 1).unwrap_or_default();
    let indent = &written[..written.len() - written.trim_start().len()];
    if found.problem.contains("alias") || found.problem.contains("unknown anchor") {
        found.with("a value that begins with * or & must stand in quotes")
    } else if indent.contains('\t')
        || found.problem.contains("cannot start any token") && written.contains('\t')
    {
        found.with("YAML is indented with spaces, not with tabs")
    } else if found.problem.contains("cannot start any token") {
        found.with("a value that begins with a special character must stand in quotes")
    } else if found.problem.contains("recursion limit") {
        found.with("nothing in a configuration is nested that deeply")
    } else {
        found
    }
}

/// Two of the parser's errors come without a location.
fn fault_without_location(text: &str, words: &str) -> Fault {
    let line_where =
        |test: &dyn Fn(&str) -> bool| text.lines().position(test).map_or(1, |index| index + 1);
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
    let has_alias = |line: &str| line.contains(" *") || line.contains("[*") || line.contains(",*");
    fault(line_where(&has_alias), words)
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

#[derive(Clone, Copy)]
struct NodeSeed<'a> {
    budget: &'a Cell<usize>,
}

impl NodeSeed<'_> {
    fn spend<E: de::Error>(self) -> Result<(), E> {
        match self.budget.get().checked_sub(1) {
            Some(left) => {
                self.budget.set(left);
                Ok(())
            }
            None => Err(E::custom(
                "the aliases of this document multiply without bound",
            )),
        }
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.spend().map(|()| Node::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.spend().map(|()| Node::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.visit_i128(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.visit_i128(value.into())
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.spend().map(|()| Node::Integer(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        self.visit_i128(i128::try_from(value).unwrap_or(i128::MAX))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        self.spend().map(|()| Node::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        self.spend().map(|()| Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        self.spend()?;
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element_seed(self)? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        self.spend()?;
        let mut entries: Vec<(String, Node)> = Vec::new();
        while let Some(key) = map.next_key_seed(KeySeed {
            refuse: &|key| entries.iter().any(|(known, _)| known == key),
            because: "this key stands here a second time",
        })? {
            let value = map.next_value_seed(self)?;
            entries.push((key, value));
        }
        Ok(Node::Map(entries))
    }
}

/// Reads a key, and fails *at the key* when it is one to be refused.
struct KeySeed<'a> {
    refuse: &'a dyn Fn(&str) -> bool,
    because: &'static str,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<String, E> {
        if (self.refuse)(key) {
            Err(E::custom(format!("{key}: {}", self.because)))
        } else {
            Ok(key.to_owned())
        }
    }
}

/// Where the node stands to which `steps` lead, or (`on_key`) the key that is their last step.
pub(super) fn locate(text: &str, steps: &[Step], on_key: bool) -> Option<Position> {
    let error = Locate { steps, on_key }
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .err()?;
    error.location().map(|location| Position {
        line: location.line(),
        index: location.index(),
    })
}

/// Follows the steps and fails where they end, so that the parser tells the place.
#[derive(Clone, Copy)]
struct Locate<'a> {
    steps: &'a [Step],
    on_key: bool,
}

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the place looked for")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), steps)) = self.steps.split_first() else {
            return Err(de::Error::custom("here"));
        };
        for _ in 0..*wanted {
            list.next_element::<de::IgnoredAny>()?;
        }
        list.next_element_seed(Self { steps, ..self })?;
        Err(de::Error::custom("here"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), steps)) = self.steps.split_first() else {
            return Err(de::Error::custom("here"));
        };
        let at_key = self.on_key && steps.is_empty();
        while let Some(key) = map.next_key_seed(KeySeed {
            refuse: &|key| at_key && key == wanted,
            because: "here",
        })? {
            if key == *wanted {
                map.next_value_seed(Self { steps, ..self })?;
            } else {
                map.next_value::<de::IgnoredAny>()?;
            }
        }
        Err(de::Error::custom("here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(text: &str, steps: &[Step], on_key: bool) -> usize {
        locate(text, steps, on_key).unwrap().line
    }

    #[test]
    fn every_node_has_its_line() {
        let text = "a: 1\nb:\n- c: x\n  d: |\n    two\n    lines\n- {c: y,\n   d: z}\n";
        let key = |key: &str| Step::Key(key.to_owned());
        assert_eq!(line_of(text, &[key("a")], false), 1);
        assert_eq!(line_of(text, &[key("b")], true), 2);
        assert_eq!(
            line_of(text, &[key("b"), Step::Index(0), key("d")], true),
            4
        );
        assert_eq!(
            line_of(text, &[key("b"), Step::Index(1), key("c")], false),
            7
        );
        assert_eq!(
            line_of(text, &[key("b"), Step::Index(1), key("d")], false),
            8
        );
        // A key that is not there: the mapping that lacks it.
        assert_eq!(
            line_of(text, &[key("b"), Step::Index(1), key("e")], false),
            7
        );
    }

    #[test]
    fn positions_are_cut_from_the_parsers_words() {
        assert_eq!(
            without_positions("did not find x at line 3 column 1, while y at line 2 column 7"),
            "did not find x, while y"
        );
    }
}
