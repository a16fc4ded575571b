//! Text that somebody else made, for people.

/// Text without what would talk to the terminal, which is escaped.
pub fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escape = talks_to_terminal(character);
            let escaped = escape.then(|| character.escape_unicode());
            let itself = (!escape).then_some(character);
            escaped.into_iter().flatten().chain(itself)
        })
        .collect()
}

/// Control characters, and those that reorder what a terminal shows (Unicode UAX #9).
pub(super) fn talks_to_terminal(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
        )
}
