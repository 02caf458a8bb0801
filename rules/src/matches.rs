//! The outcome of evaluating one event, and the scratch memory evaluation needs.
//!
//! Made once and used for every event, so that evaluation does not allocate.

use crate::rule::RuleIndex;

/// Whether a rule matches an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It matches.
    True,
    /// It does not.
    False,
    /// A fact it depends on is not known yet; evaluate it again when it is.
    Pending,
}

/// Which of the matching rules of an event are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RuleMatching {
    /// The first, in rule order.
    #[default]
    First,
    /// All.
    All,
}

/// What to do with an event under a [`RuleMatching`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Rules to report now.
    pub report: &'a [RuleIndex],
    /// Rules to decide later, in this order. Under `First` they precede every reported rule, and `report` is empty as
    /// long as there are any: decide them one by one; the first that turns out true is the one to report, and if none
    /// does it is [`fallback`](Self::fallback).
    pub wait: &'a [RuleIndex],
    /// Under `First`: the rule to report if no rule of `wait` turns out true.
    pub fallback: Option<RuleIndex>,
}

/// Rules that match an event, rules that are pending, and scratch memory.
#[derive(Debug, Default)]
pub struct Matches {
    pub(crate) matched: Vec<RuleIndex>,
    pub(crate) pending: Vec<RuleIndex>,
    pub(crate) scratch: crate::program::Scratch,
}

impl Matches {
    /// Nothing matched yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rules that match, in rule order.
    pub fn matched(&self) -> &[RuleIndex] {
        &self.matched
    }

    /// Rules that depend on a fact that is not known yet, in rule order.
    pub fn pending(&self) -> &[RuleIndex] {
        &self.pending
    }

    /// Whether no rule matches and none may.
    pub fn is_empty(&self) -> bool {
        self.matched.is_empty() && self.pending.is_empty()
    }

    /// What to report and what to wait for.
    pub fn decide(&self, matching: RuleMatching) -> Decision<'_> {
        match (matching, self.matched.first()) {
            (RuleMatching::All, _) => Decision { report: &self.matched, wait: &self.pending, fallback: None },
            (RuleMatching::First, None) => Decision { report: &[], wait: &self.pending, fallback: None },
            (RuleMatching::First, Some(first)) => {
                let earlier = self.pending.partition_point(|rule| rule < first);
                if earlier == 0 {
                    Decision { report: &self.matched[..1], wait: &[], fallback: None }
                } else {
                    Decision { report: &[], wait: &self.pending[..earlier], fallback: Some(*first) }
                }
            }
        }
    }
}
