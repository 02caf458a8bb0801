//! Output formats: `%field`, `%20field`, `%transformer(...)` and literal text.

mod render;
mod time;

use serde_json::{Map, Value as Json};

pub use render::render;
pub use time::{Clock, iso8601, time_text};

use crate::catalogue::{Catalogue, FieldFlags, FieldId};
use crate::compile::known_operand;
use crate::eval::{FieldSource, Got, OperandSource, OwnedArg};
use crate::event::EventCode;
use crate::facts::Facts;
use crate::parse::{Operand, TransformArg, parse_operand_prefix, print_operand};
use crate::types::{PrintFormat, Type};

/// A compiled output.
#[derive(Debug)]
pub struct Format {
    tokens: Vec<Token>,
    /// A missing value prints `<NA>` instead of suppressing the text (the format began with `*`).
    keep_missing: bool,
}

/// An output that does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FormatError {
    /// Why.
    pub message: String,
    /// Whether a field is unknown.
    pub unknown_filter: bool,
}

#[derive(Debug)]
enum Token {
    Literal(Vec<u8>),
    Value(Box<ValueToken>),
}

#[derive(Debug)]
struct ValueToken {
    width: usize,
    shown: Shown,
    /// What a transformer is made of: the fields inside, and transformed values that do not go straight into another.
    inner: Vec<Shown>,
}

/// A value to show.
#[derive(Debug)]
struct Shown {
    key: String,
    source: OperandSource,
    ty: Type,
    print: PrintFormat,
    filter_only: bool,
    is_transformed: bool,
    ids: Vec<FieldId>,
}

