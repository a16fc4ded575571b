//! The values of a script: bytes, and text with hashes and names in it.
//!
//! Bytes are written as strings and pieces of one endless stream, one behind the other:
//! `"hello\n" stream(0..100000) repeat("x", 9) name`. In text, `$H(bytes)` is their BLAKE3 in hex, `$E(bytes)`
//! their entity tag, `$D(bytes)` their Repr-Digest, `$name` a name's value and `$$` a dollar.

use std::collections::HashMap;

use base64::Engine as _;

/// What a script has named so far.
#[derive(Default)]
pub struct Names(HashMap<String, Vec<u8>>);

impl Names {
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// A name's value as text.
    pub fn text(&self, name: &str) -> Result<String, String> {
        let value = self.0.get(name).ok_or(format!("no name `{name}`"))?;
        String::from_utf8(value.clone()).map_err(|_| format!("`{name}` is no text"))
    }

    /// The bytes that an expression means.
    pub fn bytes(&self, expression: &str) -> Result<Vec<u8>, String> {
        let mut rest = expression;
        let bytes = self.pieces(&mut rest)?;
        if rest.is_empty() {
            Ok(bytes)
        } else {
            Err(format!("not bytes: `{rest}`"))
        }
    }

    /// Text with everything after a `$` replaced.
    pub fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            filled.push_str(before);
            let word = word(after);
            rest = &after[word.len()..];
            match (word, rest.strip_prefix('(')) {
                ("", _) if rest.starts_with('$') => {
                    filled.push('$');
                    rest = &rest[1..];
                }
                ("H" | "E" | "D", Some(inner)) => {
                    let mut inner = inner;
                    let hash = blake3::hash(&self.pieces(&mut inner)?);
                    rest = inner.strip_prefix(')').ok_or("a `)` is missing")?;
                    filled.push_str(&match word {
                        "H" => hash.to_hex().to_string(),
                        "E" => etag(&hash),
                        _ => digest(&hash),
                    });
                }
                _ => filled.push_str(&self.text(word)?),
            }
        }
        filled.push_str(rest);
        Ok(filled)
    }

    /// Reads pieces of bytes up to a `)`, or to the end.
    fn pieces(&self, rest: &mut &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        loop {
            *rest = rest.trim_start();
            if rest.is_empty() || rest.starts_with(')') {
                return Ok(bytes);
            }
            if let Some(text) = rest.strip_prefix('"') {
                let end = string(text, &mut bytes)?;
                *rest = &text[end..];
            } else if let Some(range) = rest.strip_prefix("stream(") {
                let (range, after) = range.split_once(')').ok_or("a `)` is missing")?;
                bytes.extend(stream(range)?);
                *rest = after;
            } else if let Some(text) = rest.strip_prefix("repeat(\"") {
                let mut once = Vec::new();
                let text = &text[string(text, &mut once)?..];
                let (times, after) = text.split_once(')').ok_or("a `)` is missing")?;
                let times = times.trim_start_matches([',', ' ']).parse();
                bytes.extend(once.repeat(times.map_err(|_| "repeat how often?")?));
                *rest = after;
            } else {
                let name = word(rest);
                let value = self.0.get(name).ok_or(format!("not bytes: `{rest}`"))?;
                bytes.extend_from_slice(value);
                *rest = &rest[name.len()..];
            }
        }
    }
}

/// `"blake3:<hex>"`.
pub fn etag(hash: &blake3::Hash) -> String {
    format!("\"blake3:{hash}\"")
}

/// `blake3=:<base64>:`.
pub fn digest(hash: &blake3::Hash) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(hash.as_bytes());
    format!("blake3=:{base64}:")
}

/// The letters, digits and underscores in front.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// Reads a string's contents up to its closing quote; how far that is.
fn string(text: &str, into: &mut Vec<u8>) -> Result<usize, String> {
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok(at + 1),
            '\\' => match characters.next().map(|(_, c)| c) {
                Some('n') => into.push(b'\n'),
                Some('r') => into.push(b'\r'),
                Some('0') => into.push(0),
                Some('x') => {
                    let hex = text.get(at + 2..at + 4).ok_or("`\\x` wants two digits")?;
                    into.push(u8::from_str_radix(hex, 16).map_err(|e| e.to_string())?);
                    characters.nth(1);
                }
                Some(other @ ('"' | '\\')) => into.push(other as u8),
                other => return Err(format!("no escape: {other:?}")),
            },
            other => into.extend(other.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    Err("a string without its end".into())
}

/// Bytes `a..b` of an endless stream that never repeats itself.
fn stream(range: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("no range: `{range}`");
    let (start, end) = range.split_once("..").ok_or_else(bad)?;
    let start: u64 = start.parse().map_err(|_| bad())?;
    let end: u64 = end.parse().map_err(|_| bad())?;
    let length = usize::try_from(end.checked_sub(start).ok_or_else(bad)?).map_err(|_| bad())?;
    let mut bytes = vec![0; length];
    let mut reader = blake3::Hasher::new().finalize_xof();
    reader.set_position(start);
    reader.fill(&mut bytes);
    Ok(bytes)
}

#[test]
fn expressions_mean_what_they_say() {
    let mut names = Names::default();
    names.set("word", "hel");
    assert_eq!(names.bytes(r#"word "lo\n\x00""#).unwrap(), b"hello\n\0");
    let joined = names.bytes("stream(0..70) stream(70..100)").unwrap();
    assert_eq!(joined, names.bytes("stream(0..100)").unwrap());
    assert_eq!(names.bytes(r#"repeat("ab", 2)word"#).unwrap(), b"ababhel");
    let hash = blake3::hash(b"hello)").to_hex();
    assert_eq!(
        names.fill(r#"a $H(word "lo)") $word$$"#).unwrap(),
        format!("a {hash} hel$")
    );
    for bad in ["\"open", "nothing", "stream(3..1)", "\"a\" )"] {
        assert!(names.bytes(bad).is_err(), "{bad}");
    }
    assert!(names.fill("$H(\"a\"").is_err());
}
