//! Tells of losses in the stream of alerts itself: `Purser internal: events lost`, with counts by stage and reason, the time
//! in which they came about, and that they have ended. It reads the metrics, so whatever is counted there is told.
//!
//! Alerts are few (a token bucket, as Falco's `syscall_event_drops`), but no count is left out for that: what comes
//! between two alerts is added up for the second.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use purser_rules::{Alert, AlertOptions};
use serde_json::Map;

use crate::alert::{self, Priority};
use crate::config::{DropAction, SyscallEventDrops};
use crate::metrics::{Counter, EVENTS, Family, LOST, Metrics, counter};

/// The name of the alert, in the manner of Falco's own (`Falco internal: syscall event drop`).
pub const RULE: &str = "Purser internal: events lost";

/// Events lost whole in the kernel, by type.
pub const DROPPED: Family =
    counter("purser_kernel_events_dropped", "Events lost whole in the kernel, by type", &["type"]);

/// So long without a loss, and it has ended.
const QUIET: Duration = Duration::from_secs(5);

/// Stages that lose a fact of an event, not the event: they are told of with others, and never on their own account.
const FACTS: &[&str] = &["kernel_fact", "identity"];

/// Looks after losses.
#[derive(Debug)]
pub struct LossWatch {
    config: SyscallEventDrops,
    raised: Counter,
    bucket: Bucket,
    /// Counts at the last look, and when that was.
    last: Counts,
    looked_ns: u64,
    /// What no alert has told of yet.
    untold: Option<Untold>,
    /// A loss that has not ended yet.
    going_on: Option<GoingOn>,
}

/// What to do about losses.
#[derive(Debug, Default, PartialEq)]
pub struct Consequences {
    /// What to deliver.
    pub alert: Option<Alert>,
    /// The agent is to end.
    pub exit: bool,
}

#[derive(Debug, Clone, Default)]
struct Counts {
    /// By stage and reason.
    lost: BTreeMap<String, u64>,
    /// By event type.
    types: BTreeMap<String, u64>,
    events: u64,
}

#[derive(Debug, Clone, Default)]
struct Untold {
    counts: Counts,
    since_ns: u64,
    until_ns: u64,
    /// The share of what was lost has passed the threshold.
    matters: bool,
}

#[derive(Debug, Clone, Copy)]
struct GoingOn {
    since_ns: u64,
    until_ns: u64,
    events: u64,
    last: Instant,
    told: bool,
}

impl LossWatch {
    /// From what is counted now on.
    pub fn new(config: &SyscallEventDrops, metrics: &Metrics, now: Instant, time_ns: u64) -> Self {
        Self {
            config: config.clone(),
            raised: metrics.rule_matches(RULE, Priority::Critical),
            bucket: Bucket {
                rate: config.rate,
                most: config.max_burst.into(),
                tokens: config.max_burst.into(),
                at: now,
            },
            last: Counts::of(metrics),
            looked_ns: time_ns,
            untold: None,
            going_on: None,
        }
    }

    /// Compares the counts with those of the last look; `time_ns` is since the epoch.
    pub fn look(&mut self, metrics: &Metrics, now: Instant, time_ns: u64, options: &AlertOptions) -> Consequences {
        let counts = Counts::of(metrics);
        let new = counts.since(&self.last);
        let since_ns = std::mem::replace(&mut self.looked_ns, time_ns);
        self.last = counts;
        let mut exit = false;
        if new.whole() > 0 {
            let lost = new.whole();
            let matters = share(lost, new.events) > self.config.threshold;
            exit = matters && self.config.actions.contains(&DropAction::Exit);
            let going_on =
                self.going_on.get_or_insert(GoingOn { since_ns, until_ns: 0, events: 0, last: now, told: false });
            (going_on.until_ns, going_on.last) = (time_ns, now);
            going_on.events += lost;
            let untold = self.untold.get_or_insert_with(|| Untold { since_ns, ..Untold::default() });
            untold.counts.add(&new);
            untold.until_ns = time_ns;
            untold.matters |= matters;
        } else if let Some(untold) = &mut self.untold {
            untold.counts.events += new.events;
        }
        Consequences { alert: self.tell(now, options), exit }
    }

    /// What has not been told of yet, at the end.
    pub fn finish(&mut self, metrics: &Metrics, now: Instant, time_ns: u64, options: &AlertOptions) -> Option<Alert> {
        self.bucket.tokens = self.bucket.tokens.max(1.0);
        self.look(metrics, now, time_ns, options).alert
    }

