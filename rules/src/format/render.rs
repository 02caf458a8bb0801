//! Single values as text and as JSON.

use std::borrow::Cow;

use serde_json::Value as Json;

use crate::eval::Item;
use crate::facts::Value;
use crate::types::{Class, PrintFormat, Type};

/// Longest printed buffer or list.
const MAX_PRINT: usize = 1023;

/// A value with a print format, or nothing if it has no text.
pub fn render(value: Value<'_>, ty: Type, print: PrintFormat) -> Option<String> {
    text(value, ty, print).map(|text| String::from_utf8_lossy(&text).into_owned())
}

pub(super) fn text(value: Value<'_>, ty: Type, print: PrintFormat) -> Option<Vec<u8>> {
    Some(match value {
        Value::Text(text) => c_text(text).to_vec(),
        Value::Bytes(bytes) => bytes.iter().take(MAX_PRINT).map(|byte| printable(*byte)).collect(),
        Value::Bool(value) => value.to_string().into_bytes(),
        Value::Ip(ip) => ip.to_string().into_bytes(),
        Value::Net(net) => net.to_string().into_bytes(),
        Value::F64(value) => format!("{value:.1}").into_bytes(),
        Value::I64(_) | Value::U64(_) => number(value, ty, print)?.into_bytes(),
    })
}

/// Several values: `(a,b)`; a chain of ancestors `a b`. A leading empty element leaves no comma, as upstream.
pub(super) fn list(items: &[Item<'_>], ty: Type, print: PrintFormat, is_chain: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if !is_chain {
        out.push(b'(');
    }
    let start = out.len();
    for item in items {
        if out.len() > start {
            out.push(if is_chain { b' ' } else { b',' });
        }
        out.extend_from_slice(&text(item.value(), ty, print).unwrap_or_default());
        if out.len() > MAX_PRINT {
            break;
        }
    }
    if !is_chain {
        out.push(b')');
    }
    out.truncate(MAX_PRINT);
    out
}

pub(super) fn json(value: Value<'_>, ty: Type, print: PrintFormat, as_number: bool) -> Option<Json> {
    Some(match (value, print) {
        (Value::Bool(value), _) => value.into(),
        (Value::I64(value), PrintFormat::Dec | PrintFormat::Id) => value.into(),
        (Value::U64(value), PrintFormat::Dec | PrintFormat::Id) => value.into(),
        (Value::U64(value), _) if as_number => value.into(),
        _ => {
            let text = text(value, ty, print)?;
            match String::from_utf8_lossy(&text) {
                Cow::Borrowed(text) => text.into(),
                Cow::Owned(text) => text.into(),
            }
        }
    })
}

fn number(value: Value<'_>, ty: Type, print: PrintFormat) -> Option<String> {
    let bits = match ty.class() {
        Class::Signed(bits) | Class::Unsigned(bits) => bits.max(32),
        _ => 64,
    };
    let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    let raw = match value {
        Value::I64(value) => value as u64,
        Value::U64(value) => value,
        _ => return None,
    };
    // Formats without text for some widths, as upstream.
    let is_wide = !matches!(ty, Type::Uid | Type::Gid)
        && !matches!(ty.class(), Class::Signed(8 | 16 | 32) | Class::Unsigned(8 | 16 | 32));
    let is_wide_signed = matches!(ty.class(), Class::Signed(64));
    Some(match print {
        PrintFormat::Na if is_wide_signed => raw.cast_signed().to_string(),
        PrintFormat::Padded if !is_wide => return None,
        PrintFormat::Dec | PrintFormat::Id => match value {
            Value::I64(value) => value.to_string(),
            _ => raw.to_string(),
        },
        PrintFormat::Padded => match value {
            Value::I64(value) => format!("{value:09}"),
            _ => format!("{raw:09}"),
        },
        PrintFormat::Hex => format!("{:X}", raw & mask),
        PrintFormat::Oct => format!("{:o}", raw & mask),
        PrintFormat::Na => return None,
    })
}

fn c_text(text: &[u8]) -> &[u8] {
    memchr::memchr(0, text).map_or(text, |end| &text[..end])
}

const fn printable(byte: u8) -> u8 {
    if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'.' }
}
