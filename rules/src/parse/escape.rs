//! Quoted strings of conditions: `"..."` and `'...'`.

/// Quotes a value with `"` where the language needs it, and leaves it as it is elsewhere.
pub fn escape(value: &[u8]) -> Vec<u8> {
    if !value.iter().any(|byte| matches!(byte, b' ' | b'=' | b'\\' | b'"' | b'\'' | 0) || control(*byte).is_some()) {
        return value.to_vec();
    }
    let mut out = Vec::with_capacity(value.len() + 2);
    out.push(b'"');
    for &byte in value {
        match (byte, control(byte)) {
            (b'\\' | b'"', _) => out.extend([b'\\', byte]),
            (_, Some(letter)) => out.extend([b'\\', letter]),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
    out
}

/// Reads a quoted string, quotes included. Nothing if it is not one or has an escape that does not exist.
pub fn unescape(quoted: &[u8]) -> Option<Vec<u8>> {
    let (quote, rest) = quoted.split_first()?;
    let body = rest.strip_suffix(&[*quote])?;
    if !matches!(quote, b'"' | b'\'') {
        return None;
    }
    let mut out = Vec::with_capacity(body.len());
    let mut bytes = body.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next()? {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b' ' | b'\\' => b'\\',
            b'/' => b'/',
            b'x' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            same if same == *quote => same,
            _ => return None,
        });
    }
    Some(out)
}

/// The letter of a control character that has an escape.
const fn control(byte: u8) -> Option<u8> {
    Some(match byte {
        8 => b'b',
        12 => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => return None,
    })
}

/// The value of a hexadecimal digit.
pub(crate) const fn hex(digit: u8) -> Option<u8> {
    Some(match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => return None,
    })
}
