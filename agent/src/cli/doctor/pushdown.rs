//! `purser doctor --pushdown`: event by event and rule by rule, what stays in the kernel, and what cannot and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use agent_common::{EventGroup, EventType, OwnFacts};
use purser_rules::{FieldRef, RuleSet};
use serde::Serialize;

use super::super::one_line;
use super::BOLD;
use crate::config::Pushdown;
use crate::facts::{Own, code, own};
use crate::pushdown::{is_hashable, is_own, refutable};
use crate::sensor::Policy;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Explained {
    schema: u32,
    /// As configured.
    pushdown: &'static str,
    events: Vec<Event>,
    rules: Vec<Rule>,
}

/// An event that some rule needs.
#[derive(Debug, Serialize)]
struct Event {
    name: &'static str,
    /// What never leaves the kernel.
    stays: Vec<&'static str>,
    /// The like of one that no rule can match by its own facts stays once the agent has seen it twice.
    learned: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
}

/// An enabled rule.
#[derive(Debug, Serialize)]
struct Rule {
    name: String,
    readings: Vec<Reading>,
}

/// What a rule asks of some events.
#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Reading {
    events: Vec<&'static str>,
    /// The event's own facts can make the rule false.
    refutable: bool,
    /// What of its condition the event decides itself.
    own: Vec<String>,
    /// What else it asks for, and why that is not the event's own.
    foreign: Vec<(String, &'static str)>,
}

impl Explained {
    pub(super) fn of(set: &RuleSet, policy: &Policy, pushdown: Pushdown) -> Self {
        let wanted: Vec<_> = EventType::ALL.iter().copied().filter(|event| is_wanted(set, policy, *event)).collect();
        let events = wanted.iter().map(|event| explain_event(set, policy, *event)).collect();
        let enabled = set.rules().iter().enumerate().filter(|(_, rule)| rule.enabled);
        let rules = enabled.map(|(at, rule)| explain_rule(set, policy, &wanted, at, &rule.name)).collect();
        Self { schema: 1, pushdown: if pushdown == Pushdown::On { "on" } else { "off" }, events, rules }
    }

    pub(super) fn as_text(&self) -> String {
        let mut out = format!("{BOLD}sensor.pushdown: {}{BOLD:#}\n", self.pushdown);
        if self.pushdown == "off" {
            out.push_str("  nothing is learned: what is said of it below is what `on` would do\n");
        }
        let _ = writeln!(out, "{BOLD}events{BOLD:#}");
        for Event { name, stays, learned, why_not } in &self.events {
            let mut parts: Vec<String> = stays.iter().map(|part| (*part).to_owned()).collect();
            if *learned {
                parts.push("the like of those that no rule can match, from the third on".to_owned());
            }
            let stays = if parts.is_empty() { "nothing".to_owned() } else { parts.join("; ") };
            let _ = write!(out, "  {name:18} stays in the kernel: {stays}");
            let _ = match why_not {
                Some(why) => writeln!(out, " ({})", one_line(why)),
                None => writeln!(out),
            };
        }
        let _ = writeln!(out, "{BOLD}rules{BOLD:#}");
        for rule in &self.rules {
            let _ = writeln!(out, "  {}", one_line(&rule.name));
            if rule.readings.is_empty() {
                out.push_str("    no event that the sensor delivers\n");
            }
            for reading in &rule.readings {
                let said = if reading.refutable { "can be kept back" } else { "cannot be kept back" };
                let _ = writeln!(out, "    {}: {said}", reading.events.join(", "));
                if !reading.own.is_empty() {
                    let _ = writeln!(out, "      the event decides: {}", one_line(&reading.own.join(", ")));
                }
                let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
                for (field, why) in &reading.foreign {
                    reasons.entry(why).or_default().push(field);
                }
                for (why, fields) in reasons {
                    let _ = writeln!(out, "      left open: {} ({why})", one_line(&fields.join(", ")));
                }
            }
        }
        out
    }
}

/// Whether rules need an event; processes and cgroups are followed without them.
fn is_wanted(set: &RuleSet, policy: &Policy, event: EventType) -> bool {
    policy.events.contains(event) && set.readings(code(event)).next().is_some()
}

const fn is_call(event: EventType) -> bool {
    matches!(event.group(), EventGroup::Open | EventGroup::Connect | EventGroup::IoUring | EventGroup::Call)
}

fn of_host(policy: &Policy, event: EventType) -> bool {
    !policy.not_host.contains(event)
}

fn name(event: EventType) -> &'static str {
    match event {
        EventType::IoUringOpenat => "openat (io_uring)",
        EventType::IoUringOpenat2 => "openat2 (io_uring)",
        EventType::IoUringConnect => "connect (io_uring)",
        _ => event.name(),
    }
}

