//! The order in which an event is tested: what many conditions have in common is tested once, and where it does not hold,
//! all of them are passed over.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::{Graph, Node, NodeId, Scratch, Texts};
use crate::catalogue::FieldId;
use crate::eval::{OperandSource, OwnedArg};
use crate::facts::Facts;
use crate::matches::Outcome;
use crate::rule::RuleIndex;

/// How often conditions are divided by what they share. Deeper, few have anything left in common.
const MAX_DEPTH: usize = 16;

/// How many conditions must share a test for it to be asked before all of them. With fewer it pays more to ask for the first
/// tests of many conditions at once; a test that is shared is decided only once anyhow.
const MIN_SHARED: usize = 4;

/// The conditions that can match an event, as a tree in preorder.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    steps: Vec<Step>,
    rules: Vec<RuleIndex>,
    /// What the steps ask of texts.
    texts: Texts,
}

/// A node of the graph that must hold for every step up to `end`, and the rules for which that is all.
#[derive(Debug)]
struct Step {
    node: NodeId,
    end: usize,
    /// A range of [`Plan::rules`].
    rules: (usize, usize),
}

/// What is left to test of a condition.
struct Open<'a> {
    tests: Vec<NodeId>,
    rules: &'a [RuleIndex],
}

impl Plan {
    /// A plan for conditions, each with the rules that have it.
    pub(crate) fn new(graph: &mut Graph, conditions: &[(NodeId, Vec<RuleIndex>)]) -> Self {
        let mut plan = Self::default();
        let open = conditions.iter().map(|(root, rules)| Open { tests: conjuncts(graph, *root), rules }).collect();
        plan.divide(graph, open, 0);
        plan.texts = Texts::new(graph, plan.steps.iter().map(|step| step.node));
        plan
    }

    /// Whether no condition can match.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Tests an event and adds the rules that match, or may.
    pub(crate) fn run<F: Facts + ?Sized>(
        &self,
        graph: &Graph,
        facts: &F,
        scratch: &mut Scratch,
        matched: &mut Vec<RuleIndex>,
        pending: &mut Vec<RuleIndex>,
    ) {
        let mut at = 0;
        // Steps before this one depend on something that is not known yet.
        let mut pending_before = 0;
        while let Some(step) = self.steps.get(at) {
            let outcome = graph.evaluate(step.node, &self.texts, facts, scratch);
            if outcome == Outcome::False {
                at = step.end;
                continue;
            }
            if outcome == Outcome::Pending {
                pending_before = pending_before.max(step.end);
            }
            let rules = self.rules.get(step.rules.0..step.rules.1).unwrap_or_default();
            if !rules.is_empty() {
                if at < pending_before { &mut *pending } else { &mut *matched }.extend_from_slice(rules);
            }
            at += 1;
        }
    }

    /// Puts each condition below the test that it shares with most others.
    fn divide(&mut self, graph: &mut Graph, open: Vec<Open<'_>>, depth: usize) {
        let mut shared: HashMap<NodeId, usize> = HashMap::new();
        for test in open.iter().flat_map(|condition| &condition.tests) {
            *shared.entry(*test).or_default() += 1;
        }
        let mut groups: BTreeMap<(Reverse<usize>, NodeId), Vec<Open<'_>>> = BTreeMap::new();
        for condition in open {
            let key = |test: &NodeId| (Reverse(shared.get(test).copied().unwrap_or_default()), *test);
            if let Some(most) = condition.tests.iter().map(key).min() {
                groups.entry(most).or_default().push(condition);
            }
        }
        let mut alone = Vec::new();
        for ((_, test), group) in groups {
            if group.len() < MIN_SHARED || depth >= MAX_DEPTH {
                alone.extend(group);
                continue;
            }
            let start = self.push(test);
            let mut left = Vec::with_capacity(group.len());
            for mut condition in group {
                condition.tests.retain(|other| *other != test);
                if condition.tests.is_empty() {
                    self.attach(start, condition.rules);
                } else {
                    left.push(condition);
                }
            }
            self.divide(graph, left, depth + 1);
            self.close(start);
        }
        self.guard(graph, alone);
    }

