//! A set of event codes, held as a bit per number of the event table.

use super::{EVENTS, EventCode, Origin};

const WORDS: usize = EVENTS.len().div_ceil(64);

/// A set of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventSet([u64; WORDS]);

impl EventSet {
    /// No event.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// The generic event's own name, which no rule can mean.
    pub const GENERIC: &str = "syscall";

    /// Every event.
    pub fn all() -> Self {
        let mut set = Self::EMPTY;
        for number in 0..EVENTS.len() {
            set.0[number / 64] |= 1 << (number % 64);
        }
        set
    }

    /// All codes (old and new, enter and exit) of the event called `name`; for a system call without an event of its
    /// own those of the generic event. Empty for an unknown name.
    pub fn named(name: &str) -> Self {
        let mut set = Self::EMPTY;
        for (number, event) in EVENTS.iter().enumerate() {
            if event.is_used() && event.name == name && name != Self::GENERIC {
                set.insert_number(number);
            }
        }
        if set.is_empty() && super::SYSCALLS.contains(&name) {
            set.insert_number(0);
            set.insert_number(1);
        }
        set
    }

    /// Adds an event.
    pub fn insert(&mut self, code: EventCode) {
        self.insert_number(usize::from(code.number()));
    }

    /// Whether an event is in the set.
    pub fn contains(&self, code: EventCode) -> bool {
        self.contains_number(usize::from(code.number()))
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// How many codes are in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Events that are in either set.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a |= b);
        self
    }

    /// Events that are in both sets.
    #[must_use]
    pub fn intersection(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a &= b);
        self
    }

    /// Events that are not in the set.
    #[must_use]
    pub fn complement(self) -> Self {
        let mut all = Self::all();
        all.0.iter_mut().zip(self.0).for_each(|(a, b)| *a &= !b);
        all
    }

    /// The codes of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = EventCode> + '_ {
        (0..EVENTS.len()).filter(|number| self.contains_number(*number)).map(|number| EventCode(number as u16))
    }

    /// The names in the set, each once, ordered; without those that are only of use inside of an engine.
    pub fn names(&self) -> Vec<&'static str> {
        let shown = |code: &EventCode| {
            let event = code.event();
            let is_internal = matches!(event.origin, Origin::Meta | Origin::Iterator);
            event.is_used() && (!is_internal || matches!(event.name, "asyncevent" | "drop"))
        };
        let mut names: Vec<_> = self.iter().filter(shown).map(|code| code.event().name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn insert_number(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    fn contains_number(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 == 1
    }
}
