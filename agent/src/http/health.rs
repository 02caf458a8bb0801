//! What must hold before the agent calls itself healthy, and what of it does not hold now.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// The conditions of `/healthz`. Without any it is not healthy: nobody has said yet what must hold.
#[derive(Debug, Default)]
pub struct Health {
    conditions: Mutex<Vec<Condition>>,
}

/// One condition; a clone is the same one. It does not hold at first.
#[derive(Debug, Clone)]
pub struct Condition {
    name: &'static str,
    met: Arc<AtomicBool>,
}

impl Health {
    /// A new condition, named as the answer of `/healthz` lists it while it does not hold: `hooks attached`.
    pub fn condition(&self, name: &'static str) -> Condition {
        let condition = Condition { name, met: Arc::default() };
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).push(condition.clone());
        condition
    }

    /// What does not hold now; empty: healthy.
    pub fn unmet(&self) -> Vec<&'static str> {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        if conditions.is_empty() {
            return vec!["starting"];
        }
        conditions.iter().filter(|condition| !condition.is_met()).map(|condition| condition.name).collect()
    }
}

impl Condition {
    /// Says whether it holds.
    pub fn set(&self, met: bool) {
        self.met.store(met, Ordering::Release);
    }

    /// Whether it holds.
    pub fn is_met(&self) -> bool {
        self.met.load(Ordering::Acquire)
    }
}
