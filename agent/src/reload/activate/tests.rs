//! The order in which kernel and pipeline change.

use std::sync::Mutex;

use agent_common::OwnFacts;
use purser_rules::{AlertOptions, LoadOptions, RuleMatching, RuleSet, Source};

use super::*;
use crate::metrics::Metrics;
use crate::sample::{Fake, event, exec, open, task};
use crate::tally::Tally;

const EXEC: &str = "evt.type = execve and evt.failed = false";
const OPEN: &str = "evt.type = openat and fd.name = /a";
const OPEN_WRITE: &str = "evt.type = openat and evt.is_open_write = true and container.id != host";
const ENVIRONMENT: &str = "evt.type = execve and evt.failed = false and proc.env contains x";

fn rules(condition: &str) -> Arc<ActiveRules> {
    let text = format!("- rule: R\n  desc: x\n  condition: {condition}\n  output: x\n  priority: NOTICE\n");
    let sources = [Source { name: "test", text: text.as_bytes() }];
    let (set, _) = RuleSet::load(&sources, &LoadOptions::default()).expect("the rules load");
    ActiveRules::new(set, RuleMatching::First, &Metrics::new())
}

fn change(condition: &str) -> Change {
    let settings = PipelineConfig {
        scope: Scope::All,
        alerts: AlertOptions::default(),
        hold_time: std::time::Duration::from_secs(1),
        hold_events: 16,
    };
    Change { rules: rules(condition), scope: Scope::All, settings, throttle: Throttle::default() }
}

struct Bench {
    orders: Orders,
    pipeline: Pipeline<Fake>,
    raised: Arc<Mutex<usize>>,
}

fn bench(condition: &str) -> Bench {
    let raised = Arc::<Mutex<usize>>::default();
    let count = Arc::clone(&raised);
    let deliver = Box::new(move |_| *count.lock().expect("lock") += 1);
    let Change { rules, settings, .. } = change(condition);
    let policy = policy(&rules.set, Scope::All, Pushdown::Off);
    let tally = Tally::new(&Arc::new(Metrics::new()));
    let pipeline = Pipeline::new(settings, Fake::default(), rules, tally, 0, deliver);
    Bench { orders: Orders::new(std::sync::mpsc::channel().1, policy, Pushdown::Off), pipeline, raised }
}

impl Bench {
    /// Puts other rules in force; gives what was set in the kernel, in order.
    fn activate(&mut self, condition: &str) -> Vec<Policy> {
        let mut set = Vec::new();
        let done = self.orders.activate(change(condition), &mut self.pipeline, &mut |policy, _| {
            set.push(policy.clone());
            Ok(1)
        });
        assert!(done.is_ok());
        set
    }
}

fn needs(condition: &str) -> Policy {
    policy(&rules(condition).set, Scope::All, Pushdown::Off)
}

#[test]
fn the_kernel_reports_more_before_and_less_afterwards() {
    let mut bench = bench(EXEC);
    assert_eq!(bench.activate(EXEC), [], "the same needs");
    assert_eq!(bench.activate(OPEN), [needs(OPEN)], "more: an exec is always reported");
    assert_eq!(bench.activate(EXEC), [needs(EXEC)], "less");
    bench.activate(ENVIRONMENT);
    let both = needs(ENVIRONMENT).union(&needs(OPEN_WRITE));
    assert_eq!(bench.activate(OPEN_WRITE), [both.clone(), needs(OPEN_WRITE)]);
    assert!(both.environment && both.open_write && !both.open_read && both.not_host.contains(EventType::Openat));
    let both = needs(OPEN_WRITE).union(&needs(OPEN));
    assert!(
        both.open_read && both.failed.contains(EventType::Openat) && !both.not_host.contains(EventType::Openat),
        "the host's opens as well"
    );
    assert_eq!(bench.activate(OPEN), [both], "which is what the new rules need");
}

#[test]
fn execs_that_fail_are_reported_where_a_rule_can_match_them() {
    let failed = |condition| needs(condition).events.contains(EventType::FailedExecve);
    assert!(failed("evt.type = execve") && failed("evt.type in (execve, openat) and evt.rawres < 0"));
    assert!(!failed(EXEC) && !failed("evt.type = openat"));
    assert!(!needs("evt.type = execve").events.contains(EventType::FailedExecveat));
}

#[test]
fn a_kernel_that_refuses_leaves_everything_as_it_was() {
    let mut bench = bench(EXEC);
    let mut set = Vec::new();
    let result = bench.orders.activate(change(OPEN), &mut bench.pipeline, &mut |policy, _| {
        set.push(policy.clone());
        if set.len() == 1 { Err("no".to_owned()) } else { Ok(1) }
    });
    assert_eq!(result.err().as_deref(), Some("no"));
    assert_eq!(set, [needs(OPEN), needs(EXEC)], "what was attached is let go");
    bench.pipeline.event(event(1, task(10, 1, (1, 0), "sh"), exec("/bin/sh")));
    assert_eq!(*bench.raised.lock().expect("lock"), 1, "the old rules run");
    assert_eq!(bench.activate(EXEC), [], "and the kernel is known to serve them");
}

#[test]
fn a_kernel_that_goes_on_reporting_harms_nothing() {
    let mut bench = bench(OPEN);
    let done = bench.orders.activate(change(EXEC), &mut bench.pipeline, &mut |_, _| Err("no".to_owned()));
    assert!(done.is_ok(), "the new rules are in force");
    bench.pipeline.event(event(1, task(10, 1, (1, 0), "sh"), open("/a", "/a", "", "")));
    assert_eq!(*bench.raised.lock().expect("lock"), 0);
    assert_eq!(bench.activate(EXEC), [needs(EXEC)], "it is tried again");
}

#[test]
fn between_two_sets_no_event_is_kept_back_for_what_either_says() {
    let mut bench = bench(OPEN);
    bench.orders.pushdown = Pushdown::On;
    let wanted = policy(&rules(OPEN).set, Scope::All, Pushdown::On);
    assert_ne!(wanted.own, OwnFacts::NOTHING);
    assert_eq!(bench.activate(OPEN), std::slice::from_ref(&wanted), "the old policy hashes nothing yet");
    assert_eq!(bench.activate(OPEN), [needs(OPEN), wanted], "the same needs, and yet other rules");
}