impl Format {
    /// Compiles an output.
    ///
    /// # Errors
    /// It is empty, or a `%` is not followed by a field.
    pub fn parse(text: &[u8], catalogue: &Catalogue) -> Result<Self, FormatError> {
        let (keep_missing, mut rest) = match text {
            [b'*', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        if text.is_empty() {
            return Err(FormatError { message: "the output is empty".to_owned(), unknown_filter: false });
        }
        if text.len() > MAX_TEXT {
            let message = format!("the output is longer than {MAX_TEXT} bytes");
            return Err(FormatError { message, unknown_filter: false });
        }
        let mut tokens = Vec::new();
        let (mut width, mut fields) = (0, 0);
        while !rest.is_empty() {
            let Some(at) = memchr::memchr(b'%', rest) else {
                tokens.push(Token::Literal(rest.to_vec()));
                break;
            };
            if at > 0 {
                tokens.push(Token::Literal(rest[..at].to_vec()));
            }
            let (token, after) = value_token(&rest[at + 1..], catalogue)?;
            width += token.width;
            if width > MAX_TEXT {
                let message = format!("the fields of the output are wider than {MAX_TEXT} bytes together");
                return Err(FormatError { message, unknown_filter: false });
            }
            fields += 1;
            if fields > MAX_FIELDS {
                let message = format!("the output has more than {MAX_FIELDS} fields");
                return Err(FormatError { message, unknown_filter: false });
            }
            tokens.push(Token::Value(Box::new(token)));
            rest = after;
        }
        Ok(Self { tokens, keep_missing })
    }

    /// Compiles the name of one field, with its argument, or a transformed field.
    ///
    /// # Errors
    /// It is no such thing, or more than that.
    pub fn field(name: &str, catalogue: &Catalogue) -> Result<Self, FormatError> {
        let fail = || FormatError { message: format!("`{name}` is not a field"), unknown_filter: true };
        let format = Self::parse(format!("%{name}").as_bytes(), catalogue).map_err(|_error| fail())?;
        match format.tokens.as_slice() {
            [Token::Value(token)] if token.width == 0 && token.shown.key == name => Ok(format),
            _ => Err(fail()),
        }
    }

    /// Fields that are read, in order.
    pub fn fields(&self) -> Vec<FieldId> {
        self.values().flat_map(|token| token.shown.ids.iter().copied()).collect()
    }

    /// The text, or nothing if a value is missing and the format does not begin with `*`.
    pub fn text<F: Facts + ?Sized>(&self, facts: &F) -> Option<Vec<u8>> {
        self.text_with(facts, self.keep_missing)
    }

    /// The values by the text of their fields, or nothing if one is missing and the format does not begin with `*`. `Null` if the
    /// format has no fields. With `transformed`, transformed values are there too, not only the fields inside.
    pub fn json<F: Facts + ?Sized>(&self, facts: &F, transformed: bool) -> Option<Json> {
        let mut map = Map::new();
        for token in self.values() {
            for shown in token.reported(transformed) {
                let value = shown.json(facts);
                if value.is_none() && !self.keep_missing {
                    return None;
                }
                map.insert(shown.key.clone(), value.unwrap_or(Json::Null));
            }
        }
        Some(if map.is_empty() { Json::Null } else { Json::Object(map) })
    }

    /// The values as texts by the text of their fields, as [`json`](Self::json).
    pub fn texts<F: Facts + ?Sized>(&self, facts: &F, transformed: bool) -> Option<Map<String, Json>> {
        let mut map = Map::new();
        for token in self.values() {
            for shown in token.reported(transformed) {
                let value = shown.text(facts);
                if value.is_none() && !self.keep_missing {
                    return None;
                }
                let text = value.unwrap_or_else(|| MISSING.to_vec());
                map.insert(shown.key.clone(), String::from_utf8_lossy(&text).into_owned().into());
            }
        }
        Some(map)
    }

    /// The text; a missing value prints `<NA>` if `keep_missing`, else there is none.
    pub(crate) fn text_with<F: Facts + ?Sized>(&self, facts: &F, keep_missing: bool) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for token in &self.tokens {
            match token {
                Token::Literal(text) => out.extend_from_slice(text),
                Token::Value(token) => {
                    let value = token.shown.text(facts);
                    if value.is_none() && !keep_missing {
                        return None;
                    }
                    let mut value = value.unwrap_or_else(|| MISSING.to_vec());
                    if token.width > 0 {
                        value.resize(token.width, b' ');
                    }
                    out.extend_from_slice(&value);
                }
            }
        }
        Some(out)
    }

    /// Adds the values by field text to a map, missing ones as null.
    pub(crate) fn json_into<F: Facts + ?Sized>(&self, facts: &F, map: &mut Map<String, Json>) {
        for token in self.values() {
            for shown in token.reported(false) {
                map.insert(shown.key.clone(), shown.json(facts).unwrap_or(Json::Null));
            }
        }
    }

    /// The value of a format that is one field, with its type; null if it is missing.
    pub fn first_json<F: Facts + ?Sized>(&self, facts: &F) -> Json {
        self.values().next().and_then(|token| token.shown.json(facts)).unwrap_or(Json::Null)
    }

    fn values(&self) -> impl Iterator<Item = &ValueToken> {
        self.tokens.iter().filter_map(|token| match token {
            Token::Value(token) => Some(token.as_ref()),
            Token::Literal(_) => None,
        })
    }
}

/// What a missing value prints.
const MISSING: &[u8] = b"<NA>";

/// Longest output, and the widest that its fields can ask to be together: an alert is built from it several times over.
const MAX_TEXT: usize = 1 << 20;

/// Most fields of an output.
const MAX_FIELDS: usize = 1_000;

/// Widest field; wider ones are cut to it.
const MAX_WIDTH: usize = 4096;

impl ValueToken {
    fn reported(&self, transformed: bool) -> impl Iterator<Item = &Shown> {
        self.inner.iter().chain(std::iter::once(&self.shown)).filter(move |shown| transformed || !shown.is_transformed)
    }
}

impl Shown {
    fn text<F: Facts + ?Sized>(&self, facts: &F) -> Option<Vec<u8>> {
        if let Some((id, ns)) = self.time(facts) {
            return Some(time_text(id, ns?, facts.clock()).into_bytes());
        }
        let (ty, print) = self.bound(facts.event());
        match self.get(facts) {
            Got::One(item) => render::text(item.value(), ty, print),
            Got::Many(items) if items.is_empty() && self.is_chain() => None,
            Got::Many(items) => Some(render::list(&items, ty, print, self.is_chain())),
            Got::Missing | Got::Pending => None,
        }
    }

