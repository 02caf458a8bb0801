//! Conditions put together: a graph of shared checks, and for every event the conditions that can match it.
//!
//! Equal checks and equal sub-expressions of all rules are one node each, evaluated at most once per event. What the
//! event's name decides is decided when the graph is built.

mod events;
mod plan;
mod reads;
mod texts;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::catalogue::{Catalogue, FieldId};
use crate::compile::{CompileError, Hint, compile_check, error};
use crate::eval::{
    AnyText, Estimate, FieldKind, FieldSource, OperandSource, OwnedArg, Predicate, Test, TextParts, TextTest,
};
use crate::event::{EVENTS, EventCode};
use crate::facts::{Fact, Facts, Value};
use crate::matches::Outcome;
use crate::parse::{self, Expr, Op, Right};

pub use events::{EventsError, condition_events};
pub(crate) use plan::Plan;
pub(crate) use texts::Texts;

use texts::TextIndex;

/// Most checks that a condition may have when its macros are put in.
pub(crate) const MAX_NODES: usize = 1_000_000;

/// Deepest nesting of a condition when its macros are put in.
pub(crate) const MAX_DEPTH: usize = 2 * parse::MAX_DEPTH;

/// A node of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(u32);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Node {
    Const(bool),
    Check(u32),
    Not(NodeId),
    And(Box<[NodeId]>),
    Or(Box<[NodeId]>),
}

/// Checks and how they are combined.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    /// What a node may cost, to try first what decides most for least.
    estimates: Vec<Estimate>,
    known: HashMap<Node, NodeId>,
    checks: Vec<Predicate>,
    /// What checks are suspected of.
    hints: HashMap<u32, Vec<Hint>>,
    /// Checks that only ask for the name of the event.
    name_checks: Vec<u32>,
    known_checks: HashMap<Vec<u8>, u32>,
    /// Bytes of regular expressions so far.
    regexes: usize,
    /// Checks that stand for several others.
    known_merged: HashMap<Box<[u32]>, u32>,
    /// What checks of texts ask for, to merge several of one field.
    parts: Vec<Option<TextParts>>,
    /// Which checks can be looked up in a plan's [`Texts`].
    indexed: Vec<Indexed>,
    /// Numbers of the fields of such checks.
    text_fields: HashMap<(FieldId, OwnedArg), u32>,
    /// Trees that were added and need no hint, by address; held so that no address is used twice.
    seen: HashMap<usize, (Arc<Expr>, NodeId)>,
}

/// How far a check can be looked up.
#[derive(Clone, Copy, Debug)]
struct Indexed {
    /// The number of its field, if it can.
    field: Option<u32>,
    /// It does not ask what the text contains, which is not looked up.
    fully: bool,
}

/// Outcomes of the nodes for one event.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Per node: the evaluation it belongs to, times four, plus the outcome.
    memo: Vec<u64>,
    /// Per text field: the evaluation it belongs to, times four, plus a [`Looked`].
    texts: Vec<u64>,
    generation: u64,
}

/// What became of looking up a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    /// Checks that hold are noted, all others do not hold.
    Up = 0,
    /// There is no text.
    Missing = 1,
    /// It is not known yet.
    Pending = 2,
    /// It has to be checked by each check: several texts, or one with a NUL, of which not all checks see the same.
    Singly = 3,
}

impl Scratch {
    /// Forgets all outcomes.
    pub(crate) fn start(&mut self, graph: &Graph) {
        self.generation += 1;
        if self.memo.len() < graph.nodes.len() {
            self.memo.resize(graph.nodes.len(), 0);
        }
        if self.texts.len() < graph.text_fields.len() {
            self.texts.resize(graph.text_fields.len(), 0);
        }
    }
}

