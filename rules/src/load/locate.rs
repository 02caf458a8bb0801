//! Where in a file the fault of a condition is: for errors that point at a word and not at a whole condition.
//!
//! What was compiled is text that YAML has unfolded and lists and exceptions have changed. So the condition is read once more as
//! it was written, the fault is found in that, and its place in the file is where the letters of the two agree. All of this is
//! done for errors alone.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use super::collection::Collection;
use super::item::{Macro, Origin};
use super::yaml::Place;
use crate::compile::{Hint, compile_check};
use crate::parse::{self, Expr, ParseError};

/// A condition as written, and where that is.
pub(super) struct Written<'i> {
    pub(super) condition: &'i str,
    pub(super) origin: &'i Origin,
    pub(super) appended: &'i [(usize, Origin)],
}

/// What to look for in a condition as written.
pub(super) enum Fault<'f> {
    /// Where it cannot be read.
    Syntax,
    /// The check that does not compile, with this error.
    Message(&'f str),
    /// The use of this macro.
    Macro(&'f str),
}

/// Where to look.
pub(super) struct Locator<'a> {
    pub(super) collection: &'a Collection,
    /// The files.
    pub(super) texts: &'a [&'a str],
    /// Bytes of regular expressions compiled again: looking for a fault has the limit that compiling had.
    pub(super) regexes: Cell<usize>,
}

impl<'i> Written<'i> {
    pub(super) fn of_macro(item: &'i Macro) -> Self {
        Self { condition: &item.condition, origin: &item.condition_origin, appended: &item.appended }
    }
}

impl Locator<'_> {
    /// Where the fault is: in the condition, else in a macro that it uses.
    pub(super) fn spot(&self, written: &Written<'_>, fault: &Fault<'_>) -> Option<Origin> {
        self.visit(written, |written, parsed| match (parsed, fault) {
            (Err(error), Fault::Syntax) => Some(self.place(written, error.pos.index)),
            (Err(_), _) => None,
            (Ok(expr), _) => self.index(expr, fault).map(|index| self.place(written, index)),
        })
        .flatten()
    }

    /// Where the checks are that hints are about, by message: each at its first place.
    pub(super) fn hints(&self, written: &Written<'_>, hints: &[Hint]) -> HashMap<String, Origin> {
        let mut spots = HashMap::new();
        let mut sought: HashSet<&str> = hints.iter().map(|hint| hint.message.as_str()).collect();
        if sought.is_empty() {
            return spots;
        }
        self.visit(written, |written, parsed| {
            let mut take = |hint: Hint| {
                if sought.remove(hint.message.as_str())
                    && let Some(at) = self.place(written, hint.pos.index)
                {
                    spots.insert(hint.message, at);
                }
                sought.is_empty()
            };
            self.each_hint(parsed.ok()?, &mut take).then_some(())
        });
        spots
    }

    /// Looks at a condition as written and at the macros that it uses, each once, until there is an answer.
    fn visit<T>(
        &self,
        written: &Written<'_>,
        mut look: impl FnMut(&Written<'_>, Result<&Expr, &ParseError>) -> Option<T>,
    ) -> Option<T> {
        let mut visited = HashSet::new();
        let mut waiting = vec![Written { ..*written }];
        while let Some(written) = waiting.pop() {
            let parsed = parse::parse(written.condition.as_bytes(), parse::MAX_DEPTH);
            if let Some(answer) = look(&written, parsed.as_deref()) {
                return Some(answer);
            }
            let mut macros = Vec::new();
            if let Ok(expr) = &parsed {
                macros_of(expr, &mut macros);
            }
            // The first one used is looked at first.
            let used = macros.into_iter().rev().filter(|name| visited.insert(name.clone()));
            waiting.extend(used.filter_map(|name| self.collection.find_macro(&name)).map(Written::of_macro));
        }
        None
    }

    /// The byte of the condition at which the fault is.
    fn index(&self, expr: &Expr, fault: &Fault<'_>) -> Option<usize> {
        match expr {
            Expr::And(children, _) | Expr::Or(children, _) => {
                children.iter().find_map(|child| self.index(child, fault))
            }
            Expr::Not(child, _) => self.index(child, fault),
            Expr::Macro(name, pos) => matches!(fault, Fault::Macro(wanted) if wanted == name).then_some(pos.index),
            Expr::Exists(..) | Expr::Check { .. } => {
                let Fault::Message(wanted) = fault else { return None };
                let error = compile_check(expr, self.collection.catalogue(), &mut Vec::new(), &self.regexes).err()?;
                (error.message == *wanted).then_some(error.pos.index)
            }
        }
    }

    /// Compiles each check for its hints, until `take` has enough.
    fn each_hint(&self, expr: &Expr, take: &mut impl FnMut(Hint) -> bool) -> bool {
        match expr {
            Expr::And(children, _) | Expr::Or(children, _) => children.iter().any(|child| self.each_hint(child, take)),
            Expr::Not(child, _) => self.each_hint(child, take),
            Expr::Macro(..) => false,
            Expr::Exists(..) | Expr::Check { .. } => {
                let mut hints = Vec::new();
                // What does not compile has been reported.
                let _ = compile_check(expr, self.collection.catalogue(), &mut hints, &self.regexes);
                hints.into_iter().any(&mut *take)
            }
        }
    }

    /// The place of a byte of a condition in its file.
    fn place(&self, written: &Written<'_>, index: usize) -> Option<Origin> {
        let part = written.appended.iter().rev().find(|(start, _)| *start <= index);
        let (start, origin) = part.map_or((0, written.origin), |(start, origin)| (*start, origin));
        let text = self.texts.get(origin.file)?;
        let at = place(text, origin.at, written.condition.get(start..)?, index - start)?;
        Some(Origin { file: origin.file, at })
    }
}

