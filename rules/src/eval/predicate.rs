//! A compiled check and its evaluation.
//!
//! Fields are compared as borrowed values; only transformers make new ones.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::net::IpAddr;

use ipnet::IpNet;
use memchr::memmem::Finder;

use super::glob::Glob;
use super::path::PathSet;
use super::posix::Posix;
use super::text::{self, AnyText, TextSet};
use super::transform::{Got, Transform};
use crate::catalogue::FieldId;
use crate::facts::{Arg, Fact, Facts, FieldRef, Value};
use crate::matches::Outcome;
use crate::parse::Modifier;

/// A check of one operand.
#[derive(Debug)]
pub(crate) struct Predicate {
    pub(crate) left: OperandSource,
    pub(crate) test: Test,
}

/// Where the value comes from.
#[derive(Debug)]
pub(crate) enum OperandSource {
    Field(FieldSource),
    Transform(Box<Transform>),
}

/// A field with its argument.
#[derive(Clone, Debug)]
pub(crate) struct FieldSource {
    pub(crate) id: FieldId,
    pub(crate) arg: OwnedArg,
    pub(crate) kind: FieldKind,
}

/// Argument of a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OwnedArg {
    None,
    Index(u64),
    Key(Box<[u8]>),
}

/// What several values of a field mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldKind {
    /// One value.
    Scalar,
    /// A list.
    List,
    /// Some ancestor must satisfy the check.
    Ancestors,
    /// Either end, or any of an address's names, must satisfy the check; all of them for `!=`.
    Pair,
    /// A clock time, printed from the event's nanoseconds.
    Time,
}

/// A literal in the form its field is compared in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Text(Box<[u8]>),
    Bytes(Box<[u8]>),
    Signed(i64),
    Unsigned(u64),
    /// Unsigned when it was compiled; as wide and signed as the value when it is compared.
    Reread(u64),
    Double(f64),
    Bool(bool),
    Ip(IpAddr),
    Net(IpNet),
}

/// An ordering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumericOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// What is asked of a value.
#[derive(Debug)]
pub(crate) enum Test {
    Exists,
    /// Nothing satisfies it.
    Never,
    Text(TextTest),
    Bytes(BytesTest),
    /// An ordering of any other type.
    Compare(NumericOp, Literal),
    /// Equality with any literal of a type other than text.
    AnyLiteral(Vec<Literal>),
    /// So many of the tests must hold.
    Modified(Modifier, Vec<Self>),
    /// A list: every element must satisfy the test (`in`).
    Every(Box<Self>),
    /// A list: some element must satisfy the test (`intersects`).
    Some(Box<Self>),
    /// Comparison with another operand.
    Operand(OperandOp, OperandSource),
}

/// What is asked of a text.
#[derive(Debug)]
pub(crate) enum TextTest {
    Order(NumericOp, Box<[u8]>),
    Contains(Box<Finder<'static>>),
    /// Lower case.
    IContains(Box<[u8]>),
    StartsWith(Box<[u8]>),
    EndsWith(Box<[u8]>),
    Glob(Glob),
    Regex(Box<Posix>),
    In(Box<TextSet>),
    Path(Box<PathSet>),
    Any(Box<AnyText>),
}

/// What is asked of a buffer.
#[derive(Debug)]
pub(crate) enum BytesTest {
    Contains(Box<Finder<'static>>),
    StartsWith(Box<[u8]>),
    EndsWith(Box<[u8]>),
}

/// How two operands are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperandOp {
    Order(NumericOp),
    Contains,
    IContains,
    StartsWith,
    EndsWith,
    /// Bytes on the right are hexadecimal digits.
    Glob {
        fold: bool,
    },
    In,
    Intersects,
}

impl Predicate {
    /// Decides the check for an event.
    pub(crate) fn evaluate<F: Facts + ?Sized>(&self, facts: &F) -> Outcome {
        match &self.left {
            OperandSource::Field(source) if source.kind == FieldKind::Time => self.decide(facts, source.time(facts)),
            OperandSource::Field(source) => {
                let field = source.field();
                match facts.fact(field) {
                    Fact::Missing(_) => Outcome::False,
                    Fact::Pending => Outcome::Pending,
                    Fact::One(value) => self.test.one(facts, value, source.kind),
                    Fact::Many(count) => self.test.many(facts, source.kind, count, |nth| facts.element(field, nth)),
                }
            }
            OperandSource::Transform(transform) => self.decide(facts, transform.evaluate(facts)),
        }
    }