impl Scratch {
    /// Looks a text up and notes the checks that hold for it.
    #[inline(never)]
    fn look_up<F: Facts + ?Sized>(&mut self, index: &TextIndex, facts: &F) -> Looked {
        match facts.fact(index.field.field()) {
            Fact::Missing(_) => Looked::Missing,
            Fact::Pending => Looked::Pending,
            Fact::One(Value::Text(text)) if memchr::memchr(0, text).is_none() => {
                let holds = self.generation << 2 | 1;
                index.look_up(text, |node| self.memo[node.0 as usize] = holds);
                Looked::Up
            }
            Fact::One(_) | Fact::Many(_) => Looked::Singly,
        }
    }
}

impl Graph {
    /// Adds a condition without macros; `hints` gets what its checks are suspected of.
    pub(crate) fn add(
        &mut self,
        expr: &Arc<Expr>,
        catalogue: &Catalogue,
        hints: &mut Vec<Hint>,
    ) -> Result<NodeId, CompileError> {
        let address = Arc::as_ptr(expr) as usize;
        if let Some((_, known)) = self.seen.get(&address) {
            return Ok(*known);
        }
        let found = hints.len();
        let node = self.add_new(expr, catalogue, hints)?;
        if hints.len() == found && Arc::strong_count(expr) > 1 {
            self.seen.insert(address, (Arc::clone(expr), node));
        }
        Ok(node)
    }

    fn add_new(
        &mut self,
        expr: &Arc<Expr>,
        catalogue: &Catalogue,
        hints: &mut Vec<Hint>,
    ) -> Result<NodeId, CompileError> {
        match expr.as_ref() {
            Expr::And(..) | Expr::Or(..) => {
                let is_and = matches!(expr.as_ref(), Expr::And(..));
                let mut operands = Vec::new();
                flatten(expr, is_and, &mut operands);
                // A loop and no iterator: each level of a condition takes stack.
                let mut children = Vec::with_capacity(operands.len());
                for child in operands {
                    children.push(self.add(child, catalogue, hints)?);
                }
                Ok(self.combine(is_and, children))
            }
            Expr::Not(child, _) => {
                let child = self.add(child, catalogue, hints)?;
                Ok(self.negate(child))
            }
            Expr::Macro(name, pos) => Err(error(format!("undefined macro '{name}'"), *pos)),
            Expr::Exists(..) | Expr::Check { .. } => self.check(expr, catalogue, hints),
        }
    }

    /// The condition as it is for events called `code`: what the name decides is decided.
    pub(crate) fn specialise(&mut self, root: NodeId, code: EventCode, done: &mut HashMap<NodeId, NodeId>) -> NodeId {
        if let Some(known) = done.get(&root) {
            return *known;
        }
        let result = match self.nodes[root.0 as usize].clone() {
            Node::Const(_) => root,
            Node::Check(check) => match decided_by_name(&self.checks[check as usize], code) {
                Some(value) => self.constant(value),
                None => root,
            },
            Node::Not(child) => {
                let child = self.specialise(child, code, done);
                self.negate(child)
            }
            Node::And(children) => {
                let children = self.specialise_all(&children, code, done);
                self.combine(true, children)
            }
            Node::Or(children) => {
                let children = self.specialise_all(&children, code, done);
                self.combine(false, children)
            }
        };
        done.insert(root, result);
        result
    }

    fn specialise_all(&mut self, nodes: &[NodeId], code: EventCode, done: &mut HashMap<NodeId, NodeId>) -> Vec<NodeId> {
        let mut all = Vec::with_capacity(nodes.len());
        for node in nodes {
            all.push(self.specialise(*node, code, done));
        }
        all
    }

    /// Which checks of the graph the name of an event decides, and how: events with equal answers share programs.
    pub(crate) fn name_signature(&self, code: EventCode) -> Vec<bool> {
        self.name_checks.iter().filter_map(|check| decided_by_name(&self.checks[*check as usize], code)).collect()
    }

    /// Forgets what only adding conditions needs.
    pub(crate) fn finish(&mut self) {
        self.seen = HashMap::new();
        self.known_checks = HashMap::new();
        self.hints = HashMap::new();
    }

