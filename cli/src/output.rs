//! What a command answers on stdout: a table for people, JSON for programs. Nothing else prints there. And what it says
//! beside that, on stderr.

use std::{
    fmt::Write as _,
    io::{self, ErrorKind, IsTerminal, Write as _},
};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;

/// In which form a command answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// JSON, for programs: the objects that the REST API answers with.
    Json,
}

/// Prints a line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    write(&format!("{text}\n"))
}

/// Prints text as it is.
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::nobody_reads()),
        Err(error) => Err(Failure::caused("cannot write the answer", &error)),
    }
}

/// Prints a value as JSON, indented for a terminal and on one line otherwise.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = if io::stdout().is_terminal() {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    line(&text.map_err(|error| Failure::caused("cannot write the answer as JSON", &error))?)
}

/// Says something on stderr, beside the answer. Where nobody listens, nothing is lost.
pub(crate) fn say(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Names with their values, one a line, the values aligned. An empty value is shown as `-`.
pub(crate) fn fields<const N: usize>(fields: [(&str, String); N]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let shown = |value: String| {
        if value.is_empty() { "-".to_owned() } else { plain(&value) }
    };
    fields.map(|(name, value)| format!("{name:<width$}  {}\n", shown(value))).concat()
}

/// Rows under a heading, in aligned columns. Columns of numbers stand to the right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with a heading for each column.
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    /// Adds a row. An empty cell is shown as `-`.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let shown = cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { plain(&cell) });
        self.rows.push(shown.to_vec());
    }

    /// The lines of the table, each with a line end.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0))
            .collect();
        let numeric: Vec<bool> = (0..columns)
            .map(|column| {
                let mut cells =
                    self.rows.iter().skip(1).map(|row| cell(row, column)).filter(|cell| cell != "-");
                let is_number = |text: String| text.bytes().all(|byte| byte.is_ascii_digit());
                // An empty column has no first number.
                cells.next().is_some_and(is_number) && cells.all(is_number)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut shown = String::new();
            for (column, width) in widths.iter().enumerate() {
                let cell = cell(row, column);
                // Writing to a String can not fail.
                let _ = if numeric[column] {
                    write!(shown, "{cell:>width$}  ")
                } else {
                    write!(shown, "{cell:<width$}  ")
                };
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The text without control characters: what a process calls itself must not steer the reader's terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_right() {
        let mut table = Table::new(["ID", "ALIAS", "PID"]);
        table.row(["7".into(), "obstat2".into(), "4242".into()]);
        table.row(["185".into(), "x".into(), String::new()]);
        assert_eq!(table.render(), " ID  ALIAS     PID\n  7  obstat2  4242\n185  x           -\n");
    }

    #[test]
    fn values_are_aligned() {
        assert_eq!(fields([("id", "7".into()), ("status", String::new())]), "id      7\nstatus  -\n");
    }

    #[test]
    fn an_empty_table_is_its_heading() {
        assert_eq!(Table::new(["ID", "NAME"]).render(), "ID  NAME\n");
    }

    #[test]
    fn control_characters_are_replaced() {
        let mut table = Table::new(["COMMAND"]);
        table.row(["a\u{1b}[31m\nb".into()]);
        assert_eq!(table.render(), "COMMAND\na\u{fffd}[31m\u{fffd}b\n");
    }
}
