//! Shell patterns over bytes: `*`, `?`, `[a-z]`, `[!x]`, `[[:alpha:]]`, backslash. Slashes and leading dots are ordinary.

/// A compiled shell pattern.
#[derive(Clone, Debug)]
pub(crate) struct Glob {
    tokens: Vec<Token>,
    fold: bool,
}

#[derive(Clone, Debug)]
enum Token {
    Byte(u8),
    Any,
    Star,
    Set(Box<[u64; 4]>),
    /// Nothing fits: the pattern ends in a backslash.
    Never,
}

impl Glob {
    pub(crate) fn new(pattern: &[u8], fold: bool) -> Self {
        let mut tokens = Vec::new();
        let mut rest = pattern;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            match byte {
                b'*' if matches!(tokens.last(), Some(Token::Star)) => {}
                b'*' => tokens.push(Token::Star),
                b'?' => tokens.push(Token::Any),
                b'\\' => match rest.split_first() {
                    Some((&escaped, tail)) => {
                        tokens.push(Token::Byte(folded(escaped, fold)));
                        rest = tail;
                    }
                    None => tokens.push(Token::Never),
                },
                b'[' => match bracket(rest, fold) {
                    Some((set, tail)) => {
                        tokens.push(Token::Set(Box::new(set)));
                        rest = tail;
                    }
                    None => tokens.push(Token::Byte(b'[')),
                },
                other => tokens.push(Token::Byte(folded(other, fold))),
            }
        }
        Self { tokens, fold }
    }

    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        let (mut at, mut token) = (0, 0);
        // Where to go on if what follows the last star does not fit.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let fits = match (self.tokens.get(token), value.get(at)) {
                (Some(Token::Star), _) => {
                    retry = Some((token + 1, at));
                    token += 1;
                    continue;
                }
                (None, None) => return true,
                (Some(Token::Byte(byte)), Some(&got)) => folded(got, self.fold) == *byte,
                (Some(Token::Any), Some(_)) => true,
                (Some(Token::Set(set)), Some(&got)) => has(set, folded(got, self.fold)),
                _ => false,
            };
            if fits {
                token += 1;
                at += 1;
                continue;
            }
            match retry {
                Some((after, from)) if from < value.len() => {
                    retry = Some((after, from + 1));
                    token = after;
                    at = from + 1;
                }
                _ => return false,
            }
        }
    }
}

/// The set of a bracket expression and what follows it; nothing if the bracket is not closed.
fn bracket(text: &[u8], fold: bool) -> Option<([u64; 4], &[u8])> {
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    let mut rest = if negated { &text[1..] } else { text };
    let mut set = [0_u64; 4];
    let mut first = true;
    loop {
        let (&byte, tail) = rest.split_first()?;
        if byte == b']' && !first {
            rest = tail;
            break;
        }
        first = false;
        if byte == b'['
            && tail.first() == Some(&b':')
            && let Some(end) = tail.windows(2).position(|pair| pair == b":]")
        {
            for member in 0..=255_u8 {
                if in_class(&tail[1..end], member)? {
                    insert(&mut set, member, fold);
                }
            }
            rest = &tail[end + 2..];
            continue;
        }
        let (low, tail) = bracket_byte(byte, tail)?;
        rest = tail;
        match rest {
            [b'-', high, tail @ ..] if *high != b']' => {
                let (high, tail) = bracket_byte(*high, tail)?;
                rest = tail;
                (low..=high).for_each(|member| insert(&mut set, member, fold));
            }
            _ => insert(&mut set, low, fold),
        }
    }
    if negated {
        set = set.map(|word| !word);
    }
    Some((set, rest))
}

fn bracket_byte(byte: u8, tail: &[u8]) -> Option<(u8, &[u8])> {
    if byte == b'\\' { tail.split_first().map(|(escaped, tail)| (*escaped, tail)) } else { Some((byte, tail)) }
}

/// Whether a byte is in a named class; nothing for an unknown class.
fn in_class(name: &[u8], byte: u8) -> Option<bool> {
    Some(match name {
        b"alpha" => byte.is_ascii_alphabetic(),
        b"digit" => byte.is_ascii_digit(),
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"upper" => byte.is_ascii_uppercase(),
        b"lower" => byte.is_ascii_lowercase(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"blank" => byte == b' ' || byte == b'\t',
        b"punct" => byte.is_ascii_punctuation(),
        b"cntrl" => byte.is_ascii_control(),
        b"graph" => byte.is_ascii_graphic(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => return None,
    })
}

fn insert(set: &mut [u64; 4], byte: u8, fold: bool) {
    let byte = folded(byte, fold);
    set[usize::from(byte / 64)] |= 1 << (byte % 64);
}

fn has(set: &[u64; 4], byte: u8) -> bool {
    set[usize::from(byte / 64)] >> (byte % 64) & 1 == 1
}

const fn folded(byte: u8, fold: bool) -> u8 {
    if fold { byte.to_ascii_lowercase() } else { byte }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, value, want) in [
            ("*.log", "a/b.log", true),
            ("*.log", "a/b.logs", false),
            ("/home/*/.ssh/*", "/home/a/b/.ssh/id", true),
            ("[!a]*", "abc", false),
            ("[]a]x", "]x", true),
            ("[a-c]x", "bx", true),
            ("[[:digit:]]?", "7z", true),
            ("[a", "[a", true),
            ("a\\*", "a*", true),
            ("a\\", "a\\", false),
            ("**a**", "xxaxx", true),
            ("", "", true),
            ("?", "", false),
        ] {
            assert_eq!(Glob::new(pattern.as_bytes(), false).matches(value.as_bytes()), want, "{pattern} on {value}");
        }
        assert!(Glob::new(b"MY*", true).matches(b"myexe"));
        // Many stars must not take exponential time.
        assert!(!Glob::new("*a".repeat(100).as_bytes(), false).matches("a".repeat(99).as_bytes()));
    }
}