    pub(crate) fn is_never(&self, node: NodeId) -> bool {
        self.nodes[node.0 as usize] == Node::Const(false)
    }

    /// Evaluates a node; outcomes of this event are kept in `scratch`.
    pub(crate) fn evaluate<F: Facts + ?Sized>(
        &self,
        node: NodeId,
        texts: &Texts,
        facts: &F,
        scratch: &mut Scratch,
    ) -> Outcome {
        let at = node.0 as usize;
        let memo = scratch.memo[at];
        if memo >> 2 == scratch.generation {
            return match memo & 3 {
                0 => Outcome::False,
                1 => Outcome::True,
                _ => Outcome::Pending,
            };
        }
        let outcome = match &self.nodes[at] {
            Node::Const(value) => return if *value { Outcome::True } else { Outcome::False },
            Node::Check(check) => self.decide(node, *check, texts, facts, scratch),
            Node::Not(child) => self.evaluate(*child, texts, facts, scratch).negated(),
            Node::And(children) => self.any(children, Outcome::False, texts, facts, scratch),
            Node::Or(children) => self.any(children, Outcome::True, texts, facts, scratch),
        };
        scratch.memo[at] = scratch.generation << 2
            | match outcome {
                Outcome::False => 0,
                Outcome::True => 1,
                Outcome::Pending => 2,
            };
        outcome
    }

    /// A check whose outcome is not noted yet.
    #[inline]
    fn decide<F: Facts + ?Sized>(
        &self,
        node: NodeId,
        check: u32,
        texts: &Texts,
        facts: &F,
        scratch: &mut Scratch,
    ) -> Outcome {
        let Indexed { field, fully } = self.indexed[check as usize];
        let predicate = &self.checks[check as usize];
        let Some((field, index)) = field.and_then(|field| Some((field as usize, texts.get(field)?))) else {
            return predicate.evaluate(facts);
        };
        let slot = scratch.texts[field];
        let known = slot >> 2 == scratch.generation;
        if !known {
            let looked = scratch.look_up(index, facts);
            scratch.texts[field] = scratch.generation << 2 | looked as u64;
        }
        match scratch.texts[field] & 3 {
            0 if !known && scratch.memo[node.0 as usize] >> 2 == scratch.generation => Outcome::True,
            0 if fully => Outcome::False,
            1 => Outcome::False,
            2 => Outcome::Pending,
            _ => predicate.evaluate(facts),
        }
    }

    /// Kleene's and, or: `decisive` decides, else pending, else the opposite.
    fn any<F: Facts + ?Sized>(
        &self,
        children: &[NodeId],
        decisive: Outcome,
        texts: &Texts,
        facts: &F,
        scratch: &mut Scratch,
    ) -> Outcome {
        let mut outcome = decisive.negated();
        for child in children {
            let got = self.evaluate(*child, texts, facts, scratch);
            if got == decisive {
                return got;
            }
            if got == Outcome::Pending {
                outcome = got;
            }
        }
        outcome
    }

    fn check(&mut self, expr: &Expr, catalogue: &Catalogue, hints: &mut Vec<Hint>) -> Result<NodeId, CompileError> {
        let key = parse::key(expr);
        let at = if let Some(at) = self.known_checks.get(&key) {
            *at
        } else {
            let mut found = Vec::new();
            let regexes = Cell::new(self.regexes);
            let check = compile_check(expr, catalogue, &mut found, &regexes)?;
            self.regexes = regexes.get();
            let at = self.checks.len() as u32;
            if asks_for_name(&check) {
                self.name_checks.push(at);
            }
            let parts = text_parts(expr, &check);
            self.push(check, parts);
            if !found.is_empty() {
                self.hints.insert(at, found);
            }
            self.known_checks.insert(key, at);
            at
        };
        let pos = expr.pos();
        hints.extend(self.hints.get(&at).into_iter().flatten().map(|hint| Hint { pos, ..hint.clone() }));
        Ok(self.intern(Node::Check(at)))
    }

