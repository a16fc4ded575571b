//! Tables for people: headers over columns, no lines, as wide as their content.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, TableStyle, presets};

pub(super) use crate::types::plain;

/// How a column stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// Text, to the left.
    Text(&'static str),
    /// Numbers, to the right.
    Number(&'static str),
}

/// A table with these columns and rows, each line ended by a newline. Every cell must already be
/// safe for a terminal ([`Shown`](crate::types::Shown)).
pub(super) fn render(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns.iter().map(|column| match column {
            Column::Text(title) | Column::Number(title) => Cell::new(title),
        }));
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in columns.iter().enumerate() {
        if let Some(settings) = table.column_mut(index) {
            settings.set_padding((0, 2));
            if matches!(column, Column::Number(_)) {
                settings.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

const STYLE: TableStyle = presets::NOTHING;

/// A number with its thousands set apart, as people read it.
pub(super) fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let text = render(
            &[Column::Text("name"), Column::Number("bytes")],
            [
                vec!["a".to_owned(), count(1_234_567)],
                vec!["bcdef".to_owned(), count(1)],
            ],
        );
        assert_eq!(
            text,
            "name       bytes\na      1,234,567\nbcdef          1\n"
        );
    }
}