    fn decide<F: Facts + ?Sized>(&self, facts: &F, got: Got<'_>) -> Outcome {
        match got {
            Got::Missing => Outcome::False,
            Got::Pending => Outcome::Pending,
            Got::One(item) => self.test.one(facts, item.value(), FieldKind::Scalar),
            Got::Many(items) => self.test.many(facts, FieldKind::List, items.len(), |nth| {
                items.get(nth).map_or(Fact::Missing(crate::facts::Reason::Unknown), |item| Fact::One(item.value()))
            }),
        }
    }
}

impl FieldSource {
    /// The field to ask facts for.
    #[inline]
    pub(crate) fn field(&self) -> FieldRef<'_> {
        let arg = match &self.arg {
            OwnedArg::None => Arg::None,
            OwnedArg::Index(index) => Arg::Index(*index),
            OwnedArg::Key(key) => Arg::Key(key),
        };
        FieldRef { id: self.id, arg }
    }

    /// The value, lists with all elements.
    pub(crate) fn get<'a, F: Facts + ?Sized>(&'a self, facts: &'a F) -> Got<'a> {
        if self.kind == FieldKind::Time {
            return self.time(facts);
        }
        let field = self.field();
        match facts.fact(field) {
            Fact::Missing(_) => Got::Missing,
            Fact::Pending => Got::Pending,
            Fact::One(value) if self.kind == FieldKind::List => Got::Many(vec![Item::from(value)]),
            Fact::One(value) => Got::One(Item::from(value)),
            // Of several names of an address one is shown; the two ends of a socket are never printed.
            Fact::Many(_) if self.kind == FieldKind::Pair => match facts.element(field, 0) {
                Fact::One(value) => Got::One(Item::from(value)),
                Fact::Pending => Got::Pending,
                _ => Got::Missing,
            },
            Fact::Many(count) => {
                let mut items = Vec::with_capacity(count.min(1024));
                for nth in 0..count {
                    match facts.element(field, nth) {
                        Fact::One(value) => items.push(Item::from(value)),
                        Fact::Pending => return Got::Pending,
                        Fact::Missing(_) | Fact::Many(_) => {}
                    }
                }
                Got::Many(items)
            }
        }
    }

    fn time<F: Facts + ?Sized>(&self, facts: &F) -> Got<'static> {
        match facts.fact(FieldId::EVT_RAWTIME.plain()) {
            Fact::One(Value::U64(ns)) => {
                let text = crate::format::time_text(self.id, ns, facts.clock());
                Got::One(Item::Text(Cow::Owned(text.into_bytes())))
            }
            Fact::Pending => Got::Pending,
            _ => Got::Missing,
        }
    }
}

/// A value that may be owned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item<'a> {
    Text(Cow<'a, [u8]>),
    Bytes(Cow<'a, [u8]>),
    Plain(Value<'static>),
}

impl<'a> From<Value<'a>> for Item<'a> {
    fn from(value: Value<'a>) -> Self {
        Self::Plain(match value {
            Value::Text(text) => return Self::Text(Cow::Borrowed(text)),
            Value::Bytes(bytes) => return Self::Bytes(Cow::Borrowed(bytes)),
            Value::Bool(bool) => Value::Bool(bool),
            Value::I64(number) => Value::I64(number),
            Value::U64(number) => Value::U64(number),
            Value::F64(number) => Value::F64(number),
            Value::Ip(ip) => Value::Ip(ip),
            Value::Net(net) => Value::Net(net),
        })
    }
}

impl Item<'_> {
    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Text(text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Plain(value) => *value,
        }
    }
}

impl Test {
    #[inline]
    fn one<F: Facts + ?Sized>(&self, facts: &F, value: Value<'_>, kind: FieldKind) -> Outcome {
        match self {
            Self::Operand(op, right) => compare_operand(facts, *op, &[value], kind == FieldKind::List, right),
            Self::Every(test) | Self::Some(test) => from(test.holds(value)),
            _ => from(self.holds(value)),
        }
    }