    fn tell(&mut self, now: Instant, options: &AlertOptions) -> Option<Alert> {
        let going_on = self.going_on?;
        let ended = now.saturating_duration_since(going_on.last) >= QUIET;
        let matters = self.untold.as_ref().is_some_and(|untold| untold.matters);
        if !matters && !ended {
            return None;
        }
        if !matters && !going_on.told {
            // Below the threshold from beginning to end: in the metrics alone.
            (self.untold, self.going_on) = (None, None);
            return None;
        }
        if !self.bucket.take(now) {
            return None;
        }
        let untold = self.untold.take();
        if ended {
            self.going_on = None;
        } else if let Some(going_on) = &mut self.going_on {
            going_on.told = true;
        }
        let text = message(untold.as_ref(), &going_on, ended);
        if self.config.actions.contains(&DropAction::Log) {
            tracing::warn!("{text}");
        }
        if !self.config.actions.contains(&DropAction::Alert) {
            return None;
        }
        self.raised.increment();
        let fields = fields(untold.as_ref(), &going_on, ended);
        Some(alert::internal(RULE, Priority::Critical, &text, fields, self.looked_ns, options))
    }
}

/// How much of all was lost.
#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(lost: u64, came: u64) -> f64 {
    lost as f64 / (lost.saturating_add(came)).max(1) as f64
}

