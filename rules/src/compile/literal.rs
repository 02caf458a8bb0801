//! Literals of conditions, read as the type of the field they are compared with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::services;
use crate::eval::Literal;
use crate::parse::Op;
use crate::types::{Class, Type};

/// Longest text.
const MAX_TEXT: usize = 255;

/// Reads a literal.
///
/// # Errors
/// Why it is not one of that type.
pub(super) fn parse(ty: Type, op: Op, text: &[u8]) -> Result<Literal, String> {
    let shown = || String::from_utf8_lossy(text).into_owned();
    match ty.class() {
        Class::Text => {
            if text.len() > MAX_TEXT {
                Err(format!("the text is longer than {MAX_TEXT} bytes: '{:.40}...'", shown()))
            } else if text.contains(&0) {
                Err("the text contains a NUL".to_owned())
            } else {
                Ok(Literal::Text(text.into()))
            }
        }
        Class::Bytes if matches!(op, Op::BContains | Op::BStartsWith) => match hex(text) {
            Some(bytes) if bytes.len() <= MAX_TEXT => Ok(Literal::Bytes(bytes.into())),
            Some(_) => Err(format!("the buffer is longer than {MAX_TEXT} bytes")),
            None => Err(format!("'{}' is not pairs of hexadecimal digits", shown())),
        },
        Class::Bytes if text.len() > MAX_TEXT => Err(format!("the buffer is longer than {MAX_TEXT} bytes")),
        Class::Bytes => Ok(Literal::Bytes(text.into())),
        Class::Unsigned(_) if ty == Type::Port => {
            port(text).map(Literal::Unsigned).ok_or_else(|| format!("'{}' is no port number or service", shown()))
        }
        Class::Signed(bits) => integer(text)
            .map(|number| {
                let number = number.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
                Literal::Signed(number << (64 - bits) >> (64 - bits))
            })
            .ok_or_else(|| format!("'{}' is not a valid number", shown())),
        Class::Unsigned(bits) => unsigned(text)
            .map(|number| Literal::Unsigned(if bits == 64 { number } else { number & ((1 << bits) - 1) }))
            .ok_or_else(|| format!("'{}' is not a valid number", shown())),
        // Upstream reads whole numbers here, too.
        Class::Double => integer(text)
            .map(|number| Literal::Double(double(number)))
            .ok_or_else(|| format!("'{}' is not a valid number", shown())),
        Class::Bool => match text {
            b"true" => Ok(Literal::Bool(true)),
            b"false" => Ok(Literal::Bool(false)),
            _ => Err(format!("'{}' is neither true nor false", shown())),
        },
        Class::Ip => address(text).map(Literal::Ip).ok_or_else(|| format!("'{}' is no IP address", shown())),
        Class::Net => network(text).map(Literal::Net).ok_or_else(|| format!("'{}' is no IP network", shown())),
        Class::Opaque => Err(format!("fields of type {} cannot be compared", ty.name())),
    }
}

/// Optional sign and decimal digits; leading white space is tolerated. Beyond 64 bits the number saturates just there.
fn integer(text: &[u8]) -> Option<i128> {
    let start = text.iter().position(|byte| !super::is_space(*byte))?;
    let (negative, digits) = match &text[start..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_i128, |number, digit| {
        number.saturating_mul(10).saturating_add(i128::from(digit - b'0')).min(i128::from(u64::MAX) + 1)
    });
    Some(if negative { -number } else { number })
}

/// A number of 64 bits without sign: a negative one wraps around, one beyond the range is the largest.
pub(crate) fn unsigned(text: &[u8]) -> Option<u64> {
    let number = integer(text)?;
    Some(if number.unsigned_abs() > u128::from(u64::MAX) { u64::MAX } else { number as u64 })
}

fn port(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.is_empty() {
        return Some(0);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<i32>().ok().map(|port| u64::from(port as u16));
    }
    services::port(text).map(u64::from)
}

fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if text.contains('.') {
        text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
    } else {
        text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    }
}

fn network(text: &[u8]) -> Option<IpNet> {
    let slash = text.iter().position(|byte| *byte == b'/')?;
    let address = address(&text[..slash])?;
    let prefix = unsigned(&text[slash + 1..])? & 0xff;
    let allowed = match address {
        IpAddr::V4(_) => 0..=32,
        IpAddr::V6(_) => 1..=128,
    };
    if !allowed.contains(&prefix) {
        return None;
    }
    IpNet::new(address, prefix as u8).ok().map(|net| net.trunc())
}

fn hex(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks(2).map(|pair| Some(crate::parse::hex(pair[0])? << 4 | crate::parse::hex(pair[1])?)).collect()
}

/// A literal for a raw argument, whose type is known only with the event: read again as the type of the value.
pub(super) fn unbound(literal: Literal) -> Literal {
    match literal {
        Literal::Unsigned(number) => Literal::Reread(number),
        other => other,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a fraction holds no more")]
fn double(number: i128) -> f64 {
    number as f64
}
