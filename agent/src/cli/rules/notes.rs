//! What rules use that has no value, or never comes, in this build. Such rules are right and load; the notes say what they
//! cannot see yet, and which of them can therefore not fire at all.

use std::collections::BTreeSet;

use purser_rules::parse::{Expr, Op, Operand, Right};
use purser_rules::{Catalogue, FieldId, Rule, RuleIndex, RuleSet};
use serde::Serialize;

use crate::{facts::collected, sensor};

/// Something to know about a rule.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Note {
    /// The rule.
    pub(super) rule: String,
    /// Where it is defined.
    #[serde(skip)]
    pub(super) file: String,
    /// Where it is defined.
    pub(super) line: usize,
    /// No event of this build can fire it.
    pub(super) cannot_fire: bool,
    /// Fields of its condition that never have a value, with the reason.
    pub(super) fields_without_value: Vec<Without>,
    /// Events that it is about and that are not delivered; empty for a rule about more events than anyone would name.
    pub(super) events_not_delivered: Vec<String>,
    /// Values that look like the name of a list, misspelt.
    pub(super) lists_meant: Vec<String>,
    /// All of this in a sentence.
    pub(super) message: String,
}

/// A field without value.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Without {
    /// Its name.
    pub(super) field: String,
    /// Why it never has a value.
    pub(super) reason: &'static str,
}

/// A rule that names more events does not mean each of them.
const MANY_EVENTS: usize = 40;

pub(super) fn of(set: &RuleSet) -> Vec<Note> {
    let notes = (0..set.rules().len() as u32).map(RuleIndex).filter_map(|index| note(set, index));
    notes.collect()
}

fn note(set: &RuleSet, index: RuleIndex) -> Option<Note> {
    let rule = set.rule(index);
    // Injected events belong to every rule and are of no rule.
    let names: Vec<&str> = rule.event_names().into_iter().filter(|name| *name != "asyncevent").collect();
    let (delivered, missing): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| is_delivered(name));
    let world = World { catalogue: set.catalogue(), delivered: &delivered };
    let mut without = BTreeSet::new();
    set.condition(index).operands(&mut |operand| {
        without.extend(world.without_value(operand).filter(|without| world.declares(&without.field)));
    });
    let cannot_fire = delivered.is_empty() || world.truth(set.condition(index)) == Truth::Never;
    let events: Vec<&str> = if missing.len() > MANY_EVENTS { Vec::new() } else { missing };
    let lists = lists_meant(set, index);
    if without.is_empty() && events.is_empty() && lists.is_empty() && !cannot_fire {
        return None;
    }
    Some(Note {
        rule: rule.name.clone(),
        file: rule.defined.0.clone(),
        line: rule.defined.1,
        cannot_fire,
        message: message(rule, cannot_fire, &without, &events, &lists),
        fields_without_value: without.into_iter().collect(),
        events_not_delivered: events.into_iter().map(str::to_owned).collect(),
        lists_meant: lists.into_iter().map(|(value, _)| value).collect(),
    })
}

fn message(
    rule: &Rule,
    cannot_fire: bool,
    without: &BTreeSet<Without>,
    events: &[&str],
    lists: &BTreeSet<(String, String)>,
) -> String {
    let mut parts = Vec::new();
    if !events.is_empty() {
        parts.push(format!("the sensor does not deliver {}", events.join(", ")));
    }
    let mut reasons: Vec<&str> = without.iter().map(|without| without.reason).collect();
    reasons.sort_unstable();
    reasons.dedup();
    for reason in reasons {
        let fields = without.iter().filter(|without| without.reason == reason).map(|without| without.field.as_str());
        let fields: Vec<&str> = fields.collect();
        let have = if fields.len() == 1 { "has" } else { "have" };
        parts.push(format!("{} never {have} a value ({reason})", fields.join(", ")));
    }
    if parts.is_empty() && cannot_fire {
        parts.push("the sensor delivers none of its events".to_owned());
    }
    let sees = !parts.is_empty();
    parts.extend(
        lists.iter().map(|(value, list)| format!("{value} is compared as text; did you mean the list '{list}'?")),
    );
    let verdict = match (cannot_fire, sees) {
        (true, _) => " cannot fire in this build",
        (false, true) => " sees less in this build",
        (false, false) => "",
    };
    format!("rule \"{}\"{verdict}: {}", rule.name, parts.join("; "))
}

