//! Aligned columns, and quantities as people read them.
//!
//! Promises that every cell is harmless to a terminal, whoever chose its text. Knows nothing of messages.

use crate::cmd::terminal::Harmless;
use bytesize::ByteSize;
use std::fmt;
use std::time::Duration;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

const BETWEEN_COLUMNS: &str = "  ";
/// Stands for nothing, so that each row has as many words as there are columns.
const NOTHING: &str = "-";

/// A column's heading, and on which side its cells stand.
pub(super) enum Column {
    /// For words.
    Left(&'static str),
    /// For quantities.
    Right(&'static str),
}

/// Rows under headings.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; it has one cell for each column.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|text| cell(&text)).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let width = |(n, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.width());
            cells.chain([column.heading().width()]).max().unwrap_or(0)
        };
        self.columns.iter().enumerate().map(width).collect()
    }

    fn line(&self, widths: &[usize], cells: &[&str]) -> String {
        let aligned = |((column, width), cell): ((&Column, &usize), &&str)| {
            let space = " ".repeat(width.saturating_sub(cell.width()));
            match column {
                Column::Left(_) => format!("{cell}{space}"),
                Column::Right(_) => format!("{space}{cell}"),
            }
        };
        let aligned: Vec<_> = self.columns.iter().zip(widths).zip(cells).map(aligned).collect();
        aligned.join(BETWEEN_COLUMNS).trim_end().to_owned()
    }
}

impl Column {
    fn heading(&self) -> &'static str {
        match self {
            Self::Left(heading) | Self::Right(heading) => heading,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let headings: Vec<_> = self.columns.iter().map(Column::heading).collect();
        writeln!(f, "{}", self.line(&widths, &headings))?;
        for row in &self.rows {
            let cells: Vec<_> = row.iter().map(String::as_str).collect();
            writeln!(f, "{}", self.line(&widths, &cells))?;
        }
        Ok(())
    }
}

/// Names and their values, one pair a line; nothing where there is no value.
pub(super) struct Facts(pub(super) Vec<(String, String)>);

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|(name, _)| cell(name)).collect();
        let width = names.iter().map(|name| name.width()).max().unwrap_or(0);
        for (name, (_, value)) in names.iter().zip(&self.0) {
            writeln!(f, "{}{BETWEEN_COLUMNS}{}", padded(name, width), cell(value))?;
        }
        Ok(())
    }
}

/// Text as a table may hold it: harmless, without tabs, never empty.
pub(super) fn cell(text: &str) -> String {
    match text {
        "" => NOTHING.to_owned(),
        text => Harmless(text).to_string().replace('\t', "\\t"),
    }
}

/// The text, filled with spaces to this many columns of a terminal.
pub(super) fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// As much of a line as fits in so many columns of a terminal.
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

/// "950", "12.3k", "4.5M": three digits that matter.
pub(super) fn quantity(number: f64) -> String {
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

/// "0s", "<1ms", "250ms", "9s", "3m12s", "3h02m", "5d03h": the two units that matter.
pub(super) fn span(time: Duration) -> String {
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
    fn columns_are_aligned_by_what_a_terminal_shows() {
        let mut table = Table::new(vec![Column::Left("NAME"), Column::Right("LAG"), Column::Left("PEER")]);
        table.row(["日本".into(), "7".into(), "a".into()]);
        table.row(["ann".into(), "1234".into(), String::new()]);
        assert_eq!(table.to_string(), "NAME   LAG  PEER\n日本     7  a\nann   1234  -\n");
    }

    #[test]
    fn no_cell_steers_the_terminal_or_breaks_its_row() {
        let mut table = Table::new(vec![Column::Left("NAME"), Column::Left("ROOM")]);
        table.row(["\u{1b}[2J\n".into(), "a\tb".into()]);
        assert_eq!(table.to_string(), "NAME         ROOM\n\\u{1b}[2J\\n  a\\tb\n");
        let facts = Facts(vec![("name".into(), "\u{1b}c".into()), ("a".into(), String::new())]);
        assert_eq!(facts.to_string(), "name  \\u{1b}c\na     -\n");
    }

    #[test]
    fn quantities_are_humane() {
        let spoken: Vec<_> =
            [0.0, 7.0, 7.25, 99.96, 950.0, 999.6, 12_345.0, 999_600.0, 4.5e6, 2e15].map(quantity).into();
        assert_eq!(spoken, ["0", "7", "7.2", "100", "950", "1.0k", "12.3k", "1.0M", "4.5M", "2000.0T"]);
        assert_eq!(bytes(1536), "1.5 KiB");
    }

    #[test]
    fn times_have_the_two_units_that_matter() {
        let spoken =
            [0, 250, 9_500, 192_000, 10_920_000, 442_800_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(spoken, ["0s", "250ms", "9s", "3m12s", "3h02m", "5d03h"]);
        assert_eq!(span(Duration::from_micros(3)), "<1ms");
    }

    #[test]
    fn a_line_is_cropped_to_the_terminal() {
        assert_eq!(cropped("日本語", 5), "日本");
        assert_eq!(cropped("ab", 5), "ab");
    }
}
