//! Transformers: values made from values.

use std::borrow::Cow;

use super::predicate::{FieldSource, Item};
use super::text;
use crate::facts::{Facts, Value};
use crate::types::Type;

/// A transformer's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransformName {
    ToLower,
    ToUpper,
    B64,
    Basename,
    Len,
    Join,
    Concat,
    GetOpt,
}

/// A transformer with its arguments.
#[derive(Debug)]
pub(crate) struct Transform {
    pub(crate) name: TransformName,
    pub(crate) args: Vec<Argument>,
    /// The option letter of `getopt(...)[c]`.
    pub(crate) result: Option<u8>,
}

/// An argument.
#[derive(Debug)]
pub(crate) enum Argument {
    Literal(Box<[u8]>),
    List(Vec<Self>),
    Field(FieldSource),
    Transform(Box<Transform>),
}

/// The value of an operand.
#[derive(Debug)]
pub(crate) enum Got<'a> {
    Missing,
    Pending,
    One(Item<'a>),
    Many(Vec<Item<'a>>),
}

/// A transformer that does not take what it was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransformError(pub String);

impl TransformName {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "tolower" => Self::ToLower,
            "toupper" => Self::ToUpper,
            "b64" => Self::B64,
            "basename" => Self::Basename,
            "len" => Self::Len,
            "join" => Self::Join,
            "concat" => Self::Concat,
            "getopt" => Self::GetOpt,
            _ => return None,
        })
    }

    /// Whether it takes several arguments.
    pub(crate) const fn is_multi(self) -> bool {
        matches!(self, Self::Join | Self::Concat | Self::GetOpt)
    }

    /// What becomes of a type; nothing if it is not accepted. For transformers of one argument.
    pub(crate) const fn result(self, ty: Type, is_list: bool) -> Option<(Type, bool)> {
        let is_text = matches!(ty, Type::Text | Type::FsPath | Type::FsRelPath);
        match self {
            Self::ToLower | Self::ToUpper | Self::Basename if is_text => Some((ty, is_list)),
            Self::B64 if matches!(ty, Type::Text | Type::Bytes) => Some((ty, is_list)),
            Self::Len if is_list || is_text || matches!(ty, Type::Bytes) => Some((Type::U64, false)),
            _ => None,
        }
    }
}

/// The type and list-ness a transformer of one argument makes of another.
///
/// # Errors
/// There is no such transformer, or it does not take that type.
pub fn transform_type(name: &str, ty: Type, is_list: bool) -> Result<(Type, bool), TransformError> {
    let known = TransformName::parse(name).filter(|name| !name.is_multi());
    let known = known.ok_or_else(|| TransformError(format!("unknown transformer '{name}'")))?;
    known.result(ty, is_list).ok_or_else(|| {
        let list = if is_list { "lists of " } else { "" };
        TransformError(format!("transformer '{name}' does not take {list}{}", ty.name()))
    })
}

/// Applies a transformer of one argument to texts or numbers; nothing if the result has no value.
///
/// # Errors
/// As [`transform_type`].
pub fn transform_values(
    name: &str,
    ty: Type,
    is_list: bool,
    values: &[Value<'_>],
) -> Result<Option<Vec<serde_json::Value>>, TransformError> {
    transform_type(name, ty, is_list)?;
    let Some(known) = TransformName::parse(name) else { return Ok(None) };
    let items: Vec<Item<'_>> = values.iter().map(|value| Item::from(*value)).collect();
    let got = match (is_list, items.as_slice()) {
        (false, [item]) => Got::One(item.clone()),
        _ => Got::Many(items),
    };
    let shown = |item: &Item<'_>| match item.value() {
        Value::Text(text) | Value::Bytes(text) => serde_json::Value::from(String::from_utf8_lossy(text)),
        Value::U64(number) => number.into(),
        Value::I64(number) => number.into(),
        _ => serde_json::Value::Null,
    };
    Ok(match single(known, got) {
        Got::One(item) => Some(vec![shown(&item)]),
        Got::Many(items) => Some(items.iter().map(shown).collect()),
        Got::Missing | Got::Pending => None,
    })
}

