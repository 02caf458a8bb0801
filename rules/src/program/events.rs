//! Which events a condition can match, told from its checks of the event's name and number.

use crate::event::EventSet;
use crate::parse::{Expr, Op, Operand, Pos, Right, TransformArg};

/// A check of the event's type that no set can be told from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EventsError {
    /// Why.
    pub message: &'static str,
    /// Where in the condition.
    pub pos: Pos,
}

/// The events a condition (without macros) can match.
///
/// # Errors
/// The event's type is transformed, or compared with a field.
pub fn condition_events(expr: &Expr) -> Result<EventSet, EventsError> {
    events(expr, false)
}

fn events(expr: &Expr, negated: bool) -> Result<EventSet, EventsError> {
    let decided = |set: EventSet| if negated { set.complement() } else { set };
    match expr {
        Expr::And(children, _) | Expr::Or(children, _) => {
            let intersect = matches!(expr, Expr::And(..)) != negated;
            let mut result = if intersect { EventSet::all() } else { EventSet::EMPTY };
            for child in children {
                let set = events(child, negated)?;
                result = if intersect { result.intersection(&set) } else { result.union(&set) };
            }
            Ok(result)
        }
        Expr::Not(child, _) => events(child, !negated),
        Expr::Exists(operand, _) if is_name(operand) => Ok(decided(EventSet::all())),
        Expr::Check { left, op: op @ (Op::Eq | Op::EqEq | Op::Ne | Op::In), modifier: None, right, pos } => {
            let fail = |message| Err(EventsError { message, pos: *pos });
            if let Operand::Transform { .. } = left {
                return if holds_name(left) {
                    fail("the event's type cannot be transformed here")
                } else {
                    Ok(EventSet::all())
                };
            }
            if let Right::Operand(operand) = right {
                if holds_name(operand) || is_name(left) {
                    return fail("the event's type cannot be compared with a field here");
                }
                return Ok(EventSet::all());
            }
            if is_name(left) {
                let mut set = EventSet::EMPTY;
                for value in values(right) {
                    set = set.union(&EventSet::named(&String::from_utf8_lossy(value)));
                }
                return Ok(decided(if *op == Op::Ne { set.complement() } else { set }));
            }
            Ok(numbered(expr).map_or_else(EventSet::all, |always| decided(constant(always))))
        }
        _ => Ok(numbered(expr).map_or_else(EventSet::all, |always| decided(constant(always)))),
    }
}

fn constant(always: bool) -> EventSet {
    if always { EventSet::all() } else { EventSet::EMPTY }
}

fn is_name(operand: &Operand) -> bool {
    matches!(operand, Operand::Field { name, arg: None, .. } if name == "evt.type" || name == "syscall.type")
}

/// Whether an operand is the event's name or made of it; lists inside of transformers are not looked into.
fn holds_name(operand: &Operand) -> bool {
    match operand {
        Operand::Field { .. } => is_name(operand),
        Operand::Transform { args, .. } => {
            args.iter().any(|arg| matches!(arg, TransformArg::Operand(inner) if holds_name(inner)))
        }
    }
}

fn values(right: &Right) -> &[Vec<u8>] {
    match right {
        Right::Value(value, _) => std::slice::from_ref(value),
        Right::List(values, _) => values,
        Right::Operand(_) => &[],
    }
}

/// Checks of `evt.num`, which is at least 1, that are always or never true.
fn numbered(expr: &Expr) -> Option<bool> {
    let Expr::Check { left: Operand::Field { name, .. }, op, modifier: None, right, .. } = expr else { return None };
    if name != "evt.num" || matches!(right, Right::Operand(_)) {
        return None;
    }
    let numbers: Vec<i64> = values(right)
        .iter()
        .map(|value| std::str::from_utf8(value).ok().and_then(|text| text.trim_start().parse().ok()).unwrap_or(1))
        .collect();
    let first = numbers.first().copied();
    match (op, first) {
        (Op::Eq | Op::EqEq | Op::Le, Some(0)) | (Op::Lt, Some(0 | 1)) => Some(false),
        (Op::Ne | Op::Gt, Some(0)) | (Op::Ge, Some(0 | 1)) => Some(true),
        (Op::In, _) if numbers.iter().all(|number| *number == 0) => Some(false),
        _ => None,
    }
}