    fn combine(&mut self, is_and: bool, children: Vec<NodeId>) -> NodeId {
        let mut flat = Vec::with_capacity(children.len());
        for child in children {
            match (&self.nodes[child.0 as usize], is_and) {
                (Node::Const(value), _) if *value == is_and => {}
                (Node::Const(_), _) => return child,
                (Node::And(inner), true) | (Node::Or(inner), false) => flat.extend(inner.iter().copied()),
                _ => flat.push(child),
            }
        }
        flat.sort_unstable();
        flat.dedup();
        let mut flat = if is_and { self.merge_negations(flat) } else { self.merge_texts(flat) };
        let rank = |node: &NodeId| self.estimates[node.0 as usize].rank(!is_and);
        flat.sort_by(|a, b| rank(a).total_cmp(&rank(b)).then(a.cmp(b)));
        match flat.as_slice() {
            [] => self.constant(is_and),
            [only] => *only,
            _ if is_and => self.intern(Node::And(flat.into())),
            _ => self.intern(Node::Or(flat.into())),
        }
    }

    /// `not a and not b` as `not (a or b)`, so that a and b can be merged.
    fn merge_negations(&mut self, children: Vec<NodeId>) -> Vec<NodeId> {
        let mut inner = Vec::new();
        let mut kept = Vec::new();
        for child in children {
            match self.nodes[child.0 as usize] {
                Node::Not(negated) => inner.push(negated),
                _ => kept.push(child),
            }
        }
        if !inner.is_empty() {
            let any = self.combine(false, inner);
            kept.push(self.negate(any));
        }
        kept
    }

