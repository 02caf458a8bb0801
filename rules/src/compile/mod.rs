//! Checks a condition against a catalogue of fields and compiles its checks.
//!
//! Knows types and operators; puts nothing together: that is `program`.

mod literal;
mod operand;
mod services;

use std::borrow::Cow;
use std::cell::Cell;

use crate::catalogue::{Catalogue, FieldFlags, FieldId};
use crate::diagnostic::Code;
use crate::eval::{
    BytesTest, FieldKind, Glob, Literal, NumericOp, OperandOp, PathSet, Posix, Predicate, Test, TextSet, TextTest,
};
use crate::nearest::did_you_mean;
use crate::parse::{Expr, Modifier, Op, Operand, Pos, Right, TRANSFORMERS, parse_operand_prefix};
use crate::types::{Class, Type};

pub(crate) use literal::unsigned as literal_number;
pub(crate) use operand::{Typed, known_operand, typed_operand};

/// The usual name of a port (`https`), as literals of ports name it, too.
pub fn service_name(port: u16) -> Option<&'static str> {
    services::name(port)
}

/// A check that does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CompileError {
    /// Why.
    pub message: String,
    /// Where in the condition.
    pub pos: Pos,
    /// Whether a field or event name is unknown, which rules may ask to be skipped for.
    pub unknown_filter: bool,
}

/// Something that may not mean what it seems to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Its code.
    pub code: Code,
    /// What it is.
    pub message: String,
    /// Where in the condition.
    pub pos: Pos,
}

/// Most values of a check that are pointed at.
const MAX_HINTS: usize = 1_000;

/// Most bytes of compiled regular expressions in a set.
const MAX_REGEXES: usize = 32 << 20;

/// Compiles one check (a leaf of the tree); `regexes` counts the bytes of the set's regular expressions.
pub(crate) fn compile_check(
    expr: &Expr,
    catalogue: &Catalogue,
    hints: &mut Vec<Hint>,
    regexes: &Cell<usize>,
) -> Result<Predicate, CompileError> {
    match expr {
        Expr::Exists(operand, _) => {
            let left = typed_operand(operand, catalogue)?;
            Ok(Predicate { left: left.source, test: Test::Exists })
        }
        Expr::Check { left, op, modifier, right, pos } => {
            let typed = typed_operand(left, catalogue)?;
            let check = Check { typed: &typed, op: *op, pos: *pos, catalogue, regexes };
            let test = match right {
                Right::Value(value, value_pos) => check.literals(*modifier, &[(value, *value_pos)], hints)?,
                Right::List(values, list_pos) => {
                    let values: Vec<_> = values.iter().map(|value| (value, *list_pos)).collect();
                    check.literals(*modifier, &values, hints)?
                }
                Right::Operand(operand) => check.operand(left, operand)?,
            };
            Ok(Predicate { left: typed.source, test })
        }
        _ => Err(error("not a check".to_owned(), expr.pos())),
    }
}

pub(crate) fn error(message: String, pos: Pos) -> CompileError {
    CompileError { message, pos, unknown_filter: false }
}

struct Check<'a> {
    typed: &'a Typed,
    op: Op,
    pos: Pos,
    catalogue: &'a Catalogue,
    /// Bytes of all regular expressions of the set so far.
    regexes: &'a Cell<usize>,
}