    fn many<'f, F: Facts + ?Sized>(
        &self,
        facts: &F,
        kind: FieldKind,
        count: usize,
        element: impl Fn(usize) -> Fact<'f>,
    ) -> Outcome {
        if matches!(self, Self::Exists) {
            return Outcome::True;
        }
        if let Self::Operand(op, right) = self {
            let mut values = Vec::with_capacity(count.min(1024));
            for nth in 0..count {
                match element(nth) {
                    Fact::One(value) => values.push(value),
                    Fact::Pending => return Outcome::Pending,
                    Fact::Missing(_) | Fact::Many(_) => {}
                }
            }
            return compare_operand(facts, *op, &values, true, right);
        }
        let (every, test) = match self {
            Self::Every(test) => (true, test.as_ref()),
            Self::Some(test) => (false, test.as_ref()),
            Self::Compare(NumericOp::Ne, _) | Self::Text(TextTest::Order(NumericOp::Ne, _))
                if kind == FieldKind::Pair =>
            {
                (true, self)
            }
            _ => (false, self),
        };
        let mut pending = false;
        for nth in 0..count {
            match element(nth) {
                Fact::One(value) if test.holds(value) != every => return from(!every),
                Fact::Pending => pending = true,
                _ => {}
            }
        }
        if pending { Outcome::Pending } else { from(every) }
    }

    /// Whether one value satisfies the test.
    #[inline]
    pub(crate) fn holds(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Exists, _) => true,
            (Self::Text(test), Value::Text(text)) => test.holds(text),
            (Self::Bytes(test), Value::Bytes(bytes)) => test.holds(bytes),
            (Self::Compare(op, literal), _) => {
                compare_literal(value, literal).map_or(*op == NumericOp::Ne, |order| op.accepts(order))
            }
            (Self::AnyLiteral(literals), _) => {
                literals.iter().any(|literal| compare_literal(value, literal) == Some(Ordering::Equal))
            }
            (Self::Modified(modifier, tests), _) => {
                let count = tests.iter().filter(|test| test.holds(value)).count();
                match modifier {
                    Modifier::OneOf => count == 1,
                    Modifier::AnyOf => count > 0,
                    Modifier::AllOf => count > 0 && count == tests.len(),
                }
            }
            (Self::Every(test) | Self::Some(test), _) => test.holds(value),
            _ => false,
        }
    }
}

impl TextTest {
    #[inline]
    fn holds(&self, text: &[u8]) -> bool {
        match self {
            Self::Order(NumericOp::Eq, want) => text::equals(text, want),
            Self::Order(NumericOp::Ne, want) => !text::equals(text, want),
            Self::Order(op, want) => op.accepts(text::c_text(text).cmp(want)),
            Self::Contains(finder) => finder.find(text).is_some_and(|at| !text[..at].contains(&0)),
            Self::IContains(needle) => text::contains_folded(text::c_text(text), needle),
            Self::StartsWith(prefix) => text.starts_with(prefix),
            Self::EndsWith(suffix) => text::c_text(text).ends_with(suffix),
            Self::Glob(glob) => glob.matches(text::c_text(text)),
            Self::Regex(regex) => regex.matches(text::without_trailing_nuls(text)),
            Self::In(set) => set.contains(text),
            Self::Path(paths) => paths.matches(text::c_text(text)),
            Self::Any(any) => any.matches(text),
        }
    }
}

impl BytesTest {
    fn holds(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Contains(finder) => finder.find(bytes).is_some(),
            Self::StartsWith(prefix) => bytes.starts_with(prefix),
            Self::EndsWith(suffix) => bytes.ends_with(suffix),
        }
    }
}

impl NumericOp {
    #[inline]
    const fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Eq => order.is_eq(),
            Self::Ne => order.is_ne(),
            Self::Lt => order.is_lt(),
            Self::Le => order.is_le(),
            Self::Gt => order.is_gt(),
            Self::Ge => order.is_ge(),
        }
    }
}

