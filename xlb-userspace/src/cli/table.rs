//! Tables for people: columns as wide as what is in them.

use std::fmt::Write;

/// Between two columns.
const GAP: usize = 2;

/// Rows below a header.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns, and no rows.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().map(|&column| column.to_owned()).collect()] }
    }

    /// Adds a row; a cell without text is shown as `-`.
    pub fn add(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| if cell.is_empty() { "-".into() } else { cell });
        self.rows.push(cells.collect());
    }

    /// As text: one line for each row, and without blanks at its end.
    #[must_use]
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(move |row| row.get(column)).map(|cell| cell.chars().count());
        let widths: Vec<usize> = (0..columns).map(|column| width(column).max().unwrap_or(0) + GAP).collect();
        let mut text = String::new();
        for row in &self.rows {
            let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "N", "LAST"]);
        table.add(["a".into(), "1000".into(), "x".into()]);
        table.add(["longer".into(), String::new(), "y".into()]);
        assert_eq!(table.text(), "NAME    N     LAST\na       1000  x\nlonger  -     y\n");
    }
}
