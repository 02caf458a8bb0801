//! Answers by question: what a recorder need not write again, and what a replay answers.
//!
//! An answer is written where it differs from the one before, with how often the same was asked for the same input
//! before: so it comes back at the very call, and where other rules ask more or less often it comes at the latest with the next input.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use super::entry::Later;

/// The recorder's side.
#[derive(Debug)]
pub(super) struct Known<K, V> {
    answers: HashMap<K, V>,
    /// How often each was asked since the last input.
    asked: HashMap<K, u32>,
}

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Self { answers: HashMap::new(), asked: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone, V: PartialEq + Clone> Known<K, V> {
    /// The pipeline got this answer: what has to be written of it.
    pub(super) fn answered(&mut self, key: &K, answer: &V) -> Option<Later<V>> {
        let asked = match self.asked.get_mut(key) {
            Some(asked) => asked,
            None => self.asked.entry(key.clone()).or_insert(0),
        };
        let before = *asked;
        *asked = asked.saturating_add(1);
        self.changed(key, answer).then(|| Later(before, answer.clone()))
    }

    /// The recorder itself asked, for a question that may come later.
    pub(super) fn found(&mut self, key: &K, answer: &V) -> Option<Later<V>> {
        let before = self.asked.get(key).copied().unwrap_or(0);
        self.changed(key, answer).then(|| Later(before, answer.clone()))
    }

    /// Another input begins.
    pub(super) fn next(&mut self) {
        self.asked.clear();
    }

    /// Nothing was answered before.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    fn changed(&mut self, key: &K, answer: &V) -> bool {
        if self.answers.get(key) == Some(answer) {
            return false;
        }
        self.answers.insert(key.clone(), answer.clone());
        true
    }
}

/// The replay's side.
#[derive(Debug)]
pub(super) struct Ledger<K, V> {
    answers: HashMap<K, V>,
    later: HashMap<K, VecDeque<Later<V>>>,
    asked: HashMap<K, u32>,
}

impl<K, V> Default for Ledger<K, V> {
    fn default() -> Self {
        Self { answers: HashMap::new(), later: HashMap::new(), asked: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone, V> Ledger<K, V> {
    /// An answer of the input at hand.
    pub(super) fn take(&mut self, key: K, answer: Later<V>) {
        self.later.entry(key).or_default().push_back(answer);
    }

    /// What was answered.
    pub(super) fn answer(&mut self, key: &K) -> Option<&V> {
        if let Some(later) = self.later.get_mut(key) {
            let asked = self.asked.entry(key.clone()).or_insert(0);
            while let Some(Later(_, answer)) = later.pop_front_if(|Later(before, _)| *before <= *asked) {
                self.answers.insert(key.clone(), answer);
            }
            *asked = asked.saturating_add(1);
        }
        self.answers.get(key)
    }

    /// The input is done: answers that nobody asked for hold from now on.
    pub(super) fn done(&mut self) {
        self.asked.clear();
        for (key, later) in self.later.drain() {
            if let Some(Later(_, answer)) = later.into_iter().next_back() {
                self.answers.insert(key, answer);
            }
        }
    }

    /// Nothing was answered before.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back_at_the_call_that_got_them() {
        let (mut known, mut ledger) = (Known::default(), Ledger::default());
        let inputs: [&[(&str, u32)]; 4] = [
            &[("a", 1), ("b", 1), ("a", 1), ("a", 2), ("a", 3)],
            &[("a", 3), ("a", 4), ("b", 1)],
            &[("b", 2)],
            &[("b", 2), ("a", 4)],
        ];
        for input in inputs {
            known.next();
            for (key, answer) in input {
                if let Some(written) = known.answered(key, answer) {
                    ledger.take(*key, written);
                }
            }
            let replayed: Vec<_> =
                input.iter().map(|(key, _)| (*key, ledger.answer(key).copied().unwrap_or(0))).collect();
            assert_eq!(replayed, input);
            ledger.done();
        }
    }

    #[test]
    fn what_nobody_asks_for_holds_afterwards() {
        let mut ledger = Ledger::default();
        ledger.take("a", Later(0, 1));
        ledger.take("a", Later(3, 2));
        assert_eq!(ledger.answer(&"a"), Some(&1));
        ledger.done();
        assert_eq!([ledger.answer(&"a").copied(), ledger.answer(&"b").copied()], [Some(2), None]);
    }

    #[test]
    fn what_the_recorder_asks_ahead_moves_no_call() {
        let (mut known, mut ledger) = (Known::default(), Ledger::default());
        ledger.take("a", known.found(&"a", &1).expect("new"));
        assert_eq!(known.answered(&"a", &1), None);
        ledger.take("a", known.answered(&"a", &2).expect("changed"));
        assert_eq!([ledger.answer(&"a").copied(), ledger.answer(&"a").copied()], [Some(1), Some(2)]);
    }
}
