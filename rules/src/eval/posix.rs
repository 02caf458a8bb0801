//! Regular expressions in RE2's POSIX syntax, matched against whole values.
//!
//! The pattern is checked and rewritten for the crate `regex`, whose matching takes linear time like RE2's.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

/// A compiled expression.
#[derive(Clone, Debug)]
pub(crate) struct Posix(Regex, usize);

/// Sizes that are tried, up to upstream's default memory budget.
const SIZES: [usize; 3] = [32 << 10, 512 << 10, 8 << 20];

/// Longest repetition RE2 accepts.
const MAX_REPEAT: u32 = 1000;

/// Deepest nesting of groups.
const MAX_GROUPS: usize = 200;

impl Posix {
    /// Compiles a pattern, or says why it is none.
    pub(crate) fn new(pattern: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(pattern).map_err(|error| format!("the pattern is not valid UTF-8: {error}"))?;
        let translated = translate(text)?;
        let mut builder = RegexBuilder::new(&format!("\\A(?:{translated})\\z"));
        builder.multi_line(true).nest_limit(MAX_GROUPS as u32 * 4);
        // Larger and larger: the crate does not say how large a compiled expression is, only whether it is too large.
        for limit in SIZES {
            match builder.size_limit(limit).build() {
                Ok(regex) => return Ok(Self(regex, limit)),
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(error) => return Err(error.to_string().lines().last().unwrap_or_default().to_owned()),
            }
        }
        Err("the pattern is too large".to_owned())
    }

    /// Bytes that the compiled expression has at most.
    pub(crate) const fn size(&self) -> usize {
        self.1
    }

    /// Whether the whole value fits. A byte that is no UTF-8 counts as U+FFFD.
    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        self.0.is_match(&sanitized(value))
    }

    /// Whether simpler operators could say the same: ordinary characters only, but for `^` at the very start, `$` at the
    /// very end, and `.*`, `.+` or `.?` at either.
    pub(crate) fn is_simple(pattern: &[u8]) -> bool {
        let mut at = 0;
        while let Some(&byte) = pattern.get(at) {
            let is_anchor = (at == 0 && byte == b'^') || (at + 1 == pattern.len() && byte == b'$');
            let is_wildcard = (at == 0 || at + 2 == pattern.len())
                && byte == b'.'
                && matches!(pattern.get(at + 1), Some(b'*' | b'+' | b'?'));
            if is_wildcard {
                at += 1;
            } else if !is_anchor && br"\^$.|?*+()[]{}".contains(&byte) {
                return false;
            }
            at += 1;
        }
        true
    }
}

/// The value as UTF-8, each bad byte replaced.
fn sanitized(value: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(value) {
        Cow::Borrowed(text)
    } else {
        let mut out = String::with_capacity(value.len() + 8);
        for chunk in value.utf8_chunks() {
            out.push_str(chunk.valid());
            out.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
        }
        Cow::Owned(out)
    }
}

/// What may be repeated.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    /// Nothing: the start of a pattern, group or alternative.
    Nothing,
    /// An atom that begins at this byte of the output, and how often the most repeated thing in it may come.
    Atom(usize, u32),
}

