//! Bytes that somebody else chose, made safe to show.

use std::fmt;

use super::plain::talks_to_terminal;

/// Bytes for people and for JSON: UTF-8 as it is; `%`, control characters and bytes that are not
/// UTF-8 percent-encoded, so that no name can play tricks with a terminal and none is ambiguous.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            let text = chunk.valid();
            // Whole runs at once: most names have nothing to encode.
            let mut written = 0;
            for (at, character) in text.char_indices().filter(|(_, one)| is_encoded(*one)) {
                f.write_str(&text[written..at])?;
                written = at + character.len_utf8();
                encode(&text.as_bytes()[at..written], f)?;
            }
            f.write_str(&text[written..])?;
            encode(chunk.invalid(), f)?;
        }
        Ok(())
    }
}

fn is_encoded(character: char) -> bool {
    character == '%' || talks_to_terminal(character)
}

fn encode(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "%{byte:02X}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_a_terminal() {
        assert_eq!(
            Shown(b"a\n\x1b[31m\xff%\xe2\x80\xae").to_string(),
            "a%0A%1B[31m%FF%25%E2%80%AE"
        );
        assert_eq!(Shown("Zürich".as_bytes()).to_string(), "Zürich");
    }
}
