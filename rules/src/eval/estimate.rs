//! Rough guesses of what a check costs and how often it holds, by which tests are ordered. They change no outcome.

use super::predicate::{FieldKind, FieldSource, NumericOp, OperandSource, Predicate, Test, TextTest};
use crate::catalogue::FieldId;

/// A guess about a test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    /// In no unit: the comparison of two numbers is about 2.
    pub(crate) cost: f32,
    /// How often it holds, 0 to 1.
    pub(crate) chance: f32,
}

impl Estimate {
    /// Of the opposite.
    pub(crate) fn negated(self) -> Self {
        Self { chance: 1.0 - self.chance, ..self }
    }

    /// Of several tests that are tried in order until one does not hold.
    pub(crate) fn all(tests: impl Iterator<Item = Self>) -> Self {
        tests.fold(Self { cost: 1.0, chance: 1.0 }, |all, test| Self {
            cost: all.cost + all.chance * test.cost,
            chance: all.chance * test.chance,
        })
    }

    /// What is paid until the test comes out as `decisive`: of several, the one with the lowest is tried first.
    pub(crate) fn rank(self, decisive: bool) -> f32 {
        self.cost / if decisive { self.chance } else { 1.0 - self.chance }.max(0.001)
    }
}

impl Predicate {
    pub(crate) fn estimate(&self) -> Estimate {
        let (cost, chance) = test(&self.test);
        Estimate { cost: source(&self.left) + cost, chance }
    }
}

/// Fields that an agent composes, walks ancestors for, or has to find out.
fn source(source: &OperandSource) -> f32 {
    match source {
        OperandSource::Field(FieldSource { kind: FieldKind::Scalar, id, .. }) => match *id {
            FieldId::PROC_CMDLINE
            | FieldId::PROC_PCMDLINE
            | FieldId::PROC_ARGS
            | FieldId::PROC_ENV
            | FieldId::PROC_CWD
            | FieldId::PROC_EXELINE
            | FieldId::EVT_ARG
            | FieldId::USER_NAME => 6.0,
            id if FieldId::MANIFEST_VERDICT <= id && id <= FieldId::LIB_VERDICT => 30.0,
            _ => 1.0,
        },
        OperandSource::Field(_) => 20.0,
        OperandSource::Transform(_) => 50.0,
    }
}

fn test(test: &Test) -> (f32, f32) {
    match test {
        Test::Never => (0.0, 0.0),
        Test::Exists => (0.0, 0.95),
        Test::Compare(NumericOp::Eq, _) => (1.0, 0.3),
        Test::Compare(..) => (1.0, 0.8),
        Test::Text(TextTest::Order(NumericOp::Eq, _) | TextTest::StartsWith(_) | TextTest::EndsWith(_)) => (2.0, 0.1),
        Test::Text(TextTest::Order(..)) => (2.0, 0.9),
        Test::Text(TextTest::In(_)) => (4.0, 0.1),
        Test::Text(TextTest::Contains(_) | TextTest::IContains(_)) | Test::Bytes(_) => (15.0, 0.1),
        Test::Text(TextTest::Any(_)) => (10.0, 0.15),
        Test::Text(TextTest::Glob(_)) => (25.0, 0.1),
        Test::Text(TextTest::Regex(_)) => (60.0, 0.1),
        Test::Text(TextTest::Path(_)) | Test::AnyLiteral(_) => (20.0, 0.1),
        Test::Modified(..) | Test::Every(_) | Test::Some(_) | Test::Operand(..) => (20.0, 0.3),
    }
}
