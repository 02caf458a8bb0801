//! Folding of alerts that repeat: the first are raised, the others are counted, and the count comes as a summary alert.
//!
//! Nothing is folded without a count: what was raised and what summaries say adds up to what matched, also where a
//! window ends early because there is no room, the rules change or the agent ends.
//!
//! Windows go by the time of events, so that a recording gives the same alerts again. An event that had to wait counts
//! as one of the latest alert's time. Where no further alert comes the worker's clock ends a window, [`LATE`] after its
//! time: an event of that time may still be on its way.

mod windows;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use purser_rules::catalogue::FieldFlags;
use purser_rules::format::Format;
use purser_rules::{Alert, AlertOptions, Catalogue, Rule, RuleIndex, RuleSet};
use serde_json::Value as Json;

use self::windows::{Fold, Window, Windows};
use crate::config::{self, Span};
use crate::facts::Sight;
use crate::metrics::{Counter, Family, Metrics, counter};

/// How much later than its end a window is ended where no alert comes.
const LATE: Duration = Duration::from_secs(1);
/// Fields of a key are hashed whole; a summary shows this much of each, in bytes.
const SHOWN: usize = 256;

/// Alerts that are in summaries only, by rule and reason.
pub const FOLDED: Family =
    counter("purser_alerts_folded", "Alerts folded into a summary, by rule and reason", &["rule", "reason"]);
/// Windows that ended early for want of room.
pub const EVICTED: Family = counter(
    "purser_throttle_windows_evicted",
    "Windows of folded alerts ended for want of room, by reason",
    &["reason"],
);

/// Why an alert is folded; de-duplication is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Dedup,
    Rate,
}

impl Reason {
    const ALL: [Self; 2] = [Self::Dedup, Self::Rate];

    const fn name(self) -> &'static str {
        match self {
            Self::Dedup => "dedup",
            Self::Rate => "rate",
        }
    }
}

/// Decides for each alert whether it is raised or folded. Without anything to fold it costs nothing.
#[derive(Debug, Default)]
pub struct Throttle(Option<Box<Active>>);

#[derive(Debug)]
struct Active {
    config: config::Throttle,
    metrics: Arc<Metrics>,
    /// The set that windows and limits are of.
    rules: Arc<RuleSet>,
    /// By rule and reason.
    limits: Vec<[Option<Limit>; 2]>,
    windows: [Windows; 2],
    evicted: [Counter; 2],
    /// Keys are bytes of containers: with a secret seed, none can be made to look like another.
    seed: RandomState,
    /// Time of the latest alert, ns since boot, and when that was.
    latest_ns: u64,
    latest_at: Instant,
    /// Summaries that are due, in order.
    due: Vec<Alert>,
}

/// What one rule may do for one reason.
#[derive(Debug)]
struct Limit {
    alerts: u32,
    window: Span,
    key: Arc<Key>,
    folded: Counter,
}

/// The fields of a key, compiled; rules share them.
#[derive(Debug)]
struct Key {
    fields: Vec<(String, Format)>,
    /// Fields of a summary that follow from these.
    more: Vec<(String, Format)>,
}

impl Throttle {
    /// With what the configuration says; nothing is folded if that is nothing.
    pub fn new(config: &config::Throttle, rules: &Arc<RuleSet>, metrics: &Arc<Metrics>) -> Self {
        if config.is_off() {
            return Self(None);
        }
        let capacity = config.max_keys as usize;
        Self(Some(Box::new(Active {
            config: config.clone(),
            metrics: Arc::clone(metrics),
            rules: Arc::clone(rules),
            limits: limits(config, rules, metrics),
            windows: Reason::ALL.map(|_| Windows::new(capacity)),
            evicted: Reason::ALL.map(|reason| metrics.counter(EVICTED, &[reason.name()])),
            seed: RandomState::new(),
            latest_ns: 0,
            latest_at: Instant::now(),
            due: Vec::new(),
        })))
    }

    /// Whether the alert of a rule that matched is raised; else it is folded. What [`take_due`](Self::take_due) gives
    /// comes before it.
    pub fn admits(&mut self, rules: &Arc<RuleSet>, rule: RuleIndex, sight: &Sight<'_>, options: &AlertOptions) -> bool {
        let Some(active) = &mut self.0 else { return true };
        active.follow(rules, options);
        active.advance(sight, options);
        !active.folds(rule, sight, options)
    }

