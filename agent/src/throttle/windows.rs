//! Open windows by key: a bounded table, ordered by when they end. It knows neither alerts nor clocks.

use std::collections::{BTreeMap, HashMap};

use purser_rules::RuleIndex;
use serde_json::{Map, Value as Json};

/// From the first alert of a key until its time is over.
#[derive(Debug)]
pub(super) struct Window {
    /// Whose alerts.
    pub(super) rule: RuleIndex,
    /// How many were raised.
    pub(super) raised: u32,
    /// The others; most windows have none.
    pub(super) fold: Option<Box<Fold>>,
}

/// What was folded in a window.
#[derive(Debug)]
pub(super) struct Fold {
    /// How many, at least 1.
    pub(super) count: u64,
    /// The earliest, ns since the epoch.
    pub(super) first_ns: u64,
    /// The latest, ns since the epoch.
    pub(super) last_ns: u64,
    /// What the key is made of.
    pub(super) fields: Map<String, Json>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Windows {
    capacity: usize,
    by_key: HashMap<u64, Window>,
    /// End and running number to key: of two that end together the one that was opened first goes first.
    by_end: BTreeMap<(u64, u64), u64>,
    opened: u64,
}

impl Windows {
    /// Room for `capacity` windows, at least one.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), by_key: HashMap::new(), by_end: BTreeMap::new(), opened: 0 }
    }

    /// The open window of a key.
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut Window> {
        self.by_key.get_mut(&key)
    }

    /// Opens a window for a key that has none, with one alert raised; gives the one that had to end for it.
    pub(super) fn open(&mut self, key: u64, rule: RuleIndex, end_ns: u64) -> Option<Window> {
        let evicted = if self.by_key.len() >= self.capacity { self.pop() } else { None };
        self.opened += 1;
        self.by_end.insert((end_ns, self.opened), key);
        self.by_key.insert(key, Window { rule, raised: 1, fold: None });
        evicted
    }

    /// When the next window ends.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.by_end.keys().next().map(|(end_ns, _)| *end_ns)
    }

    /// Takes the window that ends next.
    pub(super) fn pop(&mut self) -> Option<Window> {
        let (_, key) = self.by_end.pop_first()?;
        self.by_key.remove(&key)
    }

    /// Open windows.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}