fn explain_event(set: &RuleSet, policy: &Policy, event: EventType) -> Event {
    let mut stays = Vec::new();
    if is_call(event) && !policy.failed.contains(event) {
        stays.push("those that fail");
    }
    if !of_host(policy, event) {
        stays.push("those of the host");
    }
    let opens = event.group() == EventGroup::Open || (event.is_io_uring() && event != EventType::IoUringConnect);
    if opens && !policy.open_read {
        stays.push("opens for reading only");
    }
    if opens && !policy.open_write {
        stays.push("opens for writing only");
    }
    let learned = policy.own.of(event.code()) & OwnFacts::HASHED != 0;
    Event { name: name(event), stays, learned, why_not: why_not(set, policy, event).filter(|_| !learned) }
}

fn why_not(set: &RuleSet, policy: &Policy, event: EventType) -> Option<String> {
    if !is_call(event) {
        return Some("processes are followed whatever the rules".to_owned());
    }
    if !is_hashable(event) {
        return Some("operations of io_uring are not learned".to_owned());
    }
    let of_host = of_host(policy, event);
    let blocking = set.readings(code(event)).find(|reading| !refutable(event, of_host, reading))?;
    let names: Vec<_> = blocking.rules.iter().map(|rule| format!("`{}`", set.rule(*rule).name)).collect();
    Some(format!("others cannot: {} may match any", names.join(", ")))
}

fn explain_rule(set: &RuleSet, policy: &Policy, wanted: &[EventType], at: usize, rule: &str) -> Rule {
    let mut readings: BTreeMap<Reading, Vec<&'static str>> = BTreeMap::new();
    for event in wanted {
        let mut all = set.readings(code(*event));
        let Some(reading) = all.find(|reading| reading.rules.iter().any(|rule| rule.0 as usize == at)) else {
            continue;
        };
        let of_host = of_host(policy, *event);
        let hashable = is_hashable(*event);
        let (mut known, mut foreign) = (Vec::new(), Vec::new());
        for field in reading.fields() {
            let text = field_name(set, field);
            match own(*event, field) {
                _ if !hashable => {}
                Own::No(why) => foreign.push((text, why)),
                Own::OfHost if !is_own(*event, of_host, field) => foreign.push((text, "the host's stay anyhow")),
                Own::OfHost => known.push(format!("{text} (of the host)")),
                Own::Sometimes => known.push(format!("{text} (the far end only)")),
                Own::Yes | Own::Argument(_) => known.push(text),
            }
        }
        let refutable = hashable && refutable(*event, of_host, &reading);
        let key = Reading { events: Vec::new(), refutable, own: known, foreign };
        readings.entry(key).or_default().push(name(*event));
    }
    let readings = readings.into_iter().map(|(reading, events)| Reading { events, ..reading }).collect();
    Rule { name: rule.to_owned(), readings }
}

fn field_name(set: &RuleSet, field: FieldRef<'_>) -> String {
    let known = set.catalogue().fields().iter().find(|known| known.id == field.id);
    format!("{}{}", known.map_or("?", |known| &*known.name), field.arg)
}

#[cfg(test)]
mod tests {
    use purser_rules::{LoadOptions, Source};

    use super::*;
    use crate::config::Scope;
    use crate::reload;

    fn explained(rules: &[(&str, &str)]) -> Explained {
        let mut text = String::new();
        for (name, condition) in rules {
            let _ =
                write!(text, "- rule: {name}\n  desc: x\n  condition: {condition}\n  output: x\n  priority: NOTICE\n");
        }
        let sources = [Source { name: "test", text: text.as_bytes() }];
        let (set, _) = RuleSet::load(&sources, &LoadOptions::default()).expect("the rules load");
        Explained::of(&set, &reload::policy(&set, Scope::All, Pushdown::On), Pushdown::On)
    }

    #[test]
    fn a_rule_says_what_decides_and_what_does_not() {
        let found = explained(&[
            ("Shadow", "evt.type = openat and evt.is_open_read = true and fd.name = /etc/shadow and proc.name = sh"),
            ("Any bpf", "evt.type = bpf and user.uid != 0"),
            ("Exec", "evt.type = execve and proc.name = x"),
        ]);
        let event = |name: &str| found.events.iter().find(|event| event.name == name).expect(name);
        assert!(event("openat").learned && event("openat").stays.contains(&"opens for writing only"));
        assert_eq!(event("bpf").why_not.as_deref(), Some("others cannot: `Any bpf` may match any"));
        assert!(event("execve").why_not.as_deref().is_some_and(|why| why.contains("processes")));
        let text = anstream::adapter::strip_str(&found.as_text()).to_string();
        for line in [
            "    openat: can be kept back",
            "      the event decides: evt.is_open_read, fd.name",
            "      left open: proc.name (depends on who does it)",
            "    bpf: cannot be kept back",
            "      left open: user.uid (depends on who does it)",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn foreign_text_stays_on_its_line() {
        let found = explained(&[("\"a\\e[31mb\"", "evt.type = bpf and evt.arg.cmd = 1")]);
        assert!(!anstream::adapter::strip_str(&found.as_text()).to_string().contains('\u{1b}'));
    }
}