    /// Ends windows by the worker's clock; gives the time when the next one ends.
    pub fn tick(&mut self, rules: &Arc<RuleSet>, now: Instant, options: &AlertOptions) -> Option<Instant> {
        let active = self.0.as_mut()?;
        active.follow(rules, options);
        let elapsed = now.saturating_duration_since(active.latest_at).saturating_sub(LATE);
        active.end(active.latest_ns.saturating_add(nanoseconds(elapsed)), options);
        let end_ns = active.windows.iter().filter_map(Windows::next_end).min()?;
        let left = Duration::from_nanos(end_ns.saturating_sub(active.latest_ns));
        active.latest_at.checked_add(left)?.checked_add(LATE)
    }

    /// Ends every window.
    pub fn flush(&mut self, options: &AlertOptions) {
        if let Some(active) = &mut self.0 {
            active.end(u64::MAX, options);
        }
    }

    /// Summaries to deliver, in order.
    pub fn take_due(&mut self) -> Vec<Alert> {
        self.0.as_mut().map_or_else(Vec::new, |active| std::mem::take(&mut active.due))
    }

    /// Open windows.
    #[cfg(test)]
    fn open(&self) -> usize {
        self.0.as_ref().map_or(0, |active| active.windows.iter().map(Windows::len).sum())
    }
}

impl Active {
    /// Rules are known by their number in a set: with another set everything begins anew.
    fn follow(&mut self, rules: &Arc<RuleSet>, options: &AlertOptions) {
        if Arc::ptr_eq(&self.rules, rules) {
            return;
        }
        self.end(u64::MAX, options);
        self.limits = limits(&self.config, rules, &self.metrics);
        self.rules = Arc::clone(rules);
    }

    fn advance(&mut self, sight: &Sight<'_>, options: &AlertOptions) {
        if sight.event.header.boot_ns >= self.latest_ns {
            self.latest_ns = sight.event.header.boot_ns;
            self.latest_at = sight.outside.now();
        }
        self.end(self.latest_ns, options);
    }

    /// Ends the windows whose end is not after `until_ns`, in the order of their ends.
    fn end(&mut self, until_ns: u64, options: &AlertOptions) {
        loop {
            let ends =
                Reason::ALL.into_iter().filter_map(|reason| Some((self.windows[reason as usize].next_end()?, reason)));
            let Some((_, reason)) = ends.filter(|(end_ns, _)| *end_ns <= until_ns).min_by_key(|(end_ns, _)| *end_ns)
            else {
                return;
            };
            let ended = self.windows[reason as usize].pop();
            self.summarise(ended, reason, options);
        }
    }

    /// Folds the alert, or takes it into the windows that it begins or belongs to.
    fn folds(&mut self, rule: RuleIndex, sight: &Sight<'_>, options: &AlertOptions) -> bool {
        let Some(limits) = self.limits.get(rule.0 as usize) else { return false };
        let mut keys = [0; 2];
        for (reason, limit) in active(limits) {
            let key = limit.hash(&self.seed, rule, sight);
            if let Some(window) = self.windows[reason as usize].get_mut(key)
                && window.raised >= limit.alerts
            {
                limit.fold(window, sight);
                return true;
            }
            keys[reason as usize] = key;
        }
        let mut evicted = [None, None];
        for (reason, limit) in active(limits) {
            let (windows, key) = (&mut self.windows[reason as usize], keys[reason as usize]);
            if let Some(window) = windows.get_mut(key) {
                window.raised += 1;
            } else {
                let end_ns = self.latest_ns.saturating_add(nanoseconds(limit.window.0));
                evicted[reason as usize] = windows.open(key, rule, end_ns);
            }
        }
        for (reason, window) in Reason::ALL.into_iter().zip(evicted) {
            if window.is_some() {
                self.evicted[reason as usize].increment();
            }
            self.summarise(window, reason, options);
        }
        false
    }

    fn summarise(&mut self, window: Option<Window>, reason: Reason, options: &AlertOptions) {
        let Some((rule, fold)) = window.and_then(|window| Some((window.rule, window.fold?))) else { return };
        let limit = self.limits.get(rule.0 as usize).and_then(|limits| limits[reason as usize].as_ref());
        if let Some(limit) = limit {
            self.due.push(limit.summary(self.rules.rule(rule), reason, *fold, options));
        }
    }
}

impl Key {
    fn new(names: &[String]) -> Self {
        // The configuration was checked: each name is a field.
        let compiled = |name: &str| Some((name.to_owned(), Format::field(name, Catalogue::builtin()).ok()?));
        // What an alert says of its container holds for all of that container, and sinks and people look for it.
        let of_container = names.iter().any(|name| name == "container.id" || name == "container.full_id");
        let more = Catalogue::builtin().fields().iter().filter(|field| {
            of_container && field.flags.has(FieldFlags::SUGGESTED) && !names.iter().any(|name| *name == field.name)
        });
        Self {
            fields: names.iter().filter_map(|name| compiled(name)).collect(),
            more: more.filter_map(|field| compiled(&field.name)).collect(),
        }
    }
}

