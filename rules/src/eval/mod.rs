//! Evaluation of single checks: what a compiled predicate is and how it is decided for an event.

mod estimate;
mod glob;
mod path;
mod posix;
mod predicate;
mod text;
mod transform;

pub(crate) use estimate::Estimate;
pub(crate) use glob::Glob;
pub use path::PathSet;
pub(crate) use posix::Posix;
pub(crate) use predicate::{
    BytesTest, FieldKind, FieldSource, Item, Literal, NumericOp, OperandOp, OperandSource, OwnedArg, Predicate, Test,
    TextTest,
};
pub(crate) use text::{AnyText, TextParts, TextSet};
pub(crate) use transform::{Argument, Got, Transform, TransformName};
pub use transform::{TransformError, transform_type, transform_values};