/// The macros that a condition uses.
fn macros_of(expr: &Expr, macros: &mut Vec<String>) {
    match expr {
        Expr::And(children, _) | Expr::Or(children, _) => children.iter().for_each(|child| macros_of(child, macros)),
        Expr::Not(child, _) => macros_of(child, macros),
        Expr::Macro(name, _) => macros.push(name.clone()),
        Expr::Exists(..) | Expr::Check { .. } => {}
    }
}

/// The place of byte `index` of a scalar whose node begins at `at`. Folding changes blanks alone, so the letters of the value
/// and those of the file are walked through together; nothing where they differ in more than blanks and quotes.
fn place(source: &str, at: Place, value: &str, index: usize) -> Option<Place> {
    let line = source.split_inclusive('\n').nth(at.line.checked_sub(1)?)?;
    let before_line = line.as_ptr() as usize - source.as_ptr() as usize;
    let column = line.char_indices().nth(at.column.checked_sub(1)?).map(|(byte, _)| byte)?;
    let mut rest = Cursor { source, byte: before_line + column };
    let style = rest.open()?;
    let mut last = None;
    for (byte, wanted) in value.char_indices() {
        if wanted.is_whitespace() {
            if byte >= index {
                break;
            }
            continue;
        }
        let found = rest.next(style)?;
        if found.1 != wanted {
            return None;
        }
        last = Some(found.0 + wanted.len_utf8());
        if byte >= index {
            return Some(place_of(source, found.0));
        }
    }
    // After the last word: where something is missing.
    last.map(|end| place_of(source, end))
}

/// The first place of a word at or after `at`, not beyond the item that it is in.
pub(super) fn word(source: &str, at: Place, word: &str) -> Option<Place> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    let mut lines = source.lines().enumerate().skip(at.line.checked_sub(1)?);
    let mut first = true;
    lines.by_ref().take(MAX_LINES).take_while(|(_, line)| std::mem::take(&mut first) || !begins_item(line)).find_map(
        |(number, line)| {
            let skipped = if number + 1 == at.line { at.column - 1 } else { 0 };
            let start = line.char_indices().nth(skipped).map_or(line.len(), |(byte, _)| byte);
            let found = line[start..].match_indices(word).find(|(byte, _)| {
                let (before, after) = (&line[..start + byte], &line[start + byte + word.len()..]);
                !before.ends_with(is_part) && !after.starts_with(is_part)
            })?;
            Some(Place { line: number + 1, column: line[..start + found.0].chars().count() + 1 })
        },
    )
}

/// Items are not looked through further than this.
const MAX_LINES: usize = 1000;

fn begins_item(line: &str) -> bool {
    ["- rule:", "- macro:", "- list:"].iter().any(|start| line.trim_start().starts_with(start))
}

fn place_of(source: &str, byte: usize) -> Place {
    let before = &source[..byte];
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    Place { line: before.matches('\n').count() + 1, column: before[line..].chars().count() + 1 }
}

/// How a scalar is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Block,
    Single,
    Double,
}

/// The file from some byte on.
struct Cursor<'t> {
    source: &'t str,
    byte: usize,
}