    fn json<F: Facts + ?Sized>(&self, facts: &F) -> Option<Json> {
        if let Some((_, ns)) = self.time(facts) {
            return ns.map(Json::from);
        }
        let (ty, print) = self.bound(facts.event());
        match self.get(facts) {
            Got::One(item) => render::json(item.value(), ty, print, self.is_raw_time()),
            Got::Many(items) if items.is_empty() => None,
            Got::Many(items) if self.is_chain() => {
                Some(String::from_utf8_lossy(&render::list(&items, ty, print, true)).into_owned().into())
            }
            Got::Many(items) => {
                let items = items.iter().map(|item| render::json(item.value(), ty, print, false).unwrap_or(Json::Null));
                Some(items.collect())
            }
            Got::Missing | Got::Pending => None,
        }
    }

    fn get<'a, F: Facts + ?Sized>(&'a self, facts: &'a F) -> Got<'a> {
        match &self.source {
            _ if self.filter_only => Got::Missing,
            OperandSource::Field(source) => source.get(facts),
            OperandSource::Transform(transform) => transform.evaluate(facts),
        }
    }

    /// The clock field and the event's time, if this is one.
    fn time<F: Facts + ?Sized>(&self, facts: &F) -> Option<(FieldId, Option<u64>)> {
        let OperandSource::Field(FieldSource { id, kind: crate::eval::FieldKind::Time, .. }) = &self.source else {
            return None;
        };
        let ns = match facts.fact(FieldId::EVT_RAWTIME.plain()) {
            crate::Fact::One(crate::Value::U64(ns)) => Some(ns),
            _ => None,
        };
        Some((*id, ns))
    }

    /// Times that JSON has as numbers whatever their print format.
    fn is_raw_time(&self) -> bool {
        matches!(&self.source, OperandSource::Field(field) if matches!(
            field.id,
            FieldId::EVT_RAWTIME
                | FieldId::EVT_RAWTIME_S
                | FieldId::EVT_RAWTIME_NS
                | FieldId::EVT_RELTIME
                | FieldId::EVT_RELTIME_S
                | FieldId::EVT_RELTIME_NS
                | FieldId::EVT_DELTATIME
                | FieldId::EVT_DELTATIME_S
                | FieldId::EVT_DELTATIME_NS
                | FieldId::EVT_LATENCY
                | FieldId::EVT_LATENCY_S
                | FieldId::EVT_LATENCY_NS
        ))
    }

    fn is_chain(&self) -> bool {
        matches!(&self.source, OperandSource::Field(field) if field.kind == crate::eval::FieldKind::Ancestors)
    }

    /// Type and print format; raw arguments have those of the event's own parameter.
    fn bound(&self, code: EventCode) -> (Type, PrintFormat) {
        if let OperandSource::Field(FieldSource { id: FieldId::EVT_RAWARG, arg: OwnedArg::Key(key), .. }) = &self.source
            && let Some((_, param)) = code.event().param(key)
        {
            return (param.ty, param.print);
        }
        (self.ty, self.print)
    }
}

/// Reads what follows a `%`: the longest start that is a known field or transformer.
fn value_token<'t>(text: &'t [u8], catalogue: &Catalogue) -> Result<(ValueToken, &'t [u8]), FormatError> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let width =
        text[..digits].iter().fold(0_usize, |width, digit| (width * 10 + usize::from(digit - b'0')).min(MAX_WIDTH));
    let text = &text[digits..];
    let shown = || String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
    let fail = |message: String, unknown_filter| Err(FormatError { message, unknown_filter });
    let parsed = parse_operand_prefix(text, true);
    let bare = || parse_operand_prefix(text, false).ok();
    let found = match parsed {
        Ok((operand, length)) => longest(operand, length, catalogue),
        Err(_) => None,
    };
    let found = found.or_else(|| bare().and_then(|(operand, length)| longest(operand, length, catalogue)));
    if let Some((shown, length)) = found {
        let inner = inner_values(&shown.0, catalogue);
        return Ok((ValueToken { width, shown: shown.1, inner }, &text[length..]));
    }
    if text.is_empty() {
        return fail("the output ends in a '%', or in a number after one: a field must follow".to_owned(), false);
    }
    // The name alone, where there is one: what follows is text.
    let token = shown();
    let name = &token[..token.find(|c: char| !c.is_ascii_alphanumeric() && !"._".contains(c)).unwrap_or(token.len())];
    let near = catalogue.nearest(name).map(|near| format!("; did you mean '%{near}'?")).unwrap_or_default();
    let token = if name.is_empty() { &token } else { name };
    fail(format!("invalid formatting token '%{token}': no such field{near}"), true)
}

