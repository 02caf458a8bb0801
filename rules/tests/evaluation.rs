//! Facts that are not known yet, names of files, and what is reported.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::cell::Cell;

use purser_rules::format::{Clock, Format};
use purser_rules::{
    AlertOptions, Catalogue, Decision, EventCode, Fact, Facts, FieldId, FieldRef, LoadOptions, Matches, Outcome,
    Priority, Reason, RuleMatching, RuleSet, Selection, Selector, Source, Value,
};
use time::UtcOffset;

const RULES: &str = r"
- rule: verdict
  desc: d
  condition: evt.type=execve and proc.name=x and manifest.verdict=unlisted
  output: verdict=%manifest.verdict name=%proc.name %fd.name
  priority: CRITICAL
  tags: [b, a]
- rule: negated
  desc: d
  condition: evt.type=execve and not (proc.name=x or manifest.verdict=expected)
  output: o
  priority: NOTICE
- rule: plain
  desc: d
  condition: evt.type=execve and (proc.name=x or proc.name startswith y or proc.name in (z) or proc.name endswith w)
  output: o
  priority: INFO
";

struct Exec {
    name: &'static [u8],
    verdict: Option<&'static [u8]>,
    asked: Cell<usize>,
}

impl Facts for Exec {
    fn event(&self) -> EventCode {
        EventCode::EXECVE
    }

