//! Small tables: the first column to the left, numbers to the right, two blanks between.

use std::fmt;

pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
    total: Option<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: &[&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned)], total: None }
    }

    pub(super) fn row(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// The last row, below a rule.
    pub(super) fn total(&mut self, row: [String; N]) {
        self.total = Some(row);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = || self.rows.iter().chain(&self.total);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        let rule = "─".repeat(widths.iter().sum::<usize>() + 2 * (N - 1));
        for (at, row) in all().enumerate() {
            if at > 0 && at == self.rows.len() {
                writeln!(f, "{rule}")?;
            }
            let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            });
            writeln!(f, "{}", cells.collect::<String>().trim_end())?;
        }
        Ok(())
    }
}
