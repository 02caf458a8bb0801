//! Evaluation.

/// Memory of one evaluation.
#[derive(Debug, Default)]
pub(crate) struct Scratch {}
