//! Columns without lines: what scripts can cut and eyes can follow.

use comfy_table::{Table, presets};

/// Rows under a heading, as text that ends in a line break.
pub(super) fn columns<const N: usize>(heading: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = plain(N);
    table.set_header(heading);
    finish(table, rows)
}

/// Rows without a heading.
pub(super) fn rows<const N: usize>(rows: Vec<[String; N]>) -> String {
    finish(plain(N), rows)
}

fn plain(count: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // Columns exist once a row does; an empty one would be printed, so it is only measured here.
    debug_assert!(count > 0, "a table has columns");
    table
}

fn finish<const N: usize>(mut table: Table, rows: Vec<[String; N]>) -> String {
    table.add_rows(rows.into_iter().map(|row| row.map(one_line)));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text: String = table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    if text.trim().is_empty() {
        text.clear();
    }
    text
}

/// Texts of others must not break the table.
fn one_line(text: String) -> String {
    if text.contains(|letter: char| letter.is_control()) {
        text.replace(|letter: char| letter.is_control(), " ")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let table = columns(
            ["NODE", "STATE"],
            vec![
                ["a".into(), "member".into()],
                ["longer".into(), "out\nside".into()],
            ],
        );
        assert_eq!(table, "NODE    STATE\na       member\nlonger  out side\n");
    }

    #[test]
    fn no_rows_are_no_text() {
        assert_eq!(rows::<2>(Vec::new()), "");
    }
}
