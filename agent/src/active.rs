//! The rules in force, with what belongs to them: one value, swapped as a whole. An event that waits keeps the one it
//! came under, because the numbers of its rules are numbers of that set.

use std::sync::Arc;

use purser_rules::{RuleIndex, RuleMatching, RuleSet};

use crate::metrics::{Counter, Metrics};

/// A set of rules in force.
#[derive(Debug)]
pub struct ActiveRules {
    /// The rules.
    pub set: Arc<RuleSet>,
    /// Which of several matching rules are reported.
    pub matching: RuleMatching,
    /// By rule, in rule order.
    matches: Vec<Counter>,
}

impl ActiveRules {
    /// Makes the rules' counters or finds those of rules with the same name and priority, which count on: a counter
    /// never goes back. That of a rule that is gone stays as it is, until the agent ends.
    pub fn new(set: impl Into<Arc<RuleSet>>, matching: RuleMatching, metrics: &Metrics) -> Arc<Self> {
        let set = set.into();
        let matches = set.rules().iter().map(|rule| metrics.rule_matches(&rule.name, rule.priority)).collect();
        Arc::new(Self { set, matching, matches })
    }

    /// A rule raised an alert.
    pub fn matched(&self, rule: RuleIndex) {
        if let Some(counter) = self.matches.get(rule.0 as usize) {
            counter.increment();
        }
    }

    /// How many rules are enabled.
    pub fn enabled(&self) -> usize {
        self.set.rules().iter().filter(|rule| rule.enabled).count()
    }
}

/// Says that nothing will be alerted on, which a file that was emptied by mistake leads to.
pub(crate) fn warn_of_none(enabled: usize) {
    if enabled == 0 {
        tracing::warn!("no rule is enabled: no event raises an alert");
    }
}