impl Transform {
    /// The value for an event. Nesting is limited when conditions are parsed.
    pub(crate) fn evaluate<'a, F: Facts + ?Sized>(&'a self, facts: &'a F) -> Got<'a> {
        match self.name {
            TransformName::Join => self.join(facts),
            TransformName::Concat => self.concat(facts),
            TransformName::GetOpt => self.getopt(facts),
            name => match self.args.first() {
                Some(arg) => single(name, arg.evaluate(facts)),
                None => Got::Missing,
            },
        }
    }

    fn join<'a, F: Facts + ?Sized>(&'a self, facts: &'a F) -> Got<'a> {
        let [separator, list] = self.args.as_slice() else { return Got::Missing };
        let separator = match text_of(separator.evaluate(facts)) {
            Ok(separator) => separator,
            Err(got) => return got,
        };
        let items = match list.evaluate(facts) {
            Got::One(item) => vec![item],
            Got::Many(items) => items,
            other => return other,
        };
        let mut out = Vec::new();
        for (nth, item) in items.iter().enumerate() {
            if nth > 0 {
                out.extend_from_slice(&separator);
            }
            out.extend_from_slice(&rendered(item));
        }
        Got::One(Item::Text(Cow::Owned(out)))
    }

    fn concat<'a, F: Facts + ?Sized>(&'a self, facts: &'a F) -> Got<'a> {
        let mut out = Vec::new();
        for arg in &self.args {
            match text_of(arg.evaluate(facts)) {
                Ok(text) => out.extend_from_slice(&text),
                Err(got) => return got,
            }
        }
        Got::One(Item::Text(Cow::Owned(out)))
    }

    fn getopt<'a, F: Facts + ?Sized>(&'a self, facts: &'a F) -> Got<'a> {
        let [list, options] = self.args.as_slice() else { return Got::Missing };
        let words: Vec<Cow<'_, [u8]>> = match list.evaluate(facts) {
            Got::Many(items) => items.iter().map(|item| Cow::Owned(rendered(item).into_owned())).collect(),
            Got::One(item) => vec![Cow::Owned(rendered(&item).into_owned())],
            other => return other,
        };
        let options = match text_of(options.evaluate(facts)) {
            Ok(options) => options,
            Err(got) => return got,
        };
        let found = options_of(&words, &options);
        match self.result {
            None => {
                Got::Many(found.into_iter().flat_map(Opt::values).map(|text| Item::Text(Cow::Owned(text))).collect())
            }
            Some(letter) => match found.into_iter().rev().find(|opt| opt.letter == letter && opt.known) {
                None => Got::Missing,
                Some(opt) => Got::One(Item::Text(Cow::Owned(if opt.takes_value {
                    opt.value.unwrap_or_default()
                } else {
                    vec![letter]
                }))),
            },
        }
    }
}

impl Argument {
    fn evaluate<'a, F: Facts + ?Sized>(&'a self, facts: &'a F) -> Got<'a> {
        match self {
            Self::Literal(text) => Got::One(Item::Text(Cow::Borrowed(text))),
            Self::Field(source) => source.get(facts),
            Self::Transform(transform) => transform.evaluate(facts),
            Self::List(args) => {
                let mut items = Vec::with_capacity(args.len());
                for arg in args {
                    match arg.evaluate(facts) {
                        Got::Missing => return Got::Missing,
                        Got::Pending => return Got::Pending,
                        Got::One(item) => items.push(item),
                        Got::Many(more) => items.extend(more),
                    }
                }
                Got::Many(items)
            }
        }
    }
}

/// An option that `getopt` found.
struct Opt {
    letter: u8,
    known: bool,
    takes_value: bool,
    value: Option<Vec<u8>>,
}

impl Opt {
    /// As listed: the letter (`?` if unknown), then its value if it takes one; an empty text alone if that is missing.
    fn values(self) -> impl Iterator<Item = Vec<u8>> {
        let letter = match (&self.value, self.takes_value) {
            (None, true) => Vec::new(),
            _ if self.known => vec![self.letter],
            _ => b"?".to_vec(),
        };
        std::iter::once(letter).chain(self.value)
    }
}