/// The longest start of an operand that resolves: as it is, without argument, with a shorter name.
fn longest(operand: Operand, length: usize, catalogue: &Catalogue) -> Option<((Operand, Shown), usize)> {
    if let Some(shown) = shown(&operand, catalogue) {
        return Some(((operand, shown), length));
    }
    let Operand::Field { name, pos, .. } = &operand else { return None };
    let mut end = name.len();
    while end > 0 {
        if name.is_char_boundary(end) {
            let shorter = Operand::Field { name: name[..end].to_owned(), arg: None, pos: *pos };
            if let Some(shown) = shown(&shorter, catalogue) {
                return Some(((shorter, shown), end));
            }
        }
        end -= 1;
    }
    None
}

fn shown(operand: &Operand, catalogue: &Catalogue) -> Option<Shown> {
    let mut typed = known_operand(operand, catalogue)?;
    if let OperandSource::Field(field) = &mut typed.source {
        // Without index it prints the process itself.
        if field.id == FieldId::PROC_APID && field.arg == OwnedArg::None {
            (field.arg, field.kind) = (OwnedArg::Index(0), crate::eval::FieldKind::Scalar);
        }
    }
    let mut ids = Vec::new();
    operand.walk(&mut |inner| {
        if let Operand::Field { .. } = inner {
            ids.extend(known_operand(inner, catalogue).and_then(|typed| typed.field));
        }
    });
    Some(Shown {
        key: String::from_utf8_lossy(&print_operand(operand)).into_owned(),
        source: typed.source,
        ty: typed.ty,
        print: typed.print,
        filter_only: typed.flags.has(FieldFlags::FILTER_ONLY),
        is_transformed: matches!(operand, Operand::Transform { .. }),
        ids,
    })
}

/// The values inside of a transformer that are reported, in order; nothing for a field. Upstream drops the transformed
/// value that was met last when it comes to the transformer around it.
fn inner_values(operand: &Operand, catalogue: &Catalogue) -> Vec<Shown> {
    let mut found = Vec::new();
    let mut last_is_transformed = false;
    if let Operand::Transform { args, .. } = operand {
        for arg in args {
            values_of(arg, catalogue, &mut found, &mut last_is_transformed);
        }
    }
    if last_is_transformed {
        found.pop();
    }
    found
}

fn values_of(arg: &TransformArg, catalogue: &Catalogue, found: &mut Vec<Shown>, last_is_transformed: &mut bool) {
    match arg {
        TransformArg::Value(..) => {}
        TransformArg::List(items, _) => {
            for item in items {
                values_of(item, catalogue, found, last_is_transformed);
            }
        }
        TransformArg::Operand(operand) => {
            if let Operand::Transform { args, .. } = operand {
                for arg in args {
                    values_of(arg, catalogue, found, last_is_transformed);
                }
                if *last_is_transformed {
                    found.pop();
                }
            }
            found.extend(shown(operand, catalogue));
            *last_is_transformed = matches!(operand, Operand::Transform { .. });
        }
    }
}
