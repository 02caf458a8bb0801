//! `purser rules list`: the rules of a set, for people, for programs, and as a page.

use std::fmt::Write as _;

use purser_rules::{Catalogue, Rule, RuleSet};
use serde_json::json;

use super::super::one_line;
use super::{Form, page};
use crate::facts::collected;

pub(super) fn show(set: &RuleSet, form: &Form) -> String {
    match form {
        Form::Json => {
            let rules: Vec<_> = set.rules().iter().map(|rule| rule.describe(set.catalogue())).collect();
            format!("{}\n", json!(rules))
        }
        Form::Markdown => as_page(set),
        Form::Text => as_text(set),
    }
}

fn as_text(set: &RuleSet) -> String {
    let mut out = String::new();
    for rule in set.rules() {
        let state = if rule.enabled { "enabled " } else { "disabled" };
        let _ = writeln!(out, "{state}  {:<13}  {}", rule.priority.name(), one_line(&rule.name));
    }
    out
}

fn as_page(set: &RuleSet) -> String {
    let mut out = page::head("Rules", "the files of rules/rulesets");
    let _ = writeln!(
        out,
        "The rules that are loaded where the configuration names no others, in the order in which they are asked. `purser rules \
         list --markdown FILE...` writes such a page about any rules. A rule that needs the verdict is decided when the \
         program has been looked up in the manifest of its image; all others at once. Fields are explained in \
         [fields.md](fields.md), events in [events.md](events.md).\n"
    );
    let mut files: Vec<&str> = Vec::new();
    for rule in set.rules() {
        if !files.contains(&rule.defined.0.as_str()) {
            files.push(&rule.defined.0);
        }
    }
    for file in files {
        let rules: Vec<&Rule> = set.rules().iter().filter(|rule| rule.defined.0 == file).collect();
        let _ = writeln!(out, "## {}\n", page::cell(file.trim_end_matches(" (embedded)")));
        let rows = rules.iter().map(|rule| {
            let waits = if waits(rule) { "verdict" } else { "" };
            let enabled = if rule.enabled { "yes" } else { "no" };
            [page::cell(&rule.name), rule.priority.name().to_owned(), enabled.to_owned(), waits.to_owned()]
        });
        page::table(&mut out, ["rule", "priority", "enabled", "needs"], rows);
        for rule in rules {
            describe(&mut out, rule, set.catalogue());
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn waits(rule: &Rule) -> bool {
    rule.condition_fields.iter().any(|field| collected::waits(*field))
}

/// One rule of the page.
fn describe(out: &mut String, rule: &Rule, catalogue: &Catalogue) {
    let state = if rule.enabled { "" } else { ", not enabled" };
    let _ = writeln!(out, "### {}\n\n{}\n", page::cell(&rule.name), page::cell(&rule.desc));
    let _ = writeln!(out, "- Priority: {}{state}", rule.priority.name());
    if !rule.tags.is_empty() {
        let _ = writeln!(out, "- Tags: {}", rule.tags.iter().map(|tag| linked(tag)).collect::<Vec<_>>().join(", "));
    }
    let events = rule.event_names();
    // Every rule can match events that are injected; none is.
    let events = events.into_iter().filter(|name| *name != "asyncevent").collect::<Vec<_>>();
    if events.len() > MANY {
        let _ = writeln!(out, "- Events: {} kinds", events.len());
    } else {
        let _ = writeln!(out, "- Events: {}", page::codes(events));
    }
    let fields = catalogue.fields().iter().filter(|field| rule.fields.contains(&field.id));
    let _ = writeln!(out, "- Reads: {}", page::codes(fields.map(|field| field.name.as_ref())));
    if waits(rule) {
        let _ = writeln!(out, "- Needs the verdict on the program");
    }
    let fence = "`".repeat(rule.condition_text.split(|c| c != '`').map(str::len).max().unwrap_or(0).max(2) + 1);
    let _ = writeln!(out, "\n{fence}\n{}\n{fence}\n", rule.condition_text.trim());
}

/// Longer lists of events are not written out.
const MANY: usize = 60;

/// A tag, with a link where MITRE ATT&CK has a page about it.
fn linked(tag: &str) -> String {
    let page = technique(tag).or_else(|| {
        let (_, id) = TACTICS.iter().find(|(name, _)| tag.strip_prefix("mitre_") == Some(name))?;
        Some(format!("tactics/{id}"))
    });
    match page {
        Some(page) => format!("[{}](https://attack.mitre.org/{page}/)", page::cell(tag)),
        None => page::code(tag),
    }
}

/// The page of a tag like `T1059` or `T1059.004`.
fn technique(tag: &str) -> Option<String> {
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let (technique, sub) = match tag.split_once('.') {
        Some((technique, sub)) => (technique, Some(sub)),
        None => (tag, None),
    };
    if !technique.strip_prefix('T').is_some_and(|number| digits(number, 4)) {
        return None;
    }
    match sub {
        None => Some(format!("techniques/{technique}")),
        Some(sub) if digits(sub, 3) => Some(format!("techniques/{technique}/{sub}")),
        Some(_) => None,
    }
}

/// Tactics of ATT&CK as upstream's tags name them.
const TACTICS: [(&str, &str); 14] = [
    ("reconnaissance", "TA0043"),
    ("resource_development", "TA0042"),
    ("initial_access", "TA0001"),
    ("execution", "TA0002"),
    ("persistence", "TA0003"),
    ("privilege_escalation", "TA0004"),
    ("defense_evasion", "TA0005"),
    ("credential_access", "TA0006"),
    ("discovery", "TA0007"),
    ("lateral_movement", "TA0008"),
    ("collection", "TA0009"),
    ("command_and_control", "TA0011"),
    ("exfiltration", "TA0010"),
    ("impact", "TA0040"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_attack_are_links() {
        for (tag, page) in [
            ("T1204", "techniques/T1204/"),
            ("T1059.004", "techniques/T1059/004/"),
            ("mitre_execution", "tactics/TA0002/"),
            ("mitre_command_and_control", "tactics/TA0011/"),
        ] {
            assert!(linked(tag).contains(&format!("](https://attack.mitre.org/{page})")), "{tag}: {}", linked(tag));
        }
        for tag in ["container", "T12", "T1059.4", "T1059.0040", "Text", "mitre_", "mitre_nothing", "x|y"] {
            assert!(!linked(tag).contains("attack.mitre.org"), "{tag}");
        }
    }
}