    /// Conditions that share no test, but may begin with tests of the same texts: whether any of these holds is asked first,
    /// at once.
    fn guard(&mut self, graph: &mut Graph, alone: Vec<Open<'_>>) {
        let mut groups: Vec<(Lead, Vec<Open<'_>>)> = Vec::new();
        let mut places: HashMap<Lead, usize> = HashMap::new();
        for mut condition in alone {
            let lead = take_lead(graph, &mut condition.tests);
            let place = *places.entry(lead.clone()).or_insert_with(|| {
                groups.push((lead, Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(condition);
        }
        for (lead, group) in groups {
            let start = (lead != Lead::Own && group.len() > 1).then(|| {
                let firsts = group.iter().filter_map(|condition| condition.tests.first().copied()).collect();
                let any = graph.combine(false, firsts);
                self.push(any)
            });
            for condition in group {
                self.chain(&condition);
            }
            if let Some(start) = start {
                self.close(start);
            }
        }
    }

    /// One condition, test by test.
    fn chain(&mut self, condition: &Open<'_>) {
        let start = self.steps.len();
        for test in &condition.tests {
            self.push(*test);
        }
        if let Some(last) = self.steps.len().checked_sub(1) {
            self.attach(last, condition.rules);
        }
        for at in start..self.steps.len() {
            self.close(at);
        }
    }

    fn push(&mut self, node: NodeId) -> usize {
        self.steps.push(Step { node, end: 0, rules: (0, 0) });
        self.steps.len() - 1
    }

    fn attach(&mut self, at: usize, rules: &[RuleIndex]) {
        let (start, end) = self.steps[at].rules;
        let start = if start == end { self.rules.len() } else { start };
        self.rules.extend_from_slice(rules);
        self.steps[at].rules = (start, self.rules.len());
    }

    fn close(&mut self, at: usize) {
        self.steps[at].end = self.steps.len();
    }
}

/// What the first test of a condition asks for.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Lead {
    /// One text.
    Text(FieldId, OwnedArg),
    /// Any of several texts.
    Texts,
    /// Something that cannot be asked for together with others.
    Own,
}

/// Puts a test first that can be asked for together with others.
fn take_lead(graph: &Graph, tests: &mut [NodeId]) -> Lead {
    let mut several = None;
    for at in 0..tests.len() {
        match lead(graph, tests[at]) {
            found @ Lead::Text(..) => {
                tests[..=at].rotate_right(1);
                return found;
            }
            Lead::Texts => several = several.or(Some(at)),
            Lead::Own => {}
        }
    }
    let Some(at) = several else { return Lead::Own };
    tests[..=at].rotate_right(1);
    Lead::Texts
}

fn lead(graph: &Graph, test: NodeId) -> Lead {
    let text = |check: u32| match &graph.checks[check as usize].left {
        OperandSource::Field(field) if graph.parts[check as usize].is_some() => Some(field),
        _ => None,
    };
    match &graph.nodes[test.0 as usize] {
        Node::Check(check) => text(*check).map_or(Lead::Own, |field| Lead::Text(field.id, field.arg.clone())),
        Node::Or(children) => {
            let is_text =
                |child: &NodeId| matches!(graph.nodes[child.0 as usize], Node::Check(check) if text(check).is_some());
            if children.iter().all(is_text) { Lead::Texts } else { Lead::Own }
        }
        _ => Lead::Own,
    }
}

/// What must hold for a node to hold.
fn conjuncts(graph: &Graph, root: NodeId) -> Vec<NodeId> {
    match &graph.nodes[root.0 as usize] {
        Node::And(children) => children.to_vec(),
        _ => vec![root],
    }
}
