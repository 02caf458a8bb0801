//! The worker's side of a reload: between two events it puts rules and settings in force, in the kernel and in the
//! pipeline, so that no event is judged by half a set and none that either set needs is missed.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use agent_common::EventGroup;
use purser_rules::{Alert, Needs, RuleSet};

use crate::active::ActiveRules;
use crate::config::{Config, Pushdown, Scope};
use crate::event::EventType;
use crate::facts;
use crate::outside::Outside;
use crate::pipeline::{Pipeline, PipelineConfig};
use crate::pushdown::own_facts;
use crate::sensor::{Policy, Sensor};
use crate::throttle::Throttle;

/// What the reload thread asks of the worker.
pub(crate) enum Order {
    /// Put these in force, and say how it went.
    Activate(Change, SyncSender<Result<Done, String>>),
    /// Deliver an alert of the agent itself.
    Raise(Alert),
}

/// Rules and settings to put in force.
pub(crate) struct Change {
    pub(crate) rules: Arc<ActiveRules>,
    pub(crate) scope: Scope,
    pub(crate) settings: PipelineConfig,
    pub(crate) throttle: Throttle,
}

/// They are.
pub(crate) struct Done {
    /// Since when.
    pub(crate) at: Instant,
    /// The rules that were, to be freed elsewhere.
    pub(crate) _old: Arc<ActiveRules>,
}

/// Changes what the kernel reports, and gives the policy's generation; the pipeline takes what it reports meanwhile.
type SetPolicy<'a, O> = dyn FnMut(&Policy, &mut Pipeline<O>) -> Result<u32, String> + 'a;

/// The worker's end of the orders, and what the kernel reports now.
pub(crate) struct Orders {
    receiver: Receiver<Order>,
    policy: Policy,
    pushdown: Pushdown,
}

impl Orders {
    /// `policy` is in force.
    pub(super) fn new(receiver: Receiver<Order>, policy: Policy, pushdown: Pushdown) -> Self {
        Self { receiver, policy, pushdown }
    }

    /// Carries out what has been ordered since the last call.
    pub(crate) fn obey<O: Outside>(&mut self, sensor: &mut Sensor, pipeline: &mut Pipeline<O>) {
        while let Ok(order) = self.receiver.try_recv() {
            match order {
                Order::Raise(alert) => pipeline.raise(alert),
                Order::Activate(change, reply) => {
                    let done = self.activate(change, pipeline, &mut |policy, pipeline| {
                        let set = sensor.set_policy_while(policy, &mut |record| pipeline.record(record));
                        set.map_err(|error| error.to_string())
                    });
                    // Only a thread that has died does not listen.
                    let _ = reply.send(done);
                }
            }
        }
    }

    /// The kernel reports what both sets need before the new one is in force, and less only afterwards; `set_policy` has
    /// records handled meanwhile, each by the set in force. In between no event is kept back for being one that no rule
    /// matches: that is the answer of one set.
    fn activate<O: Outside>(
        &mut self,
        change: Change,
        pipeline: &mut Pipeline<O>,
        set_policy: &mut SetPolicy<'_, O>,
    ) -> Result<Done, String> {
        let wanted = policy(&change.rules.set, change.scope, self.pushdown);
        let both = self.policy.union(&wanted);
        if both != self.policy
            && let Err(error) = set_policy(&both, pipeline)
        {
            // Hooks that were attached before the failure are let go, so that the old rules run as before.
            match set_policy(&self.policy, pipeline) {
                Ok(generation) => pipeline.set_filter(generation, &self.policy.own),
                Err(error) => {
                    tracing::warn!("cannot take back what new rules would have needed of the kernel: {error}");
                }
            }
            return Err(error);
        }
        let old = pipeline.replace(change.settings, change.rules, change.throttle);
        let at = Instant::now();
        self.policy = both;
        if wanted != self.policy {
            match set_policy(&wanted, pipeline) {
                Ok(generation) => {
                    pipeline.set_filter(generation, &wanted.own);
                    self.policy = wanted;
                }
                // No event is missed by it: more come than needed.
                Err(error) => tracing::warn!("the kernel goes on reporting what the former rules needed: {error}"),
            }
        }
        Ok(Done { at, _old: old })
    }
}

/// What the pipeline is told of a configuration.
pub(crate) fn settings(config: &Config) -> PipelineConfig {
    PipelineConfig {
        scope: config.scope,
        alerts: crate::alert::options(config),
        hold_time: config.hold.max_time.0,
        hold_events: config.hold.max_events as usize,
    }
}

/// What the rules need of the kernel. Processes and cgroups are always followed: identity rests on them.
pub(crate) fn policy(set: &RuleSet, scope: Scope, pushdown: Pushdown) -> Policy {
    let policy = needed(set.needs(), scope);
    match pushdown {
        Pushdown::On => Policy { own: own_facts(set, &policy), ..policy },
        Pushdown::Off => policy,
    }
}

fn needed(needs: &Needs, scope: Scope) -> Policy {
    let events = |wanted: &dyn Fn(EventType) -> bool| EventType::ALL.iter().copied().filter(|e| wanted(*e)).collect();
    let always = |event: EventType| {
        matches!(
            event.group(),
            EventGroup::Exec | EventGroup::Fork | EventGroup::Exit | EventGroup::Rename | EventGroup::Cgroup
        )
    };
    let named = |event: EventType| needs.generic_calls.as_ref().is_none_or(|calls| calls.contains(&event.name()));
    let needed = |event: EventType| {
        let code = facts::code(event);
        // What happened to a program that did not start can matter to fewer rules.
        let may_be = !event.is_failed_exec() || needs.failed.contains(code);
        needs.events.contains(code) && (!code.is_generic() || named(event)) && may_be
    };
    let not_host = |event: EventType| {
        scope == Scope::Containers || !needed(event) || needs.container_only.contains(facts::code(event))
    };
    Policy {
        events: events(&|event| always(event) || needed(event)),
        failed: events(&|event| !always(event) && needs.failed.contains(facts::code(event))),
        not_host: events(&|event| !always(event) && not_host(event)),
        open_read: needs.opens.read,
        open_write: needs.opens.write,
        environment: needs.environment(),
        threads: false,
        data: needs.data(),
        plain_messages: needs.plain_messages,
        ..Policy::default()
    }
}

#[cfg(test)]
mod needed;
#[cfg(test)]
mod tests;