fn translate(pattern: &str) -> Result<String, String> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut last = Last::Nothing;
    let mut groups: Vec<(usize, u32)> = Vec::new();
    // The most repetitions of anything in the current group.
    let mut most = 1;
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let start = out.len();
        at += 1;
        match c {
            '(' => {
                if chars.get(at) == Some(&'?') {
                    return Err("missing argument to repetition operator '?'".to_owned());
                }
                if groups.len() == MAX_GROUPS {
                    return Err("groups are nested too deeply".to_owned());
                }
                groups.push((start, std::mem::replace(&mut most, 1)));
                out.push_str("(?:");
                last = Last::Nothing;
                continue;
            }
            ')' => {
                let Some((opened, around)) = groups.pop() else { return Err("unexpected ')'".to_owned()) };
                out.push(')');
                last = Last::Atom(opened, most);
                most = most.max(around);
                continue;
            }
            '|' => {
                out.push('|');
                last = Last::Nothing;
                continue;
            }
            '*' | '+' | '?' => {
                at = repeat(&mut out, last, &c.to_string(), at)?;
                continue;
            }
            '{' => {
                if let Some((text, times, end)) = counted(&chars, at)? {
                    at = repeat(&mut out, last, &text, end)?;
                    if let Last::Atom(_, inside) = &mut last {
                        *inside = inside.saturating_mul(times.max(1));
                        most = most.max(*inside);
                    }
                    if most > MAX_REPEAT {
                        return Err(format!("repetitions in repetitions come to more than {MAX_REPEAT}: '{text}'"));
                    }
                    continue;
                }
                out.push_str("\\{");
            }
            '[' => at = class(&chars, at, &mut out)?,
            '\\' => {
                let (c, end) = escaped(&chars, at)?;
                push_literal(c, &mut out);
                at = end;
            }
            '^' | '$' | '.' => out.push(c),
            _ => push_literal(c, &mut out),
        }
        last = Last::Atom(start, 1);
    }
    if groups.is_empty() { Ok(out) } else { Err("missing ')'".to_owned()) }
}

/// Applies a repetition to the last atom. It is put in a group so that a further operator repeats it as a whole.
fn repeat(out: &mut String, last: Last, operator: &str, at: usize) -> Result<usize, String> {
    let Last::Atom(start, _) = last else {
        return Err(format!("missing argument to repetition operator '{operator}'"));
    };
    if out.len() - start > 1 << 16 {
        return Err("the pattern is too large".to_owned());
    }
    out.insert_str(start, "(?:");
    out.push_str(operator);
    out.push(')');
    Ok(at)
}

/// `{n}`, `{n,}` or `{n,m}`, with the most repetitions it counts; anything else is literal text.
fn counted(chars: &[char], at: usize) -> Result<Option<(String, u32, usize)>, String> {
    let Some(length) = chars[at..].iter().position(|c| *c == '}') else { return Ok(None) };
    let body: String = chars[at..at + length].iter().collect();
    let (low, high) = body.split_once(',').unwrap_or((&body, &body));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(low) || !(high.is_empty() || is_number(high)) {
        return Ok(None);
    }
    let low = low.parse().unwrap_or(u32::MAX);
    let high = if high.is_empty() { low } else { high.parse().unwrap_or(u32::MAX) };
    if low > high || high > MAX_REPEAT {
        return Err(format!("invalid repetition size '{{{body}}}'"));
    }
    Ok(Some((format!("{{{body}}}"), high, at + length + 1)))
}

/// The character an escape stands for.
fn escaped(chars: &[char], at: usize) -> Result<(char, usize), String> {
    let Some(&c) = chars.get(at) else { return Err("trailing '\\'".to_owned()) };
    let digits = |from: usize, radix: u32, limit: usize| {
        chars[from.min(chars.len())..].iter().take(limit).take_while(|c| c.is_digit(radix)).count()
    };
    let value = |from: usize, count: usize, radix: u32| {
        let text: String = chars[from..from + count].iter().collect();
        u32::from_str_radix(&text, radix).ok().and_then(char::from_u32)
    };
    let invalid = || format!("invalid escape sequence '\\{c}'");
    Ok(match c {
        'a' => ('\x07', at + 1),
        'f' => ('\x0c', at + 1),
        'n' => ('\n', at + 1),
        'r' => ('\r', at + 1),
        't' => ('\t', at + 1),
        'v' => ('\x0b', at + 1),
        'x' if chars.get(at + 1) == Some(&'{') => {
            let count = digits(at + 2, 16, 8);
            if count == 0 || chars.get(at + 2 + count) != Some(&'}') {
                return Err(invalid());
            }
            (value(at + 2, count, 16).ok_or_else(invalid)?, at + 3 + count)
        }
        'x' if digits(at + 1, 16, 2) == 2 => (value(at + 1, 2, 16).ok_or_else(invalid)?, at + 3),
        // A single digit other than 0 would be a back reference.
        '0' => (value(at, digits(at, 8, 3), 8).ok_or_else(invalid)?, at + digits(at, 8, 3)),
        '1'..='7' if digits(at, 8, 3) > 1 => {
            (value(at, digits(at, 8, 3), 8).ok_or_else(invalid)?, at + digits(at, 8, 3))
        }
        _ if c.is_ascii() && !c.is_ascii_alphanumeric() => (c, at + 1),
        _ => return Err(invalid()),
    })
}

