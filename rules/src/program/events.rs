//! Which events a condition can match, told from its checks of the event's name and number.

use crate::compile::literal_number;
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
        Expr::Exists(operand, pos) => {
            not_transformed(operand, *pos)?;
            Ok(if is_name(operand) { decided(EventSet::all()) } else { EventSet::all() })
        }
        Expr::Check { left, op: op @ (Op::Eq | Op::EqEq | Op::Ne | Op::In), modifier: None, right, pos } => {
            not_transformed(left, *pos)?;
            if is_name(left) && matches!(right, Right::Operand(_)) {
                return Err(EventsError {
                    message: "the event's type cannot be compared with a field here",
                    pos: *pos,
                });
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

/// Refuses operands made of the event's name. Of a list inside of a transformer the last element counts, as upstream.
fn not_transformed(operand: &Operand, pos: Pos) -> Result<(), EventsError> {
    let Operand::Transform { args, .. } = operand else { return Ok(()) };
    for arg in args {
        let last = match arg {
            TransformArg::List(items, _) => {
                for item in items {
                    if let TransformArg::Operand(inner) = item {
                        not_transformed(inner, pos)?;
                    }
                }
                items.last()
            }
            other => Some(other),
        };
        if let Some(TransformArg::Operand(inner)) = last {
            not_transformed(inner, pos)?;
            if is_name(inner) {
                return Err(EventsError { message: "the event's type cannot be transformed here", pos });
            }
        }
    }
    Ok(())
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
    let Expr::Check { left: Operand::Field { name, arg: None, .. }, op, modifier: None, right, .. } = expr else {
        return None;
    };
    if name != "evt.num" || matches!(right, Right::Operand(_)) {
        return None;
    }
    let values = values(right);
    if *op == Op::In {
        return values.iter().all(|value| literal_number(value) == Some(0)).then_some(false);
    }
    let number = literal_number(values.first()?)?;
    match op {
        Op::Eq | Op::EqEq | Op::Le if number == 0 => Some(false),
        Op::Lt if number <= 1 => Some(false),
        Op::Ne | Op::Gt if number == 0 => Some(true),
        Op::Ge if number <= 1 => Some(true),
        _ => None,
    }
}
