//! The condition language: text to tree and back.
//!
//! Knows nothing of fields, types or events; that is `compile`.

mod ast;
mod escape;
mod key;
mod lexer;
mod parser;
mod print;

pub use ast::{Expr, Modifier, Op, Operand, Pos, Right, TransformArg};
pub(crate) use escape::hex;
pub use escape::{escape, unescape};
pub(crate) use key::key;
pub(crate) use parser::TRANSFORMERS;
pub use parser::{MAX_DEPTH, ParseError, parse, parse_operand_prefix};
pub use print::{print, print_operand};
