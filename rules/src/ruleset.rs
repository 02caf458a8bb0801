//! A loaded and compiled set of rules.

use crate::alert::{Alert, AlertOptions};
use crate::diagnostic::Diagnostic;
use crate::facts::Facts;
use crate::matches::{Matches, Outcome};
use crate::needs::Needs;
use crate::options::{LoadOptions, Source};
use crate::rule::{Rule, RuleIndex};

/// Rules, ready to evaluate events. Immutable: a reload makes a new one, so no event is judged by half a set.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    needs: Needs,
}

/// The files cannot be used: the last diagnostic is the error.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.diagnostics.last().map(ToString::to_string).unwrap_or_default())]
pub struct LoadError {
    /// Warnings up to the error, then the error.
    pub diagnostics: Vec<Diagnostic>,
}

impl RuleSet {
    /// Loads files one after another into one set, and compiles them.
    ///
    /// # Errors
    /// The first error of the files, after the warnings found up to it.
    pub fn load(_sources: &[Source<'_>], _options: &LoadOptions) -> Result<(Self, Vec<Diagnostic>), LoadError> {
        todo!("the next commits")
    }

    /// All rules, in rule order, disabled ones too.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// One rule.
    pub fn rule(&self, index: RuleIndex) -> &Rule {
        &self.rules[index.0 as usize]
    }

    /// What the enabled rules need from the sensor.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// Evaluates every enabled rule that can match the event; `matches` then holds the outcome of this event alone.
    ///
    /// Does not allocate once `matches` has been used with this set.
    pub fn evaluate<F: Facts + ?Sized>(&self, _facts: &F, _matches: &mut Matches) {
        todo!("the next commits")
    }

    /// Evaluates one rule, such as one that was pending.
    pub fn evaluate_rule<F: Facts + ?Sized>(&self, _rule: RuleIndex, _facts: &F) -> Outcome {
        todo!("the next commits")
    }

    /// The alert of a rule that matched.
    pub fn alert<F: Facts + ?Sized>(&self, _rule: RuleIndex, _facts: &F, _options: &AlertOptions) -> Alert {
        todo!("the next commits")
    }
}
