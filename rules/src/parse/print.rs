//! Tree to text, in Falco's canonical form.
//!
//! It parses to the same tree unless Falco leaves a value without quotes that needs them: an empty one (`x in (, a)`), one
//! with a parenthesis or a comma, `val(y)` as a text, texts in the arguments of a transformer; or the value ends with a
//! backslash, which keeps its quotes open.

use super::ast::{Expr, Operand, Right, TransformArg};
use super::escape::escape;

/// Prints a condition.
pub fn print(expr: &Expr) -> Vec<u8> {
    let mut out = Vec::new();
    print_expr(expr, &mut out);
    out
}

/// Prints a field or a transformed value.
pub fn print_operand(operand: &Operand) -> Vec<u8> {
    let mut out = Vec::new();
    operand_to(operand, &mut out);
    out
}

fn print_expr(expr: &Expr, out: &mut Vec<u8>) {
    match expr {
        Expr::And(children, _) | Expr::Or(children, _) => {
            let word: &[u8] = if matches!(expr, Expr::And(..)) { b" and " } else { b" or " };
            out.push(b'(');
            for (nth, child) in children.iter().enumerate() {
                if nth > 0 {
                    out.extend(word);
                }
                print_expr(child, out);
            }
            out.push(b')');
        }
        Expr::Not(child, _) => {
            out.extend(b"not ");
            print_expr(child, out);
        }
        Expr::Macro(name, _) => out.extend(name.as_bytes()),
        Expr::Exists(operand, _) => {
            operand_to(operand, out);
            out.extend(b" exists");
        }
        Expr::Check { left, op, modifier, right, .. } => {
            operand_to(left, out);
            out.push(b' ');
            out.extend(op.text().as_bytes());
            out.push(b' ');
            if let Some(modifier) = modifier {
                out.extend(modifier.text().as_bytes());
                out.push(b' ');
            }
            match right {
                Right::Value(value, _) => out.extend(escape(value)),
                Right::Operand(operand) => operand_to(operand, out),
                Right::List(items, _) => {
                    out.push(b'(');
                    for (nth, item) in items.iter().enumerate() {
                        if nth > 0 {
                            out.extend(b", ");
                        }
                        out.extend(escape(item));
                    }
                    out.push(b')');
                }
            }
        }
    }
}

fn operand_to(operand: &Operand, out: &mut Vec<u8>) {
    let arg = match operand {
        Operand::Field { name, arg, .. } => {
            out.extend(name.as_bytes());
            arg
        }
        Operand::Transform { name, args, arg, .. } => {
            out.extend(name.as_bytes());
            out.push(b'(');
            args_to(args, out);
            out.push(b')');
            arg
        }
    };
    if let Some(arg) = arg {
        out.push(b'[');
        if arg.is_empty() {
            out.extend(b"\"\"");
        } else {
            out.extend(escape(arg));
        }
        out.push(b']');
    }
}

fn args_to(args: &[TransformArg], out: &mut Vec<u8>) {
    for (nth, arg) in args.iter().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        match arg {
            TransformArg::Operand(operand) => operand_to(operand, out),
            TransformArg::Value(value, _) => out.extend(escape(value)),
            TransformArg::List(items, _) => {
                out.push(b'(');
                args_to(items, out);
                out.push(b')');
            }
        }
    }
}
