//! The line of any node. Only a document with a fault is looked at this second time: the parser
//! itself is led to the node and reports its own position there, so that flow style, anchors and
//! folded text need no scanner of ours.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{KeySeed, editors_line};
use crate::config::error::Step;

/// A place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Position {
    /// Counted from 1.
    pub(in crate::config) line: usize,
    /// Bytes from the start.
    pub(in crate::config) index: usize,
}

/// Where the node stands to which `steps` lead, or (`on_key`) the key that is their last step.
pub(in crate::config) fn locate(text: &str, steps: &[Step], on_key: bool) -> Option<Position> {
    let error = Locate { steps, on_key }
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .err()?;
    error.location().map(|location| Position {
        line: editors_line(text, location.line()),
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
        // A CR by itself ends a line for the parser, and for no editor.
        assert_eq!(
            line_of("# \r\r\u{85}\r\na: 1\r\nb: 2\n", &[key("b")], true),
            3
        );
        // A key that is not there: the mapping that lacks it.
        assert_eq!(
            line_of(text, &[key("b"), Step::Index(1), key("e")], false),
            7
        );
    }

    #[test]
    fn places_are_bytes() {
        let text = "# \u{e4}\u{2028}# \u{1f600}\na: 0x1\n";
        let steps = [Step::Key("a".to_owned())];
        let position = locate(text, &steps, false).unwrap();
        assert_eq!((position.line, &text[position.index..]), (2, "0x1\n"));
    }
}