impl Check<'_> {
    /// A comparison with literals.
    fn literals(
        &self,
        modifier: Option<Modifier>,
        values: &[(&Vec<u8>, Pos)],
        hints: &mut Vec<Hint>,
    ) -> Result<Test, CompileError> {
        self.accepts_operator(modifier)?;
        let is_rawarg = self.typed.field == Some(FieldId::EVT_RAWARG);
        if is_rawarg && self.typed.ty == Type::Bytes {
            return Err(error("raw arguments that are buffers cannot be compared with a literal".to_owned(), self.pos));
        }
        for (value, pos) in values {
            self.hint(value, *pos, hints);
            if self.typed.names_event && !known_event(value) {
                let name = String::from_utf8_lossy(value);
                let message = format!("unknown event type '{name}'{}", did_you_mean(&name, event_names()));
                return Err(CompileError { message, pos: *pos, unknown_filter: true });
            }
        }
        let literals = values
            .iter()
            .map(|(value, pos)| literal::parse(self.typed.ty, self.op, value).map_err(|text| error(text, *pos)))
            .collect::<Result<Vec<_>, _>>()?;
        let literals: Vec<_> = if is_rawarg { literals.into_iter().map(literal::unbound).collect() } else { literals };
        // Without index, an ancestor field knows no modifiers: the first value alone counts.
        let ancestors = self.typed.kind == FieldKind::Ancestors;
        if let Some(modifier) = modifier {
            let tests = literals.iter().map(|literal| self.scalar(literal)).collect::<Result<Vec<_>, _>>()?;
            if ancestors {
                return Ok(tests.into_iter().next().unwrap_or(Test::Never));
            }
            return Ok(self.modified(modifier, tests, literals));
        }
        Ok(match self.op {
            Op::In | Op::Intersects => self.set(literals),
            Op::PMatch => {
                let paths = literals.iter().filter_map(|literal| match literal {
                    Literal::Text(text) => Some(text.as_ref()),
                    _ => None,
                });
                if literals.is_empty() {
                    Test::Never
                } else {
                    Test::Text(TextTest::Path(Box::new(PathSet::new(paths))))
                }
            }
            _ => match literals.first() {
                Some(literal) => self.scalar(literal)?,
                None => Test::Never,
            },
        })
    }

    /// The set operators.
    fn set(&self, literals: Vec<Literal>) -> Test {
        // What upstream does with fields of two ends and lists of ancestor numbers.
        let (field, op) = (self.typed.field, self.op);
        if matches!((field, self.typed.kind), (Some(FieldId::PROC_APID), FieldKind::Ancestors))
            || field == Some(FieldId::FD_IP)
            || (matches!(field, Some(FieldId::FD_NET | FieldId::FD_PORT | FieldId::FD_PROTO)) && op == Op::Intersects)
        {
            return Test::Never;
        }
        let literals = if field == Some(FieldId::FD_NET) { literals.into_iter().take(1).collect() } else { literals };
        let is_list = self.typed.kind == FieldKind::List;
        if literals.is_empty() && !is_list {
            return Test::Never;
        }
        let texts: Vec<&[u8]> = literals
            .iter()
            .filter_map(|literal| match literal {
                Literal::Text(text) => Some(text.as_ref()),
                _ => None,
            })
            .collect();
        let any = if texts.is_empty() {
            Test::AnyLiteral(literals)
        } else {
            Test::Text(TextTest::In(Box::new(TextSet::new(texts))))
        };
        match (is_list, self.op) {
            (true, Op::In) => Test::Every(Box::new(any)),
            (true, _) => Test::Some(Box::new(any)),
            _ => any,
        }
    }

    fn modified(&self, modifier: Modifier, tests: Vec<Test>, literals: Vec<Literal>) -> Test {
        // These two look at the whole text and not only at what precedes a NUL, as set operators do.
        if matches!((modifier, self.op), (Modifier::AnyOf, Op::Eq | Op::EqEq)) && !literals.is_empty() {
            return self.set(literals);
        }
        Test::Modified(modifier, tests)
    }

    /// One literal.
    fn scalar(&self, literal: &Literal) -> Result<Test, CompileError> {
        let order = |op| match literal {
            Literal::Text(text) => Test::Text(TextTest::Order(op, text.clone())),
            other => Test::Compare(op, other.clone()),
        };
        Ok(match (self.op, literal) {
            (Op::Eq | Op::EqEq, _) => order(NumericOp::Eq),
            (Op::Ne, _) => order(NumericOp::Ne),
            (Op::Lt, _) => order(NumericOp::Lt),
            (Op::Le, _) => order(NumericOp::Le),
            (Op::Gt, _) => order(NumericOp::Gt),
            (Op::Ge, _) => order(NumericOp::Ge),
            (Op::Contains, Literal::Text(text)) => Test::Text(TextTest::Contains(Box::new(finder(text)))),
            (Op::IContains, Literal::Text(text)) => {
                Test::Text(TextTest::IContains(text.to_ascii_lowercase().into_boxed_slice()))
            }
            (Op::StartsWith, Literal::Text(text)) => Test::Text(TextTest::StartsWith(text.clone())),
            (Op::EndsWith, Literal::Text(text)) => Test::Text(TextTest::EndsWith(text.clone())),
            (Op::Glob, Literal::Text(text)) => Test::Text(TextTest::Glob(Glob::new(text, false))),
            (Op::IGlob, Literal::Text(text)) => Test::Text(TextTest::Glob(Glob::new(text, true))),
            (Op::Regex, Literal::Text(text)) => {
                let regex = Posix::new(text).map_err(|why| {
                    error(format!("'{}' is no regular expression: {why}", String::from_utf8_lossy(text)), self.pos)
                })?;
                self.regexes.set(self.regexes.get() + regex.size());
                if self.regexes.get() > MAX_REGEXES {
                    return Err(error("all regular expressions together are too large".to_owned(), self.pos));
                }
                Test::Text(TextTest::Regex(Box::new(regex)))
            }
            (Op::Contains | Op::BContains, Literal::Bytes(bytes)) => {
                Test::Bytes(BytesTest::Contains(Box::new(finder(bytes))))
            }
            (Op::StartsWith | Op::BStartsWith, Literal::Bytes(bytes)) => {
                Test::Bytes(BytesTest::StartsWith(bytes.clone()))
            }
            (Op::EndsWith, Literal::Bytes(bytes)) => Test::Bytes(BytesTest::EndsWith(bytes.clone())),
            _ => return Err(self.unsupported()),
        })
    }

    /// A comparison with a field or a transformed value.
    fn operand(&self, left: &Operand, right: &Operand) -> Result<Test, CompileError> {
        self.accepts_operator(None)?;
        let typed = typed_operand(right, self.catalogue)?;
        let fail = |message: &str| Err(error(message.to_owned(), right.pos()));
        if matches!(self.op, Op::PMatch | Op::Regex) {
            return fail(&format!("operator '{}' does not take a field on the right-hand side", self.op.text()));
        }
        if self.typed.flags.has(FieldFlags::NO_RHS) || typed.flags.has(FieldFlags::NO_RHS) {
            return fail("the field cannot be compared with another field");
        }
        if self.typed.ty.class() == Class::Net || typed.ty.class() == Class::Net {
            return fail("network fields cannot be compared with another field");
        }
        let mut reads_field = false;
        right.walk(&mut |operand| reads_field |= matches!(operand, Operand::Field { .. }));
        if reads_field && matches!(left, Operand::Transform { name: "join" | "concat" | "getopt", .. }) {
            return fail("join, concat and getopt cannot be compared with a field: swap the sides");
        }
        if typed.ty != self.typed.ty || (typed.kind == FieldKind::List) != (self.typed.kind == FieldKind::List) {
            return fail(&format!(
                "the types of the two sides differ: {}{} and {}{}",
                self.typed.ty.name(),
                list_mark(self.typed),
                typed.ty.name(),
                list_mark(&typed)
            ));
        }
        let op = match self.op {
            Op::Eq | Op::EqEq => OperandOp::Order(NumericOp::Eq),
            Op::Ne => OperandOp::Order(NumericOp::Ne),
            Op::Lt => OperandOp::Order(NumericOp::Lt),
            Op::Le => OperandOp::Order(NumericOp::Le),
            Op::Gt => OperandOp::Order(NumericOp::Gt),
            Op::Ge => OperandOp::Order(NumericOp::Ge),
            Op::Contains | Op::BContains => OperandOp::Contains,
            Op::IContains => OperandOp::IContains,
            Op::StartsWith | Op::BStartsWith => OperandOp::StartsWith,
            Op::EndsWith => OperandOp::EndsWith,
            Op::Glob => OperandOp::Glob { fold: false },
            Op::IGlob => OperandOp::Glob { fold: true },
            Op::In => OperandOp::In,
            Op::Intersects => OperandOp::Intersects,
            Op::PMatch | Op::Regex => return Err(self.unsupported()),
        };
        Ok(Test::Operand(op, typed.source))
    }

    fn accepts_operator(&self, modifier: Option<Modifier>) -> Result<(), CompileError> {
        let ty = self.typed.ty;
        let accepted = if self.typed.kind == FieldKind::List {
            // Of the kinds of text only the plain one: lists of paths can only be asked whether they exist.
            let comparable = matches!(
                ty,
                Type::Text | Type::U64 | Type::RelTime | Type::AbsTime | Type::Bool | Type::Ip | Type::Net
            );
            modifier.is_none() && comparable && matches!(self.op, Op::In | Op::Intersects)
        } else {
            let equality = matches!(self.op, Op::Eq | Op::EqEq | Op::Ne | Op::In | Op::Intersects);
            let order = matches!(self.op, Op::Lt | Op::Le | Op::Gt | Op::Ge);
            match ty.class() {
                Class::Signed(_) | Class::Unsigned(_) | Class::Double => equality || order,
                Class::Bool | Class::Ip | Class::Net => equality,
                Class::Text => !matches!(self.op, Op::BContains | Op::BStartsWith),
                Class::Bytes => {
                    equality
                        || matches!(
                            self.op,
                            Op::Contains | Op::StartsWith | Op::EndsWith | Op::BContains | Op::BStartsWith
                        )
                }
                Class::Opaque => false,
            }
        };
        if accepted { Ok(()) } else { Err(self.unsupported()) }
    }

    fn unsupported(&self) -> CompileError {
        let message = format!(
            "operator '{}' is not supported for {}{}",
            self.op.text(),
            self.typed.ty.name(),
            list_mark(self.typed)
        );
        error(message, self.pos)
    }

    /// Points at literals that look like something else. Blanks in them do not count.
    fn hint(&self, value: &[u8], pos: Pos, hints: &mut Vec<Hint>) {
        let shown = || String::from_utf8_lossy(value).into_owned();
        if hints.len() > MAX_HINTS {
            return;
        }
        let last = hints.len() == MAX_HINTS;
        let mut push = |message| {
            let message = if last { "further values of the condition were not looked at".to_owned() } else { message };
            hints.push(Hint { code: Code::ConditionHint, message, pos });
        };
        if self.op == Op::Regex && Posix::is_simple(value) {
            push(format!(
                "regular expression '{}' could be written with a simpler operator (=, startswith, endswith, contains)",
                shown()
            ));
        }
        let dense: Cow<'_, [u8]> = if value.iter().any(|byte| is_space(*byte)) {
            Cow::Owned(value.iter().copied().filter(|byte| !is_space(*byte)).collect())
        } else {
            Cow::Borrowed(value)
        };
        if !dense.first().is_some_and(u8::is_ascii_alphabetic) || !dense.iter().any(|byte| matches!(byte, b'.' | b'('))
        {
            return;
        }
        if let Ok((operand @ Operand::Field { .. }, length)) = parse_operand_prefix(&dense, true)
            && length == dense.len()
            && known_operand(&operand, self.catalogue).is_some()
        {
            push(format!("'{0}' is compared as text; write val({0}) to compare with the field", shown()));
        }
        let is_call = dense.last() == Some(&b')')
            && TRANSFORMERS
                .iter()
                .chain(&["val"])
                .any(|name| dense.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'(')));
        if is_call {
            push(format!("'{}' is compared as text; remove the quotes to use the transformer", shown()));
        }
    }
}

/// White space as the C library sees it.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 9..=13)
}

fn finder(needle: &[u8]) -> memchr::memmem::Finder<'static> {
    memchr::memmem::Finder::new(needle).into_owned()
}

fn list_mark(typed: &Typed) -> &'static str {
    if typed.kind == FieldKind::List { " list" } else { "" }
}

/// The names of all events and system calls.
fn event_names() -> impl Iterator<Item = &'static str> {
    let own = crate::event::EVENTS.iter().filter(|event| event.is_used()).map(|event| event.name);
    own.chain(crate::event::SYSCALLS)
}

/// Whether a literal is the name of an event or system call, or empty.
fn known_event(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    name.is_empty()
        || crate::event::EVENTS.iter().any(|event| event.is_used() && event.name == name)
        || crate::event::SYSCALLS.contains(&name)
}