    /// Checks of one text field, any of which is enough, as one check.
    fn merge_texts(&mut self, children: Vec<NodeId>) -> Vec<NodeId> {
        let mut groups: Vec<(FieldSource, Vec<u32>)> = Vec::new();
        let mut places: HashMap<(FieldId, OwnedArg), usize> = HashMap::new();
        let mut kept = Vec::new();
        for child in children {
            let check = match self.nodes[child.0 as usize] {
                Node::Check(check) if self.parts[check as usize].is_some() => check,
                _ => {
                    kept.push(child);
                    continue;
                }
            };
            let OperandSource::Field(field) = &self.checks[check as usize].left else { continue };
            let place = *places.entry((field.id, field.arg.clone())).or_insert_with(|| {
                groups.push((field.clone(), Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(check);
        }
        for (field, checks) in groups {
            match self.merged(field, &checks) {
                Some(check) => kept.push(self.intern(Node::Check(check))),
                None => {
                    for check in checks {
                        kept.push(self.intern(Node::Check(check)));
                    }
                }
            }
        }
        kept
    }

    /// One check for several; nothing if there is but one.
    fn merged(&mut self, field: FieldSource, checks: &[u32]) -> Option<u32> {
        if checks.len() < 2 {
            return None;
        }
        if let Some(known) = self.known_merged.get(checks) {
            return Some(*known);
        }
        let mut parts = TextParts::default();
        for check in checks {
            parts.extend(self.parts[*check as usize].as_ref()?);
        }
        let any = AnyText::new(&parts)?;
        let at = self.checks.len() as u32;
        let left = OperandSource::Field(field);
        let check = Predicate { left, test: Test::Text(TextTest::Any(Box::new(any))) };
        self.push(check, Some(parts));
        self.known_merged.insert(checks.into(), at);
        Some(at)
    }

    fn push(&mut self, check: Predicate, parts: Option<TextParts>) {
        let mut indexed = Indexed { field: None, fully: false };
        if let (OperandSource::Field(field), Some(parts)) = (&check.left, &parts)
            && field.kind == FieldKind::Scalar
            && parts.can_be_looked_up()
        {
            let next = self.text_fields.len() as u32;
            let number = *self.text_fields.entry((field.id, field.arg.clone())).or_insert(next);
            indexed = Indexed { field: Some(number), fully: parts.contained.is_empty() };
        }
        self.checks.push(check);
        self.parts.push(parts);
        self.indexed.push(indexed);
    }

    fn negate(&mut self, child: NodeId) -> NodeId {
        match self.nodes[child.0 as usize] {
            Node::Not(inner) => inner,
            Node::Const(value) => self.constant(!value),
            _ => self.intern(Node::Not(child)),
        }
    }

    fn constant(&mut self, value: bool) -> NodeId {
        self.intern(Node::Const(value))
    }

    fn intern(&mut self, node: Node) -> NodeId {
        if let Some(known) = self.known.get(&node) {
            return *known;
        }
        let of = |child: &NodeId| self.estimates[child.0 as usize];
        let estimate = match &node {
            Node::Const(value) => Estimate { cost: 0.0, chance: if *value { 1.0 } else { 0.0 } },
            Node::Check(check) => self.checks[*check as usize].estimate(),
            Node::Not(child) => of(child).negated(),
            Node::And(children) => Estimate::all(children.iter().map(of)),
            Node::Or(children) => Estimate::all(children.iter().map(|child| of(child).negated())).negated(),
        };
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node.clone());
        self.estimates.push(estimate);
        self.known.insert(node, id);
        id
    }
}

impl Outcome {
    /// The outcome of `not`.
    #[must_use]
    pub const fn negated(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Pending => Self::Pending,
        }
    }
}

/// What a check of a text field asks for, if it can be merged with others: that some ancestor satisfies one of two checks
/// is the same as that one of the two is satisfied by some ancestor.
fn text_parts(expr: &Expr, check: &Predicate) -> Option<TextParts> {
    let OperandSource::Field(FieldSource { kind: FieldKind::Scalar | FieldKind::Ancestors, .. }) = &check.left else {
        return None;
    };
    let Expr::Check { op, modifier: None, right, .. } = expr else { return None };
    if asks_for_name(check) || !matches!(check.test, Test::Text(_)) {
        return None;
    }
    let values: Vec<Box<[u8]>> = match right {
        Right::Value(value, _) => vec![value.as_slice().into()],
        Right::List(values, _) => values.iter().map(|value| value.as_slice().into()).collect(),
        Right::Operand(_) => return None,
    };
    let mut parts = TextParts::default();
    match op {
        Op::Eq | Op::EqEq => parts.equal = values,
        Op::In | Op::Intersects => parts.listed = values,
        Op::StartsWith => parts.prefixes = values,
        Op::EndsWith => parts.suffixes = values,
        Op::Contains => parts.contained = values,
        _ => return None,
    }
    Some(parts)
}

/// The operands of nested `and`s, or of nested `or`s: combined at once, not level by level, each with all that is below it.
fn flatten<'a>(expr: &'a Arc<Expr>, is_and: bool, operands: &mut Vec<&'a Arc<Expr>>) {
    match (expr.as_ref(), is_and) {
        (Expr::And(children, _), true) | (Expr::Or(children, _), false) => {
            for child in children {
                flatten(child, is_and, operands);
            }
        }
        _ => operands.push(expr),
    }
}

fn asks_for_name(check: &Predicate) -> bool {
    let OperandSource::Field(field) = &check.left else { return false };
    field.id == FieldId::EVT_TYPE || field.id == FieldId::SYSCALL_TYPE
}

/// The outcome of a check that only asks for the name of the event.
fn decided_by_name(check: &Predicate, code: EventCode) -> Option<bool> {
    let OperandSource::Field(FieldSource { id, arg: OwnedArg::None, kind: FieldKind::Scalar }) = &check.left else {
        return None;
    };
    let known = *id == FieldId::EVT_TYPE || (*id == FieldId::SYSCALL_TYPE && code.is_syscall());
    if !known || code.is_generic() || !EVENTS[usize::from(code.number())].is_used() {
        return None;
    }
    match &check.test {
        Test::Operand(..) => None,
        test => Some(test.holds(Value::Text(code.name().as_bytes()))),
    }
}