/// Compares a value with a literal of its field's type; nothing if they cannot be compared (other IP family, not in
/// the network).
#[inline]
fn compare_literal(value: Value<'_>, literal: &Literal) -> Option<Ordering> {
    match (value, literal) {
        (Value::Text(a), Literal::Text(b)) => Some(text::c_text(a).cmp(b)),
        (Value::Bytes(a) | Value::Text(a), Literal::Bytes(b)) => Some(a.cmp(b)),
        (Value::I64(a), Literal::Signed(b)) => Some(a.cmp(b)),
        (Value::U64(a), Literal::Signed(b)) => Some((a as i64).cmp(b)),
        (Value::U64(a), Literal::Unsigned(b) | Literal::Reread(b)) => Some(a.cmp(b)),
        (Value::I64(a), Literal::Unsigned(b)) => Some((a as u64).cmp(b)),
        // 32 bits are what the types that are read again have.
        (Value::I64(a), Literal::Reread(b)) if u32::try_from(*b).is_ok() => Some(a.cmp(&i64::from(*b as u32 as i32))),
        (Value::I64(a), Literal::Reread(b)) => Some(a.cmp(&(*b as i64))),
        (Value::F64(a), Literal::Double(b)) => a.partial_cmp(b),
        (Value::Bool(a), Literal::Bool(b)) => Some(a.cmp(b)),
        (Value::Ip(a), Literal::Ip(b)) => (a == *b).then_some(Ordering::Equal),
        (Value::Ip(a), Literal::Net(b)) => b.contains(&a).then_some(Ordering::Equal),
        (Value::Net(a), Literal::Net(b)) => (a == *b).then_some(Ordering::Equal),
        _ => None,
    }
}

/// Compares two values of the same type.
fn compare_values(a: Value<'_>, b: Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => Some(text::c_text(a).cmp(text::c_text(b))),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::I64(a), Value::I64(b)) => Some(a.cmp(&b)),
        (Value::U64(a), Value::U64(b)) => Some(a.cmp(&b)),
        (Value::I64(a), Value::U64(b)) => Some(i128::from(a).cmp(&i128::from(b))),
        (Value::U64(a), Value::I64(b)) => Some(i128::from(a).cmp(&i128::from(b))),
        (Value::F64(a), Value::F64(b)) => a.partial_cmp(&b),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(&b)),
        (Value::Ip(a), Value::Ip(b)) => (a == b).then_some(Ordering::Equal),
        (Value::Net(a), Value::Net(b)) => (a == b).then_some(Ordering::Equal),
        _ => None,
    }
}

fn compare_operand<F: Facts + ?Sized>(
    facts: &F,
    op: OperandOp,
    left: &[Value<'_>],
    left_is_list: bool,
    right: &OperandSource,
) -> Outcome {
    let got = match right {
        OperandSource::Field(source) => source.get(facts),
        OperandSource::Transform(transform) => transform.evaluate(facts),
    };
    let right = match got {
        Got::Missing => return Outcome::False,
        Got::Pending => return Outcome::Pending,
        Got::One(item) => vec![item],
        Got::Many(items) => items,
    };
    let equal = |a: &Value<'_>, b: &Item<'_>| match (*a, b.value()) {
        (Value::Text(a), Value::Text(b)) => text::without_trailing_nuls(a) == text::without_trailing_nuls(b),
        (a, b) => compare_values(a, b) == Some(Ordering::Equal),
    };
    let listed = |a: &Value<'_>| right.iter().any(|b| equal(a, b));
    from(match op {
        OperandOp::In if left_is_list => left.iter().all(listed),
        OperandOp::In | OperandOp::Intersects => left.iter().any(listed),
        _ => match (left, right.as_slice()) {
            ([a], [b]) => scalar(op, *a, b.value()),
            _ => false,
        },
    })
}

fn scalar(op: OperandOp, a: Value<'_>, b: Value<'_>) -> bool {
    let (a_bytes, b_bytes) = match (a, b) {
        (Value::Text(a), Value::Text(b)) => (text::c_text(a), text::c_text(b)),
        (Value::Bytes(a), Value::Bytes(b)) => (a, b),
        _ => (&[][..], &[][..]),
    };
    match op {
        OperandOp::Order(op) => compare_values(a, b).map_or(op == NumericOp::Ne, |order| op.accepts(order)),
        OperandOp::Contains => memchr::memmem::find(a_bytes, b_bytes).is_some(),
        OperandOp::IContains => text::contains_folded(a_bytes, &b_bytes.to_ascii_lowercase()),
        OperandOp::StartsWith => a_bytes.starts_with(b_bytes),
        OperandOp::EndsWith => a_bytes.ends_with(b_bytes),
        OperandOp::Glob { fold } => Glob::new(b_bytes, fold).matches(a_bytes),
        OperandOp::In | OperandOp::Intersects => false,
    }
}

#[inline]
const fn from(holds: bool) -> Outcome {
    if holds { Outcome::True } else { Outcome::False }
}
