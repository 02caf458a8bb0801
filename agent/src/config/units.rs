//! Values with units as people write them: `10s`, `1m30s`, `8MiB`. Parsing and printing only.

use std::{fmt, str::FromStr, time::Duration};

/// A span of time, written `250ms`, `10s`, `1m30s`, `2h`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes, written `4096`, `64KiB`, `8MiB`, `1GiB` or, decimal, `10MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Why a text is not a value with a unit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnitError {
    /// Empty, or no digit where a number must be.
    #[error("`{0}` is not a {1}: write a number and its unit, such as {2}")]
    Number(String, &'static str, &'static str),
    /// The number has no unit, or an unknown one.
    #[error("`{0}` has {1}: use one of {2}")]
    Unit(String, String, &'static str),
    /// Too large to be held.
    #[error("`{0}` is too large")]
    Overflow(String),
}

const SPAN_UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let overflow = || UnitError::Overflow(text.to_owned());
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let mut total = 0_u64;
        loop {
            let (number, after) = digits(rest, text, "duration", "`10s`, `500ms` or `1m30s`")?;
            let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            let Some((_, scale)) = SPAN_UNITS.iter().find(|(name, _)| *name == unit.trim()) else {
                return Err(unknown_unit(text, unit, "ns, us, ms, s, m, h, d"));
            };
            total = number.checked_mul(*scale).and_then(|ns| total.checked_add(ns)).ok_or_else(overflow)?;
            rest = after;
            if rest.is_empty() {
                return Ok(Self(Duration::from_nanos(total)));
            }
        }
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = digits(text.trim(), text, "size", "`8MiB`, `64KiB` or `4096`")?;
        let Some((_, scale)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit.trim()) else {
            return Err(unknown_unit(text, unit, "B, kB, MB, GB, KiB, MiB, GiB, TiB"));
        };
        number.checked_mul(*scale).map(Self).ok_or_else(|| UnitError::Overflow(text.to_owned()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        let (unit, scale) = SPAN_UNITS
            .iter()
            .rev()
            .find(|(_, scale)| ns != 0 && ns.is_multiple_of(u128::from(*scale)))
            .unwrap_or(&("s", 1_000_000_000));
        write!(f, "{}{unit}", ns / u128::from(*scale))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = SIZE_UNITS
            .iter()
            .rev()
            .find(|(name, scale)| name.ends_with("iB") && self.0 != 0 && self.0.is_multiple_of(*scale))
            .unwrap_or(&("", 1));
        write!(f, "{}{unit}", self.0 / scale)
    }
}

fn digits<'a>(
    rest: &'a str,
    whole: &str,
    what: &'static str,
    example: &'static str,
) -> Result<(u64, &'a str), UnitError> {
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, after) = rest.split_at(end);
    if number.is_empty() {
        return Err(UnitError::Number(whole.to_owned(), what, example));
    }
    // Only digits: the one error left is overflow.
    let number = number.parse().ok().ok_or_else(|| UnitError::Overflow(whole.to_owned()))?;
    Ok((number, after))
}

fn unknown_unit(text: &str, unit: &str, known: &'static str) -> UnitError {
    let what = match unit.trim() {
        "" => "no unit".to_owned(),
        unit => format!("the unknown unit `{unit}`"),
    };
    UnitError::Unit(text.to_owned(), what, known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, ns, shown) in [
            ("10s", 10_000_000_000, "10s"),
            ("250ms", 250_000_000, "250ms"),
            ("1m30s", 90_000_000_000, "90s"),
            ("2h", 7_200_000_000_000, "2h"),
            ("1 d", 86_400_000_000_000, "1d"),
            ("0", 0, "0s"),
            ("7us", 7_000, "7us"),
        ] {
            let span: Span = text.parse().expect(text);
            assert_eq!(span.0.as_nanos(), ns, "{text}");
            assert_eq!(span.to_string(), shown, "{text}");
            assert_eq!(shown.parse::<Span>().map(|s| s.0), Ok(span.0), "what is printed is parsed back: {shown}");
        }
        for (text, want) in [
            ("", "is not a duration"),
            ("s", "is not a duration"),
            ("-1s", "is not a duration"),
            ("10", "has no unit: use one of ns, us, ms, s, m, h, d"),
            ("10 parsecs", "has the unknown unit `parsecs`"),
            ("1.5s", "has the unknown unit `.`"),
            ("99999999999999999999s", "too large"),
            ("999999999d", "too large"),
        ] {
            let error = text.parse::<Span>().expect_err(text).to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes, shown) in [
            ("8MiB", 8 << 20, "8MiB"),
            ("64 KiB", 64 << 10, "64KiB"),
            ("4096", 4096, "4KiB"),
            ("10MB", 10_000_000, "10000000"),
            ("1GiB", 1 << 30, "1GiB"),
            ("0", 0, "0"),
        ] {
            let size: Size = text.parse().expect(text);
            assert_eq!(size.0, bytes, "{text}");
            assert_eq!(size.to_string(), shown, "{text}");
        }
        for (text, want) in [
            ("", "is not a size"),
            ("MiB", "is not a size"),
            ("8Mib", "has the unknown unit `Mib`"),
            ("18446744073709551615KiB", "too large"),
        ] {
            let error = text.parse::<Size>().expect_err(text).to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
