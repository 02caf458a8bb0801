//! Bytes that are equal for equal checks and different for all others. The canonical print is not: `x = "val(y)"` prints like
//! `x = val(y)`, and `x in ("")` like `x in ()`.

use super::ast::{Expr, Op, Operand, Right, TransformArg};

/// The key of a check (a leaf of the tree); `==` counts as `=`. Empty for anything else.
pub(crate) fn key(expr: &Expr) -> Vec<u8> {
    let mut key = Key(Vec::new());
    match expr {
        Expr::Exists(operand, _) => {
            key.0.push(0);
            key.operand(operand);
        }
        Expr::Check { left, op, modifier, right, .. } => {
            key.0.push(1);
            key.operand(left);
            let op = if *op == Op::EqEq { Op::Eq } else { *op };
            key.0.extend([op as u8, modifier.map_or(0, |modifier| modifier as u8 + 1)]);
            match right {
                Right::Value(value, _) => {
                    key.0.push(0);
                    key.text(value);
                }
                Right::List(items, _) => {
                    key.0.push(1);
                    key.length(items.len());
                    for item in items {
                        key.text(item);
                    }
                }
                Right::Operand(operand) => {
                    key.0.push(2);
                    key.operand(operand);
                }
            }
        }
        Expr::And(..) | Expr::Or(..) | Expr::Not(..) | Expr::Macro(..) => {}
    }
    key.0
}

struct Key(Vec<u8>);

impl Key {
    fn length(&mut self, length: usize) {
        self.0.extend_from_slice(&(length as u64).to_ne_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        self.length(text.len());
        self.0.extend_from_slice(text);
    }

    fn operand(&mut self, operand: &Operand) {
        let arg = match operand {
            Operand::Field { name, arg, .. } => {
                self.0.push(0);
                self.text(name.as_bytes());
                arg
            }
            Operand::Transform { name, args, arg, .. } => {
                self.0.push(1);
                self.text(name.as_bytes());
                self.args(args);
                arg
            }
        };
        self.0.push(u8::from(arg.is_some()));
        self.text(arg.as_deref().unwrap_or_default());
    }

    fn args(&mut self, args: &[TransformArg]) {
        self.length(args.len());
        for arg in args {
            match arg {
                TransformArg::Operand(operand) => {
                    self.0.push(0);
                    self.operand(operand);
                }
                TransformArg::Value(value, _) => {
                    self.0.push(1);
                    self.text(value);
                }
                TransformArg::List(items, _) => {
                    self.0.push(2);
                    self.args(items);
                }
            }
        }
    }
}
