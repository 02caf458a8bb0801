//! Conditions that load, but can hardly be meant as they are.

use crate::diagnostic::Code;
use crate::parse::{Expr, Op, Operand, Right};

/// Fields that should no longer be used.
pub(super) const DEPRECATED: [&str; 6] =
    ["evt.dir", "evt.latency", "evt.latency.s", "evt.latency.ns", "evt.latency.human", "evt.wait_latency"];

/// Warnings that a condition's tree deserves, whatever the catalogue.
pub fn suspicions(expr: &Expr) -> Vec<(Code, String)> {
    let mut found = Vec::new();
    let mut deprecated = Vec::new();
    expr.operands(&mut |operand| {
        if let Operand::Field { name, .. } = operand
            && let Some(field) =
                DEPRECATED.iter().find(|field| *field == name).filter(|field| !deprecated.contains(*field))
        {
            deprecated.push(field);
        }
    });
    found.extend(deprecated.iter().map(|field| {
        (
            Code::DeprecatedItem,
            format!("usage of deprecated field '{field}' has been detected; it has no meaning any more"),
        )
    }));
    if compares_na(expr) {
        let message = "comparing a field with <NA> is unsafe, use 'exists' instead".to_owned();
        found.push((Code::UnsafeNaCheck, message));
    }
    found
}

fn compares_na(expr: &Expr) -> bool {
    match expr {
        Expr::And(children, _) | Expr::Or(children, _) => children.iter().any(|child| compares_na(child)),
        Expr::Not(child, _) => compares_na(child),
        Expr::Check { left, op, right, .. } => {
            let mut unsafe_field = false;
            left.walk(&mut |operand| {
                if let Operand::Field { name, .. } = operand {
                    unsafe_field |= name.starts_with("ka.") || name.starts_with("jevt.");
                }
            });
            let unsafe_op = matches!(op, Op::Eq | Op::EqEq | Op::Ne | Op::In | Op::Intersects | Op::PMatch);
            let values = match right {
                Right::Value(value, _) => std::slice::from_ref(value),
                Right::List(values, _) => values,
                Right::Operand(_) => &[],
            };
            unsafe_field && unsafe_op && values.iter().any(|value| value == b"<NA>")
        }
        _ => false,
    }
}
