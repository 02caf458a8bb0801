//! Which events stay in the kernel because no rule can match them, whoever does them. The policy has them hashed by their
//! own facts; when the like of one comes a second time, the rules are asked whether these facts alone make each of them
//! false, and if so the kernel is told its hash.
//!
//! An answer belongs to the rules that gave it: hashes are made with a key that each policy has for itself, and only
//! events of the policy that came with the rules in force are asked about.

use agent_common::{EventGroup, EventType, OwnFacts};
use purser_rules::{FieldRef, Reading, RuleSet};

use crate::facts::{Own, code, own};
use crate::metrics::{Counter, Family, Metrics, counter};
use crate::sensor::Policy;

/// Events that stayed in the kernel.
pub const REJECTED: Family = counter(
    "purser_events_rejected",
    "Events that no rule can match and that stayed in the kernel, by type",
    &["type"],
);
/// What the rules said.
const ASKED: Family = counter(
    "purser_pushdown_answers",
    "Kinds of events of which rules were asked, by whether some may match",
    &["answer"],
);

/// Kinds of events remembered at a time.
const SIGHTINGS: usize = 1 << 14;

/// What is hashed of each event under a policy: of those that every rule may find false by their own facts.
pub(crate) fn own_facts(set: &RuleSet, policy: &Policy) -> OwnFacts {
    let mut table = OwnFacts::NOTHING;
    for event in EventType::ALL.iter().filter(|event| policy.events.contains(**event)) {
        let of_host = !policy.not_host.contains(*event);
        if let Some(hashed) = hashed(set, *event, of_host) {
            table.0[usize::from(event.code())] = hashed;
        }
    }
    table
}

/// What is hashed of an event; nothing where some rule rests on other facts alone. `of_host`: the kernel reports it of
/// processes of the host, too.
fn hashed(set: &RuleSet, event: EventType, of_host: bool) -> Option<u8> {
    if !is_hashable(event) {
        return None;
    }
    let mut bits = OwnFacts::HASHED;
    for reading in set.readings(code(event)) {
        if !refutable(event, of_host, &reading) {
            return None;
        }
        for field in reading.fields() {
            match own(event, field) {
                Own::Argument(argument) => bits |= 1 << argument,
                Own::OfHost if of_host => bits |= OwnFacts::HOST,
                Own::Yes | Own::Sometimes | Own::OfHost | Own::No(_) => {}
            }
        }
    }
    Some(bits)
}

/// Whether the programs can hash an event.
pub(crate) fn is_hashable(event: EventType) -> bool {
    matches!(event.group(), EventGroup::Open | EventGroup::Connect | EventGroup::Call)
}

/// Whether an event's own facts can make a condition false.
pub(crate) fn refutable(event: EventType, of_host: bool, reading: &Reading<'_>) -> bool {
    reading.refutable(&|field| is_own(event, of_host, field))
}

/// Whether a field may be known from an event alone.
pub(crate) fn is_own(event: EventType, of_host: bool, field: FieldRef<'_>) -> bool {
    match own(event, field) {
        Own::Yes | Own::Argument(_) | Own::Sometimes => true,
        Own::OfHost => of_host,
        Own::No(_) => false,
    }
}

/// What is remembered of a kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sighting {
    Once,
    /// Some rule may match it.
    Kept,
}

/// The worker's side: what came, and what the kernel is to be told.
#[derive(Debug)]
pub(crate) struct Filter {
    /// The policy whose events are asked about, and what it hashes; none while the kernel serves other rules as well.
    policy: Option<(u32, OwnFacts)>,
    /// By the lower bits of the hash; whoever makes up many kinds has them forgotten.
    seen: Vec<(u64, Sighting)>,
    /// For the kernel.
    unmatched: Vec<u64>,
    rejected: Counter,
    kept: Counter,
}

impl Filter {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let [rejected, kept] = ["rejected", "kept"].map(|answer| metrics.counter(ASKED, &[answer]));
        Self { policy: None, seen: Vec::new(), unmatched: Vec::new(), rejected, kept }
    }

    /// The rules have changed, or the policy has: what was seen before says nothing any more. `policy` is in force and
    /// made for the rules in force alone, and what it hashes.
    pub(crate) fn set(&mut self, policy: Option<(u32, &OwnFacts)>) {
        self.policy = policy.filter(|(_, own)| **own != OwnFacts::NOTHING).map(|(generation, own)| (generation, *own));
        self.unmatched.clear();
        self.seen.clear();
        if self.policy.is_some() {
            self.seen.resize(SIGHTINGS, (0, Sighting::Once));
        }
    }

    /// What was hashed of an event that matched nothing, if rules are to be asked about it: when its like came before.
    pub(crate) fn asks(&mut self, event: EventType, generation: u32, hash: u64) -> Option<u8> {
        let (policy, own) = self.policy.as_ref()?;
        if hash == 0 || *policy != generation {
            return None;
        }
        let slot = self.seen.get_mut(hash as usize % SIGHTINGS)?;
        if slot.0 != hash {
            *slot = (hash, Sighting::Once);
            return None;
        }
        (slot.1 == Sighting::Once).then(|| own.of(event.code()))
    }

    /// What the rules said of it.
    pub(crate) fn answer(&mut self, hash: u64, may_match: bool) {
        if may_match {
            self.kept.increment();
            if let Some(slot) = self.seen.get_mut(hash as usize % SIGHTINGS) {
                *slot = (hash, Sighting::Kept);
            }
        } else {
            self.rejected.increment();
            self.unmatched.push(hash);
            // Should the kernel forget it, it is told again after two more.
            if let Some(slot) = self.seen.get_mut(hash as usize % SIGHTINGS) {
                *slot = (0, Sighting::Once);
            }
        }
    }

    /// Hashes of events that no rule in force can match.
    pub(crate) fn take_unmatched(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.unmatched)
    }
}

#[cfg(test)]
mod tests;