/// Values of lists that are nearly the name of a list, with that name. A name that no list has is a text like any other.
fn lists_meant(set: &RuleSet, index: RuleIndex) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let names = || set.definitions().lists.iter().map(|(name, _)| name.as_str());
    each_check(set.condition(index), &mut |right| {
        let Right::List(values, _) = right else { return };
        // Names of lists are words with underscores; those of programs are not, mostly.
        let values = values.iter().filter_map(|value| std::str::from_utf8(value).ok());
        for value in values.filter(|value| value.len() > 4 && value.contains('_')) {
            let list = purser_rules::nearest(value, names()).filter(|_| !names().any(|name| name == value));
            found.extend(list.map(|list| (value.to_owned(), list.to_owned())));
        }
    });
    found
}

fn each_check(expr: &Expr, at: &mut impl FnMut(&Right)) {
    match expr {
        Expr::And(children, _) | Expr::Or(children, _) => children.iter().for_each(|child| each_check(child, at)),
        Expr::Not(child, _) => each_check(child, at),
        Expr::Check { right, .. } => at(right),
        Expr::Macro(..) | Expr::Exists(..) => {}
    }
}

fn is_delivered(event: &str) -> bool {
    !sensor::hooks_of(event).is_empty()
}

/// What this build can tell of an event.
struct World<'a> {
    catalogue: &'a Catalogue,
    /// Events of the rule that are delivered.
    delivered: &'a [&'a str],
}

/// What becomes of a condition, whatever the event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Truth {
    Never,
    Always,
    Open,
}

impl World<'_> {
    /// The name of a field that never has a value, with the reason.
    fn without_value(&self, operand: &Operand) -> Option<Without> {
        let Operand::Field { name, .. } = operand else { return None };
        if let Some(parameter) = parameter(name) {
            let has_value =
                |event: &&str| has_parameter(event, parameter) && !collected::absent_parameter(event, parameter);
            let none = !self.delivered.is_empty() && !self.delivered.iter().any(has_value);
            let reason = "no event that is delivered to the rule fills it in";
            return none.then(|| Without { field: name.clone(), reason });
        }
        let reason = collected::absent(self.field(name)?)?;
        Some(Without { field: name.clone(), reason })
    }

    /// Whether it is worth a word that the field has no value: not for a parameter of events that are not delivered anyway.
    fn declares(&self, name: &str) -> bool {
        parameter(name).is_none_or(|parameter| self.delivered.iter().any(|event| has_parameter(event, parameter)))
    }

    /// The field of a name, which may end in an argument after a dot.
    fn field(&self, name: &str) -> Option<FieldId> {
        let dotted = || self.catalogue.get(name.rsplit_once('.')?.0);
        self.catalogue.get(name).or_else(dotted).map(|field| field.id)
    }

    /// A check of something without value is false.
    fn truth(&self, expr: &Expr) -> Truth {
        match expr {
            Expr::And(children, _) => self.fold(children, Truth::Never, Truth::Always),
            Expr::Or(children, _) => self.fold(children, Truth::Always, Truth::Never),
            Expr::Not(child, _) => match self.truth(child) {
                Truth::Never => Truth::Always,
                Truth::Always => Truth::Never,
                Truth::Open => Truth::Open,
            },
            Expr::Macro(..) => Truth::Open,
            Expr::Exists(..) | Expr::Check { .. } => {
                let mut without = false;
                expr.operands(&mut |operand| without |= self.without_value(operand).is_some());
                if without || self.names_nothing_delivered(expr) { Truth::Never } else { Truth::Open }
            }
        }
    }

    /// The truth of several: `decides` if any is that, `neutral` if all are.
    fn fold(&self, children: &[std::sync::Arc<Expr>], decides: Truth, neutral: Truth) -> Truth {
        let mut all = neutral;
        for child in children {
            match self.truth(child) {
                truth if truth == decides => return decides,
                truth if truth == neutral => {}
                _ => all = Truth::Open,
            }
        }
        all
    }

    /// `evt.type` is compared with names of events that are not delivered, all of them.
    fn names_nothing_delivered(&self, expr: &Expr) -> bool {
        let Expr::Check { left: Operand::Field { name, arg: None, .. }, op, modifier: None, right, .. } = expr else {
            return false;
        };
        let values = match right {
            Right::Value(value, _) => std::slice::from_ref(value),
            Right::List(values, _) => values,
            Right::Operand(_) => return false,
        };
        name == "evt.type"
            && matches!(op, Op::Eq | Op::EqEq | Op::In)
            && !values.iter().any(|value| self.delivered.iter().any(|event| event.as_bytes() == value))
    }
}

/// The parameter of `evt.arg.PARAMETER`.
fn parameter(field: &str) -> Option<&str> {
    field.strip_prefix("evt.arg.").or(field.strip_prefix("evt.rawarg."))
}

fn has_parameter(event: &str, parameter: &str) -> bool {
    purser_rules::EventCode::by_name(event).is_some_and(|code| code.event().param(parameter.as_bytes()).is_some())
}