    fn fact(&self, field: FieldRef<'_>) -> Fact<'_> {
        match field.id {
            FieldId::PROC_NAME => Fact::text(self.name),
            FieldId::EVT_RAWTIME => Fact::One(Value::U64(1_470_327_477_881_781_397)),
            FieldId::MANIFEST_VERDICT => {
                self.asked.set(self.asked.get() + 1);
                self.verdict.map_or(Fact::Pending, Fact::text)
            }
            _ => Fact::Missing(Reason::NotApplicable),
        }
    }

    fn element(&self, _: FieldRef<'_>, _: usize) -> Fact<'_> {
        Fact::Missing(Reason::NotApplicable)
    }
}

fn exec(name: &'static str, verdict: Option<&'static str>) -> Exec {
    Exec { name: name.as_bytes(), verdict: verdict.map(str::as_bytes), asked: Cell::new(0) }
}

fn rules(options: &LoadOptions) -> RuleSet {
    let source = Source { name: "rules.yaml", text: RULES.as_bytes() };
    RuleSet::load(&[source], options).expect("rules").0
}

#[test]
fn what_is_not_known_yet_is_neither_true_nor_false() {
    let rules = rules(&LoadOptions::default());
    let index = |name| rules.find(name).expect("rule");
    let mut matches = Matches::new();

    rules.evaluate(&exec("x", None), &mut matches);
    assert_eq!((matches.matched(), matches.pending()), (&[index("plain")][..], &[index("verdict")][..]));
    // An earlier rule may still win: nothing is reported until it is decided.
    let waiting = Decision { report: &[], wait: &[index("verdict")], fallback: Some(index("plain")) };
    assert_eq!(matches.decide(RuleMatching::First), waiting);
    let all = Decision { report: &[index("plain")], wait: &[index("verdict")], fallback: None };
    assert_eq!(matches.decide(RuleMatching::All), all);
    assert_eq!(rules.evaluate_rule(index("verdict"), &exec("x", Some("unlisted"))), Outcome::True);
    assert_eq!(rules.evaluate_rule(index("verdict"), &exec("x", Some("expected"))), Outcome::False);

    // The negation is as unknown as what it negates, unless something else decides.
    rules.evaluate(&exec("q", None), &mut matches);
    assert_eq!((matches.matched(), matches.pending()), (&[][..], &[index("negated")][..]));
}

#[test]
fn a_verdict_is_asked_for_once_and_only_if_it_matters() {
    let rules = rules(&LoadOptions::default());
    let mut matches = Matches::new();
    let event = exec("q", Some("unlisted"));
    rules.evaluate(&event, &mut matches);
    assert_eq!(event.asked.get(), 1, "one rule of two needs it");
    assert_eq!(rules.rule(matches.matched()[0]).name, "negated");
}

#[test]
fn merged_checks_are_the_checks() {
    let rules = rules(&LoadOptions::default());
    let plain = rules.find("plain").expect("rule");
    for (name, want) in
        [("x", true), ("xx", false), ("yes", true), ("z", true), ("zz", false), ("how", true), ("", false)]
    {
        let got = rules.evaluate_rule(plain, &exec(name, Some("expected"))) == Outcome::True;
        assert_eq!(got, want, "{name}");
    }
    assert_eq!(rules.evaluate_rule(plain, &exec("x\0y", None)), Outcome::True, "text ends at its first NUL");
}

#[test]
fn selection_and_priority() {
    let enabled = |options: &LoadOptions| -> Vec<String> {
        rules(options).rules().iter().filter(|rule| rule.enabled).map(|rule| rule.name.clone()).collect()
    };
    let by = |enable, by| Selection { enable, by };
    let mut options = LoadOptions { min_priority: Priority::Notice, ..LoadOptions::default() };
    assert_eq!(enabled(&options), ["verdict", "negated"]);
    options.selection = vec![
        by(false, Selector::Wildcard("*".to_owned())),
        by(true, Selector::Tags(vec!["a".to_owned()])),
        by(true, Selector::Exact("plain".to_owned())),
    ];
    assert_eq!(enabled(&options), ["verdict"], "the priority still counts");
    assert!(rules(&options).needs().reads(FieldId::MANIFEST_VERDICT));
    options.selection.push(by(false, Selector::Substring("verd".to_owned())));
    assert!(rules(&options).needs().events.is_empty(), "nothing is needed for no rule");
}

#[test]
fn alerts() {
    let rules = rules(&LoadOptions { append_output: Vec::new(), ..LoadOptions::default() });
    let options = AlertOptions { hostname: "node".to_owned(), time_format_iso_8601: true, ..AlertOptions::default() };
    let alert = rules.alert(rules.find("verdict").expect("rule"), &exec("a\"b", Some("unlisted")), &options);
    let object = serde_json::to_string(&alert.to_json(&options)).expect("JSON");
    assert_eq!(
        object,
        r#"{"hostname":"node","output":"2016-08-04T16:17:57.881781397+0000: Critical verdict=unlisted name=a\\\"b <NA>","output_fields":{"evt.time.iso8601":1470327477881781397,"fd.name":null,"manifest.verdict":"unlisted","proc.name":"a\"b"},"priority":"Critical","rule":"verdict","source":"syscall","tags":["a","b"],"time":"2016-08-04T16:17:57.881781397Z"}"#
    );
}

/// Found by fuzzing: checks that print alike are not the same check.
#[test]
fn checks_that_print_alike() {
    for (first, second, matches) in [
        ("proc.name in ()", "proc.name in (\"\")", [false, true]),
        ("proc.name != \"val(proc.name)\"", "proc.name != val(proc.name)", [true, false]),
        ("tolower(\"proc.name\") = proc.name", "tolower(proc.name) = proc.name", [true, false]),
    ] {
        for swapped in [false, true] {
            let conditions = if swapped { [second, first] } else { [first, second] };
            let rule = |condition: &&str| {
                serde_json::json!({"rule": condition, "desc": "d", "priority": "INFO", "output": "o",
                    "condition": format!("evt.type=execve and {condition}")})
            };
            let text = serde_json::Value::from(conditions.iter().map(rule).collect::<Vec<_>>()).to_string();
            let source = Source { name: "rules.yaml", text: text.as_bytes() };
            let (rules, _) = RuleSet::load(&[source], &LoadOptions::default()).expect("rules");
            let mut found = Matches::new();
            rules.evaluate(&exec("", None), &mut found);
            let names: Vec<_> = found.matched().iter().map(|rule| rules.rule(*rule).name.as_str()).collect();
            let expected: Vec<_> =
                conditions.into_iter().filter(|name| matches[usize::from(*name == second)]).collect();
            assert_eq!(names, expected);
        }
    }
}

/// An exec as it is seen where local time is another.
struct Elsewhere(Exec, UtcOffset);

impl Facts for Elsewhere {
    fn event(&self) -> EventCode {
        self.0.event()
    }

    fn fact(&self, field: FieldRef<'_>) -> Fact<'_> {
        self.0.fact(field)
    }

    fn element(&self, field: FieldRef<'_>, index: usize) -> Fact<'_> {
        self.0.element(field, index)
    }

    fn clock(&self) -> Clock {
        Clock { offset: self.1 }
    }
}

#[test]
fn conditions_compare_the_clock_time_that_outputs_print() {
    let east = UtcOffset::from_hms(9, 30, 0).expect("an offset");
    let west = UtcOffset::from_hms(-17, 0, 0).expect("an offset");
    for (offset, date, time) in
        [(UtcOffset::UTC, "2016-08-04", "16:17:57"), (east, "2016-08-05", "01:47:57"), (west, "2016-08-03", "23:17:57")]
    {
        let facts = Elsewhere(exec("x", None), offset);
        for (field, value) in [
            ("evt.time", format!("{time}.881781397")),
            ("evt.time.s", time.to_owned()),
            ("evt.datetime", format!("{date} {time}.881781397")),
            ("evt.datetime.s", format!("{date} {time}")),
            ("tolower(evt.time.s)", time.to_owned()),
            ("evt.time.iso8601", "2016-08-04T16:17:57.881781397+0000".to_owned()),
        ] {
            let rule = format!(
                "- {{rule: r, desc: d, priority: INFO, output: \"%{field}\", condition: evt.type=execve and {field} = \"{value}\"}}"
            );
            let source = Source { name: "clock", text: rule.as_bytes() };
            let (rules, _) = RuleSet::load(&[source], &LoadOptions::default()).expect("a rule");
            let mut matches = Matches::new();
            rules.evaluate(&facts, &mut matches);
            assert_eq!(matches.matched().len(), 1, "{field} = {value}");
            assert!(rules.alert(matches.matched()[0], &facts, &AlertOptions::default()).message.starts_with(&value));
        }
    }
}

#[test]
fn the_name_of_one_field_and_nothing_else() {
    let catalogue = Catalogue::builtin();
    for name in ["proc.name", "proc.aname[2]", "evt.arg.flags", "evt.arg[0]", "tolower(proc.name)", "evt.time"] {
        assert!(Format::field(name, catalogue).is_ok_and(|format| format.fields().len() == 1), "{name}");
    }
    for name in [
        "",
        "x",
        "proc.namex",
        "proc.name x",
        " proc.name",
        "10proc.name",
        "%proc.name",
        "proc.aname[",
        "proc.name%fd.name",
    ] {
        let error = Format::field(name, catalogue).expect_err(name);
        assert!(error.message.contains(name) && error.unknown_filter, "{error}");
    }
}

#[test]
fn names_that_conditions_compare_addresses_with_are_told() {
    let text = r#"
- list: pools
  items: ["b.test", a.test]
- macro: known
  condition: (fd.sip.name in (pools) or not fd.cip.name = "c.test")
- rule: names
  desc: d
  condition: evt.type=connect and known and fd.rip.name != a.test and fd.name contains other.test
  output: o
  priority: INFO
- rule: off
  desc: d
  condition: evt.type=connect and fd.lip.name = off.test
  output: o
  priority: INFO
  enabled: false
- rule: printed
  desc: d
  condition: evt.type=connect and fd.sip.name exists
  output: "%fd.sip.name"
  priority: INFO
"#;
    let source = Source { name: "names", text: text.as_bytes() };
    let (rules, _) = RuleSet::load(&[source], &LoadOptions::default()).expect("rules");
    assert_eq!(rules.needs().domains, ["a.test", "b.test", "c.test"]);
}
