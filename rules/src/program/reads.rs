//! What a condition asks of an event, and whether some facts alone can make it false.

use std::collections::{HashMap, HashSet};

use super::{Graph, Node, NodeId};
use crate::eval::{Argument, OperandSource, Predicate, Test, Transform};
use crate::facts::FieldRef;

impl Graph {
    /// The fields that a node asks for, each once, ordered.
    pub(crate) fn fields(&self, root: NodeId) -> Vec<FieldRef<'_>> {
        let (mut open, mut seen, mut found) = (vec![root], HashSet::from([root]), Vec::new());
        while let Some(node) = open.pop() {
            match &self.nodes[node.0 as usize] {
                Node::Const(_) => {}
                Node::Check(check) => self.checks[*check as usize].fields(&mut found),
                Node::Not(child) => open.extend(seen.insert(*child).then_some(*child)),
                Node::And(children) | Node::Or(children) => {
                    open.extend(children.iter().copied().filter(|child| seen.insert(*child)));
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether a node may come out as `value` when only the fields are known that `known` says. Of a check whose fields
    /// are known any outcome is thought possible.
    pub(crate) fn may_be(
        &self,
        node: NodeId,
        value: bool,
        known: &dyn Fn(FieldRef<'_>) -> bool,
        done: &mut HashMap<(NodeId, bool), bool>,
    ) -> bool {
        if let Some(known) = done.get(&(node, value)) {
            return *known;
        }
        let result = match &self.nodes[node.0 as usize] {
            Node::Const(constant) => *constant == value,
            Node::Check(check) => {
                let mut fields = Vec::new();
                self.checks[*check as usize].fields(&mut fields);
                fields.into_iter().all(known)
            }
            Node::Not(child) => self.may_be(*child, !value, known, done),
            Node::And(children) | Node::Or(children) => {
                let one_is_enough = matches!(self.nodes[node.0 as usize], Node::Or(_)) == value;
                if one_is_enough {
                    children.iter().any(|child| self.may_be(*child, value, known, done))
                } else {
                    children.iter().all(|child| self.may_be(*child, value, known, done))
                }
            }
        };
        done.insert((node, value), result);
        result
    }
}

impl Predicate {
    fn fields<'a>(&'a self, found: &mut Vec<FieldRef<'a>>) {
        self.left.fields(found);
        self.test.fields(found);
    }
}

impl OperandSource {
    fn fields<'a>(&'a self, found: &mut Vec<FieldRef<'a>>) {
        match self {
            Self::Field(field) => found.push(field.field()),
            Self::Transform(transform) => transform.fields(found),
        }
    }
}

impl Test {
    fn fields<'a>(&'a self, found: &mut Vec<FieldRef<'a>>) {
        match self {
            Self::Operand(_, right) => right.fields(found),
            Self::Every(test) | Self::Some(test) => test.fields(found),
            Self::Modified(_, tests) => tests.iter().for_each(|test| test.fields(found)),
            Self::Exists | Self::Never | Self::Text(_) | Self::Bytes(_) | Self::Compare(..) | Self::AnyLiteral(_) => {}
        }
    }
}

impl Transform {
    fn fields<'a>(&'a self, found: &mut Vec<FieldRef<'a>>) {
        self.args.iter().for_each(|argument| argument.fields(found));
    }
}

impl Argument {
    fn fields<'a>(&'a self, found: &mut Vec<FieldRef<'a>>) {
        match self {
            Self::Literal(_) => {}
            Self::List(arguments) => arguments.iter().for_each(|argument| argument.fields(found)),
            Self::Field(field) => found.push(field.field()),
            Self::Transform(transform) => transform.fields(found),
        }
    }
}
