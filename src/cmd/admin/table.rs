//! Aligned tables, and formatting of quantities.
//!
//! Sanitizes every cell. Does not know about messages.

use crate::cmd::terminal::Sanitized;
use bytesize::ByteSize;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement};
use std::fmt;
use std::time::Duration;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

const COLUMN_GAP: &str = "  ";
/// Placeholder for an empty cell, so that each row has one word per column.
const EMPTY: &str = "-";

/// A column's heading and alignment.
pub(super) enum Column {
    /// For text.
    Left(&'static str),
    /// For quantities.
    Right(&'static str),
}

/// A table with headings.
pub(super) struct Table(comfy_table::Table);

impl Table {
    pub(super) fn new(columns: &[Column]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(Column::heading));
        for (column, of) in table.column_iter_mut().zip(columns) {
            column.set_padding((0, COLUMN_GAP.len() as u16));
            column.set_cell_alignment(of.alignment());
        }
        Self(table)
    }

    /// Adds a row with one cell per column.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.add_row(cells.into_iter().map(|text| cell(&text)));
    }
}

impl Column {
    fn heading(&self) -> &'static str {
        match self {
            Self::Left(heading) | Self::Right(heading) => heading,
        }
    }

    fn alignment(&self) -> CellAlignment {
        match self {
            Self::Left(_) => CellAlignment::Left,
            Self::Right(_) => CellAlignment::Right,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.0.trim_fmt())
    }
}

/// Names and values, one pair per line.
pub(super) struct FieldList(pub(super) Vec<(String, String)>);

impl fmt::Display for FieldList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|(name, _)| cell(name)).collect();
        let width = names.iter().map(|name| name.width()).max().unwrap_or(0);
        for (name, (_, value)) in names.iter().zip(&self.0) {
            writeln!(f, "{}{COLUMN_GAP}{}", padded(name, width), cell(value))?;
        }
        Ok(())
    }
}

/// Text for a cell: sanitized, without tabs, never empty.
pub(super) fn cell(text: &str) -> String {
    match text {
        "" => EMPTY.to_owned(),
        text => Sanitized(text).to_string().replace('\t', "\\t"),
    }
}

/// Pads the text with spaces to this display width.
pub(super) fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// The part of a line that fits into this display width.
pub(super) fn cropped(line: &str, width: usize) -> &str {
    let mut used = 0;
    for (at, c) in line.char_indices() {
        used += c.width().unwrap_or(0);
        if used > width {
            return &line[..at];
        }
    }
    line
}

/// "1.5 MiB".
pub(super) fn bytes(count: u64) -> String {
    ByteSize(count).to_string()
}

/// "950", "12.3k", "4.5M": three significant digits.
pub(super) fn format_count(number: f64) -> String {
    let mut scaled = number;
    for unit in ["", "k", "M", "G"] {
        let digits = usize::from(scaled < 99.95 && (!unit.is_empty() || scaled.fract() != 0.0));
        if scaled < 999.5 {
            return format!("{scaled:.digits$}{unit}");
        }
        scaled /= 1000.0;
    }
    format!("{scaled:.1}T")
}

/// "0s", "<1ms", "250ms", "9s", "3m12s", "3h02m", "5d03h": the two most significant units.
pub(super) fn format_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds, time.as_millis()) {
        (0, 0) if time.is_zero() => "0s".to_owned(),
        (0, 0) => "<1ms".to_owned(),
        (0, millis) => format!("{millis}ms"),
        (1..60, _) => format!("{seconds}s"),
        (60..3600, _) => format!("{}m{:02}s", seconds / 60, seconds % 60),
        (3600..86_400, _) => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_display_width() {
        let mut table = Table::new(&[Column::Left("NAME"), Column::Right("LAG"), Column::Left("PEER")]);
        table.row(["日本".into(), "7".into(), "a".into()]);
        table.row(["ann".into(), "1234".into(), String::new()]);
        assert_eq!(table.to_string(), "NAME   LAG  PEER\n日本     7  a\nann   1234  -\n");
    }

    #[test]
    fn cells_are_sanitized() {
        let mut table = Table::new(&[Column::Left("NAME"), Column::Left("ROOM")]);
        table.row(["\u{1b}[2J\n".into(), "a\tb".into()]);
        assert_eq!(table.to_string(), "NAME         ROOM\n\\u{1b}[2J\\n  a\\tb\n");
        let fields = FieldList(vec![("name".into(), "\u{1b}c".into()), ("a".into(), String::new())]);
        assert_eq!(fields.to_string(), "name  \\u{1b}c\na     -\n");
    }

    #[test]
    fn counts_have_three_significant_digits() {
        let formatted: Vec<_> =
            [0.0, 7.0, 7.25, 99.96, 950.0, 999.6, 12_345.0, 999_600.0, 4.5e6, 2e15].map(format_count).into();
        assert_eq!(formatted, ["0", "7", "7.2", "100", "950", "1.0k", "12.3k", "1.0M", "4.5M", "2000.0T"]);
        assert_eq!(bytes(1536), "1.5 KiB");
    }

    #[test]
    fn durations_have_two_units() {
        let formatted = [0, 250, 9_500, 192_000, 10_920_000, 442_800_000]
            .map(|ms| format_duration(Duration::from_millis(ms)));
        assert_eq!(formatted, ["0s", "250ms", "9s", "3m12s", "3h02m", "5d03h"]);
        assert_eq!(format_duration(Duration::from_micros(3)), "<1ms");
    }

    #[test]
    fn cropped_lines_fit_the_terminal() {
        assert_eq!(cropped("日本語", 5), "日本");
        assert_eq!(cropped("ab", 5), "ab");
    }
}
