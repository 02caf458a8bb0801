//! The words of the condition language.
//!
//! Each function takes one kind of token from the start of the rest and moves on, or takes nothing.

use super::ast::Pos;
use super::escape::unescape;

/// A text that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    pos: Pos,
}

/// A quoted string, as far as it could be read.
pub(super) enum Quoted {
    /// There is none.
    None,
    /// It was read.
    Text(Vec<u8>),
    /// It has an escape that does not exist; it was skipped.
    BadEscape,
    /// Its closing quote is missing.
    Unclosed,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, pos: Pos { index: 0, line: 1, column: 1 } }
    }

    pub(super) const fn pos(&self) -> Pos {
        self.pos
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.text[self.pos.index..]
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.pos.index == self.text.len()
    }

    /// Skips blanks; says whether there were any.
    pub(super) fn blanks(&mut self) -> bool {
        let count = self.rest().iter().take_while(|byte| is_blank(**byte)).count();
        self.advance(count);
        count > 0
    }

    /// Takes exactly `word`.
    pub(super) fn eat(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word.as_bytes());
        if found {
            self.advance(word.len());
        }
        found
    }

    /// Takes `word` and the blanks after it, if there is at least one.
    pub(super) fn eat_with_blank(&mut self, word: &str) -> bool {
        let before = *self;
        if self.eat(word) && self.blanks() {
            return true;
        }
        *self = before;
        false
    }

    /// `[A-Za-z]+[A-Za-z0-9_]*`
    pub(super) fn identifier(&mut self) -> Option<&'a str> {
        let length = identifier_length(self.rest());
        self.take_ascii(length)
    }

    /// Identifiers joined by dots, at least one dot.
    pub(super) fn field_name(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let mut length = identifier_length(rest);
        let first = length;
        while length > 0 && rest.get(length) == Some(&b'.') {
            let more = identifier_length(&rest[length + 1..]);
            if more == 0 {
                break;
            }
            length += 1 + more;
        }
        if length == first { None } else { self.take_ascii(length) }
    }

    /// A number: hexadecimal, or digits with sign, fraction and exponent.
    pub(super) fn number(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest();
        let digits = |from: usize| rest[from.min(rest.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if let [b'0', b'x' | b'X', tail @ ..] = rest {
            let count = tail.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            if count > 0 {
                return Some(self.take(count + 2));
            }
        }
        let mut length = usize::from(matches!(rest.first(), Some(b'+' | b'-')));
        let whole = digits(length);
        if whole == 0 {
            return None;
        }
        length += whole;
        if rest.get(length) == Some(&b'.') {
            length += 1;
            length += digits(length);
        }
        if let Some([b'e' | b'E', b'+' | b'-']) = rest.get(length..length + 2) {
            let exponent = digits(length + 2);
            if exponent > 0 {
                length += 2 + exponent;
            }
        }
        Some(self.take(length))
    }

    /// A bare string: anything but blanks and `( ) " ' = ,`.
    pub(super) fn bare(&mut self) -> Option<&'a [u8]> {
        self.run(|byte| is_space(byte) || matches!(byte, b'(' | b')' | b'"' | b'\'' | b'=' | b','))
    }

    /// What may stand in brackets without quotes: anything but blanks, brackets and quotes.
    pub(super) fn bare_argument(&mut self) -> Option<&'a [u8]> {
        self.run(|byte| is_space(byte) || matches!(byte, b'[' | b']' | b'"' | b'\''))
    }

    /// A string in quotes. A quote after a backslash does not close it.
    pub(super) fn quoted(&mut self) -> Quoted {
        let rest = self.rest();
        let Some(&quote @ (b'"' | b'\'')) = rest.first() else { return Quoted::None };
        let mut previous = 0;
        for (at, &byte) in rest.iter().enumerate().skip(1) {
            if byte == 0 {
                break;
            }
            if byte == quote && previous != b'\\' {
                let text = self.take(at + 1);
                return unescape(text).map_or(Quoted::BadEscape, Quoted::Text);
            }
            previous = byte;
        }
        Quoted::Unclosed
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let taken = &self.rest()[..length];
        self.advance(length);
        taken
    }

    fn take_ascii(&mut self, length: usize) -> Option<&'a str> {
        if length == 0 { None } else { std::str::from_utf8(self.take(length)).ok() }
    }

    /// One or more characters up to the first that `ends`; a byte that is no UTF-8 ends it, too.
    fn run(&mut self, ends: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
        let rest = self.rest();
        let mut length = 0;
        while let Some(&byte) = rest.get(length) {
            let width = if byte < 0x80 { usize::from(!ends(byte)) } else { utf8_width(&rest[length..]) };
            if width == 0 {
                break;
            }
            length += width;
        }
        if length == 0 { None } else { Some(self.take(length)) }
    }

    fn advance(&mut self, count: usize) {
        for &byte in &self.text[self.pos.index..self.pos.index + count] {
            if byte == b'\n' {
                self.pos.line += 1;
                self.pos.column = 1;
            } else {
                self.pos.column += 1;
            }
        }
        self.pos.index += count;
    }
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 8)
}

/// What ends a bare string: white space as regular expressions see it, a little more and a little less than a blank.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 9..=13)
}

fn identifier_length(text: &[u8]) -> usize {
    if !text.first().is_some_and(u8::is_ascii_alphabetic) {
        return 0;
    }
    text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count()
}

/// Length of the multi-byte character at the start, 0 if there is none. As lenient as RE2, which upstream reads with:
/// overlong forms and surrogates of three and four bytes pass.
fn utf8_width(text: &[u8]) -> usize {
    let width = match text[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return 0,
    };
    let tail = text.get(1..width);
    if tail.is_some_and(|tail| tail.iter().all(|byte| byte & 0xc0 == 0x80)) { width } else { 0 }
}