impl Limit {
    fn hash(&self, seed: &RandomState, rule: RuleIndex, sight: &Sight<'_>) -> u64 {
        let mut hasher = seed.build_hasher();
        hasher.write_u32(rule.0);
        for (_, field) in &self.key.fields {
            let value = field.text(sight);
            // With its length, so that no value can be continued by the next.
            hasher.write_u64(value.as_ref().map_or(u64::MAX, |value| value.len() as u64));
            hasher.write(&value.unwrap_or_default());
        }
        hasher.finish()
    }

    fn fold(&self, window: &mut Window, sight: &Sight<'_>) {
        let time_ns = sight.epoch_ns();
        let fold = window.fold.get_or_insert_with(|| {
            let fields = self.key.fields.iter().chain(&self.key.more);
            let fields = fields.map(|(name, field)| (name.clone(), shortened(field.first_json(sight))));
            Box::new(Fold { count: 0, first_ns: time_ns, last_ns: time_ns, fields: fields.collect() })
        });
        fold.count += 1;
        fold.first_ns = fold.first_ns.min(time_ns);
        fold.last_ns = fold.last_ns.max(time_ns);
        self.folded.increment();
    }

    fn summary(&self, rule: &Rule, reason: Reason, fold: Fold, options: &AlertOptions) -> Alert {
        let Fold { count, first_ns, last_ns, mut fields } = fold;
        let key = self.key.fields.iter().map(|(name, _)| format!("{name}={}", plain(fields.get(name))));
        let key: Vec<String> = key.collect();
        let limit = match reason {
            Reason::Rate => format!(" over the limit of {}", self.alerts),
            Reason::Dedup => String::new(),
        };
        let key = if key.is_empty() { String::new() } else { format!(" ({})", key.join(" ")) };
        let message = format!("{count} more of \"{}\" in {} s{limit}{key}", rule.name, self.window.0.as_secs_f64());
        fields.insert("folded".to_owned(), count.into());
        fields.insert("folded_first".to_owned(), first_ns.into());
        fields.insert("folded_last".to_owned(), last_ns.into());
        fields.insert("folded_reason".to_owned(), reason.name().into());
        fields.insert("folded_window".to_owned(), nanoseconds(self.window.0).into());
        Alert::new(rule, last_ns, &message, fields, options)
    }
}

/// What each rule of a set may do, by reason.
fn limits(config: &config::Throttle, rules: &RuleSet, metrics: &Metrics) -> Vec<[Option<Limit>; 2]> {
    let mut keys: HashMap<Vec<String>, Arc<Key>> = HashMap::new();
    let mut shared = |names: Vec<String>| {
        let key = keys.entry(names).or_insert_with_key(|names| Arc::new(Key::new(names)));
        Arc::clone(key)
    };
    let of_rule = |rule: &Rule| {
        let (rate, dedup, exempt) = config.of_rule(&rule.name, &rule.tags);
        if !rule.enabled || exempt.0.is_some_and(|exempt| rule.priority <= exempt) {
            return [None, None];
        }
        let mut limit = |reason: Reason, alerts: u32, window: Span, key: Vec<String>| {
            let folded = metrics.counter(FOLDED, &[&rule.name, reason.name()]);
            Limit { alerts, window, key: shared(key), folded }
        };
        [
            (!dedup.window.0.is_zero()).then(|| limit(Reason::Dedup, 1, dedup.window, dedup.key)),
            (rate.alerts > 0).then(|| limit(Reason::Rate, rate.alerts, rate.window, rate.key)),
        ]
    };
    rules.rules().iter().map(of_rule).collect()
}

fn active(limits: &[Option<Limit>; 2]) -> impl Iterator<Item = (Reason, &Limit)> {
    Reason::ALL.into_iter().zip(limits).filter_map(|(reason, limit)| Some((reason, limit.as_ref()?)))
}

/// A value that a container may have made as long as it likes.
fn shortened(value: Json) -> Json {
    let text = match value {
        Json::String(text) => text,
        Json::Array(_) | Json::Object(_) => value.to_string(),
        short => return short,
    };
    if text.len() <= SHOWN {
        return text.into();
    }
    format!("{}...", &text[..text.floor_char_boundary(SHOWN)]).into()
}

/// A value as the text of an alert has it.
fn plain(value: Option<&Json>) -> String {
    match value {
        Some(Json::String(text)) => text.clone(),
        None | Some(Json::Null) => "<NA>".to_owned(),
        Some(value) => value.to_string(),
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