fn options_of(words: &[Cow<'_, [u8]>], options: &[u8]) -> Vec<Opt> {
    let mut found = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let letters = match word.as_ref() {
            b"--" => break,
            [b'-', b'-', ..] => continue,
            [b'-', letters @ ..] if !letters.is_empty() => letters,
            _ => break,
        };
        for (at, &letter) in letters.iter().enumerate() {
            let mut places =
                options.iter().enumerate().filter(|(_, option)| **option == letter && letter != b':').peekable();
            let known = places.peek().is_some();
            let takes_value = places.any(|(place, _)| options.get(place + 1) == Some(&b':'));
            let mut opt = Opt { letter, known, takes_value, value: None };
            if takes_value {
                let rest = &letters[at + 1..];
                opt.value = if rest.is_empty() { words.next().map(|word| word.to_vec()) } else { Some(rest.to_vec()) };
                found.push(opt);
                break;
            }
            found.push(opt);
        }
    }
    found
}

fn single(name: TransformName, got: Got<'_>) -> Got<'_> {
    if name == TransformName::Len {
        return match got {
            Got::One(item) => match item.value() {
                Value::Text(text) => length(text::c_text(text).len()),
                Value::Bytes(bytes) => length(bytes.len()),
                _ => Got::Missing,
            },
            Got::Many(items) => length(items.len()),
            other => other,
        };
    }
    match got {
        Got::One(item) => element(name, item).map_or(Got::Missing, Got::One),
        Got::Many(items) => {
            items.into_iter().map(|item| element(name, item)).collect::<Option<_>>().map_or(Got::Missing, Got::Many)
        }
        other => other,
    }
}

fn length(count: usize) -> Got<'static> {
    Got::One(Item::Plain(Value::U64(count as u64)))
}

fn element(name: TransformName, item: Item<'_>) -> Option<Item<'_>> {
    Some(match (name, item) {
        (TransformName::B64, Item::Bytes(bytes)) => Item::Bytes(Cow::Owned(base64(&bytes)?)),
        (_, Item::Text(text)) => {
            let text = without_terminator(text);
            Item::Text(match name {
                TransformName::ToLower => Cow::Owned(text.to_ascii_lowercase()),
                TransformName::ToUpper => Cow::Owned(text.to_ascii_uppercase()),
                TransformName::Basename => match memchr::memrchr(b'/', &text) {
                    Some(at) => Cow::Owned(text[at + 1..].to_vec()),
                    None => text,
                },
                TransformName::B64 => Cow::Owned(base64(&text)?),
                _ => return None,
            })
        }
        _ => return None,
    })
}

fn c_text_of(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text::c_text(text)),
        Cow::Owned(mut text) => {
            text.truncate(text::c_text(&text).len());
            Cow::Owned(text)
        }
    }
}

fn without_terminator(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text::without_trailing_nuls(text)),
        Cow::Owned(mut text) => {
            text.truncate(text::without_trailing_nuls(&text).len());
            Cow::Owned(text)
        }
    }
}

/// The text of a single value (of several, which only getopt makes here, the first), or what to answer instead.
fn text_of(got: Got<'_>) -> Result<Cow<'_, [u8]>, Got<'_>> {
    match got {
        Got::One(Item::Text(text)) => Ok(c_text_of(text)),
        Got::One(item) => Ok(Cow::Owned(rendered(&item).into_owned())),
        Got::Many(items) => text_of(items.into_iter().next().map_or(Got::Missing, Got::One)),
        other => Err(other),
    }
}

/// A value as text.
fn rendered<'a>(item: &'a Item<'_>) -> Cow<'a, [u8]> {
    match item.value() {
        Value::Text(text) => Cow::Borrowed(text::c_text(text)),
        Value::Bytes(bytes) => Cow::Borrowed(bytes),
        Value::Bool(value) => Cow::Owned(value.to_string().into_bytes()),
        Value::I64(value) => Cow::Owned(value.to_string().into_bytes()),
        Value::U64(value) => Cow::Owned(value.to_string().into_bytes()),
        Value::F64(value) => Cow::Owned(value.to_string().into_bytes()),
        Value::Ip(value) => Cow::Owned(value.to_string().into_bytes()),
        Value::Net(value) => Cow::Owned(value.to_string().into_bytes()),
    }
}

/// Decodes base 64. Padding is optional; left-over bits must be zero.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let body = &text[..text.len() - padding];
    let mut out = Vec::with_capacity(body.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for &byte in body {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    // One digit alone holds no byte.
    if count == 6 || bits != 0 { None } else { Some(out) }
}