fn message(untold: Option<&Untold>, going_on: &GoingOn, ended: bool) -> String {
    let seconds = |from: u64, to: u64| Duration::from_nanos(to.saturating_sub(from)).as_secs_f64();
    let mut text = String::new();
    if let Some(Untold { counts, since_ns, until_ns, .. }) = untold {
        let _ = write!(text, "{} in {:.1} s (", counts.whole(), seconds(*since_ns, *until_ns));
        text.push_str(&list(&counts.lost));
        if !counts.types.is_empty() {
            let _ = write!(text, "; of the kernel's: {}", list(&counts.types));
        }
        text.push(')');
    }
    if ended {
        let separator = if text.is_empty() { "" } else { "; " };
        let GoingOn { since_ns, until_ns, events, .. } = going_on;
        let _ = write!(text, "{separator}it has ended: {events} in {:.1} s altogether", seconds(*since_ns, *until_ns));
    }
    text
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn fields(untold: Option<&Untold>, going_on: &GoingOn, ended: bool) -> Map<String, serde_json::Value> {
    let mut fields = Map::new();
    let mut set = |name: &str, value: u64| fields.insert(name.to_owned(), value.into());
    let empty = Untold { since_ns: going_on.since_ns, until_ns: going_on.until_ns, ..Untold::default() };
    let Untold { counts, since_ns, until_ns, .. } = untold.unwrap_or(&empty);
    // These two names are Falco's.
    set("n_drops", counts.whole());
    set("n_evts", counts.events);
    set("lost_since", *since_ns);
    set("lost_until", *until_ns);
    for (name, count) in &counts.lost {
        set(&format!("lost.{}", name.replace('/', ".")), *count);
    }
    for (name, count) in &counts.types {
        set(&format!("lost_type.{name}"), *count);
    }
    if ended {
        set("lost_altogether", going_on.events);
    }
    fields.insert("ended".to_owned(), ended.into());
    fields
}

impl Counts {
    fn of(metrics: &Metrics) -> Self {
        let named = |family| {
            metrics
                .read(family)
                .into_iter()
                .map(|(labels, count)| (labels.join("/"), count))
                .collect::<BTreeMap<_, _>>()
        };
        let events = metrics.read(EVENTS).into_iter().map(|(_, count)| count).sum();
        Self { lost: named(LOST), types: named(DROPPED), events }
    }

    /// What has come since, without what has not.
    fn since(&self, before: &Self) -> Self {
        let rise = |now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
            let rise = |(name, count): (&String, &u64)| {
                let rise = count.saturating_sub(before.get(name).copied().unwrap_or(0));
                (rise > 0).then(|| (name.clone(), rise))
            };
            now.iter().filter_map(rise).collect()
        };
        Self {
            lost: rise(&self.lost, &before.lost),
            types: rise(&self.types, &before.types),
            events: self.events.saturating_sub(before.events),
        }
    }

    fn add(&mut self, other: &Self) {
        for (to, from) in [(&mut self.lost, &other.lost), (&mut self.types, &other.types)] {
            for (name, count) in from {
                *to.entry(name.clone()).or_default() += count;
            }
        }
        self.events += other.events;
    }

    /// What was lost whole.
    fn whole(&self) -> u64 {
        let is_whole = |name: &str| name.split_once('/').is_none_or(|(stage, _)| !FACTS.contains(&stage));
        self.lost.iter().filter(|(name, _)| is_whole(name)).map(|(_, count)| count).sum()
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    /// Tokens a second.
    rate: f64,
    most: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        self.tokens = (self.tokens + passed.as_secs_f64() * self.rate).min(self.most.max(1.0));
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        metrics: Metrics,
        watch: LossWatch,
        start: Instant,
    }

    const SECOND: u64 = 1_000_000_000;

    impl Bench {
        fn new(config: &SyscallEventDrops) -> Self {
            let (metrics, start) = (Metrics::new(), Instant::now());
            metrics.lost("kernel", "ring_full").add(7);
            let watch = LossWatch::new(config, &metrics, start, 100 * SECOND);
            Self { metrics, watch, start }
        }

        /// A look, so many seconds after the start.
        fn at(&mut self, second: u64) -> Consequences {
            let now = self.start + Duration::from_secs(second);
            self.watch.look(&self.metrics, now, (100 + second) * SECOND, &AlertOptions::default())
        }

        fn lose(&self, stage: &str, reason: &str, count: u64) {
            self.metrics.lost(stage, reason).add(count);
        }
    }

    fn number(alert: &Alert, field: &str) -> u64 {
        alert
            .output_fields
            .get(field)
            .and_then(serde_json::Value::as_u64)
            .unwrap_or_else(|| panic!("{field}: {alert:?}"))
    }

    #[test]
    fn a_loss_is_told_with_counts_time_types_and_end() {
        let mut bench = Bench::new(&SyscallEventDrops::default());
        assert_eq!(bench.at(1), Consequences::default(), "what was lost before is not told");
        bench.lose("kernel", "back_pressure", 4);
        bench.lose("kernel_fact", "name_unreadable", 2);
        bench.metrics.counter(DROPPED, &["openat"]).add(4);
        bench.metrics.event("openat").add(6);
        let alert = bench.at(2).alert.expect("an alert");
        assert_eq!((alert.rule.as_str(), alert.source.as_str()), (RULE, "internal"));
        let message = "4 in 1.0 s (kernel/back_pressure 4, kernel_fact/name_unreadable 2; of the kernel's: openat 4)";
        assert_eq!(alert.message, format!("{RULE}: {message}"));
        assert_eq!((number(&alert, "n_drops"), number(&alert, "n_evts")), (4, 6));
        assert_eq!((number(&alert, "lost_since"), number(&alert, "lost_until")), (101 * SECOND, 102 * SECOND));
        assert_eq!((number(&alert, "lost.kernel.back_pressure"), number(&alert, "lost_type.openat")), (4, 4));
        assert_eq!(alert.output_fields["ended"], false);

        // Too soon for another alert, not too late to be counted.
        bench.lose("sink", "queue_full", 3);
        assert_eq!(bench.at(4).alert, None);
        bench.lose("sink", "queue_full", 2);
        assert_eq!(bench.at(5).alert, None);
        assert_eq!(bench.at(31).alert, None);
        let alert = bench.at(33).alert.expect("the rest, and the end");
        assert_eq!((number(&alert, "lost.sink.queue_full"), number(&alert, "lost_altogether")), (5, 9));
        assert_eq!((number(&alert, "lost_since"), number(&alert, "lost_until")), (102 * SECOND, 105 * SECOND));
        assert_eq!(alert.output_fields["ended"], true);
        assert_eq!(bench.at(200), Consequences::default(), "once");
        assert_eq!(
            bench.metrics.read(crate::metrics::RULE_MATCHES),
            [(vec![RULE.to_owned(), "Critical".to_owned()], 2)]
        );
    }

    #[test]
    fn what_alerts_say_adds_up_to_what_was_lost() {
        let config = SyscallEventDrops { rate: 0.3, max_burst: 2, ..SyscallEventDrops::default() };
        let mut bench = Bench::new(&config);
        let (mut told, mut alerts) = (0, 0);
        for second in 1..=60 {
            bench.lose("kernel", "ring_full", second % 3);
            if let Some(alert) = bench.at(second).alert {
                told += number(&alert, "n_drops");
                alerts += 1;
            }
        }
        let now = bench.start + Duration::from_secs(61);
        let last = bench.watch.finish(&bench.metrics, now, 161 * SECOND, &AlertOptions::default());
        told += last.map_or(0, |alert| number(&alert, "n_drops"));
        assert_eq!(told, (1..=60).map(|second| second % 3).sum::<u64>());
        assert!((15..=21).contains(&alerts), "two, and 0.3 a second: {alerts}");
    }

    #[test]
    fn facts_alone_and_few_losses_are_left_to_the_metrics() {
        let mut bench = Bench::new(&SyscallEventDrops { threshold: 0.1, ..SyscallEventDrops::default() });
        bench.lose("kernel_fact", "name_unreadable", 9);
        bench.lose("identity", "gone", 9);
        assert_eq!(bench.at(1), Consequences::default());
        bench.metrics.event("openat").add(90);
        bench.lose("kernel", "ring_full", 10);
        assert_eq!(bench.at(2).alert, None, "a tenth is not more than a tenth");
        assert_eq!(bench.at(60).alert, None);
        bench.lose("kernel", "ring_full", 1);
        assert_eq!(number(&bench.at(61).alert.expect("an alert"), "n_drops"), 1);
    }

    #[test]
    fn actions_are_what_is_done() {
        let of = |actions: &[DropAction]| {
            let mut bench =
                Bench::new(&SyscallEventDrops { actions: actions.to_vec(), ..SyscallEventDrops::default() });
            bench.lose("kernel", "ring_full", 1);
            let done = bench.at(1);
            (done.alert.is_some(), done.exit)
        };
        assert_eq!(of(&[DropAction::Ignore]), (false, false));
        assert_eq!(of(&[DropAction::Log]), (false, false));
        assert_eq!(of(&[DropAction::Alert, DropAction::Exit]), (true, true));
    }
}
