//! A line of a file with a mark under one of its words, safe to print to a terminal whatever the file holds.

use unicode_width::UnicodeWidthChar as _;

use crate::alert::is_harmless;

/// Widest line that is shown, in columns of the terminal; of a longer one only what is around the mark.
const WIDTH: usize = 100;

/// Columns that a tab takes.
const TAB: usize = 4;

/// What stands for a part of the line that is left out.
const CUT: &str = "...";

/// A line to show, and where to mark it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Snippet {
    pub(super) line: String,
    /// Columns of the terminal before the mark.
    pub(super) indent: usize,
    /// Columns that are marked, at least one.
    pub(super) marked: usize,
}

impl Snippet {
    /// A line, marked at `column`: from 1, in characters.
    pub(super) fn new(line: &str, column: usize) -> Self {
        let column = column.saturating_sub(1);
        let cells: Vec<(String, usize)> = line.chars().take(column + MAX_CELLS).map(cell).collect();
        let column = column.min(cells.len());
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
        let word = line.chars().skip(column).take(MAX_CELLS).take_while(|c| is_word(*c)).count().max(1);
        let width = |cells: &[(String, usize)]| cells.iter().map(|(_, width)| width).sum::<usize>();
        let (mut start, mut end) = (0, cells.len());
        if width(&cells) > WIDTH {
            // A third of the room goes to what precedes the mark.
            start = column;
            while start > 0 && width(&cells[start - 1..column]) <= WIDTH / 3 {
                start -= 1;
            }
            end = start;
            while end < cells.len() && width(&cells[start..=end]) <= WIDTH {
                end += 1;
            }
        }
        let cut = |is_cut| if is_cut { CUT } else { "" };
        let (before, after) = (cut(start > 0), cut(end < cells.len() || line.chars().nth(cells.len()).is_some()));
        let shown: String = cells[start..end].iter().map(|(text, _)| text.as_str()).collect();
        let marked = width(&cells[column..(column + word).min(end).max(column)]);
        Self {
            line: format!("{before}{}{after}", shown.trim_end()),
            indent: before.len() + width(&cells[start..column]),
            marked: marked.max(1),
        }
    }

    /// As plain text: the line, and the mark below it.
    pub(super) fn plain(&self) -> String {
        format!("{}\n{}^\n", self.line, " ".repeat(self.indent))
    }
}

/// More characters after the mark are not looked at.
const MAX_CELLS: usize = 2 * WIDTH;

/// A character as it is shown, and its width.
fn cell(c: char) -> (String, usize) {
    match c {
        '\t' => (" ".repeat(TAB), TAB),
        c => {
            let c = harmless(c);
            (c.to_string(), c.width().unwrap_or(1))
        }
    }
}

/// Longest text that is shown; names of rules can be of any length.
const MAX_TEXT: usize = 2000;

/// The text on one line, without anything that drives a terminal or turns the order of letters round.
pub(super) fn harmless_text(text: &str) -> String {
    let shown = text.trim_end().chars().take(MAX_TEXT);
    let shown = shown.map(|c| if matches!(c, '\n' | '\t' | '\r') { ' ' } else { harmless(c) });
    let cut = text.char_indices().nth(MAX_TEXT).map_or("", |_| CUT);
    shown.chain(cut.chars()).collect()
}

fn harmless(c: char) -> char {
    if is_harmless(c) { c } else { '\u{fffd}' }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snippet(line: &str, column: usize) -> (String, String) {
        let snippet = Snippet::new(line, column);
        (snippet.line, format!("{}{}", " ".repeat(snippet.indent), "^".repeat(snippet.marked)))
    }

    #[test]
    fn the_mark_is_below_the_word() {
        for (line, column, shown, mark) in [
            ("a = porc.name", 5, "a = porc.name", "    ^^^^^^^^^"),
            ("\ta = b", 2, "    a = b", "    ^"),
            ("é = b", 5, "é = b", "    ^"),
            ("日本 = b", 6, "日本 = b", "       ^"),
            ("e\u{301} = bc", 6, "e\u{301} = bc", "    ^^"),
            ("a", 2, "a", " ^"),
            ("a", 99, "a", " ^"),
            ("", 1, "", "^"),
            ("a \u{1b}[31mb", 8, "a \u{fffd}[31mb", "       ^"),
            ("a \u{202e}b", 4, "a \u{fffd}b", "   ^"),
        ] {
            let column = if line.starts_with('é') || line.starts_with('日') {
                column.min(line.chars().count())
            } else {
                column
            };
            assert_eq!(snippet(line, column), (shown.to_owned(), mark.to_owned()), "{line:?}");
        }
        assert_eq!(Snippet::new("a", 0), Snippet::new("a", 1));
    }

    #[test]
    fn long_lines_are_cut_around_the_mark() {
        let line = format!("{} wrong {}", "a ".repeat(50_000), "b ".repeat(50_000));
        let (shown, mark) = snippet(&line, 100_002);
        assert!(shown.starts_with(CUT) && shown.ends_with(CUT) && shown.len() <= WIDTH + 2 * CUT.len(), "{shown}");
        assert_eq!(&shown[mark.find('^').expect("marked")..mark.len()], "wrong");
        let (shown, mark) = snippet(&line, 1);
        assert!(shown.starts_with("a a") && shown.ends_with(CUT), "{shown}");
        assert_eq!(mark, "^");
        // A word that is wider than the room.
        let (shown, mark) = snippet(&format!("x {}", "y".repeat(10_000)), 3);
        assert!(mark.len() <= WIDTH + 1 && shown.len() <= WIDTH + CUT.len(), "{shown}\n{mark}");
    }
}
