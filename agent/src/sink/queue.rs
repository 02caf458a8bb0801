//! The bounded queue between the worker and one sink. Pushing never waits; what is not delivered stays counted until
//! the sink says so, so that the end knows what was left.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::alert::{Alert, INTERNAL};

/// Places for the agent's own alerts.
const RESERVE: usize = 64;

#[derive(Debug)]
pub(super) struct Queue {
    capacity: usize,
    state: Mutex<State>,
    /// The sink's thread waits here.
    work: Condvar,
    /// `wait_until_done` waits here.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Alert>>,
    /// Taken, but not yet delivered or given up.
    in_flight: usize,
    reopen: bool,
    /// No more alerts come; deliver what is there until then.
    closed: Option<Instant>,
    /// The thread is gone.
    abandoned: bool,
}

/// Why the sink's thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// There is something to deliver, or a pause is over.
    Work,
    /// The target is to be opened anew.
    Reopen,
    /// Nothing is left, or the time is over.
    End,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, state: Mutex::default(), work: Condvar::new(), done: Condvar::new() }
    }

    /// False: it is full, or closed. What the agent says of itself finds room where others do not: it is little, and may
    /// be that others found none.
    pub(super) fn push(&self, alert: Arc<Alert>) -> bool {
        let mut state = self.lock();
        let reserve = if alert.raised.source == INTERNAL { RESERVE } else { 0 };
        let room = self.capacity + reserve;
        if state.closed.is_some() || state.abandoned || state.waiting.len() + state.in_flight >= room {
            return false;
        }
        state.waiting.push_back(alert);
        // With more waiting, the thread is awake or will look again before it sleeps.
        if state.waiting.len() == 1 {
            self.work.notify_one();
        }
        true
    }

    /// Waiting and in flight.
    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        state.waiting.len() + state.in_flight
    }

    /// Waits for alerts and moves at most `most` of them into the empty `batch`.
    pub(super) fn take(&self, batch: &mut Vec<Arc<Alert>>, most: usize) -> Wake {
        let mut state = self.lock();
        loop {
            if std::mem::take(&mut state.reopen) {
                return Wake::Reopen;
            }
            if !state.waiting.is_empty() {
                let count = state.waiting.len().min(most);
                batch.extend(state.waiting.drain(..count));
                state.in_flight += count;
                return Wake::Work;
            }
            if state.closed.is_some() {
                return Wake::End;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// `count` alerts that were taken are delivered, or counted as lost by the caller.
    pub(super) fn done(&self, count: usize) {
        let mut state = self.lock();
        state.in_flight -= count;
        if state.in_flight == 0 && state.waiting.is_empty() {
            self.done.notify_all();
        }
    }

    /// Sleeps between two attempts, but not past the end.
    pub(super) fn pause(&self, pause: Duration) -> Wake {
        let over = Instant::now() + pause;
        let mut state = self.lock();
        loop {
            if std::mem::take(&mut state.reopen) {
                return Wake::Reopen;
            }
            let now = Instant::now();
            if state.closed.is_some_and(|deadline| now >= deadline) {
                return Wake::End;
            }
            let until = state.closed.map_or(over, |deadline| deadline.min(over));
            if now >= until {
                return Wake::Work;
            }
            state = self.work.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.work.notify_one();
    }

    /// No more alerts; the sink has until `deadline`.
    pub(super) fn close(&self, deadline: Instant) {
        self.lock().closed = Some(deadline);
        self.work.notify_one();
    }

    /// Waits for the last alert to be delivered; how many were not.
    pub(super) fn wait_until_done(&self, deadline: Instant) -> u64 {
        let mut state = self.lock();
        loop {
            let left = state.waiting.len() + state.in_flight;
            let now = Instant::now();
            if left == 0 || now >= deadline {
                return left as u64;
            }
            state = self.done.wait_timeout(state, deadline - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The thread has died: takes nothing more; how many alerts it held.
    pub(super) fn abandon(&self) -> u64 {
        let mut state = self.lock();
        let left = state.waiting.len() + state.in_flight;
        state.waiting.clear();
        state.in_flight = 0;
        state.abandoned = true;
        self.done.notify_all();
        left as u64
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the state is whole before the lock is released.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
