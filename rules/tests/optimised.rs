//! Rules evaluated together, with shared and merged checks, come out as each condition alone, check by check.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use purser_rules::parse::{Expr, parse};
use purser_rules::{
    Catalogue, EventCode, Fact, Facts, FieldId, FieldRef, Filter, LoadOptions, Matches, Outcome, Reason, RuleSet,
    Source, Value,
};

const TEXTS: [&str; 10] = ["", "a", "ab", "abc", "b", "bc", "/a", "/a/b", "c", "ca"];

#[derive(Clone, Debug)]
enum Known {
    Missing,
    Pending,
    Text(Vec<u8>),
    Many(Vec<Vec<u8>>),
    Bool(bool),
}

#[derive(Debug)]
struct Event(BTreeMap<FieldId, Known>);

impl Facts for Event {
    fn event(&self) -> EventCode {
        EventCode::OPENAT
    }

    fn fact(&self, field: FieldRef<'_>) -> Fact<'_> {
        if field.id == FieldId::EVT_TYPE {
            return Fact::text(b"openat");
        }
        match self.0.get(&field.id) {
            None | Some(Known::Missing) => Fact::Missing(Reason::Unknown),
            Some(Known::Pending) => Fact::Pending,
            Some(Known::Text(text)) => Fact::text(text),
            Some(Known::Many(texts)) => Fact::Many(texts.len()),
            Some(Known::Bool(value)) => Fact::One(Value::Bool(*value)),
        }
    }

    fn element(&self, field: FieldRef<'_>, index: usize) -> Fact<'_> {
        match self.0.get(&field.id) {
            Some(Known::Many(texts)) => {
                texts.get(index).map_or(Fact::Missing(Reason::Unknown), |text| Fact::text(text))
            }
            _ => Fact::Missing(Reason::Unknown),
        }
    }
}

/// What a condition comes out as, each check compiled and evaluated on its own.
fn naive(expr: &std::sync::Arc<Expr>, event: &Event) -> Outcome {
    let combined = |children: &[std::sync::Arc<Expr>], decisive: Outcome| {
        let outcomes: Vec<_> = children.iter().map(|child| naive(child, event)).collect();
        if outcomes.contains(&decisive) {
            decisive
        } else if outcomes.contains(&Outcome::Pending) {
            Outcome::Pending
        } else {
            decisive.negated()
        }
    };
    match expr.as_ref() {
        Expr::And(children, _) => combined(children, Outcome::False),
        Expr::Or(children, _) => combined(children, Outcome::True),
        Expr::Not(child, _) => naive(child, event).negated(),
        _ => Filter::new(expr, Catalogue::builtin()).expect("a check").0.evaluate(event),
    }
}

fn text() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&TEXTS[..])
}

fn check() -> impl Strategy<Value = String> {
    let field = proptest::sample::select(&["fd.name", "proc.name", "proc.aname", "manifest.verdict"][..]);
    let ops = ["=", "!=", "startswith", "endswith", "contains", "icontains", "glob"];
    let one = (field.clone(), proptest::sample::select(ops.to_vec()), text())
        .prop_map(|(field, op, value)| format!("{field} {op} \"{value}\""));
    let listed =
        (field, proptest::sample::select(vec!["in", "intersects", "pmatch"]), proptest::collection::vec(text(), 1..4))
            .prop_map(|(field, op, values)| {
                let values: Vec<_> = values.iter().map(|value| format!("\"{value}\"")).collect();
                format!("{field} {op} ({})", values.join(", "))
            });
    let fixed = proptest::sample::select(vec![
        "evt.type = openat",
        "evt.type = open",
        "evt.is_open_write = true",
        "fd.name exists",
        "proc.aname exists",
    ]);
    prop_oneof![4 => one, 3 => listed, 1 => fixed.prop_map(str::to_owned)]
}

fn condition() -> impl Strategy<Value = String> {
    check().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..5).prop_map(|parts| format!("({})", parts.join(" and "))),
            proptest::collection::vec(inner.clone(), 2..5).prop_map(|parts| format!("({})", parts.join(" or "))),
            inner.prop_map(|part| format!("not ({part})")),
        ]
    })
}

/// Rules that have much in common: each is some of a few conditions.
fn conditions() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(condition(), 3..9).prop_flat_map(|parts| {
        let some = proptest::sample::subsequence(parts.clone(), 1..=parts.len());
        proptest::collection::vec(some.prop_map(|some| some.join(" and ")), 1..14)
    })
}

fn known() -> impl Strategy<Value = Known> {
    let bytes = || {
        (text(), proptest::option::of(text())).prop_map(|(text, more)| match more {
            // Texts with a NUL inside.
            Some(more) if more.len() == 2 => [text.as_bytes(), b"\0", more.as_bytes()].concat(),
            _ => text.as_bytes().to_vec(),
        })
    };
    prop_oneof![
        1 => Just(Known::Missing),
        1 => Just(Known::Pending),
        5 => bytes().prop_map(Known::Text),
        2 => proptest::collection::vec(bytes(), 0..4).prop_map(Known::Many),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    (known(), known(), known(), known(), any::<bool>()).prop_map(|(name, process, ancestors, verdict, write)| {
        // Only fields of several values have several.
        let single = |known: Known| match known {
            Known::Many(texts) => texts.into_iter().next().map_or(Known::Missing, Known::Text),
            other => other,
        };
        Event(BTreeMap::from([
            (FieldId::FD_NAME, single(name)),
            (FieldId::PROC_NAME, single(process)),
            (FieldId::PROC_ANAME, ancestors),
            (FieldId::MANIFEST_VERDICT, single(verdict)),
            (FieldId::EVT_IS_OPEN_WRITE, Known::Bool(write)),
        ]))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn rules_together_are_each_condition_alone(
        conditions in conditions(),
        events in proptest::collection::vec(event(), 1..12),
    ) {
        let rules: Vec<_> = conditions
            .iter()
            .enumerate()
            .map(|(at, condition)| serde_json::json!({
                "rule": format!("r{at}"), "desc": "d", "condition": condition, "output": "o", "priority": "INFO",
            }))
            .collect();
        let text = serde_json::to_string(&rules).expect("JSON");
        let source = Source { name: "rules.yaml", text: text.as_bytes() };
        let (rules, _) = RuleSet::load(&[source], &LoadOptions::default()).expect("rules");
        let mut matches = Matches::new();
        for event in &events {
            rules.evaluate(event, &mut matches);
            for (at, condition) in conditions.iter().enumerate() {
                let rule = rules.find(&format!("r{at}")).expect("rule");
                let got = match (matches.matched().contains(&rule), matches.pending().contains(&rule)) {
                    (true, false) => Outcome::True,
                    (false, true) => Outcome::Pending,
                    (false, false) => Outcome::False,
                    (true, true) => panic!("{condition} is both"),
                };
                let want = naive(&parse(condition.as_bytes(), 100).expect("condition"), event);
                prop_assert_eq!(got, want, "{} of {:?}", condition, event);
                prop_assert_eq!(rules.evaluate_rule(rule, event), want, "{} alone, of {:?}", condition, event);
            }
        }
    }
}
