//! Events that cannot be decided yet: *held* until their container's identity is known (in order, per container),
//! or *parked* until a verdict is known (per event and rule). Both are bounded; whoever finds no room is told so.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use purser_rules::RuleIndex;

use crate::active::ActiveRules;
use crate::container::Container;
use crate::pipeline::Seen;
use crate::process::{Process, Program};

/// An event, the rules in force when it came, and the processes that they may ask about.
#[derive(Debug)]
pub(crate) struct Held {
    /// The event.
    pub(crate) seen: Seen,
    /// See [`Lineage::Kept`](crate::facts::Lineage::Kept).
    pub(crate) lineage: Vec<Arc<Process>>,
    /// What it is judged by, whatever is in force by then.
    pub(crate) rules: Arc<ActiveRules>,
}

/// An event with the rules that wait for the verdict on its program.
#[derive(Debug)]
pub(crate) struct Parked {
    /// The event.
    pub(crate) held: Held,
    /// Rules to decide, each with the place of its name, in rule order.
    pub(crate) pending: Vec<(RuleIndex, usize)>,
    /// The rule to report if none of `pending` matches.
    pub(crate) fallback: Option<(RuleIndex, usize)>,
}

struct Queue {
    since: Instant,
    events: VecDeque<Held>,
}

/// All that waits.
pub(crate) struct Waiting {
    capacity: usize,
    hold_time: Duration,
    /// By the container's id.
    held: HashMap<String, Queue>,
    held_events: usize,
    /// Containers whose runtime did not answer in time: their events wait no more.
    given_up: HashSet<String>,
    tickets: HashMap<u64, (Arc<Program>, Vec<Parked>)>,
    parked_events: usize,
    next_ticket: u64,
}

impl Waiting {
    /// Room for `capacity` events of each kind; held ones wait for at most `hold_time`.
    pub(crate) fn new(capacity: usize, hold_time: Duration) -> Self {
        Self {
            capacity,
            hold_time,
            held: HashMap::new(),
            held_events: 0,
            given_up: HashSet::new(),
            tickets: HashMap::new(),
            parked_events: 0,
            next_ticket: 1,
        }
    }

    /// Held events wait for at most this from now on, those that wait already included.
    pub(crate) fn set_hold_time(&mut self, hold_time: Duration) {
        self.hold_time = hold_time;
    }

    /// An event of `container` has to wait: its image is not known yet, or an earlier event waits for that.
    pub(crate) fn must_hold(&self, container: &Container) -> bool {
        (container.image_pending && !self.given_up.contains(&container.id)) || self.held.contains_key(&container.id)
    }

    /// Holds an event of a container; gives it back where there is no room.
    pub(crate) fn hold(&mut self, held: Held, now: Instant) -> Option<Held> {
        let Some(container) = &held.seen.container else { return Some(held) };
        if self.held_events >= self.capacity {
            return Some(held);
        }
        self.held_events += 1;
        let queue =
            self.held.entry(container.id.clone()).or_insert_with(|| Queue { since: now, events: VecDeque::new() });
        queue.events.push_back(held);
        None
    }

    /// The events of a container that waited for this answer, in order.
    pub(crate) fn identified(&mut self, container: &Container) -> VecDeque<Held> {
        if container.image_pending {
            return VecDeque::new();
        }
        self.given_up.remove(&container.id);
        self.take(&container.id.clone())
    }

    /// Events that have waited too long, in order per container.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<Held> {
        let late = self.ids(|queue| now.duration_since(queue.since) >= self.hold_time);
        let mut events = Vec::new();
        for id in late {
            events.extend(self.take(&id));
            if self.given_up.len() >= self.capacity {
                self.given_up.clear();
            }
            self.given_up.insert(id);
        }
        events
    }

    /// Every held event.
    pub(crate) fn all_held(&mut self) -> Vec<Held> {
        let ids = self.ids(|_| true);
        ids.iter().flat_map(|id| self.take(id)).collect()
    }

    /// When the next held event is overdue.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.held.values().map(|queue| queue.since + self.hold_time).min()
    }

    /// A number to ask for the verdict on `program` with.
    pub(crate) fn ticket(&mut self, program: &Arc<Program>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        // Asked for once per program; a second number would only be a second question.
        let _first = program.ticket.set(ticket);
        self.tickets.insert(ticket, (Arc::clone(program), Vec::new()));
        ticket
    }

    /// Parks an event until the verdict on its program comes; `false` where there is no room or no such question.
    pub(crate) fn park(&mut self, parked: Parked) -> bool {
        let ticket = parked.held.seen.process.program.ticket.get();
        let Some((_, list)) = ticket.and_then(|ticket| self.tickets.get_mut(ticket)) else { return false };
        if self.parked_events >= self.capacity {
            return false;
        }
        self.parked_events += 1;
        list.push(parked);
        true
    }

    /// The program that was asked about under `ticket` and what waited for the answer, in order.
    pub(crate) fn judged(&mut self, ticket: u64) -> Option<(Arc<Program>, Vec<Parked>)> {
        let answered = self.tickets.remove(&ticket)?;
        self.parked_events -= answered.1.len();
        Some(answered)
    }

    /// Forgets what is parked; gives its number.
    pub(crate) fn abandon(&mut self) -> usize {
        self.tickets.clear();
        std::mem::take(&mut self.parked_events)
    }

    /// Nothing waits and no question is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.tickets.is_empty()
    }

    /// Events held.
    pub(crate) fn held(&self) -> usize {
        self.held_events
    }

    /// Events parked.
    pub(crate) fn parked(&self) -> usize {
        self.parked_events
    }

    /// Containers whose queues are wanted, in the order of their first events: a recording gives the same alerts in the same order.
    fn ids(&self, wanted: impl Fn(&Queue) -> bool) -> Vec<String> {
        let mut ids: Vec<_> = self.held.iter().filter(|(_, queue)| wanted(queue)).collect();
        ids.sort_by_key(|(_, queue)| queue.events.front().map(|held| held.seen.number));
        ids.into_iter().map(|(id, _)| id.clone()).collect()
    }

    fn take(&mut self, id: &str) -> VecDeque<Held> {
        let events = self.held.remove(id).map(|queue| queue.events).unwrap_or_default();
        self.held_events -= events.len();
        events
    }
}