impl Cursor<'_> {
    /// Steps over what stands before the value: anchor, tag, quote, or the head of a block.
    fn open(&mut self) -> Option<Style> {
        loop {
            let rest = self.source.get(self.byte..)?;
            let length = match rest.chars().next()? {
                '&' | '!' => rest.find(char::is_whitespace)?,
                c if c.is_whitespace() => c.len_utf8(),
                '|' | '>' => {
                    self.byte += rest.find('\n')? + 1;
                    return Some(Style::Block);
                }
                '\'' => {
                    self.byte += 1;
                    return Some(Style::Single);
                }
                '"' => {
                    self.byte += 1;
                    return Some(Style::Double);
                }
                _ => return Some(Style::Plain),
            };
            self.byte += length;
        }
    }

    /// The next character of the value that is not blank, and where it is.
    fn next(&mut self, style: Style) -> Option<(usize, char)> {
        loop {
            let at = self.byte;
            let mut rest = self.source.get(at..)?.chars();
            let c = rest.next()?;
            self.byte += c.len_utf8();
            match (style, c) {
                (_, c) if c.is_whitespace() => {}
                (Style::Single, '\'') => {
                    // Two stand for one; one is the end.
                    (rest.next()? == '\'').then_some(())?;
                    self.byte += 1;
                    return Some((at, c));
                }
                (Style::Double, '"') => return None,
                (Style::Double, '\\') => {
                    let escaped = rest.next()?;
                    self.byte += escaped.len_utf8();
                    match escaped {
                        '"' | '\\' | '/' => return Some((at, escaped)),
                        'n' | 't' | 'r' | ' ' | '\n' => {}
                        _ => return None,
                    }
                }
                _ => return Some((at, c)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place that `§` marks in the file is the place of `§` in the value.
    fn check(file: &str, at: (usize, usize), value: &str) {
        let index = value.find('§').expect("marked");
        let (source, value) = (file.replace('§', ""), value.replace('§', ""));
        let mark = file.find('§').expect("marked");
        let found = place(&source, Place { line: at.0, column: at.1 }, &value, index);
        assert_eq!(found, Some(place_of(&source, mark)), "{file}");
    }

    #[test]
    fn values_are_found_in_every_style() {
        check("- condition: a = b and §c = d\n", (1, 14), "a = b and §c = d");
        check("- condition: a = b\n    and §c = d\n", (1, 14), "a = b and §c = d");
        check("- condition: >\n    a = b\n    and §c = d\n", (1, 14), "a = b and §c = d\n");
        check("- condition: >-  # why\n\n    a = é\n\n    and §c = d\n", (1, 14), "a = é\nand §c = d");
        check("- condition: |\n    a = b\n    and §c = d\n", (1, 14), "a = b\nand §c = d\n");
        check("- condition: 'a = ''b'' and\n    §c = d'\n", (1, 14), "a = 'b' and §c = d");
        check("- condition: \"a = \\\"b\\\" and \\\n    §c = d\"\n", (1, 14), "a = \"b\" and §c = d");
        check("- condition: &x !!str a = b and §c = d\n", (1, 14), "a = b and §c = d");
        check("- condition: a = b and\tc§\n", (1, 14), "a = b and c§");
        check("x\r\n- condition: >\r\n    a = b\r\n    and §c\r\n", (2, 14), "a = b and §c\n");
    }

    #[test]
    fn what_cannot_be_followed_is_not_guessed() {
        for (file, value) in [
            ("- condition: \"a \\x41 b\"\n", "a A b"),
            ("- condition: other text\n", "a = b"),
            ("- condition: 'a'\n", "a b"),
            ("", "a"),
            ("- condition: |", "a"),
        ] {
            assert_eq!(place(file, Place { line: 1, column: 14 }, value, value.len() - 1), None, "{file}");
        }
        assert_eq!(place("a", Place::default(), "a", 0), None);
        assert_eq!(place("a", Place { line: 9, column: 9 }, "a", 0), None);
    }

    #[test]
    fn words_are_found_whole_and_within_the_item() {
        let file = "- rule: A\n  output: x.yz x.y\n- rule: B\n  output: other\n";
        let at = Place { line: 1, column: 1 };
        assert_eq!(word(file, at, "x.y"), Some(Place { line: 2, column: 16 }));
        assert_eq!(word(file, at, "other"), None);
        assert_eq!(word(file, Place { line: 3, column: 3 }, "other"), Some(Place { line: 4, column: 11 }));
    }
}
