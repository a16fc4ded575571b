//! A YAML document as a tree of plain nodes, read with bounds, and the line of any of them.
//!
//! Duplicate keys are refused where they stand. A document whose aliases multiply, or one that is
//! nested without end, costs no more than its length.

mod faults;
mod locate;

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::Fault;
use faults::fault_of;
pub(super) use locate::locate;

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

/// The text without a byte order mark before it, which YAML allows (1.2.2, section 5.2) and editors
/// of other systems write.
fn text_of(bytes: &[u8]) -> Result<&str, Fault> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
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

/// The line, as editors count them, of what is the line `line` to the parser: a CR by itself ends
/// one for it, and so do three characters of Unicode.
fn editors_line(text: &str, line: usize) -> usize {
    let (mut ours, mut theirs) = (1, 1);
    let mut characters = text.chars().peekable();
    while theirs < line
        && let Some(character) = characters.next()
    {
        ours += usize::from(character == '\n');
        theirs += usize::from(match character {
            '\r' => characters.peek() != Some(&'\n'),
            '\n' | '\u{85}' | '\u{2028}' | '\u{2029}' => true,
            _ => false,
        });
    }
    ours
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

const BOMB: &str = "the aliases of this document multiply without bound";

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
        let mut entries = Vec::new();
        let mut known = HashSet::new();
        while let Some(key) = map.next_key_seed(KeySeed {
            refuse: &|key| known.contains(key),
            because: "stands here a second time",
        })? {
            known.insert(key.clone());
            entries.push((key, map.next_value_seed(self)?));
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
            Err(E::custom(format!("the key `{key}` {}", self.because)))
        } else {
            Ok(key.to_owned())
        }
    }
}