/// Named classes of characters.
const NAMES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// A bracket expression, from after its `[`.
fn class(chars: &[char], mut at: usize, out: &mut String) -> Result<usize, String> {
    out.push('[');
    if chars.get(at) == Some(&'^') {
        out.push('^');
        at += 1;
    }
    let mut first = true;
    loop {
        let Some(&c) = chars.get(at) else { return Err("missing ']'".to_owned()) };
        if c == ']' && !first {
            out.push(']');
            return Ok(at + 1);
        }
        if c == '-' && !first && chars.get(at + 1) != Some(&']') {
            return Err("invalid character class range".to_owned());
        }
        first = false;
        if c == '['
            && chars.get(at + 1) == Some(&':')
            && let Some(end) = (at + 2..chars.len().saturating_sub(1)).find(|end| chars[*end..*end + 2] == [':', ']'])
        {
            let name: String = chars[at + 2..end].iter().collect();
            let plain = name.strip_prefix('^').unwrap_or(&name);
            if !NAMES.contains(&plain) {
                return Err(format!("invalid character class '[:{name}:]'"));
            }
            out.push_str(&format!("[:{name}:]"));
            at = end + 2;
            continue;
        }
        let (low, end) = class_char(chars, at)?;
        at = end;
        if chars.get(at) == Some(&'-') && chars.get(at + 1).is_some_and(|c| *c != ']') {
            let (high, end) = class_char(chars, at + 1)?;
            if high < low {
                return Err("invalid character class range".to_owned());
            }
            at = end;
            push_literal(low, out);
            out.push('-');
            push_literal(high, out);
        } else {
            push_literal(low, out);
        }
    }
}

fn class_char(chars: &[char], at: usize) -> Result<(char, usize), String> {
    match chars.get(at) {
        Some('\\') => escaped(chars, at + 1),
        Some(c) => Ok((*c, at + 1)),
        None => Err("missing ']'".to_owned()),
    }
}

/// A character that means itself, inside and outside of brackets.
fn push_literal(c: char, out: &mut String) {
    // Not any punctuation: `\<` is a word boundary there.
    out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, value: &str) -> Option<bool> {
        Posix::new(pattern.as_bytes()).ok().map(|posix| posix.matches(value.as_bytes()))
    }

    #[test]
    fn syntax() {
        for (pattern, value, want) in [
            ("a+?", "", Some(true)),
            ("a|ab", "ab", Some(true)),
            ("[[:digit:]]+", "42", Some(true)),
            ("[]a]", "]", Some(true)),
            ("[a-z-9]", "a", None),
            ("a{2}", "aa", Some(true)),
            ("a{,2}", "a{,2}", Some(true)),
            ("a{1001}", "", None),
            ("(a{10}b){100}", "", Some(false)),
            ("((a{10}){2}b){51}", "", None),
            ("(a{40}|b{20}){26}", "", None),
            ("(a*){1000}", "", Some(true)),
            ("*", "", None),
            ("(?i)a", "", None),
            ("\\d", "", None),
            ("\\pL", "", None),
            ("\\x41", "A", Some(true)),
            ("\\.", ".", Some(true)),
            ("a)", "", None),
            ("a.b", "a\nb", Some(false)),
            ("a\n^b", "a\nb", Some(true)),
            ("a**", "aaa", Some(true)),
            ("", "", Some(true)),
            ("<a>&&[~~]", "<a>&&~", Some(true)),
        ] {
            assert_eq!(check(pattern, value), want, "{pattern}");
        }
    }

    #[test]
    fn huge_patterns_are_refused() {
        assert!(Posix::new("(((((a{99}){99}){99}){99}){99})".as_bytes()).is_err());
        assert!(Posix::new("(".repeat(100_000).as_bytes()).is_err());
        assert!(Posix::new(format!("a{}", "?".repeat(100_000)).as_bytes()).is_err());
    }
}
